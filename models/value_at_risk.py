"""Value at risk of a fixed portfolio over the margin period of risk: volatility ahead times the past's tail.

Filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper 1999), with the quantile of past losses
over their sigma kept up by recursion instead of from a stored window: it rises where a loss exceeded it and
falls a little where none did, so that in the long run the share that exceeds it is near RATE whatever the
prices do (quantile tracking; Gibbs and Candes 2021). Exceedances come in runs that volatility has not taken
in yet, so after one the quantile is raised for some periods besides. Two numbers a portfolio are all to keep.

The value at T needs sigma as forecast at T and losses of periods that ended by T, nothing else.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled

Floats = npt.NDArray[np.float64]

LOOKS = 4
"""Looks in a period: losses over overlapping periods begin so often, since a tail takes long to learn."""

# Chosen on simulated venues of seeds 111 and 112, judged on others (docs/coverage.md).
RATE = 0.009
"""Share of looks that is to exceed: a tenth under 1%, since a quantile that is learnt is exceeded more often
than a known one, and an exact 99% would leave Basel's green zone in 11% of windows."""

START = 3.0
"""Sigmas, before anything was seen; 2.58 is that of a Brownian motion, and tails are fatter."""

GAIN = 0.02
"""By how much the log of the quantile rises at a look that exceeded, less RATE times it at every look."""

RAISE = 0.2
"""By how much the log of the quantile is raised besides after a look that exceeded."""

RAISE_LOOKS = 16.0
"""Looks in which the raise fades to 1/e of it: four periods."""


@compiled
def value_at_risk(loss: Floats, sigma: Floats) -> Floats:
    """Loss that is to be exceeded with a probability of 1% over the period after each look, float64[looks].

    `loss` is the worst loss over the period after each of evenly spaced looks, LOOKS a period, `sigma` the
    volatility forecast at the look for that period; both as shares of gross notional, NaN where not known.
    A loss counts from LOOKS looks later on, when its period has ended. NaN where sigma is; a look whose
    loss is not known teaches nothing.
    """
    out = np.empty(len(loss))
    quantile, raised = math.log(START), 0.0
    fade = math.exp(-1.0 / RAISE_LOOKS)
    for look in range(len(loss)):
        raised *= fade
        ended = look - LOOKS
        if ended >= 0 and not math.isnan(loss[ended]) and not math.isnan(out[ended]):
            exceeded = 1.0 if loss[ended] > out[ended] else 0.0
            quantile += GAIN * (exceeded - RATE)
            raised += RAISE * exceeded
        out[look] = sigma[look] * math.exp(quantile + raised)
    return out
