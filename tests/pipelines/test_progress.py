from __future__ import annotations

import os
import pty
import re

import pytest

from pipelines.progress import progress


def work(total: float | None) -> None:
    with progress(total, "Scoring") as bar:
        for _ in range(4):
            bar.advance(1)


def on_a_terminal(total: float | None) -> str:
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        work(total)
        os._exit(0)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how a terminal says that its other side has gone
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.parametrize("total", [4, None])
def test_nothing_is_said_where_nobody_watches(
    total: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    work(total)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_how_far_and_how_long_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", open(2, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115 - not the captured one
    shown = on_a_terminal(4)
    assert "Scoring" in shown
    assert "100%" in shown
    assert re.search(r"\d:\d\d:\d\d", shown)


def test_work_of_unknown_length_shows_the_time_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", open(2, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115
    assert re.search(r"Scoring.*\d:\d\d:\d\d", on_a_terminal(None))
