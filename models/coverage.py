"""Was a loss that should be exceeded one time in a hundred exceeded that often, and not in runs?

Exceedances are of non-overlapping periods in order of time, so that under the rate p that is claimed they are
independent draws. Kupiec (1995) tests how many there are, Christoffersen (1998) whether one makes the next
likelier, the Basel Committee (1996) sorts their number into zones. A margin with a floor under it is exceeded
less often than claimed and is not wrong for it: there only too many count, by the exact binomial tail.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Zone = Literal["green", "yellow", "red"]

RATE = 0.01
"""Of exceedances under 99% coverage."""

SIZE = 0.05
"""Probability below which a test rejects."""

WINDOW = 250
"""Periods that the traffic light looks at together."""

YELLOW_FROM, RED_FROM = 0.95, 0.9999
"""Probability of so many exceedances or fewer at which a zone begins."""


class Likelihood(NamedTuple):
    """Likelihood-ratio statistic, and the probability of a larger one if the claim is true."""

    ratio: float
    p_value: float

    @property
    def rejected(self) -> bool:
        """Whether a test of SIZE rejects; False where nothing is known (NaN)."""
        return self.p_value < SIZE


def kupiec(exceedances: int, periods: int, rate: float = RATE) -> Likelihood:
    """Two-sided test of the proportion of failures, chi-squared with one degree; NaN without periods."""
    if periods == 0:
        return Likelihood(math.nan, math.nan)
    claimed = _log_likelihood(exceedances, periods, rate)
    best = _log_likelihood(exceedances, periods, exceedances / periods)
    ratio = max(2.0 * (best - claimed), 0.0)
    return Likelihood(ratio, math.erfc(math.sqrt(ratio / 2.0)))


def too_many(exceedances: int, periods: int, rate: float = RATE) -> float:
    """Exact probability of as many exceedances or more if the rate is no higher than claimed."""
    return 1.0 if exceedances == 0 else 1.0 - _at_most(exceedances - 1, periods, rate)


def independence(exceeded: Flags, follows: Flags | None = None) -> Likelihood:
    """Christoffersen's test against exceedances that make the next period's likelier or less likely.

    `follows` says which periods begin where the one before them in the list ends (default: all but the
    first); what is not adjacent says nothing. NaN without two adjacent periods.
    """
    hits = np.asarray(exceeded, np.bool_)
    adjacent = np.ones(len(hits), np.bool_) if follows is None else np.asarray(follows, np.bool_)
    before, after = hits[:-1][adjacent[1:]], hits[1:][adjacent[1:]]
    if len(after) == 0:
        return Likelihood(math.nan, math.nan)
    free = 0.0
    for state in (False, True):
        of_state = after[before == state]
        if len(of_state):
            free += _log_likelihood(int(of_state.sum()), len(of_state), float(of_state.mean()))
    tied = _log_likelihood(int(after.sum()), len(after), float(after.mean()))
    ratio = max(2.0 * (free - tied), 0.0)
    return Likelihood(ratio, math.erfc(math.sqrt(ratio / 2.0)))


def conditional_coverage(number: Likelihood, runs: Likelihood) -> Likelihood:
    """Both at once, chi-squared with two degrees: the statistics of `kupiec` and `independence` add up."""
    ratio = number.ratio + runs.ratio
    return Likelihood(ratio, math.exp(-ratio / 2.0))


def zone(exceedances: int, periods: int, rate: float = RATE) -> Zone:
    """Basel's traffic light for any number of periods; with 250: green to 4, yellow to 9, red from 10."""
    reached = _at_most(exceedances, periods, rate)
    if exceedances == 0 or reached < YELLOW_FROM:
        return "green"
    return "yellow" if reached < RED_FROM else "red"


def zones(exceeded: Flags, rate: float = RATE, window: int = WINDOW) -> list[Zone]:
    """The light of each whole window of periods, one after another; what is left at the end has none."""
    whole = len(exceeded) // window
    parts = np.reshape(exceeded[: whole * window], (whole, window))
    return [zone(int(part.sum()), window, rate) for part in parts]


class Excess(NamedTuple):
    """How far losses went beyond what was to hold them, over the exceedances alone; NaN without any."""

    mean: float
    largest: float
    mean_over_held: float
    """Mean of loss over what was to hold it."""


def excess(loss: F64, held: F64) -> Excess:
    """Size of the exceedances of `held` by `loss`, in their unit."""
    beyond = loss > held
    if not beyond.any():
        return Excess(math.nan, math.nan, math.nan)
    size = loss[beyond] - held[beyond]
    return Excess(float(size.mean()), float(size.max()), float((loss[beyond] / held[beyond]).mean()))


def _log_likelihood(events: int, trials: int, rate: float) -> float:
    """Of independent trials; 0 log 0 is 0."""
    found = 0.0
    if events:
        found += events * math.log(rate)
    if trials - events:
        found += (trials - events) * math.log1p(-rate)
    return found


def _at_most(events: int, trials: int, rate: float) -> float:
    """Probability of so many successes or fewer of a binomial variable."""
    if events >= trials:
        return 1.0
    odds = math.log(rate) - math.log1p(-rate)
    log_chance = trials * math.log1p(-rate)
    chances = [math.exp(log_chance)]
    for count in range(1, events + 1):
        log_chance += math.log((trials - count + 1) / count) + odds
        chances.append(math.exp(log_chance))
    return min(math.fsum(chances), 1.0)
