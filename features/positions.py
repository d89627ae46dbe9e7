"""Sums over an account's positions: size, margin, funding, what closing them meets in book and market."""

from __future__ import annotations

import math

import numpy as np

from exchange.account import notional_usd, unrealised_usd
from exchange.compiled import compiled
from exchange.contracts import tiered_margin_usd
from exchange.units import BPS, DAY_S, SECOND_US
from features.arithmetic import book_known, distance, larger, over, worse
from features.depth import depth_within_usd, slippage_bps
from features.portfolio import position_buffer_usd
from features.pressure import REACH, ahead_of, forced_within, log_distance, shift, side_of
from features.state import NOW, POSITIONS, SIGMA_48H, Portfolio, State
from features.volatility import BIPOWER, jump_share

_DAY = math.sqrt(DAY_S)
LOG_1PCT, LOG_3PCT, LOG_10PCT = 0.01, 0.03, 0.10
"""Distances in logs at which liquidation pressure is read."""


@compiled
def sum_positions(state: State, folio: Portfolio) -> int:
    """Fill the sums over positions; the number of open ones."""
    sums = folio.sums[0]
    now = state.clock[NOW]
    opened = 0
    sums.long = 0.0
    sums.squares = 0.0
    sums.initial = 0.0
    sums.unrealised = 0.0
    sums.carry_day = 0.0
    sums.funding_against = 0.0
    sums.basis_against = 0.0
    sums.jumps = 0.0
    sums.over_interest = 0.0
    sums.over_volume = 0.0
    sums.interest_change = 0.0
    sums.largest_move = 0.0
    sums.holding_s = 0.0
    sums.mark_time = now
    sums.book_time = now
    sums.funding_time = now
    _no_book_yet(sums)
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        opened += 1
        market = state.market[position.market]
        notional = notional_usd(position.quantity, market.mark)
        size = abs(notional)
        sums.long += max(notional, 0.0)
        sums.squares += size * size
        sums.largest_move = larger(sums.largest_move, size)
        sums.initial += tiered_margin_usd(
            notional, market.tier_floor, market.initial_rate, market.initial_deduction
        )
        sums.unrealised += unrealised_usd(
            position.quantity, market.mark, -position.quantity * position.entry_price
        )
        against_day = notional * market.funding_rate * DAY_S / market.funding_interval_s
        sums.carry_day += against_day
        sums.basis_against += notional * (market.mark / market.index - 1.0)
        sums.jumps += size * jump_share(market.variance[2], market.series[BIPOWER])
        sums.over_interest = larger(sums.over_interest, over(size, market.open_interest))
        sums.over_volume = larger(sums.over_volume, over(size, _volume_a_day(market)))
        sums.interest_change += size * _log_ratio(market.open_interest, market.usual_interest)
        held_s = (now - position.opened) / SECOND_US if position.opened >= 0 else math.nan
        sums.holding_s += size * held_s
        sums.mark_time = min(sums.mark_time, float(market.mark_time))
        sums.book_time = min(sums.book_time, float(market.book_time))
        sums.funding_time = min(sums.funding_time, float(market.funding_time))
        _meet_book(market, notional, size, now, sums)
    return opened


@compiled
def _no_book_yet(sums: np.void) -> None:
    sums.slippage = 0.0
    sums.slippage_quarter = 0.0
    sums.slippage_double = 0.0
    sums.spread = 0.0
    sums.imbalance = 0.0
    sums.depth_change = 0.0
    sums.spread_change = 0.0
    sums.over_depth_25bps = 0.0
    sums.over_depth = 0.0
    sums.over_depth_2pct = 0.0


@compiled
def _volume_a_day(market: np.void) -> float:
    """What is traded in a day, from a sum that fades by half in a day; NaN where volume is not told."""
    if market.volume_s == 0.0:
        return math.nan
    return market.volume * math.log(2.0) / -math.expm1(-math.log(2.0) * market.volume_s / DAY_S)


@compiled
def _meet_book(market: np.void, notional: float, size: float, now: int, sums: np.void) -> None:
    """What closing a position would meet: a long is closed by selling into the bids."""
    fresh = book_known(market, now)
    levels = market.level_count if fresh else 0
    is_long = notional > 0.0
    closing = market.bid_depth if is_long else market.ask_depth
    opposite = market.ask_depth if is_long else market.bid_depth
    within = depth_within_usd(100.0, market.distance, closing, levels)
    against = depth_within_usd(100.0, market.distance, opposite, levels)
    sums.slippage += size * slippage_bps(size, market.distance, closing, levels) * BPS
    sums.slippage_quarter += size * slippage_bps(0.25 * size, market.distance, closing, levels) * BPS
    sums.slippage_double += size * slippage_bps(2.0 * size, market.distance, closing, levels) * BPS
    sums.over_depth_25bps = larger(
        sums.over_depth_25bps, over(size, depth_within_usd(25.0, market.distance, closing, levels))
    )
    sums.over_depth = larger(sums.over_depth, over(size, within))
    sums.over_depth_2pct = larger(
        sums.over_depth_2pct, over(size, depth_within_usd(200.0, market.distance, closing, levels))
    )
    sums.imbalance += size * (within - against) / (within + against)
    mid = 0.5 * (market.best_bid + market.best_ask)
    spread = (market.best_ask - market.best_bid) / mid if fresh else math.nan
    sums.spread += size * spread / BPS
    usual = market.usual_depth[0 if is_long else 1]
    sums.depth_change += size * _log_ratio(within, usual)
    sums.spread_change += size * _log_ratio(spread, market.usual_spread)


@compiled
def _log_ratio(value: float, usual: float) -> float:
    """log(value / usual) within +-10; 0 where nothing is usual yet, NaN where there is no value."""
    if math.isnan(value):
        return math.nan
    if math.isnan(usual):
        return 0.0
    floor = 1e-12
    return min(max(math.log(max(value, floor) / max(usual, floor)), -10.0), 10.0)


@compiled
def sum_pressure(state: State, folio: Portfolio, buffer: float, isolated: bool) -> None:
    """What the venue's other accounts would do to each position's market; `buffer` is the cross pool's."""
    sums = folio.sums[0]
    now = state.clock[NOW]
    sums.pressure_1pct = 0.0
    sums.pressure_3pct = 0.0
    sums.pressure_10pct = 0.0
    sums.opposite_3pct = 0.0
    sums.forced_share = 0.0
    sums.ahead = 0.0
    sums.rank = 0.0
    sums.ignition = 1_000.0
    sums.past_ignition = 0.0
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        size = abs(notional_usd(position.quantity, market.mark))
        side = side_of(position.quantity)
        moved = shift(market, side)
        levels = market.level_count if book_known(market, now) else 0
        closing = market.bid_depth if side == 0 else market.ask_depth
        opposite = market.ask_depth if side == 0 else market.bid_depth

        forced = forced_within(market, side, LOG_1PCT, moved)
        depth = depth_within_usd(LOG_1PCT / BPS, market.distance, closing, levels)
        sums.pressure_1pct += size * over(forced, depth)
        forced = forced_within(market, side, LOG_3PCT, moved)
        depth = depth_within_usd(LOG_3PCT / BPS, market.distance, closing, levels)
        sums.pressure_3pct += size * over(forced, depth)
        forced = forced_within(market, side, LOG_10PCT, moved)
        depth = depth_within_usd(LOG_10PCT / BPS, market.distance, closing, levels)
        sums.pressure_10pct += size * over(forced, depth)
        sums.forced_share += size * over(forced, market.open_interest)
        forced = forced_within(market, 1 - side, LOG_3PCT, -moved)
        depth = depth_within_usd(LOG_3PCT / BPS, market.distance, opposite, levels)
        sums.opposite_3pct += size * over(forced, depth)

        left = position_buffer_usd(market, position, buffer, isolated)
        away = log_distance(distance(market, position.quantity, left), side)
        before = ahead_of(market, side, away, moved)
        depth = depth_within_usd(away / BPS, market.distance, closing, levels)
        sums.ahead = larger(sums.ahead, over(before, depth))
        sums.rank += size * over(before, market.open_interest)
        ignition = market.ignition[side] - moved if levels > 0 else math.nan
        ignition = min(max(ignition, 0.0), REACH)
        away = min(away, REACH)
        sums.ignition = worse(sums.ignition, over(ignition, market.sigma[SIGMA_48H] * _DAY))
        sums.past_ignition += size * (away - ignition)
