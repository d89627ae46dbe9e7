"""The heads of a model, and what scoring a row yields.

    hazard_1h                     liquidation in (0, 1] hours
    hazard_8h                     liquidation in (1, 8] hours, given none before
    hazard_24h                    liquidation in (8, 24] hours, given none before
    negative_given_liquidation    equity below zero within 24 hours, given liquidation
    severity                      shortfall as a share of gross notional, given negative equity

Beside them an early warning (`models.warning`): how unusual the state is, whatever comes of it.

Hazards rather than three separate probabilities: horizons then agree by construction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADS = ("hazard_1h", "hazard_8h", "hazard_24h", "negative_given_liquidation", "severity")


class Outputs(NamedTuple):
    """What the graph computes for n rows: float64[n] each, NaN where a head's prior is NaN.

    `score_*` are calibrated margins (logits). Probabilities lie in [0, 1] and are ordered exactly:
    1h ≤ 8h ≤ 24h and negative equity ≤ liquidation within 24 hours. `severity` lies in [0, 1].
    `warning`, in splits of a tree, is an alarm above 0; NaN where a row has none of its columns or the
    model has none.
    """

    score_hazard_1h: NDArray[np.float64]
    score_hazard_8h: NDArray[np.float64]
    score_hazard_24h: NDArray[np.float64]
    score_negative_given_liquidation: NDArray[np.float64]
    score_severity: NDArray[np.float64]
    pd_liquidation_1h: NDArray[np.float64]
    pd_liquidation_8h: NDArray[np.float64]
    pd_liquidation_24h: NDArray[np.float64]
    pd_negative_equity_24h: NDArray[np.float64]
    severity: NDArray[np.float64]
    warning: NDArray[np.float64]


SCORES = Outputs._fields[: len(HEADS)]
PROBABILITIES = Outputs._fields[len(HEADS) : -1]
WARNING = Outputs._fields[-1:]
"""Columns of the graph's three outputs. Matrices, because fetching ten vectors costs 30 µs a call."""
