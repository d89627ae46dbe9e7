"""A way from one price to another within bounds: how a long bar may have gone, minute by minute."""

from __future__ import annotations

import math

import numpy as np

from exchange.compiled import compiled
from exchange.simulation.chance import normal, substream, uniform
from exchange.simulation.paths import Floats

STEPS = 4
"""Points that a bridge has in a minute."""
TOGETHER = 0.58
"""Correlation of what markets do within the same bar, as measured on one-minute klines of five smaller
coins within spans of 5 and 15 minutes (0.47-0.68 by pair)."""
SLACK = 1e-9
"""In log price: what is so near to a bound is taken to be at it."""


@compiled
def bridge(
    first: int,
    last: int,
    start: int,
    price: float,
    close: float,
    low: float,
    high: float,
    sigma: float,
    key: np.uint64,
    common: np.uint64,
    rows: Floats,
) -> None:
    """Fill the minutes from `first` to before `last` on the way from `price` to `close`.

    The way is a Brownian bridge in log price that stays between `low` and `high`, which must include both
    ends, and meets them; 0 and infinity are no bounds. Its volatility is that of the range (Parkinson 1980:
    E range^2 = 4 ln 2 sigma^2 T), or `sigma` per root of a minute where a bound is lacking. Minutes are
    counted since 1970; row 0 of `rows`, float64[4 or more, minutes], takes the opening, then high, low and
    close, from column `first - start` on. Draws are named by the minute and `key`, or
    `common`, which makes markets move together.
    """
    minutes = last - first
    points = minutes * STEPS
    a, b = math.log(price), math.log(close)
    has_low, has_high = low > 0.0, high < math.inf
    bottom = math.log(low) if has_low else -math.inf
    top = math.log(high) if has_high else math.inf
    if has_low and has_high:
        sigma = (top - bottom) / math.sqrt(4.0 * math.log(2.0) * minutes)
    step = sigma / math.sqrt(STEPS)

    # a walk tied to both ends
    path = np.empty(points + 1)
    path[0] = 0.0
    own = substream(key, np.uint64(1))
    for j in range(points):
        counter = np.uint64(first * STEPS + j)
        noise = math.sqrt(TOGETHER) * normal(common, counter) + math.sqrt(1.0 - TOGETHER) * normal(
            own, counter
        )
        path[j + 1] = path[j] + step * noise
    drift = b - a - path[points]
    for j in range(points + 1):
        path[j] += a + drift * (j / points)

    # tied to the bounds as well, where the walk itself came nearest to them
    highest = lowest = 0
    if has_high and top > max(a, b) + SLACK:
        highest = 1
        for j in range(1, points):
            if path[j] > path[highest]:
                highest = j
    if has_low and bottom < min(a, b) - SLACK:
        lowest = 2 if highest == 1 else 1
        for j in range(1, points):
            if path[j] < path[lowest] and j != highest:
                lowest = j
    one, other = min(highest, lowest), max(highest, lowest)
    left, error = 0, 0.0
    for right in (one, other, points):
        if right <= left:
            continue
        wanted = b if right == points else top if right == highest else bottom
        next_error = wanted - path[right]
        for j in range(left + 1, right + 1):
            path[j] += error + (next_error - error) * ((j - left) / (right - left))
        left, error = right, next_error
    for j in range(points + 1):
        path[j] = _folded(path[j], bottom, top)

    # prices, exact where they are known
    prices = np.empty(points + 1)
    for j in range(points + 1):
        prices[j] = min(max(math.exp(path[j]), low), high)
    if highest > 0:
        prices[highest] = high
    if lowest > 0:
        prices[lowest] = low
    prices[0] = price
    prices[points] = close

    # between two points a path goes farther than either: the largest and the smallest of a short bridge
    above, below = substream(key, np.uint64(2)), substream(key, np.uint64(3))
    for k in range(minutes):
        row = first - start + k
        most = least = prices[k * STEPS]
        for j in range(k * STEPS, (k + 1) * STEPS):
            u, v = path[j], path[j + 1]
            counter = np.uint64(first * STEPS + j)
            rise = math.sqrt((u - v) ** 2 - 2.0 * step * step * math.log(uniform(above, counter)))
            fall = math.sqrt((u - v) ** 2 - 2.0 * step * step * math.log(uniform(below, counter)))
            most = max(most, prices[j + 1], min(math.exp(0.5 * (u + v + rise)), high))
            least = min(least, prices[j + 1], max(math.exp(0.5 * (u + v - fall)), low))
        rows[0, row] = prices[k * STEPS]
        rows[1, row] = most
        rows[2, row] = least
        rows[3, row] = prices[(k + 1) * STEPS]


@compiled
def _folded(value: float, bottom: float, top: float) -> float:
    """A value reflected at the bounds until it lies within them."""
    for _ in range(8):
        if value > top:
            value = 2.0 * top - value
        elif value < bottom:
            value = 2.0 * bottom - value
        else:
            return value
    return min(max(value, bottom), top)
