"""What a dataset says of prices, terms and depth arrives in its paths."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.contracts import MarginTier, Market
from exchange.errors import InputError
from exchange.units import HOUR_US, MINUTE_US
from pipelines import ingest
from pipelines.damage import DatasetError
from pipelines.prices import ReplayedPath, exact_terms, load_paths
from pipelines.store import Dataset
from tests.pipelines import archive_builder as archives
from tests.pipelines import dataset_builder as build

START_US = build.us(build.START)


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def market(tick: float, lot: float) -> Market:
    return Market("ABC", tick, lot, 0.0005, 0.01, 3600, (MarginTier(math.inf, 0.1, 0.05),))


def whole(folder: Path, **options: object) -> list[ReplayedPath]:
    return load_paths(folder, None, None, rng(), **options)  # type: ignore[arg-type]


# ---- a dataset made by hand: half-hourly bars of BTC from the start, of ETH four hours later


@pytest.fixture
def handmade(tmp_path: Path) -> Path:
    return build.write(tmp_path / "made")


def test_a_path_begins_where_its_markets_have_bars(handmade: Path) -> None:
    one, both = whole(handmade)
    assert one.paths.start_us == START_US and len(one.paths.close) == 4 * 60
    assert both.paths.start_us == START_US + 4 * HOUR_US and len(both.paths.close) == 8 * 60
    assert [m.market for m in one.markets] == ["BTC-PERP"]
    assert [m.market for m in both.markets] == ["BTC-PERP", "ETH-PERP"]
    for path in (one, both):
        assert (
            path.paths.close.shape[1] == len(path.markets) == len(path.depth_usd) == len(path.volume_day_usd)
        )


def test_every_bar_is_met(handmade: Path) -> None:
    bars = Dataset.open(handmade).read("market_bars")
    met = 0
    for path in whole(handmade):
        for column, listed in enumerate(path.markets):
            for bar in bars.filter(pl.col("market") == listed.market).to_dicts():
                row = (build.us(bar["time"]) - path.paths.start_us) // MINUTE_US - 1
                if 0 <= row < len(path.paths.close):
                    assert path.paths.close[row, column] == bar["mark_close"]
                    met += 1
    assert met == 24 + 16


def test_terms_are_those_in_force_when_the_path_starts(handmade: Path) -> None:
    one, both = whole(handmade)
    # BTC's change at -1 h and +6 h, ETH's come at +4 h
    assert len(one.markets[0].tiers) == len(both.markets[0].tiers) == 2
    assert both.markets[1].funding_interval_s == 28_800
    (later,) = load_paths(handmade, START_US + 7 * HOUR_US, None, rng())
    assert later.markets[0].tiers == (MarginTier(math.inf, 0.2, 0.1),)
    assert later.markets[0].tick_size == 0.1


def test_terms_that_come_after_the_path_starts_are_better_than_none(handmade: Path) -> None:
    build.change(handmade, "markets", lambda rows: rows.with_columns(pl.col("time") + timedelta(hours=1.5)))
    one, _ = whole(handmade)
    assert one.paths.start_us == START_US and len(one.markets[0].tiers) == 2


def test_depth_is_the_median_within_one_percent_and_volume_that_of_a_day(handmade: Path) -> None:
    def thin(rows: pl.DataFrame) -> pl.DataFrame:
        rows = rows.filter(pl.col("market") == "BTC-PERP")
        crossed = rows.head(9).with_columns(best_bid=pl.lit(1e9))
        return pl.concat([crossed, rows.tail(rows.height - 9)])

    build.change(handmade, "book_depth", thin)
    _, both = whole(handmade)
    # beyond the last distance, 50 bp, no more than what rests there is claimed
    np.testing.assert_array_equal(both.depth_usd, [(5e4 + 6e4) / 2, math.nan])
    np.testing.assert_allclose(both.volume_day_usd, [48_000.0, 48_000.0])


def test_a_part_is_the_same_as_in_the_whole(handmade: Path) -> None:
    from_us, to_us = START_US + 5 * HOUR_US, START_US + 6 * HOUR_US
    _, both = whole(handmade)
    (part,) = load_paths(handmade, from_us, to_us, rng())
    assert part.paths.start_us == from_us and len(part.paths.close) == 60
    for name in ("opening", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(part.paths, name), getattr(both.paths, name)[60:120])


def test_assets_cost_what_the_dataset_says_and_a_dollar_otherwise(handmade: Path) -> None:
    one, _ = whole(handmade, assets=("USD", "SOL"))
    assert one.paths.asset_price.shape == (240, 2)
    assert (one.paths.asset_price[:, 0] == 1.0).all()
    # at(h) it is 20 + h, and minute k closes at k + 1 minutes
    assert one.paths.asset_price[[0, 58, 59, 119], 1].tolist() == [20.0, 20.0, 21.0, 22.0]
    assert whole(handmade)[0].paths.asset_price.shape == (240, 0)


def test_no_bars_no_paths(handmade: Path) -> None:
    assert load_paths(handmade, START_US + 100 * HOUR_US, None, rng()) == []
    build.change(handmade, "market_bars", lambda rows: rows.head(0))
    assert whole(handmade) == []


@pytest.mark.parametrize(
    ("table", "column", "value", "says"),
    [
        ("market_bars", "mark_close", -1.0, "market_bars.parquet: column mark_close: is not positive"),
        ("market_bars", "market", "GHOST", "column market: 'GHOST' is not in markets"),
        ("market_bars", "time", None, "column time: is null"),
        ("markets", "tick_size", 0.0, "markets.parquet: column tick_size: is not positive"),
    ],
)
def test_what_is_wrong_is_named(handmade: Path, table: str, column: str, value: object, says: str) -> None:
    build.set_value(handmade, table, column, value)
    with pytest.raises(DatasetError, match=says):
        whole(handmade)


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        whole(tmp_path / "nothing")


# ---- exact terms


decimal_numbers = st.builds(
    lambda digits, places: float(f"{digits}e-{places}"), st.integers(1, 9_999), st.integers(0, 9)
)


@given(decimal_numbers, decimal_numbers)
def test_a_lot_at_one_tick_is_a_whole_number_of_micro_dollars(tick: float, lot: float) -> None:
    given_terms = market(tick, lot)
    exact = exact_terms(given_terms)
    units = Decimal(repr(exact.tick_size)) * Decimal(repr(exact.lot_size)) * 1_000_000
    assert units == int(units) and units >= 1
    assert exact.tick_size == tick, "nine decimals are a tick"
    assert exact.lot_size >= lot
    if exact.lot_size > lot:
        exponent = math.log10(exact.lot_size)
        assert exponent == pytest.approx(round(exponent)), "a power of ten"
        smaller = Decimal(repr(exact.lot_size)) / 10
        units = Decimal(repr(tick)) * smaller * 1_000_000
        assert units != int(units) or smaller < Decimal(repr(lot)), "and the least that will do"
    assert exact_terms(exact) == exact


@pytest.mark.parametrize(
    ("tick", "lot", "expected"),
    [
        (0.1, 0.001, (0.1, 0.001)),
        (0.01, 0.0001, (0.01, 0.0001)),
        (0.001, 0.0001, (0.001, 0.001)),
        (1e-7, 1.0, (1e-7, 10.0)),
        (0.05, 0.25, (0.05, 0.25)),
        (0.00025, 0.002, (0.00025, 0.1)),  # half a micro-dollar; a lot of 0.01 would make two and a half
        (0.1 + 0.2, 0.01, (0.3, 0.01)),  # what arithmetic left behind is no part of a tick
        (1 / 3, 0.01, (0.1, 0.01)),
        (1e-12, 1.0, (1e-9, 1000.0)),
    ],
)
def test_terms_are_changed_as_little_as_exactness_asks(
    tick: float, lot: float, expected: tuple[float, float]
) -> None:
    exact = exact_terms(market(tick, lot))
    assert (exact.tick_size, exact.lot_size) == expected
    assert exact.tiers == market(1.0, 1.0).tiers


# ---- datasets that others made


def test_archives_can_be_replayed(tmp_path: Path) -> None:
    minutes = range(200)
    for symbol, price in (("ABCUSDT", 100.0), ("XYZUSDT", 5.0)):
        rows = archives.klines(minutes, price)
        archives.put(tmp_path / "src", f"{symbol}-1m-2024-02", archives.kline_csv(rows))
    assert ingest.run("binance-vision", tmp_path / "src", tmp_path / "out", None) == 0
    (path,) = whole(tmp_path / "out")
    assert path.paths.start_us == archives.FEBRUARY_MS * 1000
    assert [m.market for m in path.markets] == ["ABCUSDT", "XYZUSDT"]
    np.testing.assert_allclose(path.paths.close[:, 0], [100.0 + n * 0.01 for n in minutes], rtol=1e-12)
    np.testing.assert_allclose(path.paths.high[:, 1], path.paths.close[:, 1] + 0.01)
    np.testing.assert_allclose(path.volume_day_usd, [1440 * 12.5 * (p + 0.995) for p in (100.0, 5.0)])
    assert np.isnan(path.depth_usd).all()


def test_a_generated_venue_can_be_replayed(small_dataset: Path) -> None:
    paths = whole(small_dataset)
    bars = Dataset.open(small_dataset).read("market_bars")
    (path,) = paths
    names = [m.market for m in path.markets]
    assert names == sorted(bars["market"].unique())
    assert (path.depth_usd > 0).all() and (path.volume_day_usd > 0).all()
    day = bars.filter(pl.col("market") == names[0]).sort("time").tail(500)
    rows = (day["time"].to_physical().to_numpy() - path.paths.start_us) // MINUTE_US - 1
    np.testing.assert_array_equal(path.paths.close[rows, 0], day["mark_close"].to_numpy())


def test_irregular_looks_at_a_real_venue_can_be_replayed(drift: Path) -> None:
    paths = whole(drift)
    bars = Dataset.open(drift).read("market_bars")
    assert sum(len(path.paths.close) for path in paths) > 20 * 1440
    assert {m.market for path in paths for m in path.markets} == {"BTC-PERP", "ETH-PERP", "SOL-PERP"}
    for path in paths:
        minutes = len(path.paths.close)
        assert minutes >= 60 and (path.depth_usd > 1e4).all()
        assert (path.paths.low > 0).all() and np.isfinite(path.paths.high).all()
        end = path.paths.start_us + minutes * MINUTE_US
        inside = bars.filter(pl.col("time").to_physical().is_between(path.paths.start_us, end))
        for column, listed in enumerate(path.markets):
            low, high = path.paths.low[:, column].min(), path.paths.high[:, column].max()
            known = inside.filter(pl.col("market") == listed.market)["mark_close"]
            assert low <= known.min() and high >= known.max()  # type: ignore[operator]
            assert high / low < 2 * known.max() / known.min()  # type: ignore[operator]
