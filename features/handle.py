"""A way into compiled code that costs next to nothing: one array of addresses instead of seventeen tables.

Handing a state and a portfolio over from Python takes longer than computing a vector, since every array is
unpacked on every call. A handle is unpacked once, and stays true until a table grows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exchange.compiled import carray, compiled, place_at
from features.emit import FEATURES, FIGURES, emit
from features.portfolio import gather
from features.state import (
    ACCOUNT_ROW,
    ASSET_ROW,
    BALANCE_ROW,
    CLOCK_SLOTS,
    ESTIMATORS,
    MARKET_ROW,
    OWNER_ROW,
    POSITION_ROW,
    REGIME_SLOTS,
    SUMS_ROW,
    VIEW_ROW,
    Portfolio,
    State,
)

Integers = npt.NDArray[np.int64]
_FLOAT, _INTEGER = np.dtype(np.float64), np.dtype(np.int64)
_OF_FOLIO = 2 * len(State._fields)
_OUT = _OF_FOLIO + 2 * len(Portfolio._fields)
_PLACES = _OUT + 4


class Handle:
    """Vectors of accounts as a state has them, one call an account; not for several threads at once.

    Holds on to the tables it was made of: for newer ones a new handle is needed.
    """

    def __init__(self, state: State, folio: Portfolio) -> None:
        """Write the addresses of all tables down."""
        self.state = state
        self.folio = folio
        self.vector = np.empty(FEATURES)
        """What the last call wrote, like `figure`."""
        self.figure = np.empty(FIGURES)
        self.both = (self.vector, self.figure)
        tables = (*state, *folio, *self.both)
        self.places = np.array([part for table in tables for part in (table.ctypes.data, len(table))])
        self.address = int(self.places.ctypes.data)
        """Of all addresses: a number is handed to compiled code faster than an array."""

    def take(self, account: int) -> bool:
        """Write an account's vector and figures; False, and nothing written, without an open position."""
        return take(self.address, account)


@compiled
def take(address: int, key: int) -> bool:
    """`Handle.take`, from the handle's address; an id outside the table has no position."""
    places = carray(place_at(address), (_PLACES,), _INTEGER)
    state = state_at(places)
    folio = folio_at(places)
    if key < 0 or key >= len(state.account) or gather(state, key, folio) == 0:
        return False
    emit(
        state,
        folio,
        carray(place_at(places[_OUT]), (FEATURES,), _FLOAT),
        carray(place_at(places[_OUT + 2]), (FIGURES,), _FLOAT),
    )
    return True


@compiled
def state_at(places: Integers) -> State:
    """The state that a handle's places lead to."""
    return State(
        carray(place_at(places[0]), (CLOCK_SLOTS,), _INTEGER),
        carray(place_at(places[2]), (places[3],), MARKET_ROW),
        carray(place_at(places[4]), (places[5],), ASSET_ROW),
        carray(place_at(places[6]), (places[7],), ACCOUNT_ROW),
        carray(place_at(places[8]), (places[9],), OWNER_ROW),
        carray(place_at(places[10]), (places[11],), POSITION_ROW),
        carray(place_at(places[12]), (places[13],), BALANCE_ROW),
        carray(place_at(places[14]), (REGIME_SLOTS,), _FLOAT),
    )


@compiled
def folio_at(places: Integers) -> Portfolio:
    """The portfolio that a handle's places lead to."""
    at = places[_OF_FOLIO:]
    return Portfolio(
        carray(place_at(at[0]), (3,), _INTEGER),
        carray(place_at(at[2]), (3,), _FLOAT),
        carray(place_at(at[4]), (1,), ACCOUNT_ROW),
        carray(place_at(at[6]), (at[7],), POSITION_ROW),
        carray(place_at(at[8]), (at[9],), BALANCE_ROW),
        carray(place_at(at[10]), (3, ESTIMATORS), _FLOAT),
        carray(place_at(at[12]), (1,), SUMS_ROW),
        carray(place_at(at[14]), (at[15],), _FLOAT),
        carray(place_at(at[16]), (at[17],), VIEW_ROW),
    )
