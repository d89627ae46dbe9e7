"""What every position in a market reads alike: one look at a market's book, funding and pressure.

A view holds nothing that the market's row and the clock do not say; it only spares taking the same logs
and walking the same book for every account. It holds until an event or a sweep writes to that row, or the
book gets too old to count. Side 0 is that of longs, which are closed into the bids.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import inlined, lean
from exchange.units import BPS, DAY_S
from features.arithmetic import book_known, over
from features.depth import depth_within_usd
from features.pressure import REACH, forced_within, shift
from features.state import SIGMA_48H
from features.volatility import BIPOWER, jump_share

_DAY = math.sqrt(DAY_S)

LOG_1PCT, LOG_3PCT, LOG_10PCT = 0.01, 0.03, 0.10
"""Distances in logs at which liquidation pressure is read."""


@inlined
def look(market: np.void, now_us: int, side: int, out: np.void) -> None:
    """Bring a view of a market from one side up to date; takes next to nothing where it is."""
    fresh = 1 if book_known(market, now_us) else 0
    if out.seen != market.changes or out.fresh != fresh:
        out.seen = market.changes
        out.fresh = fresh
        out.side_seen[:] = -1
        _view_market(market, fresh != 0, out)
    if out.side_seen[side] != market.changes:
        out.side_seen[side] = market.changes
        _view_side(market, side, out)


@lean
def _view_market(market: np.void, fresh: bool, out: np.void) -> None:
    """Look at a market from neither side: what holds for longs and shorts."""
    out.levels = market.level_count if fresh else 0
    out.carry_day = market.funding_rate * DAY_S / market.funding_interval_s
    out.basis = market.mark / market.index - 1.0
    out.jumps = jump_share(market.variance[2], market.series[BIPOWER])
    out.volume_day = _volume_a_day(market)
    out.interest_change = log_ratio(market.open_interest, market.usual_interest)
    mid = 0.5 * (market.best_bid + market.best_ask)
    spread = (market.best_ask - market.best_bid) / mid if fresh else math.nan
    out.spread = spread / BPS
    out.spread_change = log_ratio(spread, market.usual_spread)
    out.moved[0] = shift(market, 0)
    out.moved[1] = -out.moved[0]


@lean
def _view_side(market: np.void, side: int, out: np.void) -> None:
    """Look at a market from one side, once it has been looked at from neither."""
    levels = out.levels
    closing = market.bid_depth if side == 0 else market.ask_depth
    opposite = market.ask_depth if side == 0 else market.bid_depth
    out.depth_25bps[side] = depth_within_usd(25.0, market.distance, closing, levels)
    within = depth_within_usd(100.0, market.distance, closing, levels)
    against = depth_within_usd(100.0, market.distance, opposite, levels)
    out.depth_1pct[side] = within
    out.depth_2pct[side] = depth_within_usd(200.0, market.distance, closing, levels)
    out.depth_change[side] = log_ratio(within, market.usual_depth[side])
    out.imbalance[side] = (within - against) / (within + against)
    _press(market, side, closing, levels, out)
    forced = forced_within(market, 1 - side, LOG_3PCT, out.moved[1 - side])
    depth = depth_within_usd(LOG_3PCT / BPS, market.distance, opposite, levels)
    out.opposite_3pct[side] = over(forced, depth)


@lean
def _press(market: np.void, side: int, closing: npt.NDArray[np.float64], levels: int, out: np.void) -> None:
    """What would be closed by force on a side, over the depth that takes it."""
    moved = out.moved[side]
    forced = forced_within(market, side, LOG_1PCT, moved)
    depth = depth_within_usd(LOG_1PCT / BPS, market.distance, closing, levels)
    out.pressure_1pct[side] = over(forced, depth)
    forced = forced_within(market, side, LOG_3PCT, moved)
    depth = depth_within_usd(LOG_3PCT / BPS, market.distance, closing, levels)
    out.pressure_3pct[side] = over(forced, depth)
    forced = forced_within(market, side, LOG_10PCT, moved)
    depth = depth_within_usd(LOG_10PCT / BPS, market.distance, closing, levels)
    out.pressure_10pct[side] = over(forced, depth)
    out.forced_share[side] = over(forced, market.open_interest)
    ignition = market.ignition[side] - moved if levels > 0 else math.nan
    out.ignition[side] = min(max(ignition, 0.0), REACH)
    out.ignition_over_sigma[side] = over(out.ignition[side], market.sigma[SIGMA_48H] * _DAY)


@lean
def _volume_a_day(market: np.void) -> float:
    """What is traded in a day, from a sum that fades by half in a day; NaN where volume is not told."""
    if market.volume_s == 0.0:
        return math.nan
    return market.volume * math.log(2.0) / -math.expm1(-math.log(2.0) * market.volume_s / DAY_S)


@lean
def log_ratio(value: float, usual: float) -> float:
    """log(value / usual) within +-10; 0 where nothing is usual yet, NaN where there is no value."""
    if math.isnan(value):
        return math.nan
    if math.isnan(usual):
        return 0.0
    floor = 1e-12
    return min(max(math.log(max(value, floor) / max(usual, floor)), -10.0), 10.0)
