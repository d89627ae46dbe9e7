"""From risk to margin: the initial and maintenance rates that an account should post.

    initial = static + 3 x max(PD - 1%, 0) x (cost of closing + one hour's move)

The static schedule already pays for ordinary risk; what is added is what a likely liquidation would
cost beyond it, as a share of gross notional: the venue's liquidation fee, the slippage of closing the
position and a move of one sigma over the hour that closing may take. A rate above the schedule's is
rounded up to whole ppm, never under the schedule and never above it and 100% (s <= m <= max(s, 1)).

Where data or model failed the rate is the schedule's or the one in force, whichever is higher, and where
the cost of closing is not known it is not under the one in force: missing data earns no relief.
Maintenance is the schedule's or the one in force: it is never raised on positions that are already open,
since that is what sets off the liquidations it should prevent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.rates import ppm_up
from exchange.units import PPM

Floats = npt.NDArray[np.float64]

TARGET_PD = 0.01
"""Probability of liquidation within a day that the static schedule is taken to pay for."""

LOADING = 3.0
"""Prudence: how many times the expected cost of a liquidation is asked for."""

MARGIN_PERIOD_OF_RISK_H = 1.0
"""Hours that closing may take."""

UNKNOWN_CLOSING_COST = 0.05
"""Share of notional that closing is taken to cost where the venue publishes no depth."""


class Rates(NamedTuple):
    """Suggested rates as shares of gross notional, float64[n]."""

    initial: Floats
    maintenance: Floats


@compiled
def initial_margin_rate(
    static_rate: float,
    in_force: float,
    pd_24h: float,
    closing_cost: float,
    sigma_day: float,
    failed: bool,
) -> float:
    """Initial margin rate of one account; all arguments are fractions of gross notional, NaN unknown.

    An unknown static rate counts as 100%: nobody can say that less is enough.
    """
    static = 1.0 if math.isnan(static_rate) else static_rate
    kept = static if math.isnan(in_force) else max(static, in_force)
    if failed or math.isnan(pd_24h) or math.isnan(sigma_day):
        wanted = kept
    else:
        move = sigma_day * math.sqrt(MARGIN_PERIOD_OF_RISK_H / 24.0)
        surcharge_share = LOADING * max(pd_24h - TARGET_PD, 0.0)
        if math.isnan(closing_cost):
            wanted = max(kept, static + surcharge_share * (UNKNOWN_CLOSING_COST + move))
        else:
            wanted = static + surcharge_share * (closing_cost + move)
    if wanted <= static:
        return static  # as it is: rounded, it would look like a rise
    # The first max: a rate a hair above whole ppm is not undercut by its own rounding.
    return min(max(static, ppm_up(min(wanted, 1.0)) / PPM), max(static, 1.0))


@compiled
def _fill(
    static_initial: Floats,
    static_maintenance: Floats,
    initial_in_force: Floats,
    maintenance_in_force: Floats,
    pd_24h: Floats,
    closing_cost: Floats,
    sigma_day: Floats,
    failed: npt.NDArray[np.bool_],
    initial: Floats,
    maintenance: Floats,
) -> None:
    for row in range(len(initial)):
        initial[row] = initial_margin_rate(
            static_initial[row],
            initial_in_force[row],
            pd_24h[row],
            closing_cost[row],
            sigma_day[row],
            failed[row],
        )
        kept = static_maintenance[row]
        if not math.isnan(maintenance_in_force[row]):
            kept = max(kept, maintenance_in_force[row])
        maintenance[row] = initial[row] if math.isnan(kept) else min(kept, initial[row])


def suggest(
    static_initial: Floats,
    static_maintenance: Floats,
    initial_in_force: Floats,
    maintenance_in_force: Floats,
    pd_24h: Floats,
    closing_cost: Floats,
    sigma_day: Floats,
    failed: npt.NDArray[np.bool_],
) -> Rates:
    """Rates of many accounts, one row each; see `initial_margin_rate`. Maintenance never exceeds initial."""
    rates = Rates(np.empty(len(pd_24h)), np.empty(len(pd_24h)))
    _fill(
        static_initial,
        static_maintenance,
        initial_in_force,
        maintenance_in_force,
        pd_24h,
        closing_cost,
        sigma_day,
        failed,
        rates.initial,
        rates.maintenance,
    )
    return rates
