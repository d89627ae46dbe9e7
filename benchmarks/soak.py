"""Hours of service at 70% of what it can do: whether memory stays flat and no descriptor is left open.

    python -m benchmarks.soak [--minutes 60] [--model MODEL] [--accounts N]

A simulated venue is served by the real `perprisk serve` with two workers and every answer on record. What it
can answer to callers that wait is measured first, while events come in as they will; then these callers ask
by the clock at 70% of that. Once a minute resident memory and open descriptors of every worker are read.
Without a MODEL one is made whose hazards are the prior's: the same path of an answer, without trees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import uvloop

from benchmarks.programs import finish
from exchange.errors import WorkError
from pipelines import simulate
from pipelines.store import Dataset
from tests.serving.plain_models import write_model

COMMAND = "import sys; from pipelines.cli import main; sys.exit(main())"
WORKERS = 2
CALLERS = 16
LOAD = 0.7
FLAT_MIB_AN_HOUR = 1.0
WARM_UP = 0.25
"""Share of the minutes, ten at most, in which tables and caches may still grow."""

FEED_S = 0.5
"""Seconds between two requests of events; each moves the venue's clock by half a minute."""


class Known(NamedTuple):
    """What callers know of the venue."""

    accounts: list[str]
    marks: dict[str, float]
    prices: dict[str, float]
    end: datetime


def known(path: Path) -> Known:
    """Names, and the last price of everything, in a dataset."""
    dataset = Dataset.open(path, "accounts")

    def rows(name: str) -> pl.DataFrame:
        return pl.read_parquet(list(dataset.tables[name].files)).sort("time")

    marks = rows("market_bars").group_by("market").agg(pl.col("mark_close").last()).sort("market")
    prices = rows("asset_prices").group_by("asset").agg(pl.col("price").last()).sort("asset")
    held = rows("position_snapshots")["account_id"].unique().sort().to_list()
    end = datetime.fromisoformat(json.loads((path / "dataset.json").read_text())["end"])
    return Known(held, dict(marks.iter_rows()), dict(prices.iter_rows()), end)


class Feed:
    """Events that go on for ever without the venue growing: every fill is taken back by a later one."""

    def __init__(self, venue: Known) -> None:
        self._venue = venue
        self._chance = Random(1)
        self._number = 0
        self._step = 0

    def body(self) -> bytes:
        """The next request of events."""
        self._step += 1
        time_ = (self._venue.end + timedelta(seconds=30 * self._step)).isoformat()
        sways = 1.0 + self._chance.uniform(-0.0005, 0.0005)
        events: list[dict[str, Any]] = []
        for asset, price in self._venue.prices.items():
            events.append({"table": "asset_prices", "time": time_, "asset": asset, "price": price * sways})
        for market, mark in self._venue.marks.items():
            now = mark * sways
            events.append({"table": "market_bars", "time": time_, "market": market, "mark_close": now,
                           "index_close": now, "volume_usd": 1e6, "open_interest_usd": 1e7})  # fmt: skip
        for market, mark in self._venue.marks.items():
            events.append({"table": "book_depth", "time": time_, "market": market,
                           "best_bid": mark * sways * 0.9999, "best_ask": mark * sways * 1.0001,
                           "distance_bps": [10.0, 50.0, 200.0], "bid_usd": [1e5, 1e6, 5e6],
                           "ask_usd": [1e5, 1e6, 5e6]})  # fmt: skip
        markets = list(self._venue.marks)
        for place in range(100):  # the same accounts, in the same markets
            account = self._venue.accounts[place % len(self._venue.accounts)]
            market = markets[place % len(markets)]
            sign = 1 if self._step % 2 else -1
            events.append({"table": "fills", "time": time_, "account_id": account, "market": market,
                           "quantity": sign * 10.0 / self._venue.marks[market],
                           "price": self._venue.marks[market] * sways, "fee_usd": 0.0,
                           "kind": "trade"})  # fmt: skip
        for event in events:
            event["sequence"] = self._number
            self._number += 1
        return json.dumps({"source": "soak", "events": events}).encode()


class Load:
    """Callers that ask, and one that sends events."""

    def __init__(self, port: int, venue: Known) -> None:
        self._port = port
        self._feed = Feed(venue)
        self._questions = [self._question(venue, Random(number)) for number in range(2_000)]
        self.seen: Counter[str] = Counter()
        self.slowest_s = 0.0

    def _question(self, venue: Known, chance: Random) -> bytes:
        asked: dict[str, Any] = {"account_id": chance.choice(venue.accounts)}
        if chance.random() < 0.5:
            market = chance.choice(list(venue.marks))
            asked["orders"] = [
                {"market": market, "quantity": chance.uniform(-100, 100) / venue.marks[market]}
            ]
        if chance.random() < 0.02:
            asked["explain"] = True
        return json.dumps(asked).encode()

    async def _ask(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: bytes
    ) -> tuple[int, bytes]:
        reader, writer = streams
        head = f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        told = await reader.readuntil(b"\r\n\r\n")
        at = told.index(b"content-length: ") + 16
        return int(told[9:12]), await reader.readexactly(int(told[at : told.index(b"\r\n", at)]))

    async def _caller(self, number: int, ends: float, per_s: float | None) -> None:
        streams = await asyncio.open_connection("127.0.0.1", self._port)
        chance, due = Random(number), time.perf_counter() + number / 1_000
        while time.perf_counter() < ends:
            if per_s is not None:
                due += CALLERS / per_s
                await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            began = time.perf_counter()
            status, body = await self._ask(streams, "/v1/score", chance.choice(self._questions))
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
            self.seen[str(status)] += 1
            if status == 200 and b'"status":"fallback"' in body:
                self.seen["fallback"] += 1
        streams[1].close()

    async def _sender(self, ends: float) -> None:
        streams = await asyncio.open_connection("127.0.0.1", self._port)
        while time.perf_counter() < ends:
            status, body = await self._ask(streams, "/v1/events", self._feed.body())
            rejected = json.loads(body).get("rejected")
            self.seen["events refused" if status != 200 or rejected else "events taken"] += 1
            await asyncio.sleep(FEED_S)
        streams[1].close()

    async def run(self, seconds: float, per_s: float | None) -> float:
        """Ask for so long; answers a second."""
        ends = time.perf_counter() + seconds
        before = self.seen["200"]
        callers = (self._caller(number, ends, per_s) for number in range(CALLERS))
        await asyncio.gather(self._sender(ends), *callers)
        return (self.seen["200"] - before) / seconds


class Sample(NamedTuple):
    """One look at one process."""

    minute: float
    pid: int
    rss_mib: float
    descriptors: int


def look(pid: int, minute: float) -> Sample:
    """Resident memory and open descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Sample(minute, pid, mib, len(os.listdir(f"/proc/{pid}/fd")))


@contextmanager
def service(model: Path, dataset: Path, folder: Path) -> Iterator[tuple[int, list[int]]]:
    """The real command in a process of its own; its port and its workers' process ids."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", "--model", str(model), "--dataset", str(dataset),
         "--port", "0", "--workers", str(WORKERS), "--audit", "group"],
        env=os.environ
        | {"PERPRISK_EVENT_LOG": str(folder / "events"), "PERPRISK_AUDIT": str(folder / "audit")},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        port = 0
        for line in process.stderr:
            if "serving on " in line:
                port = int(line.strip().rsplit(":", 1)[1])
                break
        if not port:
            raise WorkError("the service did not start")
        os.set_blocking(process.stderr.fileno(), False)
        told = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        yield port, [int(pid) for pid in told.split()]
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


async def _soak(load: Load, workers: list[int], minutes: float) -> dict[str, Any]:
    await load.run(20.0, None)  # until nothing is made for the first time
    capacity = await load.run(20.0, None)
    print(f"capacity: {capacity:,.0f} answers/s to {CALLERS} callers that wait")
    load.seen.clear()
    load.slowest_s = 0.0
    began = time.perf_counter()
    samples: list[Sample] = []
    asking = asyncio.create_task(load.run(minutes * 60.0, capacity * LOAD))
    print(
        f"{'minute':>7} " + " ".join(f"{f'worker {n} MiB':>15} {'descriptors':>12}" for n in range(WORKERS))
    )
    while True:
        minute = (time.perf_counter() - began) / 60.0
        row = [look(pid, minute) for pid in workers]
        samples += row
        told = " ".join(f"{one.rss_mib:>15.2f} {one.descriptors:>12}" for one in row)
        print(f"{minute:>7.1f} {told}", flush=True)
        done, _ = await asyncio.wait([asking], timeout=60.0)
        if done:
            break
    asked_per_s = asking.result()
    samples += [look(pid, minutes) for pid in workers]
    return {"capacity_per_s": capacity, "answered_per_s": asked_per_s, "seen": dict(load.seen),
            "slowest_s": load.slowest_s, "minutes": minutes,
            "workers": [_told(samples, pid, minutes) for pid in workers]}  # fmt: skip


def _told(samples: list[Sample], pid: int, minutes: float) -> dict[str, Any]:
    """How one worker's memory and descriptors moved after the warm-up; while it was asked."""
    warm = min(minutes * WARM_UP, 10.0)
    own = [one for one in samples if one.pid == pid and warm <= one.minute < minutes]
    times = np.array([one.minute / 60.0 for one in own])
    memory = np.array([one.rss_mib for one in own])
    slope = float(np.polyfit(times, memory, 1)[0]) if len(own) > 2 else float("nan")
    return {
        "from_minute": own[0].minute if own else float("nan"),
        "rss_mib": [float(memory.min()), float(memory.max())],
        "mib_an_hour": slope,
        "grew_mib": float(memory[-1] - memory[0]),
        "descriptors": [min(one.descriptors for one in own), max(one.descriptors for one in own)],
        "descriptors_grew": own[-1].descriptors - own[0].descriptors,
    }


def _run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perprisk-soak-") as made:
        folder = Path(made)
        simulate.run(folder / "venue", options.accounts, 1.0, 1)
        model = options.model or folder / "model"
        if options.model is None:
            write_model(model)
        venue = known(folder / "venue")
        with service(model, folder / "venue", folder) as (port, workers):
            found = uvloop.run(_soak(Load(port, venue), workers, options.minutes))
    print(
        f"{found['answered_per_s']:,.0f} answers/s for {options.minutes:g} minutes, the slowest after"
        f" {found['slowest_s'] * 1e3:.0f} ms; {found['seen']}"
    )
    good = True
    for number, one in enumerate(found["workers"]):
        flat = one["mib_an_hour"] <= FLAT_MIB_AN_HOUR
        closed = one["descriptors_grew"] <= 0
        good = good and flat and closed
        print(
            f"worker {number}: {'flat' if flat else 'NOT FLAT'}, {one['mib_an_hour']:+.2f} MiB an hour by"
            f" least squares from minute {one['from_minute']:.0f} on ({one['grew_mib']:+.2f} MiB in all);"
            f" {'no descriptor more' if closed else 'DESCRIPTORS GROW'}, {one['descriptors'][0]} to"
            f" {one['descriptors'][1]}"
        )
    found["flat"] = good
    if options.minutes < 60:
        print("an hour is what counts: less cannot tell slow growth from what memory does by chance")
    return found


def main() -> int:
    """Print memory and descriptors minute by minute, and what they come to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to ask at 70%%")
    parser.add_argument("--model", type=Path, help="a trained model")
    parser.add_argument("--accounts", type=int, default=1_000, help="accounts of the simulated venue")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args()
    return finish(lambda: _run(options), options.json)


if __name__ == "__main__":
    sys.exit(main())
