"""Reasons: what raises an account's probability of liquidation, in plain words that add up.

What is explained is the model's score within a day: the logits of the three hazards, weighted by the
share of each in the cumulated hazard. Contributions are Shapley values against the training data: of
the trees (`models.treeshap`), and of the structural prior, which is a function of four numbers, the buffer
as a share of the position, the volatility, the margin ratio and the venue's forecast, so that its Shapley
values are exact by enumeration. All contributions and the base sum to the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from features import catalog
from features.structural import logit, prior_hazards
from models.bundle import Bundle
from models.session import Session
from models.treeshap import TreeShap

Floats = npt.NDArray[np.float64]

HAZARDS = ("hazard_1h", "hazard_8h", "hazard_24h")
MOST_REASONS = 3

LEAST_SHARE = 0.1
"""A reason is given if it weighs at least this much of the strongest one."""

_SAME_THING = {
    name: "buffer_over_sigma"
    for name in catalog.NAMES
    if name.startswith("buffer_over_sigma_") or name == "effective_buffer_over_sigma"
} | {"effective_buffer_over_notional": "buffer_over_notional"}
"""Forms of one statement to people: their contributions count together, under the plainest name."""

PLAYERS = 4
_OF_PRIOR = [
    catalog.index(name)
    for name in (
        "effective_buffer_over_notional", "effective_buffer_over_sigma", "margin_ratio", "forecast_ratio"
    )
]  # fmt: skip
_CREDITED = [_OF_PRIOR[0], catalog.index("portfolio_sigma_day"), *_OF_PRIOR[2:]]
"""Columns under whose names the prior's players appear: for sigma the one that people know."""


def columns_of_reasons() -> set[int]:
    """Columns that reasons read or name beside those of the trees."""
    return {*_OF_PRIOR, *_CREDITED, *(catalog.index(plain) for plain in _SAME_THING.values())}


_CODES = [name.upper() for name in catalog.NAMES]


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
def _prior_logits(account: Floats, usual: Floats, players: int, out: Floats) -> None:
    """The structural prior of each hazard where the players in the bit set are the account's, the rest usual.

    Players are the buffer and the sigma a day, both over notional, the margin ratio, the venue's forecast.
    With both buffer and sigma the account is as far off as it says (its last column): of an isolated one,
    these are of different pools.
    """
    buffer = account[0] if players & 1 else usual[0]
    sigma = account[1] if players & 2 else usual[1]
    ratio = account[2] if players & 4 else usual[2]
    forecast = account[3] if players & 8 else usual[3]
    distance = account[PLAYERS] if players & 3 == 3 else buffer / sigma
    first, second, third = prior_hazards(distance, ratio, forecast)
    out[0] = logit(first)
    out[1] = logit(second)
    out[2] = logit(third)


@compiled
def _prior_parts(accounts: Floats, usual: Floats, out: Floats) -> Floats:
    """Shapley values of the four players against `usual`, out (heads, n, 4); the priors of the usual account.

    A player's value is the mean, over all orders in which they may come, of what it adds when it comes:
    3! 0! of the 4! orders have nobody before it, 1! 2! each pair of a given one, and so on. Each of the 16
    sets of players is looked at once.
    """
    share = (1.0 / 4.0, 1.0 / 12.0, 1.0 / 12.0, 1.0 / 4.0)
    logits = np.empty((1 << PLAYERS, 3))
    for row in range(len(accounts)):
        for players in range(1 << PLAYERS):
            _prior_logits(accounts[row], usual, players, logits[players])
        for head in range(3):
            for player in range(PLAYERS):
                total = 0.0
                for others in range(1 << PLAYERS):
                    if others & (1 << player):
                        continue
                    before = 0
                    for other in range(PLAYERS):
                        before += (others >> other) & 1
                    added = logits[others | (1 << player), head]
                    total += share[before] * (added - logits[others, head])
                out[head, row, player] = total
    of_usual = np.empty(3)
    _prior_logits(usual, usual, 0, of_usual)
    return of_usual


@compiled
def _strongest(contributions: Floats, found: npt.NDArray[np.int64]) -> None:
    """Columns of the largest contributions of each row, the strongest first; -1 where none weighs enough."""
    for row in range(len(contributions)):
        least = 0.0
        for place in range(found.shape[1]):
            found[row, place] = -1
            top = 0.0
            for k in range(contributions.shape[1]):
                value = contributions[row, k]
                if value > top and value >= least:
                    is_new = True
                    for before in range(place):
                        is_new = is_new and found[row, before] != k
                    if is_new:
                        top = value
                        found[row, place] = k
            if place == 0:
                least = LEAST_SHARE * top


class Explainer:
    """Takes scores of one bundle apart; KeyError where its model.json lacks what that needs."""

    def __init__(self, bundle: Bundle) -> None:
        """Prepare the explanations of every hazard head."""
        self._session = Session(bundle)
        self._heads = [bundle.model["heads"][name] for name in HAZARDS]
        self._trees = [TreeShap(bundle.trees[name], len(catalog.NAMES)) for name in HAZARDS]
        usual = bundle.model["usual"]
        names = ("effective_buffer_over_notional", "sigma_day", "margin_ratio")
        self._usual = np.array([*(float(usual[name]) for name in names), 0.0])

    def take_apart(self, features: Floats) -> Explanation:
        """Contributions of every feature to each row's score; rows must have no missing prior."""
        features = np.ascontiguousarray(features)
        outputs = self._session.run(features)
        logits = np.column_stack([outputs.score_hazard_1h, outputs.score_hazard_8h, outputs.score_hazard_24h])
        cumulated = np.logaddexp(0.0, logits)  # -log(1 - hazard)
        weights = cumulated / cumulated.sum(axis=1, keepdims=True)
        contributions = np.zeros(features.shape)
        base = np.zeros(len(features))
        accounts = features[:, _OF_PRIOR]
        with np.errstate(divide="ignore", invalid="ignore"):
            sigma = accounts[:, 0] / accounts[:, 1]  # what the kernel divided the buffer by
        accounts = np.column_stack([accounts, accounts[:, 1]])
        accounts[:, 1] = np.where(np.isfinite(sigma) & (sigma > 0.0), sigma, self._usual[1])
        parts = np.empty((len(HAZARDS), len(features), PLAYERS))
        usual = _prior_parts(accounts, self._usual, parts)
        for k, (head, trees) in enumerate(zip(self._heads, self._trees, strict=True)):
            weight = weights[:, k] * head["slope"]
            contributions += weight[:, None] * trees.contributions(features)
            base += weights[:, k] * head["intercept"] + weight * (usual[k] + trees.expected)
            contributions[:, _CREDITED] += weight[:, None] * parts[k]
        return Explanation((weights * logits).sum(axis=1), base, contributions)

    def explain(self, features: Floats) -> list[Sequence[Reason]]:
        """At most three reasons a row, the strongest first; only what raises the risk."""
        if len(features) == 0:
            return []
        contributions = self.take_apart(features).contributions
        for name, plain in _SAME_THING.items():
            contributions[:, catalog.index(plain)] += contributions[:, catalog.index(name)]
            contributions[:, catalog.index(name)] = 0.0
        columns = np.empty((len(features), MOST_REASONS), np.int64)
        _strongest(contributions, columns)
        return [
            tuple(
                Reason(_CODES[k], catalog.NAMES[k], float(features[row, k]), float(contributions[row, k]))
                for k in chosen
                if k >= 0
            )
            for row, chosen in enumerate(columns.tolist())
        ]
