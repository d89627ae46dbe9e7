"""Severity: shortfall over gross notional given negative equity.

A constant, total over total, or a line: `intercept + slope x (prior + trees)`. The prior is what closing
costs in a crash's book beyond the maintenance margin (the column `prior_severity`): small positions lose
the gap that any account loses, large ones also what their own closing does to a thin book. The line is taken
only where a purged walk-forward inside the training rows shows it nearer than a constant, and its slope is
shrunk to none where cases are few. Trees come in over either only where they are clearly nearer still.

What is compared is the squared error of the share, every failed account counting once: its rows are copies
of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from features import catalog
from features import emit as figure
from models.export import HeadSpec
from models.forest import forest_from_dump
from models.grow import FEWEST_EVENTS, PARAMETERS, ROUNDS, choose_rounds, folds_of, margin_of
from models.labels import NO_LABEL_END, Fold
from models.rows import Rows

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PRIOR_SEVERITY = "prior_severity"

DEFAULT_SEVERITY = 0.05
"""Shortfall over notional where no case of negative equity was seen: the fee and a 3% gap."""

ACCOUNTS_OF_NO_SLOPE = 100.0
"""Accounts that, added to those seen, speak for a slope of none: of as many cases half of it is believed.

Chosen on simulated shocks like those that models are trained on, none of which judges them.
"""


class Line(NamedTuple):
    """`intercept + slope x prior`, a slope of 0 for a constant."""

    intercept: float
    slope: float

    def at(self, prior: Floats) -> Floats:
        """Severity, (n,), within 0 and 1."""
        return np.clip(self.intercept + self.slope * prior, 0.0, 1.0)


class Severity(NamedTuple):
    """The head, its trees, what was learnt, and two constants beside it."""

    spec: HeadSpec
    booster: lgb.Booster | None
    facts: dict[str, Any]
    mean: float
    """Total over total."""
    unknown: float
    """The most that the head can say: what is said where its inputs are missing."""


LEAF_ROWS = 50
"""Fewest rows in a leaf of a tree."""


@dataclass(frozen=True)
class Cases:
    """Rows before negative equity: what is known of them, the share of notional lost, and weights."""

    features: Floats
    prior: Floats
    part: Floats
    weight: Floats  # 1 an account, over its rows
    account: Integers
    folds: list[Fold]


def fit_severity(rows: Rows, columns: list[int], seed: int) -> Severity:
    """The head of severity; trees read `columns` of the catalogue.

    A line needs `FEWEST_EVENTS` accounts with negative equity, whose prior is known in every row, and as many
    in the validation of the walk-forward.
    """
    end_us = rows.label_end_us[:, -1]
    chosen = np.flatnonzero((end_us != NO_LABEL_END) & (rows.negative_us <= end_us))
    account = rows.account[chosen]
    mean = _total_over_total(rows, chosen)
    accounts = len(np.unique(account))
    facts: dict[str, Any] = {"rows": len(chosen), "events": len(chosen), "accounts": accounts}
    if accounts < FEWEST_EVENTS:
        return _headed(Line(mean, 0.0), None, 0, columns, facts, mean)
    gross = rows.figures[chosen, figure.GROSS_NOTIONAL_USD]
    cases = Cases(
        rows.features[chosen][:, columns],
        rows.features[chosen, catalog.index(PRIOR_SEVERITY)],
        np.clip(rows.shortfall_usd[chosen] / gross, 0.0, 1.0),
        1.0 / np.bincount(account)[account],
        account,
        [
            fold
            for fold in folds_of(rows.time_us[chosen], end_us[chosen], np.ones(len(chosen), bool))
            if len(fold.training) and len(fold.validation)  # purging may leave nothing on a short record
        ],
    )
    fitted = line if _is_nearer(cases) else constant
    base = fitted(cases, slice(None)) if fitted is line else Line(mean, 0.0)
    booster, rounds = _grow(cases, fitted, base, seed)
    return _headed(base, booster, rounds, columns, facts, mean)


def _total_over_total(rows: Rows, chosen: Integers) -> float:
    """Shortfall over notional, both summed over the last rows of the accounts."""
    last = {int(rows.account[row]): row for row in chosen[np.argsort(rows.time_us[chosen], kind="stable")]}
    once = np.array(sorted(last.values()), np.int64)
    lost = float(np.nansum(rows.shortfall_usd[once]))
    at_risk = float(np.nansum(rows.figures[once, figure.GROSS_NOTIONAL_USD]))
    return min(lost / at_risk, 1.0) if at_risk > 0.0 else DEFAULT_SEVERITY


# ---- the line --------------------------------------------------------------------------------------

Fit = Callable[[Cases, Integers | slice], Line]


def constant(cases: Cases, chosen: Integers | slice) -> Line:
    """The mean of some cases, an account counting once."""
    return Line(float(np.average(cases.part[chosen], weights=cases.weight[chosen])), 0.0)


def line(cases: Cases, chosen: Integers | slice) -> Line:
    """Least squares of some cases, the slope shrunk to none and never below."""
    prior, part, weight = cases.prior[chosen], cases.part[chosen], cases.weight[chosen]
    level, middle = np.average(part, weights=weight), np.average(prior, weights=weight)
    spread = np.average((prior - middle) ** 2, weights=weight)
    if not spread > 0.0:
        return Line(float(level), 0.0)
    slope = np.average((prior - middle) * (part - level), weights=weight) / spread
    slope = max(slope, 0.0) * weight.sum() / (weight.sum() + ACCOUNTS_OF_NO_SLOPE)
    return Line(float(level - slope * middle), float(slope))


def _is_nearer(cases: Cases) -> bool:
    """Whether the line is nearer than a constant on accounts that it has not seen."""
    if not np.isfinite(cases.prior).all() or _too_few(cases):
        return False
    gain = 0.0
    for fold in cases.folds:
        errors = []
        for fit in (constant, line):
            said = fit(cases, fold.training).at(cases.prior[fold.validation])
            missed = cases.part[fold.validation] - said
            errors.append(float((cases.weight[fold.validation] * missed**2).sum()))
        gain += errors[0] - errors[1]
    return gain > 0.0 and line(cases, slice(None)).slope > 0.0


def _too_few(cases: Cases) -> bool:
    """Whether walk-forward validates on too few accounts to tell anything."""
    validated = [cases.account[fold.validation] for fold in cases.folds]
    return not validated or len(np.unique(np.concatenate(validated))) < FEWEST_EVENTS


# ---- trees -----------------------------------------------------------------------------------------


def _grow(cases: Cases, fit: Fit, base: Line, seed: int) -> tuple[lgb.Booster | None, int]:
    """Trees of what the base misses, in units of its slope: none, unless they are clearly nearer."""
    if _too_few(cases) or min(len(fold.training) for fold in cases.folds) < 2 * LEAF_ROWS:
        return None, 0  # of fewer rows no tree can make two leaves
    parameters = PARAMETERS | {
        "objective": "regression", "boost_from_average": False, "min_data_in_leaf": LEAF_ROWS, "seed": seed
    }  # fmt: skip

    def grown(chosen: Integers | slice, over: Line, rounds: int) -> lgb.Booster:
        missed = (cases.part[chosen] - over.intercept) / scale(over) - offset(over)[chosen]
        data = lgb.Dataset(cases.features[chosen], missed, weight=cases.weight[chosen])
        return lgb.train(parameters, data, num_boost_round=rounds)

    def offset(over: Line) -> Floats:
        return cases.prior if over.slope > 0.0 else np.zeros(len(cases.part))

    gains = np.empty((len(ROUNDS), len(cases.folds)))
    for number, fold in enumerate(cases.folds):
        over = fit(cases, fold.training)
        booster = grown(fold.training, over, ROUNDS[-1])
        for place, count in enumerate(ROUNDS):
            margin = offset(over)[fold.validation] + margin_of(
                booster, cases.features[fold.validation], count
            )
            said = np.clip(over.intercept + scale(over) * margin, 0.0, 1.0)
            missed = cases.part[fold.validation] - said
            gains[place, number] = -float((cases.weight[fold.validation] * missed**2).sum())
    rounds = choose_rounds(gains)
    return (grown(slice(None), base, rounds), rounds) if rounds else (None, 0)


def scale(base: Line) -> float:
    """What a head multiplies its prior and trees by: the slope, or 1 where it has no prior."""
    return base.slope if base.slope > 0.0 else 1.0


# ---- the head --------------------------------------------------------------------------------------


def _headed(
    base: Line,
    booster: lgb.Booster | None,
    rounds: int,
    columns: list[int],
    facts: dict[str, Any],
    mean: float,
) -> Severity:
    has_prior = base.slope > 0.0
    spec = HeadSpec(
        "severity",
        booster.dump_model() if booster is not None else None,
        tuple(columns) if booster is not None else (),
        catalog.index(PRIOR_SEVERITY) if has_prior else None,
        base.intercept,
        scale(base),
        "identity",
    )
    facts = facts | {"fitted": "line" if has_prior else "constant", "rounds": rounds}
    highest = base.intercept + spec.slope * (has_prior + _highest(spec))  # the prior is at most 1
    return Severity(spec, booster, facts, mean, min(max(highest, mean), 1.0))


def _highest(spec: HeadSpec) -> float:
    """No row gets more from the trees of a head than the sum of their highest leaves."""
    if spec.trees is None:
        return 0.0
    forest = forest_from_dump(spec.trees, spec.features)
    leaves = np.where(forest.feature < 0, forest.value, -np.inf)
    return float(np.maximum.reduceat(leaves, forest.start[:-1]).sum())
