"""What each estimator of volatility means, on prices simple enough to know the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.volatility import (
    BIPOWER,
    FIRST_TIME,
    HALF_LIVES_H,
    HAR,
    HAR_DAY,
    HAR_MONTH,
    HAR_WEEK,
    PRIOR_VARIANCE,
    RING_HOURS,
    SERIES_COLUMNS,
    jump_share,
    observe_price,
    slow_variance,
)
from tests.features.streams import DAY, HOUR, MINUTE, SECOND

MIDNIGHT = 19_676 * DAY
EWMA_48H = HALF_LIVES_H.index(48.0)


class Series:
    """The state of one price."""

    def __init__(self, start_us: int = MIDNIGHT) -> None:
        self.time_us = start_us
        self.variance = np.full(len(HALF_LIVES_H), math.nan)
        self.series = np.full(SERIES_COLUMNS, math.nan)
        self.ring = np.zeros(RING_HOURS)

    def see(self, log_return: float, elapsed_us: int) -> None:
        self.time_us += elapsed_us
        observe_price(log_return, self.time_us, elapsed_us, self.variance, self.series, self.ring)

    @property
    def har(self) -> float:
        return float(self.series[HAR])

    @property
    def jumps(self) -> float:
        return jump_share(float(self.variance[EWMA_48H]), float(self.series[BIPOWER]))


def seen(returns: Sequence[float], every_us: int, start_us: int = MIDNIGHT) -> Series:
    series = Series(start_us)
    for log_return in returns:
        series.see(log_return, every_us)
    return series


# ---- EWMA


@pytest.mark.parametrize("every_us", [20 * SECOND, MINUTE, HOUR, 7 * HOUR])
def test_returns_of_one_size_have_the_variance_of_that_size(every_us: int) -> None:
    series = seen([0.01, -0.01] * 200, every_us)
    rate = 1e-4 / (every_us / SECOND)
    assert series.variance == pytest.approx([rate] * len(HALF_LIVES_H), rel=1e-12)
    assert series.series[BIPOWER] == pytest.approx(math.pi / 2 * rate, rel=1e-12)
    assert series.jumps == 0.0


@pytest.mark.parametrize(("column", "half_life_h"), list(enumerate(HALF_LIVES_H)))
def test_after_a_half_life_of_quiet_half_is_left(column: int, half_life_h: float) -> None:
    series = seen([0.02], HOUR)
    loud = series.variance[column]
    series.see(0.0, int(half_life_h * HOUR))
    assert series.variance[column] == pytest.approx(loud / 2, rel=1e-12)


@given(st.lists(st.integers(1, 10 * HOUR), min_size=1, max_size=8))
def test_how_often_nothing_happens_does_not_matter(pieces: list[int]) -> None:
    often, once = seen([0.03], HOUR), seen([0.03], HOUR)
    for piece in pieces:
        often.see(0.0, piece)
    once.see(0.0, sum(pieces))
    assert often.variance == pytest.approx(once.variance, rel=1e-9)
    assert often.har == pytest.approx(once.har, rel=1e-9)


def test_nothing_is_known_before_the_first_return_and_no_jumps_before_the_second() -> None:
    series = Series()
    assert np.isnan(series.variance).all()
    assert math.isnan(series.har)
    series.see(0.01, HOUR)
    assert series.variance == pytest.approx([1e-4 / 3_600] * 3)
    assert math.isnan(series.jumps)
    series.see(0.01, HOUR)
    assert not math.isnan(series.jumps)


# ---- HAR


def test_a_full_ring_of_equal_hours_is_their_variance() -> None:
    series = seen([0.01] * (RING_HOURS + 100), HOUR)
    assert series.har == pytest.approx(1e-4 / 3_600, rel=1e-12)
    assert series.ring == pytest.approx([1e-4] * RING_HOURS)


def test_har_weighs_the_last_day_week_and_month() -> None:
    quiet, week, day = [0.001] * (720 - 168), [0.002] * (168 - 24), [0.004] * 24
    series = seen([*[0.5] * 50, *quiet, *week, *day], HOUR)  # what is older than a month is forgotten
    sums = [sum(r * r for r in part) for part in (day, week, quiet)]
    expected = (
        HAR_DAY * sums[0] / 86_400
        + HAR_WEEK * (sums[0] + sums[1]) / (7 * 86_400)
        + HAR_MONTH * sum(sums) / (30 * 86_400)
    )
    assert series.har == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("hours", [1, 5, 24])
def test_in_the_first_day_all_windows_are_what_is_known(hours: int) -> None:
    series = seen([0.01] * hours, HOUR)
    assert series.har == pytest.approx(1e-4 / 3_600, rel=1e-12)
    assert series.series[FIRST_TIME] == MIDNIGHT


def test_in_the_second_day_the_day_is_full_and_the_rest_is_not() -> None:
    series = seen([0.02] * 12 + [0.01] * 24, HOUR)
    known = 36 * 3_600
    both = 12 * 4e-4 + 24 * 1e-4
    assert series.har == pytest.approx(
        HAR_DAY * 1e-4 / 3_600 + (HAR_WEEK + HAR_MONTH) * both / known, rel=1e-12
    )


@pytest.mark.parametrize("gap_h", [720, 721, 1_440, 5_000])
def test_a_gap_of_a_month_forgets_all_before_it(gap_h: int) -> None:
    series = seen([0.01] * 800, HOUR)
    series.see(0.3, gap_h * HOUR)
    each_hour = 0.09 / gap_h  # one return over the gap counts in every hour that it spans
    assert series.ring == pytest.approx([each_hour] * RING_HOURS, rel=1e-9)
    assert series.har == pytest.approx(each_hour / 3_600, rel=1e-9)


@pytest.mark.parametrize("gap_h", [2, 24, 500, 719])
def test_a_gap_keeps_what_is_younger_than_a_month(gap_h: int) -> None:
    series = seen([0.01] * 800, HOUR)
    series.see(0.3, gap_h * HOUR)
    assert series.ring.sum() == pytest.approx(0.09 + (720 - gap_h) * 1e-4, rel=1e-12)


def test_bars_within_an_hour_add_up_in_it() -> None:
    series = seen([0.01] * 59, MINUTE, MIDNIGHT)
    assert series.ring[MIDNIGHT // HOUR % RING_HOURS] == pytest.approx(59e-4)
    series.see(0.02, MINUTE)  # ends with the hour
    assert series.ring[MIDNIGHT // HOUR % RING_HOURS] == pytest.approx(63e-4)
    series.see(0.01, 2 * MINUTE)
    assert series.ring[(MIDNIGHT // HOUR + 1) % RING_HOURS] == pytest.approx(1e-4)


def test_a_return_over_two_hours_counts_in_each_by_the_time_spent_there() -> None:
    series = seen([0.01], 15 * MINUTE, MIDNIGHT)
    series.see(0.04, 60 * MINUTE)  # 45 minutes in the first hour, 15 in the second
    assert series.ring[MIDNIGHT // HOUR % RING_HOURS] == pytest.approx(1e-4 + 12e-4)
    assert series.ring[(MIDNIGHT // HOUR + 1) % RING_HOURS] == pytest.approx(4e-4)


# ---- jumps and the slow prior


def test_one_jump_among_small_moves_is_most_of_the_variance() -> None:
    series = seen([0.001, -0.001] * 50 + [0.1] + [0.001, -0.001] * 5, HOUR)
    assert 0.9 < series.jumps <= 1.0
    normal = np.random.default_rng(1).normal(0.0, 0.01, 4_000)
    assert seen(normal.tolist(), HOUR).jumps < 0.2


def test_a_price_that_never_moves_has_no_jumps() -> None:
    assert seen([0.0] * 5, HOUR).jumps == 0.0


@given(st.floats(0.0, 1e3), st.floats(0.0, 1e3))
def test_the_share_of_jumps_is_a_share(variance: float, bipower: float) -> None:
    assert 0.0 <= jump_share(variance, bipower) <= 1.0


def test_the_slow_variance_lies_seven_tenths_of_the_way_to_the_prior() -> None:
    assert slow_variance(PRIOR_VARIANCE) == pytest.approx(PRIOR_VARIANCE, rel=1e-12)
    assert math.sqrt(PRIOR_VARIANCE * 365 * 86_400) == pytest.approx(1.0)
    assert slow_variance(PRIOR_VARIANCE * math.exp(10.0)) == pytest.approx(PRIOR_VARIANCE * math.exp(3.0))
    assert slow_variance(0.0) == slow_variance(1e-4 * PRIOR_VARIANCE) > 0.0  # a mark that never moved
    assert math.isnan(slow_variance(math.nan))
