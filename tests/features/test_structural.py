"""First passage against known values, against paths by chance, and against its own laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.structural import (
    PROBABILITY_CEILING,
    PROBABILITY_FLOOR,
    VARIANCE_LOG_SD,
    conditional_hazard,
    first_passage,
    logit,
    mixed_first_passage,
    mixed_hazards,
)
from tests.oracle import market_oracle as oracle

nearness = st.floats(-5.0, 60.0)


@pytest.mark.parametrize(
    ("buffer_over_sigma", "probability"),
    [
        (0.6744897501960817, 0.5),  # twice the tail beyond the quartile
        (1.0, 0.31731050786291415),
        (1.959963984540054, 0.05),
        (3.0, 0.002699796063260207),
        (0.0, 1.0),
        (-2.0, 1.0),
    ],
)
def test_first_passage_is_twice_the_tail_of_a_normal(buffer_over_sigma: float, probability: float) -> None:
    assert first_passage(buffer_over_sigma) == pytest.approx(probability, rel=1e-12)


@pytest.mark.parametrize("buffer_over_sigma", [0.3, 1.0, 2.0])
def test_first_passage_is_the_share_of_paths_that_touch(buffer_over_sigma: float) -> None:
    """Brownian paths on a grid, each step's chance of touching in between added exactly (bridge)."""
    paths, steps = 20_000, 40
    moves = np.random.default_rng(5).normal(0.0, math.sqrt(1 / steps), (paths, steps))
    left = np.maximum(
        buffer_over_sigma + np.concatenate([np.zeros((paths, 1)), np.cumsum(moves, axis=1)], 1), 0
    )
    untouched = 1.0 - np.exp(-2.0 * left[:, :-1] * left[:, 1:] * steps)
    touched = 1.0 - untouched.prod(axis=1)
    error = touched.std() / math.sqrt(paths)
    assert abs(touched.mean() - first_passage(buffer_over_sigma)) < 4 * error


@pytest.mark.parametrize("buffer_over_sigma", [0.2, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_mixed_is_the_average_over_lognormal_variance(buffer_over_sigma: float) -> None:
    z = np.linspace(-8.0, 8.0, 4_001)
    weight = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    each = [first_passage(buffer_over_sigma * math.exp(-VARIANCE_LOG_SD * x / 2)) for x in z]
    assert mixed_first_passage(buffer_over_sigma) == pytest.approx(float(weight @ each), abs=2e-3)


@pytest.mark.parametrize("buffer_over_sigma", [0.2, 1.0, 3.0, 10.0])
def test_mixed_has_the_nodes_and_weights_of_gauss_and_hermite(buffer_over_sigma: float) -> None:
    assert mixed_first_passage(buffer_over_sigma) == pytest.approx(
        oracle.passage(buffer_over_sigma), rel=1e-12
    )


def test_uncertain_volatility_fattens_the_far_tail_and_thins_the_near_one() -> None:
    assert mixed_first_passage(5.0) > 100 * first_passage(5.0)
    assert mixed_first_passage(0.5) < first_passage(0.5)


@given(nearness)
def test_probabilities_are_bounded(buffer_over_sigma: float) -> None:
    probability = mixed_first_passage(buffer_over_sigma)
    hazards = mixed_hazards(buffer_over_sigma)
    for value in (probability, *hazards):
        assert PROBABILITY_FLOOR <= value <= PROBABILITY_CEILING
        assert math.isfinite(logit(value))
    if buffer_over_sigma <= 0.0:
        assert probability == PROBABILITY_CEILING


@given(nearness, st.floats(0.0, 10.0))
def test_a_larger_buffer_is_never_riskier(buffer_over_sigma: float, more: float) -> None:
    assert mixed_first_passage(buffer_over_sigma + more) <= mixed_first_passage(buffer_over_sigma)
    near, far = mixed_hazards(buffer_over_sigma), mixed_hazards(buffer_over_sigma + more)
    for before, after in zip(near, far, strict=True):
        assert after <= before + 1e-9


@given(st.floats(0.02, 12.0))
def test_hazards_recombine_to_the_probability_of_the_day(buffer_over_sigma: float) -> None:
    first, second, third = mixed_hazards(buffer_over_sigma)
    if PROBABILITY_FLOOR < first < PROBABILITY_CEILING:  # no bound has been touched
        day = 1.0 - (1.0 - first) * (1.0 - second) * (1.0 - third)
        assert min(day, PROBABILITY_CEILING) == pytest.approx(
            mixed_first_passage(buffer_over_sigma), rel=1e-6
        )


@given(st.floats(-1e3, 0.0))
def test_at_the_barrier_later_hazards_are_those_of_the_smallest_buffer(buffer_over_sigma: float) -> None:
    """Survival of a small buffer falls as the root of time: to 8 h by sqrt(1/8), then by sqrt(8/24)."""
    first, second, third = mixed_hazards(buffer_over_sigma)
    assert first == PROBABILITY_CEILING
    assert second == pytest.approx(1.0 - math.sqrt(1 / 8), rel=1e-6)
    assert third == pytest.approx(1.0 - math.sqrt(8 / 24), rel=1e-6)


def test_unknown_stays_unknown() -> None:
    assert math.isnan(first_passage(math.nan))
    assert math.isnan(mixed_first_passage(math.nan))
    assert all(math.isnan(hazard) for hazard in mixed_hazards(math.nan))
    assert math.isnan(conditional_hazard(math.nan, math.nan))
    assert math.isnan(logit(math.nan))


@given(st.floats(1e-9, 0.98))
def test_logit_is_turned_back_by_the_logistic_function(probability: float) -> None:
    assert 1.0 / (1.0 + math.exp(-logit(probability))) == pytest.approx(probability, rel=1e-9)
