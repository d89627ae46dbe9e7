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
    too_many_markets, too_many_assets, too_many_accounts, too_many_owners
                      it would make one more known than there is room for (`Bounds`)

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
from serving.entries import Entry
from serving.rows import Request, Row
from serving.sources import SOURCES_KEPT, Place, Source, Sources
from serving.wire import Rejected, to_time

CLOCK_SKEW_US = 5 * SECOND_US
"""How far ahead of this machine's clock an event may be."""

UNORDERED = 255
"""In the place of a kind, for rows of tables that change nothing that is computed."""


class Bounds(NamedTuple):
    """How many names of each kind are taken before further ones are refused, so that memory is bounded."""

    markets: int = 10_000
    assets: int = 10_000
    accounts: int = 2_000_000
    owners: int = 2_000_000
    sources: int = SOURCES_KEPT


Frontier = tuple[int, int]
"""Time and kind of the newest event: nothing that comes before them is taken any more."""


def first_frontier(venue: Venue) -> Frontier:
    """The frontier of a state to begin with, which holds all of its last moment."""
    return venue.now_us, OBSERVED if venue.now_us >= 0 else 0


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

    def __init__(
        self,
        venue: Venue,
        quote_asset: str,
        bounds: Bounds,
        frontier: Frontier,
        sources: dict[str, tuple[list[int], list[int]]],
    ) -> None:
        """Go on from a frontier and from the runs of sequence numbers that each source has sent."""
        self.bounds = bounds
        self.frontier = frontier
        self.sources = Sources(bounds.sources)
        for name, runs in sources.items():
            self.sources.accept(name, *runs)
        self._venue = venue
        self._quote_asset = quote_asset

    def knows_market(self, name: str) -> bool:
        """Whether the terms of a market have been announced."""
        key = self._venue.find_market(name)
        # a name may be known that is not in the state yet
        return 0 <= key < len(self._venue.state.market) and self._venue.state.market["tier_count"][key] > 0

    def record(self, entry: Entry) -> None:
        """Take note of events that are being applied."""
        self.frontier = entry.frontier
        self.sources.accept(entry.source, *entry.runs.T.tolist())

    def judge(self, request: Request, newest_us: int) -> Judged:
        """Judge rows in the order in which they would apply; `newest_us` is how late the future begins."""
        rejected = [Rejected(index, "invalid", message) for index, message in request.unreadable]
        offers, repeats = self._unseen(request, rejected)
        accepted = _Accepted(self.frontier, self._venue)
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
        source = self.sources.find(request.source)
        offers: list[_Offer] = []
        repeats: list[tuple[int, int | None]] = []
        offered: dict[int, int] = {}
        for index, row in zip(request.places, request.rows, strict=True):
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
        if kind not in (ACCOUNT, ASSET, UNORDERED) and (time_us, kind) < before.frontier:
            moment = _shown(before.frontier[0])
            if time_us < before.frontier[0]:
                return "late", f"time: is before {moment}, up to which events have been applied"
            return "late", f"table: rows of {rows.table_of(row)} apply before what was applied at {moment}"
        for name in rows.markets_of(row):
            if name not in before.markets and not self.knows_market(name):
                return "unknown_market", f"market: {name!r} has no row in markets yet"
        for name in rows.assets_of(row):
            known = name == self._quote_asset or self._venue.find_asset(name) >= 0
            if not known and name not in before.assets:
                return "unknown_asset", f"asset: {name!r} has no row in assets yet"
        account = rows.account_of(row)
        if account is not None and account not in before.accounts and self._venue.find_account(account) < 0:
            return "unknown_account", f"account_id: {account!r} has no row in accounts yet, nor a snapshot"
        for what, name in rows.names_of(row):
            room = getattr(self.bounds, what)
            if before.is_new(what, name) and before.count(what) >= room:
                return f"too_many_{what}", f"{what}: {room} are known, and there is no room for {name!r}"
        return None


class _Accepted:
    """Rows of the request at hand that were accepted, and what they would make known."""

    def __init__(self, frontier: Frontier, venue: Venue) -> None:
        self.frontier = frontier
        self.rows: list[Row] = []
        self.markets: set[str] = set()
        self.accounts: set[str] = set()
        self.assets: set[str] = set()
        self._find = {
            "markets": venue.find_market,
            "assets": venue.find_asset,
            "accounts": venue.find_account,
            "owners": venue.find_owner,
        }
        self._known = {
            "markets": venue.market_names,
            "assets": venue.asset_names,
            "accounts": venue.account_names,
            "owners": venue.owner_names,
        }
        self._new: dict[str, set[str]] = {what: set() for what in self._known}

    def is_new(self, what: str, name: str) -> bool:
        """Whether neither the venue nor a row before knows a name of this kind."""
        return self._find[what](name) < 0 and name not in self._new[what]

    def count(self, what: str) -> int:
        """How many names of a kind are known."""
        return len(self._known[what]) + len(self._new[what])

    def add(self, offer: _Offer) -> None:
        row, kind = offer.row, offer.kind
        self.rows.append(row)
        self.frontier = moved(self.frontier, offer.time_us, kind)
        if kind in rows.ANNOUNCES_MARKET:
            self.markets.add(row.market)
        elif kind in rows.ANNOUNCES_ACCOUNT:
            self.accounts.add(row.account_id)
        elif kind == ASSET:
            self.assets.add(row.asset)
        for what, name in rows.names_of(row):
            if self.is_new(what, name):
                self._new[what].add(name)


def moved(frontier: Frontier, time_us: int, kind: int) -> Frontier:
    """The frontier once an event is applied."""
    return frontier if kind in (ASSET, UNORDERED) else max(frontier, (time_us, kind))


def place_in_time(row: Row) -> tuple[int, int]:
    """Time of a row, -1 where its table has none, and the kind of its first event."""
    time_us = rows.time_us_of(row)
    return -1 if time_us is None else time_us, rows.KIND.get(rows.table_of(row), UNORDERED)


def _offer(index: int, row: Row) -> _Offer:
    time_us, kind = place_in_time(row)
    return _Offer(time_us, kind, index, row)


def _newest(source: Source, offered: dict[int, int]) -> int:
    """The largest number that a source has sent; those of one request rise, so its last is its largest."""
    return max(source.newest, next(reversed(offered), -1))


def _shown(time_us: int) -> str:
    return to_time(time_us).replace(tzinfo=None).isoformat() + "Z"
