"""What each estimator of volatility means, on prices simple enough to know the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.units import HOUR_S
from features.volatility import (
    AVERAGE,
    BARS_1H,
    BARS_6H,
    BARS_48H,
    BIPOWER,
    DAY_BEFORE,
    FIRST_TIME,
    GARCH,
    GARCH_ALPHA,
    GARCH_BETA,
    HALF_LIVES_H,
    HAR,
    HAR_DAY,
    HAR_MONTH,
    HAR_WEEK,
    LEVEL,
    MONTH_BEFORE,
    PRIOR_VARIANCE,
    RING_HOURS,
    SERIES_COLUMNS,
    WEEK_BEFORE,
    WEIGHTED_H,
    WEIGHTS,
    climb,
    forecast_variance,
    garch_step,
    garch_variance,
    jump_share,
    observe_price,
    slow_variance,
)
from tests.features.streams import DAY, HOUR, MINUTE, SECOND
from tests.oracle import market_oracle as oracle

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

    def forecast(self, horizon_h: float) -> float:
        return forecast_variance(self.series, self.variance, horizon_h * HOUR_S)


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


# ---- all columns, on bars at any spacing


STEPS = (
    20 * SECOND,
    MINUTE,
    17 * MINUTE,
    HOUR - SECOND,
    HOUR,
    HOUR + SECOND,
    150 * MINUTE,
    5 * HOUR,
    3 * DAY,
)


def uneven(seed: int, count: int, start_us: int) -> tuple[Series, oracle.Points]:
    """A price seen at uneven times, by the compiled code and as points for the oracle."""
    rng = np.random.default_rng(seed)
    series, points = Series(start_us), [(start_us, 30.0)]
    price = 30.0
    for _ in range(count):
        step = int(rng.choice(STEPS[: rng.integers(1, len(STEPS) + 1)]))
        if rng.random() < 0.3:
            step = HOUR - series.time_us % HOUR  # to the end of the hour
        move = 0.0 if rng.random() < 0.2 else float(rng.standard_t(3)) * 1e-3 * math.sqrt(step / MINUTE)
        price *= math.exp(move)
        points.append((series.time_us + step, price))
        series.see(math.log(points[-1][1] / points[-2][1]), step)
    return series, points


@pytest.mark.parametrize("seed", range(12))
def test_every_column_is_as_the_oracle_says(seed: int) -> None:
    start = MIDNIGHT if seed % 2 else MIDNIGHT + 1_234_567_890
    series, points = uneven(seed, 20 + 15 * seed, start)
    row = series.series
    assert row[[BARS_1H, BARS_6H, BARS_48H]] == pytest.approx([oracle.bars(points, h) for h in HALF_LIVES_H])
    assert series.har == pytest.approx(oracle.har(points), rel=1e-9)
    typical, average = oracle.typical_and_average(points)
    assert row[LEVEL] == pytest.approx(typical, rel=1e-9, nan_ok=True)
    assert row[AVERAGE] == pytest.approx(average, rel=1e-9, nan_ok=True)
    assert row[GARCH] == pytest.approx(oracle.garch(points, GARCH_ALPHA, GARCH_BETA), rel=1e-9, nan_ok=True)
    assert climb(row, series.variance) == pytest.approx(oracle.climbed(points), rel=1e-9, abs=1e-9)
    for horizon_h in (0.2, 1.0, 3.0, 8.0, 12.0, 24.0, 72.0):
        expected = oracle.forecast(points, horizon_h, WEIGHTS)
        assert series.forecast(horizon_h) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gap_h", [1, 30, 719, 720, 3_000])
def test_sums_before_the_hour_are_exactly_those_of_the_ring(gap_h: int) -> None:
    rng = np.random.default_rng(gap_h)
    series = seen(rng.normal(0.0, 0.3, 900).tolist(), HOUR)  # large moves leave, small ones stay
    series.see(1e-9, gap_h * HOUR)
    for move in rng.normal(0.0, 1e-9, 40):
        series.see(float(move), HOUR)
    hour = (series.time_us - 1) // HOUR
    for column, hours in ((DAY_BEFORE, 24), (WEEK_BEFORE, 168), (MONTH_BEFORE, 720)):
        inside = [float(series.ring[(hour - back) % RING_HOURS]) for back in range(1, hours)]
        assert series.series[column] == pytest.approx(math.fsum(inside), rel=1e-13)


# ---- the forecast


def test_no_forecast_before_the_second_price() -> None:
    assert math.isnan(Series().forecast(24.0))
    assert all(math.isnan(rung) for rung in climb(Series().series, Series().variance))


def test_weights_are_shares() -> None:
    for _, *weights in WEIGHTS:
        assert min(weights) >= 0.0
        assert sum(weights) <= 1.0


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0.1, 3.0)), min_size=1, max_size=40))
def test_a_price_as_volatile_as_the_prior_is_forecast_so_at_any_spacing(
    bars: list[tuple[int, float]],
) -> None:
    series = Series()
    for step, sign in bars:
        size = math.sqrt(PRIOR_VARIANCE * step / SECOND)
        series.see(math.copysign(size, sign - 1.0), step)
    assert climb(series.series, series.variance) == pytest.approx([0.0] * 4, abs=1e-9)
    for horizon_h, weights in zip(WEIGHTED_H, WEIGHTS, strict=True):
        assert series.forecast(horizon_h) == pytest.approx(PRIOR_VARIANCE * math.exp(weights[0]), rel=1e-9)


moves = st.lists(
    st.tuples(st.sampled_from(STEPS), st.one_of(st.just(0.0), st.floats(-0.5, 0.5))), min_size=1, max_size=40
)


@settings(max_examples=200)
@given(moves, st.integers(0, 39), st.floats(1.0, 100.0))
def test_a_larger_move_never_lowers_a_forecast(
    bars: list[tuple[int, float]], which: int, factor: float
) -> None:
    smaller, larger = Series(), Series()
    for number, (step, move) in enumerate(bars):
        smaller.see(move, step)
        larger.see(move * factor if number == which % len(bars) else move, step)
    for horizon_h in (*WEIGHTED_H, 4.0):
        assert 0.0 < smaller.forecast(horizon_h) <= larger.forecast(horizon_h) * (1.0 + 1e-12) < math.inf


@given(moves, st.floats(1.0, 30.0))
def test_moves_of_twice_the_size_have_four_times_the_variance_and_at_most_that_forecast(
    bars: list[tuple[int, float]], factor: float
) -> None:
    one, other = Series(), Series()
    for step, move in bars:
        one.see(move, step)
        other.see(factor * move, step)
    square = factor * factor
    assert other.variance == pytest.approx(square * one.variance, rel=1e-9)
    assert other.har == pytest.approx(square * one.har, rel=1e-9)
    assert other.series[BIPOWER] == pytest.approx(square * one.series[BIPOWER], rel=1e-9, nan_ok=True)
    for horizon_h in WEIGHTED_H:
        assert other.forecast(horizon_h) <= square * one.forecast(horizon_h) * (1.0 + 1e-12)


def test_the_longer_the_horizon_the_less_the_last_hour_counts() -> None:
    calm = [0.0005, -0.0005] * (30 * 720)
    after_crash, after_quiet = seen(calm, MINUTE), seen(calm, MINUTE)
    for _ in range(60):
        after_crash.see(-0.005, MINUTE)
        after_quiet.see(0.00001, MINUTE)
    crash = [after_crash.forecast(h) for h in (1.0, 2.0, 8.0, 16.0, 24.0)]
    quiet = [after_quiet.forecast(h) for h in (1.0, 2.0, 8.0, 16.0, 24.0)]
    assert all(near > far for near, far in pairwise(crash))
    assert all(near < far for near, far in pairwise(quiet))


def test_an_hour_with_one_bar_says_less_than_an_hour_with_sixty() -> None:
    calm = [0.004, -0.004] * 360
    one_bar, sixty = seen(calm, HOUR), seen(calm, HOUR)
    one_bar.see(0.04, HOUR)
    for _ in range(60):
        sixty.see(0.04 / math.sqrt(60.0), MINUTE)
    assert one_bar.variance[0] == pytest.approx(sixty.variance[0], rel=1e-9)
    assert one_bar.forecast(1.0) < sixty.forecast(1.0)


def test_a_mark_that_stood_still_for_an_hour_is_expected_to_move() -> None:
    series = seen([0.001, -0.001] * 2_000, MINUTE)
    before = series.forecast(1.0)
    for _ in range(10 * 60):
        series.see(0.0, MINUTE)
    assert series.variance[0] < 1e-2 * before
    assert series.forecast(1.0) > 2e-2 * before


# ---- GARCH


@given(st.floats(1e-12, 1e-6), st.floats(0.0, 1e-5), st.floats(1e-10, 1e-7), st.integers(1, 50))
def test_hours_alike_are_one_step(variance: float, squared: float, rest: float, hours: int) -> None:
    each = variance
    for _ in range(hours):
        each = garch_step(each, squared, rest, 0.1, 0.85, 1)
    assert garch_step(variance, squared, rest, 0.1, 0.85, hours) == pytest.approx(each, rel=1e-9)


@given(st.floats(1e-12, 1e-6), st.floats(1e-10, 1e-7), st.integers(1, 48))
def test_the_forecast_of_garch_is_the_mean_of_its_steps(variance: float, rest: float, hours: int) -> None:
    steps = [variance]
    for _ in range(hours - 1):  # what is expected of a squared return is the variance itself
        steps.append(garch_step(steps[-1], steps[-1], rest, 0.1, 0.85, 1))
    expected = math.fsum(steps) / hours
    assert garch_variance(variance, rest, 0.1, 0.85, hours * HOUR_S) == pytest.approx(expected, rel=1e-9)
