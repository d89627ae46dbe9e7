"""First passage of an account's buffer: the structural probability of liquidation.

With frozen positions the buffer (collateral less maintenance margin) moves with the marks. Taken as a
driftless Brownian motion with standard deviation `sigma` over the horizon, it touches zero with
probability 2 N(-buffer / sigma) (reflection principle; Black and Cox 1976). The volatility itself is
uncertain; `mixed_first_passage` averages that probability over a lognormal volatility, which is what
gives real books their fat tail of default.
"""

from __future__ import annotations

import math

from exchange.compiled import lean

VARIANCE_LOG_SD = 0.6
"""Standard deviation of log realised variance around its forecast, a day ahead; with the nodes below."""

LAPSES_A_DAY, LAPSE_POWER = 0.03, 0.6
"""Liquidations that volatility does not explain: rate at a margin ratio of one, and its fall with the ratio.

These and the spread above were chosen on accounts of a real venue before 15 December 2022, before anything
that the models are judged on; `python -m benchmarks.prior_fit` prints how flat the likelihood is there.
"""

PROBABILITY_FLOOR = 1e-9
PROBABILITY_CEILING = 0.98
"""Accounts below maintenance are not always closed at once (dust, stale views), so never 1."""

AT_THE_BARRIER = 1e-6
"""A buffer this small, in sigmas, stands for all smaller ones: later hazards have their limit there."""

# Nine-point Gauss-Hermite rule for a standard normal: nodes and weights.
_NODES = (
    -4.512745863399783,
    -3.20542900285647,
    -2.0768479786778306,
    -1.0232556637891326,
    0.0,
    1.0232556637891326,
    2.0768479786778306,
    3.20542900285647,
    4.512745863399783,
)
_WEIGHTS = (
    2.2345844007746587e-05,
    0.0027891413212317705,
    0.04991640676521785,
    0.2440975028949394,
    0.4063492063492063,
    0.2440975028949394,
    0.04991640676521785,
    0.0027891413212317705,
    2.2345844007746587e-05,
)


_SCALES = tuple(math.exp(-0.5 * VARIANCE_LOG_SD * node) for node in _NODES)

BEYOND_FLOOR = 6.2 / _SCALES[-1]
"""From here on first passage is below the floor even at the largest volatility: 2 N(-6.2) < 1e-9."""

BEYOND_DOUBT = 12.0 / _SCALES[-1]
"""From here on it is nothing beside the floor: 2 N(-12) < 1e-32."""


@lean
def first_passage(buffer_over_sigma: float) -> float:
    """Probability that the buffer is touched within the horizon that sigma is stated for.

    A buffer at or below zero has been touched: 1. NaN gives NaN.
    """
    if buffer_over_sigma <= 0.0:
        return 1.0
    return math.erfc(buffer_over_sigma / math.sqrt(2.0))


@lean
def _mixture(buffer_over_sigma: float) -> float:
    """First passage averaged over a lognormal variance of mean-log 0 and sd `VARIANCE_LOG_SD`."""
    if buffer_over_sigma > BEYOND_DOUBT:
        return 0.0
    total = 0.0
    for scale, weight in zip(_SCALES, _WEIGHTS):  # noqa: B905 - numba has no strict zip
        total += weight * first_passage(buffer_over_sigma * scale)
    return total


@lean
def _bounded(probability: float) -> float:
    return min(max(probability, PROBABILITY_FLOOR), PROBABILITY_CEILING)


@lean
def mixed_first_passage(buffer_over_sigma: float) -> float:
    """First passage averaged over a lognormal variance of mean-log 0 and sd `VARIANCE_LOG_SD`.

    Bounded to [PROBABILITY_FLOOR, PROBABILITY_CEILING]; NaN gives NaN.
    """
    if math.isnan(buffer_over_sigma):
        return math.nan
    if buffer_over_sigma > BEYOND_FLOOR:
        return PROBABILITY_FLOOR
    return _bounded(_mixture(buffer_over_sigma))


@lean
def mixed_hazards(buffer_over_sigma_day: float) -> tuple[float, float, float]:
    """Probabilities of first passage within 1 h, in 1-8 h given none before, in 8-24 h given none before.

    Each falls as the buffer grows. They come from unbounded probabilities: at a bound an earlier and a
    later one are equal, and the hazard between them would be nothing where it is largest. Bounded as
    `mixed_first_passage`; NaN gives NaN.
    """
    if math.isnan(buffer_over_sigma_day):
        return math.nan, math.nan, math.nan
    if buffer_over_sigma_day > BEYOND_FLOOR:
        return PROBABILITY_FLOOR, PROBABILITY_FLOOR, PROBABILITY_FLOOR
    near = max(buffer_over_sigma_day, AT_THE_BARRIER)
    p_1h = _mixture(near * math.sqrt(24.0))
    p_8h = _mixture(near * math.sqrt(3.0))
    p_24h = _mixture(near)
    return _bounded(p_1h), conditional_hazard(p_1h, p_8h), conditional_hazard(p_8h, p_24h)


@lean
def lapse_rate(margin_ratio: float) -> float:
    """Liquidations a day of an account because of what it does itself: it adds, withdraws, lets funding run.

    Falls with the margin ratio; below one it is that of one. NaN gives NaN.
    """
    return LAPSES_A_DAY * max(margin_ratio, 1.0) ** -LAPSE_POWER if not math.isnan(margin_ratio) else math.nan


@lean
def _tilted(probability: float, log_odds: float) -> float:
    """The probability with its odds multiplied by exp(log_odds)."""
    odds = math.exp(log_odds)
    return probability * odds / (1.0 - probability + probability * odds)


@lean
def _or_lapse(hazard: float, rate: float, hours: float) -> float:
    """Either of two independent ends within so many hours, bounded as above."""
    return _bounded(1.0 - (1.0 - hazard) * math.exp(-rate * hours / 24.0))


@lean
def prior_hazards(
    buffer_over_sigma_day: float, margin_ratio: float, forecast_ratio: float
) -> tuple[float, float, float]:
    """The structural prior: first passage or a lapse, within 1 h, in 1-8 h and in 8-24 h given none before.

    Odds of first passage move with the venue's forecast (a log ratio of expected liquidations), lapses do
    not. Each falls as the buffer or the margin ratio grows. NaN where an argument is.
    """
    if math.isnan(buffer_over_sigma_day) or math.isnan(margin_ratio) or math.isnan(forecast_ratio):
        return math.nan, math.nan, math.nan
    first, second, third = mixed_hazards(buffer_over_sigma_day)
    rate = lapse_rate(margin_ratio)
    return (
        _or_lapse(_tilted(first, forecast_ratio), rate, 1.0),
        _or_lapse(_tilted(second, forecast_ratio), rate, 7.0),
        _or_lapse(_tilted(third, forecast_ratio), rate, 16.0),
    )


@lean
def prior_24h(buffer_over_sigma_day: float, margin_ratio: float, forecast_ratio: float) -> float:
    """Probability of either within a day; NaN where an argument is."""
    first, second, third = prior_hazards(buffer_over_sigma_day, margin_ratio, forecast_ratio)
    return 1.0 - (1.0 - first) * (1.0 - second) * (1.0 - third)


JUMPS_A_DAY = 0.5
JUMP_SCALE, JUMP_TAIL = 0.03, 3.0
"""Jumps of more than 3% come about every other day in a crypto perpetual; their size has a cubic tail."""


@lean
def jump_passage(distance: float) -> float:
    """Logit of the probability that one jump within a day is larger than the distance to liquidation.

    `distance` is a fraction of the mark, at least 0. Jumps come one after the other by chance (Poisson),
    either way; NaN gives NaN.
    """
    if math.isnan(distance):
        return math.nan
    larger = min(1.0, (max(distance, 1e-12) / JUMP_SCALE) ** -JUMP_TAIL)
    return logit(_bounded(-math.expm1(-0.5 * JUMPS_A_DAY * larger)))


@lean
def logit(probability: float) -> float:
    """log(p / (1 - p))."""
    return math.log(probability) - math.log1p(-probability)


@lean
def conditional_hazard(earlier: float, later: float) -> float:
    """Probability of the event between two horizons given none before the earlier one, bounded as above."""
    return _bounded((later - earlier) / (1.0 - earlier))
