"""Arithmetic that every reader of an account shares: ratios, distances, and sigma of a sum.

NaN means not known and stays so; a ratio to nothing is at its bound.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.account import liquidation_price
from exchange.compiled import inlined, lean
from exchange.units import HOUR_US

CORRELATION = 0.75
"""Constant correlation between any two underlyings: what matters is that it is high."""

BOOK_LIFETIME_US = HOUR_US
"""Depth older than this is not known any more."""

FAR = 1_000.0
"""Bound of ratios: leverage without equity, distances without a liquidation price."""


@lean
def over(value: float, scale: float) -> float:
    """value / scale kept within +-FAR; a scale of nothing puts it at the bound. NaN stays NaN."""
    if math.isnan(value) or math.isnan(scale):
        return math.nan
    if scale <= 0.0:
        return FAR if value > 0.0 else (-FAR if value < 0.0 else 0.0)
    return min(max(value / scale, -FAR), FAR)


@lean
def larger(a: float, b: float) -> float:
    """The larger; NaN if either is."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


@lean
def worse(a: float, b: float) -> float:
    """The smaller; NaN if either is, since an unknown pool may be the worst."""
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


@lean
def pool_sigma(own_squares: float, total: float) -> float:
    """Sigma of a sum of exposures with one correlation, from the sum of squares and the plain sum."""
    return math.sqrt(max((1.0 - CORRELATION) * own_squares + CORRELATION * total * total, 0.0))


@inlined
def distance(market: np.void, quantity: float, buffer: float) -> float:
    """Adverse move of one mark alone, as a fraction, that uses up the buffer: 0 when it is used up.

    FAR where no price of that market can do it; NaN where the buffer is unknown.
    """
    if math.isnan(buffer) or math.isnan(market.mark):
        return math.nan
    if buffer <= 0.0:
        return 0.0
    price = liquidation_price(
        quantity,
        market.mark,
        buffer,
        market.tier_floor,
        market.maintenance_rate,
        market.maintenance_deduction,
    )
    move = (market.mark - price) / market.mark
    if quantity < 0.0:
        move = -move
    return min(move, FAR) if move > 0.0 else FAR


@lean
def book_known(market: np.void, now_us: int) -> bool:
    """Whether a book is there, fresh and not crossed (a crossed one has no mid to measure from)."""
    known = market.book_time >= 0 and now_us - market.book_time <= BOOK_LIFETIME_US
    return known and not market.best_bid > market.best_ask


@lean
def effective_buffer(buffer: float, survived: float) -> float:
    """The buffer, credited with what the account has already held out since its newest row.

    Who stood below maintenance and was not closed (dust, a position that nobody can close, a view that is
    wrong) is not what the formula takes it for: twice the smallest buffer survived is given back.
    """
    return buffer - 2.0 * min(0.0, survived)
