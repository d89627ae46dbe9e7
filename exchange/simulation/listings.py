"""What is listed on the generated venue, and how its prices and books are on a calm day.

Contract terms are like those of a small perpetuals venue (Drift's majors: maintenance 5%, initial 5 to 10%);
a lot at one tick is a whole number of micro-dollars, so that every fill is exact. Betas are of
the size seen for these coins, own volatilities fitted to the correlation between markets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from exchange.contracts import MarginTier, Market

FUNDING_INTERVAL_S = 28_800.0
TAKER_FEE_RATE = 0.0005


class Listing(NamedTuple):
    """A market and the habits of its price and book."""

    market: Market
    start_price: float
    beta: float
    """Move per move of the factor that all markets share; 1 for the leading market."""
    own_volatility: float
    """Volatility of its own in a day, fraction."""
    depth_share: float
    """Notional resting within 1% of the mid on one side, calm, over the market's open interest."""
    half_spread_bps: float
    popularity: float
    """How often traders choose it, relative to the others."""


class Asset(NamedTuple):
    """Something that accounts may pledge."""

    name: str
    collateral_weight: float
    liability_weight: float
    market: str | None
    """Market whose outside price prices it; None for a dollar or a stablecoin."""


STABLE = "USDE"
ASSETS = (
    Asset("USDC", 1.0, 1.0, None),
    Asset(STABLE, 0.95, 1.05, None),
    Asset("SOL", 0.9, 1.1, "SOL-PERP"),
)
"""Dollars first: what positions settle in."""


def _market(
    name: str, tick: float, lot: float, fee: float, first_cap: float, initial: float, maintenance: float
) -> Market:
    """Four tiers that double in rate, up to all of the notional; caps grow fourfold."""
    caps = (first_cap, 4 * first_cap, 16 * first_cap, math.inf)
    tiers = tuple(
        MarginTier(cap, min(initial * 2**k, 1.0), min(maintenance * 2**k, 1.0)) for k, cap in enumerate(caps)
    )
    return Market(name, tick, lot, TAKER_FEE_RATE, fee, FUNDING_INTERVAL_S, tiers)


def listings() -> tuple[Listing, ...]:
    """The markets of the generated venue, most traded first."""
    return (
        Listing(_market("BTC-PERP", 0.1, 1e-4, 0.01, 2e6, 0.08, 0.05), 94_000, 1.0, 0.007, 0.0057, 0.3, 10),
        Listing(
            _market("ETH-PERP", 0.01, 1e-3, 0.01, 1.5e6, 0.08, 0.05), 3_350, 1.25, 0.0113, 0.0057, 0.4, 7
        ),
        Listing(_market("SOL-PERP", 0.001, 0.01, 0.01, 1e6, 0.08, 0.05), 190, 1.5, 0.0183, 0.0057, 0.6, 6),
        Listing(_market("XRP-PERP", 1e-4, 0.1, 0.0125, 4e5, 0.1, 0.0625), 2.2, 1.2, 0.0183, 0.0046, 1.0, 2.5),
        Listing(
            _market("DOGE-PERP", 1e-5, 1.0, 0.0125, 3e5, 0.1, 0.0625), 0.315, 1.5, 0.0209, 0.0046, 1.2, 2.5
        ),
        Listing(
            _market("AVAX-PERP", 0.001, 0.01, 0.015, 2e5, 0.1, 0.0625), 35.5, 1.5, 0.0196, 0.0038, 1.8, 1.5
        ),
        Listing(
            _market("LINK-PERP", 0.001, 0.01, 0.015, 2e5, 0.1, 0.0625), 20.1, 1.4, 0.0196, 0.0038, 1.8, 1.5
        ),
        Listing(_market("NEAR-PERP", 1e-4, 0.1, 0.015, 1e5, 0.125, 0.08), 5.1, 1.6, 0.0235, 0.0033, 2.5, 1),
        Listing(_market("ARB-PERP", 1e-4, 0.1, 0.015, 1e5, 0.125, 0.08), 0.72, 1.6, 0.0235, 0.0033, 3.0, 1),
        Listing(_market("WIF-PERP", 1e-4, 0.1, 0.02, 5e4, 0.15, 0.1), 1.9, 1.9, 0.0313, 0.0024, 4.0, 1),
    )
