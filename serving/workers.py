"""Several processes that answer for one venue, and the one that starts them and keeps them alive.

    supervisor ── worker 0   orders and logs the events, and answers
               ├─ worker 1   applies what worker 0 has logged, and answers; hands events on to it
               └─ worker 2 ...

All of them accept connections from the same listening sockets. The supervisor does nothing else than watch:
a worker that ends or hangs is started again, and recovers the state from the log. One that cannot stay up
ends the whole service, since a supervisor above knows better what to do than a loop here.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from exchange.errors import WorkError
from serving.board import Board

HANGS_AFTER_S = 15.0
"""A worker that was up and has been silent for so long is killed and started again."""

STARTS_WITHIN_S = 600.0
"""Longest time that a start may take: compiling, and reading a long log."""

MOST_RESTARTS, RESTARTS_WITHIN_S = 5, 60.0
"""A service whose workers die more often than this ends."""

LOOK_S = 0.1
GRACE_S = 10.0
"""Seconds that workers get to end by themselves."""

_log = logging.getLogger("perprisk.serving")

Start = Callable[[int], "subprocess.Popen[bytes]"]


class Workers:
    """The processes of a service. `start` starts the worker of a number."""

    def __init__(self, board: Board, count: int, start: Start) -> None:
        self._board = board
        self._start = start
        self._processes: list[subprocess.Popen[bytes]] = []
        self._since: list[float] = []
        self._count = count
        self._died: deque[float] = deque()
        self._ending = False

    def run(self, gone: Callable[[int], None] = lambda _: None) -> int:
        """Keep all workers alive until SIGTERM or SIGINT; 0 if they ended well then.

        `gone` is told the process id of a worker that has died. Raises WorkError where workers cannot be
        kept alive.
        """
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for worker in range(self._count):
                self._processes.append(self._start(worker))
                self._since.append(time.monotonic())
            while not self._ending:
                for worker in range(self._count):
                    self._look_after(worker, gone)
                time.sleep(LOOK_S)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0 if all(process.returncode == 0 for process in self._processes) else 1

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _look_after(self, worker: int, gone: Callable[[int], None]) -> None:
        process = self._processes[worker]
        if process.poll() is None:
            silent_s = self._board.silent_s(worker)
            up_s = time.monotonic() - self._since[worker]
            if HANGS_AFTER_S < silent_s < up_s or (silent_s > up_s > STARTS_WITHIN_S):
                _log.error("worker %d (process %d) hangs and is killed", worker, process.pid)
                process.kill()
                process.wait()
            else:
                return
        if self._ending:
            return
        _log.error("worker %d (process %d) has ended with %d", worker, process.pid, process.returncode)
        self._board.clear(worker)
        gone(process.pid)
        now = time.monotonic()
        self._died.append(now)
        while self._died[0] < now - RESTARTS_WITHIN_S:
            self._died.popleft()
        if len(self._died) > MOST_RESTARTS:
            raise WorkError(
                f"workers have died {len(self._died)} times within {RESTARTS_WITHIN_S:g} s;"
                " what the last one said stands above"
            )
        self._processes[worker] = self._start(worker)
        self._since[worker] = time.monotonic()

    def _stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in self._processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
