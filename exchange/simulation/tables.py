"""The tables of an account-history dataset from the rows of a venue, as columns; times in microseconds.

What does not change is given once (`fixed_tables`), the rest stretch by stretch (`stretch_tables`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.book import DEPTH_AT
from exchange.simulation.ledger import NOTHING
from exchange.simulation.state import (
    BACKSTOP,
    COLUMNS,
    EVENT_NAMES,
    FILL_NAMES,
    FUND_REASONS,
    MAKER,
    MICRO,
)  # fmt: skip
from exchange.simulation.venue import Rows, Venue
from exchange.units import BPS, MINUTE_US, SECOND_US

Columns = dict[str, Any]


class Coded(NamedTuple):
    """A column of names, by their numbers."""

    code: npt.NDArray[np.int64]
    name: npt.NDArray[np.str_]


Names = npt.NDArray[np.str_]

BOOK_MINUTES = 5
DISTANCES_BPS = (10.0, 25.0, 50.0, 100.0, 200.0, 500.0)


def account_names(venue: Venue, prefix: str = "") -> Names:
    """Ids of the accounts in the order of their numbers: traders, makers, the backstop."""
    kinds = venue.world.account["kind"]
    width = max(5, len(str(len(kinds))))
    titles = np.where(kinds == MAKER, "maker", "account")
    names = [f"{prefix}{title}-{n:0{width}d}" for n, title in enumerate(titles.tolist())]
    names[int(np.flatnonzero(kinds == BACKSTOP)[0])] = f"{prefix}backstop"
    return np.array(names)


def fixed_tables(venue: Venue) -> dict[str, Columns]:
    """Contract terms, assets and their prices."""
    terms = [listing.market for listing in venue.listed]
    paths = venue.paths
    minutes = len(paths.opening)
    time_us = paths.start_us + np.arange(minutes, dtype=np.int64) * MINUTE_US
    priced = range(1, len(venue.assets))
    # the price at a minute is that of the close before it
    price = np.vstack([paths.asset_price[:1], paths.asset_price[:-1]])
    return {
        "markets": {
            "time": np.full(len(terms), paths.start_us),
            "market": np.array([m.market for m in terms]),
            "tick_size": np.array([m.tick_size for m in terms]),
            "lot_size": np.array([m.lot_size for m in terms]),
            "taker_fee_rate": np.array([m.taker_fee_rate for m in terms]),
            "liquidation_fee_rate": np.array([m.liquidation_fee_rate for m in terms]),
            "funding_interval_s": np.array([int(m.funding_interval_s) for m in terms]),
            "tiers": [
                [
                    {
                        "notional_cap_usd": None if math.isinf(t.notional_cap_usd) else t.notional_cap_usd,
                        "initial_margin_rate": t.initial_margin_rate,
                        "maintenance_margin_rate": t.maintenance_margin_rate,
                    }
                    for t in m.tiers
                ]
                for m in terms
            ],
        },
        "assets": {
            "asset": np.array([a.name for a in venue.assets]),
            "collateral_weight": np.array([a.collateral_weight for a in venue.assets]),
            "liability_weight": np.array([a.liability_weight for a in venue.assets]),
        },
        "asset_prices": {
            "time": np.concatenate([time_us for _ in priced]) if priced else time_us[:0],
            "asset": np.repeat(np.array([venue.assets[a].name for a in priced]), minutes),
            "price": np.concatenate([price[:, a] for a in priced]) if priced else price[:0, 0],
        },
    }


def accounts_table(venue: Venue, names: Names, first_us: npt.NDArray[np.int64]) -> Columns:
    """Accounts that appear in any row; `first_us` is when each first does, 0 never."""
    account = venue.world.account
    seen = np.flatnonzero(first_us > 0)
    opened_us = venue.paths.start_us + venue.opened_s[seen] * SECOND_US
    opened_us = np.where(venue.opened_s[seen] == -1, first_us[seen], np.minimum(opened_us, first_us[seen]))
    return {
        "account_id": names[seen],
        "opened_time": opened_us,
        "owner_id": [f"owner-{n:05d}" if n >= 0 else None for n in account["owner"][seen].tolist()],
        "margin_mode": np.where(account["isolated"][seen] == 1, "isolated", "cross"),
    }


def first_seen(rows: Rows, first_us: npt.NDArray[np.int64]) -> None:
    """Note in `first_us` when accounts first appear."""
    for name in (*COLUMNS, "rates"):
        who = rows[name]["account"]
        known = who >= 0
        new = np.zeros(len(first_us), np.int64)
        # backwards, so that the first of an account's rows is the one that stays
        new[who[known][::-1]] = rows[name]["time"][known][::-1]
        unseen = (new > 0) & ((first_us == 0) | (new < first_us))
        first_us[unseen] = new[unseen]


def stretch_tables(venue: Venue, rows: Rows, names: Names) -> dict[str, Columns]:
    """Every table that grows, from one stretch of a run."""
    lot = venue.world.market["lot"]
    tick = venue.world.market["tick"]
    markets = np.array([listing.market.market for listing in venue.listed])

    def money(name: str, column: str) -> npt.NDArray[np.float64]:
        place = "abcd"[COLUMNS[name][1].index(column)]
        return np.asarray(rows[name][place] / MICRO)

    fills, held, events = rows["fills"], rows["holdings"], rows["events"]
    quantity = np.round(held["a"] * lot[held["market"]], 10)
    value_per_tick = np.round(lot * tick * MICRO)
    entry = held["c"] / (held["a"] * value_per_tick[held["market"]]) * tick[held["market"]]
    isolated = np.where(held["d"] == NOTHING, np.nan, held["d"] / MICRO)
    return {
        **_market_tables(venue, rows["bars"], markets),
        "transfers": {
            "time": rows["transfers"]["time"],
            "account_id": Coded(rows["transfers"]["account"], names),
            "amount_usd": money("transfers", "amount"),
        },
        "fills": {
            "time": fills["time"],
            "account_id": Coded(fills["account"], names),
            "market": Coded(fills["market"], markets),
            "quantity": np.round(fills["a"] * lot[fills["market"]], 10),
            "price": np.round(fills["b"] * tick[fills["market"]], 10),
            "fee_usd": money("fills", "fee"),
            "kind": Coded(fills["kind"], np.array(FILL_NAMES)),
        },
        "account_snapshots": {
            "time": rows["snapshots"]["time"],
            "account_id": Coded(rows["snapshots"]["account"], names),
            "equity_usd": money("snapshots", "equity"),
            "collateral_usd": money("snapshots", "collateral"),
            "initial_margin_usd": money("snapshots", "initial"),
            "maintenance_margin_usd": money("snapshots", "maintenance"),
            "open_orders": np.zeros(len(rows["snapshots"]), np.int64),
        },
        "position_snapshots": {
            "time": held["time"],
            "account_id": Coded(held["account"], names),
            "market": Coded(held["market"], markets),
            "quantity": quantity,
            "entry_price": entry,
            "quote_usd": money("holdings", "quote"),
            "isolated_collateral_usd": isolated,
        },
        "balance_snapshots": {
            "time": rows["balances"]["time"],
            "account_id": Coded(rows["balances"]["account"], names),
            "asset": Coded(rows["balances"]["market"], np.array([a.name for a in venue.assets])),
            "amount": rows["balances"]["a"] / MICRO,
        },
        "margin_rates": {
            "time": rows["rates"]["time"],
            "account_id": Coded(rows["rates"]["account"], names),
            "initial_margin_rate": rows["rates"]["initial"],
            "maintenance_margin_rate": rows["rates"]["maintenance"],
        },
        "default_events": {
            "time": events["time"],
            "account_id": Coded(events["account"], names),
            "kind": Coded(events["kind"], np.array(EVENT_NAMES)),
            "market": Coded(events["market"], markets),
            "notional_usd": money("events", "notional"),
            "shortfall_usd": money("events", "shortfall"),
        },
        "insurance_fund": {
            "time": rows["fund"]["time"],
            "balance_usd": money("fund", "balance"),
            "change_usd": money("fund", "change"),
            "reason": Coded(rows["fund"]["kind"], np.array(FUND_REASONS)),
        },
    }


def _market_tables(venue: Venue, bars: npt.NDArray[Any], markets: Names) -> dict[str, Columns]:
    """Bars, books every five minutes, and funding where it was paid; books need no trader to be there."""
    paid = bars[~np.isnan(bars["funding"])]
    # before anybody traded here nothing is known of either, which is not the same as nothing
    traded = bars["open_interest"] > 0.0
    booked = bars[bars["time"] % (BOOK_MINUTES * MINUTE_US) == 0]
    half = (booked["ask"] - booked["bid"]) / (booked["ask"] + booked["bid"])
    distance = np.array(DISTANCES_BPS) * BPS
    # `exchange.book.size_within_usd` over whole columns
    resting = np.maximum(distance - half[:, None], 0.0) * booked["depth"][:, None] / DEPTH_AT
    return {
        "market_bars": {
            "time": bars["time"],
            "market": Coded(bars["market"], markets),
            "mark_close": bars["close"],
            "index_close": bars["index"],
            "mark_open": bars["opening"],
            "mark_high": bars["high"],
            "mark_low": bars["low"],
            "volume_usd": np.where(traded, bars["volume"], np.nan),
            "open_interest_usd": np.where(traded, bars["open_interest"], np.nan),
        },
        "book_depth": {
            "time": booked["time"],
            "market": Coded(booked["market"], markets),
            "best_bid": booked["bid"],
            "best_ask": booked["ask"],
            "distance_bps": np.tile(np.array(DISTANCES_BPS), (len(booked), 1)),
            "bid_usd": resting,
            "ask_usd": resting,
        },
        "funding": {
            "time": paid["time"],
            "market": Coded(paid["market"], markets),
            "funding_rate": paid["funding"],
        },
    }
