"""The insurance fund: what a forced closing pays into it, and what it pays where the account cannot.

Sources in docs/venue_rules.md.
"""

from __future__ import annotations

import math

from exchange.compiled import compiled


@compiled
def settle_close(
    quantity_closed: float, fill_price: float, bankruptcy_price: float, penalty_rate: float
) -> tuple[float, float]:
    """What the fund receives and pays for one fill of a forced closing, dollars: (to_fund, from_fund).

    `quantity_closed` is signed as the account held it. Better than the bankruptcy price by D dollars: the
    fund takes min(penalty_rate * notional, D), so that the account never pays more than stands behind the
    part closed. Worse: the fund pays the whole difference. At most one of the two is above zero. A penalty
    rate of inf takes all of D (Bybit, BitMEX: the position is settled with its owner at the bankruptcy
    price). The bankruptcy price may be below zero, mark - equity share / quantity as it comes; NaN in an
    input gives NaN twice.
    """
    better_usd = quantity_closed * (fill_price - bankruptcy_price)
    if better_usd >= 0.0:
        notional_usd = abs(quantity_closed) * fill_price
        # asked first, since inf times nothing is no number
        if penalty_rate == math.inf:
            return better_usd, 0.0
        return min(penalty_rate * notional_usd, better_usd), 0.0
    if better_usd < 0.0:
        return 0.0, -better_usd
    return math.nan, math.nan


@compiled
def affordable_share(fund_usd: float, cost_usd: float) -> float:
    """Share in [0, 1] of a close whose cost the fund can pay; 1 where it costs nothing, NaN where unknown."""
    if cost_usd <= 0.0:
        return 1.0
    return min(max(fund_usd / cost_usd, 0.0), 1.0)


@compiled
def spent(fund_usd: float, peak_usd: float, trigger_share: float) -> bool:
    """Whether the fund counts as spent: it is empty, or fell by `trigger_share` from its recent peak.

    `peak_usd` is the peak of the venue's look-back (8 hours on OKX, whose share is 0.3). A `trigger_share`
    of 1 means only when empty. A fund of NaN is not spent.
    """
    return fund_usd <= 0.0 or fund_usd <= peak_usd * (1.0 - trigger_share)
