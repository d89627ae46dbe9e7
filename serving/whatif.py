"""One account tried out on the venue's markets: with orders added, with its state sent along, with a deposit.

A trial has a table of accounts and pools of its own, with one account in them, and shares the venue's
markets and assets. What happens to that account is the same compiled `advance` that the venue's events
go through, so that an order that might be sent and one that was filled can only have the same effect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.account import asset_value_usd, haircut_usd, liability_margin_usd, notional_usd
from exchange.compiled import compiled
from features import emit as figure
from features.advance import advance, advance_all
from features.events import BALANCE, FILL, POSITION, SNAPSHOT, VALUES
from features.handle import Handle
from features.portfolio import gather
from features.state import (
    BALANCES,
    CASH,
    CLOCK_FACTS,
    NEXT_SWEEP,
    NOW,
    POSITIONS,
    Portfolio,
    State,
    new_portfolio,
    new_state,
)
from features.venue import END_OF_TIME_US, Venue
from serving.batches import Columns, write_holdings
from serving.ladder import Ladder, Ladders, stacked
from serving.wire import SentAccount

Floats = npt.NDArray[np.float64]


@compiled
def _load(source: State, key: int, trial: State, folio: Portfolio, value: Floats) -> None:
    """Make the trial's account hold what account `key` of the venue holds, funding settled."""
    gather(source, key, folio)
    now = source.clock[NOW]
    value[:] = math.nan
    advance(trial, SNAPSHOT, now, 0, -1, value)
    for i in range(folio.count[POSITIONS]):
        row = folio.position[i]
        value[0] = row.quantity
        value[1] = row.entry_price
        value[2] = row.quote
        value[3] = row.isolated_collateral
        advance(trial, POSITION, now, 0, row.market, value)
    for i in range(folio.count[BALANCES]):
        value[0] = folio.balance[i].amount
        advance(trial, BALANCE, now, 0, folio.balance[i].asset, value)
    slot = trial.account[0].first_position
    for i in range(folio.count[POSITIONS]):
        trial.position[slot].opened = folio.position[i].opened
        slot = trial.position[slot].next
    _remember(source, key, trial)
    trial.account[0].cash = folio.account[CASH]


@compiled
def _remember(source: State, key: int, trial: State) -> None:
    """Give the trial's account the past of account `key`, and keep what the trial itself made of it."""
    account = trial.account[0]
    first_position = account.first_position
    first_balance = account.first_balance
    cash = account.cash
    changed = account.changed
    trial.account[0] = source.account[key]
    account.first_position = first_position
    account.first_balance = first_balance
    account.cash = cash
    account.changed = changed


@compiled
def _order(trial: State, market: int, quantity: float, price: float, value: Floats) -> None:
    """Fill an order, at the mark where `price` is NaN; isolated collateral is unknown from then on."""
    terms = trial.market[market]
    if math.isnan(price):
        price = terms.mark
    value[:] = math.nan
    value[0] = quantity
    value[1] = price
    value[2] = abs(quantity) * price * terms.taker_fee_rate
    value[3] = 0.0
    advance(trial, FILL, trial.clock[NOW], 0, market, value)
    if trial.account[0].isolated != 0:
        slot = trial.account[0].first_position
        while slot >= 0:
            if trial.position[slot].market == market:
                trial.position[slot].isolated_collateral = math.nan
            slot = trial.position[slot].next


_FRESH = new_state(markets=1, assets=1, accounts=1, slots=1, owners=1).account
_KEPT = ("first_position", "first_balance", "cash", "changed")
_FORGOTTEN = tuple(name for name in _FRESH.dtype.names or () if name not in _KEPT)


def _forget(rows: npt.NDArray[np.void]) -> None:
    """Leave of the only account what a state that was sent says of it."""
    for name in _FORGOTTEN:
        rows[name] = _FRESH[name]


class Holdings(NamedTuple):
    """An account's figures in dollars, NaN unknown, and rows of its positions and balances.

    Equity is the whole account's; collateral and margins are what its open positions are judged by, which
    in an isolated account is what stands behind them.
    """

    equity_usd: float
    collateral_usd: float
    initial_margin_usd: float
    maintenance_margin_usd: float
    positions: npt.NDArray[np.void]
    balances: npt.NDArray[np.void]


class Trial:
    """A place to try one account at a time; every `load` or `send` begins anew."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._own = new_state(markets=1, assets=1, accounts=1, slots=1)
        self._folio = new_portfolio(1, 1)
        self._value = np.empty(VALUES)
        self._of: State | None = None
        self._begin()

    def _begin(self) -> None:
        """Share the venue's markets and assets as they are now, with a slot for each of them."""
        venue = self._venue.state
        if self._of is not venue:
            markets, assets = len(venue.market), len(venue.asset)
            if len(self._own.position) < max(markets, assets):
                self._own = new_state(markets=1, assets=1, accounts=1, slots=max(markets, assets))
            if len(self._folio.position) < markets or len(self._folio.balance) < assets:
                self._folio = new_portfolio(markets, assets)
            self._state = self._own._replace(
                market=venue.market, asset=venue.asset, owner=venue.owner, regime=venue.regime
            )
            self._ladder = Ladder(Handle(self._state, self._folio))
            self._of = venue
        self._own.clock[:CLOCK_FACTS] = venue.clock[:CLOCK_FACTS]
        self._own.clock[NEXT_SWEEP] = END_OF_TIME_US  # a single account is nothing to sweep

    @property
    def state(self) -> State:
        """Where the account is tried: the first of this state's."""
        return self._state

    def load(self, account: int) -> None:
        """Begin with an account as the venue holds it."""
        self._begin()
        _load(self._venue.state, account, self._state, self._folio, self._value)

    def send(self, sent: SentAccount, account: int) -> None:
        """Begin with a state that was sent along, known names only.

        The rates in force, and the margin mode where none is sent, are those of `account`; -1 has none.
        """
        self._begin()
        now_us = self._venue.now_us
        columns = Columns()
        columns.add(SNAPSHOT, now_us, 0, -1, (sent.equity_usd,))
        write_holdings(0, sent.positions, sent.balances, now_us, self._venue, columns)
        advance_all(self._state, self._folio, columns.batch(), 0, now_us)
        row = self._state.account
        if account >= 0:
            _remember(self._venue.state, account, self._state)
        else:
            _forget(row)
        row["survived"][0] = math.inf  # what is sent may be another portfolio
        if sent.margin_mode is not None:
            row["isolated"][0] = sent.margin_mode == "isolated"

    def order(self, market: int, quantity: float, price: float | None) -> None:
        """Fill an order with its taker fee, at the mark where no price is given.

        In an isolated account nobody can say what collateral would then stand behind the position; it is
        NaN from here on.
        """
        _order(self._state, market, quantity, math.nan if price is None else price, self._value)

    def open_positions(self) -> list[tuple[int, float]]:
        """Markets and quantities of the positions that are open."""
        gather(self._state, 0, self._folio)
        rows = self._folio.position[: self._folio.count[POSITIONS]]
        return [(int(row["market"]), float(row["quantity"])) for row in rows if row["quantity"] != 0.0]

    @property
    def isolated(self) -> bool:
        """Whether the account keeps its collateral per position."""
        return bool(self._state.account["isolated"][0])

    def holdings(self) -> Holdings:
        """The account with funding settled and its figures, whether it has open positions or not."""
        gather(self._state, 0, self._folio)
        positions = self._folio.position[: self._folio.count[POSITIONS]].copy()
        balances = self._folio.balance[: self._folio.count[BALANCES]].copy()
        marks = self._state.market["mark"][positions["market"]]
        assets = self._state.asset[balances["asset"]]
        equity = float(self._folio.account[CASH])
        for quantity, mark in zip(positions["quantity"].tolist(), marks.tolist(), strict=True):
            equity += notional_usd(quantity, mark)
        haircut = liability = 0.0
        for amount, asset in zip(balances["amount"].tolist(), assets, strict=True):
            equity += asset_value_usd(amount, asset["price"])
            haircut += haircut_usd(amount, asset["price"], asset["collateral_weight"])
            liability += liability_margin_usd(amount, asset["price"], asset["liability_weight"])
        ladders = self.ladders(0)
        if ladders is None:
            return Holdings(equity, equity - haircut, 0.0, liability, positions, balances)
        figures = ladders.figures
        needed = (figure.COLLATERAL_USD, figure.INITIAL_MARGIN_USD, figure.MAINTENANCE_MARGIN_USD)
        collateral, initial, maintenance = (float(figures[0, column]) for column in needed)
        return Holdings(equity, collateral, initial, maintenance, positions, balances)

    def ladders(self, account: int, deposits_usd: Sequence[float] = (0.0,)) -> Ladders | None:
        """One row a deposit: the account, called `account`, with so much more cash; None without a position.

        In an isolated account a deposit goes to the collateral of its only open position.
        """
        row, positions = self._state.account, self._state.position
        cash, behind = row["cash"].copy(), positions["isolated_collateral"].copy()
        found: list[Ladders | None] = []
        for deposit in deposits_usd:
            row["cash"] = cash + deposit
            positions["isolated_collateral"] = behind + deposit
            found.append(self._ladder.take(0, account))
        row["cash"] = cash
        positions["isolated_collateral"] = behind
        return stacked([each for each in found if each is not None])
