"""How large an order a trader sends: what margin, the book and an isolated pool allow of what is meant."""

from __future__ import annotations

import math

from exchange.compiled import lean
from exchange.simulation.entry import least_collateral_usd, stamps
from exchange.simulation.ledger import figures, holds, initial_margin_usd, micro
from exchange.simulation.market import fits_margin, initial_rate_now, most_lots, order_ticks
from exchange.simulation.state import INTENDED, MICRO, NONE, World

LEAST_ORDER_USD = 5.0


@lean
def piece_usd(world: World, market: int, hasty: bool) -> float:
    """Largest order that is sent at once, dollars."""
    s = world.settings[0]
    share = s.most_order * s.haste if hasty else s.most_order
    return float(max(share * world.market[market].depth, LEAST_ORDER_USD))


@lean
def order_to_reduce(world: World, account: int, market: int, share: float, hasty: bool) -> int:
    """Lots that close a share of a position, all of it if the rest would be too small to keep; 0 for none.

    Nobody sells into a book so thin that it would eat up what stands behind the position; nobody
    sends more than a piece. A share of two turns the position round, if margin allows it.
    """
    if not holds(world, account, market):
        return 0
    row = world.market[market]
    held = world.position[account, market].lots
    each_usd = row.lot * row.mark
    lots = math.ceil(abs(held) * share)
    if share <= 1.0 and (abs(held) - lots) * each_usd < LEAST_ORDER_USD:
        lots = abs(held)
    lots = min(lots, most_lots(world, market))
    lots = min(lots, math.ceil(piece_usd(world, market, hasty) / each_usd))
    if lots == 0:
        return 0
    order = -lots if held > 0 else lots
    ticks = order_ticks(world, market, order)
    cost_usd = lots * row.lot * abs(ticks * row.tick - row.mark)
    only = market if world.account[account].isolated else NONE
    equity, _, _, _, _, _ = figures(world, account, only)
    if cost_usd > 0.5 * equity or not fits_margin(world, account, market, order, ticks, row.taker_fee):
        return 0
    return order


@lean
def order_to_open(world: World, account: int, market: int, wanted_usd: float) -> tuple[int, int]:
    """Lots to buy (positive) or sell for up to `wanted_usd`, and micro-dollars set aside for them.

    Made smaller until initial margin is met and the book is not swept; 0 where not even the least fits.
    """
    state = world.account[account]
    row = world.market[market]
    each_usd = row.lot * row.mark
    size_usd = min(abs(wanted_usd), piece_usd(world, market, False))
    if size_usd < LEAST_ORDER_USD:
        return 0, 0
    lots = int(size_usd / each_usd)
    world.purse[INTENDED] += micro(lots * each_usd)
    lots = min(lots, most_lots(world, market))
    for _ in range(10):
        if lots * each_usd < LEAST_ORDER_USD:
            return 0, 0
        order = lots if wanted_usd > 0.0 else -lots
        ticks = order_ticks(world, market, order)
        aside = _aside(world, account, market, order, ticks) if state.isolated else 0
        position = world.position[account, market]
        if aside == 0 or aside <= state.cash:
            state.cash -= aside
            position.collateral += aside
            if fits_margin(world, account, market, order, ticks, row.taker_fee):
                return order, aside
            position.collateral -= aside
            state.cash += aside
        lots = lots * 3 // 4
    return 0, 0


@lean
def _aside(world: World, account: int, market: int, order: int, ticks: int) -> int:
    """Micro-dollars to set aside for an isolated order: by its leverage, enough for initial margin."""
    state = world.account[account]
    row = world.market[market]
    price = ticks * row.tick
    added_usd = abs(order) * row.lot * row.mark
    held_usd = abs(world.position[account, market].lots) * row.lot * row.mark
    standing_usd = 0.0
    if held_usd > 0.0:
        _, standing_usd, _, _, _, _ = figures(world, account, market)
    after_usd = held_usd + added_usd
    rate = initial_rate_now(world, market, after_usd)
    if stamps(world, account):
        lots = world.position[account, market].lots + order
        needed = max(least_collateral_usd(world, account, market, lots), after_usd * rate)
    else:
        needed = max(initial_margin_usd(world, market, after_usd), after_usd * max(rate, state.initial_rate))
    cost = abs(order) * row.lot * (abs(price - row.mark) + price * row.taker_fee)
    least = 1.05 * needed + cost - standing_usd
    return int(max(added_usd / state.leverage, least) * MICRO) + 10
