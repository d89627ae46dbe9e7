"""Files of a backtest's runs: the figures as JSON, and beside it what the model said, where it was asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipelines.closed_loop import Result
from pipelines.entry_risk import EntryRisk
from pipelines.output import atomic_file


def write_run(file: Path, result: Result) -> None:
    """Write a run; the JSON comes last, so that a run with it is whole."""
    if result.asked:
        with atomic_file(_beside(file)) as new, new.open("wb") as out:
            pd = np.array([each.pd_24h for each in result.asked])
            np.savez(out, pd=pd, sigma=np.array([each.sigma_day for each in result.asked]))
    with atomic_file(file) as new:
        new.write_text(json.dumps({"metrics": result.metrics, "negative": result.negative}))


def read_metrics(file: Path) -> dict[str, float]:
    """The metrics of a run."""
    found: dict[str, float] = json.loads(file.read_text())["metrics"]
    return found


def read_run(file: Path) -> Result:
    """A run as it was written."""
    found = json.loads(file.read_text())
    asked: list[EntryRisk] = []
    if _beside(file).is_file():
        with np.load(_beside(file)) as arrays:
            asked = [EntryRisk(pd, sigma) for pd, sigma in zip(arrays["pd"], arrays["sigma"], strict=True)]
    return Result(found["metrics"], [(int(who), int(at)) for who, at in found["negative"]], asked)


def _beside(file: Path) -> Path:
    return file.with_suffix(".npz")
