from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from exchange.errors import InputError
from features.tables import TABLES
from pipelines import check, simulate
from pipelines.store import Dataset


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulate") / "venue"
    assert simulate.run(out, accounts=60, days=4.0, seed=7) == 0
    return out


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(venue: Path, tmp_path: Path) -> None:
    simulate.run(tmp_path / "again", accounts=60, days=4.0, seed=7)
    assert bytes_of(tmp_path / "again") == bytes_of(venue)
    simulate.run(tmp_path / "other", accounts=60, days=4.0, seed=8)
    before, after = bytes_of(venue), bytes_of(tmp_path / "other")
    for table in ("market_bars", "fills", "transfers", "accounts", "account_snapshots"):
        assert before[f"{table}.parquet"] != after[f"{table}.parquet"]


@pytest.mark.parametrize(("accounts", "days", "seed"), [(60, 4.0, 7), (1, 0.01, 0), (150, 2.5, 3)])
def test_check_finds_nothing_wrong(tmp_path: Path, accounts: int, days: float, seed: int) -> None:
    simulate.run(tmp_path / "venue", accounts, days, seed)
    assert list(check.problems(tmp_path / "venue")) == []


def test_it_says_what_it_is(venue: Path) -> None:
    meta = json.loads((venue / "dataset.json").read_text())
    assert meta["seed"] == 7 and meta["kind"] == "accounts"
    dataset = Dataset.open(venue, "accounts")
    assert (dataset.meta.end_us - dataset.meta.start_us) == 4 * 86_400_000_000
    assert not dataset.has("observations")


def test_every_table_has_rows_but_rates_that_nobody_set(venue: Path) -> None:
    dataset = Dataset.open(venue)
    empty = {table for table in dataset.tables if dataset.read(table).is_empty()}
    assert empty == {"margin_rates"}
    assert set(TABLES) - set(dataset.tables) == {"observations"}


def test_what_is_not_known_is_null_and_never_nan(venue: Path) -> None:
    dataset = Dataset.open(venue)
    for table in dataset.tables:
        frame = dataset.read(table)
        for column in frame.select(pl.col(pl.Float64)).iter_columns():
            assert not column.is_nan().any(), f"{table}.{column.name}"
    assert dataset.read("market_bars")["open_interest_usd"].null_count() > 0


def test_a_folder_of_others_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(InputError):
        simulate.run(tmp_path / "mine", accounts=2, days=0.1, seed=0)
    with pytest.raises(InputError):
        simulate.run(tmp_path / "no" / "parent", accounts=2, days=0.1, seed=0)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"
