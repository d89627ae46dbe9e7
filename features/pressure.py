"""Liquidation pressure: what would be closed by force if a market moved, over the book that must take it.

A sweep writes down for every market and side how much notional is closed by force within each distance
of the mark at that time (`note`, then `finish`). In between the mark moves while liquidation prices stay,
so a reader shifts the curve by the move since. Side 0 is closed when the mark falls (longs), side 1 when
it rises. Distances are logs of price ratios: those of a long and a short are then mirror images.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.compiled import lean
from exchange.units import BPS
from features.depth import depth_within_usd
from features.state import PRESSURE_BINS

STEP = 0.005
"""Width of a bin in log price: half a percent, so that the curve reaches 24%."""

REACH = PRESSURE_BINS * STEP
REACHED = (-math.expm1(-1.0001 * REACH), math.expm1(1.0001 * REACH))
"""Adverse moves that are beyond the curve, by side."""


@lean
def side_of(quantity: float) -> int:
    """The side of a market on which a position is closed by force."""
    return 0 if quantity > 0.0 else 1


@lean
def log_distance(fraction: float, side: int) -> float:
    """Log distance of an adverse move given as a fraction of the mark; inf where no price does it."""
    if math.isnan(fraction):
        return math.nan
    if side == 0:
        return -math.log1p(-fraction) if fraction < 1.0 else math.inf
    return math.log1p(fraction)


@lean
def is_beyond(market: np.void, size_usd: float, buffer_usd: float) -> bool:
    """Whether a buffer is so large that no move within the curve can use it up; False where that is open.

    A move takes from the buffer at most its share of the notional, and of a short the margin on as much. A
    tenth is left for rounding.
    """
    rate = 0.0
    for tier in range(market.tier_count):
        rate = max(rate, market.maintenance_rate[tier])
    return buffer_usd > 1.1 * REACHED[1] * (1.0 + rate) * size_usd


@lean
def note(market: np.void, side: int, fraction: float, notional_usd: float) -> None:
    """Count a position that is closed by force by an adverse move of that fraction of the swept mark.

    What is due already goes into column 0, what lies in the k-th step into column k, the rest nowhere.
    """
    if fraction >= REACHED[side]:  # as below, without a logarithm for the many that are far away
        return
    distance = log_distance(fraction, side)
    if distance < REACH:
        column = 0 if distance <= 0.0 else int(distance / STEP) + 1
        market.forced[side, min(column, PRESSURE_BINS)] += notional_usd


@lean
def finish(market: np.void) -> None:
    """Turn counts into cumulative curves, and find where forced closing first outweighs the book.

    The newest book is taken, however old: whether it still counts is for the reader to say.
    """
    market.swept_mark = market.mark
    levels = market.level_count
    for side in range(2):
        depth = market.bid_depth if side == 0 else market.ask_depth
        market.ignition[side] = REACH if levels > 0 else math.nan
        total = market.forced[side, 0]
        for k in range(1, PRESSURE_BINS + 1):
            total += market.forced[side, k]
            market.forced[side, k] = total
        if levels == 0:
            continue
        for k in range(1, PRESSURE_BINS + 1):
            within = depth_within_usd(k * STEP / BPS, market.distance, depth, levels)
            if market.forced[side, k] > 0.0 and market.forced[side, k] >= within:
                market.ignition[side] = k * STEP
                break


@lean
def shift(market: np.void, side: int) -> float:
    """How far the mark has moved towards the liquidation prices of a side since the sweep, in logs."""
    moved = math.log(market.swept_mark / market.mark)
    return moved if side == 0 else -moved


@lean
def forced_within(market: np.void, side: int, distance: float, moved: float) -> float:
    """Notional closed by force on a side within a log distance from the mark as it is now.

    Linear inside a step. `moved` is `shift`. NaN before the first sweep.
    """
    place = (distance + moved) / STEP
    if math.isnan(place):
        return math.nan
    if place <= 0.0:
        return market.forced[side, 0]
    if place >= PRESSURE_BINS:
        return market.forced[side, PRESSURE_BINS]
    low = int(place)
    below = market.forced[side, low]
    return below + (place - low) * (market.forced[side, low + 1] - below)


@lean
def ahead_of(market: np.void, side: int, distance: float, moved: float) -> float:
    """Notional on the same side that is closed by force before a price at that distance is reached.

    Whatever shares its step counts neither way: there the position would meet itself.
    """
    place = (distance + moved) / STEP
    if math.isnan(place):
        return math.nan
    if place <= 0.0:
        return 0.0
    return market.forced[side, int(min(place, float(PRESSURE_BINS)))]  # infinite where no price closes it
