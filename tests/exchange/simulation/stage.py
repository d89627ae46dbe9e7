"""A venue that stands still, for acts on it one at a time: accounts with cash, marks that are set by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from exchange.account import Account, Balance, Position
from exchange.liquidation import LiquidationRule
from exchange.simulation.ledger import change_fund, trade, transfer
from exchange.simulation.market import quote
from exchange.simulation.settings import RULE, Settings
from exchange.simulation.state import (
    FUND,
    LIQUIDATION,
    LOGGED,
    MICRO,
    NIL,
    NOW_S,
    PAID_IN,
    PENALTIES,
    PRESENT,
    RECORDING,
    TRADE,
    World,
)  # fmt: skip
from exchange.simulation.venue import Rows, Venue
from exchange.simulation.watch import BUCKETS, bucket_of
from tests.exchange.simulation.worlds import ASSETS, CALM, Story, listed_markets, venue_of

DEEP_USD = 1e15


class Stage:
    """Traders 0 to n - 1 with `deposits` in dollars, then makers, the backstop last; everything is recorded.

    Market m stands at 100 / 10**m; books are `depth_usd` deep, so that orders fill at the mark but for the
    spread, which is nothing.
    """

    def __init__(
        self,
        deposits: Sequence[float],
        isolated: Sequence[int] = (),
        settings: Settings = CALM.settings,
        rule: LiquidationRule = RULE,
        fund_usd: float = 0.0,
        markets: int = 2,
        depth_usd: float = DEEP_USD,
    ) -> None:
        story: Story = CALM._replace(accounts=len(deposits), markets=markets, settings=settings, rule=rule)
        self.venue: Venue = venue_of(story)
        self.world: World = self.venue.world
        self.terms = [listing.market for listing in listed_markets(markets)]
        self.world.clock[RECORDING] = 1
        self.world.clock[NOW_S] = 1_000
        self.world.account["isolated"] = 0
        self.world.account["isolated"][list(isolated)] = 1
        self.world.account["status"] = PRESENT
        self.world.account["visits"] = 1
        self.world.market["calm_spread"] = 0.0
        self.world.market["base_depth"] = depth_usd
        for market in range(markets):
            self.mark(market, 100.0 / 10**market)
        for account, usd in enumerate(deposits):
            self.pay(account, usd)
        if fund_usd:
            self.world.purse[PAID_IN] += round(fund_usd * MICRO)
            change_fund(self.world, round(fund_usd * MICRO), PENALTIES)
        self.clear()

    @property
    def backstop(self) -> int:
        return len(self.world.account) - 1

    @property
    def first_maker(self) -> int:
        return int(self.world.queue[2, 0])

    @property
    def fund_usd(self) -> float:
        return float(self.world.purse[FUND]) / MICRO

    def mark(self, market: int, price: float) -> None:
        """Put mark, mid and oracle of a market at a price; nobody is told."""
        row = self.world.market[market]
        row["outside"] = price
        row["push"] = row["shift"] = row["skew"] = row["wave"] = 0.0
        row["previous_oracle"] = row["oracle"] or price
        quote(self.world, market)
        row["mark"] = round(price / row["tick"]) * row["tick"]

    def settle_rings(self) -> None:
        """Take the present marks as those at which everybody was looked at."""
        for market in range(len(self.world.market)):
            self.world.ring[market, 0, BUCKETS] = bucket_of(float(self.world.market["mark"][market]))

    def pay(self, account: int, usd: float) -> None:
        transfer(self.world, account, round(usd * MICRO))

    def fill(self, account: int, other: int, market: int, lots: int, price: float) -> None:
        """`account` buys lots of `other` (sells if negative), no fee."""
        ticks = round(price / self.terms[market].tick_size)
        trade(self.world, account, other, market, lots, ticks, int(NIL), int(TRADE))

    def set_aside(self, account: int, market: int, usd: float) -> None:
        self.world.account["cash"][account] -= round(usd * MICRO)
        self.world.position["collateral"][account, market] += round(usd * MICRO)

    def lots(self, account: int) -> list[int]:
        return [int(lots) for lots in self.world.position["lots"][account]]

    def cash_usd(self, account: int) -> float:
        return float(self.world.account["cash"][account]) / MICRO

    def clear(self) -> None:
        """Forget the rows so far."""
        self.world.clock[LOGGED] = 0

    def rows(self) -> Rows:
        """Rows written since, taken out of the log."""
        return self.venue.drain()

    def forced(self) -> list[tuple[int, int, int]]:
        """Fills of forced closing so far: account, lots, ticks."""
        log = self.world.log[: self.world.clock[LOGGED]]
        kept = log[(log["table"] == 0) & (log["kind"] == LIQUIDATION)]
        return [(int(r["account"]), int(r["a"]), int(r["b"])) for r in kept]

    def balanced(self) -> bool:
        """Whether no micro-dollar was made or lost, and longs are shorts."""
        even = not self.world.position["lots"].sum(axis=0).any()
        return even and self.venue.total_micro() == self.venue.paid_in_micro

    def account(self, account: int, mark: Sequence[float] | None = None) -> Account:
        """The account in the words of `exchange.account`, at marks other than the present ones if given."""
        world = self.world
        isolated = bool(world.account["isolated"][account])
        marks = list(world.market["mark"]) if mark is None else list(mark)
        positions = tuple(
            Position(
                terms, int(row["lots"]) * terms.lot_size, float(marks[market]), int(row["quote"]) / MICRO,
                isolated_collateral_usd=int(row["collateral"]) / MICRO if isolated else math.nan,
            )
            for market, (terms, row) in enumerate(zip(self.terms, world.position[account], strict=True))
            if row["lots"]
        )  # fmt: skip
        amounts = [int(world.account["cash"][account]), *world.amount[account, 1:].tolist()]
        balances = tuple(
            Balance(asset.name, amount / MICRO, float(price), asset.collateral_weight, asset.liability_weight)
            for asset, amount, price in zip(ASSETS, amounts, world.asset["price"], strict=True)
            if amount
        )
        return Account(positions, balances, "isolated" if isolated else "cross")


def ints(values: Sequence[int]) -> np.ndarray:
    """Whole numbers as compiled code takes them."""
    return np.array(values, np.int64)
