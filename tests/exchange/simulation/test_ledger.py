from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.simulation.ledger import EQUITY, Ledger
from exchange.simulation.prices import price_paths
from exchange.simulation.terms import DOLLAR, TOKEN, listings, terms_of
from exchange.simulation.traders import population

ISOLATED = 3


def new_ledger(accounts: int = 4) -> Ledger:
    """Accounts with $1,000 each, of which number 3 is isolated, at the first mark."""
    rng = np.random.default_rng(0)
    listed = listings()
    paths = price_paths(listed, 2, 2, rng)
    people = population(accounts, len(listed), 1, 2, 4, 0, rng)
    people.isolated[:] = np.arange(accounts) == ISOLATED
    price = np.column_stack([np.ones(5), paths.index_price[:, 2]])
    ledger = Ledger(terms_of(listed), people, paths, price, fund_usd=100.0)
    for account in range(accounts):
        ledger.transfer(account, 1_000.0, 0)
    return ledger


trades = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-40, 40).filter(bool), st.floats(0.8, 1.25)),
    max_size=25,
)


@given(trades)
def test_trades_move_dollars_and_make_none(orders: list[tuple[int, int, int, float]]) -> None:
    ledger = new_ledger()
    before = ledger.total_dollars()
    for account, market, lots, shift in orders:
        price = float(ledger.mark[market] * shift)
        ledger.trade(account, market, lots, price, 0.25, "trade", 0)
    assert ledger.total_dollars() == pytest.approx(before, rel=1e-12)
    assert (ledger.open_positions == (ledger.lots != 0).sum(axis=1)).all()
    assert (ledger.quote[ledger.lots == 0] == 0).all()


@given(trades)
def test_equity_is_what_was_paid_in_and_gained(orders: list[tuple[int, int, int, float]]) -> None:
    ledger = new_ledger()
    expected = np.full(4, 1_000.0)
    for account, market, lots, shift in orders:
        price = float(ledger.mark[market] * shift)
        if account == ISOLATED and ledger.lots[account, market] * lots >= 0:
            ledger.set_aside(account, market, 7.0)
        ledger.trade(account, market, lots, price, 0.25, "trade", 0)
        gained = lots * ledger.terms.lot[market] * (ledger.mark[market] - price)
        expected[account] += gained - 0.25
    for account in range(4):
        assert ledger.value_one(account)[EQUITY] == pytest.approx(expected[account], abs=1e-8)


def test_turning_round_is_closing_and_opening() -> None:
    once, twice = new_ledger(), new_ledger()
    for ledger in (once, twice):
        ledger.trade(0, 1, 30, 3_300.0, 0.0, "trade", 0)
    once.trade(0, 1, -50, 3_400.0, 0.0, "trade", 0)
    twice.trade(0, 1, -30, 3_400.0, 0.0, "trade", 0)
    twice.trade(0, 1, -20, 3_400.0, 0.0, "trade", 0)
    assert once.amount[0, DOLLAR] == twice.amount[0, DOLLAR] == pytest.approx(1_003.0)
    assert once.entry[0, 1] == twice.entry[0, 1] == 3_400.0
    assert once.quote[0, 1] == twice.quote[0, 1]


def test_adding_averages_the_entry_and_reducing_keeps_it() -> None:
    ledger = new_ledger()
    ledger.trade(0, 0, 10, 90_000.0, 0.0, "trade", 0)
    ledger.trade(0, 0, 30, 94_000.0, 0.0, "trade", 0)
    assert ledger.entry[0, 0] == pytest.approx(93_000.0)
    ledger.trade(0, 0, -20, 95_000.0, 0.0, "trade", 0)
    assert ledger.entry[0, 0] == pytest.approx(93_000.0)
    assert ledger.amount[0, DOLLAR] == pytest.approx(1_000.0 + 20 * 0.0001 * 2_000.0)


def test_closing_a_share_of_an_isolated_position_frees_that_share_of_its_collateral() -> None:
    ledger = new_ledger()
    mark = float(ledger.mark[1])
    ledger.set_aside(ISOLATED, 1, 80.0)
    ledger.trade(ISOLATED, 1, 100, mark, 0.0, "trade", 0)
    ledger.trade(ISOLATED, 1, -25, mark, 0.0, "trade", 0)
    assert ledger.margin[ISOLATED, 1] == pytest.approx(60.0)
    assert ledger.amount[ISOLATED, DOLLAR] == pytest.approx(940.0)


def test_funding_is_paid_by_some_to_others() -> None:
    ledger = new_ledger()
    ledger.trade(0, 0, 50, float(ledger.mark[0]), 0.0, "trade", 0)
    ledger.trade(1, 0, -20, float(ledger.mark[0]), 0.0, "trade", 0)
    before = ledger.total_dollars(), *(ledger.value_one(account)[EQUITY] for account in (0, 1))
    ledger.pay_funding(np.full(6, 0.001))
    assert ledger.total_dollars() == pytest.approx(before[0], rel=1e-12)
    assert ledger.value_one(0)[EQUITY] == pytest.approx(before[1] - 0.005 * ledger.mark[0] * 0.001)
    assert ledger.value_one(1)[EQUITY] == pytest.approx(before[2] + 0.002 * ledger.mark[0] * 0.001)


def test_the_token_is_sold_as_far_as_dollars_are_owed() -> None:
    ledger = new_ledger()
    price = float(ledger.price[0, TOKEN])
    ledger.amount[0] = [-100.0, 2.0]
    ledger.sell_token(0)
    assert ledger.amount[0].tolist() == pytest.approx([0.0, 2.0 - 100.0 / price])
    ledger.amount[1] = [-10_000.0, 2.0]
    ledger.sell_token(1)
    assert ledger.amount[1].tolist() == pytest.approx([-10_000.0 + 2.0 * price, 0.0])
