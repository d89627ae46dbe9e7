"""A tiny valid dataset made by hand, random ones, and ways to change what lies on disk.

Nothing here goes through the code under test: files are written and read with polars alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

START = datetime(2024, 3, 1, tzinfo=UTC)
HOURS = 12
END = START + timedelta(hours=HOURS)
TIME = pl.Datetime("us", "UTC")
TIERS = pl.List(
    pl.Struct(
        {
            "notional_cap_usd": pl.Float64,
            "initial_margin_rate": pl.Float64,
            "maintenance_margin_rate": pl.Float64,
        }
    )
)
META: dict[str, Any] = {
    "format": "account-history",
    "version": 1,
    "kind": "accounts",
    "venue": "handmade",
    "quote_asset": "USD",
    "start": START.isoformat(),
    "end": END.isoformat(),
    "gaps": [],
    "source": "made by hand",
    "seed": 1,
}

Tables = dict[str, pl.DataFrame]


def at(hours: float) -> datetime:
    """That many hours after the start."""
    return START + timedelta(hours=hours)


def us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def tier(cap: float | None, initial: float, maintenance: float) -> dict[str, float | None]:
    return {
        "notional_cap_usd": cap,
        "initial_margin_rate": initial,
        "maintenance_margin_rate": maintenance,
    }


def frame(schema: dict[str, Any], rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


def tables() -> Tables:
    """Twelve hours of two markets and three accounts; every table is there, and nothing is wrong."""
    text, number = pl.String, pl.Float64
    two_tiers = [tier(100_000.0, 0.1, 0.05), tier(None, 0.2, 0.1)]
    listing = {"BTC-PERP": 0.0, "ETH-PERP": 4.0}
    halves = [n / 2 for n in range(2 * HOURS + 1)]
    bars = [
        (at(h), market, 100.0 + h, 100.0 + h if h % 1 else None, 1_000.0)
        for h in halves
        for market, listed in listing.items()
        if h >= listed
    ]
    books = [
        (at(h), market, 99.9 + h, 100.1 + h, [10.0, 50.0], [1e4, 5e4], [2e4, 6e4])
        for h in halves[1:]
        for market, listed in listing.items()
        if h >= listed
    ]
    return {
        "markets": frame(
            {
                "time": TIME,
                "market": text,
                "tick_size": number,
                "lot_size": number,
                "taker_fee_rate": number,
                "liquidation_fee_rate": number,
                "funding_interval_s": pl.Int64,
                "tiers": TIERS,
            },
            [
                (at(-1), "BTC-PERP", 0.1, 0.001, 0.0005, 0.015, 3600, two_tiers),
                (at(4), "ETH-PERP", 0.01, 0.01, 0.0005, 0.015, 28800, [tier(None, 0.2, 0.1)]),
                (at(6), "BTC-PERP", 0.1, 0.001, 0.0005, 0.015, 3600, two_tiers[1:]),
            ],
        ),
        "assets": frame(
            {"asset": text, "collateral_weight": number, "liability_weight": number},
            [("USD", 1.0, 1.0), ("SOL", 0.9, 1.1)],
        ),
        "asset_prices": frame(
            {"time": TIME, "asset": text, "price": number},
            [(at(h), "SOL", 20.0 + h) for h in range(HOURS + 1)],
        ),
        "market_bars": frame(
            {
                "time": TIME,
                "market": text,
                "mark_close": number,
                "index_close": number,
                "volume_usd": number,
            },
            bars,
        ),
        "book_depth": frame(
            {
                "time": TIME,
                "market": text,
                "best_bid": number,
                "best_ask": number,
                "distance_bps": pl.List(number),
                "bid_usd": pl.List(number),
                "ask_usd": pl.List(number),
            },
            books,
        ),
        "funding": frame(
            {"time": TIME, "market": text, "funding_rate": number},
            [(at(h), "BTC-PERP", 1e-5 * h) for h in range(1, HOURS + 1)],
        ),
        "accounts": frame(
            {"account_id": text, "owner_id": text, "opened_time": TIME, "margin_mode": text},
            [
                ("zoe", "olga", at(-2), "cross"),
                ("abe", "olga", at(2), "isolated"),
                ("mia", None, at(7), "cross"),
            ],
        ),
        "transfers": frame(
            {"time": TIME, "account_id": text, "amount_usd": number, "sequence": pl.Int64},
            [(at(0), "zoe", 500.0, 1), (at(2), "abe", 300.0, 2), (at(7), "mia", 50.0, 5)],
        ),
        "fills": frame(
            {
                "time": TIME,
                "account_id": text,
                "market": text,
                "quantity": number,
                "price": number,
                "fee_usd": number,
                "kind": text,
            },
            [
                (at(0.5), "zoe", "BTC-PERP", 2.0, 100.5, 0.1, "trade"),
                (at(2), "abe", "BTC-PERP", -1.0, 102.0, 0.1, "trade"),
                (at(5), "zoe", "ETH-PERP", 3.0, 105.0, 0.2, "trade"),
                (at(8), "abe", "BTC-PERP", 1.0, 109.0, 0.1, "liquidation"),
                (at(8), "zoe", "BTC-PERP", -1.0, 109.0, 0.1, "deleverage"),
            ],
        ),
        "margin_rates": frame(
            {
                "time": TIME,
                "account_id": text,
                "initial_margin_rate": number,
                "maintenance_margin_rate": number,
            },
            [(at(3), "zoe", 0.3, 0.15)],
        ),
        "account_snapshots": frame(
            {
                "time": TIME,
                "account_id": text,
                "equity_usd": number,
                "collateral_usd": number,
                "initial_margin_usd": number,
                "maintenance_margin_usd": number,
                "open_orders": pl.Int64,
            },
            [
                (at(6), "zoe", 510.0, 500.0, 60.0, 30.0, 2),
                (at(6), "abe", 290.0, 290.0, 10.0, 5.0, None),
                (at(9), "abe", 280.0, 280.0, 0.0, 0.0, 0),
            ],
        ),
        "position_snapshots": frame(
            {
                "time": TIME,
                "account_id": text,
                "market": text,
                "quantity": number,
                "entry_price": number,
                "quote_usd": number,
            },
            [
                (at(6), "zoe", "ETH-PERP", 3.0, 105.0, -315.0),
                (at(6), "zoe", "BTC-PERP", 2.0, 100.5, -201.0),
                (at(6), "abe", "BTC-PERP", 0.0, None, 1.5),
            ],
        ),
        "balance_snapshots": frame(
            {"time": TIME, "account_id": text, "asset": text, "amount": number},
            [(at(6), "zoe", "USD", 400.0), (at(6), "zoe", "SOL", 4.0), (at(9), "abe", "USD", 280.0)],
        ),
        "default_events": frame(
            {
                "time": TIME,
                "account_id": text,
                "kind": text,
                "market": text,
                "notional_usd": number,
                "shortfall_usd": number,
                "time_lower": TIME,
            },
            [
                (at(8), "abe", "liquidation", None, 109.0, 0.0, at(7.9)),
                (at(8), "zoe", "deleverage", "BTC-PERP", 109.0, 0.0, None),
            ],
        ),
        "observations": frame({"time": TIME}, [(at(6),), (at(9),)]),
        "insurance_fund": frame(
            {"time": TIME, "balance_usd": number, "change_usd": number, "reason": text},
            [(at(0), 1e6, None, None), (at(8), 1e6 + 1.6, 1.6, "liquidation")],
        ),
    }


def random_tables(seed: int) -> Tables:
    """The tables by hand with random rows added, many of them at the same moments, in random order."""
    rng = np.random.default_rng(seed)
    made = tables()
    hours = [*range(HOURS + 1), 0.5, 6.25]

    def moments(count: int, first: float = 0.0) -> list[datetime]:
        return [at(float(h)) for h in rng.choice([h for h in hours if h >= first], count)]

    def grid(first: dict[str, float], share: float) -> list[tuple[datetime, str]]:
        return [
            (at(h), name)
            for name, since in first.items()
            for h in hours
            if h >= since and rng.random() < share
        ]

    fills = [
        (
            time,
            name,
            "BTC-PERP",
            float(rng.integers(-3, 4)),
            100.0,
            0.1,
            str(rng.choice(["trade", "liquidation"])),
        )
        for name in ("zoe", "abe", "mia")
        for time in moments(30, 7.0)
    ]
    made["fills"] = pl.concat([made["fills"], frame(dict(made["fills"].schema), fills)])
    accounts = {"zoe": 0.0, "abe": 2.0, "mia": 7.0}
    looks = grid(accounts, 0.4)
    made["account_snapshots"] = frame(
        dict(made["account_snapshots"].schema),
        [(time, name, *(rng.random(2) * 100), 10.0, 5.0, None) for time, name in looks],
    )
    made["position_snapshots"] = frame(
        dict(made["position_snapshots"].schema),
        [
            (time, name, market, float(rng.normal()), None, float(rng.normal()))
            for time, name in looks
            for market in ("ETH-PERP", "BTC-PERP")
            if rng.random() < 0.6 and (market == "BTC-PERP" or time >= at(4))
        ],
    )
    made["balance_snapshots"] = frame(
        dict(made["balance_snapshots"].schema),
        [(time, name, asset, 1.0) for time, name in looks for asset in ("USD", "SOL") if rng.random() < 0.5],
    )
    books = []
    for time, market in grid({"BTC-PERP": 0.0, "ETH-PERP": 4.0}, 0.7):
        levels = int(rng.choice([0, 1, 3, 20]))
        near = rng.permutation(levels).astype(float).tolist()
        crossed = rng.random() < 0.2
        sides = [rng.random(levels).tolist() for _ in range(2)]
        books.append((time, market, 100.0, 99.0 if crossed else 101.0, near, *sides))
    made["book_depth"] = frame(dict(made["book_depth"].schema), books)
    sequence = pl.Series("sequence", range(made["fills"].height), pl.Int64)
    if seed % 2:
        made["fills"] = made["fills"].sort("time").with_columns(sequence)
    return {name: rows.sample(fraction=1.0, shuffle=True, seed=seed) for name, rows in made.items()}


def write(path: Path, rows: Tables | None = None, **meta: Any) -> Path:
    """A dataset on disk, by default the one made by hand; entries of `meta` that are None are left out."""
    path.mkdir(parents=True, exist_ok=True)
    for name, table in (tables() if rows is None else rows).items():
        table.write_parquet(path / f"{name}.parquet")
    write_meta(path, **meta)
    return path


def write_meta(path: Path, **meta: Any) -> None:
    entries = {key: value for key, value in {**META, **meta}.items() if value is not None}
    (path / "dataset.json").write_text(json.dumps(entries))


def change(path: Path, name: str, how: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Rewrite one table."""
    file = path / f"{name}.parquet"
    how(pl.read_parquet(file)).write_parquet(file)


def set_value(path: Path, name: str, column: str, value: Any, row: int = 0) -> None:
    """Replace one value, keeping the column's type."""

    def how(rows: pl.DataFrame) -> pl.DataFrame:
        values = rows[column].to_list()
        values[row] = value
        return rows.with_columns(pl.Series(column, values, rows.schema[column]))

    change(path, name, how)


def truncate_after(source: Path, target: Path, time_us: int) -> Path:
    """A copy of a dataset from which everything after a time is gone, as if it had been taken then."""
    shutil.copytree(source, target)
    known = pl.lit(time_us).cast(TIME)
    for file in sorted(target.rglob("*.parquet")):
        rows = pl.read_parquet(file, hive_partitioning=False)
        for column in ("time", "opened_time"):
            if column in rows.columns:
                rows = rows.filter(pl.col(column) <= known)
        rows.write_parquet(file)
    description = json.loads((target / "dataset.json").read_text())
    end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    description["end"] = end.isoformat()
    description["start"] = min(end, datetime.fromisoformat(description["start"])).isoformat()
    (target / "dataset.json").write_text(json.dumps(description))
    return target
