"""Who has to be looked at: accounts whose prices came near, and owners whose time has come.

An account that is far from danger costs nothing. When it is looked at, the largest relative move `r` is
computed that leaves its collateral above the next level of its margin ratio, whichever way its markets go
together: sum over positions of notional * sensitivity * r = collateral - level * maintenance. Each of its
positions is then hung into a ring of its market at the price that is `r` away on the losing side. While no
mark reaches such a price, the ratio is above the level, exactly; when one does, the account is looked at
again.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.compiled import lean
from exchange.simulation.ledger import ONE, bit, figures, holds, pool
from exchange.simulation.state import (
    AGENDA_MINUTE,
    AT_WORST,
    DUE,
    DUE_QUEUE,
    MICRO,
    NONE,
    STEP,
    World,
    whole_numbers,
)  # fmt: skip

LEVELS = np.array([3.0, 2.0, 1.5, 1.2, 1.0])
"""Margin ratios (collateral over maintenance) at which an account is looked at; 1 is forced closing."""
WIDTH = 0.0005
"""Of a ring's bucket, in log price."""
BUCKETS = 8192
REACH = 1.8
"""Log distance up to which prices are hung; a ring spans 4.1."""
LOWER, UPPER = whole_numbers(2)
"""Sides of a ring: where a fall, and where a rise, makes an account due."""
AGENDA = 8192
"""Minutes that the agenda looks ahead."""


@lean
def bucket_of(price: float) -> int:
    """Number of a price's bucket."""
    return math.floor(math.log(price) / WIDTH)


@lean
def unhang(world: World, account: int) -> None:
    """Take an account out of all rings."""
    state = world.account[account]
    if state.watched == np.uint64(0):
        return
    rings = world.ring.shape[0]
    for series in range(rings):
        for side in range(2):
            place = 2 * series + side
            if (state.watched >> np.uint64(place)) & ONE == np.uint64(0):
                continue
            node = world.node[account, place]
            if node.following >= 0:
                world.node[node.following, place].previous = node.previous
            if node.previous >= 0:
                world.node[node.previous, place].following = node.following
            else:
                world.ring[series, side, node.bucket & (BUCKETS - 1)] = node.following
    state.watched = np.uint64(0)


@lean
def _hang(world: World, account: int, series: int, side: int, price: float, distance: float) -> None:
    """Hang an account at the price that is the relative `distance` below (side 0) or above (1) `price`."""
    if side == 0:
        if distance >= 0.83:
            return
        at = bucket_of(price * (1.0 - distance))
    else:
        if distance >= 5.0:
            return
        at = bucket_of(price * (1.0 + distance))
    place = 2 * series + side
    slot = at & (BUCKETS - 1)
    first = world.ring[series, side, slot]
    node = world.node[account, place]
    node.bucket = at
    node.following = first
    node.previous = -1
    if first >= 0:
        world.node[first, place].previous = account
    world.ring[series, side, slot] = account
    world.account[account].watched |= bit(place)


@lean
def _marginal_rate(world: World, market: int, notional: float) -> float:
    """Maintenance rate of the tier that holds half as much again as a notional: a bound on the way up."""
    row = world.market[market]
    tier = 0
    while tier + 1 < row.floor.shape[0] and row.floor[tier + 1] <= 1.5 * notional:
        tier += 1
    return float(row.maintenance_rate[tier])


@lean
def next_level(ratio: float) -> float:
    """The highest level below a margin ratio; 1 where there is none."""
    for number in range(LEVELS.shape[0]):
        if ratio > LEVELS[number]:
            return LEVELS[number]
    return 1.0


@lean
def _sensitivity(world: World, account: int, market: int, level: float) -> float:
    """Dollars by which collateral - level * maintenance falls at most per relative move against it."""
    position = world.position[account, market]
    size = position.lots * world.market[market].lot
    notional = abs(size) * world.market[market].mark
    extra = world.account[account].maintenance_rate
    if size > 0.0:
        return notional  # maintenance falls along with the price
    return notional * (1.0 + level * max(_marginal_rate(world, market, notional), extra))


@lean
def watch(world: World, account: int) -> float:
    """Hang an account where it must be looked at next; its lowest margin ratio (inf without positions).

    An account at or below a ratio of 1 is not hung: the caller closes it by force, or is doing so.
    """
    unhang(world, account)
    state = world.account[account]
    if state.held == np.uint64(0):
        state.ratio = math.inf
        return math.inf
    markets = world.market.shape[0]
    lowest = math.inf
    if state.isolated:
        for market in range(markets):
            if not holds(world, account, market):
                continue
            _, collateral, _, maintenance, _, _ = figures(world, account, market)
            ratio = collateral / maintenance
            lowest = min(lowest, ratio)
            level = next_level(ratio)
            room = collateral - level * maintenance
            distance = max(room, 0.0) / _sensitivity(world, account, market, level)
            if state.maintenance_rate > 0.0 or distance > 0.3:
                distance = min(distance, 0.3)
            side = LOWER if world.position[account, market].lots > 0 else UPPER
            _hang(world, account, market, side, world.market[market].mark, distance)
        state.ratio = lowest
        return lowest
    _, collateral, _, maintenance, _, _ = figures(world, account, NONE)
    lowest = collateral / maintenance
    level = next_level(lowest)
    room = max(collateral - level * maintenance, 0.0)
    total = 0.0
    for market in range(markets):
        if holds(world, account, market):
            total += _sensitivity(world, account, market, level)
    for asset in range(1, world.asset.shape[0]):
        held = world.amount[account, asset]
        if held > 0:
            total += held / MICRO * world.asset[asset].price
    # the bound on a short's maintenance holds for moves of less than half
    distance = min(room / total, 0.3)
    for market in range(markets):
        if holds(world, account, market):
            side = LOWER if world.position[account, market].lots > 0 else UPPER
            _hang(world, account, market, side, world.market[market].mark, distance)
    for asset in range(1, world.asset.shape[0]):
        if world.amount[account, asset] > 0:
            _hang(world, account, markets + asset, LOWER, world.asset[asset].price, distance)
    state.ratio = lowest
    return lowest


@lean
def make_all_due(world: World, accounts: np.ndarray) -> None:
    """Have accounts looked at in the next step, whatever prices do; int64 numbers of accounts."""
    for account in accounts:
        _make_due(world, account)


@lean
def _make_due(world: World, account: int) -> None:
    state = world.account[account]
    if state.closing != 0 or state.held == np.uint64(0):
        return
    unhang(world, account)
    for market in range(world.market.shape[0]):
        if holds(world, account, market):
            _hang(world, account, market, LOWER, world.market[market].mark, 0.0)
            _hang(world, account, market, UPPER, world.market[market].mark, 0.0)
            return


@lean
def _collect_chain(world: World, series: int, side: int, bucket: int) -> None:
    place = 2 * series + side
    account = world.ring[series, side, bucket & (BUCKETS - 1)]
    while account >= 0:
        node = world.node[account, place]
        # a ring is longer than any move between two looks, but another turn of it may share the slot
        if node.bucket == bucket and world.account[account].due != world.clock[STEP]:
            world.account[account].due = world.clock[STEP]
            world.queue[DUE_QUEUE, world.clock[DUE]] = account
            world.clock[DUE] += 1
        account = node.following


@lean
def _collect(world: World, series: int, low: float, high: float) -> None:
    """Accounts hung between the last bucket and those of `low` and `high`."""
    before = world.ring[series, 0, BUCKETS]
    for bucket in range(before, bucket_of(low) - 1, -1):
        _collect_chain(world, series, LOWER, bucket)
    for bucket in range(before, bucket_of(high) + 1):
        _collect_chain(world, series, UPPER, bucket)


@lean
def collect_due(world: World, worst: bool) -> int:
    """Queue the accounts whose prices were reached since the last call; how many.

    With `worst`, those whose prices would be reached at the worst prices of the minute.
    """
    world.clock[STEP] += 1
    world.clock[DUE] = 0
    markets = world.market.shape[0]
    for series in range(markets + world.asset.shape[0]):
        if series < markets:
            row = world.market[series]
            low = row.worst_low if worst else row.mark
            high = row.worst_high if worst else row.mark
        elif series > markets:
            asset = world.asset[series - markets]
            low = asset.worst if worst else asset.price
            high = asset.price
        else:
            continue
        _collect(world, series, low, high)
        if not worst:
            world.ring[series, 0, BUCKETS] = bucket_of(high)
    return world.clock[DUE]


@lean
def would_be_closed(world: World) -> bool:
    """Whether some account would be under maintenance if every price went to its worst against it at once."""
    for number in range(collect_due(world, AT_WORST)):
        account = world.queue[DUE_QUEUE, number]
        isolated = world.account[account].isolated != 0
        for market in range(world.market.shape[0]):
            if isolated and not holds(world, account, market):
                continue
            _, collateral, _, needed, _, _ = pool(world, account, market if isolated else NONE, AT_WORST)
            if collateral < needed:
                return True
            if not isolated:
                break
    return False


@lean
def unlist(world: World, account: int) -> None:
    """Take an account out of the agenda."""
    state = world.account[account]
    if state.minute < 0:
        return
    if state.next_link >= 0:
        world.account[state.next_link].previous_link = state.previous_link
    if state.previous_link >= 0:
        world.account[state.previous_link].next_link = state.next_link
    else:
        world.agenda[state.minute & (AGENDA - 1)] = state.next_link
    state.minute = -1


@lean
def enlist(world: World, account: int, at_s: int) -> None:
    """Have an account's owner look at it at a second, or at the end of the agenda if that comes first."""
    unlist(world, account)
    state = world.account[account]
    state.next_s = at_s
    minute = min(max(at_s // 60, world.clock[AGENDA_MINUTE]), world.clock[AGENDA_MINUTE] + AGENDA - 2)
    slot = minute & (AGENDA - 1)
    first = world.agenda[slot]
    state.minute = minute
    state.next_link = first
    state.previous_link = -1
    if first >= 0:
        world.account[first].previous_link = account
    world.agenda[slot] = account
