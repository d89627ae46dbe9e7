"""Models of the variance to come: from rows to fit on, to forecasts for rows to judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from benchmarks.forecasts.rows import HORIZONS_H, Floats, Rows, logs
from exchange.units import HOUR_S
from features import volatility as live


def gamma_fit(inputs: Floats, realised: Floats, weight: Floats, positive: bool, in_logs: bool) -> Floats:
    """Coefficients with the least mean QLIKE; all but the constant at least 0 where `positive`.

    The forecast is exp(inputs x) where `in_logs`, else inputs x; that is a gamma regression.
    """
    from scipy.optimize import minimize

    share = weight / weight.sum()

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        linear = inputs @ coefficients
        if in_logs:
            ratio = realised * np.exp(-linear)
            return float(share @ (ratio + linear)), inputs.T @ (share * (1.0 - ratio))
        forecast = np.maximum(linear, 1e-9)
        ratio = realised / forecast
        return float(share @ (ratio + np.log(forecast))), inputs.T @ (share * (1.0 - ratio) / forecast)

    columns = inputs.shape[1]
    least: float | None = 0.0 if positive or not in_logs else None
    bounds = [(None if in_logs else 1e-3, None), *[(least, None)] * (columns - 1)]
    start = np.full(columns, 0.2)
    return minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 500}).x


def weights_of(train: list[Rows]) -> list[Floats]:
    """Weight of each row: every spacing counts alike, whatever it has of rows."""
    count: dict[str, int] = {}
    for rows in train:
        count[rows.spacing] = count.get(rows.spacing, 0) + len(rows.hour)
    return [np.full(len(rows.hour), 1.0 / count[rows.spacing]) for rows in train]


def rungs(rows: Rows) -> Floats:
    """float64[n, RUNGS]: one, then the rungs of the live ladder."""
    climbed = [live.climb(*of) for of in zip(rows.series, rows.variance, strict=True)]
    return np.column_stack([np.ones(len(climbed)), np.array(climbed).reshape(-1, live.RUNGS - 1)])


def shipped_ladder(rows: Rows) -> Floats:
    """float64[n, horizons]: the ladder as it runs live."""
    out = np.empty((len(rows.hour), len(HORIZONS_H)))
    for row, (series, variance) in enumerate(zip(rows.series, rows.variance, strict=True)):
        out[row] = [live.forecast_variance(series, variance, horizon * HOUR_S) for horizon in HORIZONS_H]
    return out


def shipped_garch(rows: Rows) -> Floats:
    """float64[n, horizons]: GARCH as it runs live."""
    parameters = (live.GARCH_ALPHA, live.GARCH_BETA)
    out = np.empty((len(rows.hour), len(HORIZONS_H)))
    for row, series in enumerate(rows.series):
        now, rest = series[live.GARCH], live.long_run(series)
        out[row] = [live.garch_variance(now, rest, *parameters, horizon * HOUR_S) for horizon in HORIZONS_H]
    return out


def log_windows(rows: Rows) -> Floats:
    """One and the logs of day, week and month."""
    return np.column_stack([np.ones(len(rows.hour)), logs(rows.windows)])


LEAST_SMOOTH = 0.1
"""Bipower variation counts as at least this share of the variance: stale marks make it vanish."""


def log_windows_jumps(rows: Rows) -> Floats:
    """The same and the log of variance over what of it is no jump."""
    slow = rows.variance[:, 2]
    smooth = np.clip(rows.series[:, live.BIPOWER], LEAST_SMOOTH * slow, slow)
    return np.column_stack([log_windows(rows), logs(slow) - logs(smooth)])


def level_windows(rows: Rows) -> Floats:
    """The prior, then day, week and month, all over the prior."""
    return np.column_stack([np.ones(len(rows.hour)), rows.windows / live.PRIOR_VARIANCE])


class Garch(NamedTuple):
    """Parameters of GJR-GARCH; plain where gamma is 0."""

    alpha: float
    gamma: float
    beta: float


@cache
def garch_of(hourly: bytes, asymmetric: bool) -> Garch:
    """Fitted to hourly returns by `arch`, with t errors; kept, since windows share their past."""
    from arch import arch_model

    returns = np.frombuffer(hourly)
    x = returns / returns.std()
    model = arch_model(x, mean="Zero", vol="GARCH", p=1, o=int(asymmetric), q=1, dist="t", rescale=False)
    found = model.fit(disp="off", show_warning=False).params
    return Garch(float(found["alpha[1]"]), float(found.get("gamma[1]", 0.0)), float(found["beta[1]"]))


LEAST_RETURNS = 300


def garch_fits(train: list[Rows], asymmetric: bool) -> dict[str, Garch]:
    """By coin over all it has; under "" the median of all, for coins without a past."""
    found: dict[str, list[Garch]] = {}
    for rows in train:
        returns = rows.hour_return[np.isfinite(rows.hour_return)]
        if rows.spacing in ("", "1 min") and len(returns) >= LEAST_RETURNS:
            found.setdefault(rows.coin, []).append(garch_of(returns.tobytes(), asymmetric))
    by_coin = {coin: Garch(*np.median(np.array(fits), axis=0)) for coin, fits in found.items()}
    if by_coin:
        by_coin[""] = Garch(*np.median(np.array(list(by_coin.values())), axis=0))
    return by_coin


def garch_forecasts(rows: Rows, fit: Garch) -> Floats:
    """float64[n, horizons] of the recursion, from the long average that the live one returns to."""
    long_run = np.array([live.long_run(series) for series in rows.series])
    mean_alpha = fit.alpha + 0.5 * fit.gamma
    stay = min(mean_alpha + fit.beta, 0.999)
    variance = long_run[0]
    out = np.full((len(rows.hour), len(HORIZONS_H)), np.nan)
    for row, log_return in enumerate(rows.hour_return):
        if not math.isnan(log_return):
            alpha = fit.alpha + fit.gamma * (log_return < 0.0)
            drive = (1.0 - stay) * long_run[row] + alpha * log_return**2 / HOUR_S
            variance = drive + fit.beta * variance
        for k, horizon in enumerate(HORIZONS_H):
            mean = (1.0 - stay**horizon) / (horizon * (1.0 - stay))
            out[row, k] = long_run[row] + (variance - long_run[row]) * mean
    return out


# ---- models: from rows to train on, to forecasts for rows to judge


def coin_priors(train: list[Rows]) -> dict[str, float]:
    """Log over the prior of each coin's typical day, from the past; under "" that of all coins."""
    found: dict[str, list[Floats]] = {}
    for rows in train:
        if len(rows.hour):
            found.setdefault(rows.coin, []).append(logs(rows.windows[:, 0]))
    means = {coin: float(np.concatenate(parts).mean()) for coin, parts in found.items()}
    return {**means, "": float(np.mean(list(means.values())))} if means else {"": 0.0}


Forecaster = Callable[[list[Rows], list[Rows]], list[Floats]]


def fixed(forecast: Callable[[Rows], Floats]) -> Forecaster:
    """A model without anything to fit, the same for all horizons."""

    def run(train: list[Rows], judged: list[Rows]) -> list[Floats]:
        return [np.repeat(forecast(rows)[:, None], len(HORIZONS_H), axis=1) for rows in judged]

    return run


def regression(inputs: Callable[[Rows], Floats], positive: bool = True, in_logs: bool = True) -> Forecaster:
    """A gamma regression on earlier rows, one a horizon."""

    def run(train: list[Rows], judged: list[Rows]) -> list[Floats]:
        designs = [inputs(rows) for rows in judged]
        out = [np.full((len(rows.hour), len(HORIZONS_H)), np.nan) for rows in judged]
        for k, coefficients in enumerate(fitted(train, inputs, positive, in_logs)):
            for design, forecasts in zip(designs, out, strict=True):
                linear = design @ coefficients
                forecasts[:, k] = (np.exp(linear) if in_logs else linear) * live.PRIOR_VARIANCE
        return out

    return run


def fitted(
    train: list[Rows], inputs: Callable[[Rows], Floats], positive: bool = True, in_logs: bool = True
) -> Iterator[Floats]:
    """Coefficients for each horizon; NaN where no row of it is known."""
    design = np.concatenate([inputs(rows) for rows in train])
    realised = np.concatenate([rows.realised for rows in train]) / live.PRIOR_VARIANCE
    weight = np.concatenate(weights_of(train))
    for k in range(len(HORIZONS_H)):
        usable = (realised[:, k] > 0.0) & np.isfinite(design).all(axis=1)
        if not usable.any():
            yield np.full(design.shape[1], np.nan)
        else:
            yield gamma_fit(design[usable], realised[usable, k], weight[usable], positive, in_logs)


def garch(asymmetric: bool) -> Forecaster:
    """GARCH with the coin's own parameters where it has a past, else with the median coin's."""

    def run(train: list[Rows], judged: list[Rows]) -> list[Floats]:
        fits = garch_fits(train, asymmetric)
        return [
            garch_forecasts(rows, fits.get(rows.coin, fits[""]))
            if fits
            else np.full((len(rows.hour), len(HORIZONS_H)), np.nan)
            for rows in judged
        ]

    return run


def shrunk(forecast: Callable[[Rows], Floats], weight: float) -> Forecaster:
    """In logs so much of the forecast, the rest of what is typical of the coin."""

    def run(train: list[Rows], judged: list[Rows]) -> list[Floats]:
        prior = coin_priors(train)
        out = []
        for rows in judged:
            own = prior.get(rows.coin, prior[""])
            log = weight * logs(forecast(rows)) + (1.0 - weight) * own
            out.append(np.repeat(np.exp(log)[:, None], len(HORIZONS_H), axis=1) * live.PRIOR_VARIANCE)
        return out

    return run


def ewma_48h(rows: Rows) -> Floats:
    """The slowest EWMA."""
    return rows.variance[:, 2]


def har(rows: Rows) -> Floats:
    """HAR with the fixed weights."""
    return rows.series[:, live.HAR]


def slow(rows: Rows) -> Floats:
    """The EWMA of 48 h shrunk to 100% a year."""
    return np.array([live.slow_variance(value) for value in ewma_48h(rows)])


LADDER = "ladder, fitted before"
SHIPPED, SHIPPED_GARCH = "ladder, as shipped", "GARCH(1,1), as shipped"
MODELS: dict[str, Forecaster] = {
    "EWMA 1 h": fixed(lambda rows: rows.variance[:, 0]),
    "EWMA 6 h": fixed(lambda rows: rows.variance[:, 1]),
    "EWMA 48 h": fixed(ewma_48h),
    "mean of EWMA 6 h and 48 h": fixed(lambda rows: rows.variance[:, 1:].mean(axis=1)),
    "HAR, fixed weights": fixed(har),
    "HAR in levels, fitted before": regression(level_windows, in_logs=False),
    "HAR in logs, fitted before": regression(log_windows, positive=False),
    "HAR in logs with jumps, fitted before": regression(log_windows_jumps, positive=False),
    "GARCH(1,1), fitted before": garch(asymmetric=False),
    "GJR-GARCH, fitted before": garch(asymmetric=True),
    SHIPPED_GARCH: lambda train, judged: [shipped_garch(rows) for rows in judged],
    "EWMA 48 h, 0.7 to 100% a year": fixed(slow),
    "EWMA 48 h, 0.7 to the coin's past": shrunk(ewma_48h, 0.3),
    "EWMA 48 h, 0.5 to the coin's past": shrunk(ewma_48h, 0.5),
    "HAR, 0.5 to the coin's past": shrunk(har, 0.5),
    LADDER: regression(rungs),
    SHIPPED: lambda train, judged: [shipped_ladder(rows) for rows in judged],
}
