"""Moments of the simulated venue beside the facts, over seeds.

    python benchmarks/simulation_moments.py [--accounts N] [--days D] [--seeds N] [--json FILE] [--only NAME]

Runs the default population on the default scenario (one crash), on the calm one, and on a shock like that of
10 October 2025. A moment is near its fact when its mean over seeds is within 25% of it; where the fact is a
range, of the end of the range that is next to it. Moments of prices are medians over seeds, as their facts
are medians over months. A calm day's forced closing is that of the median day.

Leverage, equity and liquidations are of traders only: makers and the backstop are left out. Forced orders are
liquidation fills of one account in one market at one price in one second; their sizes and clustering are of
days without the crash, which comes far more often here than in the record. A cascade is two orders or more of
one market, each less than 60 s after the last: then 77% within 1 s of the last, 4.7 orders and 28 s agree
(3.7 gaps, of which 23% take half a minute). Liquidated notional holds the losers' side of deleveraging, as
the fills of Hyperliquid do; its open interest before was $13.8bn by the press. The published depth of BTC on
10 October 2025 is of no use after 15:30 UTC (the file holds bids that had long gone): no fact is from it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exchange.simulation import moments as mo
from exchange.simulation.generated import SCENARIOS, crash_minutes
from exchange.simulation.record import Record, record_of
from exchange.units import DAY_US, MINUTE_US
from pipelines.simulate import generated_venue

NEAR = 0.25
SHOCK_DAYS = 2.0
"""Of the runs with a shock like that of 10 October 2025."""
DRIFT = "Drift v2, November 2022 to March 2023"
BYBIT = "Bybit BTC"
OCTOBER = "Hyperliquid, 10 October 2025"
KLINES = "one-minute klines of five coins, months without a crash"


class Moment(NamedTuple):
    """A number that a run has and that is known of real venues."""

    title: str
    low: float
    """The fact, or the lower end of its range."""
    high: float
    source: str
    scenario: str
    measure: Callable[[Record], float]
    digits: int = 3


def _shock(name: str) -> Callable[[Record], float]:
    def measure(run: Record) -> float:
        found = mo.shock(run)
        return float(getattr(found, name)) if found else math.nan

    return measure


def _deleveraged_over_liquidated(run: Record) -> float:
    found = mo.shock(run)
    return found.deleveraged_usd / found.liquidated_usd if found and found.liquidated_usd else math.nan


def _deficit_over_liquidated(run: Record) -> float:
    found = mo.shock(run)
    return found.deficit_usd / found.liquidated_usd if found and found.liquidated_usd else math.nan


def _size_ratio(share: float) -> Callable[[Record], float]:
    def measure(orders: mo.Orders) -> float:
        return mo.order_size_quantile(orders, share) / mo.order_size_quantile(orders, 0.5)

    return _of_orders(measure)


def _crash_day(run: Record) -> float:
    return mo.forced_share(run, run.shock_us, run.shock_us + DAY_US) if run.shock_us >= 0 else math.nan


def _between_days(run: Record) -> float:
    """The median of days that do not touch the crash's: what a day usually is, whoever large fails once."""
    days = mo.forced_share_by_day(run)
    if run.shock_us >= 0:
        hit = int((run.shock_us - run.start_us) // DAY_US)
        days = np.delete(days, slice(hit, hit + 2))
    return float(np.median(days)) if len(days) else math.nan


def _of_orders(measure: Callable[[mo.Orders], float]) -> Callable[[Record], float]:
    return lambda run: measure(mo.without_shock(run, mo.forced_orders(run)))


def _autocorrelation(run: Record, lag: int) -> float:
    return mo.absolute_autocorrelation(mo.calm_returns(run), lag)


def _of_cascades(measure: Callable[[mo.Cascades], float]) -> Callable[[Record], float]:
    return _of_orders(lambda orders: measure(mo.cascades(orders)))


def _close_by(found: mo.Cascades) -> float:
    followers = int((found.orders - 1).sum())
    return float(found.close_by.sum() / followers) if followers else math.nan


def _moments() -> dict[str, Moment]:
    drift = partial(Moment, source=DRIFT, scenario="default")
    october = partial(Moment, source=OCTOBER, scenario="october-2025")
    klines = partial(Moment, source=KLINES, scenario="calm")
    out: dict[str, Moment] = {}
    for share, fact in ((0.5, 3.0), (0.75, 5.5), (0.9, 8.5), (0.99, 13.7)):
        name = f"leverage_{share:g}"
        title = f"leverage of accounts with positions, {share:.0%}"
        out[name] = drift(title, fact, fact, measure=partial(mo.leverage_quantile, share=share))
    for share, fact in ((0.1, 9.0), (0.5, 154.0), (0.9, 6_600.0), (0.99, 78_000.0)):
        title = f"their equity, {share:.0%} ($)"
        out[f"equity_{share:g}"] = drift(title, fact, fact, measure=partial(mo.equity_quantile, share=share))
    out["wealth_tail"] = drift("tail index of equity (Hill, top 5%)", 0.75, 1.1, measure=mo.wealth_tail_index)
    for low, high, fact in ((1.0, 1.25, 0.5), (1.5, 2.0, 0.2), (3.0, 5.0, 0.011)):
        title = f"liquidated within a day at {low:g}-{high:g} of maintenance"
        share_of = partial(mo.liquidated_within_a_day, low=low, high=high)
        out[f"liquidated_{low:g}"] = drift(title, fact, fact, measure=share_of)
    out["liquidated_10"] = drift(
        "likewise above 10 (none)", 0.0, 0.0005,
        measure=partial(mo.liquidated_within_a_day, low=10.0, high=math.inf),
    )  # fmt: skip
    out["liquidated_all"] = drift(
        "likewise, all accounts with positions", 0.027, 0.027,
        measure=partial(mo.liquidated_within_a_day, low=0.0, high=math.inf),
    )  # fmt: skip
    out["forced_calm"] = Moment(
        "closed by force a day over open interest, calm", 0.002, 0.002, "venues today", "calm", _between_days
    )
    out["forced_between"] = Moment(
        "likewise, days of the default run without crash", 0.002, 0.035, "today to BitMEX 2019", "default",
        _between_days,
    )  # fmt: skip
    out["forced_crash"] = Moment(
        "likewise, the day from the crash on", 0.05, 0.12, "venues on crash days", "default", _crash_day
    )
    sizes = partial(Moment, source=BYBIT, scenario="default")
    for share, fact in ((0.5, 921.0), (0.95, 29_000.0), (0.99, 136_000.0)):
        measure = _of_orders(partial(mo.order_size_quantile, share=share))
        out[f"order_{share:g}"] = sizes(
            f"size of forced orders, {share:.0%} ($)", fact, fact, measure=measure
        )
    out["order_ratio_0.95"] = sizes("likewise, 95% over median", 31.5, 31.5, measure=_size_ratio(0.95))
    out["order_ratio_0.99"] = sizes("likewise, 99% over median", 148.0, 148.0, measure=_size_ratio(0.99))
    out["follow_1s"] = sizes(
        "orders within 1 s of the last in a cascade", 0.77, 0.77, measure=_of_cascades(_close_by)
    )
    out["cascade_orders"] = sizes(
        "orders of a cascade", 4.7, 4.7, measure=_of_cascades(lambda found: _mean(found.orders))
    )
    out["cascade_s"] = sizes(
        "its duration, s", 28.0, 28.0, measure=_of_cascades(lambda found: _mean(found.duration_s))
    )
    out["follow_venue"] = sizes(
        "orders of all markets within 1 s of the last", math.nan, math.nan,
        measure=_of_orders(partial(mo.follows_within, seconds=1)),
    )  # fmt: skip
    crash = partial(Moment, source="venues in crashes", scenario="default")
    out["depth_lost"] = crash(
        "depth within 1% lost in a crash, median of markets", 0.90, 0.99,
        measure=lambda run: float(np.median(1.0 - mo.depth_left(run))),
    )  # fmt: skip
    out["spread"] = crash(
        "widest spread in a crash, median of markets", 0.002, 0.03,
        measure=lambda run: float(np.median(mo.widest_spread(run))),
    )  # fmt: skip
    out["voluntary"] = crash(
        "part of the fall of open interest that is voluntary", 0.5, 1.0, measure=_shock("voluntary_share")
    )
    out["kurtosis_1m"] = klines(
        "kurtosis of 1 min mark returns", 12.9, 12.9, measure=lambda run: mo.kurtosis(mo.calm_returns(run))
    )
    out["kurtosis_1h"] = klines(
        "kurtosis of 1 h mark returns", 7.5, 7.5, measure=lambda run: mo.kurtosis(mo.calm_returns(run, 60))
    )
    for lag, fact in ((1, 0.271), (10, 0.188), (60, 0.126)):
        out[f"absolute_{lag}"] = klines(
            f"autocorrelation of their size, lag {lag}", fact, fact,
            measure=partial(_autocorrelation, lag=lag),
        )  # fmt: skip
    out["correlation_1h"] = klines(
        "correlation between markets, 1 h", 0.65, 0.65,
        measure=lambda run: mo.mean_correlation(mo.calm_returns(run, 60)),
    )  # fmt: skip
    out["branching"] = Moment(
        "branching of trade arrivals (counts in 10 min)", 0.64, 0.77, "trade arrivals", "calm",
        mo.arrival_branching,
    )  # fmt: skip
    out["deleveraged"] = october(
        "deleveraged over liquidated notional", 0.30, 0.45, measure=_deleveraged_over_liquidated
    )
    out["first_deleveraging"] = october(
        "first deleveraging after first liquidation, s", 30.0, 120.0, measure=_shock("first_deleveraging_s")
    )
    out["peaks_apart"] = october(
        "peaks of liquidating and deleveraging apart, s", 0.0, 1.0, measure=_shock("peaks_apart_s")
    )
    out["longs"] = october(
        "longs among liquidated notional", 0.84, 0.84, source="all venues, 10 October 2025",
        measure=_shock("long_share"),
    )  # fmt: skip
    out["mean_fall"] = october(
        "mean fall of a coin from open to low", 0.63, 0.63, measure=_shock("mean_fall")
    )
    out["liquidated_equity"] = october(
        "liquidated notional over accounts' equity", 1.08, 1.08, measure=_shock("liquidated_over_equity")
    )
    out["liquidated_open"] = october(
        "liquidated notional over open interest", 0.40, 0.40, measure=_shock("liquidated_over_open")
    )
    out["deficit"] = october(
        "losers' deficit over liquidated notional", 0.018, 0.018, measure=_deficit_over_liquidated
    )
    out["october_depth_lost"] = october(
        "depth within 1% lost, median of markets", 0.90, 0.99,
        measure=lambda run: float(np.median(1.0 - mo.depth_left(run))),
    )  # fmt: skip
    return out


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else math.nan


MOMENTS = _moments()


def run_record(accounts: int, days: float, seed: int, scenario: str) -> Record:
    """Run a venue and keep its record; the shock begins with the crash of the outside path."""
    venue = generated_venue(accounts, days, seed, scenario)
    rng = np.random.default_rng([seed, 0])
    rng.integers(0, 2**64, dtype=np.uint64)  # the path's key, drawn before its crashes
    begins = crash_minutes(SCENARIOS[scenario], venue.minutes - venue.history_minutes, rng)
    shock_us = venue.start_us + begins[0] * MINUTE_US if begins else -1
    return record_of(venue, list(venue.run()), shock_us)


def measure_run(task: tuple[int, float, int, str, tuple[str, ...]]) -> dict[str, float]:
    """The moments of one run."""
    accounts, days, seed, scenario, names = task
    run = run_record(accounts, days, seed, scenario)
    return {name: MOMENTS[name].measure(run) for name in names if MOMENTS[name].scenario == scenario}


def distance(moment: Moment, value: float) -> float:
    """Value over fact; where the fact is a range, over its nearer end, 1 inside."""
    if moment.low <= value <= moment.high:
        return 1.0
    end = moment.low if value < moment.low else moment.high
    return value / end if end > 0.0 else math.inf


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accounts", type=int, default=6_000)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--only", nargs="+", choices=list(MOMENTS), metavar="NAME", help=", ".join(MOMENTS))
    options = parser.parse_args()
    names = tuple(options.only or MOMENTS)
    scenarios = [
        s for s in ("default", "calm", "october-2025") if any(MOMENTS[n].scenario == s for n in names)
    ]
    tasks = [
        (options.accounts, SHOCK_DAYS if scenario == "october-2025" else options.days, seed, scenario, names)
        for scenario in scenarios
        for seed in range(1, options.seeds + 1)
    ]
    with ProcessPoolExecutor(max(1, options.processes)) as pool:
        found = list(pool.map(measure_run, tasks))
    print(f"{options.accounts:,} accounts, {options.days:g} days, {options.seeds} seeds\n")
    print(f"{'':52}{'fact':>16}{'mean':>11}{'spread':>10}{'ratio':>7}  within 25%")
    figures: dict[str, Any] = {}
    near = known = 0
    for name in names:
        moment = MOMENTS[name]
        values = np.array([each[name] for each in found if name in each])
        some = values[np.isfinite(values)]
        # what is known of prices are medians over months, of all else means
        centre = np.median if moment.source == KLINES else np.mean
        mean, spread = (float(centre(some)), float(some.std())) if len(some) else (math.nan, math.nan)
        ratio = distance(moment, mean)
        is_known = math.isfinite(moment.low)
        inside = is_known and abs(ratio - 1.0) <= NEAR
        known, near = known + is_known, near + inside
        mark = f"  {'yes' if inside else 'no' if is_known else '-'}"
        note = f"  ({len(values) - len(some)} seeds without)" if len(some) < len(values) else ""
        print(f"{moment.title:52}{fact_words(moment):>16}{mean:11.4g}{spread:10.3g}{ratio:7.2f}{mark}{note}")
        figures[name] = {
            "title": moment.title, "fact": [moment.low, moment.high], "source": moment.source,
            "scenario": moment.scenario, "mean": mean, "spread": spread, "ratio": ratio, "near": inside,
            "seeds": values.tolist(),
        }  # fmt: skip
    print(f"\n{near} of {known} within 25%")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def fact_words(moment: Moment) -> str:
    """The fact as it is printed."""
    if not math.isfinite(moment.low):
        return "-"
    if moment.low == moment.high:
        return f"{moment.low:g}"
    return f"{moment.low:g}-{moment.high:g}"


if __name__ == "__main__":
    raise SystemExit(main())
