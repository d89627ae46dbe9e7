"""What the workers of one service know of each other: a few numbers each, in memory that all of them share.

Every worker writes its own slot several times a second, and any of them can read all slots, so that each can
say whether the whole service is ready. A worker that hangs or is dead writes nothing: its silence tells.
Writing a slot takes several stores, which a reader may see half done; what is read is a state of health
and a number of events, and both are right again a moment later.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from typing import NamedTuple, Self

import numpy as np

LONGEST_SILENCE_S = 2.0
"""A worker that has not written for this long is taken for dead."""

BEAT_S = 0.2
"""Seconds between two writes of a worker."""

STARTING, READY, FAILED = range(3)
"""What a worker says of itself: not there yet, answers, or answers but cannot be relied upon."""

SLOT = np.dtype([("pid", "i8"), ("beat_ns", "i8"), ("sequence", "i8"), ("health", "i8")])


class Standing(NamedTuple):
    """One worker as the board has it."""

    worker: int
    pid: int
    sequence: int
    ready: bool


class Board:
    """Slots of all workers; `worker` is the one that writes here, None for the one that only watches."""

    def __init__(self, descriptor: int, workers: int, worker: int | None = None) -> None:
        self.descriptor = descriptor
        self.worker = worker
        self._memory = mmap.mmap(descriptor, workers * SLOT.itemsize)
        self._slots = np.frombuffer(self._memory, SLOT)

    @classmethod
    def make(cls, workers: int) -> Self:
        """A new board; its descriptor can be handed down to other processes."""
        with tempfile.TemporaryFile() as file:  # has no name: nobody else can find it, nothing is left behind
            file.truncate(workers * SLOT.itemsize)
            return cls(os.dup(file.fileno()), workers)

    def write(self, sequence: int, health: int) -> None:
        """Say that this worker is there."""
        assert self.worker is not None
        slot = self._slots[self.worker]
        slot["pid"], slot["sequence"], slot["health"] = os.getpid(), sequence, health
        slot["beat_ns"] = time.monotonic_ns()

    def clear(self, worker: int) -> None:
        """Take down what a worker wrote that is there no more."""
        self._slots[worker] = (0, 0, 0, STARTING)

    def read(self) -> list[Standing]:
        """All workers."""
        oldest_ns = time.monotonic_ns() - int(LONGEST_SILENCE_S * 1e9)
        return [
            Standing(
                number,
                int(slot["pid"]),
                int(slot["sequence"]),
                bool(slot["health"] == READY and slot["beat_ns"] >= oldest_ns),
            )
            for number, slot in enumerate(self._slots)
        ]

    def silent_s(self, worker: int) -> float:
        """Seconds since a worker has written; infinite before its first time."""
        beat_ns = int(self._slots[worker]["beat_ns"])
        return (time.monotonic_ns() - beat_ns) / 1e9 if beat_ns else float("inf")
