"""What one run of a venue left behind, as plain arrays: what statistics and pictures of it are made of.

A record comes from a venue that has just run (`record_of`) or from the tables of a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.simulation.state import COLUMNS, MAKER, MICRO
from exchange.simulation.venue import Rows, Venue
from exchange.units import DAY_US

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LEAST_SHOCK = 0.05
"""Mean fall of the markets within an hour that counts as a shock."""


class Fills(NamedTuple):
    """One row a side, in the order of time (microseconds); bought is positive, kinds as in `state`."""

    time: Whole
    account: Whole
    market: Whole
    quantity: Floats
    price: Floats
    kind: Whole


class Events(NamedTuple):
    """Rows of `default_events`; kinds as in `state`, dollars."""

    time: Whole
    account: Whole
    kind: Whole
    notional: Floats
    shortfall: Floats


class Midnights(NamedTuple):
    """Accounts with positions as they stand at each midnight, one row an account; dollars."""

    time: Whole
    account: Whole
    equity: Floats
    collateral: Floats
    maintenance: Floats
    gross: Floats


class Holdings(NamedTuple):
    """Positions when the run begins, one row each."""

    account: Whole
    market: Whole
    quantity: Floats


class Bars(NamedTuple):
    """Per market and minute, [minutes, markets]; NaN where there is none."""

    time: Whole
    close: Floats
    low: Floats
    oracle: Floats
    open_interest: Floats
    spread: Floats
    """Best ask minus best bid, over their middle."""
    depth: Floats
    """Dollars within 1% of the mid on one side."""


class Record(NamedTuple):
    """All of a run that statistics are made of."""

    start_us: int
    end_us: int
    fills: Fills
    events: Events
    midnights: Midnights
    holdings: Holdings
    bars: Bars
    trader: Flags
    """By account: neither maker nor backstop."""
    shock_us: int
    """When a shock begins, -1 without one."""


def record_of(venue: Venue, stretches: Sequence[Rows], shock_us: int | None = None) -> Record:
    """The record of a venue that has run, from the rows it yielded; finds the shock where none is given."""
    rows = {name: np.concatenate([each[name] for each in stretches]) for name in (*COLUMNS, "bars")}
    lot, tick = venue.world.market["lot"], venue.world.market["tick"]
    bars = _bars(rows["bars"], len(lot), venue.start_us)
    fills, events = rows["fills"], rows["events"]
    shots, held = rows["snapshots"], rows["holdings"]
    shots = shots[(shots["time"] % DAY_US == 0) & (shots["time"] >= venue.start_us)]
    held = held[(held["time"] % DAY_US == 0) & (held["time"] >= venue.start_us)]
    trader = venue.world.account["kind"] < MAKER
    at = np.searchsorted(bars.time, held["time"])
    notional = np.abs(held["a"] * lot[held["market"]] * bars.close[at, held["market"]])
    shot_key, held_key = day_key(shots["time"], shots["account"]), day_key(held["time"], held["account"])
    keys, place = np.unique(shot_key, return_index=True)
    gross = np.bincount(np.searchsorted(keys, held_key), notional, len(keys))
    shots = shots[place]
    kept = (gross > 0.0) & trader[shots["account"]]
    shots = shots[kept]
    first = held[held["time"] == venue.start_us]
    return Record(
        start_us=venue.start_us,
        end_us=venue.end_us,
        fills=Fills(
            fills["time"], fills["account"].astype(np.int64), fills["market"].astype(np.int64),
            fills["a"] * lot[fills["market"]], fills["b"] * tick[fills["market"]],
            fills["kind"].astype(np.int64),
        ),
        events=Events(
            events["time"], events["account"].astype(np.int64), events["kind"].astype(np.int64),
            events["a"] / MICRO, events["b"] / MICRO,
        ),
        midnights=Midnights(
            shots["time"], shots["account"].astype(np.int64), shots["a"] / MICRO, shots["b"] / MICRO,
            shots["d"] / MICRO, gross[kept],
        ),
        holdings=Holdings(
            first["account"].astype(np.int64), first["market"].astype(np.int64),
            first["a"] * lot[first["market"]],
        ),
        bars=bars,
        trader=trader,
        shock_us=shock_begin_us(bars) if shock_us is None else shock_us,
    )  # fmt: skip


def day_key(time_us: Whole, account: Whole) -> Whole:
    """One number for an account on a day."""
    return time_us // DAY_US * 10_000_000 + account.astype(np.int64)


def _bars(rows: npt.NDArray[Any], markets: int, start_us: int) -> Bars:
    rows = rows[rows["time"] >= start_us]
    rows = rows[np.lexsort((rows["market"], rows["time"]))]
    wide = {name: rows[name].reshape(-1, markets) for name in (rows.dtype.names or ())}
    middle = 0.5 * (wide["bid"] + wide["ask"])
    return Bars(
        wide["time"][:, 0], wide["close"], wide["low"], wide["index"], wide["open_interest"],
        (wide["ask"] - wide["bid"]) / middle, wide["depth"],
    )  # fmt: skip


def shock_begin_us(bars: Bars) -> int:
    """When the worst hour of the mean log price begins to fall, -1 where no hour falls by `LEAST_SHOCK`.

    The last minute at which the price still stood at its highest of the hour and a half before the low.
    """
    if len(bars.time) < 62:
        return -1
    level = np.log(bars.oracle).mean(axis=1)
    level = level - level[0]
    fall = level[60:] - level[:-60]
    worst = int(np.argmin(fall))
    if fall[worst] > np.log1p(-LEAST_SHOCK):
        return -1
    first = max(worst - 30, 0)
    low = first + int(np.argmin(level[first : worst + 61]))
    high = level[first : low + 1].max()
    depth = high - level[low]
    # the last minute that was within a hundredth of the fall from its top
    return int(bars.time[first + int(np.flatnonzero(level[first : low + 1] > high - 0.01 * depth)[-1])])
