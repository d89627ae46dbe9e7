"""Events: rows of an account history as flat numbers, in the order in which they apply.

A batch holds `n` rows. `key` is the id of the row's market, asset or account, `sub` the second id of
rows that belong to an account and a market or asset (-1 elsewhere), `values` what the kind says below;
a value that a row does not have is NaN. Kinds are numbered in the order in which rows of one time
apply; TIER, LEVEL, POSITION and BALANCE rows follow the row that they belong to, in the same batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MARKET = 0  # key market: tick_size, lot_size, taker_fee_rate, liquidation_fee_rate, funding_interval_s
TIER = 1  # key market: notional_cap_usd (inf: none), initial_margin_rate, maintenance_margin_rate, number
ASSET = 2  # key asset: collateral_weight, liability_weight
ASSET_PRICE = 3  # key asset: price
BAR = 4  # key market: mark_close, index_close, mark_open, mark_high, mark_low, volume_usd, open_interest_usd
BOOK = 5  # key market: best_bid, best_ask
LEVEL = 6  # key market: distance_bps, bid_usd, ask_usd, number
FUNDING = 7  # key market: funding_rate
ACCOUNT = 8  # key account, sub owner: opened_time_us, isolated (0 or 1)
TRANSFER = 9  # key account: amount_usd
FILL = (
    10  # key account, sub market: quantity, price, fee_usd, kind (index into FILL_KINDS of `features.tables`)
)
RATE = 11  # key account: initial_margin_rate, maintenance_margin_rate
SNAPSHOT = (
    12  # key account: equity_usd, collateral_usd, initial_margin_usd, maintenance_margin_usd, open_orders
)
POSITION = 13  # key account, sub market: quantity, entry_price, quote_usd, isolated_collateral_usd
BALANCE = 14  # key account, sub asset: amount
OBSERVED = 15  # nothing: the whole population was looked at
DEFAULT = 16  # key account: kind (index into DEFAULT_KINDS of `features.tables`)

VALUES = 8


class EventBatch(NamedTuple):
    """Rows in the order in which they apply."""

    kind: npt.NDArray[np.uint8]
    time_us: npt.NDArray[np.int64]
    key: npt.NDArray[np.int32]
    sub: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]  # (n, VALUES)

    @classmethod
    def empty(cls, rows: int) -> EventBatch:
        """A batch of `rows` rows with no ids and no values yet."""
        return cls(
            np.zeros(rows, np.uint8),
            np.zeros(rows, np.int64),
            np.full(rows, -1, np.int32),
            np.full(rows, -1, np.int32),
            np.full((rows, VALUES), np.nan),
        )
