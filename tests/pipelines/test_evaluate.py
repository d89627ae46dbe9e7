"""`perprisk evaluate`: its figures are those of the scores that `perprisk score` writes and of what came."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from exchange.units import DAY_US, HOUR_US
from features import catalog
from models.bundle import Bundle
from models.scorecard import PANELS, SCORES
from models.scorecard_text import table
from pipelines.cli import run
from pipelines.evaluate import judge
from pipelines.score import write_scores
from pipelines.store import Dataset
from pipelines.times import format_time, parse_time_us
from serving.scorer import Scorer

PNG = b"\x89PNG\r\n\x1a\n"
EVERY_H = 6


@pytest.fixture(scope="module")
def span_us(small_dataset: Path) -> tuple[int, int]:
    start_us = Dataset.open(small_dataset).meta.start_us
    return start_us + 3 * DAY_US, start_us + 7 * DAY_US + 5 * HOUR_US


@pytest.fixture(scope="module")
def out(
    small_dataset: Path, small_model: Path, span_us: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "out"
    request = ["evaluate", str(small_dataset), "--model", str(small_model), "--out", str(folder)]
    span = ["--from", format_time(span_us[0]), "--to", format_time(span_us[1]), "--every", f"{EVERY_H}h"]
    assert run([*request, *span]) == 0
    return folder


@pytest.fixture(scope="module")
def card(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "scorecard.json").read_text()))


def test_the_scorecard_is_the_documented_one(
    card: dict[str, Any], small_model: Path, span_us: tuple[int, int]
) -> None:
    assert [parse_time_us(card[name], name) for name in ("from", "to")] == list(span_us)
    assert card["every_s"] == EVERY_H * 3_600
    assert card["model_version"] == Bundle.open(small_model, catalog.fingerprint()).model_version
    assert {kind: set(panels) for kind, panels in card["targets"].items()} == {
        "liquidation": {"1h", "8h", "24h"},
        "negative_equity": {"24h"},
    }
    for panels in card["targets"].values():
        for panel in panels.values():
            assert set(panel) == set(PANELS)
            for figures in panel.values():
                assert {"rows", "events", "accounts"} <= set(figures)
                for score in SCORES:
                    assert {
                        "roc_auc", "average_precision", "recall_at_1pct_fpr", "brier", "log_loss",
                        "predicted_over_actual", "top_1pct_observed_over_expected", "calibration_error",
                    } <= set(figures[score])  # fmt: skip


def test_figures_are_those_of_scores_and_of_what_came(
    card: dict[str, Any], small_dataset: Path, small_model: Path, span_us: tuple[int, int], tmp_path: Path
) -> None:
    dataset = Dataset.open(small_dataset)
    end_us = dataset.meta.end_us
    times = np.arange(span_us[0], span_us[1] + 1, EVERY_H * HOUR_US, dtype=np.int64)
    write_scores(dataset, Scorer(Bundle.open(small_model, catalog.fingerprint())), times, tmp_path / "scores")
    scores = pl.read_parquet(tmp_path / "scores").with_columns(us=pl.col("time").dt.epoch("us"))
    events = dataset.read("default_events").with_columns(us=pl.col("time").dt.epoch("us"))
    for kind, hours, column in (
        ("liquidation", 1, "pd_liquidation_1h"),
        ("liquidation", 8, "pd_liquidation_8h"),
        ("liquidation", 24, "pd_liquidation_24h"),
        ("negative_equity", 24, "pd_negative_equity_24h"),
    ):
        horizon_us = hours * HOUR_US
        known = scores.filter(pl.col("us") + horizon_us <= end_us)
        found: dict[str, list[int]] = {}
        for name, time_us in events.filter(pl.col("kind") == kind).select("account_id", "us").iter_rows():
            found.setdefault(name, []).append(time_us)
        came = np.array(
            [
                any(time_us < event_us <= time_us + horizon_us for event_us in found.get(name, ()))
                for name, time_us in known.select("account_id", "us").iter_rows()
            ]
        )
        panel = card["targets"][kind][f"{hours}h"]["all"]
        assert panel["rows"] == known.height
        assert panel["events"] == came.sum()
        assert panel["accounts"] == known.filter(came)["account_id"].n_unique()
        chance = known[column].to_numpy()
        model = panel["model"]
        assert model["brier"] == pytest.approx(np.mean((chance - came) ** 2))
        if not came.any():
            assert hours == 1
            assert model["roc_auc"] is None
            continue
        assert model["roc_auc"] == pytest.approx(roc_auc_score(came, chance))
        assert model["average_precision"] == pytest.approx(average_precision_score(came, chance))
        assert model["predicted_over_actual"] == pytest.approx(chance.sum() / came.sum())


def test_the_early_warning_is_judged_on_the_rows_of_a_day(card: dict[str, Any]) -> None:
    panel = card["targets"]["liquidation"]["24h"]["all"]
    early = card["early_warning"]["targets"]["liquidation_24h"]
    assert (early["rows"], early["events"]) == (panel["rows"], panel["events"])
    assert 0 < early["alarms"] < early["rows"]
    assert early["warning"]["precision"] * early["alarms"] == pytest.approx(
        early["warning"]["recall"] * early["events"]
    )
    told = table(card).split("## Early warning")[1].replace(" ", "")
    assert f"|liquidation24h|{early['events']:,}|{early['alarms']:,}|" in told


def test_pictures_are_pictures(out: Path) -> None:
    names = {path.stem for path in out.glob("*.png")}
    assert names == {
        "shap_beeswarm", "shap_bar", "reliability", "precision_recall", "over_time", "lead_time", "margins",
    }  # fmt: skip
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(PNG)
    assert {path.name for path in out.iterdir()} == {"scorecard.json", *(f"{name}.png" for name in names)}


def test_judging_twice_gives_the_same_figures(
    card: dict[str, Any], small_dataset: Path, small_model: Path, span_us: tuple[int, int]
) -> None:
    scorer = Scorer(Bundle.open(small_model, catalog.fingerprint()))
    again = judge(Dataset.open(small_dataset), scorer, *span_us, EVERY_H * HOUR_US)
    assert json.loads(json.dumps(again.card)) == card
    assert again.summary == card["targets"]["liquidation"]["24h"]["all"]
    flat = again.flat_metrics()
    assert flat["liquidation_24h_roc_auc"] == again.summary["model"]["roc_auc"]
    assert all(math.isfinite(value) for value in flat.values())


def test_what_happens_beyond_the_span_is_not_judged(
    small_dataset: Path, small_model: Path, span_us: tuple[int, int]
) -> None:
    scorer = Scorer(Bundle.open(small_model, catalog.fingerprint()))
    from_us, to_us = span_us[0] + 6 * HOUR_US, span_us[0] + 30 * HOUR_US
    judged = judge(Dataset.open(small_dataset), scorer, from_us, to_us, EVERY_H * HOUR_US, draws=2)
    assert judged.rows.time_us.min() == from_us
    assert judged.rows.time_us.max() == to_us
