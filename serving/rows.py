"""Rows of the dataset's tables as they come in events: reading them, and what each says of itself.

The structs are made from `features.tables`, so that the service and the dataset cannot disagree about a
column. Extra columns are ignored in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec
from msgspec import Meta, Struct

from exchange.contracts import MarginTier, tier_arrays
from exchange.errors import InputError
from features import events as ev
from features.tables import PARENT, TABLES, TIER, Bound, Column, Table
from serving import wire
from serving.codec import JSON, Codec
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
    return msgspec.defstruct(name, map(_field, columns), kw_only=True, gc=False)


_tier = msgspec.defstruct("Tier", map(_field, TIER), kw_only=True, gc=False)
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
        kw_only=True,
        gc=False,  # a row is in no cycle, and counting thousands of them would set off collections
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


class Request(NamedTuple):
    """The events of a request: rows with the place of each in it, and what is wrong with the others."""

    source: str
    rows: list[Row]
    places: Sequence[int]
    unreadable: list[tuple[int, str]]


def read_events(body: bytes, codec: Codec = JSON) -> Request:
    """Decode a request of events; a row that cannot be read does not keep the others from being.

    Raises RefusalError 400 for what cannot be read at all, 422 for what is not such a request and where none
    of its rows can be read.
    """
    try:
        request = codec.read(EventsRequest, body)
        return Request(request.source or "", request.events, range(len(request.events)), [])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    envelope = codec.decode(_Envelope, body)
    rows: list[Row] = []
    places: list[int] = []
    unreadable: list[tuple[int, str]] = []
    first: wire.RefusalError | None = None
    for index, raw in enumerate(envelope.events):
        try:
            rows.append(codec.decode(ROW, raw))
            places.append(index)
        except wire.RefusalError as problem:
            message = _nested_alone(raw, codec) or str(problem)
            unreadable.append((index, message))
            if first is None:
                field = f"events[{index}]" + (f".{problem.field}" if problem.field else "")
                first = wire.RefusalError(problem.status, problem.code, f"events[{index}]: {message}", field)
    if first is not None and not rows:
        raise first
    return Request(envelope.source or "", rows, places, unreadable)


def _nested_alone(raw: msgspec.Raw, codec: Codec) -> str | None:
    try:
        name = codec.read(_Table, raw).table
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
    "default_events": ev.DEFAULT,
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
                tier_arrays(tiers_of(row))
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


def tiers_of(row: Row) -> list[MarginTier]:
    """The margin schedule of a row of `markets`."""
    return [
        MarginTier(
            math.inf if tier.notional_cap_usd is None else tier.notional_cap_usd,
            tier.initial_margin_rate,
            tier.maintenance_margin_rate,
        )
        for tier in row.tiers
    ]


def _repeated(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) < len(listed)


def markets_of(row: Row) -> Sequence[str]:
    """Markets that must be known for this row to mean anything.

    Prices, books and funding from before a market's terms are its history: nobody can hold it yet.
    """
    match table_of(row):
        case "fills":
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


def names_of(row: Row) -> Iterator[tuple[str, str]]:
    """Names that are known once a row has been applied, with what they are names of, if it names any anew."""
    match table_of(row):
        case "markets" | "market_bars" | "book_depth" | "funding":
            yield "markets", row.market
        case "assets":
            yield "assets", row.asset
        case "account_snapshots":
            yield "accounts", row.account_id
        case "accounts":
            yield "accounts", row.account_id
            if row.owner_id is not None:
                yield "owners", row.owner_id
