"""Generated prices are bars that can be, the same for the same state, and crash as the scenario says."""

import numpy as np
import pytest

from exchange.simulation.generated import (
    FACTOR_VOLATILITY,
    HOURS_A_WEEK,
    MOTION,
    SCENARIOS,
    STABLECOIN,
    Habits,
    Scenario,
    crash_minutes,
    generated_paths,
    season_variance,
)
from exchange.units import DAY_US

DAY = 1_440
BETA = np.array([1.0, 1.3, 1.45, 1.4, 1.5, 1.6])
OWN = np.array([0.0056, 0.0098, 0.0154, 0.0196, 0.021, 0.0238])
HABITS = Habits(
    start_price=np.array([94_000.0, 3_350.0, 190.0, 35.0, 0.7, 1e-5]),
    beta=BETA,
    own_volatility=OWN,
    token_market=np.array([-1, 2, STABLECOIN]),
)
MONDAY_US = 4 * DAY_US


def paths(scenario: str | Scenario, days=5, history_days=1, seed=0, habits=HABITS, **more):
    """One path; 1 January 1970 was a Thursday, so day 4 is a Monday."""
    chosen = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
    rng = np.random.default_rng(seed)
    return generated_paths(habits, days * DAY, MONDAY_US, rng, chosen, history_days * DAY, **more)


def hour_returns(close):
    return close[60:] / close[:-60] - 1.0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_bars_can_be(scenario):
    path = paths(scenario)
    for table in (path.opening, path.high, path.low, path.close):
        assert table.shape == (5 * DAY, 6)
        assert np.isfinite(table).all() and (table > 0.0).all()
    assert (path.low <= np.minimum(path.opening, path.close)).all()
    assert (path.high >= np.maximum(path.opening, path.close)).all()
    assert np.array_equal(path.opening[1:], path.close[:-1])
    assert path.opening[0] == pytest.approx(HABITS.start_price, rel=1e-12)
    assert np.isnan(path.volume_usd).all()
    assert (path.asset_price[:, 0] == 1.0).all()
    assert np.array_equal(path.asset_price[:, 1], path.close[:, 2])
    assert path.asset_price[:, 2] == pytest.approx(1.0, abs=1.0 - SCENARIOS[scenario].peg_low + 1e-3)


def test_same_state_same_bytes_and_another_state_another_path():
    first, again, other = paths("default", seed=3), paths("default", seed=3), paths("default", seed=4)
    for a, b in zip(first[1:], again[1:], strict=True):
        assert a.tobytes() == b.tobytes()
    assert not np.array_equal(first.close, other.close)


def test_a_market_moves_alike_whatever_else_is_listed():
    fewer = Habits(HABITS.start_price[:2], BETA[:2], OWN[:2], np.array([-1]))
    assert np.array_equal(paths("calm").close[:, :2], paths("calm", habits=fewer).close)


def test_volume_follows_the_size_of_moves():
    path = paths("calm", days=150, day_volume_usd=np.full(6, 1e6))
    moved = np.abs(np.log(path.close / path.opening))
    assert path.volume_usd.mean() * DAY == pytest.approx(1e6, rel=0.3)
    for m in range(6):
        correlation = np.corrcoef(np.log(path.volume_usd[:, m]), np.log(moved[:, m] + 1e-6))[0, 1]
        assert 0.25 < correlation < 0.7  # klines: 0.39


def test_volatility_is_that_of_the_habits():
    path = paths("calm", days=250, history_days=0)
    days = np.diff(np.log(path.close[DAY - 1 :: DAY]), axis=0)
    assert days.std(axis=0) == pytest.approx(np.hypot(FACTOR_VOLATILITY * BETA, OWN), rel=0.25)
    # klines: 1.88; a bridge of the whole variance would have 2
    ratio = (path.high - path.low).mean(axis=0) / np.abs(path.close - path.opening).mean(axis=0)
    assert ratio == pytest.approx(1.88, rel=0.05)


def test_variance_is_clustered_by_hour_and_by_day_and_tails_are_heavy():
    path = paths("calm", days=120, history_days=0)
    minute = np.diff(np.log(path.close), axis=0)
    hour = minute[: len(minute) // 60 * 60].reshape(-1, 60, 6).sum(axis=1)
    for m in range(6):
        size, hour_size = np.abs(minute[:, m]), np.abs(hour[:, m])
        near = [np.corrcoef(size[lag:], size[:-lag])[0, 1] for lag in (1, 10, 60, 700)]
        assert near[0] > near[1] > near[2] > near[3] and 0.18 < near[0] < 0.35
        assert 0.08 < np.corrcoef(hour_size[1:], hour_size[:-1])[0, 1] < 0.45
        assert abs(np.corrcoef(minute[1:, m], minute[:-1, m])[0, 1]) < 0.05
        assert ((minute[:, m] / minute[:, m].std()) ** 4).mean() > 9.0
        assert ((hour[:, m] / hour[:, m].std()) ** 4).mean() > 4.0


def test_hours_and_weekends_have_their_share():
    season = season_variance()
    assert len(season) == HOURS_A_WEEK and season.mean() == pytest.approx(1.0)
    still = MOTION._replace(garch_alpha=0.0, garch_beta=1.0, medium_sd=0.0, fast_sd=0.0, jumps_a_day=0.0)
    path = paths("calm", days=140, history_days=0, motion=still)
    squares = np.log(path.close / path.opening)[:, 1] ** 2
    by_hour = squares.reshape(-1, 168, 60).mean(axis=(0, 2))
    assert np.corrcoef(by_hour, season)[0, 1] > 0.97
    assert by_hour[:120].mean() > 1.3 * by_hour[120:].mean()  # from Monday to Friday against the weekend


def test_jumps_set_off_jumps():
    jumpy = MOTION._replace(
        garch_alpha=0.0, garch_beta=1.0, medium_sd=0.0, fast_sd=0.0, jumps_a_day=20.0, jump_size=400.0
    )
    jumps_of = {}
    for branching in (0.0, 0.75):
        path = paths("calm", days=200, history_days=0, motion=jumpy._replace(branching=branching))
        own = np.log(path.close / path.opening)
        own = own[:, 1] - BETA[1] * own[:, 0] / BETA[0]
        jumps_of[branching] = np.flatnonzero(np.abs(own) > 8.0 * np.median(np.abs(own)))
    alone, together = jumps_of[0.0], jumps_of[0.75]
    assert len(together) == pytest.approx(len(alone), rel=0.2)  # as many, but in clusters
    assert (np.diff(together) < 15).mean() > (np.diff(alone) < 15).mean() + 0.25


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scenario", ["default", "crash", "october-2025"])
def test_one_crash_after_the_history_where_the_scenario_puts_it(scenario, seed):
    terms, days, history_days = SCENARIOS[scenario], 9, 3
    # deep enough to be told from an ordinary bad hour
    terms = terms._replace(least_fall=max(terms.least_fall, 0.07), most_fall=max(terms.most_fall, 0.09))
    path = paths(terms, days, history_days, seed)
    worst = hour_returns(path.close[:, 0])
    assert worst[: history_days * DAY - 60].min() > -0.05
    at = worst.argmin()
    share = (at / DAY - history_days) / (days - history_days)
    assert terms.earliest - 0.02 < share < terms.latest + 0.03
    assert worst[at] < -0.6 * terms.least_fall


def test_history_is_that_of_a_calm_path():
    calm, crash = paths("calm", 4, 2, seed=8), paths("crash", 4, 2, seed=8)
    begin = np.flatnonzero((calm.close != crash.close).any(axis=1))[0]
    assert 2 * DAY <= begin < 2.5 * DAY + 1


def test_how_often_spans_hold_a_crash():
    rng = np.random.default_rng(0)
    default = SCENARIOS["default"]
    for days in (3, 10, 30, 44):
        begins = crash_minutes(default, days * DAY, rng)
        assert len(begins) == 1 and 0.2 * days * DAY <= begins[0] < 0.92 * days * DAY
    assert [minute // (30 * DAY) for minute in crash_minutes(default, 90 * DAY, rng)] == [0, 1, 2]
    short = sum(len(crash_minutes(default, DAY, rng)) for _ in range(600))
    assert short == pytest.approx(200, abs=60)
    assert crash_minutes(SCENARIOS["calm"], 300 * DAY, rng) == []
    assert crash_minutes(SCENARIOS["october-2025"], 10 * DAY, rng) == [5 * DAY]


def test_ordinary_crash():
    falls, backs = [], []
    for seed in range(12):
        path = paths("crash", 4, 1, seed)
        at = hour_returns(path.close[:, 0]).argmin() - 60
        during = slice(at, at + 180)
        low = path.low[during].min(axis=0)
        bottom = at + int(path.low[during, 0].argmin())
        after = path.close[bottom + 30 : bottom + 300].max(axis=0)
        falls.append(1.0 - low / path.opening[at])
        backs.append((after - low)[0] / (path.opening[at] - low)[0])
    mean = np.mean(falls, axis=0)
    assert 0.05 < mean[0] < 0.15
    assert np.argsort(mean)[0] == 0 and mean[-1] > 1.3 * mean[0]  # with beta
    assert 0.3 < np.median(backs) < 1.0


@pytest.mark.parametrize("seed", range(4))
def test_october_2025(seed):
    path = paths("october-2025", 6, 2, seed)
    begin = 4 * DAY
    opened = path.opening[begin]
    low = path.low[begin : begin + 15].min(axis=0)
    fall = 1.0 - low / opened
    assert 0.11 < fall[0] < 0.18  # leading market
    assert 0.16 < fall[1] < 0.25
    assert (fall[3:] > 0.42).all() and (fall < 0.8).all()
    assert (np.abs(path.low[begin : begin + 60].argmin(axis=0) - 12) <= 4).all()
    back = (path.close[begin + 35 : begin + 72].mean(axis=0) - low) / (opened - low)
    assert 0.35 < back.mean() < 0.85
    peg = path.asset_price[:, 2]
    assert peg[:begin] == pytest.approx(1.0, abs=1e-3)
    assert peg.min() == pytest.approx(0.65, abs=0.02)
    assert 25 <= (peg < 0.72).sum() <= 45
    assert peg[begin + 180] > 0.99
