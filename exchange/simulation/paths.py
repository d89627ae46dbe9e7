"""Outside prices of a simulated venue, minute by minute, and how they move within a minute.

"Outside" is what the rest of the world pays: a replayed history or a generated path. What traders and
forced orders do to the price on the venue itself comes on top of it (`exchange.simulation.market`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MINUTES_A_DAY = 1_440


class Paths(NamedTuple):
    """Outside prices in dollars, one row a minute without gaps; row k spans minute k from its opening."""

    start_us: int
    """When minute 0 opens, microseconds UTC, a whole minute."""
    opening: Floats
    """float64[minutes, markets]; likewise the next three. low <= opening, close <= high, all above zero."""
    high: Floats
    low: Floats
    close: Floats
    asset_price: Floats
    """float64[minutes, assets], dollars a unit at the minute's close, above zero; a dollar asset is 1."""
    volume_usd: Floats
    """float64[minutes, markets] traded outside in the minute; NaN where not known."""

    def until(self, minutes: int) -> Paths:
        """The first minutes."""
        return Paths(self.start_us, *(series[:minutes] for series in self[1:]))
