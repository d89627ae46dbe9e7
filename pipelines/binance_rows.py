"""Rows of the tables of a dataset, out of the archives of one market after the other.

Files that overlap in time are read together: where they hold the same row it counts once, and where they
disagree about it that is an error. Memory holds such a cluster of files, a month as a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.errors import InputError
from exchange.units import MINUTE_US
from pipelines.binance_depth import Floats, Quotes, book_rows, ladders_of, quotes_of
from pipelines.binance_files import KLINE_KINDS, Kind, Source
from pipelines.binance_survey import Listing, Survey
from pipelines.damage import shown
from pipelines.schema import UTC_US
from pipelines.times import format_time

ROWS_PER_PART = 500_000
FRESH_US = 2 * MINUTE_US
"""How old the last bar may be to tell the price at a look at the book."""

Read = Callable[[Source], pl.DataFrame]


class Looks(NamedTuple):
    """What became of the looks at one market's book."""

    looks: int
    crossed: int
    left_out: int


def bars_of(listing: Listing, read: Read) -> Iterator[pl.DataFrame]:
    """Rows of `market_bars`, in order of time."""
    for cluster in _clusters(listing.of(*KLINE_KINDS)):
        bars = _bars(listing, cluster, read)
        if bars is not None:
            yield bars


def funding_of(listing: Listing, read: Read) -> pl.DataFrame:
    """Rows of `funding`, in order of time."""
    rows = _merged(listing.of(Kind.FUNDING), read)
    assert rows is not None
    return rows.select(
        pl.col("time_us").cast(UTC_US).alias("time"),
        pl.lit(listing.symbol).alias("market"),
        pl.col("rate").alias("funding_rate"),
    )


def books_of(listing: Listing, tick: float, read: Read, looks: dict[str, Looks]) -> Iterator[pl.DataFrame]:
    """Rows of `book_depth`, in order of time; what became of the looks is in `looks` at the end.

    The best prices lie one tick around the last bar's close, if it is fresh and the depth allows it.
    """
    last: pl.DataFrame | None = None
    counts = np.zeros(3, dtype=np.int64)
    for cluster in _clusters(listing.of(*KLINE_KINDS, Kind.DEPTH)):
        bars = _bars(listing, cluster, read)
        known = [frame for frame in (last, bars) if frame is not None]
        prices = pl.concat(known) if known else None
        last = prices.tail(1) if prices is not None else None
        rows = _merged([s for s in cluster if s.source.kind is Kind.DEPTH], read)
        if rows is None:
            continue
        ladders = ladders_of(rows)
        price, swing = _prices_at(ladders.time_us, prices)
        quotes = quotes_of(ladders, price, swing, tick)
        counts += _counted(quotes)
        yield book_rows(ladders, quotes, listing.symbol)
    looks[listing.symbol] = Looks(*(int(count) for count in counts))


def _counted(quotes: Quotes) -> tuple[int, int, int]:
    told = ~np.isnan(quotes.best_bid)
    crossed = quotes.best_bid > quotes.best_ask
    return len(told), int(crossed.sum()), int((~told).sum())


def in_parts(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames that are worth a file each."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(each.height for each in waiting) >= ROWS_PER_PART:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _clusters(files: Sequence[Survey]) -> Iterator[list[Survey]]:
    """Files that overlap in time, one group after the other; `files` come in order of their first row."""
    cluster: list[Survey] = []
    for survey in files:
        if cluster and survey.first_us > max(each.last_us for each in cluster):
            yield cluster
            cluster = []
        cluster.append(survey)
    if cluster:
        yield cluster


def _bars(listing: Listing, cluster: Sequence[Survey], read: Read) -> pl.DataFrame | None:
    traded, mark, index = (
        _merged([s for s in cluster if s.source.kind is kind], read) for kind in KLINE_KINDS
    )
    prices = ("open", "high", "low", "close")
    if mark is None:
        if traded is None:
            return None
        rows = traded
    elif traded is None:
        rows = mark
    else:
        both = mark.select("open_us", *prices).join(
            traded, on="open_us", how="full", coalesce=True, suffix="_traded"
        )
        rows = both.with_columns(pl.coalesce(name, f"{name}_traded") for name in prices).sort("open_us")
    if index is None:
        rows = rows.with_columns(index=pl.lit(None, pl.Float64))
    else:
        rows = rows.join(index.select("open_us", index="close"), on="open_us", how="left").sort("open_us")
    return rows.select(
        (pl.col("open_us") + listing.interval_us).cast(UTC_US).alias("time"),
        pl.lit(listing.symbol).alias("market"),
        pl.col("close").alias("mark_close"),
        pl.col("index").alias("index_close"),
        pl.col("open").alias("mark_open"),
        pl.col("high").alias("mark_high"),
        pl.col("low").alias("mark_low"),
        "volume_usd",
    )


def _merged(surveys: Sequence[Survey], read: Read) -> pl.DataFrame | None:
    """The rows of files of one kind, each row once; InputError where two files disagree."""
    if not surveys:
        return None
    frames = [read(survey.source).with_columns(file=pl.lit(n)) for n, survey in enumerate(surveys)]
    if len(frames) == 1:
        return frames[0]
    rows = pl.concat(frames)
    key = [name for name in ("open_us", "time_us", "percentage") if name in rows.columns]
    rows = rows.sort(*key, "file")
    values = [name for name in rows.columns if name not in (*key, "line", "file")]
    again = rows.filter(pl.struct(key).is_duplicated())
    if not again.is_empty():
        _refuse_disagreement(again, key, values, surveys)
        rows = rows.unique(key, keep="first", maintain_order=True)
    return rows


def _refuse_disagreement(
    again: pl.DataFrame, key: Sequence[str], values: Sequence[str], surveys: Sequence[Survey]
) -> None:
    for name in values:
        first = pl.col(name).first().over(key)
        odd = again.with_columns(
            was=first, was_line=pl.col("line").first().over(key), was_file=pl.col("file").first().over(key)
        ).filter(pl.col("was").ne_missing(pl.col(name)))
        if not odd.is_empty():
            row = odd.row(0, named=True)
            file, other = (surveys[row[place]].source.file for place in ("file", "was_file"))
            value = f"{shown(row[name])} at {format_time(row[key[0]])}"
            raise InputError(
                f"{file}: line {row['line']}: column {name}: {value} disagrees with {shown(row['was'])} "
                f"in line {row['was_line']} of {other}"
            )


def _prices_at(time_us: npt.NDArray[np.int64], bars: pl.DataFrame | None) -> tuple[Floats, Floats]:
    """Close and range over low less one of the last bar complete at each time; NaN where none is fresh."""
    if bars is None:
        return np.full(len(time_us), np.nan), np.full(len(time_us), np.nan)
    known_us = bars["time"].to_physical().to_numpy()
    row = np.searchsorted(known_us, time_us, side="right") - 1
    fresh = (row >= 0) & (time_us - known_us[row] <= FRESH_US)
    close, high, low = (bars[name].to_numpy()[row] for name in ("mark_close", "mark_high", "mark_low"))
    return np.where(fresh, close, np.nan), np.where(fresh, high / low - 1.0, np.nan)
