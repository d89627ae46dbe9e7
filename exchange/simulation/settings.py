"""Every number of the simulated venue that is not a contract term, with where it comes from.

"fitted" means: set so that the moments of docs/simulation.md come near the facts; "swept" means: nothing
was found, results should be shown for several values.
"""

from __future__ import annotations

from typing import NamedTuple

from exchange.deleveraging import AT_BANKRUPTCY, BITMEX
from exchange.liquidation import HYPERLIQUID

RULE = HYPERLIQUID._replace(
    whole_below_usd=300_000.0,
    step_share=0.2,
    share_of_start=1,
    least_step_usd=10_000.0,
    cooldown_s=30.0,
    waits=1,
    safety_share=0.1,
    penalty_rate_cap=1.0,
)
"""Closing in steps of a fifth as Hyperliquid begins (above $100,000, fitted to sizes of forced orders) and
Paradex goes on, 30 s apart (Hyperliquid); stop at 10% over maintenance (Paradex: 1/9); backstop
below two thirds (Hyperliquid)."""


class Settings(NamedTuple):
    """Mechanics of the venue's prices, books, makers and forced closing; fractions and seconds."""

    # ---- price and book
    variance_half_life_s: float = 900.0
    """Of the fast volatility that makers look at; swept."""
    thinning: float = 1.15
    """Depth falls with this power of fast over calm volatility; fitted to depth lost in a crash (90-99%)."""
    least_liquidity: float = 0.008
    most_liquidity: float = 1.3
    withdraw_s: float = 8.0
    """Time in which makers take quotes away when volatility rises; swept."""
    return_s: float = 900.0
    """Time in which they come back."""
    spread_power: float = 1.3
    """Spread grows with this power of fast over calm volatility; fitted to tens of bp in a crash."""
    resilience_s: float = 600.0
    """Time in which a push of the price decays; swept."""
    snap: float = 0.005
    """Push at which it decays twice as fast: arbitrage from other venues; fitted to prices in a crash."""
    permanent_share: float = 0.1
    """Part of what forced orders do that stays; 0 on replayed paths, which already hold what stayed."""
    spillover: float = 0.7
    """Part of what forced orders do that other venues follow at once."""
    depth_days: float = 3.0
    """Time over which depth follows the open interest of a market."""
    least_depth_usd: float = 230_000.0
    """Calm depth of the leading market on a venue with few traders: makers quote from other venues; swept."""
    ordinary_share: float = 0.09
    """Part of its walk that an ordinary order leaves in the price: most are split and patient; fitted."""
    impact: float = 1.0
    """Times what orders do to prices; 0 is a venue whose prices nobody moves: what feedback is worth."""
    most_walk: float = 0.03
    """Farthest that one order walks into the book; what is left waits for the next second."""
    skew: float = 0.15
    """Distance that makers shift the price against their stock, in units of their stock over depth within 1%
    times `DEPTH_AT`."""
    most_skew: float = 0.003
    basis_s: float = 150.0
    """Time constant of the mean of mid minus oracle in the mark (Hyperliquid)."""

    # ---- funding (Binance: 0.01% interest, 0.05% clamp)
    interest_rate: float = 1e-4
    funding_clamp: float = 5e-4
    funding_cap: float = 0.02
    impact_share: float = 0.02
    """Impact bid and ask are what an order of this share of depth within 1% would get."""

    # ---- makers
    maker_low: float = 1.5
    """Collateral over initial margin under which a maker pays in: hedges elsewhere gain what is lost here."""
    maker_level: float = 2.5
    maker_high: float = 6.0
    """Above it a maker takes profits out."""
    maker_reach: float = 3.0
    """Dollars that a maker can bring in all, over what it began with."""

    # ---- forced closing
    backstop_leverage: float = 3.0
    """Largest notional that the backstop holds, over its equity."""
    backstop_rate: float = 0.02
    """Part of depth within 1% that the backstop sells each second while it works a position out."""
    fund_share: float = 0.0013
    """Insurance fund at the start over open interest; fitted to deleveraging on 10 October 2025."""
    backstop_funding: float = 0.00015
    """Backstop's equity at the start over open interest."""
    deleveraging: int = BITMEX
    """Ranking, see `exchange.deleveraging`."""
    deleveraging_price: int = AT_BANKRUPTCY
    ranking_s: float = 5.0
    """How long a ranking is used before it is made anew."""
    open_interest_low_usd: float = float("inf")
    """From this open interest of a market on its initial margin rises (dYdX), to 100% at the next."""
    open_interest_high_usd: float = float("inf")
    size_factor: float = 0.0
    """Drift's imf: initial rate at least 0.8 of the static one plus this times the root of the units."""

    # ---- traders
    stress_a_day: float = 0.0062
    """Looks a day of an owner of care one whose margin ratio is one below 3 (selling intensifies below 3,
    China 2015); fitted to accounts liquidated within a day by margin ratio."""
    stress_power: float = 11.0
    """Fitted to the same."""
    mood_power: float = 2.0
    """Owners look more often with this power of fast over calm volatility; fitted to open interest that falls
    in a crash without being forced to."""
    most_mood: float = 100.0
    most_order: float = 0.065
    """Largest order that a trader sends at once, over depth within 1%; a larger one goes in pieces. Fitted to
    the branching of trade arrivals."""
    piece_s: float = 2.7
    """Mean time between the pieces on a calm day, longer as many times as what is left of the order is larger
    than depth within 1%; fitted to the same."""
    haste: float = 7.0
    """Largest piece of a frightened trader over that of another; swept."""
    hasty_s: float = 10.0
    """Mean time between such pieces; swept."""

    # ---- when to look every second
    fine_volatility: float = 5.0
    """Fast over calm volatility of any market above which every second is looked at."""
