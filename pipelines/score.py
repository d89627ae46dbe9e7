"""`perprisk score`: every account with an open position at the times asked for, streamed to Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from exchange.errors import InputError
from features import catalog
from features.tables import TABLES
from features.venue import Vectors, Venue
from models.bundle import Bundle
from pipelines.meta import META
from pipelines.output import atomic_file, check_file
from pipelines.progress import progress
from pipelines.replay import replay
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.linked import score_linked
from serving.scorer import Scorer

MOST_REASONS = 3

ROWS_AT_ONCE = 50_000
"""Accounts that are scored and written together: what a row takes on the way is taken for these only."""

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", tz="UTC")),
        ("account_id", pa.string()),
        *((name, pa.float64()) for name in (
            "pd_liquidation_1h", "pd_liquidation_8h", "pd_liquidation_24h", "pd_negative_equity_24h",
            "expected_loss_usd", "static_initial_margin_rate", "initial_margin_rate",
            "maintenance_margin_rate")),
        *((name, pa.string()) for name in (
            "status", "fallback_reason", "reason_1", "reason_2", "reason_3", "model_version")),
    ]
)  # fmt: skip


def run(
    dataset: Path,
    model: Path,
    times_us: list[int] | None,
    from_us: int | None,
    to_us: int | None,
    every_us: int | None,
    out: Path,
) -> int:
    """Score at `times_us`, or along [from, to] every so often, and write the rows to `out`."""
    check_file(out)
    history = Dataset.open(dataset, "accounts")
    check_apart(history, out)
    scorer = Scorer(Bundle.open(model, catalog.fingerprint()))
    if times_us is None:
        assert from_us is not None and to_us is not None and every_us is not None
        # the ends before the steps between them, which may be more than memory holds
        check_within(history, from_us, from_us + (to_us - from_us) // every_us * every_us)
        wanted = np.arange(from_us, to_us + 1, every_us, dtype=np.int64)
    else:
        wanted = np.unique(np.array(times_us, np.int64))
    rows = write_scores(history, scorer, wanted, out)
    print(f"{rows} rows written to {out}", file=sys.stderr)
    return 0


def write_scores(dataset: Dataset, scorer: Scorer, times_us: npt.NDArray[np.int64], out: Path) -> int:
    """Write scores at rising times to a Parquet file, whole or not at all; the number of rows.

    Raises InputError for a time that the dataset says nothing of.
    """
    check_within(dataset, int(times_us[0]), int(times_us[-1]))
    written = 0
    with (
        atomic_file(out) as path,
        pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer,
        progress(len(times_us), "scoring") as bar,
    ):
        for time_us, vectors, venue in replay(dataset, times_us, bar.advance):
            for start in range(0, max(len(vectors.account), 1), ROWS_AT_ONCE):
                chosen = Vectors._make(column[start : start + ROWS_AT_ONCE] for column in vectors)
                writer.write_table(score_table(scorer, venue, chosen, time_us))
            written += len(vectors.account)
    return written


def check_apart(dataset: Dataset, out: Path) -> None:
    """Raise InputError where a result would take the place of a file that the dataset is made of."""
    home, place = dataset.path.resolve(), out.parent.resolve() / out.name
    name = place.relative_to(home).parts[0] if place.is_relative_to(home) else ""
    files = {file.resolve() for table in dataset.tables.values() for file in table.files}
    if name == META or name.removesuffix(".parquet") in TABLES or out.resolve() in files:
        raise InputError(f"{out}: is a part of the dataset; scores are to be written elsewhere")


def check_within(dataset: Dataset, first_us: int, last_us: int) -> None:
    """Raise InputError where a dataset says nothing of one of two times."""
    meta = dataset.meta
    for time_us in (first_us, last_us):
        if not meta.start_us <= time_us <= meta.end_us:
            side = "before the start" if time_us < meta.start_us else "after the end"
            bound_us = meta.start_us if time_us < meta.start_us else meta.end_us
            raise InputError(
                f"{dataset.path}: {format_time(time_us)} is {side} of the dataset, {format_time(bound_us)}"
            )


def score_table(scorer: Scorer, venue: Venue, vectors: Vectors, time_us: int) -> pa.Table:
    """Rows of one decision time, in the columns of SCHEMA."""
    scores = score_linked(scorer, venue, vectors, time_us)
    reasons = [[reason.text for reason in found] for found in scorer.reasons(vectors, scores)]
    rows = len(scores.account)
    texts = [[found[k] if k < len(found) else None for found in reasons] for k in range(MOST_REASONS)]
    columns = [
        np.full(rows, time_us, np.int64),
        [venue.account_names[key] for key in scores.account],
        *scores.pd.T,
        scores.expected_loss_usd,
        scores.static_initial_rate,
        scores.initial_rate,
        scores.maintenance_rate,
        ["ok" if reason is None else "fallback" for reason in scores.fallback],
        scores.fallback,
        *texts,
        [scorer.model_version] * rows,
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)
