"""Sums over an account's positions: size, margin, funding, what closing them meets in book and market."""

from __future__ import annotations

import math

import numpy as np

from exchange.account import notional_usd, unrealised_usd
from exchange.compiled import inlined
from exchange.contracts import tiered_margin_usd
from exchange.units import BPS, SECOND_US
from features.arithmetic import larger, over, worse
from features.depth import depth_within_usd, slippage_bps
from features.pressure import REACH, ahead_of, log_distance, side_of
from features.state import NOW, POSITIONS, Portfolio, State

THIN_BOOK = 0.01
"""Share of the depth that a crash leaves, and it is then that accounts fall below zero: crashes on several
venues took 90% to 99% of what lay within 1% of the mid (docs/simulation.md)."""


@inlined
def sum_positions(state: State, folio: Portfolio) -> int:
    """Fill the sums over positions, their markets having been looked at; the number of open ones."""
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
        view = folio.markets[position.market]
        sums.carry_day += notional * view.carry_day
        sums.basis_against += notional * view.basis
        sums.jumps += size * view.jumps
        sums.over_interest = larger(sums.over_interest, over(size, market.open_interest))
        sums.over_volume = larger(sums.over_volume, over(size, view.volume_day))
        sums.interest_change += size * view.interest_change
        held_s = (now - position.opened) / SECOND_US if position.opened >= 0 else math.nan
        sums.holding_s += size * held_s
        sums.mark_time = min(sums.mark_time, float(market.mark_time))
        sums.book_time = min(sums.book_time, float(market.book_time))
        sums.funding_time = min(sums.funding_time, float(market.funding_time))
        _meet_book(market, view, side_of(position.quantity), size, sums)
    return opened


@inlined
def _no_book_yet(sums: np.void) -> None:
    sums.slippage = 0.0
    sums.slippage_quarter = 0.0
    sums.slippage_double = 0.0
    sums.slippage_thin = 0.0
    sums.spread = 0.0
    sums.imbalance = 0.0
    sums.depth_change = 0.0
    sums.spread_change = 0.0
    sums.over_depth_25bps = 0.0
    sums.over_depth = 0.0
    sums.over_depth_2pct = 0.0


@inlined
def _meet_book(market: np.void, view: np.void, side: int, size: float, sums: np.void) -> None:
    """What closing a position would meet: a long is closed by selling into the bids."""
    levels = view.levels
    closing = market.bid_depth if side == 0 else market.ask_depth
    sums.slippage += size * slippage_bps(size, market.distance, closing, levels) * BPS
    sums.slippage_quarter += size * slippage_bps(0.25 * size, market.distance, closing, levels) * BPS
    sums.slippage_double += size * slippage_bps(2.0 * size, market.distance, closing, levels) * BPS
    sums.slippage_thin += size * slippage_bps(size / THIN_BOOK, market.distance, closing, levels) * BPS
    sums.over_depth_25bps = larger(sums.over_depth_25bps, over(size, view.depth_25bps[side]))
    sums.over_depth = larger(sums.over_depth, over(size, view.depth_1pct[side]))
    sums.over_depth_2pct = larger(sums.over_depth_2pct, over(size, view.depth_2pct[side]))
    sums.imbalance += size * view.imbalance[side]
    sums.spread += size * view.spread
    sums.depth_change += size * view.depth_change[side]
    sums.spread_change += size * view.spread_change


@inlined
def sum_pressure(state: State, folio: Portfolio) -> None:
    """What the venue's other accounts would do to each position's market."""
    sums = folio.sums[0]
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
        view = folio.markets[position.market]
        size = abs(notional_usd(position.quantity, market.mark))
        side = side_of(position.quantity)
        sums.pressure_1pct += size * view.pressure_1pct[side]
        sums.pressure_3pct += size * view.pressure_3pct[side]
        sums.pressure_10pct += size * view.pressure_10pct[side]
        sums.forced_share += size * view.forced_share[side]
        sums.opposite_3pct += size * view.opposite_3pct[side]

        closing = market.bid_depth if side == 0 else market.ask_depth
        away = log_distance(folio.away[i], side)
        before = ahead_of(market, side, away, view.moved[side])
        depth = depth_within_usd(away / BPS, market.distance, closing, view.levels)
        sums.ahead = larger(sums.ahead, over(before, depth))
        sums.rank += size * over(before, market.open_interest)
        away = min(away, REACH)
        sums.ignition = worse(sums.ignition, view.ignition_over_sigma[side])
        sums.past_ignition += size * (away - view.ignition[side])
