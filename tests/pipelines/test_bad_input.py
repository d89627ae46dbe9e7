"""Whatever is wrong with a request or its input: one line that names it, the right exit code, nothing left.

Three tables of what can be wrong (datasets, models, requests), each tried on every command that could
stumble over it.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features import catalog
from models.bundle import FILES, MANIFEST, Bundle, fill_bundle
from pipelines import serve
from pipelines.cli import run
from tests.pipelines import dataset_builder as build

ROOT = Path(__file__).resolve().parents[2]
STRETCH = 12
"""The dataset made by hand covers twelve hours; stretched, its labels of a day can be known."""

NOON = "2024-03-05T12:00:00Z"
Break = Callable[[Path], object]

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
    monkeypatch.setattr(serve, "serve", never)
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


# ---- datasets --------------------------------------------------------------------------------------


def file(name: str, content: bytes) -> Break:
    return lambda place: (place / "data" / name).write_bytes(content)


def cut(name: str, share: float) -> Break:
    def how(place: Path) -> None:
        target = place / "data" / name
        content = target.read_bytes()
        target.write_bytes(content[: int(len(content) * share)])

    return how


def scrambled(name: str) -> Break:
    """Pages overwritten while the footer stays whole."""

    def how(place: Path) -> None:
        target = place / "data" / name
        content = bytearray(target.read_bytes())
        content[8:120] = b"\xff" * 112
        target.write_bytes(content)

    return how


def gone(*tables: str) -> Break:
    def how(place: Path) -> None:
        for table in tables:
            (place / "data" / f"{table}.parquet").unlink()

    return how


def meta(**entries: Any) -> Break:
    def how(place: Path) -> None:
        target = place / "data" / "dataset.json"
        target.write_text(json.dumps(json.loads(target.read_text()) | entries))

    return how


def changed(table: str, how: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    return lambda place: build.change(place / "data", table, how)


def value(table: str, column: str, new: Any, row: int = 0) -> Break:
    return lambda place: build.set_value(place / "data", table, column, new, row)


def twice(table: str) -> Break:
    return changed(table, lambda rows: pl.concat([rows, rows.head(1)]))


def folder_of(table: str) -> Break:
    def how(place: Path) -> None:
        (place / "data" / f"{table}.parquet").unlink()
        (place / "data" / table).mkdir()

    return how


def replaced(by: str) -> Break:
    def how(place: Path) -> None:
        shutil.rmtree(place / "data")
        if by == "nothing":
            return
        if by == "file":
            (place / "data").write_text("somebody's\n")
        else:
            shutil.copytree(place / by, place / "data")

    return how


TIER = build.tier
UNSORTED = [TIER(2e5, 0.1, 0.05), TIER(1e5, 0.2, 0.1), TIER(None, 0.3, 0.2)]
MAINTENANCE_ABOVE = [TIER(None, 0.1, 0.2)]
FAR = pl.lit(2**62).cast(build.TIME)
ALL = ("check", "train", "evaluate", "score", "serve", "demo")
SOME = ("check", "train", "score")  # the others read in the same way
LABELS = ("check", "train", "evaluate")
WHOLE = ("check", "serve")

DATASETS: dict[str, tuple[tuple[str, ...], Break, str]] = {
    # -- what is no dataset
    "empty folder": (ALL, replaced("empty"), "data/dataset.json | no such file"),
    "no such folder": (ALL, replaced("nothing"), "data | no such folder"),
    "file given for the folder": (ALL, replaced("file"), "data | is a file"),
    "a model given for the dataset": (ALL, replaced("model"), "data/dataset.json"),
    "somebody's folder": (ALL, replaced("full"), "data/dataset.json"),
    "prices where accounts are needed": (
        ALL[1:], replaced("prices"),
        "dataset.json | 'markets' | 'accounts'",
    ),
    # -- dataset.json
    "torn description": (ALL, cut("dataset.json", 0.5), "dataset.json | not JSON"),
    "description of zero bytes": (ALL, file("dataset.json", b""), "dataset.json | not JSON"),
    "description that is a list": (SOME, file("dataset.json", b"[]"), "dataset.json | JSON object"),
    "description not in UTF-8": (SOME, file("dataset.json", b'{"format": "\xff"}'), "dataset.json | UTF-8"),
    "wrong format": (ALL, meta(format="account-story"), "dataset.json | format | 'account-story'"),
    "wrong version": (ALL, meta(version=2), "dataset.json | version | 2"),
    "wrong kind": (ALL, meta(kind="trades"), "dataset.json | kind | 'trades'"),
    "end before start": (SOME, meta(end="2024-02-01"), "dataset.json | end 2024-02-01 | before start"),
    "nonsense for a time": (SOME, meta(start="soon"), "dataset.json | start 'soon'"),
    # -- tables
    "no markets": (ALL, gone("markets"), "markets.parquet | missing"),
    "no bars": (ALL, gone("market_bars"), "market_bars.parquet | missing"),
    "no accounts": (SOME, gone("accounts"), "accounts.parquet | missing"),
    "no events": (SOME, gone("default_events"), "default_events.parquet | missing"),
    "neither fills nor snapshots": (
        SOME,
        gone("fills", "account_snapshots", "position_snapshots", "balance_snapshots"),
        "table fills is missing | account_snapshots with position_snapshots",
    ),
    "zero bytes": (ALL, file("fills.parquet", b""), "fills.parquet | 0 bytes"),
    "truncated": (ALL, cut("market_bars.parquet", 0.7), "market_bars.parquet | Parquet"),
    "garbage": (ALL, file("funding.parquet", random.Random(1).randbytes(2_000)), "funding.parquet | Parquet"),
    "garbage within": (ALL, scrambled("market_bars.parquet"), "market_bars.parquet | Parquet"),
    "a folder without parts": (SOME, folder_of("fills"), "data/fills | no .parquet file"),
    "file and folder": (
        SOME,
        lambda place: (place / "data" / "fills").mkdir(),
        "data/fills | besides fills.parquet",
    ),
    # -- columns
    "missing column": (
        ALL,
        changed("fills", lambda t: t.drop("price")),
        "fills.parquet | column price | missing",
    ),
    "numbers as text": (
        ALL,
        changed("market_bars", lambda t: t.with_columns(pl.col("mark_close").cast(pl.String))),
        "market_bars.parquet | column mark_close | String | float64",
    ),
    "times without a zone": (
        ALL,
        changed("fills", lambda t: t.with_columns(pl.col("time").dt.replace_time_zone(None))),
        "fills.parquet | column time | no zone",
    ),
    "times as numbers": (
        SOME,
        changed("funding", lambda t: t.with_columns(pl.col("time").to_physical())),
        "funding.parquet | column time | Int64",
    ),
    "tiers that are numbers": (
        SOME,
        changed("markets", lambda t: t.with_columns(tiers=pl.lit(0.1))),
        "markets.parquet | column tiers | Float64",
    ),
    "numbers that do not fit": (
        SOME,
        changed("fills", lambda t: t.with_columns(quantity=pl.lit(2**53 + 1))),
        "fills.parquet | column quantity | 9007199254740993",
    ),
    # -- values
    "price NaN": (
        ALL,
        value("market_bars", "mark_close", np.nan),
        "market_bars.parquet | column mark_close | finite",
    ),
    "price infinite": (ALL, value("fills", "price", np.inf), "fills.parquet | column price | finite | inf"),
    "price negative": (
        ALL,
        value("fills", "price", -100.5),
        "fills.parquet | column price | positive | -100.5",
    ),
    "price zero": (
        ALL,
        value("asset_prices", "price", 0.0),
        "asset_prices.parquet | column price | positive | SOL",
    ),
    "bid of nothing": (SOME, value("book_depth", "best_bid", 0.0), "book_depth.parquet | column best_bid"),
    "quantity NaN": (SOME, value("fills", "quantity", np.nan), "fills.parquet | column quantity | zoe"),
    "rate infinite": (
        SOME,
        value("funding", "funding_rate", -np.inf),
        "funding.parquet | column funding_rate",
    ),
    "depth negative": (
        SOME,
        value("book_depth", "bid_usd", [1.0, -1.0]),
        "book_depth.parquet | column bid_usd",
    ),
    "lists of unequal length": (
        SOME,
        value("book_depth", "ask_usd", [1.0]),
        "book_depth.parquet | differ in length",
    ),
    "time null": (SOME, value("transfers", "time", None), "transfers.parquet | column time | null"),
    "name null": (SOME, value("fills", "account_id", None), "fills.parquet | column account_id | null"),
    "unknown market": (
        ALL,
        value("fills", "market", "DOGE"),
        "fills.parquet | column market | 'DOGE' | not in markets",
    ),
    "unknown account": (
        ALL,
        value("transfers", "account_id", "eve"),
        "transfers.parquet | column account_id | 'eve'",
    ),
    "unknown asset": (
        SOME,
        value("asset_prices", "asset", "DOGE"),
        "asset_prices.parquet | column asset | 'DOGE'",
    ),
    "unknown kind of fill": (SOME, value("fills", "kind", "gift"), "fills.parquet | column kind | 'gift'"),
    "unknown margin mode": (
        SOME,
        value("accounts", "margin_mode", "none"),
        "accounts.parquet | margin_mode | 'none'",
    ),
    "bar twice": (ALL, twice("market_bars"), "market_bars.parquet | (time, market) | twice | BTC-PERP"),
    "account twice": (SOME, twice("accounts"), "accounts.parquet | (account_id) | twice | zoe"),
    "asset twice": (SOME, twice("assets"), "assets.parquet | (asset) | twice | USD"),
    "tiers unsorted": (
        ALL,
        value("markets", "tiers", UNSORTED),
        "markets.parquet | column tiers | unsorted | BTC-PERP",
    ),
    "maintenance above initial": (
        ALL,
        value("markets", "tiers", MAINTENANCE_ABOVE),
        "markets.parquet | column tiers",
    ),
    "no tiers": (SOME, value("markets", "tiers", []), "markets.parquet | column tiers | BTC-PERP"),
    "fill before the account opened": (
        SOME,
        value("accounts", "opened_time", build.at(100.0)),
        "transfers.parquet | column account_id | zoe",
    ),
    "positions without their snapshot": (
        SOME,
        changed("account_snapshots", lambda t: t.filter(pl.col("account_id") != "zoe")),
        "position_snapshots.parquet | no row in account_snapshots | zoe",
    ),
    # -- events, which only those who need labels look at
    "unknown kind of event": (
        LABELS,
        value("default_events", "kind", "bust"),
        "default_events.parquet | 'bust'",
    ),
    "shortfall NaN": (
        LABELS,
        value("default_events", "shortfall_usd", np.nan),
        "default_events.parquet | shortfall_usd",
    ),
    "event without a time": (
        LABELS,
        value("default_events", "time", None),
        "default_events.parquet | column time",
    ),
    "event of an unknown account": (
        LABELS,
        value("default_events", "account_id", "eve"),
        "default_events.parquet | 'eve'",
    ),
    "event after the end": (
        LABELS,
        value("default_events", "time", build.at(1_000.0)),
        "default_events.parquet | column time | after the end",
    ),
    # -- what lies after the time asked for is met by those who read it all
    "fill after the end": (
        WHOLE,
        value("fills", "time", build.at(1_000.0), -1),
        "fills.parquet | after the end",
    ),
    "fill in a year that no calendar has": (
        WHOLE,
        changed("fills", lambda t: pl.concat([t, t.head(1).with_columns(time=FAR)])),
        "fills.parquet | after the end | 4611686018427387904",
    ),
}  # fmt: skip


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
        serve.run(place / "model", place / "data", "event", "127.0.0.1", 0)


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


# ---- models ----------------------------------------------------------------------------------------


def flipped(name: str) -> Break:
    def how(place: Path) -> None:
        target = place / "model" / name
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 4
        target.write_bytes(content)

    return how


def model_file(name: str, content: bytes) -> Break:
    return lambda place: (place / "model" / name).write_bytes(content)


def half(name: str) -> Break:
    def how(place: Path) -> None:
        target = place / "model" / name
        content = target.read_bytes()
        target.write_bytes(content[: len(content) // 2])

    return how


def without(name: str) -> Break:
    return lambda place: (place / "model" / name).unlink()


def rewritten(**entries: Any) -> Break:
    """Another manifest, spelt as manifests are."""

    def how(place: Path) -> None:
        target = place / "model" / MANIFEST
        manifest = json.loads(target.read_text()) | entries
        target.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    return how


def remade(**parts: Any) -> Break:
    """A model written anew with other parts, so that every digest is right."""

    def how(place: Path) -> None:
        model = place / "model"
        bundle = Bundle.open(model, catalog.fingerprint())
        shutil.rmtree(model)
        model.mkdir()
        constants = {**bundle.model, **parts.get("model", {})}
        constants = {key: entry for key, entry in constants.items() if entry is not None}
        graph = parts.get("graph", bundle.graph)
        fill_bundle(
            model, graph, constants, bundle.trees, bundle.card, parts.get("fingerprint", bundle.fingerprint)
        )

    return how


def swapped(by: str) -> Break:
    def how(place: Path) -> None:
        shutil.rmtree(place / "model")
        if by == "file":
            (place / "model").write_text("somebody's\n")
        elif by != "nothing":
            shutil.copytree(place / by, place / "model")

    return how


def linked(place: Path) -> None:
    (place / "model" / "model.onnx").rename(place / "model.onnx")
    (place / "model" / "model.onnx").symlink_to(place / "model.onnx")


MODELS: dict[str, tuple[Break, str]] = {
    "no such folder": (swapped("nothing"), "model | no such model folder"),
    "file given for the folder": (swapped("file"), "model | is a file"),
    "empty folder": (swapped("empty"), "model | no manifest.json"),
    "a dataset given for the model": (swapped("data"), "model | does not belong in a model folder"),
    "another catalogue": (
        rewritten(catalogue_fingerprint="0" * 64),
        "model | another feature catalogue | 000000000000 | train the model again",
    ),
    "another catalogue, written properly": (
        remade(fingerprint="f" * 64),
        "model | another feature catalogue",
    ),
    "another version of the format": (rewritten(version=2), "manifest.json | version 2"),
    "another format": (rewritten(format="onnx"), "manifest.json | perprisk-model"),
    "another model version": (rewritten(model_version="0" * 12), "manifest.json | model_version"),
    "torn manifest": (half(MANIFEST), "manifest.json | not readable JSON"),
    "a file too many": (model_file("model.pkl", b"\x80\x04."), "model | 'model.pkl' does not belong"),
    "a link": (linked, "model.onnx | link"),
    "a graph that is none": (remade(graph=b"nonsense"), "model.onnx | cannot be loaded"),
    "no required features": (remade(model={"required_features": None}), "model.json | required_features"),
    "a feature that is not known": (
        remade(model={"required_features": ["luck"]}),
        "model.json | lacks or misstates",
    ),
    "no levels of baselines": (remade(model={"baseline_levels": {}}), "model.json | margin_ratio"),
    "no severity": (remade(model={"mean_severity": None}), "model.json | mean_severity"),
    **{f"tampered {name}": (flipped(name), "model | damaged") for name in (*FILES, MANIFEST)},
    **{f"truncated {name}": (half(name), f"{name} | damaged") for name in FILES},
    **{f"no {name}": (without(name), f"model | {name} is missing") for name in FILES},
}  # fmt: skip


@pytest.mark.parametrize("command", ["evaluate", "score", "serve"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_wrong(
    name: str, command: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    breaking, says = MODELS[name]
    breaking(place)
    refused(COMMANDS[command], place, capfd, says)


# ---- requests --------------------------------------------------------------------------------------

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
