"""Labelled rows: what history says of every account at every decision time, and what came after it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.units import HOUR_US
from models.horizons import HORIZONS_H

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

HORIZONS_US = tuple(hours * HOUR_US for hours in HORIZONS_H)


class Rows(NamedTuple):
    """Training rows, one an account and decision time; accounts are codes over all datasets."""

    time_us: Integers
    account: Integers
    features: Floats  # (n, catalogue)
    figures: Floats  # (n, FIGURES)
    label_end_us: Integers  # (n, horizons), NO_LABEL_END where a label cannot be known
    liquidated_us: Integers  # first liquidation after the row's time, NEVER_US if none
    negative_us: Integers  # first negative equity
    shortfall_usd: Floats  # of that, NaN if none

    def where(self, chosen: npt.NDArray[np.generic]) -> Rows:
        """The rows chosen by a mask or by their numbers."""
        return Rows._make(column[chosen] for column in self)
