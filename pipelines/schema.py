"""Columns as they lie in files, cast to the types of the format without losing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from features.tables import TIER, Column, ColumnType, Table
from pipelines.damage import DatasetError

UTC_US = pl.Datetime("us", "UTC")
TYPES: dict[ColumnType, DataType] = {
    "time": UTC_US,
    "string": pl.String(),
    "float": pl.Float64(),
    "int": pl.Int64(),
    "floats": pl.List(pl.Float64()),
    "tiers": pl.List(pl.Struct({field.name: pl.Float64() for field in TIER})),
}

_SMALL_INTEGERS: tuple[DataTypeClass, ...] = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)
_INTEGERS: tuple[DataTypeClass, ...] = (*_SMALL_INTEGERS, pl.Int64, pl.UInt64, pl.Int128)
_FLOATS: tuple[DataTypeClass, ...] = (pl.Float32, pl.Float64)
_TEXTS: tuple[DataTypeClass, ...] = (pl.String, pl.Categorical, pl.Enum)

# Types that cast whatever the values, and types where it depends on the values.
_SURE: dict[ColumnType, tuple[DataTypeClass, ...]] = {
    "string": (*_TEXTS, *_INTEGERS),
    "float": (*_FLOATS, *_SMALL_INTEGERS),
    "int": (*_SMALL_INTEGERS, pl.Int64),
}
_DEPENDS: dict[ColumnType, tuple[DataTypeClass, ...]] = {
    "string": (),
    "float": (pl.Int64, pl.UInt64, pl.Int128, pl.Decimal),
    "int": (pl.UInt64, pl.Int128, *_FLOATS, pl.Decimal),
}


class Doubt(NamedTuple):
    """Values that may not survive their cast: `value`, cast to `target` and back to `source`, must stay."""

    column: str
    value: pl.Expr
    source: DataType
    target: DataType


class Conversion(NamedTuple):
    """How the columns of one file become the columns of a table."""

    columns: list[pl.Expr]
    doubts: list[Doubt]
    time: tuple[str, DataType] | None  # the time column as it lies in the file, for filters on it


def conversion(schema: Mapping[str, DataType], table: Table, place: str) -> Conversion:
    """The conversion from a file's schema to that of a table; absent optional columns become null.

    Raises DatasetError, naming `place`, where a column is missing or has a type that does not cast.
    """
    columns: list[pl.Expr] = []
    doubts: list[Doubt] = []
    for column in table.columns:
        if column.name in schema:
            doubts += _doubts(column, schema[column.name], table.name, place)
            columns.append(_cast(column, schema[column.name]).alias(column.name))
        elif column.optional:
            columns.append(pl.lit(None, TYPES[column.type]).alias(column.name))
        else:
            raise DatasetError(f"{place}: column {column.name} is missing", table.name, column.name)
    time = (table.time, schema[table.time]) if table.time is not None else None
    return Conversion(columns, doubts, time)


def empty(table: Table) -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema={column.name: TYPES[column.type] for column in table.columns})


def lost(doubt: Doubt) -> pl.Expr:
    """The values of a doubt that do not survive their cast."""
    there_and_back = doubt.value.cast(doubt.target, strict=False).cast(doubt.source, strict=False)
    return doubt.value.filter(there_and_back.ne_missing(doubt.value))


def _cast(column: Column, source: DataType) -> pl.Expr:
    value = pl.col(column.name)
    if column.type == "tiers" and isinstance(_inner(source), pl.Struct):
        fields = {field.name for field in _inner(source).fields}  # type: ignore[union-attr]
        if isinstance(source, pl.Array):
            value = value.cast(pl.List(source.inner))
        # by name, since a struct cast goes by place
        tier = pl.struct(
            pl.element().struct.field(field.name).cast(pl.Float64).alias(field.name)
            if field.name in fields
            else pl.lit(None, pl.Float64).alias(field.name)
            for field in TIER
        )
        return value.list.eval(pl.when(pl.element().is_not_null()).then(tier))
    return value if source == TYPES[column.type] else value.cast(TYPES[column.type])


def _doubts(column: Column, source: DataType, table: str, place: str) -> Iterator[Doubt]:
    """What has to be verified in values; raises where the type cannot hold such a column at all."""
    target = TYPES[column.type]
    value = pl.col(column.name)
    if source == target or isinstance(source, pl.Null):
        return
    refused = DatasetError(
        f"{place}: column {column.name}: type {source} does not cast to {_said(column.type)} without loss",
        table,
        column.name,
    )
    if column.type == "time":
        if not isinstance(source, pl.Datetime):
            raise refused
        if source.time_zone is None:
            raise DatasetError(
                f"{place}: column {column.name}: times have no zone, {_said('time')} is needed",
                table,
                column.name,
            )
        if source.time_unit != "us":
            yield Doubt(column.name, value, source, target)
        return
    if column.type in ("floats", "tiers"):
        inner = _inner(source)
        if inner is None:
            raise refused
        if isinstance(inner, pl.Null):
            return
        if column.type == "floats":
            leaves: list[tuple[pl.Expr, DataType]] = [(value.explode(), inner)]
        else:
            leaves = _tier_leaves(value, inner, column, table, place)
        for leaf, leaf_type in leaves:
            if _castable(leaf_type, "float", refused):
                yield Doubt(column.name, leaf, leaf_type, pl.Float64())
        return
    if _castable(source, column.type, refused):
        yield Doubt(column.name, value, source, target)


def _tier_leaves(
    value: pl.Expr, inner: DataType, column: Column, table: str, place: str
) -> list[tuple[pl.Expr, DataType]]:
    if not isinstance(inner, pl.Struct):
        raise DatasetError(
            f"{place}: column {column.name}: a list of {inner} is no {_said('tiers')}", table, column.name
        )
    types = {field.name: field.dtype for field in inner.fields}
    for field in TIER:
        if field.name not in types and not field.optional:
            raise DatasetError(
                f"{place}: column {column.name}: field {field.name} is missing", table, column.name
            )
    return [
        (value.explode().struct.field(field.name), _instance(types[field.name]))
        for field in TIER
        if field.name in types
    ]


def _castable(source: DataType, target: ColumnType, refused: DatasetError) -> bool:
    """Whether the cast has to be verified in the values; raises where there is none."""
    if type(source) in (pl.Null, *_SURE[target]):
        return False
    if type(source) in _DEPENDS[target]:
        return True
    raise refused


def _inner(source: DataType) -> DataType | None:
    if isinstance(source, pl.List) or (isinstance(source, pl.Array) and len(source.shape) == 1):
        return _instance(source.inner)
    return None


def _instance(type_: DataType | DataTypeClass) -> DataType:
    return type_() if isinstance(type_, type) else type_


def _said(type_: ColumnType) -> str:
    return {
        "time": "timestamp[us, UTC]",
        "string": "string",
        "float": "float64",
        "int": "int64",
        "floats": "list of float64",
        "tiers": "list of structs " + ", ".join(field.name for field in TIER),
    }[type_]
