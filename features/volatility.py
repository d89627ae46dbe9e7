"""Volatility of one price, kept up by recursion as bars arrive at any spacing.

Every estimator is a variance per second. EWMA weights halve with elapsed time, so irregular bars need
no resampling; HAR (Corsi 2009) averages realised variance over a day, a week and a month from a ring of
hourly sums; bipower variation (Barndorff-Nielsen and Shephard 2004) sees what jumps add.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.units import DAY_S, HOUR_S, HOUR_US, SECOND_US, YEAR_S

HALF_LIVES_H = (1.0, 6.0, 48.0)
"""EWMA half-lives; the columns of a variance row."""

BIPOWER_HALF_LIFE_H = 48.0
RING_HOURS = 720
"""A month of hourly realised variance."""

HAR_DAY, HAR_WEEK, HAR_MONTH = 0.4, 0.35, 0.25
"""Weights of the day, week and month; they sum to one, so the forecast needs no intercept."""

PRIOR_VARIANCE = 1.0 / YEAR_S
"""Variance per second of the slow prior: 100% a year, about the long-run level of liquid altcoins."""

PRIOR_WEIGHT = 0.7
"""Weight of the prior in logs; volatility half a day after a crash says little about the day to come."""

LEAST_VARIANCE = 1e-4 * PRIOR_VARIANCE
"""What was seen counts as at least 1% a year."""

PEGGED_VARIANCE = 0.05**2 * PRIOR_VARIANCE
"""An asset that moves less than 5% a year is held to something; no coin is as quiet."""

# What a series carries beside its variances: columns of its float row ...
LAST_RETURN, BIPOWER, HAR, FIRST_TIME = 0, 1, 2, 3
SERIES_COLUMNS = 4


@compiled
def observe_price(
    log_return: float,
    time_us: int,
    elapsed_us: int,
    variance: npt.NDArray[np.float64],
    series: npt.NDArray[np.float64],
    ring: npt.NDArray[np.float64],
) -> None:
    """Fold one log return over `elapsed_us` > 0 into a series' state, in place.

    `variance` holds one EWMA per half-life (NaN before the first return), `series` the columns named
    above, `ring` hourly sums of squared returns by hour modulo RING_HOURS. A return that spans several
    hours counts in each by the time spent there.
    """
    seconds = elapsed_us / SECOND_US
    squared = log_return * log_return
    rate = squared / seconds
    for k in range(len(HALF_LIVES_H)):
        if math.isnan(variance[k]):
            variance[k] = rate
        else:
            keep = math.exp(-math.log(2.0) * seconds / (HALF_LIVES_H[k] * HOUR_S))
            variance[k] = keep * variance[k] + (1.0 - keep) * rate

    scaled = abs(log_return) / math.sqrt(seconds)
    if not math.isnan(series[LAST_RETURN]):
        product = 0.5 * math.pi * scaled * series[LAST_RETURN]
        if math.isnan(series[BIPOWER]):
            series[BIPOWER] = product
        else:
            keep = math.exp(-math.log(2.0) * seconds / (BIPOWER_HALF_LIFE_H * HOUR_S))
            series[BIPOWER] = keep * series[BIPOWER] + (1.0 - keep) * product
    series[LAST_RETURN] = scaled

    previous_us = time_us - elapsed_us
    # Hours end with their last moment, so that a bar of a whole hour falls into the hour it covers.
    hour = (time_us - 1) // HOUR_US
    spanned = hour - (previous_us - 1) // HOUR_US
    if math.isnan(series[FIRST_TIME]):
        series[FIRST_TIME] = previous_us
    for passed in range(min(spanned, RING_HOURS)):
        ring[(hour - passed) % RING_HOURS] = 0.0
    for passed in range(min(spanned + 1, RING_HOURS)):
        begins_us = (hour - passed) * HOUR_US
        inside_us = max(min(time_us, begins_us + HOUR_US) - max(previous_us, begins_us), 0)
        ring[(hour - passed) % RING_HOURS] += squared * (inside_us / elapsed_us)

    day = week = month = 0.0
    for back in range(RING_HOURS):
        value = ring[(hour - back) % RING_HOURS]
        month += value
        if back < 168:
            week += value
            if back < 24:
                day += value
    known = (time_us - series[FIRST_TIME]) / SECOND_US
    series[HAR] = (
        HAR_DAY * day / min(known, DAY_S)
        + HAR_WEEK * week / min(known, 7 * DAY_S)
        + HAR_MONTH * month / min(known, 30 * DAY_S)
    )


@compiled
def jump_share(variance_48h: float, bipower: float) -> float:
    """Share of recent variance that came in jumps, in [0, 1]; NaN before the second return."""
    if math.isnan(bipower) or math.isnan(variance_48h):
        return math.nan
    if variance_48h <= 0.0:
        return 0.0
    return min(max(1.0 - bipower / variance_48h, 0.0), 1.0)


@compiled
def slow_variance(variance_48h: float) -> float:
    """Variance per second shrunk in logs towards the slow prior; NaN before the second bar.

    A mark that has not moved at all says that nobody looked, not that it never will: see LEAST_VARIANCE.
    """
    if math.isnan(variance_48h):
        return math.nan
    seen = math.log(max(variance_48h, LEAST_VARIANCE))
    return math.exp((1.0 - PRIOR_WEIGHT) * seen + PRIOR_WEIGHT * math.log(PRIOR_VARIANCE))
