"""Reasons: what raises an account's probability of liquidation, in plain words that add up.

What is explained is the model's score within a day: the logits of the three hazards, weighted by the
share of each in the cumulated hazard. Contributions are Shapley values against the training data: of
the trees (`models.treeshap`), and of the structural prior, which is a function of two numbers, the
buffer as a share of the position and the volatility, so that its two Shapley values are exact by hand.
All contributions and the base sum to the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from features import catalog
from features.structural import logit, mixed_hazards
from models.bundle import Bundle
from models.session import Session
from models.treeshap import TreeShap

Floats = npt.NDArray[np.float64]

HAZARDS = ("hazard_1h", "hazard_8h", "hazard_24h")
MOST_REASONS = 3

LEAST_SHARE = 0.1
"""A reason is given if it weighs at least this much of the strongest one."""

_SAME_THING = {name: "buffer_over_sigma" for name in catalog.NAMES if name.startswith("buffer_over_sigma_")}
"""Forms of one statement to people: their contributions count together, under the plainest name."""

_BUFFER = catalog.index("buffer_over_notional")
_SLOW = catalog.index("buffer_over_sigma_slow")
_SIGMA = catalog.index("portfolio_sigma_day")


class Reason(NamedTuple):
    """One reason: a stable code, the feature, its value and what it adds to the score (logit)."""

    code: str
    feature: str
    value: float
    contribution: float

    @property
    def text(self) -> str:
        """The reason for people."""
        return catalog.FEATURES[catalog.index(self.feature)].words.format(self.value)


class Explanation(NamedTuple):
    """Scores taken apart, one row each: base + contributions.sum(axis=1) = score."""

    score: Floats  # (n,)
    base: Floats  # (n,)
    contributions: Floats  # (n, features)


@compiled
def _prior_logit(head: int, distance: float) -> float:
    """The structural prior of one hazard at a buffer of `distance` daily sigmas: the catalogue's own."""
    return logit(mixed_hazards(distance)[head])


@compiled
def _prior_parts(
    head: int, buffer: Floats, distance: Floats, usual_buffer: float, usual_sigma: float, out: Floats
) -> None:
    """Shapley values of buffer and sigma in a prior, against their usual values: out (n, 2)."""
    usual = _prior_logit(head, usual_buffer / usual_sigma)
    for row in range(len(buffer)):
        here = _prior_logit(head, distance[row])
        sigma = buffer[row] / distance[row] if distance[row] != 0.0 else usual_sigma
        only_buffer = _prior_logit(head, buffer[row] / usual_sigma)
        only_sigma = _prior_logit(head, usual_buffer / sigma)
        out[row, 0] = 0.5 * (only_buffer - usual + here - only_sigma)
        out[row, 1] = 0.5 * (only_sigma - usual + here - only_buffer)


class Explainer:
    """Takes scores of one bundle apart; KeyError where its model.json lacks what that needs."""

    def __init__(self, bundle: Bundle) -> None:
        """Prepare the explanations of every hazard head."""
        self._session = Session(bundle)
        self._heads = [bundle.model["heads"][name] for name in HAZARDS]
        self._trees = [TreeShap(bundle.trees[name], len(catalog.NAMES)) for name in HAZARDS]
        self._usual_buffer = float(bundle.model["usual"]["buffer_over_notional"])
        self._usual_sigma = float(bundle.model["usual"]["slow_sigma_day"])

    def take_apart(self, features: Floats) -> Explanation:
        """Contributions of every feature to each row's score; rows must have no missing prior."""
        features = np.ascontiguousarray(features)
        outputs = self._session.run(features)
        logits = np.column_stack([outputs.score_hazard_1h, outputs.score_hazard_8h, outputs.score_hazard_24h])
        cumulated = np.logaddexp(0.0, logits)  # -log(1 - hazard)
        weights = cumulated / cumulated.sum(axis=1, keepdims=True)
        contributions = np.zeros(features.shape)
        base = np.zeros(len(features))
        parts = np.empty((len(features), 2))
        for k, (head, trees) in enumerate(zip(self._heads, self._trees, strict=True)):
            weight = weights[:, k] * head["slope"]
            contributions += weight[:, None] * trees.contributions(features)
            usual = _prior_logit(k, self._usual_buffer / self._usual_sigma)
            base += weights[:, k] * head["intercept"] + weight * (usual + trees.expected)
            _prior_parts(
                k, features[:, _BUFFER], features[:, _SLOW], self._usual_buffer, self._usual_sigma, parts
            )
            contributions[:, _BUFFER] += weight * parts[:, 0]
            contributions[:, _SIGMA] += weight * parts[:, 1]
        return Explanation((weights * logits).sum(axis=1), base, contributions)

    def explain(self, features: Floats) -> list[Sequence[Reason]]:
        """At most three reasons a row, the strongest first; only what raises the risk."""
        if len(features) == 0:
            return []
        contributions = self.take_apart(features).contributions
        for name, plain in _SAME_THING.items():
            contributions[:, catalog.index(plain)] += contributions[:, catalog.index(name)]
            contributions[:, catalog.index(name)] = 0.0
        found: list[Sequence[Reason]] = []
        for row, values in enumerate(contributions):
            order = np.argsort(-values, kind="stable")[:MOST_REASONS]
            least = LEAST_SHARE * max(float(values[order[0]]), 0.0)
            found.append(
                tuple(
                    Reason(
                        catalog.NAMES[k].upper(), catalog.NAMES[k], float(features[row, k]), float(values[k])
                    )
                    for k in order
                    if values[k] > 0.0 and values[k] >= least
                )
            )
        return found
