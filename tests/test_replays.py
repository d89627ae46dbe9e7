"""Replays of days in the published klines: one command each, and figures that are those of the dataset."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from benchmarks import replays
from exchange.errors import InputError
from exchange.units import DAY_US, MINUTE_US
from pipelines import check
from pipelines.store import Dataset
from pipelines.times import parse_time_us

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def klines(real_data: Path) -> Path:
    folder = real_data / "binance-vision" / "klines-1m"
    if not folder.is_dir():
        pytest.skip(f"published klines are not here: {folder} (set PERPRISK_DATA)")
    return folder


@pytest.mark.parametrize(
    ("day", "markets"),
    [
        ("2023-08-17", ["FILUSDT", "NEARUSDT"]),
        ("2024-02-28", ["ALGOUSDT", "AVAXUSDT", "FILUSDT", "NEARUSDT"]),
        ("2024-04-12", ["FILUSDT"]),
    ],
)
def test_a_day_is_one_command(day: str, markets: list[str], klines: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.replays", day, "--klines", str(klines), "--accounts", "150"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / day / "dataset"
    assert list(check.problems(folder)) == []
    dataset = Dataset.open(folder, "accounts")
    begin_us = parse_time_us(day, "day")
    assert dataset.meta.start_us <= begin_us - DAY_US
    assert dataset.meta.end_us >= begin_us + 2 * DAY_US - MINUTE_US

    moves = replays.moves(dataset)
    assert sorted(move.market for move in moves) == markets
    assert replays.told(day, dataset) in done.stdout
    # the published lows of these hours, whatever the accounts did
    assert all(move.fall_1h < -0.1 for move in moves)
    # the venue follows the outside: its own trades move it by a few percent at most
    assert all(abs(move.mark_fall_1h - move.fall_1h) < 0.1 for move in moves)

    assert (folder / "cascade.png").read_bytes().startswith(b"\x89PNG")

    outcome = replays.outcome(dataset)
    events = dataset.read("default_events")
    assert outcome.liquidated_accounts == events.filter(kind="liquidation")["account_id"].n_unique() > 0
    assert outcome.deleveraged_usd <= outcome.liquidated_usd
    assert outcome.fund_least_usd >= 0.0
    assert (outcome.deleveraged_after_s is None) == (not (events["kind"] == "deleverage").any())


def test_only_the_files_of_the_month_are_taken(tmp_path: Path) -> None:
    names = (
        "FILUSDT-1m-2024-02.zip", "a/NEARUSDT-1m-2024-02-28.zip", "FILUSDT-1m-2024-03.zip",
        "FILUSDT-1m-2023-02.zip", "FILUSDT-fundingRate-2024-02.csv", "b/2024-02/readme.txt",
    )  # fmt: skip
    for name in names:
        file = tmp_path / "src" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    replays.of_month(tmp_path / "src", date(2024, 2, 28), tmp_path / "links")
    found = [file for file in (tmp_path / "links").rglob("*") if file.is_file()]
    taken = {names[0], names[1], names[4]}
    assert {file.relative_to(tmp_path / "links").as_posix() for file in found} == taken
    assert {file.read_text() for file in found} == taken
    with pytest.raises(InputError, match="no klines of 2022-01"):
        replays.of_month(tmp_path / "src", date(2022, 1, 1), tmp_path / "other")


def test_the_fall_is_from_the_highest_of_the_hour_before(small_dataset: Path) -> None:
    dataset = Dataset.open(small_dataset)
    bars = dataset.read("market_bars").filter(pl.col("time").dt.epoch("us") >= dataset.meta.start_us)
    for move in replays.moves(dataset)[:2]:
        bar = bars.filter(market=move.market).sort("time")
        price = bar["index_close"].to_list()
        worst = min(price[k] / max(price[max(k - 59, 0) : k + 1]) - 1.0 for k in range(len(price)))
        assert move.fall_1h == pytest.approx(worst)
        assert -1.0 <= move.open_change <= 0.0
