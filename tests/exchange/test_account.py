from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from exchange import account as core
from exchange.account import Account, Balance, MarginPool, Position
from exchange.contracts import MarginTier, tier_arrays
from exchange.errors import InputError
from tests.exchange.strategies import (
    balances,
    cross_accounts,
    market_of,
    positions,
    prices,
    schedules,
    signed,
)
from tests.oracle import exchange_oracle as oracle

FLAT = (MarginTier(math.inf, 0.1, 0.05),)
THREE = (MarginTier(2e4, 0.1, 0.05), MarginTier(1e5, 0.2, 0.1), MarginTier(math.inf, 1 / 3, 1 / 6))


def gross_usd(account: Account) -> float:
    return sum(abs(position.notional_usd) for position in account.positions)


def money_scale(account: Account) -> float:
    """Size of the sums that make up the account: what rounding is measured against."""
    return gross_usd(account) + sum(abs(balance.value_usd) for balance in account.balances)


def remarked(account: Account, market: str, mark: float) -> Account:
    return replace(
        account,
        positions=tuple(
            replace(position, mark=mark) if position.market.market == market else position
            for position in account.positions
        ),
    )


def pool_of(account: Account, market: str) -> MarginPool:
    return next(p for p in account.pools() if any(leg.market.market == market for leg in p.positions))


def maintenance_tiers(tiers: tuple[MarginTier, ...]) -> list[oracle.Tier]:
    return [(tier.notional_cap_usd, tier.maintenance_margin_rate) for tier in tiers]


def as_legs(account: Account) -> tuple[list[oracle.Leg], list[oracle.Holding]]:
    legs: list[oracle.Leg] = [
        (p.quantity, p.mark, p.quote_usd, maintenance_tiers(p.market.tiers)) for p in account.positions
    ]
    holdings = [(b.amount, b.price, b.collateral_weight, b.liability_weight) for b in account.balances]
    return legs, holdings


def compiled_price(quantity: float, mark: float, buffer_usd: float, tiers: tuple[MarginTier, ...]) -> float:
    flat = tier_arrays(tiers)
    return core.liquidation_price(
        quantity, mark, buffer_usd, flat.floor_usd, flat.maintenance_rate, flat.maintenance_deduction_usd
    )


# ---- equity, collateral, margin


@given(cross_accounts())
def test_figures_are_what_plain_sums_give(account: Account) -> None:
    legs, holdings = as_legs(account)
    rounding = 1e-12 * money_scale(account)
    assert account.equity_usd == pytest.approx(float(oracle.equity(legs, holdings)), rel=0, abs=rounding)
    assert account.collateral_usd == pytest.approx(
        float(oracle.collateral(legs, holdings)), rel=0, abs=rounding
    )
    assert account.maintenance_margin_usd == pytest.approx(
        float(oracle.maintenance(legs, holdings)), rel=1e-9
    )


@given(cross_accounts(), st.floats(-1e6, 1e6))
def test_a_dollar_more_is_a_dollar_more_of_equity_and_collateral(account: Account, deposit: float) -> None:
    dollars, *others = account.balances
    assume(dollars.amount + deposit >= 0 or dollars.liability_weight == 1.0)
    richer = replace(account, balances=(replace(dollars, amount=dollars.amount + deposit), *others))
    rounding = 1e-12 * (money_scale(account) + abs(deposit))
    assert richer.equity_usd - account.equity_usd == pytest.approx(deposit, rel=0, abs=rounding)
    assert richer.collateral_usd - account.collateral_usd == pytest.approx(deposit, rel=0, abs=rounding)
    assert richer.maintenance_margin_usd == account.maintenance_margin_usd
    assert richer.initial_margin_usd == account.initial_margin_usd


@given(cross_accounts())
def test_the_order_of_rows_does_not_matter(account: Account) -> None:
    turned = replace(account, positions=account.positions[::-1], balances=account.balances[::-1])
    rounding = 1e-12 * money_scale(account)
    assert turned.equity_usd == pytest.approx(account.equity_usd, rel=0, abs=rounding)
    assert turned.maintenance_margin_usd == pytest.approx(account.maintenance_margin_usd, rel=1e-12)
    market = account.positions[0].market.market
    assert turned.liquidation_price(market) == pytest.approx(
        account.liquidation_price(market), rel=1e-6, abs=1e-9 * account.positions[0].mark, nan_ok=True
    )


@given(balances())
def test_a_haircut_takes_from_what_is_held_and_a_borrowed_amount_needs_margin(balance: Balance) -> None:
    account = Account(balances=(balance,))
    if balance.amount > 0:
        assert account.collateral_usd == pytest.approx(balance.value_usd * balance.collateral_weight)
        assert account.maintenance_margin_usd == 0.0
    else:
        assert account.collateral_usd == account.equity_usd < 0
        # equity already lost its value once: with the margin it weighs liability_weight times its value
        weighed = account.maintenance_margin_usd - account.collateral_usd
        assert weighed == pytest.approx(-balance.value_usd * balance.liability_weight)
    # borrowed assets are left out of initial margin, as Drift's figures are
    assert account.initial_margin_usd == 0.0


@given(balances(), st.integers(0, 100))
def test_a_deeper_haircut_never_leaves_more_collateral(balance: Balance, percent: int) -> None:
    weights = sorted((balance.collateral_weight, percent / 100))
    low, high = (
        Account(balances=(replace(balance, collateral_weight=weight),)).collateral_usd for weight in weights
    )
    assert low <= high <= max(balance.value_usd, low)


@given(cross_accounts())
def test_closing_at_mark_moves_profit_to_cash_and_frees_its_margin(account: Account) -> None:
    first, *rest = account.positions
    closed = replace(first, quantity=0.0, quote_usd=first.unrealised_usd)
    after = replace(account, positions=(closed, *rest))
    rounding = 1e-12 * money_scale(account)
    assert after.equity_usd == pytest.approx(account.equity_usd, rel=0, abs=rounding)
    freed = account.maintenance_margin_usd - after.maintenance_margin_usd
    assert freed == pytest.approx(
        first.maintenance_margin_usd, rel=1e-9, abs=1e-12 * account.maintenance_margin_usd
    )


@given(cross_accounts())
def test_the_margin_ratio_is_one_where_the_buffer_is_zero(account: Account) -> None:
    pool = account.pools()[0]
    assert account.margin_ratio == pool.margin_ratio
    assert (pool.margin_ratio >= 1) == (pool.buffer_usd >= 0)
    assert pool.buffer_usd == pool.collateral_usd - pool.maintenance_margin_usd
    assert account.buffer_usd == pool.buffer_usd


# ---- liquidation price


@given(schedules(), signed(1.0, 1e8), prices(), st.floats(-1.5, 3.0))
@example(THREE, 1e5, 0.1, 0.2)
@example(THREE, -1e5, 0.1, 0.2)
@example(THREE, 2e4, 1.0, 0.0)  # at a tier's edge, at maintenance
@example((MarginTier(1e3, 2.0, 0.5), MarginTier(math.inf, 3.0, 1.5)), 5e3, 10.0, 0.3)  # above 100%
@example((MarginTier(1e3, 2.0, 0.5), MarginTier(math.inf, 3.0, 1.0)), 5e3, 10.0, 0.3)  # at 100%
def test_liquidation_price_is_the_oracles(
    tiers: tuple[MarginTier, ...], notional: float, mark: float, buffer_share: float
) -> None:
    quantity = notional / mark
    buffer = abs(notional) * buffer_share
    wanted = oracle.liquidation_price(quantity, mark, buffer, maintenance_tiers(tiers))
    found = compiled_price(quantity, mark, buffer, tiers)
    near_zero = 1e-9 * mark  # where rounding decides whether there is a price above zero at all
    if wanted is None:
        assert math.isnan(found) or found < near_zero
    elif math.isnan(found):
        assert wanted < near_zero
    else:
        assert found == pytest.approx(float(wanted), rel=1e-9, abs=near_zero * 1e-3)


@given(cross_accounts())
def test_remarked_at_its_liquidation_price_collateral_equals_maintenance(account: Account) -> None:
    for position in account.positions:
        price = account.liquidation_price(position.market.market)
        if math.isnan(price):
            continue
        at = remarked(account, position.market.market, price)
        rounding = 1e-12 * (money_scale(account) + money_scale(at))
        assert at.collateral_usd == pytest.approx(at.maintenance_margin_usd, rel=1e-9, abs=rounding)


@given(positions(isolated=True))
def test_an_isolated_position_remarked_there_is_at_maintenance(position: Position) -> None:
    account = Account((position,), margin_mode="isolated")
    price = account.liquidation_price("BTC-PERP")
    assume(not math.isnan(price))
    (pool,) = remarked(account, "BTC-PERP", price).pools()
    rounding = 1e-12 * (abs(position.notional_usd) + abs(position.quantity * price))
    assert pool.collateral_usd == pytest.approx(pool.maintenance_margin_usd, rel=1e-9, abs=rounding)


@given(schedules(), signed(1.0, 1e8), prices(), st.floats(0.0, 1.5))
def test_without_a_liquidation_price_no_price_liquidates(
    tiers: tuple[MarginTier, ...], notional: float, mark: float, share: float
) -> None:
    quantity = notional / mark
    buffer = abs(notional) * share
    if not math.isnan(compiled_price(quantity, mark, buffer, tiers)):
        return
    assert quantity > 0  # a short always has one
    market = market_of(tiers)
    cash = buffer + market.maintenance_margin_usd(notional)
    for factor in np.geomspace(1e-6, 1e3, 37):
        price = mark * factor
        left = cash + quantity * (price - mark) - market.maintenance_margin_usd(quantity * price)
        assert left >= -1e-9 * abs(notional)


@given(schedules(), signed(1.0, 1e8), prices(), st.floats(0.0, 1.0), st.floats(1e-3, 1.0))
def test_more_collateral_moves_it_farther_from_the_mark(
    tiers: tuple[MarginTier, ...], notional: float, mark: float, share: float, more: float
) -> None:
    quantity = notional / mark
    near = compiled_price(quantity, mark, abs(notional) * share, tiers)
    far = compiled_price(quantity, mark, abs(notional) * (share + more), tiers)
    assume(not math.isnan(near))
    side = math.copysign(1.0, quantity)
    assert (mark - near) * side >= -1e-9 * mark
    assert math.isnan(far) or (mark - far) * side > (mark - near) * side


@given(schedules(), signed(1.0, 1e8), prices())
def test_at_maintenance_the_mark_is_the_liquidation_price(
    tiers: tuple[MarginTier, ...], notional: float, mark: float
) -> None:
    assert compiled_price(notional / mark, mark, 0.0, tiers) == pytest.approx(mark, rel=1e-12)


@given(schedules(), signed(1.0, 1e8), prices(), st.floats(-1.0, 0.9), prices())
def test_it_does_not_depend_on_the_mark_that_it_is_computed_from(
    tiers: tuple[MarginTier, ...], notional: float, mark: float, share: float, other_mark: float
) -> None:
    """Seen from another mark the same account has the same liquidation price."""
    quantity = notional / mark
    buffer = abs(notional) * share
    price = compiled_price(quantity, mark, buffer, tiers)
    assume(price > 1e-3 * mark and 1e-3 < other_mark / mark < 1e3)
    market = market_of(tiers)
    moved = quantity * (other_mark - mark)
    margin = market.maintenance_margin_usd(quantity * other_mark) - market.maintenance_margin_usd(notional)
    again = compiled_price(quantity, other_mark, buffer + moved - margin, tiers)
    assert again == pytest.approx(price, rel=1e-8)


@given(schedules(), signed(1.0, 1e8), prices(), st.floats(-1.0, 2.0), st.sampled_from((0.25, 2.0, 64.0)))
def test_scaling(
    tiers: tuple[MarginTier, ...], notional: float, mark: float, share: float, factor: float
) -> None:
    """Factors are powers of two, so that rounding is the same and equality is exact."""
    quantity = notional / mark
    buffer = abs(notional) * share
    price = compiled_price(quantity, mark, buffer, tiers)
    larger = tuple(replace(tier, notional_cap_usd=tier.notional_cap_usd * factor) for tier in tiers)
    # k times the position under k times the caps with k times the money: the same price
    same = compiled_price(quantity * factor, mark, buffer * factor, larger)
    np.testing.assert_equal(same, price)
    # the same money in lots of another size: the price of the lot
    lots = compiled_price(quantity / factor, mark * factor, buffer, tiers)
    np.testing.assert_equal(lots, price * factor)


@pytest.mark.parametrize(
    ("quantity", "mark", "buffer_usd"),
    [
        (0.0, 10.0, 5.0),
        (math.nan, 10.0, 5.0),
        (1.0, math.nan, 5.0),
        (1.0, 10.0, math.nan),
        (1.0, 10.0, math.inf),
        (-1.0, 10.0, math.inf),
        (math.inf, 10.0, 5.0),
        (1.0, 0.0, 5.0),
        (1.0, -10.0, 5.0),
        (1.0, 10.0, 9.5),  # a long that its collateral covers wholly
        (1.0, 10.0, 1e9),
        (-1.0, 10.0, -1e9),  # a short that is lost at any price
    ],
)
def test_where_there_is_no_liquidation_price_it_is_nan(
    quantity: float, mark: float, buffer_usd: float
) -> None:
    assert math.isnan(compiled_price(quantity, mark, buffer_usd, FLAT))


@pytest.mark.parametrize(("side", "tiers_crossed"), [(1.0, 2), (-1.0, 2)])
def test_the_price_is_solved_anew_in_every_tier_that_it_crosses(side: float, tiers_crossed: int) -> None:
    """By hand: 1,000,000 coins at 0.10 in tiers of 5, 10 and 16.7%, buffer such that the price lies two
    tiers away: longs end at 0.015 in the first tier, shorts start there and end at 0.15 in the third."""
    market = market_of(THREE)
    size, start, end = (1e6, 0.12, 0.015) if side > 0 else (1e6, 0.015, 0.15)
    needed_at_start = market.maintenance_margin_usd(size * start)
    needed_at_end = market.maintenance_margin_usd(size * end)
    buffer = needed_at_end - needed_at_start + size * abs(start - end)
    edges = [tier.notional_cap_usd / size for tier in THREE[:-1]]
    assert sum(min(start, end) < edge < max(start, end) for edge in edges) == tiers_crossed
    assert compiled_price(side * size, start, buffer, THREE) == pytest.approx(end, rel=1e-12)


# ---- bankruptcy price


@given(positions(isolated=True))
def test_closed_at_its_bankruptcy_price_an_isolated_position_leaves_nothing(position: Position) -> None:
    account = Account((position,), margin_mode="isolated")
    price = account.bankruptcy_price("BTC-PERP")
    assume(not math.isnan(price))
    (pool,) = remarked(account, "BTC-PERP", price).pools()
    scale = abs(position.notional_usd) + abs(position.quantity * price)
    assert pool.equity_usd == pytest.approx(0.0, abs=1e-12 * scale)


@given(positions(isolated=True))
def test_it_lies_beyond_the_liquidation_price(position: Position) -> None:
    account = Account((position,), margin_mode="isolated")
    liquidation = account.liquidation_price("BTC-PERP")
    bankruptcy = account.bankruptcy_price("BTC-PERP")
    if math.isnan(bankruptcy):
        # a long covered wholly can still be short of maintenance; a short lost at any price cannot be saved
        assert position.quantity > 0 or math.isnan(liquidation)
        return
    assume(liquidation > 1e-9 * position.mark)
    if position.quantity > 0:
        assert bankruptcy < liquidation
    else:
        assert bankruptcy > liquidation


@given(cross_accounts())
def test_all_closed_at_their_bankruptcy_prices_a_cross_account_leaves_nothing(account: Account) -> None:
    only_dollars = replace(account, balances=account.balances[:1])
    emptied = only_dollars
    for position in account.positions:
        price = only_dollars.bankruptcy_price(position.market.market)
        assume(not math.isnan(price))
        emptied = remarked(emptied, position.market.market, price)
    scale = money_scale(only_dollars) + money_scale(emptied)
    assert emptied.equity_usd == pytest.approx(0.0, abs=1e-12 * scale)


@given(cross_accounts())
def test_shares_are_in_proportion_to_maintenance_and_add_up_to_the_equity(account: Account) -> None:
    pool = account.pools()[0]
    shares = {}
    for position in account.positions:
        shares[position.market.market] = core.bankruptcy_share_usd(
            pool.equity_usd, position.maintenance_margin_usd, pool.position_maintenance_usd
        )
        price = account.bankruptcy_price(position.market.market)
        if not math.isnan(price):
            given_up = position.quantity * (position.mark - price)
            rounding = 1e-12 * (abs(position.notional_usd) + abs(position.quantity * price))
            assert given_up == pytest.approx(shares[position.market.market], rel=1e-9, abs=rounding)
        assert shares[position.market.market] * pool.position_maintenance_usd == pytest.approx(
            pool.equity_usd * position.maintenance_margin_usd
        )
    assert math.fsum(shares.values()) == pytest.approx(pool.equity_usd, rel=1e-12)


@given(cross_accounts())
def test_when_liquidation_begins_every_bankruptcy_price_is_still_ahead(account: Account) -> None:
    """An account at maintenance has equity left, so no position is closed at a price already passed."""
    market = account.positions[0].market.market
    price = account.liquidation_price(market)
    assume(price > 0)
    at = remarked(account, market, price)
    assume(at.equity_usd > 1e-6 * money_scale(at))
    for position in at.positions:
        bankruptcy = at.bankruptcy_price(position.market.market)
        if position.quantity > 0:
            assert math.isnan(bankruptcy) or bankruptcy < position.mark
        else:
            assert bankruptcy > position.mark


@pytest.mark.parametrize(
    ("quantity", "mark", "share_usd"),
    [(0.0, 10.0, 1.0), (1.0, 10.0, 10.0), (1.0, 10.0, 20.0), (-1.0, 10.0, -10.0), (1.0, math.nan, 1.0)],
)
def test_where_there_is_no_bankruptcy_price_it_is_nan(quantity: float, mark: float, share_usd: float) -> None:
    assert math.isnan(core.bankruptcy_price(quantity, mark, share_usd))


# ---- isolated accounts


@given(positions("A", isolated=True), positions("B", isolated=True), balances(), prices(), st.floats(-1, 2))
def test_isolated_positions_touch_only_their_own_margin(
    first: Position, second: Position, free: Balance, mark: float, share: float
) -> None:
    account = Account((first, second), (free,), "isolated")
    elsewhere = replace(
        first, mark=mark, isolated_collateral_usd=abs(first.notional_usd) * share, quote_usd=0.0
    )
    changed = Account((elsewhere, second), (replace(free, amount=-free.amount),), "isolated")
    assert pool_of(changed, "B") == pool_of(account, "B")
    np.testing.assert_equal(changed.liquidation_price("B"), account.liquidation_price("B"))
    np.testing.assert_equal(changed.bankruptcy_price("B"), account.bankruptcy_price("B"))


@given(positions(isolated=True))
def test_one_isolated_position_is_a_cross_account_with_that_much_cash(position: Position) -> None:
    isolated = Account((position,), margin_mode="isolated")
    dollars = Balance("USD", position.isolated_collateral_usd)
    cross = Account((replace(position, isolated_collateral_usd=math.nan),), (dollars,))
    for one, other in zip(isolated.pools(), cross.pools(), strict=True):
        assert one.equity_usd == pytest.approx(other.equity_usd, abs=1e-12 * abs(position.notional_usd))
        assert one.maintenance_margin_usd == other.maintenance_margin_usd
        assert one.initial_margin_usd == other.initial_margin_usd
        assert one.gross_notional_usd == other.gross_notional_usd
    assert isolated.liquidation_price("BTC-PERP") == pytest.approx(
        cross.liquidation_price("BTC-PERP"), rel=1e-9, abs=1e-9 * position.mark, nan_ok=True
    )


@given(positions("A", isolated=True), positions("B", isolated=True), balances())
def test_an_isolated_account_is_worth_its_pools_and_its_free_balances(
    first: Position, second: Position, free: Balance
) -> None:
    settled = Position(market_of(FLAT, "C"), 0.0, 10.0, quote_usd=7.0)
    account = Account((first, second, settled), (free,), "isolated")
    pools = account.pools()
    assert [pool.positions for pool in pools] == [(first,), (second,)]
    worth = math.fsum(pool.equity_usd for pool in pools) + free.value_usd + 7.0
    scale = money_scale(account) + abs(first.isolated_collateral_usd) + abs(second.isolated_collateral_usd)
    assert account.equity_usd == pytest.approx(worth, abs=1e-12 * scale)
    assert account.collateral_usd == math.fsum(pool.collateral_usd for pool in pools)
    assert account.margin_ratio == min(pool.margin_ratio for pool in pools)
    assert account.buffer_usd in {pool.buffer_usd for pool in pools}


def test_the_weakest_pool_speaks_for_an_isolated_account() -> None:
    strong = Position(market_of(FLAT, "A"), 1.0, 100.0, -100.0, isolated_collateral_usd=50.0)
    weak = Position(market_of(FLAT, "B"), -1.0, 100.0, 100.0, isolated_collateral_usd=6.0)
    account = Account((strong, weak), (Balance("USD", 1e6),), "isolated")
    assert account.weakest_pool == pool_of(account, "B")
    assert account.margin_ratio == pytest.approx(6.0 / 5.0)
    assert account.buffer_usd == pytest.approx(1.0)
    assert account.maintenance_margin_usd == pytest.approx(10.0)
    assert account.initial_margin_usd == pytest.approx(20.0)


# ---- what is not known


def test_unrecorded_isolated_collateral_makes_only_what_needs_it_unknown() -> None:
    known = Position(market_of(FLAT, "A"), 1.0, 100.0, -100.0, isolated_collateral_usd=50.0)
    unknown = Position(market_of(FLAT, "B"), 1.0, 100.0, -100.0)
    account = Account((known, unknown), margin_mode="isolated")
    pool = pool_of(account, "B")
    assert all(map(math.isnan, (pool.equity_usd, pool.collateral_usd, pool.buffer_usd, pool.margin_ratio)))
    assert (pool.maintenance_margin_usd, pool.initial_margin_usd) == (5.0, 10.0)
    assert math.isnan(account.liquidation_price("B")) and math.isnan(account.bankruptcy_price("B"))
    assert pool_of(account, "A").buffer_usd == 45.0
    assert account.liquidation_price("A") == pytest.approx(50.0 / 0.95)
    # the unknown pool may be the weakest
    assert all(map(math.isnan, (account.equity_usd, account.margin_ratio, account.buffer_usd)))


def test_an_unknown_mark_makes_what_needs_it_unknown() -> None:
    account = Account((Position(market_of(FLAT), 1.0, math.nan, -100.0),), (Balance("USD", 50.0),))
    figures = (
        account.equity_usd,
        account.collateral_usd,
        account.maintenance_margin_usd,
        account.initial_margin_usd,
        account.margin_ratio,
        account.buffer_usd,
        account.liquidation_price("BTC-PERP"),
        account.bankruptcy_price("BTC-PERP"),
    )
    assert all(map(math.isnan, figures))


def test_an_unknown_mark_or_price_of_nothing_does_not_matter() -> None:
    closed = Position(market_of(FLAT), 0.0, math.nan, quote_usd=12.5)
    account = Account((closed,), (Balance("USD", 50.0), Balance("SOL", 0.0, math.nan, 0.9, 1.1)))
    assert account.equity_usd == account.collateral_usd == 62.5
    assert account.maintenance_margin_usd == account.initial_margin_usd == 0.0
    assert math.isnan(account.margin_ratio)
    assert math.isnan(account.liquidation_price("BTC-PERP"))


def test_an_unknown_price_makes_equity_unknown_but_not_the_margin_of_positions() -> None:
    held = Account((Position(market_of(FLAT), 1.0, 100.0, -100.0),), (Balance("SOL", 2.0, math.nan, 0.9),))
    assert math.isnan(held.equity_usd) and math.isnan(held.collateral_usd)
    assert held.maintenance_margin_usd == 5.0
    borrowed = Account(balances=(Balance("SOL", -2.0, math.nan, 0.9, 1.1),))
    assert math.isnan(borrowed.maintenance_margin_usd)


def test_the_cash_leg_comes_from_the_record_or_else_from_the_entry_price() -> None:
    recorded = Position(market_of(FLAT), 2.0, 110.0, quote_usd=-195.0, entry_price=100.0)
    entered = Position(market_of(FLAT), 2.0, 110.0, entry_price=100.0)
    neither = Position(market_of(FLAT), 2.0, 110.0)
    assert recorded.unrealised_usd == 25.0
    assert entered.unrealised_usd == 20.0
    assert math.isnan(neither.unrealised_usd)


def test_an_account_with_nothing_is_worth_nothing() -> None:
    for mode in ("cross", "isolated"):
        account = Account(margin_mode=mode)
        assert account.equity_usd == account.collateral_usd == account.maintenance_margin_usd == 0.0
        assert math.isnan(account.margin_ratio)
        assert account.weakest_pool is None
        assert account.buffer_usd == 0.0
    assert len(Account().pools()) == 1
    assert Account(margin_mode="isolated").pools() == ()


# ---- what is refused, and in which words

MARKET = market_of(FLAT, "ETH-PERP")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quantity": math.nan}, "position ETH-PERP: quantity must be a finite number, not nan"),
        ({"quantity": math.inf}, "quantity .* not inf"),
        ({"quantity": "2"}, "quantity .* not '2'"),
        ({"mark": 0.0}, r"position ETH-PERP: mark must be a finite number above 0, not 0\.0"),
        ({"mark": -3.5}, r"mark .* not -3\.5"),
        ({"mark": None}, "mark .* not None"),
        ({"quote_usd": -math.inf}, "quote_usd .* not -inf"),
        ({"entry_price": -1.0}, r"entry_price .* above 0, not -1\.0"),
        ({"isolated_collateral_usd": math.inf}, "isolated_collateral_usd .* not inf"),
        ({"market": "ETH-PERP"}, "must be a Market, not 'ETH-PERP'"),
    ],
)
def test_a_position_with_a_bad_value_is_refused_by_name_and_value(changes: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"market": MARKET, "quantity": 1.0, "mark": 100.0, "quote_usd": -100.0}
    Position(**good)
    with pytest.raises(InputError, match=says):
        Position(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"amount": math.nan}, "balance SOL: amount must be a finite number, not nan"),
        ({"price": 0.0}, r"price .* above 0, not 0\.0"),
        ({"price": math.inf}, "price .* not inf"),
        ({"collateral_weight": 1.2}, r"collateral_weight .* at most 1, not 1\.2"),
        ({"collateral_weight": -0.1}, r"collateral_weight .* not -0\.1"),
        ({"liability_weight": 0.9}, r"liability_weight .* at least 1, not 0\.9"),
        ({"liability_weight": math.nan}, "liability_weight .* not nan"),
    ],
)
def test_a_balance_with_a_bad_value_is_refused_by_name_and_value(changes: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"asset": "SOL", "amount": 1.0, "price": 20.0}
    Balance(**good)
    with pytest.raises(InputError, match=says):
        Balance(**{**good, **changes})


def test_accounts_that_contradict_themselves_are_refused() -> None:
    position = Position(MARKET, 1.0, 100.0, -100.0)
    with pytest.raises(InputError, match="cross or isolated, not 'portfolio'"):
        Account((position,), margin_mode="portfolio")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="market 'ETH-PERP' appears twice"):
        Account((position, position))
    with pytest.raises(InputError, match="asset 'USD' appears twice"):
        Account(balances=(Balance("USD", 1.0), Balance("USD", 2.0)))
    with pytest.raises(InputError, match=r"isolated_collateral_usd is 5\.0 in a cross account"):
        Account((replace(position, isolated_collateral_usd=5.0),))
    with pytest.raises(InputError, match="no position in market 'BTC-PERP'"):
        Account((position,)).liquidation_price("BTC-PERP")
    with pytest.raises(InputError, match="no position in market 'BTC-PERP'"):
        Account((position,)).bankruptcy_price("BTC-PERP")
