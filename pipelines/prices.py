"""Prices of a dataset as outside paths for the simulated venue, with the terms of its markets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.contracts import MarginTier, Market
from exchange.simulation.paths import Floats, Paths
from exchange.simulation.replayed import (
    LONGEST_SPAN,
    NEIGHBOURS,
    SHORTEST_PATH,
    AssetPrices,
    Bars,
    replayed_paths,
)
from exchange.units import DAY_US, MINUTE_US
from features.depth import depth_within_usd
from pipelines.damage import DatasetError, reading, shown
from pipelines.rules import Rules, checked, known_names
from pipelines.store import Dataset

DEPTH_BPS = 100.0
MOST_LOOKS = 20_000
"""Looks at one book that its median depth is taken from, evenly among all there are."""
MARGIN_US = (NEIGHBOURS + 1) * LONGEST_SPAN * MINUTE_US
"""Time before and after what is asked for whose bars tell the volatility of those asked for."""

MICRO_DOLLARS = Decimal(1_000_000)
FINEST = Decimal("1e-9")
_TERMS = ("market", "tick_size", "lot_size", "taker_fee_rate", "liquidation_fee_rate", "funding_interval_s")


class ReplayedPath(NamedTuple):
    """One path of a dataset and its markets, one for each column."""

    paths: Paths
    markets: tuple[Market, ...]
    """Terms in force when the path starts (the first ones where none were yet), as `exact_terms` has them."""
    depth_usd: Floats
    """float64[markets]: median notional within 1% of the mid on one side; NaN where no book is known."""
    volume_day_usd: Floats
    """float64[markets]: traded in a day on this path; NaN where no volume is known."""


def load_paths(
    dataset: Path | Dataset,
    from_us: int | None,
    to_us: int | None,
    rng: np.random.Generator,
    assets: Sequence[str] = (),
    shortest_minutes: int = SHORTEST_PATH,
) -> list[ReplayedPath]:
    """The paths of a dataset of either kind between two times, in order of time; none if it has no such.

    `asset_price` of a path has a column for each of `assets`: its price in the dataset, or 1 where the
    dataset has none. See `replayed_paths` for what is filled and how. Raises DatasetError for a dataset that
    does not hold what it should.
    """
    if not isinstance(dataset, Dataset):
        dataset = Dataset.open(dataset, "markets")
    terms = _terms(dataset)
    names = sorted(terms)
    replays = replayed_paths(
        _bars(dataset, names, from_us, to_us),
        len(names),
        rng,
        from_us=from_us,
        to_us=to_us,
        assets=len(assets),
        asset_prices=_asset_prices(dataset, assets),
        shortest_minutes=shortest_minutes,
    )
    depth = _depth_usd(dataset, names)
    paths = []
    for replay in replays:
        start_us = replay.paths.start_us
        markets = tuple(exact_terms(_in_force(terms[names[number]], start_us)) for number in replay.markets)
        paths.append(
            ReplayedPath(replay.paths, markets, depth[list(replay.markets)], _volume_day_usd(replay.paths))
        )
    return paths


def exact_terms(market: Market) -> Market:
    """The same terms with a lot that costs a whole number of micro-dollars at every tick.

    The venue's ledger is exact in micro-dollars, so tick times lot must be a whole number of them. Where it
    is not, the lot becomes the least power of ten above it that makes it one. A tick with more than nine
    decimals (no venue quotes so) first becomes the power of ten below it, and 1e-9 at least.
    """
    tick, lot = Decimal(f"{market.tick_size:.12g}"), Decimal(f"{market.lot_size:.12g}")
    if tick % FINEST:
        tick = max(_power(math.floor(tick.log10())), FINEST)
    if (tick * lot * MICRO_DOLLARS) % 1:
        exponent = math.ceil(lot.log10())
        while (tick * _power(exponent) * MICRO_DOLLARS) % 1:
            exponent += 1
        lot = _power(exponent)
    if (float(tick), float(lot)) == (market.tick_size, market.lot_size):
        return market
    return Market(
        market.market,
        float(tick),
        float(lot),
        market.taker_fee_rate,
        market.liquidation_fee_rate,
        market.funding_interval_s,
        market.tiers,
    )


def _power(exponent: int) -> Decimal:
    return Decimal(1).scaleb(exponent)


def _terms(dataset: Dataset) -> dict[str, list[tuple[int, Market]]]:
    """The terms of every market and since when, in order of time."""
    terms: dict[str, list[tuple[int, Market]]] = {}
    rows = checked(dataset, "markets").with_columns(pl.col("time").to_physical()).sort("time")
    for row in rows.iter_rows(named=True):
        terms.setdefault(row["market"], []).append((row["time"], _market(row)))
    return terms


def _market(row: dict[str, Any]) -> Market:
    tiers: Iterable[dict[str, Any]] = row["tiers"]
    name, tick, lot, taker_fee, liquidation_fee, interval_s = (row[column] for column in _TERMS)
    return Market(
        name,
        tick,
        lot,
        taker_fee,
        liquidation_fee,
        interval_s,
        tuple(
            MarginTier(
                math.inf if tier["notional_cap_usd"] is None else tier["notional_cap_usd"],
                tier["initial_margin_rate"],
                tier["maintenance_margin_rate"],
            )
            for tier in tiers
        ),
    )


def _in_force(terms: list[tuple[int, Market]], time_us: int) -> Market:
    known = [market for since_us, market in terms if since_us <= time_us]
    return known[-1] if known else terms[0][1]


def _bars(dataset: Dataset, names: list[str], from_us: int | None, to_us: int | None) -> Bars:
    after_us = None if from_us is None else from_us - MARGIN_US
    until_us = None if to_us is None else to_us + MARGIN_US
    frame = dataset.read("market_bars", after_us, until_us)
    for problem in Rules(known_names(dataset), dataset.meta.end_us).window({"market_bars": frame}):
        if problem.blocking:
            raise problem.error(dataset)
    number = frame["market"].replace_strict(
        pl.Series(names, dtype=pl.String), pl.Series(range(len(names)), dtype=pl.Int64), default=None
    )
    if number.null_count():
        market = frame["market"].filter(number.is_null())[0]
        place = dataset.place("market_bars")
        raise DatasetError(
            f"{place}: column market: {shown(market)} is not in markets", "market_bars", "market"
        )
    prices = ("mark_close", "mark_open", "mark_high", "mark_low", "volume_usd")
    return Bars(
        frame["time"].to_physical().to_numpy(),
        number.to_numpy(),
        *(frame[name].fill_null(math.nan).to_numpy() for name in prices),
    )


def _asset_prices(dataset: Dataset, assets: Sequence[str]) -> AssetPrices | None:
    if not assets:
        return None
    frame = checked(dataset, "asset_prices").filter(pl.col("asset").is_in(list(assets)))
    number = {name: n for n, name in enumerate(assets)}
    return AssetPrices(
        frame["time"].to_physical().to_numpy(),
        np.array([number[name] for name in frame["asset"]], dtype=np.int64),
        frame["price"].to_numpy(),
    )


def _depth_usd(dataset: Dataset, names: list[str]) -> Floats:
    """Median depth by market, over looks at books that are not crossed."""
    depth = np.full(len(names), math.nan)
    looks = dataset.scan("book_depth").filter(
        (pl.col("best_bid") <= pl.col("best_ask")) & (pl.col("distance_bps").list.len() > 0)
    )
    with reading(dataset.place("book_depth"), "book_depth"):
        counts = dict(looks.group_by("market").len().collect(engine="streaming").iter_rows())
        for number, name in enumerate(names):
            if name in counts:
                own = looks.filter(pl.col("market") == name).sort("time", maintain_order=True)
                few = own.gather_every(max(1, -(-counts[name] // MOST_LOOKS)))
                columns = few.select("distance_bps", "bid_usd", "ask_usd").collect()
                depth[number] = float(np.median([_look_usd(*row) for row in columns.iter_rows()]))
    return depth


def _look_usd(distance_bps: list[float], bid_usd: list[float], ask_usd: list[float]) -> float:
    """Mean of the two sides within DEPTH_BPS."""
    order = np.argsort(distance_bps)
    distance = np.array(distance_bps)[order]
    sides = [_side_usd(distance, np.array(side)[order]) for side in (bid_usd, ask_usd)]
    return 0.5 * sum(sides)


def _side_usd(distance_bps: npt.NDArray[np.float64], depth_usd: npt.NDArray[np.float64]) -> float:
    return depth_within_usd(DEPTH_BPS, distance_bps, depth_usd, len(distance_bps))


def _volume_day_usd(paths: Paths) -> Floats:
    known = ~np.isnan(paths.volume_usd)
    days = known.sum(axis=0) * (MINUTE_US / DAY_US)
    total = np.where(known, paths.volume_usd, 0.0).sum(axis=0)
    return np.divide(total, days, out=np.full(len(total), math.nan), where=days > 0.0)
