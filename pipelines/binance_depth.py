"""What cumulative depth by percentage from an unknown mid says of the mid, and when it contradicts itself.

An archive of book depth gives, for distances p on either side of the mid M, the quantity and the notional
that rest between M and M(1 ± p). It gives neither M nor the best prices. But the average price of what
rests between two distances, A = change of notional / change of quantity, lies between the prices at these
distances, which bounds M from both sides:

    A / (1 + s p_outer)  and  A / (1 + s p_inner),   s = -1 for bids, +1 for asks.

M lies in all these intervals. Where they have no point in common the published book was crossed: bids that
had long been gone were still counted, and its mid was no price of the market.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.units import BPS

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-4
"""By how much bounds may miss each other; a book moves a little while it is summed."""
FAR = 0.01
"""A book whose mid is farther than this, and the last bar's swing, from the last price is stale."""
SMALLEST_BAND = 1e-6
"""Of what rests up to a distance: less than this in its last band gives no average price worth having."""


class Ladders(NamedTuple):
    """Looks at one market's book, by time."""

    time_us: npt.NDArray[np.int64]
    distance: Floats
    """float64[levels], rising fractions of the mid."""
    bid_quantity: Floats
    """float64[looks, levels], cumulative; NaN where a look lacks the level. Likewise the next three."""
    bid_usd: Floats
    ask_quantity: Floats
    ask_usd: Floats


class Quotes(NamedTuple):
    """Best prices of each look as far as they can be told."""

    best_bid: Floats
    """NaN where nothing can be told; above the ask where the book contradicts itself or the last price."""
    best_ask: Floats


def ladders_of(rows: pl.DataFrame) -> Ladders:
    """The looks in rows of time_us, percentage, depth, notional; a level counts where both sides have it."""
    times, look = np.unique(rows["time_us"].to_numpy(), return_inverse=True)
    percentage = rows["percentage"].to_numpy()
    distances, level = np.unique(np.abs(percentage), return_inverse=True)
    sides = np.full((2, 2, len(times), len(distances)), np.nan)
    side = (percentage > 0).astype(int)
    sides[side, 0, look, level] = rows["depth"].to_numpy()
    sides[side, 1, look, level] = rows["notional"].to_numpy()
    sides[:, :, np.isnan(sides).any(axis=(0, 1))] = np.nan
    return Ladders(times, distances / 100.0, sides[0, 0], sides[0, 1], sides[1, 0], sides[1, 1])


def bounds(ladders: Ladders) -> tuple[Floats, Floats]:
    """Lowest and highest mid that a look allows: 0 and infinity where it says nothing.

    The lowest is above the highest where the look contradicts itself, which one whose cumulative figures
    fall with distance does as well: then they are infinity and 0.
    """
    looks = len(ladders.time_us)
    lowest, highest = np.zeros(looks), np.full(looks, np.inf)
    falls = np.zeros(looks, dtype=bool)
    for sign, quantity, usd in (
        (-1.0, ladders.bid_quantity, ladders.bid_usd),
        (1.0, ladders.ask_quantity, ladders.ask_usd),
    ):
        inner, inner_quantity, inner_usd = (np.zeros(looks) for _ in range(3))
        for k, distance in enumerate(ladders.distance):
            known = ~np.isnan(quantity[:, k])
            more, more_usd = quantity[:, k] - inner_quantity, usd[:, k] - inner_usd
            falls |= known & ((more < -1e-9 * inner_quantity) | (more_usd < -1e-9 * inner_usd))
            counts = known & (more > SMALLEST_BAND * quantity[:, k]) & (more_usd > 0.0)
            average = np.divide(more_usd, more, out=np.ones(looks), where=counts)
            ends = average / (1.0 + sign * inner), average / (1.0 + sign * distance)
            lowest = np.where(counts, np.maximum(lowest, np.minimum(*ends)), lowest)
            highest = np.where(counts, np.minimum(highest, np.maximum(*ends)), highest)
            inner = np.where(known, distance, inner)
            inner_quantity = np.where(known, quantity[:, k], inner_quantity)
            inner_usd = np.where(known, usd[:, k], inner_usd)
    return np.where(falls, np.inf, lowest), np.where(falls, 0.0, highest)


def even_middle(ladders: Ladders) -> Floats:
    """The mid if what rests up to the first distance is spread evenly; NaN where a side is empty."""
    first = np.argmax(~np.isnan(ladders.bid_quantity), axis=1)
    row = np.arange(len(first))
    distance = ladders.distance[first]
    with np.errstate(divide="ignore", invalid="ignore"):
        bid = ladders.bid_usd[row, first] / ladders.bid_quantity[row, first] / (1.0 - distance / 2.0)
        ask = ladders.ask_usd[row, first] / ladders.ask_quantity[row, first] / (1.0 + distance / 2.0)
        return np.sqrt(bid * ask)


def quotes_of(ladders: Ladders, price: Floats, swing: Floats, tick: float) -> Quotes:
    """Best prices: one tick around the mid, which is `price` moved into the bounds, or the even middle.

    `price` is the last one known at the time of each look, NaN where none is fresh, and `swing` the range of
    its bar as a fraction. Where the bounds cross, or lie farther from the price than FAR and the swing, the
    quotes cross: the bid is the highest that something says it must be, the ask the lowest.
    """
    lowest, highest = bounds(ladders)
    falls = np.isinf(lowest)
    middle = np.where(np.isnan(price), even_middle(ladders), price)
    slack = FAR + np.nan_to_num(swing)
    stale = (middle < lowest / (1.0 + slack)) | (middle > highest * (1.0 + slack))
    stale &= ~np.isnan(price)
    crossed = lowest > highest * (1.0 + ROUNDING)
    known = np.where(np.isnan(price), np.nan, price)
    bid = np.where(stale, np.fmax(lowest, known), lowest)
    ask = np.where(stale, np.fmin(highest, known), highest)
    mid = np.clip(middle, np.minimum(lowest, highest), np.maximum(lowest, highest))
    half = np.minimum(tick, mid) / 2.0
    bid, ask = (
        np.where(crossed | stale, edge, mid + sign * half) for edge, sign in ((bid, -1.0), (ask, 1.0))
    )
    told = ~falls & ~np.isnan(ladders.bid_usd).all(axis=1)
    told &= np.isfinite(bid) & np.isfinite(ask) & (bid > 0.0) & (ask > 0.0)
    return Quotes(np.where(told, bid, np.nan), np.where(told, ask, np.nan))


def book_rows(ladders: Ladders, quotes: Quotes, market: str) -> pl.DataFrame:
    """Rows of `book_depth`; looks of which nothing can be told are left out."""
    told = ~np.isnan(quotes.best_bid)
    looks = int(told.sum())
    levels = len(ladders.distance)
    known = ~np.isnan(ladders.bid_usd[told])
    flat = pl.DataFrame(
        {
            "look": np.repeat(np.arange(looks), levels),
            "distance_bps": np.tile(np.round(ladders.distance / BPS, 6), looks),
            "bid_usd": ladders.bid_usd[told].ravel(),
            "ask_usd": ladders.ask_usd[told].ravel(),
        }
    ).filter(pl.Series(known.ravel(), dtype=pl.Boolean))
    lists = flat.group_by("look", maintain_order=True).agg("distance_bps", "bid_usd", "ask_usd")
    best = pl.DataFrame(
        {
            "time": ladders.time_us[told],
            "market": pl.Series([market] * looks, dtype=pl.String),
            "best_bid": quotes.best_bid[told],
            "best_ask": quotes.best_ask[told],
            "look": np.arange(looks),
        }
    )
    rows = best.join(lists, on="look", how="left", maintain_order="left").drop("look")
    return rows.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
