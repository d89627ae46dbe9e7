"""Trees over an offset: as many as a purged walk-forward inside the training rows speaks for.

The offset is what is known already (a prior's logit). Trees come in only where they clearly rank better than
the offset alone: what one episode gains another loses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from models import baselines
from models.labels import Fold, purged_folds

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.03,
    "num_leaves": 5,
    "min_data_in_leaf": 500,
    "lambda_l2": 50.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # on the few rows of a venue of hundreds of accounts threads only wait for each other
    "verbose": -1,
}
ROUNDS = (0, 30, 60, 120)
"""Numbers of trees to choose from; few, since the prior does most."""

FOLDS = 6
CLEAR_GAIN = 2.0
"""Standard errors over walk-forward folds by which one way of ranking must be better than another."""

FEWEST_EVENTS = 30
"""Accounts with an event that a head needs before anything but a constant is fitted."""


@dataclass(frozen=True)
class Ground:
    """Rows to grow trees on: `features` (n, columns that may be read), what is known already, what came."""

    features: Floats
    directions: Sequence[int]
    """Of each column, as the catalogue states it: trees are monotone in it."""
    offset: Floats
    came: Flags
    folds: list[Fold]
    seed: int

    def parameters(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """LightGBM's parameters: the fixed ones, and in their place those of `own`."""
        return {**PARAMETERS, **own, "monotone_constraints": list(self.directions), "seed": self.seed}

    def data(self, fold: int | None) -> lgb.Dataset:
        """The rows that a fold trains on, or all, over an offset whose level is brought to theirs."""
        chosen = slice(None) if fold is None else self.folds[fold].training
        return lgb.Dataset(
            self.features[chosen],
            self.came[chosen].astype(np.float64),
            init_score=self.levelled(chosen),
            free_raw_data=True,
        )

    def levelled(self, chosen: Integers | slice) -> Floats:
        """The offset of some rows, moved so that as many are expected among them as came."""
        offset = self.offset[chosen]
        return offset + baselines.fit_level(sigmoid(offset), self.came[chosen])


@dataclass(frozen=True)
class Grown:
    """Trees over an offset, with the margins that walk-forward gave them on rows that they had not seen."""

    booster: lgb.Booster | None
    rounds: int
    judged: Integers | Flags
    margin: Floats


def grow(ground: Ground, own: Mapping[str, Any] | None = None) -> Grown:
    """As many monotone trees as walk-forward speaks for: none, unless they clearly rank better."""
    parameters = ground.parameters(own or {})
    outside = walked(ground, parameters)
    rounds = choose_rounds(precisions(ground, outside))
    validated = ~np.isnan(outside[rounds])
    if rounds == 0 or ground.came[validated].sum() < FEWEST_EVENTS:
        # nothing was fitted, or the record is too short to look ahead in: calibrate on all there is
        return Grown(None, 0, np.ones(len(ground.came), bool), np.zeros(len(ground.came)))
    booster = lgb.train(parameters, ground.data(None), num_boost_round=rounds)
    return Grown(booster, rounds, validated, outside[rounds][validated])


def walked(ground: Ground, parameters: dict[str, Any]) -> dict[int, Floats]:
    """What trees add to the offset of rows that they have not seen, by their number; NaN in no fold."""
    outside = {count: np.full(len(ground.came), np.nan) for count in ROUNDS}
    for number, fold in enumerate(ground.folds):
        booster = lgb.train(parameters, ground.data(number), num_boost_round=ROUNDS[-1])
        unseen = ground.features[fold.validation]
        for count in ROUNDS:
            outside[count][fold.validation] = margin_of(booster, unseen, count)
    return outside


def margin_of(booster: lgb.Booster, features: Floats, rounds: int) -> Floats:
    """What the first `rounds` trees add."""
    if rounds == 0:  # LightGBM takes 0 for all
        return np.zeros(len(features))
    return np.asarray(booster.predict(features, raw_score=True, num_iteration=rounds, num_threads=1))


def precisions(ground: Ground, outside: Mapping[int, Floats]) -> Floats:
    """Average precision by number of trees and fold, (ROUNDS, folds)."""
    return np.array(
        [
            [
                average_precision_score(
                    ground.came[fold.validation], (ground.offset + outside[count])[fold.validation]
                )
                for fold in ground.folds
            ]
            for count in ROUNDS
        ]
    )


def choose_rounds(scores: Floats) -> int:
    """The number of trees with the best mean over the folds; none at all unless that is a clear gain."""
    if not scores.size:
        return 0
    best = int(scores.mean(axis=1).argmax())
    return ROUNDS[best] if clear(scores[best] - scores[0]) else 0


def clear(gain: Floats) -> bool:
    """Whether a gain, fold by fold, is more than `CLEAR_GAIN` times its standard error."""
    mean, error = mean_and_error(gain)
    return mean > CLEAR_GAIN * error


def mean_and_error(gain: Floats) -> tuple[float, float]:
    """Mean over folds and its standard error; 0 where there is one fold only."""
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return float(gain.mean()), error


def folds_of(time_us: Integers, label_end_us: Integers, came: Flags, most: int = FOLDS) -> list[Fold]:
    """Walk-forward folds with events on both sides; fewer where the record is short."""
    for count in range(most, 0, -1):
        try:
            folds = purged_folds(time_us, label_end_us, count)
        except ValueError:
            continue
        kept = [fold for fold in folds if came[fold.training].any() and came[fold.validation].any()]
        if kept:
            return kept
    return []


def sigmoid(score: Floats) -> Floats:
    """1 / (1 + exp(-score))."""
    return np.asarray(1.0 / (1.0 + np.exp(-score)))
