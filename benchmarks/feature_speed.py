"""How fast events change the venue's state and vectors come out of it: one thread, processor time.

Fills of many accounts arrive in order of time, between minute bars, hourly funding and books of every
market, and every quarter of an hour the venue looks at all accounts. Measured are

- the replay: all events, and whole vectors of every open account at hourly decision times;
- arrival: the share of it that events take, and smaller batches of them;
- one vector from Python: `Venue.vector`, beside the kernel called with its tables as arguments;
- pandas and polars (`benchmarks/frames.py`) on a sample: the columns of `features.standing`, which are
  equity, margin, leverage, unrealised return by entry price, and sums of trading that fade. The same columns
  come from the venue twice: alone, without the sweeps that they do not need, and with all else that
  a replay computes. All answers are compared.

    python benchmarks/feature_speed.py [--fills N] [--accounts N] [--markets N] [--json FILE]

(The file is not called after the package that it measures: a program's own folder comes first on the
path, and would hide the package.)
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from benchmarks.frames import in_pandas, in_polars
from exchange.units import DAY_US, HOUR_US, MINUTE_US
from features import emit, standing
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
from features.portfolio import gather
from features.state import NEXT_SWEEP, new_portfolio
from features.venue import END_OF_TIME_US, Vectors, Venue

START_US = 19_700 * DAY_US
HOURS = 42
DEPOSIT_USD = 20_000.0
CHUNK = 100_000
SAMPLE = 1_000_000
"""Fills that pandas and polars are given, which take their time."""
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
    minutes = HOURS * 60
    moves = chance.normal(0.0, math.sqrt(1.0 / (365 * 24 * 60)), (minutes + 1, markets))
    mark = chance.choice((2.0, 30.0, 1_500.0), markets) * np.exp(np.cumsum(moves, axis=0))
    time_us = np.sort(chance.integers(1, HOURS * HOUR_US, fills))
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


def chunks(events: EventBatch, size: int) -> list[EventBatch]:
    """The batch in pieces of `size` rows."""
    return [part(events, slice(start, start + size)) for start in range(0, len(events.kind), size)]


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds that a call takes, so that what else the machine does counts for little."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Replay(NamedTuple):
    """Processor seconds, and how many vectors came out."""

    events_s: float
    vectors_s: float
    vectors: int


def decision_times(hours: int) -> npt.NDArray[np.int64]:
    """Every full hour after the first two, when nearly every account has traded."""
    return START_US + HOUR_US * np.arange(3, hours + 1)


def replayed(venue: Venue, events: EventBatch, times_us: npt.NDArray[np.int64]) -> Replay:
    """Apply all events up to each time and take every open account's vector, over the one before."""
    row = vectors = 0
    events_s = vectors_s = 0.0
    room = len(venue.account_names)
    kept = Vectors(np.empty(room, np.int64), np.empty((room, emit.FEATURES)), np.empty((room, emit.FIGURES)))
    for time_us in times_us.tolist():
        begun = time.process_time()
        while row < len(events.kind) and events.time_us[row] <= time_us:
            row = venue.apply(part(events, slice(row, row + CHUNK)), 0, time_us) + row
        applied = time.process_time()
        vectors += len(venue.open_vectors(into=kept).account)
        vectors_s += time.process_time() - applied
        events_s += applied - begun
    return Replay(events_s, vectors_s, vectors)


def standings(venue: Venue, events: EventBatch, times_us: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The columns of `features.standing` alone; the venue's sweeps are put off for good."""
    venue.state.clock[NEXT_SWEEP] = END_OF_TIME_US
    accounts = len(venue.account_names)
    ids, values = np.empty(accounts, np.int64), np.empty((accounts, len(standing.COLUMNS)))
    folio = new_portfolio(len(venue.state.market), len(venue.state.asset))
    row = 0
    found = []
    for step, time_us in enumerate(times_us.tolist()):
        row = venue.apply(events, row, time_us)
        rows = standing.stand_open(venue.state, accounts, folio, ids, values)
        found.append((np.full(rows, step), ids[:rows].copy(), values[:rows].copy()))
    step_of, account, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    frame = pd.DataFrame(columns, columns=list(standing.COLUMNS))
    return frame.assign(step=step_of, account=account)


def largest_difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """Over all columns, relative, of numbers of at least one; both must answer for the same accounts."""
    keys = ["step", "account"]
    assert np.array_equal(ours[keys].to_numpy(), theirs[keys].to_numpy()), "not the same open accounts"
    names = list(standing.COLUMNS)
    a, b = ours[names].to_numpy(), theirs[names].to_numpy()
    return float((np.abs(a - b) / np.maximum(np.abs(a), 1.0)).max())


def call_ns(work: Callable[[int], object], keys: list[int]) -> npt.NDArray[np.float64]:
    """Nanoseconds of the wall clock that each call takes."""
    taken = np.empty(len(keys))
    clock = time.perf_counter_ns
    for number, key in enumerate(keys):
        begun = clock()
        work(key)
        taken[number] = clock() - begun
    return taken


def one_by_one(venue: Venue, calls: int, seed: int, figures: dict[str, float]) -> None:
    """Percentiles of a single vector's time, the quietest of five rounds beside the median one."""
    keys = np.random.default_rng(seed).choice(len(venue.account_names), calls).tolist()
    folio = new_portfolio(len(venue.state.market), len(venue.state.asset))
    vector, figure = np.empty(emit.FEATURES), np.empty(emit.FIGURES)

    def plain(key: int) -> None:
        if gather(venue.state, key, folio) > 0:
            emit.emit(venue.state, folio, vector, figure)

    gc.collect()
    gc.freeze()
    for name, work in (("vector", venue.vector), ("plain", plain)):
        call_ns(work, keys[:1_000])
        rounds = [call_ns(work, keys) for _ in range(5)]
        for share in (50, 99):
            found = sorted(float(np.percentile(each, share)) / 1e3 for each in rounds)
            figures[f"{name}_p{share}_us"] = found[0]
            figures[f"{name}_p{share}_median_us"] = found[2]
    gc.unfreeze()


def compared(fills: int, accounts: int, markets: int, seed: int, figures: dict[str, float]) -> None:
    """pandas and polars against the venue on one sample."""
    made = flow(fills, accounts, markets, seed)
    times_us = decision_times(HOURS)
    events = arrivals(made, has_books=False)
    fills_of = {
        "time_us": made.time_us,
        "account": made.account,
        "market": made.market,
        "quantity": made.quantity,
        "price": made.price,
    }
    as_pandas, as_polars = pd.DataFrame(fills_of), pl.DataFrame(fills_of)
    marks = made.mark[(times_us - START_US) // MINUTE_US]
    first = part(events, slice(1))
    standings(opened_venue(8, markets), first, times_us[:1])
    replayed(opened_venue(8, markets), first, times_us[:1])  # what is to be compiled is by now
    found: dict[str, pd.DataFrame] = {}
    venue = opened_venue(accounts, markets)
    figures["alone_s"] = seconds(lambda: found.update(venue=standings(venue, events, times_us)))
    venue = opened_venue(accounts, markets)
    whole = replayed(venue, events, times_us)
    figures["whole_s"] = whole.events_s + whole.vectors_s
    figures["pandas_s"] = seconds(lambda: found.update(pandas=in_pandas(as_pandas, times_us, marks)))
    answer: list[pl.DataFrame] = []
    figures["polars_s"] = seconds(lambda: answer.append(in_polars(as_polars, times_us, marks)))
    found["polars"] = answer[0].to_pandas()
    figures["sample_fills"], figures["sample_rows"] = fills, len(found["venue"])
    for name in ("pandas", "polars"):
        figures[f"{name}_over_alone"] = figures[f"{name}_s"] / figures["alone_s"]
        figures[f"{name}_over_whole"] = figures[f"{name}_s"] / figures["whole_s"]
        figures[f"{name}_difference"] = largest_difference(found["venue"], found[name])
        assert figures[f"{name}_difference"] < 1e-6, f"{name} and the venue do not agree"


def measured(fills: int, accounts: int, markets: int, seed: int) -> dict[str, float]:
    """Every figure by name."""
    figures: dict[str, float] = {"fills": fills}
    compared(min(fills, SAMPLE), accounts // 10, markets, seed + 1, figures)
    made = flow(fills, accounts, markets, seed)
    events = arrivals(made)
    figures["events"] = len(events.kind)
    venue = opened_venue(accounts, markets)
    done = replayed(venue, events, decision_times(HOURS))
    figures |= {"replay_s": done.events_s + done.vectors_s, "events_s": done.events_s}
    figures |= {"vectors_s": done.vectors_s, "vectors": done.vectors}
    figures["events_per_s"] = len(events.kind) / done.events_s
    figures["us_per_vector"] = 1e6 * done.vectors_s / done.vectors
    vectors = venue.open_vectors()
    figures["open_accounts"] = len(vectors.account)
    figures["positions_per_account"] = float(vectors.figures[:, emit.OPEN_POSITIONS].mean())
    one_by_one(venue, 100_000, seed, figures)
    only = part(part(events, events.kind == FILL), slice(20_000))
    for size in (1, 64):
        small = chunks(only, size)
        one = opened_venue(accounts, markets)
        taken = seconds(lambda venue=one, pieces=small: [venue.apply(piece) for piece in pieces])
        figures[f"fills_in_batches_of_{size}_per_s"] = len(only.kind) / taken
    return figures


WORDS = {
    "replay_s": "replay: seconds for all events and all vectors",
    "events_s": "of it events, with the quarter-hourly sweeps",
    "vectors_s": "of it vectors",
    "events_per_s": "events a second, in order of arrival, sweeps included",
    "us_per_vector": "microseconds a vector",
    "fills_in_batches_of_64_per_s": "fills a second in batches of 64",
    "fills_in_batches_of_1_per_s": "fills a second, one call each",
    "vector_p50_us": "one vector from Python, p50, quietest round",
    "vector_p99_us": "p99, quietest round",
    "vector_p99_median_us": "p99, median round",
    "plain_p50_us": "the kernel with tables as arguments, p50, quietest",
    "plain_p99_us": "p99, quietest round",
    "alone_s": "sample: the compared columns alone, compiled, seconds",
    "whole_s": "sample: the whole replay, all columns, seconds",
    "pandas_s": "sample: the compared columns, pandas, seconds",
    "polars_s": "sample: the compared columns, polars, seconds",
    "pandas_over_alone": "pandas over compiled, same columns",
    "polars_over_alone": "polars over compiled, same columns",
    "pandas_over_whole": "pandas' few columns over the whole replay",
    "polars_over_whole": "polars' few columns over the whole replay",
    "pandas_difference": "largest difference from pandas, relative",
    "polars_difference": "largest difference from polars, relative",
}


def main() -> None:
    """Print the table; write the same figures as JSON where asked to."""
    parser = argparse.ArgumentParser(description="Speed of events in and vectors out.")
    parser.add_argument("--fills", type=int, default=10_000_000)
    parser.add_argument("--accounts", type=int, default=50_000)
    parser.add_argument("--markets", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    figures = measured(options.fills, options.accounts, options.markets, options.seed)
    print(
        f"{figures['events']:,.0f} events over {HOURS} hours, of them {figures['fills']:,.0f} fills, "
        f"{options.markets} markets; {figures['open_accounts']:,.0f} accounts open\n"
        f"with {figures['positions_per_account']:.1f} positions each; {figures['vectors']:,.0f} vectors of "
        f"{emit.FEATURES} columns and {emit.FIGURES} figures"
    )
    print(f"sample: {figures['sample_fills']:,.0f} fills, {figures['sample_rows']:,.0f} rows compared\n")
    for name, words in WORDS.items():
        value = figures[name]
        shown = f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"
        print(f"{words:<58} {shown:>14}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
