"""Snapshots: a restart from one is a restart from the log, and one that is not sound is not used."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest

from features.venue import Venue
from serving import entries, snapshot
from serving.engine import Engine
from serving.log import EventLog, LogReader
from serving.snapshot import SnapshotError
from tests.serving import stories as tell
from tests.serving.stories import Event, FakeScorer, question, send, story
from tests.serving.test_intake import known

OWNER = b"a venue"


def writer(path: Path) -> Engine:
    return Engine(FakeScorer(), log=EventLog.open(path, OWNER))


def restarted(path: Path) -> Engine:
    """An engine from the newest snapshot, if any, and the log."""
    log = EventLog.open(path, OWNER)
    found = snapshot.newest(log)
    return Engine(FakeScorer(), log=log) if found is None else Engine.restore(FakeScorer(), found, log=log)


def long_story() -> list[Event]:
    """Enough for lists of slots to be taken apart and for tables to grow."""
    chance = Random(5)
    names = [f"acc-{number}" for number in range(150)]
    events = [*story(), *(tell.account(name, 8, owner=f"o{number % 9}") for number, name in enumerate(names))]
    minute = 9.0
    for _ in range(600):
        minute += 0.1
        name, market = chance.choice(names), chance.choice(["BTC", "SOL"])
        mark = 60_000.0 if market == "BTC" else 100.0
        events.append(
            chance.choice(
                [
                    tell.fill(minute, name, chance.choice([1.0, -1.0]), mark, market=market),
                    tell.transfer(minute, name, 10.0),
                    tell.bar(minute, mark * chance.uniform(0.99, 1.01), market),
                ]
            )
        )
    events.append(tell.snapshot(minute + 1, "acc-3", 5.0, balances=[{"asset": "USD", "amount": 5.0}]))
    return [{**event, "sequence": number} for number, event in enumerate(events)]


def test_a_restart_at_100_points_recovers_the_exact_state_with_snapshots_and_without(tmp_path: Path) -> None:
    events, chance = long_story(), Random(11)
    with_snapshots, without = tmp_path / "with" / "events.log", tmp_path / "without" / "events.log"
    with_snapshots.parent.mkdir()
    without.parent.mkdir()
    plain = Engine(FakeScorer())
    cuts = sorted(chance.sample(range(1, len(events)), 99))
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        engines = [restarted(with_snapshots), restarted(without)]
        for engine in (plain, *engines):
            send(engine, events[start:end], "feed")
        assert known(engines[0]) == known(engines[1]) == known(plain)
        if chance.random() < 0.4:
            engines[0].snapshot()
        for engine in engines:
            os.close(engine._log._descriptor)  # type: ignore[union-attr]  # the process dies here
    assert len(list(with_snapshots.parent.glob("*.snapshot"))) == snapshot.KEPT
    last = restarted(with_snapshots)
    assert known(last) == known(plain)
    assert send(last, events, "feed").sequence == len(events)  # and it knows all of them as repeats
    assert last.score(question("bob")) == plain.score(question("bob"))


def test_a_restart_applies_only_the_tail_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.log"
    engine = writer(path)
    send(engine, story()[:-1])
    engine.snapshot()
    send(engine, story()[-1:])
    engine.close()
    monkeypatch.setattr(entries, "decode", decoded := Mock(side_effect=entries.decode))
    assert known(restarted(path)) == known(engine)
    assert decoded.call_count == 1


def test_followers_begin_from_a_snapshot_too(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    engine = writer(path)
    send(engine, story())
    first = Engine(FakeScorer(), log=LogReader.open(path, OWNER))
    first.snapshot()
    send(engine, [tell.transfer(9, "ann", 1.0)])
    reader = LogReader.open(path, OWNER)
    found = snapshot.newest(reader)
    assert found is not None
    second = Engine.restore(FakeScorer(), found, log=reader)
    assert known(second) == known(engine)
    send(engine, [tell.transfer(9, "bob", 1.0)])
    assert second.catch_up() == 1
    assert known(second) == known(engine)


def test_a_beginning_is_handed_over_in_a_file(tmp_path: Path) -> None:
    warmed = Engine(FakeScorer())
    send(warmed, story())
    snapshot.write(tmp_path / "beginning", snapshot.beginning(warmed.venue, "USD", OWNER))
    path = tmp_path / "events.log"
    engine = Engine(FakeScorer(), venue=warmed.venue, log=EventLog.open(path, OWNER))
    send(engine, [tell.transfer(9, "ann", 1.0)])
    other = Engine.restore(
        FakeScorer(), snapshot.read(tmp_path / "beginning"), log=LogReader.open(path, OWNER)
    )
    assert known(other) == known(engine)
    assert other.sequence == 1
    late = [tell.fill(7, "ann", 1.0, 60_000.0)]
    alone = Engine.restore(FakeScorer(), snapshot.read(tmp_path / "beginning"))
    assert [entry.code for entry in alone.take(tell.asked(late)).rejected] == ["late"]


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_that_is_torn_or_damaged_is_passed_over(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.log"
    engine = writer(path)
    send(engine, story()[:10])
    older = engine.snapshot()
    send(engine, story()[10:])
    newer = engine.snapshot()
    engine.close()
    whole = newer.read_bytes()
    chance = Random(seed)
    flips = [
        (place, 1 << chance.randrange(8)) for place in [*range(12), *chance.sample(range(len(whole)), 40)]
    ]
    for damaged in [
        *(whole[:length] for length in chance.sample(range(len(whole)), 20)),
        *(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :] for place, bit in flips),
        whole + b"\0",
    ]:
        newer.write_bytes(damaged)
        caplog.clear()
        with_log = EventLog.open(path, OWNER)
        found = snapshot.newest(with_log)
        assert found is not None
        assert found.sequence == 10
        assert newer.name in caplog.text
        with_log.close()
    again = restarted(path)
    assert known(again) == known(engine)
    again.close()
    older.unlink()
    again = restarted(path)  # none is left that is sound: from the start of the log
    assert known(again) == known(engine)


def test_snapshots_of_another_version_or_log_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = writer(tmp_path / "events.log")
    send(engine, story())
    written = engine.snapshot()
    other = EventLog.open(tmp_path / "other.log", b"another")
    written.rename(tmp_path / f"other-{99:020}.snapshot")
    assert snapshot.newest(other) is None
    assert "not of this event log" in caplog.text
    with pytest.raises(SnapshotError, match="not of this event log"):
        Engine.restore(FakeScorer(), snapshot.read(tmp_path / f"other-{99:020}.snapshot"), log=other)
    engine.snapshot()
    monkeypatch.setattr(snapshot, "layout", lambda: "otherwise")
    assert snapshot.newest(engine._log) is None  # type: ignore[arg-type]
    assert "another version" in caplog.text


def test_a_snapshot_of_frames_that_the_log_does_not_hold_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    engine = writer(path)
    send(engine, story())
    before = path.read_bytes()
    send(engine, [tell.transfer(9, "ann", 1.0)])
    engine.snapshot()
    engine.close()
    path.write_bytes(before)  # the disk lost the end, whatever had been synced
    again = restarted(path)
    assert again.sequence == len(story())
    send(again, [tell.transfer(9, "bob", 2.0)])  # as many bytes, and not the same
    digest = again.venue.digest()
    again.close()
    assert restarted(path).venue.digest() == digest


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = writer(tmp_path / "events.log")
    send(engine, story())
    kept = engine.snapshot()
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SnapshotError, match="No space"):
        engine.snapshot()
    monkeypatch.setattr(os, "fsync", fsync)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["events.log", kept.name])
    assert snapshot.read(kept).sequence == len(story())
    with pytest.raises(SnapshotError):
        Engine(FakeScorer(), venue=Venue()).snapshot()
