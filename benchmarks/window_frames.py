"""What was traded within the last hours of each decision time, in pandas and in polars.

Twice each: by rolling windows over the fills, which answer for any time, and by sums of whole hours, which a
user may take where all decision times lie on the hour, as here. The keys asked for are rows of `step` and
`account`; the columns come back in their order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from exchange.units import HOUR_US

Integers = npt.NDArray[np.int64]

HOURS = (1, 24)
NAMES = tuple(f"{what}_{hours}h" for hours in HOURS for what in ("traded", "count"))
_SUMMED = ["traded", "count"]


def rolling_in_pandas(frame: pd.DataFrame, times_us: Integers, keys: pd.DataFrame) -> pd.DataFrame:
    """Windows (time - hours, time], with a row of nothing traded for each key among the fills."""
    fills = pd.DataFrame(
        {
            "time": frame["time_us"].astype("datetime64[us]"),
            "account": frame["account"],
            "traded": frame["quantity"].abs() * frame["price"],
            "count": 1.0,
        }
    )
    asked = pd.DataFrame(
        {
            "time": times_us[keys["step"]].astype("datetime64[us]"),
            "account": keys["account"].to_numpy(),
            "traded": 0.0,
            "count": 0.0,
            "key": np.arange(len(keys)),
        }
    )
    rows = pd.concat([fills.assign(key=-1), asked], ignore_index=True)
    rows = rows.sort_values(["account", "time"], kind="stable")
    key = rows["key"].to_numpy()
    by_account = rows.set_index("time").groupby("account")[_SUMMED]
    found = [by_account.rolling(f"{hours}h").sum().to_numpy() for hours in HOURS]
    answer = np.empty((len(keys), len(NAMES)))
    answer[key[key >= 0]] = np.hstack(found)[key >= 0]
    return pd.DataFrame(answer, columns=list(NAMES))


def hourly_in_pandas(frame: pd.DataFrame, times_us: Integers, keys: pd.DataFrame) -> pd.DataFrame:
    """The same from sums by hour."""
    first_us = times_us[0] - HOUR_US * (times_us[0] // HOUR_US)
    hour = -((first_us - frame["time_us"]) // HOUR_US)  # ends at or after the fill
    asked = (times_us - first_us) // HOUR_US
    fills = pd.DataFrame(
        {
            "account": frame["account"],
            "hour": hour,
            "traded": frame["quantity"].abs() * frame["price"],
            "count": 1.0,
        }
    )
    sums = fills.groupby(["account", "hour"])[_SUMMED].sum()
    hours_known = range(int(hour.min()), int(max(hour.max(), asked[-1])) + 1)
    found = {}
    for name in _SUMMED:
        total = sums[name].unstack("hour").reindex(columns=hours_known).fillna(0.0).cumsum(axis=1)
        place = total.index.get_indexer(keys["account"])
        column = asked[keys["step"]] - hours_known[0]
        for hours in HOURS:
            within = total - total.shift(hours, axis=1).fillna(0.0)
            found[f"{name}_{hours}h"] = within.to_numpy()[place, column]
    return pd.DataFrame(found)[list(NAMES)]


def rolling_in_polars(frame: pl.DataFrame, times_us: Integers, keys: pl.DataFrame) -> pl.DataFrame:
    """Windows (time - hours, time], with a row of nothing traded for each key among the fills."""
    fills = frame.select(
        pl.col("time_us").cast(pl.Datetime("us")).alias("time"),
        pl.col("account"),
        (pl.col("quantity").abs() * pl.col("price")).alias("traded"),
        pl.lit(1.0).alias("count"),
        pl.lit(-1, pl.Int64).alias("key"),
    )
    asked = keys.select(
        pl.Series("time", times_us[keys["step"].to_numpy()]).cast(pl.Datetime("us")),
        pl.col("account").cast(pl.Int32),
        pl.lit(0.0).alias("traded"),
        pl.lit(0.0).alias("count"),
        pl.int_range(len(keys), dtype=pl.Int64).alias("key"),
    )
    rows = pl.concat([fills, asked]).sort("account", "time", maintain_order=True)
    rolled = [
        rows.rolling("time", period=f"{hours}h", group_by="account").agg(
            pl.col(name).sum().alias(f"{name}_{hours}h") for name in _SUMMED
        )
        for hours in HOURS
    ]
    return (
        rows.select("key")
        .with_columns(column for table in rolled for column in table.select(pl.col("^.*h$")))
        .filter(pl.col("key") >= 0)
        .sort("key")
        .select(NAMES)
    )


def hourly_in_polars(frame: pl.DataFrame, times_us: Integers, keys: pl.DataFrame) -> pl.DataFrame:
    """The same from sums by hour."""
    sums = (
        frame.select(
            pl.col("account").cast(pl.Int64),
            (-((-pl.col("time_us")) // HOUR_US)).alias("hour"),
            (pl.col("quantity").abs() * pl.col("price")).alias("traded"),
            pl.lit(1.0).alias("count"),
        )
        .group_by("account", "hour")
        .agg(pl.col(_SUMMED).sum())
    )
    last = max(sums["hour"].max(), int(times_us[-1] // HOUR_US))  # type: ignore[type-var]
    hours_known = pl.DataFrame({"hour": np.arange(sums["hour"].min(), last + 1)})
    rolled = (
        sums.select("account")
        .unique()
        .join(hours_known, how="cross")
        .join(sums, on=["account", "hour"], how="left")
        .sort("account", "hour")
        .with_columns(
            pl.col(name)
            .fill_null(0.0)
            .rolling_sum(hours, min_samples=1)
            .over("account")
            .alias(f"{name}_{hours}h")
            for hours in HOURS
            for name in _SUMMED
        )
    )
    asked = keys.select(
        pl.col("account").cast(pl.Int64), pl.Series("hour", times_us[keys["step"].to_numpy()] // HOUR_US)
    )
    return asked.join(rolled, on=["account", "hour"], how="left", maintain_order="left").select(NAMES)
