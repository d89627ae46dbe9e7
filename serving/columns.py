"""Events as columns: for who feeds many and has them as numbers already.

Columns mean the rows that could be sent in their place, and are judged as these would be. What is usual
is checked by compiled code; anything else becomes rows and goes their way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled, lean
from features import events as ev
from features.depth import MAX_LEVELS
from features.events import VALUES, EventBatch
from features.tables import FILL_KINDS, TABLES, Bound
from features.venue import Venue
from serving import quick
from serving.admission import Admission
from serving.codec import explained
from serving.entries import runs_of
from serving.rows import KIND, ROW, Request, Row
from serving.wire import LARGEST, LAST_US, RefusalError, to_time

Integers = npt.NDArray[np.int64]

_TABLES = {KIND[table]: table for table in (
    "market_bars", "book_depth", "funding", "transfers", "fills", "margin_rates", "asset_prices"
)}  # fmt: skip
_NUMBERS: dict[int, tuple[str, ...]] = {
    ev.BAR: (
        "mark_close", "index_close", "mark_open", "mark_high", "mark_low", "volume_usd", "open_interest_usd",
    ),
    ev.BOOK: ("best_bid", "best_ask"),
    ev.LEVEL: ("distance_bps", "bid_usd", "ask_usd"),
    ev.FUNDING: ("funding_rate",),
    ev.TRANSFER: ("amount_usd",),
    ev.FILL: ("quantity", "price", "fee_usd"),
    ev.RATE: ("initial_margin_rate", "maintenance_margin_rate"),
    ev.ASSET_PRICE: ("price",),
}  # fmt: skip
"""Columns of an event's table in the order of its values; a fill's kind and a level's number follow."""


class EventColumns(NamedTuple):
    """Events in the order in which they apply, as in `features.events`, ids being places in these lists.

    Only prices, bars, books with their levels, funding, transfers, fills and rates can be sent so.
    `sequence` has a number for every row, LEVEL events being part of their book's; None for none.
    """

    events: EventBatch
    markets: Sequence[str] = ()
    accounts: Sequence[str] = ()
    assets: Sequence[str] = ()
    source: str = ""
    sequence: Integers | None = None

    def usual(self, venue: Venue, admission: Admission, newest_us: int) -> quick.Usual | None:
        """The events with the venue's ids where all are usual; None where they have to be judged as rows.

        Raises RefusalError 422 for columns that no rows could be made of.
        """
        events = self.events
        rows = _rows(*events, len(self.markets), len(self.accounts), len(self.assets))
        if rows < 0:
            raise _malformed(f"event {-1 - rows} is of another kind, or its time or an id is out of bounds")
        sequence = np.empty(0, np.int64) if self.sequence is None else self.sequence
        if len(sequence) not in (0, rows):
            raise _malformed(f"sequence has {len(sequence)} numbers for {rows} rows")
        if rows == 0:
            return None
        runs = quick.rising(sequence, self.source, admission) if len(sequence) else runs_of(sequence)
        if runs is None or events.time_us[-1] > newest_us:
            return None
        try:
            ids = (
                venue.find_markets(self.markets),
                venue.find_accounts(self.accounts),
                venue.find_assets(self.assets),
            )
        except KeyError:
            return None
        key, sub = np.empty_like(events.key), np.empty_like(events.sub)
        tiers = np.ascontiguousarray(venue.state.market["tier_count"])
        if not _usual(*events, *ids, tiers, *admission.frontier, key, sub):
            return None
        frontier = int(events.time_us[-1]), int(_ROW_KIND[events.kind[-1]])
        return quick.Usual(rows, runs, frontier, events._replace(key=key, sub=sub))

    def request(self) -> Request:
        """The rows that these columns mean, as they would have been read from a request."""
        found: list[dict[str, Any]] = []
        for row, kind in enumerate(self.events.kind.tolist()):
            if kind == ev.LEVEL:
                for name, value in zip(_NUMBERS[kind], self.events.values[row].tolist(), strict=False):
                    found[-1][name].append(value)
            else:
                found.append(self._row(row, kind))
        rows: list[Row] = []
        places: list[int] = []
        unreadable: list[tuple[int, str]] = []
        for place, content in enumerate(found):
            if self.sequence is not None:
                content["sequence"] = int(self.sequence[place])
            try:
                rows.append(msgspec.convert(content, ROW))
                places.append(place)
            except msgspec.ValidationError as error:
                unreadable.append((place, explained(error)[0]))
        return Request(self.source, rows, places, unreadable)

    def _row(self, row: int, kind: int) -> dict[str, Any]:
        table = _TABLES[kind]
        values = self.events.values[row].tolist()
        found: dict[str, Any] = {"table": table, "time": to_time(int(self.events.time_us[row]))}
        if _KEYED[kind] == _BY_ACCOUNT:
            found["account_id"] = self.accounts[self.events.key[row]]
        elif _KEYED[kind] == _BY_ASSET:
            found["asset"] = self.assets[self.events.key[row]]
        else:
            found["market"] = self.markets[self.events.key[row]]
        for name, value in zip(_NUMBERS[kind], values, strict=False):
            if not (math.isnan(value) and TABLES[table].column(name).optional):
                found[name] = value
        if kind == ev.FILL:
            found["market"] = self.markets[self.events.sub[row]]
            known = values[3] in range(len(FILL_KINDS))
            found["kind"] = FILL_KINDS[int(values[3])] if known else str(values[3])
        if kind == ev.BOOK:
            found |= {name: [] for name in _NUMBERS[ev.LEVEL]}
        return found


def of_batch(events: EventBatch, **names: Any) -> EventColumns:
    """Columns of the types that are needed, whatever those of the batch are."""
    kinds = (np.uint8, np.int64, np.int32, np.int32, np.float64)
    try:
        columns: list[Any] = [
            np.require(column, kind, ["C", "A", "W"]) for column, kind in zip(events, kinds, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise _malformed(str(error)) from None
    shapes = {column.shape for column in columns[:4]}
    rows = len(columns[0])
    if shapes != {(rows,)} or columns[4].shape != (rows, VALUES):
        raise _malformed("columns differ in length")
    return EventColumns(EventBatch(*columns), **names)


def _malformed(message: str) -> RefusalError:
    return RefusalError(422, "invalid", f"events: {message}", "events")


_ANY, _POSITIVE, _NOT_NEGATIVE = 0, 1, 2
_BOUNDS: dict[Bound, int] = {"any": _ANY, "positive": _POSITIVE, "not_negative": _NOT_NEGATIVE}


def _bounds() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """By kind and value: its bound and whether it may be NaN; by kind: how many values are so bounded."""
    bound = np.zeros((ev.DEFAULT + 1, VALUES), np.int64)
    optional = np.zeros((ev.DEFAULT + 1, VALUES), bool)
    count = np.zeros(ev.DEFAULT + 1, np.int64)
    for kind, names in _NUMBERS.items():
        table = TABLES[_TABLES[ev.BOOK if kind == ev.LEVEL else kind]]
        count[kind] = len(names)
        for number, name in enumerate(names):
            bound[kind, number] = _BOUNDS[table.column(name).bound]
            optional[kind, number] = table.column(name).optional
    return bound, optional, count


_BOUND, _OPTIONAL, _COUNT = _bounds()
_FILL_KINDS = len(FILL_KINDS)
_BY_MARKET, _BY_ACCOUNT, _BY_ASSET = 0, 1, 2
_KEYED = np.full(ev.DEFAULT + 1, _BY_MARKET)
_KEYED[[ev.TRANSFER, ev.FILL, ev.RATE]] = _BY_ACCOUNT
_KEYED[ev.ASSET_PRICE] = _BY_ASSET
_ROW_KIND = np.arange(ev.DEFAULT + 1)
_ROW_KIND[ev.LEVEL] = ev.BOOK


@compiled
def _rows(
    kind: npt.NDArray[np.uint8],
    time_us: Integers,
    key: npt.NDArray[np.int32],
    sub: npt.NDArray[np.int32],
    values: npt.NDArray[np.float64],
    markets: int,
    accounts: int,
    assets: int,
) -> int:
    """How many rows events are; -1 less the place of one that is part of none."""
    rows = 0
    for row in range(len(kind)):
        each = kind[row]
        if each >= len(_COUNT) or _COUNT[each] == 0:
            return -1 - row
        if each == ev.LEVEL:
            after = row > 0 and (kind[row - 1] == ev.BOOK or kind[row - 1] == ev.LEVEL)
            if not after or key[row - 1] != key[row] or time_us[row - 1] != time_us[row]:
                return -1 - row
        else:
            rows += 1
        known = markets
        if _KEYED[each] == _BY_ACCOUNT:
            known = accounts
        elif _KEYED[each] == _BY_ASSET:
            known = assets
        if not 0 <= key[row] < known or not 0 <= time_us[row] <= LAST_US:
            return -1 - row
        if each == ev.FILL and not 0 <= sub[row] < markets:
            return -1 - row
    return rows


@lean
def _is_within(kind: int, number: int, value: float) -> bool:
    if math.isnan(value):
        return bool(_OPTIONAL[kind, number])
    bound = _BOUND[kind, number]
    if bound == _POSITIVE:
        return 0.0 < value <= LARGEST
    if bound == _NOT_NEGATIVE:
        return 0.0 <= value <= LARGEST
    return -LARGEST <= value <= LARGEST


@compiled
def _usual(
    kind: npt.NDArray[np.uint8],
    time_us: Integers,
    key: npt.NDArray[np.int32],
    sub: npt.NDArray[np.int32],
    values: npt.NDArray[np.float64],
    markets: npt.NDArray[np.int32],
    accounts: npt.NDArray[np.int32],
    assets: npt.NDArray[np.int32],
    tiers: Integers,
    frontier_us: int,
    frontier_kind: int,
    key_out: npt.NDArray[np.int32],
    sub_out: npt.NDArray[np.int32],
) -> bool:
    """Whether events are in order and have values that they can have; their ids become the venue's."""
    before_us, before_kind = frontier_us, frontier_kind
    level = 0
    for row in range(len(kind)):
        each = int(kind[row])
        for number in range(_COUNT[each]):
            if not _is_within(each, number, values[row, number]):
                return False
        sub_out[row] = -1
        if each == ev.LEVEL:
            if level > 0 and not values[row, 0] > values[row - 1, 0]:
                return False
            if level == MAX_LEVELS or values[row, 3] != level:
                return False
            level += 1
            key_out[row] = markets[key[row]]
            continue
        level = 0
        if time_us[row] < before_us or (time_us[row] == before_us and each < before_kind):
            return False
        before_us, before_kind = time_us[row], each
        if each == ev.FILL:
            market = markets[sub[row]]
            if not 0.0 <= values[row, 3] < _FILL_KINDS or values[row, 3] != math.floor(values[row, 3]):
                return False
            if market >= len(tiers) or tiers[market] == 0:
                return False
            sub_out[row] = market
        if each == ev.BOOK and values[row, 0] > values[row, 1]:
            return False
        if _KEYED[each] == _BY_ACCOUNT:
            key_out[row] = accounts[key[row]]
        elif _KEYED[each] == _BY_ASSET:
            key_out[row] = assets[key[row]]
        else:
            key_out[row] = markets[key[row]]
    return True
