"""The same arguments give the same bytes, whatever the process, its threads, its hashes and its clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from pipelines.cli import main; raise SystemExit(main())"
ARGUMENTS = (
    "--accounts", "150", "--days", "2", "--seed", "5", "--scenario", "october-2025",
    "--set", "least_depth_usd=10000", "--set", "fund_share=0.000001",
)  # fmt: skip
SETTINGS = {
    "one thread": {
        "POLARS_MAX_THREADS": "1", "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1",
        "TZ": "UTC",
    },
    "many threads": {
        "POLARS_MAX_THREADS": "5", "NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "4", "PYTHONHASHSEED": "2",
        "TZ": "Asia/Tokyo", "LC_ALL": "C",
    },
}  # fmt: skip


def simulated(folder: Path, settings: dict[str, str]) -> dict[str, bytes]:
    """Every file of a dataset that a process of its own wrote with these settings."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "simulate", "venue", *ARGUMENTS],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    place = tmp_path_factory.mktemp("same-bytes")
    return {name: simulated(place / name, settings) for name, settings in SETTINGS.items()}


def test_two_processes_write_the_same_bytes_with_one_thread_and_with_many(
    written: dict[str, dict[str, bytes]],
) -> None:
    one, many = written["one thread"], written["many threads"]
    assert sorted(one) == sorted(many)
    assert [name for name in one if one[name] != many[name]] == []


def test_what_was_compared_is_a_run_with_forced_closing(written: dict[str, dict[str, bytes]]) -> None:
    files = written["one thread"]
    assert {"venue/cascade.png", "venue/summary.json", "venue/default_events.parquet"} <= set(files)
    assert len(files["venue/fills.parquet"]) > 10_000
