"""Auto-deleveraging: whose winning position is closed against a bankrupt one, and at what price."""

from __future__ import annotations

import math

from exchange.compiled import compiled

BITMEX, HYPERLIQUID, BINANCE, RANDOM, PRO_RATA = range(5)
"""Rankings."""
AT_BANKRUPTCY, AT_MARK, AT_PREVIOUS_ORACLE = range(3)
"""Prices."""


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
    are of the position's margin pool, the rest of the position; `uniform` in [0, 1) is drawn for RANDOM.
    """
    if quantity == 0.0 or not pool_equity_usd > 0.0:
        return math.nan
    profit_usd = quantity * (mark - entry_price)
    if ranking == BITMEX:
        share = profit_usd / abs(quantity * entry_price)
        behind_usd = quantity * (mark - bankruptcy_price)
        leverage = abs(quantity) * mark / behind_usd
        if math.isnan(bankruptcy_price):
            leverage = gross_notional_usd / pool_equity_usd
        elif behind_usd <= 0.0:
            return math.nan
        return share * leverage if share > 0.0 else share / leverage
    if ranking == HYPERLIQUID:
        gain = mark / entry_price if quantity > 0.0 else entry_price / mark
        return gain * (abs(quantity) * mark / pool_equity_usd)
    if ranking == BINANCE:
        return max(0.0, profit_usd) / max(1.0, wallet_usd) * (maintenance_usd / pool_equity_usd)
    if ranking == RANDOM:
        return uniform
    if ranking == PRO_RATA:
        return profit_usd if profit_usd > 0.0 else math.nan
    return math.nan


@compiled
def deleverage_price(kind: int, bankruptcy_price: float, mark: float, previous_oracle: float) -> float:
    """Price at which the winner is closed against the bankrupt account; NaN for a kind that is none."""
    if kind == AT_BANKRUPTCY:
        return bankruptcy_price
    if kind == AT_MARK:
        return mark
    if kind == AT_PREVIOUS_ORACLE:
        return previous_oracle
    return math.nan
