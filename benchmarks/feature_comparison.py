"""The columns of `features.standing` over a whole history, beside pandas and polars: processor time.

They are equity, margin, leverage, unrealised return by entry price, and sums of trading that fade
(`benchmarks/frames.py`); then the same with what was traded in the last hour and the last day
(`benchmarks/window_frames.py`). All three are given the same fills in order of time and the marks at the
decision times, and laying fills in order of account is a part of the time of each. Ours come from
`features.histories`. All answers are compared.
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
    HOURS,
    START_US,
    Flow,
    decision_times,
    flow,
    opened_venue,
)
from benchmarks.frames import in_pandas, in_polars
from benchmarks.window_frames import (
    HOURS as WINDOWS_H,
)
from benchmarks.window_frames import (
    hourly_in_pandas,
    hourly_in_polars,
    rolling_in_pandas,
    rolling_in_polars,
)
from exchange.units import HOUR_US, MINUTE_US
from features.histories import Fills, Marks, Standings, Transfers, stand_through
from features.standing import COLUMNS

ROUNDS = 5
"""Everybody is measured so often, and the quietest round counts."""

COMPARISON = {
    "alone_s": "sample: the compared columns, compiled, seconds",
    "pandas_s": "the same in pandas",
    "polars_s": "the same in polars",
    "pandas_ratio": "pandas over compiled, without windows",
    "polars_ratio": "polars over compiled, without windows",
    "windows_s": "sample: with sums over the last hour and day, compiled",
    "pandas_rolling_s": "the same in pandas, rolling windows",
    "polars_rolling_s": "the same in polars, rolling windows",
    "pandas_rolling_ratio": "pandas with rolling windows over compiled",
    "polars_rolling_ratio": "polars with rolling windows over compiled",
    "pandas_hourly_ratio": "pandas by whole hours over compiled",
    "polars_hourly_ratio": "polars by whole hours over compiled",
    "pandas_difference": "largest difference from pandas, relative",
    "polars_difference": "largest difference from polars, relative",
}


def timed(work: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    """Processor seconds of the quietest round, and the answer."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        answer = work(*given)
        rounds.append(time.process_time() - begun)
    return min(rounds), answer


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
    made = flow(fills, accounts, markets, seed)
    times_us = decision_times(HOURS)
    marks = Marks(times_us, made.mark[(times_us - START_US) // MINUTE_US])
    windows_us = tuple(hours * HOUR_US for hours in WINDOWS_H)
    compiled(made, accounts, markets, marks, windows_us)  # machine code is made
    figures["alone_s"], _ = timed(compiled, made, accounts, markets, marks, ())
    figures["windows_s"], found = timed(compiled, made, accounts, markets, marks, windows_us)
    step = (found.time - times_us[0]) // HOUR_US
    order = np.lexsort((found.account, step))
    asked = pd.DataFrame({"step": step[order], "account": found.account[order]})
    ours = found.column[order]
    figures["sample_fills"], figures["sample_rows"] = fills, len(ours)

    columns = {name: getattr(made, name) for name in Fills._fields}
    for tool, given, keys, standing, rolling, hourly in (
        ("pandas", pd.DataFrame(columns), asked, in_pandas, rolling_in_pandas, hourly_in_pandas),
        (
            "polars",
            pl.DataFrame(columns),
            pl.from_pandas(asked),
            in_polars,
            rolling_in_polars,
            hourly_in_polars,
        ),
    ):
        taken, answer = timed(standing, given, times_us, marks.mark)
        rolling_s, rolled = timed(rolling, given, times_us, keys)
        hourly_s, summed = timed(hourly, given, times_us, keys)
        figures[f"{tool}_s"] = taken
        figures[f"{tool}_rolling_s"] = taken + rolling_s
        figures[f"{tool}_hourly_s"] = taken + hourly_s
        figures[f"{tool}_ratio"] = taken / figures["alone_s"]
        for kind in ("rolling", "hourly"):
            figures[f"{tool}_{kind}_ratio"] = figures[f"{tool}_{kind}_s"] / figures["windows_s"]
        same = np.array_equal(answer[["step", "account"]].to_numpy(), asked.to_numpy())
        assert same, "not the same open accounts"
        theirs = np.hstack([answer[list(COLUMNS)].to_numpy(), rolled.to_numpy()])
        figures[f"{tool}_difference"] = max(
            largest_difference(ours, theirs), largest_difference(ours[:, len(COLUMNS) :], summed.to_numpy())
        )
        assert figures[f"{tool}_difference"] < 1e-6, f"{tool} and we do not agree"
