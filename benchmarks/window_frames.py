"""What was done within the last hours of each decision time, in pandas and in polars.

Twice each: by rolling windows over the fills, which is what both offer for it, and by differences of running
sums at places that a binary search finds, which is faster where only few times are asked for. The keys asked
for are rows of `step` and `account` in order of account, then step; the answers come back in their order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from exchange.units import HOUR_US

Integers = npt.NDArray[np.int64]

HOURS = (1, 24, 168)
SUMMED = ["traded_usd", "net_usd", "fee_usd", "realised", "fills"]
NAMES = tuple(f"{what}_{hours}h" for hours in HOURS for what in SUMMED)


def _summed_in_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    dollars = frame["quantity"] * frame["price"]
    return frame[["account", "fee_usd", "realised"]].assign(
        traded_usd=dollars.abs(), net_usd=dollars, fills=1.0
    )


def rolling_in_pandas(frame: pd.DataFrame, times_us: Integers, keys: pd.DataFrame) -> pd.DataFrame:
    """Windows (time - hours, time], with a row of nothing done for each key among the fills."""
    fills = _summed_in_pandas(frame).assign(time=frame["time_us"].astype("datetime64[us]"), key=-1)
    asked = pd.DataFrame(
        {
            "account": keys["account"].to_numpy(),
            "time": times_us[keys["step"]].astype("datetime64[us]"),
            "key": np.arange(len(keys)),
        }
        | dict.fromkeys(SUMMED, 0.0)
    )
    rows = pd.concat([fills, asked], ignore_index=True).sort_values(["account", "time"], kind="stable")
    is_asked = rows["key"].to_numpy() >= 0
    by_account = rows.set_index("time").groupby("account")[SUMMED]
    found = [by_account.rolling(f"{hours}h").sum().to_numpy()[is_asked] for hours in HOURS]
    return pd.DataFrame(np.hstack(found), columns=list(NAMES))


def searched_in_pandas(frame: pd.DataFrame, times_us: Integers, keys: pd.DataFrame) -> pd.DataFrame:
    """The same from running sums: account and time make one number, in whose order fills lie."""
    order = np.argsort(frame["account"].to_numpy(), kind="stable")
    sums = np.zeros((len(frame) + 1, len(SUMMED)))
    np.cumsum(_summed_in_pandas(frame)[SUMMED].to_numpy()[order], axis=0, out=sums[1:])
    first_us = min(frame["time_us"].iloc[0], times_us[0])
    span_us = max(frame["time_us"].iloc[-1], times_us[-1]) - first_us + 1
    place = (frame["account"].to_numpy(np.int64) * span_us + frame["time_us"].to_numpy() - first_us)[order]
    account_us = keys["account"].to_numpy(np.int64) * span_us
    now = account_us + times_us[keys["step"]] - first_us
    last = np.searchsorted(place, now, side="right")
    found = [
        sums[last]
        - sums[np.searchsorted(place, np.maximum(now - hours * HOUR_US, account_us - 1), side="right")]
        for hours in HOURS
    ]
    return pd.DataFrame(np.hstack(found), columns=list(NAMES))


def _summed_in_polars() -> list[pl.Expr]:
    dollars = pl.col("quantity") * pl.col("price")
    return [
        dollars.abs().alias("traded_usd"), dollars.alias("net_usd"), pl.col("fee_usd"), pl.col("realised"),
        pl.lit(1.0).alias("fills"),
    ]  # fmt: skip


def rolling_in_polars(frame: pl.DataFrame, times_us: Integers, keys: pl.DataFrame) -> pl.DataFrame:
    """Windows (time - hours, time], with a row of nothing done for each key among the fills."""
    fills = frame.select(
        pl.col("account"),
        pl.col("time_us").cast(pl.Datetime("us")).alias("time"),
        pl.lit(False).alias("asked"),
        *_summed_in_polars(),
    )
    asked = keys.select(
        pl.col("account").cast(pl.Int32),
        pl.Series("time", times_us[keys["step"].to_numpy()]).cast(pl.Datetime("us")),
        pl.lit(True).alias("asked"),
        *(pl.lit(0.0).alias(name) for name in SUMMED),
    )
    rows = pl.concat([fills, asked]).sort("account", "time", maintain_order=True)
    rolled = [
        rows.rolling("time", period=f"{hours}h", group_by="account").agg(
            pl.col(name).sum().alias(f"{name}_{hours}h") for name in SUMMED
        )
        for hours in HOURS
    ]
    answers = [table.filter(rows["asked"]).select(pl.col("^.*h$")) for table in rolled]
    return pl.concat(answers, how="horizontal").select(NAMES)


def searched_in_polars(frame: pl.DataFrame, times_us: Integers, keys: pl.DataFrame) -> pl.DataFrame:
    """The same from running sums: account and time make one number, in whose order fills lie."""
    first_us = min(int(frame["time_us"][0]), int(times_us[0]))
    span_us = max(int(frame["time_us"][-1]), int(times_us[-1])) - first_us + 1
    account_us = pl.col("account").cast(pl.Int64) * span_us
    fills = frame.sort("account", maintain_order=True).select(
        (account_us + pl.col("time_us") - first_us).alias("place"), *_summed_in_polars()
    )
    sums = pl.concat([pl.DataFrame({name: [0.0] for name in SUMMED}), fills.select(pl.col(SUMMED).cum_sum())])
    asked = keys.select(
        account_us.alias("first"),
        (account_us + pl.Series(times_us[keys["step"].to_numpy()] - first_us)).alias("now"),
    )
    last = sums[fills["place"].search_sorted(asked["now"], side="right")]
    found = []
    for hours in HOURS:
        since = asked.select(
            pl.max_horizontal(pl.col("now") - hours * HOUR_US, pl.col("first") - 1)
        ).to_series()
        before = sums[fills["place"].search_sorted(since, side="right")]
        found += [(last[name] - before[name]).alias(f"{name}_{hours}h") for name in SUMMED]
    return pl.DataFrame(found)
