"""What an account is exposed to: dollars by underlying, since a coin held against its own short is no risk.

The balance of an asset, haircut taken, counts with the positions in markets of the same underlying. Under
every estimator of volatility exposures add up to a sigma, and the buffer over it says how near the end is.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from exchange.account import notional_usd, unrealised_usd
from exchange.compiled import inlined, lean
from exchange.contracts import tiered_margin_usd
from exchange.units import DAY_S
from features.arithmetic import FAR, effective_buffer, over, pool_sigma, worse
from features.state import (
    BALANCES,
    ESTIMATORS,
    ISOLATED,
    NOW,
    POSITIONS,
    SIGMA_6H,
    SIGMA_AHEAD_24H,
    SIGMA_MEAN,
    SIGMA_PRIOR,
    SIGMA_SLOW,
    Portfolio,
    State,
)

OWN, TOTAL, NEARNESS = 0, 1, 2
"""Rows of `Portfolio.work`: sums of squared and of plain exposures, buffer over sigma."""

_DAY = math.sqrt(DAY_S)


def underlying_of(name: str) -> str:
    """What a market's name says it is about: `SOL` of `SOL-PERP`, `SOL/USDT:USDT` or `SOLUSDT`."""
    for mark in "-/_:":
        name = name.split(mark, maxsplit=1)[0]
    for quote in ("USDT", "USDC", "USD", "PERP"):
        if name.endswith(quote) and len(name) > len(quote):
            return name.removesuffix(quote)
    return name


def underlying_number(name: str) -> int:
    """A number of the underlying: the same for the same, whenever and in whatever order names come up."""
    return int.from_bytes(hashlib.sha256(underlying_of(name).encode()).digest()[:7])


@lean
def balance_worth_usd(balance: np.void, asset: np.void) -> float:
    """A balance at its price as far as it counts: haircut taken, a debt with its extra margin."""
    weight = asset.collateral_weight if balance.amount > 0.0 else asset.liability_weight
    return balance.amount * asset.price * weight


@lean
def stands_for(state: State, folio: Portfolio, place: int) -> bool:
    """Whether the position at `place` is the first open one in its underlying."""
    underlying = state.market[folio.position[place].market].underlying
    for i in range(place):
        position = folio.position[i]
        if position.quantity != 0.0 and state.market[position.market].underlying == underlying:
            return False
    return True


@lean
def netted_usd(state: State, folio: Portfolio, place: int) -> float:
    """Signed dollars in the underlying that the position at `place` stands for: positions and balances."""
    underlying = state.market[folio.position[place].market].underlying
    dollars = 0.0
    for i in range(place, folio.count[POSITIONS]):
        position = folio.position[i]
        market = state.market[position.market]
        if position.quantity != 0.0 and market.underlying == underlying:
            dollars += notional_usd(position.quantity, market.mark)
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        if balance.amount != 0.0 and asset.underlying == underlying:
            dollars += balance_worth_usd(balance, asset)
    return dollars


@lean
def is_hedging(state: State, folio: Portfolio, underlying: int) -> bool:
    """Whether an open position is in this underlying."""
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity != 0.0 and state.market[position.market].underlying == underlying:
            return True
    return False


@inlined
def sum_exposures(state: State, folio: Portfolio) -> None:
    """Exposures under every estimator, and how near the worst pool is to its end; after `sum_pools`."""
    _expose(state, folio)
    if folio.count[ISOLATED] == 0:
        for e in range(ESTIMATORS):
            _bring_near(folio, e)


@inlined
def sum_prior(state: State, folio: Portfolio) -> None:
    """`sum_exposures` as far as the sweep reads it: under the slow estimator and a day ahead."""
    _expose(state, folio)
    if folio.count[ISOLATED] == 0:
        _bring_near(folio, SIGMA_SLOW)
        _bring_near(folio, SIGMA_AHEAD_24H)


@inlined
def _bring_near(folio: Portfolio, estimator: int) -> None:
    """Buffer over sigma of a cross account under one estimator."""
    sums = folio.sums[0]
    sigma = pool_sigma(folio.work[OWN, estimator], folio.work[TOTAL, estimator]) * _DAY
    folio.work[NEARNESS, estimator] = over(sums.collateral - sums.needed, sigma)


@inlined
def _expose(state: State, folio: Portfolio) -> None:
    """Sums of exposures under every estimator."""
    sums = folio.sums[0]
    for e in range(ESTIMATORS):
        folio.work[OWN, e] = 0.0
        folio.work[TOTAL, e] = 0.0
    sums.absolute = 0.0
    sums.volatile = 0.0
    sums.moving = sums.net
    sums.price_time = state.clock[NOW]
    if folio.count[ISOLATED] != 0:
        _expose_isolated(state, folio)
    else:
        _expose_cross(state, folio)


@inlined
def _expose_cross(state: State, folio: Portfolio) -> None:
    """One pool, netted by underlying; the baseline's estimator counts position by position."""
    sums = folio.sums[0]
    own = folio.work[OWN]
    total = folio.work[TOTAL]
    own_mean = 0.0
    total_mean = 0.0
    absolute = 0.0
    netting = folio.count[BALANCES] > 0 or _may_share(state, folio)
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        notional = notional_usd(position.quantity, market.mark)
        absolute += abs(notional) * market.sigma[SIGMA_6H]
        exposure = notional * market.sigma[SIGMA_MEAN]
        own_mean += exposure * exposure
        total_mean += exposure
        if not netting:
            _count(own, total, notional, market.sigma)
        elif stands_for(state, folio, i):
            _count(own, total, netted_usd(state, folio, i), market.sigma)
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        if balance.amount == 0.0 or (asset.price_time < 0 and not math.isnan(asset.price)):
            continue  # a dollar that never had a price does not move
        worth = balance_worth_usd(balance, asset)
        sums.volatile += abs(worth)
        sums.moving += worth
        sums.price_time = min(sums.price_time, float(asset.price_time))
        absolute += abs(worth) * asset.sigma[SIGMA_6H]
        exposure = worth * asset.sigma[SIGMA_MEAN]
        own_mean += exposure * exposure
        total_mean += exposure
        if not is_hedging(state, folio, asset.underlying):  # else counted with the position it hedges
            _count(own, total, worth, asset.sigma)
    own[SIGMA_MEAN] = own_mean
    total[SIGMA_MEAN] = total_mean
    sums.absolute = absolute
    buffer = sums.collateral - sums.needed
    sigma = pool_sigma(own[SIGMA_PRIOR], total[SIGMA_PRIOR]) * _DAY
    sums.worst_effective = over(effective_buffer(buffer, folio.facts[0].survived), sigma)
    sums.worst_bankruptcy = over(sums.equity - sums.closing_fees, sigma)


@inlined
def _may_share(state: State, folio: Portfolio) -> bool:
    """Whether two open positions may be in one underlying; False is certain, and spares looking at pairs."""
    low = 0
    high = 0
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        underlying = state.market[position.market].underlying
        first = 1 << (underlying & 63)
        second = 1 << ((underlying >> 6) & 63)
        if low & first != 0 and high & second != 0:
            return True
        low |= first
        high |= second
    return False


@inlined
def _count(
    own: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    dollars: float,
    sigma: npt.NDArray[np.float64],
) -> None:
    """Count an underlying under every estimator."""
    for e in range(ESTIMATORS):
        exposure = dollars * sigma[e]
        own[e] += exposure * exposure
        total[e] += exposure


@lean
def _expose_isolated(state: State, folio: Portfolio) -> None:
    """The same where every position is a pool of its own."""
    sums = folio.sums[0]
    sums.worst_bankruptcy = FAR
    folio.work[NEARNESS] = FAR
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        notional = notional_usd(position.quantity, market.mark)
        size = abs(notional)
        needed = tiered_margin_usd(
            notional, market.tier_floor, market.maintenance_rate, market.maintenance_deduction
        )
        pool = position.isolated_collateral + unrealised_usd(position.quantity, market.mark, position.quote)
        sums.absolute += size * market.sigma[SIGMA_6H]
        for e in range(ESTIMATORS):
            exposure = notional * market.sigma[e]
            folio.work[OWN, e] += exposure * exposure
            folio.work[TOTAL, e] += exposure
            near = over(pool - needed, abs(exposure) * _DAY)
            folio.work[NEARNESS, e] = worse(folio.work[NEARNESS, e], near)
        left = over(pool - size * market.liquidation_fee_rate, size * market.sigma[SIGMA_PRIOR] * _DAY)
        sums.worst_bankruptcy = worse(sums.worst_bankruptcy, left)
    sums.worst_effective = folio.work[NEARNESS, SIGMA_PRIOR]
