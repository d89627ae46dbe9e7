"""Funding: what longs pay shorts, or shorts longs, so that the perpetual stays near its index.

Sources of the formulas and of each venue's parameters in docs/venue_rules.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from exchange.compiled import compiled
from exchange.margin import notional_usd


class FundingRule(NamedTuple):
    """A venue's funding parameters: plain numbers, rates as fractions for `base_interval_s`."""

    base_interval_s: float
    """The interval that the formula's rates are for: 8 hours on most venues."""
    share: float
    """Part of the base interval that one payment covers: 1/8 pays an 8-hour rate every hour."""
    interest_rate: float
    """Interest for one base interval."""
    clamp: float
    """How far the pull towards interest may go; inf pays interest alone."""
    adds_interest: int
    """1: interest is added to the premium (dYdX), and there is no pull; 0: the premium is pulled to it."""
    cap_rate: float
    """Greatest rate of a base interval; inf where the venue names none for all its markets."""
    cap_times_gap: float
    """Cap as a multiple of initial - maintenance margin rate; 0: no such cap."""
    cap_times_maintenance: float
    """Cap as a multiple of the maintenance margin rate; 0: no such cap."""
    at_oracle: int
    """1: the payment is on the oracle's (index's) value of the position; 0: on the mark's."""


@compiled
def premium_rate(index: float, impact_bid: float, impact_ask: float) -> float:
    """How far the book's impact prices lie beyond the index, as a fraction of it.

    (max(0, impact_bid - index) - max(0, index - impact_ask)) / index: zero while the index lies between
    them. Impact prices are the average prices of selling and buying a set notional. NaN where one is.
    """
    if math.isnan(impact_bid) or math.isnan(impact_ask):
        return math.nan
    return (max(0.0, impact_bid - index) - max(0.0, index - impact_ask)) / index


@compiled
def rising_weight(sample: int) -> float:
    """Weight of sample number `sample` (1 first) in a mean whose weights rise as 1, 2, 3 ...

    mean += (x - mean) * weight keeps (1 x_1 + 2 x_2 + ... + n x_n) / (1 + 2 + ... + n), by which Binance and
    Bybit average the premium over an interval. 1/sample instead keeps the plain mean (Hyperliquid, dYdX).
    """
    return 2.0 / (sample + 1.0)


@compiled
def funding_rate(mean_premium: float, interest_rate: float, clamp: float, cap: float, share: float) -> float:
    """Rate of one payment: P + clip(I - P, -clamp, clamp), clipped to ±cap, times share.

    P, I, clamp and cap are for the base interval, `share` is the part of it that one payment covers. With
    I = 0 this is Deribit's max(clamp, P) + min(-clamp, P). NaN where the premium is.
    """
    if math.isnan(mean_premium):
        return math.nan
    pull = min(max(interest_rate - mean_premium, -clamp), clamp)
    return min(max(mean_premium + pull, -cap), cap) * share


@compiled
def funding_cap(rule: FundingRule, initial_rate: float, maintenance_rate: float) -> float:
    """Greatest rate of a base interval in a market with these margin rates: the least of the rule's caps."""
    cap = rule.cap_rate
    if rule.cap_times_gap > 0.0:
        cap = min(cap, rule.cap_times_gap * (initial_rate - maintenance_rate))
    if rule.cap_times_maintenance > 0.0:
        cap = min(cap, rule.cap_times_maintenance * maintenance_rate)
    return cap


@compiled
def rate_by_rule(
    rule: FundingRule, mean_premium: float, initial_rate: float, maintenance_rate: float
) -> float:
    """Rate of one payment by a venue's rule, in a market with these margin rates. NaN where P is."""
    cap = funding_cap(rule, initial_rate, maintenance_rate)
    if rule.adds_interest != 0:
        return funding_rate(mean_premium + rule.interest_rate, 0.0, 0.0, cap, rule.share)
    return funding_rate(mean_premium, rule.interest_rate, rule.clamp, cap, rule.share)


@compiled
def funding_payment_usd(quantity: float, price: float, rate: float) -> float:
    """What the holder of a signed quantity pays, dollars; negative is received. Zero for no position.

    `price` is the mark on most venues (Binance, Bybit, OKX) and the oracle on Hyperliquid and dYdX.
    """
    return notional_usd(quantity, price) * rate if quantity != 0.0 else 0.0
