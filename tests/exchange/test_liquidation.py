from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import liquidation
from exchange.liquidation import LiquidationRule
from tests.exchange.strategies import law, prices, signed

RULES = {
    "whole": liquidation.WHOLE,
    "Binance": liquidation.BINANCE,
    "Hyperliquid": liquidation.HYPERLIQUID,
    "dYdX": liquidation.DYDX,
    "Drift": liquidation.DRIFT,
    "Paradex": liquidation.PARADEX,
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
rules = st.sampled_from(tuple(RULES.values()))
money = st.floats(0.01, 1e8)


@law
@given(rules, money, st.floats(0.0, 3.0))
def test_it_begins_below_maintenance_and_never_above(
    rule: LiquidationRule, maintenance: float, ratio: float
) -> None:
    collateral = maintenance * ratio
    if collateral < maintenance:
        assert liquidation.must_liquidate(collateral, maintenance, rule)
    if collateral > maintenance:
        assert not liquidation.must_liquidate(collateral, maintenance, rule)


@every_rule
def test_at_equality_the_venue_decides(rule: LiquidationRule) -> None:
    assert liquidation.must_liquidate(5.0, 5.0, rule) == bool(rule.at_equality)


@every_rule
def test_nothing_to_hold_margin_for_is_never_liquidated(rule: LiquidationRule) -> None:
    assert not liquidation.must_liquidate(-1.0, 0.0, rule)
    assert not liquidation.goes_to_backstop(-1.0, 0.0, rule)
    assert liquidation.is_safe_again(-1.0, 0.0, rule)


@every_rule
def test_what_is_unknown_neither_begins_nor_ends_it(rule: LiquidationRule) -> None:
    for figures in ((math.nan, 1.0), (1.0, math.nan)):
        assert not liquidation.must_liquidate(*figures, rule)
        assert not liquidation.goes_to_backstop(*figures, rule)
        assert not liquidation.is_safe_again(*figures, rule)


@law
@given(rules, money, st.floats(-1.0, 3.0), st.floats(1.0, 100.0))
def test_an_account_is_never_liquidated_and_safe_at_once(
    rule: LiquidationRule, maintenance: float, ratio: float, leverage: float
) -> None:
    collateral, gross = maintenance * ratio, maintenance * leverage
    safe = liquidation.is_safe_again(collateral, maintenance, rule, gross)
    assert not (safe and liquidation.must_liquidate(collateral, maintenance, rule))
    if safe:
        assert collateral >= liquidation.safe_collateral_usd(maintenance, gross, rule)
    if liquidation.goes_to_backstop(collateral, maintenance, rule):
        assert liquidation.must_liquidate(collateral, maintenance, rule)


@law
@given(rules, money, st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_more_collateral_is_never_nearer_to_being_closed(
    rule: LiquidationRule, maintenance: float, a: float, b: float
) -> None:
    less, more = sorted((a * maintenance, b * maintenance))
    for closed in (liquidation.must_liquidate, liquidation.goes_to_backstop):
        assert closed(less, maintenance, rule) or not closed(more, maintenance, rule)
    assert liquidation.is_safe_again(more, maintenance, rule) or not liquidation.is_safe_again(
        less, maintenance, rule
    )


@law
@given(rules, st.floats(1.0, 1e8))
def test_steps_close_all_there_is_and_no_more(rule: LiquidationRule, notional: float) -> None:
    left = notional
    for steps in range(3_000):
        step = liquidation.step_notional_usd(left, notional, steps, rule)
        assert 0.0 <= step <= left
        assert step == left or step >= rule.least_step_usd
        left -= step
        if left == 0.0:
            break
        if rule.step_share > 0.0:
            assert step > 0.0 or steps == 0
    assert left == 0.0


@law
@given(rules, st.floats(1.0, 1e8), st.floats(0.0, 1.0), st.integers(0, 5))
def test_a_larger_rest_is_never_closed_in_a_smaller_step(
    rule: LiquidationRule, start: float, part: float, steps: int
) -> None:
    less = liquidation.step_notional_usd(start * part, start, steps, rule)
    if start * part > rule.whole_below_usd or start <= rule.whole_below_usd:
        assert less <= liquidation.step_notional_usd(start, start, steps, rule)


def test_hyperliquid_sends_a_fifth_and_in_the_next_half_minute_the_rest() -> None:
    rule = liquidation.HYPERLIQUID
    assert liquidation.step_notional_usd(100_000.0, 100_000.0, 0, rule) == 100_000.0
    assert liquidation.step_notional_usd(400_000.0, 400_000.0, 0, rule) == 80_000.0
    assert liquidation.step_notional_usd(320_000.0, 400_000.0, 1, rule, 29.0) == 320_000.0
    # the cool-down is over: a fifth of what is left, as at first
    assert liquidation.step_notional_usd(320_000.0, 400_000.0, 1, rule, 30.0) == 64_000.0
    assert liquidation.next_step_us(1_000_000, 1, rule) == 1_000_000


def test_a_rule_that_waits_out_its_cool_down() -> None:
    rule = liquidation.HYPERLIQUID._replace(waits=1)
    assert liquidation.next_step_us(1_000_000, 0, rule) == 1_000_000
    assert liquidation.next_step_us(1_000_000, 1, rule) == 31_000_000
    assert liquidation.step_notional_usd(320_000.0, 400_000.0, 1, rule, 30.0) == 320_000.0


def test_hyperliquids_backstop_takes_over_below_two_thirds() -> None:
    assert liquidation.goes_to_backstop(199.99, 300.0, liquidation.HYPERLIQUID)
    assert not liquidation.goes_to_backstop(200.0, 300.0, liquidation.HYPERLIQUID)
    # where there is none, a pool below zero has nowhere else to go
    assert not liquidation.goes_to_backstop(0.0, 300.0, liquidation.DYDX)
    assert liquidation.goes_to_backstop(-0.01, 300.0, liquidation.DYDX)


@law
@given(money, st.floats(-0.5, 1.2), st.floats(0.01, 0.2), st.floats(0.0, 0.9), rules)
def test_closing_what_is_needed_makes_safe_to_the_dollar(
    gross: float, ratio: float, rate: float, fee_part: float, rule: LiquidationRule
) -> None:
    """One market, closed at mark with a fee below its margin."""
    maintenance = gross * rate
    collateral = maintenance * ratio
    fee = rate * fee_part
    needed = liquidation.notional_to_safety_usd(collateral, maintenance, gross, rate, rule, fee)
    after = collateral - needed * fee
    safe = liquidation.safe_collateral_usd(maintenance - needed * rate, gross - needed, rule)
    if needed == 0.0:
        assert collateral >= safe
    else:
        assert after == pytest.approx(safe, abs=1e-9 * gross)


def test_the_penalty_is_on_the_notional_or_on_its_margin() -> None:
    assert liquidation.penalty_rate(0.05, liquidation.DYDX) == 0.015
    assert liquidation.penalty_rate(0.05, liquidation.PARADEX) == pytest.approx(0.035)
    assert liquidation.penalty_rate(0.05, liquidation.HYPERLIQUID) == 0.0
    assert liquidation.penalty_rate(0.05, liquidation.WHOLE) == math.inf


def test_where_the_fee_eats_the_margin_no_closing_helps() -> None:
    assert liquidation.notional_to_safety_usd(1.0, 5.0, 100.0, 0.05, liquidation.WHOLE, 0.05) == math.inf


@law
@given(money, st.floats(-0.5, 1.0), st.sampled_from((0.0, 0.2, 0.5, 0.7)))
def test_the_share_closed_is_the_least_multiple_that_is_enough(
    maintenance: float, ratio: float, penalty: float
) -> None:
    rule = liquidation.PARADEX._replace(penalty_maintenance_share=penalty)
    collateral = maintenance * ratio

    def ratio_after(fifths: int) -> float:
        left = collateral - fifths / 5 * maintenance * penalty
        return (1 - fifths / 5) * maintenance / left if left > 0 else math.inf

    fifths = round(5 * liquidation.share_to_safety(collateral, maintenance, rule))
    assert 1 <= fifths <= 5
    for fewer in range(1, fifths):
        assert ratio_after(fewer) >= 0.9 * (1 - 1e-9)
    assert fifths == 5 or ratio_after(fifths) < 0.9 * (1 + 1e-9)


def test_a_ratio_of_exactly_the_target_is_not_below_it() -> None:
    rule = liquidation.PARADEX._replace(step_share=0.5, safety_share=1.0, penalty_maintenance_share=0.0)
    assert liquidation.share_to_safety(10.0, 10.0, rule) == 1.0
    assert liquidation.share_to_safety(10.001, 10.0, rule) == 0.5


def test_without_a_notional_the_safety_margin_is_that_over_maintenance_alone() -> None:
    assert liquidation.is_safe_again(500.0, 500.0, liquidation.DRIFT)
    assert not liquidation.is_safe_again(500.0, 500.0, liquidation.DRIFT, 1.0)


@law
@given(signed(1e-3, 1e6), prices(), st.floats(0.01, 0.2), st.floats(-1.0, 1.5), st.floats(0.0, 2.0))
def test_a_fillable_price_is_worse_than_the_oracle_the_deeper_the_account_is_under(
    quantity: float, oracle: float, rate: float, equity_over: float, spread: float
) -> None:
    maintenance = abs(quantity) * oracle * rate
    price = liquidation.fillable_price(
        quantity, oracle, maintenance, equity_over * maintenance, maintenance, spread
    )
    away = math.copysign(1.0, quantity) * (oracle - price) / oracle
    depth = min(max(1.0 - equity_over, 0.0), 1.0)
    assert away == pytest.approx(depth * spread * rate, abs=1e-9)
    assert math.isnan(liquidation.fillable_price(0.0, oracle, maintenance, 1.0, maintenance, spread))
