from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange.account import Account, Balance, MarginPool, Position
from exchange.errors import InputError
from tests.exchange.strategies import (
    FLAT,
    balances,
    cross_accounts,
    law,
    maintenance_tiers,
    market_of,
    money_scale,
    positions,
    prices,
)
from tests.oracle import exchange_oracle as oracle


def pool_of(account: Account, market: str) -> MarginPool:
    return next(p for p in account.pools() if any(leg.market.market == market for leg in p.positions))


def as_legs(account: Account) -> tuple[list[oracle.Leg], list[oracle.Holding]]:
    legs: list[oracle.Leg] = [
        (p.quantity, p.mark, p.quote_usd, maintenance_tiers(p.market.tiers)) for p in account.positions
    ]
    holdings = [(b.amount, b.price, b.collateral_weight, b.liability_weight) for b in account.balances]
    return legs, holdings


# ---- equity, collateral, margin


@law
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


@law
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


@law
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


@law
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


@law
@given(balances(), st.integers(0, 100))
def test_a_deeper_haircut_never_leaves_more_collateral(balance: Balance, percent: int) -> None:
    weights = sorted((balance.collateral_weight, percent / 100))
    low, high = (
        Account(balances=(replace(balance, collateral_weight=weight),)).collateral_usd for weight in weights
    )
    assert low <= high <= max(balance.value_usd, low)


@law
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


@law
@given(cross_accounts())
def test_the_margin_ratio_is_one_where_the_buffer_is_zero(account: Account) -> None:
    pool = account.pools()[0]
    assert account.margin_ratio == pool.margin_ratio
    assert (pool.margin_ratio >= 1) == (pool.buffer_usd >= 0)
    assert pool.buffer_usd == pool.collateral_usd - pool.maintenance_margin_usd
    assert account.buffer_usd == pool.buffer_usd


# ---- isolated accounts


@law
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


@law
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


@law
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
