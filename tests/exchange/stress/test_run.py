"""One shock through one book: nothing is made or lost, and what happens is what obvious arithmetic says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.simulation.settings import RULE, Settings
from exchange.stress.book import (
    BOOK_CASH,
    DELEVERAGED,
    FUND,
    LIQUIDATED,
    PAID,
    RECEIVED,
    UNCOVERED,
    Book,
    Live,
    Shock,
    begin,
    new_live,
    places_of,
)
from exchange.stress.run import count_open_deficits, run
from tests.exchange.stress.books import INITIAL, MAINTENANCE, book, chance_book, shock

SETTINGS = Settings()


def through(made: Book, shocked: Shock) -> Live:
    live = begin(made, new_live(made))
    run(made, places_of(made), live, shocked, SETTINGS, RULE)
    return live


def equity(made: Book, live: Live, pool: int) -> float:
    rows = range(made.first_position[pool], made.first_position[pool + 1])
    held = sum(live.quantity[row] * live.mark[made.market[row]] for row in rows)
    pledged = range(made.first_balance[pool], made.first_balance[pool + 1])
    return float(
        live.cash[pool] + held + sum(live.amount[row] * live.price[made.asset[row]] for row in pledged)
    )


def test_where_nothing_moves_nothing_happens() -> None:
    made = chance_book(1)
    live = through(made, shock([0.0, 0.0, 0.0]))
    assert live.total[LIQUIDATED] == live.total[PAID] == 0.0
    assert np.array_equal(live.quantity, made.quantity) and np.array_equal(live.cash, made.cash)
    assert np.array_equal(live.mark, made.mark)


def test_a_long_is_closed_where_its_collateral_no_longer_covers_maintenance() -> None:
    """10,000 of notional on 1,000: with maintenance of 5% it goes at a fall of 5.3%."""
    made = book([(-9_000.0, [(0, 100.0, 100.0)], [])], depth_usd=1e9)
    edge = 9_000.0 / (100.0 * (1.0 - MAINTENANCE))
    assert through(made, shock([math.log(edge * 1.001 / 100.0)])).total[LIQUIDATED] == 0.0
    live = through(made, shock([math.log(edge * 0.999 / 100.0)]))
    assert live.quantity[0] == 0.0
    assert live.total[LIQUIDATED] == pytest.approx(100.0 * edge, rel=2e-3)
    # the fund takes its fee, the account keeps the rest, nobody pays anything
    assert live.total[RECEIVED] == pytest.approx(0.01 * live.total[LIQUIDATED], rel=1e-3)
    assert live.total[PAID] == live.shortfall_usd[0] == 0.0
    left = made.cash[0] + 100.0 * edge - live.total[RECEIVED]
    assert live.cash[0] == pytest.approx(left, abs=0.002 * live.total[LIQUIDATED])  # and pays the spread


def test_the_fund_pays_what_a_gap_takes_beyond_equity() -> None:
    """From 100 to 80 while marks stand still: 1,000 of collateral lose 2,000."""
    made = book([(-9_000.0, [(0, 100.0, 100.0)], [])], depth_usd=1e9, fund_usd=5_000.0)
    live = through(made, shock([math.log(0.8)], frozen=20))
    assert live.total[PAID] == pytest.approx(1_000.0, rel=2e-2)
    assert live.shortfall_usd[0] == live.total[PAID]
    assert live.cash[0] == pytest.approx(0.0, abs=1e-6)


def test_what_the_fund_cannot_pay_is_closed_against_the_winner() -> None:
    made = book(
        [(-9_000.0, [(0, 100.0, 100.0)], []), (20_000.0, [(0, -100.0, 100.0)], [])],
        depth_usd=1e9,
        fund_usd=0.0,
    )
    live = through(made, shock([math.log(0.8)], frozen=20))
    assert live.quantity.tolist() == [0.0, 0.0]
    assert live.total[DELEVERAGED] == pytest.approx(8_000.0, rel=1e-2)
    # at the bankruptcy price of 90, in place of the mark of 80: the winner bears the 1,000
    assert live.deleveraging_loss_usd[1] == pytest.approx(1_000.0, rel=2e-2)
    assert live.cash[1] == pytest.approx(20_000.0 - 9_000.0, rel=1e-6)
    assert live.total[FUND] == live.total[UNCOVERED] == 0.0


def test_a_pledged_asset_that_loses_its_peg_closes_the_account() -> None:
    made = book([(-10_000.0, [(0, 100.0, 100.0)], [(0, 1_200.0)])], depth_usd=1e9)
    assert through(made, shock([0.0], asset=0.0)).total[LIQUIDATED] == 0.0
    live = through(made, shock([0.0], asset=math.log(0.3)))
    assert live.total[LIQUIDATED] > 0.0
    assert live.quantity[0] == live.amount[0] == 0.0


@given(
    seed=st.integers(0, 10_000),
    size=st.floats(-0.6, 0.6),
    asset=st.sampled_from([0.0, -0.4]),
    depth=st.sampled_from([1.0, 0.1]),
    frozen=st.sampled_from([0, 15]),
    fund=st.sampled_from([0.0, 100.0, 1e6]),
)
def test_nothing_is_made_or_lost(
    seed: int, size: float, asset: float, depth: float, frozen: int, fund: float
) -> None:
    made = chance_book(seed, fund=fund)
    chance = np.random.default_rng(seed)
    live = through(made, shock(size * chance.uniform(0.3, 1.5, 3), asset=asset, depth=depth, frozen=frozen))
    total = live.total
    after = live.cash.sum() + total[FUND] + total[BOOK_CASH] - total[UNCOVERED]
    scale = np.abs(made.cash).sum() + total[LIQUIDATED] + total[DELEVERAGED] + fund
    assert abs(after - made.cash.sum() - fund) <= 1e-9 * scale
    assert total[FUND] >= 0.0
    assert total[FUND] == pytest.approx(fund + total[RECEIVED] - total[PAID], abs=1e-9 * scale)
    # nobody is turned round or grows, and what is deleveraged takes as much from either side
    assert (live.quantity * made.quantity >= 0.0).all()
    assert (np.abs(live.quantity) <= np.abs(made.quantity)).all()
    # who was closed whole owes nothing; a winner who was deleveraged whole keeps what it pledged
    for pool in range(len(made.cash)):
        rows = slice(made.first_position[pool], made.first_position[pool + 1])
        forced = live.liquidated_usd[pool] > 0.0 and live.deleveraged_usd[pool] == 0.0
        if forced and (live.quantity[rows] == 0.0).all():
            assert live.cash[pool] >= -1e-6
    deficit = count_open_deficits(made, live)
    assert live.shortfall_usd.min() >= 0.0 and deficit >= 0.0


@given(seed=st.integers(0, 10_000))
def test_who_is_far_from_maintenance_at_every_price_is_left_alone(seed: int) -> None:
    """Passing over pools that cannot be near loses nobody: those that were never closed are not under it."""
    made = chance_book(seed, depth_usd=1e9, fund=1e9)
    live = through(made, shock([-0.2, -0.15, -0.25]))
    for pool in range(len(made.cash)):
        if live.liquidated_usd[pool] > 0.0:
            continue
        rows = range(made.first_position[pool], made.first_position[pool + 1])
        needed = sum(MAINTENANCE * abs(live.quantity[row]) * live.mark[made.market[row]] for row in rows)
        assert not equity(made, live, pool) < needed * 0.999 - 0.1 * np.abs(made.amount).sum()


def test_a_run_can_be_repeated_on_the_same_tables() -> None:
    made = chance_book(3)
    live, places = new_live(made), places_of(made)
    results = []
    for move in (-0.4, 0.2, -0.4):
        run(made, places, begin(made, live), shock([move] * 3), SETTINGS, RULE)
        results.append([table.copy() for table in live])
    assert all(np.array_equal(a, b) for a, b in zip(results[0], results[2], strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(results[0], results[1], strict=True))


def test_a_thinner_book_moves_further_and_costs_no_less() -> None:
    """One long into a book: the thinner it is, the lower it fills."""
    losses, pushes = [], []
    for depth in (1.0, 0.3, 0.1, 0.03):
        made = book([(-9_400.0, [(0, 100.0, 100.0)], [])], depth_usd=1e5, fund_usd=1e6)
        live = through(made, shock([math.log(0.97)], depth=depth))
        losses.append(live.shortfall_usd[0])
        pushes.append(abs(live.feedback[0]))
    assert losses == sorted(losses) and pushes == sorted(pushes) and pushes[0] < pushes[-1]


def test_more_cash_above_maintenance_is_never_more_loss() -> None:
    losses = []
    for cash in np.linspace(-9_450.0, -8_000.0, 12):
        made = book([(float(cash), [(0, 100.0, 100.0)], [])], depth_usd=1e9, fund_usd=1e6)
        losses.append(through(made, shock([math.log(0.85)], frozen=20)).shortfall_usd[0])
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]
    assert INITIAL > MAINTENANCE
