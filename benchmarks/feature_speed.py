"""How fast events change the venue's state and vectors come out of it: one thread, processor time.

Fills of many accounts (`benchmarks/flows.py`) arrive in order of time, between minute bars, hourly funding
and books of every market, and every quarter of an hour the venue looks at all accounts. Measured are

- the replay: all events, and whole vectors of every open account at hourly decision times;
- arrival: the events alone, without the looks at all accounts, and smaller batches of them;
- one vector from Python: `Venue.vector`; the same where every market has changed since the call before,
  and has to be looked at again; and the kernel called with its tables as arguments;
- pandas and polars on a sample (`benchmarks/feature_comparison.py`).

    python benchmarks/feature_speed.py [--fills N] [--accounts N] [--markets N] [--json FILE]

(The file is not called after the package that it measures: a program's own folder comes first on the
path, and would hide the package.)
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.feature_comparison import COMPARISON, compare
from benchmarks.flows import HOURS, arrivals, decision_times, flow, opened_venue, part
from features import emit
from features.events import FILL, EventBatch
from features.portfolio import gather
from features.state import NEXT_SWEEP, new_portfolio
from features.venue import END_OF_TIME_US, Vectors, Venue

CHUNK = 100_000
SAMPLE = 1_000_000
"""Fills that pandas and polars are given, which take their time."""


def chunks(events: EventBatch, size: int) -> list[EventBatch]:
    """The batch in pieces of `size` rows."""
    return [part(events, slice(start, start + size)) for start in range(0, len(events.kind), size)]


class Replay(NamedTuple):
    """Processor seconds, and how many vectors came out."""

    events_s: float
    vectors_s: float
    vectors: int


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


def arrived(venue: Venue, events: EventBatch) -> float:
    """Processor seconds that events take without the sweeps, which are put off for good."""
    venue.state.clock[NEXT_SWEEP] = END_OF_TIME_US
    begun = time.process_time()
    row = 0
    while row < len(events.kind):
        row += venue.apply(part(events, slice(row, row + CHUNK)))
    return time.process_time() - begun


def call_ns(
    work: Callable[[int], object], keys: list[int], before: Callable[[], object] | None = None
) -> npt.NDArray[np.float64]:
    """Nanoseconds of the wall clock that each call takes; what is done before it does not count."""
    taken = np.empty(len(keys))
    clock = time.perf_counter_ns
    for number, key in enumerate(keys):
        if before is not None:
            before()
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

    def change() -> None:
        venue.state.market["changes"] += 1

    gc.collect()
    gc.freeze()
    ways: tuple[tuple[str, Callable[[int], object], Callable[[], object] | None], ...]
    ways = (("vector", venue.vector, None), ("changed", venue.vector, change), ("plain", plain, None))
    for name, work, before in ways:
        call_ns(work, keys[:1_000], before)
        rounds = [call_ns(work, keys, before) for _ in range(5)]
        for share in (50, 99):
            found = sorted(float(np.percentile(each, share)) / 1e3 for each in rounds)
            figures[f"{name}_p{share}_us"] = found[0]
            figures[f"{name}_p{share}_median_us"] = found[2]
    gc.unfreeze()


def measured(fills: int, accounts: int, markets: int, seed: int) -> dict[str, float]:
    """Every figure by name."""
    figures: dict[str, float] = {"fills": fills}
    compare(min(fills, SAMPLE), accounts // 10, markets, seed + 1, figures)
    made = flow(fills, accounts, markets, seed)
    events = arrivals(made)
    figures["events"] = len(events.kind)
    replayed(opened_venue(8, markets), part(events, slice(1)), decision_times(HOURS)[:1])  # compiles
    figures["arrival_s"] = arrived(opened_venue(accounts, markets), events)
    figures["arrivals_per_s"] = len(events.kind) / figures["arrival_s"]
    venue = opened_venue(accounts, markets)
    done = replayed(venue, events, decision_times(HOURS))
    figures |= {"replay_s": done.events_s + done.vectors_s, "events_s": done.events_s}
    figures |= {"vectors_s": done.vectors_s, "vectors": done.vectors}
    figures["sweeps_s"] = done.events_s - figures["arrival_s"]
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
        begun = time.process_time()
        for piece in small:
            one.apply(piece)
        figures[f"fills_in_batches_of_{size}_per_s"] = len(only.kind) / (time.process_time() - begun)
    return figures


WORDS = {
    "replay_s": "replay: seconds for all events and all vectors",
    "arrival_s": "of it events as they arrive",
    "sweeps_s": "of it the venue's quarter-hourly looks at all accounts",
    "vectors_s": "of it vectors",
    "arrivals_per_s": "events a second, in order of arrival",
    "events_per_s": "the same, sweeps included",
    "us_per_vector": "microseconds a vector",
    "fills_in_batches_of_64_per_s": "fills a second in batches of 64",
    "fills_in_batches_of_1_per_s": "fills a second, one call each",
    "vector_p50_us": "one vector from Python, p50, quietest round",
    "vector_p99_us": "p99, quietest round",
    "vector_p99_median_us": "p99, median round",
    "changed_p50_us": "one vector, all markets changed since the last, p50, quietest",
    "changed_p99_us": "p99, quietest round",
    "plain_p50_us": "the kernel with tables as arguments, p50, quietest",
    "plain_p99_us": "p99, quietest round",
} | COMPARISON


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
