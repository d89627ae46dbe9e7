"""Models without trees, written in a moment: what they say follows from one column of the catalogue each."""

from __future__ import annotations

import shutil
from pathlib import Path

from features import catalog
from models import baselines
from models.bundle import MANIFEST, fill_bundle
from models.export import HeadSpec, export_heads
from models.heads import HEADS
from pipelines.output import atomic_dir

REQUIRED = ("slippage_to_close_bps",)
"""Beside the priors: what trained models need wherever a venue publishes its books."""


def write_model(
    folder: Path,
    number: int = 0,
    offsets: tuple[str, str, str] = catalog.PRIOR_HAZARDS,
    required: tuple[str, ...] = REQUIRED,
) -> str:
    """Put a model into the place of what is at `folder`, as training does; its version.

    Every number is another model. The hazards are the columns `offsets`, moved by a number; where such a
    column is not known the model gives none.
    """
    heads = [
        HeadSpec(name, offset=catalog.index(column), intercept=0.01 * number)
        for name, column in zip(HEADS[:3], offsets, strict=True)
    ]
    heads += [HeadSpec(HEADS[3], intercept=-4.0), HeadSpec(HEADS[4], intercept=0.05, link="identity")]
    exported = export_heads(heads, len(catalog.NAMES))
    model = {
        "heads": {
            head.name: {"intercept": head.intercept, "slope": head.slope, "link": head.link} for head in heads
        },
        "required_features": [*catalog.PRIOR_HAZARDS, *required],
        "baseline_levels": {name: dict.fromkeys(baselines.TARGETS, 0.0) for name in baselines.BASELINES},
        "mean_severity": 0.05,
        "unknown_severity": 0.2,
        "usual": {"effective_buffer_over_notional": 0.1, "sigma_day": 0.05, "margin_ratio": 2.0},
        "warning": None,
    }
    with atomic_dir(folder, MANIFEST) as new:
        return fill_bundle(
            new, exported.graph, model, exported.forests, f"# Model {number}\n", catalog.fingerprint()
        )


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Put any files into the place of a model's, in two renames and without waiting for the disk."""
    new, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    new.mkdir()
    for name, content in files.items():
        (new / name).write_bytes(content)
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)
