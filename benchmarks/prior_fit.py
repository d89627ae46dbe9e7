"""Fit the constants of the structural prior on an account history, before a time.

    python -m benchmarks.prior_fit DATASET [--before TIME]

Prints, at several spreads of log variance, the rate and power of lapses with the largest likelihood of
liquidations within 24 h, a shift of the level of first passage left free, as a head's calibration leaves it.
The last row holds the constants in place, `features.structural`: where the loss is nearly flat, those that
leave accounts far from liquidation an order (a rate that falls with the margin ratio).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import erfc, expit, logit

from exchange.errors import PerpriskError
from features import catalog, structural
from models import labels
from models.rows import HORIZONS_US, Rows
from models.train import purged
from pipelines.replay import DEFAULT_EVERY_US, observations, training_rows
from pipelines.store import Dataset
from pipelines.times import parse_time_us

Floats = npt.NDArray[np.float64]

SPREADS = (0.3, 0.5, 0.6, 0.7, 0.9, 1.1)
BEFORE = "2022-12-15"
READ = ("effective_buffer_over_sigma", "margin_ratio", "forecast_ratio")


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prior_fit", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--before", default=BEFORE)
    options = parser.parse_args(arguments)
    try:
        dataset = Dataset.open(options.dataset, "accounts")
        before_us = parse_time_us(options.before, "--before")
        rows = purged(training_rows(dataset, DEFAULT_EVERY_US, before_us), before_us)
    except PerpriskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    meta = dataset.meta
    span = (meta.start_us, before_us)
    times_us = labels.decision_times(
        meta.start_us, meta.end_us, DEFAULT_EVERY_US, HORIZONS_US[-1], observations(dataset), span
    ).time_us
    known = np.isin(rows.time_us, times_us) & (rows.label_end_us[:, -1] != labels.NO_LABEL_END)
    known &= ~np.isnan(rows.features[:, [catalog.index(name) for name in READ]]).any(axis=1)
    print(markdown(rows.where(known), options.before))
    return 0


def markdown(rows: Rows, before: str) -> str:
    """A row a spread."""
    came = rows.liquidated_us <= rows.label_end_us[:, -1]
    lines = [
        f"{len(came):,} rows before {before}, {int(came.sum())} liquidated within 24 h.",
        "",
        "| spread of log variance | lapses a day | power | level of first passage | loss |",
        "|--:|--:|--:|--:|--:|",
    ]
    for spread in SPREADS:
        level, rate, power, loss = fitted(rows, came, spread)
        lines.append(f"| {spread} | {rate:.3f} | {power:.2f} | {level:+.2f} | {loss:.1f} |")
    spread, rate, power = structural.VARIANCE_LOG_SD, structural.LAPSES_A_DAY, structural.LAPSE_POWER
    level, _, _, loss = fitted(rows, came, spread, (rate, power))
    lines.append(f"| {spread}, in place | {rate:.3f} | {power:.2f} | {level:+.2f} | {loss:.1f} |")
    return "\n".join(lines) + "\n"


def fitted(
    rows: Rows, came: npt.NDArray[np.bool_], spread: float, lapses: tuple[float, float] | None = None
) -> tuple[float, float, float, float]:
    """Level, lapses a day, power and loss with the largest likelihood at a spread, lapses given or free.

    The level moves both ways to end, as a head's intercept does: the rate is that before the level.
    """
    distance, ratio, forecast = (rows.features[:, catalog.index(name)] for name in READ)
    distance, ratio = np.maximum(distance, 1e-6), np.maximum(ratio, 1.0)
    passage = np.clip(_mixture(distance, spread), 1e-9, 0.98)
    odds = logit(passage) + forecast

    def loss(point: Floats) -> float:
        level, log_rate, power = point if lapses is None else (point[0], np.log(lapses[0]), lapses[1])
        lapse = -np.expm1(-np.exp(log_rate) * ratio**-power)
        either = np.clip(1.0 - (1.0 - expit(odds)) * (1.0 - lapse), 1e-12, 1.0 - 1e-12)
        score = logit(either) + level
        return float(np.sum(np.logaddexp(0.0, score) - came * score))

    best = minimize(loss, [-0.5, -4.0, 1.0], method="Nelder-Mead", options={"maxiter": 1_000})
    level, log_rate, power = (float(value) for value in best.x)
    return level, float(np.exp(log_rate)), power, float(best.fun)


def _mixture(distance: Floats, spread: float) -> Floats:
    """First passage averaged over a lognormal variance."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    passages = [erfc(distance * np.exp(-0.5 * spread * node) / np.sqrt(2.0)) for node in nodes]
    return np.asarray(np.average(passages, axis=0, weights=weights))


if __name__ == "__main__":
    sys.exit(main())
