"""Margin rates: what is asked for a probability, and the one way in which they are rounded to whole ppm."""

from __future__ import annotations

import math

from exchange.compiled import compiled
from exchange.units import PPM


@compiled
def surcharge(pd: float, cost: float, target: float, loading: float) -> float:
    """What pays for a likely liquidation beyond the schedule, as a share of notional like `cost`.

    `target` is the probability that the schedule pays for already, `loading` the prudence: how many times
    the expected cost is asked for.
    """
    return loading * max(pd - target, 0.0) * cost


@compiled
def ppm_up(rate: float) -> int:
    """A rate (fraction) in whole parts per million, rounded up so that rounding never lowers a margin.

    A rate within 1e-6 ppm above a whole number counts as that number: 0.1 is 100,000 ppm although
    its double is a hair above a tenth. The rate must be finite.
    """
    return math.ceil(rate * PPM - 1e-6)
