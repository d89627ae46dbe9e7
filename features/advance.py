"""How events change the state: the one definition for history and for the live service.

After a snapshot equity moves with the marks and with funding only, so an account needs one number
beside its positions and balances: `cash`, what is left of the venue's own equity figure once positions
at mark and balances at price are taken out. Fills, funding and transfers then add to it exactly.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.account import quote_leg_usd
from exchange.compiled import inlined, lean, prefetch
from exchange.contracts import MAX_TIERS, tier_deduction_usd
from exchange.units import DAY_S, SECOND_US
from features.behaviour import note_fill, note_liquidation, note_transfer, remaining
from features.depth import MAX_LEVELS, depth_within_usd
from features.estimators import sigmas
from features.events import (
    ACCOUNT,
    ASSET,
    ASSET_PRICE,
    BALANCE,
    BAR,
    BOOK,
    DEFAULT,
    FILL,
    FUNDING,
    LEVEL,
    MARKET,
    OBSERVED,
    POSITION,
    RATE,
    SNAPSHOT,
    TIER,
    TRANSFER,
    EventBatch,
)
from features.owners import assign
from features.portfolio import gather
from features.state import (
    DEFAULTS_SEEN,
    FILLS_SEEN,
    FREE_BALANCE,
    FREE_POSITION,
    NOW,
    POSITIONS,
    TRANSFERS_SEEN,
    USED_BALANCES,
    USED_POSITIONS,
    Portfolio,
    State,
)
from features.state import OBSERVED as OBSERVED_AT
from features.sweep import sweep_when_due
from features.volatility import observe_price

USUAL_HALF_LIFE_S = DAY_S
"""What is usual for a market (depth, spread, open interest, volume) is a mean with this half-life."""

NEAR_BPS = 100.0
"""Depth within 1% of the mid is what is compared with its usual."""

_LIQUIDATION_FILL = 1.0
_LIQUIDATION_EVENT = 0.0


@lean
def advance_all(state: State, folio: Portfolio, events: EventBatch, start: int, until_us: int) -> int:
    """Apply events from row `start` while their time is at most `until_us`; the row to go on from.

    `folio` is scratch with room for every market and asset.
    """
    row = start
    while row < len(events.kind) and events.time_us[row] <= until_us:
        _read_ahead(state, events, row)
        time_us = events.time_us[row]
        kind = events.kind[row]
        sweep_when_due(state, folio, time_us)
        if kind == SNAPSHOT:
            gather(state, events.key[row], folio)
        advance(state, kind, time_us, events.key[row], events.sub[row], events.values[row])
        if kind == POSITION:
            _still_open(state, folio, events.key[row], events.sub[row])
        row += 1
    return row


FAR_AHEAD, NEAR_AHEAD = 16, 8
"""Rows before its turn at which an event's account, and then its positions, are asked for."""


@inlined
def _read_ahead(state: State, events: EventBatch, row: int) -> None:
    """Ask for the records that fills to come will need; arrival in order of time means no order in memory."""
    ahead = row + FAR_AHEAD
    if ahead >= len(events.kind):
        return
    if events.kind[ahead] == FILL:
        prefetch(state.account, events.key[ahead])
    ahead = row + NEAR_AHEAD
    if events.kind[ahead] == FILL:
        slot = state.account[events.key[ahead]].first_position
        if slot >= 0:
            prefetch(state.position, slot)
    ahead = row + NEAR_AHEAD // 2
    if events.kind[ahead] == FILL:
        slot = state.account[events.key[ahead]].first_position
        if slot >= 0 and state.position[slot].market < events.sub[ahead]:
            slot = state.position[slot].next
            if slot >= 0:
                prefetch(state.position, slot)


@lean
def _still_open(state: State, folio: Portfolio, key: int, market: int) -> None:
    """A position that a snapshot confirms is as old as it was; `folio` is the account before the snapshot."""
    for i in range(folio.count[POSITIONS]):
        before = folio.position[i]
        if before.market == market:
            position = state.position[_position_slot(state, key, market)]
            if before.quantity * position.quantity > 0.0:
                position.opened = before.opened


@inlined
def advance(
    state: State, kind: int, time_us: int, key: int, sub: int, value: npt.NDArray[np.float64]
) -> None:
    """Apply one event, in place; `value` as `features.events` says for its kind.

    Pool slots for a new position or balance must be free, and ids within the tables: the caller sees to it.
    """
    state.clock[NOW] = max(state.clock[NOW], time_us)
    if kind == FILL:
        state.clock[FILLS_SEEN] = 1
        fill(state, key, sub, value[0], value[1], value[2], time_us)
        if value[3] == _LIQUIDATION_FILL:
            note_liquidation(state, key, time_us)
    elif kind == BAR:
        _bar(state, key, time_us, value)
    elif kind == TRANSFER:
        state.clock[TRANSFERS_SEEN] = 1
        transfer(state, key, value[0], time_us)
    elif kind == FUNDING:
        market = state.market[key]
        market.changes += 1
        market.funding_time = time_us
        market.funding_rate = value[0]
        if not math.isnan(market.mark):  # nobody can hold what never had a mark
            market.funding_paid += market.mark * value[0]
    elif kind == SNAPSHOT:
        clear(state, key)
        account = state.account[key]
        account.cash = value[0]
        account.open_orders = value[4]
        account.changed = time_us
        account.survived = math.inf
    elif kind == POSITION:
        _place(state, key, sub, value)
    elif kind == BALANCE:
        _deposit_asset(state, key, sub, value[0])
    elif kind == BOOK:
        market = state.market[key]
        market.changes += 1
        _usual_book(market, time_us)
        market.best_bid = value[0]
        market.best_ask = value[1]
        market.book_time = time_us
        market.level_count = 0
    elif kind == LEVEL:
        _level(state, key, value)
    elif kind == ASSET_PRICE:
        _asset_price(state, key, time_us, value[0])
    elif kind == RATE:
        state.account[key].initial_in_force = value[0]
        state.account[key].maintenance_in_force = value[1]
    elif kind == ACCOUNT:
        assign(state, key, sub)
        account = state.account[key]
        account.opened = np.int64(value[0])
        account.isolated = np.int32(value[1])
    elif kind == MARKET:
        market = state.market[key]
        market.changes += 1
        market.tick_size = value[0]
        market.lot_size = value[1]
        market.taker_fee_rate = value[2]
        market.liquidation_fee_rate = value[3]
        market.funding_interval_s = value[4]
        market.tier_count = 0
        market.tier_floor[:] = np.inf
    elif kind == TIER:
        _tier(state, key, value)
    elif kind == ASSET:
        asset = state.asset[key]
        asset.collateral_weight = value[0]
        asset.liability_weight = value[1]
        # A dollar asset needs no price: one without haircuts counts as a dollar until a price says otherwise.
        if math.isnan(asset.price) and value[0] == 1.0 and value[1] == 1.0:
            asset.price = 1.0
    elif kind == DEFAULT:
        state.clock[DEFAULTS_SEEN] = 1
        if value[0] == _LIQUIDATION_EVENT:
            note_liquidation(state, key, time_us)
    elif kind == OBSERVED:
        state.clock[OBSERVED_AT] = time_us


@lean
def _mean(usual: float, last: float, elapsed_us: int) -> float:
    """The mean once `last` has stood for `elapsed_us`; what is not known changes nothing."""
    if math.isnan(last):
        return usual
    if math.isnan(usual):
        return last
    keep = remaining(elapsed_us, USUAL_HALF_LIFE_S)
    return keep * usual + (1.0 - keep) * last


@lean
def _usual_book(market: np.void, time_us: int) -> None:
    """Count the book that stood until now towards what is usual."""
    if market.book_time < 0 or not market.best_bid <= market.best_ask:
        return
    elapsed_us = time_us - market.book_time
    levels = market.level_count
    bids = depth_within_usd(NEAR_BPS, market.distance, market.bid_depth, levels)
    asks = depth_within_usd(NEAR_BPS, market.distance, market.ask_depth, levels)
    market.usual_depth[0] = _mean(market.usual_depth[0], bids, elapsed_us)
    market.usual_depth[1] = _mean(market.usual_depth[1], asks, elapsed_us)
    spread = 2.0 * (market.best_ask - market.best_bid) / (market.best_ask + market.best_bid)
    market.usual_spread = _mean(market.usual_spread, spread, elapsed_us)


@lean
def _tier(state: State, key: int, value: npt.NDArray[np.float64]) -> None:
    """The next tier of a market whose MARKET row has just been applied."""
    market = state.market[key]
    market.changes += 1
    k = market.tier_count
    if k == MAX_TIERS:  # refused at every border; a table must not be written past its end all the same
        return
    market.tier_cap[k] = value[0]
    market.initial_rate[k] = value[1]
    market.maintenance_rate[k] = value[2]
    if k == 0:
        market.tier_floor[0] = 0.0
        market.initial_deduction[0] = 0.0
        market.maintenance_deduction[0] = 0.0
    else:
        floor = market.tier_cap[k - 1]
        market.tier_floor[k] = floor
        market.initial_deduction[k] = tier_deduction_usd(
            market.initial_deduction[k - 1], floor, market.initial_rate[k - 1], value[1]
        )
        market.maintenance_deduction[k] = tier_deduction_usd(
            market.maintenance_deduction[k - 1], floor, market.maintenance_rate[k - 1], value[2]
        )
    market.tier_count = k + 1


@lean
def _bar(state: State, key: int, time_us: int, value: npt.NDArray[np.float64]) -> None:
    market = state.market[key]
    market.changes += 1
    if market.mark_time >= 0 and time_us > market.mark_time:
        observe_price(
            math.log(value[0] / market.mark),
            time_us,
            time_us - market.mark_time,
            market.variance,
            market.series,
            market.ring,
        )
        sigmas(market.variance, market.series, False, market.sigma)
        market.usual_interest = _mean(market.usual_interest, market.open_interest, time_us - market.mark_time)
        _trade_volume(market, value[5], time_us - market.mark_time)
    market.mark = value[0]
    market.index = value[1]
    market.open_interest = value[6]
    market.mark_time = time_us


@lean
def _trade_volume(market: np.void, volume_usd: float, elapsed_us: int) -> None:
    """Add what was traded since the bar before; time of which nothing is told does not count."""
    if math.isnan(volume_usd):
        return
    market.volume = market.volume * remaining(elapsed_us, USUAL_HALF_LIFE_S) + volume_usd
    market.volume_s += elapsed_us / SECOND_US


@lean
def _asset_price(state: State, key: int, time_us: int, price: float) -> None:
    asset = state.asset[key]
    if asset.price_time >= 0 and time_us > asset.price_time:
        observe_price(
            math.log(price / asset.price),
            time_us,
            time_us - asset.price_time,
            asset.variance,
            asset.series,
            asset.ring,
        )
        sigmas(asset.variance, asset.series, True, asset.sigma)
    asset.price = price
    asset.price_time = time_us


@lean
def _level(state: State, key: int, value: npt.NDArray[np.float64]) -> None:
    market = state.market[key]
    market.changes += 1
    k = market.level_count
    if k < MAX_LEVELS:
        market.distance[k] = value[0]
        market.bid_depth[k] = value[1]
        market.ask_depth[k] = value[2]
        market.level_count = k + 1


@lean
def clear(state: State, key: int) -> None:
    """Return all of an account's slots to the pools."""
    account = state.account[key]
    slot = account.first_position
    while slot >= 0:
        following = state.position[slot].next
        state.position[slot].next = state.clock[FREE_POSITION]
        state.clock[FREE_POSITION] = slot
        state.clock[USED_POSITIONS] -= 1
        slot = following
    account.first_position = -1
    slot = account.first_balance
    while slot >= 0:
        following = state.balance[slot].next
        state.balance[slot].next = state.clock[FREE_BALANCE]
        state.clock[FREE_BALANCE] = slot
        state.clock[USED_BALANCES] -= 1
        slot = following
    account.first_balance = -1


@inlined
def _position_slot(state: State, key: int, market: int) -> int:
    """The account's slot for a market, made and linked in its place where there was none."""
    before = -1
    slot = state.account[key].first_position
    while slot >= 0 and state.position[slot].market < market:
        before = slot
        slot = state.position[slot].next
    if slot >= 0 and state.position[slot].market == market:
        return slot
    made = state.clock[FREE_POSITION]
    state.clock[FREE_POSITION] = state.position[made].next
    state.clock[USED_POSITIONS] += 1
    position = state.position[made]
    position.market = market
    position.next = slot
    position.quantity = 0.0
    position.entry_price = math.nan
    position.quote = 0.0
    position.isolated_collateral = math.nan
    position.funding_mark = state.market[market].funding_paid
    position.opened = -1
    if before < 0:
        state.account[key].first_position = made
    else:
        state.position[before].next = made
    return made


@inlined
def _drop_position(state: State, key: int, dropped: int) -> None:
    """Unlink a slot that holds nothing any more and return it to the pool."""
    slot = state.account[key].first_position
    following = state.position[dropped].next
    if slot == dropped:
        state.account[key].first_position = following
    else:
        while state.position[slot].next != dropped:
            slot = state.position[slot].next
        state.position[slot].next = following
    state.position[dropped].next = state.clock[FREE_POSITION]
    state.clock[FREE_POSITION] = dropped
    state.clock[USED_POSITIONS] -= 1


@lean
def _place(state: State, key: int, market: int, value: npt.NDArray[np.float64]) -> None:
    """One position of a snapshot: its value at mark is part of the equity that the snapshot states."""
    quantity = value[0]
    entry_price = value[1]
    slot = _position_slot(state, key, market)
    position = state.position[slot]
    position.quantity = quantity
    position.entry_price = entry_price
    position.quote = quote_leg_usd(quantity, entry_price, value[2])
    position.isolated_collateral = value[3]
    if quantity != 0.0:
        state.account[key].cash -= quantity * state.market[market].mark


@lean
def _deposit_asset(state: State, key: int, asset: int, amount: float) -> None:
    before = -1
    slot = state.account[key].first_balance
    while slot >= 0 and state.balance[slot].asset < asset:
        before = slot
        slot = state.balance[slot].next
    made = state.clock[FREE_BALANCE]
    state.clock[FREE_BALANCE] = state.balance[made].next
    state.clock[USED_BALANCES] += 1
    state.balance[made].asset = asset
    state.balance[made].amount = amount
    state.balance[made].next = slot
    if before < 0:
        state.account[key].first_balance = made
    else:
        state.balance[before].next = made
    if amount != 0.0:
        state.account[key].cash -= amount * state.asset[asset].price


@inlined
def transfer(state: State, key: int, amount_usd: float, time_us: int) -> None:
    """Money paid in or, negative, taken out."""
    state.account[key].cash += amount_usd
    state.account[key].changed = time_us
    note_transfer(state.account[key], amount_usd, time_us)


@inlined
def fill(
    state: State, key: int, market: int, quantity: float, price: float, fee_usd: float, time_us: int
) -> float:
    """Trade `quantity` at `price`: cash pays for it, the entry price is that of what stays open.

    What it realised against the entry price, in dollars before fees; NaN where that price is not known.
    """
    slot = _position_slot(state, key, market)
    position = state.position[slot]
    settle(state, key, slot)
    held = position.quantity
    mark = state.market[market].mark
    note_fill(state.account[key], held, position.entry_price, quantity, price, mark, time_us)
    realised = 0.0
    if held * quantity < 0.0:
        realised = math.copysign(min(abs(quantity), abs(held)), held) * (price - position.entry_price)
    left = held + quantity
    # Sums of decimal lots leave a residue; less than half a lot is no position.
    if abs(left) < 0.5 * state.market[market].lot_size or abs(left) < 1e-12 * abs(held):
        left = 0.0
    fee = 0.0 if math.isnan(fee_usd) else fee_usd
    state.account[key].cash -= quantity * price + fee
    position.quote -= quantity * price + fee
    if held == 0.0 or held * left < 0.0:
        position.entry_price = price
        position.opened = time_us
    elif abs(left) > abs(held):
        position.entry_price = (held * position.entry_price + quantity * price) / left
    position.quantity = left
    if left == 0.0:
        _drop_position(state, key, slot)
    state.account[key].changed = time_us
    state.account[key].survived = math.inf
    return realised


@inlined
def settle(state: State, key: int, slot: int) -> None:
    """Take the funding that a position has paid since it was last touched out of cash and quote."""
    position = state.position[slot]
    paid = state.market[position.market].funding_paid
    if position.quantity != 0.0:
        due = position.quantity * (paid - position.funding_mark)
        state.account[key].cash -= due
        position.quote -= due
    position.funding_mark = paid
