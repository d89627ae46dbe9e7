"""Replayed paths hit what the bars say, and nothing else about them depends on how they were asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import InputError
from exchange.simulation.replayed import AssetPrices, Bars, Replay, replayed_paths
from exchange.units import HOUR_US, MINUTE_US, SECOND_US

START = 1_700_000_040_000_000  # a whole minute
POINTS = 100
COLUMNS = ("opening", "high", "low", "close", "volume_usd")


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def bars_of(rows: list[tuple[float, ...]]) -> Bars:
    """Rows of minutes after START, market, close, opening, high, low, volume."""
    table = np.array(rows, dtype=float).reshape(len(rows), 7)
    time_us = START + np.round(table[:, 0] * MINUTE_US).astype(np.int64)
    return Bars(time_us, table[:, 1].astype(np.int64), *table[:, 2:].T)


def replay(bars: Bars, markets: int = 1, seed: int = 1, **options: object) -> list[Replay]:
    return replayed_paths(bars, markets, rng(seed), **{"shortest_minutes": 1, **options})  # type: ignore[arg-type]


def minute_of(time_us: int) -> int:
    """Minute that begins at or after a time."""
    return -(-time_us // MINUTE_US)


def even(closes: list[float], minutes: int, spread: float = 0.01, market: int = 0) -> list[tuple[float, ...]]:
    """Bars of even length with a range a little wider than opening and close."""
    rows = []
    for n, (opening, close) in enumerate(pairwise(closes)):
        top, bottom = max(opening, close) * (1 + spread), min(opening, close) * (1 - spread)
        rows.append(((n + 1) * minutes, market, close, opening, top, bottom, 100.0 * minutes))
    return rows


@st.composite
def any_bars(draw: st.DrawFn) -> tuple[Bars, int]:
    """Bars of up to three markets at irregular times, some columns not known, prices far apart."""
    markets = draw(st.integers(1, 3))
    rows = []
    for market in range(markets):
        count = draw(st.integers(0, 12))
        steps = draw(
            st.lists(
                st.one_of(
                    st.just(1.0), st.just(5.0), st.floats(0.05, 59.9), st.sampled_from([60.0, 61.0, 200.0])
                ),
                min_size=count,
                max_size=count,
            )
        )
        offset = draw(st.floats(0.0, 90.0))
        for minutes in np.round(offset + np.cumsum(steps), 3):
            close = draw(st.floats(1.0, 1_000.0))
            opening = draw(st.one_of(st.just(math.nan), st.floats(1.0, 1_000.0)))
            high, low = math.nan, math.nan
            if draw(st.booleans()):
                known = [price for price in (opening, close) if not math.isnan(price)]
                high = max(known) * draw(st.floats(1.0, 1.5))
                low = min(known) / draw(st.floats(1.0, 1.5))
            volume = draw(st.one_of(st.just(math.nan), st.floats(0.0, 1e6)))
            rows.append((float(minutes), market, close, opening, high, low, volume))
    order = draw(st.permutations(range(len(rows))))
    return bars_of([rows[n] for n in order]), markets


def covered(bars: Bars, markets: int) -> list[tuple[int, tuple[int, ...]]]:
    """By the plain rule, for bars without openings: the first minute of each path and its markets."""
    owner: dict[int, dict[int, int]] = {}
    for market in range(markets):
        times = np.sort(bars.time_us[bars.market == market])
        stretch = 0
        for before, after in pairwise(times):
            stretch += after - before > HOUR_US
            if after - before <= HOUR_US:
                for minute in range(minute_of(before), minute_of(after)):
                    owner.setdefault(minute, {})[market] = stretch
    paths: list[tuple[int, tuple[int, ...]]] = []
    for minute in sorted(owner):
        if owner.get(minute - 1) != owner[minute]:
            paths.append((minute, ()))
        paths[-1] = (paths[-1][0], tuple(sorted(owner[minute])))
    return paths


@given(any_bars(), st.integers(0, 3))
def test_a_path_is_a_path_and_meets_every_close(case: tuple[Bars, int], seed: int) -> None:
    bars, markets = case
    for path, numbers in replay(bars, markets, seed):
        assert path.start_us % MINUTE_US == 0 and list(numbers) == sorted(set(numbers))
        prices = np.stack([path.opening, path.high, path.low, path.close])
        assert np.isfinite(prices).all() and (path.low > 0.0).all()
        assert (path.low <= np.minimum(path.opening, path.close)).all()
        assert (path.high >= np.maximum(path.opening, path.close)).all()
        for column, market in enumerate(numbers):
            own = bars.market == market
            for time_us in bars.time_us[own]:
                row = minute_of(time_us) - path.start_us // MINUTE_US - 1
                if 0 <= row < len(path.close):
                    same = own & ([minute_of(t) == minute_of(time_us) for t in bars.time_us])
                    last = np.flatnonzero(same)[np.argmax(bars.time_us[same])]
                    assert path.close[row, column] == bars.close[last]


@given(any_bars())
def test_paths_cover_what_lies_between_bars_an_hour_apart_at_most(case: tuple[Bars, int]) -> None:
    bars, markets = case
    bars = bars._replace(opening=np.full(len(bars.close), math.nan))
    found = [(path.start_us // MINUTE_US, numbers) for path, numbers in replay(bars, markets)]
    assert found == covered(bars, markets)


@given(any_bars(), st.integers(0, 200), st.integers(1, 200), st.integers(0, 3))
def test_a_part_is_filled_as_the_whole_is(case: tuple[Bars, int], skip: int, length: int, seed: int) -> None:
    bars, markets = case
    from_us, to_us = START + skip * MINUTE_US - 7, START + (skip + length) * MINUTE_US + 7
    whole = replay(bars, markets, seed)
    part = replay(bars, markets, seed, from_us=from_us, to_us=to_us)
    expected = []
    for path, numbers in whole:
        a = max(minute_of(from_us) - path.start_us // MINUTE_US, 0)
        b = min(to_us // MINUTE_US - path.start_us // MINUTE_US, len(path.close))
        if a < b:
            expected.append(
                (path.start_us + a * MINUTE_US, numbers, [getattr(path, c)[a:b] for c in COLUMNS])
            )
    assert [(p.start_us, numbers) for p, numbers in part] == [(s, n) for s, n, _ in expected]
    for (path, _), (_, _, columns) in zip(part, expected, strict=True):
        for name, column in zip(COLUMNS, columns, strict=True):
            np.testing.assert_array_equal(getattr(path, name), column)


@given(any_bars(), st.randoms())
def test_the_order_of_rows_does_not_matter(case: tuple[Bars, int], random: object) -> None:
    bars, markets = case
    order = np.arange(len(bars.close))
    random.shuffle(order)  # type: ignore[attr-defined]
    for (one, _), (other, _) in zip(
        replay(bars, markets), replay(Bars(*(column[order] for column in bars)), markets), strict=True
    ):
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(
    st.integers(2, 60),
    st.lists(st.floats(50.0, 200.0), min_size=3, max_size=12),
    st.sampled_from([0.0, 1e-12, 0.001, 0.2]),
    st.integers(0, 5),
)
def test_a_long_bar_stays_in_its_range_and_meets_it(
    minutes: int, closes: list[float], spread: float, seed: int
) -> None:
    bars = bars_of(even(closes, minutes, spread))
    ((path, _),) = replay(bars, seed=seed)
    assert path.start_us == START and len(path.close) == minutes * (len(closes) - 1)
    for n, (high, low) in enumerate(zip(bars.high, bars.low, strict=True)):
        own = slice(n * minutes, (n + 1) * minutes)
        assert path.high[own].max() == pytest.approx(high, rel=2e-9) and path.high[own].max() <= high
        assert path.low[own].min() == pytest.approx(low, rel=2e-9) and path.low[own].min() >= low
        assert path.opening[own][0, 0] == closes[n]
        np.testing.assert_array_equal(path.opening[own][1:], path.close[own][:-1])
    assert path.volume_usd.sum() == pytest.approx(100.0 * len(path.close))


def test_bars_of_a_minute_are_taken_as_they_are() -> None:
    rows = [
        (1, 0, 10.0, 9.0, 11.0, 8.0, 5.0),
        (2, 0, 12.0, math.nan, 12.5, 11.0, 6.0),  # opens at the close before, which lies under its low
        (3, 0, 11.0, 11.5, math.nan, math.nan, math.nan),
    ]
    ((path, _),) = replay(bars_of(rows))
    assert path.start_us == START
    assert path.opening[:, 0].tolist() == [9.0, 10.0, 11.5]
    assert path.high[:, 0].tolist() == [11.0, 12.5, 11.5]
    assert path.low[:, 0].tolist() == [8.0, 10.0, 11.0]
    assert path.close[:, 0].tolist() == [10.0, 12.0, 11.0]
    np.testing.assert_array_equal(path.volume_usd[:, 0], [5.0, 6.0, math.nan])


def test_shorter_bars_are_merged() -> None:
    rows = [
        (0.0, 0, 10.0, math.nan, math.nan, math.nan, math.nan),
        (0.25, 0, 11.0, 10.5, 13.0, 10.0, 1.0),
        (0.5, 0, 9.0, 11.0, 12.0, 8.0, 2.0),
        (1.0, 0, 10.0, 9.0, 11.0, 8.5, 3.0),
    ]
    ((path, _),) = replay(bars_of(rows))
    assert [float(getattr(path, name)[0, 0]) for name in COLUMNS] == [10.5, 13.0, 8.0, 10.0, 6.0]


def test_missing_minutes_are_bridged_and_the_bar_after_them_stays_as_it_is() -> None:
    rows = [(n, 0, 100.0 + n, 99.5 + n, 101.0 + n, 99.0 + n, 7.0) for n in range(1, 31) if not 10 < n <= 20]
    ((path, _),) = replay(bars_of(rows))
    assert len(path.close) == 30
    assert path.opening[10, 0] == 110.0 and path.close[19, 0] == 120.5, (
        "from the last close to the next opening"
    )
    assert [float(getattr(path, name)[20, 0]) for name in COLUMNS] == [120.5, 122.0, 120.0, 121.0, 7.0]
    assert np.isnan(path.volume_usd[10:20]).all() and np.nansum(path.volume_usd) == 140.0
    assert (np.diff(path.close[10:20, 0]) != 0).all()


def test_a_gap_of_more_than_an_hour_ends_a_path_and_one_of_an_hour_does_not() -> None:
    def lengths(gap: float) -> list[int]:
        rows = even([100.0] * 11, 1)
        rows += [(row[0] + 9 + gap, *row[1:]) for row in even([100.0] * 11, 1)]
        return [len(path.close) for path, _ in replay(bars_of(rows))]

    assert lengths(60.0) == [79]
    assert lengths(60.0 + 1 / 60) == [10, 10]


def test_a_path_has_the_markets_that_have_bars_all_along() -> None:
    rows = even([100.0] * 301, 1)
    rows += [(r[0] + 60, *r[1:]) for r in even([5.0] * 101, 1, market=2)]
    found = [
        ((path.start_us - START) // MINUTE_US, len(path.close), numbers)
        for path, numbers in replay(bars_of(rows), 3)
    ]
    assert found == [(0, 60, (0,)), (60, 100, (0, 2)), (160, 140, (0,))]
    longer = replay(bars_of(rows), 3, shortest_minutes=100)
    assert [len(path.close) for path, _ in longer] == [100, 140]


def test_bars_more_than_an_hour_apart_are_no_path() -> None:
    assert replay(bars_of(even([100.0] * 10, 120))) == []
    assert replay(bars_of(even([100.0] * 10, 60))) != []
    assert replay(bars_of([])) == []


def test_another_generator_fills_otherwise_and_the_same_alike() -> None:
    bars = bars_of(even([100.0, 101.0, 100.0], 30))
    one, again, other = (replay(bars, seed=seed)[0].paths for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.close, again.close)
    assert (one.close != other.close).mean() > 0.9


def walk(days: int, sigma: float, seed: int) -> np.ndarray:
    """Log prices of a Brownian path, POINTS a minute."""
    return np.cumsum(np.r_[0.0, rng(seed).normal(0.0, sigma / math.sqrt(POINTS), days * 1_440 * POINTS)])


@pytest.mark.parametrize("minutes", [2, 5, 15, 60])
@pytest.mark.parametrize("ranged", [True, False])
def test_what_is_filled_is_as_volatile_as_what_was_recorded(minutes: int, ranged: bool) -> None:
    sigma, days = 0.001, 10
    path = walk(days, sigma, minutes)
    width = POINTS * minutes
    closes = path[::width]
    inside = path[:-1].reshape(-1, width)
    high = np.maximum(inside.max(axis=1), closes[1:])
    low = np.minimum(inside.min(axis=1), closes[1:])
    count = len(high)
    nothing = np.full(count, math.nan)
    bars = Bars(
        START + (1 + np.arange(count)) * minutes * MINUTE_US,
        np.zeros(count, dtype=np.int64),
        np.exp(closes[1:]),
        np.exp(closes[:-1]),
        np.exp(high) if ranged else nothing,
        np.exp(low) if ranged else nothing,
        nothing,
    )
    ((filled, _),) = replay(bars)
    returns = np.diff(np.log(np.r_[1.0, filled.close[:, 0]]))
    assert np.sqrt(np.mean(returns**2)) / sigma == pytest.approx(1.0, abs=0.1)
    reach = np.log(filled.high[:, 0] / filled.low[:, 0])
    assert np.sqrt(np.mean(reach**2) / (4 * math.log(2))) / sigma == pytest.approx(1.0, abs=0.1)
    # no direction of its own within a bar: neighbouring minutes are unrelated
    assert abs(np.corrcoef(returns[:-1], returns[1:])[0, 1]) < 0.1


def test_markets_move_together_within_their_bars() -> None:
    closes = np.exp(np.cumsum(rng(3).normal(0.0, 0.01, (200, 2)), axis=0)) * 100.0
    rows = [row for m in (0, 1) for row in even(closes[:, m].tolist(), 15, 0.003, m)]
    ((path, _),) = replay(bars_of(rows), 2)
    within = np.diff(np.log(path.close), axis=0)[:-14].reshape(-1, 15, 2)[:, :14]
    within = (within - within.mean(axis=1, keepdims=True)).reshape(-1, 2)
    assert 0.3 < np.corrcoef(within.T)[0, 1] < 0.7


@given(st.lists(st.tuples(st.integers(-20, 40), st.integers(0, 1), st.floats(0.1, 10.0)), max_size=8))
def test_an_asset_costs_what_was_last_said(rows: list[tuple[int, int, float]]) -> None:
    unique = list({(minute, asset): (minute, asset, price) for minute, asset, price in rows}.values())
    prices = AssetPrices(
        np.array([START + minute * MINUTE_US - 1 for minute, _, _ in unique], dtype=np.int64),
        np.array([asset for _, asset, _ in unique], dtype=np.int64),
        np.array([price for _, _, price in unique]),
    )
    ((path, _),) = replay(bars_of(even([100.0] * 21, 1)), assets=3, asset_prices=prices)
    assert path.asset_price.shape == (20, 3)
    for asset in range(3):
        own = sorted((minute, price) for minute, a, price in unique if a == asset)
        for row in range(20):
            known = [price for minute, price in own if minute <= row + 1]
            expected = known[-1] if known else own[0][1] if own else 1.0
            assert path.asset_price[row, asset] == expected


def test_without_asset_prices_everything_is_a_dollar() -> None:
    ((path, _),) = replay(bars_of(even([100.0] * 21, 1)), assets=2)
    np.testing.assert_array_equal(path.asset_price, np.ones((20, 2)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b._replace(market=np.array([0, 0, 1])), "market must be from 0 to 0, not 1"),
        (lambda b: b._replace(market=np.array([0, -1, 0])), "market must be from 0 to 0, not -1"),
        (lambda b: b._replace(time_us=b.time_us[[0, 0, 2]]), "two bars at"),
        (lambda b: b._replace(close=np.array([1.0, math.nan, 1.0])), "close of market 0"),
        (lambda b: b._replace(close=np.array([1.0, 0.0, 1.0])), "above zero, not"),
        (lambda b: b._replace(low=np.array([1.0, 1.0, -2.0])), "low of market 0"),
        (lambda b: b._replace(high=np.array([1.0, math.inf, 2.0])), "high of market 0"),
    ],
)
def test_bars_that_are_none_are_refused(change: Callable[[Bars], Bars], says: str) -> None:
    bars = bars_of(even([100.0] * 4, 1))
    with pytest.raises(InputError, match=says):
        replay(change(bars))


def test_an_asset_price_of_nothing_is_refused() -> None:
    prices = AssetPrices(np.array([START]), np.array([0]), np.array([0.0]))
    with pytest.raises(InputError, match="asset 0 must be above zero"):
        replay(bars_of(even([100.0] * 4, 1)), assets=1, asset_prices=prices)


def test_times_within_a_second_of_a_minute_count_for_the_minute_that_they_fall_in() -> None:
    rows = bars_of([(n, 0, 100.0 + n, math.nan, math.nan, math.nan, math.nan) for n in range(5)])
    ((path, _),) = replay(rows._replace(time_us=rows.time_us + SECOND_US))
    assert path.start_us == START + MINUTE_US
    assert path.close[:, 0].tolist() == [101.0, 102.0, 103.0, 104.0]
