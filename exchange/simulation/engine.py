"""The venue's clock: what happens in a minute, and in which order.

On the minute: outside prices, marks, funding, margin; then traders, each at a second of its own. A minute is
gone through second by second where something happens in it: an account would be under maintenance if every
price went to its worst of the minute at once, a forced closing runs, or markets are turbulent.
"""

from __future__ import annotations

import numpy as np

from exchange.compiled import lean
from exchange.simulation.chance import substream
from exchange.simulation.closing import advance_closings, look, work_out
from exchange.simulation.ledger import snapshot
from exchange.simulation.market import count_makers, move, settle_funding
from exchange.simulation.state import (
    ABSENT,
    ACTIVE,
    AGENDA_MINUTE,
    AT_MARK,
    BACKSTOP,
    BARS,
    DUE_QUEUE,
    FULL,
    LOGGED,
    MAKER,
    MAKER_QUEUE,
    MAKERS,
    NIL,
    NOW_S,
    PRESENT,
    RECORDING,
    RUNNING_S,
    SORT_KEY,
    TICK,
    VISIT_QUEUE,
    World,
    moment,
)  # fmt: skip
from exchange.simulation.traders import come_near, turbulence, visit, wiped_out
from exchange.simulation.watch import AGENDA, collect_due, enlist, unlist, would_be_closed
from exchange.simulation.within import within_minute
from exchange.sorting import sort_by
from exchange.units import DAY_S, HOUR_S

DAY_MINUTES = 1_440
HISTORY_BAR_MINUTES = 5
MAKER_SECONDS = 15
"""Makers look after their margin this often where every second is looked at."""
PRICE_SLACK = 0.0005
"""By how much a mark may leave the outside price's range within a calm minute when the worst is tried."""


@lean
def set_clock(world: World, now_s: int) -> None:
    """Go on to a second."""
    if world.clock[NOW_S] != now_s:
        world.clock[NOW_S] = now_s
        world.clock[TICK] = 0


@lean
def _record_bars(world: World) -> None:
    """A row for every market, and a new bar begins."""
    for market in range(world.market.shape[0]):
        row = world.market[market]
        at = world.clock[BARS]
        if at >= world.bars.shape[0]:
            world.clock[FULL] = 1
            return
        world.clock[BARS] = at + 1
        bar = world.bars[at]
        bar.time = moment(world)
        bar.market = market
        bar.close = row.mark
        bar.index = row.oracle
        bar.opening = row.opening
        bar.high = row.high
        bar.low = row.low
        bar.volume = row.traded / 1e6
        bar.open_interest = row.open_lots * row.lot * row.mark
        bar.bid = row.mid * (1.0 - row.spread)
        bar.ask = row.mid * (1.0 + row.spread)
        bar.depth = row.depth
        bar.funding = row.paid
        row.opening = row.mark
        row.high = row.mark
        row.low = row.mark
        row.traded = 0
        row.paid = np.nan


@lean
def _mind_makers(world: World) -> None:
    """Makers see to their margin; their positions change with every order, so each of them is looked at."""
    count_makers(world)
    for number in range(world.clock[MAKERS]):
        account = world.queue[MAKER_QUEUE, number]
        if world.account[account].held != np.uint64(0):
            look(world, account)


@lean
def _call_margin(world: World) -> None:
    """Look at every account whose prices were reached."""
    count = collect_due(world, AT_MARK)
    for number in range(count):
        account = world.queue[DUE_QUEUE, number]
        before = world.account[account].ratio
        look(world, account)
        come_near(world, account, before)


@lean
def _close_by_force(world: World) -> None:
    """Go on with forced closing; whoever is free again is looked at anew."""
    over = advance_closings(world)
    for number in range(over):
        account = world.queue[DUE_QUEUE, number]
        look(world, account)
        if world.account[account].closing == 0:
            wiped_out(world, account)


@lean
def _deepen(world: World) -> None:
    """Books follow the open interest of their markets."""
    weight = min(HOUR_S / (world.settings[0].depth_days * DAY_S), 1.0)
    for market in range(world.market.shape[0]):
        row = world.market[market]
        open_usd = row.open_lots * row.lot * row.mark
        calm_usd = max(row.depth_share * open_usd, row.least_depth)
        row.base_depth += weight * (calm_usd - row.base_depth)


@lean
def _look_at_all(world: World) -> None:
    """Look at every account that holds anything, as funding has changed them all."""
    for account in range(world.account.shape[0]):
        if world.account[account].held != np.uint64(0):
            look(world, account)


@lean
def _daily(world: World) -> None:
    """The whole venue as it stands at midnight."""
    for account in range(world.account.shape[0]):
        if world.account[account].visits > 0 or world.account[account].held != np.uint64(0):
            snapshot(world, account, moment(world))


@lean
def _move_all(
    world: World, minute: int, second: int, elapsed_s: float, opening: np.ndarray, high: np.ndarray,
    low: np.ndarray, close: np.ndarray, key: np.uint64,
) -> None:  # fmt: skip
    """Bring every market to a second of a minute."""
    markets = world.market.shape[0]
    for market in range(markets):
        price = opening[minute, market]
        if second > 0:
            price = within_minute(
                price, high[minute, market], low[minute, market], close[minute, market], second,
                substream(key, np.uint64(minute * markets + market)),
            )  # fmt: skip
        move(world, market, price, elapsed_s)


@lean
def _set_worst(world: World, minute: int, low: np.ndarray, high: np.ndarray, asset_price: np.ndarray) -> None:
    """The prices of the coming minute that are worst for longs and for shorts."""
    for market in range(world.market.shape[0]):
        row = world.market[market]
        row.worst_low = row.mark * (min(low[minute, market] / row.outside, 1.0) - PRICE_SLACK)
        row.worst_high = row.mark * (max(high[minute, market] / row.outside, 1.0) + PRICE_SLACK)
    for number in range(1, world.asset.shape[0]):
        asset = world.asset[number]
        asset.worst = min(asset.price, asset_price[minute, number])


@lean
def _queue_visits(world: World, minute: int, until_s: int) -> int:
    """Queue the accounts listed for a minute and due by a second, in the order of their seconds; how many."""
    who = world.queue[VISIT_QUEUE]
    when = world.scratch[SORT_KEY]
    count = 0
    account = world.agenda[minute & (AGENDA - 1)]
    while account >= 0:
        if world.account[account].next_s <= until_s:
            who[count] = account
            when[count] = world.account[account].next_s
            count += 1
        account = world.account[account].next_link
    sort_by(when, who, count)
    return count


@lean
def _put_off(world: World, minute: int) -> None:
    """List anew who was only listed for this minute because the agenda ended there."""
    account = world.agenda[minute & (AGENDA - 1)]
    while account >= 0:
        following = world.account[account].next_link
        enlist(world, account, world.account[account].next_s)
        account = following


@lean
def run_minutes(
    world: World, first: int, last: int, trading: int, recording: int, ending: int, spare: int,
    opening: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, asset_price: np.ndarray,
    funding_s: np.ndarray, start_s: int, key: np.uint64,
) -> int:  # fmt: skip
    """Go through minutes `first` to `last` - 1; the first minute that was not gone through.

    Traders trade from minute `trading` on, rows are written from `recording` on (bars always). Returns early
    where the log has less than `spare` rows left. Of minute `ending` only the first moment is gone through.
    `start_s` is when minute 0 opens, seconds.
    """
    markets = world.market.shape[0]
    for minute in range(first, last):
        full = world.log.shape[0] - world.clock[LOGGED] < spare
        if full or world.bars.shape[0] - world.clock[BARS] < markets:
            return minute
        now_s = minute * 60
        for number in range(1, world.asset.shape[0]):
            world.asset[number].price = asset_price[max(minute - 1, 0), number]
        seconds = 1
        second = NIL
        while second < seconds:
            set_clock(world, now_s + second)
            elapsed_s = float(now_s + second - world.clock[RUNNING_S])
            if elapsed_s > 0.0:
                _move_all(world, minute, second, elapsed_s, opening, high, low, close, key)
            world.clock[RUNNING_S] = now_s + second
            if second == 0:
                paid = False
                for market in range(markets):
                    world.market[market].day_ago = opening[max(minute - DAY_MINUTES, 0), market]
                    if (start_s + now_s) % funding_s[market] == 0 and minute > 0:
                        settle_funding(world, market, funding_s[market] / (8.0 * HOUR_S))
                        paid = True
                # before anybody trades a bar every five minutes says enough
                if minute >= trading or minute % HISTORY_BAR_MINUTES == 0:
                    _record_bars(world)
                if minute < trading:
                    break
                if now_s % 3_600 == 0:
                    _deepen(world)
                if paid:
                    _look_at_all(world)
                begins = minute >= recording and world.clock[RECORDING] == 0
                if begins:
                    world.clock[RECORDING] = 1
                if (start_s + now_s) % 86_400 == 0 or begins:
                    _daily(world)
            if second % MAKER_SECONDS == 0:
                _mind_makers(world)
            _call_margin(world)
            if world.clock[ACTIVE] > 0:
                _close_by_force(world)
            if minute == ending:
                break
            work_out(world, elapsed_s)
            world.clock[AGENDA_MINUTE] = minute
            until_s = now_s + second
            if second == 0:
                _set_worst(world, minute, low, high, asset_price)
                fine = world.clock[ACTIVE] > 0 or turbulence(world) > world.settings[0].fine_volatility
                if fine or would_be_closed(world):
                    seconds = 60
                else:
                    world.clock[AGENDA_MINUTE] = minute + 1
                    until_s = now_s + 59
            if second == 59:
                world.clock[AGENDA_MINUTE] = minute + 1
            for number in range(_queue_visits(world, minute, until_s)):
                account = world.queue[VISIT_QUEUE, number]
                set_clock(world, max(world.account[account].next_s, world.clock[NOW_S]))
                unlist(world, account)
                visit(world, account)
            second += 1
        world.clock[AGENDA_MINUTE] = minute + 1
        _put_off(world, minute)
    return last


@lean
def enter(world: World, account: int) -> None:
    """List an account for its arrival; makers and the backstop are there from the beginning."""
    state = world.account[account]
    if state.kind in (MAKER, BACKSTOP):
        state.status = PRESENT
        return
    state.status = ABSENT
    enlist(world, account, state.first_s)
