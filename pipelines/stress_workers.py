"""All scenarios through the book, by several processes: what comes of one hangs on none of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from pipelines.stress_runs import Desk
from pipelines.stress_scenarios import Chance, Scenario, named

MOST_PROCESSES = 2
AT_ONCE = 4
"""Scenarios handed to a process together."""


class Scenarios:
    """Those with names, then days of chance, by number."""

    def __init__(self, chance: Chance) -> None:
        """All of one world."""
        self.chance = chance
        self.told = named(chance.world)
        self._desk = Desk(chance.world.standing)

    def __getitem__(self, number: int) -> Scenario:
        return self.told[number] if number < len(self.told) else self.chance.day(number - len(self.told))

    def row(self, number: int) -> dict[str, Any]:
        """The figures of one scenario, and what it is called."""
        scenario = self[number]
        row, _ = self._desk.row(scenario.shock)
        return {"name": scenario.name, "family": scenario.family, "title": scenario.title, **row}


def rows(scenarios: Scenarios, days: int) -> Iterator[dict[str, Any]]:
    """The rows of all named scenarios and of the first `days` of chance, in their order."""
    yield scenarios.row(0)  # alone, so that the others find compiled code
    numbers = range(1, len(scenarios.told) + days)
    processes = min(MOST_PROCESSES, os.cpu_count() or 1)
    if processes == 1:
        yield from map(scenarios.row, numbers)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, _take, (scenarios.chance,)) as pool:
        try:
            yield from pool.map(_row, numbers, chunksize=AT_ONCE)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_taken: list[Scenarios] = []


def _take(chance: Chance) -> None:
    _taken.append(Scenarios(chance))


def _row(number: int) -> dict[str, Any]:
    return _taken[-1].row(number)
