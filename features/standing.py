"""How accounts stand, without the rest of the vector: a few columns of margin, position and habit.

For whoever only wants these. They are the same numbers as the vector's, from the same sums.
`features.histories` has them for whole histories.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exchange.account import notional_usd, unrealised_usd
from exchange.compiled import inlined
from features.arithmetic import over
from features.behaviour import HABIT_HALF_LIFE_S, remaining
from features.portfolio import gather, sum_pools
from features.state import FILLED, NOW, POSITIONS, TRADED, Portfolio, State

COLUMNS = (
    "equity_usd", "maintenance_usd", "margin_ratio", "effective_leverage", "net_leverage",
    "unrealised_return", "turnover", "fills",
)  # fmt: skip


@inlined
def stand(state: State, key: int, folio: Portfolio, out: npt.NDArray[np.float64]) -> bool:
    """COLUMNS of one account; False, and nothing written, without an open position."""
    if gather(state, key, folio) == 0:
        return False
    sum_pools(state, folio)
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
    now = state.clock[NOW]
    keep = remaining(now - facts.faded, HABIT_HALF_LIFE_S) if facts.faded >= 0 else 0.0
    out[0] = sums.equity
    out[1] = sums.needed
    out[2] = sums.worst_ratio
    out[3] = over(sums.gross, sums.equity)
    out[4] = over(abs(sums.net), sums.equity)
    out[5] = over(unrealised, sums.equity)
    out[6] = over(keep * facts.habit[TRADED], sums.equity)
    out[7] = keep * facts.habit[FILLED]
    return True
