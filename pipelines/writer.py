"""A dataset written while it is being made: tables grow together, memory does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from exchange.errors import WorkError
from features.tables import TABLES
from pipelines.meta import META, Meta
from pipelines.output import atomic_dir
from pipelines.schema import empty
from pipelines.store import conform, missing, write_part

ROWS_A_PART = 500_000
"""Rows of a table that are kept before they become a part file; a smaller table becomes one file."""


@dataclass
class DatasetWriter:
    """A dataset that is being written into `folder`; rows of a table must come in rising order of time."""

    folder: Path
    path: Path
    """Where the dataset will stand, for what is said of it."""
    _waiting: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    _parts: dict[str, int] = field(default_factory=dict)

    def append(self, name: str, rows: pl.DataFrame) -> None:
        """Add rows to a table; WorkError where they do not fit the format."""
        frames = self._waiting.setdefault(name, [])
        if rows.height:
            frames.append(conform(rows.lazy(), TABLES[name], self.path).collect())
        if sum(frame.height for frame in frames) >= ROWS_A_PART:
            self._flush(name)

    def close(self, meta: Meta) -> None:
        """Write what waits and `dataset.json`; WorkError where tables are missing."""
        for _, line in missing(self.path, meta.kind, set(self._waiting)):
            raise WorkError(line)
        for name in self._waiting:
            if name in self._parts:
                self._flush(name)
            else:
                write_part(self._taken(name), self.folder / f"{name}.parquet")
        (self.folder / META).write_text(json.dumps(meta.to_json(), indent=1) + "\n")

    def _flush(self, name: str) -> None:
        rows = self._taken(name)
        if rows.height:
            number = self._parts.get(name, 0)
            (self.folder / name).mkdir(exist_ok=True)
            write_part(rows, self.folder / name / f"part-{number:05d}.parquet")
            self._parts[name] = number + 1

    def _taken(self, name: str) -> pl.DataFrame:
        frames, self._waiting[name] = self._waiting[name], []
        table = TABLES[name]
        if not frames:
            return empty(table)
        rows = pl.concat(frames, how="vertical")
        return rows if table.time is None else rows.sort(table.time, maintain_order=True).rechunk()


@contextmanager
def dataset_writer(path: Path) -> Iterator[DatasetWriter]:
    """Write a dataset whole or not at all, replacing an earlier one; the caller closes it with its meta.

    Raises InputError where `path` cannot become a dataset.
    """
    with atomic_dir(path, marker=META) as folder:
        yield DatasetWriter(folder, path)
