"""Value at risk: what is known at a look decides it alone, and it is exceeded as often as it claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.units import HOUR_US, MINUTE_US
from models.value_at_risk import GAIN, LOOKS, RAISE, RAISE_LOOKS, RATE, START, value_at_risk
from models.worst_moves import Marks, portfolio_sigmas, sigmas, worst_losses, worst_losses_of_many

DAYS = 30


@pytest.fixture(scope="module")
def marks() -> Marks:
    """Two correlated prices by the minute with fat tails, and their ranges."""
    generator = np.random.default_rng(5)
    minutes = DAYS * 1_440
    shared = generator.standard_t(4, minutes)
    returns = 0.0006 * (np.column_stack([shared, 0.8 * shared]) + generator.standard_t(4, (minutes, 2)))
    close = 100.0 * np.exp(np.cumsum(returns, axis=0))
    spread = 1.0 + 0.0005 * np.abs(generator.standard_normal((minutes, 2)))
    return Marks((1 + np.arange(minutes)) * MINUTE_US, close, close * spread, close / spread)


WEIGHTS = ([1.0, 0.0], [-1.0, 0.0], [0.5, 0.5], [0.5, -0.5])


def looks(marks: Marks) -> np.ndarray:
    return np.arange(HOUR_US, int(marks.time_us[-1]), HOUR_US // LOOKS, dtype=np.int64)


def held(marks: Marks, weights: np.ndarray, at_us: np.ndarray) -> np.ndarray:
    sigma = portfolio_sigmas(weights, sigmas(marks, at_us, HOUR_US))
    return value_at_risk(worst_losses(marks, weights, at_us, HOUR_US), sigma)


def naive_loss(marks: Marks, weights: np.ndarray, at_us: int, period_us: int) -> float:
    """The worst by the definition, minute by minute."""
    now = marks.close[marks.time_us <= at_us][-1]
    later = (marks.time_us > at_us) & (marks.time_us <= at_us + period_us)
    ends = marks.close[later]
    if (weights != 0.0).sum() == 1:
        ends = (marks.low if weights.sum() > 0.0 else marks.high)[later]
    return max(0.0, float(-((ends / now - 1.0) @ weights).min()))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_losses_are_the_worst_of_the_period(marks: Marks, weights: list[float]) -> None:
    of = np.array(weights)
    at_us = looks(marks)[:: 5 * LOOKS]
    found = worst_losses(marks, of, at_us, HOUR_US)
    wanted = [naive_loss(marks, of, int(time_us), HOUR_US) for time_us in at_us]
    assert found == pytest.approx(wanted, abs=1e-12)
    several = worst_losses_of_many(marks, np.array(WEIGHTS), int(at_us[7]), HOUR_US)
    assert several[WEIGHTS.index(weights)] == found[7]


def test_the_last_period_and_a_hole_are_not_judged(marks: Marks) -> None:
    long = np.array([1.0, 0.0])
    end_us = int(marks.time_us[-1])
    assert np.isnan(worst_losses(marks, long, np.array([end_us - HOUR_US + 1]), HOUR_US)).all()
    kept = (marks.time_us <= 100 * HOUR_US) | (marks.time_us > 101 * HOUR_US)
    holed = Marks._make(column[kept] for column in marks)
    at_us = np.arange(98, 103, dtype=np.int64) * HOUR_US
    assert np.isnan(worst_losses(holed, long, at_us, HOUR_US)).tolist() == [False, False, True, True, False]


def test_a_bar_that_began_before_counts_by_its_close_alone() -> None:
    marks = Marks(
        np.array([0, 30, 60, 70]) * MINUTE_US,
        np.array([[100.0], [100.0], [99.0], [99.0]]),
        np.array([[100.0], [120.0], [100.0], [99.0]]),
        np.array([[100.0], [80.0], [98.0], [99.0]]),
    )
    at_us = np.array([10 * MINUTE_US])  # the bar to 30 minutes may have fallen to 80 before this
    assert worst_losses(marks, np.array([1.0]), at_us, HOUR_US) == pytest.approx([0.02])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_what_comes_after_changes_nothing(marks: Marks, weights: list[float]) -> None:
    of, at_us = np.array(weights), looks(marks)
    whole = held(marks, of, at_us)
    for look in (0, 40, 500, 1_500):
        known = Marks._make(column[marks.time_us <= at_us[look]] for column in marks)
        assert held(known, of, at_us[: look + 1])[look] == whole[look]


def test_a_planted_look_ahead_is_caught(marks: Marks) -> None:
    of, at_us = np.array([1.0, 0.0]), looks(marks)
    sigma = portfolio_sigmas(of, sigmas(marks, at_us, HOUR_US))
    loss = worst_losses(marks, of, at_us, HOUR_US)

    def ahead(known: Marks) -> np.ndarray:
        """Takes in every loss an hour too early."""
        early = np.concatenate([worst_losses(known, of, at_us, HOUR_US)[LOOKS:], np.full(LOOKS, np.nan)])
        return value_at_risk(early, sigma)

    look = int(np.flatnonzero(loss > held(marks, of, at_us))[3])
    known = Marks._make(column[marks.time_us <= at_us[look]] for column in marks)
    assert ahead(known)[look] != ahead(marks)[look]


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=80), st.integers(0, 79), st.floats(0.0, 0.5))
def test_a_loss_counts_once_its_period_has_ended(losses: list[float], which: int, other: float) -> None:
    loss = np.array(losses)
    changed = loss.copy()
    which %= len(loss)
    changed[which] = other
    sigma = np.full(len(loss), 0.01)
    same = slice(0, which + LOOKS)
    assert value_at_risk(loss, sigma)[same].tolist() == value_at_risk(changed, sigma)[same].tolist()
    larger = value_at_risk(np.maximum(loss, changed), sigma)
    assert (
        larger[min(which + LOOKS, len(loss) - 1)]
        >= value_at_risk(loss, sigma)[min(which + LOOKS, len(loss) - 1)]
    )


def test_the_rule_is_the_slow_and_obvious_one() -> None:
    generator = np.random.default_rng(2)
    loss, sigma = 0.02 * generator.standard_exponential(300), 0.01 * np.exp(generator.normal(0, 0.2, 300))
    loss[50], sigma[60] = np.nan, np.nan
    found = value_at_risk(loss, sigma)
    for look in (0, 3, 4, 57, 60, 64, 299):
        log = math.log(START)
        for past in range(look - LOOKS + 1):
            if math.isnan(loss[past]) or math.isnan(found[past]):
                continue
            exceeded = loss[past] > found[past]
            log += GAIN * (exceeded - RATE)
            log += exceeded * RAISE * math.exp(-(look - LOOKS - past) / RAISE_LOOKS)
        wanted = sigma[look] * math.exp(log)
        assert found[look] == pytest.approx(wanted, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("freedom", [3, 30])
def test_it_is_exceeded_as_often_as_it_claims_whatever_the_tail(freedom: int) -> None:
    loss = np.abs(np.random.default_rng(7).standard_t(freedom, 60_000)) * 0.01
    exceeded = loss > value_at_risk(loss, np.full(len(loss), 0.01))
    assert exceeded[2_000:].mean() == pytest.approx(0.0085, abs=0.0015)


def test_a_market_that_is_not_known_has_no_value_at_risk(marks: Marks) -> None:
    unknown = marks._replace(close=np.where([True, False], np.nan, marks.close))
    at_us = looks(marks)[:20]
    assert np.isnan(held(unknown, np.array([1.0, 0.0]), at_us)).all()
    assert np.isfinite(held(unknown, np.array([0.0, 1.0]), at_us)[1:]).all()
