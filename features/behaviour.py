"""What an account did, as sums that fade by half in three days, kept up event by event."""

from __future__ import annotations

import math

import numpy as np

from exchange.compiled import inlined, lean
from exchange.units import DAY_S, HOUR_US, SECOND_US
from features.state import (
    ADDED,
    DEFAULTS_SEEN,
    EXPECTED_HOURS,
    FILLED,
    HABITS,
    KNOWN_ACCOUNTS,
    LIQUIDATED,
    OBSERVED_HOURS,
    PAID_IN,
    PAID_OUT,
    RESCUED,
    TRADED,
    State,
)

HABIT_HALF_LIFE_S = 3.0 * DAY_S
STRESSED_RATIO = 2.0
"""Money paid in at less than this multiple of maintenance margin is a rescue."""

ONE_LIQUIDATION_US = HOUR_US
"""Forced closing runs in steps, and both a fill and an event may tell of it: within this, it is one."""

OUTCOME_HALF_LIFE_S = 3.0 * DAY_S
DAY_H = 24.0
FEW_HOURS = 5.0 * DAY_H
"""Account-hours that say nothing yet about the level: five accounts for a day."""


@lean
def remaining(elapsed_us: int, half_life_s: float) -> float:
    """Share of a sum that is left after `elapsed_us`."""
    return math.exp(-math.log(2.0) * (elapsed_us / SECOND_US) / half_life_s)


@inlined
def _fade(account: np.void, time_us: int) -> None:
    if account.faded >= 0:
        keep = remaining(time_us - account.faded, HABIT_HALF_LIFE_S)
        for k in range(HABITS):
            account.habit[k] *= keep
    account.faded = time_us


@inlined
def note_transfer(account: np.void, amount_usd: float, time_us: int) -> None:
    """Money paid in (a rescue where the last sweep saw the account near its end) or taken out."""
    _fade(account, time_us)
    if amount_usd >= 0.0:
        account.habit[PAID_IN] += amount_usd
        if account.swept_ratio < STRESSED_RATIO:
            account.habit[RESCUED] += 1.0
    else:
        account.habit[PAID_OUT] -= amount_usd
        account.survived = math.inf  # what it held out with is not there any more


@inlined
def note_fill(
    account: np.void,
    held: float,
    entry_price: float,
    quantity: float,
    price: float,
    mark: float,
    time_us: int,
) -> None:
    """A trade of `quantity` at `price` by an account that held `held` at `entry_price`."""
    _fade(account, time_us)
    account.habit[TRADED] += abs(quantity) * price
    account.habit[FILLED] += 1.0
    if held * quantity > 0.0:
        if held * (mark - entry_price) < 0.0:
            account.habit[ADDED] += abs(quantity) * price
    elif held * quantity < 0.0 and not math.isnan(entry_price):
        account.loss_streak = account.loss_streak + 1.0 if held * (price - entry_price) < 0.0 else 0.0


@lean
def note_liquidation(state: State, key: int, time_us: int) -> None:
    """The venue closes an account by force: once for all steps of one closing.

    For the venue it makes true what was said of the account over the last day: so many account-hours at
    which liquidation within a day was the right answer.
    """
    account = state.account[key]
    if account.liquidated >= 0 and time_us - account.liquidated <= ONE_LIQUIDATION_US:
        return
    _fade(account, time_us)
    account.habit[LIQUIDATED] += 1.0
    since = max(account.liquidated, account.opened)
    hours = DAY_H
    if since >= 0:
        hours = min(max((time_us - since) / HOUR_US, 0.0), DAY_H)
    state.regime[OBSERVED_HOURS] += hours
    account.liquidated = time_us


@lean
def fade_outcomes(state: State, elapsed_us: int) -> None:
    """Let the venue's expected and observed account-hours fade."""
    keep = remaining(elapsed_us, OUTCOME_HALF_LIFE_S)
    state.regime[EXPECTED_HOURS] *= keep
    state.regime[OBSERVED_HOURS] *= keep


@lean
def outcome_ratio(state: State) -> float:
    """Log of liquidations seen over those expected, lately; 0 where little was expected.

    NaN before the first default event, since without that table nobody knows, and where no account's
    probability was known within the hour.
    """
    if state.clock[DEFAULTS_SEEN] == 0 or state.regime[KNOWN_ACCOUNTS] == 0.0:
        return math.nan
    return math.log((state.regime[OBSERVED_HOURS] + FEW_HOURS) / (state.regime[EXPECTED_HOURS] + FEW_HOURS))
