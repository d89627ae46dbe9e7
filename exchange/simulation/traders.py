"""What traders do when they look at their account: arrive, open, add, cut, pay in, take profits, leave.

Habits differ by account (`exchange.simulation.population`). No trade that adds risk and no withdrawal
leaves collateral under initial margin. The nearer a margin call, the more often an owner looks.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.compiled import lean
from exchange.simulation.chance import normal_quantile, uniform
from exchange.simulation.closing import look
from exchange.simulation.entry import least_collateral_usd, stamp_rate, stamps
from exchange.simulation.ledger import (
    figures,
    holds,
    micro,
    sell_pledged,
    snapshot,
    sweep_dust,
    transfer,
    weakest,
)  # fmt: skip
from exchange.simulation.market import (
    largest_holding,
    order_ticks,
    send,
)  # fmt: skip
from exchange.simulation.orders import LEAST_ORDER_USD, order_to_open, order_to_reduce, piece_usd
from exchange.simulation.state import (
    ABSENT,
    CARRY,
    MAKER,
    MICRO,
    NIL,
    NONE,
    NOW_S,
    OPENED,
    PRESENT,
    TRADE,
    World,
    stamp,
    whole_numbers,
)  # fmt: skip
from exchange.simulation.watch import LEVELS, enlist, watch
from exchange.units import DAY_S

NOTHING, REDUCE, OPEN, LEAVE = whole_numbers(4)
"""What a trader can mean to do; with a market and a share of the position, or signed dollars to open."""
SCATTER = 0.2
"""Log standard deviation of the leverage aimed for, from one decision to the next."""
CUSHION = 1.02
"""Collateral over initial margin that a withdrawal leaves."""


@lean
def draw(world: World, account: int) -> float:
    """The account's next random number, uniform in (0, 1)."""
    state = world.account[account]
    state.draws += np.uint64(1)
    return uniform(state.key, state.draws)


@lean
def draw_exponential(world: World, account: int, mean: float) -> float:
    """Exponential with a mean."""
    return -math.log(draw(world, account)) * mean


@lean
def turbulence(world: World) -> float:
    """Fast over calm volatility of the leading market."""
    row = world.market[0]
    return math.sqrt(row.variance / row.calm_variance)


@lean
def hurry(world: World, account: int, ratio: float) -> float:
    """Looks a day for fear of a margin call: none above the first level, more the nearer it is."""
    s = world.settings[0]
    return world.account[account].alert * s.stress_a_day * max(LEVELS[0] - ratio, 0.0) ** s.stress_power


@lean
def mood(world: World) -> float:
    """By how much turbulence makes owners look more often."""
    s = world.settings[0]
    return min(max(turbulence(world), 0.5) ** s.mood_power, s.most_mood)


@lean
def plan(world: World, account: int) -> None:
    """Draw when the owner looks next."""
    state = world.account[account]
    looks = state.deals_a_day + hurry(world, account, state.ratio)
    wait_s = draw_exponential(world, account, DAY_S / looks / mood(world))
    enlist(world, account, world.clock[NOW_S] + 1 + int(min(wait_s, 1e8)))


@lean
def come_near(world: World, account: int, before: float) -> None:
    """An account fell to a lower level of its margin ratio: stop orders go off, other owners look sooner."""
    state = world.account[account]
    if state.kind >= MAKER or state.closing != 0 or state.ratio >= before:
        return
    if state.ratio <= state.stop * 1.01 and before > state.stop:
        enlist(world, account, world.clock[NOW_S] + 1 + int(draw_exponential(world, account, 5.0)))
    else:
        plan(world, account)


@lean
def visit(world: World, account: int) -> None:
    """The owner looks at the account and may act; plans the next look, or the next piece of an order."""
    state = world.account[account]
    action, market, amount = NOTHING, NONE, 0.0
    work, hasty = state.work, False
    state.work = 0.0
    if state.status == ABSENT:
        _arrive(world, account)
        action, market, amount = _open_more(world, account, _favourite(world, account))
        if state.kind == CARRY:
            action, market, amount = _carry(world, account)
    elif state.closing == 0:
        ratio = watch(world, account)
        fear = hurry(world, account, ratio)
        hasty = ratio <= state.stop * 1.02
        if hasty:
            action, market, amount = REDUCE, largest_holding(world, account, NONE), 1.0
        elif work != 0.0:
            action, market, amount = _go_on(world, account, ratio, work)
            hasty = action == REDUCE and ratio < LEVELS[0]
        elif draw(world, account) * (fear + state.deals_a_day) < fear:
            action, market, amount = _answer_call(world, account)
            hasty = True
        elif state.kind == CARRY:
            action, market, amount = _carry(world, account)
        else:
            action, market, amount = _decide(world, account)
    else:
        plan(world, account)
        return
    first, last = market, market + 1
    if action == LEAVE:
        first, last = 0, world.market.shape[0]
    if action != NOTHING:
        for each in range(first, last):
            _act(world, account, each, action, amount, hasty)
    _tidy(world, account, action)
    look(world, account)
    if state.status == PRESENT:
        if state.work != 0.0 and state.closing == 0:
            s = world.settings[0]
            # the more is still to be sent for the depth there is, the more patiently
            times = max(abs(state.work) / world.market[state.work_market].depth, 1.0)
            mean_s = s.hasty_s if hasty else s.piece_s * times
            wait_s = draw_exponential(world, account, mean_s / mood(world))
            enlist(world, account, world.clock[NOW_S] + 1 + int(wait_s))
        else:
            plan(world, account)


@lean
def _go_on(world: World, account: int, ratio: float, work: float) -> tuple[int, int, float]:
    """The next piece of an order; nobody goes on adding near a margin call."""
    state = world.account[account]
    market = state.work_market
    row = world.market[market]
    held_usd = world.position[account, market].lots * row.lot * row.mark
    if held_usd * work < 0.0:
        return REDUCE, market, abs(work / held_usd)
    if ratio < LEVELS[1]:
        return NOTHING, NONE, 0.0
    if draw(world, account) * mood(world) > 1.0:
        state.work = work
        return NOTHING, NONE, 0.0
    return OPEN, market, work


@lean
def _act(world: World, account: int, market: int, action: int, amount: float, hasty: bool) -> None:
    """Send an order, or its first piece: what the book is too thin for is remembered as still to be sent."""
    state = world.account[account]
    row = world.market[market]
    each_usd = row.lot * row.mark
    if action == OPEN:
        wanted_usd = amount
        lots, aside = order_to_open(world, account, market, amount)
    else:
        wanted_usd = -world.position[account, market].lots * each_usd * amount
        lots, aside = order_to_reduce(world, account, market, amount, hasty), 0
    if lots == 0:
        return
    meant_usd = min(abs(wanted_usd), piece_usd(world, market, hasty))
    sent_usd = _place(world, account, market, lots, aside) * each_usd
    if action == OPEN:
        world.purse[OPENED] += micro(sent_usd)
    left_usd = abs(wanted_usd) - sent_usd
    # where margin or makers took less than the book would have, no more is tried
    if sent_usd > 0.75 * meant_usd and left_usd > max(0.05 * abs(wanted_usd), LEAST_ORDER_USD):
        state.work = math.copysign(left_usd, wanted_usd)
        state.work_market = market


@lean
def _place(world: World, account: int, market: int, lots: int, aside: int) -> int:
    """Send an order that was found to fit, lots filled; what was set aside comes back if nothing fills."""
    row = world.market[market]
    filled = send(world, account, market, lots, order_ticks(world, market, lots), row.taker_fee, TRADE)
    position = world.position[account, market]
    if filled == 0 and aside > 0:
        position.collateral -= aside
        world.account[account].cash += aside
    if filled > 0 and position.lots * lots > 0 and stamps(world, account):
        stamp_rate(world, account, market)
    return filled


@lean
def _tidy(world: World, account: int, action: int) -> None:
    """After acting: go away if that was meant, repay what is owed, and say what shows in no other row."""
    state = world.account[account]
    told = state.isolated != 0 or state.visits == 1
    if state.held == np.uint64(0):
        if action == LEAVE or state.cash < 0:
            sell_pledged(world, account)
            sweep_dust(world, account)
            told = True
        if action == LEAVE:
            if state.cash > 0:
                transfer(world, account, -state.cash)
            for asset in range(1, world.amount.shape[1]):
                world.amount[account, asset] = 0
            state.visits = 0
            _go(world, account, 5.0)
    if told:
        snapshot(world, account, stamp(world))
        state.visits = min(state.visits + 1, 1_000) if state.visits > 0 else 0


@lean
def wiped_out(world: World, account: int) -> None:
    """Half of those who lost nearly everything come back within days, most others not in time."""
    state = world.account[account]
    if state.kind >= MAKER or state.held != np.uint64(0) or state.status == ABSENT:
        return
    equity, _, _, _, _, _ = figures(world, account, NONE)
    if equity * MICRO < 0.1 * state.deposit:
        _go(world, account, 1.5 if draw(world, account) < 0.5 else 60.0)
    else:
        plan(world, account)


@lean
def _go(world: World, account: int, mean_days: float) -> None:
    """Be away for a while."""
    state = world.account[account]
    state.status = ABSENT
    state.paid_in = 0
    wait_s = draw_exponential(world, account, mean_days * DAY_S)
    enlist(world, account, world.clock[NOW_S] + 60 + int(min(wait_s, 1e8)))


@lean
def _arrive(world: World, account: int) -> None:
    """Pay in, and the first time bring what is pledged."""
    state = world.account[account]
    amount = float(state.deposit)
    if state.visits == 0:
        if state.pledge > 0:
            price = world.asset[state.pledge_asset].price
            world.amount[account, state.pledge_asset] += int(state.pledge / price)
    else:
        amount *= 0.2 + 0.8 * draw(world, account)
    paid = max(int(amount) // 10_000 * 10_000, int(LEAST_ORDER_USD * MICRO))
    state.visits = 1
    state.status = PRESENT
    transfer(world, account, paid)
    if state.pledge > 0:
        # what is pledged shows in no other row, and the first trade may lean on it
        snapshot(world, account, stamp(world))


@lean
def _answer_call(world: World, account: int) -> tuple[int, int, float]:
    """Near a margin call: pay in more, or close a part of the weakest position."""
    state = world.account[account]
    weak = weakest(world, account) if state.isolated else NONE
    if draw(world, account) < state.rescue:
        _, _, _, needed, _, _ = figures(world, account, weak)
        amount = int(needed * MICRO * (1.0 + 2.0 * draw(world, account)))
        amount = min(amount, state.deposit) // 10_000 * 10_000
        if amount >= MICRO:
            transfer(world, account, amount)
            if weak >= 0:
                state.cash -= amount
                world.position[account, weak].collateral += amount
            return NOTHING, NONE, 0.0
    return REDUCE, largest_holding(world, account, weak), 0.3 + 0.7 * draw(world, account)


@lean
def _decide(world: World, account: int) -> tuple[int, int, float]:
    """An ordinary decision: leave, pay in, take out, reduce, turn round, add."""
    state = world.account[account]
    equity, _, _, _, _, _ = figures(world, account, NONE)
    held = state.held != np.uint64(0)
    choice = draw(world, account)
    if choice < (0.01 if held else 0.03) or (not held and equity < 2.0 * LEAST_ORDER_USD):
        return LEAVE, NONE, 1.0
    if choice < 0.06:
        amount = int(state.deposit * (0.1 + 0.4 * draw(world, account))) // 10_000 * 10_000
        transfer(world, account, max(amount, int(MICRO)))
        return NOTHING, NONE, 0.0
    if choice < 0.16:
        _take_out(world, account, equity)
        return NOTHING, NONE, 0.0
    market = _favourite(world, account)
    share = 0.0
    if held:
        market, share = _manage(world, account, market, choice)
    if share > 0.0:
        return REDUCE, market, share
    return _open_more(world, account, market)


@lean
def _manage(world: World, account: int, favourite: int, choice: float) -> tuple[int, float]:
    """Which position to reduce and by what share, 0 to add: the stubborn add to losers, others cut them."""
    state = world.account[account]
    market = _one_of_held(world, account)
    position = world.position[account, market]
    row = world.market[market]
    losing = position.lots * row.lot * row.mark * MICRO < position.cost
    if losing and draw(world, account) < state.stubborn:
        return market, 0.0
    if choice < 0.42:
        return market, 1.0
    if choice < 0.52:
        return market, 0.2 + 0.5 * draw(world, account)
    if choice < 0.57:
        # an isolated position is closed rather than turned: its collateral would have to be set anew
        return market, 1.0 if state.isolated else 2.0
    return (market if draw(world, account) < 0.6 else favourite), 0.0


@lean
def _take_out(world: World, account: int, equity_usd: float) -> None:
    """Withdraw a part of what was gained, as far as initial margin allows."""
    state = world.account[account]
    free = float(state.cash)
    if not state.isolated:
        _, collateral, initial, _, _, _ = figures(world, account, NONE)
        if stamps(world, account):
            # who withdraws is asked what it would be asked for entering with what is left
            initial = max(initial, least_collateral_usd(world, account, NONE, NIL))
        free = min(free, (collateral - CUSHION * initial) * MICRO)
    amount = min(free, equity_usd * MICRO - state.paid_in) * (0.3 + 0.6 * draw(world, account))
    taken = int(amount) // 10_000 * 10_000
    if taken >= MICRO:
        transfer(world, account, -taken)


@lean
def _one_of_held(world: World, account: int) -> int:
    """A market drawn from those held, each as likely."""
    count = 0
    for market in range(world.market.shape[0]):
        if holds(world, account, market):
            count += 1
    left = int(draw(world, account) * count)
    for market in range(world.market.shape[0]):
        if holds(world, account, market):
            if left == 0:
                return market
            left -= 1
    return 0


@lean
def _favourite(world: World, account: int) -> int:
    """A market drawn from the trader's taste."""
    drawn = draw(world, account)
    for market in range(world.market.shape[0]):
        if drawn < world.taste[account, market]:
            return market
    return world.market.shape[0] - 1


@lean
def _side(world: World, account: int, market: int) -> int:
    """1 to buy, -1 to sell: that of the position if there is one, else as habit and trend have it."""
    state = world.account[account]
    held = world.position[account, market].lots
    if held != 0:
        return 1 if held > 0 else -1
    row = world.market[market]
    moved = math.log(row.outside / row.day_ago)
    chance = state.long_share + state.trend * math.tanh(moved / 0.04)
    return 1 if draw(world, account) < chance else -1


@lean
def _open_more(world: World, account: int, market: int) -> tuple[int, int, float]:
    """Open or increase towards the trader's leverage: the signed dollars to trade."""
    side = _side(world, account, market)
    equity, _, _, _, gross, _ = figures(world, account, NONE)
    if draw(world, account) * mood(world) > 1.0:
        # turbulence makes owners look more often, not buy more often
        return NOTHING, NONE, 0.0
    scatter = math.exp(SCATTER * normal_quantile(draw(world, account)))
    aimed = equity * world.account[account].leverage * scatter
    return OPEN, market, side * max(aimed - gross, 0.0)


@lean
def _carry(world: World, account: int) -> tuple[int, int, float]:
    """Stand on the side that funding pays, against spot held elsewhere; out where it pays nothing."""
    market = largest_holding(world, account, NONE)
    if market < 0:
        market = _favourite(world, account)
    row = world.market[market]
    expected = row.premium / row.premium_s if row.premium_s > 0.0 else row.funding
    held = world.position[account, market].lots
    pays = -1 if max(expected, row.funding) > 0.0 else 1
    if held * pays < 0 or abs(row.funding) < 2e-5:
        return (REDUCE if held != 0 else NOTHING), market, 1.0
    equity, _, _, _, gross, _ = figures(world, account, NONE)
    missing = equity * world.account[account].leverage - gross
    if missing > 0.1 * gross:
        return OPEN, market, pays * missing
    if missing < -0.2 * gross:
        return REDUCE, market, min(-missing / gross, 1.0)
    return NOTHING, market, 0.0
