"""A dataset that grows while it is made: whole or not at all, in order, in files and groups of a size."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from exchange.errors import InputError, WorkError
from features.tables import TABLES
from pipelines import simulate, store, writer
from pipelines.meta import Meta
from pipelines.schema import empty
from pipelines.store import Dataset
from pipelines.writer import DatasetWriter, dataset_writer

ROOT = Path(__file__).resolve().parents[2]
META = Meta("a venue", "accounts", 0, 10**12, source="made", seed=1)
SMALL = {"accounts": 30, "days": 0.5, "seed": 3}


def transfers(first: int, count: int, step_us: int = 1) -> pl.DataFrame:
    """Rows whose amounts say in which order they were given."""
    number = pl.int_range(first, first + count, eager=True)
    return pl.DataFrame(
        {
            "time": (number * step_us).cast(pl.Datetime("us", "UTC")),
            "account_id": "a",
            "amount_usd": number.cast(pl.Float64),
        }
    )


def fill_rest(growing: DatasetWriter) -> None:
    for name, table in TABLES.items():
        if "accounts" in table.needed_by and name != "transfers":
            growing.append(name, empty(table))
    for name in ("fills", "account_snapshots", "position_snapshots", "balance_snapshots"):
        growing.append(name, empty(TABLES[name]))


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("chunks", "files"),
    [([3, 4], ["transfers.parquet"]), ([], ["transfers.parquet"]), ([0, 0], ["transfers.parquet"]),
     ([10], ["transfers/part-00000.parquet"]),
     ([9, 0, 9, 1], ["transfers/part-00000.parquet", "transfers/part-00001.parquet"]),
     ([25, 10], ["transfers/part-00000.parquet", "transfers/part-00001.parquet"])],
)  # fmt: skip
def test_a_small_table_is_one_file_and_a_large_one_parts_with_all_rows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: list[int], files: list[str]
) -> None:
    monkeypatch.setattr(writer, "ROWS_A_PART", 10)
    with dataset_writer(tmp_path / "made") as growing:
        fill_rest(growing)
        growing.append("transfers", transfers(0, 0))
        done = 0
        for count in chunks:
            growing.append("transfers", transfers(done, count))
            done += count
        growing.close(META)
    found = [name for name in bytes_of(tmp_path / "made") if name.startswith("transfers")]
    assert found == files
    rows = Dataset.open(tmp_path / "made", "accounts").read("transfers")
    assert rows["amount_usd"].to_list() == list(range(done))
    assert rows.schema == empty(TABLES["transfers"]).schema
    assert leftovers(tmp_path) == []


def test_rows_of_one_time_stay_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    with dataset_writer(tmp_path / "made") as growing:
        fill_rest(growing)
        for first in range(0, 40, 8):
            growing.append("transfers", transfers(first, 8, step_us=0))
        growing.close(META)
    rows = Dataset.open(tmp_path / "made").read("transfers")
    assert rows["amount_usd"].to_list() == list(range(40))


def test_files_are_cut_into_groups_that_a_filter_can_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_GROUP", 100)
    with dataset_writer(tmp_path / "made") as growing:
        fill_rest(growing)
        growing.append("transfers", transfers(0, 250))
        growing.close(META)
    file = pq.ParquetFile(tmp_path / "made" / "transfers.parquet").metadata
    groups = [file.row_group(number) for number in range(file.num_row_groups)]
    assert sum(group.num_rows for group in groups) == 250
    assert len(groups) > 1 and max(group.num_rows for group in groups) <= 100
    ranges = [(group.column(0).statistics.min, group.column(0).statistics.max) for group in groups]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


def test_rows_that_do_not_fit_and_tables_that_lack_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="transfers"), dataset_writer(tmp_path / "made") as growing:
        growing.append("transfers", transfers(0, 3).with_columns(amount_usd=pl.lit("much")))
    with pytest.raises(WorkError, match=r"made/\w+\.parquet: table \w+ is missing"):  # noqa: SIM117
        with dataset_writer(tmp_path / "made") as growing:
            growing.append("transfers", transfers(0, 3))
            growing.close(META)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_earlier_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROWS_A_PART", 10)
    simulate.run(tmp_path / "made", **SMALL)
    before = bytes_of(tmp_path / "made")
    with pytest.raises(RuntimeError, match="given up"), dataset_writer(tmp_path / "made") as growing:
        growing.append("transfers", transfers(0, 30))
        assert (growing.folder / "transfers").is_dir()
        raise RuntimeError("given up")
    assert bytes_of(tmp_path / "made") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_what_is_no_dataset_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "letter.txt").write_text("keep")
    with pytest.raises(InputError), dataset_writer(tmp_path / "made"):
        pass
    assert [entry.name for entry in (tmp_path / "made").iterdir()] == ["letter.txt"]


KILLED = """
import os, signal
from pathlib import Path
from pipelines import simulate, writer
from pipelines.writer import DatasetWriter

writer.ROWS_A_PART = 200
flush = DatasetWriter._flush

def flush_and_die(self, name):
    flush(self, name)
    if (self.folder / "market_bars" / "part-00000.parquet").exists():
        os.kill(os.getpid(), signal.SIGKILL)

DatasetWriter._flush = flush_and_die
simulate.run(Path({target!r}), accounts=60, days=1.0, seed=4)
"""


def killed_while_writing(target: Path) -> int:
    """Simulate in a child that is killed once there is a part file of bars; how it ended."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(target=str(target))],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    return done.returncode


@pytest.mark.parametrize("earlier", [True, False])
def test_after_a_kill_in_mid_run_a_new_start_writes_the_dataset_whole(tmp_path: Path, earlier: bool) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    simulate.run(clean / "venue", **SMALL)
    place = tmp_path / "place"
    place.mkdir()
    if earlier:
        simulate.run(place / "venue", accounts=20, days=0.25, seed=9)
    before = bytes_of(place)
    assert killed_while_writing(place / "venue") == -signal.SIGKILL
    # what was half written lies hidden beside the target, which is as it was
    hidden = leftovers(place)
    assert len(hidden) == 1 and (place / hidden[0] / "new" / "market_bars" / "part-00000.parquet").exists()
    assert {name: data for name, data in bytes_of(place).items() if not name.startswith(".")} == before
    simulate.run(place / "venue", **SMALL)
    assert leftovers(place) == []
    assert bytes_of(place) == bytes_of(clean)


def test_time_is_kept_to_the_microsecond(tmp_path: Path) -> None:
    with dataset_writer(tmp_path / "made") as growing:
        fill_rest(growing)
        growing.append("transfers", transfers(86_400_000_001, 1))
        growing.close(META)
    time = Dataset.open(tmp_path / "made").read("transfers")["time"][0]
    assert time == datetime(1970, 1, 2, 0, 0, 0, 1, tzinfo=UTC)
