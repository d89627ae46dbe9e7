"""Early warning: how unusual, on the risky side, the state of an account and its market is.

An isolation forest (scikit-learn) knows no labels: rows that few random splits set apart are unusual. Many
accounts are unusual by being safe, so every column is first cut at the quartile next to its risky side: only
what makes a state risky, and is not common, can set a row apart. The alarm is set so that a stated share of
the training rows raise it, whatever came of them: it speaks of states that labels have not punished yet. It
is no ranking of liquidations: as many alarms on the lowest margin ratios meet more of them.

What the graph of `models.export` computes from this is scikit-learn's own answer; `prepared` and `depth`
are the same two steps in numpy and scikit-learn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import emit as figure
from models.export import WarningSpec
from models.forest import DTYPES, Forest
from models.rows import Rows

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

WARNING_FEATURES = {
    "effective_leverage": 1,
    "margin_ratio": -1,
    "effective_buffer_over_sigma": -1,
    "buffer_over_sigma": -1,
    "stress_market_over_buffer": 1,
    "lowest_margin_ratio": -1,
    "unrealised_return": -1,
    "equity_change": -1,
    "drawdown": 1,
    "funding_against_day": 1,
    "position_over_depth": 1,
    "portfolio_sigma_day": 1,
    "volatility_trend": 1,
    "jump_share": 1,
    "depth_change": -1,
    "spread_change": 1,
    "open_interest_change": 0,
    "pressure_3pct": 1,
    "queue_ahead_over_depth": 1,
    "ignition_over_sigma": -1,
}
"""Columns of the catalogue, and the side on which each is risky: high (1), low (-1) or both (0)."""

CUT_AT = 0.75
"""Share of the rows in which a column is harmless: all of these count as one value. At the median small
differences among safe accounts set rows apart (`benchmarks/early_warning.py` compares)."""

ALARM_RATE = 0.01
"""Share of training rows that raise the alarm."""

TREES = 64
"""Twice as many rank no better and cost twice as much: 0.1 µs a tree and row."""

SAMPLE = 256
"""Rows that each tree sees: the size at which the method's authors found nothing more to gain."""

FEWEST_ROWS = SAMPLE
"""Rows without which there is no early warning."""

MOST_CALIBRATED = 200_000
"""Training rows on which the threshold is set, drawn at random where there are more."""

LEAST_LATER_US = 20 * HOUR_US
"""How much later within a day an account has to be seen again to tell what it lost."""

NOISE = 1e-9
"""Mean depths nearer than this are one depth: sums of the same leaves differ by rounding."""

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class EarlyWarning:
    """A fitted early warning: what goes into the graph, and what was learnt on the way."""

    spec: WarningSpec
    forest: IsolationForest
    model: dict[str, Any]
    """Constants for `model.json`."""


def fit(
    rows: Rows, seed: int = 7, sided: Mapping[str, int] = WARNING_FEATURES, cut_at: float = CUT_AT
) -> EarlyWarning | None:
    """Fit on one row an account and day; None where there are fewer than `FEWEST_ROWS`.

    `sided` are the columns and the side on which each is risky. The threshold is set on all rows.
    Deterministic for the same rows and seed. Labels are not looked at.
    """
    chosen = thinned(rows.time_us, rows.account, seed)
    if len(chosen) < FEWEST_ROWS:
        return None
    columns = np.array([catalog.index(name) for name in sided])
    values = rows.features[np.ix_(chosen, columns)]
    medians = _medians(values)
    sides = np.array(list(sided.values()))
    cuts = np.where(sides > 0, _quantiles(values, cut_at), _quantiles(values, 1.0 - cut_at))
    lowest = np.where(sides > 0, cuts, -LARGEST)
    highest = np.where(sides < 0, cuts, LARGEST)
    matrix = prepared(values, medians, lowest, highest)
    forest = IsolationForest(n_estimators=TREES, max_samples=SAMPLE, random_state=seed, n_jobs=1)
    with np.errstate(over="ignore", invalid="ignore"):  # it adds all cells up to see whether any is missing
        forest.fit(matrix)
    arrays = _arrays(forest)
    everybody = np.arange(len(rows.time_us))
    if len(everybody) > MOST_CALIBRATED:
        everybody = np.random.default_rng(seed).choice(everybody, MOST_CALIBRATED, replace=False)
    values = rows.features[np.ix_(everybody, columns)]
    depths = _depth(forest, arrays, prepared(values, medians, lowest, highest))
    threshold = _threshold(depths[~np.isnan(values).all(axis=1)], ALARM_RATE)
    spec = WarningSpec(columns.tolist(), medians, lowest, highest, arrays, threshold)
    model = {
        "features": list(sided),
        "sides": sides.tolist(),
        "medians": medians.tolist(),
        "cut_at": cut_at,
        "cuts": cuts.tolist(),
        "threshold": threshold,
        "alarm_rate": ALARM_RATE,
        "rows": len(chosen),
        "trees": TREES,
    }
    return EarlyWarning(spec, forest, model)


def thinned(time_us: Integers, account: Integers, seed: int) -> Integers:
    """One row of every account and day, drawn at random, rising: rows of a day are near-copies."""
    order = np.random.default_rng(seed).permutation(len(time_us))
    keys = np.column_stack([account[order], time_us[order] // DAY_US])
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.sort(order[first])


def _medians(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone has none
        return _within_float32(np.nanmedian(values, axis=0))


def _quantiles(values: Floats, share: float) -> Floats:
    """Values that rows have, since between an infinite one and another there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return _within_float32(np.nanquantile(values, share, axis=0, method="inverted_cdf"))


def _within_float32(found: Floats) -> Floats:
    """In which the forest sees them; 0 where nothing was known."""
    return np.clip(np.where(np.isnan(found), 0.0, found), -LARGEST, LARGEST)


def prepared(
    values: Floats, medians: npt.ArrayLike, lowest: npt.ArrayLike, highest: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """What scikit-learn is given for float64[n, columns]: filled, cut and rounded as `WarningSpec` says."""
    filled = np.where(np.isnan(values), medians, values)
    return np.asarray(np.minimum(np.maximum(filled, lowest), highest).astype(np.float32))


def _arrays(forest: IsolationForest) -> Forest:
    """The trees as arrays over the spec's columns; a leaf is worth the depth that a row in it has."""
    trees = [estimator.tree_ for estimator in forest.estimators_]
    sizes = [tree.node_count for tree in trees]
    start = np.concatenate([[0], np.cumsum(sizes)])
    first = np.repeat(start[:-1], sizes)
    joined = {
        name: np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("feature", "threshold", "children_left", "children_right", "n_node_samples")
    }
    depth = np.concatenate([tree.compute_node_depths() for tree in trees])
    leaf = joined["children_left"] < 0
    columns = {
        "start": start,
        "feature": np.where(leaf, -1, joined["feature"]),
        "threshold": np.where(leaf, 0.0, joined["threshold"]),
        "left": np.where(leaf, -1, joined["children_left"] + first),
        "right": np.where(leaf, -1, joined["children_right"] + first),
        "zero_left": ~leaf & (joined["threshold"] >= 0.0),
        "nan_left": np.zeros(len(leaf)),
        # in this order, as scikit-learn adds them: its depths count the root as one
        "value": depth + average_path_length(joined["n_node_samples"]) - 1.0,
        "cover": joined["n_node_samples"],
    }
    return Forest(**{name: column.astype(DTYPES[name]) for name, column in columns.items()})


def average_path_length(rows: npt.NDArray[np.generic]) -> Floats:
    """Mean depth at which one of so many rows would be alone (Liu, Ting and Zhou 2008, equation 1)."""
    count = np.maximum(np.asarray(rows, np.float64), 2.0)
    found = 2.0 * (np.log(count - 1.0) + np.euler_gamma) - 2.0 * (count - 1.0) / count
    return np.where(np.asarray(rows) <= 1, 0.0, np.where(np.asarray(rows) == 2, 1.0, found))


def _depth(forest: IsolationForest, arrays: Forest, matrix: npt.NDArray[np.float32]) -> Floats:
    """Mean depth of rows, summed tree by tree in order as scikit-learn and the graph do."""
    total = np.zeros(len(matrix))
    for first, estimator in zip(arrays.start[:-1], forest.estimators_, strict=True):
        total += arrays.value[first + estimator.tree_.apply(matrix)]
    return total / len(forest.estimators_)


def _threshold(depths: Floats, rate: float) -> float:
    """Half-way between two depths that rows have, with at most `rate` of the rows below it."""
    lowest = np.sort(depths)[: int(rate * len(depths)) + 1]
    gaps = np.diff(lowest, prepend=lowest[0] - 1.0)
    last = int(np.flatnonzero(gaps > NOISE)[-1])
    return float(lowest[last] - 0.5 * gaps[last])


# ---- how it does -----------------------------------------------------------------------------------


def early_warning(rows: Rows, warning: Floats, known: Flags, came: Flags) -> dict[str, Any]:
    """Share of rows that raise the alarm, and what came of them, beside as many of the margin ratio's.

    `warning` is that of the rows (NaN: none), `known` and `came` the label of liquidation within 24 h. The
    comparison alarms as many rows of a target, those with the lowest margin ratio. Losing half of the equity
    is judged on accounts that are seen again towards the end of the day: those liquidated meanwhile mostly
    are not. `complement` counts only rows that the margin ratio's alarms leave: the share of the events there
    that the warning alarms, and the share of all of them that it alarms, which chance would catch. Ready
    for JSON; undefined shares are null.
    """
    has_warning = ~np.isnan(warning)
    alarm = warning > 0.0
    ratio = rows.figures[:, figure.MARGIN_RATIO]
    fall_known, fell = _halved(rows)
    targets = {"liquidation_24h": (known, came), "half_of_equity_24h": (fall_known, fell)}
    return {
        "rows": int(has_warning.sum()),
        "alarm_rate": _share(int(alarm.sum()), int(has_warning.sum())),
        "targets": {
            name: _beside(alarm[chosen], ratio[chosen], happened[chosen])
            for name, (judged, happened) in targets.items()
            for chosen in [has_warning & judged]
        },
    }


def figures_of(found: dict[str, Any]) -> dict[str, float]:
    """The figures of `early_warning` by name, those that are defined."""
    figures = {"alarm_rate": found["alarm_rate"]}
    for target, beside in found["targets"].items():
        for who in ("warning", "margin_ratio", "complement"):
            for name, value in beside[who].items():
                figures[f"{target}_{who}_{name}"] = value
    return {f"early_warning_{name}": value for name, value in figures.items() if value is not None}


def _beside(alarm: Flags, ratio: Floats, came: Flags) -> dict[str, Any]:
    """Precision and recall of alarms, and of as many alarms on the lowest margin ratios."""
    lowest = np.zeros(len(alarm), bool)
    lowest[np.argsort(np.where(np.isnan(ratio), math.inf, ratio), kind="stable")[: int(alarm.sum())]] = True
    events = int(came.sum())
    left, alone = ~lowest, alarm & ~lowest
    return {
        "rows": len(alarm),
        "events": events,
        "alarms": int(alarm.sum()),
        **{
            name: {
                "precision": _share(int((raised & came).sum()), int(raised.sum())),
                "recall": _share(int((raised & came).sum()), events),
            }
            for name, raised in (("warning", alarm), ("margin_ratio", lowest))
        },
        "missed_by_margin_ratio": int((left & came).sum()),
        "complement": {
            "recall": _share(int((alone & came).sum()), int((left & came).sum())),
            "by_chance": _share(int(alone.sum()), int(left.sum())),
        },
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _halved(rows: Rows) -> tuple[Flags, Flags]:
    """Rows whose account is seen again 20 to 24 h later, and whether it lost more than half of its equity.

    What was paid out meanwhile is added back as far as it is remembered (`paid_out` forgets half in three
    days), so that a withdrawal is not a loss.
    """
    equity = rows.figures[:, figure.EQUITY_USD]
    times_us = np.unique(rows.time_us)

    def key(place: Integers) -> Integers:
        return np.asarray(rows.account * (len(times_us) + 1) + place)

    own = key(np.searchsorted(times_us, rows.time_us))
    order = np.argsort(own, kind="stable")
    # the account's last row within a day; its own at the earliest
    last = key(np.searchsorted(times_us, rows.time_us + DAY_US, side="right") - 1)
    later = order[np.searchsorted(own[order], last, side="right") - 1]
    passed_us = rows.time_us[later] - rows.time_us
    with np.errstate(invalid="ignore", over="ignore"):
        paid_out = np.nan_to_num(rows.features[:, catalog.index("paid_out")]) * equity
        remembered = paid_out * 0.5 ** (passed_us / (3.0 * DAY_US))
        kept = equity[later] + np.maximum(paid_out[later] - remembered, 0.0)
        known = (passed_us >= LEAST_LATER_US) & (equity > 0.0) & ~np.isnan(kept)
        return known, known & (kept < 0.5 * equity)
