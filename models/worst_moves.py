"""What fixed portfolios lose at worst within a period after each of many times, and how volatile they were.

A portfolio is a weight for each market, as shares of its gross notional: long positive, sizes adding up to
one. Its loss over (T, T + period] is the largest fall of its value from the marks at T, as a share of gross
notional, 0 if it never falls. A portfolio of one market meets the lows and highs within bars; where several
are held their extremes need not come together, and the marks at which bars end are taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.units import SECOND_US
from features.arithmetic import pool_sigma
from features.volatility import HALF_LIVES_H, RING_HOURS, SERIES_COLUMNS, forecast_variance, observe_price

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

OLDEST_MARK = 0.5
"""Share of the period that a mark may be old, at its start or within it; else the period is not judged."""


class Marks(NamedTuple):
    """Bars of m markets side by side at n rising times; NaN where a market has no bar at a time."""

    time_us: Integers  # int64[n]
    close: Floats  # float64[n, m]
    high: Floats  # float64[n, m], NaN also where only the close is known
    low: Floats

    def until(self, time_us: int) -> Marks:
        """The bars that were known at a time."""
        return Marks._make(column[: np.searchsorted(self.time_us, time_us, "right")] for column in self)


def sigmas(marks: Marks, at_us: Integers, period_us: int) -> Floats:
    """Standard deviation of each market's return over the coming period as it was forecast at rising times.

    float64[times, markets], as fractions, by the forecast that the live venue makes of the same bars; NaN
    before a market's second bar.
    """
    out = np.full((len(at_us), marks.close.shape[1]), np.nan)
    for market in range(out.shape[1]):
        known = ~np.isnan(marks.close[:, market])
        _walk(marks.time_us[known], marks.close[known, market], at_us, period_us, out[:, market])
    return out


@compiled
def _walk(time_us: Integers, close: Floats, at_us: Integers, period_us: int, out: Floats) -> None:
    variance = np.full(len(HALF_LIVES_H), np.nan)
    series = np.full(SERIES_COLUMNS, np.nan)
    ring = np.zeros(RING_HOURS)
    period_s = period_us / SECOND_US
    bar = 0
    for row in range(len(at_us)):
        while bar < len(time_us) and time_us[bar] <= at_us[row]:
            if bar > 0:
                log_return = math.log(close[bar] / close[bar - 1])
                elapsed_us = time_us[bar] - time_us[bar - 1]
                observe_price(log_return, time_us[bar], elapsed_us, variance, series, ring)
            bar += 1
        out[row] = math.sqrt(forecast_variance(series, variance, period_s) * period_s)


def portfolio_sigmas(weights: Floats, sigma: Floats) -> Floats:
    """Sigma of a portfolio, float64[times], from weights float64[markets] and `sigmas` of its markets."""
    held = np.flatnonzero(weights)
    exposure = weights[held] * sigma[:, held]
    return _pooled((exposure**2).sum(axis=1), exposure.sum(axis=1))


@compiled
def _pooled(squares: Floats, total: Floats) -> Floats:
    out = np.empty(len(total))
    for row in range(len(total)):
        out[row] = pool_sigma(squares[row], total[row])
    return out


def worst_losses(marks: Marks, weights: Floats, at_us: Integers, period_us: int) -> Floats:
    """Loss of a portfolio over (T, T + period] for each of rising times T, float64[times].

    NaN where a mark that it needs is older than OLDEST_MARK allows at T or becomes so before T + period, or
    where the period ends after the last bar: nobody knows then what the worst was.
    """
    out = np.full(len(at_us), np.nan)
    ended = at_us + period_us <= (marks.time_us[-1] if len(marks.time_us) else -1)
    if ended.any() and weights.any():
        out[ended] = _worst_of(marks, weights, at_us[ended], period_us)
    return out


def worst_losses_of_many(marks: Marks, weights: Floats, at_us: int, period_us: int) -> Floats:
    """`worst_losses` at one time of many portfolios, float64[n], from weights float64[n, markets]."""
    oldest_us = int(OLDEST_MARK * period_us)
    first = np.searchsorted(marks.time_us, at_us - oldest_us)
    last = np.searchsorted(marks.time_us, at_us + period_us, "right")
    if len(marks.time_us) == 0 or marks.time_us[-1] < at_us + period_us:
        return np.full(len(weights), np.nan)
    near = Marks._make(column[first:last] for column in marks)
    at = np.array([at_us], np.int64)
    return np.array([_worst_of(near, of, at, period_us)[0] if of.any() else math.nan for of in weights])


def _worst_of(marks: Marks, weights: Floats, at_us: Integers, period_us: int) -> Floats:
    held = np.flatnonzero(weights)
    out = np.full(len(at_us), np.nan)
    close, high, low = (np.ascontiguousarray(side[:, held]) for side in (marks.close, marks.high, marks.low))
    oldest_us = int(OLDEST_MARK * period_us)
    _worst(marks.time_us, close, high, low, weights[held], at_us, period_us, oldest_us, out)
    return out


@compiled
def _worst(
    time_us: Integers,
    close: Floats,
    high: Floats,
    low: Floats,
    weights: Floats,
    at_us: Integers,
    period_us: int,
    oldest_us: int,
    out: Floats,
) -> None:
    bars, held = close.shape
    now = np.full(held, np.nan)
    seen = np.full(held, np.iinfo(np.int64).min)
    mark = np.empty(held)
    last = np.empty(held, np.int64)
    bar = 0
    for row in range(len(at_us)):
        start = at_us[row]
        while bar < bars and time_us[bar] <= start:
            for k in range(held):
                if not math.isnan(close[bar, k]):
                    now[k] = close[bar, k]
                    seen[k] = time_us[bar]
            bar += 1
        end = start + period_us
        known = True
        for k in range(held):
            known = known and not math.isnan(now[k]) and seen[k] >= start - oldest_us
            mark[k] = now[k]
            last[k] = seen[k]
        worst = 0.0
        after = bar
        while known and after < bars and time_us[after] <= end:
            value = 0.0
            for k in range(held):
                if not math.isnan(close[after, k]):
                    known = known and time_us[after] - max(last[k], start) <= oldest_us
                    mark[k] = close[after, k]
                    if held == 1 and last[k] >= start:  # a bar that began before T may hold an older extreme
                        extreme = low[after, k] if weights[k] > 0.0 else high[after, k]
                        if not math.isnan(extreme):
                            mark[k] = extreme
                    last[k] = time_us[after]
                value += weights[k] * (mark[k] / now[k] - 1.0)
            worst = max(worst, -value)
            after += 1
        for k in range(held):
            known = known and end - last[k] <= oldest_us
        if known:
            out[row] = worst
