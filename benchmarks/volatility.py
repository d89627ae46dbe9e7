"""Forecasts of volatility over 1, 8 and 24 hours, compared by QLIKE on published prices.

    python -m benchmarks.volatility [DATA] [--json FILE] [--draws N]
    python -m benchmarks.volatility [DATA] --fit

DATA (by default that of the tests) holds `binance-vision/klines-1m` (zips as published),
`funding-oi/candles.parquet` and `drift-v2`; what is missing is left out. Every hour each model forecasts the
realised variance of what follows, from the state that `features.volatility` has at that time.
QLIKE = realised / forecast - log(realised / forecast) - 1 (Patton 2011) is 0 at best, robust to noise in what
was realised, and harder on a forecast that is too low. Figures are means over the hours of a coin, then over
coins. Whatever is fitted is fitted on prices before those it is judged on, but for what is called shipped:
constants fitted on all prices here, not ranked. Intervals are 90%, of the difference to the best, from
resampling blocks of three days.

`--fit` prints the constants of `features/volatility.py`, fitted on all klines (seen every 1, 5, 15 and 60
minutes) and candles.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.forecasts.models import LADDER, MODELS, SHIPPED, SHIPPED_GARCH, fitted, garch_fits, rungs
from benchmarks.forecasts.rows import (
    HORIZONS_H,
    Floats,
    Hours,
    Rows,
    candles,
    ended,
    klines,
    marks,
    rows_of,
)
from features import volatility as live

SPACINGS = (1, 5, 15, 60)
BLOCK_H = 72
CANDLE_MONTHS = ("2025-09", "2025-10", "2025-11", "2025-12", "2026-01", "2026-02", "2026-03")
DRIFT_WINDOWS = ("2022-12-01", "2022-12-15", "2023-01-15", "2023-03-01")
LEAST_HOURS = 24
"""Coins with fewer judged hours are left out."""


class Panel(NamedTuple):
    """A set of prices judged together, and the windows: rows to fit on and rows to judge."""

    name: str
    windows: list[tuple[list[Rows], list[Rows]]]


def hour_of(text: str) -> int:
    """Hours since the epoch of a day or month."""
    when = datetime.fromisoformat(text if len(text) > 7 else text + "-01").replace(tzinfo=UTC)
    return int(when.timestamp()) // 3_600


def panels(data: Path) -> list[Panel]:
    """All that the data have, each with its walk forward."""
    months = klines(data / "binance-vision" / "klines-1m")
    seen = {every: [(p.period, rows_of(p, every)) for p in months] for every in SPACINGS}
    past = [pair for pairs in seen.values() for pair in pairs]
    out = []
    for every in (1, 15, 60):
        windows = []
        for month in sorted({p.period for p in months})[1:]:
            train = [rows for period, rows in past if period < month]
            windows.append((train, [rows for period, rows in seen[every] if period == month]))
        if windows:
            out.append(Panel(f"klines seen every {every} min", windows))

    year = [rows_of(p) for p in candles(data / "funding-oi" / "candles.parquet")]
    if year:
        windows = []
        for start, end in zip(CANDLE_MONTHS, [*CANDLE_MONTHS[1:], "2026-04"], strict=True):
            first, last = hour_of(start), hour_of(end)
            train = [rows for _, rows in past] + [ended(rows, first) for rows in year]
            judged = [rows.cut((rows.hour >= first) & (rows.hour < last)) for rows in year]
            windows.append((train, judged))
        out.append(Panel("hourly candles", windows))

    bars = [rows_of(p, most_gap=0.25) for p in marks(data / "drift-v2" / "market_bars.parquet")]
    if bars:
        windows = []
        for start, end in pairwise(DRIFT_WINDOWS):
            first, last = hour_of(start), hour_of(end)
            judged = [rows.cut((rows.hour >= first) & (rows.hour < last)) for rows in bars]
            windows.append(([ended(rows, first) for rows in bars], judged))
        out.append(Panel("drift-v2 marks", windows))
    return out


def qlike(realised: Floats, forecast: Floats) -> Floats:
    """Loss of each forecast; 0 where it is right."""
    ratio = realised / forecast
    return ratio - np.log(ratio) - 1.0


class Losses(NamedTuple):
    """One panel and horizon: losses of every model on the same hours."""

    coin: npt.NDArray[np.int64]
    hour: Hours
    loss: Floats  # (models, n)
    forecast: Floats  # (models, n)
    realised: Floats


def losses(panel: Panel, names: list[str]) -> tuple[list[str], list[Losses]]:
    """Coins, and for each horizon the losses on hours where every model that knows any has a forecast."""
    coins = sorted({rows.coin for _, judged in panel.windows for rows in judged})
    parts: list[tuple[Rows, Floats]] = []
    for train, judged in panel.windows:
        with_rows = [rows for rows in judged if len(rows.hour)]
        forecasts = [MODELS[name](train, with_rows) for name in names]
        parts += [
            (rows, np.stack([of_model[n] for of_model in forecasts])) for n, rows in enumerate(with_rows)
        ]
    found = []
    coin = np.concatenate([np.full(len(rows.hour), coins.index(rows.coin)) for rows, _ in parts])
    hour = np.concatenate([rows.hour for rows, _ in parts])
    everything = np.concatenate([values for _, values in parts], axis=1)
    for k in range(len(HORIZONS_H)):
        realised = np.concatenate([rows.realised[:, k] for rows, _ in parts])
        forecast = everything[:, :, k]
        forecast = np.maximum(forecast, live.LEAST_VARIANCE)
        absent = ~np.isfinite(forecast).any(axis=1)
        usable = (realised > 0.0) & (np.isfinite(forecast) | absent[:, None]).all(axis=0)
        if panel.name == "hourly candles" and HORIZONS_H[k] == 1:
            usable[:] = False  # one return says too little of an hour's variance
        found.append(
            Losses(
                coin[usable],
                hour[usable],
                qlike(realised[usable], forecast[:, usable]),
                forecast[:, usable],
                realised[usable],
            )
        )
    return coins, found


def by_coin(found: Losses, coins: int) -> Floats:
    """float64[models, coins]: mean loss; NaN for a coin with few hours."""
    out = np.full((len(found.loss), coins), np.nan)
    for coin in range(coins):
        own = found.coin == coin
        if own.sum() >= LEAST_HOURS:
            out[:, coin] = found.loss[:, own].mean(axis=1)
    return out


def intervals(found: Losses, coins: int, draws: int, best: int) -> Floats:
    """float64[models, 2]: 5th and 95th percentile of the mean over coins less that of the best."""
    blocks, block = np.unique(found.hour // BLOCK_H, return_inverse=True)
    excess = found.loss - found.loss[best]
    kept = [coin for coin in range(coins) if (found.coin == coin).sum() >= LEAST_HOURS]
    total = np.zeros((len(kept), len(found.loss), len(blocks)))
    count = np.zeros((len(kept), len(blocks)))
    for n, coin in enumerate(kept):
        own = found.coin == coin
        count[n] = np.bincount(block[own], minlength=len(blocks))
        for model in range(len(found.loss)):
            total[n, model] = np.bincount(block[own], excess[model, own], minlength=len(blocks))
    rng = np.random.default_rng(0)
    drawn = np.empty((draws, len(found.loss)))
    for draw in range(draws):
        times = np.bincount(rng.integers(0, len(blocks), len(blocks)), minlength=len(blocks))
        sums, counts = total @ times, count @ times
        drawn[draw] = (sums[counts > 0] / counts[counts > 0, None]).mean(axis=0)
    return np.quantile(drawn, (0.05, 0.95), axis=0).T


def judge(panel: Panel, draws: int) -> dict[str, Any]:
    """Figures of one panel."""
    names = list(MODELS)
    coins, of_horizon = losses(panel, names)
    figures: dict[str, Any] = {"panel": panel.name, "coins": coins, "horizons": {}}
    for horizon, found in zip(HORIZONS_H, of_horizon, strict=True):
        if len(found.hour) < LEAST_HOURS:
            continue
        single = by_coin(found, len(coins))
        judged = np.isfinite(single).any(axis=0)
        mean = single[:, judged].mean(axis=1)
        ranked = [n for n, name in enumerate(names) if name not in (SHIPPED, SHIPPED_GARCH)]
        best = ranked[int(np.nanargmin(mean[ranked]))]
        around = intervals(found, len(coins), draws, best)
        figures["horizons"][f"{horizon}h"] = {
            "hours": len(found.hour),
            "best": names[best],
            "models": {
                name: {
                    "qlike": mean[n],
                    "less_the_best": around[n].tolist(),
                    "forecast_over_realised": found.forecast[n].mean() / found.realised.mean(),
                    "coins": dict(zip(coins, single[n].tolist(), strict=True)),
                }
                for n, name in enumerate(names)
                if np.isfinite(mean[n])
            },
        }
    return figures


def markdown(figures: dict[str, Any]) -> str:
    """A table of all horizons, and one of the coins over the longest."""
    horizons = figures["horizons"]
    lines = [f"### {figures['panel']}", ""]
    head = [
        f"{name.removesuffix('h')} h ({of['hours']:,} hours) | less the best" for name, of in horizons.items()
    ]
    last = list(horizons)[-1]
    lines.append(f"| model | {' | '.join(head)} | forecast / realised, {last.removesuffix('h')} h |")
    lines.append("|---|" + "--:|--:|" * len(head) + "--:|")
    for name in horizons[last]["models"]:
        cells = []
        for of in horizons.values():
            model = of["models"][name]
            low, high = model["less_the_best"]
            best = name == of["best"]
            cells.append(f"**{model['qlike']:.3f}**" if best else f"{model['qlike']:.3f}")
            cells.append("best" if best else f"{low:+.3f} to {high:+.3f}")
        level = horizons[last]["models"][name]["forecast_over_realised"]
        lines.append(f"| {name} | {' | '.join(cells)} | {level:.2f} |")
    lines += ["", f"By coin, {last.removesuffix('h')} h:", ""]
    coins = [
        coin for coin in figures["coins"] if np.isfinite(horizons[last]["models"][LADDER]["coins"][coin])
    ]
    lines += [f"| model | {' | '.join(coins)} |", "|---|" + "--:|" * len(coins)]
    for name, model in horizons[last]["models"].items():
        lines.append(f"| {name} | {' | '.join(format(model['coins'][coin], '.3f') for coin in coins)} |")
    return "\n".join([*lines, ""])


def summary(found: list[dict[str, Any]]) -> str:
    """Every model over the best of its panel and horizon: mean in logs, and where it is worst."""
    ratios: dict[str, list[float]] = {}
    for figures in found:
        for of in figures["horizons"].values():
            best = of["models"][of["best"]]["qlike"]
            for name, model in of["models"].items():
                ratios.setdefault(name, []).append(model["qlike"] / best)
    cells = sum(len(figures["horizons"]) for figures in found)
    lines = [
        "### All panels and horizons",
        "",
        "| model | QLIKE over the best | at worst | of |",
        "|---|--:|--:|--:|",
    ]
    for name, values in ratios.items():
        mean = np.exp(np.log(values).mean())
        lines.append(f"| {name} | {mean:.2f} | {max(values):.2f} | {len(values)} of {cells} |")
    return "\n".join([*lines, ""])


def fit(data: Path) -> str:
    """The constants of `features/volatility.py` from all klines and candles."""
    months = klines(data / "binance-vision" / "klines-1m")
    train = [rows_of(p, every) for every in SPACINGS for p in months]
    train += [
        rows._replace(realised=np.where(np.array(HORIZONS_H) == 1, np.nan, rows.realised))
        for rows in map(rows_of, candles(data / "funding-oi" / "candles.parquet"))
    ]
    of_all = garch_fits(train, asymmetric=False)[""]
    lines = [f"GARCH_ALPHA, GARCH_BETA = {of_all.alpha:.3f}, {of_all.beta:.3f}", "WEIGHTS = ("]
    for weights in fitted(train, rungs):
        lines.append(f"    ({', '.join(format(value, '.3f') for value in weights)}),")
    return "\n".join([*lines, ")"])


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, or the fitted constants."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volatility", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of published prices")
    parser.add_argument("--fit", action="store_true", help="print the constants that are shipped")
    parser.add_argument("--draws", type=int, default=500, help="resamples for the intervals")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args(arguments)
    data = options.data or Path(os.environ.get("PERPRISK_DATA", "../shared/data"))
    if not data.is_dir():
        print(f"error: {data}: no such folder", file=sys.stderr)
        return 2
    if options.fit:
        print(fit(data))
        return 0
    found = []
    for panel in panels(data):
        found.append(judge(panel, options.draws))
        print(markdown(found[-1]), flush=True)
    if not found:
        print(f"error: {data}: no prices that this program knows", file=sys.stderr)
        return 2
    print(summary(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
