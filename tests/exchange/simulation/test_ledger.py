from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.simulation.ledger import (
    book_fill,
    change_fund,
    compensate,
    pay_funding,
    pool,
    sell_pledged,
    sweep_dust,
    trade,
    transfer,
    weakest,
)  # fmt: skip
from exchange.simulation.state import (
    DELEVERAGE,
    FEES,
    FUND,
    LIQUIDATION,
    LOSSES,
    MICRO,
    NIL,
    NONE,
    PENALTIES,
    ROUNDING,
    TRADE,
)  # fmt: skip
from tests.exchange.simulation.stage import Stage

law = settings(deadline=None, max_examples=60)
lots = st.integers(-5_000, 5_000).filter(bool)
moves = st.floats(0.6, 1.6)


@st.composite
def standing(draw: st.DrawFn, isolated: bool) -> Stage:
    """Account 0 with positions in up to three markets, other assets if cross, and marks that have moved."""
    stage = Stage([draw(st.floats(0.0, 1e4)), 1e6], (0,) if isolated else (), markets=3)
    for market in range(3):
        if not draw(st.booleans()):
            continue
        price = 100.0 / 10**market * draw(moves)
        if isolated:
            stage.set_aside(0, market, draw(st.floats(0.0, 1e4)))
        stage.fill(0, 1, market, draw(lots), price)
        stage.mark(market, 100.0 / 10**market * draw(moves))
    if not isolated:
        stage.world.amount[0, 1:] = draw(st.tuples(*[st.integers(-(10**10), 10**10)] * 2))
        stage.world.asset["price"][1:] = [draw(st.floats(0.3, 1.0)), draw(moves) * 100.0]
    return stage


def figures_of(stage: Stage, only: int, worst: bool) -> list[float]:
    return list(pool(stage.world, 0, np.int64(only), np.bool_(worst)))


@law
@given(st.booleans().flatmap(lambda isolated: standing(isolated=isolated)))
def test_what_an_account_is_worth_is_what_the_record_of_it_says(stage: Stage) -> None:
    account = stage.account(0)
    equity, collateral, initial, maintenance, gross, own = figures_of(stage, -1, False)
    if account.margin_mode == "isolated":
        # the pools alone hold collateral; free cash counts to the whole account's equity only
        collateral = sum(figures_of(stage, m, False)[1] for m in range(3) if stage.lots(0)[m])
    near = dict(rel=1e-12, abs=1e-6)
    assert equity == pytest.approx(account.equity_usd, **near)
    assert collateral == pytest.approx(account.collateral_usd, **near)
    assert initial == pytest.approx(account.initial_margin_usd, **near)
    assert maintenance == pytest.approx(account.maintenance_margin_usd, **near)
    assert gross == pytest.approx(sum(abs(p.notional_usd) for p in account.positions), **near)
    assert own == pytest.approx(sum(p.maintenance_margin_usd for p in account.positions), **near)


@law
@given(standing(isolated=True))
def test_each_isolated_position_is_a_pool_of_its_own(stage: Stage) -> None:
    account = stage.account(0)
    for each in account.pools():
        market = int(each.positions[0].market.market[1:])
        equity, collateral, initial, maintenance, _, _ = figures_of(stage, market, False)
        told = (each.equity_usd, each.collateral_usd, each.initial_margin_usd, each.maintenance_margin_usd)
        assert (equity, collateral, initial, maintenance) == pytest.approx(told, rel=1e-12, abs=1e-6)
    found = weakest(stage.world, 0)
    if account.weakest_pool is None:
        assert found == -1
    else:
        _, collateral, _, maintenance, _, _ = figures_of(stage, found, False)
        assert collateral / maintenance == pytest.approx(account.margin_ratio, rel=1e-9, abs=1e-9)


@law
@given(standing(isolated=False), st.lists(st.floats(0.0, 0.5), min_size=6, max_size=6))
def test_at_worst_every_position_stands_at_the_price_that_is_bad_for_it(
    stage: Stage, away: list[float]
) -> None:
    world = stage.world
    world.market["worst_low"] = world.market["mark"] * (1 - np.array(away[:3]))
    world.market["worst_high"] = world.market["mark"] * (1 + np.array(away[3:]))
    world.asset["worst"][1:] = world.asset["price"][1:] * (1 - away[0])
    told = figures_of(stage, -1, True)
    long = world.position["lots"][0] > 0
    world.asset["price"] = world.asset["worst"]
    account = stage.account(0, np.where(long, world.market["worst_low"], world.market["worst_high"]).tolist())
    expected = (
        account.equity_usd, account.collateral_usd, account.initial_margin_usd, account.maintenance_margin_usd
    )  # fmt: skip
    assert told[:4] == pytest.approx(expected, rel=1e-12, abs=1e-6)


@law
@given(standing(isolated=False), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_rates_from_outside_are_shares_of_gross_notional_and_never_relief(
    stage: Stage, initial_rate: float, maintenance_rate: float
) -> None:
    _, _, initial, maintenance, gross, own = figures_of(stage, -1, False)
    stage.world.account["initial_rate"][0] = initial_rate
    stage.world.account["maintenance_rate"][0] = maintenance_rate
    told = figures_of(stage, -1, False)
    assert told[2] == max(initial, initial_rate * gross)
    assert told[3] == pytest.approx(max(own, maintenance_rate * gross) + (maintenance - own), rel=1e-12)


@st.composite
def deals(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Lots (of either side), ticks and fee of some fills."""
    return draw(
        st.lists(
            st.tuples(st.integers(-300, 300).filter(bool), st.integers(1, 20_000), st.integers(0, 10**7)),
            min_size=1,
            max_size=12,
        )
    )


@law
@given(deals())
def test_a_position_keeps_what_its_open_lots_cost_and_every_dollar_paid(
    done: list[tuple[int, int, int]],
) -> None:
    stage = Stage([0.0, 0.0])
    world = stage.world
    unit = int(world.market["unit"][0])
    held, cost, paid = 0, Fraction(0), 0
    slack = 0
    for number, ticks, fee in done:
        time = 1_000 + len(stage.world.log)
        for account, side in ((0, 1), (1, -1)):
            booked = fee if side == 1 else 0
            book_fill(world, account, 0, side * number, ticks, booked, int(TRADE), time)
        value = number * ticks * unit
        if held * number >= 0:
            cost += value
        elif abs(number) <= abs(held):
            cost -= cost * Fraction(abs(number), abs(held))
            slack += 1
        else:
            cost = Fraction((held + number) * ticks * unit)
        held += number
        paid += value + fee
        position = world.position[0, 0]
        assert position["lots"] == held
        assert bool(world.account["held"][0] & np.uint64(1)) == (held != 0)
        assert int(position["quote"]) + int(world.account["cash"][0]) == -paid
        assert world.market["open_lots"][0] == abs(held)
        # the kept cost is rounded to a micro-dollar wherever a part of it is taken away
        assert abs(int(position["cost"]) - cost) <= slack + abs(cost) * Fraction(1, 10**12)
        if held == 0:
            assert (position["quote"], position["cost"]) == (0, 0)
    other = world.position[1, 0]
    assert int(other["lots"]) == -held


def test_closing_gives_back_what_was_set_aside() -> None:
    stage = Stage([100.0, 1_000.0], isolated=(0,))
    stage.set_aside(0, 0, 40.0)
    stage.fill(0, 1, 0, 50, 100.0)
    assert stage.cash_usd(0) == 60.0
    stage.fill(0, 1, 0, -20, 110.0)
    assert stage.cash_usd(0) == 60.0
    stage.fill(0, 1, 0, -30, 90.0)
    assert stage.cash_usd(0) == pytest.approx(60.0 + 40.0 + 0.2 * 10.0 - 0.3 * 10.0)
    assert stage.world.position["collateral"][0, 0] == 0


@law
@given(lots, st.integers(1, 20_000), st.integers(0, 10**8), st.sampled_from([TRADE, LIQUIDATION, DELEVERAGE]))
def test_a_trade_is_two_fills_of_one_time_and_its_fee_has_a_receiver(
    number: int, ticks: int, fee: int, kind: int
) -> None:
    stage = Stage([1e4, 1e4])
    before = stage.world.purse.copy()
    trade(stage.world, 0, 1, 1, number, ticks, fee, int(kind))
    assert stage.balanced()
    receiver = FEES if kind == TRADE else FUND
    assert stage.world.purse[receiver] - before[receiver] == fee
    fills = stage.rows()["fills"]
    assert len(fills) == 2 and fills["time"][0] == fills["time"][1]
    assert fills["a"].tolist() == [number, -number] and fills["b"].tolist() == [ticks, ticks]
    assert fills["c"].tolist() == [fee, 0] and fills["kind"].tolist() == [kind, TRADE]
    assert stage.world.market["last"][1] == ticks * stage.terms[1].tick_size
    assert stage.world.market["traded"][1] == abs(number) * ticks * stage.world.market["unit"][1]


@law
@given(st.lists(st.integers(-(10**9), 10**9), max_size=8))
def test_transfers_are_all_that_changes_how_much_there_is(amounts: list[int]) -> None:
    stage = Stage([0.0])
    before = stage.venue.paid_in_micro
    for amount in amounts:
        transfer(stage.world, 0, amount)
    assert stage.venue.paid_in_micro - before == sum(amounts) == stage.world.account["cash"][0]
    assert stage.world.account["paid_in"][0] == sum(amounts)
    assert stage.balanced()
    assert stage.rows()["transfers"]["a"].tolist() == amounts


@law
@given(
    st.integers(-(10**10), 10**9),
    st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)),
    st.tuples(st.floats(0.3, 1.0), st.floats(0.01, 1e5)),
)
def test_pledged_assets_are_sold_for_debts_alone_and_at_their_price(
    cash: int, amounts: tuple[int, int], prices: tuple[float, float]
) -> None:
    stage = Stage([0.0])
    world = stage.world
    transfer(world, 0, cash)
    world.amount[0, 1:] = amounts
    world.asset["price"][1:] = prices
    sell_pledged(world, 0)
    now = int(world.account["cash"][0])
    sold = [before - int(after) for before, after in zip(amounts, world.amount[0, 1:], strict=True)]
    assert stage.balanced()
    assert all(0 <= each <= amount for each, amount in zip(sold, amounts, strict=True))
    if cash >= 0:
        assert sold == [0, 0] and now == cash
    else:
        worth = [each * price for each, price in zip(sold, prices, strict=True)]
        assert sum(worth) - 2.0 * (1 + 1e-9) <= now - cash <= sum(worth) * (1 + 1e-9)
        # no more than needed: a millionth of a unit too many at most
        assert now <= max(prices)
        if now < 0:
            assert sum(world.amount[0, 1:]) == 0 or now >= -2 - max(prices)


def test_dust_is_the_venues_and_more_than_a_cent_is_not() -> None:
    for micro in (9_999, -9_999, 10_000, -10_000):
        stage = Stage([0.0])
        transfer(stage.world, 0, micro)
        sweep_dust(stage.world, 0)
        swept = abs(micro) < 10_000
        assert stage.world.account["cash"][0] == (0 if swept else micro)
        assert stage.world.purse[ROUNDING] == (micro if swept else 0)
        assert stage.balanced()


def test_the_fund_tells_every_change_and_what_it_pays_arrives() -> None:
    stage = Stage([0.0, 1e4], fund_usd=100.0)
    change_fund(stage.world, int(NIL), PENALTIES)
    change_fund(stage.world, 5, PENALTIES)
    stage.world.purse[FEES] -= 5
    compensate(stage.world, 0, 0, 7 * MICRO)
    stage.fill(0, 1, 0, 10, 100.0)
    quote = int(stage.world.position["quote"][0, 0])
    compensate(stage.world, 0, 0, 3 * MICRO)
    compensate(stage.world, 0, 0, -3 * MICRO)
    assert stage.cash_usd(0) == 7.0
    assert stage.world.position["quote"][0, 0] - quote == 3 * MICRO
    assert stage.balanced()
    fund = stage.rows()["fund"]
    assert fund["b"].tolist() == [5, -7 * MICRO, -3 * MICRO]
    assert fund["kind"].tolist() == [PENALTIES, LOSSES, LOSSES]
    assert fund["a"].tolist() == [100 * MICRO + 5, 93 * MICRO + 5, 90 * MICRO + 5]


@law
@given(st.lists(lots, min_size=1, max_size=6), st.floats(-0.02, 0.02), st.floats(20.0, 300.0))
def test_funding_goes_from_one_side_to_the_other(held: list[int], rate: float, price: float) -> None:
    stage = Stage([1e4] * (len(held) + 1))
    last = len(held)
    for account, number in enumerate(held):
        stage.fill(account, last, 0, number, 100.0)
    stage.mark(0, price)
    before = stage.world.position["quote"][:, 0].copy()
    pay_funding(stage.world, 0, rate)
    assert stage.balanced()
    change = stage.world.position["quote"][:, 0] - before
    mark = float(stage.world.market["mark"][0])
    for account in range(last + 1):
        number = stage.lots(account)[0]
        assert change[account] == pytest.approx(-number * 0.01 * mark * rate * MICRO, abs=0.51)
    assert abs(int(stage.world.purse[ROUNDING])) <= len(held) + 1


def test_a_pool_without_positions_has_no_weakest() -> None:
    assert weakest(Stage([10.0], isolated=(0,)).world, 0) == NONE
    assert not math.isnan(pool(Stage([10.0]).world, 0, NONE, np.bool_(False))[0])
