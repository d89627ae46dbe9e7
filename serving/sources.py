"""What each source of events has sent so far, so that sending it again is harmless.

A source numbers its events upwards, with or without gaps. Numbers that were accepted are kept as runs of
neighbours, the newest of them, so that memory stays bounded: of a number that is older than all of them
nobody can say any more whether it was accepted, and it is not taken again.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import Enum

RUNS_KEPT = 4_096
SOURCES_KEPT = 1_024


class Place(Enum):
    """Where a sequence number stands against what its source has sent."""

    NEW = "new"
    REPEAT = "repeat"
    OUT_OF_ORDER = "out_of_order"


class Source:
    """The numbers that were accepted from one source, as runs [first, last] in rising order."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []

    @property
    def newest(self) -> int:
        """The largest number accepted, -1 before the first."""
        return self._last[-1] if self._last else -1

    def place(self, sequence: int) -> Place:
        """Whether a number is new, was accepted before, or is below the newest without having been."""
        if sequence > self.newest:
            return Place.NEW
        run = bisect_right(self._first, sequence) - 1
        return Place.REPEAT if run >= 0 and sequence <= self._last[run] else Place.OUT_OF_ORDER

    def accept(self, sequence: int) -> None:
        """Remember a new number."""
        self.accept_runs([sequence], [sequence])

    def accept_runs(self, first: list[int], last: list[int]) -> None:
        """Remember runs of new numbers in rising order."""
        assert first[0] > self.newest
        if self._last and first[0] == self.newest + 1:
            self._last.pop()
            first = first[1:]
        self._first.extend(first)
        self._last.extend(last)
        if len(self._first) > 2 * RUNS_KEPT:  # seldom, so that forgetting costs nothing
            del self._first[:-RUNS_KEPT], self._last[:-RUNS_KEPT]

    @property
    def runs(self) -> tuple[list[int], list[int]]:
        """First and last of each run."""
        return self._first, self._last


class Sources:
    """All sources by name, at most `bound` of them."""

    def __init__(self, bound: int = SOURCES_KEPT) -> None:
        self._sources: dict[str, Source] = {}
        self._bound = bound

    def find(self, name: str) -> Source | None:
        """What a source has sent; None where it is new and there is no room for another."""
        source = self._sources.get(name)
        if source is None and len(self._sources) < self._bound:
            return Source()
        return source

    def accept(self, name: str, first: list[int], last: list[int]) -> None:
        """Remember runs of new numbers of a source, in rising order."""
        if first:
            self._sources.setdefault(name, Source()).accept_runs(first, last)

    def runs(self) -> dict[str, tuple[list[int], list[int]]]:
        """First and last of each run by source."""
        return {name: source.runs for name, source in self._sources.items()}
