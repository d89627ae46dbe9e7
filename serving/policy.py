"""From risk to margin: the initial and maintenance rates that an account should post.

The initial rate is the smallest rate L found, by a ladder of RUNGS levels, that pays for the risk of the
same portfolio once L stands behind it:

    L >= static + LOADING x max(PD_24h(L) - TARGET_PD, 0) x (cost of closing + one hour's move)

PD_24h(L) is the model's probability for the positions as they are with collateral of L times their gross
notional (`serving.ladder`), whatever stands behind them now. A surcharge on the probability as the account
stands would rise with its losses, and ask for more of whoever can give it least; what is asked here moves
with the positions and with the market, not with the account's own equity.

The static schedule already pays for ordinary risk; what is added is what a likely liquidation would cost
beyond it, as a share of gross notional: the venue's liquidation fee, the slippage of closing the position
and a move of one sigma over the hour that closing may take. No probability exceeds 1, so the levels run from
the schedule's rate to the surcharge of a liquidation that is certain, more closely at the lower end, and
the last of them always pays. Between the lowest level that pays and the one below it, the rate that pays
for the risk at the lower one pays for its own too, since more collateral is never riskier; where it is the
smaller it is taken, so that little hangs on where the levels happen to stand. A rate above the schedule's is
rounded up to whole ppm, never under the schedule and never above it and 100% (s <= m <= max(s, 1)).

Where data or model failed the rate is the schedule's or the one in force, whichever is higher, and where
the cost of closing is not known it is not under the one in force: missing data earns no relief.
Maintenance is the schedule's or the one in force: it is never raised on positions that are already open,
since that is what sets off the liquidations it should prevent.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.rates import ppm_up, surcharge
from exchange.units import PPM

Floats = npt.NDArray[np.float64]

VERSION = 2
"""Raised whenever the same probabilities and figures would give another rate."""

RUNGS = 12
"""Levels of the ladder."""

TARGET_PD = 0.1
"""Probability of liquidation within a day that the static schedule is taken to pay for."""

LOADING = 100.0
"""Prudence: how many times the expected cost of a liquidation is asked for."""

MARGIN_PERIOD_OF_RISK_H = 1.0
"""Hours that closing may take."""

UNKNOWN_CLOSING_COST = 0.05
"""Share of notional that closing is taken to cost where the venue publishes no depth."""

UNKNOWN = -1
"""In place of a rung: a level's probability is not a number, and none below it pays."""


@compiled
def cost_of_liquidation(closing_cost: float, sigma_day: float) -> float:
    """What a liquidation costs beyond the schedule, as a share of gross notional like its arguments.

    An unknown cost of closing counts as UNKNOWN_CLOSING_COST, an unknown sigma leaves it NaN.
    """
    known = UNKNOWN_CLOSING_COST if math.isnan(closing_cost) else closing_cost
    return known + sigma_day * math.sqrt(MARGIN_PERIOD_OF_RISK_H / 24.0)


@compiled
def paying_rate(static_rate: float, pd_24h: float, cost: float) -> float:
    """The rate that pays for a probability; `cost` is that of a liquidation."""
    return static_rate + surcharge(pd_24h, cost, TARGET_PD, LOADING)


@compiled
def level(static_rate: float, cost: float, rung: int) -> float:
    """Margin rate of a rung in 0...RUNGS - 1: from the schedule's to what a certain liquidation asks for."""
    share = rung / (RUNGS - 1)
    return static_rate + LOADING * (1.0 - TARGET_PD) * cost * (share * share)


@compiled
def lowest_paying(static_rate: float, cost: float, pd_24h: Floats) -> int:
    """The lowest rung that pays for the probability at its level; UNKNOWN where none is known.

    Levels are looked at from below, and those above the answer are not looked at: they may be NaN or, at
    the end of `pd_24h`, float64[RUNGS] at most, be left out.
    """
    for rung in range(RUNGS):
        if rung >= len(pd_24h):
            return UNKNOWN
        if math.isnan(pd_24h[rung]) or math.isnan(cost):
            return UNKNOWN
        if level(static_rate, cost, rung) >= paying_rate(static_rate, pd_24h[rung], cost):
            return rung
    return RUNGS - 1


@compiled
def initial_margin_rate(
    static_rate: float, in_force: float, pd_24h: Floats, closing_cost: float, sigma_day: float, failed: bool
) -> float:
    """Initial margin rate of one account; rates and costs are fractions of gross notional, NaN unknown.

    `pd_24h` holds the probability at each level, float64[RUNGS]; see `lowest_paying`. An unknown static
    rate counts as 100%: nobody can say that less is enough.
    """
    static = 1.0 if math.isnan(static_rate) else static_rate
    wanted = static if math.isnan(in_force) else max(static, in_force)
    cost = cost_of_liquidation(closing_cost, sigma_day)
    rung = UNKNOWN if failed else lowest_paying(static, cost, pd_24h)
    if rung != UNKNOWN:
        paid = level(static, cost, rung)
        if rung > 0:  # what pays for the risk at a lower level pays for its own
            paid = min(paid, paying_rate(static, pd_24h[rung - 1], cost))
        wanted = max(wanted, paid) if math.isnan(closing_cost) else paid
    if wanted <= static:
        return static  # as it is: rounded, it would look like a rise
    # The first max: a rate a hair above whole ppm is not undercut by its own rounding.
    return min(max(static, ppm_up(min(wanted, 1.0)) / PPM), max(static, 1.0))


@compiled
def maintenance_margin_rate(static_rate: float, in_force: float, initial_rate: float) -> float:
    """Maintenance margin rate beside an initial rate, which it never exceeds; NaN unknown."""
    kept = static_rate
    if not math.isnan(in_force):
        kept = max(kept, in_force)
    return initial_rate if math.isnan(kept) else min(kept, initial_rate)
