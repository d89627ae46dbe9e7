"""The quick way in: a request of usual rows, read, checked and laid out a column at a time.

Usual are rows of the tables that events come in by the thousand, of names that are known, in their place
in time, with sequences that rise. Whatever is anything else makes the whole request unusual, and it is
judged row by row: nothing is rejected here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from features import events as ev
from features.depth import MAX_LEVELS
from features.events import EventBatch
from features.tables import FILL_KINDS
from features.venue import Venue
from serving.admission import Admission, Frontier
from serving.entries import Runs, runs_of
from serving.rows import KIND, STRUCTS, Request, Row
from serving.wire import EPOCH, to_us

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]


class Usual(NamedTuple):
    """Events that are all accepted, and what has to be remembered of them."""

    rows: int
    runs: Runs
    frontier: Frontier
    events: EventBatch


class _Part(NamedTuple):
    """Rows of one table as columns; `values` are (columns, rows)."""

    time_us: Integers
    key: Ids
    sub: Ids
    values: Floats


class _Levels(NamedTuple):
    """The books of a request: levels of each, and all levels one after the other."""

    counts: Integers
    columns: tuple[Floats, Floats, Floats]


def of_rows(request: Request, venue: Venue, admission: Admission, newest_us: int) -> Usual | None:
    """The events of a request; None where anything in it is unusual."""
    rows = request.rows
    try:
        kind = np.frombuffer(bytes(map(_KIND.__getitem__, map(type, rows))), np.uint8)
        runs = _runs(rows, request.source, admission)
        parts = {each: _part(each, kind, rows, venue) for each in _present(kind)}
    except KeyError:  # a table that is not one of these, or a name that is not known
        return None
    if runs is None:
        return None
    time_us = np.empty(len(rows), np.int64)
    counts = np.ones(len(rows), np.int64)
    levels = None
    for each, (at, part) in parts.items():
        time_us[at] = part.time_us
        if each == ev.BOOK:
            levels = _levels(_chosen(rows, kind, ev.BOOK), part)
            if levels is None:
                return None
            counts[at] += levels.counts
    order = _order(time_us, kind)
    last = -1 if order is None else order[-1]
    frontier = int(time_us[last]), int(kind[last])
    foremost = 0 if order is None else order[0]
    if (int(time_us[foremost]), int(kind[foremost])) < max(admission.frontier, (0, 0)):
        return None
    if frontier[0] > newest_us or not _all_have_terms(parts, venue):
        return None
    return Usual(len(rows), runs, frontier, _laid(kind, parts, counts, levels, order))


def in_order(time_us: Integers, kind: npt.NDArray[np.uint8]) -> bool:
    """Whether rows are in the order in which they apply."""
    later = time_us[1:] > time_us[:-1]
    return bool((later | ((time_us[1:] == time_us[:-1]) & (kind[1:] >= kind[:-1]))).all())


def rising(sequence: Integers, source: str, admission: Admission) -> Runs | None:
    """Numbers of new events of a source as runs; None where they are anything but new and rising."""
    known = admission.sources.find(source)
    if known is None or sequence[0] <= known.newest or not (sequence[1:] > sequence[:-1]).all():
        return None
    return runs_of(sequence)


def _order(time_us: Integers, kind: npt.NDArray[np.uint8]) -> Integers | None:
    """The order in which rows apply; None where they are in it."""
    return None if in_order(time_us, kind) else np.lexsort((kind, time_us))


def _runs(rows: list[Row], source: str, admission: Admission) -> Runs | None:
    sequence = [row.sequence for row in rows]
    if sequence[0] is None:
        return runs_of(np.empty(0, np.int64)) if sequence.count(None) == len(rows) else None
    try:
        return rising(np.fromiter(sequence, np.int64, len(rows)), source, admission)
    except TypeError:  # some have none
        return None


def _present(kind: npt.NDArray[np.uint8]) -> list[int]:
    return np.flatnonzero(np.bincount(kind)).tolist()


def _chosen(rows: list[Row], kind: npt.NDArray[np.uint8], each: int) -> list[Row]:
    return list(compress(rows, (kind == each).tobytes()))


def _part(each: int, kind: npt.NDArray[np.uint8], rows: list[Row], venue: Venue) -> tuple[Any, _Part]:
    """Where the rows of a kind are, and their columns."""
    at = np.flatnonzero(kind == each)
    if len(at) == len(rows):
        return slice(None), _READ[each](rows, venue)
    return at, _READ[each](_chosen(rows, kind, each), venue)


def _times_us(rows: list[Row]) -> Integers:
    try:
        spans = [row.time - EPOCH for row in rows]
    except TypeError:  # some have no zone
        return np.array([to_us(row.time) for row in rows], np.int64)
    days = _integers([span.days for span in spans])
    seconds = _integers([span.seconds for span in spans])
    return (days * 86_400 + seconds) * 1_000_000 + _integers([span.microseconds for span in spans])


def _integers(values: list[int]) -> Integers:
    return np.fromiter(values, np.int64, len(values))


def _of_market(rows: list[Row], venue: Venue, *values: list[float]) -> _Part:
    return _Part(
        _times_us(rows),
        venue.find_markets([row.market for row in rows]),
        np.full(len(rows), -1, np.int32),
        np.array(values, np.float64),  # None becomes NaN
    )


def _of_account(rows: list[Row], venue: Venue, *values: list[float], sub: Ids | None = None) -> _Part:
    numbers = np.empty((len(values), len(rows)))
    for column, each in enumerate(values):
        numbers[column] = np.fromiter(each, np.float64, len(rows))
    return _Part(
        _times_us(rows),
        venue.find_accounts([row.account_id for row in rows]),
        np.full(len(rows), -1, np.int32) if sub is None else sub,
        numbers,
    )


# One loop a column, each with its own attribute, is three times as fast as one that is told the name.


def _fills(rows: list[Row], venue: Venue) -> _Part:
    return _of_account(
        rows,
        venue,
        [row.quantity for row in rows],
        [row.price for row in rows],
        [row.fee_usd for row in rows],
        [_FILL_KIND[row.kind] for row in rows],
        sub=venue.find_markets([row.market for row in rows]),
    )


def _bars(rows: list[Row], venue: Venue) -> _Part:
    return _of_market(
        rows,
        venue,
        [row.mark_close for row in rows],
        [row.index_close for row in rows],
        [row.mark_open for row in rows],
        [row.mark_high for row in rows],
        [row.mark_low for row in rows],
        [row.volume_usd for row in rows],
        [row.open_interest_usd for row in rows],
    )


def _books(rows: list[Row], venue: Venue) -> _Part:
    return _of_market(rows, venue, [row.best_bid for row in rows], [row.best_ask for row in rows])


def _funding(rows: list[Row], venue: Venue) -> _Part:
    return _of_market(rows, venue, [row.funding_rate for row in rows])


def _transfers(rows: list[Row], venue: Venue) -> _Part:
    return _of_account(rows, venue, [row.amount_usd for row in rows])


def _rates(rows: list[Row], venue: Venue) -> _Part:
    return _of_account(
        rows,
        venue,
        [row.initial_margin_rate for row in rows],
        [row.maintenance_margin_rate for row in rows],
    )


def _prices(rows: list[Row], venue: Venue) -> _Part:
    return _Part(
        _times_us(rows),
        venue.find_assets([row.asset for row in rows]),
        np.full(len(rows), -1, np.int32),
        np.array([[row.price for row in rows]]),
    )


_READ: dict[int, Callable[[list[Row], Venue], _Part]] = {
    ev.FILL: _fills,
    ev.BAR: _bars,
    ev.BOOK: _books,
    ev.FUNDING: _funding,
    ev.TRANSFER: _transfers,
    ev.RATE: _rates,
    ev.ASSET_PRICE: _prices,
}
_KIND = {STRUCTS[table]: kind for table, kind in KIND.items() if kind in _READ}
_FILL_KIND = {kind: float(number) for number, kind in enumerate(FILL_KINDS)}


def _levels(books: list[Row], part: _Part) -> _Levels | None:
    """The levels of books; None where one is crossed, or has levels to be put in order or left out."""
    counts = [len(book.distance_bps) for book in books]
    if counts != [len(book.bid_usd) for book in books] or counts != [len(book.ask_usd) for book in books]:
        return None
    if max(counts) > MAX_LEVELS or (part.values[0] > part.values[1]).any():
        return None
    distance = _flat(book.distance_bps for book in books)
    starts = np.zeros(len(distance), bool)
    ends = np.cumsum(counts)
    starts[ends[ends < len(distance)]] = True
    if not ((distance[1:] > distance[:-1]) | starts[1:]).all():
        return None
    sides = (_flat(book.bid_usd for book in books), _flat(book.ask_usd for book in books))
    return _Levels(np.array(counts, np.int64), (distance, *sides))


def _flat(lists: Iterable[list[float]]) -> Floats:
    return np.array(list(chain.from_iterable(lists)), np.float64)


def _all_have_terms(parts: dict[int, tuple[Any, _Part]], venue: Venue) -> bool:
    """Whether the markets that are traded have announced their terms."""
    if ev.FILL not in parts:
        return True
    traded = parts[ev.FILL][1].sub
    return int(traded.max()) < len(venue.state.market) and bool(
        (venue.state.market["tier_count"][traded] > 0).all()
    )


def _laid(
    kind: npt.NDArray[np.uint8],
    parts: dict[int, tuple[Any, _Part]],
    counts: Integers,
    levels: _Levels | None,
    order: Integers | None,
) -> EventBatch:
    """The events in the order in which they apply, levels behind their book."""
    # the place of each row's first event
    if order is None:
        place = np.cumsum(counts) - counts
    else:
        place = np.empty(len(kind), np.int64)
        place[order] = np.cumsum(counts[order]) - counts[order]
    events = EventBatch.empty(int(counts.sum()))
    for each, (at, part) in parts.items():
        _put(events, place[at], each, *part)
    if levels is not None:
        at, part = parts[ev.BOOK]
        of_book = np.repeat(np.arange(len(levels.counts)), levels.counts)
        number = np.arange(len(of_book)) - (np.cumsum(levels.counts) - levels.counts)[of_book]
        _put(
            events,
            place[at][of_book] + 1 + number,
            ev.LEVEL,
            part.time_us[of_book],
            part.key[of_book],
            part.sub[of_book],
            np.array([*levels.columns, number]),
        )
    return events


@compiled
def _put(
    events: EventBatch, places: Integers, kind: int, time_us: Integers, key: Ids, sub: Ids, values: Floats
) -> None:
    """Write events of one kind into their places."""
    for row in range(len(places)):
        place = places[row]
        events.kind[place] = kind
        events.time_us[place] = time_us[row]
        events.key[place] = key[row]
        events.sub[place] = sub[row]
        for column in range(len(values)):
            events.values[place, column] = values[column, row]
