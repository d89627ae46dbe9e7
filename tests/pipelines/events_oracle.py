"""The event stream, slow and obvious: one row after another, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

# fmt: off
KINDS = (
    "MARKET", "TIER", "ASSET", "ASSET_PRICE", "BAR", "BOOK", "LEVEL", "FUNDING",
    "ACCOUNT", "TRANSFER", "FILL", "RATE", "SNAPSHOT", "POSITION", "BALANCE", "OBSERVED",
    "DEFAULT",
)
BARS = (
    "mark_close", "index_close", "mark_open", "mark_high", "mark_low", "volume_usd", "open_interest_usd",
)
# fmt: on
FIGURES = ("equity_usd", "collateral_usd", "initial_margin_usd", "maintenance_margin_usd", "open_orders")
FILL_KINDS = ("trade", "liquidation", "deleverage")
DEFAULT_KINDS = ("liquidation", "negative_equity", "deleverage")
NAN = math.nan

# order within a moment, kind, key's role and name, sub's role and name, values
Event = tuple[tuple[Any, ...], str, tuple[str, str] | None, tuple[str, str] | None, list[float]]


class Ids:
    """Names to ids in order of first appearance."""

    def __init__(self) -> None:
        self.given: dict[str, dict[str, int]] = {}

    def _of(self, role: str, name: str) -> int:
        return self.given.setdefault(role, {}).setdefault(name, len(self.given[role]))

    def market(self, name: str) -> int:
        return self._of("market", name)

    def asset(self, name: str) -> int:
        return self._of("asset", name)

    def account(self, name: str) -> int:
        return self._of("account", name)

    def owner(self, name: str) -> int:
        return self._of("owner", name)


def events(
    tables: Mapping[str, pl.DataFrame], until_us: int | None, ids: Ids
) -> list[tuple[int, int, int, int, list[float]]]:
    """(kind, time_us, key, sub, eight values) of every row up to a time, in order."""
    found: list[tuple[int, Event]] = []
    for name, frame in tables.items():
        for row in frame.to_dicts():
            moment = row.get("opened_time", row.get("time"))
            if moment is None:
                continue
            time_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            if until_us is None or time_us <= until_us:
                found += [(time_us, event) for event in of_row(name, row, time_us)]
    if not found:
        return []
    first_us = min(time_us for time_us, _ in found)
    for row in tables["assets"].to_dicts():
        weights = [row["collateral_weight"], row["liability_weight"]]
        found.append((first_us, ((2, row["asset"]), "ASSET", ("asset", row["asset"]), None, weights)))
    found.sort(key=lambda item: (item[0], item[1][0]))
    out = []
    for time_us, (_, kind, key, sub, values) in found:
        numbers = [NAN if value is None else float(value) for value in values]
        out.append(
            (
                KINDS.index(kind),
                time_us,
                -1 if key is None else getattr(ids, key[0])(key[1]),
                -1 if sub is None else getattr(ids, sub[0])(sub[1]),
                numbers + [NAN] * (8 - len(numbers)),
            )
        )
    return out


def of_row(table: str, row: Mapping[str, Any], time_us: int) -> Iterator[Event]:
    def get(*names: str) -> list[Any]:
        return [row.get(name) for name in names]

    market, account = ("market", row.get("market")), ("account", row.get("account_id"))
    asset = ("asset", row.get("asset"))
    a = row.get("account_id")
    match table:
        case "markets":
            m = row["market"]
            terms = get(
                "tick_size", "lot_size", "taker_fee_rate", "liquidation_fee_rate", "funding_interval_s"
            )
            yield (0, m, 0), "MARKET", market, None, terms
            for n, t in enumerate(row["tiers"]):
                cap = math.inf if t["notional_cap_usd"] is None else t["notional_cap_usd"]
                rates = [t["initial_margin_rate"], t["maintenance_margin_rate"]]
                yield (0, m, 1, n), "TIER", market, None, [cap, *rates, n]
        case "asset_prices":
            yield (3, row["asset"]), "ASSET_PRICE", asset, None, get("price")
        case "market_bars":
            yield (4, row["market"]), "BAR", market, None, get(*BARS)
        case "book_depth":
            m, bid, ask = row["market"], row["best_bid"], row["best_ask"]
            if bid > ask:
                yield (5, m, 0), "BOOK", market, None, []
            else:
                yield (5, m, 0), "BOOK", market, None, [bid, ask]
                levels = sorted(zip(row["distance_bps"], row["bid_usd"], row["ask_usd"], strict=True))
                for n, level in enumerate(levels[:16]):
                    yield (5, m, 1, n), "LEVEL", market, None, [*level, n]
        case "funding":
            yield (7, row["market"]), "FUNDING", market, None, get("funding_rate")
        case "accounts":
            owner = None if row["owner_id"] is None else ("owner", row["owner_id"])
            yield (8, a), "ACCOUNT", account, owner, [time_us, row["margin_mode"] == "isolated"]
        case "transfers":
            sequence = row.get("sequence") or 0
            yield (9, sequence, a, row["amount_usd"]), "TRANSFER", account, None, get("amount_usd")
        case "fills":
            kind = FILL_KINDS.index(row["kind"])
            values = [*get("quantity", "price", "fee_usd"), kind]
            yield (10, row.get("sequence") or 0, a, row["market"], *values), "FILL", account, market, values
        case "margin_rates":
            rates = get("initial_margin_rate", "maintenance_margin_rate")
            yield (11, a), "RATE", account, None, rates
        case "account_snapshots":
            yield (12, a, 0), "SNAPSHOT", account, None, get(*FIGURES)
        case "position_snapshots":
            values = get("quantity", "entry_price", "quote_usd", "isolated_collateral_usd")
            yield (12, a, 1, row["market"]), "POSITION", account, market, values
        case "balance_snapshots":
            yield (12, a, 2, row["asset"]), "BALANCE", account, asset, get("amount")
        case "default_events":
            kind = DEFAULT_KINDS.index(row["kind"])
            yield (16, a, kind), "DEFAULT", account, None, [kind]
        case "observations":
            yield (15,), "OBSERVED", None, None, []
