"""Accounts as they stand and as they would stand posting each margin level, as the rows that a model reads.

An account that posts a level has the same positions and balances and the same past, and collateral of that
level times its gross notional: in a cross account the cash is what makes it so, in an isolated one the
collateral of every position is what lifts its own pool there. Nothing of what stands behind it now is left,
neither its cash nor what it has been seen to survive below maintenance: with more or less of them the levels
are the same to the bit. Nor is what an owner can bring about without a change of risk: habits, entry prices
and times, other accounts. What wash trades, money paid in and out again or a paper profit do to the features
of an account, they do nothing to its levels, whatever a model has learnt of them
([decision 15](../docs/decisions/0015-levels-forget-habits.md)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.account import asset_value_usd, haircut_usd, notional_usd, unrealised_usd
from exchange.compiled import compiled, inlined, lean
from features import catalog
from features.emit import (
    CLOSING_COST_USD,
    FEATURES,
    FIGURES,
    GROSS_NOTIONAL_USD,
    SIGMA_DAY_USD,
    STATIC_INITIAL_RATE,
    emit_rows,
)
from features.handle import Handle, folio_at, state_at
from features.portfolio import gather
from features.state import BALANCES, CASH, ISOLATED, POSITIONS, Portfolio, State
from features.venue import Vectors, Venue
from serving.policy import RUNGS, cost_of_liquidation, level

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ROWS = 1 + RUNGS
"""Rows of one account: as it stands, then with each level posted."""

Levels = Callable[[Integers, int, int], Floats]
"""Vectors of some rows of `Vectors` at the rungs first...last - 1, float64[rows, last - first, FEATURES]."""


class Ladders(NamedTuple):
    """What a model reads of n accounts: each as it stands, then posting its levels from the lowest up.

    Levels that were not read may be left out at the upper end. Figures are of the account as it stands.
    """

    account: Integers
    features: Floats  # (n, 1 + levels, FEATURES)
    figures: Floats  # (n, FIGURES)

    @property
    def vectors(self) -> Vectors:
        """The accounts as they stand."""
        return Vectors(self.account, np.ascontiguousarray(self.features[:, 0]), self.figures)


def stacked(ladders: Sequence[Ladders]) -> Ladders | None:
    """Ladders of as many rows as one, in their order; None where there are none."""
    if len(ladders) == 1:
        return ladders[0]
    return Ladders._make(map(np.concatenate, zip(*ladders, strict=True))) if ladders else None


def levels_in(ladders: Ladders) -> Levels:
    """Levels that are all there."""
    return lambda rows, first, last: np.ascontiguousarray(ladders.features[rows, 1 + first : 1 + last])


@inlined
def _post(state: State, folio: Portfolio, rate: float) -> None:
    """Put collateral of `rate` times gross notional behind a portfolio, that of each pool if isolated."""
    folio.facts[0].survived = math.inf
    if folio.count[ISOLATED] != 0:
        for i in range(folio.count[POSITIONS]):
            position = folio.position[i]
            if position.quantity != 0.0:
                mark = state.market[position.market].mark
                size = abs(notional_usd(position.quantity, mark))
                gained = unrealised_usd(position.quantity, mark, position.quote)
                position.isolated_collateral = rate * size - gained
        return
    gross = 0.0
    without_cash = 0.0
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity != 0.0:
            notional = notional_usd(position.quantity, state.market[position.market].mark)
            gross += abs(notional)
            without_cash += notional
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        without_cash += asset_value_usd(balance.amount, asset.price)
        without_cash -= haircut_usd(balance.amount, asset.price, asset.collateral_weight)
    folio.account[CASH] = rate * gross - without_cash


_AT_WILL = np.array(
    [
        catalog.index(name)
        for name in (
            "unrealised_return", "turnover", "fills", "added_to_losers", "loss_streak", "paid_in", "paid_out",
            "rescues", "drawdown", "equity_change", "open_orders", "account_age_s",
        )
    ]
)  # fmt: skip
"""Columns that are 0 for who enters now, with nothing done before."""

_HOLDING, _JUST_OPENED = catalog.index("holding_hours"), -3.0
_RATIO, _LOWEST = catalog.index("margin_ratio"), catalog.index("lowest_margin_ratio")
_OWNED, _OWNER_RATIO = catalog.index("owner_accounts"), catalog.index("owner_margin_ratio")

FORGOTTEN = (*_AT_WILL.tolist(), _HOLDING, _LOWEST, _OWNED, _OWNER_RATIO)
"""Columns of a level that say nothing of what was done before, nor of other accounts."""


@lean
def _begin_anew(features: Floats) -> None:
    """Make the vector of a level that of who enters with it, alone and with nothing done before."""
    for place in range(len(_AT_WILL)):
        features[_AT_WILL[place]] = 0.0
    features[_HOLDING] = _JUST_OPENED
    features[_LOWEST] = features[_RATIO]
    features[_OWNED] = 1.0
    features[_OWNER_RATIO] = features[_RATIO]


@compiled
def _write(
    places: Integers, keys: Integers, first: int, last: int, features: Floats, figures: Floats, room: Floats
) -> bool:
    """Write rows first...last - 1 of the ladders of some accounts; False where one has no open position.

    Row 0 is the account as it stands and fills its figures, which the others need; `room` is overwritten.
    """
    state = state_at(places)
    folio = folio_at(places)
    for i in range(len(keys)):
        key = keys[i]
        if key < 0 or key >= len(state.account) or gather(state, key, folio) == 0:
            return False
        own = figures[i]
        for row in range(first, last):
            if row > 0:
                gross = own[GROSS_NOTIONAL_USD]
                cost = cost_of_liquidation(own[CLOSING_COST_USD] / gross, own[SIGMA_DAY_USD] / gross)
                _post(state, folio, level(own[STATIC_INITIAL_RATE], cost, row - 1))
            emit_rows(state, folio, row == first, features[i, row - first], own if row == 0 else room)
            if row > 0:
                _begin_anew(features[i, row - first])
    return True


class Ladder:
    """Ladders of accounts through a handle to the tables that hold them; see `features.handle.Handle`."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._room = np.empty(FIGURES)
        self._key = np.zeros(1, np.int64)

    def take(self, key: int, account: int) -> Ladders | None:
        """All rows of the account with that key, called `account`; None without an open position."""
        self._key[0] = key
        features, figures = np.empty((1, ROWS, FEATURES)), np.empty((1, FIGURES))
        if not _write(self.handle.places, self._key, 0, ROWS, features, figures, self._room):
            return None
        called = np.empty(1, np.int64)
        called[0] = account
        return Ladders(called, features, figures)

    def levels(self, keys: Integers, figures: Floats, first: int, last: int) -> Floats:
        """Vectors of accounts with open positions at the rungs first...last - 1, given their figures."""
        features = np.empty((len(keys), last - first, FEATURES))
        held = _write(self.handle.places, keys, 1 + first, 1 + last, features, figures, self._room)
        assert held, "levels are asked for of accounts with open positions"
        return features


class Read:
    """Levels that are kept as they are read: of every row its vectors from the lowest up, in parts."""

    def __init__(self, levels: Levels, rows: int) -> None:
        self._levels = levels
        self.parts: list[list[Floats]] = [[] for _ in range(rows)]

    def __call__(self, rows: Integers, first: int, last: int) -> Floats:
        """Read them, and keep a copy of nothing: what was read is not written to again."""
        read = self._levels(rows, first, last)
        for row, part in zip(rows.tolist(), read, strict=True):
            self.parts[row].append(part)
        return read


def levels_of(venue: Venue, vectors: Vectors, at_us: int | None = None) -> Levels:
    """Levels of the accounts in `vectors`, which this venue gave as it stands now (or as of `at_us`)."""
    ladder = Ladder(venue.handle())

    def levels(rows: Integers, first: int, last: int) -> Floats:
        with venue.as_of(at_us):
            return ladder.levels(vectors.account[rows], vectors.figures[rows], first, last)

    return levels
