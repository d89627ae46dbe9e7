"""The target as a budget: how prudent margin must be for expected losses to stay within a share of the fund.

Accounts post what `serving.policy` asks on given terms; what they are then expected to lose beyond their
own money is summed in whole micro-dollars, so that the order of accounts does not matter. More loading, or a
lower target, never asks less of anybody and so never adds to the sum: the mildest terms within the budget are
found by halving.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.errors import InputError
from exchange.units import PPM
from serving.policy import LOADING, RUNGS, TARGET_PD, UNKNOWN, level, lowest_paying, paying_rate

Floats = npt.NDArray[np.float64]

MICRO = 1_000_000
STEPS_OF_LOADING = 1_000
"""Steps in which a loading of 1 is searched."""

MOST_LOADING = 100.0


class Book(NamedTuple):
    """Accounts whose margin is to be set, a row each."""

    static_rate: Floats
    cost: Floats
    """Of a liquidation, share of gross notional (`serving.policy.cost_of_liquidation`)."""
    pd_24h: Floats
    """(n, RUNGS) probability of liquidation with each level posted; NaN where the model could not say."""
    loss_usd: Floats
    """(n, RUNGS) expected loss beyond the account's own money with each level posted."""


class Within(NamedTuple):
    """The mildest terms within a budget."""

    loading: float
    target_pd: float
    expected_loss_micro: int
    budget_micro: int


@compiled
def rung_posted(static_rate: float, cost: float, pd_24h: Floats, target: float, loading: float) -> int:
    """The highest level that is not above what is asked on these terms; the lowest for a failure."""
    rung = lowest_paying(static_rate, cost, pd_24h, target, loading)
    if rung == UNKNOWN:
        return 0
    rate = paying_rate(static_rate, cost, pd_24h, target, loading)
    return rung if rate >= level(static_rate, cost, rung) else rung - 1


@compiled
def summed_micro(
    static_rate: Floats, cost: Floats, pd_24h: Floats, loss_micro: npt.NDArray[np.int64], target: float,
    loading: float,
) -> int:  # fmt: skip
    """Expected loss of all accounts on terms, micro-dollars; arguments as in `Book`."""
    total = 0
    for row in range(len(static_rate)):
        rung = rung_posted(static_rate[row], cost[row], pd_24h[row], target, loading)
        total += loss_micro[row, rung]
    return total


def expected_loss_micro(book: Book, target: float = TARGET_PD, loading: float = LOADING) -> int:
    """Expected loss of a book on terms, whole micro-dollars, the loss of each account rounded up."""
    return int(summed_micro(*book[:3], _micro(book.loss_usd), target, loading))


def loading_within(book: Book, fund_usd: float, share: float, target: float = TARGET_PD) -> Within | None:
    """The smallest loading, to a thousandth, by which the book expects to lose at most a share of the fund.

    None where MOST_LOADING is not enough. Raises InputError for a fund or share that cannot be.
    """
    budget, loss = _budget(fund_usd, share), _micro(book.loss_usd)
    low, high = -1, int(MOST_LOADING * STEPS_OF_LOADING)  # low is not enough, high is

    def total(steps: int) -> int:
        return int(summed_micro(*book[:3], loss, target, steps / STEPS_OF_LOADING))

    if total(high) > budget:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if total(middle) <= budget else (middle, high)
    return Within(high / STEPS_OF_LOADING, target, total(high), budget)


def target_within(book: Book, fund_usd: float, share: float, loading: float = LOADING) -> Within | None:
    """The highest target, to a millionth, by which the book expects to lose at most a share of the fund.

    None where a target of 0 is not enough. Raises InputError for a fund or share that cannot be.
    """
    budget, loss = _budget(fund_usd, share), _micro(book.loss_usd)
    low, high = 0, PPM + 1  # low is enough, high is not

    def total(ppm: int) -> int:
        return int(summed_micro(*book[:3], loss, ppm / PPM, loading))

    if total(low) > budget:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= budget else (low, middle)
    return Within(loading, low / PPM, total(low), budget)


def _budget(fund_usd: float, share: float) -> int:
    if not (0.0 <= fund_usd < math.inf and 0.0 <= share <= 1.0):
        raise InputError(f"a budget of {share!r} of {fund_usd!r} dollars cannot be")
    return math.floor(fund_usd * share * MICRO)


def _micro(loss_usd: Floats) -> npt.NDArray[np.int64]:
    """Losses by level in micro-dollars, rounded up and never rising with the level.

    Raises InputError for losses that are negative or not finite, or of another shape.
    """
    if loss_usd.ndim != 2 or loss_usd.shape[1] != RUNGS:
        raise InputError(f"expected losses must be of {RUNGS} levels each, not {loss_usd.shape}")
    if not ((loss_usd >= 0.0) & (loss_usd < math.inf)).all():
        raise InputError("expected losses must be known and not negative")
    falling = np.maximum.accumulate(loss_usd[:, ::-1], axis=1)[:, ::-1]
    return np.ascontiguousarray(np.ceil(falling * MICRO).astype(np.int64))
