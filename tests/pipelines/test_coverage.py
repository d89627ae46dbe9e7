"""`perprisk evaluate --margin`: what it writes, from what was known, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from models.bundle import Bundle
from models.worst_moves import Marks
from pipelines.cli import run
from pipelines.coverage import PERIODS_US, judged_portfolios, market_marks, reference_portfolios
from pipelines.score import write_scores
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.scorer import Scorer


@pytest.fixture(scope="module")
def span_us(small_dataset: Path) -> tuple[int, int]:
    start_us = Dataset.open(small_dataset).meta.start_us
    return start_us + 3 * DAY_US, start_us + 5 * DAY_US


@pytest.fixture(scope="module")
def outs(
    small_dataset: Path, small_model: Path, span_us: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Results without and with --margin."""
    folder = tmp_path_factory.mktemp("coverage")
    span = ["--from", format_time(span_us[0]), "--to", format_time(span_us[1]), "--every", "6h"]
    request = ["evaluate", str(small_dataset), "--model", str(small_model), *span]
    assert run([*request, "--out", str(folder / "without")]) == 0
    assert run([*request, "--margin", "--out", str(folder / "with")]) == 0
    return folder / "without", folder / "with"


@pytest.fixture(scope="module")
def card(outs: tuple[Path, Path]) -> dict[str, Any]:
    return dict(json.loads((outs[1] / "coverage.json").read_text()))


def test_without_it_nothing_is_written_and_with_it_nothing_else_changes(outs: tuple[Path, Path]) -> None:
    without, with_margin = ({path.name: path.read_bytes() for path in out.iterdir()} for out in outs)
    assert set(with_margin) - set(without) == {"coverage.json", "coverage.png"}
    assert {name: with_margin[name] for name in without} == without


def test_the_card_has_every_portfolio_and_every_margin(card: dict[str, Any], small_dataset: Path) -> None:
    names, _ = market_marks(Dataset.open(small_dataset))
    assert set(card["periods"]) == set(PERIODS_US)
    for of in card["periods"].values():
        assert set(of["portfolios"]) == set(reference_portfolios(names))
        assert set(of["accounts"]) == {"suggested", "static", "in_force"}
    hour = card["periods"]["1h"]["portfolios"]["long BTC-PERP"]
    assert hour["periods"] == 49
    assert card["periods"]["24h"]["portfolios"]["long BTC-PERP"]["periods"] == 3


def test_margin_is_what_score_writes_held_against_bars(
    card: dict[str, Any], small_dataset: Path, small_model: Path, span_us: tuple[int, int], tmp_path: Path
) -> None:
    dataset = Dataset.open(small_dataset)
    times = np.arange(span_us[0], span_us[1] + 1, 6 * HOUR_US, dtype=np.int64)
    write_scores(dataset, Scorer(Bundle.open(small_model, catalog.fingerprint())), times, tmp_path / "scores")
    scores = pl.read_parquet(tmp_path / "scores")
    of = card["periods"]["1h"]["accounts"]
    assert of["suggested"]["decision_times"] == len(times)
    assert of["suggested"]["rows"] == scores.height
    assert of["suggested"]["exceeded"] <= of["static"]["exceeded"]
    assert of["suggested"]["average_rate"] >= of["static"]["average_rate"]
    # days are taken at least a day apart
    assert card["periods"]["24h"]["accounts"]["suggested"]["decision_times"] == 3


def test_fewer_decision_times_than_periods_are_all_taken_and_more_are_thinned(
    small_dataset: Path, small_model: Path, span_us: tuple[int, int], tmp_path: Path
) -> None:
    span = ["--from", format_time(span_us[0]), "--to", format_time(span_us[0] + 3 * HOUR_US)]
    request = ["evaluate", str(small_dataset), "--model", str(small_model), *span, "--every", "30m"]
    assert run([*request, "--margin", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "coverage.json").read_text())
    assert found["periods"]["1h"]["accounts"]["static"]["decision_times"] == 4
    assert found["periods"]["1h"]["accounts"]["static"]["share_of_accounts_low"] is None


def test_what_comes_after_changes_no_value_at_risk(small_dataset: Path, span_us: tuple[int, int]) -> None:
    names, marks = market_marks(Dataset.open(small_dataset))
    whole = judged_portfolios(names, marks, *span_us, HOUR_US)
    cut_us = span_us[0] + 20 * HOUR_US
    known = Marks._make(column[marks.time_us <= cut_us] for column in marks)
    then = judged_portfolios(names, known, span_us[0], cut_us, HOUR_US)
    assert set(then) == set(whole)
    for name, of in then.items():
        assert of.held.tolist() == whole[name].held[: len(of.held)].tolist()
        assert np.isfinite(of.held).all()


def test_bars_are_laid_side_by_side(small_dataset: Path) -> None:
    dataset = Dataset.open(small_dataset)
    names, marks = market_marks(dataset)
    bars = dataset.read("market_bars").sort("time")
    one = bars.filter(pl.col("market") == names[1])
    known = ~np.isnan(marks.close[:, 1])
    assert marks.time_us[known].tolist() == one["time"].dt.epoch("us").to_list()
    assert marks.close[known, 1].tolist() == one["mark_close"].to_list()
    assert marks.low[known, 1].tolist() == one["mark_low"].to_list()


def test_real_accounts_have_markets_to_judge(drift: Path) -> None:
    dataset = Dataset.open(drift)
    names, marks = market_marks(dataset)
    found = judged_portfolios(names, marks, dataset.meta.start_us, dataset.meta.end_us, HOUR_US)
    assert "long SOL-PERP" in found
    assert "long APT-PERP" not in found  # a bar a day says nothing of an hour


def test_a_dataset_without_one_of_its_marks_is_refused_in_one_line(
    small_dataset: Path, small_model: Path, span_us: tuple[int, int], tmp_path: Path, capsys: Any
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small_dataset, broken)
    for file in [broken / "market_bars.parquet", *broken.glob("market_bars/*.parquet")]:
        if file.exists():
            frame = pl.read_parquet(file)
            frame.with_columns(mark_close=pl.lit(-1.0)).write_parquet(file)
    span = ["--from", format_time(span_us[0]), "--to", format_time(span_us[1])]
    request = ["evaluate", str(broken), "--model", str(small_model), *span, "--margin"]
    assert run([*request, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
