"""Outside paths out of recorded bars: minute by minute, hitting what the bars say.

A bar of one minute is taken as it is. A longer one is filled with a Brownian bridge in log price that ends
at the bar's close, stays within its low and high and meets both. Its volatility is that of the bar's range
(Parkinson 1980: E range^2 = 4 ln 2 sigma^2 T) or, where no range is known, that of the closes around it.
Minutes that are missing between two bars are bridged in the same way, without bounds. Every number drawn is
named by its market and minute, so a part of a history is filled just as the whole is.

A gap of more than an hour between two bars of a market ends a path. A path is a stretch of time over which
the same markets have bars all along: it ends as well where a market joins or leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.errors import InputError
from exchange.simulation.bridge import bridge
from exchange.simulation.chance import key_of
from exchange.simulation.paths import Floats, Paths
from exchange.units import HOUR_US, MINUTE_US

Ints = npt.NDArray[np.int64]

LONGEST_SPAN = HOUR_US // MINUTE_US
"""Minutes between two bars of one path at most."""
SHORTEST_PATH = 60
"""Minutes under which a stretch is no path by default."""
NEIGHBOURS = 24
"""Bars on either side whose closes tell the volatility of a bar without a range."""
COMMON = -1
"""Stream of what markets share; the others are theirs by number."""
_NO_TIMES = np.empty(0, dtype=np.int64)
_NO_PRICES = np.empty(0)


class Bars(NamedTuple):
    """Recorded bars of one or more markets, in any order; columns of equal length."""

    time_us: Ints
    """When the bar was complete, microseconds UTC; spacing may be irregular."""
    market: Ints
    """0 to markets - 1."""
    close: Floats
    """Above zero; also the next three, which are NaN where not known."""
    opening: Floats
    high: Floats
    low: Floats
    volume_usd: Floats
    """NaN where not known."""


class AssetPrices(NamedTuple):
    """Prices of assets, each in force until the next; columns of equal length, in any order."""

    time_us: Ints = _NO_TIMES
    asset: Ints = _NO_TIMES
    """0 to assets - 1."""
    price: Floats = _NO_PRICES


class Replay(NamedTuple):
    """One path and whose it is."""

    paths: Paths
    markets: tuple[int, ...]
    """Market of each column of the path, rising."""


def replayed_paths(
    bars: Bars,
    markets: int,
    rng: np.random.Generator,
    *,
    from_us: int | None = None,
    to_us: int | None = None,
    assets: int = 0,
    asset_prices: AssetPrices | None = None,
    shortest_minutes: int = SHORTEST_PATH,
) -> list[Replay]:
    """The paths that bars make, in order of time.

    Only whole minutes between `from_us` and `to_us` are kept, and no path shorter than `shortest_minutes`.
    An asset costs what `asset_prices` last said, before that what it first says, and 1 where it says
    nothing. A bar that is complete within a minute counts as that minute's; several such are merged. The
    first bar after a gap only gives the price to begin with, unless its opening is known and the market's
    bars are evenly spaced. The same generator state gives the same paths. Raises InputError for a market
    out of range, prices that are not above zero, and two bars of a market at one time.
    """
    seed = int(rng.integers(2**62))
    stretches = _stretches(bars, markets)
    first = -(2**62) if from_us is None else -(-from_us // MINUTE_US)
    last = 2**62 if to_us is None else to_us // MINUTE_US
    replays = []
    filled: dict[int, tuple[_Stretch, Floats]] = {}
    for begins, ends, active in _shared(stretches):
        start, end = max(begins, first), min(ends, last)
        if end - start < max(shortest_minutes, 1):
            continue
        columns = []
        for stretch in active:
            if filled.get(stretch.market, (None,))[0] is not stretch:
                filled[stretch.market] = (stretch, _fill(stretch, seed))
            columns.append(filled[stretch.market][1][:, start - stretch.start : end - stretch.start])
        opening, high, low, close, volume = np.stack(columns, axis=2)
        prices = _asset_prices(asset_prices or AssetPrices(), assets, start, end)
        paths = Paths(start * MINUTE_US, opening, high, low, close, prices, volume)
        replays.append(Replay(paths, tuple(stretch.market for stretch in active)))
    return replays


class _Stretch(NamedTuple):
    """Bars of one market without a gap, merged to whole minutes."""

    market: int
    start: int
    """First minute since 1970 that is covered."""
    end: Ints
    """Minute at whose beginning each bar is complete, rising."""
    span: Ints
    """Minutes that each bar tells of; those between its span and the bar before are missing."""
    opening: Floats
    high: Floats
    low: Floats
    close: Floats
    volume_usd: Floats
    sigma: Floats
    """Of closes around each bar, per root of a minute, in log price."""


def _stretches(bars: Bars, markets: int) -> list[_Stretch]:
    """What each market has, gap by gap; a stretch that covers no minute is left out."""
    if len(bars.market) and not (bars.market.min() >= 0 and bars.market.max() < markets):
        raise InputError(f"bars: market must be from 0 to {markets - 1}, not {_odd(bars.market, markets)}")
    _check_prices(bars)
    order = np.lexsort((bars.time_us, bars.market))
    time_us, market = bars.time_us[order], bars.market[order]
    again = np.flatnonzero((np.diff(time_us) == 0) & (np.diff(market) == 0))
    if len(again):
        raise InputError(f"bars: market {market[again[0]]} has two bars at {time_us[again[0]]} us")
    columns = [column[order] for column in (bars.opening, bars.high, bars.low, bars.close, bars.volume_usd)]
    found = []
    for number in range(markets):
        a, b = np.searchsorted(market, [number, number + 1])
        if a < b:
            found += list(_of_market(number, time_us[a:b], *(column[a:b] for column in columns)))
    return found


def _odd(market: Ints, markets: int) -> int:
    return int(market[(market < 0) | (market >= markets)][0])


def _check_prices(bars: Bars) -> None:
    for name, column, may_lack in (
        ("close", bars.close, False),
        ("opening", bars.opening, True),
        ("high", bars.high, True),
        ("low", bars.low, True),
    ):
        good = np.isfinite(column) & (column > 0.0)
        if may_lack:
            good |= np.isnan(column)
        if not good.all():
            row = int(np.argmin(good))
            raise InputError(
                f"bars: {name} of market {bars.market[row]} at {bars.time_us[row]} us must be a price above "
                f"zero, not {column[row]!r}"
            )


def _of_market(
    market: int, time_us: Ints, opening: Floats, high: Floats, low: Floats, close: Floats, volume: Floats
) -> Iterator[_Stretch]:
    ends = -(-time_us // MINUTE_US)
    new = np.r_[True, np.diff(ends) > 0]
    first = np.flatnonzero(new)
    last = np.r_[first[1:], len(ends)] - 1
    end = ends[first]
    gap = np.r_[True, time_us[first[1:]] - time_us[last[:-1]] > HOUR_US]
    opening, close = opening[first], close[last]
    high, low = np.maximum.reduceat(high, first), np.minimum.reduceat(low, first)  # NaN if one is
    volume = np.add.reduceat(volume, first)
    even = _even_spacing(np.diff(end)[~gap[1:]])
    edges = np.r_[np.flatnonzero(gap), len(end)]
    for a, b in pairwise(edges):
        part = slice(a, b)
        # even bars tell of so many minutes and no more, if they say where they open
        own = even if even else LONGEST_SPAN
        between = np.diff(end[part], prepend=end[a])
        span = np.where(np.isnan(opening[part]), between, np.minimum(between, own))
        span[0] = even if even and not np.isnan(opening[a]) else 0
        if end[b - 1] - end[a] + span[0] > 0:
            columns = [column[part] for column in (opening, high, low, close, volume)]
            columns.append(_sigma(end[part], close[part]))
            yield _Stretch(market, int(end[a] - span[0]), end[part], span, *columns)


def _even_spacing(minutes: Ints) -> int:
    """The spacing that most bars have; 0 where there is none, or where it is over an hour."""
    if not len(minutes):
        return 0
    values, counts = np.unique(minutes, return_counts=True)
    most = int(np.argmax(counts))
    return int(values[most]) if 2 * counts[most] > len(minutes) and values[most] <= LONGEST_SPAN else 0


def _sigma(end: Ints, close: Floats) -> Floats:
    """Root mean square of the returns around each bar, per root of a minute; 0 where there is none."""
    squares = np.r_[0.0, np.cumsum(np.diff(np.log(close)) ** 2)]
    bar = np.arange(len(end))
    before, after = np.maximum(bar - NEIGHBOURS, 0), np.minimum(bar + NEIGHBOURS, len(end) - 1)
    minutes = end[after] - end[before]
    return np.sqrt(np.maximum(squares[after] - squares[before], 0.0) / np.maximum(minutes, 1))


def _shared(stretches: list[_Stretch]) -> Iterator[tuple[int, int, list[_Stretch]]]:
    """Spans of minutes over which the same stretches go on, in order, with their stretches by market."""
    changes = sorted({minute for s in stretches for minute in (s.start, int(s.end[-1]))})
    waiting = sorted(stretches, key=lambda s: -s.start)
    active: list[_Stretch] = []
    for start, end in pairwise(changes):
        active = [stretch for stretch in active if stretch.end[-1] > start]
        while waiting and waiting[-1].start <= start:
            active.append(waiting.pop())
        if active:
            yield start, end, sorted(active, key=lambda s: s.market)


def _asset_prices(prices: AssetPrices, assets: int, start: int, end: int) -> Floats:
    columns = np.ones((end - start, assets))
    closes_us = np.arange(start + 1, end + 1) * MINUTE_US
    for asset in range(assets):
        rows = np.flatnonzero(prices.asset == asset)
        if len(rows):
            rows = rows[np.argsort(prices.time_us[rows], kind="stable")]
            good = np.isfinite(prices.price[rows]) & (prices.price[rows] > 0.0)
            if not good.all():
                wrong = prices.price[rows[np.argmin(good)]]
                raise InputError(f"asset prices: that of asset {asset} must be above zero, not {wrong!r}")
            known = np.searchsorted(prices.time_us[rows], closes_us, side="right") - 1
            columns[:, asset] = prices.price[rows[np.maximum(known, 0)]]
    return columns


# ---- filling


def _fill(stretch: _Stretch, seed: int) -> Floats:
    """Opening, high, low, close and volume of every minute of a stretch, float64[5, minutes]."""
    rows = np.empty((5, int(stretch.end[-1]) - stretch.start))
    _fill_minutes(
        stretch.start,
        stretch.end,
        stretch.span,
        stretch.opening,
        stretch.high,
        stretch.low,
        stretch.close,
        stretch.volume_usd,
        stretch.sigma,
        key_of(seed, stretch.market),
        key_of(seed, COMMON),
        rows,
    )
    return rows


@compiled
def _fill_minutes(
    start: int,
    end: Ints,
    span: Ints,
    opening: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume_usd: Floats,
    sigma: Floats,
    key: np.uint64,
    common: np.uint64,
    rows: Floats,
) -> None:
    """Fill `rows` bar by bar; the columns are those of `_Stretch`."""
    before_end = start
    before = math.nan
    for i in range(end.shape[0]):
        price = before if math.isnan(opening[i]) else opening[i]
        begins = end[i] - span[i]
        if begins > before_end:  # minutes that no bar tells of
            bridge(before_end, begins, start, before, price, 0.0, math.inf, sigma[i], key, common, rows)
            for row in range(before_end - start, begins - start):
                rows[4, row] = math.nan
        if span[i] > 0:
            top = np.fmax(np.fmax(high[i], price), close[i])
            bottom = np.fmin(np.fmin(low[i], price), close[i])
            if span[i] == 1:
                row = begins - start
                rows[0, row] = price
                rows[1, row] = top
                rows[2, row] = bottom
                rows[3, row] = close[i]
            elif math.isnan(high[i]) or math.isnan(low[i]):
                lowest = 0.0 if math.isnan(low[i]) else bottom
                highest = math.inf if math.isnan(high[i]) else top
                bridge(begins, end[i], start, price, close[i], lowest, highest, sigma[i], key, common, rows)
            else:
                bridge(begins, end[i], start, price, close[i], bottom, top, sigma[i], key, common, rows)
            for row in range(begins - start, end[i] - start):
                rows[4, row] = volume_usd[i] / span[i]
        before_end = end[i]
        before = close[i]
