"""Connections that are open and bring no request: few may stay, so that they cost the others nothing.

A connection whose head comes a byte at a time wakes the process for every byte. Deadlines bound how long
one can do so, and this bounds how many: above a number of them the ones that wait longest are turned away, a
few at a time, so that many who come at once do not hold the others up by being closed at once either.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from serving.limits import Limits

_AT_ONCE = 8
_PAUSE_S = 0.005
"""Turned away together, and seconds until the next."""


class Waiting(Protocol):
    """A connection."""

    def turn_away(self) -> None:
        """End it, as one of too many."""


class Crowd:
    """Who waits with what is still to come; not safe for use from several threads."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.unready
        self._grace_s = limits.unready_s
        self._since_s: dict[Waiting, float] = {}  # in the order of coming
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since_s)

    def join(self, connection: Waiting) -> None:
        """Count a connection from now on, if it is not counted yet."""
        loop = asyncio.get_running_loop()
        self._since_s.setdefault(connection, loop.time())
        if self._timer is None and len(self._since_s) > self._most:
            self._timer = loop.call_later(self._grace_s, self._thin)

    def leave(self, connection: Waiting) -> None:
        """Do not count it any longer."""
        self._since_s.pop(connection, None)

    def _thin(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for _ in range(_AT_ONCE):
            if len(self._since_s) <= self._most:
                return
            longest, since_s = next(iter(self._since_s.items()))
            if now_s < since_s + self._grace_s:
                self._timer = loop.call_at(since_s + self._grace_s, self._thin)
                return
            del self._since_s[longest]
            longest.turn_away()
        self._timer = loop.call_later(_PAUSE_S, self._thin)
