"""How long `perprisk stress` takes: a made book of N accounts with positions under S days of chance.

    python -m benchmarks.stress_speed [--accounts 20000] [--scenarios 200] [--whole [--model MODEL]]

The made book is fragile: more longs than shorts, and a cascade on most days. First its scenarios on one core;
then the scenarios and all questions about their tail by as many processes as the command would start. With
`--whole` the command itself follows, on a venue that is simulated for it, as a process of its own, with 100
scenarios and with S; MODEL saves training one. Compiled code is warm: what comes first is not counted.
Processor seconds are of all processes together; other work on the machine stretches those on the clock, so
that for the command it is also said what its processor seconds come to where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from exchange.contracts import MarginTier, TierArrays, tier_arrays
from exchange.stress.book import Book, begin, new_live
from exchange.stress.pools import FIGURES, initial_figures
from pipelines.stress_book import Standing
from pipelines.stress_findings import findings, tail_scenarios
from pipelines.stress_prices import Past
from pipelines.stress_runs import Desk
from pipelines.stress_scenarios import Chance, World, named, world_of
from pipelines.stress_workers import available, crew_of
from serving.parts import PARTS
from serving.scorer import Scores

MARKETS = 10
DAY_SIGMA = 0.05
DEPTH_SHARE = 0.004
FUND_SHARE = 0.0013
MOST_WEALTH_USD = 200_000.0

TRADERS = 1.65
"""Traders of the simulated venue for each account that holds a position at the time."""
DAYS = 30
AT = "2025-01-25T12:00:00Z"
FEWEST = 100
"""Scenarios that the command takes at least."""
COMMAND = """
import atexit, os
from pathlib import Path
from pipelines.cli import main

if __name__ == "__main__":
    told = Path(os.environ["TOLD"])
    atexit.register(lambda: told.write_text(" ".join(map(str, os.times()))))
    main()
"""
"""The command, which leaves behind what its own process and those that it started have used."""


def made_book(accounts: int, seed: int = 1) -> Standing:
    """Accounts with one to three positions, log-normal wealth, leverage 0.5 to 12 that falls with wealth."""
    chance = np.random.default_rng(seed)
    counts = chance.choice([1, 2, 3], accounts, p=[0.6, 0.25, 0.15])
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    positions = int(first[-1])
    market = np.concatenate([chance.choice(MARKETS, count, replace=False) for count in counts]).astype(
        np.int32
    )
    mark = np.exp(chance.uniform(0.0, 10.0, MARKETS))
    owner = np.repeat(np.arange(accounts), counts)
    wealth = np.minimum(np.exp(chance.normal(5.0, 2.3, accounts)), MOST_WEALTH_USD)
    median = 3.0 * (1.0 + wealth / 2_000.0) ** -0.3
    leverage = np.clip(median * np.exp(chance.normal(0.0, 0.8, accounts)), 0.5, 12.0)
    notional = (wealth * leverage / counts)[owner]
    quantity = notional / mark[market] * chance.choice([-1.0, 1.0], positions, p=[0.45, 0.55])
    cash = wealth - np.bincount(owner, quantity * mark[market], accounts)
    one = tier_arrays([MarginTier(1e6, 0.08, 0.05), MarginTier(math.inf, 0.16, 0.10)])
    interest = np.bincount(market, notional, MARKETS) / 2
    depth = np.repeat(DEPTH_SHARE * interest[:, None], 2, axis=1)
    book = Book(
        first, market, quantity, mark[market], np.zeros(accounts + 1, np.int32), np.zeros(0, np.int32),
        np.zeros(0), cash, mark, TierArrays(*(np.tile(column, (MARKETS, 1)) for column in one)),
        np.full(MARKETS, 0.01), depth, np.full(MARKETS, 3e-4),
        np.full(MARKETS, DAY_SIGMA**2 / 1440), np.ones(1), np.ones(1), np.ones(1),
        np.array([FUND_SHARE * interest.sum()]),
    )  # fmt: skip
    figures = np.empty((accounts, FIGURES))
    initial_figures(book, begin(book, new_live(book)), figures)
    names = tuple(f"M{key}-PERP" for key in range(MARKETS))
    return Standing(book, np.arange(accounts), figures, names, ("USD",), interest, (), ())


def made_world(accounts: int) -> World:
    """That book without a past."""
    standing = made_book(accounts)
    return world_of(standing, Past(np.empty(0, np.int64), np.empty((0, MARKETS))), list(range(MARKETS)), [-1])


def made_scores(standing: Standing) -> Scores:
    """A model that asks for half as much again of everybody."""
    count = len(standing.account)
    rate = np.full(count, 0.08)
    return Scores(
        standing.account, np.full((count, 4), 0.01), np.zeros(count), rate, 1.5 * rate, rate,
        np.full(count, math.nan), np.zeros((count, PARTS)), [None] * count,
    )  # fmt: skip


class Clock:
    """Seconds on the clock, and of processors: this process and its children that have ended."""

    def __init__(self) -> None:
        """Start."""
        self._wall, self._cpu = time.perf_counter(), _processor_s()

    def read(self) -> dict[str, float]:
        """Since the start."""
        return {"wall_s": time.perf_counter() - self._wall, "processor_s": _processor_s() - self._cpu}


def _processor_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def on_one_core(chance: Chance, days: int) -> dict[str, Any]:
    """Named scenarios and days of chance, one after another."""
    desk, told = Desk(chance.world.standing), named(chance.world)
    desk.row(told[0].shock)
    clock = Clock()
    for scenario in told:
        desk.row(scenario.shock)
    by_name = clock.read()
    clock = Clock()
    losses = [desk.row(chance.day(number).shock)[0]["shortfall_usd"] for number in range(days)]
    costly = float(np.mean(np.array(losses) > 0.0))
    return {"named": len(told), "named_time": by_name, "days_time": clock.read(), "costly_share": costly}


def by_processes(chance: Chance, days: int) -> dict[str, Any]:
    """The same, and the questions about the tail, as the command has them gone through."""
    standing = chance.world.standing
    clock = Clock()
    with crew_of(chance) as crew:
        rows = list(crew.rows(days))
        between = clock.read()["wall_s"]
        names = [str(key) for key in standing.account.tolist()]
        tail = tail_scenarios(crew.scenarios.told, rows, chance)
        findings(crew, names, tail, made_scores(standing))
    time_of = clock.read()
    return {
        **time_of,
        "processes": available(),
        "rows_s": between,
        "questions_s": time_of["wall_s"] - between,
    }


def whole_command(accounts: int, scenarios: int, model: Path | None) -> list[dict[str, Any]]:
    """`perprisk stress` on a simulated venue; seconds of the whole process and what is in the book."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venue = folder / "venue"
        _perprisk("simulate", venue, "--accounts", round(accounts * TRADERS), "--days", DAYS)
        if model is None:
            _perprisk("simulate", folder / "small", "--days", 12)
            model = folder / "model"
            _perprisk("train", folder / "small", "--out", model)
        found = []
        for count in (FEWEST, FEWEST, scenarios):  # the first compiles
            clock = Clock()
            alone_s, shared_s = _perprisk(
                "stress", venue, "--model", model, "--at", AT, "--scenarios", count, "--out", folder / "out"
            )
            took = clock.read() | {"alone_s": alone_s, "shared_s": shared_s}
            card = json.loads((folder / "out" / "stress.json").read_text())
            count_all = len(card["scenarios"])
            found.append({"accounts": card["book"]["accounts"], "scenarios": count_all, **took})
        return found[1:]


def _perprisk(*arguments: object) -> tuple[float, float]:
    """Processor seconds of the command's own process, and of those that it shares its work with."""
    with tempfile.TemporaryDirectory() as name:
        told, program = Path(name) / "told", Path(name) / "program.py"
        program.write_text(COMMAND)
        here = {"TOLD": str(told), "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        done = subprocess.run(
            [sys.executable, str(program), *map(str, arguments)], env=os.environ | here, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"perprisk {arguments[0]} failed: {done.stderr}")
        user, system, shared_user, shared_system, _ = map(float, told.read_text().split())
    return user + system, shared_user + shared_system


def main() -> None:
    """Print the table."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.stress_speed", description=__doc__)
    made.add_argument("--accounts", type=int, default=20_000)
    made.add_argument("--scenarios", type=int, default=200)
    made.add_argument("--whole", action="store_true", help="time the command as well")
    made.add_argument("--model", type=Path, help="a bundle that `perprisk train` wrote")
    made.add_argument("--json", type=Path, help="write the same figures here")
    options = made.parse_args()
    load = os.getloadavg()[0]
    chance = Chance(made_world(options.accounts), np.full(MARKETS, DAY_SIGMA / math.sqrt(86_400.0)), 7)
    one = on_one_core(chance, options.scenarios)
    print(f"{options.accounts:,} accounts of a made book              on the clock   of processors")
    _line(f"{one['named']:,} named scenarios, one core", one["named_time"])
    _line(f"{options.scenarios:,} days of chance, one core", one["days_time"])
    print(f"  {one['costly_share']:.0%} of these days cost more than accounts hold")
    many = by_processes(chance, options.scenarios)
    _line(f"all that, and the tail's questions, {many['processes']} processes", many)
    print(f"  scenarios {many['rows_s']:.1f} s, questions {many['questions_s']:.1f} s on the clock")
    found = {"accounts": options.accounts, "days": options.scenarios, **one, "processes": many}
    if options.whole:
        found["whole"] = whole_command(options.accounts, options.scenarios, options.model)
        for row in found["whole"]:
            _line(f"perprisk stress, {row['accounts']:,} accounts, {row['scenarios']:,} scenarios", row)
            free_s = row["alone_s"] + row["shared_s"] / many["processes"]
            print(
                f"  of processors {row['alone_s']:.1f} s in one process, {row['shared_s']:.1f} s shared by "
                f"{many['processes']}: {free_s:.1f} s where all are free"
            )
    print(f"{os.cpu_count()} processors; load in a minute: {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _line(words: str, took: dict[str, Any]) -> None:
    print(f"{words:48s}{took['wall_s']:10.1f} s{took['processor_s']:14.1f} s", flush=True)


if __name__ == "__main__":
    main()
