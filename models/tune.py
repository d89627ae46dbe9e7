"""Tuning: a search for the parameters of trees, which may change something only where the gain is clear.

Trials are judged as the number of trees is: by average precision over the folds of the same purged
walk-forward inside the training rows. Rows are binned once a head, and every trial trains on the same bins:
their bounds come from the features of all training rows, never from a label.

The best of many trials looks good on the folds that chose it, whatever it is. So what choosing brings is
measured on folds that had no part in it: each is scored by the trial that ranks the others best. Only where
this beats the fixed parameters by `CLEAR_GAIN` standard errors are the best ones taken. (The search itself
saw all folds when it proposed its trials; that much of kindness is left.) In all other cases the model is the
one that would have come without tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from models.grow import (
    FEWEST_EVENTS,
    PARAMETERS,
    ROUNDS,
    Ground,
    Grown,
    choose_rounds,
    clear,
    grow,
    mean_and_error,
    precisions,
    walked,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Floats = npt.NDArray[np.float64]

FEWEST_FOLDS = 3
"""Folds without which nothing is tuned: one is judged while others choose."""


@dataclass(frozen=True)
class Tuning:
    """How many trials a head, beside the fixed parameters, and who hears of each that is done or spared."""

    trials: int
    advance: Callable[[float], None] = lambda _: None


@dataclass(frozen=True)
class Binned(Ground):
    """The same rows, binned once; the part of each fold is lent to every trial."""

    parts: dict[int | None, lgb.Dataset]

    def data(self, fold: int | None) -> lgb.Dataset:
        """What a fold trains on, or all, as it was binned."""
        return self.parts[fold]


def binned(ground: Ground) -> Binned:
    """Bin the rows once and cut the training part of every fold from them."""
    # Trials differ in how few rows a leaf may hold: no column may be dropped on account of one of them.
    settings = ground.parameters({"feature_pre_filter": False})
    whole = lgb.Dataset(
        ground.features,
        ground.came.astype(np.float64),
        init_score=ground.levelled(slice(None)),
        params=settings,
        free_raw_data=True,
    ).construct()
    parts: dict[int | None, lgb.Dataset] = {None: whole}
    for number, fold in enumerate(ground.folds):
        part = whole.subset(fold.training.tolist()).construct()
        part.used_indices = None  # a list of Python's numbers, several times as large as the binned rows
        parts[number] = part.set_init_score(ground.levelled(fold.training))
    return Binned(**vars(ground), parts=parts)


def tuned(ground: Ground, tuning: Tuning | None) -> tuple[Grown, dict[str, Any]]:
    """Grow trees, by the best parameters where they are clearly better; with `tuning`, what was tried.

    Deterministic for the same rows, seed and number of trials. Nothing is tried where the folds are fewer
    than `FEWEST_FOLDS` or hold fewer than `FEWEST_EVENTS` events to judge by.
    """
    if tuning is None:
        return grow(ground), {}
    judged = sum(int(ground.came[fold.validation].sum()) for fold in ground.folds)
    if len(ground.folds) < FEWEST_FOLDS or judged < FEWEST_EVENTS:
        tuning.advance(tuning.trials)
        return grow(ground), {"tuning": {"trials": 0, "chosen": False}}
    rows = binned(ground)
    tried, scores = _search(rows, tuning)
    reached = [value_of(one) for one in scores]
    best = int(np.argmax(reached))
    rounds = choose_rounds(scores[best])
    gain = unseen(scores) - scores[0, ROUNDS.index(choose_rounds(scores[0]))]
    chosen = best > 0 and rounds > 0 and clear(gain)
    mean, error = mean_and_error(gain)
    facts = {
        "trials": tuning.trials,
        "chosen": chosen,
        "parameters": tried[best],
        "gain": mean,
        "gain_standard_error": error,
        "tried": [one | {"gain_over_none": value} for one, value in zip(tried, reached, strict=True)],
    }
    return (grow(rows, tried[best]) if chosen else grow(ground)), {"tuning": facts}


def _search(rows: Binned, tuning: Tuning) -> tuple[list[dict[str, Any]], Floats]:
    """Parameters of all trials, the fixed ones first, and their scores, (trials + 1, ROUNDS, folds)."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _space()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=rows.seed))
    study.enqueue_trial({name: PARAMETERS[name] for name in space})
    tried, scores = [], []
    for number in range(tuning.trials + 1):
        trial = study.ask(space)
        tried.append(dict(trial.params))
        scores.append(precisions(rows, walked(rows, rows.parameters(trial.params))))
        study.tell(trial, value_of(scores[-1]))
        if number:
            tuning.advance(1)
    return tried, np.array(scores)


def _space() -> dict[str, BaseDistribution]:
    """What is searched; the fixed parameters lie inside. The number of trees is the folds' choice as ever."""
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        "num_leaves": IntDistribution(2, 31, log=True),
        "min_data_in_leaf": IntDistribution(20, 2_000, log=True),
        "learning_rate": FloatDistribution(0.01, 0.2, log=True),
        "lambda_l2": FloatDistribution(1.0, 200.0, log=True),
        "feature_fraction": FloatDistribution(0.3, 1.0),
    }


def value_of(scores: Floats) -> float:
    """What a trial is ranked by: the best mean over folds of any number of trees, less that of none."""
    mean = scores.mean(axis=1)
    return float(mean[1:].max() - mean[0])


def unseen(scores: Floats) -> Floats:
    """Each fold's score by the trial and number of trees that are best on the other folds, (folds,)."""
    each = scores.reshape(-1, scores.shape[-1])
    others = each.sum(axis=1, keepdims=True) - each
    return each[others.argmax(axis=0), np.arange(each.shape[1])]
