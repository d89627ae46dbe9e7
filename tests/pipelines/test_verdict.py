"""The verdict grades what the scorecard says, and says nothing where nothing came."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from exchange.units import DAY_US, HOUR_US
from models.panels import Scored
from models.scorecard import scorecard
from pipelines.verdict import graded, verdict

ROWS, START_US = 3_000, 19_000 * DAY_US


def card(events: bool = True, level: float = 1.0) -> dict[str, Any]:
    """A model that knows the truth, at a wrong level where `level` is not 1, beside noisy baselines."""
    generator = np.random.default_rng(4)
    risk = generator.normal(-3, 2, ROWS)
    truth = 1 / (1 + np.exp(-risk))
    time = START_US + generator.integers(0, 30 * 6, ROWS) * 4 * HOUR_US
    happened = (generator.random(ROWS) < truth) & events
    noisy = 1 / (1 + np.exp(-(risk + generator.normal(0, 2, ROWS))))
    scored = Scored(
        time_us=time,
        account=generator.integers(0, 200, ROWS),
        happened=happened,
        event_us=time + 3 * HOUR_US,
        label_end_us=time + DAY_US,
        equity_usd=np.full(ROWS, 500.0),
        notional_usd=np.full(ROWS, 1_000.0),
        long_share=np.ones(ROWS),
        probability={"model": level * truth, "margin_ratio": noisy, "structural": noisy},
    )
    facts = {"dataset": {}, "model_version": "m", "from_us": START_US, "to_us": START_US, "every_s": 14_400.0}
    return scorecard({"liquidation": {"24h": scored}}, **facts, draws=60)


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return card()


def test_the_truth_is_graded_good(good: dict[str, Any]) -> None:
    ranking, level, warning, crises = verdict(good)
    assert (ranking.grade, level.grade, warning.grade) == ("good", "good", "good")
    panel = good["targets"]["liquidation"]["24h"]["all"]
    assert f"{panel['events']:,} came" in level.figure
    assert f"{panel['model']['average_precision']:.3f} against" in ranking.figure
    assert crises.title == "Crises"
    each = good["desk"]["liquidation"]["24h"]["episodes"]["each"]
    assert each[0]["from"] in crises.meaning


def test_a_baseline_that_swaps_places_with_the_model_makes_it_poor(good: dict[str, Any]) -> None:
    turned = copy.deepcopy(good)
    panel = turned["targets"]["liquidation"]["24h"]["all"]
    panel["model"], panel["structural"] = panel["structural"], panel["model"]
    of = panel["differences"]["structural"]["average_precision"]
    of["low"], of["high"] = -of["high"], -of["low"]
    lead = turned["desk"]["liquidation"]["24h"]["lead_time"]
    lead["model"], lead["structural"] = lead["structural"], lead["model"]
    ranking, _, warning, _ = verdict(turned)
    assert (ranking.grade, warning.grade) == ("poor", "poor")


@pytest.mark.parametrize(
    ("ratio", "grade"),
    [(1.0, "good"), (0.8, "good"), (0.79, "fair"), (2.0, "fair"), (2.01, "poor"), (0.3, "poor")],
)
def test_grades_of_levels(ratio: float, grade: str) -> None:
    assert graded(ratio) == grade


def test_a_level_that_is_off_is_said_to_be() -> None:
    low = card(level=0.3)
    _, level, _, _ = verdict(low)
    assert level.grade == "poor"
    ratio = low["targets"]["liquidation"]["24h"]["all"]["model"]["predicted_over_actual"]
    assert f"predicted over actual is {ratio:.2f}" in level.meaning


def test_where_nothing_came_nothing_is_claimed() -> None:
    assert {line.grade for line in verdict(card(events=False))} == {"unknown"}
