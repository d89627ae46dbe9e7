"""Forced closing: when it begins, how much goes at once, when it ends, when the backstop takes over.

Each venue's rule is a record of plain numbers; sources in docs/venue_rules.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from exchange.compiled import compiled
from exchange.units import SECOND_US


class LiquidationRule(NamedTuple):
    """How one venue closes by force; plain numbers, so that compiled code can take it."""

    at_equality: int
    """1: collateral equal to maintenance is liquidated (Binance, OKX); 0: it is safe (dYdX)."""
    whole_below_usd: float
    """A position of at most this notional is closed at once; inf closes every position at once."""
    first_share: float
    """Share of a larger position that the first step sends."""
    step_share: float
    """Share that each later step sends."""
    share_of_start: int
    """1: shares are of the notional when liquidation began; 0: of what is left."""
    least_step_usd: float
    """No step sends less than this, unless less is left."""
    cooldown_s: float
    """Seconds that count as one episode after a partial step ..."""
    waits: int
    """... 1: in which nothing is sent; 0: in which `step_share` is sent, and after which the first share."""
    safety_share: float
    """Once begun, liquidation ends where collateral >= maintenance * (1 + safety_share) ..."""
    safety_notional_share: float
    """... + gross notional * safety_notional_share."""
    backstop_share: float
    """Below this share of maintenance the backstop takes over; 0: where collateral is below zero."""
    penalty_rate_cap: float
    """At most this share of the closed notional goes to the fund; inf: all that is above bankruptcy ..."""
    penalty_maintenance_share: float
    """... and this share of the maintenance margin of what is closed (Paradex)."""


WHOLE = LiquidationRule(1, math.inf, 1.0, 1.0, 1, 0.0, 0.0, 1, 0.0, 0.0, 0.0, math.inf, 0.0)
"""Everything at once at the bankruptcy price, what is gained over it to the fund: BitMEX and Bybit in the
lowest risk limit."""

BINANCE = WHOLE._replace(penalty_rate_cap=0.0125)
"""Everything at once, with a clearance fee that Binance sets by symbol (`Market.liquidation_fee_rate`)."""

HYPERLIQUID = LiquidationRule(
    at_equality=0,
    whole_below_usd=100_000.0,
    first_share=0.2,
    step_share=1.0,
    share_of_start=0,
    least_step_usd=0.0,
    cooldown_s=30.0,
    waits=0,
    safety_share=0.0,
    safety_notional_share=0.0,
    backstop_share=2.0 / 3.0,
    penalty_rate_cap=0.0,
    penalty_maintenance_share=0.0,
)
"""20% of a position above $100,000; in the 30 s after that all of it; no fee. Its documents say that orders
within the cooldown are for the entire position; who reads them as waiting it out first sets `waits` to 1."""

DYDX = LiquidationRule(
    at_equality=0,
    whole_below_usd=0.0,
    first_share=0.1,
    step_share=0.1,
    share_of_start=0,
    least_step_usd=1_000.0,
    cooldown_s=1.0,
    waits=1,
    safety_share=0.0,
    safety_notional_share=0.0,
    backstop_share=0.0,
    penalty_rate_cap=0.015,
    penalty_maintenance_share=0.0,
)
"""At most a tenth of the position a block (about a second) and at least $1,000; up to 1.5% to the fund."""

DRIFT = LiquidationRule(
    at_equality=0,
    whole_below_usd=0.0,
    first_share=0.0,
    step_share=1.0 / 60.0,
    share_of_start=1,
    least_step_usd=1_000.0,
    cooldown_s=1.0,
    waits=1,
    safety_share=0.0,
    safety_notional_share=0.02,
    backstop_share=0.0,
    penalty_rate_cap=0.01,
    penalty_maintenance_share=0.0,
)
"""What may be closed grows from nothing to all that is needed within 150 slots (60 s); a shortage below $50
goes at once, which at 5% margin is $1,000; ends at maintenance plus 2% of the notional. `at_start_usd` is
then what must be closed (`notional_to_safety_usd`)."""

PARADEX = LiquidationRule(
    at_equality=0,
    whole_below_usd=0.0,
    first_share=0.2,
    step_share=0.2,
    share_of_start=1,
    least_step_usd=0.0,
    cooldown_s=0.0,
    waits=1,
    safety_share=1.0 / 9.0,
    safety_notional_share=0.0,
    backstop_share=0.0,
    penalty_rate_cap=0.0,
    penalty_maintenance_share=0.7,
)
"""All positions by one share, the least multiple of 20% that brings maintenance under 90% of collateral
(`share_to_safety`), the fund taking 70% of the maintenance margin of what is closed."""


@compiled
def must_liquidate(collateral_usd: float, maintenance_usd: float, rule: LiquidationRule) -> bool:
    """Whether forced closing begins. Never where no margin is needed; False where a figure is NaN."""
    if maintenance_usd <= 0.0:
        return False
    if rule.at_equality != 0:
        return collateral_usd <= maintenance_usd
    return collateral_usd < maintenance_usd


@compiled
def goes_to_backstop(collateral_usd: float, maintenance_usd: float, rule: LiquidationRule) -> bool:
    """Whether the backstop takes over: collateral below `backstop_share` of maintenance.

    On venues without such a share, below zero. False where a figure is NaN.
    """
    return maintenance_usd > 0.0 and collateral_usd < maintenance_usd * rule.backstop_share


@compiled
def safe_collateral_usd(maintenance_usd: float, gross_notional_usd: float, rule: LiquidationRule) -> float:
    """Collateral at which liquidation that has begun may end, dollars."""
    return maintenance_usd * (1.0 + rule.safety_share) + gross_notional_usd * rule.safety_notional_share


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
    safe_usd = safe_collateral_usd(maintenance_usd, gross_notional_usd, rule)
    if rule.at_equality != 0:
        return collateral_usd > safe_usd
    return collateral_usd >= safe_usd


@compiled
def step_notional_usd(
    notional_usd: float, at_start_usd: float, steps_done: int, rule: LiquidationRule, since_s: float = 0.0
) -> float:
    """How many dollars of a position's notional this step sends: between 0 and all that is left.

    `notional_usd` is what is left, `at_start_usd` what there was when liquidation began, both without
    sign; `steps_done` counts the steps since then and `since_s` is the time since the last of them.
    """
    if notional_usd <= rule.whole_below_usd:
        return notional_usd
    base_usd = at_start_usd if rule.share_of_start != 0 else notional_usd
    is_first = steps_done == 0 or (rule.waits == 0 and since_s >= rule.cooldown_s)
    share = rule.first_share if is_first else rule.step_share
    return min(notional_usd, max(base_usd * share, rule.least_step_usd))


@compiled
def next_step_us(last_step_us: int, steps_done: int, rule: LiquidationRule) -> int:
    """Earliest time of the next step, microseconds: at once where none was made or the rule does not wait."""
    if steps_done == 0 or rule.waits == 0:
        return last_step_us
    return last_step_us + int(rule.cooldown_s * SECOND_US)


@compiled
def penalty_rate(maintenance_rate: float, rule: LiquidationRule) -> float:
    """At most this share of the closed notional goes to the fund, in a market with this maintenance rate."""
    return rule.penalty_rate_cap + rule.penalty_maintenance_share * maintenance_rate


@compiled
def notional_to_safety_usd(
    collateral_usd: float,
    maintenance_usd: float,
    gross_notional_usd: float,
    maintenance_rate: float,
    rule: LiquidationRule,
    penalty_rate: float = 0.0,
) -> float:
    """How much of one market's notional to close at mark so that the account is safe again, dollars.

    Each dollar closed frees maintenance_rate * (1 + safety_share) + safety_notional_share of what is needed
    and costs `penalty_rate`; at least 0, inf where closing frees nothing.
    """
    shortage_usd = safe_collateral_usd(maintenance_usd, gross_notional_usd, rule) - collateral_usd
    if shortage_usd <= 0.0:
        return 0.0
    freed = maintenance_rate * (1.0 + rule.safety_share) + rule.safety_notional_share - penalty_rate
    return shortage_usd / freed if freed > 0.0 else math.inf


@compiled
def share_to_safety(collateral_usd: float, maintenance_usd: float, rule: LiquidationRule) -> float:
    """Share in (0, 1] of all positions to close at mark, in multiples of `step_share`, to be safe again.

    Closing a share x leaves (1 - x) of the maintenance margin and takes x * maintenance *
    penalty_maintenance_share from the collateral. 1 where no smaller share is enough.
    """
    steps = 1
    while steps * rule.step_share < 1.0 - 1e-9:
        share = steps * rule.step_share
        left_usd = collateral_usd - share * maintenance_usd * rule.penalty_maintenance_share
        if left_usd > (1.0 - share) * maintenance_usd * (1.0 + rule.safety_share):
            return share
        steps += 1
    return 1.0


@compiled
def fillable_price(
    quantity: float,
    oracle: float,
    maintenance_usd: float,
    equity_usd: float,
    total_maintenance_usd: float,
    spread_share: float,
    bankruptcy_adjustment: float = 1.0,
) -> float:
    """Worst price at which dYdX lets a forced order of a position fill: its limit price.

    The oracle less (for a long) rating * spread_share * maintenance_usd / |quantity|, the rating being
    bankruptcy_adjustment * (1 - equity / total maintenance) clipped to [0, 1]. `maintenance_usd` is the
    position's, `equity_usd` and `total_maintenance_usd` the account's. NaN for no position.
    """
    if quantity == 0.0:
        return math.nan
    rating = min(max(bankruptcy_adjustment * (1.0 - equity_usd / total_maintenance_usd), 0.0), 1.0)
    return oracle - rating * spread_share * maintenance_usd / quantity
