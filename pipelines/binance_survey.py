"""What published archives hold, found by reading each once: when, which bars, with how many decimals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import floor, log10
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.errors import InputError
from exchange.units import HOUR_US, SECOND_US
from pipelines.archives import verify
from pipelines.binance_files import KLINE_KINDS, Kind, Source

MOST_DECIMALS = 8
ENOUGH_TICKS = 1e5
"""Ticks in a price, where neither a trade nor the book shows the tick."""

Span = tuple[int, int]


class Survey(NamedTuple):
    """What one file holds."""

    source: Source
    first_us: int
    """Time of the first row; klines go by their opening."""
    last_us: int
    runs: tuple[Span, ...] = ()
    """Of klines: when the first of bars in a row opens and the last of them is complete."""
    tick_decimals: int = 0
    lot_decimals: int = 0
    price: float = 0.0
    """Of klines: the first close."""
    intervals: tuple[Span, ...] = ()
    """Of funding: since when, and the seconds between payments; the first and each change."""


@dataclass
class Listing:
    """All files of one market."""

    symbol: str
    files: list[Survey] = field(default_factory=list)

    def of(self, *kinds: Kind) -> list[Survey]:
        """Files of these kinds, by the time of their first row."""
        return sorted(
            (s for s in self.files if s.source.kind in kinds), key=lambda s: (s.first_us, s.last_us)
        )

    @property
    def has_bars(self) -> bool:
        """Whether there is anything to make bars of; index prices alone are no marks."""
        return bool(self.of(Kind.KLINES, Kind.MARK))

    @property
    def interval_us(self) -> int:
        """Of its bars; 0 without bars."""
        return max((s.source.interval_us for s in self.files), default=0)

    def runs(self) -> list[Span]:
        """Stretches of bars in a row, in order: opening of the first, end of the last."""
        return joined(run for s in self.of(Kind.KLINES, Kind.MARK) for run in s.runs)

    def bars(self) -> int:
        """How many bars the files make."""
        return sum((end - start) // self.interval_us for start, end in self.runs())

    def holes(self) -> Iterator[tuple[int, int, bool]]:
        """Spans without bars between bars, and whether they end a path: more than an hour without a bar."""
        for (_, end), (start, _) in pairwise(self.runs()):
            yield end, start, start + self.interval_us - end > HOUR_US

    def steps(self) -> tuple[float, float]:
        """Tick and lot: as trades show them, else the book, else small against the mark price."""
        for kind in (Kind.KLINES, Kind.DEPTH):
            if files := self.of(kind):
                tick = max(s.tick_decimals for s in files)
                return power_of_ten(-tick), power_of_ten(-max(s.lot_decimals for s in files))
        price = max(s.price for s in self.of(Kind.MARK))
        return power_of_ten(floor(log10(price / ENOUGH_TICKS))), power_of_ten(floor(-log10(price)))


def surveyed(source: Source, rows: pl.DataFrame) -> Survey:
    """What a file holds; InputError where it is not the one of the checksum published with it."""
    verify(source.file)
    if source.kind in KLINE_KINDS:
        time = rows["open_us"].to_numpy()
        breaks = np.flatnonzero(np.diff(time) != source.interval_us)
        firsts, lasts = time[np.r_[0, breaks + 1]], time[np.r_[breaks, len(time) - 1]]
        return Survey(
            source,
            int(time[0]),
            int(time[-1]),
            tuple((int(a), int(b) + source.interval_us) for a, b in zip(firsts, lasts, strict=True)),
            max(decimals(rows[name].to_numpy()) for name in ("open", "high", "low", "close")),
            decimals(rows["volume"].to_numpy()) if source.kind is Kind.KLINES else 0,
            float(rows["close"][0]),
        )
    time = rows["time_us"].to_numpy()
    if source.kind is Kind.DEPTH:
        # a sum of prices times quantities has the decimals of both
        lot = decimals(rows["depth"].to_numpy())
        tick = max(decimals(rows["notional"].to_numpy()) - lot, 0)
        return Survey(source, int(time[0]), int(time[-1]), tick_decimals=tick, lot_decimals=lot)
    seconds = rows["interval_s"].to_numpy()
    changes = np.r_[0, np.flatnonzero(np.diff(seconds)) + 1]
    intervals = tuple((int(time[i]) - int(seconds[i]) * SECOND_US, int(seconds[i])) for i in changes)
    return Survey(source, int(time[0]), int(time[-1]), intervals=intervals)


def listings_of(surveys: Iterable[Survey]) -> list[Listing]:
    """Files by market, in order of names; InputError where one has klines of two intervals."""
    listings: dict[str, Listing] = {}
    for survey in surveys:
        symbol, interval_us = survey.source.symbol, survey.source.interval_us
        listing = listings.setdefault(symbol, Listing(symbol))
        for other in listing.files:
            if interval_us and other.source.interval_us not in (0, interval_us):
                raise InputError(
                    f"{survey.source.file}: {symbol} has klines of another interval in {other.source.file}; "
                    "keep one interval of a symbol"
                )
        listing.files.append(survey)
    return [listings[symbol] for symbol in sorted(listings)]


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same spans in order, with those put together that touch or overlap."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def decimals(values: npt.NDArray[np.float64]) -> int:
    """The least number of decimals, up to MOST_DECIMALS, with which all these numbers can be written."""
    for count in range(MOST_DECIMALS):
        if np.array_equal(np.round(values, count), values):
            return count
    return MOST_DECIMALS


def power_of_ten(exponent: int) -> float:
    """The float nearest to it, as its decimal literal gives."""
    return float(f"1e{exponent}")


def said_of(listing: Listing) -> dict[str, Any]:
    """What dataset.json says of a market."""
    interval_us = listing.interval_us
    marks, trades = listing.of(Kind.MARK), listing.of(Kind.KLINES)
    mark = "mark price" if marks else "last trade" if trades else "none"
    if marks and trades:
        mark += ", last trade where it is missing"
    missing = sum((start - end) // interval_us for end, start, gap in listing.holes() if not gap)
    return {
        "bars": listing.bars(),
        "interval_s": interval_us // SECOND_US,
        "missing_bars": missing,
        "mark": mark,
    }


def notes_of(listing: Listing) -> Iterator[str]:
    """What somebody who uses the market should know."""
    said = said_of(listing)
    if not listing.has_bars:
        yield "book depth and no klines: no bars, so the price cannot be replayed"
        return
    if listing.interval_us > HOUR_US:
        yield "bars more than an hour apart are no path: the price cannot be replayed"
    if said["missing_bars"]:
        yield f"bars missing, none for more than an hour: {said['missing_bars']:,}"
    gaps = sum(gap for _, _, gap in listing.holes())
    if gaps:
        yield f"gaps of more than an hour, listed in dataset.json: {gaps}"
    if said["mark"] == "last trade":
        yield "marks are prices of the last trade, for want of markPriceKlines"
