"""One price, one book, one buffer: the estimators of `features`, slow and obvious.

Variances are weighted sums over all returns instead of recursions, sigma is a double loop over a
correlation matrix, slippage is an integral over the depth curve. Parameters that were fitted are data, and
come from where they are kept.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cache
from itertools import pairwise

import numpy as np

from features.structural import LAPSE_POWER, LAPSES_A_DAY, VARIANCE_LOG_SD

CORRELATION = 0.75
SECOND, HOUR = 1_000_000, 3_600_000_000
DAY_S = 86_400.0
NAN = math.nan
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
LOG_SD = VARIANCE_LOG_SD
FLOOR, CEILING = 1e-9, 0.98


# ---- volatility of one price: `points` is all of its (time, price), oldest first


Points = list[tuple[int, float]]


def returns(points: Points) -> list[tuple[int, float, float]]:
    """Time of the end, log return, seconds that it took."""
    return [
        (end, math.log(new / old), (end - start) / SECOND) for (start, old), (end, new) in pairwise(points)
    ]


def decayed(terms: list[tuple[int, float, float]], half_life_h: float) -> float:
    """Mean of (end time, value, seconds that it held) under a weight that halves by age.

    The first value stands for all time before it.
    """
    if not terms:
        return NAN
    last = terms[-1][0]
    total = 0.0
    for number, (end, value, seconds) in enumerate(terms):
        age = (last - end) / SECOND / 3_600.0 / half_life_h
        share = 1.0 if number == 0 else -math.expm1(-math.log(2.0) * seconds / 3_600.0 / half_life_h)
        total += 2.0**-age * share * value
    return total


def ewma(points: Points, half_life_h: float) -> float:
    return decayed([(end, r * r / seconds, seconds) for end, r, seconds in returns(points)], half_life_h)


def bipower(points: Points) -> float:
    moves = returns(points)
    products = [
        (end, math.pi / 2 * abs(r) * abs(before) / math.sqrt(seconds * seconds_before), seconds)
        for (_, before, seconds_before), (end, r, seconds) in pairwise(moves)
    ]
    return decayed(products, 48.0)


def window(points: Points, hours: int) -> float:
    """Mean variance over so many clock hours, the last of them begun."""
    last = points[-1][0]
    known = (last - points[0][0]) / SECOND
    since = ((last - 1) // HOUR - hours + 1) * HOUR
    return realised(points, since) / min(known, (last - since) / SECOND)


def realised(points: Points, since: int) -> float:
    """Sum of squared returns since then; one that began before counts for the part of its time after."""
    return math.fsum(
        r * r * max(end - max(end - seconds * SECOND, since), 0.0) / (seconds * SECOND)
        for end, r, seconds in returns(points)
    )


def har(points: Points) -> float:
    """0.4, 0.35, 0.25 of the last day, week and month."""
    if len(points) < 2:
        return NAN
    return 0.4 * window(points, 24) + 0.35 * window(points, 168) + 0.25 * window(points, 720)


YEAR_S = 365 * DAY_S
PRIOR = 1.0 / YEAR_S
LEAST = 1e-4 * PRIOR


def bars(points: Points, half_life_h: float) -> float:
    """How many bars there were, each counting half as much a half-life later."""
    last = points[-1][0]
    return math.fsum(2.0 ** -((last - end) / HOUR / half_life_h) for end, _ in points[1:])


def ended_hours(points: Points) -> list[tuple[int, float]]:
    """Every clock hour that ended 12 h or more after the first price, with the day's variance then."""
    found = []
    for number in range(1, len(points)):
        (before, _), (end, _) = points[number - 1], points[number]
        if end - points[0][0] >= 12 * HOUR:
            day = max(_day(points[0][0], tuple(points[_since(points, number) : number + 1])), LEAST)
            found += [(hour, day) for hour in range(before // HOUR + 1, end // HOUR + 1)]
    return found


def _since(points: Points, number: int) -> int:
    """The last point before the clock hours that a day's window at this one reaches into."""
    return max(bisect_left(points, (points[number][0] - 25 * HOUR, 0.0)) - 1, 0)


@cache
def _day(first_us: int, recent: tuple[tuple[int, float], ...]) -> float:
    """Mean variance of a price known since then over the last day; asked again for every later moment."""
    last = recent[-1][0]
    since = ((last - 1) // HOUR - 23) * HOUR
    known = (last - first_us) / SECOND
    return realised(list(recent), since) / min(known, (last - since) / SECOND)


def typical_and_average(points: Points) -> tuple[float, float]:
    """Means of the log of the day's variance and of itself over the hours, which halve in 60 days."""
    hours = ended_hours(points)
    if not hours:
        return NAN, NAN
    weights = [2.0 ** ((hour - hours[-1][0]) / 1_440.0) for hour, _ in hours]
    total = math.fsum(weights)
    typical = math.fsum(w * math.log(day) for w, (_, day) in zip(weights, hours, strict=True)) / total
    return typical, math.fsum(w * day for w, (_, day) in zip(weights, hours, strict=True)) / total


def own_share(points: Points) -> float:
    """Half after 15 days; nothing before the level is known."""
    known_s = (points[-1][0] - points[0][0]) / SECOND
    return known_s / (known_s + 15 * DAY_S) if ended_hours(points) else 0.0


def garch(points: Points, alpha: float, beta: float) -> float:
    """GARCH(1,1) hour by hour; a return counts in each hour by the root of the time that it spent there."""
    if len(points) < 2:
        return NAN
    variance, in_hour = NAN, 0.0
    for number, ((before, old), (end, new)) in enumerate(pairwise(points), 2):
        move, at = math.log(new / old), before
        share = own_share(points[:number])
        average = typical_and_average(points[:number])[1]
        rest = (1 - share) * PRIOR + (share * average if share else 0.0)
        while at < end:
            until = min((at // HOUR + 1) * HOUR, end)
            in_hour += move * math.sqrt((until - at) / (end - before))
            if until % HOUR == 0:
                last = rest if math.isnan(variance) else variance
                variance = (1 - alpha - beta) * rest + alpha * in_hour**2 / 3_600.0 + beta * last
                in_hour = 0.0
            at = until
    return variance


def climbed(points: Points) -> list[float]:
    """Rungs of 1, 6 and 48 hours and the level, in logs over the prior."""
    typical, average = typical_and_average(points)
    share = own_share(points)
    level = share * (0.5 * (typical + math.log(average)) - math.log(PRIOR)) if share else 0.0
    found = [level]
    for half_life_h in (48.0, 6.0, 1.0):
        seen = math.log(max(ewma(points, half_life_h), LEAST) / PRIOR)
        count = bars(points, half_life_h)
        found.insert(0, found[0] + count / (count + 4.0) * max(seen - found[0], -2.5))
    return found


def forecast(points: Points, horizon_h: float, weights: tuple[tuple[float, ...], ...]) -> float:
    """The ladder weighed for 1, 8 and 24 hours, by the log of the horizon between them."""
    if len(points) < 2:
        return NAN
    values = [1.0, *climbed(points)]
    logs = [math.fsum(w * x for w, x in zip(of, values, strict=True)) for of in weights]
    return PRIOR * math.exp(float(np.interp(math.log(horizon_h), np.log([1.0, 8.0, 24.0]), logs)))


def variances(points: Points) -> dict[str, float]:
    slow, fast = ewma(points, 48.0), ewma(points, 6.0)
    return {
        "1h": ewma(points, 1.0),
        "6h": fast,
        "48h": slow,
        "har": har(points),
        "mean": (fast + slow) / 2,
        # 30% what was seen, at least 1% a year; 70% a hundred percent a year
        "slow": max(slow, 1e-4 / (365 * DAY_S)) ** 0.3 * (1.0 / (365 * DAY_S)) ** 0.7,
    }


def jump_share(points: Points) -> float:
    smooth, whole = bipower(points), ewma(points, 48.0)
    if math.isnan(smooth):
        return NAN
    return 0.0 if whole == 0.0 else min(max(1.0 - smooth / whole, 0.0), 1.0)


def sigma(exposures: list[float]) -> float:
    """Standard deviation of a sum of which any two terms have the one correlation."""
    square = 0.0
    for i, one in enumerate(exposures):
        for j, other in enumerate(exposures):
            square += one * other * (1.0 if i == j else CORRELATION)
    return NAN if math.isnan(square) else math.sqrt(max(square, 0.0))


# ---- a book of cumulative depth


def depth_at(bps: float, distances: list[float], depths: list[float]) -> float:
    return float(np.interp(bps, [0.0, *distances], [0.0, *depths]))


def slippage_bps(notional: float, distances: list[float], depths: list[float]) -> float:
    """Mean of the distance over the dollars filled: N d - (area under the depth curve up to d), over N."""
    if not depths or math.isnan(notional):
        return NAN
    if depths[-1] <= 0.0:
        return 10_000.0
    xs, ys = [0.0, *distances], [0.0, *depths]
    if notional > ys[-1]:  # the book goes on at its average density
        xs.append(notional / (ys[-1] / xs[-1]))
        ys.append(notional)
    curve = list(zip(xs, ys, strict=True))
    area = 0.0
    for (x, y), (following, above) in pairwise(curve):
        if above >= notional and above > y:
            reach = x + (following - x) * (notional - y) / (above - y)
            area += (reach - x) * (y + notional) / 2
            break
        area += (following - x) * (y + above) / 2
    return min((notional * reach - area) / notional, 10_000.0)


# ---- first passage


def passage(buffer_over_sigma: float) -> float:
    """Touching probability averaged over nine volatilities, without bounds."""
    return math.fsum(
        weight / math.sqrt(2 * math.pi)
        * (1.0 if buffer_over_sigma <= 0
           else math.erfc(buffer_over_sigma * math.exp(-LOG_SD * node / 2) / math.sqrt(2)))
        for node, weight in zip(NODES, WEIGHTS, strict=True)
    )  # fmt: skip


def survival(buffer_over_sigma: float) -> float:
    return math.fsum(
        weight / math.sqrt(2 * math.pi)
        * math.erf(buffer_over_sigma * math.exp(-LOG_SD * node / 2) / math.sqrt(2))
        for node, weight in zip(NODES, WEIGHTS, strict=True)
    )  # fmt: skip


def bounded(probability: float) -> float:
    return min(max(probability, FLOOR), CEILING)


def logit_of(probability: float) -> float:
    return math.log(bounded(probability) / (1 - bounded(probability)))


def touching(nearness_day: float) -> list[float]:
    """Probabilities of touching within 1 h, in 1-8 h given not before, in 8-24 h given not before."""
    # at the barrier and beyond it what is left is the limit as the buffer goes to nothing
    near = max(nearness_day, 1e-6)
    ends = [near * math.sqrt(24), near * math.sqrt(3), near]
    later = [(passage(end) - passage(before)) / survival(before) for before, end in pairwise(ends)]
    return [bounded(hazard) for hazard in (passage(ends[0]), *later)]


def prior(nearness_day: float, margin_ratio: float, forecast_ratio: float) -> list[float]:
    """Probabilities of touching, odds moved by the venue's forecast, or of a lapse, in the same spans."""
    if math.isnan(nearness_day) or math.isnan(margin_ratio):
        return [NAN, NAN, NAN]
    rate = LAPSES_A_DAY / max(margin_ratio, 1.0) ** LAPSE_POWER
    hazards = []
    for hazard, hours in zip(touching(nearness_day), (1, 7, 16), strict=True):
        odds = hazard / (1 - hazard) * math.exp(forecast_ratio)
        hazards.append(bounded(1 - (1 - odds / (1 + odds)) * math.exp(-rate * hours / 24)))
    return hazards


def prior_24h(nearness_day: float, margin_ratio: float, forecast_ratio: float) -> float:
    hazards = prior(nearness_day, margin_ratio, forecast_ratio)
    return 1 - math.prod(1 - hazard for hazard in hazards)


def prior_hazards(nearness_day: float) -> tuple[float, float, float]:
    """Logits of touching within 1 h, in 1-8 h given not before, in 8-24 h given not before."""
    if math.isnan(nearness_day):
        return NAN, NAN, NAN
    first, second, third = (logit_of(hazard) for hazard in touching(nearness_day))
    return first, second, third
