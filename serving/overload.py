"""Excess is refused at once, so that what is admitted is answered in time.

Answers are computed in the event loop, one after the other. What a turn of the loop finds ready is therefore
the queue, and nobody sees its length. So a turn has a budget of time: its first request notes the time,
those that come up after the budget is spent (all but one) are refused before they are read, which costs a
small part of an answer, and the next turn begins anew. Whoever is admitted has waited for one turn at most,
and waits for one budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from serving.limits import Limits


class Overload:
    """Admission of one event loop, for all ways in together; not safe for use from several threads."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = perf_counter,
        call_soon: Callable[[Callable[[], None]], Any] | None = None,
    ) -> None:
        """`clock` gives seconds; `call_soon` has a function called in the loop's next turn."""
        self.refused = 0
        """How many were refused so far."""
        self._turn_s = limits.turn_s
        self._most_held_bytes = limits.held_bytes
        self._clock = clock
        self._call_soon = call_soon
        self._ends: float | None = None
        self._is_late = False
        """Whether the one request that a turn admits after its time was admitted."""
        self._held_bytes = 0

    def admits(self) -> bool:
        """Whether there is time left in this turn for one more request."""
        if self._ends is None:
            self._ends = self._clock() + self._turn_s
            (self._call_soon or asyncio.get_running_loop().call_soon)(self._begin_turn)
            return True
        if self._clock() < self._ends:
            return True
        if not self._is_late:
            # what came in answer to the work that took so long may be seen before the turn is over: a caller
            # that sends one request after the other must never be refused for the one before
            self._is_late = True
            return True
        self.refused += 1
        return False

    def hold(self, size: int) -> bool:
        """Whether there is room for so many bytes more of bodies that are not whole yet; taken if so."""
        if self._held_bytes + size > self._most_held_bytes:
            self.refused += 1
            return False
        self._held_bytes += size
        return True

    def release(self, size: int) -> None:
        """Give back bytes that were held."""
        self._held_bytes -= size
        assert self._held_bytes >= 0

    def _begin_turn(self) -> None:
        self._ends = None
        self._is_late = False
