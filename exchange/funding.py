"""Funding: what longs pay shorts, or shorts longs, so that the perpetual stays near its index."""

from __future__ import annotations

from exchange.compiled import compiled
from exchange.margin import notional_usd


@compiled
def premium_rate(index: float, impact_bid: float, impact_ask: float) -> float:
    """How far the book's impact prices lie beyond the index, as a fraction of it.

    (max(0, impact_bid - index) - max(0, index - impact_ask)) / index: zero while the index lies between
    them. Impact prices are the average prices of selling and buying a set notional. NaN where an input is.
    """
    return (max(0.0, impact_bid - index) - max(0.0, index - impact_ask)) / index


@compiled
def funding_rate(mean_premium: float, interest_rate: float, clamp: float, cap: float, share: float) -> float:
    """Rate of one payment: (P + clip(I - P, -clamp, clamp)) clipped to ±cap, times share.

    P, I, clamp and cap are for the venue's base interval (8 hours mostly), `share` is the part of it that
    one payment covers: 1/8 pays an 8-hour rate by the hour. NaN where the premium is.
    """
    pull = min(max(interest_rate - mean_premium, -clamp), clamp)
    return min(max(mean_premium + pull, -cap), cap) * share


@compiled
def funding_payment_usd(quantity: float, price: float, rate: float) -> float:
    """What the holder of a signed quantity pays, dollars; negative is received. Zero for no position.

    `price` is the mark on most venues (Binance, Bybit, OKX) and the oracle on Hyperliquid and dYdX.
    """
    return notional_usd(quantity, price) * rate if quantity != 0.0 else 0.0
