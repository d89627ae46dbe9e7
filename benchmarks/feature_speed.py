"""How fast events change the venue's state and vectors come out of it: one thread, processor time.

Fills of many accounts arrive in order of time, between minute bars, hourly funding and books of every
market. Beside it positions and equity in pandas, on a sample: two columns, where the venue computes
all features and figures.

    python benchmarks/feature_speed.py [--fills N] [--accounts N] [--markets N] [--json FILE]

(The file is not called after the package that it measures: a program's own folder comes first on the
path, and would hide the package.)
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from exchange.units import DAY_US, HOUR_US, MINUTE_US
from features import emit
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
DAYS = 2
DEPOSIT_USD = 20_000.0
CHUNK = 100_000
DISTANCES_BPS = (10.0, 25.0, 50.0, 100.0, 200.0, 500.0)


class Flow(NamedTuple):
    """Fills in order of time, and the marks that they were made at (minutes, markets)."""

    time_us: npt.NDArray[np.int64]
    account: npt.NDArray[np.int32]
    market: npt.NDArray[np.int32]
    quantity: npt.NDArray[np.float64]
    price: npt.NDArray[np.float64]
    mark: npt.NDArray[np.float64]


def part(events: EventBatch, rows: object) -> EventBatch:
    """Some rows of a batch, by a slice, a mask or an order."""
    return EventBatch(*[column[rows] for column in events])  # type: ignore[index, arg-type]


def flow(fills: int, accounts: int, markets: int, seed: int) -> Flow:
    """Fills by chance: few accounts trade much, lots of a tenth, marks that move 100% a year."""
    chance = np.random.default_rng(seed)
    minutes = DAYS * DAY_US // MINUTE_US
    moves = chance.normal(0.0, math.sqrt(1.0 / (365 * 24 * 60)), (minutes + 1, markets))
    mark = chance.choice((2.0, 30.0, 1_500.0), markets) * np.exp(np.cumsum(moves, axis=0))
    time_us = np.sort(chance.integers(1, DAYS * DAY_US, fills))
    account = (accounts * chance.random(fills) ** 2).astype(np.int32)
    # an account keeps to a few markets of its own
    market = ((7 * account + chance.geometric(0.6, fills)) % markets).astype(np.int32)
    price = mark[time_us // MINUTE_US, market]
    quantity = np.round(chance.choice((-1.0, 1.0), fills) * chance.exponential(300.0, fills) / price, 1) + 0.1
    return Flow(START_US + time_us, account, market, quantity, price, mark)


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
    events.values[rows, 2] = 0.0005 * np.abs(made.quantity) * made.price
    events.values[rows, 3] = 0.0
    # levels must follow their book: stable, by time only, since bars, blocks and fills were laid in order
    order = np.argsort(events.time_us, kind="stable")
    return part(events, order)


def opened_venue(accounts: int, markets: int) -> Venue:
    """A venue that knows its names, terms and deposits."""
    venue = Venue()
    for number in range(markets):
        venue.market(f"{number}-PERP")
    for number in range(accounts):
        venue.account(str(number))
    venue.apply(setting(accounts, markets))
    return venue


def chunks(events: EventBatch, size: int) -> list[EventBatch]:
    """The batch in pieces of `size` rows."""
    return [part(events, slice(start, start + size)) for start in range(0, len(events.kind), size)]


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds that a call takes, so that what else the machine does counts for little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def replayed(
    venue: Venue, events: EventBatch, times_us: npt.NDArray[np.int64], figures: dict[str, float]
) -> pd.DataFrame:
    """Equity of every account with a position at each time, from whole vectors."""
    row = 0
    found = []
    figures["events_s"] = figures["vectors_s"] = 0.0
    for time_us in times_us.tolist():
        begun = time.process_time()
        row = venue.apply(events, row, time_us)
        applied = time.process_time()
        made = venue.open_vectors()
        figures["vectors_s"] += time.process_time() - applied
        figures["events_s"] += applied - begun
        columns = {"account": made.account, "equity": made.figures[:, emit.EQUITY_USD]}
        found.append(pd.DataFrame(columns).assign(time_us=time_us))
    return pd.concat(found)


def pandas_equity(made: Flow, times_us: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The same from running sums of quantity and cash by account and market."""
    frame = pd.DataFrame({"account": made.account, "market": made.market, "quantity": made.quantity})
    frame["cash"] = -made.quantity * made.price - 0.0005 * np.abs(made.quantity) * made.price
    frame["step"] = np.searchsorted(times_us, made.time_us, side="left")
    frame = frame[frame["step"] < len(times_us)]
    moved = frame.groupby(["step", "account", "market"])[["quantity", "cash"]].sum()
    paid = moved["cash"].groupby(["step", "account"]).sum()
    quantity, cash = (
        column.unstack("step").reindex(columns=range(len(times_us))).fillna(0.0).cumsum(axis=1)
        for column in (moved["quantity"], paid)
    )
    marks = pd.DataFrame(made.mark[(times_us - START_US) // MINUTE_US].T, columns=quantity.columns)
    held = quantity.mul(marks.loc[quantity.index.get_level_values("market")].to_numpy())
    value = held.groupby("account").sum() + cash + DEPOSIT_USD
    is_open = (quantity.abs() > 0.05).groupby("account").any()
    table = value.where(is_open).rename_axis(columns="step").stack().rename("equity").dropna().reset_index()
    table["time_us"] = times_us[table["step"].to_numpy()]
    return table.sort_values(["time_us", "account"])[["time_us", "account", "equity"]]


def measured(fills: int, accounts: int, markets: int, seed: int) -> dict[str, float]:
    """Every figure by name."""
    made = flow(fills, accounts, markets, seed)
    events = arrivals(made)
    opened_venue(8, markets).apply(part(events, slice(1)))
    opened_venue(8, markets).open_vectors()  # what is left to load or compile is done by now
    figures: dict[str, float] = {"events": len(events.kind), "fills": fills}

    venue = opened_venue(accounts, markets)
    pieces = chunks(events, CHUNK)
    taken = seconds(lambda: [venue.apply(piece) for piece in pieces])
    figures["events_per_s"] = len(events.kind) / taken
    only = chunks(part(events, events.kind == FILL), CHUNK)
    other = opened_venue(accounts, markets)
    figures["fills_alone_per_s"] = fills / seconds(lambda: [other.apply(piece) for piece in only])
    for size in (1, 64):
        small = chunks(part(only[0], slice(20_000)), size)
        one = opened_venue(accounts, markets)
        taken = seconds(lambda venue=one, pieces=small: [venue.apply(piece) for piece in pieces])
        figures[f"fills_in_batches_of_{size}_per_s"] = sum(len(piece.kind) for piece in small) / taken

    vectors = venue.open_vectors()
    figures["open_accounts"] = len(vectors.account)
    figures["positions_per_account"] = float(vectors.figures[:, emit.OPEN_POSITIONS].mean())
    taken = min(seconds(venue.open_vectors) for _ in range(3))
    figures["vectors_per_s"] = len(vectors.account) / taken
    figures["us_per_vector"] = 1e6 * taken / len(vectors.account)
    some = np.random.default_rng(seed).choice(vectors.account, min(5_000, len(vectors.account))).tolist()
    taken = min(seconds(lambda: [venue.vectors([key]) for key in some]) for _ in range(3))
    figures["us_per_vector_one_by_one"] = 1e6 * taken / len(some)

    sample = flow(fills // 10, max(accounts // 4, 1), markets, seed + 1)
    bars_and_fills = arrivals(sample, has_books=False)
    times_us = START_US + HOUR_US * np.arange(1, DAYS * 24)
    ours = opened_venue(max(accounts // 4, 1), markets)
    figures["sample_fills"] = len(sample.time_us)
    figures["sample_times"] = len(times_us)
    equities = [replayed(ours, bars_and_fills, times_us, figures)]
    figures["pandas_s"] = seconds(lambda: equities.append(pandas_equity(sample, times_us)))
    figures["pandas_over_venue"] = figures["pandas_s"] / (figures["events_s"] + figures["vectors_s"])
    both = equities[0].merge(equities[1], on=["time_us", "account"], how="outer")
    figures["sample_vectors"] = len(equities[0])
    figures["largest_difference_usd"] = float((both["equity_x"] - both["equity_y"]).abs().max())
    assert len(both) == len(equities[0]) == len(equities[1]), "the two do not see the same open accounts"
    assert figures["largest_difference_usd"] < 1e-3, "the two do not agree"
    return figures


WORDS = {
    "events_per_s": "events applied a second, all kinds, in order of arrival",
    "fills_alone_per_s": "fills applied a second, no bars between",
    "fills_in_batches_of_64_per_s": "the same, in batches of 64",
    "fills_in_batches_of_1_per_s": "the same, one call an event",
    "vectors_per_s": "vectors a second, all open accounts at once",
    "us_per_vector": "microseconds a vector, so",
    "us_per_vector_one_by_one": "microseconds a vector, one call each from Python",
    "events_s": "sample: seconds for all events, compiled",
    "vectors_s": "sample: seconds for whole vectors, compiled",
    "pandas_s": "sample: seconds for position and equity alone, pandas",
    "pandas_over_venue": "pandas (2 columns) over compiled (all columns)",
    "largest_difference_usd": "largest difference of equity, dollars",
}


def main() -> None:
    """Print the table; write the same figures as JSON where asked to."""
    parser = argparse.ArgumentParser(description="Speed of events in and vectors out.")
    parser.add_argument("--fills", type=int, default=2_000_000)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--markets", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    figures = measured(options.fills, options.accounts, options.markets, options.seed)
    print(
        f"{figures['events']:,.0f} events, of them {figures['fills']:,.0f} fills; "
        f"{figures['open_accounts']:,.0f} accounts open "
        f"with {figures['positions_per_account']:.1f} positions each"
    )
    print(
        f"sample: {figures['sample_fills']:,.0f} fills, {figures['sample_times']:.0f} times, "
        f"{figures['sample_vectors']:,.0f} vectors\n"
    )
    for name, words in WORDS.items():
        value = figures[name]
        shown = f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"
        print(f"{words:<58} {shown:>14}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
