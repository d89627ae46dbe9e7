"""The baselines: as simple as they are stated, level fitted, ranking untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.baselines import BASELINES, TARGETS, fit_level, probabilities, raw_probability, shifted

RATIO = np.array([0.2, 0.9, 1.0, 1.3, 2.0, 10.0, 400.0])
DISTANCE = np.array([-2.0, 0.0, 0.3, 1.0, 2.0, 4.0, 30.0])


def test_margin_ratio_has_odds_of_one_over_the_ratio() -> None:
    raw = raw_probability("margin_ratio", "liquidation_24h", RATIO, DISTANCE)
    assert raw == pytest.approx(1.0 / (1.0 + RATIO))


def test_structural_is_twice_the_tail_of_the_buffer_in_sigmas_of_the_horizon() -> None:
    for target, hours in zip(TARGETS, (1.0, 8.0, 24.0, 24.0), strict=True):
        raw = raw_probability("structural", target, RATIO, DISTANCE)
        scaled = DISTANCE * math.sqrt(24.0 / hours)
        expected = [1.0 if d <= 0 else math.erfc(d / math.sqrt(2.0)) for d in scaled]
        assert raw == pytest.approx(np.clip(expected, 1e-9, 1 - 1e-4), rel=1e-12)


@pytest.mark.parametrize("baseline", BASELINES)
def test_riskier_inputs_never_look_safer(baseline: str) -> None:
    for target in TARGETS:
        raw = raw_probability(baseline, target, RATIO, DISTANCE)
        assert (np.diff(raw) <= 0).all()


@pytest.mark.parametrize("baseline", BASELINES)
def test_what_is_not_known_stays_unknown(baseline: str) -> None:
    unknown = np.array([np.nan])
    assert np.isnan(raw_probability(baseline, "liquidation_24h", unknown, unknown)).all()
    levels = dict.fromkeys(TARGETS, 0.3)
    assert np.isnan(probabilities(baseline, levels, unknown, unknown)).all()


@given(st.lists(st.tuples(st.floats(1e-9, 1 - 1e-4), st.booleans()), min_size=1, max_size=60))
def test_the_level_makes_expected_equal_actual(rows: list[tuple[float, bool]]) -> None:
    chance = np.array([row[0] for row in rows])
    happened = np.array([row[1] for row in rows])
    expected = shifted(chance, fit_level(chance, happened)).sum()
    wanted = min(max(happened.sum(), 0.5), len(rows) - 0.5)
    assert expected == pytest.approx(wanted, rel=1e-6)


def test_rows_without_a_probability_do_not_count_for_the_level() -> None:
    chance, happened = np.array([0.1, 0.2, 0.4]), np.array([False, True, False])
    with_gap = fit_level(np.append(chance, np.nan), np.append(happened, True))
    assert with_gap == fit_level(chance, happened)
    assert fit_level(np.array([np.nan]), np.array([True])) == 0.0


@given(
    st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4),
    st.sampled_from(BASELINES),
)
def test_probabilities_are_ordered_whatever_the_levels(levels: list[float], baseline: str) -> None:
    found = probabilities(baseline, dict(zip(TARGETS, levels, strict=True)), RATIO, DISTANCE)
    one, eight, day, negative = found.T
    assert (one <= eight).all() and (eight <= day).all() and (negative <= day).all()
    assert ((found >= 0) & (found <= 1)).all()
