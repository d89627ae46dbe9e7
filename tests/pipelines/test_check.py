"""`perprisk check`: what it says of datasets that are broken in one way each."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pytest

from exchange.contracts import MarginTier, tier_arrays
from exchange.errors import InputError
from pipelines.check import problems
from pipelines.cli import run
from pipelines.events import event_batches
from pipelines.store import Dataset, DatasetError
from tests.pipelines import dataset_builder as build
from tests.pipelines.broken_datasets import ERRORS, INF, NAN, WARNINGS
from tests.pipelines.events_oracle import Ids


def told(path: Path, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str], list[str]]:
    code = run(["check", str(path), *options])
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert "panicked" not in out + err
    return code, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("name", ERRORS)
def test_errors(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    breaking, expected = ERRORS[name]
    path = build.write(tmp_path / "data")
    breaking(path)
    code, out, err = told(path, capfd)
    assert code == 2
    lines = [line for line in [*out, *err] if line.startswith("error: ")]
    assert str(path) in lines[0]
    assert any(all(part in line for part in expected) for line in lines), lines
    assert len(lines) == 1, "one cause, one line"


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    breaking, expected = WARNINGS[name]
    path = build.write(tmp_path / "data")
    breaking(path)
    code, out, err = told(path, capfd)
    assert (code, err) == (0, [])
    assert out[-1] == f"{path}: a valid dataset, 0 errors, 1 warning"
    assert out[0].startswith(f"warning: {path}")
    assert all(part in out[0] for part in expected), out
    assert len(out) == 2
    list(event_batches(Dataset.open(path), None, Ids()))  # nothing that a stream would stumble over


STRUCTURAL = list(ERRORS)[: list(ERRORS).index("null where there must be something")]


@pytest.mark.parametrize("name", STRUCTURAL)
def test_the_reader_refuses_what_check_refuses(tmp_path: Path, name: str) -> None:
    breaking, expected = ERRORS[name]
    path = build.write(tmp_path / "data")
    breaking(path)
    with pytest.raises(DatasetError) as caught:
        dataset = Dataset.open(path, "accounts")
        for table in dataset.tables:
            dataset.scan(table)
    line = str(caught.value)
    assert str(path) in line
    assert all(part in line for part in expected), line
    assert "\n" not in line


@pytest.mark.parametrize("rows", [500_000, 20])
def test_a_valid_dataset(tmp_path: Path, capfd: pytest.CaptureFixture[str], rows: int) -> None:
    path = build.write(tmp_path / "data")
    assert problems(path, rows) == []
    assert told(path, capfd) == (0, [f"{path}: a valid dataset, 0 errors, 0 warnings"], [])
    code, out, _ = told(path, capfd, "--json")
    assert code == 0
    assert json.loads("\n".join(out))["problems"] == []


@pytest.mark.parametrize("name", ["torn dataset.json", "truncated", "missing column", "negative price"])
def test_json_says_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    path = build.write(tmp_path / "data")
    ERRORS[name][0](path)
    code, out, err = told(path, capfd, "--json")
    report = json.loads("\n".join(out))
    assert (code, err, report["valid"], report["errors"], report["warnings"]) == (2, [], False, 1, 0)
    (problem,) = report["problems"]
    assert problem["severity"] == "error"
    assert set(problem) == {"severity", "table", "column", "message", "rows", "first"}
    if name == "negative price":
        assert (problem["table"], problem["column"], problem["rows"]) == ("fills", "price", 1)


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_what_is_no_dataset_at_all(tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str) -> None:
    path = tmp_path / "data"
    if what == "file":
        path.write_bytes(b"x")
    if what == "empty":
        path.mkdir()
    code, out, err = told(path, capfd)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"error: {path}")
    code, out, err = told(path, capfd, "--json")
    assert (code, err) == (2, [])
    assert len(json.loads("\n".join(out))["problems"]) == 1


def test_twenty_are_shown_and_all_with_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = build.write(tmp_path / "data")
    for table, rows in build.tables().items():
        for column in rows.columns:
            if rows.schema[column] == pl.Float64:
                build.set_value(path, table, column, NAN)
    code, out, _ = told(path, capfd)
    assert code == 2
    assert len(out) == 22
    shown = [line for line in out if line.startswith("error: ")]
    assert len(shown) == 20
    code, out, _ = told(path, capfd, "--json")
    report = json.loads("\n".join(out))
    assert len(report["problems"]) == report["errors"] + report["warnings"] > 20
    assert f"and {len(report['problems']) - 20} more (--json lists all)" in "\n".join(told(path, capfd)[1])


def test_rows_with_the_same_problem_are_one_line(tmp_path: Path) -> None:
    path = build.write(tmp_path / "data")
    for row in (9, 3, 20):
        build.set_value(path, "market_bars", "mark_close", -float(row), row)
    for rows in (500_000, 5):  # in one window, and in many
        (found,) = problems(path, rows)
        assert (found.table, found.column, found.rows) == ("market_bars", "mark_close", 3)
        assert found.example == "time 2024-03-01T01:30:00Z, market 'BTC-PERP', mark_close -3.0"


def test_every_row_below_an_earlier_sequence_is_counted(tmp_path: Path) -> None:
    path = build.write(tmp_path / "data")
    for row, sequence in enumerate((5, 1, 2)):
        build.set_value(path, "transfers", "sequence", sequence, row)
    for rows in (500_000, 5):
        (found,) = problems(path, rows)
        assert (found.rows, found.example) == (2, "time 2024-03-01T02:00:00Z, account_id 'abe', sequence 1")


@pytest.mark.parametrize("seed", range(3))
def test_windows_do_not_change_what_is_found(tmp_path: Path, seed: int) -> None:
    path = build.write(tmp_path / "data", build.random_tables(seed))
    build.change(path, "market_bars", lambda rows: rows.filter(pl.col("time").dt.hour() % 3 != 1))
    build.change(path, "transfers", lambda rows: rows.sort("time"))
    build.set_value(path, "transfers", "sequence", 0, -1)
    build.set_value(path, "fills", "market", "DOGE", -1)
    whole = problems(path)
    assert {"gap", "does", "is"} <= {problem.message.split()[0] for problem in whole}
    assert problems(path, 25) == whole


def test_a_damaged_page_is_named_and_the_rest_still_checked(tmp_path: Path) -> None:
    path = build.write(tmp_path / "data")
    build.set_value(path, "fills", "price", -1.0)
    file = path / "asset_prices.parquet"
    content = bytearray(file.read_bytes())
    content[20:60] = b"\xff" * 40
    file.write_bytes(content)
    found = problems(path)
    assert {(problem.table, problem.severity) for problem in found} == {
        ("asset_prices", "error"),
        ("fills", "error"),
    }
    assert str(file) in found[0].message


def test_stale_tables_and_markets(tmp_path: Path) -> None:
    days = [build.at(24 * n) for n in range(5)]
    hours = [build.at(n) for n in range(24 * 4 + 1)]
    bars = [
        (time, market, 100.0) for time in hours for market in ("A", "B") if market == "A" or time < days[2]
    ]
    tables = {
        "markets": build.tables()["markets"].head(1).with_columns(market=pl.lit("A")),
        "market_bars": build.frame({"time": build.TIME, "market": pl.String, "mark_close": pl.Float64}, bars),
        "funding": build.frame(dict(build.tables()["funding"].schema), [(days[1], "A", 0.1)]),
    }
    second = tables["markets"].with_columns(market=pl.lit("B"))
    tables["markets"] = pl.concat([tables["markets"], second])
    path = build.write(tmp_path / "data", tables, kind="markets", end=days[4].isoformat())
    found = {problem.table: problem for problem in problems(path)}
    assert set(found) == {"market_bars", "funding"}
    assert {problem.severity for problem in found.values()} == {"warning"}
    assert found["funding"].example == "last row 2024-03-02T00:00:00Z"
    assert "in 1 market" in found["market_bars"].message
    assert found["market_bars"].example == "market 'B', last row 2024-03-02T23:00:00Z"
    # a venue that stopped as a whole is not stale
    build.write_meta(path, kind="markets", end=build.at(24 * 30).isoformat())
    build.change(path, "funding", lambda rows: rows.with_columns(time=pl.lit(hours[-1])))
    build.change(path, "market_bars", lambda rows: rows.filter(pl.col("market") == "A"))
    assert [problem for problem in problems(path) if "stops" in problem.message] == []


def is_schedule(tiers: list[dict[str, float | None]]) -> bool:
    try:
        tier_arrays(
            MarginTier(INF if cap is None else cap, initial or 0.0, maintenance or 0.0)
            for cap, initial, maintenance in (tier.values() for tier in tiers)
        )
    except InputError:
        return False
    return True


def test_tiers_are_judged_as_the_margin_arithmetic_judges_them(tmp_path: Path) -> None:
    rng = random.Random(5)
    choices = (0.0, 0.1, 0.2, 0.3)
    schedules = [
        [
            build.tier(rng.choice([None, 1.0, 2.0, 3.0]), rng.choice(choices), rng.choice(choices[:3]))
            for _ in range(rng.randint(1, 3))
        ]
        for _ in range(300)
    ]
    refused = sum(not is_schedule(tiers) for tiers in schedules)
    assert 0 < refused < len(schedules)
    markets = build.tables()["markets"].head(1)
    rows = pl.concat([markets] * len(schedules)).with_columns(
        market=pl.Series([f"M{n}" for n in range(len(schedules))]),
        tiers=pl.Series(schedules, dtype=build.TIERS),
    )
    path = build.write(
        tmp_path / "data", {"markets": rows, "market_bars": build.tables()["market_bars"][:0]}, kind="markets"
    )
    counted = sum(problem.rows for problem in problems(path) if problem.column == "tiers")
    assert counted == refused


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_bytes_there_is_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    rng = random.Random(seed)
    path = build.write(tmp_path / "data")
    files = sorted(path.iterdir())
    for _ in range(8):
        file = rng.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 4])):
            place = rng.choice(
                [rng.randrange(len(damaged)), len(damaged) - 1 - rng.randrange(len(damaged) // 2)]
            )
            damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        code, out, err = told(path, capfd)
        assert code in (0, 2)
        assert len(err) <= 1
        assert (code == 2) == any(line.startswith("error: ") for line in [*out, *err])
        file.write_bytes(whole)


@pytest.mark.real_data
def test_real_history_is_valid(drift: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(drift, capfd)
    assert (code, err) == (0, [])
    assert out[-1] == f"{drift}: a valid dataset, 0 errors, 3 warnings"
