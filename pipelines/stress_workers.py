"""Scenarios, and questions about some of them, by several processes: what comes of one hangs on no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar, TypeVarTuple

from pipelines.stress_book import Standing
from pipelines.stress_runs import Desk
from pipelines.stress_scenarios import Chance, Scenario, named

MOST_PROCESSES = 8
"""Each holds the book and compiled code: a few hundred megabytes."""
AT_ONCE = 4
"""Scenarios handed to a process together."""

Known = TypeVarTuple("Known")
Answer = TypeVar("Answer")


class Scenarios:
    """Those with names, then days of chance, by number."""

    def __init__(self, chance: Chance) -> None:
        """All of one world."""
        self.chance = chance
        self.standing: Standing = chance.world.standing
        self.told = named(chance.world)
        self._desk = Desk(self.standing)

    def __getitem__(self, number: int) -> Scenario:
        return self.told[number] if number < len(self.told) else self.chance.day(number - len(self.told))

    def row(self, number: int) -> dict[str, Any]:
        """The figures of one scenario, and what it is called."""
        scenario = self[number]
        row, _ = self._desk.row(scenario.shock)
        return {"name": scenario.name, "family": scenario.family, "title": scenario.title, **row}


class Crew:
    """Processes that hold the same book; one process works by itself."""

    def __init__(self, scenarios: Scenarios, pool: ProcessPoolExecutor | None) -> None:
        """`pool` has taken the scenarios, None for this process alone."""
        self.scenarios, self._pool = scenarios, pool

    def rows(self, days: int) -> Iterator[dict[str, Any]]:
        """The rows of all named scenarios and of the first `days` of chance, in their order."""
        yield self.scenarios.row(0)  # alone, so that the others find compiled code
        numbers = range(1, len(self.scenarios.told) + days)
        if self._pool is None:
            yield from map(self.scenarios.row, numbers)
        else:
            yield from self._pool.map(_row, numbers, chunksize=AT_ONCE)

    def ask(self, question: Callable[[Standing, *Known], Answer], *known: *Known) -> Callable[[], Answer]:
        """Have `question(standing, *known)` answered; the function returned waits for the answer."""
        if self._pool is None:
            return partial(question, self.scenarios.standing, *known)
        return self._pool.submit(_answer, question, *known).result


def available() -> int:
    """Processes that there is a processor for."""
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


@contextmanager
def crew_of(chance: Chance) -> Iterator[Crew]:
    """A process for each processor, which end with the context."""
    scenarios = Scenarios(chance)
    processes = available()
    if processes == 1:
        yield Crew(scenarios, None)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _take, (chance,)) as pool:
        try:
            yield Crew(scenarios, pool)
        finally:
            pool.shutdown(cancel_futures=True)


_taken: list[Scenarios] = []


def _take(chance: Chance) -> None:
    _taken.append(Scenarios(chance))


def _row(number: int) -> dict[str, Any]:
    return _taken[-1].row(number)


def _answer(question: Callable[..., Answer], *known: Any) -> Answer:
    return question(_taken[-1].standing, *known)
