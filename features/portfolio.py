"""One account copied out of the state, and its pools summed up: what the sweep and every vector begin with.

An isolated account is as many margin pools as it has positions; what says how close liquidation is
(margin ratio, distance, buffer over sigma) is that of the worst one.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.account import (
    asset_value_usd,
    haircut_usd,
    liability_margin_usd,
    notional_usd,
    unrealised_usd,
)
from exchange.compiled import lean, prefetch
from exchange.contracts import tiered_margin_usd
from exchange.units import DAY_S
from features.arithmetic import FAR, distance, effective_buffer, over, pool_sigma, worse
from features.exposure import balance_worth_usd, is_hedging, netted_usd, stands_for
from features.state import (
    BALANCES,
    CASH,
    ESTIMATORS,
    FREE_POSITION,
    INITIAL_IN_FORCE,
    ISOLATED,
    MAINTENANCE_IN_FORCE,
    NOW,
    POSITIONS,
    SIGMA_6H,
    SIGMA_MEAN,
    SIGMA_PRIOR,
    Portfolio,
    State,
)

OWN, TOTAL, NEARNESS = 0, 1, 2
"""Rows of `Portfolio.work`: sums of squared and of plain exposures, buffer over sigma."""

_DAY = math.sqrt(DAY_S)


@lean
def lay_in_order(state: State, accounts: int, room: npt.NDArray[np.void]) -> None:
    """Copy every account's positions into `room`, side by side in the order of accounts, and link them there.

    `room` is as long as the pool; the state is whole once it takes the pool's place.
    """
    used = 0
    for key in range(accounts):
        slot = state.account[key].first_position
        if slot < 0:
            continue
        state.account[key].first_position = used
        while slot >= 0:
            room[used] = state.position[slot]
            slot = state.position[slot].next
            room[used].next = used + 1 if slot >= 0 else -1
            used += 1
    for slot in range(used, len(room)):
        room[slot].next = slot + 1 if slot + 1 < len(room) else -1
    state.clock[FREE_POSITION] = used if used < len(room) else -1


READ_AHEAD = 12
"""Accounts whose positions are asked for before their turn: a list through memory takes a wait a step."""


@lean
def read_ahead(state: State, key: int) -> None:
    """Ask for the positions of the accounts that come after `key`, one step further for each that is nearer.

    For loops over all accounts, whose positions lie where there was room when they were opened.
    """
    last = len(state.account) - 1
    slot = state.account[min(key + READ_AHEAD, last)].first_position
    if slot >= 0:
        prefetch(state.position, slot)
    for step in range(1, 4):
        slot = state.account[min(key + READ_AHEAD - 3 * step, last)].first_position
        for _ in range(step):
            if slot >= 0:
                slot = state.position[slot].next
        if slot >= 0:
            prefetch(state.position, slot)


@lean
def gather(state: State, key: int, out: Portfolio) -> int:
    """Copy an account into `out`, funding settled; the number of open positions (quantity not 0)."""
    account = state.account[key]
    out.facts[0] = state.account[key]
    cash = account.cash
    n = 0
    opened = 0
    slot = account.first_position
    while slot >= 0:
        source = state.position[slot]
        row = out.position[n]
        due = 0.0
        if source.quantity != 0.0:
            due = source.quantity * (state.market[source.market].funding_paid - source.funding_mark)
            opened += 1
        cash -= due
        row.market = source.market
        row.quantity = source.quantity
        row.entry_price = source.entry_price
        row.quote = source.quote - due
        row.isolated_collateral = source.isolated_collateral
        row.opened = source.opened
        n += 1
        slot = source.next
    out.count[POSITIONS] = n
    n = 0
    slot = account.first_balance
    while slot >= 0:
        out.balance[n].asset = state.balance[slot].asset
        out.balance[n].amount = state.balance[slot].amount
        n += 1
        slot = state.balance[slot].next
    out.count[BALANCES] = n
    out.count[ISOLATED] = account.isolated
    out.account[CASH] = cash
    out.account[INITIAL_IN_FORCE] = account.initial_in_force
    out.account[MAINTENANCE_IN_FORCE] = account.maintenance_in_force
    return opened


@lean
def sum_margin(state: State, folio: Portfolio) -> None:
    """Equity, collateral and margin, and how far each position is from its liquidation price."""
    sums = folio.sums[0]
    isolated = folio.count[ISOLATED] != 0
    sums.gross = 0.0
    sums.net = 0.0
    sums.maintenance = 0.0
    sums.closing_fees = 0.0
    sums.equity = 0.0
    sums.haircut = 0.0
    sums.pledged = 0.0
    sums.worst_ratio = FAR
    sums.worst_distance = FAR
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
        sums.gross += size
        sums.net += notional
        sums.maintenance += needed
        sums.closing_fees += size * market.liquidation_fee_rate
        if isolated:
            pool = position.isolated_collateral + unrealised_usd(
                position.quantity, market.mark, position.quote
            )
            sums.equity += pool
            sums.worst_ratio = worse(sums.worst_ratio, over(pool, needed))
            folio.away[i] = distance(market, position.quantity, pool - needed)
            sums.worst_distance = worse(sums.worst_distance, folio.away[i])
    sums.needed = sums.maintenance
    if isolated:  # free balances stand behind no position
        sums.collateral = sums.equity
        return

    sums.equity = folio.account[CASH] + sums.net
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        worth = asset_value_usd(balance.amount, asset.price)
        sums.equity += worth
        sums.pledged += abs(worth)
        sums.haircut += haircut_usd(balance.amount, asset.price, asset.collateral_weight)
        sums.needed += liability_margin_usd(balance.amount, asset.price, asset.liability_weight)
    sums.collateral = sums.equity - sums.haircut
    buffer = sums.collateral - sums.needed
    sums.worst_ratio = over(sums.collateral, sums.needed)
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity != 0.0:
            folio.away[i] = distance(state.market[position.market], position.quantity, buffer)
            sums.worst_distance = worse(sums.worst_distance, folio.away[i])


@lean
def sum_exposures(state: State, folio: Portfolio) -> None:
    """Exposures under every estimator, and how near the worst pool is to its end; after `sum_margin`."""
    sums = folio.sums[0]
    own = folio.work[OWN]
    total = folio.work[TOTAL]
    nearness = folio.work[NEARNESS]
    for e in range(ESTIMATORS):
        own[e] = 0.0
        total[e] = 0.0
    sums.absolute = 0.0
    sums.volatile = 0.0
    sums.moving = sums.net
    sums.price_time = state.clock[NOW]
    if folio.count[ISOLATED] != 0:
        _expose_isolated(state, folio)
        return
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        notional = notional_usd(position.quantity, market.mark)
        sums.absolute += abs(notional) * market.sigma[SIGMA_6H]
        exposure = notional * market.sigma[SIGMA_MEAN]  # the baseline's: position by position
        own[SIGMA_MEAN] += exposure * exposure
        total[SIGMA_MEAN] += exposure
        if stands_for(state, folio, i):
            _expose(own, total, netted_usd(state, folio, i), market.sigma)
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        if balance.amount == 0.0 or (asset.price_time < 0 and not math.isnan(asset.price)):
            continue  # a dollar that never had a price does not move
        worth = balance_worth_usd(balance, asset)
        sums.volatile += abs(worth)
        sums.moving += worth
        sums.price_time = min(sums.price_time, float(asset.price_time))
        sums.absolute += abs(worth) * asset.sigma[SIGMA_6H]
        exposure = worth * asset.sigma[SIGMA_MEAN]
        own[SIGMA_MEAN] += exposure * exposure
        total[SIGMA_MEAN] += exposure
        if not is_hedging(state, folio, asset.underlying):  # else counted with the position it hedges
            _expose(own, total, worth, asset.sigma)
    buffer = sums.collateral - sums.needed
    for e in range(ESTIMATORS):
        nearness[e] = over(buffer, pool_sigma(own[e], total[e]) * _DAY)
    sigma = pool_sigma(own[SIGMA_PRIOR], total[SIGMA_PRIOR]) * _DAY
    sums.worst_effective = over(effective_buffer(buffer, folio.facts[0].survived), sigma)
    sums.worst_bankruptcy = over(sums.equity - sums.closing_fees, sigma)


@lean
def _expose(
    own: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    dollars: float,
    sigma: npt.NDArray[np.float64],
) -> None:
    """Count an underlying under every estimator but the baseline's."""
    for e in range(ESTIMATORS):
        if e != SIGMA_MEAN:
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
