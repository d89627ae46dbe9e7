"""How good probabilities of default are: each figure with weights, ties exact, and its interval.

Rows carry a probability, whether the event happened, and optionally a weight; a row of weight 2 counts
as two rows. Rows of equal probability are one group whose order does not exist: no figure depends on the
order of the rows. A figure that the data does not define (no events, no rows) is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.units import DAY_US

METRICS = (
    "roc_auc",
    "average_precision",
    "recall_at_1pct_fpr",
    "brier",
    "log_loss",
    "predicted_over_actual",
    "top_1pct_observed_over_expected",
    "calibration_error",
)
AREA, PRECISION, RECALL, BRIER, LOSS, RATIO, TOP, ERROR = range(len(METRICS))
TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
"""Where quantile bins are cut: shares of the rows, counted from the riskiest."""
LEVEL = 0.90

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ranked:
    """Rows sorted once, riskiest first, so that a figure costs one pass for every new set of weights.

    `order` gives the original row numbers, `ends` one past the last row of each group of equal
    probability.
    """

    order: I64
    probability: F64
    happened: F64
    squared_error: F64
    surprise: F64
    ends: I64

    @classmethod
    def of(cls, happened: npt.ArrayLike, probability: npt.ArrayLike) -> Ranked:
        """Sort rows; raises ValueError for a probability outside [0, 1] or lengths that differ."""
        event = np.asarray(happened, np.float64)
        chance = np.asarray(probability, np.float64)
        if event.shape != chance.shape or event.ndim != 1:
            raise ValueError(f"events {event.shape} and probabilities {chance.shape} must be equally long")
        if not ((chance >= 0) & (chance <= 1)).all():
            raise ValueError("every probability must lie in [0, 1]")
        order = np.argsort(-chance, kind="stable")
        chance, event = chance[order], event[order]
        ends = np.flatnonzero(np.append(chance[1:] != chance[:-1], len(chance) > 0)) + 1
        tiny = np.finfo(np.float64).eps
        clipped = np.clip(chance, tiny, 1 - tiny)
        surprise = -np.where(event > 0, np.log(clipped), np.log1p(-clipped))
        return cls(order, chance, event, (chance - event) ** 2, surprise, ends)

    def weights(self, weight: npt.ArrayLike | None) -> F64:
        """Weights of the original rows in sorted order; ones where there are none."""
        return np.ones(len(self.order)) if weight is None else np.asarray(weight, np.float64)[self.order]


def measure(ranked: Ranked, weight: npt.ArrayLike | None = None) -> F64:
    """All METRICS in their order, float64[len(METRICS)], NaN where undefined.

    `roc_auc` and `average_precision` are those of scikit-learn. `recall_at_1pct_fpr` is the largest share
    of events that a threshold catches while it flags at most 1% of the rows without an event.
    `predicted_over_actual` is the expected count over the count that came. `top_1pct_...` compares events
    with expectation among the riskiest 1% of rows, counting the needed share of a group that straddles the
    edge. `calibration_error` is the mean over quantile bins, by rows, of |observed - predicted|, relative
    to the base rate.
    """
    w = ranked.weights(weight)
    figures = np.full(len(METRICS), np.nan)
    _sweep(
        w, ranked.probability, ranked.happened, ranked.squared_error, ranked.surprise, ranked.ends, figures
    )
    if not np.isnan(figures[ERROR]):
        bins = np.zeros((3, len(TENTHS) + 1))
        _bin_sums(w, ranked.probability, ranked.happened, ranked.ends, np.array(TENTHS), bins)
        figures[ERROR] = np.abs(bins[1] - bins[2]).sum() / bins[1].sum()
    return figures


@compiled
def _sweep(
    w: F64, probability: F64, happened: F64, squared_error: F64, surprise: F64, ends: I64, out: F64
) -> None:
    """All figures but the calibration error, which is set to 0 where it is defined. Rows by falling risk."""
    total, events, expected, brier, loss = 0.0, 0.0, 0.0, 0.0, 0.0
    for row in range(len(w)):
        total += w[row]
        events += w[row] * happened[row]
        expected += w[row] * probability[row]
        brier += w[row] * squared_error[row]
        loss += w[row] * surprise[row]
    if total <= 0.0:
        return
    out[BRIER], out[LOSS] = brier / total, loss / total
    if events <= 0.0:
        return
    others, wanted = total - events, total / 100.0
    area, precision, recall = 0.0, 0.0, 0.0
    top_events, top_expected, top_open = 0.0, 0.0, True
    reached, caught, start = 0.0, 0.0, 0
    for end in ends:
        here, caught_here, expected_here = 0.0, 0.0, 0.0
        for row in range(start, end):
            here += w[row]
            caught_here += w[row] * happened[row]
            expected_here += w[row] * probability[row]
        start = end
        before, false_before = reached, reached - caught
        reached += here
        caught += caught_here
        false_after = reached - caught
        if caught_here > 0.0:
            precision += caught_here * caught / reached
            area += caught_here * (others - (false_before + false_after) / 2.0)
            if 100.0 * false_after <= others * (1.0 + 1e-12):
                recall = caught / events
        if top_open and here > 0.0:
            share = min(1.0, (wanted - before) / here)
            top_events += share * caught_here
            top_expected += share * expected_here
            top_open = reached < wanted
    out[PRECISION], out[RATIO], out[ERROR] = precision / events, expected / events, 0.0
    if top_expected > 0.0:
        out[TOP] = top_events / top_expected
    if others > 0.0:
        out[AREA], out[RECALL] = area / (events * others), recall


@compiled
def _bin_sums(w: F64, probability: F64, happened: F64, ends: I64, cut_at: F64, out: F64) -> None:
    """Rows, events and expected events between the cuts, riskiest bin first, into out[3, cuts + 1].

    A group of equal probabilities stays whole, in the bin of its middle.
    """
    total = 0.0
    for weight in w:
        total += weight
    reached, start, number = 0.0, 0, 0
    for end in ends:
        here = 0.0
        for row in range(start, end):
            here += w[row]
        middle = reached + here / 2.0
        while number < len(cut_at) and total * cut_at[number] < middle:
            number += 1
        for row in range(start, end):
            out[0, number] += w[row]
            out[1, number] += w[row] * happened[row]
            out[2, number] += w[row] * probability[row]
        reached += here
        start = end


class Bins(NamedTuple):
    """Quantile bins from the lowest probabilities to the highest: summed weights per bin."""

    rows: F64
    events: F64
    expected: F64

    @property
    def predicted(self) -> F64:
        """Mean probability per bin."""
        return self.expected / self.rows

    @property
    def observed(self) -> F64:
        """Share of rows with an event per bin."""
        return self.events / self.rows


def quantile_bins(
    ranked: Ranked, cut_at: Sequence[float] = TENTHS, weight: npt.ArrayLike | None = None
) -> Bins:
    """Rows, events and expected events between the cuts (rising shares of rows); empty bins are left out."""
    sums = np.zeros((3, len(cut_at) + 1))
    w, cuts = ranked.weights(weight), np.array(cut_at, np.float64)
    _bin_sums(w, ranked.probability, ranked.happened, ranked.ends, cuts, sums)
    return Bins(*sums[:, sums[0] > 0][:, ::-1])


def metrics(
    happened: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> dict[str, float]:
    """Every figure of METRICS by its name."""
    values = measure(Ranked.of(happened, probability), weight)
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


def resamples(time_us: I64, account: I64, draws: int, seed: int) -> Iterator[F64]:
    """Weights float64[n] of `draws` resamples of whole UTC days and whole accounts.

    Days and accounts are drawn with replacement, independently; a row counts as often as its day times as
    often as its account. Rows of a day share the market and rows of an account share its owner's habits,
    so drawing single rows would promise far too much. The draws depend on the seed and on which days and
    accounts there are, not on the order of the rows. No rows, no draws.
    """
    days, day = np.unique(np.asarray(time_us, np.int64) // DAY_US, return_inverse=True)
    accounts, owner = np.unique(account, return_inverse=True)
    generator = np.random.default_rng(seed)
    for _ in range(draws if len(days) else 0):
        of_day = np.bincount(generator.integers(len(days), size=len(days)), minlength=len(days))
        of_account = np.bincount(
            generator.integers(len(accounts), size=len(accounts)), minlength=len(accounts)
        )
        yield (of_day[day] * of_account[owner]).astype(np.float64)


def interval(values: F64, level: float = LEVEL) -> tuple[F64, F64]:
    """Bounds [low, high] that hold `level` of the draws (axis 0), NaN where under half are defined."""
    tail = 50 * (1 - level)
    enough = np.isfinite(values).sum(axis=0) * 2 >= max(len(values), 1)
    bounds = np.full((2, *values.shape[1:]), np.nan)
    if enough.any():
        bounds[:, enough] = np.nanpercentile(values[:, enough], [tail, 100 - tail], axis=0)
    return bounds[0], bounds[1]


def measured_interval(values: F64, drawn: F64) -> tuple[F64, F64]:
    """Interval of each of METRICS from its value (values[m]) and its resamples (drawn[draws, m]).

    Absolute deviations grow with noise, and a resample holds more of it than the sample did, so the draws
    of `calibration_error` lie too high: they are scaled until their median is the figure itself.
    """
    scaled = drawn.copy()
    column = METRICS.index("calibration_error")
    errors = drawn[:, column][np.isfinite(drawn[:, column])]
    if len(errors) and np.median(errors) > 0:
        scaled[:, column] *= values[column] / np.median(errors)
    return interval(scaled)
