"""Rows of the dataset's tables as they come in events, and the event batches that they become.

The structs are made from `features.tables`, so that the service and the dataset cannot disagree about a
column. A row becomes the same events that `pipelines.events` makes of it: books without depth when they
are crossed, levels by distance, a snapshot's positions and balances by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Union

import msgspec
import numpy as np
from msgspec import Meta, Struct

from exchange.contracts import MarginTier, tier_arrays
from exchange.errors import InputError
from features import events as ev
from features.depth import MAX_LEVELS
from features.events import FILL_KINDS, VALUES, EventBatch
from features.tables import PARENT, TABLES, TIER, Bound, Column, Table
from serving import wire
from serving.wire import LARGEST, Name, Number, Positive, to_us

Row = Any
"""A struct of `STRUCTS`: its attributes are the columns of its table, and `sequence`."""

_NUMBERS: dict[Bound, Any] = {
    "any": Number,
    "positive": Positive,
    "not_negative": Annotated[float, Meta(ge=0.0, le=LARGEST)],
}
_LONGEST_LIST = 1_000


def _list_of(entry: Any) -> Any:
    return Annotated[list[entry], Meta(max_length=_LONGEST_LIST)]


def _type(column: Column) -> Any:
    match column.type:
        case "time":
            return datetime
        case "string":
            return Literal[column.choices] if column.choices else Name
        case "int":
            return Annotated[int, Meta(ge=1 if column.bound == "positive" else -(2**63), le=2**63 - 1)]
        case "floats":
            return _list_of(_NUMBERS[column.bound])
        case "tiers":
            return _list_of(_tier)
        case "float":
            return _NUMBERS[column.bound]


def _field(column: Column) -> tuple[str, Any] | tuple[str, Any, None]:
    kind = _type(column)
    return (column.name, kind | None, None) if column.optional else (column.name, kind)


def _nested(name: str, table: str) -> type[Struct]:
    """Rows of a table inside the row that they belong to, without the columns that say which that is."""
    columns = [column for column in TABLES[table].columns if column.name not in TABLES[PARENT[table]].key]
    return msgspec.defstruct(name, map(_field, columns), forbid_unknown_fields=True, kw_only=True)


_tier = msgspec.defstruct("Tier", map(_field, TIER), forbid_unknown_fields=True, kw_only=True)
_INSIDE = {"positions": "position_snapshots", "balances": "balance_snapshots"}


def _struct(table: Table) -> type[Struct]:
    fields: list[Any] = [_field(column) for column in table.columns if column.name != "sequence"]
    if table.name in PARENT.values():
        for name, inside in _INSIDE.items():
            fields.append((name, _list_of(_nested(f"{table.name}_{name}", inside)), []))
    fields.append(("sequence", wire.Sequence | None, None))
    return msgspec.defstruct(
        table.name,
        fields,
        tag=table.name,
        tag_field="table",
        forbid_unknown_fields=True,
        kw_only=True,
        module=__name__,
    )


STRUCTS: dict[str, type[Struct]] = {
    table.name: _struct(table) for table in TABLES.values() if table.name not in PARENT
}
ROW: Any = Union[tuple(STRUCTS.values())]  # noqa: UP007 (the union is made when the module is read)
EventsRequest: Any = msgspec.defstruct(
    "EventsRequest", [("events", list[ROW]), ("source", Name | None, None)], forbid_unknown_fields=True
)


class _Envelope(Struct, forbid_unknown_fields=True):
    """A request whose events are decoded one by one, because they cannot be all at once."""

    events: list[msgspec.Raw]
    source: Name | None = None


class _Table(Struct):
    table: str = ""


_all_decoder = msgspec.json.Decoder(EventsRequest)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_row_decoder = msgspec.json.Decoder(ROW)
_table_decoder = msgspec.json.Decoder(_Table)


class Request(NamedTuple):
    """The events of a request: rows by their place in it, and what is wrong with the others."""

    source: str
    rows: list[tuple[int, Row]]
    unreadable: list[tuple[int, str]]


def read_events(body: bytes) -> Request:
    """Decode a request of events; a row that cannot be read does not keep the others from being.

    Raises RefusalError 400 for what is not JSON, 422 for what is not such a request and where no row of it
    can be read.
    """
    try:
        request = _all_decoder.decode(body)
        return Request(request.source or "", list(enumerate(request.events)), [])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    envelope = wire.decode(_envelope_decoder, body)
    rows: list[tuple[int, Row]] = []
    unreadable: list[tuple[int, str]] = []
    first: wire.RefusalError | None = None
    for index, raw in enumerate(envelope.events):
        try:
            rows.append((index, wire.decode(_row_decoder, raw)))
        except wire.RefusalError as problem:
            message = _nested_alone(raw) or str(problem)
            unreadable.append((index, message))
            if first is None:
                field = f"events[{index}]" + (f".{problem.field}" if problem.field else "")
                first = wire.RefusalError(problem.status, problem.code, f"events[{index}]: {message}", field)
    if first is not None and not rows:
        raise first
    return Request(envelope.source or "", rows, unreadable)


def _nested_alone(raw: msgspec.Raw) -> str | None:
    try:
        name = _table_decoder.decode(raw).table
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if name not in PARENT:
        return None
    inside = next(key for key, table in _INSIDE.items() if table == name)
    return f"table: rows of {name} are sent inside their row of {PARENT[name]}, as {inside}"


# -- what a row says of itself

KIND = {
    "markets": ev.MARKET,
    "assets": ev.ASSET,
    "asset_prices": ev.ASSET_PRICE,
    "market_bars": ev.BAR,
    "book_depth": ev.BOOK,
    "funding": ev.FUNDING,
    "accounts": ev.ACCOUNT,
    "transfers": ev.TRANSFER,
    "fills": ev.FILL,
    "margin_rates": ev.RATE,
    "account_snapshots": ev.SNAPSHOT,
    "observations": ev.OBSERVED,
}
"""Kind of the first event that a row makes. Tables that are not here change nothing that is computed."""

ANNOUNCES_MARKET = frozenset([ev.MARKET])
ANNOUNCES_ACCOUNT = frozenset([ev.ACCOUNT, ev.SNAPSHOT])


def table_of(row: Row) -> str:
    """Name of a row's table."""
    return type(row).__name__


def time_us_of(row: Row) -> int | None:
    """When a row happened; None for rows of a table without time."""
    name = TABLES[table_of(row)].time
    return None if name is None else to_us(getattr(row, name))


def fault_of(row: Row) -> str | None:
    """What is wrong with a row beyond the types and bounds of its columns; None if nothing is."""
    match table_of(row):
        case "markets":
            try:
                tier_arrays(_tiers(row))
            except InputError as error:
                return f"tiers: {error}"
        case "book_depth":
            if not len(row.distance_bps) == len(row.bid_usd) == len(row.ask_usd):
                return "distance_bps: the three lists differ in length"
        case "account_snapshots":
            if _repeated(position.market for position in row.positions):
                return "positions: a market is there twice"
            if _repeated(balance.asset for balance in row.balances):
                return "balances: an asset is there twice"
        case "default_events":
            if row.time_lower is not None and to_us(row.time_lower) > to_us(row.time):
                return "time_lower: is after time"
    return None


def _repeated(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) < len(listed)


def markets_of(row: Row) -> Sequence[str]:
    """Markets that must be known for this row to mean anything."""
    match table_of(row):
        case "market_bars" | "book_depth" | "funding" | "fills":
            return (row.market,)
        case "account_snapshots":
            return [position.market for position in row.positions]
        case "default_events" if row.market is not None:
            return (row.market,)
    return ()


def assets_of(row: Row) -> Sequence[str]:
    """Assets that must be known for this row to mean anything."""
    match table_of(row):
        case "asset_prices":
            return (row.asset,)
        case "account_snapshots":
            return [balance.asset for balance in row.balances]
    return ()


def account_of(row: Row) -> str | None:
    """The account that must be known for this row to mean anything."""
    if table_of(row) in ("transfers", "fills", "margin_rates", "default_events"):
        return row.account_id
    return None


# -- rows to events


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
            for number, tier in enumerate(_tiers(row)):
                out.add(ev.TIER, time_us, key, -1, (*_schedule(tier), float(number)))
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


def _tiers(row: Row) -> list[MarginTier]:
    return [
        MarginTier(
            math.inf if tier.notional_cap_usd is None else tier.notional_cap_usd,
            tier.initial_margin_rate,
            tier.maintenance_margin_rate,
        )
        for tier in row.tiers
    ]


def _schedule(tier: MarginTier) -> tuple[float, float, float]:
    return tier.notional_cap_usd, tier.initial_margin_rate, tier.maintenance_margin_rate
