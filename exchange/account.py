"""Accounts: what stands behind positions, and the prices at which it is not enough.

The compiled functions come first and are the one definition of every figure, for history, the live
service and the simulated venue; the dataclasses below say the same of one account at a time.

    equity       what would be left if everything were closed at mark: balances at their prices plus
                 quantity * mark + quote_usd of every position
    collateral   equity less the haircut on non-dollar assets: what margin is held against
    maintenance  tiered margin of the positions plus the extra weight of borrowed assets
    buffer       collateral - maintenance; forced closing begins where it falls below zero

Drift v2's published figures follow these definitions (its initial margin leaves borrowed assets out).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.contracts import (
    MAX_TIERS,
    FloatArray,
    Market,
    TierArrays,
    checked_number,
    tiered_margin_usd,
)
from exchange.errors import InputError

IdArray = npt.NDArray[np.int32]
MarginMode = Literal["cross", "isolated"]


# ---- the compiled core -----------------------------------------------------------------------------


@compiled
def asset_value_usd(amount: float, price: float) -> float:
    """Value in dollars of a balance; borrowed amounts are negative.

    An empty balance is worth nothing at any price; otherwise NaN where the price is NaN.
    """
    return 0.0 if amount == 0.0 else amount * price


@compiled
def haircut_usd(amount: float, price: float, collateral_weight: float) -> float:
    """Part of a held balance's value, in dollars, that does not count as collateral: at least 0.

    Zero for a borrowed or empty balance; NaN where the price of a held one is NaN.
    """
    if amount <= 0.0:
        return 0.0
    return amount * price * (1.0 - collateral_weight)


@compiled
def liability_margin_usd(amount: float, price: float, liability_weight: float) -> float:
    """Maintenance margin, in dollars, that a borrowed balance needs beyond its value: at least 0.

    Zero for a held or empty balance; NaN where the price of a borrowed one is NaN.
    """
    if amount >= 0.0:
        return 0.0
    return -amount * price * (liability_weight - 1.0)


@compiled
def notional_usd(quantity: float, mark: float) -> float:
    """Signed notional of a position in dollars, long positive; 0 for no position at any mark."""
    return 0.0 if quantity == 0.0 else quantity * mark


@compiled
def unrealised_usd(quantity: float, mark: float, quote_usd: float) -> float:
    """Profit in dollars from closing at mark: quantity * mark plus the cash leg with its funding.

    A position of quantity 0 still holds its unsettled `quote_usd`. NaN where mark or quote is missing.
    """
    return notional_usd(quantity, mark) + quote_usd


@compiled
def quote_leg_usd(quantity: float, entry_price: float, quote_usd: float) -> float:
    """The position's cash leg in dollars: as recorded, else what entering at `entry_price` paid.

    The second form knows nothing of funding since entry. NaN where neither is known.
    """
    return quote_usd if not math.isnan(quote_usd) else -quantity * entry_price


class PoolFigures(NamedTuple):
    """Sums over one margin pool, in dollars; NaN where something that they need is missing."""

    equity_usd: float
    collateral_usd: float
    initial_margin_usd: float
    maintenance_margin_usd: float
    gross_notional_usd: float
    position_maintenance_usd: float
    """Maintenance of the positions alone, without borrowed assets: what bankruptcy shares go by."""


@compiled
def cross_figures(
    market: IdArray,
    quantity: FloatArray,
    quote_usd: FloatArray,
    mark: FloatArray,
    tiers: TierArrays,
    asset: IdArray,
    amount: FloatArray,
    price: FloatArray,
    collateral_weight: FloatArray,
    liability_weight: FloatArray,
) -> PoolFigures:
    """The figures of a cross account: every position and balance in one pool.

    `market`, `quantity`, `quote_usd` are one row a position, `asset` and `amount` one row a balance;
    `mark` and `tiers` (float64[markets, MAX_TIERS]) are indexed by market id, `price` and the two weights
    by asset id.
    """
    equity = 0.0
    haircut = 0.0
    liability = 0.0
    for row in range(asset.shape[0]):
        number = asset[row]
        equity += asset_value_usd(amount[row], price[number])
        haircut += haircut_usd(amount[row], price[number], collateral_weight[number])
        liability += liability_margin_usd(amount[row], price[number], liability_weight[number])
    initial = 0.0
    maintenance = 0.0
    gross = 0.0
    for row in range(market.shape[0]):
        number = market[row]
        equity += unrealised_usd(quantity[row], mark[number], quote_usd[row])
        if quantity[row] == 0.0:
            continue
        notional = notional_usd(quantity[row], mark[number])
        floor = tiers.floor_usd[number]
        initial += tiered_margin_usd(
            notional, floor, tiers.initial_rate[number], tiers.initial_deduction_usd[number]
        )
        maintenance += tiered_margin_usd(
            notional, floor, tiers.maintenance_rate[number], tiers.maintenance_deduction_usd[number]
        )
        gross += abs(notional)
    return PoolFigures(equity, equity - haircut, initial, maintenance + liability, gross, maintenance)


@compiled
def liquidation_price(
    quantity: float,
    mark: float,
    buffer_usd: float,
    floor_usd: FloatArray,
    maintenance_rate: FloatArray,
    maintenance_deduction_usd: FloatArray,
) -> float:
    """Price of this market alone at which collateral equals maintenance margin, all else unchanged.

    `buffer_usd` is collateral - maintenance at the present mark, of the whole pool. Re-solved in every
    tier, since the notional changes with the price; of two such prices (rates above 100%) the one nearer
    the mark. With a negative buffer it is the price at which the account would be whole again. NaN where
    there is no such price above zero, for no position, and where an input is NaN.
    """
    size = abs(quantity)
    if not (size > 0.0 and mark > 0.0 and math.isfinite(size * mark) and math.isfinite(buffer_usd)):
        return math.nan
    tiers = floor_usd.shape[0]
    notional = size * mark
    maintenance = tiered_margin_usd(notional, floor_usd, maintenance_rate, maintenance_deduction_usd)
    best = math.nan
    low = 0.0
    low_gap = buffer_usd + (maintenance - quantity * mark)
    for tier in range(tiers):
        # the line that is collateral - maintenance within this tier, by its value at the mark
        slope = quantity - size * maintenance_rate[tier]
        gap_at_mark = buffer_usd + (
            maintenance - (notional * maintenance_rate[tier] - maintenance_deduction_usd[tier])
        )
        is_last = tier + 1 == tiers or not floor_usd[tier + 1] < math.inf
        if is_last:
            high = math.inf
            high_gap = slope if slope != 0.0 else gap_at_mark  # only its sign matters
        else:
            high = floor_usd[tier + 1] / size
            high_gap = gap_at_mark + slope * (high - mark)
        # Signs at shared edges decide which tier holds the price: a root that rounding puts a hair
        # outside its tier is then neither lost nor found twice.
        if (low_gap > 0.0 and high_gap <= 0.0) or (low_gap < 0.0 and high_gap >= 0.0):
            root = min(max(mark - gap_at_mark / slope, low), high) if slope != 0.0 else high
            if root > 0.0 and not abs(root - mark) >= abs(best - mark):
                best = root
        if is_last:
            break
        low = high
        low_gap = high_gap
    return best if best < math.inf else math.nan


@compiled
def bankruptcy_price(quantity: float, mark: float, equity_share_usd: float) -> float:
    """Price at which closing the position uses up exactly the equity that stands behind it.

    `equity_share_usd` is the pool's equity for an isolated position, `bankruptcy_share_usd` of it in a
    cross account. NaN where there is no such price above zero (a long that its equity covers wholly),
    for no position, and where an input is NaN.
    """
    if quantity == 0.0:
        return math.nan
    price = mark - equity_share_usd / quantity
    return price if price > 0.0 else math.nan


@compiled
def bankruptcy_share_usd(equity_usd: float, maintenance_usd: float, total_maintenance_usd: float) -> float:
    """Part of a pool's equity that one position answers for: by its share of the positions' maintenance.

    The shares of all positions add up to the equity (dYdX v4 closes cross accounts so). NaN where no
    position needs maintenance margin.
    """
    if not total_maintenance_usd > 0.0:
        return math.nan
    return equity_usd * (maintenance_usd / total_maintenance_usd)


@compiled
def margin_ratio(collateral_usd: float, maintenance_margin_usd: float) -> float:
    """Collateral over maintenance margin: forced closing begins below 1. NaN where none is needed.

    Venues that print maintenance over collateral show the inverse.
    """
    return collateral_usd / maintenance_margin_usd if maintenance_margin_usd > 0.0 else math.nan


# ---- one account, for other programs ---------------------------------------------------------------


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
