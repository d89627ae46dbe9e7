"""Datasets that are wrong in one way each, the commands that stumble over it, and what the line names."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.pipelines import broken_datasets as broken
from tests.pipelines import dataset_builder as build
from tests.pipelines.broken_datasets import Break


def within(how: Break) -> Break:
    """The same done to the dataset of a place."""
    return lambda place: how(place / "data")


def file(name: str, content: bytes) -> Break:
    return within(broken.holds(name, content))


def cut(name: str, share: float) -> Break:
    return within(broken.cut_short(name, share))


def scrambled(name: str) -> Break:
    """Pages overwritten while the footer stays whole."""

    def how(place: Path) -> None:
        target = place / "data" / name
        content = bytearray(target.read_bytes())
        content[8:120] = b"\xff" * 112
        target.write_bytes(content)

    return how


def gone(*tables: str) -> Break:
    return within(broken.removes(*(f"{table}.parquet" for table in tables)))


def meta(**entries: Any) -> Break:
    def how(place: Path) -> None:
        target = place / "data" / "dataset.json"
        target.write_text(json.dumps(json.loads(target.read_text()) | entries))

    return how


def changed(table: str, how: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    return within(broken.turns(table, how))


def value(table: str, column: str, new: Any, row: int = 0) -> Break:
    return within(broken.sets(table, column, new, row))


def twice(table: str) -> Break:
    return within(broken.twice(table))


def folder_of(table: str) -> Break:
    def how(place: Path) -> None:
        (place / "data" / f"{table}.parquet").unlink()
        (place / "data" / table).mkdir()

    return how


def replaced(by: str) -> Break:
    def how(place: Path) -> None:
        shutil.rmtree(place / "data")
        if by == "nothing":
            return
        if by == "file":
            (place / "data").write_text("somebody's\n")
        else:
            shutil.copytree(place / by, place / "data")

    return how


TIER = build.tier
UNSORTED = [TIER(2e5, 0.1, 0.05), TIER(1e5, 0.2, 0.1), TIER(None, 0.3, 0.2)]
MAINTENANCE_ABOVE = [TIER(None, 0.1, 0.2)]
FAR = pl.lit(2**62).cast(build.TIME)
ALL = ("check", "train", "evaluate", "score", "serve", "demo")
SOME = ("check", "score")  # the others read in the same way
LABELS = ("check", "train", "evaluate")
WHOLE = ("check", "serve")

DATASETS: dict[str, tuple[tuple[str, ...], Break, str]] = {
    # -- what is no dataset
    "empty folder": (ALL, replaced("empty"), "data/dataset.json | no such file"),
    "no such folder": (ALL, replaced("nothing"), "data | no such folder"),
    "file given for the folder": (ALL, replaced("file"), "data | is a file"),
    "a model given for the dataset": (SOME, replaced("model"), "data/dataset.json"),
    "somebody's folder": (SOME, replaced("full"), "data/dataset.json"),
    "prices where accounts are needed": (
        ALL[1:], replaced("prices"),
        "dataset.json | 'markets' | 'accounts'",
    ),
    # -- dataset.json
    "torn description": (ALL, cut("dataset.json", 0.5), "dataset.json | not JSON"),
    "description of zero bytes": (SOME, file("dataset.json", b""), "dataset.json | not JSON"),
    "description that is a list": (SOME, file("dataset.json", b"[]"), "dataset.json | JSON object"),
    "description not in UTF-8": (SOME, file("dataset.json", b'{"format": "\xff"}'), "dataset.json | UTF-8"),
    "wrong format": (SOME, meta(format="account-story"), "dataset.json | format | 'account-story'"),
    "wrong version": (ALL, meta(version=2), "dataset.json | version | 2"),
    "wrong kind": (SOME, meta(kind="trades"), "dataset.json | kind | 'trades'"),
    "end before start": (SOME, meta(end="2024-02-01"), "dataset.json | end 2024-02-01 | before start"),
    "nonsense for a time": (SOME, meta(start="soon"), "dataset.json | start 'soon'"),
    # -- tables
    "no markets": (SOME, gone("markets"), "markets.parquet | missing"),
    "no bars": (ALL, gone("market_bars"), "market_bars.parquet | missing"),
    "no accounts": (SOME, gone("accounts"), "accounts.parquet | missing"),
    "no events": (SOME, gone("default_events"), "default_events.parquet | missing"),
    "neither fills nor snapshots": (
        SOME,
        gone("fills", "account_snapshots", "position_snapshots", "balance_snapshots"),
        "table fills is missing | account_snapshots with position_snapshots",
    ),
    "zero bytes": (ALL, file("fills.parquet", b""), "fills.parquet | 0 bytes"),
    "truncated": (ALL, cut("market_bars.parquet", 0.7), "market_bars.parquet | Parquet"),
    "garbage": (
        SOME,
        file("funding.parquet", random.Random(1).randbytes(2_000)),
        "funding.parquet | Parquet",
    ),
    "garbage within": (ALL, scrambled("market_bars.parquet"), "market_bars.parquet | Parquet"),
    "a folder without parts": (SOME, folder_of("fills"), "data/fills | no .parquet file"),
    "file and folder": (
        SOME,
        lambda place: (place / "data" / "fills").mkdir(),
        "data/fills | besides fills.parquet",
    ),
    # -- columns
    "missing column": (
        ALL,
        changed("fills", lambda t: t.drop("price")),
        "fills.parquet | column price | missing",
    ),
    "numbers as text": (
        ALL,
        changed("market_bars", lambda t: t.with_columns(pl.col("mark_close").cast(pl.String))),
        "market_bars.parquet | column mark_close | String | float64",
    ),
    "times without a zone": (
        SOME,
        changed("fills", lambda t: t.with_columns(pl.col("time").dt.replace_time_zone(None))),
        "fills.parquet | column time | no zone",
    ),
    "times as numbers": (
        SOME,
        changed("funding", lambda t: t.with_columns(pl.col("time").to_physical())),
        "funding.parquet | column time | Int64",
    ),
    "tiers that are numbers": (
        SOME,
        changed("markets", lambda t: t.with_columns(tiers=pl.lit(0.1))),
        "markets.parquet | column tiers | Float64",
    ),
    "numbers that do not fit": (
        SOME,
        changed("fills", lambda t: t.with_columns(quantity=pl.lit(2**53 + 1))),
        "fills.parquet | column quantity | 9007199254740993",
    ),
    # -- values
    "price NaN": (
        ALL,
        value("market_bars", "mark_close", np.nan),
        "market_bars.parquet | column mark_close | finite",
    ),
    "price infinite": (SOME, value("fills", "price", np.inf), "fills.parquet | column price | finite | inf"),
    "price negative": (
        ALL,
        value("fills", "price", -100.5),
        "fills.parquet | column price | positive | -100.5",
    ),
    "price zero": (
        SOME,
        value("asset_prices", "price", 0.0),
        "asset_prices.parquet | column price | positive | SOL",
    ),
    "bid of nothing": (SOME, value("book_depth", "best_bid", 0.0), "book_depth.parquet | column best_bid"),
    "quantity NaN": (SOME, value("fills", "quantity", np.nan), "fills.parquet | column quantity | zoe"),
    "rate infinite": (
        SOME,
        value("funding", "funding_rate", -np.inf),
        "funding.parquet | column funding_rate",
    ),
    "depth negative": (
        SOME,
        value("book_depth", "bid_usd", [1.0, -1.0]),
        "book_depth.parquet | column bid_usd",
    ),
    "lists of unequal length": (
        SOME,
        value("book_depth", "ask_usd", [1.0]),
        "book_depth.parquet | differ in length",
    ),
    "time null": (SOME, value("transfers", "time", None), "transfers.parquet | column time | null"),
    "name null": (SOME, value("fills", "account_id", None), "fills.parquet | column account_id | null"),
    "unknown market": (
        ALL,
        value("fills", "market", "DOGE"),
        "fills.parquet | column market | 'DOGE' | not in markets",
    ),
    "unknown account": (
        SOME,
        value("transfers", "account_id", "eve"),
        "transfers.parquet | column account_id | 'eve'",
    ),
    "unknown asset": (
        SOME,
        value("asset_prices", "asset", "DOGE"),
        "asset_prices.parquet | column asset | 'DOGE'",
    ),
    "unknown kind of fill": (SOME, value("fills", "kind", "gift"), "fills.parquet | column kind | 'gift'"),
    "unknown margin mode": (
        SOME,
        value("accounts", "margin_mode", "none"),
        "accounts.parquet | margin_mode | 'none'",
    ),
    "bar twice": (ALL, twice("market_bars"), "market_bars.parquet | (time, market) | twice | BTC-PERP"),
    "account twice": (SOME, twice("accounts"), "accounts.parquet | (account_id) | twice | zoe"),
    "asset twice": (SOME, twice("assets"), "assets.parquet | (asset) | twice | USD"),
    "tiers unsorted": (
        ALL,
        value("markets", "tiers", UNSORTED),
        "markets.parquet | column tiers | unsorted | BTC-PERP",
    ),
    "maintenance above initial": (
        SOME,
        value("markets", "tiers", MAINTENANCE_ABOVE),
        "markets.parquet | column tiers",
    ),
    "no tiers": (SOME, value("markets", "tiers", []), "markets.parquet | column tiers | BTC-PERP"),
    "fill before the account opened": (
        SOME,
        value("accounts", "opened_time", build.at(100.0)),
        "transfers.parquet | column account_id | zoe",
    ),
    "positions without their snapshot": (
        SOME,
        changed("account_snapshots", lambda t: t.filter(pl.col("account_id") != "zoe")),
        "position_snapshots.parquet | no row in account_snapshots | zoe",
    ),
    # -- events, which only those who need labels look at
    "unknown kind of event": (
        LABELS,
        value("default_events", "kind", "bust"),
        "default_events.parquet | 'bust'",
    ),
    "shortfall NaN": (
        LABELS,
        value("default_events", "shortfall_usd", np.nan),
        "default_events.parquet | shortfall_usd",
    ),
    "event without a time": (
        LABELS,
        value("default_events", "time", None),
        "default_events.parquet | column time",
    ),
    "event of an unknown account": (
        LABELS,
        value("default_events", "account_id", "eve"),
        "default_events.parquet | 'eve'",
    ),
    "event after the end": (
        LABELS,
        value("default_events", "time", build.at(1_000.0)),
        "default_events.parquet | column time | after the end",
    ),
    # -- what lies after the time asked for is met by those who read it all
    "fill after the end": (
        WHOLE,
        value("fills", "time", build.at(1_000.0), -1),
        "fills.parquet | after the end",
    ),
    "fill in a year that no calendar has": (
        WHOLE,
        changed("fills", lambda t: pl.concat([t, t.head(1).with_columns(time=FAR)])),
        "fills.parquet | after the end | 4611686018427387904",
    ),
}  # fmt: skip
