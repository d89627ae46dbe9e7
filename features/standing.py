"""How accounts stand, without the rest of the vector: a few columns of margin, position and habit.

For whoever only wants these. They are the same numbers as the vector's, from the same sums.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exchange.account import notional_usd, unrealised_usd
from exchange.compiled import lean
from features.arithmetic import over
from features.behaviour import HABIT_HALF_LIFE_S, remaining
from features.portfolio import gather, read_ahead, sum_margin
from features.state import FILLED, NOW, POSITIONS, TRADED, Portfolio, State

COLUMNS = (
    "equity_usd", "maintenance_usd", "margin_ratio", "effective_leverage", "net_leverage",
    "unrealised_return", "turnover", "fills",
)  # fmt: skip


@lean
def stand_open(
    state: State, accounts: int, folio: Portfolio, ids: npt.NDArray[np.int64], out: npt.NDArray[np.float64]
) -> int:
    """COLUMNS of every account among the first `accounts` that has an open position; their number.

    `ids` and `out` have a row for each of them, in rising id order. NaN where something is not known; habits
    count fills from the first one on.
    """
    now = state.clock[NOW]
    rows = 0
    for key in range(accounts):
        read_ahead(state, key)
        if gather(state, key, folio) == 0:
            continue
        sum_margin(state, folio)
        sums = folio.sums[0]
        facts = folio.facts[0]
        unrealised = 0.0
        for i in range(folio.count[POSITIONS]):
            position = folio.position[i]
            if position.quantity != 0.0:
                mark = state.market[position.market].mark
                unrealised += unrealised_usd(
                    position.quantity, mark, -notional_usd(position.quantity, position.entry_price)
                )
        keep = remaining(now - facts.faded, HABIT_HALF_LIFE_S) if facts.faded >= 0 else 0.0
        ids[rows] = key
        out[rows, 0] = sums.equity
        out[rows, 1] = sums.needed
        out[rows, 2] = sums.worst_ratio
        out[rows, 3] = over(sums.gross, sums.equity)
        out[rows, 4] = over(abs(sums.net), sums.equity)
        out[rows, 5] = over(unrealised, sums.equity)
        out[rows, 6] = over(keep * facts.habit[TRADED], sums.equity)
        out[rows, 7] = keep * facts.habit[FILLED]
        rows += 1
    return rows
