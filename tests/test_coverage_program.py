"""The program that prints coverage of whole venues: one line each, and one of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import coverage


def test_a_line_a_dataset_and_one_of_all(
    small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "coverage.json"
    assert coverage.main([str(small_dataset), str(small_dataset), "--from-day", "2", "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["dataset", "dataset", "together"]
    assert "288" in lines[-1]  # two times six days of hours, of which each portfolio has one light
    assert out.is_file()


def test_a_dataset_that_is_too_short_is_one_line(
    small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coverage.main([str(small_dataset), "--from-day", "30"]) == 2
    assert "no market has bars" in capsys.readouterr().err
