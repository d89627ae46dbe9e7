"""Walk-forward: one replay serves all windows, and each window knows what a history of its own would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import walk_forward
from benchmarks.windows import Window, windows
from exchange.errors import InputError
from exchange.units import DAY_US
from models.rows import Rows
from models.train import train
from pipelines.evaluate import judge
from pipelines.replay import DEFAULT_EVERY_US, training_rows
from pipelines.store import Dataset
from pipelines.times import format_time
from pipelines.train import passing_scorer

DRAWS = 5


@pytest.fixture(scope="module")
def cuts(small_dataset: Path) -> list[str]:
    start_us = Dataset.open(small_dataset).meta.start_us
    return [format_time(start_us + days * DAY_US) for days in (4, 6)]


@pytest.fixture(scope="module")
def found(small_dataset: Path, cuts: list[str]) -> list[Window]:
    return windows(small_dataset, cuts)


def same(one: Rows, other: Rows) -> None:
    for name, mine, theirs in zip(Rows._fields, one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


def test_training_rows_are_those_of_a_history_that_ends_at_the_cut(
    small_dataset: Path, found: list[Window]
) -> None:
    dataset = Dataset.open(small_dataset, "accounts")
    for window in found:
        expected = training_rows(dataset, DEFAULT_EVERY_US, window.cut_us)
        assert (expected.liquidated_us <= window.cut_us).any(), "nothing came that could be known too early"
        same(window.training, expected)


def test_windows_are_judged_as_one_by_one(small_dataset: Path, found: list[Window]) -> None:
    dataset = Dataset.open(small_dataset, "accounts")
    for window in found:
        trained = train(window.training)
        alone = judge(dataset, passing_scorer(trained), window.cut_us, window.end_us, DEFAULT_EVERY_US, DRAWS)
        same(window.judged, alone.rows)
        described = alone.card["dataset"]
        assert window.judge(trained, DRAWS, described).card == alone.card
    assert found[0].judged.time_us.max() < found[1].cut_us - DAY_US


def test_a_cut_outside_the_history_is_refused(small_dataset: Path) -> None:
    with pytest.raises(InputError, match="nothing to train on before 2001-01-01"):
        windows(small_dataset, ["2001-01-01"])
    with pytest.raises(InputError, match="nothing to judge after 2101-01-01"):
        windows(small_dataset, ["2101-01-01"])


def test_the_program_prints_every_window_with_its_parts(
    small_dataset: Path, cuts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    asked = ["--cut", cuts[0], "--cut", cuts[1], "--draws", str(DRAWS), "--panels", "--json", str(file)]
    assert walk_forward.main([str(small_dataset), *asked]) == 0
    text = capsys.readouterr().out
    assert text.count("## Trained before") == 2
    for part in ("equity below $100", "weighted by notional", "net long", "net short", "calm time"):
        assert text.count(f"\n| {part} ") == 4, "two windows, two horizons"
    assert text.count("defaults flagged, at 30% precision") == 4
    written = json.loads(file.read_text())
    panel = next(p for p in written[0]["panels"] if p["population"] == "all")
    assert panel["model"] == written[0]["card"]["targets"]["liquidation"]["24h"]["all"]["model"]
    assert walk_forward.main([str(tmp_path)]) == 2
