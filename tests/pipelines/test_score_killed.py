"""Batch scoring that is killed at, or failed by, any of its calls: a whole file or none, then the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pipelines.cli import run
from tests.pipelines import dataset_builder as build
from tests.serving.dying import FAILURES, KILLS, Fate
from tests.serving.plain_models import write_model

ROOT = Path(__file__).resolve().parents[2]
TIMES = [part for hours in (6.0, 9.0, 12.0) for part in ("--at", build.at(hours).isoformat())]


class Scoring:
    """A process that scores in processes of its own which die; and what an undisturbed one writes."""

    def __init__(self, folder: Path) -> None:
        build.write(folder / "data", build.random_tables(0))
        write_model(folder / "model")
        self.arguments = ["score", str(folder / "data"), "--model", str(folder / "model"), *TIMES]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipelines.scoring", str(folder / "whole"), *self.arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "errors").open("w"),
            text=True,
        )
        assert self._process.stdout is not None
        self.calls = int(self._process.stdout.readline())
        self.whole = (folder / "whole").read_bytes()

    def at(self, number: int, fate: Fate, out: Path, lasts: bool = False) -> int:
        """Score to a file and die, or fail, at a call; the exit status."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{number} {fate} {lasts} {out}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scoring]:
    found = Scoring(tmp_path_factory.mktemp("scoring"))
    yield found
    found.end()


def disturb(scoring: Scoring, folder: Path, number: int, fate: Fate, lasts: bool = False) -> int:
    """Disturb one run: what is there then is the earlier result or the new one; its exit status."""
    folder.mkdir()
    out = folder / "scores.parquet"
    earlier = b"an earlier result" if number % 2 else None
    if earlier:
        out.write_bytes(earlier)
    status = scoring.at(number, fate, out, lasts)
    found = out.read_bytes() if out.exists() else None
    assert found in (earlier, scoring.whole), (number, fate)
    if status == 0:  # an acknowledgement
        assert found == scoring.whole
    elif fate in KILLS:
        assert status == -signal.SIGKILL, (number, fate)
    else:
        assert status in (1, 2), (number, fate)
    return status


def resume(scoring: Scoring, folder: Path) -> None:
    """Score again, undisturbed: the same bytes, and nothing beside them."""
    out = folder / "scores.parquet"
    assert scoring.at(-1, "before", out) == 0
    (folder / "scores.parquet.calls").unlink()
    assert out.read_bytes() == scoring.whole
    assert [entry.name for entry in folder.iterdir()] == ["scores.parquet"]


def test_killed_at_a_call_the_resumed_file_is_the_same(scoring: Scoring, tmp_path: Path) -> None:
    assert scoring.calls > 15
    for number in (8, scoring.calls // 2, scoring.calls - 4):
        folder = tmp_path / str(number)
        assert disturb(scoring, folder, number, KILLS[number % len(KILLS)]) == -signal.SIGKILL
    resume(scoring, folder)


def test_failed_by_a_call_nothing_half_written_stands(scoring: Scoring, tmp_path: Path) -> None:
    for number in (10, scoring.calls - 6):
        disturb(scoring, tmp_path / str(number), number, FAILURES[number % len(FAILURES)], number % 2 == 0)


@pytest.mark.slow
def test_disturbed_at_every_call_in_every_way_and_500_times_at_random(
    scoring: Scoring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fate in (*KILLS, *FAILURES):
        for lasts in (False, True) if fate in FAILURES else (False,):
            for number in range(scoring.calls):
                folder = tmp_path / f"{fate}-{lasts}-{number}"
                disturb(scoring, folder, number, fate, lasts)
                resume(scoring, folder)
    chance = Random(6)
    for round_ in range(500):
        folder = tmp_path / f"random-{round_}"
        disturb(scoring, folder, chance.randrange(scoring.calls), chance.choice(KILLS))
        resume(scoring, folder)
    with capsys.disabled():
        print(f"{scoring.calls} calls, each disturbed in 9 ways, and 500 runs killed at random")


def test_an_undisturbed_run_here_writes_the_same(scoring: Scoring, tmp_path: Path) -> None:
    assert run([*scoring.arguments, "--out", str(tmp_path / "scores.parquet")]) == 0
    assert (tmp_path / "scores.parquet").read_bytes() == scoring.whole
