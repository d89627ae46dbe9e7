"""The tables of an account-history dataset from a run, as columns; times are int64 microseconds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.simulation.defaults import DEPTH_AT, DEPTH_POWER
from exchange.simulation.prices import BAR_US, FUNDING_BARS
from exchange.simulation.terms import (
    ASSETS,
    COLLATERAL_WEIGHTS,
    FUNDING_INTERVAL_S,
    LIABILITY_WEIGHTS,
    TOKEN,
)
from exchange.simulation.venue import Run
from exchange.units import BPS

Columns = dict[str, Any]
Names = npt.NDArray[np.str_]

BOOK_BARS = 3
DISTANCES_BPS = (10.0, 25.0, 50.0, 100.0, 200.0, 500.0)


def account_names(accounts: int) -> Names:
    """Ids of the accounts in the order of their numbers."""
    return np.array([f"account-{n:05d}" for n in range(accounts)])


def _columns(rows: list[tuple[Any, ...]], names: str) -> Columns:
    """Columns of rows in the order of their times; rows of one time stay in the order written."""
    ordered = sorted(rows, key=lambda row: row[0])
    columns = zip(*ordered, strict=True) if ordered else ((),) * len(names.split())
    return {name: np.array(column) for name, column in zip(names.split(), columns, strict=True)}


def _market_tables(run: Run) -> dict[str, Columns]:
    names = np.array([listing.market.market for listing in run.listed])
    bars, markets = run.paths.mark.shape
    time_us = run.start_us + (np.arange(bars) - run.start_bar) * BAR_US
    terms = [listing.market for listing in run.listed]
    tiers = [
        [
            {
                "notional_cap_usd": None if math.isinf(tier.notional_cap_usd) else tier.notional_cap_usd,
                "initial_margin_rate": tier.initial_margin_rate,
                "maintenance_margin_rate": tier.maintenance_margin_rate,
            }
            for tier in market.tiers
        ]
        for market in terms
    ]
    paths = run.paths
    bar_columns = {
        "mark_close": paths.mark, "index_close": paths.index_price, "mark_open": paths.opening,
        "mark_high": paths.high, "mark_low": paths.low, "volume_usd": paths.volume_usd,
        "open_interest_usd": run.open_interest_usd,
    }  # fmt: skip
    booked = slice(0, bars, BOOK_BARS)
    share = (np.array(DISTANCES_BPS) * BPS / DEPTH_AT) ** DEPTH_POWER
    mark, half = paths.mark[booked].ravel(), paths.half_spread[booked].ravel()
    due = slice(FUNDING_BARS, bars, FUNDING_BARS)
    return {
        "markets": {
            "time": np.full(markets, time_us[0]),
            "market": names,
            "tick_size": np.array([m.tick_size for m in terms]),
            "lot_size": np.array([m.lot_size for m in terms]),
            "taker_fee_rate": np.array([m.taker_fee_rate for m in terms]),
            "liquidation_fee_rate": np.array([m.liquidation_fee_rate for m in terms]),
            "funding_interval_s": np.full(markets, int(FUNDING_INTERVAL_S)),
            "tiers": tiers,
        },
        "market_bars": {
            "time": np.repeat(time_us, markets),
            "market": np.tile(names, bars),
            **{name: values.ravel() for name, values in bar_columns.items()},
        },
        "book_depth": {
            "time": np.repeat(time_us[booked], markets),
            "market": np.tile(names, len(time_us[booked])),
            "best_bid": mark * (1.0 - half),
            "best_ask": mark * (1.0 + half),
            "distance_bps": [list(DISTANCES_BPS)] * len(mark),
            "bid_usd": (paths.bid_usd[booked].ravel()[:, None] * share).tolist(),
            "ask_usd": (paths.ask_usd[booked].ravel()[:, None] * share).tolist(),
        },
        "funding": {
            "time": np.repeat(time_us[due], markets),
            "market": np.tile(names, len(time_us[due])),
            "funding_rate": paths.funding[due].ravel(),
        },
        "assets": {
            "asset": np.array(ASSETS),
            "collateral_weight": np.array(COLLATERAL_WEIGHTS),
            "liability_weight": np.array(LIABILITY_WEIGHTS),
        },
        "asset_prices": {
            "time": time_us,
            "asset": np.full(bars, ASSETS[TOKEN]),
            "price": run.price[:, TOKEN],
        },
    }


def _named(columns: Columns, names: Names, of: str, to: str) -> Columns:
    """Replace numbers by names, in the same place."""
    return {
        (to if key == of else key): names[values.astype(np.int64)] if key == of else values
        for key, values in columns.items()
    }


def _accounts(run: Run) -> Columns:
    """Accounts that show up at all: a trader who was to come after the end does not exist yet."""
    people = run.people
    first_us: dict[int, int] = {}
    for table in ("transfers", "fills", "snapshots"):
        for time_us, account, *_ in run.rows[table]:
            first_us[account] = min(time_us, first_us.get(account, time_us))
    seen = np.array(sorted(first_us), dtype=np.int64)
    appeared_us = np.array([first_us[account] for account in seen.tolist()], dtype=np.int64)
    return {
        "account_id": account_names(len(people.owner))[seen],
        "opened_time": np.where(people.opened_us[seen] >= 0, people.opened_us[seen], appeared_us),
        "owner_id": [f"owner-{n:05d}" if n >= 0 else None for n in people.owner[seen].tolist()],
        "margin_mode": np.where(people.isolated[seen] == 1, "isolated", "cross"),
    }


def _merged_events(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """One row per time, account, kind and market: a winner closed against two losers at once is one event."""
    merged: dict[tuple[Any, ...], tuple[float, float]] = {}
    for *key, notional_usd, shortfall_usd in rows:
        before = merged.get(tuple(key), (0.0, 0.0))
        merged[tuple(key)] = (before[0] + notional_usd, before[1] + shortfall_usd)
    return [(*key, *sums) for key, sums in merged.items()]


def tables_of(run: Run) -> dict[str, Columns]:
    """Every table of the dataset but `observations`, which a continuous venue does not have."""
    markets = np.array([listing.market.market for listing in run.listed])
    ids = account_names(len(run.people.owner))

    def table(rows: list[tuple[Any, ...]], names: str) -> Columns:
        columns = _named(_columns(rows, names), ids, "account", "account_id")
        columns = _named(columns, markets, "market", "market")
        return _named(columns, np.array(ASSETS), "asset", "asset")

    rows = run.rows
    transfers = table(rows["transfers"], "time account amount_usd")
    fills = table(rows["fills"], "time account market quantity price fee_usd kind")
    snapshots = "time account equity_usd collateral_usd initial_margin_usd maintenance_margin_usd"
    positions = "time account market quantity entry_price quote_usd isolated_collateral_usd"
    events = "time account kind market notional_usd shortfall_usd"
    fund_at_start = (run.start_us, run.fund_usd, 0.0, "start")
    return {
        **_market_tables(run),
        "accounts": _accounts(run),
        "transfers": {**transfers, "sequence": np.arange(len(transfers["time"]))},
        "fills": {**fills, "sequence": np.arange(len(fills["time"]))},
        "account_snapshots": table([(*row, 0) for row in rows["snapshots"]], snapshots + " open_orders"),
        "position_snapshots": table(rows["positions"], positions),
        "balance_snapshots": table(rows["balances"], "time account asset amount"),
        "margin_rates": table([], "time account initial_margin_rate maintenance_margin_rate"),
        "default_events": table(_merged_events(rows["events"]), events),
        "insurance_fund": _columns([fund_at_start, *rows["fund"]], "time balance_usd change_usd reason"),
    }
