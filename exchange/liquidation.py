"""Forced closing: when it begins, how much goes at once, when it ends, when the backstop takes over."""

from __future__ import annotations

import math
from typing import NamedTuple

from exchange.compiled import compiled


class LiquidationRule(NamedTuple):
    """How one venue closes by force; plain numbers, so that compiled code can take it."""

    whole_below_usd: float
    """A position of at most this notional is closed at once; math.inf closes every position at once."""
    first_share: float
    """Share of a larger position that the first step sends."""
    step_share: float
    """Share that each later step sends."""
    share_of_start: int
    """1: shares are of the notional when liquidation began; 0: of what is left."""
    least_step_usd: float
    """No step sends less than this, except the last."""
    cooldown_s: float
    """Seconds between steps."""
    safety_share: float
    """Once begun, liquidation ends where collateral >= maintenance * (1 + safety_share) ..."""
    safety_notional_share: float
    """... + this share of the gross notional."""
    backstop_share: float
    """Below this share of maintenance the backstop takes the account over; 0: only below zero collateral."""
    penalty_rate_cap: float
    """At most this share of the closed notional goes to the fund."""
    at_equality: int
    """1: collateral equal to maintenance is liquidated; 0: it is safe."""


HYPERLIQUID = LiquidationRule(100_000.0, 0.2, 1.0, 1, 0.0, 30.0, 0.0, 0.0, 2.0 / 3.0, 0.0, 0)
DYDX = LiquidationRule(0.0, 0.1, 0.1, 0, 1_000.0, 1.0, 0.0, 0.0, 0.0, 0.015, 0)
DRIFT = LiquidationRule(0.0, 0.02, 1.0 / 60.0, 1, 0.0, 1.0, 0.0, 0.02, 0.0, 0.01, 0)
PARADEX = LiquidationRule(0.0, 0.2, 0.2, 1, 0.0, 1.0, 1.0 / 9.0, 0.0, 0.0, 0.0, 0)
BINANCE = LiquidationRule(math.inf, 1.0, 1.0, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0125, 1)
WHOLE = LiquidationRule(math.inf, 1.0, 1.0, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


@compiled
def must_liquidate(collateral_usd: float, maintenance_usd: float, rule: LiquidationRule) -> bool:
    """Whether forced closing begins. Never for an account that needs no margin; False where one is NaN."""
    if maintenance_usd <= 0.0:
        return False
    if rule.at_equality != 0:
        return collateral_usd <= maintenance_usd
    return collateral_usd < maintenance_usd


@compiled
def goes_to_backstop(collateral_usd: float, maintenance_usd: float, rule: LiquidationRule) -> bool:
    """Whether the backstop takes the account over: collateral below its share of maintenance."""
    return maintenance_usd > 0.0 and collateral_usd < maintenance_usd * rule.backstop_share


@compiled
def is_safe_again(
    collateral_usd: float, maintenance_usd: float, rule: LiquidationRule, gross_notional_usd: float = 0.0
) -> bool:
    """Whether liquidation that has begun may end: enough collateral for maintenance and the safety margin.

    `gross_notional_usd` counts where the rule sets the safety margin by notional. An account that needs no
    margin is safe; one with NaN is not.
    """
    if maintenance_usd <= 0.0:
        return True
    safe_usd = maintenance_usd * (1.0 + rule.safety_share) + gross_notional_usd * rule.safety_notional_share
    if rule.at_equality != 0:
        return collateral_usd > safe_usd
    return collateral_usd >= safe_usd


@compiled
def step_notional_usd(
    notional_usd: float, at_start_usd: float, steps_done: int, rule: LiquidationRule
) -> float:
    """How many dollars of a position's notional this step sends: between 0 and all that is left.

    `notional_usd` is what is left, `at_start_usd` what there was when liquidation began, both without
    sign; `steps_done` counts the steps since then.
    """
    if notional_usd <= rule.whole_below_usd:
        return notional_usd
    base_usd = at_start_usd if rule.share_of_start != 0 else notional_usd
    share = rule.first_share if steps_done == 0 else rule.step_share
    return min(notional_usd, max(base_usd * share, rule.least_step_usd))


@compiled
def next_step_us(last_step_us: int, steps_done: int, rule: LiquidationRule) -> int:
    """Earliest time of the next step, microseconds; that of the last step where there was none yet."""
    if steps_done == 0:
        return last_step_us
    return last_step_us + int(rule.cooldown_s * 1_000_000)
