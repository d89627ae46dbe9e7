"""Which events are accepted: judged against the names announced, the order, the clock and repeats.

    code              an event is rejected because
    invalid           a column is missing or has a value that it cannot have
    unknown_market    no row of `markets` has announced the market that it trades or holds
    unknown_account   neither a row of `accounts` nor a snapshot has announced its account
    unknown_asset     no row of `assets` has announced its asset
    late              something that comes after it in the order of events was applied before
    future            it is further ahead of this machine's clock than clocks differ
    out_of_order      its sequence is below one that was accepted from its source, and it is not a repeat
    too_many_sources  more sources than are remembered have sent events

A repeat (source and sequence accepted before) changes nothing and counts as accepted: it is in the log.
Two tables have no place in the order and are never late: `assets` has no time, and an account may be
announced long after it was opened. Such a row counts from the moment it comes.
"""

from __future__ import annotations

from typing import NamedTuple

from exchange.units import SECOND_US
from features.events import ACCOUNT, ASSET, OBSERVED
from features.venue import Venue
from serving import rows
from serving.rows import Request, Row
from serving.sources import Place, Source, Sources
from serving.wire import Rejected, to_time

CLOCK_SKEW_US = 5 * SECOND_US
"""How far ahead of this machine's clock an event may be."""

_UNORDERED = 255  # rows of tables that change nothing that is computed


class Judged(NamedTuple):
    """The rows that are accepted, in the order in which they apply, and what became of the others."""

    accepted: list[Row]
    repeats: int
    rejected: list[Rejected]


class _Offer(NamedTuple):
    """A row with its place in time and in the request."""

    time_us: int
    kind: int
    place: int  # in the request
    row: Row


class Admission:
    """What has been applied so far, as far as the next event is judged by it."""

    def __init__(self, venue: Venue, quote_asset: str) -> None:
        self._venue = venue
        self._quote_asset = quote_asset
        self._sources = Sources()
        tiers = venue.state.market["tier_count"]
        self._markets = {name for key, name in enumerate(venue.market_names) if tiers[key] > 0}
        # time and kind of the newest event; a state to begin with holds all of its last moment
        self._frontier = (venue.now_us, OBSERVED if venue.now_us >= 0 else 0)

    def knows_market(self, name: str) -> bool:
        """Whether the terms of a market have been announced."""
        return name in self._markets

    def record(self, row: Row) -> int:
        """Take note of a row that is being applied; the time at which it counts, -1 before any event."""
        offer = _offer(0, row)
        if offer.kind not in (ASSET, _UNORDERED):
            self._frontier = max(self._frontier, (offer.time_us, offer.kind))
        if offer.kind in rows.ANNOUNCES_MARKET:
            self._markets.add(row.market)
        return self._frontier[0]

    def record_sequences(self, source: str, sequences: list[int]) -> None:
        """Take note of the sequence numbers of rows that were applied together."""
        self._sources.accept(source, sequences)

    def judge(self, request: Request, newest_us: int) -> Judged:
        """Judge rows in the order in which they would apply; `newest_us` is how late the future begins."""
        rejected = [Rejected(index, "invalid", message) for index, message in request.unreadable]
        offers, repeats = self._unseen(request, rejected)
        accepted = _Accepted(self._frontier)
        for offer in sorted(offers, key=lambda offer: offer[:2]):
            problem = self._problem(offer, newest_us, accepted)
            if problem is None:
                accepted.add(offer)
            else:
                rejected.append(Rejected(offer.place, *problem))
        fates = {entry.index: entry for entry in rejected}
        harmless = 0
        for index, first in repeats:
            fate = None if first is None else fates.get(first)
            if fate is None:
                harmless += 1
            else:  # it shares the fate of the row of this request that it repeats
                rejected.append(Rejected(index, fate.code, fate.message))
        rejected.sort(key=lambda entry: entry.index)
        return Judged(accepted.rows, harmless, rejected)

    def _unseen(
        self, request: Request, rejected: list[Rejected]
    ) -> tuple[list[_Offer], list[tuple[int, int | None]]]:
        """Rows that are new; and repeats with the row of this request that they repeat, None if older."""
        source = self._sources.find(request.source)
        offers: list[_Offer] = []
        repeats: list[tuple[int, int | None]] = []
        offered: dict[int, int] = {}
        for index, row in request.rows:
            sequence = row.sequence
            if sequence is not None:
                if source is None:
                    rejected.append(Rejected(index, "too_many_sources", "source: no room for another one"))
                    continue
                if sequence in offered or source.place(sequence) is Place.REPEAT:
                    repeats.append((index, offered.get(sequence)))
                    continue
                newest = _newest(source, offered)
                if sequence < newest:
                    message = f"sequence: {sequence} is below {newest}, the newest of its source"
                    rejected.append(Rejected(index, "out_of_order", message))
                    continue
                offered[sequence] = index
            offers.append(_offer(index, row))
        return offers, repeats

    def _problem(self, offer: _Offer, newest_us: int, before: _Accepted) -> tuple[str, str] | None:
        """Code and message of what speaks against an event that would come after `before`."""
        row, time_us, kind = offer.row, offer.time_us, offer.kind
        fault = rows.fault_of(row)
        if fault is not None:
            return "invalid", fault
        if kind != ASSET and time_us < 0:
            return "invalid", "time: is before 1970"
        if time_us > newest_us:
            return "future", f"time: is more than {CLOCK_SKEW_US // SECOND_US} s ahead of the clock"
        if kind not in (ACCOUNT, ASSET, _UNORDERED) and (time_us, kind) < before.frontier:
            moment = _shown(before.frontier[0])
            if time_us < before.frontier[0]:
                return "late", f"time: is before {moment}, up to which events have been applied"
            return "late", f"table: rows of {rows.table_of(row)} apply before what was applied at {moment}"
        for name in rows.markets_of(row):
            if name not in self._markets and name not in before.markets:
                return "unknown_market", f"market: {name!r} has no row in markets yet"
        for name in rows.assets_of(row):
            known = name == self._quote_asset or self._venue.find_asset(name) >= 0
            if not known and name not in before.assets:
                return "unknown_asset", f"asset: {name!r} has no row in assets yet"
        account = rows.account_of(row)
        if account is not None and account not in before.accounts and self._venue.find_account(account) < 0:
            return "unknown_account", f"account_id: {account!r} has no row in accounts yet, nor a snapshot"
        return None


class _Accepted:
    """Rows of the request at hand that were accepted, and what they would make known."""

    def __init__(self, frontier: tuple[int, int]) -> None:
        self.frontier = frontier
        self.rows: list[Row] = []
        self.markets: set[str] = set()
        self.accounts: set[str] = set()
        self.assets: set[str] = set()

    def add(self, offer: _Offer) -> None:
        row, kind = offer.row, offer.kind
        self.rows.append(row)
        if kind not in (ASSET, _UNORDERED):
            self.frontier = max(self.frontier, (offer.time_us, kind))
        if kind in rows.ANNOUNCES_MARKET:
            self.markets.add(row.market)
        elif kind in rows.ANNOUNCES_ACCOUNT:
            self.accounts.add(row.account_id)
        elif kind == ASSET:
            self.assets.add(row.asset)


def _offer(index: int, row: Row) -> _Offer:
    time_us = rows.time_us_of(row)
    kind = rows.KIND.get(rows.table_of(row), _UNORDERED)
    return _Offer(-1 if time_us is None else time_us, kind, index, row)


def _newest(source: Source, offered: dict[int, int]) -> int:
    """The largest number that a source has sent; those of one request rise, so its last is its largest."""
    return max(source.newest, next(reversed(offered), -1))


def _shown(time_us: int) -> str:
    return to_time(time_us).replace(tzinfo=None).isoformat() + "Z"
