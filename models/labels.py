"""Decision times, what happened after them, and folds in which no label reaches into the future.

This module looks forward in time. Nothing that computes a feature may import it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_US, HOUR_US

EVENT_KINDS = ("liquidation", "negative_equity", "deleverage")
LIQUIDATION, NEGATIVE_EQUITY, DELEVERAGE = range(len(EVENT_KINDS))

OBSERVATION_SLACK_US = 2 * HOUR_US
"""How much later than T + H the observation that closes a label may come."""

NO_LABEL_END = -1
"""Label end of a time whose label cannot be known."""

NEVER_US = np.iinfo(np.int64).max
"""Time of an event that does not happen."""

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class DecisionTimes(NamedTuple):
    """Times T at which accounts are scored, and the end U of each one's label window (T, U]."""

    time_us: I64
    label_end_us: I64


class Events(NamedTuple):
    """Events of accounts, in any order; `kind` counts in EVENT_KINDS, accounts are codes >= 0."""

    account: I64
    time_us: I64
    kind: I64
    shortfall_usd: F64

    def of(self, kind: int) -> Events:
        """The events of one kind."""
        return Events(*(column[self.kind == kind] for column in self))


class Fold(NamedTuple):
    """Row numbers of one walk-forward step; every training label is known before validation begins."""

    training: I64
    validation: I64


def label_ends(time_us: I64, horizon_us: int, end_us: int, observations_us: I64 | None) -> I64:
    """End U of the label window (T, U] of each time T, or NO_LABEL_END where none can be known.

    With observations U is the first in [T + H, T + H + 2 h], because between observations nothing is
    known; without, it is T + H. A window that ends after `end_us` is not known either.
    """
    due_us = np.asarray(time_us, np.int64) + horizon_us
    if observations_us is None:
        return np.where(due_us <= end_us, due_us, NO_LABEL_END)
    observed = np.unique(observations_us[observations_us <= end_us]).astype(np.int64)
    after = np.append(observed, NEVER_US)[np.searchsorted(observed, due_us, side="left")]
    return np.where(after <= due_us + OBSERVATION_SLACK_US, after, NO_LABEL_END)


def decision_times(
    start_us: int,
    end_us: int,
    every_us: int,
    horizon_us: int,
    observations_us: I64 | None,
    within: tuple[int, int],
) -> DecisionTimes:
    """Decision times of a dataset that runs from `start_us` to `end_us`, inside `within` (inclusive).

    With observations a decision time is an observation whose label end is known and that comes at
    least `every_us` after the last one taken. An observation without a label end is skipped and does
    not count as taken: were it to count, one gap in the record would also remove its neighbours. The
    choice always begins at `start_us`, so that overlapping windows of one dataset agree on their times
    and training and evaluation stand on one grid.

    Without observations the times are `within[0]`, `within[0] + every_us`, ... as long as T + H <= end.

    Raises ValueError for a step or a horizon that is not positive.
    """
    if every_us <= 0 or horizon_us <= 0:
        raise ValueError(f"every_us and horizon_us must be positive, got {every_us} and {horizon_us}")
    first_us, last_us = within
    if observations_us is None:
        steps_before_start = max(0, -((first_us - start_us) // every_us))
        begin_us = first_us + steps_before_start * every_us
        time_us = np.arange(begin_us, min(last_us, end_us - horizon_us) + 1, every_us, dtype=np.int64)
        return DecisionTimes(time_us, time_us + horizon_us)

    observed = np.unique(observations_us).astype(np.int64)
    observed = observed[(observed >= start_us) & (observed <= end_us)]
    label_end_us = label_ends(observed, horizon_us, end_us, observed)
    known = label_end_us != NO_LABEL_END
    observed, label_end_us = observed[known], label_end_us[known]
    taken: list[int] = []
    position = 0
    while position < len(observed):
        taken.append(position)
        position = int(np.searchsorted(observed, observed[position] + every_us, side="left"))
    time_us, label_end_us = observed[taken], label_end_us[taken]
    inside = (time_us >= first_us) & (time_us <= last_us)
    return DecisionTimes(time_us[inside], label_end_us[inside])


def _next_event(
    row_time_us: I64, row_account: I64, event_account: I64, event_time_us: I64
) -> tuple[I64, I64]:
    """For each row the position, in time order per account, of its first event after T; and that order.

    The position is -1 where the account has no later event.
    """
    order = np.lexsort((event_time_us, event_account))
    account, time_us = event_account[order].astype(np.int64), event_time_us[order]
    # Times become ranks, so that (account, time) packs into one integer without overflow.
    ranks = np.unique(time_us)
    stride = len(ranks) + 1
    packed = account * stride + np.searchsorted(ranks, time_us)
    wanted = row_account.astype(np.int64) * stride + np.searchsorted(ranks, row_time_us, side="right")
    position = np.searchsorted(packed, wanted, side="left")
    owner = np.append(account, -1)[position]
    return np.where(owner == row_account, position, -1), order


def next_event_us(row_time_us: I64, row_account: I64, event_account: I64, event_time_us: I64) -> I64:
    """Time of the first event of the row's account strictly after the row's time, else NEVER_US.

    Rows and events come in any order; accounts are codes >= 0.
    """
    position, order = _next_event(row_time_us, row_account, event_account, event_time_us)
    return np.append(event_time_us[order], NEVER_US)[position].astype(np.int64)


def labels(
    row_time_us: I64,
    row_account: I64,
    row_label_end_us: I64,
    event_account: I64,
    event_time_us: I64,
) -> Flags:
    """Whether the row's account has an event in (T, U], U being the row's label end (never NO_LABEL_END)."""
    return next_event_us(row_time_us, row_account, event_account, event_time_us) <= row_label_end_us


def shortfall_usd(
    row_time_us: I64,
    row_account: I64,
    row_label_end_us: I64,
    event_account: I64,
    event_time_us: I64,
    event_shortfall_usd: F64,
) -> F64:
    """Shortfall in dollars at the first event in (T, U], NaN where there is none.

    Events of one account at one time (a row for each market) are one event whose shortfalls add up.
    """
    position, order = _next_event(row_time_us, row_account, event_account, event_time_us)
    account, time_us = event_account[order], event_time_us[order]
    opens = np.ones(len(order), bool)
    opens[1:] = (account[1:] != account[:-1]) | (time_us[1:] != time_us[:-1])
    total = np.full(len(order) + 1, np.nan)
    starts = np.flatnonzero(opens)
    if len(starts):
        total[starts] = np.add.reduceat(event_shortfall_usd[order], starts)
    reached = np.append(time_us, NEVER_US)[position] <= row_label_end_us
    return np.where(reached, total[position], np.nan)


def purged_folds(time_us: I64, label_end_us: I64, folds: int) -> list[Fold]:
    """Walk-forward folds: train on the past, validate on the next block of whole days.

    The UTC days that have rows are cut into `folds` + 1 blocks of equal length (the longer ones last);
    each block but the first is validated once, on all that came before it. A row trains only if its
    label end is not after the first time of the block, so what it learnt from was known by then. A fold
    with nothing left to train on (a block shorter than the horizon) is left out.

    Raises ValueError where there are fewer days than blocks, or a label end is not after its time.
    """
    if (label_end_us <= time_us).any():
        raise ValueError("every row needs a label end after its time")
    day = np.asarray(time_us, np.int64) // DAY_US
    days = np.unique(day)
    if folds < 1 or len(days) < folds + 1:
        raise ValueError(f"{folds} folds need at least 1 fold and {folds + 1} days, there are {len(days)}")
    bounds = [len(days) * block // (folds + 1) for block in range(folds + 2)]
    result: list[Fold] = []
    for block in range(1, folds + 1):
        chosen = (day >= days[bounds[block]]) & (day <= days[bounds[block + 1] - 1])
        first_us = time_us[chosen].min()
        training = np.flatnonzero(label_end_us <= first_us)
        if len(training):
            result.append(Fold(training, np.flatnonzero(chosen)))
    return result
