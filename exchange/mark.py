"""Mark prices: the venue's fair price, from inputs of which no single one can be pushed far.

Positions are valued and liquidated by the mark, not by the last trade. Sources in docs/venue_rules.md.
"""

from __future__ import annotations

import math

from exchange.compiled import compiled


@compiled
def median_of_three(a: float, b: float, c: float) -> float:
    """The middle one; of two known values their mean, of one that one, NaN where none is known."""
    if math.isnan(a):
        return _mean_of_known(b, c)
    if math.isnan(b):
        return _mean_of_known(a, c)
    if math.isnan(c):
        return 0.5 * (a + b)
    return max(min(a, b), min(max(a, b), c))


@compiled
def _mean_of_known(a: float, b: float) -> float:
    if math.isnan(a):
        return b
    if math.isnan(b):
        return a
    return 0.5 * (a + b)


@compiled
def ema_weight(elapsed_s: float, time_constant_s: float) -> float:
    """Weight in [0, 1] of the newest value in an exponential average: 1 - exp(-elapsed / time constant).

    Hyperliquid's ratio of decayed sums (numerator e^(-t/tau) + x t over denominator e^(-t/tau) + t) comes
    to this once its samples are many and evenly spaced. A time constant of 0 keeps the newest value alone.
    """
    if time_constant_s <= 0.0:
        return 1.0
    return -math.expm1(-elapsed_s / time_constant_s)


@compiled
def oracle_mark(
    oracle: float,
    basis_ema: float,
    best_bid: float,
    best_ask: float,
    last: float,
    others: float,
    book_ema: float = math.nan,
) -> float:
    """Hyperliquid's mark: median of oracle + basis_ema, the median of bid, ask and last, and other venues.

    `basis_ema` is the 150 s exponential average of mid - oracle and `others` the weighted median of other
    venues' perpetuals, dollars. Inputs that are NaN are left out; where exactly two are left, `book_ema`,
    the 30 s average of the book's median, joins them if it is known, else the mean of the two is taken.
    NaN where nothing is known.
    """
    first = oracle + basis_ema
    second = median_of_three(best_bid, best_ask, last)
    missing = int(math.isnan(first)) + int(math.isnan(second)) + int(math.isnan(others))
    if missing == 1:
        if math.isnan(first):
            first = book_ema
        elif math.isnan(second):
            second = book_ema
        else:
            others = book_ema
    return median_of_three(first, second, others)


@compiled
def index_mark(
    index: float,
    funding_rate: float,
    hours_to_funding: float,
    interval_h: float,
    mean_basis: float,
    last: float,
) -> float:
    """Binance's and Bybit's mark: median of the index with funding still to come, index + basis, and last.

    index * (1 + funding_rate * hours_to_funding / interval_h) is the first of the three; `mean_basis` is the
    moving average of mid - index in dollars (30 s on Binance, 2.5 min on Bybit). Inputs that are NaN are
    left out; NaN where none is known.
    """
    funded = index * (1.0 + funding_rate * (hours_to_funding / interval_h))
    return median_of_three(funded, index + mean_basis, last)
