"""Forced closing: in steps through the book, then the backstop, the insurance fund, and deleveraging.

It begins where a pool's collateral is under maintenance and runs until collateral exceeds it by the safety
margin or nothing is left. Each position answers for its share of the pool's equity: closed better than its
bankruptcy price it pays a penalty out of the difference, closed worse the fund pays. What the fund cannot
pay is closed against winners at the deleveraging price, so that no account ends below zero.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.compiled import lean
from exchange.deleveraging import PRO_RATA, capping_level, deleverage_price, rank, share_pro_rata
from exchange.insurance import settle_close
from exchange.liquidation import (
    goes_to_backstop,
    is_safe_again,
    must_liquidate,
    penalty_rate,
    step_notional_usd,
)
from exchange.margin import bankruptcy_price, bankruptcy_share_usd
from exchange.simulation.chance import uniform
from exchange.simulation.ledger import (
    book_fill,
    compensate,
    figures,
    holds,
    maintenance_margin_usd,
    micro,
    quantity,
    sell_pledged,
    snapshot,
    sweep_dust,
    trade,
    weakest,
)  # fmt: skip
from exchange.simulation.market import (
    fits_margin,
    largest_holding,
    most_lots,
    order_ticks,
    send,
    tend_maker,
)  # fmt: skip
from exchange.simulation.state import (
    ACTIVE,
    ACTIVE_QUEUE,
    BACKSTOP,
    DELEVERAGE,
    DELEVERAGED,
    DUE_QUEUE,
    EVENTS,
    FEES,
    FUND,
    LIQUIDATED,
    LIQUIDATION,
    MAKER,
    MICRO,
    NEGATIVE,
    NIL,
    NONE,
    NOW_S,
    ORDER_QUEUE,
    RANK,
    SIZE,
    SORT_KEY,
    TAKEN,
    TRADE,
    WEIGHT,
    World,
    stamp,
    write,
)  # fmt: skip
from exchange.simulation.watch import unhang, watch
from exchange.sorting import sort_by


@lean
def log_event(world: World, account: int, kind: int, market: int, notional: int, shortfall: int) -> None:
    """Write a row of `default_events`; micro-dollars."""
    write(world, EVENTS, kind, stamp(world), account, market, notional, shortfall, NIL, NIL)


@lean
def look(world: World, account: int) -> float:
    """Look at an account: begin forced closing where it must, else hang it anew; its lowest margin ratio."""
    state = world.account[account]
    if state.closing != 0:
        return state.ratio
    ratio = watch(world, account)
    if ratio > 1.0 or state.held == np.uint64(0):
        return ratio
    only = weakest(world, account) if state.isolated else NONE
    _, collateral, _, maintenance, gross, _ = figures(world, account, only)
    if not must_liquidate(collateral, maintenance, world.rule[0]):
        return ratio
    if state.kind == MAKER:
        tend_maker(world, account)
        ratio = watch(world, account)
        _, collateral, _, maintenance, gross, _ = figures(world, account, only)
        if not must_liquidate(collateral, maintenance, world.rule[0]):
            return ratio
    unhang(world, account)
    snapshot(world, account, stamp(world))
    state.first_market = largest_holding(world, account, only)
    log_event(world, account, LIQUIDATED, state.first_market, int(gross * MICRO), NIL)
    state.closing = only + 1 if only >= 0 else -1
    state.steps = 0
    state.first_notional = gross
    state.next_step_s = world.clock[NOW_S]
    state.shortfall = 0
    world.queue[ACTIVE_QUEUE, world.clock[ACTIVE]] = account
    world.clock[ACTIVE] += 1
    return ratio


@lean
def advance_closings(world: World) -> int:
    """One step of every forced closing that is due, in the order in which they began; how many are over.

    Those that are over are in the queue of due accounts; the caller looks at them anew.
    """
    running = world.clock[ACTIVE]
    kept = 0
    over = 0
    for number in range(running):
        account = world.queue[ACTIVE_QUEUE, number]
        state = world.account[account]
        only = state.closing - 1 if state.closing > 0 else NONE
        market = largest_holding(world, account, only)
        _, collateral, _, maintenance, gross, _ = figures(world, account, only)
        ends = market < 0 or is_safe_again(collateral, maintenance, world.rule[0], gross)
        if not ends and state.next_step_s <= world.clock[NOW_S]:
            if goes_to_backstop(collateral, maintenance, world.rule[0]) and state.kind != BACKSTOP:
                _hand_over(world, account, only)
                market = largest_holding(world, account, only)
            if market >= 0:
                _close(world, account, only, market)
                state.steps += 1
                wait_s = math.ceil(world.rule[0].cooldown_s) if world.rule[0].waits != 0 else 1.0
                state.next_step_s = world.clock[NOW_S] + int(wait_s)
                if state.isolated or state.shortfall > 0:
                    # neither what happened to isolated collateral nor what the fund paid shows in another row
                    snapshot(world, account, stamp(world))
            ends = largest_holding(world, account, only) < 0
        if ends:
            _settle(world, account)
            world.queue[DUE_QUEUE, over] = account
            over += 1
        else:
            world.queue[ACTIVE_QUEUE, kept] = account
            kept += 1
    # those that began meanwhile, as deleveraging weakened them
    for number in range(running, world.clock[ACTIVE]):
        world.queue[ACTIVE_QUEUE, kept] = world.queue[ACTIVE_QUEUE, number]
        kept += 1
    world.clock[ACTIVE] = kept
    return over


@lean
def bankruptcy_ticks(world: World, account: int, only: int, market: int) -> int:
    """Bankruptcy price of a position in ticks, rounded in the account's favour: it never owes dust."""
    equity, _, _, _, _, own = figures(world, account, only)
    row = world.market[market]
    size = quantity(world, account, market)
    mark = world.market[market].mark
    needed = maintenance_margin_usd(world, market, abs(size) * mark)
    price = bankruptcy_price(size, mark, bankruptcy_share_usd(equity, needed, own))
    if math.isnan(price):
        return 1
    if size > 0.0:
        return max(math.ceil(price / row.tick), 1)
    return max(math.floor(price / row.tick), 1)


@lean
def _close(world: World, account: int, only: int, market: int) -> None:
    """One step of closing a position: through the book, with the fund's help, or against winners."""
    row = world.market[market]
    state = world.account[account]
    held = world.position[account, market].lots
    each_usd = row.lot * row.mark
    wanted_usd = step_notional_usd(abs(held) * each_usd, state.first_notional, state.steps, world.rule[0])
    lots = min(math.ceil(wanted_usd / each_usd), abs(held))
    side = 1 if held > 0 else -1
    limit = bankruptcy_ticks(world, account, only, market)
    sent = min(lots, most_lots(world, market))
    if sent > 0:
        ticks = order_ticks(world, market, -side * sent)
        size = side * sent * row.lot
        share = maintenance_margin_usd(world, market, abs(held) * each_usd) / (abs(held) * each_usd)
        penalty = min(row.liquidation_fee, penalty_rate(share, world.rule[0]))
        to_fund, _ = settle_close(size, ticks * row.tick, limit * row.tick, penalty)
        each = max(side * (limit - ticks) * row.unit, 0)
        rate = 0.0
        if each > 0:
            sent = min(sent, world.purse[FUND] // each)
        else:
            rate = to_fund / (abs(size) * ticks * row.tick)
        filled = send(world, account, market, -side * sent, ticks, rate, LIQUIDATION) if sent > 0 else 0
        compensate(world, account, market, filled * each)
        state.shortfall += filled * each
        lots = min(lots - filled, abs(world.position[account, market].lots))
    if lots > 0 and _is_spent(world, account, only, market):
        _deleverage(world, account, market, lots, limit)


@lean
def _is_spent(world: World, account: int, only: int, market: int) -> bool:
    """Whether the fund cannot pay for even one more lot of a position that is worse than bankrupt at mark."""
    row = world.market[market]
    limit = bankruptcy_ticks(world, account, only, market)
    side = 1 if world.position[account, market].lots > 0 else -1
    ticks = order_ticks(world, market, -side)
    worse = side * (limit - ticks)
    return worse > 0 and world.purse[FUND] < worse * row.unit


@lean
def _hand_over(world: World, account: int, only: int) -> None:
    """The backstop takes positions over at their bankruptcy prices, as far as its margin and limit reach."""
    backstop = world.account.shape[0] - 1
    if world.account[backstop].closing != 0:
        return
    for market in range(world.market.shape[0]):
        if not holds(world, account, market) or (only >= 0 and market != only):
            continue
        equity, _, _, _, _, _ = figures(world, account, only)
        if equity <= 0.0:
            return
        lots = world.position[account, market].lots
        ticks = bankruptcy_ticks(world, account, only, market)
        own_usd, _, _, _, gross_usd, _ = figures(world, backstop, NONE)
        added_usd = abs(lots) * world.market[market].lot * world.market[market].mark
        if gross_usd + added_usd > world.settings[0].backstop_leverage * own_usd:
            continue
        if not fits_margin(world, backstop, market, lots, ticks, 0.0):
            continue
        trade(world, account, backstop, market, -lots, ticks, NIL, LIQUIDATION)
    watch(world, backstop)


@lean
def work_out(world: World, elapsed_s: float) -> None:
    """The backstop sells what it took over, a little at a time."""
    backstop = world.account.shape[0] - 1
    if world.account[backstop].held == np.uint64(0) or world.account[backstop].closing != 0:
        return
    for market in range(world.market.shape[0]):
        if not holds(world, backstop, market):
            continue
        row = world.market[market]
        held = world.position[backstop, market].lots
        most_usd = row.depth * world.settings[0].backstop_rate * min(elapsed_s, 10.0)
        lots = min(max(int(most_usd / (row.lot * row.mid)), 1), abs(held))
        order = -lots if held > 0 else lots
        send(world, backstop, market, order, order_ticks(world, market, order), 0.0, TRADE)
    look(world, backstop)


@lean
def _settle(world: World, account: int) -> None:
    """Forced closing is over: settle what the account owes and say what it cost."""
    state = world.account[account]
    only = state.closing - 1 if state.closing > 0 else NONE
    if only < 0 and state.held == np.uint64(0):
        sell_pledged(world, account)
        owed = -state.cash
        if owed > 0:
            paid = min(owed, world.purse[FUND])
            compensate(world, account, NIL, paid)
            world.purse[FEES] -= owed - paid
            state.cash += owed - paid
            if owed >= MICRO // 100:
                state.shortfall += owed
        sweep_dust(world, account)
    flat = largest_holding(world, account, only) < 0
    if flat and state.shortfall > 0:
        notional = int(state.first_notional * MICRO)
        log_event(world, account, NEGATIVE, state.first_market, notional, state.shortfall)
    state.closing = 0
    snapshot(world, account, stamp(world))


# ---- deleveraging


@lean
def _make_ranking(world: World, market: int, side: int) -> int:
    """Rank everybody whose position is opposite to `side` (1: losers are long); how many.

    Their ranks, falling, are in `world.scratch[RANK]`.
    """
    mark = world.market[market].mark
    before = world.scratch[RANK]
    who = world.queue[ORDER_QUEUE]
    count = 0
    for account in range(world.account.shape[0]):
        if not holds(world, account, market) or world.position[account, market].lots * side > 0:
            continue
        state = world.account[account]
        only = market if state.isolated else NONE
        equity, _, _, maintenance, gross, own = figures(world, account, only)
        wallet = equity
        for other in range(world.market.shape[0]):
            if holds(world, account, other) and (only < 0 or other == only):
                wallet -= quantity(world, account, other) * world.market[other].mark
                wallet += world.position[account, other].cost / MICRO
        size = quantity(world, account, market)
        entry = world.position[account, market].cost / MICRO / size
        needed = maintenance_margin_usd(world, market, abs(size) * mark)
        bankrupt = bankruptcy_price(size, mark, bankruptcy_share_usd(equity, needed, own))
        chance = uniform(state.key ^ np.uint64(0x5DEECE66D), np.uint64(world.clock[NOW_S]))
        score = rank(
            world.settings[0].deleveraging, size, entry, mark, equity, wallet, maintenance, gross, bankrupt,
            chance,
        )  # fmt: skip
        # those on no list come last: somebody has to be on the other side
        before[count] = -score if not math.isnan(score) else math.inf
        who[count] = account
        count += 1
    sort_by(before, who, count)
    entry = world.ranking[market, 0 if side > 0 else 1]
    entry[0] = world.clock[NOW_S]
    entry[1] = count
    entry[2] = 0
    for number in range(count):
        entry[3 + number] = who[number]
        before[number] = -before[number]
    return count


@lean
def _bearable(world: World, account: int, market: int, side: int, ticks: int) -> int:
    """Lots of a winner that can be closed at a price before all that stands behind them is used up."""
    row = world.market[market]
    held = abs(world.position[account, market].lots)
    loss = side * (ticks - int(np.rint(row.mark / row.tick))) * row.unit
    if loss <= 0:
        return held
    equity, _, _, _, _, _ = figures(world, account, market if world.account[account].isolated else NONE)
    return min(held, micro(max(equity, 0.0)) // loss)


@lean
def _next_winner(world: World, market: int, side: int, loser: int, ticks: int) -> int:
    """The account to be deleveraged next, -1 for none; remembers its place."""
    entry = world.ranking[market, 0 if side > 0 else 1]
    for attempt in range(2):
        stale = world.clock[NOW_S] - entry[0] > world.settings[0].ranking_s
        if stale or attempt == 1:
            _make_ranking(world, market, side)
        while entry[2] < entry[1]:
            account = entry[3 + entry[2]]
            if (
                account != loser
                and holds(world, account, market)
                and world.position[account, market].lots * side < 0
                and _bearable(world, account, market, side, ticks) > 0
            ):
                return account
            entry[2] += 1
    return -1


@lean
def _deleverage(world: World, account: int, market: int, lots: int, limit: int) -> None:
    """Close `lots` against winners, first in rank first; what no winner can take stays for the next step."""
    row = world.market[market]
    mark = world.market[market].mark
    side = 1 if world.position[account, market].lots > 0 else -1
    price = deleverage_price(
        world.settings[0].deleveraging_price, limit * row.tick, mark, row.previous_oracle
    )
    ticks = max(int(np.rint(price / row.tick)), 1)
    if world.settings[0].deleveraging == PRO_RATA:
        lots -= _share_out(world, account, market, lots, ticks, limit)
    while lots > 0:
        winner = _next_winner(world, market, side, account, ticks)
        if winner < 0:
            return
        part = min(lots, _bearable(world, winner, market, side, ticks))
        _set_off(world, account, winner, market, part, ticks, limit)
        lots -= part


@lean
def _share_out(world: World, account: int, market: int, lots: int, ticks: int, limit: int) -> int:
    """Close lots against all winners in proportion to their profit, none beyond its position; lots closed."""
    side = 1 if world.position[account, market].lots > 0 else -1
    count = _make_ranking(world, market, side)
    entry = world.ranking[market, 0 if side > 0 else 1]
    profit, size, taken = world.scratch[RANK], world.scratch[SIZE], world.scratch[TAKEN]
    level, order = world.scratch[SORT_KEY], world.queue[ORDER_QUEUE]
    for number in range(count):
        size[number] = abs(world.position[entry[3 + number], market].lots)
        level[number] = capping_level(profit[number], size[number])
        order[number] = number
    sort_by(level, order, count)
    share_pro_rata(
        profit[:count], size[:count], float(lots), order[:count], world.scratch[WEIGHT][: count + 1],
        taken[:count],
    )  # fmt: skip
    left = lots
    for number in range(count):
        winner = entry[3 + number]
        held = world.position[winner, market].lots
        if held * side >= 0 or winner == account:
            continue
        part = min(math.ceil(taken[number] - 1e-9), left, _bearable(world, winner, market, side, ticks))
        if part > 0:
            _set_off(world, account, winner, market, part, ticks, limit)
            left -= part
    return lots - left


@lean
def _set_off(world: World, account: int, winner: int, market: int, part: int, ticks: int, limit: int) -> None:
    """Close lots of a loser against a winner at a price in ticks."""
    row = world.market[market]
    side = 1 if world.position[account, market].lots > 0 else -1
    time = stamp(world)
    book_fill(world, account, market, -side * part, ticks, NIL, LIQUIDATION, time)
    book_fill(world, winner, market, side * part, ticks, NIL, DELEVERAGE, time)
    row.traded += part * ticks * row.unit
    # at another price than bankruptcy the venue answers for what the account lacks
    gap = max(side * (limit - ticks) * part * row.unit, 0)
    if holds(world, account, market):
        world.position[account, market].quote += gap
    else:
        world.account[account].cash += gap
    world.purse[FEES] -= gap
    loss = max(int(side * (limit * row.tick - row.mark) * part * row.lot * MICRO), 0)
    taken = int(part * row.lot * row.mark * MICRO)
    log_event(world, winner, DELEVERAGED, market, taken, loss)
    world.account[account].shortfall += max(loss, gap)
    if world.account[winner].isolated:
        snapshot(world, winner, stamp(world))
    look(world, winner)
