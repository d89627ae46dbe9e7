"""What callers see when more is asked than can be answered, and while slow callers hold connections.

A service with a scorer that computes for a stated time runs in a process of its own. Its capacity is what
sixteen callers get that each wait for their answers. Then requests are sent at multiples of it, by the clock
and whether or not answers come (an open loop: latency counts from when a request was due), and each answer is
compared, byte by byte, with that of an engine in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.programs import finish
from features.venue import Vectors
from pipelines.answering import serve
from pipelines.serve import bind
from serving.codec import JSON
from serving.engine import Engine
from serving.ladder import Levels
from serving.limits import Limits
from serving.scorer import Scores
from serving.service import Service
from serving.wire import ModelAnswer
from tests.serving.stories import FakeScorer, question, story, told

CONNECTIONS = 64
SLOW = 500
ACCOUNTS = ("ann", "bob")


class BusyScorer(FakeScorer):
    """Computes for so many microseconds a call, as a large model does."""

    def __init__(self, busy_us: float) -> None:
        super().__init__()
        self._busy_s = busy_us / 1e6

    def score(self, vectors: Vectors, _levels: Levels | None = None) -> Scores:
        until = time.perf_counter() + self._busy_s
        scores = super().score(vectors)
        while time.perf_counter() < until:
            pass
        return scores


def _strangers() -> Engine:
    """The story told of accounts that no owner links, so that a question is one call of the scorer."""
    return told([{**row, "owner_id": None} if "owner_id" in row else row for row in story()])


def service(busy_us: float, unready: int) -> None:
    """Serve until ended."""
    engine = _strangers()
    for name in ACCOUNTS:
        engine.score(question(name))
    engine.scorer = BusyScorer(busy_us)
    with closing(bind("127.0.0.1", 0)) as listener:
        serve(Service(engine, ModelAnswer("fake-1", "f", "card"), Limits(unready=unready)), listener)


class Caller(asyncio.Protocol):
    """One connection; what it sends is answered in order."""

    def __init__(self, answered: Callable[[float, int, int, bytes], None]) -> None:
        self._answered = answered
        self._waiting: deque[tuple[float, int]] = deque()
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, due_s: float, number: int) -> None:
        """Send the question of that number, which was due at that time."""
        self._waiting.append((due_s, number))
        self._transport.write(MESSAGES[number % len(MESSAGES)])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._buffer.index(b"content-length: ") + 16
            size = int(self._buffer[at : self._buffer.index(b"\r\n", at)])
            if len(self._buffer) < end + 4 + size:
                return
            status, body = int(self._buffer[9:12]), self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            due_s, number = self._waiting.popleft()
            self._answered(time.perf_counter() - due_s, number, status, body)

    def end(self) -> None:
        """End the connection."""
        self._transport.close()


def _message(name: str) -> bytes:
    body = json.dumps({"account_id": name}).encode()
    return b"POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


MESSAGES = [_message(name) for name in ACCOUNTS]


class Load:
    """Callers of one service, and what they were answered."""

    def __init__(self, port: int, expected: list[bytes]) -> None:
        self._port = port
        self._expected = expected
        self._callers: list[Caller] = []
        self._seconds: dict[int, list[float]] = {}
        self._wrong = 0
        self._after: Callable[[], None] = lambda: None

    async def connect(self, number: int) -> None:
        """Open connections, each with a first question, and wait for its answer."""
        loop = asyncio.get_running_loop()
        for _ in range(number):
            _, caller = await loop.create_connection(lambda: Caller(self._note), "127.0.0.1", self._port)
            caller.ask(time.perf_counter(), 0)  # who asks nothing is closed after two seconds
            self._callers.append(caller)
        while sum(map(len, self._seconds.values())) < number:  # code may still have to be compiled
            await asyncio.sleep(0.01)
        self.figures(1.0)

    async def capacity(self, callers: int, duration_s: float) -> float:
        """Answers a second to callers that wait for theirs."""
        ends = time.perf_counter() + duration_s
        free = list(self._callers[:callers])
        turn = deque(free)

        def again() -> None:
            caller = turn.popleft()
            turn.append(caller)
            if time.perf_counter() < ends:
                caller.ask(time.perf_counter(), 0)

        self._after = again
        for caller in free:
            caller.ask(time.perf_counter(), 0)
        await asyncio.sleep(duration_s + 0.5)
        self._after = lambda: None
        return self.figures(duration_s)["admitted_per_s"]

    async def open_loop(self, per_s: float, duration_s: float) -> dict[str, float]:
        """Send by the clock; figures of what came back."""
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < duration_s:
            while sent < now * per_s:
                self._callers[sent % len(self._callers)].ask(began + sent / per_s, sent)
                sent += 1
            await asyncio.sleep(0.0005)
        await asyncio.sleep(1.0)
        return self.figures(duration_s) | {"asked_per_s": sent / duration_s}

    def figures(self, duration_s: float) -> dict[str, float]:
        """What was answered since the last time."""
        admitted, refused = (np.array(self._seconds.pop(status, [])) * 1e3 for status in (200, 503))
        found = {
            "admitted_per_s": len(admitted) / duration_s,
            "refused_per_s": len(refused) / duration_s,
            "admitted_p50_ms": _quantile(admitted, 50),
            "admitted_p99_ms": _quantile(admitted, 99),
            "refused_p50_ms": _quantile(refused, 50),
            "refused_p99_ms": _quantile(refused, 99),
            "wrong": self._wrong + sum(map(len, self._seconds.values())),
        }
        self._seconds.clear()
        self._wrong = 0
        return found

    def end(self) -> None:
        """Close all connections."""
        for caller in self._callers:
            caller.end()

    def _note(self, seconds: float, number: int, status: int, body: bytes) -> None:
        self._seconds.setdefault(status, []).append(seconds)
        if status == 200 and body != self._expected[number % len(self._expected)]:
            self._wrong += 1
        self._after()


def _quantile(values: Any, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")


async def _slow(port: int, load: Load, per_s: float) -> dict[str, float]:
    """Callers that send a byte at a time: when the last one is closed, and what others see meanwhile."""
    before = await load.open_loop(per_s, 4.0)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.overload", "--drip", str(port), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it begins now
    during = await load.open_loop(per_s, 3.0)
    last_s = float(await process.stdout.readline())
    await process.wait()
    return {
        "slow_callers": SLOW,
        "last_closed_s": last_s,
        "others_p99_before_ms": before["admitted_p99_ms"],
        "others_p99_during_ms": during["admitted_p99_ms"],
        "others_refused": during["refused_per_s"] * 3.0,
        "wrong": before["wrong"] + during["wrong"],
    }


async def drip(port: int) -> None:
    """Send heads a byte at a time on many connections; print the seconds after which the last was closed."""
    closed_s: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            for byte in MESSAGES[0][:-1]:
                writer.write(bytes([byte]))
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        while await reader.read(1_000):
                            pass
                        break
        closed_s.append(time.perf_counter() - began)
        writer.close()

    print("now", flush=True)
    await asyncio.gather(*(one() for _ in range(SLOW)))
    print(max(closed_s), flush=True)


async def _measure(port: int, duration_s: float, expected: list[bytes]) -> dict[str, Any]:
    load = Load(port, expected)
    await load.connect(CONNECTIONS)
    await load.capacity(16, 1.0)  # warm
    capacity = await load.capacity(16, duration_s)
    found: dict[str, Any] = {"capacity_per_s": capacity, "loads": {}}
    print(f"capacity: {capacity:,.0f} answers/s to 16 callers that wait")
    print(f"{'':>8} {'asked/s':>9} {'admitted/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'refused/s':>10} "
          f"{'p50 ms':>8} {'p99 ms':>8} {'wrong':>6}")  # fmt: skip
    for times in (0.5, 1.0, 5.0):
        row = await load.open_loop(capacity * times, duration_s)
        found["loads"][f"{times:g}x"] = row
        print(
            f"{times:>7g}x {row['asked_per_s']:>9,.0f} {row['admitted_per_s']:>11,.0f}"
            f" {row['admitted_p50_ms']:>8.1f} {row['admitted_p99_ms']:>8.1f} {row['refused_per_s']:>10,.0f}"
            f" {row['refused_p50_ms']:>8.1f} {row['refused_p99_ms']:>8.1f} {row['wrong']:>6.0f}"
        )
    slow = found["slow"] = await _slow(port, load, capacity * 0.3)
    print(
        f"{SLOW} callers of a byte at a time: the last one closed after {slow['last_closed_s']:.2f} s; p99 of"
        f" others {slow['others_p99_before_ms']:.1f} ms before, {slow['others_p99_during_ms']:.1f} ms during"
    )
    load.end()
    return found


def _run(busy_us: float, duration_s: float, unready: int) -> dict[str, Any]:
    engine = _strangers()
    expected = [JSON.encode(engine.score(question(name))) for name in ACCOUNTS]
    own = (sys.executable, "-m", "benchmarks.overload", "--serve")
    process = subprocess.Popen(
        [*own, "--busy-us", str(busy_us), "--unready", str(unready)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("serving on "):
                port = int(line.rsplit(":", 1)[1])
                return uvloop.run(_measure(port, duration_s, expected))
        raise RuntimeError("the service did not start")
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Print latencies at multiples of the capacity."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--busy-us", type=float, default=1_000.0, help="what one call of the scorer takes")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load lasts")
    parser.add_argument(
        "--unready", type=int, default=Limits().unready, help="connections that may wait without a request"
    )
    parser.add_argument("--json", type=Path, help="write the same figures here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--drip", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        service(options.busy_us, options.unready)
        return 0
    if options.drip:
        uvloop.run(drip(options.drip))
        return 0
    return finish(lambda: _run(options.busy_us, options.seconds, options.unready), options.json)


if __name__ == "__main__":
    sys.exit(main())
