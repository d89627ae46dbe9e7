from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange import insurance
from exchange.margin import bankruptcy_price
from tests.exchange.strategies import law, prices, signed


@law
@given(signed(1e-3, 1e6), prices(), st.floats(-1.0, 3.0), st.floats(0.0, 0.1))
def test_what_the_fund_pays_or_receives_is_the_accounts_difference_from_bankruptcy(
    quantity: float, fill: float, bankruptcy_over_fill: float, penalty: float
) -> None:
    bankruptcy = fill * bankruptcy_over_fill
    to_fund, from_fund = insurance.settle_close(quantity, fill, bankruptcy, penalty)
    better = quantity * (fill - bankruptcy)
    assert to_fund >= 0.0 and from_fund >= 0.0
    assert to_fund == 0.0 or from_fund == 0.0
    assert to_fund <= penalty * (abs(quantity) * fill)
    # what is left to the account is never below what it had coming at the bankruptcy price
    left = better - to_fund + from_fund
    assert left >= -1e-9 * abs(quantity) * fill
    if better < 0.0:
        assert left == 0.0


@law
@given(signed(1e-3, 1e6), prices(), st.floats(-0.2, 0.2), st.floats(-0.3, 0.3), st.floats(0.0, 0.1))
def test_closing_an_account_out_conserves_money_and_leaves_it_nothing_to_owe(
    quantity: float, mark: float, equity_share: float, slip: float, penalty: float
) -> None:
    """Account, fund and the other side together have as much after the close as before it."""
    equity = equity_share * abs(quantity) * mark
    bankruptcy = bankruptcy_price(quantity, mark, equity)
    assume(bankruptcy > 0)
    fill = mark * (1.0 + slip)
    to_fund, from_fund = insurance.settle_close(quantity, fill, bankruptcy, penalty)
    cash = equity - quantity * mark
    after = cash + quantity * fill - to_fund + from_fund
    other_side = quantity * (mark - fill)
    scale = abs(quantity) * mark
    assert after + other_side + (to_fund - from_fund) == pytest.approx(equity, abs=1e-9 * scale)
    assert after >= -1e-9 * scale


def test_a_penalty_without_end_takes_all_that_is_above_bankruptcy() -> None:
    assert insurance.settle_close(2.0, 10.0, 9.0, math.inf) == (2.0, 0.0)
    assert insurance.settle_close(2.0, 9.0, 9.0, math.inf) == (0.0, 0.0)
    assert insurance.settle_close(2.0, 0.0, -1.0, math.inf) == (2.0, 0.0)
    assert insurance.settle_close(-2.0, 10.0, 9.0, math.inf) == (0.0, 2.0)


def test_a_bankruptcy_price_below_zero_is_a_price_like_any_other() -> None:
    """A short whose pool owes more than buying it back for nothing would save: all is the fund's to pay."""
    assert insurance.settle_close(-3.0, 10.0, -2.0, 0.015) == (0.0, 36.0)
    assert insurance.settle_close(3.0, 10.0, -2.0, 0.015) == (pytest.approx(0.45), 0.0)


@pytest.mark.parametrize("unknown", ["quantity", "fill", "bankruptcy"])
def test_unknown_in_unknown_out(unknown: str) -> None:
    inputs = {"quantity": 1.0, "fill": 10.0, "bankruptcy": 9.0} | {unknown: math.nan}
    assert all(math.isnan(paid) for paid in insurance.settle_close(*inputs.values(), 0.01))


@law
@given(st.floats(0.0, 1e6), st.floats(1e-3, 1e6))
def test_the_affordable_share_costs_no_more_than_there_is(fund: float, cost: float) -> None:
    share = insurance.affordable_share(fund, cost)
    assert 0.0 <= share <= 1.0
    assert share * cost <= fund * (1 + 1e-12) + 1e-300
    assert share == 1.0 or share * cost == pytest.approx(fund)


def test_a_close_that_costs_nothing_is_affordable_to_an_empty_fund() -> None:
    assert insurance.affordable_share(0.0, 0.0) == 1.0
    assert insurance.affordable_share(0.0, -5.0) == 1.0
    assert insurance.affordable_share(0.0, 5.0) == 0.0
    assert insurance.affordable_share(-1.0, 5.0) == 0.0


@law
@given(st.floats(0.0, 1e6), st.floats(1.0, 1e6), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_fund_is_spent_below_its_trigger_and_the_more_so_the_tighter_it_is(
    fund: float, peak: float, a: float, b: float
) -> None:
    tight, wide = sorted((a, b))
    assert insurance.spent(fund, peak, tight) or not insurance.spent(fund, peak, wide)
    assert insurance.spent(fund, peak, 1.0) == (fund == 0.0)
    assert insurance.spent(0.0, peak, a)
    assert not insurance.spent(peak * 1.01, peak, a)
