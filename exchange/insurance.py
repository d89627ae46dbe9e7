"""The insurance fund: what a forced closing pays into it, and what it pays where the account cannot."""

from __future__ import annotations

from exchange.compiled import compiled


@compiled
def settle_close(
    quantity_closed: float, fill_price: float, bankruptcy_price: float, penalty_rate: float
) -> tuple[float, float]:
    """What the fund receives and pays for one fill of a forced closing, dollars: (to_fund, from_fund).

    `quantity_closed` is signed as the account held it. Better than the bankruptcy price by D dollars: the
    fund takes min(penalty_rate * notional, D), so that the account never pays more than it has. Worse: the
    fund pays the whole difference. At most one of the two is above zero. The bankruptcy price may be
    below zero (mark - equity share / quantity as it comes). NaN where an input is.
    """
    better_usd = quantity_closed * (fill_price - bankruptcy_price)
    if better_usd >= 0.0:
        return min(penalty_rate * abs(quantity_closed) * fill_price, better_usd), 0.0
    if better_usd < 0.0:
        return 0.0, -better_usd
    return better_usd, better_usd


@compiled
def affordable_share(fund_usd: float, cost_usd: float) -> float:
    """Share in [0, 1] of a close whose cost the fund can pay; 1 where it costs nothing."""
    if cost_usd <= 0.0:
        return 1.0
    return min(1.0, max(0.0, fund_usd) / cost_usd)


@compiled
def spent(fund_usd: float, peak_usd: float, trigger_share: float) -> bool:
    """Whether the fund counts as spent: it is empty, or fell by `trigger_share` of its recent peak.

    A `trigger_share` of 1 means only when empty.
    """
    return fund_usd <= 0.0 or fund_usd <= peak_usd * (1.0 - trigger_share)
