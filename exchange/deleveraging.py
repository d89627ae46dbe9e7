"""Auto-deleveraging: whose position is closed against a bankrupt one, how much of it, and at what price.

Venues rank the positions on the bankrupt one's other side and go down the queue. Sources in
docs/venue_rules.md.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.contracts import FloatArray

BITMEX = 0
"""Profit share of the entry value x leverage over the bankruptcy price; losers: share / leverage."""
HYPERLIQUID = 1
"""(mark / entry) x (notional / account value); for shorts entry / mark."""
BINANCE = 2
"""max(0, profit) / max(1, wallet) x maintenance / equity: Binance to 2025, Aster."""
RANDOM = 3
"""By lot: dYdX v4."""
PRO_RATA = 4
"""Winners only, each in proportion to profit: shared by `take_pro_rata`, not by going down a queue."""
PROFIT_LEVERAGE = 5
"""Profit share of the notional x notional / account value; losers: share / leverage: Binance, OKX."""

AT_BANKRUPTCY = 0
"""At the bankrupt position's bankruptcy price: BitMEX, Bybit, Binance, Gate, dYdX."""
AT_MARK = 1
"""At the mark: OKX."""
AT_PREVIOUS_ORACLE = 2
"""At the oracle price (later: the mark) before the one that made the account bankrupt: Hyperliquid."""


@compiled
def rank(
    ranking: int,
    quantity: float,
    entry_price: float,
    mark: float,
    pool_equity_usd: float,
    wallet_usd: float,
    maintenance_usd: float,
    gross_notional_usd: float,
    bankruptcy_price: float,
    uniform: float,
) -> float:
    """Place in the queue: higher goes first, NaN is on no list.

    `pool_equity_usd`, `wallet_usd` (without unrealised profit), `maintenance_usd` and `gross_notional_usd`
    are of the margin pool that holds the position, the other figures the position's own; `uniform` in
    [0, 1) is drawn for RANDOM. On no list: no position, a pool without equity (it is bankrupt itself; the
    old Binance formula gives it 0, the last place), for PRO_RATA positions not in profit.
    """
    if quantity == 0.0:
        return math.nan
    profit_usd = quantity * (mark - entry_price)
    if ranking == BINANCE:
        ratio = maintenance_usd / pool_equity_usd if pool_equity_usd > 0.0 else 0.0
        return max(0.0, profit_usd) / max(1.0, wallet_usd) * ratio
    if not pool_equity_usd > 0.0:
        return math.nan
    notional_usd = abs(quantity) * mark
    if ranking == BITMEX:
        return _by_profit_and_leverage(
            profit_usd / (abs(quantity) * entry_price),
            _leverage_over_bankruptcy(quantity, mark, bankruptcy_price, gross_notional_usd, pool_equity_usd),
        )
    if ranking == PROFIT_LEVERAGE:
        return _by_profit_and_leverage(profit_usd / notional_usd, notional_usd / pool_equity_usd)
    if ranking == HYPERLIQUID:
        gain = mark / entry_price if quantity > 0.0 else entry_price / mark
        return gain * (notional_usd / pool_equity_usd)
    if ranking == RANDOM:
        return uniform
    if ranking == PRO_RATA:
        return profit_usd if profit_usd > 0.0 else math.nan
    return math.nan


@compiled
def _by_profit_and_leverage(profit_share: float, leverage: float) -> float:
    return profit_share * leverage if profit_share > 0.0 else profit_share / leverage


@compiled
def _leverage_over_bankruptcy(
    quantity: float, mark: float, bankruptcy_price: float, gross_notional_usd: float, pool_equity_usd: float
) -> float:
    """Mark value over what lies between mark and bankruptcy; the pool's own where there is no such price.

    NaN where the bankruptcy price has been passed.
    """
    if math.isnan(bankruptcy_price):
        return gross_notional_usd / pool_equity_usd
    behind_usd = quantity * (mark - bankruptcy_price)
    return abs(quantity) * mark / behind_usd if behind_usd > 0.0 else math.nan


@compiled
def deleverage_price(kind: int, bankruptcy_price: float, mark: float, previous_oracle: float) -> float:
    """Price at which a position is closed against the bankrupt one; NaN for a kind that is none."""
    if kind == AT_BANKRUPTCY:
        return bankruptcy_price
    if kind == AT_MARK:
        return mark
    if kind == AT_PREVIOUS_ORACLE:
        return previous_oracle
    return math.nan


@compiled
def take_by_rank(rank: FloatArray, size: FloatArray, amount: float) -> FloatArray:
    """How much of each position is closed, going down the queue until `amount` is reached.

    float64[n] of ranks and of sizes without sign gives float64[n]; of equal ranks the earlier row goes
    first; nothing from rows whose rank is NaN. Less than `amount` in all where the queue ends before it.
    """
    taken = np.zeros(size.shape[0])
    left = amount
    for row in np.argsort(-rank, kind="mergesort"):
        if not left > 0.0:
            break
        if math.isnan(rank[row]):
            continue
        taken[row] = min(size[row], left)
        left -= taken[row]
    return taken


@compiled
def take_pro_rata(weight: FloatArray, size: FloatArray, amount: float) -> FloatArray:
    """How much of each position is closed, in proportion to `weight` and capped by `size`.

    What a capped position cannot give is shared among the others again. Nothing from rows whose weight is
    NaN or not above zero. Less than `amount` in all where all sizes together are less.
    """
    rows = size.shape[0]
    level = np.empty(rows)
    for row in range(rows):
        level[row] = capping_level(weight[row], size[row])
    taken = np.empty(rows)
    share_pro_rata(weight, size, amount, np.argsort(level, kind="mergesort"), np.empty(rows + 1), taken)
    return taken


@compiled
def capping_level(weight: float, size: float) -> float:
    """Share of its weight at which a position is closed whole; infinity without a weight above zero."""
    return size / weight if weight > 0.0 else math.inf


@compiled
def share_pro_rata(
    weight: FloatArray, size: FloatArray, amount: float, order: npt.NDArray[np.int64],
    weight_from: FloatArray, taken: FloatArray,
) -> None:  # fmt: skip
    """`take_pro_rata` into `taken`, where rows are given in `order` of their capping levels.

    All have n rows but `weight_from`, which is overwritten and has one more.
    """
    rows = size.shape[0]
    weight_from[rows] = 0.0
    for place in range(rows - 1, -1, -1):
        row = order[place]
        taken[row] = 0.0
        weight_from[place] = weight_from[place + 1] + (weight[row] if weight[row] > 0.0 else 0.0)
    left = amount
    # from the row that its size caps at the lowest level up, each takes its part of what is left
    for place in range(rows):
        row = order[place]
        if not (left > 0.0 and weight[row] > 0.0):
            break
        taken[row] = min(size[row], left * (weight[row] / weight_from[place]))
        left -= taken[row]


@compiled
def queue_fifth(rank: FloatArray, size: FloatArray) -> FloatArray:
    """Fifth of the queue in which each position stands, by size: 0.2 goes first, 1.0 last (BitMEX's lights).

    The share of all size that ranks as high or higher, rounded up to a fifth. NaN where the rank is.
    """
    fifth = np.full(size.shape[0], math.nan)
    total = 0.0
    for row in range(size.shape[0]):
        if not math.isnan(rank[row]):
            total += size[row]
    above = 0.0
    for row in np.argsort(-rank, kind="mergesort"):
        if math.isnan(rank[row]):
            continue
        above += size[row]
        fifth[row] = math.ceil(5.0 * above / total - 1e-9) / 5.0
    return fifth
