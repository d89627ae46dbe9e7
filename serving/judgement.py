"""From what a model said to what is answered, one account a row: one compiled function for all who ask."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from features import emit as figure
from models.baselines import structural
from serving.policy import (
    UNKNOWN,
    cost_of_liquidation,
    initial_margin_rate,
    lowest_paying,
    maintenance_margin_rate,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MARK_LIFETIME_S = 3_600.0
"""A mark older than this says nothing of what an account is worth now."""

# Columns of a judgement.
PD, PD_24H, NEGATIVE = 0, 2, 3
EXPECTED_LOSS_USD, STATIC_RATE, INITIAL_RATE, MAINTENANCE_RATE = range(4, 8)
COLUMNS = 8

# Why a row is a fallback: codes, followed by one for each required feature, from the first missing one on.
OK, NO_MARK, NO_TIERS, NO_COLLATERAL, NO_VOLATILITY, STALE_MARK, NO_NUMBER, NO_FEATURE = range(8)
REASONS = (
    None, "missing_mark", "missing_tiers", "missing_collateral", "missing_volatility", "stale_mark",
    "model_gave_no_number",
)  # fmt: skip

_SEVERITY = 4  # among the graph's probabilities


@compiled
def why_fallback(features: Floats, figures: Floats, probabilities: Floats, required: Integers) -> int:
    """Why an account as it stands cannot be trusted to the model, the most telling reason first; or OK."""
    missing = -1
    for place in range(len(required)):
        if math.isnan(features[required[place]]):
            missing = place
            break
    stale = not figures[figure.MARK_AGE_S] <= MARK_LIFETIME_S
    silent = False
    for column in range(4):
        silent = silent or math.isnan(probabilities[column])
    if missing < 0 and not stale and not silent:
        return OK
    if math.isnan(figures[figure.GROSS_NOTIONAL_USD]):
        return NO_MARK
    if math.isnan(figures[figure.STATIC_INITIAL_RATE]):
        return NO_TIERS
    if math.isnan(figures[figure.COLLATERAL_USD]):
        return NO_COLLATERAL
    if math.isnan(figures[figure.BUFFER_OVER_SIGMA_DAY]):
        return NO_VOLATILITY
    if stale:
        return STALE_MARK
    return NO_FEATURE + missing if missing >= 0 else NO_NUMBER


@compiled
def judge(
    features: Floats,
    figures: Floats,
    probabilities: Floats,
    ladder: Floats,
    required: Integers,
    levels: Floats,
    mean_severity: float,
    out: Floats,
    codes: Integers,
) -> None:
    """Judge n accounts: fill float64[n, COLUMNS] and why each is a fallback.

    `probabilities` are the graph's, float64[n, 5]; `ladder` the probability of liquidation within a day at
    each level, float64[n, RUNGS]; `levels` the structural baseline's.
    """
    for row in range(len(out)):
        own = figures[row]
        code = why_fallback(features[row], own, probabilities[row], required)
        gross = own[figure.GROSS_NOTIONAL_USD]
        closing_cost = own[figure.CLOSING_COST_USD] / gross
        sigma_day = own[figure.SIGMA_DAY_USD] / gross
        static = own[figure.STATIC_INITIAL_RATE]
        if code == OK:
            cost = cost_of_liquidation(closing_cost, sigma_day)
            if lowest_paying(static, cost, ladder[row]) == UNKNOWN:
                code = NO_NUMBER
        codes[row] = code
        if code == OK:
            out[row, PD : PD + 4] = probabilities[row, :4]
            severity = probabilities[row, _SEVERITY]
        else:
            structural(own[figure.BUFFER_OVER_SIGMA_DAY], levels, out[row, PD : PD + 4])
            severity = mean_severity
        out[row, EXPECTED_LOSS_USD] = out[row, NEGATIVE] * severity * gross
        out[row, STATIC_RATE] = static
        initial = initial_margin_rate(
            static, own[figure.FIGURE_INITIAL_IN_FORCE], ladder[row], closing_cost, sigma_day, code != OK
        )
        out[row, INITIAL_RATE] = initial
        out[row, MAINTENANCE_RATE] = maintenance_margin_rate(
            own[figure.STATIC_MAINTENANCE_RATE], own[figure.FIGURE_MAINTENANCE_IN_FORCE], initial
        )


@compiled
def still_searched(
    features: Floats,
    figures: Floats,
    probabilities: Floats,
    ladder: Floats,
    known: int,
    required: Integers,
    rows: Integers,
) -> int:
    """Put first into `rows` those of them whose levels must be looked at beyond the first `known`; how many.

    Left out are fallbacks and rows that a known level pays for.
    """
    kept = 0
    for row in rows:
        own = figures[row]
        if why_fallback(features[row], own, probabilities[row], required) != OK:
            continue
        gross = own[figure.GROSS_NOTIONAL_USD]
        cost = cost_of_liquidation(own[figure.CLOSING_COST_USD] / gross, own[figure.SIGMA_DAY_USD] / gross)
        if math.isnan(cost):
            continue
        if known == 0 or lowest_paying(own[figure.STATIC_INITIAL_RATE], cost, ladder[row]) == UNKNOWN:
            rows[kept] = row
            kept += 1
    return kept
