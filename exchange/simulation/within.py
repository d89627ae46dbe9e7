"""How a price moves within a minute of which only opening, high, low and close are known.

A Brownian path is bent through the two extremes at whole seconds; any second of it can be asked for alone.
"""

from __future__ import annotations

import numpy as np

from exchange.compiled import compiled
from exchange.simulation.chance import GOLDEN, S12, mix

SECONDS = 60
SECOND_SIGMA = 0.091
"""Standard deviation of a second's move over the minute's range: sqrt(0.5 / 60), as for Brownian paths."""
LENGTHS = np.arange(SECONDS + 1.0)
MIDDLE_SHARE = np.floor(LENGTHS / 2.0) / np.maximum(LENGTHS, 1.0)
"""Where the whole second in the middle of a stretch lies, by the stretch's length in seconds."""
MIDDLE_NOISE = 0.5 * np.sqrt(12.0 * LENGTHS) * SECOND_SIGMA
"""Spread of the price there, given both ends, over the minute's range: times uniform noise of width one."""
SHARE_BITS = np.uint64(0x1FFFFF)
S21, S42 = np.uint64(21), np.uint64(42)


@compiled
def _share(word: np.uint64) -> float:
    """Noise of a leg's duration, mean one, from 21 bits: durations then scatter as on Brownian paths."""
    return 0.1 + 1.8 * float(np.int64(word & SHARE_BITS)) * 2.0**-21


@compiled
def high_comes_first(body_share: float, odds: float) -> bool:
    """Whether the high comes before the low, given (close - opening) / (high - low) and uniform odds.

    The chance is near 1 / (1 + exp(6 share)), as measured on Brownian paths: 0.29 at 0.15, 0.055 at a half.
    """
    z = 3.0 * body_share
    return odds < 0.5 - 0.5 * z * (27.0 + z * z) / (27.0 + 9.0 * z * z)


@compiled
def within_minute(
    opening: float, high: float, low: float, close: float, second: int, key: np.uint64
) -> float:
    """Price at the end of `second` (1 to 60) of a minute; the same arguments give the same price.

    `key` names the minute and market, so that two of equal prices need not move alike. Needs low <= opening,
    close <= high. Over the 60 seconds the path stays within low and high, meets both (opposite in time where
    the close makes that likelier) and ends at the close; durations of the three legs go with their lengths,
    and between them it is a bridge, folded back at the extremes.
    """
    reach = high - low
    if second >= SECONDS or not reach > 0.0:
        return close
    if second <= 0:
        return opening
    stirred = mix(np.uint64(key) + GOLDEN)
    odds = float(np.int64(stirred >> S12)) * 2.0**-52
    early, late = (high, low) if high_comes_first((close - opening) / reach, odds) else (low, high)

    word = mix(stirred)
    first = abs(opening - early) * _share(word)
    middle = reach * _share(word >> S21)
    last = abs(close - late) * _share(word >> S42)
    whole = first + middle + last
    early_at = min(max(int(60.0 * first / whole + 0.5), 1), 58)
    late_at = min(max(int(60.0 * (first + middle) / whole + 0.5), early_at + 1), 59 if last > 0.0 else 60)

    if second < early_at:
        left, right, left_price, right_price = 0, early_at, opening, early
    elif second < late_at:
        left, right, left_price, right_price = early_at, late_at, early, late
    else:
        left, right, left_price, right_price = late_at, SECONDS, late, close

    # halve the leg until the second is an end: each second's noise is its own, whatever was asked before
    while left != second:
        length = right - left
        middle_at = left + (length >> 1)
        noise = float(np.int64(mix(stirred + np.uint64(middle_at) * GOLDEN) >> S12)) * 2.0**-52 - 0.5
        price = left_price + (right_price - left_price) * MIDDLE_SHARE[length]
        price += reach * MIDDLE_NOISE[length] * noise
        price = high - abs(high - price)
        price = min(low + abs(price - low), high)
        if second < middle_at:
            right, right_price = middle_at, price
        else:
            left, left_price = middle_at, price
    return left_price
