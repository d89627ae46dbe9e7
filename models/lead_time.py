"""How long before a default an account was flagged, and what a flag is worth.

A score is read as an alarm at the level where a stated share of the alarmed rows comes true. The level is
found on the judged rows themselves, with hindsight: it makes rankings comparable at equal quality of
alarms, it is no promise of what a level chosen beforehand would have given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.units import HOUR_US
from models import metrics as mt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PRECISION = 0.30
QUIET_US = 24 * HOUR_US
"""Another default of the same account within this time is the same failure going on."""
LOOKBACK_US = 72 * HOUR_US
QUARTILES = (0.25, 0.5, 0.75)


class Defaults(NamedTuple):
    """Defaults of accounts, each account's in time order."""

    account: I64
    time_us: I64


def first_defaults(account: I64, time_us: I64, quiet_us: int = QUIET_US) -> Defaults:
    """Defaults that begin a failure: those less than `quiet_us` after another of the account are left out.

    Input in any order, repeats allowed.
    """
    order = np.lexsort((time_us, account))
    who, when = np.asarray(account, np.int64)[order], np.asarray(time_us, np.int64)[order]
    first = np.ones(len(who), bool)
    first[1:] = (who[1:] != who[:-1]) | (when[1:] - when[:-1] >= quiet_us)
    return Defaults(who[first], when[first])


def precision_level(happened: Flags, probability: F64, precision: float = PRECISION) -> float:
    """The lowest probability at or above which at least the share `precision` of rows has an event.

    Rows of equal probability are alarmed together. inf where no level reaches it.
    """
    ranked = mt.Ranked.of(happened, probability)
    caught = np.cumsum(ranked.happened)[ranked.ends - 1]
    enough = np.flatnonzero(caught >= precision * ranked.ends * (1 - 1e-12))
    return float(ranked.probability[ranked.ends[enough[-1]] - 1]) if len(enough) else float("inf")


def lead_times_h(
    time_us: I64,
    account: I64,
    probability: F64,
    defaults: Defaults,
    level: float,
    lookback_us: int = LOOKBACK_US,
) -> F64:
    """Hours of warning before each default, float64[defaults]; 0 where there was none.

    A warning is the unbroken run of alarms (probability >= level) at the account's own decision times
    that still stands at the last one before the default: an alarm that was called off warned nobody. It is
    followed back `lookback_us` at most. NaN where the account was never scored within the lookback.
    """
    order = np.lexsort((time_us, account))
    row_account, row_time, calm = account[order], time_us[order], probability[order] < level
    lower = np.searchsorted(row_account, defaults.account, side="left")
    upper = np.searchsorted(row_account, defaults.account, side="right")
    hours = np.full(len(defaults.account), np.nan)
    for i, (low, high, when) in enumerate(zip(lower, upper, defaults.time_us, strict=True)):
        seen = row_time[low:high]
        begin = low + np.searchsorted(seen, when - lookback_us, side="left")
        end = low + np.searchsorted(seen, when, side="left")
        if begin == end:
            continue
        quiet = np.flatnonzero(calm[begin:end])
        run = begin + (quiet[-1] + 1 if len(quiet) else 0)
        hours[i] = (when - row_time[run]) / HOUR_US if run < end else 0.0
    return hours


class Warned(NamedTuple):
    """What alarms at one level were worth; hours and share count defaults that were scored before."""

    level: float
    alarmed_rows: int
    scored_defaults: int
    share_caught: float
    quartiles_h: F64
    """Lower quartile, median and upper quartile of the hours, over the defaults that were caught."""


FIGURES = ("share_caught", "lower_quartile_h", "median_h", "upper_quartile_h")


def warned(probability: F64, level: float, hours: F64) -> Warned:
    """Figures of the alarms at a level, `hours` being those of `lead_times_h`."""
    scored = np.isfinite(hours)
    values = _figures(hours[scored], np.ones(int(scored.sum())))
    return Warned(level, int((probability >= level).sum()), int(scored.sum()), float(values[0]), values[1:])


def resampled(hours: F64, defaults: Defaults, draws: int, seed: int) -> F64:
    """FIGURES of resamples of whole days and accounts of the scored defaults, float64[draws, 4]."""
    scored = np.isfinite(hours)
    drawn = np.full((draws, len(FIGURES)), np.nan)
    weights = mt.resamples(defaults.time_us[scored], defaults.account[scored], draws, seed)
    for draw, weight in enumerate(weights):
        drawn[draw] = _figures(hours[scored], weight)
    return drawn


def _figures(hours: F64, weight: F64) -> F64:
    """Share caught and quartiles of the hours of those caught; a default of weight 2 counts as two."""
    total = weight.sum()
    if total <= 0:
        return np.full(len(FIGURES), np.nan)
    caught = hours > 0
    share = weight[caught].sum() / total
    order = np.argsort(hours[caught])
    reached = np.cumsum(weight[caught][order])
    if share == 0:
        return np.array([0.0, np.nan, np.nan, np.nan])
    at = np.searchsorted(reached, np.array(QUARTILES) * reached[-1] * (1 - 1e-12), side="left")
    return np.concatenate(([share], hours[caught][order][at]))
