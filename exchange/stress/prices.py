"""Prices and books under stress: what forced orders leave in the price, and how depth thins with volatility.

    mid   = start * exp(outside + shift + wave)
    mark  = start * exp(outside + shift + spillover * wave), unless the oracle stands still
    depth = depth at the start * factor * liquidity

The dynamics are those of the simulated venue, whose settings they take (docs/simulation.md): a walk of the
book goes to `wave`, which decays, and a part to `shift`, which stays.
"""

from __future__ import annotations

import math
from typing import Any

from exchange.book import slippage, walked
from exchange.compiled import inlined
from exchange.mark import ema_weight
from exchange.stress.book import ASKS, BIDS, Book, Live, Shock

WIDEST_SPREAD = 0.05
CALM = 0.7
"""Volatility over usual under which a spread narrows no further."""


@inlined
def move(book: Book, live: Live, settings: Any, swing: float, elapsed_s: float, market: int) -> None:
    """Let a market take its outside price and `elapsed_s` of decay; depth and spread follow volatility.

    `swing` is the variance a minute of the outside price in this stretch.
    """
    before = live.shift[market] + live.wave[market]
    decay = math.exp(-elapsed_s / settings.resilience_s * (1.0 + abs(live.wave[market]) / settings.snap))
    live.wave[market] *= decay
    change = live.shift[market] + live.wave[market] - before
    keep = 0.5 ** (elapsed_s / settings.variance_half_life_s)
    now = swing + change * change * (60.0 / elapsed_s)
    live.fast_variance[market] = keep * live.fast_variance[market] + (1.0 - keep) * now
    turbulence = math.sqrt(live.fast_variance[market] / book.variance[market])
    wanted = min(max(turbulence**-settings.thinning, settings.least_liquidity), 1.0)
    constant = settings.withdraw_s if wanted < live.liquidity[market] else settings.return_s
    live.liquidity[market] += ema_weight(elapsed_s, constant) * (wanted - live.liquidity[market])
    live.spread[market] = min(
        book.half_spread[market] * max(turbulence, CALM) ** settings.spread_power, WIDEST_SPREAD
    )
    requote(book, live, market)


@inlined
def requote(book: Book, live: Live, market: int) -> None:
    """The mid from what has happened to it."""
    moved = live.shift[market] + live.wave[market]
    live.mid[market] = book.mark[market] * math.exp(live.outside[market] + moved)
    if abs(moved) > abs(live.feedback[market]):
        live.feedback[market] = moved


@inlined
def felt(live: Live, settings: Any, market: int) -> float:
    """Log of what forced orders do to the mark: other venues follow a part of the wave."""
    return live.shift[market] + settings.spillover * live.wave[market]


@inlined
def depth_usd(book: Book, live: Live, shock: Shock, market: int, sells: bool) -> float:
    """Notional within 1% of the mid on the side that takes the order."""
    side = BIDS if sells else ASKS
    return book.depth_usd[market, side] * shock.depth_factor * live.liquidity[market]


@inlined
def fill_price(live: Live, market: int, size_usd: float, depth: float, sells: bool) -> float:
    """Average price of an order that walks the book; at least nothing."""
    away = slippage(size_usd, depth, live.spread[market])
    return live.mid[market] * (max(1.0 - away, 0.0) if sells else 1.0 + away)


@inlined
def push(
    book: Book, live: Live, shock: Shock, market: int, size_usd: float, depth: float, sells: bool
) -> None:
    """Leave in the price what a forced order walked."""
    walk = math.copysign(walked(size_usd, depth), -1.0 if sells else 1.0)
    live.wave[market] += (1.0 - shock.permanent_share) * walk
    live.shift[market] += shock.permanent_share * walk
    requote(book, live, market)
