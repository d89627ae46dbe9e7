"""`perprisk check`: is this a valid dataset, and if not, what is wrong with it?"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from exchange.units import DAY_US
from features.tables import TABLES
from pipelines.damage import DatasetError, reading, shown, shown_time
from pipelines.rules import Known, Problem, Rules, always, known_names, timeless
from pipelines.store import Dataset, inspect
from pipelines.windows import ROWS_PER_WINDOW, windows

MOST_SHOWN = 20
STALE_US = DAY_US
ALL_TABLES = frozenset(TABLES)
# Tables that a living venue goes on adding to; the others may well be quiet for days.
STEADY = (
    "asset_prices",
    "market_bars",
    "book_depth",
    "funding",
    "account_snapshots",
    "observations",
    "fills",
)
EMPTY_IS_ODD = ("markets", "market_bars", "accounts")
DONE, WRONG = 0, 2


def run(dataset: Path, json_output: bool) -> int:
    """Print what is wrong with a dataset; the exit code is 2 where it is more than warnings.

    Raises DatasetError where there is nothing that could be checked, unless all is to be JSON.
    """
    inspection = inspect(dataset)
    if inspection.meta is None and not json_output:
        raise inspection.errors[0]
    found = problems(dataset)
    errors = sum(problem.severity == "error" for problem in found)
    if json_output:
        print(json.dumps(_as_json(dataset, found, errors), indent=1))
        return WRONG if errors else DONE
    for problem in found[:MOST_SHOWN]:
        print(f"{problem.severity}: {problem.line()}")
    if len(found) > MOST_SHOWN:
        print(f"and {len(found) - MOST_SHOWN} more (--json lists all)")
    verdict = "not a valid dataset" if errors else "a valid dataset"
    print(f"{dataset}: {verdict}, {_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}")
    return WRONG if errors else DONE


def problems(path: Path, rows: int = ROWS_PER_WINDOW) -> list[Problem]:
    """Everything that is wrong or odd, errors first, then in the order of the tables; empty: all is well.

    One entry a kind of problem and column. Reads about `rows` rows at a time. Raises nothing for what
    a folder may hold.
    """
    inspection = inspect(path)
    found = [_structural(error) for error in inspection.errors]
    if inspection.meta is not None:
        dataset = Dataset(path, inspection.meta, dict(inspection.tables))
        found += _Values(dataset, rows).problems()
        found += _strangers(path)
    return sorted(found, key=_place)


class _Values:
    """The values of all tables that can be read; what turns out to be damaged is named and left out."""

    def __init__(self, dataset: Dataset, rows: int) -> None:
        self.path, self.meta, self.tables = dataset.path, dataset.meta, dict(dataset.tables)
        self.rows = rows
        self.found: list[Problem] = []

    def problems(self) -> list[Problem]:
        while True:
            # each turn either ends or finds one more damaged table, so this does end
            try:
                return self.found + self._readable(Dataset(self.path, self.meta, self.tables))
            except DatasetError as error:
                self.found.append(_structural(error))
                if error.table not in self.tables:
                    return self.found
                del self.tables[error.table]

    def _readable(self, dataset: Dataset) -> list[Problem]:
        timed = [name for name in dataset.tables if TABLES[name].time is not None]
        spans = windows(dataset, timed, None, self.rows)
        merged: dict[tuple[str, str | None, str | None, str], Problem] = {}

        def add(new: list[Problem]) -> None:
            for problem in new:
                key = (problem.severity, problem.table, problem.column, problem.message)
                known = merged.get(key, problem._replace(rows=0))
                file = str(dataset.place(problem.table)) if problem.table else None
                merged[key] = known._replace(rows=known.rows + problem.rows, file=file)

        for name, count in spans.timeless.items():
            add([timeless(name, count)])
        for name in dataset.tables:
            add(always(dataset, name))
        rules = Rules(self._known(dataset), dataset.meta.end_us)
        for after_us, until_us in spans.spans:
            add(rules.window({name: dataset.read(name, after_us, until_us) for name in timed}))
        add(_stale(dataset, timed))
        return list(merged.values())

    def _known(self, dataset: Dataset) -> Known:
        known = known_names(dataset)
        # a table of names that cannot be read is one problem, not one for every row that uses a name
        return Known(
            known.markets if dataset.has("markets") else None,
            known.accounts if dataset.has("accounts") else None,
            known.assets if dataset.has("assets") or not (self.path / "assets.parquet").exists() else None,
        )


def _stale(dataset: Dataset, timed: list[str]) -> list[Problem]:
    """Tables, and markets within them, that stop a day before the end while others go on."""
    found = []
    last_us: dict[str, int] = {}
    by_market: dict[str, pl.DataFrame] = {}
    for name in timed:
        table = TABLES[name]
        time = pl.col(str(table.time)).to_physical()
        with reading(dataset.place(name), name):
            if name in STEADY and table.has("market") and not table.of_accounts:
                last = dataset.scan(name).group_by("market").agg(last=time.max()).collect(engine="streaming")
                by_market[name] = last.drop_nulls()
            else:
                last = dataset.scan(name).select(last=time.max()).collect(engine="streaming").drop_nulls()
        if last["last"].len() and (newest := last["last"].max()) is not None:
            last_us[name] = int(newest)  # type: ignore[arg-type]
        elif name in EMPTY_IS_ODD:
            found.append(Problem("warning", name, None, "has no rows", 0))
    end_us = min(dataset.meta.end_us, max(last_us.values(), default=dataset.meta.end_us))
    for name in STEADY:
        if name in last_us and last_us[name] < end_us - STALE_US:
            message = f"stops more than {STALE_US // DAY_US} day before the end while others go on"
            found.append(
                Problem("warning", name, "time", message, 0, f"last row {shown_time(last_us[name])}")
            )
        elif name in by_market:
            still = by_market[name].filter(pl.col("last") < end_us - STALE_US).sort("last", "market")
            if not still.is_empty():
                market, moment = still.row(0)
                message = f"stops more than a day before the end in {_counted(still.height, 'market')}"
                first = f"market {shown(market)}, last row {shown_time(moment)}"
                found.append(Problem("warning", name, "time", message, 0, first))
    return found


def _strangers(path: Path) -> list[Problem]:
    """Files that look like tables and are none: most likely a name that is spelt wrong."""
    with reading(path):
        names = sorted(file.name for file in path.glob("*.parquet") if file.stem not in ALL_TABLES)
    return [
        Problem("warning", None, None, "is no table of the format: not read", 0, file=str(path / name))
        for name in names
    ]


def _place(problem: Problem) -> tuple[bool, int, int, str]:
    table = TABLES.get(problem.table or "")
    columns = [] if table is None else [column.name for column in table.columns]
    return (
        problem.severity != "error",
        -1 if table is None else list(TABLES).index(table.name),
        columns.index(problem.column) if problem.column in columns else -1,
        problem.message,
    )


def _structural(error: DatasetError) -> Problem:
    return Problem("error", error.table, error.column, str(error), 0, blocking=True)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _as_json(dataset: Path, found: list[Problem], errors: int) -> dict[str, object]:
    return {
        "dataset": str(dataset),
        "valid": errors == 0,
        "errors": errors,
        "warnings": len(found) - errors,
        "problems": [
            {
                "severity": problem.severity,
                "table": problem.table,
                "column": problem.column,
                "message": problem.message,
                "rows": problem.rows,
                "first": problem.example or None,
            }
            for problem in found
        ],
    }
