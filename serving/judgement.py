"""From what a model said to what is answered, one account a row: one compiled function for all who ask."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import inlined, lean
from exchange.units import SECOND_US
from features import emit as figure
from features.arithmetic import BOOK_LIFETIME_US
from models.baselines import structural
from serving.parts import BY_LOADING, BY_TARGET, PARTS, suggested
from serving.policy import UNKNOWN, cost_of_liquidation, lowest_paying, maintenance_margin_rate

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MARK_LIFETIME_S = 3_600.0
"""A mark older than this says nothing of what an account is worth now."""

PRICE_LIFETIME_S = 3_600.0
"""Nor does the price of an asset that is held, unless it is a dollar that has none.

Of funding no age is too old: a rate that is missed moves equity once, by some basis points of notional.
"""

BOOK_LIFETIME_S = BOOK_LIFETIME_US / SECOND_US
"""A book older than this by the newest event counts as missing in the features already; here it is one that
was known then and is older than this by the clock, while events have stopped."""

# Columns of a judgement; the first four are probabilities, WHY is a code, the last ones parts in ppm.
PD, PD_24H, NEGATIVE = 0, 2, 3
EXPECTED_LOSS_USD, STATIC_RATE, INITIAL_RATE, MAINTENANCE_RATE, WHY = range(4, 9)
FIRST_PART = 9
COLUMNS = FIRST_PART + PARTS

# Why a row is a fallback: codes, followed by one for each required feature, from the first missing one on.
(
    OK, NO_MARK, NO_TIERS, NO_COLLATERAL, NO_VOLATILITY, STALE_MARK, STALE_PRICE, STALE_BOOK, NO_NUMBER,
    NO_FEATURE,
) = range(10)  # fmt: skip
REASONS = (
    None, "missing_mark", "missing_tiers", "missing_collateral", "missing_volatility", "stale_mark",
    "stale_asset_price", "stale_book", "model_gave_no_number",
)  # fmt: skip

_SEVERITY = 4  # among the graph's probabilities


class Constants(NamedTuple):
    """What a bundle says of its fallbacks, and the terms of the margin."""

    required: Integers  # columns without which a row is one
    structural: Floats  # (4,) levels of the baseline that answers then
    severity: Floats  # (1,) and the severity, as where the model has none: the most it says of anybody
    terms: Floats  # (TERMS,) of the margin; not the bundle's but the venue's


@lean
def why_fallback(features: Floats, figures: Floats, probabilities: Floats, required: Integers) -> int:
    """Why an account as it stands cannot be trusted to the model, the most telling reason first; or OK."""
    missing = -1
    for place in range(len(required)):
        if math.isnan(features[required[place]]):
            missing = place
            break
    stale = not figures[figure.MARK_AGE_S] <= MARK_LIFETIME_S
    stale_price = not figures[figure.PRICE_AGE_S] <= PRICE_LIFETIME_S
    known = not math.isnan(figures[figure.CLOSING_COST_USD])
    stale_book = known and figures[figure.BOOK_AGE_S] > BOOK_LIFETIME_S
    silent = False
    for column in range(4):
        silent = silent or math.isnan(probabilities[column])
    if missing < 0 and not stale and not stale_price and not stale_book and not silent:
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
    if stale_price:
        return STALE_PRICE
    if stale_book:
        return STALE_BOOK
    return NO_FEATURE + missing if missing >= 0 else NO_NUMBER


@inlined
def _judge(
    features: Floats,
    figures: Floats,
    probabilities: Floats,
    ladder: Floats,
    constants: Constants,
    out: Floats,
) -> None:
    """Judge one account: fill float64[COLUMNS]."""
    code = why_fallback(features, figures, probabilities, constants.required)
    gross = figures[figure.GROSS_NOTIONAL_USD]
    closing_cost = figures[figure.CLOSING_COST_USD] / gross
    sigma_day = figures[figure.SIGMA_DAY_USD] / gross
    static = figures[figure.STATIC_INITIAL_RATE]
    if code == OK:
        cost = cost_of_liquidation(closing_cost, sigma_day)
        terms = constants.terms
        if lowest_paying(static, cost, ladder, terms[BY_TARGET], terms[BY_LOADING]) == UNKNOWN:
            code = NO_NUMBER
    out[WHY] = code
    if code == OK:
        for column in range(4):
            out[PD + column] = probabilities[column]
        severity = probabilities[_SEVERITY]
        if math.isnan(severity):  # nobody becomes cheaper because what closing would meet is not known
            severity = constants.severity[0]
    else:
        structural(figures[figure.BUFFER_OVER_SIGMA_DAY], constants.structural, out)
        severity = constants.severity[0]
    out[EXPECTED_LOSS_USD] = out[NEGATIVE] * severity * gross
    out[STATIC_RATE] = static
    initial = suggested(
        static,
        figures[figure.FIGURE_INITIAL_IN_FORCE],
        ladder,
        closing_cost,
        sigma_day,
        figures[figure.SIGMA_SLOW_DAY_USD] / gross,
        code != OK,
        figures[figure.ENTERS] != 0.0,
        constants.terms,
        out[FIRST_PART:],
    )
    out[INITIAL_RATE] = initial
    out[MAINTENANCE_RATE] = maintenance_margin_rate(
        figures[figure.STATIC_MAINTENANCE_RATE], figures[figure.FIGURE_MAINTENANCE_IN_FORCE], initial
    )


@lean
def judge(
    features: Floats,
    figures: Floats,
    probabilities: Floats,
    ladder: Floats,
    constants: Constants,
    out: Floats,
) -> None:
    """Judge n accounts: fill float64[n, COLUMNS].

    `probabilities` are the graph's, float64[n, 5]; `ladder` the probability of liquidation within a day at
    each level, float64[n, RUNGS].
    """
    for row in range(len(out)):
        _judge(features[row], figures[row], probabilities[row], ladder[row], constants, out[row])


@lean
def judge_ladders(
    features: Floats,
    figures: Floats,
    probabilities: Floats,
    required: Integers,
    levels: Floats,
    severity: Floats,
    terms: Floats,
    out: Floats,
) -> None:
    """`judge` from the rows of `serving.ladder.Ladders` and the graph's probabilities of each of them.

    The constants come one by one: numba takes longer to tell what a named tuple is than to judge an account.
    """
    constants = Constants(required, levels, severity, terms)
    rows = features.shape[1]
    for account in range(len(out)):
        first = account * rows
        ladder = probabilities[first + 1 : first + rows, PD_24H]
        _judge(features[account, 0], figures[account], probabilities[first], ladder, constants, out[account])


@lean
def still_searched(
    features: Floats,
    figures: Floats,
    probabilities: Floats,
    ladder: Floats,
    known: int,
    constants: Constants,
    rows: Integers,
) -> int:
    """Put first into `rows` those of them whose levels must be looked at beyond the first `known`; how many.

    Left out are fallbacks and rows that a known level pays for.
    """
    target, loading = constants.terms[BY_TARGET], constants.terms[BY_LOADING]
    kept = 0
    for row in rows:
        own = figures[row]
        if why_fallback(features[row], own, probabilities[row], constants.required) != OK:
            continue
        gross = own[figure.GROSS_NOTIONAL_USD]
        cost = cost_of_liquidation(own[figure.CLOSING_COST_USD] / gross, own[figure.SIGMA_DAY_USD] / gross)
        if math.isnan(cost):
            continue
        static = own[figure.STATIC_INITIAL_RATE]
        if known == 0 or lowest_paying(static, cost, ladder[row], target, loading) == UNKNOWN:
            rows[kept] = row
            kept += 1
    return kept
