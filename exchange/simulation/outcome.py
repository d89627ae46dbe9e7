"""What came of a run: money lost and by whom, forced closing, cascades, trading, and what margin cost.

Rows are added up stretch by stretch (`Outcome.add`), so that memory does not grow with them; hourly looks at
the venue (`Outcome.look`) give what no row says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.simulation.entry import SHOWN_LEVERAGES, reference_rate, sum_in_force
from exchange.simulation.state import (
    DELEVERAGE,
    DELEVERAGED,
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
from exchange.units import DAY_US, MINUTE_US

Floats = npt.NDArray[np.float64]

CASCADE_SHARE, CASCADE_MOVE = 0.001, 0.005
"""Of a minute of cascade: forced closing over open interest, and the mark's move in its direction."""
HINDSIGHT_MINUTES = 60
"""After which one sees what deleveraged winners would have had."""
CAPITAL_COST_A_YEAR = 0.1
"""What it costs traders to post margin, a share of it."""
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
            ("liquidated", "deleveraged", "given_up", "draw", "penalties", "traded"), 0.0
        )
        self._held = np.zeros(2 + len(SHOWN_LEVERAGES))  # as `sum_in_force` has it, over all looks
        self._looks = 0
        self._sold_by_winners: list[tuple[int, int, float, float]] = []
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
        closed = fills[fills["kind"] == DELEVERAGE]
        sums["deleveraged"] += float(usd[fills["kind"] == DELEVERAGE].sum())
        when = np.clip((closed["time"] - venue.start_us) // MINUTE_US, 0, self._minutes)
        units, price = closed["a"] * lot[closed["market"]], closed["b"] * tick[closed["market"]]
        self._sold_by_winners += zip(
            when.tolist(), closed["market"].tolist(), units.tolist(), price.tolist(), strict=True
        )
        minute = np.clip((fills["time"][forced] - venue.start_us) // MINUTE_US, 0, self._minutes)
        side = (fills["a"][forced] < 0).astype(np.int64)
        np.add.at(self._forced, (minute, fills["market"][forced], side), usd[forced])
        fund = rows["fund"]
        sums["draw"] -= float(fund["b"][fund["kind"] == LOSSES].sum()) / MICRO
        sums["penalties"] += float(fund["b"][fund["kind"] == PENALTIES].sum()) / MICRO
        events = rows["events"]
        sums["given_up"] += float(events["b"][events["kind"] == DELEVERAGED].sum()) / MICRO
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
        found = np.zeros_like(self._held)
        sum_in_force(self._venue.world, found)
        self._held += found
        self._looks += 1
        self._reference.append(reference_rate(self._venue.world, REFERENCE_POSITION_USD, REFERENCE_LEVERAGE))

    def figures(self) -> dict[str, float]:
        """The metrics of `backtest.json`; NaN where nothing was there to be measured."""
        venue, sums = self._venue, self._sums
        purse = venue.world.purse
        intended = int(purse[INTENDED]) - self._before[0]
        opened = int(purse[OPENED]) - self._before[1]
        reference = np.array(self._reference)
        rises = np.diff(reference)
        margin, gross, *levered = self._held.tolist()
        years = self._minutes * MINUTE_US / (365.0 * DAY_US)
        posting = CAPITAL_COST_A_YEAR * years * margin / max(self._looks, 1)
        return {
            "insurance_draw_usd": sums["draw"],
            "negative_accounts": float(len(self._negative)),
            "liquidated_notional_usd": sums["liquidated"],
            "deleveraged_notional_usd": sums["deleveraged"],
            "deleveraging_overshoot_usd": self._forgone() - sums["given_up"],
            "net_fund_usd": float(purse[FUND]) / MICRO - venue.fund_at_start_usd,
            "traded_notional_usd": sums["traded"],
            "refused_demand": 1.0 - opened / intended if intended else math.nan,
            "open_interest_usd": float(self._open_usd[: self._minutes].sum(axis=1).mean()),
            "cascade_minutes": float(self._cascade_minutes()),
            "traders_cost_usd": posting + sums["penalties"] + sums["given_up"],
            "average_margin_rate": margin / gross if gross else math.nan,
            "margin_peak_over_trough": float(reference.max() / reference.min()),
            "largest_hourly_rise": float(rises.max(initial=0.0)),
        } | {
            f"share_above_{leverage:g}x": above / gross if gross else math.nan
            for leverage, above in zip(SHOWN_LEVERAGES.tolist(), levered, strict=True)
        }

    def _forgone(self) -> float:
        """What deleveraged winners would have had more at the mark of an hour later, dollars."""
        total = 0.0
        for minute, market, units, price in self._sold_by_winners:
            later = self._close[: minute + HINDSIGHT_MINUTES + 1, market]
            known = later[np.isfinite(later)]
            total += units * (price - float(known[-1])) if len(known) else 0.0
        return total

    def _cascade_minutes(self) -> int:
        close: Any = self._close
        moved = close[1:] / close[:-1] - 1.0
        share = self._forced[:-1] / np.maximum(self._open_usd[:-1], 1.0)[:, :, None]
        bought = (share[:, :, 0] > CASCADE_SHARE) & (moved >= CASCADE_MOVE)
        sold = (share[:, :, 1] > CASCADE_SHARE) & (moved <= -CASCADE_MOVE)
        return int((bought | sold).any(axis=1).sum())
