"""What a dataset's own bars up to a time say: log marks on a grid, betas, correlations, how fat tails are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.units import HOUR_US, MINUTE_US
from pipelines.store import Dataset

Floats = npt.NDArray[np.float64]

STEP_US = 30 * MINUTE_US
"""Of the grid: half an hour."""
LONGEST_GAP = 2
"""Points of the grid over which an older mark is carried; what comes after a longer gap is another path."""
LEAST_RETURNS = 48
"""Returns of two markets that both know, below which their correlation is the usual one."""
USUAL_CORRELATION = 0.75
SHRINK_RETURNS = 100
"""Weight of the usual correlation, in returns."""
FREEDOM = (3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 30.0)
LOWEST_BETA, HIGHEST_BETA = 0.2, 3.0
HALF_LIFE = 48
"""Points of the grid over which the variance that returns are divided by halves: a day."""


class Past(NamedTuple):
    """Marks of a dataset on a grid up to a time, T points and M markets."""

    time_us: npt.NDArray[np.int64]
    log_mark: Floats
    """float64[T, M], NaN where not known."""

    @property
    def returns(self) -> Floats:
        """float64[T - 1, M]."""
        return np.diff(self.log_mark, axis=0)


def past_of(dataset: Dataset, markets: tuple[str, ...], until_us: int) -> Past:
    """Marks of all bars up to `until_us`, the newest in each half hour."""
    bars = dataset.read("market_bars", None, until_us).select("time", "market", "mark_close")
    number = {name: key for key, name in enumerate(markets)}
    bars = bars.filter(pl.col("market").is_in(list(markets))).sort("time", maintain_order=True)
    if bars.is_empty():
        return Past(np.empty(0, np.int64), np.empty((0, len(markets))))
    point = bars["time"].to_physical().to_numpy() // -STEP_US * -1  # the grid's end of the bar's stretch
    first, last = int(point.min()), int(point.max())
    marks = np.full((last - first + 1, len(markets)), math.nan)
    column = np.array([number[name] for name in bars["market"]], np.int64)
    marks[point - first, column] = np.log(bars["mark_close"].to_numpy())  # later bars over earlier ones
    for _ in range(LONGEST_GAP):
        marks[1:] = np.where(np.isnan(marks[1:]), marks[:-1], marks[1:])
    return Past(np.arange(first, last + 1, dtype=np.int64) * STEP_US, marks)


def betas(past: Past, lead: int) -> Floats:
    """Move of each market per move of the leading one; 1 where too little is known, never far off."""
    returns = past.returns
    found = np.ones(returns.shape[1])
    for market in range(returns.shape[1]):
        both = np.isfinite(returns[:, market]) & np.isfinite(returns[:, lead])
        x, y = returns[both, lead], returns[both, market]
        if both.sum() >= LEAST_RETURNS and (x * x).sum() > 0.0:
            found[market] = float((x * y).sum() / (x * x).sum())
    return np.clip(found, LOWEST_BETA, HIGHEST_BETA)


def correlations(past: Past) -> Floats:
    """float64[M, M], drawn towards the usual one where returns are few; positive definite."""
    returns = past.returns
    count = returns.shape[1]
    found = np.full((count, count), USUAL_CORRELATION)
    for one in range(count):
        for other in range(one):
            both = np.isfinite(returns[:, one]) & np.isfinite(returns[:, other])
            seen = int(both.sum())
            if seen >= LEAST_RETURNS:
                a, b = returns[both, one], returns[both, other]
                scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
                if scale > 0.0:
                    own = float((a * b).sum()) / scale
                    weight = seen / (seen + SHRINK_RETURNS)
                    found[one, other] = found[other, one] = weight * own + (1.0 - weight) * USUAL_CORRELATION
    np.fill_diagonal(found, 1.0)
    values, vectors = np.linalg.eigh(found)
    repaired = (vectors * np.maximum(values, 1e-6)) @ vectors.T
    width = np.sqrt(np.diag(repaired))
    return np.asarray(repaired / np.outer(width, width))


def freedom(past: Past) -> float:
    """Degrees of freedom of Student's t that fit returns over their own recent volatility best."""
    standard = _standardised(past.returns)
    if len(standard) < LEAST_RETURNS:
        return FREEDOM[2]
    return max(FREEDOM, key=lambda nu: _likelihood(standard, nu))


def _standardised(returns: Floats) -> Floats:
    """Returns over the root of a fading mean of squares before them, all markets together."""
    keep = 0.5 ** (1.0 / HALF_LIFE)
    parts = []
    for column in returns.T:
        known = column[np.isfinite(column)]
        if len(known) < 2 * HALF_LIFE:
            continue
        variance = float(np.mean(known[:HALF_LIFE] ** 2))
        out = np.empty(len(known) - HALF_LIFE)
        for place, value in enumerate(known[HALF_LIFE:].tolist()):
            out[place] = value / math.sqrt(variance) if variance > 0.0 else 0.0
            variance = keep * variance + (1.0 - keep) * value**2
        parts.append(out)
    return np.concatenate(parts) if parts else np.empty(0)


def _likelihood(x: Floats, nu: float) -> float:
    """Log-likelihood of a t of variance one, up to what does not depend on `nu`."""
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(math.pi * (nu - 2))
    return float(len(x) * constant - (nu + 1) / 2 * np.log1p(x * x / (nu - 2)).sum())


class Window(NamedTuple):
    """A stretch of the past: its end and the moves within it, from its start on."""

    end_us: int
    moves: Floats
    """float64[K, M]: cumulative log moves; 0 for a market that is not known throughout."""


def worst_windows(past: Past, weights: Floats, points: int, count: int, sign: float) -> list[Window]:
    """The windows in which a weighted index moved most in a direction, none overlapping, worst first."""
    marks = past.log_mark
    if len(marks) <= points:
        return []
    change = marks[points:] - marks[:-points]
    known = np.isfinite(change)
    weight = np.where(known, weights, 0.0)
    total = weight.sum(axis=1)
    summed = (np.nan_to_num(change) * weight).sum(axis=1)
    index = np.divide(summed, total, out=np.zeros(len(change)), where=total > 0.5 * weights.sum())
    found: list[Window] = []
    taken = np.zeros(len(index), bool)
    for start in np.argsort(-sign * index, kind="stable").tolist():
        if len(found) == count or sign * index[start] <= 0.0:
            break
        if taken[max(start - points + 1, 0) : start + points].any():
            continue
        taken[start] = True
        moves = marks[start + 1 : start + points + 1] - marks[start]
        whole = np.isfinite(moves).all(axis=0)
        found.append(Window(int(past.time_us[start + points]), np.where(whole, np.nan_to_num(moves), 0.0)))
    return found


DAY_POINTS = 24 * HOUR_US // STEP_US
