"""Fills of many accounts by chance, and the events of the venue that they happen on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_US, HOUR_US, MINUTE_US
from features.events import (
    ACCOUNT,
    BAR,
    BOOK,
    FILL,
    FUNDING,
    LEVEL,
    MARKET,
    TIER,
    TRANSFER,
    VALUES,
    EventBatch,
)
from features.venue import Venue

START_US = 19_700 * DAY_US
HOURS = 42
DEPOSIT_USD = 20_000.0
FEE_RATE = 0.0005
DISTANCES_BPS = (10.0, 25.0, 50.0, 100.0, 200.0, 500.0)


class Flow(NamedTuple):
    """Fills in order of time, and the marks that they were made at (minutes, markets)."""

    time_us: npt.NDArray[np.int64]
    account: npt.NDArray[np.int32]
    market: npt.NDArray[np.int32]
    quantity: npt.NDArray[np.float64]
    price: npt.NDArray[np.float64]
    fee_usd: npt.NDArray[np.float64]
    mark: npt.NDArray[np.float64]


def part(events: EventBatch, rows: object) -> EventBatch:
    """Some rows of a batch, by a slice, a mask or an order."""
    return EventBatch(*[column[rows] for column in events])  # type: ignore[index, arg-type]


def flow(fills: int, accounts: int, markets: int, seed: int, hours: int = HOURS) -> Flow:
    """Fills by chance: few accounts trade much, lots of a tenth, marks that move 100% a year."""
    chance = np.random.default_rng(seed)
    minutes = hours * 60
    moves = chance.normal(0.0, math.sqrt(1.0 / (365 * 24 * 60)), (minutes + 1, markets))
    mark = chance.choice((2.0, 30.0, 1_500.0), markets) * np.exp(np.cumsum(moves, axis=0))
    time_us = np.sort(chance.integers(1, hours * HOUR_US, fills))
    account = (accounts * chance.random(fills) ** 2).astype(np.int32)
    # an account keeps to a few markets of its own
    market = ((7 * account + chance.geometric(0.6, fills)) % markets).astype(np.int32)
    price = mark[time_us // MINUTE_US, market]
    quantity = np.round(chance.choice((-1.0, 1.0), fills) * chance.exponential(300.0, fills) / price, 1) + 0.1
    fee_usd = FEE_RATE * np.abs(quantity) * price
    return Flow(START_US + time_us, account, market, quantity, price, fee_usd, mark)


def setting(accounts: int, markets: int) -> EventBatch:
    """Terms of every market, and every account with a deposit."""
    events = EventBatch.empty(3 * markets + 2 * accounts)
    events.time_us[:] = START_US
    heads = 3 * np.arange(markets)
    for row, (kind, values) in enumerate(
        (
            (MARKET, (0.01, 0.1, 0.0005, 0.01, 3_600.0)),
            (TIER, (100_000.0, 0.05, 0.025, 0.0)),
            (TIER, (math.inf, 0.1, 0.05, 1.0)),
        )
    ):
        events.kind[heads + row] = kind
        events.key[heads + row] = np.arange(markets)
        events.values[heads + row, : len(values)] = values
    opened = slice(3 * markets, 3 * markets + accounts)
    events.kind[opened], events.key[opened] = ACCOUNT, np.arange(accounts)
    events.values[opened, 0], events.values[opened, 1] = START_US, 0.0
    paid_in = slice(3 * markets + accounts, None)
    events.kind[paid_in], events.key[paid_in] = TRANSFER, np.arange(accounts)
    events.values[paid_in, 0] = DEPOSIT_USD
    return events


def arrivals(made: Flow, has_books: bool = True) -> EventBatch:
    """Fills between bars (each minute), books and funding (each hour), in the order in which they apply."""
    minutes, markets = made.mark.shape
    fills = len(made.time_us)
    hours = np.arange(0, minutes, HOUR_US // MINUTE_US) if has_books else np.arange(0)
    # a book and its levels, and funding, for each market and hour
    block = (BOOK, *[LEVEL] * len(DISTANCES_BPS), FUNDING)
    of_bars, of_blocks = minutes * markets, len(hours) * markets * len(block)
    events = EventBatch.empty(of_bars + of_blocks + fills)
    bars = slice(0, of_bars)
    events.kind[bars] = BAR
    events.time_us[bars] = START_US + MINUTE_US * np.repeat(np.arange(minutes), markets)
    events.key[bars] = np.tile(np.arange(markets), minutes)
    events.values[bars, 0] = made.mark.ravel()
    events.values[bars, 6] = 1e7
    blocks = slice(of_bars, of_bars + of_blocks)
    events.kind[blocks] = np.tile(block, len(hours) * markets)
    events.time_us[blocks] = START_US + MINUTE_US * np.repeat(hours, markets * len(block))
    events.key[blocks] = np.tile(np.repeat(np.arange(markets), len(block)), len(hours))
    values = events.values[blocks].reshape(len(hours), markets, len(block), VALUES)
    marks = made.mark[hours]
    values[:, :, 0, 0], values[:, :, 0, 1] = marks * 0.9998, marks * 1.0002
    for level, distance in enumerate(DISTANCES_BPS):
        values[:, :, 1 + level, :4] = (distance, 3_000.0 * distance, 2_500.0 * distance, level)
    values[:, :, -1, 0] = 1e-5
    rows = slice(of_bars + of_blocks, None)
    events.kind[rows] = FILL
    events.time_us[rows] = made.time_us
    events.key[rows], events.sub[rows] = made.account, made.market
    events.values[rows, 0], events.values[rows, 1] = made.quantity, made.price
    events.values[rows, 2] = made.fee_usd
    events.values[rows, 3] = 0.0
    # levels must follow their book: stable, by time only, since bars, blocks and fills were laid in order
    return part(events, np.argsort(events.time_us, kind="stable"))


def opened_venue(accounts: int, markets: int) -> Venue:
    """A venue that knows its names, terms and deposits."""
    venue = Venue()
    for number in range(markets):
        venue.market(f"{number}-PERP")
    for number in range(accounts):
        venue.account(str(number))
    venue.apply(setting(accounts, markets))
    return venue


def decision_times(hours: int, every: int = 1) -> npt.NDArray[np.int64]:
    """So many hours apart, none in the first two hours, before nearly every account has traded."""
    return START_US + HOUR_US * np.arange(max(3, every), hours + 1, every)
