from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from exchange import margin
from exchange.account import Account, Position
from exchange.contracts import MarginTier, tier_arrays
from tests.exchange.strategies import (
    FLAT,
    cross_accounts,
    law,
    maintenance_tiers,
    market_of,
    money_scale,
    positions,
    prices,
    remarked,
    schedules,
    signed,
)
from tests.oracle import exchange_oracle as oracle

THREE = (MarginTier(2e4, 0.1, 0.05), MarginTier(1e5, 0.2, 0.1), MarginTier(math.inf, 1 / 3, 1 / 6))
HALVES = (MarginTier(1024.0, 0.5, 0.25), MarginTier(math.inf, 0.5, 0.5))


def compiled_price(quantity: float, mark: float, buffer_usd: float, tiers: tuple[MarginTier, ...]) -> float:
    flat = tier_arrays(tiers)
    return margin.liquidation_price(
        quantity, mark, buffer_usd, flat.floor_usd, flat.maintenance_rate, flat.maintenance_deduction_usd
    )


# ---- liquidation price


@law
@given(schedules(), signed(1.0, 1e8), prices(), st.floats(-1.5, 3.0))
@example(THREE, 1e5, 0.1, 0.2)
@example(THREE, -1e5, 0.1, 0.2)
@example(THREE, 2e4, 1.0, 0.0)  # at a tier's edge, at maintenance
@example(HALVES, 2048.0, 2048.0, 0.25)  # exactly at the edge, from above
@example(HALVES, -512.0, 512.0, 1.25)  # and from below
@example((MarginTier(1e3, 2.0, 0.5), MarginTier(math.inf, 3.0, 1.5)), 5e3, 10.0, 0.3)  # above 100%
@example((MarginTier(1e3, 2.0, 0.5), MarginTier(math.inf, 3.0, 1.5)), 500.0, 1.0, 0.3)  # two, 0.4 and 3.6
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


@law
@given(cross_accounts())
def test_remarked_at_its_liquidation_price_collateral_equals_maintenance(account: Account) -> None:
    for position in account.positions:
        price = account.liquidation_price(position.market.market)
        if math.isnan(price):
            continue
        at = remarked(account, position.market.market, price)
        rounding = 1e-12 * (money_scale(account) + money_scale(at))
        assert at.collateral_usd == pytest.approx(at.maintenance_margin_usd, rel=1e-9, abs=rounding)


@law
@given(positions(isolated=True))
def test_an_isolated_position_remarked_there_is_at_maintenance(position: Position) -> None:
    account = Account((position,), margin_mode="isolated")
    price = account.liquidation_price("BTC-PERP")
    assume(not math.isnan(price))
    (pool,) = remarked(account, "BTC-PERP", price).pools()
    rounding = 1e-12 * (abs(position.notional_usd) + abs(position.quantity * price))
    assert pool.collateral_usd == pytest.approx(pool.maintenance_margin_usd, rel=1e-9, abs=rounding)


@law
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


@law
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


@law
@given(schedules(), signed(1.0, 1e8), prices())
def test_at_maintenance_the_mark_is_the_liquidation_price(
    tiers: tuple[MarginTier, ...], notional: float, mark: float
) -> None:
    assert compiled_price(notional / mark, mark, 0.0, tiers) == pytest.approx(mark, rel=1e-12)


@law
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


@law
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


@law
@given(positions(isolated=True))
def test_closed_at_its_bankruptcy_price_an_isolated_position_leaves_nothing(position: Position) -> None:
    account = Account((position,), margin_mode="isolated")
    price = account.bankruptcy_price("BTC-PERP")
    assume(not math.isnan(price))
    (pool,) = remarked(account, "BTC-PERP", price).pools()
    scale = abs(position.notional_usd) + abs(position.quantity * price)
    assert pool.equity_usd == pytest.approx(0.0, abs=1e-12 * scale)


@law
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


@law
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


@law
@given(cross_accounts())
def test_shares_are_in_proportion_to_maintenance_and_add_up_to_the_equity(account: Account) -> None:
    pool = account.pools()[0]
    shares = {}
    for position in account.positions:
        shares[position.market.market] = margin.bankruptcy_share_usd(
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


@law
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
    assert math.isnan(margin.bankruptcy_price(quantity, mark, share_usd))
