"""Scores of labelled rows, and the figures of one set of them: the model beside both baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_US
from models import metrics as mt

SCORES = ("model", "margin_ratio", "structural")
BASELINES = ("margin_ratio", "structural")
COMPARED = ("roc_auc", "average_precision")
LEAST_EQUITY_USD = 100.0

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Json = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Rows (account and decision time) of one target and horizon with the probabilities to compare.

    `happened` is the label: the event at `event_us` lies in (time_us, label_end_us]; `event_us` means nothing
    where it did not happen. `equity_usd` and `notional_usd` (gross) are the account's at T, `long_share` the
    long part of its notional; rows where one is NaN are in no panel that needs it. `probability` holds
    float64[n] for each name in SCORES, NaN where a score has none.
    """

    time_us: I64
    account: I64
    happened: Flags
    event_us: I64
    label_end_us: I64
    equity_usd: F64
    notional_usd: F64
    long_share: F64
    probability: Mapping[str, F64]

    def where(self, chosen: npt.NDArray[np.generic]) -> Scored:
        """The rows chosen by a mask or by their numbers."""
        columns = {
            field.name: getattr(self, field.name)[chosen]
            for field in fields(self)
            if field.name != "probability"
        }
        return Scored(
            **columns, probability={name: values[chosen] for name, values in self.probability.items()}
        )


def panel(scored: Scored, draws: int, seed: int, weight: F64 | None = None) -> Json:
    """The figures of one set of rows for the model, both baselines and the differences between them.

    Each score is measured on the rows where it has a probability (its own `rows`, `events`, `accounts`),
    each difference on the rows where both have one. Intervals hold 90% of `draws` resamples of whole days
    and accounts, the same for every score. What is undefined is None. With `weight` (float64[n], finite and
    not negative) every figure counts a row as often as its weight says; counts of rows stay counts.
    """
    known = {name: np.isfinite(scored.probability[name]) for name in SCORES}
    both = {name: known["model"] & known[name] for name in BASELINES}
    subsets = [(name, known[name]) for name in SCORES]
    subsets += [(name, both[baseline]) for baseline in BASELINES for name in ("model", baseline)]
    # Scores are mostly known everywhere: what is measured on the same rows is measured once.
    distinct = {(name, mask.tobytes()): mask for name, mask in subsets}
    ranked = {
        key: mt.Ranked.of(scored.happened[mask], scored.probability[key[0]][mask])
        for key, mask in distinct.items()
    }
    values = {
        key: mt.measure(ranked[key], None if weight is None else weight[mask])
        for key, mask in distinct.items()
    }
    drawn = {key: np.full((draws, len(mt.METRICS)), np.nan) for key in distinct}
    for draw, repeats in enumerate(mt.resamples(scored.time_us, scored.account, draws, seed)):
        counted = repeats if weight is None else repeats * weight
        for key, mask in distinct.items():
            drawn[key][draw] = mt.measure(ranked[key], counted[mask])

    result: Json = {**_counts(scored), "days": len(np.unique(scored.time_us // DAY_US))}
    for name in SCORES:
        key = (name, known[name].tobytes())
        result[name] = _figures(scored.where(known[name]), name, values[key], drawn[key])
    result["differences"] = {}
    for baseline in BASELINES:
        model, other = ((name, both[baseline].tobytes()) for name in ("model", baseline))
        result["differences"][baseline] = _difference(
            values[model] - values[other], drawn[model] - drawn[other]
        )
    if weight is not None:
        result["weight"] = {"total": float(weight.sum()), "events": float(weight[scored.happened].sum())}
    return result


def _counts(scored: Scored) -> Json:
    return {
        "rows": len(scored.happened),
        "events": int(scored.happened.sum()),
        "accounts": len(np.unique(scored.account[scored.happened])),
    }


def _figures(scored: Scored, name: str, values: F64, drawn: F64) -> Json:
    low, high = mt.measured_interval(values, drawn)
    figures = {metric: number(value) for metric, value in zip(mt.METRICS, values, strict=True)}
    intervals = {metric: [number(low[i]), number(high[i])] for i, metric in enumerate(mt.METRICS)}
    return {
        **_counts(scored),
        "predicted_events": float(scored.probability[name].sum()),
        **figures,
        "intervals": intervals,
    }


def _difference(change: F64, drawn: F64) -> Json:
    """Model minus baseline; in every draw both saw the same days and accounts."""
    low, high = mt.interval(drawn)
    return {
        metric: {"change": number(change[i]), "low": number(low[i]), "high": number(high[i])}
        for i, metric in enumerate(mt.METRICS)
        if metric in COMPARED
    }


def number(value: float) -> float | None:
    """The value for JSON, None where it is not defined."""
    return float(value) if math.isfinite(value) else None
