"""`perprisk evaluate`: a model judged on a stretch of history beside both baselines, with pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from features import catalog
from features import emit as figure
from features.venue import Vectors, Venue
from models import coverage_text, labels, plots, plots_time, warning
from models import scorecard as cards
from models.baselines import BASELINES, TARGET_HORIZON_H, TARGETS
from models.bundle import Bundle
from models.horizons import HORIZONS_H
from models.rows import HORIZONS_US, Rows
from models.train import targets
from pipelines.coverage import FILE as COVERAGE
from pipelines.coverage import Coverage
from pipelines.output import atomic_dir, check_folder
from pipelines.progress import progress
from pipelines.replay import labelled_rows, observations
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.linked import score_linked
from serving.scorer import Scorer, Scores

MARKER = "scorecard.json"
MOST_EXPLAINED_ROWS = 2_000
"""Rows that the SHAP pictures show, chosen evenly along the riskiest tenth and the rest."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Scores of labelled rows, what came of them, and the figures."""

    rows: Rows
    scores: Scores
    probability: dict[str, npt.NDArray[np.float64]]  # by score, (n, targets)
    known: dict[str, Flags]  # rows that count for a target
    came: dict[str, Flags]
    scored: dict[str, cards.Scored]  # the rows that count for a target, as the scorecard takes them
    card: dict[str, Any]
    explained: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # contributions, features
    suggested: npt.NDArray[np.float64] | None = None  # initial margin rates, where the venue was at hand

    @property
    def summary(self) -> dict[str, Any]:
        """The figures at 24 h for all accounts."""
        return dict(self.card["targets"]["liquidation"]["24h"]["all"])

    def flat_metrics(self) -> dict[str, float]:
        """Figures of the model by name, those that are defined."""
        found = {}
        for target, horizons in self.card["targets"].items():
            for horizon, panels in horizons.items():
                for name, value in panels["all"]["model"].items():
                    if isinstance(value, int | float) and math.isfinite(value):
                        found[f"{target}_{horizon}_{name}"] = float(value)
        return found


def run(
    dataset: Path, model: Path, from_us: int, to_us: int, every_us: int, out: Path, margin: bool = False
) -> int:
    """Judge a model on a dataset between two times and write scorecard and pictures to `out`.

    With `margin` the coverage of margin is written and told besides.
    """
    check_folder(out, MARKER)
    history = Dataset.open(dataset, "accounts")
    bundle = Bundle.open(model, catalog.fingerprint())
    covered = Coverage(history, from_us, to_us) if margin else None
    on_scores = None if covered is None else covered.look
    judged = judge(history, Scorer(bundle), from_us, to_us, every_us, on_scores=on_scores)
    files = {MARKER: _json(judged.card)}
    files |= {f"{name}.png": png for name, png in pictures(judged).items()}
    text = cards.table(judged.card)
    if covered is not None:
        with progress(None, "measuring coverage"):
            card = covered.card()
            files |= {COVERAGE: _json(card), "coverage.png": covered.picture(card)}
        text += "\n" + coverage_text.table(card)
    with atomic_dir(out, MARKER) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    print(text)
    return 0


def _json(card: dict[str, Any]) -> bytes:
    return (json.dumps(card, indent=1, allow_nan=False) + "\n").encode()


def judge(
    dataset: Dataset,
    scorer: Scorer,
    from_us: int,
    to_us: int,
    every_us: int,
    draws: int = 200,
    on_scores: Callable[[int, Vectors, Venue, Scores], None] | None = None,
) -> Judged:
    """Score every decision time of [from, to] and compare with what came after it.

    `on_scores` is shown the scores of each time, with the vectors and the venue as it stands then.
    """
    meta = dataset.meta
    if to_us < meta.start_us or from_us > meta.end_us:
        raise InputError(
            f"{dataset.path}: nothing to judge from {format_time(from_us)} to {format_time(to_us)}, "
            f"the dataset runs from {format_time(meta.start_us)} to {format_time(meta.end_us)}"
        )
    found = grids(dataset, from_us, to_us, every_us)
    times_us = np.unique(np.concatenate(found))
    if len(times_us) == 0:
        raise InputError(
            f"{dataset.path}: no decision time from {format_time(from_us)} to {format_time(to_us)} "
            f"whose outcome is known by {format_time(meta.end_us)}"
        )
    asked: list[npt.NDArray[np.float64]] = []

    def ask(time_us: int, vectors: Vectors, venue: Venue) -> None:
        scores = score_linked(scorer, venue, vectors, time_us)
        asked.append(scores.initial_rate)
        if on_scores is not None:
            on_scores(time_us, vectors, venue, scores)

    with progress(len(times_us), "scoring history") as bar:
        rows = labelled_rows(dataset, times_us, meta.end_us, bar.advance, on_vectors=ask)
    if len(rows.time_us) == 0:
        raise InputError(
            f"{dataset.path}: no account has an open position at any of {len(times_us)} decision times"
        )
    described = {"venue": meta.venue, "digest": dataset.digest()}
    with progress(None, "measuring, with intervals"):
        judged = judge_rows(scorer, rows, on_grids(rows, found), described, (from_us, to_us), every_us, draws)
    return replace(judged, suggested=np.concatenate(asked))


def grids(dataset: Dataset, from_us: int, to_us: int, every_us: int) -> list[npt.NDArray[np.int64]]:
    """Decision times of [from, to] for each horizon: those whose outcome is known."""
    meta, seen = dataset.meta, observations(dataset)
    return [
        labels.decision_times(
            meta.start_us, meta.end_us, every_us, horizon_us, seen, (from_us, to_us)
        ).time_us
        for horizon_us in HORIZONS_US
    ]


def on_grids(rows: Rows, found: list[npt.NDArray[np.int64]]) -> dict[str, Flags]:
    """Which rows are decision times of each target, the grids being those of `grids`."""
    on_grid = {
        f"liquidation_{hours}h": np.isin(rows.time_us, grid)
        for hours, grid in zip(HORIZONS_H, found, strict=True)
    }
    return on_grid | {"negative_equity_24h": on_grid[f"liquidation_{HORIZONS_H[-1]}h"]}


def judge_rows(
    scorer: Scorer,
    rows: Rows,
    on_grid: dict[str, Flags] | None = None,
    described: dict[str, Any] | None = None,
    span_us: tuple[int, int] | None = None,
    every_us: int = 0,
    draws: int = 200,
) -> Judged:
    """Score labelled rows; `on_grid` says which rows are decision times of each target (default: all)."""
    vectors = Vectors(rows.account, rows.features, rows.figures)
    scores = scorer.assess(vectors)
    probability = {"model": scores.pd} | {name: scorer.baseline(name, vectors) for name in BASELINES}
    known, came = {}, {}
    for target, (has_label, happened) in targets(rows).items():
        known[target] = has_label if on_grid is None else has_label & on_grid[target]
        came[target] = happened
    scored = scored_rows(rows, known, came, probability)
    by_horizon: dict[str, dict[str, cards.Scored]] = {}
    for target, horizon_h in zip(TARGETS, TARGET_HORIZON_H, strict=True):
        by_horizon.setdefault(target.rsplit("_", 1)[0], {})[f"{int(horizon_h)}h"] = scored[target]
    first, last = span_us or (int(rows.time_us.min()), int(rows.time_us.max()))
    card = cards.scorecard(
        by_horizon,
        dataset=described or {},
        model_version=scorer.model_version,
        from_us=first,
        to_us=last,
        every_s=every_us / 1e6,
        draws=draws,
    )
    day = "liquidation_24h"
    card["early_warning"] = warning.early_warning(rows, scores.warning, known[day], came[day])
    explained = _explained(scorer, vectors, scores)
    return Judged(rows, scores, probability, known, came, scored, card, explained)


def scored_rows(
    rows: Rows,
    known: dict[str, Flags],
    came: dict[str, Flags],
    probability: dict[str, npt.NDArray[np.float64]],
) -> dict[str, cards.Scored]:
    """The rows that count for each target, as the scorecard takes them."""
    return {
        target: cards.Scored(
            time_us=rows.time_us,
            account=rows.account,
            happened=came[target],
            event_us=rows.negative_us if target.startswith("negative") else rows.liquidated_us,
            label_end_us=rows.label_end_us[:, HORIZONS_H.index(int(TARGET_HORIZON_H[k]))],
            equity_usd=rows.figures[:, figure.EQUITY_USD],
            notional_usd=rows.figures[:, figure.GROSS_NOTIONAL_USD],
            long_share=rows.features[:, catalog.index("long_share")],
            probability={name: values[:, k] for name, values in probability.items()},
        ).where(known[target])
        for k, target in enumerate(TARGETS)
    }


def _explained(
    scorer: Scorer, vectors: Vectors, scores: Scores
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Contributions and features of a sample of rows, the risky ones well represented."""
    usable = np.flatnonzero([reason is None for reason in scores.fallback])
    order = usable[np.argsort(-scores.pd[usable, 2], kind="stable")]
    risky, rest = order[: len(order) // 10], order[len(order) // 10 :]
    half = MOST_EXPLAINED_ROWS // 2
    sample = np.concatenate([part[:: max(1, math.ceil(len(part) / half))] for part in (risky, rest)])
    features = vectors.features[sample]
    return scorer.take_apart(features).contributions, features


def pictures(judged: Judged) -> dict[str, bytes]:
    """PNG pictures by name: those for which there is something to show."""
    rows, name = judged.rows, "liquidation_24h"
    found: dict[str, bytes] = {}
    contributions, features = judged.explained
    if len(contributions):
        moved = np.flatnonzero(np.abs(contributions).max(axis=0) > 0)
        names = [catalog.NAMES[k] for k in moved]
        found["shap_beeswarm"] = plots.shap_beeswarm(contributions[:, moved], features[:, moved], names)
        found["shap_bar"] = plots.shap_bar(contributions[:, moved], features[:, moved], names)
    scored = judged.scored[name]
    usable = np.all([np.isfinite(values) for values in scored.probability.values()], axis=0)
    scored = scored.where(usable)
    if not scored.happened.any():
        return found
    chance = scored.probability["model"]
    found["reliability"] = plots.reliability(scored.happened, chance, scored.time_us, scored.account)
    found["precision_recall"] = plots.precision_recall(scored.happened, scored.probability)
    found["over_time"] = plots_time.over_time(scored.time_us, scored.happened, chance)
    found["lead_time"] = plots_time.lead_time(
        scored.time_us, scored.account, scored.happened, scored.event_us, scored.probability
    )
    chosen = np.flatnonzero(judged.known[name])[usable]
    if judged.suggested is not None:
        found["margins"] = plots.margins(
            judged.scores.static_initial_rate[chosen],
            judged.suggested[chosen],
            chance,
            rows.figures[chosen, figure.GROSS_NOTIONAL_USD],
        )
    return found
