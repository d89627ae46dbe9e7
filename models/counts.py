"""Counts of defaults against expected ones: how often inside a Poisson band, and the worst day.

A band is what independent accounts would give. Accounts share a market, so even perfect probabilities
leave it on days of panic; how often, and by how much, is what is measured here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.units import DAY_US
from models import metrics as mt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def poisson_band(expected: npt.ArrayLike, level: float = mt.LEVEL) -> tuple[F64, F64]:
    """Lowest and highest count between the tails of a Poisson variable of the given mean; NaN for NaN."""
    mean = np.atleast_1d(np.maximum(np.asarray(expected, np.float64), 0.0))
    bounds = np.full((2, len(mean)), np.nan)
    tail = (1 - level) / 2
    _quantiles(mean, tail, bounds[0])
    _quantiles(mean, 1 - tail, bounds[1])
    low, high = bounds.reshape(2, *np.shape(expected))
    return low, high


@compiled
def _quantiles(mean: F64, share: float, out: F64) -> None:
    """The smallest count that a Poisson variable of each mean stays within with probability `share`."""
    for row in range(len(mean)):
        if np.isnan(mean[row]):
            continue
        count, log_chance, reached = 0, -mean[row], math.exp(-mean[row])
        while reached < share and count < mean[row] + 100.0 * math.sqrt(mean[row] + 1.0):
            count += 1
            log_chance += math.log(mean[row] / count)
            reached += math.exp(log_chance)
        out[row] = count


class Counts(NamedTuple):
    """Counts at each decision time, in time order: accounts that default within the horizon."""

    time_us: I64
    expected: F64
    observed: F64


def counts(time_us: I64, happened: Flags, probability: F64) -> Counts:
    """Expected and observed count of every decision time."""
    times, of_time = np.unique(np.asarray(time_us, np.int64), return_inverse=True)
    return Counts(
        times,
        np.asarray(np.bincount(of_time, probability, len(times)), np.float64),
        np.asarray(np.bincount(of_time, happened, len(times)), np.float64),
    )


class Days(NamedTuple):
    """Means over the decision times of each UTC day that has any."""

    day: I64
    expected: F64
    observed: F64


def daily(found: Counts) -> Days:
    """Counts per decision time, averaged by day: decision times of a day are near-copies of each other."""
    day, of_time = np.unique(found.time_us // DAY_US, return_inverse=True)
    times = np.bincount(of_time, minlength=len(day))
    return Days(
        day,
        np.bincount(of_time, found.expected, len(day)) / times,
        np.bincount(of_time, found.observed, len(day)) / times,
    )


class InBand(NamedTuple):
    """Shares of decision times; more than expected is `above`, fewer `below`."""

    within: float
    above: float
    below: float


def in_band(found: Counts, level: float = mt.LEVEL) -> InBand:
    """How often the count that came lies in the band of the expected one; NaN without decision times."""
    if len(found.time_us) == 0:
        return InBand(np.nan, np.nan, np.nan)
    low, high = poisson_band(found.expected, level)
    above, below = float((found.observed > high).mean()), float((found.observed < low).mean())
    return InBand(float(((found.observed >= low) & (found.observed <= high)).mean()), above, below)


def resampled_within(found: Counts, draws: int, seed: int) -> F64:
    """The share within the band in resamples of whole days, float64[draws]."""
    low, high = poisson_band(found.expected)
    inside = ((found.observed >= low) & (found.observed <= high)).astype(np.float64)
    days, of_time = np.unique(found.time_us // DAY_US, return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = np.full(draws, np.nan)
    for draw in range(draws if len(days) else 0):
        weight = np.bincount(generator.integers(len(days), size=len(days)), minlength=len(days))[of_time]
        drawn[draw] = (inside * weight).sum() / weight.sum()
    return drawn


def worst_day(found: Days) -> int | None:
    """Number of the day whose count was furthest from the expected one, in ratio; None without days.

    Half an account is added to both sides, so that a day without any is not infinitely far.
    """
    if len(found.day) == 0:
        return None
    return int(np.argmax(np.abs(np.log((found.observed + 0.5) / (found.expected + 0.5)))))
