"""A slow and obvious reading of a venue's tables: one row at a time moves one account.

Money is whole micro-dollars and positions whole lots, as the venue keeps them, so that what a snapshot says
either follows from the rows before it to the last micro-dollar or does not. What accounts are worth is asked
of `exchange.account`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exchange.account import Account, Balance, Position
from exchange.contracts import MarginTier, Market

Row = dict[str, Any]
Tables = dict[str, list[Row]]

ORDER = (
    "asset_prices", "market_bars", "funding", "transfers", "fills", "margin_rates", "account_snapshots",
    "default_events", "insurance_fund",
)  # fmt: skip
"""In which rows of one time apply; the last two say what happened and move nothing."""
MICRO = 1_000_000
SECOND_US = 1_000_000


def micro(value_usd: float) -> int:
    """Dollars that were written as whole micro-dollars."""
    return round(value_usd * MICRO)


def rows_of(columns: dict[str, Any]) -> Tables:
    """Columns as the venue hands them over (`exchange.simulation.tables`) as rows."""
    tables: Tables = {}
    for name, table in columns.items():
        spread = {
            column: values.name[values.code] if hasattr(values, "code") else values
            for column, values in table.items()
        }
        plain = [np.asarray(v).tolist() if isinstance(v, np.ndarray) else list(v) for v in spread.values()]
        tables[name] = [dict(zip(spread, row, strict=True)) for row in zip(*plain, strict=True)]
    return tables


@dataclass
class Held:
    """One account: micro-dollars, millionths of other assets, lots by market."""

    mode: str
    cash: int = 0
    amount: dict[str, int] = field(default_factory=dict)
    lots: dict[str, int] = field(default_factory=dict)
    quote: dict[str, int] = field(default_factory=dict)
    margin: dict[str, int] = field(default_factory=dict)
    initial_rate: float = 0.0
    maintenance_rate: float = 0.0

    def dollars(self) -> int:
        """Free cash and the cash legs and collateral of positions."""
        return self.cash + sum(self.quote.values()) + sum(self.margin.values())


@dataclass
class Figures:
    """What a snapshot should say, dollars."""

    equity_usd: float
    collateral_usd: float
    initial_margin_usd: float
    maintenance_margin_usd: float


class Replay:
    """State of every account while the rows of a dataset apply."""

    def __init__(self, tables: Tables) -> None:
        self.terms = {row["market"]: _market(row) for row in tables["markets"]}
        self.assets = {row["asset"]: row for row in tables["assets"]}
        self.held = {row["account_id"]: Held(row["margin_mode"]) for row in tables["accounts"]}
        self.price = {name: 1.0 for name in self.assets}
        self._parts: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
        for table in ("position_snapshots", "balance_snapshots"):
            for row in tables[table]:
                self._parts[table, row["time"], row["account_id"]].append(row)
        self._rows = sorted(
            (
                (row["time"], rank, number, name, row)
                for rank, name in enumerate(ORDER)
                for number, row in enumerate(tables[name])
            ),
            key=lambda entry: entry[:3],
        )
        self.marks = Marks(self, tables)

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Every row just before it applies."""
        for _, _, _, table, row in self._rows:
            yield table, row
            self._apply(table, row)

    def lots(self, market: str, quantity: float) -> int:
        """A quantity in lots; it must be a whole number of them."""
        lots = quantity / self.terms[market].lot_size
        assert abs(lots - round(lots)) < 1e-6, f"{market}: {quantity} is no whole number of lots"
        return round(lots)

    def ticks(self, market: str, price: float) -> int:
        """A price in ticks; it must be a whole number of them."""
        ticks = price / self.terms[market].tick_size
        assert abs(ticks - round(ticks)) < 1e-6, f"{market}: {price} is no whole number of ticks"
        return round(ticks)

    def unit(self, market: str) -> int:
        """Micro-dollars that one lot is worth at one tick."""
        return round(self.terms[market].lot_size * self.terms[market].tick_size * MICRO)

    def told(self, row: Row) -> Held:
        """The state that a snapshot tells."""
        name = row["account_id"]
        before = self.held[name]
        now = Held(before.mode, initial_rate=before.initial_rate, maintenance_rate=before.maintenance_rate)
        for part in self._parts["position_snapshots", row["time"], name]:
            market = part["market"]
            now.lots[market] = self.lots(market, part["quantity"])
            now.quote[market] = micro(part["quote_usd"])
            collateral = part["isolated_collateral_usd"]
            now.margin[market] = 0 if collateral is None or math.isnan(collateral) else micro(collateral)
        for part in self._parts["balance_snapshots", row["time"], name]:
            if part["asset"] == next(iter(self.assets)):
                now.cash = micro(part["amount"])
            else:
                now.amount[part["asset"]] = micro(part["amount"])
        return now

    def account(self, held: Held, mark: dict[str, float]) -> Account:
        """An account in the words of `exchange.account`, at marks by market."""
        positions = [
            Position(
                self.terms[market], lots * self.terms[market].lot_size, mark[market],
                held.quote[market] / MICRO,
                isolated_collateral_usd=held.margin[market] / MICRO if held.mode == "isolated" else math.nan,
            )
            for market, lots in held.lots.items()
        ]  # fmt: skip
        dollar = next(iter(self.assets))
        amounts = {dollar: held.cash, **held.amount}
        balances = [
            Balance(
                name, amount / MICRO, self.price[name], self.assets[name]["collateral_weight"],
                self.assets[name]["liability_weight"],
            )
            for name, amount in amounts.items()
            if amount
        ]  # fmt: skip
        return Account(tuple(positions), tuple(balances), held.mode)  # type: ignore[arg-type]

    def figures(self, held: Held, mark: dict[str, float]) -> Figures:
        """What the account's snapshot should say at these marks, rates put in force for it included."""
        account = self.account(held, mark)
        initial = account.initial_margin_usd
        static = sum(position.maintenance_margin_usd for position in account.positions)
        gross = sum(pool.gross_notional_usd for pool in account.pools())
        initial = max(initial, held.initial_rate * gross)
        extra = max(held.maintenance_rate * gross - static, 0.0)
        return Figures(
            account.equity_usd, account.collateral_usd, initial, account.maintenance_margin_usd + extra
        )

    def _apply(self, table: str, row: Row) -> None:
        if table == "asset_prices":
            self.price[row["asset"]] = row["price"]
        elif table == "funding":
            market = row["market"]
            mark = self.marks.at(row["time"], market)[0]
            each = self.terms[market].lot_size * mark * row["funding_rate"] * MICRO
            for held in self.held.values():
                if market in held.lots:
                    held.quote[market] -= int(np.rint(held.lots[market] * each))
        elif table == "transfers":
            self.held[row["account_id"]].cash += micro(row["amount_usd"])
        elif table == "fills":
            self._fill(self.held[row["account_id"]], row)
        elif table == "margin_rates":
            if row["account_id"] not in self.held:
                self.marks.odd.append(f"rates of an account that is in no table: {row}")
                return
            held = self.held[row["account_id"]]
            held.initial_rate = row["initial_margin_rate"]
            held.maintenance_rate = row["maintenance_margin_rate"]
        elif table == "account_snapshots":
            self.held[row["account_id"]] = self.told(row)

    def _fill(self, held: Held, row: Row) -> None:
        market = row["market"]
        lots = self.lots(market, row["quantity"])
        value = lots * self.ticks(market, row["price"]) * self.unit(market)
        held.quote[market] = held.quote.get(market, 0) - value - micro(row["fee_usd"])
        held.lots[market] = held.lots.get(market, 0) + lots
        held.margin.setdefault(market, 0)
        if held.lots[market] == 0:
            held.cash += held.quote.pop(market) + held.margin.pop(market)
            del held.lots[market]


class Marks:
    """What is known of marks: exact on the minute and where a snapshot gives it away, else a bar's range."""

    def __init__(self, replay: Replay, tables: Tables) -> None:
        self.known: dict[tuple[int, str], float] = {}
        self._bars: dict[str, list[Row]] = defaultdict(list)
        self.odd: list[str] = []
        """Snapshots whose equity is worth no whole number of ticks."""
        for row in sorted(tables["market_bars"], key=lambda row: row["time"]):
            self._bars[row["market"]].append(row)
            self.known[row["time"] // SECOND_US, row["market"]] = row["mark_close"]
        self._times = {market: [row["time"] for row in rows] for market, rows in self._bars.items()}
        prices = {(row["time"], row["asset"]): row["price"] for row in tables["asset_prices"]}
        for _ in range(2):
            for row in tables["account_snapshots"]:
                self._solve(replay, row, prices)

    def at(self, time_us: int, market: str) -> tuple[float, float]:
        """Between which marks the market was at a time: equal where it is known."""
        second = (time_us // SECOND_US, market)
        if second in self.known:
            return self.known[second], self.known[second]
        place = bisect_left(self._times[market], time_us)
        bars = self._bars[market]
        if place == len(bars):
            return bars[-1]["mark_close"], bars[-1]["mark_close"]
        return bars[place]["mark_low"], bars[place]["mark_high"]

    def _solve(self, replay: Replay, row: Row, prices: dict[tuple[int, str], float]) -> None:
        """The one mark that an account's equity hangs on and that is not known yet."""
        held = replay.told(row)
        second = row["time"] // SECOND_US
        unknown = [market for market in held.lots if (second, market) not in self.known]
        if len(unknown) != 1:
            return
        rest = float(held.dollars()) / MICRO
        minute = row["time"] // (60 * SECOND_US) * 60 * SECOND_US
        rest += sum(amount / MICRO * prices[minute, name] for name, amount in held.amount.items())
        for market, lots in held.lots.items():
            if market not in unknown:
                rest += lots * replay.terms[market].lot_size * self.known[second, market]
        terms = replay.terms[unknown[0]]
        size = held.lots[unknown[0]] * terms.lot_size
        ticks = round((row["equity_usd"] - rest) / size / terms.tick_size)
        if not math.isclose(
            rest + size * ticks * terms.tick_size, row["equity_usd"], rel_tol=1e-9, abs_tol=2e-6
        ):
            self.odd.append(f"no mark of {unknown[0]} explains {row}")
        self.known[second, unknown[0]] = ticks * terms.tick_size


def _market(row: Row) -> Market:
    tiers = tuple(
        MarginTier(
            math.inf if tier["notional_cap_usd"] is None else tier["notional_cap_usd"],
            tier["initial_margin_rate"],
            tier["maintenance_margin_rate"],
        )
        for tier in row["tiers"]
    )
    return Market(
        row["market"], row["tick_size"], row["lot_size"], row["taker_fee_rate"], row["liquidation_fee_rate"],
        float(row["funding_interval_s"]), tiers,
    )  # fmt: skip
