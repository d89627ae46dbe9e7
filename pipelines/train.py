"""`perprisk train`: datasets in, one MODEL folder out, the run recorded."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from exchange.errors import InputError
from exchange.units import DAY_US, HOUR_US
from features import catalog
from models import registry, warning
from models.bundle import MANIFEST, Bundle, fill_bundle
from models.card import model_card
from models.export import Export, export_heads
from models.grow import PARAMETERS
from models.horizons import HORIZONS_H
from models.rows import Rows
from models.train import TUNED_HEADS, Trained, purged, train
from models.tune import Tuning
from models.warning import EarlyWarning
from pipelines.evaluate import Judged, judge_rows, pictures
from pipelines.output import atomic_dir, check_folder
from pipelines.progress import progress
from pipelines.replay import DEFAULT_EVERY_US, joined, training_rows, training_times
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.scorer import Scorer

LIBRARIES = ("lightgbm", "scikit-learn", "numpy", "numba", "onnx", "onnxruntime", "polars", "shap")
HELD_OUT_SHARE = 0.25
"""Share of the time, at the end, on which a model of the rest is judged for the card and the record."""
HELD_OUT_DRAWS = 50


def run(datasets: list[Path], out: Path, until_us: int | None, tracking_uri: str | None, tune: int) -> int:
    """Train on the datasets, with so many trials of tuning, and write the model to `out`; 0 when done."""
    version = train_model(datasets, out, until_us, tracking_uri, tune)
    print(f"model {version} written to {out}", file=sys.stderr)
    return 0


def train_model(
    paths: list[Path],
    out: Path,
    until_us: int | None = None,
    tracking_uri: str | None = None,
    tune: int = 0,
) -> str:
    """Train, write the bundle at once or not at all, record the run; the model version.

    `tune` is the number of trials in which the parameters of a head's trees are searched for, 0 for none.
    """
    if not paths:
        raise InputError("no dataset to train on")
    check_folder(out, MANIFEST)
    uri = registry.default_uri(Path.cwd()) if tracking_uri is None else tracking_uri
    registry.check_uri(uri)
    opened = [Dataset.open(path, "accounts") for path in paths]
    parts: list[Rows] = []
    accounts = 0
    for dataset in opened:
        last_us = dataset.meta.end_us if until_us is None else min(until_us, dataset.meta.end_us)
        steps = len(training_times(dataset, DEFAULT_EVERY_US, last_us))
        if steps == 0:
            raise InputError(
                f"{dataset.path}: nothing to train on until {format_time(last_us)}: no decision time from "
                f"its start, {format_time(dataset.meta.start_us)}, whose outcome is known by then"
            )
        with progress(steps, f"features of {dataset.path.name}") as bar:
            rows = training_rows(dataset, DEFAULT_EVERY_US, last_us, bar.advance, accounts)
        accounts = max(accounts, int(rows.account.max(initial=accounts - 1)) + 1)
        parts.append(rows)
    rows = joined(parts)
    try:
        trained = _trained(rows, tune, "training")
    except InputError as problem:
        raise InputError(f"{', '.join(map(str, paths))}: {problem}") from None
    with progress(None, "early warning"):
        early = warning.fit(rows, trained.model["seed"])
    described = [_described(dataset, until_us) for dataset in opened]
    model = trained.model | {
        "warning": early.model if early else None,
        "datasets": described,
        "code": version("perprisk"),
        "libraries": _libraries(*(("optuna",) if tune else ())),
    }
    exported = _exported(trained, early)
    judged = _held_out(rows, tune)
    card = model_card(model, judged.summary if judged else None, _judged_warning(judged))
    with atomic_dir(out, MANIFEST) as folder:
        model_version = fill_bundle(
            folder, exported.graph, model, exported.forests, card, catalog.fingerprint()
        )
        bundle = Bundle.open(folder, catalog.fingerprint())
        with progress(None, "recording the run"):
            record(bundle, trained, judged, rows, described, uri)
    return model_version


def _described(dataset: Dataset, until_us: int | None) -> dict[str, Any]:
    meta = dataset.meta
    end_us = meta.end_us if until_us is None else min(until_us, meta.end_us)
    return {
        "venue": meta.venue,
        "start": format_time(meta.start_us),
        "end": format_time(end_us),
        "digest": dataset.digest(),
    }


def _libraries(*more: str) -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in (*LIBRARIES, *more)}


def _trained(rows: Rows, tune: int, title: str) -> Trained:
    """Train, with a bar that counts trials where parameters are tuned."""
    if not tune:
        with progress(None, title):
            return train(rows)
    with progress(tune * TUNED_HEADS, f"{title}, tuned") as bar:
        return train(rows, tuning=Tuning(tune, bar.advance))


def _held_out(rows: Rows, tune: int) -> Judged | None:
    """How a model of the first three quarters of the time does on the last; None where it is too short."""
    first, last = int(rows.time_us.min()), int(rows.time_us.max())
    cut_us = first + int((last - first) * (1.0 - HELD_OUT_SHARE)) // DAY_US * DAY_US
    earlier = purged(rows, cut_us)
    later = rows.where(rows.time_us > cut_us)
    if len(earlier.time_us) == 0 or len(later.time_us) == 0:
        return None
    try:
        trained = _trained(earlier, tune, "training on earlier time")
    except InputError:
        return None
    with progress(None, "judging on held-out time"):
        early = warning.fit(earlier, trained.model["seed"])
        return judge_rows(passing_scorer(trained, early), later, draws=HELD_OUT_DRAWS)


def _judged_warning(judged: Judged | None) -> dict[str, Any] | None:
    return judged.card.get("early_warning") if judged else None


def _exported(trained: Trained, early: EarlyWarning | None) -> Export:
    return export_heads(
        [head.spec for head in trained.heads], len(catalog.NAMES), early.spec if early else None
    )


def passing_scorer(trained: Trained, early: EarlyWarning | None = None) -> Scorer:
    """A scorer of a model that is not to be kept, by way of a bundle all the same."""
    exported = _exported(trained, early)
    with tempfile.TemporaryDirectory() as folder:
        fill_bundle(Path(folder), exported.graph, trained.model, exported.forests, "", catalog.fingerprint())
        return Scorer(Bundle.open(Path(folder), catalog.fingerprint()))


def record(
    bundle: Bundle,
    trained: Trained,
    judged: Judged | None,
    rows: Rows,
    described: list[dict[str, Any]],
    uri: str,
) -> None:
    """Record a run: parameters, figures, tags, and as artifacts the bundle, its boosters and pictures."""
    metrics = {"rows": float(len(rows.time_us))}
    for head in trained.heads:
        for fact in ("rows", "events", "accounts", "rounds"):
            if fact in head.facts:
                metrics[f"{head.spec.name}_{fact}"] = float(head.facts[fact])
        for fact in ("trials", "chosen", "gain", "gain_standard_error"):
            if fact in head.facts.get("tuning", {}):
                metrics[f"{head.spec.name}_tuning_{fact}"] = float(head.facts["tuning"][fact])
    for fact in ("rows", "threshold", "alarm_rate"):
        if bundle.model.get("warning"):
            metrics[f"warning_{fact}"] = float(bundle.model["warning"][fact])
    if judged is not None:
        metrics |= {f"held_out_{name}": value for name, value in judged.flat_metrics().items()}
    found = _judged_warning(judged)
    if found is not None:
        metrics |= {f"held_out_{name}": value for name, value in warning.figures_of(found).items()}
    parameters = {key: value for key, value in PARAMETERS.items()} | {
        "horizons_h": HORIZONS_H,
        "every_h": DEFAULT_EVERY_US / HOUR_US,
        "tree_features": ",".join(bundle.model["tree_features"]),
        "seed": bundle.model["seed"],
        "catalogue_fingerprint": bundle.fingerprint,
    }
    if "tuned_trials" in bundle.model:
        parameters["tuned_trials"] = bundle.model["tuned_trials"]
    for head in trained.heads:
        if head.facts.get("tuning", {}).get("chosen"):
            parameters[f"{head.spec.name}_parameters"] = json.dumps(head.facts["tuning"]["parameters"])
    tags = {"model_version": bundle.model_version, "dataset_digest": ",".join(d["digest"] for d in described)}
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = Path(temporary)
        kept = artifacts / "bundle"
        kept.mkdir()
        for file in sorted(bundle.path.iterdir()):
            (kept / file.name).write_bytes(file.read_bytes())
        boosters = artifacts / "boosters"  # LightGBM's own text form, for those who want to check the graph
        boosters.mkdir()
        for head in trained.heads:
            if head.booster is not None:
                head.booster.save_model(boosters / f"{head.spec.name}.txt")
        if judged is not None:
            for name, png in pictures(judged).items():
                (artifacts / f"{name}.png").write_bytes(png)
        registry.record_run(
            uri,
            name=f"{bundle.model_version} {datetime.now(UTC):%Y-%m-%d %H:%M}",
            parameters=parameters,
            metrics={key: value for key, value in metrics.items() if np.isfinite(value)},
            tags=tags,
            artifacts=artifacts,
            graph=bundle.graph,
            requirements=[f"onnxruntime=={bundle.model['libraries']['onnxruntime']}"],
        )
