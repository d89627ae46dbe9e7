"""From risk to margin: the initial rate that pays for an account's risk, and maintenance beside it.

The initial rate is the smallest rate L found, by a ladder of RUNGS levels, that pays for the risk of the
same portfolio once L stands behind it:

    L >= static + min(most x static,
                      loading x max(PD_24h(L) - target, 0) x (cost of closing + one hour's move))

PD_24h(L) is the model's probability for the positions as they are with collateral of L times their gross
notional (`serving.ladder`), whatever stands behind them now. A surcharge on the probability as the account
stands would rise with its losses, and ask for more of whoever can give it least; what is asked here moves
with the positions and with the market, not with the account's own equity.

The static schedule already pays for ordinary risk; what is added is what a likely liquidation would cost
beyond it, as a share of gross notional: the venue's liquidation fee, the slippage of closing the position
and a move of one sigma over the hour that closing may take. The loading is high, so that in effect margin
rises until risk comes down to its target; and what is added is at most the schedule's own margin, so that
from calm to turmoil the margin of a portfolio at most doubles. Target and loading were chosen in closed loop,
in worlds of their own (docs/margin.md). The levels run from the schedule's rate to the most that is asked
for, more closely at the lower end, and the last of them pays, unless more is asked for than LOADING beyond
less than TARGET_PD: then it is what the risk at the last level takes. Between the lowest level that pays and
the one below it, the rate that pays for the risk at the lower one pays for its own too, since more collateral
is never riskier; where it is the smaller it is taken, so that little hangs on where the levels happen to
stand.

What becomes of that rate beside the other parts of a margin and the one in force stands in `serving.parts`.
Maintenance is the schedule's or the one in force: it is never raised on positions that are already open,
since that is what sets off the liquidations it should prevent.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.rates import surcharge

Floats = npt.NDArray[np.float64]

VERSION = 3
"""Raised whenever the same probabilities and figures would give another rate."""

RUNGS = 12
"""Levels of the ladder."""

TARGET_PD = 0.1
"""Probability of liquidation within a day that the static schedule is taken to pay for."""

MOST = 1.0
"""What is added is at most so many times the schedule's margin."""

LOADING = 100.0
"""Prudence: how many times the expected cost of a liquidation is asked for."""

MARGIN_PERIOD_OF_RISK_H = 1.0
"""Hours that closing may take."""

UNKNOWN_CLOSING_COST = 0.05
"""Share of notional that closing is taken to cost where the venue publishes no depth."""

UNKNOWN = -1
"""In place of a rung: a level's probability is not a number, and none below it pays."""


@compiled
def move(sigma_day: float) -> float:
    """Standard deviation of a price move while a position is closed, from that of a day."""
    return sigma_day * math.sqrt(MARGIN_PERIOD_OF_RISK_H / 24.0)


@compiled
def closing(closing_cost: float) -> float:
    """Cost of closing as a share of notional; an unknown one counts as UNKNOWN_CLOSING_COST."""
    return UNKNOWN_CLOSING_COST if math.isnan(closing_cost) else closing_cost


@compiled
def cost_of_liquidation(closing_cost: float, sigma_day: float) -> float:
    """What a liquidation costs beyond the schedule, as a share of gross notional like its arguments.

    An unknown cost of closing counts as UNKNOWN_CLOSING_COST, an unknown sigma leaves it NaN.
    """
    return closing(closing_cost) + move(sigma_day)


@compiled
def level(static_rate: float, cost: float, rung: int) -> float:
    """Margin rate of a rung in 0...RUNGS - 1: from the schedule's to the most that is asked for."""
    share = rung / (RUNGS - 1)
    most = LOADING * (1.0 - TARGET_PD) * cost
    most = min(most, MOST * static_rate)  # in this order, so that an unknown cost stays one
    return static_rate + most * (share * share)


@compiled
def asked_rate(static_rate: float, cost: float, pd_24h: float, target: float, loading: float) -> float:
    """What a probability of liquidation asks for; rates and cost are shares of gross notional."""
    return static_rate + min(surcharge(pd_24h, cost, target, loading), MOST * static_rate)


@compiled
def lowest_paying(static_rate: float, cost: float, pd_24h: Floats, target: float, loading: float) -> int:
    """The lowest rung that pays for the probability at its level; UNKNOWN where none is known.

    The last one where none pays. Levels are looked at from below, and those above the answer are not looked
    at: they may be NaN or, at the end of `pd_24h`, float64[RUNGS] at most, be left out.
    """
    for rung in range(RUNGS):
        if rung >= len(pd_24h):
            return UNKNOWN
        if math.isnan(pd_24h[rung]) or math.isnan(cost):
            return UNKNOWN
        if level(static_rate, cost, rung) >= asked_rate(static_rate, cost, pd_24h[rung], target, loading):
            return rung
    return RUNGS - 1


@compiled
def paying_rate(static_rate: float, cost: float, pd_24h: Floats, target: float, loading: float) -> float:
    """The lowest rate that pays for the risk once it is posted, not rounded; NaN where none is known.

    Rates and `cost` (that of a liquidation) are shares of gross notional; `pd_24h` holds the probability at
    each level, float64[RUNGS], see `lowest_paying`.
    """
    rung = lowest_paying(static_rate, cost, pd_24h, target, loading)
    if rung == UNKNOWN:
        return math.nan
    paid = level(static_rate, cost, rung)
    if rung == RUNGS - 1:  # it may not pay for itself
        paid = max(paid, asked_rate(static_rate, cost, pd_24h[rung], target, loading))
    if rung > 0:  # what pays for the risk at a lower level pays for its own
        paid = min(paid, asked_rate(static_rate, cost, pd_24h[rung - 1], target, loading))
    return paid


@compiled
def maintenance_margin_rate(static_rate: float, in_force: float, initial_rate: float) -> float:
    """Maintenance margin rate beside an initial rate, which it never exceeds; NaN unknown."""
    kept = static_rate
    if not math.isnan(in_force):
        kept = max(kept, in_force)
    return initial_rate if math.isnan(kept) else min(kept, initial_rate)
