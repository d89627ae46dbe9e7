"""One account's vector and figures at a time: the other half of the one definition.

`features.portfolio.gather` copies an account out of the state, `emit` computes from the copy; neither
changes the state, so asking never matters. The vector's columns are described in `features.catalog`;
figures are what margin arithmetic needs beside it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import inlined, lean
from exchange.units import BPS, DAY_S, HOUR_S, SECOND_US
from features.arithmetic import FAR, effective_buffer, larger, over, pool_sigma
from features.behaviour import HABIT_HALF_LIFE_S, outcome_ratio, remaining
from features.exposure import NEARNESS, OWN, TOTAL, sum_exposures
from features.portfolio import gather, read_ahead, sum_margin
from features.positions import sum_positions, sum_pressure
from features.pressure import side_of
from features.state import (
    ADDED,
    DEFAULTS_SEEN,
    EXPECTED_AT,
    FILLED,
    FILLS_SEEN,
    FORECAST_RATIO,
    INITIAL_IN_FORCE,
    ISOLATED,
    KNOWN_ACCOUNTS,
    LIQUIDATED,
    MAINTENANCE_IN_FORCE,
    NOW,
    PAID_IN,
    PAID_OUT,
    POSITIONS,
    RESCUED,
    SIGMA_1H,
    SIGMA_6H,
    SIGMA_48H,
    SIGMA_AHEAD_1H,
    SIGMA_AHEAD_8H,
    SIGMA_AHEAD_24H,
    SIGMA_HAR,
    SIGMA_MEAN,
    SIGMA_PRIOR,
    SIGMA_SLOW,
    TRADED,
    TRANSFERS_SEEN,
    Portfolio,
    State,
)
from features.structural import jump_passage, logit, mixed_first_passage, prior_hazards
from features.views import look

# Figures: what margin arithmetic and fallbacks need beside the vector.
(
    EQUITY_USD,
    COLLATERAL_USD,
    INITIAL_MARGIN_USD,
    MAINTENANCE_MARGIN_USD,
    GROSS_NOTIONAL_USD,
    MARGIN_RATIO,
    BUFFER_OVER_SIGMA_DAY,
    SIGMA_DAY_USD,
    CLOSING_COST_USD,
    STATIC_INITIAL_RATE,
    STATIC_MAINTENANCE_RATE,
    FIGURE_INITIAL_IN_FORCE,
    FIGURE_MAINTENANCE_IN_FORCE,
    MARK_AGE_S,
    OPEN_POSITIONS,
    PRICE_AGE_S,
    BOOK_AGE_S,
    SIGMA_SLOW_DAY_USD,
    ENTERS,
) = range(19)
FIGURES = 19

FEATURES = 91

VAR_99 = 2.3263478740408408
"""Quantile of the standard normal: value at risk at 99%."""

SHORTFALL_975 = 2.3378027922014
"""Expected shortfall of the standard normal at 97.5%, which regulators pair with it."""

STRESS_MARKET, STRESS_SINGLE, STRESS_SIGMAS = 0.10, 0.20, 3.0


@inlined
def emit(
    state: State, folio: Portfolio, features: npt.NDArray[np.float64], figures: npt.NDArray[np.float64]
) -> None:
    """Write the vector (FEATURES columns) and the figures (FIGURES columns) of one portfolio at `NOW`.

    A column whose inputs are missing is NaN. Needs at least one open position.
    """
    emit_rows(state, folio, True, features, figures)


@inlined
def emit_rows(
    state: State,
    folio: Portfolio,
    is_first: bool,
    features: npt.NDArray[np.float64],
    figures: npt.NDArray[np.float64],
) -> None:
    """`emit` of one portfolio time after time, with other collateral behind the same positions.

    After the first time what does not hang on collateral is taken as it was found, and the number of open
    positions is not written.
    """
    if is_first:
        for i in range(folio.count[POSITIONS]):
            position = folio.position[i]
            key = position.market
            look(state.market[key], state.clock[NOW], side_of(position.quantity), folio.markets[key])
    _emit_seen(state, folio, is_first, features, figures)


@inlined
def _emit_seen(
    state: State,
    folio: Portfolio,
    is_first: bool,
    features: npt.NDArray[np.float64],
    figures: npt.NDArray[np.float64],
) -> None:
    """`emit_rows`, once the portfolio's markets have been looked at."""
    now = state.clock[NOW]
    sums = folio.sums[0]
    sum_margin(state, folio)
    sum_exposures(state, folio)
    if is_first:
        figures[OPEN_POSITIONS] = sum_positions(state, folio)
    sum_pressure(state, folio)
    _leverage(folio, features)
    _volatility(state, folio, features)
    _books(folio, features)
    _behaviour(state, folio, features)
    _venue(state, folio, features)

    gross = sums.gross
    day = math.sqrt(DAY_S)
    own = folio.work[OWN]
    total = folio.work[TOTAL]
    figures[EQUITY_USD] = sums.equity
    figures[COLLATERAL_USD] = sums.collateral
    figures[INITIAL_MARGIN_USD] = sums.initial
    figures[MAINTENANCE_MARGIN_USD] = sums.needed
    figures[GROSS_NOTIONAL_USD] = gross
    figures[MARGIN_RATIO] = sums.worst_ratio
    figures[BUFFER_OVER_SIGMA_DAY] = folio.work[NEARNESS, SIGMA_MEAN]
    figures[SIGMA_DAY_USD] = pool_sigma(own[SIGMA_MEAN], total[SIGMA_MEAN]) * day
    figures[CLOSING_COST_USD] = sums.slippage + sums.closing_fees
    figures[STATIC_INITIAL_RATE] = sums.initial / gross
    figures[STATIC_MAINTENANCE_RATE] = sums.maintenance / gross
    figures[FIGURE_INITIAL_IN_FORCE] = folio.account[INITIAL_IN_FORCE]
    figures[FIGURE_MAINTENANCE_IN_FORCE] = folio.account[MAINTENANCE_IN_FORCE]
    figures[MARK_AGE_S] = _age_s(now, sums.mark_time)
    figures[PRICE_AGE_S] = _age_s(now, sums.price_time)
    figures[BOOK_AGE_S] = _age_s(now, sums.book_time)
    figures[SIGMA_SLOW_DAY_USD] = pool_sigma(own[SIGMA_SLOW], total[SIGMA_SLOW]) * day
    figures[ENTERS] = 0.0  # as it stands: a question may make it 1, new exposure


@lean
def _age_s(now: int, time: float) -> float:
    """Seconds since a time; NaN for one that never was."""
    return (now - time) / SECOND_US if time >= 0.0 else math.nan


@lean
def _share(value: float) -> float:
    """A value within 0 and 1; NaN stays NaN."""
    return math.nan if math.isnan(value) else min(max(value, 0.0), 1.0)


@lean
def _log10(value: float, floor: float) -> float:
    """log10 of a value that counts as `floor` at least; NaN stays NaN."""
    return math.nan if math.isnan(value) else math.log10(max(value, floor))


@inlined
def _leverage(folio: Portfolio, out: npt.NDArray[np.float64]) -> None:
    sums = folio.sums[0]
    gross = sums.gross
    equity = sums.equity
    buffer = sums.collateral - sums.needed
    out[0] = over(gross, equity)
    out[1] = over(abs(sums.net), equity)
    out[2] = sums.worst_ratio
    out[3] = over(sums.initial, sums.collateral)
    out[4] = buffer / gross
    out[5] = sums.worst_distance
    out[6] = sums.squares / (gross * gross)
    out[7] = over(sums.carry_day, equity)
    out[8] = over(sums.unrealised, equity)
    out[9] = over(sums.haircut, equity)
    out[10] = _log10(equity, 0.01)
    survived = folio.facts[0].survived if folio.count[ISOLATED] == 0 else math.inf
    out[30] = effective_buffer(buffer, survived) / gross
    out[31] = over(sums.maintenance, sums.slippage + sums.closing_fees)
    out[32] = sums.long / gross
    out[33] = over(sums.volatile, sums.pledged)
    out[34] = sums.carry_day / gross
    out[35] = sums.basis_against / gross


@inlined
def _volatility(state: State, folio: Portfolio, out: npt.NDArray[np.float64]) -> None:
    sums = folio.sums[0]
    gross = sums.gross
    day = math.sqrt(DAY_S)
    own = folio.work[OWN]
    total = folio.work[TOTAL]
    nearness = folio.work[NEARNESS]
    buffer = sums.collateral - sums.needed
    sigma_1h = pool_sigma(own[SIGMA_1H], total[SIGMA_1H])
    sigma_6h = pool_sigma(own[SIGMA_6H], total[SIGMA_6H])
    sigma_48h = pool_sigma(own[SIGMA_48H], total[SIGMA_48H])
    sigma_day = pool_sigma(own[SIGMA_MEAN], total[SIGMA_MEAN]) * day
    hazard_1h, hazard_8h, hazard_24h = prior_hazards(
        sums.worst_effective, sums.worst_ratio, state.regime[FORECAST_RATIO]
    )
    out[11] = nearness[SIGMA_MEAN]
    out[12] = nearness[SIGMA_1H]
    out[13] = nearness[SIGMA_6H]
    out[14] = nearness[SIGMA_48H]
    out[15] = nearness[SIGMA_HAR]
    out[16] = nearness[SIGMA_SLOW]
    out[17] = sigma_day / gross
    out[18] = math.log(max(sigma_1h, 1e-12 * gross) / max(sigma_48h, 1e-12 * gross))
    out[19] = sums.jumps / gross
    out[20] = over(sigma_6h, sums.absolute)
    out[21] = logit(hazard_1h)
    out[22] = logit(hazard_8h)
    out[23] = logit(hazard_24h)
    out[36] = sums.worst_effective
    out[37] = nearness[SIGMA_AHEAD_1H]
    out[38] = nearness[SIGMA_AHEAD_8H]
    out[39] = nearness[SIGMA_AHEAD_24H]
    out[40] = over(VAR_99 * sigma_day, sums.collateral)
    worst_sigma = larger(larger(sigma_1h, sigma_6h), sigma_48h) * day
    out[41] = over(SHORTFALL_975 * worst_sigma, sums.collateral)
    out[42] = over(STRESS_MARKET * abs(sums.moving), buffer)
    out[43] = over(STRESS_SIGMAS * abs(total[SIGMA_48H]) * day, buffer)
    out[44] = over(STRESS_SINGLE * sums.largest_move, buffer)
    out[45] = jump_passage(sums.worst_distance)
    bankrupt = mixed_first_passage(sums.worst_bankruptcy)
    out[46] = logit(bankrupt) if not math.isnan(bankrupt) else math.nan
    out[47] = sums.worst_bankruptcy
    hour = pool_sigma(own[SIGMA_PRIOR], total[SIGMA_PRIOR]) * math.sqrt(HOUR_S)
    left = over(sums.maintenance - sums.slippage - sums.closing_fees, hour)
    out[89] = logit(mixed_first_passage(left)) if not math.isnan(left) else math.nan


@inlined
def _books(folio: Portfolio, out: npt.NDArray[np.float64]) -> None:
    sums = folio.sums[0]
    gross = sums.gross
    buffer = sums.collateral - sums.needed
    out[24] = sums.spread / gross
    out[25] = sums.slippage / gross / BPS
    out[26] = over(sums.slippage, buffer)
    out[27] = sums.over_depth
    out[28] = sums.imbalance / gross
    out[29] = sums.over_interest
    out[48] = sums.over_depth_25bps
    out[49] = sums.over_depth_2pct
    out[50] = sums.slippage_quarter / gross / BPS
    out[51] = sums.slippage_double / gross / BPS
    out[52] = sums.depth_change / gross
    out[53] = sums.spread_change / gross
    out[54] = sums.over_volume
    out[55] = sums.interest_change / gross
    out[56] = sums.pressure_1pct / gross
    out[57] = sums.pressure_3pct / gross
    out[58] = sums.pressure_10pct / gross
    out[59] = sums.opposite_3pct / gross
    out[60] = sums.forced_share / gross
    out[61] = sums.ahead
    out[62] = sums.rank / gross
    out[63] = sums.ignition
    out[64] = sums.past_ignition / gross
    out[90] = _share((sums.slippage_thin + sums.closing_fees - sums.maintenance) / gross)


@inlined
def _behaviour(state: State, folio: Portfolio, out: npt.NDArray[np.float64]) -> None:
    sums = folio.sums[0]
    facts = folio.facts[0]
    now = state.clock[NOW]
    keep = remaining(now - facts.faded, HABIT_HALF_LIFE_S) if facts.faded >= 0 else 0.0
    equity = sums.equity
    filled = 0.0 if state.clock[FILLS_SEEN] != 0 else math.nan
    paid = 0.0 if state.clock[TRANSFERS_SEEN] != 0 else math.nan
    out[65] = filled + over(keep * facts.habit[TRADED], equity)
    out[66] = filled + keep * facts.habit[FILLED]
    out[67] = filled + over(keep * facts.habit[ADDED], equity)
    out[68] = filled + facts.loss_streak
    out[69] = _log10(sums.holding_s / sums.gross / HOUR_S, 1e-3)
    out[70] = paid + over(keep * facts.habit[PAID_IN], equity)
    out[71] = paid + over(keep * facts.habit[PAID_OUT], equity)
    watched = math.nan if math.isnan(facts.lowest_ratio) else paid  # by a sweep that knew its margin ratio
    out[72] = watched + keep * facts.habit[RESCUED]
    known = state.clock[FILLS_SEEN] != 0 or state.clock[DEFAULTS_SEEN] != 0
    since_h = min(_age_s(now, float(facts.liquidated)) / HOUR_S, FAR) if facts.liquidated >= 0 else FAR
    out[73] = keep * facts.habit[LIQUIDATED] if known else math.nan
    out[74] = since_h if known else math.nan
    out[75] = _fall(equity, facts.peak_equity)
    out[76] = _change(equity, facts.usual_equity)
    out[77] = facts.lowest_ratio
    out[78] = facts.open_orders
    out[79] = _log10(_age_s(now, float(facts.opened)) / DAY_S, 0.01)


@lean
def _fall(equity: float, peak: float) -> float:
    """Share of its best equity that an account has lost, at most FAR; 0 at a new best."""
    if math.isnan(peak):
        return math.nan
    return max(over(peak - equity, peak), 0.0)


@lean
def _change(equity: float, usual: float) -> float:
    """log(equity / usual) within +-10, equity and usual at least a cent."""
    if math.isnan(equity) or math.isnan(usual):
        return math.nan
    return min(max(math.log(max(equity, 0.01) / max(usual, 0.01)), -10.0), 10.0)


@inlined
def _venue(state: State, folio: Portfolio, out: npt.NDArray[np.float64]) -> None:
    sums = folio.sums[0]
    facts = folio.facts[0]
    now = state.clock[NOW]
    out[80] = math.nan
    out[81] = math.nan
    if facts.owner >= 0 and state.clock[EXPECTED_AT] >= 0:
        owner = state.owner[facts.owner]
        alone = owner.accounts == 0.0  # opened since the sweep
        out[80] = 1.0 if alone else owner.accounts
        out[81] = over(sums.collateral, sums.needed) if alone else over(owner.collateral, owner.maintenance)
    out[82] = _age_s(now, sums.book_time)
    out[83] = _age_s(now, sums.funding_time)
    out[84] = _age_s(now, float(facts.changed))
    out[85] = _age_s(now, sums.price_time)
    out[86] = outcome_ratio(state)
    out[87] = state.regime[FORECAST_RATIO] if state.regime[KNOWN_ACCOUNTS] > 0.0 else math.nan
    out[88] = _age_s(now, sums.mark_time)


@lean
def emit_open(
    state: State,
    accounts: int,
    folio: Portfolio,
    ids: npt.NDArray[np.int64],
    features: npt.NDArray[np.float64],
    figures: npt.NDArray[np.float64],
) -> int:
    """Vectors of every account among the first `accounts` that has an open position; their number.

    `ids`, `features` and `figures` have a row for each of them, in rising id order; rows beyond their
    length are counted but not written.
    """
    for market in range(len(state.market)):
        look(state.market[market], state.clock[NOW], 0, folio.markets[market])
        look(state.market[market], state.clock[NOW], 1, folio.markets[market])
    rows = 0
    for key in range(accounts):
        read_ahead(state, key)
        if gather(state, key, folio) == 0:
            continue
        if rows < len(ids):
            ids[rows] = key
            _emit_seen(state, folio, True, features[rows], figures[rows])
        rows += 1
    return rows
