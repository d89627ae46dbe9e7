"""The command line reads requests strictly and tells every outcome in one line and an exit code."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import pipelines
from exchange.errors import InputError, PerpriskError, WorkError
from exchange.units import HOUR_US
from pipelines.cli import app, run
from pipelines.options import Options

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "demo", "check", "simulate", "ingest", "train", "evaluate", "score", "backtest", "stress", "serve",
    "watch", "promote",
}  # fmt: skip
GROUPS = {"audit": {"verify", "show", "head"}, "keys": {"add", "revoke", "list"}}
EVERY = sorted(COMMANDS) + [f"{group} {name}" for group in sorted(GROUPS) for name in sorted(GROUPS[group])]
HEAVY = {
    "numpy",
    "numba",
    "pandas",
    "polars",
    "pyarrow",
    "lightgbm",
    "shap",
    "mlflow",
    "onnxruntime",
    "starlette",
}
DAY = 1_673_740_800_000_000  # 2023-01-15
NEXT_DAY = DAY + 24 * HOUR_US


def command(name: str) -> Any:
    found: Any = typer.main.get_command(app)
    for part in name.split():
        found = found.commands[part]
    return found


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Every stage replaced by one that notes how it was called."""
    called: dict[str, dict[str, Any]] = {}

    def noting(name: str) -> Callable[..., int]:
        def stage(**arguments: Any) -> int:
            called[name] = arguments
            return 0

        return stage

    for name in COMMANDS:
        stage = types.SimpleNamespace(run=noting(name), chosen_settings=tuple, chosen_mix=tuple)
        monkeypatch.setattr(pipelines, name, stage, raising=False)
    for group, names in GROUPS.items():
        stages = {"show" if name == "list" else name: noting(f"{group} {name}") for name in names}
        monkeypatch.setattr(pipelines, group, types.SimpleNamespace(**stages), raising=False)
    return called


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def stage(**_arguments: Any) -> int:
        raise error

    monkeypatch.setattr(pipelines, "check", types.SimpleNamespace(run=stage), raising=False)


def test_the_commands_are_those_that_do_something() -> None:
    assert set(command("").commands) == COMMANDS | set(GROUPS)
    assert {group: set(command(group).commands) for group in GROUPS} == GROUPS


@pytest.mark.parametrize("name", EVERY)
def test_help_says_what_it_does_and_every_example_in_it_is_a_request_that_is_understood(
    name: str,
    stages: dict[str, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  [A-Z].*\.$", text, re.MULTILINE), "a sentence"
    examples = re.findall(rf"^ +perprisk ({name}\b.*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        stages.clear()
        assert run(shlex.split(example)) == 0, example
        assert set(stages) == {name}


@pytest.mark.parametrize("name", EVERY)
def test_every_option_is_explained(name: str) -> None:
    for parameter in command(name).params:
        if parameter.name != "help":
            assert parameter.help, f"{name}: {parameter.name} has no help"


def test_arguments_arrive_parsed(
    stages: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    every = 4 * HOUR_US
    generated: dict[str, Any] = {
        "prices": None, "scenario": "default", "from_us": None, "to_us": None, "settings": (), "mix": (),
    }  # fmt: skip
    requests: list[tuple[str, dict[str, Any]]] = [
        ("demo", {"dataset": None, "out": Path("perprisk-demo")}),
        ("check d", {"dataset": Path("d"), "json_output": False}),
        ("check d --json", {"dataset": Path("d"), "json_output": True}),
        ("simulate o", {"out": Path("o"), "accounts": 1500, "days": None, "seed": 7, **generated}),
        (
            "simulate o --accounts 3 --days 0.5 --seed 0 --scenario calm",
            {"out": Path("o"), "accounts": 3, "days": 0.5, "seed": 0, **generated, "scenario": "calm"},
        ),
        (
            "simulate o --set spillover=0 --set thinning=1 --mix whale=0.1",
            {
                "out": Path("o"),
                "accounts": 1500,
                "days": None,
                "seed": 7,
                **generated,
                "settings": ("spillover=0", "thinning=1"),
                "mix": ("whale=0.1",),
            },
        ),
        (
            "simulate o --prices p --from 2023-01-15 --to 2023-01-16",
            {
                "out": Path("o"),
                "accounts": 1500,
                "days": None,
                "seed": 7,
                **generated,
                "prices": Path("p"),
                "from_us": DAY,
                "to_us": NEXT_DAY,
            },
        ),
        (
            "ingest binance-vision s o",
            {"adapter": "binance-vision", "src": Path("s"), "out": Path("o"), "terms": None},
        ),
        (
            "ingest binance-vision s o --terms t.json",
            {"adapter": "binance-vision", "src": Path("s"), "out": Path("o"), "terms": Path("t.json")},
        ),
        (
            "train d --out m",
            {"datasets": [Path("d")], "out": Path("m"), "until_us": None, "tracking_uri": None, "tune": 0},
        ),
        (
            "train d e --out m --until 2023-01-15T02:00:00+02:00 --tracking-uri sqlite:///x.db --tune 30",
            {
                "datasets": [Path("d"), Path("e")],
                "out": Path("m"),
                "until_us": DAY,
                "tracking_uri": "sqlite:///x.db",
                "tune": 30,
            },
        ),
        (
            "evaluate d --model m --from 2023-01-15 --to 2023-01-16 --out o",
            {
                "dataset": Path("d"),
                "model": Path("m"),
                "from_us": DAY,
                "to_us": NEXT_DAY,
                "every_us": every,
                "out": Path("o"),
                "margin": False,
            },
        ),
        (
            "score d --model m --at 2023-01-16 --at 2023-01-15 --out o",
            {
                "dataset": Path("d"),
                "model": Path("m"),
                "times_us": [NEXT_DAY, DAY],
                "from_us": None,
                "to_us": None,
                "every_us": None,
                "out": Path("o"),
            },
        ),
        (
            "score d --model m --from 2023-01-15 --to 2023-01-15 --every 4h --out o",
            {
                "dataset": Path("d"),
                "model": Path("m"),
                "times_us": None,
                "from_us": DAY,
                "to_us": DAY,
                "every_us": every,
                "out": Path("o"),
            },
        ),
        (
            "serve --model m",
            {"options": Options(Path("m"), clock="wall")},
        ),
        (
            "serve --model m --dataset d --host ::1 --port 0",
            {"options": Options(Path("m"), Path("d"), host="::1", port=0)},
        ),
        (
            "serve --model m --dataset d --clock wall --host localhost",
            {"options": Options(Path("m"), Path("d"), clock="wall", host="localhost")},
        ),
    ]
    for request, expected in requests:
        stages.clear()
        assert run(request.split()) == 0, request
        assert stages == {request.split(maxsplit=1)[0]: expected}


SCORE = "score d --model m --out o"
EVALUATE = "evaluate d --model m --out o"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ("", "no command given"),
        ("--nope", "--nope"),
        ("nope", "No such command 'nope'"),
        *((f"{name} x", f"No such command '{name}'") for name in ("liquidate", "monitor")),
        ("check", "DATASET"),
        ("check ''", "empty path"),
        ("check d e", "extra argument"),
        ("check d --json=1", "--json"),
        ("check d --jsn", "--jsn"),
        ("demo --dataset", "--dataset"),
        ("demo --out none/there", "none/there: the folder"),
        ("demo --out file", "file: is a file"),
        ("demo --out file/inside", "file is not a folder"),
        ("simulate", "OUT"),
        ("simulate none/there", "none/there: the folder"),
        ("simulate o --accounts 0", "--accounts: '0' is not a whole number from 1 to 1000000"),
        ("simulate o --accounts -5", "--accounts: '-5'"),
        ("simulate o --accounts 1.5", "--accounts: '1.5'"),
        ("simulate o --accounts many", "--accounts: 'many'"),
        ("simulate o --accounts 1000001", "--accounts: '1000001'"),
        ("simulate o --days 0", "--days: '0' is not a number"),
        ("simulate o --days -1", "--days: '-1'"),
        ("simulate o --days nan", "--days: 'nan'"),
        ("simulate o --days inf", "--days: 'inf'"),
        ("simulate o --days 1e300", "--days: '1e300'"),
        ("simulate o --seed -1", "--seed: '-1'"),
        ("simulate o --seed 1e3", "--seed: '1e3'"),
        ("simulate o --from 2023-01-01", "--from and --to choose from the prices of --prices"),
        ("simulate o --to 2023-01-01", "--from and --to choose from the prices of --prices"),
        ("simulate o --from soon --prices p", "--from: 'soon'"),
        ("simulate o --prices p --scenario crash", "--scenario is of generated prices"),
        ("ingest", "ADAPTER"),
        ("ingest binance-vision s", "OUT"),
        ("ingest binance-vision '' o", "empty path"),
        ("ingest binance-vision s none/there", "none/there: the folder"),
        ("train --out m", "DATASET"),
        ("train d", "--out"),
        ("train d --out m --until soon", "--until: 'soon' is not an ISO 8601 time"),
        ("train d --out m --tune -1", "--tune: '-1' is not a whole number from 0 to 1000"),
        ("train d --out m --tune many", "--tune: 'many' is not a whole number"),
        ("train d --out none/there", "none/there: the folder"),
        (EVALUATE, "--from"),
        (f"{EVALUATE} --from 2023-01-01", "--to"),
        (f"{EVALUATE} --from 2023-01-02 --to 2023-01-01", "--to '2023-01-01' is before --from '2023-01-02'"),
        (f"{EVALUATE} --from 2023-02-30 --to 2023-03-01", "--from: '2023-02-30'"),
        (f"{EVALUATE} --from 2023-01-01 --to 2023-13-01", "--to: '2023-13-01'"),
        (
            f"{EVALUATE} --from 2023-01-01 --to 2023-01-02 --every 0h",
            "--every: '0h' is shorter than a minute",
        ),
        (f"{EVALUATE} --from 2023-01-01 --to 2023-01-02 --every -4h", "--every: '-4h'"),
        (f"{EVALUATE} --from 2023-01-01 --to 2023-01-02 --every 4", "--every: '4' is not a duration"),
        ("evaluate d --out o --from 2023-01-01 --to 2023-01-02", "--model"),
        (SCORE, "no decision times: give --at, or --from, --to and --every"),
        (f"{SCORE} --at 2023-01-01 --from 2023-01-01 --to 2023-01-02 --every 4h", "--at cannot be combined"),
        (f"{SCORE} --at 2023-01-01 --every 4h", "--at cannot be combined"),
        (f"{SCORE} --from 2023-01-01 --to 2023-01-02", "--every missing"),
        (f"{SCORE} --every 4h", "--from and --to missing"),
        (f"{SCORE} --from 2023-01-02T00:00:01 --to 2023-01-02 --every 4h", "is before --from"),
        (f"{SCORE} --at 2023-01-01 --at 1673769600", "--at: '1673769600'"),
        (f"{SCORE} --at ''", "--at: ''"),
        ("score d --model m --at 2023-01-01 --out folder", "folder: is a folder"),
        ("score d --model m --at 2023-01-01 --out none/there", "none/there: the folder"),
        ("score d --model m --at 2023-01-01 --out /dev/null", "/dev/null: is not a regular file"),
        ("serve", "--model"),
        ("serve --model m --port 65536", "--port: '65536'"),
        ("serve --model m --port -1", "--port: '-1'"),
        ("serve --model m --port http", "--port: 'http'"),
        ("serve --model m --clock sun", "--clock: 'sun' is neither event nor wall"),
        ("serve --model m --host 0.0.0.0", "--host: '0.0.0.0' is not a loopback address"),
        ("serve --model m --host ::", "--host: '::' is not a loopback address"),
        ("serve --model m --host ''", "--host: ''"),
        ("serve --model m --host example.org", "--host: 'example.org'"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_reaches_no_stage(
    request_: str,
    says: str,
    stages: dict[str, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert run(shlex.split(request_)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: .+\n", captured.err), "one line"
    assert says in captured.err
    assert not stages
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


class DatasetError(InputError):
    """As a layer of its own would add."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("fills.parquet: column price: nan"), 2, "fills.parquet: column price: nan"),
        (DatasetError("d: no dataset.json"), 2, "d: no dataset.json"),
        (WorkError("the model did not converge"), 1, "the model did not converge"),
        (PerpriskError("something expected"), 1, "something expected"),
        (InputError("two\nlines\n"), 2, "two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device", "out/scores"), 1, "out/scores: No space left on device"),
        (ValueError("odd\nthing"), 1, "unexpected ValueError: odd thing (PERPRISK_DEBUG=1 shows where)"),
        (
            BaseException("a panic below Python"),
            1,
            "unexpected BaseException: a panic below Python (PERPRISK",
        ),
    ],
)
def test_whatever_fails_is_one_line_with_its_exit_code(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PERPRISK_DEBUG", raising=False)
    fail_with(monkeypatch, error)
    assert run(["check", "d"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {line}")
    assert captured.err.count("\n") == 1


def test_the_place_of_a_failure_is_shown_on_request_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERPRISK_DEBUG", "1")
    fail_with(monkeypatch, ValueError("odd"))
    assert run(["check", "d"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_stage_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "check", types.SimpleNamespace(run=lambda **_: 1), raising=False)
    assert run(["check", "d"]) == 1


def python(code: str, **options: Any) -> subprocess.Popen[str]:
    """A process of its own in which `check` runs the given body."""
    program = f"""
import os, signal, sys, types
from pathlib import Path
import pipelines
from pipelines import cli, output
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup, and who inherits from it, ignore
def stage(**_):
{"".join(f"    {line}" + chr(10) for line in code.splitlines())}
pipelines.check = types.SimpleNamespace(run=stage)
sys.argv = ["perprisk", "check", "d"]
sys.exit(cli.main())
"""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "error: interrupted\n"),
        (signal.SIGTERM, 143, "error: terminated\n"),
        (signal.SIGHUP, 143, "error: terminated\n"),
    ],
)
def test_a_command_told_to_stop_clears_up_and_says_so(
    number: signal.Signals, code: int, says: str, tmp_path: Path
) -> None:
    process = python(
        f"with output.atomic_dir(Path('result'), 'marker') as new:\n"
        f"    (new / 'marker').write_text('half')\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        f"    signal.pause()",
        cwd=tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", says)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_left_is_no_error_to_speak_of() -> None:
    process = python("for _ in range(100_000):\n    print('a line')\nreturn 0")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_a_broken_connection_elsewhere_is_told() -> None:
    process = python("raise BrokenPipeError(32, 'Broken pipe')")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("error: unexpected BrokenPipeError")


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from pipelines.cli import run; run(['--help']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_version_is_that_of_the_installed_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert capsys.readouterr().out == f"perprisk {declared[1]}\n"
