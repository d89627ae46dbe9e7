"""Statistics of a run, against small runs written by hand and plain rules of what they mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from exchange.simulation import moments as mo
from exchange.simulation.record import (
    Bars,
    Events,
    Fills,
    Holdings,
    Midnights,
    Record,
    day_key,
    shock_begin_us,
)
from exchange.simulation.state import DELEVERAGE, DELEVERAGED, LIQUIDATED, LIQUIDATION, NEGATIVE, TRADE
from exchange.units import DAY_US, MINUTE_US, SECOND_US

START = 20_000 * DAY_US


def bars(minutes: int, markets: int = 1, fall_at: int | None = None, fall: float = 0.5) -> Bars:
    """Prices of 100, that fall over ten minutes from `fall_at` on, when books thin out."""
    price = np.full((minutes, markets), 100.0)
    depth = np.full((minutes, markets), 1_000.0)
    if fall_at is not None:
        steps = np.clip(np.arange(minutes) - fall_at, 0, 10) / 10.0
        price *= (1.0 - fall * steps)[:, None]
        depth[fall_at + 1 :] = 50.0
    time = START + np.arange(minutes, dtype=np.int64) * MINUTE_US
    open_usd = np.full((minutes, markets), 1e6)
    return Bars(time, price, price.copy(), price.copy(), open_usd, np.full((minutes, markets), 0.001), depth)


def record(**parts: Any) -> Record:
    none = np.zeros(0, np.int64)
    nothing = np.zeros(0)
    empty = Record(
        START, START + 2 * DAY_US,
        Fills(none, none, none, nothing, nothing, none),
        Events(none, none, none, nothing, nothing),
        Midnights(none, none, nothing, nothing, nothing, nothing),
        Holdings(none, none, nothing), bars(2_880), np.ones(10, bool), -1,
    )  # fmt: skip
    return empty._replace(**parts)


def fills(*rows: tuple[float, int, int, float, float, int]) -> Fills:
    """(second, account, market, quantity, price, kind)"""
    table = np.array(rows, np.float64).reshape(-1, 6)
    whole = table.astype(np.int64)
    time = START + np.round(table[:, 0] * SECOND_US).astype(np.int64)
    return Fills(time, whole[:, 1], whole[:, 2], table[:, 3], table[:, 4], whole[:, 5])


def events(*rows: tuple[float, int, int]) -> Events:
    """(second, account, kind)"""
    table = np.array(rows, np.float64).reshape(-1, 3)
    time = START + np.round(table[:, 0] * SECOND_US).astype(np.int64)
    whole = table.astype(np.int64)
    return Events(time, whole[:, 1], whole[:, 2], np.full(len(table), 10.0), np.full(len(table), 1.0))


def midnights(equity: list[float], ratio: list[float], gross: list[float], day: int = 0) -> Midnights:
    count = len(equity)
    time = np.full(count, START + day * DAY_US)
    worth = np.array(equity)
    return Midnights(
        time, np.arange(count), worth, np.array(ratio) * 10.0, np.full(count, 10.0), np.array(gross)
    )


def test_leverage_leaves_out_who_owes_more_than_it_has() -> None:
    run = record(midnights=midnights([10.0, 10.0, -5.0], [2.0] * 3, [20.0, 40.0, 99.0]))
    assert mo.leverage_quantile(run, 0.5) == 3.0
    assert mo.equity_quantile(run, 0.0) == -5.0
    assert math.isnan(mo.leverage_quantile(record(), 0.5))


@pytest.mark.parametrize("index", [0.8, 1.5])
def test_tail_index_of_a_pareto_law(index: float) -> None:
    wealth = (np.random.default_rng(1).random(50_000) ** (-1.0 / index)).tolist()
    run = record(midnights=midnights(wealth, [2.0] * len(wealth), wealth))
    assert mo.wealth_tail_index(run) == pytest.approx(index, rel=0.1)


def test_liquidated_within_a_day_counts_events_after_midnight_up_to_the_next() -> None:
    book = midnights([1.0] * 4, [1.1, 1.1, 1.1, 4.0], [1.0] * 4)
    day = 86_400.0
    happened = events((day, 0, LIQUIDATED), (day + 1, 1, LIQUIDATED), (60, 2, NEGATIVE), (60, 3, LIQUIDATED))
    run = record(midnights=book, events=happened)
    assert mo.liquidated_within_a_day(run, 1.0, 1.25) == pytest.approx(1 / 3)
    assert mo.liquidated_within_a_day(run, 3.0, 5.0) == 1.0
    assert math.isnan(mo.liquidated_within_a_day(run, 5.0, 9.0))
    # a day that the run does not hold whole says nothing
    assert math.isnan(mo.liquidated_within_a_day(run._replace(end_us=START + DAY_US - 1), 1.0, 1.25))


def test_days_and_accounts_have_keys_of_their_own() -> None:
    time = START + np.array([0, DAY_US - 1, DAY_US, DAY_US])
    account = np.array([7, 7, 7, 8])
    assert len(np.unique(day_key(time, account))) == 3


def test_parts_of_an_order_add_up_and_makers_sides_do_not_count() -> None:
    run = record(
        fills=fills(
            (5.1, 1, 0, -2.0, 10.0, LIQUIDATION), (5.1, 9, 0, 2.0, 10.0, TRADE),
            (5.2, 1, 0, -1.0, 10.0, LIQUIDATION), (5.3, 1, 0, -1.0, 9.0, LIQUIDATION),
            (5.4, 2, 0, 1.0, 9.0, LIQUIDATION), (6.0, 1, 1, -1.0, 9.0, LIQUIDATION),
            (6.0, 3, 1, 1.0, 9.0, DELEVERAGE),
        )
    )  # fmt: skip
    orders = mo.forced_orders(run)
    assert sorted(orders.usd.tolist()) == [9.0, 9.0, 9.0, 30.0]
    assert orders.usd[orders.long].sum() == 48.0
    assert mo.forced_orders(run, market=1).account.tolist() == [1]
    assert orders.usd.sum() == pytest.approx(57.0)


def orders_at(seconds: list[int], markets: list[int] | None = None) -> mo.Orders:
    count = len(seconds)
    market = np.array(markets if markets is not None else [0] * count)
    return mo.Orders(
        np.array(seconds), np.zeros(count, np.int64), market, np.ones(count), np.ones(count, bool)
    )


def test_a_cascade_is_two_orders_or_more_of_one_market_less_than_a_minute_apart() -> None:
    orders = orders_at([0, 1, 60, 120, 200, 201, 201], [0, 0, 0, 0, 0, 0, 1])
    found = mo.cascades(orders)
    assert found.orders.tolist() == [3, 2]
    assert found.duration_s.tolist() == [60, 1]
    assert found.close_by.tolist() == [1, 1]
    assert mo.cascades(orders, least=1).orders.sum() == len(orders.second)


def test_followers_within_a_second() -> None:
    orders = orders_at([0, 0, 1, 3, 100])
    assert mo.follows_within(orders, 1) == 0.5
    assert mo.follows_within(orders, 1, gap_s=60) == pytest.approx(2 / 3)
    assert math.isnan(mo.follows_within(orders_at([5]), 1))


def test_forced_share_of_each_day_and_of_a_span() -> None:
    run = record(
        fills=fills((10, 0, 0, -100.0, 100.0, LIQUIDATION), (90_000, 0, 0, 10.0, 100.0, LIQUIDATION))
    )
    assert mo.forced_share_by_day(run).tolist() == pytest.approx([0.01, 0.001])
    assert mo.forced_share(run, START, START + DAY_US) == pytest.approx(0.01)
    run = run._replace(shock_us=START)
    assert mo.without_shock(run, mo.forced_orders(run)).usd.tolist() == [1_000.0]


def test_depth_left_spread_and_where_the_shock_begins() -> None:
    run = record(bars=bars(600, 2, fall_at=300))
    assert shock_begin_us(run.bars) == START + 300 * MINUTE_US
    run = run._replace(shock_us=shock_begin_us(run.bars))
    assert mo.depth_left(run) == pytest.approx([0.05, 0.05])
    assert mo.widest_spread(run) == pytest.approx([0.001, 0.001])
    assert shock_begin_us(bars(600, 2)) == -1
    assert shock_begin_us(bars(600, 2, fall_at=300, fall=0.03)) == -1
    assert np.isnan(mo.depth_left(record())).all()


def test_moments_of_returns_are_those_of_known_laws() -> None:
    rng = np.random.default_rng(3)
    plain = rng.standard_normal((20_000, 3))
    assert mo.kurtosis(plain) == pytest.approx(3.0, abs=0.2)
    assert mo.absolute_autocorrelation(plain, 1) == pytest.approx(0.0, abs=0.03)
    assert mo.mean_correlation(plain) == pytest.approx(0.0, abs=0.03)
    assert mo.mean_correlation(plain + 2.0 * plain[:, :1] * np.array([0.0, 1.0, 1.0])) > 0.5
    held = np.repeat(rng.lognormal(0.0, 1.0, (200, 1)), 100, axis=0)
    assert mo.kurtosis(plain * held) > 6.0
    assert mo.absolute_autocorrelation(plain * held, 10) > 0.2


def test_arrivals_that_know_nothing_of_each_other_have_no_branching_and_clusters_have() -> None:
    rng = np.random.default_rng(4)
    alone = np.sort(rng.choice(2 * 86_400, 6_000, replace=False))
    parents = rng.choice(2 * 86_400 - 60, 1_500, replace=False)
    together = np.sort((parents[:, None] + np.array([0, 11, 23, 37])).ravel())

    def branching(seconds: np.ndarray) -> float:
        rows = [(float(s), 0, 0, 1.0, 100.0, int(TRADE)) for s in seconds]
        return mo.arrival_branching(record(fills=fills(*rows)))

    assert branching(alone) < 0.1
    # clusters of four: 1 - 1/2 by the counts
    assert branching(together) == pytest.approx(0.5, abs=0.12)


def test_a_shock_is_measured_from_where_it_begins() -> None:
    minute = 300 * 60.0
    run = record(
        bars=bars(600, 1, fall_at=300),
        shock_us=START + 300 * MINUTE_US,
        midnights=midnights([500.0, 1_500.0], [2.0, 2.0], [1.0, 1.0]),
        holdings=Holdings(np.array([0, 1, 2]), np.zeros(3, np.int64), np.array([30.0, -30.0, 20.0])),
        fills=fills(
            (minute - 60, 5, 0, -9.0, 100.0, LIQUIDATION), (minute + 10, 0, 0, -20.0, 90.0, LIQUIDATION),
            (minute + 70, 0, 0, -10.0, 60.0, LIQUIDATION), (minute + 70, 1, 0, 10.0, 60.0, DELEVERAGE),
            (minute + 80, 2, 0, -20.0, 60.0, TRADE),
        ),
        events=events(
            (minute - 60, 5, LIQUIDATED), (minute + 8, 0, LIQUIDATED), (minute + 70, 1, DELEVERAGED),
            (minute + 71, 0, NEGATIVE),
        ),
    )  # fmt: skip
    found = mo.shock(run)
    assert found is not None
    assert found.liquidated_usd == pytest.approx(2_400.0)
    assert found.deleveraged_usd == pytest.approx(600.0)
    assert found.first_deleveraging_s == pytest.approx(62.0)
    assert found.peaks_apart_s == 60.0
    assert found.long_share == 1.0
    assert found.mean_fall == pytest.approx(0.5)
    assert found.liquidated_over_equity == pytest.approx(1.2)
    assert (found.liquidated_accounts, found.deleveraged_accounts, found.negative_accounts) == (1, 1, 1)
    assert found.deficit_usd == 1.0
    # account 0 sheds 30 and 1 sheds 10 by force, 2 sheds 20 of its own will
    assert found.voluntary_share == pytest.approx(20 / 60)
    assert mo.shock(record()) is None
