"""Margin rates as whole parts per million, and the one way in which they are rounded."""

from __future__ import annotations

import math

from exchange.compiled import compiled
from exchange.units import PPM


@compiled
def ppm_up(rate: float) -> int:
    """A rate (fraction) in whole parts per million, rounded up so that rounding never lowers a margin.

    A rate within 1e-6 ppm above a whole number counts as that number: 0.1 is 100,000 ppm although
    its double is a hair above a tenth. The rate must be finite.
    """
    return math.ceil(rate * PPM - 1e-6)
