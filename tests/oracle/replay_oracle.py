"""A venue's rows told again, slowly: who holds what and is worth how much, and all that was ever seen.

Equity is followed move by move (every bar, funding, fill and price change adds what it is worth to who
holds it) instead of through cash, funding is paid position by position instead of through an index, and
whatever fades is kept as a list of what happened instead of as a running sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from features import events as kinds
from tests.oracle.market_oracle import Points

NAN = math.nan
SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
QUARTER, DAY = 15 * MINUTE, 24 * HOUR


class Row(NamedTuple):
    """One event, as `features.events` lays it out."""

    kind: int
    time_us: int
    key: int
    sub: int
    values: tuple[float, ...]


# ---- markets and assets


class Bar(NamedTuple):
    time_us: int
    mark: float
    index: float
    volume: float
    interest: float


@dataclass
class Book:
    time_us: int
    bid: float
    ask: float
    levels: list[tuple[float, float, float]] = field(default_factory=list)
    """Distance in basis points, bids and asks within it."""

    @property
    def is_crossed(self) -> bool:
        return not self.bid <= self.ask

    def side(self, number: int) -> tuple[list[float], list[float]]:
        """Distances and depths of the bids (0), which take what longs sell, or of the asks (1)."""
        return [level[0] for level in self.levels], [level[1 + number] for level in self.levels]


@dataclass
class Market:
    terms: tuple[float, ...] = (NAN,) * 5
    """Tick, lot, taker fee, liquidation fee, seconds between funding."""
    tiers: list[tuple[float, float, float]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    books: list[Book] = field(default_factory=list)
    funding: list[tuple[int, float]] = field(default_factory=list)

    @property
    def mark(self) -> float:
        return self.bars[-1].mark if self.bars else NAN

    @property
    def points(self) -> Points:
        return [(bar.time_us, bar.mark) for bar in self.bars]


@dataclass
class Asset:
    weights: tuple[float, float] = (NAN, NAN)
    points: Points = field(default_factory=list)
    is_dollar: bool = False

    @property
    def price(self) -> float:
        return self.points[-1][1] if self.points else (1.0 if self.is_dollar else NAN)

    @property
    def moves(self) -> bool:
        """A dollar that never had a price does not."""
        return bool(self.points) or not self.is_dollar


# ---- accounts


@dataclass
class Held:
    quantity: float
    entry: float
    quote: float
    isolated: float
    opened_us: int | None = None
    unmarked: list[tuple[float, float]] = field(default_factory=list)
    """Trades in a market that has no mark yet: what they made is not known."""


class Fill(NamedTuple):
    time_us: int
    notional: float
    is_added_to_loser: bool
    is_losing_close: bool | None
    """None where it closed nothing, or where nobody knows at what it was opened."""


class Transfer(NamedTuple):
    time_us: int
    dollars: float
    is_rescue: bool


class Sight(NamedTuple):
    """What a sweep saw of an account whose figures were all known."""

    time_us: int
    elapsed_us: int
    equity: float
    ratio: float
    buffer: float


@dataclass
class Account:
    wealth: float = 0.0
    moved: float = 0.0
    """Sum of all dollars ever added or taken: what rounding is relative to."""
    held: dict[int, Held] = field(default_factory=dict)
    held_before: dict[int, Held] = field(default_factory=dict)
    amounts: dict[int, float] = field(default_factory=dict)
    is_isolated: bool = False
    owner: int = -1
    opened_us: int | None = None
    in_force: tuple[float, float] = (NAN, NAN)
    open_orders: float = NAN
    changed_us: int | None = None
    fills: list[Fill] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    liquidations: list[tuple[int, float]] = field(default_factory=list)
    """Time, and hours before it of which it was true that the account would be liquidated within a day."""
    sights: list[Sight] = field(default_factory=list)
    survived: list[Sight] = field(default_factory=list)
    """Sights since the newest fill, withdrawal or snapshot, none older than thirty days when it began."""
    swept_ratio: float = NAN
    """Margin ratio in the newest sweep; NaN where it was not known, or nothing was at risk."""

    @property
    def open(self) -> dict[int, Held]:
        return {market: held for market, held in sorted(self.held.items()) if held.quantity != 0.0}

    def gain(self, dollars: float) -> None:
        self.wealth += dollars
        self.moved += abs(dollars)


@dataclass
class World:
    now_us: int = -1
    markets: dict[int, Market] = field(default_factory=lambda: defaultdict(Market))
    assets: dict[int, Asset] = field(default_factory=lambda: defaultdict(Asset))
    accounts: dict[int, Account] = field(default_factory=lambda: defaultdict(Account))
    seen: set[int] = field(default_factory=set)
    """Kinds of rows that there were."""


Sweep = Callable[[World, int, int], None]
"""Looks at all accounts, at a time and so long after the time before."""


def replay(rows: Sequence[Row], sweep: Sweep) -> World:
    """The world after these rows; `sweep` is called before the first row of every quarter of an hour."""
    world = World()
    quarter: int | None = None
    for row in rows:
        begins = row.time_us // QUARTER * QUARTER
        if quarter is not None and begins > quarter:
            sweep(world, begins, begins - quarter)
        quarter = begins if quarter is None else max(quarter, begins)
        world.now_us = max(world.now_us, row.time_us)
        world.seen.add(row.kind)
        if row.kind in _OF_ACCOUNTS:
            _of_account(world, world.accounts[row.key], row)
        else:
            _of_market(world, row)
    return world


_OF_ACCOUNTS = {
    kinds.ACCOUNT, kinds.TRANSFER, kinds.FILL, kinds.RATE, kinds.SNAPSHOT, kinds.POSITION, kinds.BALANCE,
    kinds.DEFAULT,
}  # fmt: skip


def _of_market(world: World, row: Row) -> None:
    v = row.values
    if row.kind == kinds.MARKET:
        world.markets[row.key].terms, world.markets[row.key].tiers = v, []
    elif row.kind == kinds.TIER:
        world.markets[row.key].tiers.append((v[0], v[1], v[2]))
    elif row.kind == kinds.ASSET:
        asset = world.assets[row.key]
        asset.weights = (v[0], v[1])
        asset.is_dollar = asset.is_dollar or v[:2] == (1.0, 1.0)
    elif row.kind == kinds.ASSET_PRICE:
        asset = world.assets[row.key]
        for account in world.accounts.values():
            amount = account.amounts.get(row.key, 0.0)
            if amount != 0.0:
                account.gain(amount * (v[0] - asset.price))
        asset.points.append((row.time_us, v[0]))
    elif row.kind == kinds.BAR:
        market = world.markets[row.key]
        for account in world.accounts.values():
            _mark(account, account.held.get(row.key), market.mark, v[0])
        market.bars.append(Bar(row.time_us, v[0], v[1], v[5], v[6]))
    elif row.kind == kinds.BOOK:
        world.markets[row.key].books.append(Book(row.time_us, v[0], v[1]))
    elif row.kind == kinds.LEVEL:
        world.markets[row.key].books[-1].levels.append((v[0], v[1], v[2]))
    elif row.kind == kinds.FUNDING:
        market = world.markets[row.key]
        market.funding.append((row.time_us, v[0]))
        for account in world.accounts.values():
            held = account.held.get(row.key)
            if held and held.quantity != 0.0 and not math.isnan(market.mark):
                paid = held.quantity * market.mark * v[0]
                account.gain(-paid)
                held.quote -= paid


def _mark(account: Account, held: Held | None, before: float, now: float) -> None:
    if held is None:
        return
    if held.unmarked:
        for quantity, price in held.unmarked:
            account.gain(quantity * (now - price))
        held.unmarked = []
    elif held.quantity != 0.0:
        account.gain(held.quantity * (now - before))


def _of_account(world: World, account: Account, row: Row) -> None:
    v = row.values
    if row.kind == kinds.ACCOUNT:
        account.owner, account.opened_us, account.is_isolated = row.sub, int(v[0]), v[1] == 1.0
    elif row.kind == kinds.TRANSFER:
        account.gain(v[0])
        account.changed_us = row.time_us
        account.transfers.append(Transfer(row.time_us, v[0], v[0] >= 0.0 and account.swept_ratio < 2.0))
        if v[0] < 0.0:
            account.survived = []
    elif row.kind == kinds.RATE:
        account.in_force = (v[0], v[1])
    elif row.kind == kinds.FILL:
        account.changed_us = row.time_us
        account.survived = []
        trade(world, account, row)
        if v[3] == 1.0:
            liquidate(account, row.time_us)
    elif row.kind == kinds.DEFAULT:
        if v[0] == 0.0:
            liquidate(account, row.time_us)
    elif row.kind == kinds.SNAPSHOT:
        account.wealth, account.moved = v[0], abs(v[0])
        account.held_before, account.held, account.amounts = account.held, {}, {}
        account.open_orders = v[4]
        account.changed_us = row.time_us
        account.survived = []
    elif row.kind == kinds.POSITION:
        quote = -v[0] * v[1] if math.isnan(v[2]) else v[2]
        held = account.held[row.sub] = Held(v[0], v[1], quote, v[3])
        before = account.held_before.get(row.sub)
        if before is not None and before.quantity * held.quantity > 0.0:
            held.opened_us = before.opened_us
        if v[0] != 0.0:
            _state(account, v[0] * world.markets[row.sub].mark)
    elif row.kind == kinds.BALANCE:
        account.amounts[row.sub] = v[0]
        if v[0] != 0.0:
            _state(account, v[0] * world.assets[row.sub].price)


def _state(account: Account, worth: float) -> None:
    """Part of a stated equity; where its worth is not known, what the rest was will never be known."""
    account.moved += abs(worth)
    if math.isnan(worth):
        account.wealth = NAN


def liquidate(account: Account, time_us: int) -> None:
    """The steps of one closing, and the event that tells of it, are one: what comes within an hour."""
    last_us = account.liquidations[-1][0] if account.liquidations else None
    if last_us is not None and time_us - last_us <= HOUR:
        return
    beginnings = [time for time in (last_us, account.opened_us) if time is not None]
    hours = min(max((time_us - max(beginnings)) / HOUR, 0.0), 24.0) if beginnings else 24.0
    account.liquidations.append((time_us, hours))


def trade(world: World, account: Account, row: Row) -> None:
    quantity, price, fee = row.values[0], row.values[1], row.values[2]
    fee = 0.0 if math.isnan(fee) else fee
    market = world.markets[row.sub]
    mark = market.mark
    held = account.held.setdefault(row.sub, Held(0.0, NAN, 0.0, NAN))
    before = held.quantity
    after = before + quantity
    lot = 0.0 if math.isnan(market.terms[1]) else market.terms[1]
    if abs(after) < lot / 2 or abs(after) < 1e-12 * abs(before):
        after = 0.0

    adds = before * quantity > 0.0
    closes = before * quantity < 0.0 and not math.isnan(held.entry)
    account.fills.append(
        Fill(
            row.time_us,
            abs(quantity) * price,
            adds and (mark < held.entry if before > 0.0 else mark > held.entry),
            (price < held.entry if before > 0.0 else price > held.entry) if closes else None,
        )
    )
    account.gain(-fee)
    account.moved += abs(quantity * price)
    if math.isnan(mark):
        held.unmarked.append((quantity, price))
        if after == 0.0:
            for some, at in held.unmarked:
                account.gain(-some * at)
    else:
        # the trade against the mark, less what is dropped with a residue
        account.gain(quantity * (mark - price) - (before + quantity - after) * mark)
    held.quote -= quantity * price + fee
    if before == 0.0 or (before > 0.0) != (after > 0.0):
        held.entry, held.opened_us = price, row.time_us
    elif abs(after) > abs(before):
        held.entry = (before * held.entry + quantity * price) / after
    held.quantity = after
    if after == 0.0:
        del account.held[row.sub]
