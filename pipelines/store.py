"""Datasets on disk: opened lazily and checked against the format's types, written whole or not at all.

Opening reads `dataset.json` and the footers of the Parquet files. Values are looked at by
`perprisk check`, and by the event stream before any of them counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl
from polars.datatypes import DataType

from exchange.errors import WorkError
from features.tables import ONE_OF, TABLES, Kind, Table
from pipelines.damage import DatasetError, one_line, reading
from pipelines.meta import META, Meta, read_meta
from pipelines.output import atomic_dir
from pipelines.schema import Conversion, conversion, empty, lost

__all__ = [
    "Dataset", "DatasetError", "Meta", "conform", "inspect", "missing", "write_dataset", "write_part",
]  # fmt: skip

ROWS_PER_GROUP = 100_000  # what a filter on time can skip at once


class Part(NamedTuple):
    """Files of one schema, which are read together."""

    files: tuple[Path, ...]
    conversion: Conversion


class TableFiles(NamedTuple):
    """The files of one table."""

    table: Table
    place: Path  # NAME.parquet or NAME/
    files: tuple[Path, ...]
    parts: tuple[Part, ...]


class Inspection(NamedTuple):
    """All that can be said of a folder without reading a value."""

    meta: Meta | None
    tables: dict[str, TableFiles]
    errors: list[DatasetError]


@dataclass(frozen=True)
class Dataset:
    """An account history on disk, opened but not read."""

    path: Path
    meta: Meta
    tables: Mapping[str, TableFiles]
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str, kind: Kind | None = None) -> Dataset:
        """Open a dataset that can serve as one of `kind`; one of accounts also serves where prices do.

        Raises DatasetError for anything that is missing, damaged or of a type that does not cast.
        """
        path = Path(path)
        meta, tables, errors = inspect(path)
        if errors:
            raise errors[0]
        assert meta is not None
        if kind == "accounts" and meta.kind != "accounts":
            raise DatasetError(
                f"{path / META}: kind is '{meta.kind}', a dataset of kind 'accounts' is needed"
            )
        return cls(path, meta, tables)

    def has(self, table: str) -> bool:
        """Whether the dataset has that table, be it without rows."""
        return table in self.tables

    def scan(self, table: str, after_us: int | None = None, until_us: int | None = None) -> pl.LazyFrame:
        """The columns of a table in the types of the format, in no order; a table that is absent is empty.

        `after_us` (excluded) and `until_us` (included) keep rows by their time and spare reading the
        others. Absent columns are null, extra ones are left out. Raises DatasetError where a value
        does not cast without loss. Collect it within `pipelines.damage.reading`, or use `read`.
        """
        files = self.tables.get(table)
        if files is None:
            return empty(TABLES[table]).lazy()
        if table not in self._verified:
            for part in files.parts:
                _verify(part, files)
            self._verified.add(table)
        return pl.concat(
            [
                _scan(part.files)
                .filter(*_between(part.conversion.time, after_us, until_us))
                .select(part.conversion.columns)
                for part in files.parts
            ]
        )

    def read(self, table: str, after_us: int | None = None, until_us: int | None = None) -> pl.DataFrame:
        """The rows of `scan` in memory; DatasetError where a file is damaged."""
        lazy = self.scan(table, after_us, until_us)
        with reading(self.place(table), table):
            return lazy.collect()

    def place(self, table: str) -> Path:
        """Where a table lies, for naming it; where it would lie if it is absent."""
        return self.tables[table].place if table in self.tables else self.path / f"{table}.parquet"

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of `dataset.json` and of every table's files, with their names."""
        sha = hashlib.sha256()
        for file in [self.path / META, *(file for files in self.tables.values() for file in files.files)]:
            with reading(file), file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
            sha.update(file.relative_to(self.path).as_posix().encode() + b"\0" + content)
        return sha.hexdigest()


def inspect(path: Path) -> Inspection:
    """What a folder holds and all that is wrong with it, short of the values in its tables."""
    meta: Meta | None = None
    tables: dict[str, TableFiles] = {}
    errors: list[DatasetError] = []
    try:
        with reading(path):
            if not path.exists():
                raise DatasetError(f"{path}: no such folder")
            if not path.is_dir():
                raise DatasetError(f"{path}: is a file; a dataset is a folder with {META}")
    except DatasetError as error:
        return Inspection(None, {}, [error])
    try:
        meta = read_meta(path / META)
    except DatasetError as error:
        errors.append(error)
    broken = set()
    for table in TABLES.values():
        try:
            files = _find(path, table)
            if files is not None:
                tables[table.name] = files
        except DatasetError as error:
            errors.append(error)
            broken.add(table.name)
    if meta is not None:
        errors += [DatasetError(line, name) for name, line in missing(path, meta.kind, {*tables, *broken})]
    return Inspection(meta, tables, errors)


def write_dataset(
    path: Path,
    meta: Meta,
    tables: Mapping[str, pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]],
) -> None:
    """Write a dataset whole or not at all, replacing an earlier one.

    A frame becomes one file, sorted by time; a lazy frame becomes one file as it streams; anything
    else that yields frames becomes a folder of part files. Columns are cast to the types of the
    format, others left out. Raises InputError where `path` cannot become a dataset and WorkError
    where the tables do not make one.
    """
    for name in tables:
        if name not in TABLES:
            raise WorkError(f"{path}: the format has no table {name}")
    for _, line in missing(path, meta.kind, set(tables)):
        raise WorkError(line)
    with atomic_dir(path, marker=META) as folder:
        for name, rows in tables.items():
            table = TABLES[name]
            if isinstance(rows, pl.DataFrame):
                frame = conform(rows.lazy(), table, path).collect()
                if table.time is not None:
                    frame = frame.sort(table.time, maintain_order=True)
                write_part(frame.rechunk(), folder / f"{name}.parquet")
            elif isinstance(rows, pl.LazyFrame):
                conform(rows, table, path).sink_parquet(
                    folder / f"{name}.parquet", row_group_size=ROWS_PER_GROUP
                )
            else:
                (folder / name).mkdir()
                number = -1
                for number, frame in enumerate(rows):
                    part = conform(frame.lazy(), table, path).collect()
                    write_part(part.rechunk(), folder / name / f"part-{number:05d}.parquet")
                if number < 0:
                    write_part(empty(table), folder / name / "part-00000.parquet")
        (folder / META).write_text(json.dumps(meta.to_json(), indent=1) + "\n")


def write_part(frame: pl.DataFrame, file: Path) -> None:
    """Write rows into a file in groups that a filter can skip."""
    frame.write_parquet(file, row_group_size=ROWS_PER_GROUP)


def conform(rows: pl.LazyFrame, table: Table, path: Path) -> pl.LazyFrame:
    """Rows in the columns and types of the format; WorkError naming `path` where they do not cast."""
    schema = rows.collect_schema()
    try:
        converted = conversion(schema, table, f"{path}/{table.name}")
    except DatasetError as error:
        raise WorkError(str(error)) from error
    return rows.select(
        expression
        for column, expression in zip(table.columns, converted.columns, strict=True)
        if column.name in schema
    )


def _find(path: Path, table: Table) -> TableFiles | None:
    """The files of a table, with their footers read; None where there are none."""
    file, folder = path / f"{table.name}.parquet", path / table.name
    with reading(path):
        is_file, is_folder = file.exists(), folder.is_dir()
        if not is_file and not is_folder:
            return None
        if is_file and is_folder:
            raise DatasetError(
                f"{folder}: is there besides {file.name}; a table is one or the other", table.name
            )
        if is_file and not file.is_file():
            raise DatasetError(f"{file}: is not a file", table.name)
        place = file if is_file else folder
        files = (file,) if is_file else tuple(sorted(f for f in folder.rglob("*.parquet") if f.is_file()))
    if not files:
        raise DatasetError(f"{place}: holds no .parquet file", table.name)
    groups: dict[tuple[tuple[str, DataType], ...], list[Path]] = {}
    for part in files:
        groups.setdefault(_schema(part, table), []).append(part)
    parts = tuple(
        Part(tuple(group), conversion(dict(schema), table, str(group[0]))) for schema, group in groups.items()
    )
    return TableFiles(table, place, files, parts)


def _schema(file: Path, table: Table) -> tuple[tuple[str, DataType], ...]:
    with reading(file, table.name):
        if file.stat().st_size == 0:
            raise DatasetError(f"{file}: is empty (0 bytes), not Parquet", table.name)
        return tuple(_scan((file,)).collect_schema().items())


def missing(path: Path, kind: Kind, present: set[str]) -> list[tuple[str, str]]:
    """Tables that a dataset of this kind cannot do without: their names and what to say."""
    lines = [
        (table.name, f"{path / table.name}.parquet: table {table.name} is missing")
        for table in TABLES.values()
        if kind in table.needed_by and table.name not in present
    ]
    if kind == "accounts" and not any(present.issuperset(group) for group in ONE_OF):
        groups = " or ".join(" with ".join(group) for group in ONE_OF)
        # name the table that would complete what is there
        group = max(ONE_OF, key=lambda names: len(present.intersection(names)))
        name = next(name for name in reversed(group) if name not in present)
        lines.append((name, f"{path / name}.parquet: table {name} is missing (needed: {groups})"))
    return lines


def _scan(files: tuple[Path, ...]) -> pl.LazyFrame:
    # no glob, no hive: a file is read under its own name, and folder names are no columns
    return pl.scan_parquet(list(files), glob=False, hive_partitioning=False)


def _between(time: tuple[str, DataType] | None, after_us: int | None, until_us: int | None) -> list[pl.Expr]:
    """Filters on the time column as it lies in the file, so that whole row groups can be skipped."""
    if time is None:
        return []
    name, source = time
    if not isinstance(source, pl.Datetime):  # all null: no row has a time
        return [pl.lit(False)] if after_us is not None or until_us is not None else []
    kept = []
    if after_us is not None:
        kept.append(pl.col(name) > _moment(after_us, source))
    if until_us is not None:
        kept.append(pl.col(name) <= _moment(until_us, source))
    return kept


def _moment(time_us: int, source: pl.Datetime) -> pl.Expr:
    # rounding down is right for both bounds: t > x and t <= x hold for whole t just as for floor(x)
    value = {"us": time_us, "ms": time_us // 1000, "ns": time_us * 1000}[source.time_unit]
    value = max(min(value, 2**63 - 1), -(2**63) + 1)
    return pl.lit(value, pl.Int64).cast(source)


def _verify(part: Part, files: TableFiles) -> None:
    for doubt in part.conversion.doubts:
        for file in part.files:
            with reading(file, files.table.name):
                bad = _scan((file,)).select(lost(doubt).head(1).to_physical().cast(pl.String)).collect()
            if bad.height:
                raise DatasetError(
                    f"{file}: column {doubt.column}: value {one_line(bad.item())} of type {doubt.source} "
                    f"does not cast to {doubt.target} without loss",
                    files.table.name,
                    doubt.column,
                )
