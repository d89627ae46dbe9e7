"""Followers: what another process logged is what they know, and what it took back they never knew."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import InputError
from serving.codec import JSON
from serving.engine import Engine
from serving.frames import LogError
from serving.log import MAGIC, EventLog, LogReader
from serving.wire import RefusalError, ScoreRequest
from tests.serving import stories as tell
from tests.serving.stories import FakeScorer, asked, question, send, story

OWNER = b"a venue"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


def writer(path: Path) -> Engine:
    return Engine(FakeScorer(), log=EventLog.open(path, OWNER))


def follower(path: Path) -> Engine:
    return Engine(FakeScorer(), log=LogReader.open(path, OWNER))


def test_a_follower_knows_at_every_sequence_what_the_writer_knows(path: Path) -> None:
    engine = writer(path)
    early = follower(path)
    for number, event in enumerate(story()):
        send(engine, [event])
        assert early.catch_up() == 1
        assert early.catch_up() == 0
        assert early.sequence == engine.sequence == number + 1
        assert early.venue.digest() == engine.venue.digest()
    late = follower(path)
    assert late.venue.digest() == engine.venue.digest()
    assert late.venue.names == engine.venue.names


def test_every_question_is_answered_from_all_that_was_logged(path: Path) -> None:
    engine, other = writer(path), follower(path)
    with pytest.raises(RefusalError) as refused:
        other.score(question("ann"))
    assert refused.value.code == "no_events_yet"
    send(engine, story())
    assert other.score(ScoreRequest("ann", min_sequence=len(story()))) == engine.score(question("ann"))
    send(engine, [tell.transfer(9, "ann", 500.0)])
    assert JSON.encode(other.account("ann")) == JSON.encode(engine.account("ann"))
    assert other.account("ann").sequence == engine.sequence
    with pytest.raises(RefusalError) as refused:
        other.score(ScoreRequest("ann", min_sequence=engine.sequence + 1))
    assert refused.value.code == "sequence_not_reached"


def test_a_follower_takes_no_events(path: Path) -> None:
    engine = writer(path)
    send(engine, story())
    other = follower(path)
    with pytest.raises(RefusalError) as refused:
        other.take(asked([tell.transfer(9, "ann", 1.0)]))
    assert (refused.value.status, refused.value.code) == (503, "not_the_writer")
    assert other.sequence == engine.sequence


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=6), st.data())
@settings(max_examples=60)
def test_a_frame_is_there_once_all_of_it_is(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = EventLog.open(folder / "whole", OWNER)
    ends = [log.end]
    for payload in payloads:
        log.append(payload)
        ends.append(log.end)
    whole = (folder / "whole").read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(ends[0], len(whole)), max_size=8)))
    (folder / "grows").write_bytes(whole[: ends[0]])
    reader = LogReader.open(folder / "grows", OWNER)
    found: list[bytes] = []
    for cut in [*cuts, len(whole)]:
        with (folder / "grows").open("ab") as file:
            file.write(whole[file.tell() : cut])
        found += [frame.payload for frame in reader.fresh()]
        assert found == payloads[: sum(end <= cut for end in ends[1:])]


@pytest.mark.parametrize("written", [1, 11, 12, 40])
def test_what_the_writer_takes_back_was_never_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    engine, other = writer(path), follower(path)
    send(engine, story())
    pwrite, ftruncate = os.pwrite, os.ftruncate
    looks = []

    def full(descriptor: int, content: bytes, offset: int) -> int:
        if looks:
            raise OSError(28, "No space left on device")
        looks.append(pwrite(descriptor, content[:written], offset))
        assert other.catch_up() == len(story())  # the torn frame lies in the file now
        return written

    def look(descriptor: int, length: int) -> None:
        assert other.catch_up() == 0
        ftruncate(descriptor, length)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "ftruncate", look)
    with pytest.raises(RefusalError):
        engine.take(asked([tell.transfer(9, "ann", 1.0)]))
    monkeypatch.undo()
    assert other.catch_up() == 0
    send(engine, [tell.transfer(9, "bob", 7.0)])  # another one in its place
    assert other.catch_up() == 1
    assert other.venue.digest() == engine.venue.digest()


def test_a_torn_end_that_stays_is_not_there_and_is_written_over_by_the_next_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = writer(path), follower(path)
    send(engine, story())

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with path.open("ab") as file:
        file.write(b"\x40\0\0\0torn")
    monkeypatch.setattr(os, "pwrite", fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(RefusalError):
        engine.take(asked([tell.transfer(9, "ann", 1.0)]))
    monkeypatch.undo()
    assert engine.fault is not None  # what lies at the end of the file is not known
    with pytest.raises(RefusalError):
        engine.take(asked([tell.transfer(9, "ann", 1.0)]))
    assert other.catch_up() == len(story())
    engine.close()
    again = writer(path)
    send(again, [tell.transfer(9, "bob", 7.0)])
    assert other.catch_up() == 1
    assert other.venue.digest() == again.venue.digest()


def payload(number: int) -> bytes:
    return Random(number).randbytes(1 + number * 7919 % 30_000)


def test_a_reader_keeps_up_with_a_process_that_writes_and_takes_back(path: Path) -> None:
    frames, chance = 600, Random(2)
    EventLog.open(path, OWNER).close()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            pwrite = os.pwrite

            def torn(descriptor: int, content: bytes, offset: int) -> int:
                if chance.random() < 0.3:
                    pwrite(descriptor, content[: chance.randrange(len(content))], offset)
                    raise OSError(28, "No space left on device")
                return pwrite(descriptor, content, offset)

            os.pwrite = torn
            log = EventLog.open(path, OWNER)
            number = 0
            while number < frames:
                with suppress(LogError):
                    log.append(payload(number))
                    number += 1
        finally:
            os._exit(0)
    reader = LogReader.open(path, OWNER)
    found: list[bytes] = []
    while True:
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        found += [frame.payload for frame in reader.fresh()]
        if ended:
            break
    assert found == [payload(number) for number in range(frames)]


def test_damage_stops_a_follower_for_good(path: Path) -> None:
    engine, other = writer(path), follower(path)
    send(engine, story()[:5])
    assert other.catch_up() == 5
    start = path.stat().st_size
    send(engine, story()[5:])
    send(engine, [tell.transfer(9, "ann", 1.0)])
    content = bytearray(path.read_bytes())
    content[start + 40] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(RefusalError) as refused:
            other.score(question("ann"))
        assert (refused.value.status, refused.value.code) == (503, "failed")
    assert "damaged" in str(other.fault)
    assert other.sequence == 5


def test_a_frame_that_does_not_follow_is_not_applied(path: Path) -> None:
    engine = writer(path)
    for event in story():
        send(engine, [event])
    log = EventLog.open(path.with_name("other"), OWNER)
    for number, frame in enumerate(engine._log.frames()):  # type: ignore[union-attr]
        if number != 3:
            log.append(frame.payload)
    log.close()
    with pytest.raises(RefusalError, match="does not follow 3"):
        follower(path.with_name("other"))
    with pytest.raises(LogError, match="does not follow 3"):
        writer(path.with_name("other"))


def test_a_log_that_shrinks_is_noticed(path: Path) -> None:
    engine, other = writer(path), follower(path)
    send(engine, story())
    other.catch_up()
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(RefusalError, match="shorter"):
        other.catch_up()


def test_a_reader_reads_only_the_log_of_its_own_state(path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        LogReader.open(path, OWNER)
    writer(path).close()
    with pytest.raises(InputError, match="another state"):
        LogReader.open(path, b"other!!")
    path.write_bytes(MAGIC[:-1] + b"1" + bytes(30))
    with pytest.raises(InputError, match="another version"):
        LogReader.open(path, OWNER)
    path.write_bytes(b"somebody's letter")
    with pytest.raises(InputError, match="no event log"):
        LogReader.open(path, OWNER)
