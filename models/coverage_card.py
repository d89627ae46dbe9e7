"""Coverage as figures: of reference portfolios' value at risk, and of the margin that accounts post.

A value at risk is tested on both sides. A margin has a floor and may hold more than it claims, so it is only
asked whether it holds too little; accounts share their markets and exceed together, so what is counted is the
share of them at each decision time, and its interval comes from resampling whole days.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_US
from models import coverage as cv

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Json = dict[str, Any]

TESTS = ("kupiec", "independence", "conditional_coverage")
ZONES: tuple[cv.Zone, ...] = ("green", "yellow", "red")

DRAWS, SEED = 1_000, 0
LEAST_DAYS = 5
"""Fewer days than these are not resampled."""


class Periods(NamedTuple):
    """Back-to-back periods of one portfolio in order of time; NaN where not known."""

    time_us: I64
    loss: F64  # worst loss over the period, share of gross notional
    held: F64  # value at risk at its start, likewise


def portfolio(periods: Periods, period_us: int) -> Json:
    """Tests of one portfolio's value at risk; figures that the periods do not define are null."""
    known = np.isfinite(periods.loss) & np.isfinite(periods.held)
    time_us, loss, held = periods.time_us[known], periods.loss[known], periods.held[known]
    exceeded = loss > held
    count, number = int(exceeded.sum()), len(exceeded)
    follows = np.diff(time_us, prepend=time_us[:1]) == period_us
    pof, runs = cv.kupiec(count, number), cv.independence(exceeded, follows)
    window = min(cv.WINDOW, number)
    lights = cv.zones(exceeded, window=window) if number else []
    return {
        "periods": number,
        "exceedances": count,
        "exceedance_rate": _known(count / number if number else math.nan),
        "mean_value_at_risk": _known(float(held.mean()) if number else math.nan),
        "kupiec": _test(pof),
        "independence": _test(runs),
        "conditional_coverage": _test(cv.conditional_coverage(pof, runs)),
        "too_many_p_value": cv.too_many(count, number),
        "basel": {"window": window} | {zone: lights.count(zone) for zone in ZONES},
        "excess": {name: _known(value) for name, value in cv.excess(loss, held)._asdict().items()},
    }


def together(portfolios: dict[str, Json]) -> Json:
    """How many portfolios each test rejects, and the share of their windows that is green."""
    zones: Json = {name: sum(of["basel"][name] for of in portfolios.values()) for name in ZONES}
    windows = sum(zones.values())
    rejected = {
        test: sorted(name for name, of in portfolios.items() if of[test]["rejected"]) for test in TESTS
    }
    return {
        "portfolios": len(portfolios),
        "rejected": rejected,
        "basel": {"all": windows, "green_share": zones["green"] / windows if windows else None} | zones,
    }


class Posted(NamedTuple):
    """Accounts at decision times at least a period apart; rates and losses are shares of gross notional."""

    time_us: I64
    notional_usd: F64
    loss: F64
    rate: F64


def accounts(posted: Posted) -> Json:
    """How often and by how much losses exceeded one kind of margin; rows with a NaN are left out."""
    known = np.all([np.isfinite(column) for column in posted[1:]], axis=0)
    time_us, notional_usd = posted.time_us[known], posted.notional_usd[known]
    loss, rate = posted.loss[known], posted.rate[known]
    exceeded = loss > rate
    times, of_time = np.unique(time_us, return_inverse=True)
    rows = np.bincount(of_time, minlength=len(times))
    share: F64 = np.bincount(of_time, exceeded, len(times)) / np.maximum(rows, 1)
    low = _lower_end(times, share)
    missing_usd = (loss - rate)[exceeded] * notional_usd[exceeded]
    gross_usd = float(notional_usd.sum())
    return {
        "rows": len(time_us),
        "decision_times": len(times),
        "decision_times_with_exceedance": int((share > 0.0).sum()),
        "largest_share_at_once": _known(float(share.max()) if len(times) else math.nan),
        "exceeded": int(exceeded.sum()),
        "share_of_accounts": _known(float(share.mean()) if len(times) else math.nan),
        "share_of_accounts_low": _known(low),
        "rejected": bool(low > cv.RATE),
        "share_of_notional": _known(
            float(notional_usd[exceeded].sum()) / gross_usd if gross_usd > 0.0 else math.nan
        ),
        "average_rate": _known(float(rate @ notional_usd) / gross_usd if gross_usd > 0.0 else math.nan),
        "mean_shortfall_usd": _known(float(missing_usd.mean()) if len(missing_usd) else math.nan),
        "total_shortfall_usd": float(missing_usd.sum()),
    }


def _lower_end(time_us: I64, share: F64) -> float:
    """Lower end of a one-sided 95% interval of the mean share, from resampling days; NaN of too few."""
    days, of_time = np.unique(time_us // DAY_US, return_inverse=True)
    if len(days) < LEAST_DAYS:
        return math.nan
    total, number = np.bincount(of_time, share), np.bincount(of_time)
    chosen = np.random.default_rng(SEED).integers(len(days), size=(DRAWS, len(days)))
    return float(np.quantile(total[chosen].sum(axis=1) / number[chosen].sum(axis=1), cv.SIZE))


def _test(found: cv.Likelihood) -> Json:
    return {"ratio": _known(found.ratio), "p_value": _known(found.p_value), "rejected": found.rejected}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
