"""Margin on new exposure: asked is what the parts say, at entry and when money leaves, and then it stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.book import slippage
from exchange.margin import tiered_margin_usd
from exchange.simulation.entry import least_collateral_usd, reference_rate, stamps, suffices
from exchange.simulation.ledger import figures
from exchange.simulation.orders import order_to_open
from exchange.simulation.state import ENTRY_LEVERAGES, MICRO, NONE
from exchange.simulation.traders import OPEN, _act, _take_out
from tests.exchange.simulation.stage import Stage
from tests.exchange.simulation.test_traders import HOUSE, owners, trader

law = settings(deadline=None, max_examples=60)
MARKET = np.int64(0)


def under_policy(
    stage: Stage,
    loading: float = 3.0,
    target: float = 0.01,
    per_slip: float = 0.0,
    add_on: float = 0.0,
    most: float = 10.0,
) -> Stage:
    """Liquidation within a day is as likely as the square of leverage over twenty, twice that for shorts."""
    entry = stage.world.entry
    entry["stamps"] = 1
    entry["loading"], entry["target"], entry["move"], entry["most"] = loading, target, 0.02, most
    entry["per_slip"], entry["add_on"] = per_slip, add_on
    long = np.minimum((ENTRY_LEVERAGES / 20.0) ** 2, 1.0)
    entry["pd"][:, 0], entry["pd"][:, 1] = long, np.minimum(2.0 * long, 1.0)
    return stage


def asked_by_hand(stage: Stage, account: int, collateral: float) -> tuple[float, float]:
    """Initial margin asked of a cross account, and its gross notional: the slow and obvious way."""
    world = stage.world
    held = [
        (m, n * world.market["lot"][m] * world.market["mark"][m]) for m, n in enumerate(stage.lots(account))
    ]
    gross = sum(abs(usd) for _, usd in held)
    kept = 0.0
    for market, usd in held:
        row = world.market[market]
        kept += tiered_margin_usd(
            abs(usd), row["floor"], row["maintenance_rate"], row["maintenance_deduction"]
        )
        kept -= row["maintenance_rate"][0] * abs(usd)
    leverage = gross / (collateral - kept) if collateral > kept else np.inf
    asked = 0.0
    for market, usd in held:
        row, terms = world.market[market], world.entry[market]
        slip = slippage(abs(usd), row["base_depth"], row["calm_spread"])
        pd = np.interp(leverage, [0.0, *ENTRY_LEVERAGES], [0.0, *terms["pd"][int(usd < 0)]])
        scheduled = tiered_margin_usd(abs(usd), row["floor"], row["initial_rate"], row["initial_deduction"])
        moving = terms["add_on"] + terms["loading"] * max(pd - terms["target"], 0.0) * (slip + terms["move"])
        asked += scheduled + min(abs(usd) * moving, terms["most"] * scheduled)
        asked += abs(usd) * terms["per_slip"] * slip
    return min(asked, gross), gross


@law
@given(owners(), st.floats(0.0, 4.0), st.floats(0.0, 0.05), st.floats(0.0, 10.0))
def test_the_least_collateral_is_where_it_begins_to_suffice(
    stage: Stage, loading: float, add_on: float, most: float
) -> None:
    under_policy(stage, loading, per_slip=1.0, add_on=add_on, most=most)
    stage.world.account["isolated"][0] = 0
    lots = np.int64(stage.lots(0)[0])
    least = least_collateral_usd(stage.world, 0, MARKET, lots)
    asked, gross = asked_by_hand(stage, 0, max(least, 1e-9)) if any(stage.lots(0)) else (0.0, 0.0)
    assert least == pytest.approx(asked, rel=1e-5, abs=1e-6)
    assert least <= gross + 1e-9
    for more in (1.0, 1.5, 30.0):
        assert suffices(stage.world, 0, MARKET, lots, least * more + 1e-9)
    assert not any(stage.lots(0)) or not suffices(stage.world, 0, MARKET, lots, least * 0.999)


@law
@given(owners(), st.floats(50.0, 50_000.0), st.sampled_from([1.0, -1.0]))
def test_an_order_is_let_in_up_to_what_is_asked_and_stamped(stage: Stage, usd: float, side: float) -> None:
    under_policy(stage)
    stage.world.account["isolated"][0] = 0
    before = stage.lots(0)[0]
    _act(stage.world, 0, MARKET, OPEN, usd * side, False)
    if stage.lots(0)[0] == before or abs(stage.lots(0)[0]) < abs(before):
        return
    _, collateral, initial, _, gross, _ = figures(stage.world, 0, NONE)
    asked, _ = asked_by_hand(stage, 0, collateral)
    # the fill itself has moved the mark by no more than the spread and the fee took
    assert collateral >= asked * (1.0 - 1e-6)
    rate = float(stage.world.account["initial_rate"][0])
    assert rate == pytest.approx(asked / gross, rel=1e-9)
    for price in (90.0, 110.0):  # what is in force does not move with prices, nor with equity
        stage.mark(0, price)
        assert stage.world.account["initial_rate"][0] == rate
    assert initial >= asked * (1.0 - 1e-9)


def test_without_terms_only_the_schedule_is_asked() -> None:
    stage = trader(1_000.0)
    free, _ = order_to_open(stage.world, 0, 0, 1e6)
    bound = under_policy(trader(1_000.0), loading=0.0)
    assert order_to_open(bound.world, 0, 0, 1e6)[0] == free > 0


def test_higher_risk_lets_less_in_and_a_short_of_a_riskier_side_less_still() -> None:
    most = {}
    for loading in (0.0, 1.0, 3.0, 9.0):
        for side in (1.0, -1.0):
            stage = under_policy(trader(1_000.0), loading)
            # the order that just fits is found by making it smaller
            most[loading, side] = max(
                abs(order_to_open(stage.world, 0, 0, side * usd)[0])
                for usd in np.linspace(500.0, 30_000.0, 60)
            )
    for side in (1.0, -1.0):
        found = [most[loading, side] for loading in (0.0, 1.0, 3.0, 9.0)]
        assert found == sorted(found, reverse=True) and found[0] > found[-1]
    assert most[9.0, -1.0] < most[9.0, 1.0]


def test_who_withdraws_is_asked_as_if_it_entered_with_what_is_left() -> None:
    for key in range(30):
        stage = under_policy(trader(10_000.0), loading=9.0)
        stage.world.account["key"][0] = key
        stage.fill(0, HOUSE, 0, 300, 100.0)
        stage.world.account["paid_in"][0] = 0  # all of it counts as gains, which may be taken
        equity = stage.account(0).equity_usd
        _take_out(stage.world, 0, equity)
        left = stage.account(0).collateral_usd
        assert left >= asked_by_hand(stage, 0, left)[0]
        assert left > 0


def test_makers_are_outside() -> None:
    stage = under_policy(trader(1_000.0))
    assert stamps(stage.world, 0)
    assert not stamps(stage.world, stage.first_maker)
    assert not stamps(stage.world, stage.backstop)


def test_an_isolated_position_is_given_what_is_asked_of_it() -> None:
    stage = under_policy(trader(1_000.0, isolated=True, leverage=25.0), loading=9.0)
    lots, aside = order_to_open(stage.world, 0, 0, 2_000.0)
    assert lots > 0
    collateral = aside / MICRO
    size = lots * stage.world.market["lot"][0] * stage.world.market["mark"][0]
    assert size / collateral < 20.0  # it would have gone in with 25
    assert suffices(stage.world, 0, MARKET, np.int64(lots), collateral)


def test_the_reference_portfolio_is_asked_more_where_risk_is_higher() -> None:
    rates = [
        reference_rate(under_policy(trader(1_000.0), loading).world, 2_500.0, 8.0)
        for loading in (0.0, 1.0, 3.0)
    ]
    assert rates == sorted(rates) and rates[0] < rates[1] < rates[2]
