"""`perprisk backtest`: margin policies against each other in the simulated venue, at equal average margin.

A world is one venue with its prices and traders; every policy is run in the same worlds. `account-risk` runs
as it is; policies with a strength are first brought to its average margin in worlds of their own
(calibration), and their strengths are then frozen. Each run's figures are a file of their own, so that a
backtest that was cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from exchange.errors import InputError, WorkError
from exchange.simulation.venue import Venue
from pipelines import closed_loop, simulate
from pipelines.backtest_figures import POLICY, STATIC, paired, picture, table
from pipelines.closed_loop import POLICIES, Task
from pipelines.damage import shown
from pipelines.output import atomic_file
from pipelines.progress import progress

PLAN, RUNS, RESULT, PICTURE = "plan.json", "runs", "backtest.json", "backtest.png"
SCENARIOS = ("default", "crash", "default", "october-2025", "default", "calm")
"""Of the generated worlds, in turns."""
FIRST_SEED, FIRST_CALIBRATION_SEED = 10_000, 20_000
TOLERANCE = 0.005
"""Of the average margin to which strengths are brought, relative."""
MOST_TRIES = 6


class World(NamedTuple):
    """One venue to be run: on generated prices, or on one path of a dataset of prices."""

    name: str
    seed: int
    scenario: str = ""
    path: int = -1


class Plan(NamedTuple):
    """What a backtest was asked for; a folder of runs belongs to one."""

    model: str
    prices: str
    accounts: int
    days: float
    worlds: tuple[World, ...]
    calibration: tuple[World, ...]


def run(
    model: Path,
    prices: Path | None,
    out: Path,
    policies: Sequence[str],
    seeds: int,
    calibration: int,
    accounts: int,
    days: float,
    jobs: int | None = None,
) -> int:
    """Run what is missing and write the result into the folder `out`; 0 when it is whole.

    `jobs` are processes, as many as there are processors to run on if None.
    Raises InputError for policies that are none and for a folder that holds anything else.
    """
    unknown = [name for name in policies if name not in POLICIES]
    if unknown:
        raise InputError(f"--policy: must be one of {', '.join(POLICIES)}, not {shown(unknown[0])}")
    names = tuple(dict.fromkeys((STATIC, POLICY, *(policies or POLICIES))))
    plan = Plan(
        _digest(model / "manifest.json"),
        "" if prices is None else _digest(prices / "dataset.json"),
        accounts,
        days,
        _worlds(FIRST_SEED, seeds, prices),
        _worlds(FIRST_CALIBRATION_SEED, calibration, None),
    )
    _claim(out, plan)
    bench = _Bench(out / RUNS, plan, model, prices, jobs or len(os.sched_getaffinity(0)))
    strengths, margins = bench.calibrate(names)
    found = bench.all(plan.worlds, names, strengths)
    result = {
        "policies": {},
        "paired": {},
        "seeds": [world.seed for world in plan.worlds],
        "paths": [world.name for world in plan.worlds],
    } | paired(found)
    result["strengths"] = strengths
    result["calibrated_average_margin"] = margins
    result["accounts"], result["days"] = accounts, days
    print(table(result))
    with atomic_file(out / PICTURE) as file:
        file.write_bytes(picture(result))
    with atomic_file(out / RESULT) as file:
        file.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def make_world(world: World, accounts: int, days: float, prices: Path | None) -> Venue:
    """The venue of a world, before its first minute."""
    if world.path < 0:
        return simulate.generated_venue(accounts, days, world.seed, world.scenario)
    assert prices is not None
    return simulate.replayed_venue(prices, world.path, accounts, days, world.seed)


def _worlds(first_seed: int, count: int, prices: Path | None) -> tuple[World, ...]:
    made = [
        World(f"{scenario}-{seed}", seed, scenario)
        for seed, scenario in (
            (first_seed + number, SCENARIOS[number % len(SCENARIOS)]) for number in range(count)
        )
    ]
    if prices is not None:
        paths = simulate.count_paths(prices)
        made += [World(f"{prices.name}-{path + 1}", first_seed + path, path=path) for path in range(paths)]
    return tuple(made)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error


def _claim(out: Path, plan: Plan) -> None:
    """Make the folder the one of this plan; InputError where it is another's."""
    told = json.dumps(plan)
    file = out / PLAN
    try:
        if file.is_file():
            if file.read_text() != told:
                raise InputError(
                    f"{out}: holds a backtest of other worlds or of another model; choose another folder"
                )
            return
        out.mkdir(exist_ok=True)
        if any(out.iterdir()):
            raise InputError(f"{out}: is not empty and holds no backtest")
        (out / RUNS).mkdir()
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from error
    with atomic_file(file) as new:
        new.write_text(told)


class _Bench:
    """Runs of a plan, each done once."""

    def __init__(self, folder: Path, plan: Plan, model: Path, prices: Path | None, jobs: int) -> None:
        self._folder = folder
        self._plan = plan
        self._model = model
        self._prices = prices
        self._jobs = jobs
        folder.mkdir(exist_ok=True)

    def calibrate(self, names: Iterable[str]) -> tuple[dict[str, float], dict[str, float]]:
        """Strengths that give `account-risk`'s average margin in calibration worlds, and what they give."""
        worlds = self._plan.calibration
        strengths = {name: POLICIES[name].strength for name in names}
        scaled = [name for name in names if POLICIES[name].is_scaled]
        margins: dict[str, float] = {}
        if not worlds:
            return strengths, margins
        aim = self._margin(worlds, POLICY, 1.0)
        margins[POLICY] = aim
        for name in scaled:
            if POLICIES[name].other_draws and STATIC in margins:
                strengths[name] = strengths[STATIC]  # the same policy
                continue
            strengths[name], margins[name] = self._brought_to(aim, name)
        return strengths, margins

    def _brought_to(self, aim: float, name: str) -> tuple[float, float]:
        """The strength whose average margin is `aim`, by the secant through the two nearest tries."""
        worlds, start = self._plan.calibration, POLICIES[name].strength
        tried = [(start, self._margin(worlds, name, start))]
        following = start * (aim / tried[0][1]) if POLICIES[name].lifts else start * 0.5
        while len(tried) < MOST_TRIES and abs(tried[-1][1] / aim - 1.0) > TOLERANCE:
            tried.append((following, self._margin(worlds, name, following)))
            (first, at_first), (last, at_last) = tried[-2:]
            if at_last == at_first:
                break
            following = max(last + (aim - at_last) * (last - first) / (at_last - at_first), 0.0)
        return min(tried, key=lambda one: abs(one[1] - aim))

    def _margin(self, worlds: Sequence[World], name: str, strength: float) -> float:
        found = self.all(worlds, (name,), {name: strength})[name]
        # weighted by notional over all worlds, as within one
        weight = [each["open_interest_usd"] for each in found]
        return sum(w * each["average_margin_rate"] for w, each in zip(weight, found, strict=True)) / sum(
            weight
        )

    def all(
        self, worlds: Sequence[World], names: Sequence[str], strengths: dict[str, float]
    ) -> dict[str, list[dict[str, float]]]:
        """Metrics by policy, one entry a world; what has been run before is read."""
        wanted = [(world, name, strengths[name]) for name in names for world in worlds]
        missing = [one for one in wanted if not self._file(*one).is_file()]
        # the oracle reads what static did in the same world
        for stage in (
            [one for one in missing if not POLICIES[one[1]].knows_future],
            [one for one in missing if POLICIES[one[1]].knows_future],
        ):
            if stage:
                self._run(stage, strengths)
        return {
            name: [self._read(world, name, strengths[name])["metrics"] for world in worlds] for name in names
        }

    def _run(self, wanted: Sequence[tuple[World, str, float]], strengths: dict[str, float]) -> None:
        title = f"{len(wanted)} runs of {', '.join(dict.fromkeys(name for _, name, _ in wanted))}"
        print(title, file=sys.stderr, flush=True)
        with progress(len(wanted), title) as bar, self._pool() as submit:
            waiting = {
                submit(_run_into, self._file(*one), self._task(*one, strengths)): one for one in wanted
            }
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    world, name, _ = waiting.pop(future)
                    problem = future.exception()
                    if problem is not None:
                        for other in waiting:
                            other.cancel()
                        raise WorkError(f"{world.name} under {name}: {problem}") from problem
                    bar.advance(1)

    @contextmanager
    def _pool(self) -> Iterator[Callable[..., Future[None]]]:
        """Where runs are done: in processes of their own, or one after the other in this one."""
        if self._jobs == 1:
            yield _at_once
            return
        with ProcessPoolExecutor(self._jobs, multiprocessing.get_context("spawn")) as pool:
            yield pool.submit

    def _task(self, world: World, name: str, strength: float, strengths: dict[str, float]) -> Task:
        future: tuple[tuple[int, int], ...] = ()
        if POLICIES[name].knows_future:
            seen = self._read(world, STATIC, strengths[STATIC])["negative"]
            future = tuple((int(who), int(at)) for who, at in seen)
        make = partial(make_world, world, self._plan.accounts, self._plan.days, self._prices)
        return Task(world.name, name, strength, make, self._model, future)

    def _file(self, world: World, name: str, strength: float) -> Path:
        return self._folder / f"{world.name}.{name}.{strength:.9g}.json"

    def _read(self, world: World, name: str, strength: float) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file(world, name, strength).read_text())
        return found


def _at_once(work: Callable[..., None], *arguments: Any) -> Future[None]:
    future: Future[None] = Future()
    try:
        work(*arguments)
        future.set_result(None)
    except Exception as problem:
        future.set_exception(problem)
    return future


def _run_into(file: Path, task: Task) -> None:
    """Run a task in a process of its own, and write what came of it."""
    found = closed_loop.run(task)
    with atomic_file(file) as new:
        new.write_text(json.dumps(found))
