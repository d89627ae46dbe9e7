"""Every account of a real venue, recomputed from its positions and balances.

The venue values positions at its oracle price at the moment of the snapshot; here they are valued at the last
bar at or before it, so equity agrees only as far as prices stood still in between. The venue's maintenance
and initial margins and its haircuts, on the other hand, come out exactly for every account.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from exchange.account import Account, Balance, Position
from exchange.compiled import compiled
from exchange.contracts import FloatArray, MarginTier, Market, TierArrays, tiered_margin_usd
from exchange.margin import IdArray, cross_figures, liquidation_price, notional_usd

pytestmark = pytest.mark.real_data


class Snapshots(NamedTuple):
    """Snapshots in order, each with a stretch of the position rows and one of the balance rows."""

    accounts: pl.DataFrame
    positions: pl.DataFrame
    balances: pl.DataFrame
    markets: list[Market]
    position_start: npt.NDArray[np.int64]
    balance_start: npt.NDArray[np.int64]


class Recomputed(NamedTuple):
    equity_usd: FloatArray
    collateral_usd: FloatArray
    initial_margin_usd: FloatArray
    maintenance_margin_usd: FloatArray
    at_liquidation_error: FloatArray
    """Per position row: collateral over maintenance less one, re-marked at its liquidation price."""


@pytest.fixture(scope="module")
def snapshots(drift: Path) -> Snapshots:
    def table(name: str) -> pl.DataFrame:
        return pl.read_parquet(drift / f"{name}.parquet").sort("time")

    accounts = table("account_snapshots").sort("time", "account_id").with_row_index("row")
    rows = accounts.select("time", "account_id", "row")

    terms = table("markets").with_row_index("terms")
    bars = table("market_bars").select("time", "market", "mark_close")
    positions = (
        table("position_snapshots")
        .join_asof(bars, on="time", by="market", check_sortedness=False)
        .join_asof(terms.select("time", "market", "terms"), on="time", by="market", check_sortedness=False)
        .join(rows, on=["time", "account_id"], how="left", maintain_order="left")
        .sort("row", "market")
    )
    assets = table_of_assets(drift)
    balances = (
        table("balance_snapshots")
        .join_asof(table("asset_prices"), on="time", by="asset", check_sortedness=False)
        .join(assets, on="asset", how="left")
        .with_columns(price=pl.when("is_dollar").then(1.0).otherwise("price"))
        .join(rows, on=["time", "account_id"], how="left", maintain_order="left")
        .sort("row", "asset")
    )
    assert positions["row"].null_count() == balances["row"].null_count() == 0
    assert positions["mark_close"].null_count() == positions["terms"].null_count() == 0
    assert balances["price"].null_count() == 0

    markets = [
        Market(
            row["market"],
            row["tick_size"],
            row["lot_size"],
            row["taker_fee_rate"],
            row["liquidation_fee_rate"],
            row["funding_interval_s"],
            tuple(
                MarginTier(
                    np.inf if tier["notional_cap_usd"] is None else tier["notional_cap_usd"],
                    tier["initial_margin_rate"],
                    tier["maintenance_margin_rate"],
                )
                for tier in row["tiers"]
            ),
        )
        for row in terms.iter_rows(named=True)
    ]
    every_row = np.arange(accounts.height + 1)
    return Snapshots(
        accounts,
        positions,
        balances,
        markets,
        np.searchsorted(positions["row"].to_numpy(), every_row),
        np.searchsorted(balances["row"].to_numpy(), every_row),
    )


def table_of_assets(folder: Path) -> pl.DataFrame:
    """Assets with a number; a dollar asset has no price and both weights 1."""
    assets = pl.read_parquet(folder / "assets.parquet").sort("asset").with_row_index("asset_id")
    priced = pl.read_parquet(folder / "asset_prices.parquet")["asset"].unique()
    plain = (pl.col("collateral_weight") == 1.0) & (pl.col("liability_weight") == 1.0)
    return assets.with_columns(is_dollar=plain & ~pl.col("asset").is_in(priced.implode()))


@compiled
def recompute(
    position_start: npt.NDArray[np.int64],
    terms: IdArray,
    quantity: FloatArray,
    quote_usd: FloatArray,
    mark: FloatArray,
    tiers: TierArrays,
    balance_start: npt.NDArray[np.int64],
    asset: IdArray,
    amount: FloatArray,
    price: FloatArray,
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Figures (snapshots, 4), and per position row the error of its liquidation price."""
    figures = np.empty((position_start.shape[0] - 1, 4))
    errors = np.full(terms.shape[0], np.nan)
    marks = np.full(tiers.floor_usd.shape[0], np.nan)
    asset_prices = np.full(weights.shape[0], np.nan)
    for row in range(figures.shape[0]):
        first, last = position_start[row], position_start[row + 1]
        first_held, last_held = balance_start[row], balance_start[row + 1]
        for position in range(first, last):
            marks[terms[position]] = mark[position]
        for balance in range(first_held, last_held):
            asset_prices[asset[balance]] = price[balance]
        pool = cross_figures(
            terms[first:last],
            quantity[first:last],
            quote_usd[first:last],
            marks,
            tiers,
            asset[first_held:last_held],
            amount[first_held:last_held],
            asset_prices,
            weights[:, 0],
            weights[:, 1],
        )
        figures[row, 0] = pool.equity_usd
        figures[row, 1] = pool.collateral_usd
        figures[row, 2] = pool.initial_margin_usd
        figures[row, 3] = pool.maintenance_margin_usd
        for position in range(first, last):
            number = terms[position]
            flat = (
                tiers.floor_usd[number],
                tiers.maintenance_rate[number],
                tiers.maintenance_deduction_usd[number],
            )
            buffer = pool.collateral_usd - pool.maintenance_margin_usd
            there = liquidation_price(quantity[position], mark[position], buffer, flat[0], flat[1], flat[2])
            if not there > 0.0:
                continue
            before = notional_usd(quantity[position], mark[position])
            after = notional_usd(quantity[position], there)
            collateral = pool.collateral_usd + (after - before)
            maintenance = (
                pool.maintenance_margin_usd
                - tiered_margin_usd(before, flat[0], flat[1], flat[2])
                + tiered_margin_usd(after, flat[0], flat[1], flat[2])
            )
            scale = maintenance + 1e-3 * (abs(before) + abs(after) + abs(pool.collateral_usd))
            errors[position] = abs(collateral - maintenance) / scale
    return figures, errors


@pytest.fixture(scope="module")
def recomputed(snapshots: Snapshots, drift: Path) -> Recomputed:
    weights = table_of_assets(drift).select("collateral_weight", "liability_weight").to_numpy()
    schedules = [market.schedule for market in snapshots.markets]
    tiers = TierArrays(*(np.array([schedule[column] for schedule in schedules]) for column in range(5)))
    positions, balances = snapshots.positions, snapshots.balances
    figures, errors = recompute(
        snapshots.position_start,
        positions["terms"].cast(pl.Int32).to_numpy().copy(),
        positions["quantity"].to_numpy().copy(),
        positions["quote_usd"].to_numpy().copy(),
        positions["mark_close"].to_numpy().copy(),
        tiers,
        snapshots.balance_start,
        balances["asset_id"].cast(pl.Int32).to_numpy().copy(),
        balances["amount"].to_numpy().copy(),
        balances["price"].to_numpy().copy(),
        np.ascontiguousarray(weights),
    )
    return Recomputed(figures[:, 0], figures[:, 1], figures[:, 2], figures[:, 3], errors)


def venue(snapshots: Snapshots, column: str) -> FloatArray:
    return snapshots.accounts[column].to_numpy()


def test_maintenance_margin_is_the_venues_on_every_row(snapshots: Snapshots, recomputed: Recomputed) -> None:
    wanted = venue(snapshots, "maintenance_margin_usd")
    assert wanted.size > 46_000 and np.count_nonzero(wanted) > 28_000
    assert np.abs(recomputed.maintenance_margin_usd - wanted).max() <= 1e-6


def test_initial_margin_is_the_venues_on_every_row(snapshots: Snapshots, recomputed: Recomputed) -> None:
    wanted = venue(snapshots, "initial_margin_usd")
    assert np.abs(recomputed.initial_margin_usd - wanted).max() <= 1e-6


def test_equity_is_the_venues_as_far_as_prices_stood_still(
    snapshots: Snapshots, recomputed: Recomputed
) -> None:
    wanted = venue(snapshots, "equity_usd")
    error = np.abs(recomputed.equity_usd - wanted) / np.maximum(np.abs(wanted), 1e-9)
    assert np.isfinite(error).all()
    assert np.mean(error <= 0.001) >= 0.93
    assert np.quantile(error, 0.99) <= 0.008


def test_haircuts_are_the_venues_on_every_row(snapshots: Snapshots, recomputed: Recomputed) -> None:
    """Equity less collateral needs no marks, only the prices of the assets."""
    wanted = venue(snapshots, "equity_usd") - venue(snapshots, "collateral_usd")
    found = recomputed.equity_usd - recomputed.collateral_usd
    assert np.count_nonzero(wanted > 1.0) > 11_000
    assert np.abs(found - wanted).max() <= 1e-6


def test_every_real_position_remarked_at_its_liquidation_price_is_at_maintenance(
    recomputed: Recomputed,
) -> None:
    solved = recomputed.at_liquidation_error[~np.isnan(recomputed.at_liquidation_error)]
    assert solved.size > 25_000
    assert solved.max() <= 1e-9


def test_one_account_at_a_time_gives_the_same_bits(snapshots: Snapshots, recomputed: Recomputed) -> None:
    chosen = np.random.default_rng(7).choice(snapshots.accounts.height, 300, replace=False)
    for row in map(int, chosen):
        held = snapshots.positions[slice(*snapshots.position_start[row : row + 2])]
        owned = snapshots.balances[slice(*snapshots.balance_start[row : row + 2])]
        account = Account(
            tuple(
                Position(
                    snapshots.markets[position["terms"]],
                    position["quantity"],
                    position["mark_close"],
                    position["quote_usd"],
                )
                for position in held.iter_rows(named=True)
            ),
            tuple(
                Balance(
                    balance["asset"],
                    balance["amount"],
                    balance["price"],
                    balance["collateral_weight"],
                    balance["liability_weight"],
                )
                for balance in owned.iter_rows(named=True)
            ),
        )
        assert account.equity_usd == recomputed.equity_usd[row]
        assert account.collateral_usd == recomputed.collateral_usd[row]
        assert account.initial_margin_usd == recomputed.initial_margin_usd[row]
        assert account.maintenance_margin_usd == recomputed.maintenance_margin_usd[row]
