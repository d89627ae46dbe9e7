"""What must hold for the values of a dataset, and what should.

The same rules serve `perprisk check`, which lists everything, and the event stream, which stops at the
first problem that would bend a result. They run over windows of time, in order: rows of one moment are
always together, and the little that has to be carried from one window to the next is kept here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import polars as pl

from exchange.contracts import MarginTier, tier_arrays
from exchange.errors import InputError
from exchange.units import HOUR_US
from features.depth import MAX_LEVELS
from features.tables import PARENT, TABLES, Column, Table
from pipelines.damage import LONGEST_LINE, DatasetError, one_line, reading, shown, shown_time
from pipelines.store import Dataset

Severity = Literal["error", "warning"]
GAP_US = HOUR_US
FIRST_SEQUENCE = -(2**63)  # below any that is given


class Problem(NamedTuple):
    """One kind of problem in one table, with the number of rows that have it and the first of them.

    `blocking` problems stop the event stream: going on would give wrong figures. `file` is named first;
    without one the message names file and column itself.
    """

    severity: Severity
    table: str | None
    column: str | None
    message: str
    rows: int
    example: str = ""
    blocking: bool = False
    file: str | None = None

    def line(self) -> str:
        """The problem as it is shown to people."""
        file = f"{one_line(self.file, LONGEST_LINE)}: " if self.file else ""
        subject = f"column {self.column}: " if self.column and self.file else ""
        count = f" ({self.rows:,} row{'s' if self.rows != 1 else ''})" if self.rows else ""
        first = f", first: {self.example}" if self.example else ""
        return f"{file}{subject}{self.message}{count}{first}"

    def error(self, dataset: Dataset) -> DatasetError:
        """The problem as an exception that names the file."""
        place = dataset.place(self.table) if self.table else dataset.path
        return DatasetError(self._replace(file=str(place)).line(), self.table, self.column)


class RowRule(NamedTuple):
    """A rule that a row breaks by itself."""

    column: str
    message: str
    broken: pl.Expr
    severity: Severity = "error"


class Known(NamedTuple):
    """Names that rows may refer to, with the time from which they are known; None: do not judge."""

    markets: pl.DataFrame | None  # market, known
    accounts: pl.DataFrame | None  # account_id, known
    assets: frozenset[str] | None


@dataclass
class Rules:
    """The rules for one dataset and what is carried between its windows."""

    known: Known
    end_us: int
    last_sequence: dict[str, int] = field(default_factory=dict)
    last_bar: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"market": pl.String, "time": pl.Datetime("us", "UTC")})
    )

    def window(self, frames: Mapping[str, pl.DataFrame]) -> list[Problem]:
        """Problems of the rows of one window, in the order of the tables; windows come in time order."""
        problems: list[Problem] = []
        for name, frame in frames.items():
            table = TABLES[name]
            if frame.is_empty():
                continue
            problems += _rows(table, frame, self.end_us)
            if table.time in table.key:
                problems += _duplicates(table, frame)
            problems += _references(table, frame, self.known)
            if table.has("sequence"):
                problems += self._sequence(table, frame)
            if name == "markets":
                problems += _schedules(table, frame)
            if name == "market_bars":
                problems += self._gaps(table, frame)
            parent = frames.get(PARENT.get(name, ""))
            if parent is not None:
                problems += _orphans(table, frame, parent)
        return problems

    def _sequence(self, table: Table, frame: pl.DataFrame) -> Iterator[Problem]:
        given = frame.filter(pl.col("sequence").is_not_null()).sort("time", "sequence")
        if given.is_empty():
            return
        last = self.last_sequence.get(table.name, FIRST_SEQUENCE)
        highest = pl.col("sequence").cum_max().shift(1, fill_value=last)
        broken = given.filter(pl.col("sequence") <= pl.max_horizontal(highest, pl.lit(last)))
        self.last_sequence[table.name] = max(last, int(given.select(pl.col("sequence").max()).item()))
        if not broken.is_empty():
            message = "does not rise with time, or is there twice"
            yield _problem("error", table, "sequence", message, broken.height, broken)

    def _gaps(self, table: Table, frame: pl.DataFrame) -> Iterator[Problem]:
        times = pl.concat([self.last_bar, frame.select("market", "time").drop_nulls()]).sort("market", "time")
        self.last_bar = times.group_by("market").agg(pl.col("time").max())
        gap = pl.col("time").diff().over("market").dt.total_microseconds()
        gaps = times.with_columns(gap=gap).filter(pl.col("gap") > GAP_US).sort("time", "market")
        if not gaps.is_empty():
            message = "gap of more than an hour before this bar; what follows is another path"
            yield _problem("warning", table, "time", message, gaps.height, gaps)


def checked(dataset: Dataset, name: str, until_us: int | None = None) -> pl.DataFrame:
    """The rows of one table up to a time, in no order; for tables small enough for memory.

    Raises DatasetError for the first thing that is wrong with them. Rows without a time are wrong
    whatever the time; nothing else that comes later is looked at.
    """
    rows = dataset.read(name)
    time = TABLES[name].time
    if time is not None and until_us is not None:
        known_by = pl.col(time).is_null() | (pl.col(time).to_physical() <= until_us)
        rows = rows.filter(known_by)
    found = always(dataset, name, until_us)
    found += Rules(known_names(dataset, until_us), dataset.meta.end_us).window({name: rows})
    for problem in found:
        if problem.blocking:
            raise problem.error(dataset)
    return rows


def known_names(dataset: Dataset, until_us: int | None = None) -> Known:
    """The names of a dataset up to a time."""
    return Known(
        _first_seen(dataset, "markets", "market", until_us),
        _first_seen(dataset, "accounts", "account_id", until_us),
        _assets(dataset),
    )


def always(dataset: Dataset, name: str, until_us: int | None = None) -> list[Problem]:
    """Problems of a table as a whole, which no window shows: rows without time, names given twice."""
    table = TABLES[name]
    if table.time is None:
        frame = dataset.read(name)
        return [*_rows(table, frame, 0), *_duplicates(table, frame)]
    if table.time in table.key:
        return []
    # a name may be there once, whatever the time
    with reading(dataset.place(name), name):
        keys = dataset.scan(name, until_us=until_us).select(*table.key, table.time).collect()
    return list(_duplicates(table, keys))


def timeless(table: str, rows: int) -> Problem:
    """Rows whose time is null: they happened at no moment."""
    return Problem("error", table, TABLES[table].time, "is null", rows, blocking=True)


def _first_seen(dataset: Dataset, name: str, column: str, until_us: int | None) -> pl.DataFrame:
    time = TABLES[name].time
    assert time is not None
    with reading(dataset.place(name), name):
        return (
            dataset.scan(name, until_us=until_us)
            .select(column, known=time)
            .drop_nulls()
            .group_by(column)
            .agg(pl.col("known").min())
            .collect()
        )


def _assets(dataset: Dataset) -> frozenset[str]:
    # the quote currency is a dollar by definition and needs no row
    return frozenset([dataset.meta.quote_asset, *dataset.read("assets")["asset"].drop_nulls()])


@cache
def _row_rules(table: Table) -> tuple[RowRule, ...]:
    rules = [rule for column in table.columns for rule in _column_rules(column)]
    col = pl.col
    if table.name == "book_depth":
        near, bid, ask = (col(name).list.len() for name in ("distance_bps", "bid_usd", "ask_usd"))
        rules += [
            RowRule("distance_bps", "the three lists differ in length", (near != bid) | (near != ask)),
            RowRule("best_bid", "is above best_ask: no depth is known", _crossed(), "warning"),
            RowRule(
                "distance_bps", f"only the nearest {MAX_LEVELS} levels count", near > MAX_LEVELS, "warning"
            ),
        ]
    if table.name == "account_snapshots":
        below = col("initial_margin_usd") < col("maintenance_margin_usd")
        rules.append(RowRule("initial_margin_usd", "is below maintenance_margin_usd", below, "warning"))
    if table.name == "default_events":
        rules.append(RowRule("time_lower", "is after time", col("time_lower") > col("time")))
    return tuple(rules)


def _crossed() -> pl.Expr:
    return pl.col("best_bid") > pl.col("best_ask")


def _column_rules(column: Column) -> Iterator[RowRule]:
    value = pl.col(column.name)
    if not column.optional:
        yield RowRule(column.name, "is null", value.is_null())
    if column.choices:
        choices = " or ".join(column.choices)
        yield RowRule(column.name, f"is not {choices}", ~value.is_in(column.choices))
    if column.type == "float":
        yield RowRule(column.name, "is not finite", ~value.is_finite())
    if column.type in ("float", "int"):
        if column.bound == "positive":
            yield RowRule(column.name, "is not positive", value <= 0)
        if column.bound == "not_negative":
            yield RowRule(column.name, "is negative", value < 0)
    if column.type == "floats":
        inner = pl.element()
        wrong = inner.is_null() | ~inner.is_finite() | (inner < 0)
        yield RowRule(
            column.name,
            "holds a number that is null, not finite or negative",
            value.list.eval(wrong).list.any(),
        )


def _rows(table: Table, frame: pl.DataFrame, end_us: int) -> Iterator[Problem]:
    rules = _row_rules(table)
    if table.time is not None:
        late = pl.col(table.time).to_physical() > end_us
        severity: Severity = "error" if table.of_accounts else "warning"
        rules = (*rules, RowRule(table.time, "is after the end that dataset.json gives", late, severity))
    counts = frame.select(rule.broken.sum().alias(str(number)) for number, rule in enumerate(rules)).row(0)
    for rule, count in zip(rules, counts, strict=True):
        if count:
            first = frame.filter(rule.broken)
            yield _problem(rule.severity, table, rule.column, rule.message, int(count), first)


def _duplicates(table: Table, frame: pl.DataFrame) -> Iterator[Problem]:
    if table.key:
        keys = frame.select(table.key)
        repeated = frame.height - keys.n_unique()
        if repeated:
            first = frame.filter(~pl.struct(table.key).is_first_distinct())
            message = f"the key ({', '.join(table.key)}) is there twice"
            yield _problem("error", table, None, message, repeated, first)


def _references(table: Table, frame: pl.DataFrame, known: Known) -> Iterator[Problem]:
    if table.has("market") and table.name != "markets" and known.markets is not None:
        yield from _unknown(table, frame, "market", known.markets)
    if table.has("account_id") and table.name != "accounts" and known.accounts is not None:
        yield from _unknown(table, frame, "account_id", known.accounts)
    if table.has("asset") and table.name != "assets" and known.assets is not None:
        unknown = frame.filter(pl.col("asset").is_not_null() & ~pl.col("asset").is_in(list(known.assets)))
        if not unknown.is_empty():
            yield _problem("error", table, "asset", "is not in assets", unknown.height, unknown)


def _unknown(table: Table, frame: pl.DataFrame, column: str, known: pl.DataFrame) -> Iterator[Problem]:
    """Names that no row has introduced by then.

    Prices, books and funding from before a market's terms are history and pass the stream: nobody can
    hold such a market, and whether its terms come later is not for that moment to know.
    """
    home = "markets" if column == "market" else "accounts"
    earliest = frame.group_by(column).agg(pl.col("time").min()).filter(pl.col(column).is_not_null())
    odd = earliest.join(known, on=column, how="left").filter(
        pl.col("known").is_null() | (pl.col("time") < pl.col("known"))
    )
    if odd.is_empty():
        return
    rows = frame.join(odd.select(column, "known"), on=column, how="inner")
    unknown = rows.filter(pl.col("known").is_null())
    early = rows.filter(pl.col("time") < pl.col("known"))
    if not unknown.is_empty():
        problem = _problem("error", table, column, f"is not in {home}", unknown.height, unknown)
        yield problem._replace(blocking=table.of_accounts)
    if not early.is_empty():
        severity: Severity = "error" if table.of_accounts else "warning"
        message = (
            "is used before its first row in markets" if home == "markets" else "is used before it opened"
        )
        yield _problem(severity, table, column, message, early.height, early)


def _orphans(table: Table, frame: pl.DataFrame, parent: pl.DataFrame) -> Iterator[Problem]:
    key = ["time", "account_id"]
    orphans = frame.drop_nulls(key).join(parent.select(key), on=key, how="anti")
    if not orphans.is_empty():
        message = f"has no row in {PARENT[table.name]} with the same time and account_id"
        yield _problem("error", table, "account_id", message, orphans.height, orphans)


def _schedules(table: Table, frame: pl.DataFrame) -> Iterator[Problem]:
    """Tiers that are no schedule, by the definition that the margin arithmetic itself goes by."""
    reasons: dict[int, str] = {}
    for number, tiers in enumerate(frame["tiers"].to_list()):
        try:
            if tiers is not None:
                tier_arrays(_tier(tier) for tier in tiers)
        except InputError as error:
            reasons[number] = one_line(str(error))
    if reasons:
        first = next(iter(reasons))
        message = "unsorted tiers, or maintenance above initial"
        problem = _problem("error", table, "tiers", message, len(reasons), frame[[first]])
        yield problem._replace(example=f"{problem.example}, {reasons[first]}")


def _tier(tier: Mapping[str, Any] | None) -> MarginTier:
    if tier is None:
        raise InputError("a tier is null")
    cap_usd = tier["notional_cap_usd"]
    return MarginTier(
        math.inf if cap_usd is None else cap_usd,
        tier["initial_margin_rate"],
        tier["maintenance_margin_rate"],
    )


def _problem(
    severity: Severity, table: Table, column: str | None, message: str, rows: int, broken: pl.DataFrame
) -> Problem:
    """A problem with its first row in time, whatever the order of rows in the files."""
    names = [
        name
        for name in dict.fromkeys([table.time, *table.key, "account_id", "market", column])
        if name is not None and name in broken.columns
    ]
    sortable = [name for name in names if not broken.schema[name].is_nested()]
    first = broken.select(names).sort(sortable, nulls_last=True).head(1)
    parts = [f"{name} {_cell(first[name])}" for name in names if name != "tiers"]
    return Problem(severity, table.name, column, message, rows, ", ".join(parts), severity == "error")


def _cell(column: pl.Series) -> str:
    if column.dtype.is_temporal():
        moment = column.to_physical().item()  # a datetime object would refuse far years
        return "null" if moment is None else shown_time(moment)
    value = column.to_list()[0]
    return "null" if value is None else shown(value)
