"""Several processes append to one log: one order, no event lost or doubled, and a death stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine import Engine
from serving.frames import LogError
from serving.log import EventLog
from serving.shared_log import SharedLog
from serving.wire import RefusalError
from tests.serving import stories as tell
from tests.serving.stories import FakeScorer, question, send, story

ROOT = Path(__file__).resolve().parents[2]
OWNER = b"a venue"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.log"
    EventLog.open(path, OWNER).close()
    return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


def member(path: Path) -> Engine:
    return Engine(FakeScorer(), log=SharedLog.open(path, OWNER))


@settings(max_examples=40, deadline=None)
@given(turns=st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_whoever_takes_an_event_all_come_to_know_it(
    turns: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.log"
    EventLog.open(path, OWNER).close()
    engines = [member(path) for _ in range(3)]
    alone = Engine(FakeScorer())
    for number, event in enumerate(story()):
        who = turns[number % len(turns)]
        assert send(engines[who], [event]) == send(alone, [event])
        assert engines[who].sequence == number + 1
    for engine in engines:
        assert engine.account("ann").sequence == len(story())
        assert engine.venue.digest() == alone.venue.digest()
        assert engine.score(question("ann")) == alone.score(question("ann"))
        engine.close()


def test_a_repeat_is_harmless_at_another_process(path: Path) -> None:
    one, other = member(path), member(path)
    send(one, story())
    deposit = tell.transfer(9, "ann", 500.0) | {"sequence": 1_000}
    assert send(one, [deposit]).accepted == 1
    before = one.venue.digest()
    assert send(other, [deposit]).accepted == 1
    assert other.sequence == one.sequence
    assert other.venue.digest() == before


def test_what_a_dead_process_left_of_a_frame_is_cut_off(path: Path) -> None:
    one, other = member(path), member(path)
    send(one, story())
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\x10\x00\x00\x00torn")
    assert other.account("ann").sequence == len(story())
    assert send(other, [tell.transfer(9, "ann", 500.0)]).accepted == 1
    assert one.account("ann").sequence == len(story()) + 1
    assert one.venue.digest() == other.venue.digest()
    assert path.stat().st_size > whole
    again = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
    assert again.venue.digest() == one.venue.digest()


def test_a_turn_that_does_not_come_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.shared_log.PATIENCE_S", 0.01)
    one, other = member(path), SharedLog.open(path, OWNER)
    with other.turn(), pytest.raises(RefusalError) as refused:
        send(one, story()[:1])
    assert refused.value.code == "log_unavailable"
    assert one.sequence == 0
    assert send(one, story()[:1]).accepted == 1


def test_what_cannot_be_written_is_not_accepted_and_nobody_comes_to_know_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = member(path), member(path)
    send(one, story()[:5])
    write = os.pwrite

    def half(descriptor: int, content: bytes, offset: int) -> int:
        write(descriptor, content[: len(content) // 2], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(RefusalError):
        send(one, story()[5:6])
    monkeypatch.undo()
    assert other.catch_up() == 5
    assert send(other, story()[5:]).rejected == []
    assert one.catch_up() == len(story()) - 5
    assert one.venue.digest() == other.venue.digest()


SENDER = """
import sys
from pathlib import Path
from serving.engine import Engine
from serving.shared_log import SharedLog
from tests.serving import stories as tell
from tests.serving.stories import FakeScorer, send
engine = Engine(FakeScorer(), log=SharedLog.open(Path(sys.argv[1]), b"a venue"))
number = 0
while True:
    answer = send(engine, [tell.transfer(9, "ann", 1.0) | {"sequence": number}], sys.argv[2])
    assert answer.accepted == 1, answer
    print(number, flush=True)
    number += 1
"""


def test_processes_that_are_killed_lose_nothing_that_they_acknowledged(path: Path) -> None:
    first = member(path)
    send(first, story())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SENDER, str(path), f"source-{number}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    acknowledged = []
    for process in processes:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 20:
                break
        process.send_signal(signal.SIGKILL)
        said = [line, *process.stdout.read().splitlines()]
        acknowledged.append(max(int(entry) for entry in said if entry.strip().isdigit()) + 1)
        process.wait()
    again = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
    first.catch_up()
    assert again.venue.digest() == first.venue.digest()
    taken = again.sequence - len(story())
    assert sum(acknowledged) <= taken <= sum(acknowledged) + len(processes)


def test_a_log_that_is_damaged_is_not_gone_on_with(path: Path) -> None:
    one = member(path)
    send(one, story()[:5])
    send(one, story()[5:10])
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    content += content[-300:]
    path.write_bytes(content)
    late = SharedLog.open(path, OWNER)
    with pytest.raises((LogError, RefusalError)):
        Engine(FakeScorer(), log=late)
