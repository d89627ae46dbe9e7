"""The volatilities that a portfolio's risk is computed under, side by side for one price.

Computed once a bar, so that a vector only has to read them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import lean
from exchange.units import DAY_S, HOUR_S
from features.state import (
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
)
from features.volatility import HAR, PEGGED_VARIANCE, forecast_variance, slow_variance


@lean
def sigmas(
    variance: npt.NDArray[np.float64],
    series: npt.NDArray[np.float64],
    is_asset: bool,
    out: npt.NDArray[np.float64],
) -> None:
    """Write sigma per square root of a second under every estimator; NaN before the second bar.

    An asset that is pegged is not shrunk towards the volatility of a coin.
    """
    out[SIGMA_1H] = math.sqrt(variance[0])
    out[SIGMA_6H] = math.sqrt(variance[1])
    out[SIGMA_48H] = math.sqrt(variance[2])
    out[SIGMA_HAR] = math.sqrt(series[HAR])
    out[SIGMA_MEAN] = math.sqrt(0.5 * (variance[1] + variance[2]))
    if is_asset and variance[2] < PEGGED_VARIANCE:
        out[SIGMA_SLOW:] = out[SIGMA_48H]
        return
    out[SIGMA_SLOW] = math.sqrt(slow_variance(variance[2]))
    out[SIGMA_AHEAD_1H] = math.sqrt(forecast_variance(series, variance, HOUR_S))
    out[SIGMA_AHEAD_8H] = math.sqrt(forecast_variance(series, variance, 8.0 * HOUR_S))
    out[SIGMA_AHEAD_24H] = math.sqrt(forecast_variance(series, variance, DAY_S))
    # half-way in logs: the slow one ranks accounts better, the forecast knows more about the level
    out[SIGMA_PRIOR] = math.sqrt(out[SIGMA_SLOW] * out[SIGMA_AHEAD_24H])
