"""A slow reading of a run's tables: accounts as the specification says rows move them, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exchange.account import Account, Balance, Position
from exchange.simulation.terms import listings
from exchange.simulation.venue import Run

MARKETS = {listing.market.market: listing.market for listing in listings()}
ORDER = ("market_bars", "asset_prices", "funding", "transfers", "fills", "account_snapshots")


@dataclass
class Held:
    """One account in the replay."""

    mode: str
    usdc: float = 0.0
    sol: float = 0.0
    quantity: dict[str, float] = field(default_factory=dict)
    quote: dict[str, float] = field(default_factory=dict)
    margin: dict[str, float] = field(default_factory=dict)


class Replay:
    """State of every account while rows apply; `rows` yields (table, row) after each was applied."""

    def __init__(self, run: Run, tables: dict[str, Any]) -> None:
        self.mark: dict[str, float] = {}
        self.sol_price = math.nan
        modes = zip(tables["accounts"]["account_id"], tables["accounts"]["margin_mode"], strict=True)
        self.accounts = {str(name): Held(str(mode)) for name, mode in modes}
        self.start_us = run.start_us
        rows: list[tuple[int, int, int, str, dict[str, Any]]] = []
        for rank, table in enumerate(ORDER):
            columns = tables[table]
            for number, values in enumerate(zip(*columns.values(), strict=True)):
                row = dict(zip(columns, values, strict=True))
                if row["time"] > self.start_us - 600_000_000:
                    rows.append((int(row["time"]), rank, number, table, row))
        self._rows = sorted(rows, key=lambda row: row[:3])
        self._parts: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
        for table in ("position_snapshots", "balance_snapshots"):
            columns = tables[table]
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                key = (table, int(row["time"]), str(row["account_id"]))
                self._parts.setdefault(key, []).append(row)

    def before(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row just before it applies."""
        for _, _, _, table, row in self._rows:
            yield table, row
            self._apply(table, row)

    def account(self, name: str) -> Account:
        """The account in the words of `exchange.account`."""
        held = self.accounts[name]
        positions = [
            Position(
                MARKETS[market],
                quantity,
                self.mark[market],
                held.quote[market],
                isolated_collateral_usd=held.margin[market] if held.mode == "isolated" else math.nan,
            )
            for market, quantity in held.quantity.items()
        ]
        balances = [Balance("USDC", held.usdc), Balance("SOL", held.sol, self.sol_price, 0.9, 1.1)]
        return Account(tuple(positions), tuple(balances), held.mode)  # type: ignore[arg-type]

    def _apply(self, table: str, row: dict[str, Any]) -> None:
        if table == "market_bars":
            self.mark[row["market"]] = row["mark_close"]
        elif table == "asset_prices":
            self.sol_price = row["price"]
        elif table == "funding":
            for held in self.accounts.values():
                market = row["market"]
                if market in held.quantity:
                    held.quote[market] -= held.quantity[market] * self.mark[market] * row["funding_rate"]
        elif table == "transfers":
            self.accounts[row["account_id"]].usdc += row["amount_usd"]
        elif table == "fills":
            self._fill(self.accounts[row["account_id"]], row)
        else:
            self._replace(self.accounts[row["account_id"]], row)

    def _fill(self, held: Held, row: dict[str, Any]) -> None:
        market, quantity = row["market"], row["quantity"]
        held.usdc -= row["fee_usd"]
        held.quote[market] = held.quote.get(market, 0.0) - quantity * row["price"]
        held.quantity[market] = held.quantity.get(market, 0.0) + quantity
        held.margin.setdefault(market, 0.0)
        if abs(held.quantity[market]) < 0.5 * MARKETS[market].lot_size:
            held.usdc += held.quote.pop(market) + held.margin.pop(market)
            del held.quantity[market]

    def _replace(self, held: Held, row: dict[str, Any]) -> None:
        key = (int(row["time"]), str(row["account_id"]))
        positions = self._parts.get(("position_snapshots", *key), [])
        balances = {p["asset"]: float(p["amount"]) for p in self._parts.get(("balance_snapshots", *key), [])}
        held.usdc, held.sol = balances.get("USDC", 0.0), balances.get("SOL", 0.0)
        held.quantity = {str(p["market"]): float(p["quantity"]) for p in positions}
        held.quote = {str(p["market"]): float(p["quote_usd"]) for p in positions}
        held.margin = {
            str(p["market"]): float(np.nan_to_num(p["isolated_collateral_usd"])) for p in positions
        }
