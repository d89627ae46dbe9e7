"""Vectors in, scores out: the one path that batch jobs and the service share.

Whatever is missing is said: a row whose data or model failed is a fallback row, with the structural
baseline's probabilities where they can be computed and the margin that `serving.policy` gives a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features import catalog
from features import emit as figure
from features.venue import Vectors
from models import baselines
from models.bundle import Bundle, BundleError
from models.session import Session
from serving.judgement import (
    COLUMNS,
    EXPECTED_LOSS_USD,
    FIRST_PART,
    INITIAL_RATE,
    MAINTENANCE_RATE,
    PD,
    REASONS,
    STATIC_RATE,
    WHY,
    Constants,
    judge,
    judge_ladders,
    still_searched,
)
from serving.ladder import ROWS, Ladders, Levels
from serving.parts import STANDARD
from serving.policy import RUNGS
from serving.reasons import Explainer, Explanation, Reason

Floats = npt.NDArray[np.float64]

SEARCH = ((0, 1), (1, 4), (4, RUNGS))
"""Levels that are looked at together where many accounts are scored: most need the first and no other."""

ROWS_AT_ONCE = 8_192
"""Accounts whose levels are looked at together: what they take on the way is taken for these only."""

REASONS_FROM_PD_24H = 0.05
"""Reasons are given from this probability on, and wherever more than the static rate is suggested."""


NO_NUMBER = "model_gave_no_number"
"""Why a row is a fallback whose inputs are all there: it speaks against the model."""


class Scores(NamedTuple):
    """One row an account. Money in dollars, rates as shares of gross notional, NaN where unknown."""

    account: npt.NDArray[np.int64]
    pd: Floats  # (n, 4): liquidation within 1, 8 and 24 h, negative equity within 24 h
    expected_loss_usd: Floats
    static_initial_rate: Floats
    initial_rate: Floats
    maintenance_rate: Floats
    warning: Floats  # in splits of a tree: an alarm above 0 (`models.warning`), NaN where the model has none
    parts: Floats  # (n, PARTS) of the initial rate, whole ppm
    fallback: list[str | None]  # why the row is a fallback, None where it is not

    def where(self, rows: npt.NDArray[np.int64]) -> Scores:
        """The rows of those numbers."""
        reasons = [self.fallback[row] for row in rows.tolist()]
        return Scores._make([*(column[rows] for column in self[:-1]), reasons])

    @property
    def explained(self) -> npt.NDArray[np.bool_]:
        """Rows that are due reasons, fallback rows included."""
        return np.asarray(
            (self.pd[:, 2] >= REASONS_FROM_PD_24H) | (self.initial_rate > self.static_initial_rate)
        )


class Scorer:
    """A verified bundle, ready to score; one for each process.

    Raises BundleError where the bundle lacks what scoring needs.
    """

    def __init__(self, bundle: Bundle, terms: Floats = STANDARD) -> None:
        """Load the graph, the baselines' levels and the explanations of a bundle.

        `terms` of the margin are float64[TERMS] of `serving.parts`.
        """
        self.bundle = bundle
        self.model_version = bundle.model_version
        self._session = Session(bundle)
        self._one_ladder = self._session.bound(ROWS)
        try:
            self._levels = {
                name: {
                    target: float(bundle.model["baseline_levels"][name][target])
                    for target in baselines.TARGETS
                }
                for name in baselines.BASELINES
            }
            self._constants = Constants(
                np.array([catalog.index(name) for name in bundle.model["required_features"]], np.int64),
                np.array([self._levels["structural"][target] for target in baselines.TARGETS]),
                np.array([bundle.model["unknown_severity"]], np.float64),
                np.array(terms),
            )
            self._reasons = (*REASONS, *(f"missing_{name}" for name in bundle.model["required_features"]))
            self._priors = [catalog.index(name) for name in catalog.PRIOR_HAZARDS]
            self._explainer = Explainer(bundle)
        except (KeyError, TypeError, ValueError) as problem:
            raise BundleError(f"{bundle.path / 'model.json'}: lacks or misstates {problem}") from None

    def baseline(self, name: str, vectors: Vectors) -> Floats:
        """Calibrated probabilities of a baseline, float64[n, 4]."""
        return baselines.probabilities(
            name,
            self._levels[name],
            vectors.figures[:, figure.MARGIN_RATIO],
            vectors.figures[:, figure.BUFFER_OVER_SIGMA_DAY],
        )

    def score(self, vectors: Vectors, levels: Levels) -> Scores:
        """Score many rows, looking for each at as many levels as it takes; the same bytes in any company."""
        return self._score(vectors, levels)

    def assess(self, vectors: Vectors) -> Scores:
        """Score rows without a margin: its rates are NaN, for those who have no venue to put levels to."""
        return self._score(vectors, None)

    def score_at_once(self, ladders: Ladders) -> Scores:
        """Score rows in one call of the model, whose levels are all there; the same bytes as `score`."""
        accounts, rows, columns = ladders.features.shape
        session = self._one_ladder if accounts == 1 and rows == ROWS else self._session
        _, probabilities, warning = session.tables(ladders.features.reshape(-1, columns))
        table = np.empty((accounts, COLUMNS))
        judge_ladders(ladders.features, ladders.figures, probabilities, *self._constants, table)
        return self._scores(ladders.account, table, warning[::rows, 0].copy())

    def _score(self, vectors: Vectors, levels: Levels | None) -> Scores:
        features, figures = np.ascontiguousarray(vectors.features), np.ascontiguousarray(vectors.figures)
        _, probabilities, warning = self._session.tables(features)
        table = np.empty((len(features), COLUMNS))
        if levels is None:
            judge(features, figures, probabilities, np.zeros((len(features), 1)), self._constants, table)
            table[:, [INITIAL_RATE, MAINTENANCE_RATE, *range(FIRST_PART, COLUMNS)]] = np.nan
            return self._scores(vectors.account, table, warning[:, 0])
        ladder = np.full((len(features), RUNGS), np.nan)
        for start in range(0, len(features), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(features)))
            for first, last in SEARCH:
                left = still_searched(features, figures, probabilities, ladder, first, self._constants, rows)
                rows = rows[:left]
                if left == 0:
                    break
                read = levels(rows, first, last)
                found = self._session.tables(read.reshape(-1, read.shape[2]))[1]
                ladder[rows, first:last] = found[:, 2].reshape(left, last - first)
        judge(features, figures, probabilities, ladder, self._constants, table)
        return self._scores(vectors.account, table, warning[:, 0])

    def _scores(self, account: npt.NDArray[np.int64], table: Floats, warning: Floats) -> Scores:
        return Scores(
            account,
            table[:, PD : PD + 4],
            table[:, EXPECTED_LOSS_USD],
            table[:, STATIC_RATE],
            table[:, INITIAL_RATE],
            table[:, MAINTENANCE_RATE],
            warning,
            table[:, FIRST_PART:],
            [self._reasons[int(code)] for code in table[:, WHY].tolist()],
        )

    def take_apart(self, features: Floats) -> Explanation:
        """Scores of rows as sums of contributions; rows must have no missing prior."""
        return self._explainer.take_apart(features)

    def reasons(self, vectors: Vectors, scores: Scores, all_rows: bool = False) -> list[Sequence[Reason]]:
        """What raises each row's risk most, at most three reasons; empty where none are due.

        With `all_rows` for every row. Rows whose buffer or volatility is unknown have none to give.
        """
        wanted = np.ones(len(scores.fallback), bool) if all_rows else scores.explained
        # A stale row still has a buffer and a volatility to name; one without a prior has not.
        wanted = wanted & ~np.isnan(vectors.features[:, self._priors]).any(axis=1)
        rows = np.flatnonzero(wanted)
        found: list[Sequence[Reason]] = [()] * len(scores.fallback)
        for row, reasons in zip(rows, self._explainer.explain(vectors.features[rows]), strict=True):
            found[row] = reasons
        return found
