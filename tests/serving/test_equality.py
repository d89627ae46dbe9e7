"""What the service answers is what batch writes, to the bit: state, vectors, scores and reasons."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from features import catalog
from features.venue import Venue
from models.bundle import Bundle
from models.horizons import SCORE_COLUMNS
from pipelines.replay import replay
from pipelines.score import write_scores
from pipelines.store import Dataset
from serving.codec import JSON
from serving.engine import Engine
from serving.rows import read_events
from serving.scorer import Scorer
from serving.wire import EPOCH, ScoreRequest
from tests.pipelines import dataset_builder as build
from tests.serving import feeder

NUMBERS = SCORE_COLUMNS[2:10]


@pytest.fixture(scope="module")
def scorer(small_model: Path) -> Scorer:
    return Scorer(Bundle.open(small_model, catalog.fingerprint()))


def bits(value: float | None) -> bytes:
    return b"nan" if value is None or math.isnan(value) else struct.pack("<d", value)


def answers(engine: Engine, names: list[str]) -> list[dict[str, Any]]:
    """Answers as they go over the wire, explained."""
    return [
        msgspec.json.decode(JSON.encode(engine.score(ScoreRequest(name, explain=True)))) for name in names
    ]


def assert_equal(engine: Engine, batch: Venue, table: pl.DataFrame) -> None:
    """The engine's state is the batch's, and its answers are the rows of a table of scores."""
    live = engine.venue
    assert live.digest() == batch.digest()
    for names in ("market_names", "asset_names", "account_names", "owner_names"):
        assert getattr(live, names) == getattr(batch, names)
    for left, right in zip(live.open_vectors(), batch.open_vectors(), strict=True):
        assert left.tobytes() == right.tobytes()
    rows = table.rows(named=True)
    for row, answer in zip(rows, answers(engine, table["account_id"].to_list()), strict=True):
        assert datetime.fromisoformat(answer["time"]) == row["time"]
        for column in NUMBERS:
            assert bits(answer[column]) == bits(row[column]), column
        for column in ("account_id", "status", "fallback_reason", "model_version"):
            assert answer[column] == row[column]
        texts = [row[f"reason_{place}"] for place in (1, 2, 3)]
        if texts[0] is not None:
            words = [
                catalog.FEATURES[catalog.index(reason["feature"])].words.format(reason["value"])
                for reason in answer["reasons"]
            ]
            assert words == [text for text in texts if text is not None]


def check(folder: Path, times: list[datetime], scorer: Scorer, out: Path, size: int) -> int:
    """Follow a dataset with the service and compare with batch at each time; the number of rows compared."""
    dataset = Dataset.open(folder, "accounts")
    times_us = np.array([build.us(time) for time in times])
    write_scores(dataset, scorer, times_us, out)
    scores = pl.read_parquet(out)
    engine = Engine(scorer, quote_asset=dataset.meta.quote_asset)
    for time_us in times_us:
        rows = feeder.events(folder, EPOCH + timedelta(microseconds=int(time_us)))
        send(engine, rows, size)
        assert engine.now_us == time_us
        # on its own: a replay that goes on has given ids to names of the time after
        _, _, venue = next(replay(dataset, np.array([time_us])))
        assert_equal(engine, venue, scores.filter(pl.col("time").dt.epoch("us") == time_us))
    return scores.height


def send(engine: Engine, rows: list[feeder.Event], size: int) -> None:
    """Send all rows; those that were sent before are repeats, which are harmless."""
    for body in feeder.requests(rows, size):
        assert engine.take(read_events(body)).rejected == []
    assert engine.sequence == len(rows)


def moments(folder: Path, shares: tuple[float, ...], table: str) -> list[datetime]:
    """Times of rows of a table since the start, so far along it."""
    start = datetime.fromisoformat(json.loads((folder / "dataset.json").read_text())["start"])
    times = pl.read_parquet(folder / f"{table}.parquet")["time"].unique().sort()
    times = times.filter(times >= start)
    return [times[int(share * (len(times) - 1))] for share in shares]


def test_live_is_batch_on_a_generated_venue(small_dataset: Path, scorer: Scorer, tmp_path: Path) -> None:
    times = moments(small_dataset, (0.3, 0.7, 1.0), "market_bars")
    assert check(small_dataset, times, scorer, tmp_path / "scores.parquet", 1_000) > 500


@pytest.mark.real_data
def test_live_is_batch_on_real_accounts(drift: Path, scorer: Scorer, tmp_path: Path) -> None:
    until = datetime(2022, 12, 12, tzinfo=UTC)
    folder = build.truncate_after(drift, tmp_path / "slice", build.us(until))
    # the second is soon after two markets were listed, whose first funding came before their terms
    times = [*moments(folder, (0.01, 0.5, 1.0), "market_bars"), datetime(2022, 12, 7, 2, 37, 34, tzinfo=UTC)]
    times.sort()
    assert check(folder, times, scorer, tmp_path / "scores.parquet", 700) > 100


@pytest.mark.parametrize("seed", range(3))
def test_live_is_batch_where_everything_happens_at_once(seed: int, scorer: Scorer, tmp_path: Path) -> None:
    folder = build.write(tmp_path / "data", build.random_tables(seed))
    times = [build.at(hours) for hours in (2.0, 6.0, 9.0, 12.0)]
    assert check(folder, times, scorer, tmp_path / "scores.parquet", 13) > 3


def test_live_is_batch_where_prices_come_before_terms(scorer: Scorer, tmp_path: Path) -> None:
    tables = build.random_tables(0)
    eth, early = pl.col("market") == "ETH-PERP", pl.col("time") < build.at(5)
    tables["markets"] = tables["markets"].with_columns(
        time=pl.when(eth).then(pl.lit(build.at(4.9)).cast(build.TIME)).otherwise("time")
    )
    tables["position_snapshots"] = tables["position_snapshots"].filter(~(eth & early))
    folder = build.write(tmp_path / "data", tables)
    assert tables["market_bars"].filter(eth & early).height
    assert check(folder, [build.at(4.5), build.at(9.0)], scorer, tmp_path / "scores.parquet", 13)


def test_one_row_withheld_is_noticed(scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build.write(tmp_path / "data", build.random_tables(0))
    times = [build.at(9.0)]
    assert check(folder, times, scorer, tmp_path / "scores.parquet", 50)
    complete = feeder.events
    withheld = [row for row in complete(folder, times[0]) if row["table"] == "market_bars"][5]
    monkeypatch.setattr(feeder, "events", lambda *given: [row for row in complete(*given) if row != withheld])
    with pytest.raises(AssertionError):
        check(folder, times, scorer, tmp_path / "scores.parquet", 50)
