"""One account at one moment, for programs: equity, margin, and the prices at which it is lost.

The records check what they are given and hand it to `exchange.margin`, whose functions are offered here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from exchange.contracts import MAX_TIERS, FloatArray, Market, TierArrays, checked_number
from exchange.errors import InputError
from exchange.margin import (
    IdArray,
    PoolFigures,
    asset_value_usd,
    bankruptcy_price,
    bankruptcy_share_usd,
    cross_figures,
    haircut_usd,
    liability_margin_usd,
    liquidation_price,
    margin_ratio,
    notional_usd,
    quote_leg_usd,
    unrealised_usd,
)

__all__ = [
    "Account",
    "Balance",
    "IdArray",
    "MarginMode",
    "MarginPool",
    "PoolFigures",
    "Position",
    "asset_value_usd",
    "bankruptcy_price",
    "bankruptcy_share_usd",
    "cross_figures",
    "haircut_usd",
    "liability_margin_usd",
    "liquidation_price",
    "margin_ratio",
    "notional_usd",
    "quote_leg_usd",
    "unrealised_usd",
]

MarginMode = Literal["cross", "isolated"]


@dataclass(frozen=True)
class Position:
    """One market's position: signed base units (long positive), its mark and its cash leg in dollars.

    NaN means unknown: `mark` (then every figure that needs it is NaN), `quote_usd` (then taken from
    `entry_price`, which knows no funding), `isolated_collateral_usd` (needed in isolated accounts only).
    Raises InputError for a quantity that is not finite and for other numbers that are infinite, and for
    prices not above zero.
    """

    market: Market
    quantity: float
    mark: float
    quote_usd: float = math.nan
    entry_price: float = math.nan
    isolated_collateral_usd: float = math.nan

    def __post_init__(self) -> None:
        if not isinstance(self.market, Market):
            raise InputError(f"market of a position must be a Market, not {self.market!r}")
        name = f"position {self.market.market}"
        # kept as floats: compiled code would be built again for every mix of int and float
        for column, number in (
            ("quantity", checked_number(f"{name}: quantity", self.quantity)),
            ("mark", _number_or_nan(f"{name}: mark", self.mark, price=True)),
            ("quote_usd", _number_or_nan(f"{name}: quote_usd", self.quote_usd)),
            ("entry_price", _number_or_nan(f"{name}: entry_price", self.entry_price, price=True)),
            (
                "isolated_collateral_usd",
                _number_or_nan(f"{name}: isolated_collateral_usd", self.isolated_collateral_usd),
            ),
        ):
            object.__setattr__(self, column, number)

    @property
    def is_open(self) -> bool:
        """Whether there is a quantity; a row of quantity 0 only holds profit not yet settled."""
        return self.quantity != 0.0

    @property
    def notional_usd(self) -> float:
        """Signed notional at mark, dollars."""
        return notional_usd(self.quantity, self.mark)

    @property
    def unrealised_usd(self) -> float:
        """Profit from closing at mark, dollars."""
        quote_usd = quote_leg_usd(self.quantity, self.entry_price, self.quote_usd)
        return unrealised_usd(self.quantity, self.mark, quote_usd)

    @property
    def initial_margin_usd(self) -> float:
        """Static initial margin at mark, dollars."""
        return self.market.initial_margin_usd(self.notional_usd)

    @property
    def maintenance_margin_usd(self) -> float:
        """Static maintenance margin at mark, dollars."""
        return self.market.maintenance_margin_usd(self.notional_usd)


@dataclass(frozen=True)
class Balance:
    """An amount of one asset (borrowed negative), its dollar price and its two weights.

    The defaults are those of a dollar. `collateral_weight` in [0, 1] is the part of a held amount that
    counts as collateral; `liability_weight` of at least 1 is what a borrowed amount counts for. A price
    of NaN is unknown. Raises InputError for values out of range.
    """

    asset: str
    amount: float
    price: float = 1.0
    collateral_weight: float = 1.0
    liability_weight: float = 1.0

    def __post_init__(self) -> None:
        name = f"balance {self.asset}"
        for column, number in (
            ("amount", checked_number(f"{name}: amount", self.amount)),
            ("price", _number_or_nan(f"{name}: price", self.price, price=True)),
            (
                "collateral_weight",
                checked_number(f"{name}: collateral_weight", self.collateral_weight, 0.0, 1.0),
            ),
            ("liability_weight", checked_number(f"{name}: liability_weight", self.liability_weight, 1.0)),
        ):
            object.__setattr__(self, column, number)

    @property
    def value_usd(self) -> float:
        """Value at its price, dollars."""
        return asset_value_usd(self.amount, self.price)


@dataclass(frozen=True)
class MarginPool:
    """Positions that stand or fall together, and the figures that decide which; dollars throughout."""

    positions: tuple[Position, ...]
    equity_usd: float
    collateral_usd: float
    initial_margin_usd: float
    maintenance_margin_usd: float
    gross_notional_usd: float
    position_maintenance_usd: float

    @property
    def buffer_usd(self) -> float:
        """Collateral that is left above maintenance margin; forced closing begins below zero."""
        return self.collateral_usd - self.maintenance_margin_usd

    @property
    def margin_ratio(self) -> float:
        """Collateral over maintenance margin; NaN where no maintenance margin is needed."""
        return margin_ratio(self.collateral_usd, self.maintenance_margin_usd)


@dataclass(frozen=True)
class Account:
    """Positions and balances of one account at one moment.

    A `cross` account is one pool: every balance and every position's profit stands behind all positions.
    In an `isolated` account each open position is a pool of its own with its `isolated_collateral_usd`,
    and free balances support none. Figures whose inputs are unknown are NaN. Raises InputError for a
    margin mode that is neither, two positions in one market, two balances of one asset, and isolated
    collateral in a cross account, where it would be counted nowhere.
    """

    positions: tuple[Position, ...] = ()
    balances: tuple[Balance, ...] = ()
    margin_mode: MarginMode = "cross"

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", tuple(self.positions))
        object.__setattr__(self, "balances", tuple(self.balances))
        if self.margin_mode not in ("cross", "isolated"):
            raise InputError(f"margin_mode must be cross or isolated, not {self.margin_mode!r}")
        _refuse_repeats("market", (position.market.market for position in self.positions))
        _refuse_repeats("asset", (balance.asset for balance in self.balances))
        if self.margin_mode == "cross":
            for position in self.positions:
                margin_usd = position.isolated_collateral_usd
                if margin_usd != 0.0 and not math.isnan(margin_usd):
                    raise InputError(
                        f"position {position.market.market}: isolated_collateral_usd is {margin_usd!r} "
                        "in a cross account"
                    )

    def pools(self) -> tuple[MarginPool, ...]:
        """The account's margin pools: one if cross, one for each open position if isolated."""
        return self._pools

    @cached_property
    def _pools(self) -> tuple[MarginPool, ...]:
        if self.margin_mode == "cross":
            return (_cross_pool(self.positions, self.balances),)
        return tuple(_isolated_pool(position) for position in self.positions if position.is_open)

    @property
    def equity_usd(self) -> float:
        """All that the account is worth at marks and prices, free balances included."""
        if self.margin_mode == "cross":
            return self._pools[0].equity_usd
        total = sum(balance.value_usd for balance in self.balances)
        total += sum(pool.equity_usd for pool in self._pools)
        for position in self.positions:
            if not position.is_open:
                total += position.unrealised_usd
                # no margin is held for a closed position unless the venue says so
                if not math.isnan(position.isolated_collateral_usd):
                    total += position.isolated_collateral_usd
        return total

    @property
    def collateral_usd(self) -> float:
        """What margin is held against, summed over the pools: free balances of isolated accounts are not."""
        return math.fsum(pool.collateral_usd for pool in self._pools)

    @property
    def initial_margin_usd(self) -> float:
        """Static initial margin of all positions."""
        return math.fsum(pool.initial_margin_usd for pool in self._pools)

    @property
    def maintenance_margin_usd(self) -> float:
        """Static maintenance margin of all positions and, if cross, of borrowed assets."""
        return math.fsum(pool.maintenance_margin_usd for pool in self._pools)

    @property
    def weakest_pool(self) -> MarginPool | None:
        """The pool nearest to forced closing: of the lowest margin ratio, or of an unknown one.

        None where no pool needs maintenance margin.
        """
        needing = [pool for pool in self._pools if pool.maintenance_margin_usd != 0.0]
        return min(
            needing,
            key=lambda pool: -math.inf if math.isnan(pool.margin_ratio) else pool.margin_ratio,
            default=None,
        )

    @property
    def buffer_usd(self) -> float:
        """Collateral above maintenance of the weakest pool; of all collateral where none needs margin."""
        pool = self.weakest_pool
        return self.collateral_usd if pool is None else pool.buffer_usd

    @property
    def margin_ratio(self) -> float:
        """Collateral over maintenance of the weakest pool; NaN where no pool needs maintenance margin."""
        pool = self.weakest_pool
        return math.nan if pool is None else pool.margin_ratio

    def liquidation_price(self, market: str) -> float:
        """Price of `market` alone at which its pool's collateral equals its maintenance margin.

        NaN where there is none above zero or the position is closed. Raises InputError for a market in
        which the account has no position.
        """
        position, pool = self._find(market)
        if pool is None:
            return math.nan
        tiers = position.market.schedule
        return liquidation_price(
            position.quantity,
            position.mark,
            pool.buffer_usd,
            tiers.floor_usd,
            tiers.maintenance_rate,
            tiers.maintenance_deduction_usd,
        )

    def bankruptcy_price(self, market: str) -> float:
        """Price of `market` at which closing the position uses up its share of its pool's equity.

        In a cross account the share is in proportion to maintenance margin, so that closing every position
        at its bankruptcy price leaves nothing. NaN and errors as `liquidation_price`.
        """
        position, pool = self._find(market)
        if pool is None:
            return math.nan
        share_usd = pool.equity_usd
        if len(pool.positions) > 1:
            share_usd = bankruptcy_share_usd(
                pool.equity_usd, position.maintenance_margin_usd, pool.position_maintenance_usd
            )
        return bankruptcy_price(position.quantity, position.mark, share_usd)

    def _find(self, market: str) -> tuple[Position, MarginPool | None]:
        for position in self.positions:
            if position.market.market == market:
                holding = (pool for pool in self._pools if position.is_open and position in pool.positions)
                return position, next(holding, None)
        raise InputError(f"the account has no position in market {market!r}")


def _cross_pool(positions: tuple[Position, ...], balances: tuple[Balance, ...]) -> MarginPool:
    schedules = [position.market.schedule for position in positions]
    tiers = TierArrays(
        *(
            np.array([schedule[column] for schedule in schedules]).reshape(-1, MAX_TIERS)
            for column in range(len(TierArrays._fields))
        )
    )
    figures = cross_figures(
        np.arange(len(positions), dtype=np.int32),
        _floats(position.quantity for position in positions),
        _floats(quote_leg_usd(p.quantity, p.entry_price, p.quote_usd) for p in positions),
        _floats(position.mark for position in positions),
        tiers,
        np.arange(len(balances), dtype=np.int32),
        _floats(balance.amount for balance in balances),
        _floats(balance.price for balance in balances),
        _floats(balance.collateral_weight for balance in balances),
        _floats(balance.liability_weight for balance in balances),
    )
    return MarginPool(tuple(position for position in positions if position.is_open), *figures)


def _isolated_pool(position: Position) -> MarginPool:
    # NaN where the collateral is not recorded; what the position needs is known all the same
    equity_usd = position.isolated_collateral_usd + position.unrealised_usd
    maintenance_usd = position.maintenance_margin_usd
    return MarginPool(
        positions=(position,),
        equity_usd=equity_usd,
        collateral_usd=equity_usd,
        initial_margin_usd=position.initial_margin_usd,
        maintenance_margin_usd=maintenance_usd,
        gross_notional_usd=abs(position.notional_usd),
        position_maintenance_usd=maintenance_usd,
    )


def _floats(values: Iterable[float]) -> FloatArray:
    return np.array(list(values), dtype=np.float64)


def _number_or_nan(what: str, value: float, *, price: bool = False) -> float:
    if isinstance(value, float) and math.isnan(value):
        return math.nan
    return checked_number(what, value, 0.0 if price else -math.inf, above=price)


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{what} {name!r} appears twice in one account")
        seen.add(name)
