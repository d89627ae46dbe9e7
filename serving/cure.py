"""The way out for an account: the smallest deposit, and the smallest reductions, that bring it to target.

Every step of the search scores the account as it would then be, rounded to what can be sent (cents,
lots), its margin levels searched anew, so that what is answered has been verified. Probabilities of trees
are not quite monotone: the answer is the smallest level found, not a proof that nothing below it would do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from features import emit as figure
from features.venue import Vectors, Venue
from serving.ladder import Levels, levels_in, stacked
from serving.linked import Together
from serving.scorer import Scores
from serving.whatif import Trial
from serving.wire import Cure, Reduction

TARGET_PD_24H = 0.05
"""Probability of liquidation within a day that a cured account does not exceed."""

POINTS = 16
"""Levels that are tried together; each round narrows the range this many times."""

ROUNDS = 5
CENTS = 100.0

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Scoring(Protocol):
    """What is asked of a scorer here."""

    def beside(self) -> Together | None:
        """What holds the account in the trial against all that its owner has; None where nothing does."""

    def score(self, vectors: Vectors, levels: Levels, beside: Sequence[Together | None], /) -> Scores:
        """Score every row, each with what it is held against."""


def at_target(vectors: Vectors, scores: Scores) -> Flags:
    """Accounts that are safe enough and whose collateral covers the initial margin suggested."""
    with np.errstate(invalid="ignore", over="ignore"):  # positions of absurd size
        needed_usd = scores.initial_rate * vectors.figures[:, figure.GROSS_NOTIONAL_USD]
    fine = np.array([reason is None for reason in scores.fallback], bool)
    covered = vectors.figures[:, figure.COLLATERAL_USD] >= needed_usd
    return fine & covered & (scores.pd[:, 2] <= TARGET_PD_24H)


def cure(venue: Venue, trial: Trial, begin: Callable[[], None], scorer: Scoring) -> Cure:
    """Both ways to the target for the account that `begin` puts into the trial.

    Where the account cannot be scored (a fallback) there is nothing to go by, and both are null.
    """
    begin()
    ladders = trial.ladders(0)
    if ladders is None:
        return Cure(0.0, [])
    vectors = ladders.vectors
    scores = scorer.score(vectors, levels_in(ladders), [scorer.beside()])
    if scores.fallback[0] is not None:
        return Cure(None, None)
    if at_target(vectors, scores)[0]:
        return Cure(0.0, [])
    return Cure(_deposit_usd(vectors, trial, scorer), _reductions(venue, trial, begin, scorer))


def _deposit_usd(vectors: Vectors, trial: Trial, scorer: Scoring) -> float | None:
    if trial.isolated and len(trial.open_positions()) > 1:
        return None  # which of the positions it should go to is the owner's choice

    beside = scorer.beside()  # levels are posted: whatever is deposited, it is the same

    def cured(deposits_usd: Floats) -> Flags:
        ladders = trial.ladders(0, deposits_usd.tolist())
        assert ladders is not None, "money opens and closes no position"
        vectors, asked = ladders.vectors, [beside] * len(deposits_usd)
        return at_target(vectors, scorer.score(vectors, levels_in(ladders), asked))

    gross_usd = float(vectors.figures[0, figure.GROSS_NOTIONAL_USD])
    collateral_usd = float(vectors.figures[0, figure.COLLATERAL_USD])
    # leverage far below one: what does not help there does not help
    top_usd = 4.0 * gross_usd + max(-collateral_usd, 0.0)
    return _smallest(cured, lambda shares: np.ceil(shares * (top_usd * CENTS)) / CENTS)


def _reductions(
    venue: Venue, trial: Trial, begin: Callable[[], None], scorer: Scoring
) -> list[Reduction] | None:
    """Orders that close the same share of every position at the mark, in whole lots."""
    begin()
    if trial.isolated:
        return None  # how much collateral stays behind what is left is the venue's rule, not known here
    held = trial.open_positions()
    lots = [float(venue.state.market["lot_size"][market]) for market, _ in held]

    def orders(share: float) -> list[tuple[int, float]]:
        sizes = [
            _whole_lots(share * abs(quantity), lot, abs(quantity))
            for (_, quantity), lot in zip(held, lots, strict=True)
        ]
        return [
            (market, -math.copysign(size, quantity))
            for (market, quantity), size in zip(held, sizes, strict=True)
            if size > 0.0
        ]

    def reached(shares: Floats) -> Flags:
        """All of them in one go: what costs is each call of the model, not each row."""
        fine = np.zeros(len(shares), bool)
        left, beside = [], []
        for row, share in enumerate(shares.tolist()):
            begin()
            for market, quantity in orders(share):
                trial.order(market, quantity, None)
            ladders = trial.ladders(row)
            if ladders is None:
                fine[row] = trial.holdings().equity_usd >= 0.0
            else:
                left.append(ladders)
                beside.append(scorer.beside())
        ladders = stacked(left)
        if ladders is not None:
            vectors = ladders.vectors
            fine[vectors.account] = at_target(vectors, scorer.score(vectors, levels_in(ladders), beside))
        return fine

    share = _smallest(reached, lambda level: level)
    if share is None:
        return None
    return [Reduction(venue.market_names[market], quantity) for market, quantity in orders(share)]


def _whole_lots(size: float, lot: float, most: float) -> float:
    """A size rounded up to whole lots, as the decimal number that it means; never above `most`."""
    lots = float(np.ceil(size / lot - 1e-9))
    return min(float(f"{lots * lot:.12g}"), most)


def _smallest(cured: Callable[[Floats], Flags], levels: Callable[[Floats], Floats]) -> float | None:
    """Smallest level found at which `cured` holds; `levels` makes levels of shares in (0, 1]."""
    low, high = 0.0, 1.0
    best: float | None = None
    for _ in range(ROUNDS):
        tried = levels(low + (high - low) * np.arange(1, POINTS + 1) / POINTS)
        found = np.flatnonzero(cured(tried))
        if len(found) == 0:
            break
        best = float(tried[found[0]])
        low, high = low + (high - low) * found[0] / POINTS, low + (high - low) * (found[0] + 1) / POINTS
    return best
