"""How fast events go through the engine: decoded, judged, logged and applied; one thread, processor time.

Fills of many accounts between minute bars, hourly books and funding of every market (`benchmarks/flows.py`),
numbered by their source, in requests of several sizes:

- as JSON and as MessagePack through `Engine.take(read_events(body))`;
- as columns through `Engine.take_columns`, as a process has them that feeds from within;
- the same requests in the compiled kernel alone, `Venue.apply`, which all of them end in;

each but the last with the event log and without (written, not synced), and how fast the log is read again
by a follower. Every way has to end in the same state, and the program says so where one does not.

    python -m benchmarks.event_speed [--events N] [--accounts N] [--markets N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.flows import START_US, arrivals, flow, opened_venue, part
from features.events import BOOK, FILL, LEVEL, EventBatch
from features.venue import Venue
from serving.codec import JSON, MSGPACK
from serving.columns import EventColumns
from serving.engine import Engine
from serving.log import EventLog, LogReader
from serving.rows import read_events

SIZES = (100, 1_000, 10_000)
SOURCE = "feed"
OWNER = b"benchmark"
DENSITY = 10
"""So many times as many fills as are sent lie in the hours that they are taken from the start of."""


class Requests(NamedTuple):
    """The same events as requests of one size, in each way."""

    columns: list[EventColumns]
    json: list[bytes]
    msgpack: list[bytes]


class _NoScorer:
    """Nothing is asked here."""

    model_version = "none"

    def score(self, vectors: object, /) -> Any:
        raise NotImplementedError

    def reasons(self, vectors: object, scores: object, all_rows: bool = False) -> Any:
        raise NotImplementedError


def in_order(events: EventBatch) -> EventBatch:
    """The events by time and kind, levels behind their book."""
    kind = np.where(events.kind == LEVEL, BOOK, events.kind)
    return part(events, np.lexsort((kind, events.time_us)))


def requests(events: EventBatch, size: int, markets: list[str], accounts: list[str]) -> Requests:
    """Requests of `size` rows each."""
    heads = np.flatnonzero(events.kind != LEVEL)
    edges = [*heads[::size].tolist(), len(events.kind)]
    made = Requests([], [], [])
    for number, (start, end) in enumerate(pairwise(edges)):
        piece = EventBatch(*[column.copy() for column in part(events, slice(start, end))])
        rows = int((piece.kind != LEVEL).sum())
        of_account = piece.kind == FILL  # the only events of accounts in this flow
        used = np.unique(piece.key[of_account])
        place = np.zeros(len(accounts), np.int32)
        place[used] = np.arange(len(used))
        piece.key[of_account] = place[piece.key[of_account]]
        columns = EventColumns(
            piece,
            markets=markets,
            accounts=[accounts[key] for key in used.tolist()],
            source=SOURCE,
            sequence=number * size + np.arange(rows),
        )
        message = {"source": SOURCE, "events": columns.request().rows}
        made.columns.append(columns)
        made.json.append(msgspec.json.encode(message))
        made.msgpack.append(msgspec.msgpack.encode(message))
    return made


def timed(work: Callable[[], None]) -> float:
    """Processor seconds, with what lived before left alone by collections, as in a service."""
    gc.collect()
    gc.freeze()
    begun = time.process_time()
    work()
    taken = time.process_time() - begun
    gc.unfreeze()
    return taken


def ways(made: Requests, engine: Engine) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each way for requests to come in."""

    def by_json() -> None:
        for body in made.json:
            assert not engine.take(read_events(body, JSON)).rejected

    def by_msgpack() -> None:
        for body in made.msgpack:
            assert not engine.take(read_events(body, MSGPACK)).rejected

    def by_columns() -> None:
        for columns in made.columns:
            assert not engine.take_columns(columns).rejected

    yield from (("json", by_json), ("msgpack", by_msgpack), ("columns", by_columns))


def measured(events: int, accounts: int, markets: int, seed: int, rounds: int) -> dict[str, float]:
    """Events a second by way, size and log, the quietest of some rounds."""
    sent = in_order(arrivals(flow(DENSITY * events, accounts, markets, seed)))
    sent = part(sent, sent.time_us > START_US)  # the venue begins with all that happened then
    heads = np.flatnonzero(sent.kind != LEVEL)
    sent = part(sent, slice(int(heads[events])))
    names = opened_venue(accounts, markets)
    figures: dict[str, float] = {"events": events, "fills": float((sent.kind == FILL).sum())}
    warm = requests(part(sent, slice(5_000)), 500, names.market_names, names.account_names)
    _all(warm, accounts, markets, 500, {}, 500)  # compiles
    for size in SIZES:
        made = requests(sent, size, names.market_names, names.account_names)
        figures[f"json_bytes_a_row_{size}"] = sum(map(len, made.json)) / events
        figures[f"msgpack_bytes_a_row_{size}"] = sum(map(len, made.msgpack)) / events
        for _ in range(rounds):
            _all(made, accounts, markets, size, figures, events)
    return figures


def _all(
    made: Requests, accounts: int, markets: int, size: int, figures: dict[str, float], events: int
) -> None:
    """One round of every way; faster ones take the place of slower ones in `figures`."""
    digests = set()

    def note(name: str, taken: float, venue: Venue) -> None:
        figures[f"{name}_{size}"] = max(figures.get(f"{name}_{size}", 0.0), events / taken)
        digests.add(venue.digest())

    bare = opened_venue(accounts, markets)
    ids = [_with_ids(columns, bare) for columns in made.columns]

    def kernel() -> None:
        for batch in ids:
            bare.apply(batch)

    note("kernel", timed(kernel), bare)
    for number in range(3):
        for logged in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "events.log"
                log = EventLog.open(path, OWNER) if logged else None
                engine = Engine(_NoScorer(), venue=opened_venue(accounts, markets), log=log)
                name, work = list(ways(made, engine))[number]
                note(f"{name}{'_logged' if logged else ''}", timed(work), engine.venue)
                if logged and name == "columns":
                    figures[f"log_bytes_a_row_{size}"] = path.stat().st_size / events
                    _follow(path, accounts, markets, note)
                engine.close()
    if len(digests) > 1:
        sys.exit("error: not every way ends in the same state")


def _follow(path: Path, accounts: int, markets: int, note: Callable[[str, float, Venue], None]) -> None:
    venue = opened_venue(accounts, markets)
    made: list[Engine] = []
    reader = LogReader.open(path, OWNER)
    note("followed", timed(lambda: made.append(Engine(_NoScorer(), venue=venue, log=reader))), venue)
    made[0].close()


def _with_ids(columns: EventColumns, venue: Venue) -> EventBatch:
    """The events with the venue's ids."""
    events = columns.events
    accounts = venue.find_accounts(columns.accounts)
    of_account = events.kind == FILL
    key = events.key.copy()
    key[of_account] = accounts[key[of_account]]
    return events._replace(key=key)


COLUMNS = (
    "json",
    "json_logged",
    "msgpack",
    "msgpack_logged",
    "columns",
    "columns_logged",
    "followed",
    "kernel",
)
WORDS = {
    "json": "JSON",
    "msgpack": "MessagePack",
    "columns": "columns",
    "followed": "read from the log by a follower",
    "kernel": "the kernel alone",
}


def shown(figures: dict[str, float]) -> Iterator[str]:
    """The table, a line at a time."""
    yield f"{'events a second, requests of':<44}" + "".join(f"{size:>12,}" for size in SIZES)
    for name in COLUMNS:
        way, logged = name.removesuffix("_logged"), name.endswith("_logged")
        words = WORDS[way] + (", logged" if logged else "")
        yield f"{words:<44}" + "".join(f"{figures[f'{name}_{size}']:>12,.0f}" for size in SIZES)
    for name, words in (("json", "JSON"), ("msgpack", "MessagePack"), ("log", "of the log")):
        cells = "".join(f"{figures[f'{name}_bytes_a_row_{size}']:>12.0f}" for size in SIZES)
        yield f"{'bytes a row: ' + words:<44}{cells}"


def main() -> None:
    """Print the table; write the same figures as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.event_speed", description="Speed of events through the engine."
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--markets", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of which the quietest counts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    figures = measured(options.events, options.accounts, options.markets, options.seed, options.rounds)
    print(
        f"{figures['events']:,.0f} events, of them {figures['fills']:,.0f} fills; "
        f"{options.accounts:,} accounts, {options.markets} markets; all ways end in the same state\n"
    )
    for line in shown(figures):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
