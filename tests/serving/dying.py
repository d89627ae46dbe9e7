"""Processes that die, and disks that fail, at a call of the file system that is counted out beforehand.

`Calls` stands before the calls by which Python carries anything to a disk. Each is counted; the chosen one is
where the process is killed (before the call, after it, or in the middle of a write) or where the call fails.
A kill takes no clean-up with it: no `finally`, no flush, no lock given back by hand.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

NAMES = ("open", "pwrite", "write", "fsync", "fdatasync", "ftruncate", "rename", "replace", "mkdir", "unlink",
         "rmdir", "link")  # fmt: skip
WRITES = ("pwrite", "write")

Fate = Literal["before", "middle", "after", "ENOSPC", "EIO", "short"]
KILLS: tuple[Fate, ...] = ("before", "middle", "after")
FAILURES: tuple[Fate, ...] = ("ENOSPC", "EIO", "short")
"""`short`: the first half of a write is written, and the next try finds the disk full."""


class Calls:
    """Counts calls, and lets the one with number `chosen`, counted from 0, meet its fate; -1 none."""

    def __init__(self, chosen: int = -1, fate: Fate = "before", lasts: bool = False) -> None:
        """`lasts`: all later calls fail the same way, as on a disk that stays full."""
        self.count = 0
        self.chosen = chosen
        self.fate = fate
        self.lasts = lasts
        self.spared: set[int] = set()
        """Descriptors that no disk is behind, such as the pipe that acknowledgements go to."""
        self._real: dict[str, Callable[..., Any]] = {}

    def stand_before(self, owner: Any = os, names: tuple[str, ...] = NAMES) -> None:
        """Take the place of the calls of a module."""
        for name in names:
            real = getattr(owner, name)
            self._real[name] = real
            setattr(owner, name, self._call(name, real))

    def step_aside(self) -> None:
        """Give the calls back."""
        for name, real in self._real.items():
            setattr(os, name, real)

    def meet(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """Count one call and do it, unless it is the chosen one."""
        number = self.count
        self.count += 1
        if number != self.chosen and not (self.lasts and 0 <= self.chosen < number):
            return call()
        writes = name in WRITES
        if self.fate == "middle" and writes:
            self._half(name, arguments)
        if self.fate == "short" and writes and number == self.chosen:
            self.chosen += 1  # then the disk is full
            return self._half(name, arguments)
        if self.fate == "after":
            with suppress(OSError):  # a call may fail by itself, as that for a folder that is there
                call()
        if self.fate in KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        failure = errno.EIO if self.fate == "EIO" else errno.ENOSPC
        raise OSError(failure, os.strerror(failure))

    def _half(self, name: str, arguments: tuple[Any, ...]) -> Any:
        descriptor, content, *place = arguments
        return self._real[name](descriptor, bytes(content)[: max(len(content) // 2, 1)], *place)

    def _call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if name in (*WRITES, "fsync", "fdatasync", "ftruncate") and arguments[0] in self.spared:
                return real(*arguments, **more)
            return self.meet(name, arguments, lambda: real(*arguments, **more))

        return call


def in_a_child(
    work: Callable[[Calls, Callable[[bytes], None]], None], calls: Calls
) -> tuple[list[bytes], bool]:
    """Do some work in a process that may die; what it acknowledged, line by line, and whether it was killed.

    `work` is given the calls, which it sets up, and a function by which it acknowledges.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        tell = os.write
        try:
            os.close(reading)
            calls.spared.add(writing)
            work(calls, lambda line: tell(writing, line + b"\n") and None)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    told = b""
    while block := os.read(reading, 65_536):
        told += block
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return told.splitlines(), status != 0
