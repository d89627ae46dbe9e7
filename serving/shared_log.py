"""An event log that several processes of one service append to, one at a time, and all of them follow.

Whoever has events takes its turn: a lock on the file, which the system takes back from a process that dies.
In its turn a process first applies what the others have logged, then judges, appends and applies its own
events. There is one order of events, that of the file, and no process whose death stops the others.

What a process left of a frame when it died in its turn is cut off by the next one to append: nobody has
applied it, since a frame is whole only with its last byte.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from exchange.errors import InputError
from serving.frames import LogError
from serving.log import EventLog, LogReader

PATIENCE_S = 2.0
"""Longest wait for a turn; the events of one request take milliseconds."""

_LOOK_S = 0.0005


class SharedLog(LogReader):
    """One process's hold of the log."""

    def __init__(self, path: Path, owner: bytes, descriptor: int) -> None:
        super().__init__(path, owner, descriptor)
        self._writer = EventLog(path, owner, descriptor, 0, 0)

    @classmethod
    def open(cls, path: Path, owner: bytes) -> Self:
        """Open a log that has been begun; InputError where it cannot be written or is another owner's."""
        LogReader.open(path, owner).close()
        try:
            return cls(path, owner, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise InputError(f"{path}: the event log cannot be written ({error.strerror})") from error

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep all other processes from appending; LogError where they take too long."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LogError(f"{self.path}: another process has been appending for too long") from None
                time.sleep(_LOOK_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def append(self, payload: bytes) -> int:
        """Append one payload, whole or not at all, in a turn in which all that is fresh was read.

        Returns where its frame begins; LogError where that fails.
        """
        if self.end > self._next:  # what is left of somebody's last frame
            try:
                os.ftruncate(self._descriptor, self._next)
            except OSError as error:
                raise LogError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._writer.go_on_at(self._next)
        start = self._writer.append(payload)
        self._next = self._writer.end
        return start

    def sync(self) -> None:
        """Carry to the disk what this process appended since the last time; LogError where that fails."""
        self._writer.sync()

    @property
    def fault(self) -> str | None:
        """Why this process can append nothing any more; None while it can."""
        return self._writer.fault

    def close(self) -> None:
        """Sync and close."""
        self._writer.close()
