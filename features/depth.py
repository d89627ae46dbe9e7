"""What a book of cumulative depth says: depth within a distance, and the cost of walking it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import inlined

MAX_LEVELS = 16
"""Distances kept for a market; a deeper book keeps the nearest."""


@inlined
def depth_within_usd(
    bps: float, distance_bps: npt.NDArray[np.float64], depth_usd: npt.NDArray[np.float64], levels: int
) -> float:
    """Notional resting within `bps` of the mid, linear between the given distances.

    Nothing is known beyond the last distance, so more than that depth is never claimed. NaN without levels.
    """
    if levels == 0:
        return math.nan
    previous_distance = 0.0
    previous_depth = 0.0
    for k in range(levels):
        if bps <= distance_bps[k]:
            width = distance_bps[k] - previous_distance
            share = (bps - previous_distance) / width if width > 0.0 else 1.0
            return previous_depth + share * (depth_usd[k] - previous_depth)
        previous_distance = distance_bps[k]
        previous_depth = depth_usd[k]
    return previous_depth


@inlined
def slippage_bps(
    notional_usd: float,
    distance_bps: npt.NDArray[np.float64],
    depth_usd: npt.NDArray[np.float64],
    levels: int,
) -> float:
    """Average distance from the mid at which `notional_usd` >= 0 fills, walking the book.

    Depth is uniform between two distances. Beyond the last one the book is taken to go on with the average
    density so far, so slippage keeps rising with size. At most 10,000 bps (a sale cannot fetch less than
    nothing), which is also what a side costs that is known to be empty. NaN without levels.
    """
    if levels == 0 or math.isnan(notional_usd):
        return math.nan
    if notional_usd <= 0.0:
        return 0.0
    if depth_usd[levels - 1] <= 0.0:
        return 10_000.0
    left = notional_usd
    cost = 0.0
    previous_distance = 0.0
    previous_depth = 0.0
    for k in range(levels):
        available = depth_usd[k] - previous_depth
        width = distance_bps[k] - previous_distance
        if available > 0.0:
            taken = min(left, available)
            cost += taken * (previous_distance + 0.5 * width * taken / available)
            left -= taken
            if left <= 0.0:
                return min(cost / notional_usd, 10_000.0)
        previous_distance = distance_bps[k]
        previous_depth = depth_usd[k]
    density = previous_depth / previous_distance
    cost += left * (previous_distance + 0.5 * left / density)
    return min(cost / notional_usd, 10_000.0)
