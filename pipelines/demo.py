"""`perprisk demo`: the main job from end to end, on real accounts or on a generated venue."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from exchange.units import DAY_US, HOUR_US
from features import catalog
from models import registry
from models import scorecard as cards
from models.bundle import Bundle
from pipelines import report, simulate
from pipelines.evaluate import MARKER, judge, pictures
from pipelines.output import atomic_dir, check_folder
from pipelines.replay import DEFAULT_EVERY_US, observations, replay
from pipelines.score import write_scores
from pipelines.store import Dataset
from pipelines.train import train_model
from serving.scorer import Scorer

REPORT = "report.html"
TRAINED_SHARE = 0.6
"""Share of the history that the demo trains on; the model is judged on what came after."""

VENUE_ACCOUNTS, VENUE_DAYS, VENUE_SEED = 1_200, 24.0, 7
SCORED_DAYS = 2
"""Days at the end of the history whose scores are written out."""


def run(dataset: Path | None, out: Path) -> int:
    """Write dataset (where none is given), model, evaluation, scores and the report to `out`."""
    check_folder(out, REPORT)
    if dataset is not None:
        Dataset.open(dataset, "accounts")
    with atomic_dir(out, REPORT) as folder:
        if dataset is None:
            _say("1/5 generating a venue")
            dataset = folder / "dataset"
            simulate.run(dataset, VENUE_ACCOUNTS, VENUE_DAYS, VENUE_SEED)
        history = Dataset.open(dataset, "accounts")
        meta = history.meta
        cut_us = (meta.start_us + int((meta.end_us - meta.start_us) * TRAINED_SHARE)) // DAY_US * DAY_US
        _say(f"2/5 training on {meta.venue} until {np.datetime64(cut_us, 'us').astype('datetime64[D]')}")
        # The tracking store outlives the folder that is exchanged as a whole, so it lies beside it.
        train_model([dataset], folder / "model", cut_us, registry.default_uri(out.absolute().parent))
        scorer = Scorer(Bundle.open(folder / "model", catalog.fingerprint()))

        _say("3/5 judging on what came after")
        judged = judge(history, scorer, cut_us + 1, meta.end_us, DEFAULT_EVERY_US)
        images = pictures(judged)
        evaluation = folder / "evaluation"
        evaluation.mkdir()
        (evaluation / MARKER).write_text(json.dumps(judged.card, indent=1, allow_nan=False) + "\n")
        for name, png in images.items():
            (evaluation / f"{name}.png").write_bytes(png)

        _say("4/5 scoring the last days")
        last_us = last_moment(history)
        first_us = max(last_us - SCORED_DAYS * DAY_US, meta.start_us)
        times_us = np.arange(last_us, first_us - 1, -4 * HOUR_US, dtype=np.int64)[::-1]
        write_scores(history, scorer, times_us, folder / "scores.parquet")

        _say("5/5 writing the report")
        _, vectors, venue = next(iter(replay(history, np.array([last_us]))))
        page = report.render(scorer, venue, vectors, last_us, judged.card, images, meta.venue, cut_us)
        (folder / REPORT).write_text(page, encoding="utf-8")
    print(cards.table({**judged.card, "targets": {"liquidation": _only_day(judged.card)}}))
    print(f"report: {out / REPORT}")
    return 0


def _only_day(card: cards.Json) -> cards.Json:
    return {"24h": card["targets"]["liquidation"]["24h"]}


def last_moment(dataset: Dataset) -> int:
    """The last time at which the whole population is known."""
    seen = observations(dataset)
    end_us = dataset.meta.end_us
    return end_us if seen is None else int(seen[seen <= end_us].max(initial=dataset.meta.start_us))


def _say(text: str) -> None:
    """Tell of progress, to people only."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
