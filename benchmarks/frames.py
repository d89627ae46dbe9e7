"""The columns of `features.standing` in pandas and in polars, as a good user of them would write them.

Both get the fills in order of time and the marks at the decision times, and answer for every open account
at each of these, in order of account. What can be said of whole columns is; the entry price, which depends
on the one before it, and what a fill realises against it are a loop over plain lists in both, the fastest
that either offers short of compiled code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LOT, DEPOSIT_USD, FAR = 0.1, 20_000.0, 1_000.0
TIER_USD, MAINTENANCE = 100_000.0, (0.025, 0.05)
HALF_LIFE_S = 3 * 86_400.0
FILL_COLUMNS = ("account", "market", "quantity", "price")


def entries(
    account: list[int], market: list[int], quantity: list[float], price: list[float]
) -> tuple[list[float], list[float]]:
    """Entry price after each fill, and what the fill realised; in order of account, market and time."""
    found, realised = [], []
    before = (-1, -1)
    held, entry = 0.0, float("nan")
    for who, where, size, paid in zip(account, market, quantity, price, strict=True):
        if (who, where) != before:
            before = (who, where)
            held = 0.0
        left = held + size
        if -0.5 * LOT < left < 0.5 * LOT:
            left = 0.0
        profit = 0.0
        if held == 0.0:
            entry = paid
        elif held * size > 0.0:
            entry = (held * entry + size * paid) / left
        else:
            profit = (-size if abs(size) < abs(held) else held) * (paid - entry)
            if held * left < 0.0:
                entry = paid
        held = left
        found.append(entry)
        realised.append(profit)
    return found, realised


def followed_in_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """The fills in the same order with `entry` and `realised`."""
    ordered = frame.sort_values(["account", "market"], kind="stable")
    entry, realised = entries(*(ordered[name].tolist() for name in FILL_COLUMNS))
    return frame.assign(
        entry=pd.Series(entry, index=ordered.index), realised=pd.Series(realised, index=ordered.index)
    )


def in_pandas(frame: pd.DataFrame, times_us: Integers, marks: Floats) -> pd.DataFrame:
    """step, account and the columns, from fills with `entry`; `marks` is (steps, markets)."""
    frame = frame.assign(step=np.searchsorted(times_us, frame["time_us"].to_numpy(), side="left"))
    frame = frame[frame["step"] < len(times_us)]
    traded = frame["quantity"].abs() * frame["price"]
    weight = np.exp2((frame["time_us"] - times_us[0]) / 1e6 / HALF_LIFE_S)
    frame = frame.assign(
        cash=-frame["quantity"] * frame["price"] - frame["fee_usd"], traded=weight * traded, fills=weight
    )
    steps = range(len(times_us))
    by_position = frame.groupby(["account", "market", "step"], sort=True)
    held = by_position["quantity"].sum().unstack("step").reindex(columns=steps).fillna(0.0).cumsum(axis=1)
    held = held.where(held.abs() > 0.5 * LOT, 0.0)
    entry = by_position["entry"].last().unstack("step").reindex(columns=steps).ffill(axis=1)
    by_account = frame.groupby(["account", "step"], sort=True)[["cash", "traded", "fills"]].sum()
    cash, turnover, fills = (
        by_account[name].unstack("step").reindex(columns=steps).fillna(0.0).cumsum(axis=1)
        for name in ("cash", "traded", "fills")
    )
    mark = marks.T[held.index.get_level_values("market")]
    notional = held * mark
    size = notional.abs()
    needed = (size * MAINTENANCE[0]).where(
        size < TIER_USD, size * MAINTENANCE[1] - TIER_USD * (MAINTENANCE[1] - MAINTENANCE[0])
    )
    profit = (held * (mark - entry)).fillna(0.0)
    net, gross, maintenance, unrealised = (
        table.groupby("account").sum() for table in (notional, size, needed, profit)
    )
    equity = cash + DEPOSIT_USD + net
    fade = np.exp2(-(times_us - times_us[0]) / 1e6 / HALF_LIFE_S)
    is_open = (gross > 0.0).to_numpy()
    account, step = np.nonzero(is_open)
    found = {"step": step, "account": gross.index.to_numpy()[account]}
    tables = {
        "equity_usd": equity,
        "maintenance_usd": maintenance,
        "margin_ratio": _over_all(equity, maintenance),
        "effective_leverage": _over_all(gross, equity),
        "net_leverage": _over_all(net.abs(), equity),
        "unrealised_return": _over_all(unrealised, equity),
        "turnover": _over_all(turnover * fade, equity),
        "fills": fills * fade,
    }
    for name, table in tables.items():
        found[name] = table.to_numpy()[is_open]
    return pd.DataFrame(found)


def _over_all(value: pd.DataFrame, scale: pd.DataFrame) -> pd.DataFrame:
    """value / scale within bounds, at a bound where the scale is nothing."""
    return (value / scale).clip(-FAR, FAR).where(scale > 0.0, np.sign(value) * FAR)


def followed_in_polars(frame: pl.DataFrame) -> pl.DataFrame:
    """The fills in the same order with `entry` and `realised`."""
    ordered = frame.with_row_index("row").sort("account", "market", maintain_order=True)
    entry, realised = entries(*(ordered[name].to_list() for name in FILL_COLUMNS))
    return ordered.with_columns(entry=pl.Series(entry), realised=pl.Series(realised)).sort("row").drop("row")


def in_polars(frame: pl.DataFrame, times_us: Integers, marks: Floats) -> pl.DataFrame:
    """The same; one thread or many is for the process to say."""
    seconds = (pl.col("time_us") - int(times_us[0])) / 1e6
    step = np.searchsorted(times_us, frame["time_us"].to_numpy(), side="left")
    frame = (
        frame.with_columns(step=pl.Series(step))
        .filter(pl.col("step") < len(times_us))
        .with_columns(
            traded=pl.col("quantity").abs() * pl.col("price"),
            weight=(seconds / HALF_LIFE_S * np.log(2.0)).exp(),
        )
    )
    steps = pl.DataFrame({"step": np.arange(len(times_us))})
    moved = frame.group_by("account", "market", "step").agg(pl.col("quantity").sum(), pl.col("entry").last())
    grid = moved.select("account", "market").unique().join(steps, how="cross")
    mark = pl.DataFrame(
        {
            "step": np.repeat(np.arange(len(times_us)), marks.shape[1]),
            "market": np.tile(np.arange(marks.shape[1], dtype=np.int32), len(times_us)),
            "mark": marks.ravel(),
        }
    )
    size = pl.col("notional").abs()
    positions = (
        grid.join(moved, on=["account", "market", "step"], how="left")
        .sort("account", "market", "step")
        .with_columns(
            held=pl.col("quantity").fill_null(0.0).cum_sum().over("account", "market"),
            entry=pl.col("entry").forward_fill().over("account", "market"),
        )
        .with_columns(held=pl.when(pl.col("held").abs() > 0.5 * LOT).then(pl.col("held")).otherwise(0.0))
        .join(mark, on=["step", "market"], how="left")
        .with_columns(notional=pl.col("held") * pl.col("mark"))
        .group_by("account", "step")
        .agg(
            net=pl.col("notional").sum(),
            gross=size.sum(),
            maintenance_usd=pl.when(size < TIER_USD)
            .then(size * MAINTENANCE[0])
            .otherwise(size * MAINTENANCE[1] - TIER_USD * (MAINTENANCE[1] - MAINTENANCE[0]))
            .sum(),
            unrealised=(pl.col("held") * (pl.col("mark") - pl.col("entry"))).fill_null(0.0).sum(),
        )
    )
    paid = frame.group_by("account", "step").agg(
        cash=(-pl.col("quantity") * pl.col("price") - pl.col("fee_usd")).sum(),
        traded=(pl.col("weight") * pl.col("traded")).sum(),
        fills=pl.col("weight").sum(),
    )
    fade = np.exp2(-(times_us - times_us[0]) / 1e6 / HALF_LIFE_S)
    return (
        positions.join(paid, on=["account", "step"], how="left")
        .sort("account", "step")
        .with_columns(pl.col("cash", "traded", "fills").fill_null(0.0).cum_sum().over("account"))
        .filter(pl.col("gross") > 0.0)
        .join(steps.with_columns(fade=fade), on="step", how="left")
        .with_columns(equity_usd=pl.col("cash") + DEPOSIT_USD + pl.col("net"))
        .select(
            "step",
            "account",
            "equity_usd",
            "maintenance_usd",
            margin_ratio=_over(pl.col("equity_usd"), pl.col("maintenance_usd")),
            effective_leverage=_over(pl.col("gross"), pl.col("equity_usd")),
            net_leverage=_over(pl.col("net").abs(), pl.col("equity_usd")),
            unrealised_return=_over(pl.col("unrealised"), pl.col("equity_usd")),
            turnover=_over(pl.col("traded") * pl.col("fade"), pl.col("equity_usd")),
            fills=pl.col("fills") * pl.col("fade"),
        )
        .sort("account", "step")
    )


def _over(value: pl.Expr, scale: pl.Expr) -> pl.Expr:
    return pl.when(scale > 0.0).then((value / scale).clip(-FAR, FAR)).otherwise(value.sign() * FAR)
