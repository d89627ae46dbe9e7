"""The scorecard: every figure of a model beside those of the two baselines, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np

from models import metrics as mt
from models.desk import desk, venue_episodes
from models.panels import BASELINES, LEAST_EQUITY_USD, SCORES, Json, Scored, panel
from models.scorecard_text import table

__all__ = [
    "BASELINES",
    "FORMAT",
    "PANELS",
    "SCORES",
    "VERSION",
    "Json",
    "Scored",
    "panel",
    "scorecard",
    "table",
]

FORMAT = "perprisk-scorecard"
VERSION = 1
PANELS = (
    "all",
    "equity_at_least_100_usd",
    "equity_below_100_usd",
    "notional_weighted",
    "net_long",
    "net_short",
)
EPISODES_OF = ("liquidation", "24h")
"""What decides which days are episodes, for every target and horizon alike."""


def scorecard(
    targets: Mapping[str, Mapping[str, Scored]],
    *,
    dataset: Json,
    model_version: str,
    from_us: int,
    to_us: int,
    every_s: float,
    draws: int = 200,
    seed: int = 0,
) -> Json:
    """Figures for each target and horizon, such as `targets["liquidation"]["24h"]`, ready for JSON.

    Panels stand under `targets`, as `models.panels.panel` describes them; what a desk reads beside them
    stands under `desk`, as `models.desk` does. What is undefined is null.
    """
    episodic = targets.get(EPISODES_OF[0], {}).get(EPISODES_OF[1])
    episodes = venue_episodes(episodic) if episodic is not None else []
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": dict(dataset),
        "model_version": model_version,
        "from": _iso(from_us),
        "to": _iso(to_us),
        "every_s": every_s,
        "intervals": {"level": mt.LEVEL, "draws": draws, "seed": seed, "resampled": ["days", "accounts"]},
        "targets": {
            target: {horizon: panels(scored, draws, seed) for horizon, scored in horizons.items()}
            for target, horizons in targets.items()
        },
        "desk": {
            target: {
                horizon: desk(scored, episodes, float(horizon.removesuffix("h")), draws, seed)
                for horizon, scored in horizons.items()
            }
            for target, horizons in targets.items()
        },
    }


def panels(scored: Scored, draws: int, seed: int) -> Json:
    """All PANELS of a target and horizon; an account that is hedged to the dollar is on neither side."""
    weighed = scored.where(np.isfinite(scored.notional_usd))
    return {
        "all": panel(scored, draws, seed),
        "equity_at_least_100_usd": panel(scored.where(scored.equity_usd >= LEAST_EQUITY_USD), draws, seed),
        "equity_below_100_usd": panel(scored.where(scored.equity_usd < LEAST_EQUITY_USD), draws, seed),
        "notional_weighted": panel(weighed, draws, seed, weighed.notional_usd),
        "net_long": panel(scored.where(scored.long_share > 0.5), draws, seed),
        "net_short": panel(scored.where(scored.long_share < 0.5), draws, seed),
    }


def _iso(time_us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).isoformat()
