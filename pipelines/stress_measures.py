"""Measures of many outcomes: value at risk, expected shortfall, and how sure they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVELS = (0.95, 0.99)
RESAMPLES = 1_000
INTERVAL = (0.05, 0.95)


def tail_count(level: float, count: int) -> int:
    """How many of `count` outcomes lie beyond a level: at least one."""
    return max(math.ceil((1.0 - level) * count - 1e-9), 1)


def value_at_risk(sorted_losses: Floats, level: float) -> Any:
    """The least of the outcomes beyond the level; losses rising along the last axis."""
    return sorted_losses[..., -tail_count(level, sorted_losses.shape[-1])]


def expected_shortfall(sorted_losses: Floats, level: float) -> Any:
    """Mean of the outcomes beyond the level; losses rising along the last axis."""
    return sorted_losses[..., -tail_count(level, sorted_losses.shape[-1]) :].mean(axis=-1)


def risk(losses: Floats, seed: int) -> dict[str, Any]:
    """Mean, largest, and at each level both measures with 90% intervals from resampling the outcomes."""
    chance = np.random.default_rng([seed, len(losses)])
    ordered = np.sort(losses)
    again = np.sort(chance.choice(losses, (RESAMPLES, len(losses))), axis=1)
    found: dict[str, Any] = {"mean": float(ordered.mean()), "most": float(ordered[-1])}
    for level in LEVELS:
        for name, measure in (("var", value_at_risk), ("es", expected_shortfall)):
            low, high = np.quantile(measure(again, level), INTERVAL)
            found[f"{name}_{level * 100:.0f}"] = float(measure(ordered, level))
            found[f"{name}_{level * 100:.0f}_interval"] = [float(low), float(high)]
    return found


def tail_of(losses: Floats, level: float) -> npt.NDArray[np.int64]:
    """Numbers of the outcomes beyond a level, worst first; of equal ones the earlier first."""
    return np.argsort(-losses, kind="stable")[: tail_count(level, len(losses))]
