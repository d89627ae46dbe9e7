"""Training rows of a made-up venue in which it is known what brings liquidation."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.windows import Window, known_by
from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import emit as figure
from features.structural import logit, mixed_hazards
from models.labels import NEVER_US, NO_LABEL_END
from models.rows import HORIZONS_US, Rows
from models.train import TREE_FEATURES, targets

START_US = 1_700_006_400_000_000  # a midnight
EVERY_US = 4 * HOUR_US


def made_rows(seed: int, days: int = 30, accounts: int = 60, risk: float = 1.0, extra: float = 1.0) -> Rows:
    """Accounts with a random buffer at every decision time, liquidated as their buffer and depth say.

    `risk` scales all hazards; `extra` is what one feature that the prior does not know adds to their
    logits. Every account lives on after a liquidation, as a new one would.
    """
    rng = np.random.default_rng(seed)
    times_us = START_US + np.arange(0, days * DAY_US, EVERY_US)
    end_us = START_US + days * DAY_US
    time_us = np.repeat(times_us, accounts)
    account = np.tile(np.arange(accounts), len(times_us))
    count = len(time_us)
    features = rng.normal(size=(count, len(catalog.NAMES)))
    distance = np.exp(rng.normal(0.45, 0.7, count))
    hazards = np.array([mixed_hazards(value) for value in distance])
    for k, name in enumerate(catalog.PRIOR_HAZARDS):
        features[:, catalog.index(name)] = [logit(value) for value in hazards[:, k]]
    for name in TREE_FEATURES:
        features[:, catalog.index(name)] = np.exp(rng.normal(0.0, 0.5, count))
    features[:, catalog.index("buffer_over_sigma_slow")] = distance
    features[:, catalog.index("buffer_over_notional")] = 0.05 * distance
    features[:, catalog.index("effective_buffer_over_sigma")] = distance
    features[:, catalog.index("effective_buffer_over_notional")] = 0.05 * distance
    worse = features[:, catalog.index("position_over_depth")] - 1.0
    odds = risk * np.exp(extra * worse)[:, None] * hazards / (1.0 - hazards)
    truth = odds / (1.0 + odds)

    liquidated_us = np.full(count, NEVER_US)
    edges = np.array([0, *HORIZONS_US])
    for k in (2, 1, 0):  # the earliest that happens is the one that counts
        came = rng.random(count) < truth[:, k]
        within = edges[k] + rng.random(count) * (edges[k + 1] - edges[k])
        liquidated_us = np.where(came, time_us + np.maximum(within, 1.0).astype(np.int64), liquidated_us)
    negative = (liquidated_us != NEVER_US) & (rng.random(count) < 0.2)
    label_end_us = time_us[:, None] + np.array(HORIZONS_US)[None, :]
    label_end_us = np.where(label_end_us <= end_us, label_end_us, NO_LABEL_END)
    figures = np.exp(rng.normal(size=(count, figure.FIGURES)))
    figures[:, figure.GROSS_NOTIONAL_USD] *= 1_000.0
    figures[:, figure.BUFFER_OVER_SIGMA_DAY] = distance
    figures[:, figure.MARGIN_RATIO] = 1.0 + 0.5 * distance
    return Rows(
        time_us,
        account,
        features,
        figures,
        label_end_us,
        liquidated_us,
        np.where(negative, liquidated_us, NEVER_US),
        np.where(negative, 0.03 * figures[:, figure.GROSS_NOTIONAL_USD], math.nan),
    )


def part(rows: Rows, chosen: np.ndarray) -> Rows:
    """Some of the rows."""
    return Rows._make(column[chosen] for column in rows)


def permuted(rows: Rows, seed: int) -> Rows:
    """The same rows, each with what became of another one: nothing can be learnt."""
    other = np.random.default_rng(seed).permutation(len(rows.time_us))

    def moved(event_us: np.ndarray) -> np.ndarray:
        after = np.where(event_us == NEVER_US, NEVER_US, event_us - rows.time_us)[other]
        return np.where(after == NEVER_US, NEVER_US, rows.time_us + after)

    return rows._replace(
        liquidated_us=moved(rows.liquidated_us),
        negative_us=moved(rows.negative_us),
        shortfall_usd=rows.shortfall_usd[other],
    )


def made_window(training_days: int, days: int, extra: float) -> Window:
    """Such rows, cut after the first days: what was known by then, and what is judged."""
    rows = made_rows(3, days=days, accounts=40, extra=extra)
    cut_us = START_US + training_days * DAY_US
    later = rows.where(rows.time_us > cut_us)
    everything = {target: np.ones(len(later.time_us), bool) for target in targets(later)}
    return Window(cut_us, int(later.time_us.max()), known_by(rows, cut_us), later, everything)
