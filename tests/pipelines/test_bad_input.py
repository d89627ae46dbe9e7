"""Whatever is wrong with a request or its input: one line that names it, the right exit code, nothing left.

Three tables of what can be wrong (datasets, models, requests), each tried on every command that could
stumble over it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import serve
from pipelines.cli import run
from pipelines.options import Options
from tests.pipelines import dataset_builder as build
from tests.pipelines.wrong_datasets import DATASETS, scrambled
from tests.pipelines.wrong_models import MODELS

ROOT = Path(__file__).resolve().parents[2]
STRETCH = 12
"""The dataset made by hand covers twelve hours; stretched, its labels of a day can be known."""

NOON = "2024-03-05T12:00:00Z"

COMMANDS = {
    "check": "check data",
    "train": "train data --out out",
    "evaluate": "evaluate data --model model --from 2024-03-01 --to 2024-03-05 --out out",
    "score": f"score data --model model --at {NOON} --out out",
    "serve": "serve --model model --dataset data --port 0",
    "demo": "demo --dataset data --out out",
}


def stretched(rows: pl.DataFrame) -> pl.DataFrame:
    start = pl.lit(build.START).cast(build.TIME)
    times = [name for name, type_ in rows.schema.items() if isinstance(type_, pl.Datetime)]
    return rows.with_columns((start + (pl.col(name) - start) * STRETCH).alias(name) for name in times)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """A folder with a valid dataset, one of prices alone, a model, and things that are neither."""
    folder = tmp_path_factory.mktemp("template")
    tables = {name: stretched(rows) for name, rows in build.tables().items()}
    del tables["observations"]
    end = build.START + (build.END - build.START) * STRETCH
    build.write(folder / "data", tables, end=end.isoformat())
    prices = {name: tables[name] for name in ("markets", "market_bars")}
    build.write(folder / "prices", prices, kind="markets", end=end.isoformat())
    shutil.copytree(small_model, folder / "model")
    (folder / "file").write_text("somebody's\n")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("somebody's\n")
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, which is the current folder."""

    def never(*_arguments: Any) -> None:
        raise AssertionError("the service was about to start")

    folder = tmp_path / "place"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PERPRISK_DEBUG", raising=False)
    monkeypatch.setattr(serve, "answer", never)
    yield folder


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that a folder holds, hidden things too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(request_: str, place: Path, capfd: pytest.CaptureFixture[str], says: str) -> None:
    """The request fails as the interface says, and the folder is left as it was."""
    before = everything(place)
    parts = says.split(" | ")
    code = run(shlex.split(request_))
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    lines = err.splitlines()
    if request_.startswith("check") and not lines:  # it lists what it found, a line a table and column
        lines = [line for line in out.splitlines() if line.startswith("error: ")]
        lines = [line for line in lines if all(part in line for part in parts)] or lines
    else:
        assert out == ""
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert "unexpected" not in lines[0]
    for part in parts:
        assert part in lines[0]
    assert code == 2
    assert everything(place) == before


# ---- data, models, requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name in DATASETS for command in DATASETS[name][0]]
)
def test_a_dataset_that_is_wrong(
    name: str, command: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, breaking, says = DATASETS[name]
    breaking(place)
    refused(COMMANDS[command], place, capfd, says)


def test_the_dataset_that_is_broken_is_right_before(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(shlex.split(COMMANDS["check"])) == 0
    assert run(shlex.split(COMMANDS["score"])) == 0
    assert run(shlex.split(COMMANDS["evaluate"].replace("--out out", "--out judged"))) == 0
    scores = pl.read_parquet(place / "out")
    assert scores["account_id"].to_list() == ["zoe"]
    assert json.loads((place / "judged" / "scorecard.json").read_text())["targets"]
    with pytest.raises(AssertionError, match="about to start"):
        serve.run(Options(place / "model", place / "data", port=0))


def test_what_is_odd_but_not_wrong_is_a_warning(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for table, column, new in (
        ("book_depth", "best_bid", 1_000.0),
        ("account_snapshots", "initial_margin_usd", 1.0),
    ):
        assert run(["check", "data"]) == 0
        before = capfd.readouterr().out
        build.set_value(place / "data", table, column, new)
        assert run(["check", "data"]) == 0
        after = capfd.readouterr().out
        assert f"{table}.parquet: column {column}" in after
        assert f"{table}.parquet: column {column}" not in before
        assert "error" not in after.replace("0 errors", "")
    assert run(shlex.split(COMMANDS["score"])) == 0
    assert pl.read_parquet(place / "out").height == 1


# every command opens a model in the same way, and a few of them show that it does
FEW = (
    "no such folder",
    "a dataset given for the model",
    "another catalogue",
    "tampered model.onnx",
    "no severity",
)


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, "score") for name in MODELS]
    + [(name, command) for name in FEW for command in ("evaluate", "serve")],
)
def test_a_model_that_is_wrong(
    name: str, command: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    breaking, says = MODELS[name]
    breaking(place)
    refused(COMMANDS[command], place, capfd, says)


SCORE = "score data --model model"
ALONG = "score data --model model --out out"
EVALUATE = "evaluate data --model model --out out"
SERVE = "serve --model model --port 0"
LONG = "n" * 300

REQUESTS: list[tuple[str, str]] = [
    # -- commands and options
    ("", "no command"),
    ("guess data", "'guess'"),
    ("check", "DATASET"),
    ("check data --loud", "--loud"),
    ("check ''", "empty path"),
    (f"check {LONG}", LONG[:50]),
    ("train data", "--out"),
    ("train --out out", "DATASET"),
    ("evaluate data --model model --from 2024-03-01 --to 2024-03-02", "--out"),
    (f"score data --at {NOON} --out out", "--model"),
    (f"{SCORE} --at {NOON}", "--out"),
    ("serve", "--model"),
    # -- times
    (f"{ALONG} --at soon", "--at | 'soon'"),
    (f"{ALONG} --at 2024-02-30", "--at | '2024-02-30'"),
    (f"{ALONG} --at 2024-03-02T25:00", "--at | '2024-03-02T25:00'"),
    (f"{ALONG} --at 10000-01-01", "--at | '10000-01-01'"),
    (f"{ALONG} --at 2024-02-29", "data | 2024-02-29T00:00:00Z | before the start | 2024-03-01T00:00:00Z"),
    (f"{ALONG} --at 0001-01-01", "data | 0001-01-01 | before the start"),
    (f"{ALONG} --at {NOON} --at 2024-03-07T00:00:01", "2024-03-07T00:00:01Z | after the end"),
    (f"{ALONG} --at 9999-12-31T23:59:59", "9999-12-31T23:59:59Z | after the end"),
    (f"{ALONG} --at 2024-03-01T00:30+01:00", "2024-02-29T23:30:00Z | before the start"),
    (f"{ALONG} --at {NOON} --from 2024-03-02 --to 2024-03-03 --every 4h", "--at | --from"),
    (f"{ALONG} --at {NOON} --every 4h", "--at | --every"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03", "--every missing"),
    (f"{ALONG} --from 2024-03-02 --every 4h", "--to missing"),
    (ALONG, "no decision times"),
    (f"{ALONG} --from 2024-03-03 --to 2024-03-02 --every 4h", "--to '2024-03-02' | before --from"),
    (f"{ALONG} --from 2024-02-01 --to 2024-03-02 --every 4h", "2024-02-01 | before the start"),
    (f"{ALONG} --from 2024-03-02 --to 2024-04-02 --every 4h", "2024-04-02 | after the end"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03 --every 0h", "--every | '0h'"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03 --every 0.5s", "--every | '0.5s'"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03 --every=-4h", "--every | '-4h'"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03 --every 4", "--every | '4'"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03 --every 4weeks", "--every | '4weeks'"),
    (f"{ALONG} --from 2024-03-02 --to 2024-03-03 --every 999999999d", "--every | century"),
    # a step a minute from year 1 on would be forty gigabytes of times
    (f"{ALONG} --from 0001-01-01 --to 9999-12-31 --every 1m", "0001-01-01 | before the start"),
    (f"{EVALUATE} --from 2024-03-03 --to 2024-03-02", "--to '2024-03-02' | before --from"),
    (f"{EVALUATE} --from soon --to 2024-03-02", "--from | 'soon'"),
    (f"{EVALUATE} --from 2023-01-01 --to 2023-01-02", "data | 2023-01-01 | the dataset runs from"),
    (f"{EVALUATE} --from 2025-01-01 --to 2025-01-02", "data | 2025-01-01 | the dataset runs from"),
    (f"{EVALUATE} --from 2024-03-06T23:30 --to 2024-03-07", "data | no decision time | 2024-03-06T23:30:00Z"),
    (f"{EVALUATE} --from 2024-03-02 --to 2024-03-03 --every 0m", "--every | '0m'"),
    (f"{EVALUATE} --from 2024-03-01 --to 2024-03-01T05:00", "data | no account has an open position"),
    ("train data --out out --until soon", "--until | 'soon'"),
    ("train data --out out --until 2024-02-01", "data | nothing to train on | 2024-02-01 | 2024-03-01"),
    ("train data --out out --until 2024-03-01T00:30", "data | nothing to train on"),
    ("train data --out out --until 2024-03-03", "data | no liquidation"),
    ("train data prices --out out", "prices | 'markets'"),
    ("train data --out out --tracking-uri ''", "--tracking-uri | ''"),
    ("train data --out out --tracking-uri nosuch://x", "--tracking-uri | 'nosuch://x'"),
    ("train data --out out --tracking-uri sqlite:///none/x.db", "--tracking-uri | none does not exist"),
    ("train data --out out --tracking-uri sqlite:///file", "--tracking-uri | no SQLite database"),
    ("train data --out out --tracking-uri sqlite:///empty", "--tracking-uri | empty | is a directory"),
    ("train data --out out --tracking-uri sqlite://", "--tracking-uri | names no file"),
    # -- where results are to go
    (f"{SCORE} --at {NOON} --out none/out", "none/out | does not exist"),
    (f"{SCORE} --at {NOON} --out file/out", "file/out | is not a folder"),
    (f"{SCORE} --at {NOON} --out empty", "empty | is a folder"),
    (f"{SCORE} --at {NOON} --out /dev/full", "/dev/full | not a regular file"),
    (f"{SCORE} --at {NOON} --out /proc/out", "/proc/out | cannot be written"),
    ("simulate --accounts 2 --days 0.1 /proc/out", "/proc/out | cannot be written"),
    (f"{EVALUATE[:-4]} /proc/out --from 2024-03-02 --to 2024-03-04", "/proc/out | cannot be written"),
    (f"{SCORE} --at {NOON} --out {LONG}", f"{LONG[:50]} | too long"),
    (f"{SCORE} --at {NOON} --out ..", "'..'"),
    (f"{SCORE} --at {NOON} --out ''", "empty path"),
    *(
        (f"{command} {out}", f"{out} | {says}")
        for command in (
            "train data --out",
            "evaluate data --model model --from 2024-03-02 --to 2024-03-04 --out",
            "demo --dataset data --out",
            "simulate --accounts 2 --days 0.1",
        )
        for out, says in (
            ("none/out", "does not exist"),
            ("file", "is a file"),
            ("file/out", "is not a folder"),
            ("full", "holds other files"),
        )
    ),
    ("train data --out data", "data | holds other files"),
    ("demo --dataset data --out model", "model | holds other files"),
    ("simulate model", "model | holds other files"),
    # -- a venue
    ("simulate out --accounts 0", "--accounts | '0'"),
    ("simulate out --accounts -3", "--accounts | '-3'"),
    ("simulate out --accounts 1e9", "--accounts | '1e9'"),
    ("simulate out --accounts 99999999999999999999", "--accounts | 99999999999999999999"),
    ("simulate out --days -1", "--days | '-1'"),
    ("simulate out --days 0", "--days | '0'"),
    ("simulate out --days nan", "--days | 'nan'"),
    ("simulate out --days 1e9", "--days | '1e9'"),
    ("simulate out --seed -1", "--seed | '-1'"),
    ("simulate out --seed x", "--seed | 'x'"),
    # -- the service
    (f"{SERVE} --host 0.0.0.0", "--host | '0.0.0.0' | loopback"),
    (f"{SERVE} --host 192.168.1.1", "--host | '192.168.1.1'"),
    (f"{SERVE} --host ::", "--host | '::'"),
    (f"{SERVE} --host example.org", "--host | 'example.org'"),
    (f"{SERVE} --host ''", "--host | ''"),
    ("serve --model model --port 70000", "--port | '70000'"),
    ("serve --model model --port -1", "--port | '-1'"),
    ("serve --model model --port http", "--port | 'http'"),
    (f"{SERVE} --clock sun", "--clock | 'sun'"),
    (f"{SERVE} --dataset prices", "prices | 'markets'"),
    (f"{SERVE} --dataset full", "full/dataset.json"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "says"), REQUESTS, ids=[request_[:100] for request_, _ in REQUESTS])
def test_a_request_that_is_wrong(
    request_: str, says: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(request_, place, capfd, says)


def test_a_port_that_is_taken_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(f"serve --model model --port {port}", place, capfd, f"--port | {port}")


def test_a_place_for_events_that_is_none_is_named(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERPRISK_EVENT_LOG", str(place / "file"))
    refused(SERVE, place, capfd, "PERPRISK_EVENT_LOG | file")
    monkeypatch.setenv("PERPRISK_EVENT_LOG", str(place / "none" / "events"))
    refused(SERVE, place, capfd, "PERPRISK_EVENT_LOG | none/events")


def test_an_earlier_result_stands_whatever_fails(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(shlex.split(COMMANDS["score"])) == 0
    assert run(shlex.split(COMMANDS["evaluate"].replace("--out out", "--out judged"))) == 0
    capfd.readouterr()
    build.set_value(place / "data", "fills", "price", -1.0)
    refused(COMMANDS["score"], place, capfd, "fills.parquet")
    refused(COMMANDS["evaluate"].replace("--out out", "--out judged"), place, capfd, "fills.parquet")
    refused("train data --out model", place, capfd, "fills.parquet")


def test_one_time_in_every_zone_and_spelling_gives_the_same_bytes(place: Path) -> None:
    spellings = (
        "2024-03-05T12:00:00Z",
        "2024-03-05T12:00:00",
        "2024-03-05 12:00",
        "2024-03-05T12:00:00.000000+00:00",
        "2024-03-05T14:00:00+02:00",
        "2024-03-05T06:30:00-05:30",
        "20240305T120000Z",
    )
    found = set()
    for number, spelling in enumerate(spellings):
        assert run(["score", "data", "--model", "model", "--at", spelling, "--out", f"scores{number}"]) == 0
        found.add((place / f"scores{number}").read_bytes())
    assert len(found) == 1
    assert run(["score", "data", "--model", "model", "--at", "2024-03-05T13:00", "--out", "later"]) == 0
    assert (place / "later").read_bytes() not in found


# ---- as processes of their own ---------------------------------------------------------------------

PROGRAM = "import sys; from pipelines.cli import main; sys.exit(main())"
FULL_DISK = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
{PROGRAM}
"""


def process(program: str, request_: str, folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *shlex.split(request_)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ("check empty", "empty/dataset.json"),
        (f"score none --model model --at {NOON} --out out", "none: no such folder"),
        ("train data --out file/out", "file/out"),
        ("simulate out --accounts 0", "--accounts: '0'"),
        ("serve --model empty", "empty: is not a model folder"),
    ],
)
def test_a_process_ends_the_same_way(request_: str, says: str, place: Path) -> None:
    before = everything(place)
    code, out, err = process(PROGRAM, request_, place)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .+\n", err)
    assert says in err
    assert everything(place) == before


def test_damage_that_makes_the_reader_panic_is_one_line_too(place: Path) -> None:
    before = everything(place)
    scrambled("market_bars.parquet")(place)
    code, out, err = process(PROGRAM, COMMANDS["score"], place)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: data/market_bars.parquet: .+\n", err)
    assert set(everything(place)) == set(before)


def test_a_disk_that_is_full_is_a_failure_and_leaves_what_was_there(place: Path) -> None:
    """The work failed: nothing is wrong with the request."""
    (place / "out").write_text("an earlier result")
    before = everything(place)
    code, out, err = process(FULL_DISK, COMMANDS["score"], place)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: .+\n", err)
    assert "too large" in err.lower()
    assert everything(place) == before
