"""Streams of events as a venue sends them, made by chance, with everything that is awkward in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
from hypothesis import strategies as st

from features import catalog, emit
from features.events import (
    ACCOUNT,
    ASSET,
    ASSET_PRICE,
    BALANCE,
    BAR,
    BOOK,
    DEFAULT,
    FILL,
    FUNDING,
    LEVEL,
    MARKET,
    OBSERVED,
    POSITION,
    RATE,
    SNAPSHOT,
    TIER,
    TRANSFER,
    VALUES,
    EventBatch,
)
from features.venue import Venue
from tests.oracle.feature_oracle import Names, Row

NAN = math.nan
SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
START = 1_700_000_000 * SECOND  # twenty seconds into a minute, thirteen minutes into an hour

MARKETS, ASSETS, ACCOUNTS, OWNERS = 3, 3, 6, 2
MARKET_NAMES, ASSET_NAMES = ("SOL-PERP", "BTC-PERP", "SOLUSDT"), ("USD", "SOL", "ETH")
PRICES = (30.0, 20_000.0, 1.5)
LOTS = (0.1, 0.001, 1.0)
ASSET_PRICES = (1.0, 31.0, 1_500.0)
WEIGHTS = ((1.0, 1.0), (0.9, 1.1), (0.8, 1.25))
"""The first asset is a dollar."""
STEPS = (
    SECOND, 20 * SECOND, MINUTE, 7 * MINUTE, 15 * MINUTE, 15 * MINUTE, 20 * MINUTE, 20 * MINUTE, 30 * MINUTE,
    40 * MINUTE, HOUR, 5 * HOUR, 3 * DAY, 40 * DAY,
)  # fmt: skip

FIGURE_NAMES = {
    getattr(emit, name): name
    for name in (
        "EQUITY_USD", "COLLATERAL_USD", "INITIAL_MARGIN_USD", "MAINTENANCE_MARGIN_USD",
        "GROSS_NOTIONAL_USD", "MARGIN_RATIO", "BUFFER_OVER_SIGMA_DAY", "SIGMA_DAY_USD",
        "CLOSING_COST_USD", "STATIC_INITIAL_RATE", "STATIC_MAINTENANCE_RATE", "FIGURE_INITIAL_IN_FORCE",
        "FIGURE_MAINTENANCE_IN_FORCE", "MARK_AGE_S", "OPEN_POSITIONS", "PRICE_AGE_S",
        "BOOK_AGE_S", "SIGMA_SLOW_DAY_USD", "ENTERS",
    )
}  # fmt: skip


def names() -> Names:
    """What the venue's names say that they are about."""
    return Names(dict(enumerate(("SOL", "BTC", "SOL"))), dict(enumerate(ASSET_NAMES)))


def batch(rows: Sequence[Row]) -> EventBatch:
    events = EventBatch.empty(len(rows))
    for number, row in enumerate(rows):
        events.kind[number] = row.kind
        events.time_us[number] = row.time_us
        events.key[number] = row.key
        events.sub[number] = row.sub
        events.values[number, : len(row.values)] = row.values
    assert events.values.shape[1] == VALUES
    return events


def venue(markets: int = MARKETS, assets: int = ASSETS, accounts: int = ACCOUNTS) -> Venue:
    """A venue that has seen so many names and no event."""
    made = Venue()
    for name in MARKET_NAMES[:markets]:
        made.market(name)
    for name in ASSET_NAMES[:assets]:
        made.asset(name)
    for number in range(accounts):
        made.account(f"account {number}")
    for number in range(OWNERS):
        made.owner(f"owner {number}")
    return made


def after(rows: Sequence[Row], **names: int) -> Venue:
    """A venue to which these rows have happened."""
    made = venue(**names)
    made.apply(batch(rows))
    return made


def vector(made: Venue, account: int = 0) -> dict[str, float]:
    """An account's features and figures by name; empty without an open position."""
    vectors = made.vectors([account])
    if not len(vectors.account):
        return {}
    features = dict(zip(catalog.NAMES, vectors.features[0].tolist(), strict=True))
    figures = {name: float(vectors.figures[0, column]) for column, name in FIGURE_NAMES.items()}
    return features | figures


def same(a: dict[str, float], b: dict[str, float]) -> list[str]:
    """Names under which two vectors differ in any bit but a NaN's."""
    assert a.keys() == b.keys()
    return [name for name in a if not np.array_equal(a[name], b[name], equal_nan=True)]


# ---- rows by name, for situations written by hand


def market_rows(
    time: int, key: int, tiers: Sequence[tuple[float, float, float]], lot: float = 0.1, fee: float = 0.01
) -> list[Row]:
    head = Row(MARKET, time, key, -1, (0.01, lot, 0.0005, fee, 3_600.0))
    return [head, *(Row(TIER, time, key, -1, (*tier, float(n))) for n, tier in enumerate(tiers))]


def bar(
    time: int, key: int, mark: float, interest: float = NAN, index: float = NAN, volume: float = NAN
) -> Row:
    return Row(BAR, time, key, -1, (mark, index, NAN, NAN, NAN, volume, interest))


def book_rows(
    time: int, key: int, bid: float, ask: float, levels: Sequence[tuple[float, float, float]] = ()
) -> list[Row]:
    head = Row(BOOK, time, key, -1, (bid, ask))
    return [head, *(Row(LEVEL, time, key, -1, (*level, float(n))) for n, level in enumerate(levels))]


def snapshot_rows(
    time: int,
    account: int,
    equity: float,
    positions: Sequence[tuple[int, float, float, float, float]] = (),
    balances: Sequence[tuple[int, float]] = (),
    orders: float = 0.0,
) -> list[Row]:
    """Positions are (market, quantity, entry, quote, isolated collateral)."""
    return [
        Row(SNAPSHOT, time, account, -1, (equity, equity, NAN, NAN, orders)),
        *(Row(POSITION, time, account, market, tuple(rest)) for market, *rest in positions),
        *(Row(BALANCE, time, account, asset, (amount,)) for asset, amount in balances),
    ]


def fill(
    time: int, account: int, market: int, quantity: float, price: float, fee: float = NAN, kind: float = 0.0
) -> Row:
    return Row(FILL, time, account, market, (quantity, price, fee, kind))


def default(time: int, account: int, kind: float = 0.0) -> Row:
    return Row(DEFAULT, time, account, -1, (kind,))


def account_row(time: int, account: int, owner: int = -1, isolated: bool = False) -> Row:
    return Row(ACCOUNT, time, account, owner, (float(time), float(isolated)))


def transfer(time: int, account: int, dollars: float) -> Row:
    return Row(TRANSFER, time, account, -1, (dollars,))


def blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows with those that follow them as a part of them, which no batch may tear apart."""
    found: list[list[Row]] = []
    for row in rows:
        if row.kind in (TIER, LEVEL, POSITION, BALANCE):
            found[-1].append(row)
        else:
            found.append([row])
    return found


# ---- streams by chance


chances = st.integers(0, 2**32 - 1).map(Random)
"""A stream is made in thousands of draws: hypothesis chooses where they begin, not each of them."""


def tiers_by_chance(chance: Random) -> list[tuple[float, float, float]]:
    caps = sorted(chance.sample(range(100, 20_000), chance.randint(0, 4)))
    maintenance = chance.choice((0.005, 0.03, 0.05))
    initial = maintenance * chance.choice((1.0, 1.5, 2.0))
    tiers = []
    for cap in [*map(float, caps), math.inf]:
        tiers.append((cap, initial, maintenance))
        maintenance *= chance.choice((1.0, 1.3, 2.0))
        initial = max(initial, maintenance * chance.choice((1.0, 1.5)))
    return tiers


def moved(chance: Random, price: float) -> float:
    """A price near `price`: often the same, seldom far off."""
    return round(price * math.exp(chance.choice((0.0, 0.001, 0.02, 0.3)) * chance.uniform(-1, 1)), 4)


def lots(chance: Random, market: int) -> float:
    return round(chance.choice((-1, 1)) * chance.choice((1, 2, 3, 40, 500)) * LOTS[market], 4)


def book_by_chance(chance: Random, time: int, key: int, mark: float) -> list[Row]:
    if chance.random() < 0.1:  # what a crossed book is sent as
        return book_rows(time, key, NAN, NAN)
    half = chance.choice((0.0, 0.0001, 0.001, 0.01, -0.001)) * mark  # now and then crossed
    levels = []
    bid = ask = 0.0
    for distance in sorted(chance.sample((5.0, 10.0, 25.0, 50.0, 100.0, 150.0, 500.0), chance.randint(0, 5))):
        bid += chance.choice((0.0, 100.0, 1_000.0, 30_000.0))
        ask += chance.choice((0.0, 150.0, 2_000.0, 30_000.0))
        levels.append((distance, bid, ask))
    return book_rows(time, key, mark - half, mark + half, levels)


def snapshot_by_chance(chance: Random, time: int, account: int, marks: Sequence[float]) -> list[Row]:
    positions = []
    for market in sorted(chance.sample(range(MARKETS), chance.randint(0, MARKETS))):
        quantity = 0.0 if chance.random() < 0.1 else lots(chance, market)
        entry = NAN if chance.random() < 0.1 else moved(chance, marks[market])
        quote = NAN if chance.random() < 0.3 else -quantity * moved(chance, marks[market])
        margin = (
            NAN
            if chance.random() < 0.1
            else round(chance.choice((-0.1, 0.05, 0.3, 2.0)) * abs(quantity) * marks[market], 2)
        )
        positions.append((market, quantity, entry, quote, margin))
    balances = [
        (asset, round(chance.choice((-3.0, 0.0, 0.5, 20.0, 400.0)) / ASSET_PRICES[asset], 6))
        for asset in sorted(chance.sample(range(ASSETS), chance.randint(0, ASSETS)))
    ]
    equity = chance.choice((0.0, 5.0, 300.0, 5_000.0, -20.0, 40_000.0)) + round(chance.uniform(-1, 1), 3)
    orders = chance.choice((NAN, 0.0, 3.0))
    return snapshot_rows(time, account, equity, positions, balances, orders)


def stream(chance: Random, moments: int, steps: Sequence[int] = STEPS) -> list[Row]:
    """Rows of a venue of MARKETS, ASSETS and ACCOUNTS over so many moments, in the order in which they apply.

    Now and then a market has no terms or no bar for long, an asset no price.
    """
    time = START
    marks = list(PRICES)
    values = list(ASSET_PRICES)
    rows: list[Row] = []
    hidden_market = chance.choice((None, None, None, MARKETS - 1))
    unpriced = chance.choice(({0}, {0}, {0, ASSETS - 1}, set()))  # a dollar may have a price, too
    for key in range(MARKETS):
        if chance.random() < 0.95:
            rows += market_rows(time, key, tiers_by_chance(chance), LOTS[key])
    for key in range(ASSETS):
        rows.append(Row(ASSET, time, key, -1, WEIGHTS[key]))
    for key in range(1, ASSETS):
        if key not in unpriced:
            rows.append(Row(ASSET_PRICE, time, key, -1, (values[key],)))
    rows += [bar(time, key, marks[key], 1e5, marks[key]) for key in range(MARKETS) if key != hidden_market]
    for key in range(ACCOUNTS):
        owner = chance.choice((-1, 0, 0, 1))
        opened = float(time - chance.choice((0, HOUR, 30 * DAY)))
        rows.append(Row(ACCOUNT, time, key, owner, (opened, float(key % 3 == 1))))
    for key in range(ACCOUNTS):
        rows += snapshot_by_chance(chance, time, key, marks) if chance.random() < 0.8 else []
    for _ in range(moments):
        time += chance.choice(steps)
        rows += moment(chance, time, marks, values, hidden_market, unpriced)
    return rows


def moment(
    chance: Random,
    time: int,
    marks: list[float],
    values: list[float],
    hidden_market: int | None,
    unpriced: set[int],
) -> list[Row]:
    rows: list[Row] = []
    volumes = chance.choice(((NAN, 0.0, 5e3), (NAN,), (2e4,)))

    def some(count: int, share: float, make: Callable[[int], list[Row]]) -> None:
        for key in range(count):
            if chance.random() < share:
                rows.extend(make(key))

    def price(key: int) -> list[Row]:
        if key in unpriced:
            return []
        values[key] = moved(chance, values[key])
        return [Row(ASSET_PRICE, time, key, -1, (values[key],))]

    def mark(key: int) -> list[Row]:
        if key == hidden_market:
            return []
        marks[key] = moved(chance, marks[key])
        index = chance.choice((NAN, marks[key], round(1.001 * marks[key], 4)))
        return [bar(time, key, marks[key], chance.choice((NAN, 1e3, 1e6)), index, chance.choice(volumes))]

    def trade(key: int) -> list[Row]:
        market = chance.randrange(MARKETS)
        fee = chance.choice((NAN, 0.0, 0.3))
        kind = chance.choice((0.0, 0.0, 0.0, 1.0, 2.0))
        return [fill(time, key, market, lots(chance, market), moved(chance, marks[market]), fee, kind)]

    some(MARKETS, 0.02, lambda key: market_rows(time, key, tiers_by_chance(chance), LOTS[key]))
    some(ASSETS, 0.03, lambda key: [Row(ASSET, time, key, -1, WEIGHTS[key])])
    some(ASSETS, 0.3, price)
    some(MARKETS, 0.6, mark)
    some(MARKETS, 0.7, lambda key: book_by_chance(chance, time, key, marks[key]))
    some(MARKETS, 0.2, lambda key: [Row(FUNDING, time, key, -1, (round(chance.uniform(-1e-3, 1e-3), 7),))])
    some(ACCOUNTS, 0.1, lambda key: [transfer(time, key, chance.choice((-50.0, 2.5, 700.0)))])
    some(ACCOUNTS, 0.3, trade)
    some(ACCOUNTS, 0.1, trade)
    some(ACCOUNTS, 0.05, lambda key: [Row(RATE, time, key, -1, (0.1, 0.05))])
    some(ACCOUNTS, 0.1, lambda key: snapshot_by_chance(chance, time, key, marks))
    some(1, 0.3, lambda key: [Row(OBSERVED, time, -1, -1, ())])
    some(ACCOUNTS, 0.05, lambda key: [default(time, key, chance.choice((0.0, 0.0, 1.0, 2.0)))])
    return rows
