"""One account copied out of the state, and its pools summed up: what the sweep and every vector begin with.

An isolated account is as many margin pools as it has positions; what says how close liquidation is
(margin ratio, distance, buffer over sigma) is that of the worst one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exchange.account import (
    asset_value_usd,
    haircut_usd,
    liability_margin_usd,
    notional_usd,
    unrealised_usd,
)
from exchange.compiled import compiled, inlined, lean, prefetch
from exchange.contracts import tiered_margin_usd
from features.arithmetic import FAR, distance, over, worse
from features.state import (
    BALANCES,
    CASH,
    FREE_POSITION,
    INITIAL_IN_FORCE,
    ISOLATED,
    MAINTENANCE_IN_FORCE,
    POSITIONS,
    Portfolio,
    State,
)


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


@inlined
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


@inlined
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


@compiled
def quantities(state: State, accounts: npt.NDArray[np.int64], markets: int) -> npt.NDArray[np.float64]:
    """Quantity that each account holds of each market, float64[accounts, markets], 0 where none."""
    out = np.zeros((len(accounts), markets))
    for row in range(len(accounts)):
        slot = state.account[accounts[row]].first_position
        while slot >= 0:
            out[row, state.position[slot].market] += state.position[slot].quantity
            slot = state.position[slot].next
    return out


@inlined
def sum_margin(state: State, folio: Portfolio) -> None:
    """Equity, collateral and margin, and how far each position is from its liquidation price."""
    sum_pools(state, folio)
    sums = folio.sums[0]
    sums.worst_distance = FAR
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity != 0.0:
            folio.away[i] = distance(state.market[position.market], position.quantity, behind(folio, i))
            sums.worst_distance = worse(sums.worst_distance, folio.away[i])


@inlined
def behind(folio: Portfolio, place: int) -> float:
    """Collateral above maintenance in the pool of the position at `place`, once `sum_pools` has been here."""
    sums = folio.sums[0]
    return folio.away[place] if folio.count[ISOLATED] != 0 else sums.collateral - sums.needed


@inlined
def sum_pools(state: State, folio: Portfolio) -> None:
    """Equity, collateral and margin; `folio.away` then holds the buffer of every isolated position."""
    sums = folio.sums[0]
    isolated = folio.count[ISOLATED] != 0
    gross = 0.0
    net = 0.0
    maintenance = 0.0
    closing_fees = 0.0
    equity = 0.0
    worst_ratio = FAR
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
        gross += size
        net += notional
        maintenance += needed
        closing_fees += size * market.liquidation_fee_rate
        if isolated:
            pool = position.isolated_collateral + unrealised_usd(
                position.quantity, market.mark, position.quote
            )
            equity += pool
            worst_ratio = worse(worst_ratio, over(pool, needed))
            folio.away[i] = pool - needed
    haircut = 0.0
    pledged = 0.0
    needed = maintenance
    if not isolated:  # free balances stand behind no isolated position
        equity = folio.account[CASH] + net
        for i in range(folio.count[BALANCES]):
            balance = folio.balance[i]
            asset = state.asset[balance.asset]
            worth = asset_value_usd(balance.amount, asset.price)
            equity += worth
            pledged += abs(worth)
            haircut += haircut_usd(balance.amount, asset.price, asset.collateral_weight)
            needed += liability_margin_usd(balance.amount, asset.price, asset.liability_weight)
        worst_ratio = over(equity - haircut, needed)
    sums.gross = gross
    sums.net = net
    sums.maintenance = maintenance
    sums.closing_fees = closing_fees
    sums.equity = equity
    sums.haircut = haircut
    sums.pledged = pledged
    sums.needed = needed
    sums.collateral = equity - haircut
    sums.worst_ratio = worst_ratio
