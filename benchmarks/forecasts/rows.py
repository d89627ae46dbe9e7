"""Published prices as what was known at each clock hour, and what followed."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.units import DAY_S, HOUR_S, HOUR_US, MINUTE_US
from features import volatility as live

Floats = npt.NDArray[np.float64]
Hours = npt.NDArray[np.int64]

HORIZONS_H = (1, 8, 24)
KNOWN_BEFORE_S = 2 * DAY_S
"""A price has to be known for so long before it is judged or fitted on."""
CANDLE_VENUE = "bybit"


class Prices(NamedTuple):
    """One price as it was published."""

    coin: str
    period: str
    time_us: Hours
    price: Floats


class Rows(NamedTuple):
    """What was known of one price at each clock hour, and what followed."""

    coin: str
    spacing: str
    hour: Hours  # (n,) hours since the epoch
    variance: Floats  # (n, half-lives) as `observe_price` keeps it
    series: Floats  # (n, columns) likewise
    windows: Floats  # (n, 3) realised variance of the last day, week and month, per second
    hour_return: Floats  # (n,) of the hour that ends; NaN where bars do not end with hours
    realised: Floats  # (n, horizons) variance per second; NaN where not known

    def cut(self, kept: npt.NDArray[np.bool_]) -> Rows:
        """Some of the hours."""
        return Rows(
            self.coin,
            self.spacing,
            self.hour[kept],
            self.variance[kept],
            self.series[kept],
            self.windows[kept],
            self.hour_return[kept],
            self.realised[kept],
        )


# ---- prices


def klines(folder: Path) -> list[Prices]:
    """One-minute klines, a month a file, as Binance publishes them."""
    found = []
    for path in sorted(folder.glob("*-1m-*.zip")):
        market, month = path.stem.split("-1m-")
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            has_names = file.read(9) == b"open_time"
            file.seek(0)
            bars = np.loadtxt(file, delimiter=",", usecols=(0, 1, 4), skiprows=int(has_names))
        time_us = bars[:, 0].astype(np.int64) * 1_000
        ends = np.concatenate([time_us[:1], time_us + MINUTE_US])
        found.append(
            Prices(market.removesuffix("USDT"), month, ends, np.concatenate([bars[:1, 1], bars[:, 2]]))
        )
    return found


def candles(path: Path) -> list[Prices]:
    """Hourly closes of one venue over a year."""
    if not path.exists():
        return []
    frame = pl.read_parquet(path).filter(pl.col("venue") == CANDLE_VENUE)
    frame = frame.unique(["coin", "timestamp"]).sort("coin", "timestamp")
    return [
        Prices(str(coin), "", rows["timestamp"].dt.epoch("us").to_numpy() + HOUR_US, rows["c"].to_numpy())
        for (coin,), rows in frame.group_by(["coin"], maintain_order=True)
    ]


def marks(path: Path) -> list[Prices]:
    """Marks of a dataset's bars, at whatever times they have."""
    if not path.exists():
        return []
    frame = pl.read_parquet(path).sort("market", "time")
    return [
        Prices(str(market), "", rows["time"].dt.epoch("us").to_numpy(), rows["mark_close"].to_numpy())
        for (market,), rows in frame.group_by(["market"], maintain_order=True)
        if len(rows) > 100
    ]


# ---- what was known, by the code that runs live


def _walk(time_us: Hours, price: Floats, hour: Hours, variance: Floats, series: Floats, seen: Floats) -> None:
    """Fill rows of the live state, and of the sum of squared returns, with what was known at each hour."""
    state = np.full(len(live.HALF_LIVES_H), math.nan)
    columns = np.full(live.SERIES_COLUMNS, math.nan)
    ring = np.zeros(live.RING_HOURS)
    total = 0.0
    bar = 0
    bars = list(
        zip(time_us[1:].tolist(), np.diff(time_us).tolist(), np.diff(np.log(price)).tolist(), strict=True)
    )
    for row, ends_us in enumerate((hour * HOUR_US).tolist()):
        while bar < len(bars) and bars[bar][0] <= ends_us:
            bar_us, elapsed_us, log_return = bars[bar]
            live.observe_price(log_return, bar_us, elapsed_us, state, columns, ring)
            total += log_return * log_return
            bar += 1
        variance[row] = state
        series[row] = columns
        seen[row] = total


def rows_of(prices: Prices, every_minutes: int = 1, most_gap: float = math.inf) -> Rows:
    """The rows of one price seen every so many minutes, judged by all of its bars.

    A horizon in which no bar came for more than `most_gap` of it, and an hour, is not judged.
    """
    time_us, price = prices.time_us, prices.price
    hour = np.arange(-(-time_us[0] // HOUR_US), time_us[-1] // HOUR_US + 1)
    count = len(hour)
    variance = np.full((count, len(live.HALF_LIVES_H)), np.nan)
    series = np.full((count, live.SERIES_COLUMNS), np.nan)
    seen = np.zeros(count)
    kept = time_us // MINUTE_US % every_minutes == 0 if every_minutes > 1 else np.full(len(time_us), True)
    _walk(time_us[kept], price[kept], hour, variance, series, seen)

    known_h = np.maximum(series[:, live.KNOWN_S] / HOUR_S, 1e-9)
    windows = np.empty((count, 3))
    for k, length in enumerate((24, 168, 720)):
        before = np.concatenate([np.zeros(min(length, count)), seen[:-length]])
        windows[:, k] = (seen - before) / (np.minimum(known_h, length) * HOUR_S)

    total = np.concatenate([[0.0], np.cumsum(np.diff(np.log(price)) ** 2)])
    at_hour = np.interp(hour * HOUR_US, time_us, total)
    gap = np.diff(time_us)
    realised = np.full((count, len(HORIZONS_H)), np.nan)
    for k, horizon in enumerate(HORIZONS_H):
        realised[:-horizon, k] = (at_hour[horizon:] - at_hour[:-horizon]) / (horizon * HOUR_S)
        if not math.isinf(most_gap):
            limit = max(most_gap * horizon, 1.0) * HOUR_US
            first = np.searchsorted(time_us, hour * HOUR_US, "right") - 1
            last = np.searchsorted(time_us, (hour + horizon) * HOUR_US)
            sparse = [bool((gap[a:b] > limit).any()) for a, b in zip(first, last, strict=True)]
            realised[sparse, k] = np.nan

    exact = np.isin(hour * HOUR_US, time_us)
    hour_return = np.full(count, np.nan)
    if exact.all():
        hour_return[1:] = np.diff(np.log(price[np.searchsorted(time_us, hour * HOUR_US)]))
    spacing = f"{every_minutes} min" if prices.period else ""
    rows = Rows(prices.coin, spacing, hour, variance, series, windows, hour_return, realised)
    return rows.cut(series[:, live.KNOWN_S] >= KNOWN_BEFORE_S)


def logs(values: Floats) -> Floats:
    """Log over the prior, of at least the least variance."""
    return np.log(np.maximum(values, live.LEAST_VARIANCE) / live.PRIOR_VARIANCE)


def ended(rows: Rows, hour: int) -> Rows:
    """Rows before an hour, with what was realised by then."""
    kept = rows.cut(rows.hour < hour)
    late = kept.hour[:, None] + np.array(HORIZONS_H) > hour
    return kept._replace(realised=np.where(late, np.nan, kept.realised))
