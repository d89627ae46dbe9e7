"""A valid dataset broken in one way each, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from tests.pipelines import dataset_builder as build

Break = Callable[[Path], object]  # what it returns is not looked at


def sets(table: str, column: str, value: object, row: int = 0) -> Break:
    return lambda path: build.set_value(path, table, column, value, row)


def turns(table: str, how: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    return lambda path: build.change(path, table, how)


def holds(name: str, content: bytes) -> Break:
    return lambda path: (path / name).write_bytes(content)


def meta(**entries: object) -> Break:
    return lambda path: build.write_meta(path, **entries)


def removes(*names: str) -> Break:
    def how(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return how


def cut_short(name: str, keep: float) -> Break:
    def how(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: int(len(content) * keep)])

    return how


def becomes_folder(path: Path) -> None:
    (path / "funding.parquet").unlink()
    (path / "funding.parquet").mkdir()


def empty_folder_of_parts(path: Path) -> None:
    (path / "funding.parquet").unlink()
    (path / "funding").mkdir()


def one_part_is_damaged(path: Path) -> None:
    (path / "funding.parquet").rename(path / "part-0.parquet")
    (path / "funding").mkdir()
    (path / "part-0.parquet").rename(path / "funding" / "part-0.parquet")
    (path / "funding" / "part-1.parquet").write_bytes(b"PAR1 nonsense PAR1")


def file_and_folder(path: Path) -> None:
    (path / "funding").mkdir()
    (path / "funding" / "part-0.parquet").write_bytes((path / "funding.parquet").read_bytes())


def has_no_accounts(path: Path) -> None:
    for name, rows in build.tables().items():
        if "account_id" in rows.columns:
            build.change(path, name, lambda rows: rows[:0])


def casts(table: str, column: str, type_: pl.DataType) -> Break:
    return turns(table, lambda rows: rows.with_columns(pl.col(column).cast(type_)))


def twice(table: str) -> Break:
    return turns(table, lambda rows: pl.concat([rows, rows[:1]]))


NAN, INF = float("nan"), float("inf")

# Each way to break the dataset, and what the line must name: the file, the column or entry, the value.
ERRORS: dict[str, tuple[Break, list[str]]] = {
    # the folder
    "no dataset.json": (removes("dataset.json"), ["dataset.json: no such file"]),
    "torn dataset.json": (cut_short("dataset.json", 0.5), ["dataset.json: is not JSON"]),
    "empty dataset.json": (holds("dataset.json", b""), ["dataset.json: is not JSON"]),
    "dataset.json is a list": (holds("dataset.json", b"[1]"), ["dataset.json: must be a JSON object", "[1]"]),
    "dataset.json is no text": (holds("dataset.json", b"\xff\xfe"), ["dataset.json: is not UTF-8"]),
    "dataset.json is very deep": (holds("dataset.json", b"[" * 200_000), ["dataset.json: is not JSON"]),
    "another format": (meta(format="csv"), ["dataset.json: format", "'csv'"]),
    "a later version": (meta(version=2), ["dataset.json: version must be 1, not 2"]),
    "version as a text": (meta(version="1"), ["dataset.json: version must be 1, not '1'"]),
    "unknown kind": (meta(kind="trades"), ["dataset.json: kind", "'trades'"]),
    "no venue": (meta(venue=None), ["dataset.json: venue is missing"]),
    "end is no time": (meta(end="soon"), ["dataset.json: end 'soon'"]),
    "start is a number": (meta(start=1709251200), ["dataset.json: start", "1709251200"]),
    "end before start": (meta(end="2024-02-01"), ["dataset.json: end 2024-02-01 is before start"]),
    "seed is a fraction": (meta(seed=1.5), ["dataset.json: seed", "1.5"]),
    # the files
    "missing markets": (removes("markets.parquet"), ["table markets is missing"]),
    "missing accounts": (removes("accounts.parquet"), ["table accounts is missing"]),
    "neither fills nor snapshots": (
        removes("fills.parquet", "account_snapshots.parquet"),
        ["is missing", "fills with transfers or account_snapshots with position_snapshots"],
    ),
    "zero bytes": (holds("funding.parquet", b""), ["funding.parquet: is empty (0 bytes)"]),
    "truncated": (cut_short("funding.parquet", 0.7), ["funding.parquet: cannot be read as Parquet"]),
    "not Parquet": (
        holds("fills.parquet", b"time,market\n" * 99),
        ["fills.parquet: cannot be read as Parquet"],
    ),
    "a folder in place of a file": (becomes_folder, ["funding.parquet: is not a file"]),
    "a folder without parts": (empty_folder_of_parts, ["funding: holds no .parquet file"]),
    "one damaged part": (one_part_is_damaged, ["funding/part-1.parquet: cannot be read as Parquet"]),
    "a table that is there twice": (file_and_folder, ["funding: is there besides funding.parquet"]),
    # the types
    "missing column": (turns("fills", lambda r: r.drop("price")), ["fills.parquet: column price is missing"]),
    "text for a number": (
        casts("market_bars", "mark_close", pl.String()),
        ["market_bars.parquet: column mark_close: type String does not cast to float64"],
    ),
    "times without a zone": (
        casts("funding", "time", pl.Datetime("us")),
        ["funding.parquet: column time: times have no zone"],
    ),
    "times as numbers": (
        casts("transfers", "time", pl.Int64()),
        ["transfers.parquet: column time: type Int64"],
    ),
    "fractions of microseconds": (
        turns(
            "funding",
            lambda r: r.with_columns(
                pl.col("time").cast(pl.Datetime("ns", "UTC")) + pl.duration(nanoseconds=1)
            ),
        ),
        ["funding.parquet: column time: value 1709254800000000001"],
    ),
    "a fraction for a whole number": (
        turns("transfers", lambda r: r.with_columns(pl.col("sequence") + 0.5)),
        ["transfers.parquet: column sequence: value 1.5"],
    ),
    "tiers as text": (
        casts("markets", "tick_size", pl.String()),
        ["markets.parquet: column tick_size: type String"],
    ),
    "tiers without a rate": (
        turns(
            "markets", lambda r: r.with_columns(tiers=pl.Series([[{"initial_margin_rate": 0.1}]] * r.height))
        ),
        ["markets.parquet: column tiers: field maintenance_margin_rate is missing"],
    ),
    # the values
    "null where there must be something": (
        sets("fills", "price", None),
        ["fills.parquet: column price: is null (1 row)"],
    ),
    "row without a time": (sets("fills", "time", None), ["fills.parquet: column time: is null (1 row)"]),
    "price that is not a number": (
        sets("market_bars", "mark_close", NAN, 7),
        ["market_bars.parquet: column mark_close: is not finite (1 row)", "mark_close nan", "market '"],
    ),
    "infinite price": (
        sets("asset_prices", "price", INF),
        ["asset_prices.parquet: column price: is not finite", "inf"],
    ),
    "negative price": (
        sets("fills", "price", -3.5),
        ["fills.parquet: column price: is not positive", "price -3.5", "2024-03-01T00:30:00Z"],
    ),
    "price of zero": (
        sets("market_bars", "index_close", 0.0),
        ["market_bars.parquet: column index_close: is not positive"],
    ),
    "negative entry price": (
        sets("position_snapshots", "entry_price", -1.0),
        ["column entry_price: is not positive"],
    ),
    "infinite equity": (
        sets("account_snapshots", "equity_usd", -INF),
        ["column equity_usd: is not finite", "-inf"],
    ),
    "best bid of zero": (
        sets("book_depth", "best_bid", 0.0),
        ["book_depth.parquet: column best_bid: is not positive"],
    ),
    "lists of unequal length": (
        sets("book_depth", "bid_usd", [1.0]),
        ["column distance_bps: the three lists differ"],
    ),
    "hole in a list": (
        sets("book_depth", "ask_usd", [1.0, None]),
        ["book_depth.parquet: column ask_usd: holds a number"],
    ),
    "unknown market": (
        sets("funding", "market", "DOGE"),
        ["funding.parquet: column market: is not in markets", "'DOGE'"],
    ),
    "market that is not listed yet": (
        sets("fills", "market", "ETH-PERP"),
        ["fills.parquet: column market: is used before its first row in markets", "ETH-PERP"],
    ),
    "unknown account": (
        sets("transfers", "account_id", "nobody"),
        ["transfers.parquet: column account_id: is not in accounts", "'nobody'"],
    ),
    "unknown account of an event": (
        sets("default_events", "account_id", "nobody"),
        ["default_events.parquet: column account_id: is not in accounts"],
    ),
    "account before it opened": (
        sets("fills", "account_id", "mia"),
        ["column account_id: is used before it opened"],
    ),
    "unknown asset": (
        sets("balance_snapshots", "asset", "DOGE"),
        ["column asset: is not in assets", "'DOGE'"],
    ),
    "unknown kind of fill": (
        sets("fills", "kind", "gift"),
        ["fills.parquet: column kind: is not trade or", "'gift'"],
    ),
    "unknown kind of event": (
        sets("default_events", "kind", "bust"),
        ["column kind: is not liquidation or", "'bust'"],
    ),
    "unknown margin mode": (
        sets("accounts", "margin_mode", "Cross"),
        ["column margin_mode: is not cross", "'Cross'"],
    ),
    "unsorted tiers": (
        sets("markets", "tiers", [build.tier(9.0, 0.1, 0.05), build.tier(8.0, 0.1, 0.05)]),
        ["markets.parquet: column tiers: unsorted tiers", "tier 1: notional_cap_usd 8.0", "BTC-PERP"],
    ),
    "maintenance above initial": (
        sets("markets", "tiers", [build.tier(None, 0.1, 0.3)], 1),
        ["markets.parquet: column tiers:", "tier 0: maintenance_margin_rate 0.3 is above", "ETH-PERP"],
    ),
    "no tiers": (sets("markets", "tiers", []), ["markets.parquet: column tiers:", "not 0"]),
    "two bars at once": (
        twice("market_bars"),
        ["market_bars.parquet: the key (time, market) is there twice (1 row)"],
    ),
    "account given twice": (
        twice("accounts"),
        ["accounts.parquet: the key (account_id) is there twice (1 row)", "'zoe'"],
    ),
    "event given twice": (
        twice("default_events"),
        ["default_events.parquet: the key (time, account_id, kind, market)"],
    ),
    "sequence given twice": (
        sets("transfers", "sequence", 1, 1),
        ["column sequence: does not rise with time"],
    ),
    "sequence that falls": (
        sets("transfers", "sequence", 0, 2),
        ["transfers.parquet: column sequence", "sequence 0"],
    ),
    "position without its snapshot": (
        sets("position_snapshots", "time", build.at(6.1)),
        ["position_snapshots.parquet: column account_id: has no row in account_snapshots"],
    ),
    "account event after the end": (
        sets("default_events", "time", build.at(13)),
        ["default_events.parquet: column time: is after the end", "2024-03-01T13:00:00Z"],
    ),
    "event that ends before it begins": (
        sets("default_events", "time_lower", build.at(11)),
        ["default_events.parquet: column time_lower: is after time"],
    ),
}

WARNINGS: dict[str, tuple[Break, list[str]]] = {
    "crossed book": (
        sets("book_depth", "best_bid", 999.0),
        ["book_depth.parquet: column best_bid: is above best_ask"],
    ),
    "gap": (
        turns("market_bars", lambda r: r.filter(~pl.col("time").is_between(build.at(1), build.at(2)))),
        ["market_bars.parquet: column time: gap of more than an hour", "2024-03-01T02:30:00Z", "BTC-PERP"],
    ),
    "initial below maintenance": (
        sets("account_snapshots", "maintenance_margin_usd", 99.0),
        ["account_snapshots.parquet: column initial_margin_usd: is below maintenance_margin_usd"],
    ),
    "prices from before a market's terms": (
        sets("funding", "time", build.at(-2)),
        ["funding.parquet: column market: is used before its first row in markets"],
    ),
    "prices after the end": (
        sets("asset_prices", "time", build.at(12.5), -1),
        ["asset_prices.parquet: column time: is after the end"],
    ),
    "more levels than count": (
        turns(
            "book_depth",
            lambda r: r[:1].with_columns(
                pl.col("distance_bps", "bid_usd", "ask_usd").list.eval(pl.int_range(20).cast(pl.Float64))
            ),
        ),
        ["book_depth.parquet: column distance_bps: only the nearest 16 levels count"],
    ),
    "name that is spelt wrong": (
        lambda path: (path / "funding.parquet").rename(path / "fundings.parquet"),
        ["fundings.parquet: is no table of the format"],
    ),
    "no accounts": (
        has_no_accounts,
        ["accounts.parquet: has no rows"],
    ),
}
