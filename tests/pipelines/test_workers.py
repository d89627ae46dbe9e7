"""Several workers: any of them answers, all of them the same, and the death of one is seen and mended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from pipelines.cli import run as perprisk

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
PERPRISK = "import sys; from pipelines.cli import main; sys.exit(main())"


class Venue:
    """A service of several workers, as a margin engine sees it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def __call__(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """On a connection of its own, which any of the workers may take."""
        return httpx.request(method, self.url + path, json=body, timeout=30)

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def until_ready(self) -> None:
        self.until(lambda: self("GET", "/health/ready").status_code == 200)

    def until(self, holds: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < ends, "it did not come to pass"
            time.sleep(0.05)


@pytest.fixture
def serve(small_dataset: Path, small_model: Path, tmp_path: Path) -> Iterator[Callable[[int], Venue]]:
    running = []

    def start(workers: int) -> Venue:
        process = subprocess.Popen(
            [sys.executable, "-c", PERPRISK, "serve", "--model", str(small_model), "--port", "0",
             "--dataset", str(small_dataset), "--workers", str(workers)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        running.append(process)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("serving on "):
                venue = Venue(process, line.split()[-1])
                venue.until_ready()
                return venue
        raise AssertionError("".join(said))

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def accounts_of(dataset: Path) -> list[str]:
    """Accounts in the order in which they were announced."""
    return list(pl.read_parquet(dataset / "accounts.parquet")["account_id"])


def deposit(account: str, dataset: Path, number: int) -> dict[str, Any]:
    end = json.loads((dataset / "dataset.json").read_text())["end"]
    return {
        "source": "bank",
        "events": [
            {
                "table": "transfers",
                "account_id": account,
                "amount_usd": 25.0,
                "sequence": number,
                "time": (datetime.fromisoformat(end) + timedelta(seconds=number)).isoformat(),
            }
        ],
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers in /proc")
def test_workers_are_one_service(
    serve: Callable[[int], Venue],
    small_dataset: Path,
    small_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    venue = serve(2)
    names = accounts_of(small_dataset)[:40]
    asked = {"account_ids": names}

    # one log, whoever takes the events: an answer that may not know less than the last event does not
    for number in range(1, 11):
        answer = venue("POST", "/v1/events", deposit(names[number], small_dataset, number)).json()
        assert answer["accepted"] == 1, answer
        assert answer["sequence"] == number
        for _ in range(3):
            question = {"account_id": names[number], "min_sequence": number, "explain": True}
            assert venue("POST", "/v1/score", question).json()["sequence"] == number
    answers = {venue("POST", "/v1/score/batch", asked).content for _ in range(8)}
    assert len(answers) == 1  # the same bytes from either worker

    # a dead worker is told of, and replaced by one that knows what it knew
    for victim in venue.workers:
        os.kill(victim, signal.SIGKILL)
        venue.until(lambda: venue("GET", "/health/ready").status_code == 503)
        assert venue("GET", "/health/live").status_code == 200
        venue.until_ready()
        assert venue("POST", "/v1/score/batch", asked).content in answers
    last = deposit(names[11], small_dataset, 11)
    assert venue("POST", "/v1/events", last).json()["sequence"] == 11
    assert venue("POST", "/v1/events", last).json() == {"accepted": 1, "rejected": [], "sequence": 11}
    after = venue("POST", "/v1/score/batch", asked).content
    told = venue("GET", "/metrics").text.splitlines()
    assert {f'perprisk_worker_ready{{worker="{worker}"}} 1.0' for worker in range(2)} <= set(told)

    venue.process.terminate()
    assert venue.process.wait(30) == 0

    # and one worker alone, from the same log, says the same, byte by byte
    alone = serve(1)
    assert alone("POST", "/v1/score/batch", asked).content == after
    alone.process.terminate()
    assert alone.process.wait(30) == 0
    capsys.readouterr()
    assert perprisk(["audit", "verify", str(tmp_path / "perprisk-audit")]) == 0


def test_two_services_do_not_share_a_log(
    serve: Callable[[int], Venue], small_dataset: Path, small_model: Path, tmp_path: Path
) -> None:
    serve(1)
    second = subprocess.run(
        [sys.executable, "-c", PERPRISK, "serve", "--model", str(small_model), "--port", "0",
         "--dataset", str(small_dataset), "--workers", "2"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert "another service writes this event log" in second.stderr.splitlines()[-1]
