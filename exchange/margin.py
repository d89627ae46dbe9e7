"""Margin arithmetic: what stands behind positions, and the prices at which it is not enough.

The one definition of every figure, compiled, for history, the live service and the simulated venue.

    equity       what would be left if everything were closed at mark: balances at their prices plus
                 quantity * mark + quote_usd of every position
    collateral   equity less the haircut on non-dollar assets: what margin is held against
    maintenance  tiered margin of the positions plus the extra weight of borrowed assets
    buffer       collateral - maintenance; forced closing begins where it falls below zero

Drift v2's published figures follow these definitions (its initial margin leaves borrowed assets out).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled, lean
from exchange.contracts import FloatArray, TierArrays, tiered_margin_usd

IdArray = npt.NDArray[np.int32]


@lean
def asset_value_usd(amount: float, price: float) -> float:
    """Value in dollars of a balance; borrowed amounts are negative.

    An empty balance is worth nothing at any price; otherwise NaN where the price is NaN.
    """
    return 0.0 if amount == 0.0 else amount * price


@lean
def haircut_usd(amount: float, price: float, collateral_weight: float) -> float:
    """Part of a held balance's value, in dollars, that does not count as collateral: at least 0.

    Zero for a borrowed or empty balance; NaN where the price of a held one is NaN.
    """
    if amount <= 0.0:
        return 0.0
    return amount * price * (1.0 - collateral_weight)


@lean
def liability_margin_usd(amount: float, price: float, liability_weight: float) -> float:
    """Maintenance margin, in dollars, that a borrowed balance needs beyond its value: at least 0.

    Zero for a held or empty balance; NaN where the price of a borrowed one is NaN.
    """
    if amount >= 0.0:
        return 0.0
    return -amount * price * (liability_weight - 1.0)


@lean
def notional_usd(quantity: float, mark: float) -> float:
    """Signed notional of a position in dollars, long positive; 0 for no position at any mark."""
    return 0.0 if quantity == 0.0 else quantity * mark


@lean
def unrealised_usd(quantity: float, mark: float, quote_usd: float) -> float:
    """Profit in dollars from closing at mark: quantity * mark plus the cash leg with its funding.

    A position of quantity 0 still holds its unsettled `quote_usd`. NaN where mark or quote is missing.
    """
    return notional_usd(quantity, mark) + quote_usd


@lean
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


@lean
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


@lean
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
    if not (size > 0.0 and mark > 0.0 and math.isfinite(size * mark)):
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


@lean
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
def liquidation_price_with_fee(
    quantity: float,
    mark: float,
    buffer_usd: float,
    floor_usd: FloatArray,
    maintenance_rate: FloatArray,
    maintenance_deduction_usd: FloatArray,
    closing_fee_rate: float,
) -> float:
    """`liquidation_price` on venues that want the fee for closing at mark on top of maintenance margin.

    `buffer_usd` is without the fee. The fee is one more share of the notional, the same in every tier.
    """
    return liquidation_price(
        quantity,
        mark,
        buffer_usd - closing_fee_rate * abs(quantity * mark),
        floor_usd,
        maintenance_rate + closing_fee_rate,
        maintenance_deduction_usd,
    )


@lean
def bankruptcy_price_with_fee(
    quantity: float, mark: float, equity_share_usd: float, closing_fee_rate: float
) -> float:
    """Price at which closing the position and paying the fee for it uses up the equity behind it.

    NaN as `bankruptcy_price`, which this is at a fee of 0.
    """
    if quantity == 0.0:
        return math.nan
    price = (quantity * mark - equity_share_usd) / (quantity - closing_fee_rate * abs(quantity))
    return price if price > 0.0 else math.nan


@lean
def bankruptcy_share_usd(equity_usd: float, maintenance_usd: float, total_maintenance_usd: float) -> float:
    """Part of a pool's equity that one position answers for: by its share of the positions' maintenance.

    The shares of all positions add up to the equity (dYdX v4 closes cross accounts so). NaN where no
    position needs maintenance margin.
    """
    if not total_maintenance_usd > 0.0:
        return math.nan
    return equity_usd * (maintenance_usd / total_maintenance_usd)


@lean
def margin_ratio(collateral_usd: float, maintenance_margin_usd: float) -> float:
    """Collateral over maintenance margin: forced closing begins below 1. NaN where none is needed.

    Venues that print maintenance over collateral show the inverse.
    """
    return collateral_usd / maintenance_margin_usd if maintenance_margin_usd > 0.0 else math.nan
