from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.book import DEPTH_AT, size_within_usd, slippage, walked
from exchange.simulation.ledger import pool
from exchange.simulation.market import (
    count_makers,
    fits_margin,
    initial_rate_now,
    largest_holding,
    most_lots,
    move,
    order_ticks,
    send,
    tend_maker,
)  # fmt: skip
from exchange.simulation.state import FEES, FUND, LIQUIDATION, MAKER, MICRO, NONE, TRADE
from tests.exchange.simulation.stage import Stage
from tests.exchange.simulation.worlds import CALM

law = settings(deadline=None, max_examples=50)
lots = st.integers(-20_000, 20_000).filter(bool)


@law
@given(lots, st.floats(1e3, 1e7), st.floats(0.0, 0.02), st.floats(0.5, 2.0))
def test_an_order_fills_where_the_book_says_rounded_against_it(
    number: int, depth: float, spread: float, factor: float
) -> None:
    stage = Stage([0.0])
    stage.mark(0, 100.0 * factor)
    row = stage.world.market[0]
    row["depth"], row["spread"] = depth, spread
    away = slippage(abs(number) * 0.01 * float(row["mid"]), depth, spread)
    exact = float(row["mid"]) * (1 + math.copysign(away, number)) / 0.01
    told = order_ticks(stage.world, 0, number)
    if exact < 1.0:
        assert told == 1
    else:
        assert (0 <= told - exact < 1) if number > 0 else (0 <= exact - told < 1)


@law
@given(st.floats(100.0, 1e7), st.floats(0.2, 5.0))
def test_one_order_takes_no_more_than_the_book_gives_within_reach(depth: float, price: float) -> None:
    stage = Stage([0.0])
    stage.mark(0, 100.0 * price)
    stage.world.market["depth"][0] = depth
    most = most_lots(stage.world, 0)
    mid = float(stage.world.market["mid"][0])
    assert most * 0.01 * mid <= size_within_usd(CALM.settings.most_walk, depth) < (most + 1) * 0.01 * mid


@law
@given(st.integers(-3_000, 3_000).filter(bool), st.floats(1e5, 1e7), st.booleans(), st.floats(0.0, 0.01))
def test_an_order_fills_with_makers_and_leaves_the_price_where_it_walked(
    number: int, depth: float, forced: bool, fee_rate: float
) -> None:
    stage = Stage([1e7], depth_usd=depth)
    world = stage.world
    before = world.market.copy()
    ticks = order_ticks(world, 0, number)
    kind = LIQUIDATION if forced else TRADE
    filled = send(world, 0, 0, number, ticks, fee_rate, int(kind))
    assert filled == abs(number) and stage.lots(0)[0] == number
    assert stage.balanced()
    fills = stage.rows()["fills"]
    makers = fills[fills["account"] != 0]
    assert (makers["c"] == 0).all() and (makers["kind"] == TRADE).all()
    assert makers["a"].sum() == -number and set(fills["b"]) == {ticks}
    fee = int(fills["c"].sum())
    exact = abs(number) * ticks * int(world.market["unit"][0]) * fee_rate
    assert abs(fee - exact) <= len(makers)
    assert fee >= exact - 1e-6 if not forced else fee <= exact + 1e-6
    assert world.purse[FUND if forced else FEES] == fee
    away = math.copysign(
        walked(abs(number) * 0.01 * float(before["mid"][0]), float(before["depth"][0])), number
    )
    if not forced:
        away *= CALM.settings.ordinary_share
    assert math.log(world.market["mid"][0] / before["mid"][0]) == pytest.approx(away, rel=1e-9)
    assert world.market["mark"][0] == before["mark"][0], "the mark moves with time, not within an order"


@law
@given(st.integers(1, 10**7), st.floats(0.0, 3_000.0), st.sampled_from([-1, 1]))
def test_makers_fill_what_their_margin_bears_and_no_more(number: int, each_usd: float, side: int) -> None:
    stage = Stage([1e9], settings=CALM.settings._replace(maker_reach=0.0))
    world = stage.world
    makers = np.flatnonzero(world.account["kind"] == MAKER)
    for maker in makers.tolist():
        stage.pay(maker, each_usd - stage.cash_usd(maker))
    world.account["deposit"][makers] = int(each_usd * MICRO)
    filled = send(world, 0, 0, side * number, order_ticks(world, 0, side * number), 0.0, int(TRADE))
    assert 0 <= filled <= number and stage.balanced()
    for maker in makers.tolist():
        account = stage.account(maker)
        assert account.collateral_usd >= account.initial_margin_usd - 1e-6
    if filled < number:
        # all together could not have taken a quarter more than they did
        room = sum(stage.account(m).collateral_usd for m in makers.tolist())
        assert filled * 1.0 * 0.1 <= room + 1e-6 and (number - filled) * 0.1 > 0.0


@law
@given(
    st.floats(1.0, 5_000.0), st.integers(-4_000, 4_000), lots, st.floats(0.8, 1.25), st.booleans(),
    st.floats(0.0, 0.5), st.sampled_from([0.0, 0.01]),
)  # fmt: skip
def test_a_trade_fits_where_initial_margin_is_met_after_it(
    deposit: float, held: int, number: int, price: float, isolated: bool, rate: float, fee_rate: float
) -> None:
    stage = Stage([deposit, 1e9, 1e9], (0,) if isolated else ())
    if isolated:
        stage.set_aside(0, 0, deposit)
    if held:
        stage.fill(0, 1, 0, held, 100.0)
    stage.world.account["initial_rate"][0] = rate
    stage.mark(0, 100.0 * price)
    ticks = order_ticks(stage.world, 0, number)
    fits = fits_margin(stage.world, 0, 0, number, ticks, fee_rate)
    only_reduces = held * number < 0 and abs(number) <= abs(held)
    fee_usd = abs(number) * 0.01 * ticks * 0.01 * fee_rate
    stage.fill(0, 1, 0, number, ticks * 0.01)
    stage.pay(0, -fee_usd)
    account = stage.account(0)
    # a free dollar of an isolated account backs no position
    collateral = account.collateral_usd - (fee_usd if isolated else 0.0)
    gross = sum(abs(p.notional_usd) for p in account.positions)
    needed = max(account.initial_margin_usd, rate * gross)
    if only_reduces:
        assert fits
    elif fits:
        assert collateral >= needed - 1e-9
    elif rate == 0.0:
        assert collateral < needed + 1e-5 + 1e-9 * needed


@law
@given(st.floats(0.0, 1e5), st.floats(1e-3, 0.999))
def test_open_interest_raises_initial_margin_to_all_of_the_notional(held_usd: float, rate: float) -> None:
    low, high = 10_000.0, 50_000.0
    stage = Stage(
        [1e9, 1e9],
        settings=CALM.settings._replace(open_interest_low_usd=low, open_interest_high_usd=high),
    )
    number = int(held_usd)
    if number:
        stage.fill(0, 1, 0, number, 100.0)
    share = min(max((number - low) / (high - low), 0.0), 1.0)
    assert initial_rate_now(stage.world, 0, 1.0) == pytest.approx(0.1 + share * 0.9)
    assert initial_rate_now(Stage([0.0]).world, 0, 1e9) == 0.0


def test_size_raises_initial_margin_by_its_root() -> None:
    stage = Stage([0.0], settings=CALM.settings._replace(size_factor=0.01))
    assert initial_rate_now(stage.world, 0, 100.0) == 0.1
    assert initial_rate_now(stage.world, 0, 100.0 * 400) == pytest.approx(0.08 + 0.01 * 20)


@law
@given(st.floats(-0.05, 0.05).filter(lambda push: abs(push) > 1e-6), st.floats(1.0, 60.0))
def test_a_push_decays_and_what_forced_orders_leave_stays(push: float, elapsed: float) -> None:
    stage = Stage([0.0])
    row = stage.world.market[0]
    row["push"], row["wave"], row["shift"] = push, push / 2, 0.01
    move(stage.world, 0, 100.0, elapsed)
    for name, before in (("push", push), ("wave", push / 2)):
        assert 0.0 < float(row[name]) / before < math.exp(-elapsed / CALM.settings.resilience_s) + 1e-12
    assert row["shift"] == 0.01
    assert row["mark"] % row["tick"] == pytest.approx(0.0, abs=1e-6) or row["mark"] % row["tick"] == (
        pytest.approx(float(row["tick"]), abs=1e-6)
    )


@law
@given(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=30))
def test_depth_thins_out_and_spreads_widen_as_prices_move(moves: list[float]) -> None:
    wild, calm = Stage([0.0]), Stage([0.0])
    price = 100.0
    for step in moves:
        price *= math.exp(step)
        move(wild.world, 0, price, 1.0)
        move(calm.world, 0, 100.0, 1.0)
    loud, quiet = wild.world.market[0], calm.world.market[0]
    assert loud["variance"] >= quiet["variance"]
    assert loud["depth"] <= quiet["depth"] * (1 + 1e-12)
    assert loud["spread"] >= quiet["spread"]
    assert 0.0 < loud["liquidity"] <= CALM.settings.most_liquidity
    assert min(loud["mark"], loud["mid"], loud["oracle"], loud["depth"]) > 0.0


def test_depth_is_the_notional_within_one_percent() -> None:
    stage = Stage([0.0], depth_usd=50_000.0)
    assert stage.world.market["depth"][0] == pytest.approx(50_000.0)
    assert walked(50_000.0, 50_000.0) == DEPTH_AT


def test_makers_pay_in_as_far_as_they_reach_and_take_out_what_they_do_not_need() -> None:
    stage = Stage([1e9])
    world, maker = stage.world, stage.first_maker
    world.account["deposit"][maker] = 1_000 * MICRO
    stage.pay(maker, 1_000.0 - stage.cash_usd(maker))
    world.account["paid_in"][maker] = 1_000 * MICRO
    stage.fill(maker, 0, 0, 8_000, 100.0)
    stage.clear()
    tend_maker(world, maker)
    account = stage.account(maker)
    assert account.collateral_usd == pytest.approx(2.5 * account.initial_margin_usd, rel=1e-6)
    stage.mark(0, 10.0)
    tend_maker(world, maker)
    assert world.account["paid_in"][maker] == pytest.approx(4_000 * MICRO), "three times what it began with"
    stage.mark(0, 1_000.0)
    stage.fill(maker, 0, 0, -8_000, 1_000.0)
    tend_maker(world, maker)
    assert stage.cash_usd(maker) == pytest.approx(1_000.0)
    assert stage.balanced()


def test_makers_without_margin_do_not_quote() -> None:
    stage = Stage([1e9], settings=CALM.settings._replace(maker_reach=0.0))
    world = stage.world
    makers = np.flatnonzero(world.account["kind"] == MAKER).tolist()
    count_makers(world)
    assert world.market["presence"].tolist() == [1.0, 1.0]
    stage.pay(makers[0], 100.0 - stage.cash_usd(makers[0]))
    world.account["deposit"][makers[0]] = 100 * MICRO
    world.account["paid_in"][makers[0]] = 100 * MICRO
    stage.fill(makers[0], 0, 0, 900, 100.0)
    count_makers(world)
    assert world.market["presence"].tolist() == [1 - 1 / len(makers)] * 2


def test_the_largest_holding_is_the_one_of_most_dollars() -> None:
    stage = Stage([1e6, 1e6], markets=3)
    assert largest_holding(stage.world, 0, NONE) == -1
    stage.fill(0, 1, 1, 900, 10.0)
    stage.fill(0, 1, 0, -800, 100.0)
    assert largest_holding(stage.world, 0, NONE) == 1
    stage.mark(0, 130.0)
    assert largest_holding(stage.world, 0, NONE) == 0
    assert largest_holding(stage.world, 0, np.int64(1)) == 1
    assert largest_holding(stage.world, 0, np.int64(2)) == -1
    assert pool(stage.world, 0, NONE, np.bool_(False))[4] == pytest.approx(8.0 * 130.0 + 900.0)
