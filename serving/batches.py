"""Rows become event batches: the same events that `pipelines.events` makes of them.

Books have no depth when they are crossed, levels go by distance, a snapshot's positions and balances by
name, whatever the order in which they were sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Protocol

import numpy as np

from exchange.contracts import MarginTier
from features import events as ev
from features.depth import MAX_LEVELS
from features.events import VALUES, EventBatch
from features.tables import DEFAULT_KINDS, FILL_KINDS
from features.venue import Venue
from serving.entries import NewNames
from serving.rows import Row, table_of, tiers_of
from serving.wire import to_us


class Names(Protocol):
    """Gives an id to a name: the next free one on first sight, the same one ever after."""

    def market(self, name: str, /) -> int:
        """Id of a market."""

    def asset(self, name: str, /) -> int:
        """Id of an asset."""

    def account(self, name: str, /) -> int:
        """Id of an account."""

    def owner(self, name: str, /) -> int:
        """Id of an owner."""


class Naming:
    """Names as a venue knows them, and ids for new ones that the venue is told of only later, if at all."""

    def __init__(self, venue: Venue) -> None:
        self.new: NewNames = ([], [], [], [])
        """Markets, assets, accounts and owners, in the order of their ids."""
        self._venue = venue
        self._ids: tuple[dict[str, int], ...] = ({}, {}, {}, {})

    def find_asset(self, name: str) -> int:
        """Id of an asset that is known or was named here, or -1."""
        known = self._venue.find_asset(name)
        return self._ids[1].get(name, -1) if known < 0 else known

    def market(self, name: str) -> int:
        """Id of a market."""
        return self._id(0, name, self._venue.find_market(name), self._venue.market_names)

    def asset(self, name: str) -> int:
        """Id of an asset."""
        return self._id(1, name, self._venue.find_asset(name), self._venue.asset_names)

    def account(self, name: str) -> int:
        """Id of an account."""
        return self._id(2, name, self._venue.find_account(name), self._venue.account_names)

    def owner(self, name: str) -> int:
        """Id of an owner."""
        return self._id(3, name, self._venue.find_owner(name), self._venue.owner_names)

    def _id(self, what: int, name: str, known: int, names: list[str]) -> int:
        if known >= 0:
            return known
        found = self._ids[what].get(name)
        if found is None:
            found = self._ids[what][name] = len(names) + len(self.new[what])
            self.new[what].append(name)
        return found


_PADDING = [(math.nan,) * (VALUES - given) for given in range(VALUES + 1)]


class Columns:
    """Events being gathered, a list a column."""

    def __init__(self) -> None:
        self._kind: list[int] = []
        self._time_us: list[int] = []
        self._key: list[int] = []
        self._sub: list[int] = []
        self._values: list[float] = []

    def add(self, kind: int, time_us: int, key: int, sub: int, values: Sequence[float | None]) -> None:
        """One event; None among the values is NaN."""
        self._kind.append(kind)
        self._time_us.append(time_us)
        self._key.append(key)
        self._sub.append(sub)
        self._values.extend([math.nan if value is None else value for value in values])
        self._values.extend(_PADDING[len(values)])

    def batch(self) -> EventBatch:
        """The events so far."""
        return EventBatch(
            np.array(self._kind, np.uint8),
            np.array(self._time_us, np.int64),
            np.array(self._key, np.int32),
            np.array(self._sub, np.int32),
            np.array(self._values, np.float64).reshape(-1, VALUES),
        )


# Columns of the tables whose row is one event with numbers as they stand.
_VALUES = {
    "assets": attrgetter("collateral_weight", "liability_weight"),
    "market_bars": attrgetter(
        "mark_close", "index_close", "mark_open", "mark_high", "mark_low", "volume_usd", "open_interest_usd"
    ),
    "margin_rates": attrgetter("initial_margin_rate", "maintenance_margin_rate"),
}
_TERMS = attrgetter("tick_size", "lot_size", "taker_fee_rate", "liquidation_fee_rate", "funding_interval_s")
_FIGURES = attrgetter(
    "equity_usd", "collateral_usd", "initial_margin_usd", "maintenance_margin_usd", "open_orders"
)
_POSITION = attrgetter("quantity", "entry_price", "quote_usd", "isolated_collateral_usd")
_FILL_KIND = {kind: float(number) for number, kind in enumerate(FILL_KINDS)}
_DEFAULT_KIND = {kind: float(number) for number, kind in enumerate(DEFAULT_KINDS)}


def write(row: Row, time_us: int, names: Names, out: Columns) -> None:
    """Add the events of a row that has no fault; rows of tables that change nothing add none."""
    table = table_of(row)
    match table:
        case "market_bars":
            out.add(ev.BAR, time_us, names.market(row.market), -1, _VALUES[table](row))
        case "fills":
            key, market = names.account(row.account_id), names.market(row.market)
            values = (row.quantity, row.price, row.fee_usd, _FILL_KIND[row.kind])
            out.add(ev.FILL, time_us, key, market, values)
        case "transfers":
            out.add(ev.TRANSFER, time_us, names.account(row.account_id), -1, (row.amount_usd,))
        case "funding":
            out.add(ev.FUNDING, time_us, names.market(row.market), -1, (row.funding_rate,))
        case "book_depth":
            _write_book(row, time_us, names, out)
        case "account_snapshots":
            key = names.account(row.account_id)
            out.add(ev.SNAPSHOT, time_us, key, -1, _FIGURES(row))
            write_holdings(key, row.positions, row.balances, time_us, names, out)
        case "margin_rates":
            out.add(ev.RATE, time_us, names.account(row.account_id), -1, _VALUES[table](row))
        case "asset_prices":
            out.add(ev.ASSET_PRICE, time_us, names.asset(row.asset), -1, (row.price,))
        case "assets":
            out.add(ev.ASSET, time_us, names.asset(row.asset), -1, _VALUES[table](row))
        case "accounts":
            key = names.account(row.account_id)
            owner = -1 if row.owner_id is None else names.owner(row.owner_id)
            terms = (float(to_us(row.opened_time)), float(row.margin_mode == "isolated"))
            out.add(ev.ACCOUNT, time_us, key, owner, terms)
        case "markets":
            key = names.market(row.market)
            out.add(ev.MARKET, time_us, key, -1, _TERMS(row))
            for number, tier in enumerate(tiers_of(row)):
                out.add(ev.TIER, time_us, key, -1, (*_schedule(tier), float(number)))
        case "default_events":
            out.add(ev.DEFAULT, time_us, names.account(row.account_id), -1, (_DEFAULT_KIND[row.kind],))
        case "observations":
            out.add(ev.OBSERVED, time_us, -1, -1, ())


def write_holdings(
    key: int, positions: Iterable[Row], balances: Iterable[Row], time_us: int, names: Names, out: Columns
) -> None:
    """Add the positions and balances that follow a SNAPSHOT event."""
    for position in sorted(positions, key=attrgetter("market")):
        out.add(ev.POSITION, time_us, key, names.market(position.market), _POSITION(position))
    for balance in sorted(balances, key=attrgetter("asset")):
        out.add(ev.BALANCE, time_us, key, names.asset(balance.asset), (balance.amount,))


def _write_book(row: Row, time_us: int, names: Names, out: Columns) -> None:
    key = names.market(row.market)
    if row.best_bid > row.best_ask:  # no depth is known then, nor a price
        out.add(ev.BOOK, time_us, key, -1, ())
        return
    out.add(ev.BOOK, time_us, key, -1, (row.best_bid, row.best_ask))
    levels = sorted(zip(row.distance_bps, row.bid_usd, row.ask_usd, strict=True))
    for number, level in enumerate(levels[:MAX_LEVELS]):
        out.add(ev.LEVEL, time_us, key, -1, (*level, float(number)))


def _schedule(tier: MarginTier) -> tuple[float, float, float]:
    return tier.notional_cap_usd, tier.initial_margin_rate, tier.maintenance_margin_rate
