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
from models.heads import Outputs
from models.session import Session
from serving.policy import suggest
from serving.reasons import Explainer, Explanation, Reason

Floats = npt.NDArray[np.float64]

MARK_LIFETIME_S = 3_600.0
"""A mark older than this says nothing of what an account is worth now."""

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
    fallback: list[str | None]  # why the row is a fallback, None where it is not

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

    def __init__(self, bundle: Bundle) -> None:
        """Load the graph, the baselines' levels and the explanations of a bundle."""
        self.bundle = bundle
        self.model_version = bundle.model_version
        self._session = Session(bundle)
        try:
            self._required = np.array(
                [catalog.index(name) for name in bundle.model["required_features"]], np.int64
            )
            self._levels = {
                name: {
                    target: float(bundle.model["baseline_levels"][name][target])
                    for target in baselines.TARGETS
                }
                for name in baselines.BASELINES
            }
            self._unknown_severity = float(bundle.model["unknown_severity"])
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

    def score(self, vectors: Vectors) -> Scores:
        """Score every row; the same bytes whatever the other rows are."""
        figures = vectors.figures
        outputs = self._session.run(np.ascontiguousarray(vectors.features))
        pd = np.column_stack(
            [
                outputs.pd_liquidation_1h,
                outputs.pd_liquidation_8h,
                outputs.pd_liquidation_24h,
                outputs.pd_negative_equity_24h,
            ]
        )
        fallback = self._fallbacks(vectors, pd)
        failed = np.array([reason is not None for reason in fallback], bool)
        if failed.any():
            pd[failed] = self.baseline("structural", vectors.where(failed))
        gross = figures[:, figure.GROSS_NOTIONAL_USD]
        with np.errstate(invalid="ignore", over="ignore"):  # absurd sizes give NaN, and that is a fallback
            closing_cost = figures[:, figure.CLOSING_COST_USD] / gross
            sigma_day = figures[:, figure.SIGMA_DAY_USD] / gross
        rates = suggest(
            figures[:, figure.STATIC_INITIAL_RATE],
            figures[:, figure.STATIC_MAINTENANCE_RATE],
            figures[:, figure.FIGURE_INITIAL_IN_FORCE],
            figures[:, figure.FIGURE_MAINTENANCE_IN_FORCE],
            pd[:, 2],
            closing_cost,
            sigma_day,
            failed,
        )
        return Scores(
            account=vectors.account,
            pd=pd,
            expected_loss_usd=pd[:, 3] * self._severity(outputs, failed) * gross,
            static_initial_rate=figures[:, figure.STATIC_INITIAL_RATE],
            initial_rate=rates.initial,
            maintenance_rate=rates.maintenance,
            warning=outputs.warning,
            fallback=fallback,
        )

    def _severity(self, outputs: Outputs, failed: npt.NDArray[np.bool_]) -> Floats:
        """Expected shortfall as a share of notional.

        Where the model failed or does not know what closing would meet, the most that it says of anybody: no
        account becomes cheaper because its data went missing.
        """
        return np.where(failed | np.isnan(outputs.severity), self._unknown_severity, outputs.severity)

    def _fallbacks(self, vectors: Vectors, pd: Floats) -> list[str | None]:
        """Why each row cannot be trusted, the most telling reason first; None where it can."""
        figures = vectors.figures
        missing = np.isnan(vectors.features[:, self._required])
        stale = ~(figures[:, figure.MARK_AGE_S] <= MARK_LIFETIME_S)
        reasons: list[str | None] = [None] * len(figures)
        unknown = (
            ("missing_mark", figure.GROSS_NOTIONAL_USD),
            ("missing_tiers", figure.STATIC_INITIAL_RATE),
            ("missing_collateral", figure.COLLATERAL_USD),
            ("missing_volatility", figure.BUFFER_OVER_SIGMA_DAY),
        )
        for row in np.flatnonzero(stale | missing.any(axis=1) | np.isnan(pd).any(axis=1)):
            for reason, column in unknown:
                if np.isnan(figures[row, column]):
                    reasons[row] = reason
                    break
            else:
                if stale[row]:
                    reasons[row] = "stale_mark"
                elif missing[row].any():
                    name = catalog.NAMES[self._required[int(np.argmax(missing[row]))]]
                    reasons[row] = f"missing_{name}"
                else:
                    reasons[row] = NO_NUMBER
        return reasons

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
