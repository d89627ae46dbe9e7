"""The tables of a dataset against the rows of the venue, one by one and in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from exchange.book import size_within_usd
from exchange.simulation.ledger import NOTHING
from exchange.simulation.state import BACKSTOP, EVENT_NAMES, FILL_NAMES, FUND_REASONS, MAKER, MICRO
from exchange.simulation.tables import (
    BOOK_MINUTES,
    DISTANCES_BPS,
    Coded,
    account_names,
    accounts_table,
    first_seen,
    fixed_tables,
    stretch_tables,
)
from exchange.simulation.venue import Rows, Venue
from exchange.units import BPS, MINUTE_US
from features.tables import TABLES
from tests.exchange.simulation.worlds import ASSETS, CRASH, joined, listed_markets, stretches, venue_of

Columns = dict[str, Any]


@pytest.fixture(scope="module")
def ran() -> tuple[Venue, list[Rows]]:
    venue = venue_of(CRASH)
    return venue, list(stretches(CRASH, venue, 40))


def plain(column: Any) -> list[Any]:
    """A column as Python's own numbers and strings."""
    values = column.name[column.code] if isinstance(column, Coded) else np.asarray(column)
    return values.tolist()


def lines(columns: Columns) -> list[dict[str, Any]]:
    """A table row by row; every column must be as long."""
    values = {name: plain(column) for name, column in columns.items()}
    assert len({len(each) for each in values.values()}) == 1
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def same(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-12, abs=1e-9, nan_ok=True)


def test_every_table_has_the_columns_of_the_format(ran: tuple[Venue, list[Rows]]) -> None:
    venue, stretched = ran
    names = account_names(venue)
    tables = fixed_tables(venue) | stretch_tables(venue, joined(stretched), names)
    tables["accounts"] = accounts_table(venue, names, np.ones(len(names), np.int64))
    assert set(tables) == set(TABLES) - {"observations"}
    for name, columns in tables.items():
        known = [column.name for column in TABLES[name].columns]
        assert set(columns) <= set(known), name
        assert {c.name for c in TABLES[name].columns if not c.optional} <= set(columns), name
        assert len(lines(columns)) > 0, name


def test_names_are_told_apart_and_say_what_an_account_is(ran: tuple[Venue, list[Rows]]) -> None:
    venue, _ = ran
    names = account_names(venue).tolist()
    kinds = venue.world.account["kind"].tolist()
    assert len(set(names)) == len(names) == len(kinds)
    for number, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        title = "maker" if kind == MAKER else "account"
        assert name == ("backstop" if kind == BACKSTOP else f"{title}-{number:05d}")
    assert account_names(venue, "p2-").tolist() == [f"p2-{name}" for name in names]


def test_terms_and_prices_are_those_the_venue_was_made_of(ran: tuple[Venue, list[Rows]]) -> None:
    venue, _ = ran
    tables = fixed_tables(venue)
    for row, listing in zip(lines(tables["markets"]), listed_markets(CRASH.markets), strict=True):
        terms = listing.market
        assert row["market"] == terms.market and row["time"] == venue.paths.start_us
        assert (row["tick_size"], row["lot_size"]) == (terms.tick_size, terms.lot_size)
        assert len(row["tiers"]) == len(terms.tiers)
        for told, tier in zip(row["tiers"], terms.tiers, strict=True):
            cap = told["notional_cap_usd"]
            assert (math.inf if cap is None else cap) == tier.notional_cap_usd
            assert told["initial_margin_rate"] == tier.initial_margin_rate
            assert told["maintenance_margin_rate"] == tier.maintenance_margin_rate
    assert [row["asset"] for row in lines(tables["assets"])] == [asset.name for asset in ASSETS]
    prices = {(row["asset"], row["time"]): row["price"] for row in lines(tables["asset_prices"])}
    minutes = len(venue.paths.opening)
    assert len(prices) == (len(ASSETS) - 1) * minutes
    for number, asset in enumerate(ASSETS[1:], 1):
        for minute in range(minutes):
            # what is known when a minute begins is the close of the one before
            known = venue.paths.asset_price[max(minute - 1, 0), number]
            assert prices[asset.name, venue.paths.start_us + minute * MINUTE_US] == known


def test_accounts_are_those_that_appear_no_later_than_they_do(ran: tuple[Venue, list[Rows]]) -> None:
    venue, stretched = ran
    names = account_names(venue)
    first_us = np.zeros(len(names), np.int64)
    slow: dict[int, int] = {}
    for rows in stretched:
        first_seen(rows, first_us)
        for name in ("fills", "transfers", "snapshots", "holdings", "balances", "events", "fund", "rates"):
            for who, time in zip(rows[name]["account"].tolist(), rows[name]["time"].tolist(), strict=True):
                if who >= 0:
                    slow[who] = min(slow.get(who, time), time)
    assert {n: int(t) for n, t in enumerate(first_us) if t > 0} == slow
    table = {row["account_id"]: row for row in lines(accounts_table(venue, names, first_us))}
    assert set(table) == {names[who] for who in slow}
    for who, time in slow.items():
        row, account = table[names[who]], venue.world.account[who]
        assert row["opened_time"] <= time
        assert row["margin_mode"] == ("isolated" if account["isolated"] else "cross")
        assert row["owner_id"] == (f"owner-{account['owner']:05d}" if account["owner"] >= 0 else None)
    some = np.where(np.arange(len(names)) % 2 == 0, first_us, 0)
    assert len(lines(accounts_table(venue, names, some))) == int((some > 0).sum())


def test_fills_and_positions_are_lots_and_ticks_in_units_and_dollars(ran: tuple[Venue, list[Rows]]) -> None:
    venue, stretched = ran
    rows = joined(stretched)
    names = account_names(venue).tolist()
    terms = [listing.market for listing in venue.listed]
    tables = stretch_tables(venue, rows, account_names(venue))
    assert len(rows["fills"]) > 1_000
    for told, row in zip(lines(tables["fills"]), rows["fills"], strict=True):
        market = terms[row["market"]]
        assert told["time"] == row["time"] and told["account_id"] == names[row["account"]]
        assert told["market"] == market.market and told["kind"] == FILL_NAMES[row["kind"]]
        assert same(told["quantity"], int(row["a"]) * market.lot_size)
        assert same(told["price"], int(row["b"]) * market.tick_size)
        assert same(told["fee_usd"], int(row["c"]) / MICRO)
    for told, row in zip(lines(tables["position_snapshots"]), rows["holdings"], strict=True):
        market = terms[row["market"]]
        assert same(told["quantity"], int(row["a"]) * market.lot_size)
        assert same(told["quote_usd"], int(row["b"]) / MICRO)
        # what the position cost, in dollars, is its size times the entry price
        assert told["quantity"] * told["entry_price"] == pytest.approx(int(row["c"]) / MICRO, rel=1e-9)
        aside = math.nan if row["d"] == NOTHING else int(row["d"]) / MICRO
        assert same(told["isolated_collateral_usd"], aside)
    assert any(row["d"] == NOTHING for row in rows["holdings"])


def test_dollars_are_micro_dollars_over_a_million_and_codes_are_names(ran: tuple[Venue, list[Rows]]) -> None:
    venue, stretched = ran
    rows = joined(stretched)
    names = account_names(venue).tolist()
    tables = stretch_tables(venue, rows, account_names(venue))
    wanted = {
        "transfers": ("transfers", {"amount_usd": "a"}),
        "account_snapshots": (
            "snapshots",
            {
                "equity_usd": "a",
                "collateral_usd": "b",
                "initial_margin_usd": "c",
                "maintenance_margin_usd": "d",
            },
        ),
        "balance_snapshots": ("balances", {"amount": "a"}),
        "default_events": ("events", {"notional_usd": "a", "shortfall_usd": "b"}),
        "insurance_fund": ("fund", {"balance_usd": "a", "change_usd": "b"}),
    }
    for table, (source, columns) in wanted.items():
        assert len(rows[source]) > 0, source
        for told, row in zip(lines(tables[table]), rows[source], strict=True):
            assert told["time"] == row["time"]
            assert all(same(told[column], int(row[place]) / MICRO) for column, place in columns.items())
            if "account_id" in told:
                assert told["account_id"] == names[row["account"]]
    for told, row in zip(lines(tables["balance_snapshots"]), rows["balances"], strict=True):
        assert told["asset"] == ASSETS[row["market"]].name
    assert {told["kind"] for told in lines(tables["default_events"])} == set(EVENT_NAMES)
    for told, row in zip(lines(tables["default_events"]), rows["events"], strict=True):
        assert told["kind"] == EVENT_NAMES[row["kind"]]
    for told, row in zip(lines(tables["insurance_fund"]), rows["fund"], strict=True):
        assert told["reason"] == FUND_REASONS[row["kind"]]
        assert (told["change_usd"] < 0.0) == (told["reason"] == "negative_equity")
    for told, row in zip(lines(tables["margin_rates"]), rows["rates"], strict=True):
        assert (told["initial_margin_rate"], told["maintenance_margin_rate"]) == (0.2, 0.1)
        assert told["account_id"] == names[row["account"]]


def test_bars_books_and_funding_are_what_was_known_of_markets(ran: tuple[Venue, list[Rows]]) -> None:
    venue, stretched = ran
    rows = joined(stretched)
    bars = rows["bars"]
    tables = stretch_tables(venue, rows, account_names(venue))
    traded = 0
    for told, row in zip(lines(tables["market_bars"]), bars, strict=True):
        assert told["mark_low"] <= min(told["mark_open"], told["mark_close"])
        assert told["mark_high"] >= max(told["mark_open"], told["mark_close"])
        known = row["open_interest"] > 0.0
        traded += int(known)
        assert same(told["open_interest_usd"], float(row["open_interest"]) if known else math.nan)
        assert same(told["volume_usd"], float(row["volume"]) if known else math.nan)
    assert 0 < traded < len(bars)
    booked = [row for row in bars if row["time"] % (BOOK_MINUTES * MINUTE_US) == 0]
    books = {name: column for name, column in tables["book_depth"].items() if name != "distance_bps"}
    assert (tables["book_depth"]["distance_bps"] == np.array(DISTANCES_BPS)).all()
    for told, row in zip(lines(books), booked, strict=True):
        assert told["time"] == row["time"]
        assert (told["best_bid"], told["best_ask"]) == (row["bid"], row["ask"])
        half = (row["ask"] - row["bid"]) / (row["ask"] + row["bid"])
        for place, distance in enumerate(DISTANCES_BPS):
            resting = size_within_usd(max(distance * BPS - half, 0.0), row["depth"])
            assert told["bid_usd"][place] == told["ask_usd"][place] == pytest.approx(resting, rel=1e-12)
        assert told["bid_usd"] == sorted(told["bid_usd"])
    paid = [(int(row["time"]), float(row["funding"])) for row in bars if not math.isnan(row["funding"])]
    assert [(row["time"], row["funding_rate"]) for row in lines(tables["funding"])] == paid
    assert paid


def test_stretches_one_after_the_other_are_the_whole(ran: tuple[Venue, list[Rows]]) -> None:
    venue, stretched = ran
    names = account_names(venue)
    whole = stretch_tables(venue, joined(stretched), names)
    parts = [stretch_tables(venue, rows, names) for rows in stretched]
    for name, columns in whole.items():
        for column, values in columns.items():
            pieces = [np.array(plain(part[name][column])) for part in parts]
            together = np.concatenate([piece for piece in pieces if len(piece)])
            assert np.array_equal(together, np.array(plain(values)), equal_nan=together.dtype.kind == "f")
