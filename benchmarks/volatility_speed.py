"""Nanoseconds that a bar and a forecast of volatility take.

    python -m benchmarks.volatility_speed [--json FILE]

Least of several runs over bars at even spacing, called from compiled code as events are.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.units import HOUR_US, SECOND_US
from features import volatility as live

Floats = npt.NDArray[np.float64]

SPACINGS_S = (20, 60, 900, 3_600)
BARS, RUNS = 50_000, 60


def _observe(
    returns: Floats, start_us: int, step_us: int, variance: Floats, series: Floats, ring: Floats, bars: int
) -> None:
    for bar in range(bars):
        log_return = returns[bar % len(returns)]
        live.observe_price(log_return, start_us + bar * step_us, step_us, variance, series, ring)


def _forecast(variance: Floats, series: Floats, horizon_s: float, calls: int) -> float:
    total = 0.0
    for _ in range(calls):
        variance[0] *= 1.0 + 1e-9
        total += live.forecast_variance(series, variance, horizon_s)
    return total


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volatility_speed", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args(arguments)
    returns = np.random.default_rng(0).normal(0.0, 1e-3, 4_096)
    observe, forecast = compiled(_observe), compiled(_forecast)
    found = {}
    for spacing_s in SPACINGS_S:
        variance = np.full(len(live.HALF_LIVES_H), math.nan)
        series = np.full(live.SERIES_COLUMNS, math.nan)
        ring = np.zeros(live.RING_HOURS)
        step_us = spacing_s * SECOND_US
        now_us = 480_000 * HOUR_US
        observe(returns, now_us, step_us, variance, series, ring, 10)
        least = math.inf
        for _ in range(RUNS):
            now_us += BARS * step_us
            begun = time.perf_counter()
            observe(returns, now_us, step_us, variance, series, ring, BARS)
            least = min(least, time.perf_counter() - begun)
        found[f"a bar every {spacing_s:,} s"] = least / BARS * 1e9
    for horizon_h in (1, 8, 24):
        forecast(variance, series, horizon_h * 3_600.0, 10)
        least = math.inf
        for _ in range(RUNS):
            begun = time.perf_counter()
            forecast(variance, series, horizon_h * 3_600.0, BARS)
            least = min(least, time.perf_counter() - begun)
        found[f"a forecast of {horizon_h} h"] = least / BARS * 1e9
    print("| | ns |\n|---|--:|")
    for name, nanoseconds in found.items():
        print(f"| {name} | {nanoseconds:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
