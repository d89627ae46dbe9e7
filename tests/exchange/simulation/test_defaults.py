from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.simulation.defaults import BACKSTOP, force_close, slippage
from exchange.simulation.ledger import EQUITY, LEVEL, Ledger
from exchange.simulation.prices import price_paths
from exchange.simulation.terms import DOLLAR, TOKEN, listings, terms_of
from exchange.simulation.traders import population

ETH = 1
ENTRY = 3_350.0
sizes = st.floats(1.0, 1e6)


@given(sizes, sizes, sizes)
def test_walking_the_book_in_two_steps_costs_what_one_step_costs(a: float, b: float, depth: float) -> None:
    whole = slippage(a + b, 0.0, depth)
    parts = (slippage(a, 0.0, depth) * a + slippage(b, a, depth) * b) / (a + b)
    if whole < BACKSTOP and slippage(b, a, depth) < BACKSTOP:
        assert whole == pytest.approx(parts, rel=1e-6)


@given(sizes, sizes, sizes)
def test_slippage_rises_with_size_and_falls_with_depth(size: float, used: float, depth: float) -> None:
    here = slippage(size, used, depth)
    assert 0.0 < here <= BACKSTOP
    assert slippage(2 * size, used, depth) >= here * (1 - 1e-6)
    assert slippage(size, used, 2 * depth) <= here * (1 + 1e-6)


def venue_with(deposits: list[float], lots: list[int], fund_usd: float, mark: float) -> Ledger:
    """Accounts long or short ETH at 3,350 on a deep book, the mark now at `mark`."""
    rng = np.random.default_rng(0)
    listed = listings()
    paths = price_paths(listed, 2, 2, rng)
    people = population(len(deposits), len(listed), 1, 2, 4, 0, rng)
    people.isolated[:] = 0
    ledger = Ledger(terms_of(listed), people, paths, np.ones((5, 2)), fund_usd)
    paths.mark[0, ETH] = ENTRY
    paths.bid_usd[:], paths.ask_usd[:] = 1e15, 1e15
    for account, (deposit, held) in enumerate(zip(deposits, lots, strict=True)):
        ledger.transfer(account, deposit, 0)
        if held:
            ledger.trade(account, ETH, held, ENTRY, 0.0, "trade", 0)
    paths.mark[0, ETH] = mark
    ledger.value(np.arange(len(deposits)))
    return ledger


def kinds(ledger: Ledger) -> list[tuple[int, str]]:
    return [(account, kind) for _, account, kind, *_ in ledger.rows["events"]]


def test_who_meets_maintenance_is_left_alone() -> None:
    # 1 ETH at 3,350 with $200: maintenance is 2.5%, met down to 3,230.77
    ledger = venue_with([200.0], [1_000], 50.0, 3_231.0)
    assert force_close(ledger, 5) == []
    ledger = venue_with([200.0], [1_000], 50.0, 3_230.0)
    assert force_close(ledger, 5) == [0]
    assert kinds(ledger) == [(0, "liquidation")]


def test_what_is_left_pays_the_fee_into_the_fund() -> None:
    ledger = venue_with([200.0], [1_000], 50.0, 3_230.0)
    total = ledger.total_dollars()
    force_close(ledger, 5)
    assert ledger.amount[0, DOLLAR] == pytest.approx(200.0 - 120.0 - 32.30)
    assert ledger.fund_usd == pytest.approx(50.0 + 32.30)
    assert ledger.total_dollars() == pytest.approx(total)
    assert ledger.rows["fund"] == [(5, pytest.approx(82.30), pytest.approx(32.30), "liquidation_fees")]


def test_the_fee_takes_no_more_than_there_is() -> None:
    ledger = venue_with([200.0], [1_000], 50.0, 3_160.0)
    force_close(ledger, 5)
    assert ledger.amount[0, DOLLAR] == pytest.approx(0.0, abs=1e-9)
    assert ledger.fund_usd == pytest.approx(60.0)


def test_the_fund_pays_what_the_equity_does_not() -> None:
    ledger = venue_with([200.0, 9_000.0], [1_000, -1_000], 500.0, 3_050.0)
    total = ledger.total_dollars()
    force_close(ledger, 5)
    assert kinds(ledger) == [(0, "liquidation"), (0, "negative_equity")]
    assert ledger.rows["events"][1][-1] == pytest.approx(100.0)
    assert ledger.fund_usd == pytest.approx(400.0)
    assert ledger.amount[0].tolist() == [0.0, 0.0]
    assert ledger.lots[1, ETH] == -1_000
    assert ledger.total_dollars() == pytest.approx(total)


def test_a_spent_fund_closes_the_most_leveraged_winner_at_the_bankruptcy_price() -> None:
    # the loser's $200 are gone at 3,150; account 2 has the same profit rate on a third of the equity
    ledger = venue_with([200.0, 9_000.0, 1_500.0], [1_000, -1_000, -600], 99.0, 3_050.0)
    total = ledger.total_dollars()
    equity = [ledger.figures[account, EQUITY] for account in range(3)]
    force_close(ledger, 5)
    assert ledger.amount[0].tolist() == [0.0, 0.0]
    assert ledger.lots[:, ETH].tolist() == [0, -600, 0]
    assert ledger.fund_usd == 99.0
    assert ledger.value_one(2)[EQUITY] == pytest.approx(equity[2] - 0.6 * 100.0)
    assert ledger.value_one(1)[EQUITY] == pytest.approx(equity[1] - 0.4 * 100.0)
    assert kinds(ledger)[2:] == [(2, "deleverage"), (1, "deleverage")]
    assert [row[-1] for row in ledger.rows["events"][2:]] == pytest.approx([60.0, 40.0])
    forced = [row[4] for row in ledger.rows["fills"] if row[-1] != "trade"]
    assert forced == pytest.approx([3_150.0] * 3)
    assert ledger.total_dollars() == pytest.approx(total)


def test_the_house_takes_what_winners_cannot() -> None:
    ledger = venue_with([200.0, 9_000.0], [1_000, -300], 0.0, 3_050.0)
    total, maker = ledger.total_dollars(), ledger.maker_usd
    force_close(ledger, 5)
    assert ledger.lots.any() == np.False_
    assert ledger.maker_usd == pytest.approx(maker - 0.7 * 3_150.0)
    assert ledger.total_dollars() == pytest.approx(total)


def test_a_pledged_token_is_sold_before_the_fund_pays() -> None:
    ledger = venue_with([50.0], [1_000], 500.0, 3_050.0)
    ledger.price[:] = [1.0, 100.0]
    ledger.amount[0, TOKEN] = 2.0
    ledger.value(np.arange(1))
    force_close(ledger, 5)
    assert ledger.rows["events"][1][-1] == pytest.approx(300.0 - 250.0)
    assert ledger.fund_usd == pytest.approx(450.0)
    assert ledger.amount[0].tolist() == [0.0, 0.0]


def test_an_isolated_position_falls_alone() -> None:
    ledger = venue_with([5_000.0], [0], 500.0, ENTRY)
    ledger.people.isolated[0] = 1
    for market, lots in ((ETH, 1_000), (0, 100)):
        ledger.set_aside(0, market, 200.0)
        ledger.trade(0, market, lots, float(ledger.mark[market]), 0.0, "trade", 0)
    ledger.paths.mark[0, ETH] = 3_050.0
    ledger.value(np.arange(1))
    force_close(ledger, 5)
    assert ledger.held(0) == [0]
    assert ledger.amount[0, DOLLAR] == pytest.approx(4_600.0)
    assert ledger.fund_usd == pytest.approx(400.0)
    assert ledger.value_one(0)[LEVEL] > 1.0
