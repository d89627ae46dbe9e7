"""What margin would have prevented it: the same scenarios with more posted behind the positions.

An account that has to post M dollars for its positions brings what M exceeds the greater of what it has and
of what today's schedule asks: what it has lost since it opened is not brought back, so that at today's margin
nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from exchange.stress.book import Shock
from exchange.stress.pools import COLLATERAL, GROSS, INITIAL
from pipelines.stress_book import Standing, without
from pipelines.stress_runs import DUST_USD, Bearing, Desk

Floats = npt.NDArray[np.float64]

MULTIPLES = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)
FINEST = 0.01
"""Of a multiple that is searched for."""
HALVINGS = 6
"""Of what one account would have to bring, once it is known to within a factor of two."""


def deposits(standing: Standing, wanted_usd: Floats) -> Floats:
    """Dollars that each pool brings where `wanted_usd` has to stand behind it."""
    return np.maximum(
        wanted_usd - np.maximum(standing.figures[:, COLLATERAL], standing.figures[:, INITIAL]), 0
    )


def at_multiple(standing: Standing, multiple: float) -> Floats:
    """What each pool brings where initial margin is a multiple of today's."""
    return deposits(standing, multiple * standing.figures[:, INITIAL])


def bearing(standing: Standing, shock: Shock) -> Bearing:
    """Who bears what in one scenario."""
    return Desk(standing).bearing(shock)


def shortfall(standing: Standing, shocks: Sequence[Shock], brought: Floats) -> float:
    """Mean loss beyond equity over scenarios, dollars, with more cash in every pool."""
    return _mean(Desk(standing, standing.book._replace(cash=standing.book.cash + brought)), shocks)


def shortfall_without(standing: Standing, shocks: Sequence[Shock], pools: npt.NDArray[np.int64]) -> float:
    """Mean loss beyond equity over scenarios, dollars, of the book without some pools."""
    return _mean(Desk(standing, without(standing.book, pools)), shocks)


def _mean(desk: Desk, shocks: Sequence[Shock]) -> float:
    return sum(float(desk.bearing(shock).shortfall_usd.sum()) for shock in shocks) / len(shocks)


def least_multiple(standing: Standing, shock: Shock) -> float | None:
    """Multiple of initial margin from which on a scenario leaves no shortfall, to a hundredth.

    Looked for between the largest of `MULTIPLES` that leaves one and the next: a smaller one may happen to
    leave none, as who is closed later is closed elsewhere. None where the largest of all does not help.
    """

    def helps(multiple: float) -> bool:
        return shortfall(standing, [shock], at_multiple(standing, multiple)) <= DUST_USD

    above = None
    for multiple in reversed(MULTIPLES):
        if not helps(multiple):
            return None if above is None else _halved(helps, multiple, above, FINEST)
        above = multiple
    return above


def least_deposit(standing: Standing, shock: Shock, pools: npt.NDArray[np.int64]) -> float | None:
    """Dollars that one account has to bring so that it costs nobody else anything in a scenario.

    Shared among its pools by notional; None where three times its notional does not do.
    """
    gross = standing.figures[pools, GROSS]

    def helps(amount: float) -> bool:
        brought = np.zeros(len(standing.account))
        brought[pools] = amount * gross / gross.sum()
        desk = Desk(standing, standing.book._replace(cash=standing.book.cash + brought))
        return float(desk.bearing(shock).shortfall_usd[pools].sum()) <= DUST_USD

    most = 3.0 * float(gross.sum())
    if helps(0.0):
        return 0.0
    if not helps(most):
        return None
    high = most
    while high > DUST_USD and helps(0.5 * high):
        high *= 0.5
    return _halved(helps, 0.5 * high, high, 0.5 * high / 2**HALVINGS)


def same_money(standing: Standing, total_usd: float) -> float:
    """The multiple of initial margin at which all accounts together bring `total_usd`."""

    def enough(multiple: float) -> bool:
        return float(at_multiple(standing, multiple).sum()) >= total_usd

    high = 2.0
    while not enough(high) and high < 1e6:
        high *= 2.0
    return _halved(enough, 1.0, high, 1e-9)


def _halved(helps: Callable[[float], bool], low: float, high: float, step: float) -> float:
    """A place where `helps` turns true between one where it is not and one where it is, to within a step."""
    while high - low > step:
        middle = 0.5 * (low + high)
        if helps(middle):
            high = middle
        else:
            low = middle
    return high
