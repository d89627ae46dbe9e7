"""What came of a run: money lost and by whom, forced closing, cascades, trading, and what margin cost.

Rows are added up stretch by stretch (`Outcome.add`), so that memory does not grow with them; hourly looks at
the venue (`Outcome.look`) give what no row says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.simulation.entry import reference_rate, sum_in_force
from exchange.simulation.state import (
    DELEVERAGE,
    FUND,
    INTENDED,
    LIQUIDATION,
    LOSSES,
    MAKER,
    MICRO,
    NEGATIVE,
    OPENED,
    PENALTIES,
)  # fmt: skip
from exchange.simulation.venue import Rows, Venue
from exchange.units import MINUTE_US

Floats = npt.NDArray[np.float64]

CASCADE_SHARE, CASCADE_MOVE = 0.001, 0.005
"""Of a minute of cascade: forced closing over open interest, and the mark's move in its direction."""
REFERENCE_POSITION_USD, REFERENCE_LEVERAGE = 2_500.0, 8.0
"""The portfolio on which procyclicality is read: long so much in every market, at this leverage."""


class Outcome:
    """Figures of one run of a venue from when it is made on, which is where the recorded part begins."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._minutes = venue.minutes - venue.history_minutes
        markets = len(venue.listed)
        self._forced = np.zeros((self._minutes + 1, markets, 2))  # bought, sold
        self._close = np.full((self._minutes + 1, markets), np.nan)
        self._open_usd = np.zeros((self._minutes + 1, markets))
        self._sums = dict.fromkeys(
            ("liquidated", "deleveraged", "draw", "penalties", "traded", "margin", "gross"), 0.0
        )
        self._negative: set[int] = set()
        self._reference: list[float] = []
        purse = venue.world.purse
        self._before = int(purse[INTENDED]), int(purse[OPENED])

    def add(self, rows: Rows) -> None:
        """Take in the rows of a stretch."""
        venue, sums = self._venue, self._sums
        world = venue.world
        lot, tick = world.market["lot"], world.market["tick"]
        fills = rows["fills"]
        usd = np.abs(fills["a"]) * lot[fills["market"]] * fills["b"] * tick[fills["market"]]
        forced = fills["kind"] == LIQUIDATION
        sums["liquidated"] += float(usd[forced].sum())
        sums["deleveraged"] += float(usd[fills["kind"] == DELEVERAGE].sum())
        minute = np.clip((fills["time"][forced] - venue.start_us) // MINUTE_US, 0, self._minutes)
        side = (fills["a"][forced] < 0).astype(np.int64)
        np.add.at(self._forced, (minute, fills["market"][forced], side), usd[forced])
        fund = rows["fund"]
        sums["draw"] -= float(fund["b"][fund["kind"] == LOSSES].sum()) / MICRO
        sums["penalties"] += float(fund["b"][fund["kind"] == PENALTIES].sum()) / MICRO
        events = rows["events"]
        traders = world.account["kind"][events["account"]] < MAKER
        self._negative.update(events["account"][(events["kind"] == NEGATIVE) & traders].tolist())
        bars = rows["bars"]
        bars = bars[bars["time"] >= venue.start_us]
        at = (bars["time"] - venue.start_us) // MINUTE_US
        self._close[at, bars["market"]] = bars["close"]
        self._open_usd[at, bars["market"]] = bars["open_interest"]
        sums["traded"] += float(bars["volume"].sum())

    def look(self) -> None:
        """Read the margin in force and the reference portfolio; to be called at even intervals."""
        found = np.zeros(2)
        sum_in_force(self._venue.world, found)
        self._sums["margin"] += float(found[0])
        self._sums["gross"] += float(found[1])
        self._reference.append(reference_rate(self._venue.world, REFERENCE_POSITION_USD, REFERENCE_LEVERAGE))

    def figures(self) -> dict[str, float]:
        """The metrics of `backtest.json`; NaN where nothing was there to be measured."""
        venue, sums = self._venue, self._sums
        purse = venue.world.purse
        intended = int(purse[INTENDED]) - self._before[0]
        opened = int(purse[OPENED]) - self._before[1]
        reference = np.array(self._reference)
        rises = np.diff(reference)
        gross = sums["gross"]
        return {
            "insurance_draw_usd": sums["draw"],
            "negative_accounts": float(len(self._negative)),
            "liquidated_notional_usd": sums["liquidated"],
            "deleveraged_notional_usd": sums["deleveraged"],
            "net_fund_usd": float(purse[FUND]) / MICRO - venue.fund_at_start_usd,
            "traded_notional_usd": sums["traded"],
            "refused_demand": 1.0 - opened / intended if intended else math.nan,
            "open_interest_usd": float(self._open_usd[: self._minutes].sum(axis=1).mean()),
            "cascade_minutes": float(self._cascade_minutes()),
            "average_margin_rate": sums["margin"] / gross if gross else math.nan,
            "margin_peak_over_trough": float(reference.max() / reference.min()),
            "largest_hourly_rise": float(rises.max(initial=0.0)),
        }

    def _cascade_minutes(self) -> int:
        close: Any = self._close
        moved = close[1:] / close[:-1] - 1.0
        share = self._forced[:-1] / np.maximum(self._open_usd[:-1], 1.0)[:, :, None]
        bought = (share[:, :, 0] > CASCADE_SHARE) & (moved >= CASCADE_MOVE)
        sold = (share[:, :, 1] > CASCADE_SHARE) & (moved <= -CASCADE_MOVE)
        return int((bought | sold).any(axis=1).sum())
