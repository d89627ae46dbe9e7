"""What everybody holds on the generated venue, and the rows that changes of it write.

A dollar that leaves one side arrives at another: accounts, the house maker that takes the other side of
every trade, the insurance fund, or fees. Isolated collateral is apart from the account's free dollars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.account import cross_figures, margin_ratio
from exchange.compiled import compiled
from exchange.contracts import TierArrays, tiered_margin_usd
from exchange.simulation.prices import Paths
from exchange.simulation.terms import ASSETS, DOLLAR, TOKEN, Terms
from exchange.simulation.traders import People

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.uint8]

EQUITY, COLLATERAL, INITIAL, MAINTENANCE, LEVEL, WEAKEST = range(6)
"""Columns of `Ledger.figures`; LEVEL is collateral over maintenance of the weakest pool, inf without need;
WEAKEST is that pool's market in an isolated account."""
DUST_USD = 1e-8
LOGGED = ("fills", "transfers", "snapshots", "positions", "balances", "events", "fund")


@compiled
def _figures(
    out: Floats, which: Ints, isolated: Flags, markets: Ids, quantity: Floats, quote: Floats, margin: Floats,
    mark: Floats, tiers: TierArrays, assets: Ids, amount: Floats, price: Floats,
    collateral_weight: Floats, liability_weight: Floats,
) -> None:  # fmt: skip
    """Fill the rows of `out` that `which` names."""
    for account in which:
        whole = cross_figures(
            markets, quantity[account], quote[account], mark, tiers,
            assets, amount[account], price, collateral_weight, liability_weight,
        )  # fmt: skip
        row = out[account]
        row[0], row[1], row[2], row[3] = whole[0], whole[1], whole[2], whole[3]
        row[4] = margin_ratio(whole[1], whole[3]) if whole[3] > 0.0 else math.inf
        row[5] = -1.0
        if isolated[account] == 0:
            continue
        row[1], row[4] = 0.0, math.inf
        for m in markets:
            if quantity[account, m] == 0.0:
                continue
            pool = margin[account, m] + quantity[account, m] * mark[m] + quote[account, m]
            needed = tiered_margin_usd(
                quantity[account, m] * mark[m], tiers.floor_usd[m], tiers.maintenance_rate[m],
                tiers.maintenance_deduction_usd[m],
            )  # fmt: skip
            row[0] += margin[account, m]
            row[1] += pool
            if margin_ratio(pool, needed) < row[4]:
                row[4], row[5] = margin_ratio(pool, needed), m


@dataclass
class Ledger:
    """Holdings of accounts (rows) by market or asset (columns), at the marks of `bar`."""

    terms: Terms
    people: People
    paths: Paths
    price: Floats
    """(bars, assets) of the assets in dollars."""
    fund_usd: float
    bar: int = 0
    maker_usd: float = 0.0
    fees_usd: float = 0.0
    lots: Ints = field(init=False)
    quantity: Floats = field(init=False)
    entry: Floats = field(init=False)
    quote: Floats = field(init=False)
    margin: Floats = field(init=False)
    """Isolated collateral of a position; zero in cross accounts."""
    open_positions: Ints = field(init=False)
    """How many, by account."""
    amount: Floats = field(init=False)
    basis: Floats = field(init=False)
    """Dollars paid in less dollars taken out."""
    figures: Floats = field(init=False)
    """As of `bar` for every account with a position once `value` was called; others by `value_one`."""
    traded_usd: Floats = field(init=False)
    """By market, since the last bar."""
    rows: dict[str, list[tuple[Any, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        accounts, markets = len(self.people.leverage), len(self.terms.lot)
        self.lots = np.zeros((accounts, markets), np.int64)
        self.quantity, self.entry, self.quote, self.margin = (np.zeros((accounts, markets)) for _ in range(4))
        self.open_positions = np.zeros(accounts, np.int64)
        self.amount, self.basis = np.zeros((accounts, len(ASSETS))), np.zeros(accounts)
        self.figures, self.traded_usd = np.zeros((accounts, 6)), np.zeros(markets)
        self.rows = {table: [] for table in LOGGED}

    @property
    def mark(self) -> Floats:
        """Marks by market, dollars."""
        return self.paths.mark[self.bar]

    def held(self, account: int) -> list[int]:
        """Markets in which an account has a position."""
        return [m for m, lots in enumerate(self.lots[account].tolist()) if lots != 0]

    def notional_usd(self, account: int, market: int) -> float:
        """Size of a position at mark."""
        return float(abs(self.quantity[account, market]) * self.paths.mark[self.bar, market])

    def value(self, which: Ints) -> None:
        """Bring the figures of these accounts up to date."""
        terms = self.terms
        _figures(
            self.figures, which, self.people.isolated, terms.market, self.quantity, self.quote, self.margin,
            self.mark, terms.tiers, terms.asset, self.amount, self.price[self.bar],
            terms.collateral_weight, terms.liability_weight,
        )  # fmt: skip

    def value_one(self, account: int) -> list[float]:
        """Figures of one account, up to date."""
        self.value(np.array([account]))
        return self.figures[account].tolist()

    def pool_equity_usd(self, account: int, market: int) -> float:
        """What stands behind an isolated position."""
        profit = self.quantity[account, market] * self.mark[market] + self.quote[account, market]
        return float(self.margin[account, market] + profit)

    def maintenance_usd(self, market: int, notional_usd: float) -> float:
        """Static maintenance margin of one position."""
        tiers = self.terms.tiers
        return tiered_margin_usd(
            notional_usd, tiers.floor_usd[market], tiers.maintenance_rate[market],
            tiers.maintenance_deduction_usd[market],
        )  # fmt: skip

    def initial_usd(self, market: int, notional_usd: float) -> float:
        """Static initial margin of one position."""
        tiers = self.terms.tiers
        return tiered_margin_usd(
            notional_usd, tiers.floor_usd[market], tiers.initial_rate[market],
            tiers.initial_deduction_usd[market],
        )  # fmt: skip

    def total_dollars(self) -> float:
        """All dollars held or owed in cash; positions sum to nothing over traders and maker and stay out."""
        held = self.amount[:, DOLLAR].sum() + self.quote.sum() + self.margin.sum()
        return float(held) + self.maker_usd + self.fees_usd + self.fund_usd

    def transfer(self, account: int, amount_usd: float, time_us: int) -> None:
        """Dollars in (positive) or out."""
        self.amount[account, DOLLAR] += amount_usd
        self.basis[account] += amount_usd
        self.rows["transfers"].append((time_us, account, amount_usd))

    def set_aside(self, account: int, market: int, amount_usd: float) -> None:
        """Free dollars become the isolated collateral of a position."""
        self.amount[account, DOLLAR] -= amount_usd
        self.margin[account, market] += amount_usd

    def trade(
        self, account: int, market: int, lots: int, price: float, fee_usd: float, kind: str, time_us: int
    ) -> None:
        """One fill against the house maker; fees of forced closing go to the fund."""
        held = int(self.lots[account, market])
        if held * lots < 0 and abs(lots) > abs(held):
            self._move(account, market, -held, price)
            self._move(account, market, lots + held, price)
        else:
            self._move(account, market, lots, price)
        paid_usd = float(lots * self.terms.lot[market] * price)
        self.amount[account, DOLLAR] -= fee_usd
        self.maker_usd += paid_usd
        if kind == "trade":
            self.fees_usd += fee_usd
        else:
            self.fund_usd += fee_usd
        self.traded_usd[market] += abs(paid_usd)
        quantity = float(lots * self.terms.lot[market])
        self.rows["fills"].append((time_us, account, market, quantity, price, fee_usd, kind))

    def _move(self, account: int, market: int, lots: int, price: float) -> None:
        """Add to a position or take from it, never through zero; the profit of what is closed is cash."""
        held = int(self.lots[account, market])
        now = held + lots
        paid_usd = float(lots * self.terms.lot[market] * price)
        if held * lots >= 0:
            self.entry[account, market] = (held * self.entry[account, market] + lots * price) / now
            self.quote[account, market] -= paid_usd
        else:
            freed = -lots / held
            cash_leg = self.quote[account, market] * freed
            margin = self.margin[account, market] * freed
            self.quote[account, market] -= cash_leg
            self.margin[account, market] -= margin
            self.amount[account, DOLLAR] += cash_leg - paid_usd + margin
        self.lots[account, market] = now
        self.open_positions[account] += int(held == 0) - int(now == 0)
        self.quantity[account, market] = now * self.terms.lot[market]
        if now == 0:
            self.quote[account, market] = self.margin[account, market] = self.entry[account, market] = 0.0

    def sell_token(self, account: int) -> None:
        """The house buys as much of the token as an account needs to repay borrowed dollars."""
        price = float(self.price[self.bar, TOKEN])
        owed_usd = max(-float(self.amount[account, DOLLAR]), 0.0)
        amount = min(float(self.amount[account, TOKEN]), owed_usd / price)
        self.amount[account, TOKEN] -= amount
        self.amount[account, DOLLAR] += amount * price
        self.maker_usd -= amount * price

    def give_up_dust(self, account: int) -> None:
        """What only rounding left goes to the house, so that who is left with nothing has nothing."""
        if abs(self.amount[account, DOLLAR]) < DUST_USD:
            self.maker_usd += float(self.amount[account, DOLLAR])
            self.amount[account, DOLLAR] = 0.0
        if abs(self.amount[account, TOKEN]) < DUST_USD:
            self.amount[account, TOKEN] = 0.0

    def pay_funding(self, rate: Floats) -> None:
        """Longs pay shorts, and the house what is left, on quantity times mark."""
        paid = self.quantity * (self.mark * rate)
        self.quote -= paid
        self.maker_usd += float(paid.sum())

    def snapshot(self, account: int, time_us: int) -> None:
        """Write the account's whole state."""
        self.rows["snapshots"].append((time_us, account, *self.value_one(account)[:LEVEL]))
        for m in self.held(account):
            margin = float(self.margin[account, m]) if self.people.isolated[account] else math.nan
            values = (self.quantity[account, m], self.entry[account, m], self.quote[account, m])
            self.rows["positions"].append((time_us, account, m, *map(float, values), margin))
        for asset, amount in enumerate(self.amount[account].tolist()):
            if amount != 0.0:
                self.rows["balances"].append((time_us, account, asset, amount))
