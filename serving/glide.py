"""How fast a rate may follow what is asked: dead band, bounded rise, slower fall, in event time.

A rate in force is looked at once a window of event time. It moves only after several windows in a row in
which the target was beyond a dead band on the same side, then by so much an hour at most, up faster than
down, and stops within the band of its target. A score that sways inside the band, or is seldom beyond it,
changes nothing. Rises of the static schedule are exempt: nothing is ever under the floor.

What is bounded is what the market or the model moves: the terms of a market, which all who enter meet alike.
What an owner adds is priced on these terms at once, however small the position that it is added to.

Everything is whole: rates in parts per million (probabilities may be given so too), times in microseconds.
An allowance is rounded down, so that a window in parts never gives more than the whole. Who answers questions
only reads what is held: looks belong to the clock of the events, and asking again changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.units import HOUR_US

Integers = npt.NDArray[np.int64]

LONGEST_US = 1_000 * HOUR_US
"""More time between two looks counts as this."""

NEVER_US = -1
"""A notice that never ends: open positions stay as they are stamped."""


class Pace(NamedTuple):
    """What a rate in force goes by."""

    band_ppm: int = 2_500
    windows: int = 3
    """Windows in a row beyond the band before anything moves, at least 1."""
    rise_ppm_per_h: int = 20_000
    fall_ppm_per_h: int = 5_000
    window_us: int = HOUR_US


class Held(NamedTuple):
    """Rates in force, any shape, and how many windows in a row the target was above (or below: negative)."""

    rate_ppm: Integers
    beyond: Integers
    since_us: int
    """Event time of the look that they are of."""


@compiled
def allowed(ppm_per_h: int, elapsed_us: int) -> int:
    """How far a rate may go in that time, rounded down; nothing where time did not go on."""
    return ppm_per_h * min(max(elapsed_us, 0), LONGEST_US) // HOUR_US


@compiled
def counted(in_force: int, target: int, beyond: int, band: int) -> int:
    """Windows in a row beyond the band, this one included; negative below it, 0 within."""
    if target > in_force + band:
        return max(beyond, 0) + 1
    if target < in_force - band:
        return min(beyond, 0) - 1
    return 0


@compiled
def step(
    in_force: Integers,
    target: Integers,
    floor: Integers,
    beyond: Integers,
    elapsed_us: int,
    pace: Integers,
    rate: Integers,
    count: Integers,
) -> None:
    """One look at n rates after so much event time: fills `rate` and `count`, int64[n].

    `floor` is the static schedule's; `pace` the numbers of a `Pace`.
    """
    rise, fall = allowed(pace[2], elapsed_us), allowed(pace[3], elapsed_us)
    for i in range(len(rate)):
        count[i] = counted(in_force[i], target[i], beyond[i], pace[0])
        moved = in_force[i]
        if count[i] >= pace[1]:
            moved = min(target[i], moved + rise)
        elif count[i] <= -pace[1]:
            moved = max(target[i], moved - fall)
        rate[i] = max(moved, floor[i])


@compiled
def noticed(
    stamped: Integers,
    target: Integers,
    floor: Integers,
    told_us: Integers,
    notice_us: int,
    ppm_per_h: int,
    rate: Integers,
) -> None:
    """Rates of open positions whose owners were told `told_us` ago what is asked now; int64[n] each.

    The rate stamped at entry until the notice is over, then up to the target at a bounded pace, and never
    down; for ever the stamped one where `notice_us` is NEVER_US.
    """
    for i in range(len(rate)):
        moved = stamped[i]
        if notice_us >= 0 and target[i] > moved:
            moved = min(target[i], moved + allowed(ppm_per_h, told_us[i] - notice_us))
        rate[i] = max(moved, floor[i])


def begun(target_ppm: Integers, now_us: int) -> Held:
    """Rates that begin at their target."""
    return Held(target_ppm.astype(np.int64), np.zeros(target_ppm.shape, np.int64), now_us)


def looked(held: Held, target_ppm: Integers, floor_ppm: Integers | int, now_us: int, pace: Pace) -> Held:
    """Rates after a look; the same where the window is not over. All arrays have the shape of `held`.

    Windows follow each other from the first look on, so that none is ever shorter than another.
    """
    windows = (now_us - held.since_us) // pace.window_us
    if windows < 1:
        return held
    elapsed_us = windows * pace.window_us
    shape = held.rate_ppm.shape
    floor = np.broadcast_to(np.asarray(floor_ppm, np.int64), shape)
    after = Held(np.empty(shape, np.int64), np.empty(shape, np.int64), held.since_us + elapsed_us)
    step(
        held.rate_ppm.ravel(), np.ascontiguousarray(target_ppm, np.int64).ravel(),
        np.ascontiguousarray(floor).ravel(), held.beyond.ravel(), elapsed_us,
        np.array(pace, np.int64), after.rate_ppm.ravel(), after.beyond.ravel(),
    )  # fmt: skip
    return after
