"""`perprisk score`: the columns of the interface, a row an account and time, however times are asked for."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from models.bundle import Bundle
from models.horizons import SCORE_COLUMNS
from pipelines.cli import run
from pipelines.replay import replay
from pipelines.score import write_scores
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.scorer import REASONS_FROM_PD_24H, Scorer
from tests.pipelines import dataset_builder as build

TEXTS = ("account_id", "status", "fallback_reason", "reason_1", "reason_2", "reason_3", "model_version")


@pytest.fixture(scope="module")
def model(small_model: Path) -> Bundle:
    return Bundle.open(small_model, catalog.fingerprint())


@pytest.fixture(scope="module")
def asked(small_dataset: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Scores of the generated venue every eight hours from its fourth day on."""
    out = tmp_path_factory.mktemp("scores") / "scores.parquet"
    request = ["score", str(small_dataset), "--model", str(small_model), "--out", str(out)]
    start = Dataset.open(small_dataset).meta.start_us + 3 * DAY_US
    span = ["--from", format_time(start), "--to", format_time(start + 2 * DAY_US), "--every", "8h"]
    assert run([*request, *span]) == 0
    return pl.read_parquet(out)


def test_columns_are_those_of_the_interface(asked: pl.DataFrame) -> None:
    assert tuple(asked.columns) == SCORE_COLUMNS
    for name, type_ in asked.schema.items():
        if name == "time":
            assert type_ == pl.Datetime("us", "UTC")
        else:
            assert type_ == (pl.String if name in TEXTS else pl.Float64), name
    needed = [name for name in SCORE_COLUMNS if name not in TEXTS[2:6]]
    assert sum(asked.select(pl.col(needed).null_count()).row(0)) == 0


def test_a_row_is_an_open_account_at_a_time_that_was_asked_for(
    asked: pl.DataFrame, small_dataset: Path
) -> None:
    dataset = Dataset.open(small_dataset)
    start = dataset.meta.start_us + 3 * DAY_US
    times = [start + step * 8 * HOUR_US for step in range(7)]  # both ends included
    assert asked["time"].dt.epoch("us").unique().sort().to_list() == times
    assert asked["time"].is_sorted()
    found = asked.select("time", "account_id").rows()
    assert len(set(found)) == len(found) > 1_000
    for time_us, vectors, venue in replay(dataset, np.array(times)):
        at = asked.filter(pl.col("time").dt.epoch("us") == time_us)
        assert at["account_id"].to_list() == [venue.account_names[key] for key in vectors.account]


def test_what_a_row_says_holds_together(asked: pl.DataFrame, model: Bundle) -> None:
    assert asked["model_version"].unique().to_list() == [model.model_version]
    reasoned = 0
    for row in asked.iter_rows(named=True):
        assert (row["status"] == "fallback") == (row["fallback_reason"] is not None)
        assert row["status"] in ("ok", "fallback")
        texts = [row[f"reason_{place}"] for place in (1, 2, 3)]
        given = [text for text in texts if text is not None]
        assert texts[: len(given)] == given, "no gap between reasons"
        assert len(set(given)) == len(given)
        raised = row["initial_margin_rate"] > row["static_initial_margin_rate"]
        if given:
            assert row["status"] == "ok"
            assert row["pd_liquidation_24h"] >= REASONS_FROM_PD_24H or raised
        reasoned += bool(given)
        if row["status"] == "ok":
            chances = [row[f"pd_liquidation_{hours}h"] for hours in (1, 8, 24)]
            assert 0.0 <= chances[0] <= chances[1] <= chances[2] <= 1.0
            assert 0.0 <= row["pd_negative_equity_24h"] <= chances[2]
            assert row["expected_loss_usd"] >= 0.0
    assert 0 < reasoned < asked.height


def test_times_may_come_in_any_order_and_often(
    asked: pl.DataFrame, small_dataset: Path, small_model: Path, tmp_path: Path
) -> None:
    times = asked["time"].unique().sort()
    chosen = [times[5], times[1], times[5], times[3]]
    request = ["score", str(small_dataset), "--model", str(small_model), "--out", str(tmp_path / "some")]
    for time in chosen:
        request += ["--at", time.isoformat()]
    assert run(request) == 0
    expected = asked.filter(pl.col("time").is_in(chosen))
    assert pl.read_parquet(tmp_path / "some").equals(expected)


def test_a_range_ends_with_its_last_step(small_dataset: Path, small_model: Path, tmp_path: Path) -> None:
    """An end between two steps is no step, not even one after the end of the dataset."""
    end = Dataset.open(small_dataset).meta.end_us
    request = ["score", str(small_dataset), "--model", str(small_model), "--out", str(tmp_path / "out")]
    span = ["--from", format_time(end - 5 * HOUR_US), "--to", format_time(end + HOUR_US), "--every", "4h"]
    assert run([*request, *span]) == 0
    assert pl.read_parquet(tmp_path / "out")["time"].dt.epoch("us").unique().sort().to_list() == [
        end - 5 * HOUR_US,
        end - HOUR_US,
    ]


def test_a_row_group_a_time_so_that_memory_holds_one(
    asked: pl.DataFrame, small_dataset: Path, model: Bundle, tmp_path: Path
) -> None:
    times = np.array(asked["time"].dt.epoch("us").unique().sort().to_list()[:3])
    rows = write_scores(Dataset.open(small_dataset), Scorer(model), times, tmp_path / "out")
    file = pq.ParquetFile(tmp_path / "out")
    assert file.num_row_groups == 3
    assert file.metadata.num_rows == rows


def test_no_open_account_is_a_file_without_rows(model: Bundle, tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path / "data"))
    assert write_scores(dataset, Scorer(model), np.array([build.us(build.at(0.0))]), tmp_path / "out") == 0
    none = pl.read_parquet(tmp_path / "out")
    assert (none.height, tuple(none.columns)) == (0, SCORE_COLUMNS)


def test_what_cannot_be_computed_is_nan_and_said(model: Bundle, tmp_path: Path) -> None:
    """The first bar is not enough for a volatility, and there is no probability without one."""
    dataset = Dataset.open(build.write(tmp_path / "data"))
    build.change(dataset.path, "market_bars", lambda rows: rows.filter(pl.col("time") != build.at(0.5)))
    build.change(dataset.path, "market_bars", lambda rows: rows.filter(pl.col("time") >= build.at(1.0)))
    dataset = Dataset.open(dataset.path)
    write_scores(dataset, Scorer(model), np.array([build.us(build.at(1.25))]), tmp_path / "out")
    (row,) = pl.read_parquet(tmp_path / "out").iter_rows(named=True)
    assert (row["account_id"], row["status"], row["fallback_reason"]) == (
        "zoe",
        "fallback",
        "missing_volatility",
    )
    assert math.isnan(row["pd_liquidation_24h"])
    assert row["initial_margin_rate"] == row["static_initial_margin_rate"] == pytest.approx(0.1)
    assert row["time"] == datetime(2024, 3, 1, 1, 15, tzinfo=UTC)
    assert row["reason_1"] is None


@pytest.mark.parametrize(
    "name", ["fills.parquet", "margin_rates.parquet", "dataset.json", "market_bars/x.parquet"]
)
def test_scores_take_the_place_of_no_part_of_the_dataset(
    name: str, small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "venue"
    dataset.mkdir()
    for file in small_dataset.iterdir():
        (dataset / file.name).symlink_to(file)
    (dataset / "market_bars.parquet").unlink()
    (dataset / "market_bars").mkdir()
    (dataset / "market_bars" / "part-0.parquet").symlink_to(small_dataset / "market_bars.parquet")
    (tmp_path / "way").symlink_to(dataset)
    out = tmp_path / "way" / name
    before = out.read_bytes() if out.exists() else None
    assert run(["score", str(dataset), "--model", "nowhere", "--at", "2025-01-02", "--out", str(out)]) == 2
    assert f"{out}: is a part of the dataset" in capsys.readouterr().err
    assert (out.read_bytes() if out.exists() else None) == before


def test_scoring_loads_nothing_that_only_training_needs() -> None:
    code = "import sys, pipelines.score; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"lightgbm", "sklearn", "pandas", "shap", "mlflow"} & set(done.stdout.split())
