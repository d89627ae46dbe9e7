"""Figures and picture of a simulated dataset, against the plain tables."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from exchange.simulation import moments as mo
from pipelines import cascade
from pipelines.store import Dataset


@pytest.fixture(scope="module")
def run(small_dataset: Path) -> cascade.Run:
    return cascade.read_run(small_dataset)


def test_summary_counts_what_the_tables_hold(run: cascade.Run) -> None:
    found = cascade.summary(run)
    events, fills = run.dataset.read("default_events"), run.dataset.read("fills")
    fund = run.dataset.read("insurance_fund")
    assert found["counts"]["liquidation"]["events"] > 0
    for kind, counts in found["counts"].items():
        of = events.filter(pl.col("kind") == kind)
        assert counts["events"] == of.height
        assert counts["accounts"] == of["account_id"].n_unique()
        assert counts["shortfall_usd"] == pytest.approx(of["shortfall_usd"].sum())
    for kind in ("liquidation", "deleverage"):
        of = fills.filter(pl.col("kind") == kind)
        worth = (of["quantity"].abs() * of["price"]).sum()
        assert found["counts"][kind]["closed_usd"] == pytest.approx(worth)
    assert found["insurance_fund"]["low_usd"] == pytest.approx(fund["balance_usd"].min())
    assert found["insurance_fund"]["low_usd"] >= 0.0


def test_no_ten_minutes_are_worse_than_the_worst(run: cascade.Run) -> None:
    begin = cascade.worst_us(run.record)
    orders = mo.forced_orders(run.record)
    time = orders.second * 1_000_000

    def forced(first: int) -> float:
        return float(orders.usd[(time >= first) & (time < first + cascade.WORST_US)].sum())

    worst = forced(begin)
    assert worst == pytest.approx(cascade.summary(run)["worst_cascade"]["liquidated_usd"])
    assert all(
        forced(int(first)) <= worst * (1 + 1e-9) for first in np.unique(time // 60_000_000) * 60_000_000
    )


def test_midnights_are_the_snapshots_of_traders_with_positions(run: cascade.Run) -> None:
    book = run.record.midnights
    shots = run.dataset.read("account_snapshots").filter(pl.col("time").dt.epoch("us") % 86_400_000_000 == 0)
    held = run.dataset.read("position_snapshots").filter(pl.col("quantity") != 0.0)
    both = shots.join(held.select("time", "account_id").unique(), on=["time", "account_id"])
    both = both.filter(~pl.col("account_id").str.contains("maker|backstop"))
    assert len(book.time) == both.height > 0
    assert book.equity.sum() == pytest.approx(both["equity_usd"].sum())
    assert (book.gross > 0.0).all()


def test_open_accounts_at_midnight_are_those_of_the_snapshots(run: cascade.Run) -> None:
    """Counted from the last midnight and fills since, they meet the next midnight's snapshots."""
    midnights = np.unique(run.record.midnights.time)
    for before, after in itertools.pairwise(midnights):
        _, count = cascade._open_accounts(run, int(before) + 3_600_000_000, int(after))
        assert count[-1] == (run.record.midnights.time == after).sum()


def test_scene_adds_up_to_the_fills_in_it(run: cascade.Run) -> None:
    seen = cascade.scene(run)
    fills = run.record.fills
    now = (fills.time >= seen.first_us) & (fills.time < seen.last_us)
    size = np.abs(fills.quantity) * fills.price
    assert seen.liquidated_usd.sum() == pytest.approx(size[now & (fills.kind == 1)].sum())
    assert seen.deleveraged_usd.sum() == pytest.approx(size[now & (fills.kind == 2)].sum())
    assert seen.first_us <= cascade.worst_us(run.record) <= seen.last_us
    assert (seen.depth_share > 0.0).all()


def test_summary_and_picture_are_the_same_bytes_every_time(small_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(small_dataset, folder)
    written = []
    for _ in range(2):
        for name in (cascade.SUMMARY, cascade.PICTURE):
            (folder / name).unlink(missing_ok=True)
        cascade.write_summary(folder)
        written.append([(folder / name).read_bytes() for name in (cascade.SUMMARY, cascade.PICTURE)])
    assert written[0] == written[1]
    assert written[0][1].startswith(b"\x89PNG")
    assert json.loads(written[0][0])["days"] == 8.0
    # what is added beside the tables changes nothing of the dataset
    assert Dataset.open(folder).digest() == Dataset.open(small_dataset).digest()


def test_without_forced_closing_there_is_a_summary_and_no_picture(
    small_dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(small_dataset, folder)
    for name, column in (("fills", "kind"), ("default_events", "kind")):
        rows = Dataset.open(small_dataset).read(name)
        rows.filter(pl.col(column) == "trade").write_parquet(folder / f"{name}.parquet")
    (folder / cascade.PICTURE).unlink(missing_ok=True)
    cascade.write_summary(folder)
    assert json.loads((folder / cascade.SUMMARY).read_text())["worst_cascade"] is None
    assert not (folder / cascade.PICTURE).exists()
