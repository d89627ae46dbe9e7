"""Episodes: the few stretches of days in which a venue's defaults come, against the calm between them.

An episode is a run of UTC days on which defaults an hour exceed their own 90% quantile over the days;
runs with at most one day between them are one. Episodes are picked by what came, so even a perfect
forecast expects too few in them and too many outside: compare scores there, not levels with 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_S, DAY_US, HOUR_S

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

QUANTILE = 0.90
MOST_CALM_DAYS_BETWEEN = 1
HOURS_OF_DAY = DAY_S / HOUR_S


class Episode(NamedTuple):
    """First and last UTC day (days since the epoch) and the defaults that came on them."""

    first_day: int
    last_day: int
    defaults: int

    @property
    def defaults_per_hour(self) -> float:
        """Mean count an hour."""
        return self.defaults / ((self.last_day - self.first_day + 1) * HOURS_OF_DAY)


def episodes(default_us: I64, first_day: int, last_day: int) -> list[Episode]:
    """Episodes among the days from `first_day` to `last_day`; none where no day stands out.

    `default_us` are times of defaults, in any order; those of other days do not count.
    """
    day = np.asarray(default_us, np.int64) // DAY_US
    day = day[(day >= first_day) & (day <= last_day)] - first_day
    per_hour = np.bincount(day, minlength=last_day - first_day + 1) / HOURS_OF_DAY
    high = np.flatnonzero(per_hour > np.quantile(per_hour, QUANTILE))
    if len(high) == 0:
        return []
    breaks = np.flatnonzero(np.diff(high) > MOST_CALM_DAYS_BETWEEN + 1)
    starts, ends = high[np.append(0, breaks + 1)], high[np.append(breaks, len(high) - 1)]
    return [
        Episode(first_day + int(a), first_day + int(b), int(((day >= a) & (day <= b)).sum()))
        for a, b in zip(starts, ends, strict=True)
    ]


def member(time_us: I64, label_end_us: I64, found: list[Episode]) -> I64:
    """Number of the first episode that each row's label window (T, U] meets, -1 for calm time."""
    result = np.full(len(time_us), -1, np.int64)
    for number in range(len(found) - 1, -1, -1):
        begins_us, ends_us = found[number].first_day * DAY_US, (found[number].last_day + 1) * DAY_US
        result[(label_end_us >= begins_us) & (time_us < ends_us - 1)] = number
    return result
