"""What is listed on the generated venue, and how its prices tend to move.

Contract terms are like those of today's small perpetuals venues; betas, volatilities and depths are of the
size seen for these coins, with the depth of a venue that matches its few accounts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.contracts import MarginTier, Market, TierArrays

FUNDING_INTERVAL_S = 28_800.0
TAKER_FEE_RATE = 0.0005

DOLLAR, TOKEN = 0, 1
ASSETS = ("USDC", "SOL")
TOKEN_MARKET = "SOL-PERP"
"""Whose index prices the token."""
COLLATERAL_WEIGHTS = (1.0, 0.9)
LIABILITY_WEIGHTS = (1.0, 1.1)


class Listing(NamedTuple):
    """A market and the habits of its price."""

    market: Market
    start_price: float
    beta: float
    """Move per move of the factor that all markets share; 1 for the leading market."""
    own_volatility: float
    """Volatility of its own in a day, fraction."""
    depth_usd: float
    """Notional resting within 1% of the mid on one side on a calm day."""
    volume_usd: float
    """Traded in a calm day."""
    half_spread_bps: float


def _market(name: str, tick: float, lot: float, fee: float, first_cap: float, rate: float) -> Market:
    """Four tiers that double in rate; the cap grows fourfold; maintenance is half of initial."""
    caps = (first_cap, 4 * first_cap, 16 * first_cap, math.inf)
    tiers = tuple(MarginTier(cap, rate * 2**k, rate * 2**k / 2) for k, cap in enumerate(caps))
    return Market(name, tick, lot, TAKER_FEE_RATE, fee, FUNDING_INTERVAL_S, tiers)


def listings() -> tuple[Listing, ...]:
    """The markets of the generated venue, most traded first."""
    return (
        Listing(_market("BTC-PERP", 0.1, 0.0001, 0.01, 250_000, 0.05), 94_000, 1.0, 0.008, 4e6, 6e7, 0.5),
        Listing(_market("ETH-PERP", 0.01, 0.001, 0.01, 200_000, 0.05), 3_350, 1.2, 0.014, 2e6, 3e7, 0.7),
        Listing(_market("SOL-PERP", 0.001, 0.01, 0.01, 100_000, 0.07), 190, 1.4, 0.022, 1e6, 1.5e7, 1.0),
        Listing(_market("DOGE-PERP", 1e-5, 1.0, 0.015, 50_000, 0.1), 0.315, 1.5, 0.030, 3e5, 5e6, 2.0),
        Listing(_market("AVAX-PERP", 0.001, 0.01, 0.015, 50_000, 0.1), 35.5, 1.5, 0.028, 2e5, 3e6, 2.5),
        Listing(_market("ARB-PERP", 1e-4, 0.1, 0.015, 25_000, 0.1), 0.72, 1.6, 0.034, 1e5, 2e6, 3.5),
    )


class Terms(NamedTuple):
    """The same terms as flat arrays by market (tiers by market and tier) and by asset."""

    market: npt.NDArray[np.int32]
    tick: npt.NDArray[np.float64]
    lot: npt.NDArray[np.float64]
    taker_fee: npt.NDArray[np.float64]
    liquidation_fee: npt.NDArray[np.float64]
    tiers: TierArrays
    asset: npt.NDArray[np.int32]
    collateral_weight: npt.NDArray[np.float64]
    liability_weight: npt.NDArray[np.float64]


def terms_of(listed: tuple[Listing, ...]) -> Terms:
    """Contract terms of `listed` in the form that compiled code takes."""
    markets = [listing.market for listing in listed]
    return Terms(
        market=np.arange(len(markets), dtype=np.int32),
        tick=np.array([m.tick_size for m in markets]),
        lot=np.array([m.lot_size for m in markets]),
        taker_fee=np.array([m.taker_fee_rate for m in markets]),
        liquidation_fee=np.array([m.liquidation_fee_rate for m in markets]),
        tiers=TierArrays(*(np.stack(column) for column in zip(*(m.schedule for m in markets), strict=True))),
        asset=np.arange(len(ASSETS), dtype=np.int32),
        collateral_weight=np.array(COLLATERAL_WEIGHTS),
        liability_weight=np.array(LIABILITY_WEIGHTS),
    )
