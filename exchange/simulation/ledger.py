"""Who owns what: fills, transfers, pledged assets and the fund, booked twice so that nothing is lost.

What accounts are worth comes from `exchange.margin`, here put together for the venue's records.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from exchange.compiled import lean
from exchange.contracts import tiered_margin_usd
from exchange.margin import asset_value_usd, haircut_usd, liability_margin_usd, notional_usd, unrealised_usd
from exchange.simulation.state import (
    AT_MARK,
    BALANCES,
    DESK,
    FEES,
    FILLS,
    FUND,
    FUND_CHANGES,
    FUND_PEAK,
    HOLDINGS,
    LOSSES,
    MAKER,
    MICRO,
    NIL,
    NONE,
    PAID_IN,
    PENALTIES,
    ROUNDING,
    SNAPSHOTS,
    TRADE,
    TRANSFERS,
    World,
    stamp,
    write,
)  # fmt: skip

ONE = np.uint64(1)
NOTHING: int = cast(int, np.int64(-(2**62)))
"""Stands for a figure that there is none of."""


@lean
def micro(value_usd: float) -> int:
    """Dollars as whole micro-dollars."""
    return int(np.rint(value_usd * MICRO))


@lean
def bit(number: int) -> np.uint64:
    """The bit of a market or ring in a mask."""
    return ONE << np.uint64(number)


@lean
def holds(world: World, account: int, market: int) -> bool:
    """Whether an account has a position in a market."""
    return (world.account[account].held >> np.uint64(market)) & ONE == ONE


@lean
def quantity(world: World, account: int, market: int) -> float:
    """Signed size of a position in base units."""
    return world.position[account, market].lots * world.market[market].lot


@lean
def value_micro(world: World, market: int, lots: int, ticks: int) -> int:
    """Signed value of lots at a price in ticks, exact."""
    return lots * ticks * world.market[market].unit


@lean
def book_fill(
    world: World, account: int, market: int, lots: int, ticks: int, fee: int, kind: int, time: int
) -> None:
    """One side of a fill: position, its cost and cash leg, and a row; `fee` micro-dollars leave the account.

    The caller books the other side and the fee's receiver.
    """
    position = world.position[account, market]
    state = world.account[account]
    row = world.market[market]
    value = lots * ticks * row.unit
    held = position.lots
    now = held + lots
    if held * lots >= 0:
        position.cost += value
    elif abs(lots) <= abs(held):
        position.cost -= int(np.rint(position.cost * (abs(lots) / abs(held))))
    else:
        position.cost = now * ticks * row.unit
    position.quote -= value + fee
    position.lots = now
    row.open_lots += max(now, 0) - max(held, 0)
    if state.kind == MAKER:
        row.maker_lots += lots
    if now == 0:
        state.cash += position.quote + position.collateral
        position.quote = 0
        position.collateral = 0
        position.cost = 0
        state.held &= ~bit(market)
    else:
        state.held |= bit(market)
    write(world, FILLS, kind, time, account, market, lots, ticks, fee, NIL)


@lean
def trade(
    world: World, taker: int, maker: int, market: int, lots: int, ticks: int, fee: int, kind: int
) -> None:
    """A fill between two accounts; `lots` as the taker's. Fees are the venue's, or the fund's if forced."""
    time = stamp(world)
    book_fill(world, taker, market, lots, ticks, fee, kind, time)
    book_fill(world, maker, market, -lots, ticks, NIL, TRADE, time)
    row = world.market[market]
    row.traded += abs(lots) * ticks * row.unit
    row.last = ticks * row.tick
    if kind == TRADE:
        world.purse[FEES] += fee
    else:
        change_fund(world, fee, PENALTIES)


@lean
def change_fund(world: World, amount: int, reason: int) -> None:
    """Put money into the insurance fund or take it out, with a row."""
    if amount == 0:
        return
    world.purse[FUND] += amount
    world.purse[FUND_PEAK] = max(world.purse[FUND_PEAK], world.purse[FUND])
    write(world, FUND_CHANGES, reason, stamp(world), NONE, NONE, world.purse[FUND], amount, NIL, NIL)


@lean
def compensate(world: World, account: int, market: int, amount: int) -> None:
    """The fund makes good a loss beyond an account's equity."""
    if amount <= 0:
        return
    change_fund(world, -amount, LOSSES)
    state = world.account[account]
    if holds(world, account, market):
        world.position[account, market].quote += amount
    else:
        state.cash += amount


@lean
def transfer(world: World, account: int, amount: int) -> None:
    """Dollars in (positive) or out, micro-dollars."""
    state = world.account[account]
    state.cash += amount
    state.paid_in += amount
    world.purse[PAID_IN] += amount
    write(world, TRANSFERS, NIL, stamp(world), account, NONE, amount, NIL, NIL, NIL)


@lean
def sell_pledged(world: World, account: int) -> None:
    """The venue's desk buys as much of the pledged assets as an account needs to repay borrowed dollars."""
    state = world.account[account]
    for asset in range(1, world.amount.shape[1]):
        owed = -state.cash
        held = world.amount[account, asset]
        if owed <= 0 or held <= 0:
            continue
        price = world.asset[asset].price
        sold = min(held, math.ceil(owed / price))
        paid = math.floor(sold * price)
        world.amount[account, asset] = held - sold
        state.cash += paid
        world.purse[DESK] -= paid


@lean
def sweep_dust(world: World, account: int) -> None:
    """What rounding left of less than a cent is the venue's, so that who has nothing has nothing."""
    state = world.account[account]
    if state.held == 0 and abs(state.cash) < MICRO // 100:
        world.purse[ROUNDING] += state.cash
        state.cash = 0


@lean
def pool(
    world: World, account: int, only: int, worst: bool
) -> tuple[float, float, float, float, float, float]:
    """Equity, collateral, initial and maintenance margin, gross notional and the positions' own maintenance.

    Of the whole account (`only` -1; an isolated account's free cash then counts to its equity alone), or
    of one isolated position; dollars. With `worst`, at the worst prices of the minute for each position.
    """
    state = world.account[account]
    equity = 0.0
    haircut = 0.0
    liability = 0.0
    if only < 0:
        equity = state.cash / MICRO
        for number in range(1, world.asset.shape[0]):
            held = world.amount[account, number]
            if held != 0:
                asset = world.asset[number]
                price = asset.worst if worst else asset.price
                units = held / MICRO
                equity += asset_value_usd(units, price)
                haircut += haircut_usd(units, price, asset.collateral_weight)
                liability += liability_margin_usd(units, price, asset.liability_weight)
    initial = 0.0
    maintenance = 0.0
    gross = 0.0
    for market in range(world.market.shape[0]):
        if not holds(world, account, market) or (only >= 0 and market != only):
            continue
        position = world.position[account, market]
        row = world.market[market]
        size = position.lots * row.lot
        price = row.mark
        if worst:
            price = row.worst_low if size > 0.0 else row.worst_high
        equity += unrealised_usd(size, price, (position.quote + position.collateral) / MICRO)
        notional = abs(notional_usd(size, price))
        initial += initial_margin_usd(world, market, notional)
        maintenance += maintenance_margin_usd(world, market, notional)
        gross += notional
    own = maintenance
    initial = max(initial, state.initial_rate * gross)
    maintenance = max(maintenance, state.maintenance_rate * gross)
    return equity, equity - haircut, initial, maintenance + liability, gross, own


@lean
def initial_margin_usd(world: World, market: int, notional: float) -> float:
    """Static initial margin of a position by size."""
    row = world.market[market]
    return tiered_margin_usd(notional, row.floor, row.initial_rate, row.initial_deduction)


@lean
def maintenance_margin_usd(world: World, market: int, notional: float) -> float:
    """Static maintenance margin of a position by size."""
    row = world.market[market]
    return tiered_margin_usd(notional, row.floor, row.maintenance_rate, row.maintenance_deduction)


@lean
def figures(world: World, account: int, only: int) -> tuple[float, float, float, float, float, float]:
    """`pool` at the present marks."""
    return pool(world, account, only, AT_MARK)


@lean
def weakest(world: World, account: int) -> int:
    """Market of an isolated account's pool of the lowest margin ratio, -1 without positions."""
    best = -1
    least = math.inf
    for market in range(world.market.shape[0]):
        if holds(world, account, market):
            _, collateral, _, maintenance, _, _ = figures(world, account, market)
            ratio = collateral / maintenance
            if ratio < least:
                least = ratio
                best = market
    return best


@lean
def pay_funding(world: World, market: int, rate: float) -> None:
    """Longs pay shorts on quantity times mark; what whole micro-dollars leave over is the venue's."""
    row = world.market[market]
    each = row.lot * world.market[market].mark * rate * MICRO
    left = 0
    for account in range(world.account.shape[0]):
        if holds(world, account, market):
            position = world.position[account, market]
            due = int(np.rint(position.lots * each))
            position.quote -= due
            left += due
    world.purse[ROUNDING] += left


@lean
def snapshot(world: World, account: int, time: int) -> None:
    """Write the account's whole state at a time, microseconds: a row, its positions and balances."""
    state = world.account[account]
    equity, collateral, initial, maintenance, _, _ = figures(world, account, NONE)
    if state.isolated:
        collateral = 0.0
        for market in range(world.market.shape[0]):
            if holds(world, account, market):
                collateral += figures(world, account, market)[1]
    write(
        world, SNAPSHOTS, NIL, time, account, NONE, micro(equity), micro(collateral), micro(initial),
        micro(maintenance),
    )  # fmt: skip
    for market in range(world.market.shape[0]):
        if holds(world, account, market):
            position = world.position[account, market]
            isolated = position.collateral if state.isolated else NOTHING
            write(
                world, HOLDINGS, NIL, time, account, market, position.lots, position.quote, position.cost,
                isolated,
            )  # fmt: skip
    for asset in range(world.amount.shape[1]):
        amount = state.cash if asset == 0 else world.amount[account, asset]
        if amount != 0:
            write(world, BALANCES, NIL, time, account, asset, amount, NIL, NIL, NIL)
