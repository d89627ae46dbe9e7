"""The event log: what was acknowledged is there after anything that can happen to a process or a file."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import InputError, PerpriskError
from serving.engine import Engine
from serving.frames import LogError
from serving.log import MAGIC, EventLog
from serving.wire import RefusalError
from tests.serving import stories as tell
from tests.serving.stories import FakeScorer, asked, send, story

OWNER = b"a venue"
HEADER = len(MAGIC) + 12 + len(OWNER)


def filled(path: Path, payloads: list[bytes]) -> None:
    log = EventLog.open(path, OWNER)
    for payload in payloads:
        log.append(payload)
    log.close()


def payloads_of(path: Path) -> list[bytes]:
    log = EventLog.open(path, OWNER)
    try:
        return list(log.payloads())
    finally:
        log.close()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
@settings(max_examples=30)
def test_what_was_appended_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "events"
    for part in (payloads[: len(payloads) // 2], payloads[len(payloads) // 2 :]):
        filled(path, part)  # and a log goes on where it ended
    assert payloads_of(path) == payloads


def test_a_torn_end_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    payloads = [b"one" * 5, b"two" * 7, b"three" * 9]
    path = tmp_path / "events"
    filled(path, payloads)
    whole = path.read_bytes()
    ends = [HEADER]
    for payload in payloads:
        ends.append(ends[-1] + 12 + len(payload))
    assert ends[-1] == len(whole)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = max((n for n, end in enumerate(ends) if end <= length), default=0)
        assert payloads_of(path) == payloads[:kept], length
        assert path.stat().st_size == ends[kept]
    path.write_bytes(whole + bytes(5_000))  # a file that grew before its content came
    assert payloads_of(path) == payloads


def test_a_flipped_bit_is_never_taken_for_an_event(tmp_path: Path) -> None:
    payloads = [b"one" * 5, b"two" * 7, b"three" * 9]
    path = tmp_path / "events"
    filled(path, payloads)
    whole = path.read_bytes()
    last = len(whole) - len(payloads[-1])  # a bad end cannot be told from a torn one
    chance = Random(7)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        if place >= last:
            assert payloads_of(path) == payloads[:-1]
        else:
            with pytest.raises(PerpriskError, match=str(path)):
                payloads_of(path)
            assert path.read_bytes() == bytes(damaged)  # it may still be mended


def test_a_log_belongs_to_one_state_and_one_process(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = EventLog.open(path, OWNER)
    with pytest.raises(InputError, match="another process"):
        EventLog.open(path, OWNER)
    log.close()
    with pytest.raises(InputError, match="another state"):
        EventLog.open(path, b"other!!")
    path.write_bytes(b"somebody's letter")
    with pytest.raises(InputError, match="no event log"):
        EventLog.open(path, OWNER)
    assert path.read_bytes() == b"somebody's letter"
    with pytest.raises(InputError, match="cannot be written"):
        EventLog.open(tmp_path, OWNER)


def test_a_restart_at_any_moment_recovers_the_exact_state(tmp_path: Path) -> None:
    events = [{**event, "sequence": number} for number, event in enumerate(story())]
    plain = Engine(FakeScorer())
    for number, event in enumerate(events):
        send(plain, [event], "feed")
        engine = Engine(FakeScorer(), log=EventLog.open(tmp_path / "events", OWNER))
        assert engine.sequence == number
        send(engine, [event], "feed")
        assert send(engine, events[: number + 1], "feed").sequence == number + 1  # it knows repeats
        assert engine.venue.digest() == plain.venue.digest()
        os.close(engine._log._descriptor)  # type: ignore[union-attr]  # the process dies here
    late = Engine(FakeScorer(), log=EventLog.open(tmp_path / "events", OWNER))
    assert [entry.code for entry in late.take(asked([tell.bar(1, 5.0)])).rejected] == ["late"]


def test_only_what_was_accepted_is_recovered(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path / "events", OWNER)
    engine = Engine(FakeScorer(), log=log)
    send(engine, story())
    answer = engine.take(
        asked([tell.transfer(9, "ann", 1.0), tell.transfer(9, "zoe", 1.0), tell.bar(2, 1.0)])
    )
    assert answer.accepted == 1
    engine.close()
    again = Engine(FakeScorer(), log=EventLog.open(tmp_path / "events", OWNER))
    assert again.sequence == engine.sequence == len(story()) + 1
    assert again.venue.digest() == engine.venue.digest()


@pytest.mark.parametrize("written", [0, 1, 11, 12, 40])
def test_what_cannot_be_written_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    log = EventLog.open(tmp_path / "events", OWNER)
    engine = Engine(FakeScorer(), log=log)
    send(engine, story())
    digest = engine.venue.digest()
    pwrite = os.pwrite

    def full(descriptor: int, content: bytes, offset: int) -> int:
        if written and len(content) > written:
            pwrite(descriptor, content[:written], offset)
            monkeypatch.setattr(os, "pwrite", nothing)
            return written
        raise OSError(28, "No space left on device")

    def nothing(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RefusalError) as refused:
        engine.take(asked([tell.transfer(9, "ann", 1.0)]))
    assert (refused.value.status, refused.value.code) == (503, "log_unavailable")
    assert engine.venue.digest() == digest
    assert engine.venue.account_names == ["ann", "bob", "cem"]
    monkeypatch.setattr(os, "pwrite", pwrite)
    send(engine, [tell.transfer(9, "ann", 1.0)])  # there is room again
    engine.close()
    again = Engine(FakeScorer(), log=EventLog.open(tmp_path / "events", OWNER))
    assert again.venue.digest() == engine.venue.digest() != digest


def test_after_a_failed_sync_nothing_is_accepted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(FakeScorer(), log=EventLog.open(tmp_path / "events", OWNER))
    send(engine, story())

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(LogError):
        engine.sync()
    monkeypatch.undo()
    engine.sync()  # would succeed now, and prove nothing about what was lost
    assert engine.fault is not None
    with pytest.raises(RefusalError):
        engine.take(asked([tell.transfer(9, "ann", 1.0)]))
