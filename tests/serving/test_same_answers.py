"""The same events give the same bytes: online, in batch, after restarts at any point, from any worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from features import catalog
from models.bundle import Bundle
from pipelines.replay import replay
from pipelines.score import write_scores
from pipelines.store import Dataset
from serving import snapshot
from serving.codec import JSON
from serving.engine import Engine
from serving.log import EventLog
from serving.rows import read_events
from serving.scorer import Scorer
from serving.shared_log import SharedLog
from serving.wire import BatchRequest
from tests.pipelines import dataset_builder as build
from tests.serving import feeder
from tests.serving.plain_models import write_model
from tests.serving.test_equality import assert_equal

ROOT = Path(__file__).resolve().parents[2]
OWNER = b"a venue"
HOURS = 9.0


class Known:
    """A dataset up to a moment, a model of it, and what batch and one undisturbed engine say then."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.model = folder / "model"
        write_model(self.model)
        self.scorer = Scorer(Bundle.open(self.model, catalog.fingerprint()))
        self.path = build.write(folder / "data", build.random_tables(seed))
        dataset = Dataset.open(self.path, "accounts")
        time_us = np.array([build.us(build.at(HOURS))])
        write_scores(dataset, self.scorer, time_us, folder / "scores.parquet")
        self.scores = pl.read_parquet(folder / "scores.parquet")
        self.quote_asset = dataset.meta.quote_asset
        self.rows = [
            {**event, "sequence": number}
            for number, event in enumerate(feeder.events(self.path, build.at(HOURS)))
        ]
        self.names = self.scores["account_id"].to_list()
        alone = Engine(self.scorer, quote_asset=self.quote_asset)
        self.send(alone, self.rows)
        _, _, batch = next(replay(dataset, time_us))
        assert_equal(alone, batch, self.scores)  # online is batch, to the bit
        self.expected = self.answers(alone)

    def send(self, engine: Engine, rows: list[feeder.Event]) -> None:
        body = JSON.encode({"source": "feeder", "events": rows})
        assert engine.take(read_events(body)).rejected == []

    def answers(self, engine: Engine) -> bytes:
        """All answers as they go over the wire."""
        return bytes(JSON.encode(engine.score_batch(BatchRequest(self.names))))

    def hold(self, engine: Engine) -> None:
        assert engine.sequence == len(self.rows)
        assert self.answers(engine) == self.expected


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return Known(tmp_path_factory.mktemp("venue"), 0)


def restarted(venue: Known, path: Path) -> Engine:
    log = EventLog.open(path, OWNER)
    found = snapshot.newest(log)
    if found is None:
        return Engine(venue.scorer, None, None, log, venue.quote_asset)
    return Engine.restore(venue.scorer, found, None, log)


def restart_at(venue: Known, folder: Path, points: int, seed: int) -> None:
    """Send everything with as many deaths in between, and a snapshot now and then; then ask."""
    chance, path = Random(seed), folder / "events.log"
    cuts = sorted(chance.sample(range(1, len(venue.rows)), points))
    for start, end in zip([0, *cuts], [*cuts, len(venue.rows)], strict=True):
        engine = restarted(venue, path)
        venue.send(engine, venue.rows[start:end])
        if chance.random() < 0.3:
            engine.snapshot()
        os.close(engine._log._descriptor)  # type: ignore[union-attr]  # the process dies here
    engine = restarted(venue, path)
    venue.hold(engine)
    engine.close()


def test_restarts_change_no_answer(venue: Known, tmp_path: Path) -> None:
    restart_at(venue, tmp_path, 20, 1)


@pytest.mark.slow
def test_restarts_at_100_points_change_no_answer(venue: Known, tmp_path: Path) -> None:
    for seed in range(5):
        (tmp_path / str(seed)).mkdir()
        restart_at(venue, tmp_path / str(seed), 100, seed)


@pytest.mark.parametrize("count", [1, 2])
def test_any_number_of_workers_gives_the_same_answers(venue: Known, tmp_path: Path, count: int) -> None:
    path = tmp_path / "events.log"
    EventLog.open(path, OWNER).close()
    engines = [
        Engine(venue.scorer, None, None, SharedLog.open(path, OWNER), venue.quote_asset) for _ in range(count)
    ]
    chance, start = Random(2), 0
    while start < len(venue.rows):
        size = chance.choice([1, 7, 50, 400])
        venue.send(chance.choice(engines), venue.rows[start : start + size])
        start += size
    for engine in engines:
        engine.catch_up()
        venue.hold(engine)
        engine.close()


# -- the command itself


@contextmanager
def serving(venue: Known, folder: Path, workers: int) -> Iterator[tuple[str, list[int]]]:
    """`perprisk serve` in processes of its own; its address and its workers."""
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--model", str(venue.model), "--clock", "event", "--port", "0",
         "--workers", str(workers)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next(line.split()[-1] for line in lines if "serving on " in line)
        told = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        yield address, [int(pid) for pid in told.split()]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def ask(address: str, path: str, body: Any) -> httpx.Response:
    """On a connection of its own, which either worker may take; again while a worker is being started."""
    for _ in range(600):
        try:
            reply = httpx.post(address + path, content=body, timeout=60)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if reply.status_code == 503:
            time.sleep(0.1)
            continue
        return reply
    raise AssertionError("nobody answered")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_gives_the_bytes_of_batch_whatever_dies(
    venue: Known, tmp_path: Path, workers: int
) -> None:
    body = JSON.encode({"account_ids": venue.names})
    parts = 6
    with serving(venue, tmp_path, workers) as (address, pids):
        for part in range(parts):
            rows = venue.rows[part * len(venue.rows) // parts : (part + 1) * len(venue.rows) // parts]
            events = JSON.encode({"source": "feeder", "events": rows})
            for _ in range(2):  # a repeat is harmless
                assert ask(address, "/v1/events", events).json()["rejected"] == []
            if workers > 1 and part in (2, 4):
                os.kill(pids[1 if part == 2 else 0], signal.SIGKILL)
        for _ in range(40):
            assert ask(address, "/v1/score/batch", body).content == venue.expected
    with serving(venue, tmp_path, 3 - workers) as (address, _):  # and after a restart with another number
        for _ in range(10):
            assert ask(address, "/v1/score/batch", body).content == venue.expected
