"""A venue as the features see it: names, state and the two things that can be done with them.

The same object serves a replay of history, where batches come from files, and the live service, where
they come from requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from features.advance import advance_all
from features.emit import FEATURES, FIGURES, emit, emit_open
from features.events import BALANCE, FILL, POSITION, EventBatch
from features.exposure import underlying_number
from features.handle import Handle, take
from features.portfolio import gather, lay_in_order, quantities
from features.state import (
    NOW,
    USED_BALANCES,
    USED_POSITIONS,
    Portfolio,
    State,
    digest,
    grown,
    new_portfolio,
    new_state,
)

END_OF_TIME_US = np.iinfo(np.int64).max

FEW_POSITIONS, EVENTS_A_POSITION = 1_000, 4
"""So many fit a cache wherever they lie; beyond, they are laid in order once in so many events for each."""


class Vectors(NamedTuple):
    """One row an account: its id, its feature vector (catalogue order) and its figures."""

    account: npt.NDArray[np.int64]
    features: npt.NDArray[np.float64]
    figures: npt.NDArray[np.float64]

    def where(self, rows: npt.NDArray[np.generic]) -> Vectors:
        """The rows chosen by a mask or by their numbers."""
        return Vectors._make(column[rows] for column in self)


class Venue:
    """Names and state of one venue; not safe for use from several threads at once."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.state: State = new_state()
        self.market_names: list[str] = []
        self.asset_names: list[str] = []
        self.account_names: list[str] = []
        self.owner_names: list[str] = []
        self._market_ids: dict[str, int] = {}
        self._asset_ids: dict[str, int] = {}
        self._account_ids: dict[str, int] = {}
        self._owner_ids: dict[str, int] = {}
        self._folio: Portfolio = new_portfolio(8, 4)
        self._handle: Handle | None = None
        self._since_laid = 0

    @classmethod
    def of(cls, state: State, names: Sequence[Sequence[str]]) -> Self:
        """A venue in a state that was kept; `names` of markets, assets, accounts and owners by id."""
        venue = cls()
        venue.state = state
        for give, each in zip((venue.market, venue.asset, venue.account, venue.owner), names, strict=True):
            for name in each:
                give(name)
        venue._folio = new_portfolio(len(state.market), len(state.asset))
        return venue

    @property
    def names(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Names of markets, assets, accounts and owners in the order of their ids."""
        return self.market_names, self.asset_names, self.account_names, self.owner_names

    # -- names to ids, in order of first appearance

    def market(self, name: str) -> int:
        """Id of a market, given on first sight."""
        return _intern(name, self._market_ids, self.market_names)

    def asset(self, name: str) -> int:
        """Id of an asset, given on first sight."""
        return _intern(name, self._asset_ids, self.asset_names)

    def account(self, name: str) -> int:
        """Id of an account, given on first sight."""
        return _intern(name, self._account_ids, self.account_names)

    def owner(self, name: str) -> int:
        """Id of an owner, given on first sight."""
        return _intern(name, self._owner_ids, self.owner_names)

    def find_account(self, name: str) -> int:
        """Id of a known account, or -1."""
        return self._account_ids.get(name, -1)

    def find_market(self, name: str) -> int:
        """Id of a known market, or -1."""
        return self._market_ids.get(name, -1)

    def find_asset(self, name: str) -> int:
        """Id of a known asset, or -1."""
        return self._asset_ids.get(name, -1)

    def find_owner(self, name: str) -> int:
        """Id of a known owner, or -1."""
        return self._owner_ids.get(name, -1)

    def find_markets(self, names: Sequence[str]) -> npt.NDArray[np.int32]:
        """Ids of known markets; KeyError where one is not known."""
        return np.fromiter(map(self._market_ids.__getitem__, names), np.int32, len(names))

    def find_assets(self, names: Sequence[str]) -> npt.NDArray[np.int32]:
        """Ids of known assets; KeyError where one is not known."""
        return np.fromiter(map(self._asset_ids.__getitem__, names), np.int32, len(names))

    def find_accounts(self, names: Sequence[str]) -> npt.NDArray[np.int32]:
        """Ids of known accounts; KeyError where one is not known."""
        return np.fromiter(map(self._account_ids.__getitem__, names), np.int32, len(names))

    # -- events in

    def reserve(self, events: EventBatch) -> None:
        """Make room for all that these events can add."""
        positions = np.count_nonzero((events.kind == POSITION) | (events.kind == FILL))
        self.state = grown(
            self.state,
            market=len(self.market_names),
            asset=len(self.asset_names),
            account=len(self.account_names),
            owner=len(self.owner_names),
            position=int(self.state.clock[USED_POSITIONS]) + int(positions),
            balance=int(self.state.clock[USED_BALANCES]) + int(np.count_nonzero(events.kind == BALANCE)),
        )
        for rows, names in ((self.state.market, self.market_names), (self.state.asset, self.asset_names)):
            for key in np.flatnonzero(rows["underlying"][: len(names)] < 0).tolist():
                rows["underlying"][key] = underlying_number(names[key])
        markets, assets = len(self.state.market), len(self.state.asset)
        if len(self._folio.position) < markets or len(self._folio.balance) < assets:
            self._folio = new_portfolio(markets, assets)

    def apply(self, events: EventBatch, start: int = 0, until_us: int = END_OF_TIME_US) -> int:
        """Apply events from row `start` up to and including `until_us`; the row to go on from.

        Ids must come from this venue's names and rows must be in the order in which they apply.
        """
        end = start + int(np.searchsorted(events.time_us[start:], until_us, side="right"))
        # Room that an earlier call made may be taken by now, by another batch.
        applying: list[Any] = [column[start:end] for column in events]
        self.reserve(EventBatch(*applying))
        self._lay_when_due(end - start)
        return int(advance_all(self.state, self._folio, events, start, until_us))

    def lay_in_order(self) -> None:
        """Bring positions that lie where there was room into the order of accounts.

        Going through all accounts then goes through memory from end to end. No answer depends on it.
        """
        room = np.empty_like(self.state.position)
        lay_in_order(self.state, len(self.account_names), room)
        self.state = self.state._replace(position=room)
        self._since_laid = 0

    def _lay_when_due(self, events: int) -> None:
        """Do so once in a long while."""
        self._since_laid += events
        used = int(self.state.clock[USED_POSITIONS])
        if used > FEW_POSITIONS and self._since_laid > EVENTS_A_POSITION * used:
            self.lay_in_order()

    # -- vectors out

    @property
    def now_us(self) -> int:
        """Time of the newest event, -1 before the first."""
        return int(self.state.clock[0])

    def open_vectors(self, at_us: int | None = None, into: Vectors | None = None) -> Vectors:
        """Vectors of all accounts with an open position, in id order, as of `at_us` (default: now).

        `at_us` may be later than the newest event: what is known then is only older. `into` is written to
        and returned in part where it has a row for every account: whoever goes through many times spares
        the making of so many rows.
        """
        room = max(len(self.account_names), 1)
        if into is None or len(into.account) < room:
            into = Vectors(np.empty(room, np.int64), np.empty((room, FEATURES)), np.empty((room, FIGURES)))
        ids, features, figures = into
        with self.as_of(at_us):
            rows = emit_open(self.state, len(self.account_names), self._folio, ids, features, figures)
        return Vectors(ids[:rows], features[:rows], figures[:rows])

    @contextmanager
    def as_of(self, at_us: int | None) -> Iterator[None]:
        """The time at which vectors are taken meanwhile, where it is later than the newest event."""
        newest_us = self.state.clock[NOW]
        if at_us is not None:
            self.state.clock[NOW] = max(newest_us, at_us)
        try:
            yield
        finally:
            self.state.clock[NOW] = newest_us  # asking changes nothing

    def vectors(self, accounts: Iterable[int]) -> Vectors:
        """Vectors of the given accounts; those without an open position are left out."""
        handle = self.handle()
        chosen, features, figures = [], [], []
        for key in accounts:
            if handle.take(key):
                chosen.append(key)
                features.append(handle.vector.copy())
                figures.append(handle.figure.copy())
        return Vectors(
            np.array(chosen, np.int64),
            np.array(features).reshape(-1, FEATURES),
            np.array(figures).reshape(-1, FIGURES),
        )

    def vector(self, account: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Vector and figures of one account as the venue stands now; None without an open position.

        The fastest way to a single one: both arrays are written anew by the next call, so who wants to keep
        them copies them.
        """
        handle = self._handle
        if handle is None or handle.state is not self.state or handle.folio is not self._folio:
            handle = self.handle()
        return handle.both if take(handle.address, account) else None

    def handle(self) -> Handle:
        """A handle to the tables as they are; they are replaced when they grow."""
        handle = self._handle
        if handle is None or handle.state is not self.state or handle.folio is not self._folio:
            handle = self._handle = Handle(self.state, self._folio)
        return handle

    def portfolio(self, account: int, orders: int = 0) -> Portfolio:
        """A copy of an account with room for `orders` more positions."""
        folio = new_portfolio(len(self.state.market) + orders, len(self.state.asset))
        gather(self.state, account, folio)
        return folio

    def quantities(self, accounts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Quantities of the given accounts, float64[accounts, markets], in the order of `market_names`."""
        return quantities(self.state, accounts, len(self.market_names))

    def vector_of(self, folio: Portfolio) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Vector and figures of any portfolio on this venue, as it stands now."""
        vector = np.empty(FEATURES)
        figure = np.empty(FIGURES)
        emit(self.state, folio, vector, figure)
        return vector, figure

    def digest(self) -> str:
        """SHA-256 of everything that answers can depend on."""
        return digest(self.state, *map(len, self.names))


def _intern(name: str, ids: dict[str, int], names: list[str]) -> int:
    found = ids.get(name)
    if found is None:
        found = ids[name] = len(names)
        names.append(name)
    return found
