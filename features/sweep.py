"""The sweep: every quarter of an hour all accounts are looked at once, for what no single one can know.

It runs inside `features.advance`, before the first event at or after a quarter of an hour of the events'
own clock, so that history and the live service do the same at the same place. It writes liquidation
pressure by market and side, totals by owner, each account's record of what it has survived, and once an
hour how many liquidations the structural prior expects of the whole venue.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.account import notional_usd
from exchange.compiled import inlined, lean
from exchange.units import DAY_S, DAY_US, HOUR_US, MINUTE_US
from features.arithmetic import distance
from features.behaviour import fade_outcomes, remaining
from features.exposure import NEARNESS, sum_prior
from features.portfolio import behind, gather, read_ahead, sum_pools
from features.pressure import finish, is_beyond, note, side_of
from features.state import (
    EXPECTED_AT,
    EXPECTED_HOURS,
    FORECAST_RATIO,
    KNOWN_ACCOUNTS,
    NEXT_SWEEP,
    POSITIONS,
    SIGMA_AHEAD_24H,
    SIGMA_SLOW,
    Portfolio,
    State,
)
from features.structural import mixed_first_passage, prior_24h

SWEEP_US = 15 * MINUTE_US
SURVIVED_US = 30 * DAY_US
"""How long what an account survived stands to its credit."""

MEMORY_HALF_LIFE_S = 1.0 * DAY_S
"""Of an account's usual equity."""

LOWEST_HALF_LIFE_S = 7.0 * DAY_S
"""Of the distance from one by which the lowest margin ratio is forgotten."""

FORECAST_BOUND = 1.5
"""The forecast's total is believed within this many logs of the prior's."""


@inlined
def sweep_when_due(state: State, folio: Portfolio, time_us: int) -> None:
    """Sweep once if an event at `time_us` is the first at or after a quarter of an hour."""
    due_us = state.clock[NEXT_SWEEP]
    if time_us < max(due_us, 0):  # what is announced before any event has no time
        return
    start_us = time_us - time_us % SWEEP_US
    if due_us >= 0:
        _sweep(state, folio, start_us, start_us - due_us + SWEEP_US)
    state.clock[NEXT_SWEEP] = start_us + SWEEP_US


@lean
def _sweep(state: State, folio: Portfolio, now_us: int, elapsed_us: int) -> None:
    """Look at every account; `elapsed_us` have passed since the last time."""
    hourly = now_us // HOUR_US > state.clock[EXPECTED_AT] // HOUR_US
    for k in range(len(state.market)):
        state.market[k].changes += 1
        state.market[k].forced[:] = 0.0
    for k in range(len(state.owner)):
        owner = state.owner[k]
        owner.collateral = 0.0
        owner.maintenance = 0.0
        owner.accounts = 0.0
    keep_lowest = remaining(elapsed_us, LOWEST_HALF_LIFE_S)
    keep_usual = remaining(elapsed_us, MEMORY_HALF_LIFE_S)
    known = 0.0
    expected = 0.0
    slow = 0.0
    ahead = 0.0
    for key in range(len(state.account)):
        read_ahead(state, key)
        if state.account[key].first_position < 0 or not _look(
            state, folio, key, now_us, keep_lowest, keep_usual
        ):
            state.account[key].swept_ratio = math.nan
            continue
        if not hourly:
            continue
        sum_prior(state, folio)
        near = folio.work[NEARNESS]
        if near[SIGMA_SLOW] > 0.0 and near[SIGMA_AHEAD_24H] > 0.0:
            known += 1.0
            slow += mixed_first_passage(near[SIGMA_SLOW])
            ahead += mixed_first_passage(near[SIGMA_AHEAD_24H])
            sums = folio.sums[0]
            expected += prior_24h(sums.worst_effective, sums.worst_ratio, state.regime[FORECAST_RATIO])
    for k in range(len(state.market)):
        if not math.isnan(state.market[k].mark) and state.market[k].tier_count > 0:
            finish(state.market[k])
    if hourly:
        state.regime[KNOWN_ACCOUNTS] = known
        before_us = state.clock[EXPECTED_AT]
        if before_us >= 0:
            fade_outcomes(state, now_us - before_us)
            state.regime[EXPECTED_HOURS] += expected * min(now_us - before_us, DAY_US) / HOUR_US
        if slow > 0.0 and ahead > 0.0:
            ratio = math.log(ahead / slow)
            state.regime[FORECAST_RATIO] = min(max(ratio, -FORECAST_BOUND), FORECAST_BOUND)
        state.clock[EXPECTED_AT] = now_us


@inlined
def _look(
    state: State, folio: Portfolio, key: int, now_us: int, keep_lowest: float, keep_usual: float
) -> bool:
    """Look at one account, leaving it in `folio`; whether it has positions and all of it is known."""
    if gather(state, key, folio) == 0:
        return False
    sum_pools(state, folio)
    sums = folio.sums[0]
    account = state.account[key]
    buffer = sums.collateral - sums.needed
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        size = abs(notional_usd(position.quantity, market.mark))
        left = behind(folio, i)
        if is_beyond(market, size, left):  # as for most: their prices of liquidation need not be found
            continue
        away = distance(market, position.quantity, left)
        if not math.isnan(away):
            note(market, side_of(position.quantity), away, size)
    if account.owner >= 0:  # what is not known of one account is not known of its owner
        owner = state.owner[account.owner]
        owner.collateral += sums.collateral
        owner.maintenance += sums.needed
        owner.accounts += 1.0
    if math.isnan(sums.equity) or math.isnan(buffer):
        return False
    _remember(account, now_us, keep_lowest, keep_usual, sums.equity, sums.worst_ratio, buffer)
    return True


@inlined
def _remember(
    account: np.void,
    now_us: int,
    keep_lowest: float,
    keep_usual: float,
    equity: float,
    ratio: float,
    buffer: float,
) -> None:
    """What the account has lived through: its smallest buffer, its best and its usual equity."""
    if account.survived == math.inf or now_us - account.survived_from > SURVIVED_US:
        account.survived = buffer
        account.survived_from = now_us
    else:
        account.survived = min(account.survived, buffer)
    account.swept_ratio = ratio
    if math.isnan(account.lowest_ratio):
        account.lowest_ratio = ratio
    else:
        account.lowest_ratio = min(ratio, keep_lowest * account.lowest_ratio + (1.0 - keep_lowest) * ratio)
    if math.isnan(account.usual_equity):
        account.usual_equity = equity
        account.peak_equity = equity
    else:
        account.usual_equity = keep_usual * account.usual_equity + (1.0 - keep_usual) * equity
        account.peak_equity = max(account.peak_equity, equity)
