"""`perprisk stress`: a row a scenario, measures that follow from rows, errors that say what is wrong."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange.units import DAY_US
from pipelines.cli import run
from pipelines.store import Dataset
from pipelines.stress_measures import expected_shortfall, risk, tail_count, value_at_risk
from pipelines.stress_page import render
from pipelines.stress_picture import pictures
from pipelines.times import format_time

COUNT = 100


def request(dataset: Path, model: Path, out: Path, *more: str, days: float = 3.0) -> list[str]:
    at = format_time(Dataset.open(dataset).meta.start_us + int(days * DAY_US))
    return [
        "stress", str(dataset), "--model", str(model), "--at", at, "--out", str(out),
        "--scenarios", str(COUNT), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def out(small_dataset: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stress") / "stress"
    assert run(request(small_dataset, small_model, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def card(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "stress.json").read_text())
    return found


def test_a_row_is_a_scenario(card: dict[str, Any]) -> None:
    rows = card["scenarios"]
    assert len({row["name"] for row in rows}) == len(rows)
    families = {row["family"] for row in rows}
    expected = {"as it is", "known crash", "incident", "all markets", "failure", "one market", "chance"}
    assert families >= expected
    assert sum(row["family"] == "chance" for row in rows) == COUNT
    names = {row["name"] for row in rows}
    assert {"thin-book", "oracle-stops", "incident-mango", "crash-2025-10-10", "all-20%"} <= names
    assert {"depeg", "depeg-in-crash"} <= names


def test_money_adds_up_in_every_row(card: dict[str, Any]) -> None:
    fund = card["book"]["fund_usd"]
    for row in card["scenarios"]:
        left = fund + row["net_fund_usd"]
        assert row["fund_left_usd"] == pytest.approx(left, abs=1e-6 * (1.0 + row["liquidated_notional_usd"]))
        assert row["fund_left_usd"] >= 0.0
        borne = row["insurance_draw_usd"] + row["uncovered_usd"] + max(row["deleveraging_loss_usd"], 0.0)
        assert row["shortfall_usd"] >= row["insurance_draw_usd"] - 1e-6
        assert row["shortfall_usd"] <= borne + row["deleveraged_notional_usd"] + 1e-6
        assert row["negative_accounts"] == 0 or row["shortfall_usd"] > 0.0


def test_where_nothing_moves_no_price_does(card: dict[str, Any]) -> None:
    row = next(row for row in card["scenarios"] if row["name"] == "nothing-moves")
    assert all(market["outside"] == 0.0 for market in row["markets"].values())


def test_moves_are_those_that_were_asked_for(card: dict[str, Any]) -> None:
    for row in card["scenarios"]:
        if row["family"] == "one market":
            market = next(name for name in row["markets"] if row["name"].startswith(name))
            size = float(row["name"].removeprefix(market).rstrip("%")) / 100.0
            assert row["markets"][market]["outside"] == pytest.approx(size)
            assert all(other["outside"] == 0.0 for name, other in row["markets"].items() if name != market)


def test_measures_are_those_of_the_rows(card: dict[str, Any]) -> None:
    rows = [row for row in card["scenarios"] if row["family"] == "chance"]
    for name, found in card["risk"].items():
        losses = np.sort([row[name] for row in rows])
        assert found["var_95"] == losses[-5] and found["var_99"] == losses[-1]
        assert found["es_95"] == pytest.approx(losses[-5:].mean()) and found["most"] == losses[-1]


def test_who_matters_is_told_with_what_would_have_helped(card: dict[str, Any]) -> None:
    assert card["tail"]["basis"] in ("chance", "disasters")
    accounts = card["accounts"]
    assert accounts and accounts == sorted(accounts, key=lambda row: -row["shortfall_usd"])
    assert sum(row["share_of_shortfall"] for row in accounts) <= 1.0 + 1e-9
    curve = card["margin"]["curve"]
    assert curve[0]["multiple"] == 1.0 and curve[0]["brought_usd"] == 0.0
    brought = [row["brought_usd"] for row in curve]
    assert brought == sorted(brought)
    assert curve[-1]["shortfall_usd"] < curve[0]["shortfall_usd"]
    tenths = card["by_risk"]["tenths"]
    assert sum(tenth["accounts"] for tenth in tenths) == card["book"]["accounts"]
    assert sum(tenth["share_of_shortfall"] for tenth in tenths) == pytest.approx(1.0)


@pytest.mark.parametrize("processes", [1, 3])
def test_any_number_of_processes_gives_the_same_bytes_and_replaces_an_earlier_result(
    processes: int, out: Path, small_dataset: Path, small_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.stress_workers.available", lambda: processes)
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (again / "stress.json").write_text("{}\n")
    assert run(request(small_dataset, small_model, again)) == 0
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in out.iterdir()
    }


def test_the_page_stands_alone(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert "<img" in page and "http" not in page.replace("http-equiv", "")


def test_where_nothing_is_lost_the_page_shows_what_is_closed(card: dict[str, Any]) -> None:
    calm = copy.deepcopy(card) | {"accounts": [], "deleveraged": []}
    for row in calm["scenarios"]:
        row |= {"shortfall_usd": 1e-13, "insurance_draw_usd": 0.0, "uncovered_usd": 0.0}
    calm["risk"]["shortfall_usd"] |= {"var_99": 0.0, "es_99": 1e-13}
    calm["tail"]["basis"] = "none"
    images = pictures(calm)
    assert set(images) == {"days", "scenarios"}
    page = render(calm, images)
    assert f"None of {COUNT} days of chance costs more than accounts hold" in page
    assert calm["risk"]["liquidated_notional_usd"]["var_99"] > 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--at": "1999-01-01"}, "before the start of the dataset"),
        ({"--at": "2099-01-01"}, "after the end of the dataset"),
        ({"--model": "missing"}, "missing"),
        ({"--scenarios": "7"}, "--scenarios"),
    ],
)
def test_wrong_requests_are_one_clear_line(
    change: dict[str, str], words: str, small_dataset: Path, small_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = request(small_dataset, small_model, tmp_path / "out")
    for option, value in change.items():
        arguments[arguments.index(option) + 1] = value
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and words in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_moment_without_positions_is_said_so(
    small_dataset: Path, small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(request(small_dataset, small_model, tmp_path / "out", days=0.0)) in (0, 2)
    said = capsys.readouterr().err
    assert "report:" in said or "no account has an open position" in said


def test_tails_of_a_hand_made_list() -> None:
    losses = np.arange(1.0, 101.0)
    assert tail_count(0.95, 100) == 5 and tail_count(0.99, 100) == 1 and tail_count(0.99, 50) == 1
    assert value_at_risk(losses, 0.95) == 96.0 and expected_shortfall(losses, 0.95) == 98.0
    found = risk(losses[::-1].copy(), 7)
    low, high = found["es_95_interval"]
    assert found["var_99"] == 100.0 and low <= found["es_95"] <= high
