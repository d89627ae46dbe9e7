"""The columns of `features.standing` over a whole history, beside pandas and polars: processor time.

They are equity, margin, leverage, unrealised return by entry price, and sums of trading that fade
(`benchmarks/frames.py`); and what was traded, bought less sold, paid in fees and realised, and in how many
fills, in the last hour, day and week (`benchmarks/window_frames.py`). All three are given the same fills in
order of time and the marks at the decision times, and laying fills in order of account is a part of the time
of each. Ours come from `features.histories`. All answers are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from benchmarks.flows import (
    DEPOSIT_USD,
    START_US,
    Flow,
    decision_times,
    flow,
    opened_venue,
)
from benchmarks.frames import followed_in_pandas, followed_in_polars, in_pandas, in_polars
from benchmarks.window_frames import (
    HOURS as WINDOWS_H,
)
from benchmarks.window_frames import (
    rolling_in_pandas,
    rolling_in_polars,
    searched_in_pandas,
    searched_in_polars,
)
from exchange.units import HOUR_US, MINUTE_US
from features.histories import Fills, Marks, Standings, Transfers, stand_through
from features.standing import COLUMNS

ROUNDS = 7
"""Everybody is measured so often, in turns, and the quietest round counts."""

HOURS, EVERY_HOURS = 240, 6
"""Fills over ten days, looked at every six hours."""

COMPARISON = {
    "alone_s": "sample: the columns without windows, compiled, seconds",
    "windows_s": "with windows, compiled",
    "pandas_followed_s": "pandas: entry prices and what was realised",
    "pandas_standing_s": "pandas: equity, margin, leverage, return, habits",
    "pandas_rolling_s": "pandas: windows, rolling",
    "pandas_searched_s": "pandas: windows, running sums and binary search",
    "polars_followed_s": "polars: entry prices and what was realised",
    "polars_standing_s": "polars: equity, margin, leverage, return, habits",
    "polars_rolling_s": "polars: windows, rolling",
    "polars_searched_s": "polars: windows, running sums and binary search",
    "pandas_rolling_ratio": "pandas with rolling windows over compiled",
    "polars_rolling_ratio": "polars with rolling windows over compiled",
    "pandas_searched_ratio": "pandas with running sums over compiled",
    "polars_searched_ratio": "polars with running sums over compiled",
    "pandas_ratio": "pandas over compiled, without windows",
    "polars_ratio": "polars over compiled, without windows",
    "pandas_difference": "largest difference from pandas, relative",
    "polars_difference": "largest difference from polars, relative",
}


def timed(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Processor seconds of the quietest round of each; all take turns, since others disturb for long."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.process_time()
            answer = work()
            best[name] = min(best[name], time.process_time() - begun)
            del answer
    return best


def largest_difference(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> float:
    """Over all columns, relative, of numbers of at least one."""
    return float((np.abs(ours - theirs) / np.maximum(np.abs(ours), 1.0)).max())


def compiled(made: Flow, accounts: int, markets: int, marks: Marks, windows_us: tuple[int, ...]) -> Standings:
    """Every account's standings at every decision time, as `features.histories` has them."""
    fills = Fills(made.time_us, made.account, made.market, made.quantity, made.price, made.fee_usd)
    paid_in = Transfers(
        np.full(accounts, START_US), np.arange(accounts, dtype=np.int32), np.full(accounts, DEPOSIT_USD)
    )
    terms = opened_venue(0, markets).state.market[:markets]
    return stand_through(terms, accounts, fills, paid_in, marks, None, windows_us)


def compare(fills: int, accounts: int, markets: int, seed: int, figures: dict[str, float]) -> None:
    """Write COMPARISON and the sizes of the sample to `figures`."""
    made = flow(fills, accounts, markets, seed, HOURS)
    times_us = decision_times(HOURS, EVERY_HOURS)
    marks = Marks(times_us, made.mark[(times_us - START_US) // MINUTE_US])
    windows_us = tuple(hours * HOUR_US for hours in WINDOWS_H)
    ours: dict[str, Callable[[], Standings]] = {
        "alone": lambda: compiled(made, accounts, markets, marks, ()),
        "windows": lambda: compiled(made, accounts, markets, marks, windows_us),
    }
    ours["alone"]()  # machine code is made
    found = ours["windows"]()
    step = (found.time - times_us[0]) // (EVERY_HOURS * HOUR_US)
    asked = pd.DataFrame({"step": step, "account": found.account})
    figures["sample_fills"], figures["sample_rows"] = fills, len(step)

    columns = {name: getattr(made, name) for name in Fills._fields}
    frame, table, keys = pd.DataFrame(columns), pl.DataFrame(columns), pl.from_pandas(asked)
    frame_followed, table_followed = followed_in_pandas(frame), followed_in_polars(table)
    theirs: dict[str, Callable[[], Any]] = {
        "pandas_followed": lambda: followed_in_pandas(frame),
        "pandas_standing": lambda: in_pandas(frame_followed, times_us, marks.mark),
        "pandas_rolling": lambda: rolling_in_pandas(frame_followed, times_us, asked),
        "pandas_searched": lambda: searched_in_pandas(frame_followed, times_us, asked),
        "polars_followed": lambda: followed_in_polars(table),
        "polars_standing": lambda: in_polars(table_followed, times_us, marks.mark),
        "polars_rolling": lambda: rolling_in_polars(table_followed, times_us, keys),
        "polars_searched": lambda: searched_in_polars(table_followed, times_us, keys),
    }
    for tool in ("pandas", "polars"):
        answer = theirs[f"{tool}_standing"]()
        same = np.array_equal(answer[["step", "account"]].to_numpy(), asked.to_numpy())
        assert same, "not the same open accounts"
        figures[f"{tool}_difference"] = max(
            largest_difference(found.column, np.hstack([answer[list(COLUMNS)].to_numpy(), window.to_numpy()]))
            for window in (theirs[f"{tool}_rolling"](), theirs[f"{tool}_searched"]())
        )
        assert figures[f"{tool}_difference"] < 1e-6, f"{tool} and we do not agree"
    taken = timed(ours | theirs)
    figures |= {f"{name}_s": seconds for name, seconds in taken.items()}
    for tool in ("pandas", "polars"):
        alone = taken[f"{tool}_followed"] + taken[f"{tool}_standing"]
        figures[f"{tool}_ratio"] = alone / taken["alone"]
        for kind in ("rolling", "searched"):
            figures[f"{tool}_{kind}_ratio"] = (alone + taken[f"{tool}_{kind}"]) / taken["windows"]
