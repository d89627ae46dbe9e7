"""Windows of walk-forward validation: what a model may learn before a cut, and what it is judged on after.

The history is replayed once for all windows. A window's training rows are those of a history that ends at
its cut: same times, same features, and nothing known of what came later.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from exchange.units import DAY_US
from models.labels import NEVER_US, NO_LABEL_END
from models.rows import Rows
from models.train import Trained, purged
from pipelines.evaluate import Judged, grids, judge_rows, on_grids
from pipelines.replay import DEFAULT_EVERY_US, labelled_rows, training_times
from pipelines.store import Dataset
from pipelines.times import parse_time_us
from pipelines.train import passing_scorer

Integers = npt.NDArray[np.int64]

DEFAULT_CUTS = ("2022-12-01", "2022-12-15", "2023-01-15")


class Window(NamedTuple):
    """Rows to train on until `cut_us` and to judge from there until `end_us`."""

    cut_us: int
    end_us: int
    training: Rows
    judged: Rows
    on_grid: dict[str, npt.NDArray[np.bool_]]
    """Which judged rows are decision times of each target."""

    def judge(self, trained: Trained, draws: int, described: dict[str, Any] | None = None) -> Judged:
        """How a model does on the window's rows, as `perprisk evaluate` would have it."""
        return judge_rows(
            passing_scorer(trained),
            self.judged,
            self.on_grid,
            described,
            (self.cut_us, self.end_us),
            DEFAULT_EVERY_US,
            draws,
        )


def windows(path: Path, cuts: Sequence[str], every_us: int = DEFAULT_EVERY_US) -> list[Window]:
    """Windows of an account history; each ends where the next cut begins, the last with the history.

    Raises InputError where a cut is no time, or a window has nothing to train on or to judge.
    """
    dataset = Dataset.open(path, "accounts")
    cuts_us = sorted(parse_time_us(cut, "--cut") for cut in cuts)
    # A window's last decision is a day before the next cut, so that no label reaches over it.
    ends_us = [following - DAY_US - 1 for following in cuts_us[1:]] + [dataset.meta.end_us]
    learnt = [training_times(dataset, every_us, cut_us) for cut_us in cuts_us]
    of_judged = [
        grids(dataset, cut_us, end_us, every_us) for cut_us, end_us in zip(cuts_us, ends_us, strict=True)
    ]
    for cut_us, times_us, found in zip(cuts_us, learnt, of_judged, strict=True):
        if len(times_us) == 0 or not any(len(grid) for grid in found):
            which = "train on before" if len(times_us) == 0 else "judge after"
            raise InputError(f"{path}: nothing to {which} {np.datetime64(cut_us, 'us')}")
    every_time_us = np.unique(np.concatenate([*learnt, *(grid for found in of_judged for grid in found)]))
    rows = labelled_rows(dataset, every_time_us, dataset.meta.end_us)
    result = []
    for cut_us, end_us, times_us, found in zip(cuts_us, ends_us, learnt, of_judged, strict=True):
        judged = rows.where(np.isin(rows.time_us, np.unique(np.concatenate(found))))
        training = known_by(rows.where(np.isin(rows.time_us, times_us)), cut_us)
        result.append(Window(cut_us, end_us, training, judged, on_grids(judged, found)))
    return result


def known_by(rows: Rows, until_us: int) -> Rows:
    """The rows as a history that ends at `until_us` would have them, to the last bit."""
    rows = purged(rows, until_us)
    open_ended = rows.label_end_us[:, -1] == NO_LABEL_END
    return rows._replace(
        liquidated_us=np.where(rows.liquidated_us <= until_us, rows.liquidated_us, NEVER_US),
        negative_us=np.where(rows.negative_us <= until_us, rows.negative_us, NEVER_US),
        shortfall_usd=np.where(open_ended, np.nan, rows.shortfall_usd),
    )


def real_accounts() -> Path:
    """Where the account history of a real venue is, if it is anywhere: under PERPRISK_DATA."""
    return Path(os.environ.get("PERPRISK_DATA", "../shared/data")) / "drift-v2"
