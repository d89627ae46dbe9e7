"""Spans of time that cut a history into pieces of about as many rows as memory should hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from exchange.units import MINUTE_US
from features.tables import TABLES
from pipelines.damage import reading
from pipelines.store import Dataset

ROWS_PER_WINDOW = 500_000
EVENTS_PER_ROW = {"book_depth": 8, "markets": 4}  # lists count as rows too


class Windows(NamedTuple):
    """Spans (after_us, until_us] in order, of which none splits a moment; together they hold every time.

    `first_us` is the earliest time, None where there is no row; `timeless` counts rows whose time is
    null, by table: no span holds them.
    """

    spans: list[tuple[int, int]]
    first_us: int | None
    timeless: Mapping[str, int]


class _Histogram(NamedTuple):
    minutes: pl.DataFrame  # minute, rows, first_us
    timeless: int


def windows(
    dataset: Dataset, tables: Iterable[str], until_us: int | None, rows: int = ROWS_PER_WINDOW
) -> Windows:
    """Spans of about `rows` rows of these tables together, up to and including `until_us`.

    Reads the time columns only. A span with more rows than that is a single minute. Raises DatasetError
    where a file is damaged.
    """
    histograms = {name: _histogram(dataset, name, until_us) for name in tables if dataset.has(name)}
    timeless = {name: histogram.timeless for name, histogram in histograms.items() if histogram.timeless}
    minutes = pl.concat(
        [histogram.minutes for histogram in histograms.values()] or [_NO_MINUTES], how="vertical"
    )
    minutes = minutes.group_by("minute").agg(pl.col("rows").sum(), pl.col("first_us").min()).sort("minute")
    if minutes.is_empty():
        return Windows([], None, timeless)
    before = minutes["rows"].cum_sum().to_numpy() - minutes["rows"].to_numpy()
    number = before // rows
    starts = minutes["minute"].to_numpy()[np.flatnonzero(np.diff(number, prepend=-1))]
    # a span ends where the next one starts, so the empty time between them is looked at once
    edges = [int(start) * MINUTE_US - 1 for start in starts]
    edges.append((int(minutes["minute"].item(-1)) + 1) * MINUTE_US - 1)
    if until_us is not None:
        edges[-1] = min(edges[-1], until_us)
    return Windows(list(pairwise(edges)), int(minutes["first_us"].item(0)), timeless)


_NO_MINUTES = pl.DataFrame(schema={"minute": pl.Int64, "rows": pl.Int64, "first_us": pl.Int64})


def _histogram(dataset: Dataset, name: str, until_us: int | None) -> _Histogram:
    time = TABLES[name].time
    assert time is not None, f"{name} has no time"
    moment = pl.col(time).to_physical()
    counted = (
        dataset.scan(name)
        .select(minute=moment // MINUTE_US, first_us=moment)
        .filter(pl.lit(True) if until_us is None else _known_by(until_us))
        .group_by("minute")
        .agg(rows=pl.len().cast(pl.Int64) * EVENTS_PER_ROW.get(name, 1), first_us=pl.col("first_us").min())
        .select("minute", "rows", "first_us")
    )
    with reading(dataset.place(name), name):
        minutes = counted.collect(engine="streaming")
    timeless = minutes.filter(pl.col("minute").is_null())["rows"].sum()
    return _Histogram(minutes.filter(pl.col("minute").is_not_null()), int(timeless))


def _known_by(until_us: int) -> pl.Expr:
    """Rows at or before a time, and those without one."""
    return pl.col("first_us").is_null() | (pl.col("first_us") <= until_us)
