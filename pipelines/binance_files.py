"""The kinds of files on data.binance.vision, by name, and their rows with everything in them checked.

A file is `SYMBOL-WHAT-PERIOD.zip`, or the csv out of it, where WHAT is an interval such as 1m for klines.
Klines of the last trade, of the mark price and of the index price bear the same names and lie in folders
named klines, markPriceKlines and indexPriceKlines.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import polars as pl

from exchange.errors import InputError
from exchange.units import DAY_US, HOUR_US, MINUTE_US
from pipelines.archives import Sheet, read_sheet
from pipelines.times import parse_time_us

INTERVALS_US = {
    **{f"{n}m": n * MINUTE_US for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * HOUR_US for n in (1, 2, 4, 6, 8, 12)},
    "1d": DAY_US,
}
OTHER_INTERVALS = ("1s", "3d", "1w", "1mo", "1M")
QUOTES = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USDP", "DAI", "USD")
"""What counts as a dollar."""

NAME = re.compile(
    r"((?:[^\W_])+)(_[^\W_]+)?-([A-Za-z0-9]+)-(\d{4}-\d{2}(?:-\d{2})?)\.(?:zip|csv)", re.IGNORECASE
)
DELIVERY = re.compile(r"_\d{6}")
EARLIEST_US, LATEST_US = parse_time_us("2010-01-01", "time"), parse_time_us("2100-01-01", "time")
FIRST_OF_MICROSECONDS = 10**14  # in milliseconds that is the year 5138, in microseconds 1973

KLINE_COLUMNS = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
    "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
FUNDING_COLUMNS = ("calc_time", "funding_interval_hours", "last_funding_rate")
DEPTH_COLUMNS = ("timestamp", "percentage", "depth", "notional")
MOMENT = r"^(\d{4})-(\d{1,2})-(\d{1,2})[ T]+(\d{1,2}):(\d{1,2}):(\d{1,2})$"


class Kind(Enum):
    """What a file holds."""

    KLINES = "klines"
    MARK = "markPriceKlines"
    INDEX = "indexPriceKlines"
    FUNDING = "fundingRate"
    DEPTH = "bookDepth"


KLINE_KINDS = (Kind.KLINES, Kind.MARK, Kind.INDEX)
UNREAD = (
    "aggTrades", "trades", "bookTicker", "metrics", "liquidationSnapshot", "premiumIndexKlines",
    "BVOLIndex", "EOHSummary",
)  # fmt: skip
"""Published kinds that hold nothing for a dataset of prices."""


class Source(NamedTuple):
    """A file and what its name says of it."""

    file: Path
    kind: Kind
    symbol: str
    interval_us: int
    """Of klines, else 0."""


def source_of(file: Path) -> Source | str:
    """What a file is by its name and folder; the name of its kind where that kind is not read.

    Raises InputError for names that are none of the archives', and for contracts not quoted in dollars.
    """
    match = NAME.fullmatch(file.name)
    if match is None:
        raise InputError(f"{file}: is no name of a published archive, such as BTCUSDT-1m-2024-02.zip")
    base, suffix, what, _ = match.groups()
    folder = next((name for part in reversed(file.parts[:-1]) if (name := _folder(part))), Kind.KLINES.value)
    if what in UNREAD or folder in UNREAD:
        return what if what in UNREAD else folder
    if what in INTERVALS_US:
        kind = Kind(folder)
    elif what in OTHER_INTERVALS:
        raise InputError(f"{file}: klines of {what}: only intervals of {', '.join(INTERVALS_US)} are read")
    elif what in (Kind.FUNDING.value, Kind.DEPTH.value):
        kind = Kind(what)
    else:
        raise InputError(f"{file}: {what!r} is no kind of published archive")
    if not base.endswith(QUOTES):
        raise InputError(f"{file}: {base} is not quoted in a dollar ({', '.join(QUOTES)})")
    if suffix is not None and not DELIVERY.fullmatch(suffix):
        raise InputError(f"{file}: {base}{suffix} is margined in coins; only contracts in dollars are read")
    return Source(file, kind, base + (suffix or ""), INTERVALS_US.get(what, 0))


def _folder(part: str) -> str | None:
    """The kind that a folder is named after, `klines-1m` as well as `klines`."""
    for name in (*(kind.value for kind in KLINE_KINDS), *UNREAD):
        if part == name or part.startswith(f"{name}-"):
            return name
    return None


def rows_of(source: Source) -> pl.DataFrame:
    """The rows of a file, in order of time, with the number of the `line` that each stands on.

    Klines: open_us, open, high, low, close, volume, volume_usd (both null but of the last trade's).
    Funding: time_us, rate, interval_s. Depth: time_us, percentage, depth, notional. Raises InputError
    for whatever is wrong.
    """
    if source.kind in KLINE_KINDS:
        return _klines(source)
    return _funding(source) if source.kind is Kind.FUNDING else _depth(source)


def _klines(source: Source) -> pl.DataFrame:
    traded = source.kind is Kind.KLINES
    needed = [*KLINE_COLUMNS[:5], *(["volume", "quote_volume"] if traded else [])]
    sheet = read_sheet(source.file, KLINE_COLUMNS, needed, "klines")
    open_us = _time_us(sheet, "open_time")
    step = open_us.diff()
    sheet.refuse((step == 0).fill_null(False), "open_time", "is there twice")
    sheet.refuse((step < 0).fill_null(False), "open_time", "is before the row above it")
    sheet.refuse(
        (step < source.interval_us).fill_null(False),
        "open_time",
        f"opens before the row above it is over ({source.interval_us // MINUTE_US} min)",
    )
    opening, high, low, close = (sheet.numbers(name, above=0.0) for name in KLINE_COLUMNS[1:5])
    for name, price in (("open", opening), ("close", close), ("low", low)):
        sheet.refuse(high < price, "high", f"is below {name}")
    for name, price in (("open", opening), ("close", close)):
        sheet.refuse(low > price, "low", f"is above {name}")
    volumes = [
        sheet.numbers(name, least=0.0) if traded else pl.Series(name, [None] * len(close), pl.Float64)
        for name in ("volume", "quote_volume")
    ]
    columns = (open_us, opening, high, low, close, *volumes)
    return _numbered(sheet, ("open_us", "open", "high", "low", "close", "volume", "volume_usd"), columns)


def _funding(source: Source) -> pl.DataFrame:
    sheet = read_sheet(source.file, FUNDING_COLUMNS, FUNDING_COLUMNS, "funding rates")
    time_us = _time_us(sheet, "calc_time")
    step = time_us.diff()
    sheet.refuse((step == 0).fill_null(False), "calc_time", "is there twice")
    sheet.refuse((step < 0).fill_null(False), "calc_time", "is before the row above it")
    hours = sheet.numbers("funding_interval_hours", above=0.0)
    sheet.refuse(hours > 24, "funding_interval_hours", "is longer than a day")
    rate = sheet.numbers("last_funding_rate")
    sheet.refuse(rate.abs() > 1.0, "last_funding_rate", "is more than the whole notional")
    seconds = (hours * 3600).round().cast(pl.Int64)
    return _numbered(sheet, ("time_us", "rate", "interval_s"), (time_us, rate, seconds))


def _depth(source: Source) -> pl.DataFrame:
    sheet = read_sheet(source.file, DEPTH_COLUMNS, DEPTH_COLUMNS, "book depth")
    time_us = _moments_us(sheet)
    sheet.refuse((time_us.diff() < 0).fill_null(False), "timestamp", "is before the row above it")
    percentage = sheet.numbers("percentage")
    sheet.refuse((percentage == 0) | (percentage.abs() >= 100), "percentage", "is no distance from the mid")
    depth, notional = sheet.numbers("depth", least=0.0), sheet.numbers("notional", least=0.0)
    sheet.refuse((notional > 0) & (depth == 0), "depth", "of nothing has a notional")
    rows = _numbered(
        sheet, ("time_us", "percentage", "depth", "notional"), (time_us, percentage, depth, notional)
    )
    again = ~rows.select(pl.struct("time_us", "percentage").is_first_distinct()).to_series()
    sheet.refuse(again, "percentage", "is there twice for that moment")
    return rows


def _time_us(sheet: Sheet, column: str) -> pl.Series:
    """Times in milliseconds, or in microseconds as spot archives have them since 2025."""
    values = sheet.whole_numbers(column)
    time_us = pl.select(
        pl.when(values >= FIRST_OF_MICROSECONDS).then(values).otherwise(values * 1000)
    ).to_series()
    sheet.refuse(
        ~time_us.is_between(EARLIEST_US, LATEST_US), column, "is no time in milli- or microseconds since 1970"
    )
    return time_us


def _moments_us(sheet: Sheet) -> pl.Series:
    """Times as text in UTC; stray blanks and missing zeros occur, or milliseconds as elsewhere."""
    text = sheet.text["timestamp"]
    if text[0] and text[0].isdigit():
        return _time_us(sheet, "timestamp")
    unique = text.unique().drop_nulls()
    parts = unique.str.extract_groups(MOMENT).struct.unnest().cast(pl.Int64)
    year, month, day, hour, minute, second = (parts[name] for name in parts.columns)
    padded = pl.select(pl.format("{}-{}-{} {}:{}:{}", year, month, day, hour, minute, second)).to_series()
    known = padded.str.strptime(pl.Datetime("us"), "%Y-%m-%d %H:%M:%S", strict=False).to_physical()
    time_us = text.replace_strict(unique, known, default=None, return_dtype=pl.Int64)
    sheet.refuse(
        ~time_us.is_between(EARLIEST_US, LATEST_US), "timestamp", "is no time such as 2025-10-10 00:00:07"
    )
    return time_us


def _numbered(sheet: Sheet, names: tuple[str, ...], columns: tuple[pl.Series, ...]) -> pl.DataFrame:
    rows = pl.DataFrame([column.alias(name) for name, column in zip(names, columns, strict=True)])
    return rows.with_row_index("line", offset=sheet.first_line)
