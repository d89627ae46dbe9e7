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
from exchange.simulation.settings import Settings
from exchange.simulation.venue import Venue
from pipelines import closed_loop, simulate
from pipelines.backtest_figures import NULL, POLICY, STATIC, against, frontier, paired, told
from pipelines.backtest_runs import read_metrics, read_run, write_run
from pipelines.closed_loop import POLICIES, Task
from pipelines.damage import shown
from pipelines.output import atomic_file
from pipelines.plots_backtest import pictures
from pipelines.progress import progress

PLAN, RUNS, RESULT = "plan.json", "runs", "backtest.json"
SCENARIOS = ("default", "crash", "default", "october-2025", "default", "calm")
"""Of the generated worlds, in turns."""
FIRST_SEED, FIRST_CALIBRATION_SEED = 10_000, 20_000
TOLERANCE = 0.005
"""Of the average margin to which strengths are brought, relative."""
MOST_TRIES = 6


WITHOUT: dict[str, dict[str, Any]] = {
    "impact": {"impact": 0.0},
    "reaction": {"stress_a_day": 0.0, "mood_power": 0.0},
}
"""Settings of worlds that lack something: orders that move prices, traders who react to danger."""
FRONTIER: dict[str, tuple[float, ...]] = {
    STATIC: (1.0, 1.1, 1.25, 1.5, 2.0),
    POLICY: (0.5, 1.0, 2.0, 4.0),
}
"""Strengths whose cost and use are drawn against each other."""


class World(NamedTuple):
    """One venue to be run: on generated prices, or on one path of a dataset of prices."""

    name: str
    seed: int
    scenario: str = ""
    prices: int = -1
    """Which dataset of prices, -1 none."""
    path: int = -1
    without: str = ""
    """A name of `WITHOUT`."""


class Plan(NamedTuple):
    """What a backtest was asked for; a folder of runs belongs to one."""

    model: str
    prices: tuple[str, ...]
    accounts: int
    days: float
    worlds: tuple[World, ...]
    calibration: tuple[World, ...]


def run(
    model: Path,
    prices: Sequence[Path],
    out: Path,
    policies: Sequence[str],
    seeds: int,
    calibration: int,
    accounts: int,
    days: float,
    frontier_worlds: int = 0,
    without_worlds: int = 0,
    jobs: int | None = None,
) -> int:
    """Run what is missing and write the result into the folder `out`; 0 when it is whole.

    The first worlds are run again with other strengths (`frontier_worlds`), and without what the result might
    hang on (`without_worlds`, see `WITHOUT`). `jobs` are processes, as many as there are processors if None.
    Raises InputError for policies that are none and for a folder that holds anything else.
    """
    unknown = [name for name in policies if name not in POLICIES]
    if unknown:
        raise InputError(f"--policy: must be one of {', '.join(POLICIES)}, not {shown(unknown[0])}")
    names = tuple(dict.fromkeys((STATIC, POLICY, *(policies or POLICIES))))
    plan = Plan(
        _digest(model / "manifest.json"),
        tuple(_digest(each / "dataset.json") for each in prices),
        accounts,
        days,
        _worlds(FIRST_SEED, seeds, prices),
        _worlds(FIRST_CALIBRATION_SEED, calibration, ()),
    )
    _claim(out, plan)
    bench = _Bench(out / RUNS, plan, model, prices, jobs or len(os.sched_getaffinity(0)))
    strengths, brought_to = bench.calibrate(names)
    found = bench.all(plan.worlds, names, strengths)
    # replayed days first: they are real
    few = sorted(plan.worlds, key=lambda world: world.prices < 0)
    result = {
        "policies": {},
        "paired": {},
        "seeds": [world.seed for world in plan.worlds],
        "paths": [world.name for world in plan.worlds],
    } | paired(found)
    result["against"] = against(found, POLICY)
    result["strengths"], result["brought_to"] = strengths, brought_to
    result["accounts"], result["days"] = accounts, days
    result["frontier"] = frontier(
        {
            name: {each: bench.all(few[:frontier_worlds], (name,), {name: each})[name] for each in levels}
            for name, levels in FRONTIER.items()
        }
        if frontier_worlds
        else {}
    )
    result["without"] = {}
    for lacking in WITHOUT if without_worlds else ():
        worlds = [
            world._replace(name=f"{world.name}-no-{lacking}", without=lacking)
            for world in few[:without_worlds]
        ]
        compared = [name for name in names if name in (STATIC, POLICY, NULL)]
        result["without"][lacking] = paired(bench.all(worlds, compared, strengths))["paired"]
    print(told(result))
    for name, drawn in pictures(result).items():
        with atomic_file(out / name) as file:
            file.write_bytes(drawn)
    with atomic_file(out / RESULT) as file:
        file.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def make_world(world: World, accounts: int, days: float, prices: Sequence[Path]) -> Venue:
    """The venue of a world, before its first minute."""
    settings = Settings()._replace(**WITHOUT.get(world.without, {}))
    if world.prices < 0:
        return simulate.generated_venue(accounts, days, world.seed, world.scenario, settings)
    return simulate.replayed_venue(prices[world.prices], world.path, accounts, days, world.seed, settings)


def _worlds(first_seed: int, count: int, prices: Sequence[Path]) -> tuple[World, ...]:
    made = [
        World(f"{scenario}-{seed}", seed, scenario)
        for seed, scenario in (
            (first_seed + number, SCENARIOS[number % len(SCENARIOS)]) for number in range(count)
        )
    ]
    for number, folder in enumerate(prices):
        made += [
            World(f"replay-{number + 1}-{path + 1}", first_seed + path, prices=number, path=path)
            for path in range(simulate.count_paths(folder))
        ]
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

    def __init__(self, folder: Path, plan: Plan, model: Path, prices: Sequence[Path], jobs: int) -> None:
        self._folder = folder
        self._plan = plan
        self._model = model
        self._prices = tuple(prices)
        self._jobs = jobs
        folder.mkdir(exist_ok=True)

    def calibrate(self, names: Iterable[str]) -> tuple[dict[str, float], dict[str, float]]:
        """Strengths that bring policies to `account-risk` in calibration worlds, and what they give."""
        worlds = self._plan.calibration
        strengths = {name: POLICIES[name].strength for name in names}
        scaled = [name for name in names if POLICIES[name].fitted_to]
        given: dict[str, float] = {}
        if not worlds:
            return strengths, given
        self.all(worlds, (POLICY,), strengths)
        for name in scaled:
            if POLICIES[name].other_draws and STATIC in given:
                strengths[name] = strengths[STATIC]  # the same policy
                continue
            aim = self._level(worlds, POLICY, strengths[POLICY], POLICIES[name].fitted_to)
            given[f"{POLICY} {POLICIES[name].fitted_to}"] = aim
            strengths[name], given[name] = self._brought_to(aim, name)
        return strengths, given

    def _brought_to(self, aim: float, name: str) -> tuple[float, float]:
        """The strength that gives `aim`, and what it gives, by the secant through the two last tries."""
        worlds, policy = self._plan.calibration, POLICIES[name]
        start = policy.strength
        tried = [(start, self._level(worlds, name, start, policy.fitted_to))]
        following = start * (aim / tried[0][1]) if policy.lifts else start * 0.5
        while len(tried) < MOST_TRIES and abs(tried[-1][1] / aim - 1.0) > TOLERANCE:
            following = max(following, 1.0 if policy.lifts else 0.0)
            tried.append((following, self._level(worlds, name, following, policy.fitted_to)))
            (first, at_first), (last, at_last) = tried[-2:]
            if at_last == at_first:
                break
            following = last + (aim - at_last) * (last - first) / (at_last - at_first)
        return min(tried, key=lambda one: abs(one[1] - aim))

    def _level(self, worlds: Sequence[World], name: str, strength: float, metric: str) -> float:
        found = self.all(worlds, (name,), {name: strength})[name]
        # weighted by notional over all worlds, as within one
        weight = [each["open_interest_usd"] for each in found]
        return sum(w * each[metric] for w, each in zip(weight, found, strict=True)) / sum(weight)

    def all(
        self, worlds: Sequence[World], names: Sequence[str], strengths: dict[str, float]
    ) -> dict[str, list[dict[str, float]]]:
        """Metrics by policy, one entry a world; what has been run before is read."""
        wanted = [(world, name, strengths[name]) for name in names for world in worlds]
        missing = [one for one in wanted if not self._file(*one).is_file()]
        # some read what others did in the same world
        for stage in (
            [one for one in missing if not _needs(one[1])],
            [one for one in missing if _needs(one[1])],
        ):
            if stage:
                self._run(stage, strengths)
        return {
            name: [read_metrics(self._file(world, name, strengths[name])) for world in worlds]
            for name in names
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

    def _task(self, world: World, name: str, strength: float, strengths: dict[str, float]) -> _Work:
        needed = _needs(name)
        before = self._file(world, needed, strengths[needed]) if needed else None
        make = partial(make_world, world, self._plan.accounts, self._plan.days, self._prices)
        return _Work(Task(world.name, name, strength, make, self._model), before)

    def _file(self, world: World, name: str, strength: float) -> Path:
        return self._folder / f"{world.name}.{name}.{strength:.9g}.json"


class _Work(NamedTuple):
    """A task, and the file of the run whose future it knows."""

    task: Task
    before: Path | None


def _needs(name: str) -> str:
    """The policy whose run in the same world another one reads, "" none."""
    policy = POLICIES[name]
    return STATIC if policy.knows_future else POLICY if policy.ahead_h else ""


def _at_once(work: Callable[..., None], *arguments: Any) -> Future[None]:
    future: Future[None] = Future()
    try:
        work(*arguments)
        future.set_result(None)
    except Exception as problem:
        future.set_exception(problem)
    return future


def _run_into(file: Path, work: _Work) -> None:
    """Run a task in a process of its own, and write what came of it."""
    future = None if work.before is None else read_run(work.before)
    write_run(file, closed_loop.run(work.task._replace(future=future)))
