"""A dataset as the requests of `POST /v1/events` in which a venue would have sent it.

Rows come in the order of the specification; a snapshot nests its positions and balances. Files are read
with polars alone, so that nothing of the batch reader is taken for granted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from features.tables import PARENT, TABLES

Event = dict[str, Any]

ORDER = (
    "markets",
    "assets",
    "asset_prices",
    "market_bars",
    "book_depth",
    "funding",
    "accounts",
    "transfers",
    "fills",
    "margin_rates",
    "account_snapshots",
    "observations",
    "default_events",
    "insurance_fund",
)
"""Tables in the order in which rows of one time apply; the last two change nothing that is computed."""

TIES = {
    "transfers": ("sequence", "account_id", "amount_usd"),
    "fills": ("sequence", "account_id", "market", "quantity", "price", "fee_usd", "kind"),
}
"""Columns that order rows of one time where the key does not."""


def events(folder: Path, until: datetime | None = None) -> list[Event]:
    """Every row up to a time as an event."""
    nested = {name: _nested(folder, table) for name, table in NESTED.items()}
    found: list[tuple[datetime, Event]] = []
    for table in ORDER:
        rows = _rows(folder, table)
        time = TABLES[table].time
        if rows.is_empty():
            continue
        if time is not None and until is not None:
            rows = rows.filter(pl.col(time) <= until)
        keys = [name for name in TIES.get(table, TABLES[table].key) if name in rows.columns]
        order = [name for name in (time, *keys) if name is not None]
        for row in rows.sort(order, maintain_order=True).iter_rows(named=True):
            event: Event = {
                "table": table,
                **{name: value for name, value in row.items() if value is not None},
            }
            event.pop("sequence", None)  # that of a table; requests number theirs by source
            if table == "account_snapshots":
                key = (row["time"], row["account_id"])
                event |= {name: children[key] for name, children in nested.items() if key in children}
            found.append((row[time] if time is not None else datetime.min, event))
    first = min(time for time, _ in found if time != datetime.min)
    found = [(first if time == datetime.min else time, event) for time, event in found]
    # stable: at one time tables stay in their order
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def requests(rows: list[Event], size: int, source: str = "feeder") -> Iterator[bytes]:
    """Bodies of requests of `size` rows each, numbered by their source."""
    for start in range(0, len(rows), size):
        numbered = [
            {**event, "sequence": start + number} for number, event in enumerate(rows[start : start + size])
        ]
        yield msgspec.json.encode({"source": source, "events": numbered})


NESTED = {"positions": "position_snapshots", "balances": "balance_snapshots"}


def _rows(folder: Path, table: str) -> pl.DataFrame:
    file = folder / f"{table}.parquet"
    if not file.exists():
        return pl.DataFrame()
    rows = pl.read_parquet(file)
    return rows.select(column.name for column in TABLES[table].columns if column.name in rows.columns)


def _nested(folder: Path, table: str) -> dict[tuple[datetime, str], list[Event]]:
    """Rows of a table by the key of the row that they belong to, without that key; in any order."""
    found: dict[tuple[datetime, str], list[Event]] = defaultdict(list)
    for row in _rows(folder, table).iter_rows(named=True):
        key = (row.pop("time"), row.pop("account_id"))
        found[key].append({name: value for name, value in row.items() if value is not None})
    assert PARENT[table] == "account_snapshots"
    return found
