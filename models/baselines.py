"""The two baselines that every model is held against, and what fallbacks answer with.

Both are as simple as they are stated, with nothing fitted but a shift of their level in logits.

    margin_ratio   collateral over maintenance margin R: odds 1/R before the shift
    structural     first passage of the buffer over portfolio sigma, within the horizon
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from features.structural import first_passage

Floats = npt.NDArray[np.float64]

BASELINES = ("margin_ratio", "structural")
TARGETS = ("liquidation_1h", "liquidation_8h", "liquidation_24h", "negative_equity_24h")
"""What a level is fitted for; also the order of the four probabilities of a score."""

TARGET_HORIZON_H = (1.0, 8.0, 24.0, 24.0)

LOWEST, HIGHEST = 1e-9, 1.0 - 1e-4
"""Bounds before the shift: even an account below maintenance is not closed for certain."""


@compiled
def _structural(buffer_over_sigma_day: Floats, hours: float, out: Floats) -> None:
    for row in range(len(out)):
        out[row] = first_passage(buffer_over_sigma_day[row] * np.sqrt(24.0 / hours))


@compiled
def structural(buffer_over_sigma_day: float, levels: Floats, out: Floats) -> None:
    """Write the calibrated structural probabilities of one account into float64[4]; see `probabilities`.

    `levels` are those of TARGETS, in their order.
    """
    for target in range(4):
        raw = first_passage(buffer_over_sigma_day * np.sqrt(24.0 / TARGET_HORIZON_H[target]))
        if not math.isnan(raw):
            raw = min(max(raw, LOWEST), HIGHEST)
        logit = math.log(raw) - math.log1p(-raw) + levels[target]
        out[target] = 1.0 / (1.0 + math.exp(-logit))
    if math.isnan(out[2]):
        return
    out[1] = min(out[1], out[2])
    out[0] = min(out[0], out[1])
    out[3] = min(out[3], out[2])


def raw_probability(
    baseline: str, target: str, margin_ratio: Floats, buffer_over_sigma_day: Floats
) -> Floats:
    """A baseline's probability before its level is calibrated, float64[n]; NaN where its input is."""
    if baseline == "margin_ratio":
        raw = 1.0 / (1.0 + np.maximum(margin_ratio, 0.0))
    else:
        raw = np.empty(len(buffer_over_sigma_day))
        _structural(np.ascontiguousarray(buffer_over_sigma_day), TARGET_HORIZON_H[TARGETS.index(target)], raw)
    return np.clip(raw, LOWEST, HIGHEST)


def shifted(probability: Floats, level: float) -> Floats:
    """Probability with its logit moved by `level`; NaN stays NaN."""
    logit = np.log(probability) - np.log1p(-probability) + level
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float64)


def fit_level(probability: Floats, happened: npt.NDArray[np.bool_]) -> float:
    """Shift of the logit at which as many defaults are expected as happened (half a one at least).

    Rows whose probability is NaN do not count; 0 where there are no rows.
    """
    known = ~np.isnan(probability)
    probability, happened = probability[known], happened[known]
    if len(probability) == 0:
        return 0.0
    wanted = min(max(float(happened.sum()), 0.5), len(probability) - 0.5)
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if shifted(probability, middle).sum() < wanted:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def probabilities(
    baseline: str, levels: Mapping[str, float], margin_ratio: Floats, buffer_over_sigma_day: Floats
) -> Floats:
    """Calibrated probabilities of the four targets, float64[n, 4], ordered as a score's must be.

    `levels` maps targets to shifts. Horizons are calibrated one by one, so where a shorter one came out
    above a longer one it is cut to it.
    """
    columns = [
        shifted(raw_probability(baseline, target, margin_ratio, buffer_over_sigma_day), levels[target])
        for target in TARGETS
    ]
    day = columns[2]
    eight = np.minimum(columns[1], day)
    return np.column_stack([np.minimum(columns[0], eight), eight, day, np.minimum(columns[3], day)])
