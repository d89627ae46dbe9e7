"""Units of time, money and rates, and the one way in which rates are rounded."""

from __future__ import annotations

import math

from exchange.compiled import compiled

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
HOUR_S = 3_600.0
DAY_S = 86_400.0
YEAR_S = 365.0 * DAY_S
"""Perpetuals trade every day of the year: annual volatilities use 365 days."""

BPS = 1e-4
PPM = 1_000_000


@compiled
def ppm_up(rate: float) -> int:
    """A rate (fraction) in whole parts per million, rounded up so that rounding never lowers a margin.

    A rate within 1e-6 ppm above a whole number counts as that number: 0.1 is 100,000 ppm although
    its double is a hair above a tenth. The rate must be finite.
    """
    return math.ceil(rate * PPM - 1e-6)
