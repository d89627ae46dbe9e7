"""The scorecard: its layout, its counts, what is unknown, and that it agrees with the metrics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from exchange.units import DAY_US, HOUR_US
from models import metrics as mt
from models import scorecard as sc

FROM_US = 19_327 * DAY_US  # 2022-12-01
ROWS = 1_500


def scored(seed: int, events: bool = True) -> sc.Scored:
    generator = np.random.default_rng(seed)
    risk = generator.normal(-3, 1.5, ROWS)
    noisy = {"model": 0.0, "margin_ratio": 1.5, "structural": 0.7}
    chance = {
        name: 1 / (1 + np.exp(-(risk + generator.normal(0, scale, ROWS)))) for name, scale in noisy.items()
    }
    time = FROM_US + generator.integers(0, 84, ROWS) * 4 * HOUR_US
    event = time + generator.integers(1, 24 * 60, ROWS) * (HOUR_US // 60)
    happened = (generator.random(ROWS) < chance["model"]) & events
    equity = np.exp(generator.normal(4, 3, ROWS))
    equity[:50] = np.nan
    notional = np.exp(generator.normal(6, 2, ROWS))
    notional[50:70] = np.nan
    return sc.Scored(
        time_us=time,
        account=generator.integers(0, 80, ROWS),
        happened=happened,
        event_us=event,
        label_end_us=time + DAY_US,
        equity_usd=equity,
        notional_usd=notional,
        long_share=generator.choice([0.0, 0.5, 0.7, 1.0, np.nan], ROWS),
        probability=chance,
    )


def card(targets, **changes):
    arguments = {
        "dataset": {"venue": "somewhere"},
        "model_version": "m1",
        "from_us": FROM_US,
        "to_us": FROM_US + 14 * DAY_US,
        "every_s": 14_400.0,
        "draws": 40,
    }
    return sc.scorecard(targets, **{**arguments, **changes})


@pytest.fixture(scope="module")
def example():
    targets = {
        "liquidation": {"1h": scored(1), "24h": scored(2)},
        "negative_equity": {"24h": scored(3, events=False)},
    }
    return targets, card(targets)


def test_layout_is_the_documented_one(example):
    _, found = example
    assert (found["format"], found["version"]) == ("perprisk-scorecard", 1)
    assert (found["from"], found["every_s"]) == ("2022-12-01T00:00:00+00:00", 14_400.0)
    assert {t: list(h) for t, h in found["targets"].items()} == {
        "liquidation": ["1h", "24h"],
        "negative_equity": ["24h"],
    }
    measured = {
        "rows",
        "events",
        "accounts",
        "predicted_events",
        "roc_auc",
        "average_precision",
        "recall_at_1pct_fpr",
        "brier",
        "log_loss",
        "predicted_over_actual",
        "top_1pct_observed_over_expected",
        "calibration_error",
        "intervals",
    }
    for horizons in found["targets"].values():
        for panels in horizons.values():
            assert tuple(panels) == sc.PANELS
            assert sc.PANELS[:2] == ("all", "equity_at_least_100_usd"), "the two that are promised"
            for name, panel in panels.items():
                extra = {"weight"} if name == "notional_weighted" else set()
                assert set(panel) - extra == {"rows", "events", "accounts", "days", *sc.SCORES, "differences"}
                assert all(set(panel[score]) == measured for score in sc.SCORES)
                assert all(set(panel[score]["intervals"]) == set(mt.METRICS) for score in sc.SCORES)


def test_figures_are_those_of_the_rows(example):
    targets, found = example
    rows = targets["liquidation"]["24h"]
    rich = rows.equity_usd >= 100
    for name, chosen in (("all", np.ones(ROWS, bool)), ("equity_at_least_100_usd", rich)):
        panel = found["targets"]["liquidation"]["24h"][name]
        happened = rows.happened[chosen]
        assert panel["rows"] == chosen.sum()
        assert panel["events"] == happened.sum()
        assert panel["accounts"] == len(set(rows.account[chosen][happened].tolist()))
        assert panel["days"] == len(set((rows.time_us[chosen] // DAY_US).tolist()))
        for score in sc.SCORES:
            chance = rows.probability[score][chosen]
            assert panel[score]["roc_auc"] == pytest.approx(roc_auc_score(happened, chance))
            assert panel[score]["predicted_events"] == pytest.approx(chance.sum())
            for metric in ("roc_auc", "average_precision", "predicted_over_actual", "calibration_error"):
                low, high = panel[score]["intervals"][metric]
                assert low < panel[score][metric] < high, metric


def test_parts_are_the_rows_they_name(example):
    targets, found = example
    rows = targets["liquidation"]["24h"]
    panels = found["targets"]["liquidation"]["24h"]
    parts = {
        "equity_below_100_usd": rows.equity_usd < 100,
        "net_long": rows.long_share > 0.5,
        "net_short": rows.long_share < 0.5,
    }
    for name, chosen in parts.items():
        happened, chance = rows.happened[chosen], rows.probability["model"][chosen]
        assert 0 < panels[name]["rows"] == chosen.sum() < ROWS
        assert panels[name]["model"]["roc_auc"] == pytest.approx(roc_auc_score(happened, chance))
    assert panels["equity_below_100_usd"]["rows"] + panels["equity_at_least_100_usd"]["rows"] == ROWS - 50


def test_weighing_by_notional_counts_dollars(example):
    targets, found = example
    rows = targets["liquidation"]["24h"]
    panel = found["targets"]["liquidation"]["24h"]["notional_weighted"]
    known = np.isfinite(rows.notional_usd)
    happened, weight = rows.happened[known], rows.notional_usd[known]
    assert panel["rows"] == ROWS - 20
    assert panel["events"] == happened.sum()
    assert panel["weight"] == {
        "total": pytest.approx(weight.sum()),
        "events": pytest.approx(weight[happened].sum()),
    }
    for score in sc.SCORES:
        chance = rows.probability[score][known]
        expected = {
            "roc_auc": roc_auc_score(happened, chance, sample_weight=weight),
            "average_precision": average_precision_score(happened, chance, sample_weight=weight),
            "predicted_over_actual": (weight * chance).sum() / weight[happened].sum(),
            "brier": np.average((chance - happened) ** 2, weights=weight),
        }
        for metric, value in expected.items():
            assert panel[score][metric] == pytest.approx(value), metric
            low, high = panel[score]["intervals"][metric]
            assert low < value < high, metric


def test_differences_are_paired(example):
    targets, found = example
    rows = targets["liquidation"]["24h"]
    panel = found["targets"]["liquidation"]["24h"]["all"]
    for baseline in sc.BASELINES:
        of = panel["differences"][baseline]["average_precision"]
        expected = average_precision_score(
            rows.happened, rows.probability["model"]
        ) - average_precision_score(rows.happened, rows.probability[baseline])
        assert of["change"] == pytest.approx(expected)
        assert of["low"] < of["change"] < of["high"]
        model, other = panel["model"]["intervals"], panel[baseline]["intervals"]
        unpaired = model["roc_auc"][1] - other["roc_auc"][0] - (model["roc_auc"][0] - other["roc_auc"][1])
        paired = panel["differences"][baseline]["roc_auc"]
        assert paired["high"] - paired["low"] < unpaired


def test_a_score_against_itself_differs_by_nothing():
    rows = scored(5)
    same = replace(rows, probability=dict.fromkeys(sc.SCORES, rows.probability["model"]))
    for of in sc.panel(same, 20, 0)["differences"].values():
        assert all(value == 0 for change in of.values() for value in change.values())


def test_what_no_event_defines_is_null(example):
    _, found = example
    panel = found["targets"]["negative_equity"]["24h"]["all"]
    assert panel["events"] == panel["accounts"] == 0
    assert panel["model"]["roc_auc"] is None
    assert panel["model"]["intervals"]["roc_auc"] == [None, None]
    assert panel["model"]["brier"] > 0
    assert panel["differences"]["structural"]["roc_auc"] == {"change": None, "low": None, "high": None}
    json.dumps(found, allow_nan=False)


def test_no_rows_at_all():
    nothing = scored(6).where(np.zeros(ROWS, bool))
    found = card({"liquidation": {"24h": nothing}})
    assert found["targets"]["liquidation"]["24h"]["all"]["rows"] == 0
    json.dumps(found, allow_nan=False)
    assert "0 rows" in sc.table(found)


def test_each_score_is_measured_where_it_is_known_and_compared_where_both_are():
    rows = scored(7)
    structural = rows.probability["structural"].copy()
    structural[100:400] = np.nan
    panel = sc.panel(replace(rows, probability={**rows.probability, "structural": structural}), 20, 0)
    known = np.isfinite(structural)
    assert (panel["model"]["rows"], panel["structural"]["rows"]) == (ROWS, ROWS - 300)
    assert panel["model"]["roc_auc"] == pytest.approx(roc_auc_score(rows.happened, rows.probability["model"]))
    expected = roc_auc_score(rows.happened[known], rows.probability["model"][known]) - roc_auc_score(
        rows.happened[known], structural[known]
    )
    assert panel["differences"]["structural"]["roc_auc"]["change"] == pytest.approx(expected)


def test_the_order_of_rows_changes_nothing():
    rows = scored(8)
    shuffled = rows.where(np.random.default_rng(1).permutation(ROWS))
    first, second = (sc.panel(these, 15, 3) for these in (rows, shuffled))
    assert json.dumps(flat(first)) == json.dumps(flat(second))


def flat(panel):
    """All figures, rounded beyond the noise of sums in another order."""
    if isinstance(panel, dict):
        return {key: flat(value) for key, value in panel.items()}
    if isinstance(panel, list):
        return [flat(value) for value in panel]
    return None if panel is None else round(panel, 9)


def test_the_table_shows_every_panel_in_aligned_columns(example):
    targets, found = example
    text = sc.table(found)
    assert text.count("\n## ") == 3 * 3 + 2, "two panels and the parts of each, the desk's where events came"
    rows = targets["liquidation"]["1h"]
    assert f"{roc_auc_score(rows.happened, rows.probability['model']):.3f} [" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 11
    for name in ("equity below $100", "weighted by notional", "net long", "net short", "calm time"):
        assert text.count(f"\n| {name} ") == 3
    for block in blocks:
        assert len({len(line) for line in block}) == 1
        assert len({line.count("|") for line in block}) == 1
