"""Many callers of one service that each wait for their answer before they ask again, in one process.

    python -m benchmarks.asking --port N|--socket PATH --connections N --seconds S < ACCOUNTS

Account ids come one a line; figures go out as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.served import frame_message, http_message
from serving.envelopes import LENGTH_BYTES

PATH = "/v1/score"
WARM_UP_S = 1.0
_OK_FRAME = b"\xa6status\xcc\xc8"  # 200 in MessagePack
_REFUSED_FRAME = b"\xa6status\xcd\x01\xf7"  # 503


class Tally:
    """What came back: seconds of every answer, refusals and errors."""

    def __init__(self) -> None:
        self.answered_s: list[float] = []
        self.refused = self.errors = 0

    def figures(self, seconds: float) -> dict[str, float]:
        """Answers a second, and milliseconds."""
        taken = np.array(self.answered_s or [np.nan]) * 1e3
        middle, tail, far = np.percentile(taken, (50, 99, 99.9)).tolist()
        return {
            "answers_per_s": len(self.answered_s) / seconds,
            "p50_ms": middle, "p99_ms": tail, "p99.9_ms": far,
            "refused": self.refused, "errors": self.errors,
        }  # fmt: skip


class Caller(asyncio.Protocol):
    """One connection that asks one question after the other, over HTTP or in frames."""

    def __init__(self, messages: list[bytes], first: int, framed: bool) -> None:
        self.tally = Tally()
        self._messages = messages
        self._next = first
        self._whole = self._frame if framed else self._reply
        self._buffer = b""
        self._asked_s = 0.0
        self._done = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        status = self._whole()
        if status is None:
            return
        if status == 200:
            self.tally.answered_s.append(time.perf_counter() - self._asked_s)
        elif status == 503:
            self.tally.refused += 1
        else:
            self.tally.errors += 1
        if not self._done:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done:
            self.tally.errors += 1

    def end(self) -> None:
        """Ask no more and end the connection."""
        self._done = True
        self._transport.close()

    def _ask(self) -> None:
        self._next = (self._next + 1) % len(self._messages)
        self._asked_s = time.perf_counter()
        self._transport.write(self._messages[self._next])

    def _reply(self) -> int | None:
        """The status of a reply that is there as a whole."""
        told = self._buffer
        end = told.find(b"\r\n\r\n")
        if end < 0:
            return None
        at = told.index(b"ontent-length: ") + 15
        if len(told) < end + 4 + int(told[at : told.index(b"\r", at)]):
            return None
        self._buffer = b""
        return int(told[9:12])

    def _frame(self) -> int | None:
        told = self._buffer
        if len(told) < LENGTH_BYTES or len(told) < LENGTH_BYTES + int.from_bytes(told[:LENGTH_BYTES], "big"):
            return None
        self._buffer = b""
        if _OK_FRAME in told[:16]:
            return 200
        return 503 if _REFUSED_FRAME in told[:16] else 500


async def asked(messages: list[bytes], options: argparse.Namespace) -> dict[str, float]:
    """Ask for the stated time, after a while of warming up."""
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    for number in range(options.connections):
        first = number * len(messages) // options.connections

        def made(first: int = first) -> Caller:
            return Caller(messages, first, options.socket is not None)

        if options.socket is not None:
            _, caller = await loop.create_unix_connection(made, str(options.socket))
        else:
            _, caller = await loop.create_connection(made, "127.0.0.1", options.port)
        callers.append(caller)
    await asyncio.sleep(WARM_UP_S)
    tally = Tally()
    for caller in callers:
        caller.tally = tally
    began = time.perf_counter()
    await asyncio.sleep(options.seconds)
    found = tally.figures(time.perf_counter() - began)
    for caller in callers:
        caller.end()
    return found


def asked_at_once(door: Path | int, connections: int, seconds: float, names: list[str]) -> dict[str, float]:
    """Ask a service's port or socket about these accounts, from a process of its own; what it prints."""
    way = ["--port", str(door)] if isinstance(door, int) else ["--socket", str(door)]
    command = [sys.executable, "-m", "benchmarks.asking", *way]
    more = ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, *more], input="\n".join(names), text=True, capture_output=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asking", description=__doc__)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--port", type=int)
    way.add_argument("--socket", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    questions = [{"account_id": name} for name in sys.stdin.read().split("\n") if name]
    if options.socket is not None:
        messages = [frame_message(PATH, question) for question in questions]
    else:
        messages = [http_message(PATH, json.dumps(question).encode()) for question in questions]
    print(json.dumps(uvloop.run(asked(messages, options))))


if __name__ == "__main__":
    main()
