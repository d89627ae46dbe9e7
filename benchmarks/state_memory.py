"""How much memory an account takes, reckoned from the tables and as the process grows by it.

Accounts of one venue with so many positions each, named as exchanges name them (36 letters); then the
engine's bounds, and what the state takes where they are all reached.

    python -m benchmarks.state_memory [--accounts N] [--positions N] [--markets N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.flows import opened_venue
from features.events import ACCOUNT, FILL, EventBatch
from features.state import ACCOUNT_ROW, ASSET_ROW, BALANCE_ROW, MARKET_ROW, OWNER_ROW, POSITION_ROW
from features.venue import Venue
from serving.admission import Bounds

ROWS = {
    "market": MARKET_ROW, "asset": ASSET_ROW, "account": ACCOUNT_ROW, "owner": OWNER_ROW,
    "position": POSITION_ROW, "balance": BALANCE_ROW,
}  # fmt: skip
CHUNK = 20_000


def resident_bytes() -> int:
    """Memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096


def name_of(number: int) -> str:
    """A name as long as those of exchanges."""
    return str(UUID(int=number * 2**64 + 7))


def fill_accounts(venue: Venue, accounts: int, positions: int) -> None:
    """Announce accounts and open positions in as many markets each."""
    for start in range(0, accounts, CHUNK):
        keys = [venue.account(name_of(number)) for number in range(start, min(start + CHUNK, accounts))]
        events = EventBatch.empty(len(keys) * (1 + positions))
        events.time_us[:] = venue.now_us
        events.kind[:] = FILL
        events.kind[: len(keys)] = ACCOUNT
        events.key[:] = np.tile(keys, 1 + positions)
        events.values[: len(keys), 0], events.values[: len(keys), 1] = venue.now_us, 0.0
        events.sub[len(keys) :] = np.repeat(np.arange(positions), len(keys))
        events.values[len(keys) :, :4] = (1.0, 100.0, 0.0, 0.0)
        venue.apply(events)


def measured(accounts: int, positions: int, markets: int) -> dict[str, float]:
    """Bytes by name."""
    figures: dict[str, float] = {f"{table}_row": row.itemsize for table, row in ROWS.items()}
    venue = opened_venue(1, markets)
    fill_accounts(venue, 1, positions)  # compiles
    gc.collect()
    before = resident_bytes()
    fill_accounts(venue, accounts, positions)
    figures["resident_per_account"] = (resident_bytes() - before) / accounts
    used = ACCOUNT_ROW.itemsize + positions * POSITION_ROW.itemsize
    # the name, its id, and its places in the list and the dictionary, which are up to half empty
    names = sys.getsizeof(name_of(0)) + sys.getsizeof(2**20) + 8 * 1.125 + 104 * 1.5
    figures["tables_per_account"] = used
    figures["names_per_account"] = names
    figures["room_per_account"] = 2 * used + names  # tables double when they are full
    bounds = Bounds()
    figures["bound_bytes"] = (
        bounds.accounts * figures["room_per_account"]
        + 2 * bounds.markets * MARKET_ROW.itemsize
        + 2 * bounds.assets * ASSET_ROW.itemsize
        + bounds.owners * (2 * OWNER_ROW.itemsize + names)
    )
    return figures


def main() -> None:
    """Print the figures; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.state_memory", description="Memory of the state by account."
    )
    parser.add_argument("--accounts", type=int, default=200_000)
    parser.add_argument("--positions", type=int, default=3, help="of each account")
    parser.add_argument("--markets", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    figures = measured(options.accounts, options.positions, options.markets)
    print(f"{options.accounts:,} accounts with {options.positions} positions each; bytes\n")
    for table in ROWS:
        print(f"{'a row of the table of ' + table + 's':<58} {figures[f'{table}_row']:>14,.0f}")
    for name, words in (
        ("tables_per_account", "an account in the tables"),
        ("names_per_account", "its name"),
        ("room_per_account", "both, right after tables have doubled"),
        ("resident_per_account", "what the process grew by, an account"),
        ("bound_bytes", "all bounds of the engine reached, so many positions each"),
    ):
        print(f"{words:<58} {figures[name]:>14,.0f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
