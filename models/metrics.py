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

from exchange.units import DAY_US, HOUR_US

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
    probability, `event_groups` the groups that hold an event, `event_rows` the sorted rows with one.
    """

    order: I64
    probability: F64
    happened: F64
    squared_error: F64
    surprise: F64
    ends: I64
    event_rows: I64
    event_groups: I64

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
        event_rows = np.flatnonzero(event)
        event_groups = np.unique(np.searchsorted(ends, event_rows, side="right"))
        tiny = np.finfo(np.float64).eps
        clipped = np.clip(chance, tiny, 1 - tiny)
        surprise = -np.where(event > 0, np.log(clipped), np.log1p(-clipped))
        return cls(order, chance, event, (chance - event) ** 2, surprise, ends, event_rows, event_groups)

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
    reached = np.concatenate(([0.0], np.cumsum(w)))
    total = reached[-1]
    area = precision = recall = ratio = top = error = brier = loss = np.nan
    events = float(w[ranked.event_rows].sum())
    if total > 0:
        # Sums of products rather than BLAS dots, whose threads cost more than they save at this size.
        brier = float((w * ranked.squared_error).sum() / total)
        loss = float((w * ranked.surprise).sum() / total)
    if events > 0:
        area, precision, recall = _ranking(ranked, w, reached, events)
        ratio = float((w * ranked.probability).sum() / events)
        top = _top_observed_over_expected(ranked, w, reached)
        bins = _quantile_bins(ranked, w, reached, TENTHS)
        error = float(np.abs(bins.events - bins.expected).sum() / events)
    return np.array([area, precision, recall, brier, loss, ratio, top, error])


def _ranking(ranked: Ranked, w: F64, reached: F64, events: float) -> tuple[float, float, float]:
    """ROC AUC, average precision and recall at 1% false positives.

    Only groups that hold an event move recall, so only they are visited.
    """
    others = float(reached[-1]) - events
    of_row = np.searchsorted(ranked.ends[ranked.event_groups], ranked.event_rows, side="right")
    caught_here = np.bincount(of_row, w[ranked.event_rows], len(ranked.event_groups))
    caught = np.cumsum(caught_here)
    starts = np.concatenate(([0], ranked.ends))[ranked.event_groups]
    ends = ranked.ends[ranked.event_groups]
    flagged = reached[ends]
    false_before = reached[starts] - (caught - caught_here)
    false_after = flagged - caught
    precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
    average_precision = float((caught_here * precision).sum() / events)
    if others <= 0:
        return np.nan, average_precision, np.nan
    outranked = others - (false_before + false_after) / 2
    area = float((caught_here * outranked).sum() / (events * others))
    allowed = 100 * false_after <= others * (1 + 1e-12)
    recall = float(caught[allowed].max(initial=0.0) / events)
    return area, average_precision, recall


def _top_observed_over_expected(ranked: Ranked, w: F64, reached: F64) -> float:
    """Events over expected events among the riskiest 1% of the weight; NaN where none is expected."""
    wanted = reached[-1] / 100
    group = int(np.searchsorted(reached[ranked.ends], wanted, side="left"))
    start = int(ranked.ends[group - 1]) if group else 0
    end = int(ranked.ends[group])
    share = (wanted - reached[start]) / (reached[end] - reached[start])
    w_top = np.append(w[:start], share * w[start:end])
    expected = float((w_top * ranked.probability[:end]).sum())
    return float((w_top * ranked.happened[:end]).sum()) / expected if expected > 0 else np.nan


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


def _quantile_bins(ranked: Ranked, w: F64, reached: F64, cut_at: Sequence[float]) -> Bins:
    """Bins between the cuts; a group of equal probabilities stays whole, in the bin of its middle."""
    ends = reached[ranked.ends]
    middle = (ends + np.concatenate(([0.0], ends[:-1]))) / 2
    cuts = np.searchsorted(middle, reached[-1] * np.array(cut_at), side="right")
    bounds = np.concatenate(([0], np.concatenate(([0], ranked.ends))[cuts], [len(w)]))
    expected_reached = np.concatenate(([0.0], np.cumsum(w * ranked.probability)))
    event_reached = np.concatenate(([0.0], np.cumsum(w[ranked.event_rows])))
    rows = np.diff(reached[bounds])
    expected = np.diff(expected_reached[bounds])
    events = np.diff(event_reached[np.searchsorted(ranked.event_rows, bounds, side="left")])
    filled = rows > 0
    return Bins(rows[filled][::-1], events[filled][::-1], expected[filled][::-1])


def quantile_bins(
    ranked: Ranked, cut_at: Sequence[float] = TENTHS, weight: npt.ArrayLike | None = None
) -> Bins:
    """Rows, events and expected events between the cuts (rising shares of rows); empty bins are left out."""
    w = ranked.weights(weight)
    return _quantile_bins(ranked, w, np.concatenate(([0.0], np.cumsum(w))), cut_at)


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


def alarm_level(probability: npt.ArrayLike, budget: float) -> float:
    """The lowest probability at which at most a share `budget` of all rows is alarmed (inf where none)."""
    ascending = np.sort(np.asarray(probability, np.float64))
    allowed = int(np.floor(budget * len(ascending) + 1e-9))
    values, first = np.unique(ascending, return_index=True)
    affordable = len(ascending) - first <= allowed
    return float(values[affordable][0]) if affordable.any() else float("inf")


def lead_times_h(
    time_us: I64,
    account: I64,
    probability: F64,
    event_account: I64,
    event_time_us: I64,
    levels: tuple[float, ...],
    lookback_us: int = 72 * HOUR_US,
    quiet_us: int = 24 * HOUR_US,
) -> F64:
    """Hours of warning before each first event, float64[events, levels]; 0 where there was none.

    A warning is the unbroken run of alarms (probability >= level) at the account's own decision times
    that still stands at the last one before the event: an alarm that was called off warned nobody. It is
    followed back `lookback_us` at most. Events less than `quiet_us` after another of the same account are
    its continuation and are left out; NaN where the account was never scored within the lookback.
    """
    by_account = np.lexsort((event_time_us, event_account))
    who, when = event_account[by_account], event_time_us[by_account]
    first = np.ones(len(who), bool)
    first[1:] = (who[1:] != who[:-1]) | (when[1:] - when[:-1] >= quiet_us)
    who, when = who[first], when[first]
    order = np.lexsort((time_us, account))
    row_account, row_time, chance = account[order], time_us[order], probability[order]
    lower = np.searchsorted(row_account, who, side="left")
    upper = np.searchsorted(row_account, who, side="right")
    hours = np.full((len(who), len(levels)), np.nan)
    for i, (low, high) in enumerate(zip(lower, upper, strict=True)):
        seen = row_time[low:high]
        begin = low + np.searchsorted(seen, when[i] - lookback_us, side="left")
        end = low + np.searchsorted(seen, when[i], side="left")
        if begin == end:
            continue
        for k, level in enumerate(levels):
            calm = np.flatnonzero(chance[begin:end] < level)
            run = begin + (calm[-1] + 1 if len(calm) else 0)
            hours[i, k] = (when[i] - row_time[run]) / HOUR_US if run < end else 0.0
    return hours
