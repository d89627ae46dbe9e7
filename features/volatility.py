"""Volatility of one price, kept up by recursion as bars arrive at any spacing, and its forecast.

Every estimator is a variance per second. EWMA weights halve with elapsed time, so irregular bars need
no resampling; HAR (Corsi 2009) averages realised variance over a day, a week and a month from a ring of
hourly sums; bipower variation (Barndorff-Nielsen and Shephard 2004) sees what jumps add; GARCH(1,1)
(Bollerslev 1986) runs on the hours of the clock.

`forecast_variance` is what `benchmarks/volatility.py` found best: a ladder of logs from slow to fast, each
rung moved from the one below by as much as its number of bars can bear, weighed by horizon. Formulas and
the table are in docs/volatility.md.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import lean
from exchange.units import DAY_S, HOUR_S, HOUR_US, SECOND_US, YEAR_S

HALF_LIVES_H = (1.0, 6.0, 48.0)
"""EWMA half-lives; the columns of a variance row. Bipower variation has the last of them."""

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

# Parameters fitted by `python -m benchmarks.volatility --fit`.
GARCH_ALPHA, GARCH_BETA = 0.152, 0.810
"""Of hourly returns, medians over coins; the rest of the weight pulls to the price's own long average."""

WEIGHTED_H = (1.0, 8.0, 24.0)
WEIGHTS = (
    (0.202, 0.766, 0.000, 0.000, 0.000),
    (0.226, 0.532, 0.000, 0.055, 0.172),
    (0.193, 0.106, 0.408, 0.000, 0.266),
)
"""By horizon: constant, rungs of 1, 6 and 48 hours, level; what they lack to one the prior has."""

BARS_TO_TRUST = 4.0
"""A mean over so many bars counts half, the slower rung the other half."""

DAYS_TO_TRUST = 15.0
"""A price known for so long has a level half its own, half the prior's."""

LEVEL_HALF_LIFE_H = 60 * 24.0
LEVEL_FROM_S = 12 * HOUR_S
"""The level takes in nothing while the first day is younger than this."""

LEAST_STEP = -2.5
"""A rung lies at most this far below the slower one: a mark that stood still for an hour will move again."""

# What a series carries beside its variances: columns of its float row.
(
    LAST_RETURN,  # size of the last return over the square root of its seconds
    BIPOWER,
    HAR,
    FIRST_TIME,
    KNOWN_S,  # from the first price to the last
    DAY_BEFORE,  # sums of the ring over the 23, 167 and 719 hours before the last bar's
    WEEK_BEFORE,
    MONTH_BEFORE,
    BARS_1H,  # bars in the mean life of each EWMA
    BARS_6H,
    BARS_48H,
    LEVEL,  # mean of the log of the last day's variance, taken every hour
    AVERAGE,  # mean of that variance itself
    LEVEL_HOURS,  # hours that both are means of
    GARCH,  # variance per second of the clock hour in progress
    HOUR_RETURN,  # return within that hour so far
) = range(16)
SERIES_COLUMNS = 16

RUNGS = 5
"""One, three half-lives, the level."""


@lean
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
    scaled = math.sqrt(rate)
    # Half-lives of 48, 6 and 1 hours: one exponential serves all.
    keep_48h = math.exp(-math.log(2.0) * seconds / (48.0 * HOUR_S))
    squared_keep = keep_48h * keep_48h
    fourth = squared_keep * squared_keep
    keep_6h = fourth * fourth
    cubed_keep = keep_6h * keep_6h * keep_6h
    keep_1h = cubed_keep * cubed_keep

    if math.isnan(variance[0]):
        variance[:] = rate
        series[FIRST_TIME] = time_us - elapsed_us
        series[DAY_BEFORE : BARS_48H + 1] = 0.0
        series[LEVEL_HOURS] = 0.0
        series[HOUR_RETURN] = 0.0
    else:
        variance[0] = keep_1h * variance[0] + (1.0 - keep_1h) * rate
        variance[1] = keep_6h * variance[1] + (1.0 - keep_6h) * rate
        variance[2] = keep_48h * variance[2] + (1.0 - keep_48h) * rate
        product = 0.5 * math.pi * scaled * series[LAST_RETURN]
        if math.isnan(series[BIPOWER]):
            series[BIPOWER] = product
        else:
            series[BIPOWER] = keep_48h * series[BIPOWER] + (1.0 - keep_48h) * product
    series[LAST_RETURN] = scaled
    series[BARS_1H] = keep_1h * series[BARS_1H] + 1.0
    series[BARS_6H] = keep_6h * series[BARS_6H] + 1.0
    series[BARS_48H] = keep_48h * series[BARS_48H] + 1.0
    known = (time_us - series[FIRST_TIME]) / SECOND_US
    series[KNOWN_S] = known

    # Hours end with their last moment, so that a bar of a whole hour falls into the hour it covers.
    hour = (time_us - 1) // HOUR_US
    slot = hour % RING_HOURS
    inside_us = time_us - hour * HOUR_US
    if elapsed_us < inside_us:
        ring[slot] += squared
    else:
        _enter_hours(squared, time_us, elapsed_us, hour, series, ring)

    inside = inside_us / SECOND_US  # windows reach back whole hours from the hour in progress
    now = ring[slot]
    day = (series[DAY_BEFORE] + now) / min(known, DAY_S - HOUR_S + inside)
    week = (series[WEEK_BEFORE] + now) / min(known, 7 * DAY_S - HOUR_S + inside)
    month = (series[MONTH_BEFORE] + now) / min(known, 30 * DAY_S - HOUR_S + inside)
    series[HAR] = HAR_DAY * day + HAR_WEEK * week + HAR_MONTH * month

    if elapsed_us <= inside_us < HOUR_US:
        series[HOUR_RETURN] += log_return
    else:
        _close_hours(log_return, time_us, elapsed_us, day, series)


@lean
def _enter_hours(
    squared: float,
    time_us: int,
    elapsed_us: int,
    hour: int,
    series: npt.NDArray[np.float64],
    ring: npt.NDArray[np.float64],
) -> None:
    """Clear the hours that a return reaches into, share it among them, and sum up those before the last.

    Sums are taken from the ring every time, so no residue of what has left stays in them.
    """
    previous_us = time_us - elapsed_us
    spanned = hour - (previous_us - 1) // HOUR_US
    for passed in range(min(spanned, RING_HOURS)):
        ring[(hour - passed) % RING_HOURS] = 0.0
    for passed in range(min(spanned + 1, RING_HOURS)):
        begins_us = (hour - passed) * HOUR_US
        inside_us = max(min(time_us, begins_us + HOUR_US) - max(previous_us, begins_us), 0)
        ring[(hour - passed) % RING_HOURS] += squared * (inside_us / elapsed_us)
    day = _sum_of_hours(ring, hour - 23, 23)
    week = day + _sum_of_hours(ring, hour - 167, 144)
    series[DAY_BEFORE] = day
    series[WEEK_BEFORE] = week
    series[MONTH_BEFORE] = week + _sum_of_hours(ring, hour - 719, 552)


@lean
def _sum_of_hours(ring: npt.NDArray[np.float64], first: int, count: int) -> float:
    """Sum of `count` hours from hour `first`, in eight partial sums that the processor adds side by side."""
    start = first % RING_HOURS
    a = b = c = d = e = f = g = h = 0.0
    for begin, end in ((start, min(start + count, RING_HOURS)), (0, start + count - RING_HOURS)):
        i = begin
        while i + 8 <= end:
            a += ring[i]
            b += ring[i + 1]
            c += ring[i + 2]
            d += ring[i + 3]
            e += ring[i + 4]
            f += ring[i + 5]
            g += ring[i + 6]
            h += ring[i + 7]
            i += 8
        while i < end:
            a += ring[i]
            i += 1
    return ((a + e) + (b + f)) + ((c + g) + (d + h))


@lean
def _close_hours(
    log_return: float,
    time_us: int,
    elapsed_us: int,
    day: float,
    series: npt.NDArray[np.float64],
) -> None:
    """What happens once for each clock hour that ends within a bar: the steps of GARCH and of the level."""
    previous_us = time_us - elapsed_us
    closed = time_us // HOUR_US - previous_us // HOUR_US
    if series[KNOWN_S] >= LEVEL_FROM_S:
        keep = math.exp(-math.log(2.0) * closed / LEVEL_HALF_LIFE_H)
        added = (1.0 - keep) / (1.0 - math.exp(-math.log(2.0) / LEVEL_HALF_LIFE_H))
        before = keep * series[LEVEL_HOURS]
        hours = before + added
        share = added / hours
        seen = max(day, LEAST_VARIANCE)
        first = math.isnan(series[LEVEL])
        series[LEVEL] = math.log(seen) if first else series[LEVEL] + share * (math.log(seen) - series[LEVEL])
        series[AVERAGE] = seen if first else series[AVERAGE] + share * (seen - series[AVERAGE])
        series[LEVEL_HOURS] = hours

    # A return is shared among hours so that its square is shared by time.
    first_us = HOUR_US - previous_us % HOUR_US
    whole = series[HOUR_RETURN] + log_return * math.sqrt(first_us / elapsed_us)
    series[HOUR_RETURN] = log_return * math.sqrt(time_us % HOUR_US / elapsed_us)
    rest = long_run(series)
    garch = rest if math.isnan(series[GARCH]) else series[GARCH]
    garch = garch_step(garch, whole * whole / HOUR_S, rest, GARCH_ALPHA, GARCH_BETA, 1)
    if closed > 1:
        rate = log_return * log_return / (elapsed_us / SECOND_US)
        garch = garch_step(garch, rate, rest, GARCH_ALPHA, GARCH_BETA, closed - 1)
    series[GARCH] = garch


@lean
def _own_share(series: npt.NDArray[np.float64]) -> float:
    """How much of its level a price has from itself, in [0, 1); the prior has the rest."""
    if math.isnan(series[LEVEL]):
        return 0.0
    return series[KNOWN_S] / (series[KNOWN_S] + DAYS_TO_TRUST * DAY_S)


@lean
def long_run(series: npt.NDArray[np.float64]) -> float:
    """Variance per second that GARCH returns to: the price's own average shrunk to the prior."""
    own = _own_share(series)
    return PRIOR_VARIANCE if own == 0.0 else own * series[AVERAGE] + (1.0 - own) * PRIOR_VARIANCE


@lean
def garch_step(variance: float, squared: float, rest: float, alpha: float, beta: float, hours: int) -> float:
    """GARCH(1,1) variance after `hours` hours of equal squared return, all as rates per second."""
    drive = (1.0 - alpha - beta) * rest + alpha * squared
    keep = beta if hours == 1 else math.pow(beta, hours)
    return keep * variance + drive * (1.0 - keep) / (1.0 - beta)


@lean
def garch_variance(variance: float, rest: float, alpha: float, beta: float, horizon_s: float) -> float:
    """Mean variance per second over the horizon, from that of the next hour back to the long run."""
    hours = horizon_s / HOUR_S
    stay = alpha + beta
    return rest + (variance - rest) * (1.0 - math.pow(stay, hours)) / (hours * (1.0 - stay))


@lean
def jump_share(variance_48h: float, bipower: float) -> float:
    """Share of recent variance that came in jumps, in [0, 1]; NaN before the second return."""
    if math.isnan(bipower) or math.isnan(variance_48h):
        return math.nan
    if variance_48h <= 0.0:
        return 0.0
    return min(max(1.0 - bipower / variance_48h, 0.0), 1.0)


@lean
def slow_variance(variance_48h: float) -> float:
    """Variance per second shrunk in logs towards the slow prior; NaN before the second bar.

    A mark that has not moved at all says that nobody looked, not that it never will: see LEAST_VARIANCE.
    """
    if math.isnan(variance_48h):
        return math.nan
    seen = math.log(max(variance_48h, LEAST_VARIANCE))
    return math.exp((1.0 - PRIOR_WEIGHT) * seen + PRIOR_WEIGHT * math.log(PRIOR_VARIANCE))


@lean
def _rung(below: float, variance: float, bars: float) -> float:
    """From the slower rung below, towards a faster variance as far as its number of bars can be trusted."""
    seen = math.log(max(variance, LEAST_VARIANCE) / PRIOR_VARIANCE)
    return below + bars / (bars + BARS_TO_TRUST) * max(seen - below, LEAST_STEP)


@lean
def climb(
    series: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Logs over the prior of the rungs of 1, 6 and 48 hours and of the level; NaN before the second price."""
    if math.isnan(variance[0]):
        return math.nan, math.nan, math.nan, math.nan
    level = 0.0
    own = _own_share(series)
    if own > 0.0:  # half a typical day, half the average one, which remembers crashes
        level = own * (0.5 * (series[LEVEL] + math.log(series[AVERAGE])) - math.log(PRIOR_VARIANCE))
    days = _rung(level, variance[2], series[BARS_48H])
    hours = _rung(days, variance[1], series[BARS_6H])
    hour = _rung(hours, variance[0], series[BARS_1H])
    return hour, hours, days, level


@lean
def forecast_variance(
    series: npt.NDArray[np.float64], variance: npt.NDArray[np.float64], horizon_s: float
) -> float:
    """Variance per second expected on average over the coming `horizon_s`; NaN before the second price.

    Weights between two horizons that were fitted lie between theirs by the log of the horizon; beyond the
    first and last they are theirs.
    """
    hour, hours, days, level = climb(series, variance)
    horizon_h = min(max(horizon_s / HOUR_S, WEIGHTED_H[0]), WEIGHTED_H[2])
    later = 1 if horizon_h <= WEIGHTED_H[1] else 2
    part = math.log(horizon_h / WEIGHTED_H[later - 1]) / math.log(WEIGHTED_H[later] / WEIGHTED_H[later - 1])
    a, b = WEIGHTS[later - 1], WEIGHTS[later]
    early = a[0] + a[1] * hour + a[2] * hours + a[3] * days + a[4] * level
    late = b[0] + b[1] * hour + b[2] * hours + b[3] * days + b[4] * level
    return PRIOR_VARIANCE * math.exp(early + part * (late - early))
