"""Price paths of the generated venue: fat tails, clustered volatility, a common factor, crashes.

Nothing that traders do moves these prices. A crash is one fall of all markets within about an hour,
most of it in a few bars, with a partial recovery; the book thins out as fast volatility rises.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.simulation.terms import FUNDING_INTERVAL_S, Listing
from exchange.units import BPS, MINUTE_US, SECOND_US

Floats = npt.NDArray[np.float64]

BAR_US = 5 * MINUTE_US
BARS_A_DAY = 288
FUNDING_BARS = int(FUNDING_INTERVAL_S) * SECOND_US // BAR_US
COMMON_VOLATILITY = 0.022
"""Of the shared factor in a calm day, fraction."""
GARCH_ALPHA, GARCH_BETA = 0.05, 0.943
"""Of five-minute variance: half of a shock is gone after eight hours."""
MOST_VARIANCE = 12.0
"""Of the clustered part over its mean: keeps one crash from feeding itself without end."""
STRESS_HALF_LIFE_BARS = 6.0
DEPTH_FALL = 1.3
LEAST_DEPTH, MOST_DEPTH = 0.01, 1.6
"""Of calm depth; books of crash days lost 90 to 99% of theirs."""
FUNDING_CAP = 0.0075


class Paths(NamedTuple):
    """Bars of every market, float64[bars, markets] each."""

    mark: Floats
    index_price: Floats
    opening: Floats
    high: Floats
    low: Floats
    volume_usd: Floats
    stress: Floats
    """Fast volatility over calm volatility."""
    bid_usd: Floats
    """Notional within 1% of the mid, likewise `ask_usd`."""
    ask_usd: Floats
    half_spread: Floats
    """Fraction of the mid."""
    funding: Floats
    """Rate that a payment at the bar's time would have."""


@compiled
def _clustered(noise: Floats, jumps: Floats) -> Floats:
    """Returns per calm standard deviation with GARCH(1,1) variance; jumps add to them and raise it too."""
    out = np.empty_like(noise)
    for column in range(noise.shape[1]):
        variance = 1.0
        for row in range(noise.shape[0]):
            out[row, column] = np.sqrt(variance) * noise[row, column] + jumps[row, column]
            shock = min(out[row, column] ** 2, 30.0 * variance)
            variance = 1.0 - GARCH_ALPHA - GARCH_BETA + GARCH_ALPHA * shock + GARCH_BETA * variance
            variance = min(variance, MOST_VARIANCE)
    return out


@compiled
def _smoothed(values: Floats, keep: float, start: float) -> Floats:
    """keep * last + values, column by column."""
    out = np.empty_like(values)
    for column in range(values.shape[1]):
        level = start
        for row in range(values.shape[0]):
            level = keep * level + values[row, column]
            out[row, column] = level
    return out


def _student(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Fat-tailed noise of variance one."""
    freedom = 4.5
    return np.clip(rng.standard_t(freedom, shape) * np.sqrt((freedom - 2.0) / freedom), -9.0, 9.0)


def _crash(rng: np.random.Generator, common: Floats, bar: int) -> None:
    """Add one crash to the log returns of the shared factor, from `bar` on."""
    bars = int(rng.integers(10, 19))
    fall = np.log1p(-rng.uniform(0.12, 0.25))
    back = int(rng.integers(12, 36))
    path = np.concatenate(
        [
            fall * rng.dirichlet(np.full(bars, 0.5)),
            -fall * rng.uniform(0.25, 0.5) * rng.dirichlet(np.full(back, 1.0)),
        ]
    )
    path = path[: len(common) - bar]
    common[bar : bar + len(path)] += path


def price_paths(listed: tuple[Listing, ...], history_bars: int, bars: int, rng: np.random.Generator) -> Paths:
    """Paths of `history_bars` bars before the start, the start's own, and `bars` after it.

    Every 30 days begun hold one crash day, at a time drawn from the whole of them.
    """
    total, markets = history_bars + 1 + bars, len(listed)
    beta = np.array([listing.beta for listing in listed])
    own_sigma = np.array([listing.own_volatility for listing in listed]) / np.sqrt(BARS_A_DAY)
    common_sigma = COMMON_VOLATILITY / np.sqrt(BARS_A_DAY)
    calm_sigma = np.hypot(beta * common_sigma, own_sigma)

    common_jumps = (rng.random(total) < 0.3 / BARS_A_DAY) * rng.normal(-0.003, 0.02, total)
    crashes = max(1, round(bars / (30 * BARS_A_DAY)))
    for n in range(crashes):
        within = (n + rng.uniform(0.2, 0.9)) / crashes
        _crash(rng, common_jumps, history_bars + int(bars * within))
    own_jumps = (rng.random((total, markets)) < 0.2 / BARS_A_DAY) * rng.normal(0, 0.03, (total, markets))
    own_jumps += common_jumps[:, None] * beta * rng.normal(0.0, 0.1, (total, markets))
    common = common_sigma * _clustered(_student(rng, (total, 1)), common_jumps[:, None] / common_sigma)
    own = own_sigma * _clustered(_student(rng, (total, markets)), own_jumps / own_sigma)
    returns = np.clip(beta * common + own, -0.35, 0.35)
    returns[0] = 0.0

    tick = np.array([listing.market.tick_size for listing in listed])
    start_price = np.array([listing.start_price for listing in listed])
    mark = np.round(start_price * np.exp(np.cumsum(returns, axis=0)) / tick) * tick
    opened = np.vstack([mark[:1], mark[:-1]])

    keep = 0.5 ** (1.0 / STRESS_HALF_LIFE_BARS)
    stress = np.sqrt(_smoothed((1.0 - keep) * (returns / calm_sigma) ** 2, keep, 1.0))
    spread = 0.35 * calm_sigma * np.maximum(stress, 0.3)
    high = np.maximum(opened, mark) * np.exp(spread * np.abs(rng.normal(size=mark.shape)))
    low = np.minimum(opened, mark) * np.exp(-spread * np.abs(rng.normal(size=mark.shape)))

    basis_noise = 0.8 * BPS * rng.normal(size=mark.shape) + 0.04 * returns
    basis = np.clip(_smoothed(basis_noise, 0.97, 0.0), -0.02, 0.02) + 0.5 * BPS
    premium = np.cumsum(basis, axis=0)
    premium[FUNDING_BARS:] -= premium[:-FUNDING_BARS].copy()
    premium /= FUNDING_BARS
    rate = np.clip(premium + np.clip(1e-4 - premium, -5e-4, 5e-4), -FUNDING_CAP, FUNDING_CAP)

    volume = np.array([listing.volume_usd for listing in listed]) / BARS_A_DAY
    volume = volume * np.maximum(stress, 0.3) * rng.lognormal(-0.18, 0.6, mark.shape)
    thinning = np.clip(np.maximum(stress, 0.2) ** -DEPTH_FALL, LEAST_DEPTH, MOST_DEPTH)
    thinning = thinning * np.exp(_smoothed(0.05 * rng.normal(size=mark.shape), 0.97, 0.0))
    depth = np.array([listing.depth_usd for listing in listed]) * thinning
    tilt = np.clip(_smoothed(0.06 * rng.normal(size=mark.shape) + 3.0 * returns, 0.95, 0.0), -1.5, 1.5)
    half_spread = np.array([listing.half_spread_bps for listing in listed]) * BPS
    return Paths(
        mark=mark,
        index_price=mark / (1.0 + basis),
        opening=opened,
        high=high,
        low=low,
        volume_usd=volume,
        stress=stress,
        bid_usd=depth * np.exp(0.5 * tilt),
        ask_usd=depth * np.exp(-0.5 * tilt),
        half_spread=half_spread * np.maximum(stress, 0.7) ** 1.2,
        funding=rate,
    )
