"""Prices and books: how a market moves in a step, and what an order finds in it.

    mid    = outside * exp(shift + wave + push + skew)
    oracle = outside * exp(shift + spillover * wave)
    depth  = base * liquidity * presence,  liquidity -> (fast volatility / calm volatility)^-thinning

An order of size Q walks Q / depth percent of the mid and leaves the price there. What ordinary orders do
(`push`) is the venue's own and decays with the book's resilience; what forced orders do (`wave`) happens on
all venues at once, as the same move closes accounts there, and a part of it stays (`shift`). Makers shift
the price against their stock.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.book import DEPTH_AT, size_within_usd, slippage, walked
from exchange.compiled import lean
from exchange.funding import funding_rate, premium_rate
from exchange.mark import ema_weight, oracle_mark
from exchange.simulation.entry import stamps, suffices
from exchange.simulation.ledger import (
    figures,
    holds,
    initial_margin_usd,
    pay_funding,
    trade,
    transfer,
)  # fmt: skip
from exchange.simulation.state import (
    MAKER_QUEUE,
    MAKERS,
    MICRO,
    NONE,
    PRESENT,
    TRADE,
    World,
)  # fmt: skip

MOST_MAKERS = 4
"""Makers that share one order."""


@lean
def quote(world: World, market: int) -> None:
    """Mid, oracle, depth and spread from the present state of a market; the mark is left alone."""
    s = world.settings[0]
    row = world.market[market]
    row.mid = row.outside * math.exp(row.shift + row.wave + row.push + row.skew)
    row.oracle = row.outside * math.exp(row.shift + s.spillover * row.wave)
    row.depth = row.base_depth * row.liquidity * row.presence
    turbulence = math.sqrt(row.variance / row.calm_variance)
    row.spread = min(row.calm_spread * max(turbulence, 0.7) ** s.spread_power, 0.05)


@lean
def move(world: World, market: int, outside: float, elapsed_s: float) -> None:
    """Let a market take the outside price and `elapsed_s` of decay; makes the new mark."""
    s = world.settings[0]
    row = world.market[market]
    before = row.mid
    row.previous_oracle = row.oracle
    row.outside = outside
    # the farther off the price, the more comes in from elsewhere to bring it back
    off = abs(row.push) + abs(row.wave)
    decay = math.exp(-elapsed_s / s.resilience_s * (1.0 + off / s.snap))
    row.push *= decay
    row.wave *= decay
    calm_depth = row.base_depth
    if calm_depth > 0.0:
        stock_usd = row.maker_lots * row.lot * before
        target = -s.impact * s.skew * DEPTH_AT * stock_usd / calm_depth
        target = min(max(target, -s.most_skew), s.most_skew)
        row.skew += ema_weight(elapsed_s, s.resilience_s) * (target - row.skew)
    quote(world, market)
    change = math.log(row.mid / before)
    keep = 0.5 ** (elapsed_s / s.variance_half_life_s)
    row.variance = keep * row.variance + (1.0 - keep) * change * change * (60.0 / elapsed_s)
    turbulence = math.sqrt(row.variance / row.calm_variance)
    wanted = min(max(turbulence**-s.thinning, s.least_liquidity), s.most_liquidity)
    constant = s.withdraw_s if wanted < row.liquidity else s.return_s
    row.liquidity += ema_weight(elapsed_s, constant) * (wanted - row.liquidity)
    quote(world, market)
    row.basis += ema_weight(elapsed_s, s.basis_s) * (row.mid - row.oracle - row.basis)
    best_bid = row.mid * (1.0 - row.spread)
    best_ask = row.mid * (1.0 + row.spread)
    price = oracle_mark(row.oracle, row.basis, best_bid, best_ask, row.last, row.oracle)
    price = max(np.rint(price / row.tick), 1.0) * row.tick
    row.mark = price
    row.high = max(row.high, price)
    row.low = min(row.low, price)
    small = 0.5 * DEPTH_AT * s.impact_share
    premium = premium_rate(row.oracle, best_bid * (1.0 - small), best_ask * (1.0 + small))
    row.premium += premium * elapsed_s
    row.premium_s += elapsed_s


@lean
def settle_funding(world: World, market: int, share: float) -> None:
    """Pay funding for the interval that ends now; `share` is the part of 8 hours that it is."""
    s = world.settings[0]
    row = world.market[market]
    mean = row.premium / row.premium_s if row.premium_s > 0.0 else 0.0
    row.funding = funding_rate(mean, s.interest_rate, s.funding_clamp, s.funding_cap, share)
    row.premium = 0.0
    row.premium_s = 0.0
    pay_funding(world, market, row.funding)
    row.paid = row.funding


@lean
def order_ticks(world: World, market: int, lots: int) -> int:
    """Average price in ticks at which an order fills, rounded against it; at least one tick."""
    row = world.market[market]
    size_usd = abs(lots) * row.lot * row.mid
    away = slippage(size_usd, row.depth, row.spread)
    if lots > 0:
        return math.ceil(row.mid * (1.0 + away) / row.tick)
    return max(math.floor(row.mid * (1.0 - away) / row.tick), 1)


@lean
def most_lots(world: World, market: int) -> int:
    """Largest order that the book takes at once."""
    row = world.market[market]
    room_usd = size_within_usd(world.settings[0].most_walk, row.depth)
    return int(min(room_usd / (row.lot * row.mid), 1e15))


@lean
def initial_rate_now(world: World, market: int, notional_usd: float) -> float:
    """Least initial margin rate that open interest (dYdX) and size (Drift) ask for; 0 where both are off."""
    s = world.settings[0]
    row = world.market[market]
    rate = 0.0
    if s.open_interest_low_usd < math.inf:
        open_usd = row.open_lots * row.lot * world.market[market].mark
        width = s.open_interest_high_usd - s.open_interest_low_usd
        base = row.initial_rate[0]
        share = min(max((open_usd - s.open_interest_low_usd) / width, 0.0), 1.0)
        rate = base + share * (1.0 - base)
    if s.size_factor > 0.0:
        units = notional_usd / world.market[market].mark
        base = row.initial_rate[0]
        rate = max(rate, base, 0.8 * base + s.size_factor * math.sqrt(units))
    return rate


@lean
def fits_margin(world: World, account: int, market: int, lots: int, ticks: int, fee_rate: float) -> bool:
    """Whether collateral meets initial margin after a fill; a fill that only reduces always fits.

    Isolated positions are judged by the collateral that is already theirs.
    """
    row = world.market[market]
    held = world.position[account, market].lots
    now = held + lots
    if held * lots < 0 and abs(lots) <= abs(held):
        return True
    state = world.account[account]
    mark = world.market[market].mark
    price = ticks * row.tick
    cost = lots * row.lot * (price - mark) + abs(lots) * row.lot * price * fee_rate + 2.0 / MICRO
    before_usd = abs(held) * row.lot * mark
    after_usd = abs(now) * row.lot * mark
    if state.isolated:
        collateral = world.position[account, market].collateral / MICRO
        if held != 0:
            _, collateral, _, _, _, _ = figures(world, account, market)
        initial = 0.0
        gross = 0.0
    else:
        _, collateral, initial, _, gross, _ = figures(world, account, NONE)
        initial -= initial_margin_usd(world, market, before_usd)
        gross -= before_usd
    needed = max(
        initial_margin_usd(world, market, after_usd), after_usd * initial_rate_now(world, market, after_usd)
    )
    if stamps(world, account):
        return collateral - cost >= needed and suffices(world, account, market, now, collateral - cost)
    needed = max(initial + needed, state.initial_rate * (gross + after_usd))
    return collateral - cost >= needed


@lean
def _maker_takes(world: World, account: int, market: int, lots: int, ticks: int) -> bool:
    """Whether a maker can take `lots`, bringing in what its hedge elsewhere gained where that is needed."""
    state = world.account[account]
    if state.status != PRESENT or state.closing != 0:
        return False
    if fits_margin(world, account, market, lots, ticks, 0.0):
        return True
    tend_maker(world, account)
    return fits_margin(world, account, market, lots, ticks, 0.0)


@lean
def tend_maker(world: World, account: int) -> None:
    """Pay in what a maker lacks, as far as it can reach, or take out what it does not need."""
    s = world.settings[0]
    state = world.account[account]
    if state.status != PRESENT or state.closing != 0:
        return
    _, collateral, initial, _, _, _ = figures(world, account, NONE)
    if collateral < s.maker_low * initial:
        reach = int(s.maker_reach * state.deposit) + state.deposit - state.paid_in
        lacking = int((s.maker_level * initial - collateral) * MICRO)
        amount = min(lacking, reach)
        if amount > MICRO:
            transfer(world, account, amount)
    elif collateral > s.maker_high * initial and state.cash > 2 * state.deposit:
        free = int((collateral - s.maker_level * initial) * MICRO)
        amount = min(free, state.cash - state.deposit)
        if amount > 100 * MICRO:
            transfer(world, account, -amount)


@lean
def send(world: World, account: int, market: int, lots: int, ticks: int, fee_rate: float, kind: int) -> int:
    """Fill `lots` (signed) for an account at `ticks` with makers, push the price; lots filled, 0 to all.

    The caller has seen to margin and price. Makers fill in turn; who has no margin left is passed over.
    """
    row = world.market[market]
    makers = world.clock[MAKERS]
    left = lots
    chunk = max(abs(lots) // MOST_MAKERS, 1)
    small = abs(lots) * ticks * row.unit < 5_000 * MICRO
    tried = 0
    filled = 0
    while left != 0 and tried < makers:
        row.turn = (row.turn + 1) % makers
        maker = world.queue[MAKER_QUEUE, row.turn]
        tried += 1
        if maker == account:
            continue
        part = left if small else min(abs(left), chunk) * (1 if lots > 0 else -1)
        if abs(left) - abs(part) < chunk:
            part = left
        if not _maker_takes(world, maker, market, -part, ticks):
            continue
        paid = abs(part) * ticks * row.unit * fee_rate
        # a penalty is rounded down: it may take all that is left, and no more
        fee = math.ceil(paid) if kind == TRADE else math.floor(paid)
        trade(world, account, maker, market, part, ticks, fee, kind)
        filled += part
        left -= part
    if filled != 0:
        size_usd = abs(filled) * row.lot * row.mid
        push = math.copysign(world.settings[0].impact * walked(size_usd, row.depth), filled)
        if kind == TRADE:
            row.push += world.settings[0].ordinary_share * push
        else:
            row.wave += (1.0 - world.settings[0].permanent_share) * push
            row.shift += world.settings[0].permanent_share * push
        quote(world, market)
    return abs(filled)


@lean
def count_makers(world: World) -> None:
    """Share of makers who quote: those whose collateral still exceeds initial margin."""
    quoting = 0
    for number in range(world.clock[MAKERS]):
        account = world.queue[MAKER_QUEUE, number]
        tend_maker(world, account)
        state = world.account[account]
        if state.status == PRESENT and state.closing == 0:
            _, collateral, initial, _, _, _ = figures(world, account, NONE)
            if collateral > 1.2 * initial:
                quoting += 1
    share = max(quoting / max(world.clock[MAKERS], 1), 0.02)
    for market in range(world.market.shape[0]):
        world.market[market].presence = share


@lean
def largest_holding(world: World, account: int, only: int) -> int:
    """Market of the position with the greatest notional, or `only` where given; -1 without positions."""
    if only >= 0:
        return only if holds(world, account, only) else -1
    best = -1
    greatest = 0.0
    for market in range(world.market.shape[0]):
        if holds(world, account, market):
            notional = abs(world.position[account, market].lots) * world.market[market].lot
            notional *= world.market[market].mark
            if notional > greatest:
                greatest = notional
                best = market
    return best
