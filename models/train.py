"""Training: hazards of liquidation over a structural prior, and what follows from a liquidation.

A hazard's score is `intercept + slope x (prior + trees)`. The prior is the first passage of the
account's buffer, which extrapolates; shallow trees, monotone in the direction that the catalogue states,
add what the prior misses: their number is chosen by walk-forward inside the training rows, and the
calibration is fitted on the predictions of the same walk-forward.

Trees read only what speaks of the account itself. A number that is the same for every account at a time
(a coin's volatility, say) lets trees memorise the few episodes of the past.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from exchange.errors import InputError
from features import catalog
from features import emit as figure
from models import baselines
from models.export import HeadSpec
from models.grow import FEWEST_EVENTS, Ground, Grown, folds_of, margin_of, sigmoid
from models.horizons import HORIZONS_H
from models.labels import NO_LABEL_END, Fold
from models.rows import Rows
from models.severity import fit_severity
from models.tune import Tuning, tuned

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TREE_FEATURES = (
    "margin_ratio",
    "buffer_over_sigma_slow",
    "slippage_over_buffer",
    "position_over_depth",
    "equity_change",
    "drawdown",
    "lowest_margin_ratio",
    "rescues",
    "past_liquidations",
    "paid_out",
    "turnover",
    "fills",
    "holding_hours",
    "loss_streak",
    "added_to_losers",
)
"""Columns that trees of a hazard may read: how far the account is from its end, and its habits."""

CUSHION_HAZARD = "cushion_hazard_1h"
OF_CLOSING_COST = "slippage_to_close_bps"
"""No head need read it, but the margin rests on it: without a book it must not come out cheaper."""

LOSS_FEATURES = (
    "cushion_over_closing_cost",
    "effective_leverage",
    "concentration",
    "portfolio_sigma_day",
    "slippage_to_close_bps",
    "slippage_double_bps",
    "position_over_depth",
    "position_over_open_interest",
    "pressure_3pct",
    "pressure_10pct",
    "ignition_over_sigma",
    "bankruptcy_hazard_24h",
    "haircut_share",
)
"""Columns that trees of what follows a liquidation may read: what closing meets, and what cushions it."""

REQUIRED_SHARE = 0.99
"""A feature that heads read and that is known in this share of the training rows is required: a row without
it is a fallback."""


@dataclass(frozen=True)
class TrainedHead:
    """A head as it goes into the graph, and what was learnt about it on the way."""

    spec: HeadSpec
    booster: lgb.Booster | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """Everything that training decides."""

    heads: list[TrainedHead]
    model: dict[str, Any]
    """Constants for `model.json`."""


TUNED_HEADS = 4
"""Heads whose trees can be tuned: the hazards and negative equity."""

Progress = Callable[[str], None]


def train(
    rows: Rows,
    seed: int = 7,
    progress: Progress = lambda _: None,
    tree_features: tuple[str, ...] = TREE_FEATURES,
    tuning: Tuning | None = None,
) -> Trained:
    """Fit all heads, calibrations and baseline levels on rows whose labels are all known by now.

    With `tuning` the parameters of trees are searched for, head by head (severity keeps the fixed ones).
    Deterministic for the same rows, seed and trials. Raises InputError where there are no rows or no
    liquidation.
    """
    if len(rows.time_us) == 0:
        raise InputError("there is nothing to train on: no account has an open position at a decision time")
    heads = []
    for k, hours in enumerate(HORIZONS_H):
        progress(f"hazard within {hours} h")
        heads.append(_hazard(rows, k, seed, tree_features, tuning))
    if not any(head.facts["events"] for head in heads):
        raise InputError("there is nothing to learn from: no liquidation within a day of any decision time")
    progress("negative equity")
    heads.append(_negative(rows, seed, tuning))
    lost = fit_severity(rows, [catalog.index(feature) for feature in LOSS_FEATURES], seed)
    heads.append(TrainedHead(lost.spec, lost.booster, lost.facts))
    known = ~np.isnan(rows.features)
    read = {column for head in heads for column in (head.spec.offset, *head.spec.features)} - {None}
    read.add(catalog.index(OF_CLOSING_COST))
    required = [
        name for k, name in enumerate(catalog.NAMES) if k in read and known[:, k].mean() >= REQUIRED_SHARE
    ]
    of_prior = ("effective_buffer_over_notional", "effective_buffer_over_sigma", "margin_ratio")
    usual = rows.features[:, [catalog.index(name) for name in of_prior]]
    usual = usual[(usual > 0.0).all(axis=1)]
    buffer, distance, ratio = np.median(usual, axis=0) if len(usual) else (0.1, 1.0, 2.0)
    model = {
        "horizons_h": list(HORIZONS_H),
        "heads": {head.spec.name: _constants(head) for head in heads},
        "required_features": required,
        "tree_features": list(tree_features),
        "baseline_levels": _levels(rows),
        "mean_severity": lost.mean,
        "unknown_severity": lost.unknown,
        "usual": {
            "effective_buffer_over_notional": float(buffer),
            "sigma_day": float(buffer / distance),
            "margin_ratio": float(ratio),
        },
        "seed": seed,
    }
    if tuning is not None:
        model["tuned_trials"] = tuning.trials
    return Trained(heads, model)


def _constants(head: TrainedHead) -> dict[str, Any]:
    spec = head.spec
    return {"intercept": spec.intercept, "slope": spec.slope, "link": spec.link, **head.facts}


def continued(trained: Trained, rows: Rows) -> Trained:
    """The same trees with levels and slopes of other rows: learnt on one venue, made at home on another.

    A head with too few accounts among `rows` only has its level moved, one with no case stays as it is, and
    so does severity.
    """
    heads = list(trained.heads)
    for k in range(len(HORIZONS_H)):
        counts, came = eligible(rows, k)
        heads[k] = _at_home(heads[k], rows.where(counts), came[counts])
    known, came = targets(rows)["negative_equity_24h"]
    counts = known & ((rows.liquidated_us <= rows.label_end_us[:, -1]) | came)
    heads[3] = _at_home(heads[3], rows.where(counts), came[counts])
    constants = {head.spec.name: _constants(head) for head in heads}
    return Trained(heads, trained.model | {"heads": constants, "baseline_levels": _levels(rows)})


def _at_home(head: TrainedHead, rows: Rows, came: Flags) -> TrainedHead:
    """A head calibrated anew on rows that count for it."""
    spec = head.spec
    margin = np.zeros(len(came)) if spec.offset is None else rows.features[:, spec.offset].copy()
    if head.booster is not None:
        margin += margin_of(head.booster, rows.features[:, list(spec.features)], head.facts["rounds"])
    known = ~np.isnan(margin)
    margin, came = margin[known], came[known]
    if not came.any():
        return head
    if len(np.unique(rows.account[known][came])) < FEWEST_EVENTS:
        score = spec.intercept + spec.slope * margin
        fitted = (spec.intercept + baselines.fit_level(sigmoid(score), came), spec.slope)
    else:
        fitted = _platt(margin, came)
    return replace(head, spec=replace(spec, intercept=fitted[0], slope=fitted[1]))


# ---- hazards ---------------------------------------------------------------------------------------


def eligible(rows: Rows, k: int) -> tuple[Flags, Flags]:
    """Rows that count for hazard k (none before, label known), and whether the event came."""
    end_us = rows.label_end_us[:, k]
    counts = end_us != NO_LABEL_END
    counts &= ~np.isnan(rows.features[:, catalog.index(catalog.PRIOR_HAZARDS[k])])
    if k:
        before_us = rows.label_end_us[:, k - 1]
        counts &= (before_us != NO_LABEL_END) & (rows.liquidated_us > before_us)
    return counts, rows.liquidated_us <= end_us


def _hazard(
    rows: Rows, k: int, seed: int, tree_features: tuple[str, ...], tuning: Tuning | None
) -> TrainedHead:
    counts, came = eligible(rows, k)
    name = f"hazard_{HORIZONS_H[k]}h"
    offset = catalog.index(catalog.PRIOR_HAZARDS[k])
    features, came = rows.features[counts], came[counts]
    account, time_us, end_us = rows.account[counts], rows.time_us[counts], rows.label_end_us[counts, k]
    accounts = len(np.unique(account[came]))
    facts: dict[str, Any] = {"rows": len(came), "events": int(came.sum()), "accounts": accounts}
    prior = features[:, offset]
    if accounts < FEWEST_EVENTS:
        _spared(tuning)
        shift = baselines.fit_level(sigmoid(prior), came)
        return TrainedHead(HeadSpec(name, None, (), offset, shift, 1.0), None, facts | {"rounds": 0})

    columns = [catalog.index(feature) for feature in tree_features]
    ground = _ground(features, columns, prior, came, folds_of(time_us, end_us, came), seed)
    grown, found = tuned(ground, tuning)
    intercept, slope = _platt(prior[grown.judged] + grown.margin, came[grown.judged])
    return _headed(name, grown, columns, offset, (intercept, slope), facts | found)


def _ground(
    features: Floats, columns: list[int], offset: Floats, came: Flags, folds: list[Fold], seed: int
) -> Ground:
    """Rows to grow trees on that read some columns of the catalogue."""
    directions = [catalog.FEATURES[column].direction for column in columns]
    return Ground(features[:, columns], directions, offset, came, folds, seed)


def _spared(tuning: Tuning | None) -> None:
    """Tell that a head needs no trials."""
    if tuning is not None:
        tuning.advance(tuning.trials)


def _headed(
    name: str,
    grown: Grown,
    columns: list[int],
    offset: int,
    calibration: tuple[float, float],
    facts: dict[str, Any],
) -> TrainedHead:
    """A head of grown trees and their calibration."""
    trees = grown.booster.dump_model() if grown.booster is not None else None
    spec = HeadSpec(name, trees, tuple(columns) if trees else (), offset, *calibration)
    return TrainedHead(spec, grown.booster, facts | {"rounds": grown.rounds})


def _platt(margin: Floats, came: Flags) -> tuple[float, float]:
    """Intercept and slope of logistic calibration; a slope that would turn the ranking round is 1."""
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(margin[:, None], came)
    slope = float(fitted.coef_[0, 0])
    if slope <= 0.0:
        return baselines.fit_level(sigmoid(margin), came), 1.0
    return float(fitted.intercept_[0]), slope


# ---- what follows from a liquidation ---------------------------------------------------------------


def _negative(rows: Rows, seed: int, tuning: Tuning | None) -> TrainedHead:
    """Negative equity within a day given liquidation: the passage of the cushion, calibrated, and trees.

    With few cases the share of accounts, with half a case added. Cases are counted once an account, since
    the rows of one failure are copies of each other.
    """
    name = "negative_given_liquidation"
    end_us = rows.label_end_us[:, -1]
    known = end_us != NO_LABEL_END
    came = rows.negative_us <= end_us
    chosen = np.flatnonzero(known & ((rows.liquidated_us <= end_us) | came))
    account, came = rows.account[chosen], came[chosen]
    cases, accounts = len(np.unique(account[came])), len(np.unique(account))
    facts: dict[str, Any] = {"rows": len(chosen), "events": int(came.sum()), "accounts": cases}
    features = rows.features[chosen]
    offset = catalog.index(CUSHION_HAZARD)
    prior = features[:, offset]
    spared = len(np.unique(account[~came]))
    if min(cases, spared) < FEWEST_EVENTS or not np.isfinite(prior).all():
        _spared(tuning)
        share = (cases + 0.5) / (accounts + 1.0)
        spec = HeadSpec(name, intercept=math.log(share / (1.0 - share)))
        return TrainedHead(spec, None, facts | {"fitted": "constant"})
    columns = [catalog.index(feature) for feature in LOSS_FEATURES]
    folds = folds_of(rows.time_us[chosen], end_us[chosen], came)
    grown, found = tuned(_ground(features, columns, prior, came, folds, seed), tuning)
    calibration = _platt(prior[grown.judged] + grown.margin, came[grown.judged])
    facts |= {"fitted": "calibrated cushion"} | found
    return _headed(name, grown, columns, offset, calibration, facts)


# ---- baselines -------------------------------------------------------------------------------------


def targets(rows: Rows) -> dict[str, tuple[Flags, Flags]]:
    """For each target of a score the rows whose label is known, and whether the event came."""
    found = {}
    for k, hours in enumerate(HORIZONS_H):
        end_us = rows.label_end_us[:, k]
        found[f"liquidation_{hours}h"] = (end_us != NO_LABEL_END, rows.liquidated_us <= end_us)
    end_us = rows.label_end_us[:, -1]
    found["negative_equity_24h"] = (end_us != NO_LABEL_END, rows.negative_us <= end_us)
    return found


def _levels(rows: Rows) -> dict[str, dict[str, float]]:
    levels: dict[str, dict[str, float]] = {}
    ratio = rows.figures[:, figure.MARGIN_RATIO]
    distance = rows.figures[:, figure.BUFFER_OVER_SIGMA_DAY]
    for baseline in baselines.BASELINES:
        levels[baseline] = {}
        for target, (known, came) in targets(rows).items():
            raw = baselines.raw_probability(baseline, target, ratio[known], distance[known])
            levels[baseline][target] = baselines.fit_level(raw, came[known])
    return levels


def purged(rows: Rows, until_us: int) -> Rows:
    """The rows as they could be known at `until_us`: later labels are unknown, later rows are gone."""
    kept = rows.time_us <= until_us
    label_end_us = np.where(rows.label_end_us <= until_us, rows.label_end_us, NO_LABEL_END)
    return rows._replace(label_end_us=label_end_us).where(kept)
