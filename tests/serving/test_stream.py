"""Streams as they come in practice: out of order, twice, with gaps, from skewed clocks, on failing disks."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import intake
from serving.admission import place_in_time
from serving.engine import Engine
from serving.frames import LogError
from serving.log import EventLog
from serving.wire import RefusalError, to_us
from tests.serving import stories as tell
from tests.serving.stories import START, Event, FakeScorer, asked, send, story
from tests.serving.test_intake import known

OWNER = b"a venue"
SKEW_US = 5_000_000


class Oracle:
    """Which events are accepted, said slowly: those not sent before, in their place, not from the future."""

    def __init__(self, begun: list[Event]) -> None:
        self.accepted = list(begun)
        self._frontier = max(place_in_time(row) for row in asked(begun).rows)
        self._sent: dict[str, set[int]] = {}

    def take(self, events: list[Event], source: str, now_us: int) -> list[tuple[int, str]]:
        """Place and code of each event that is refused."""
        refused = []
        sent = self._sent.setdefault(source, set())
        offered: dict[int, int] = {}  # number to place
        again: list[tuple[int, int]] = []
        new = []
        for place, event in enumerate(events):
            number = event["sequence"]
            if number in offered:
                again.append((place, offered[number]))
            elif number in sent:
                continue
            elif number < max([*sent, *offered], default=-1):
                refused.append((place, "out_of_order"))
            else:
                offered[number] = place
                new.append(place)
        at = [place_in_time(row) for row in asked(events).rows]
        for place in sorted(new, key=lambda place: at[place]):
            if at[place][0] > now_us + SKEW_US:
                refused.append((place, "future"))
            elif at[place] < self._frontier:
                refused.append((place, "late"))
            else:
                self._frontier = at[place]
                self.accepted.append(events[place])
                sent.add(events[place]["sequence"])
        codes = dict(refused)
        refused += [(place, codes[first]) for place, first in again if first in codes]
        return sorted(refused)


@st.composite
def journeys(draw: st.DrawFn) -> list[tuple[list[Event], str, float]]:
    """Requests with their source and the time by the clock, in minutes, at which they come."""
    chance = draw(st.randoms(use_true_random=False))
    journey = []
    for source in ("a", "b"):
        minute, number, sent = 9.0, 0, []
        for _ in range(draw(st.integers(5, 30))):
            minute += chance.choice([0.0, 0.01, 0.05, 0.5])
            number += chance.choice([1, 1, 1, 2, 7])  # gaps are events that never came
            event = chance.choice(
                [
                    tell.fill(
                        minute, chance.choice(["ann", "bob", "cem"]), chance.choice([0.5, -0.5]), 60_000.0
                    ),
                    tell.bar(minute, chance.uniform(59_000, 61_000)),
                    tell.funding(minute, 1e-4),
                    tell.transfer(minute, "ann", chance.uniform(1, 9)),
                    tell.snapshot(minute, "bob", 3_000.0),
                    tell.default(minute, "cem"),
                    tell.book(minute, 60_000.0),
                ]
            )
            sent.append({**event, "sequence": number})
        for _ in range(chance.randrange(4)):  # overtaken by others, or sent again
            taken = sent.pop(chance.randrange(len(sent)))
            for _ in range(chance.choice([1, 2])):
                sent.insert(chance.randrange(len(sent) + 1), taken)
        start = 0
        while start < len(sent):
            size = chance.choice([1, 3, 20])
            part = sent[start : start + size]
            clock = 9.0 + (minute - 9.0) * (start + size) / len(sent) + chance.choice([-0.3, 0.0, 0.3])
            journey += [(part, source, clock)] * chance.choice([1, 1, 1, 2])
            start += size
    return (
        draw(st.permutations(journey)) if draw(st.booleans()) else sorted(journey, key=lambda each: each[2])
    )


@given(journeys(), st.sampled_from([0, 10**9]))
@settings(max_examples=150)
def test_whatever_way_events_come_the_state_is_that_of_the_accepted_ones_in_order(
    journey: list[tuple[list[Event], str, float]], few: int
) -> None:
    oracle = Oracle(story())
    now_us = to_us(START) + 8 * 60_000_000
    engine = Engine(FakeScorer(), clock=lambda: now_us)
    send(engine, story())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "FEW_ROWS", few)
        for events, source, minute in journey:
            now_us = to_us(START) + round(minute * 60_000_000)
            answer = engine.take(asked(events, source))
            refused = oracle.take(events, source, now_us)
            assert [(entry.index, entry.code) for entry in answer.rejected] == refused
            assert answer.accepted == len(events) - len(refused)
    plain = Engine(FakeScorer())
    send(plain, [{key: event[key] for key in event if key != "sequence"} for event in oracle.accepted])
    assert engine.sequence == plain.sequence
    assert engine.venue.digest() == plain.venue.digest()


# -- processes and disks that fail


def numbered_transfers(count: int) -> list[Event]:
    return [tell.transfer(9 + number / 1_000, "ann", 1.0, sequence=number) for number in range(count)]


def acknowledged_before_death(path: Path, events: list[Event], after: int) -> int:
    """Have a process write until it is killed, once it has acknowledged so many; how many it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            engine = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
            if engine.sequence == 0:
                send(engine, story())
            for event in events:
                engine.take(asked([event], "feed"))
                os.write(writing, b".")
        finally:
            os._exit(0)
    os.close(writing)
    acknowledged = 0
    while acknowledged < after:
        got = len(os.read(reading, 1))
        if not got:
            break
        acknowledged += got
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while got := len(os.read(reading, 4_096)):
        acknowledged += got
    os.close(reading)
    return acknowledged


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path, events = tmp_path / "events.log", numbered_transfers(2_000)
    chance, sent = Random(3), 0
    EventLog.open(path, OWNER).close()
    for _ in range(12):
        acknowledged = sent + acknowledged_before_death(path, events[sent:], chance.randrange(60))
        engine = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
        sent = max(engine.sequence - len(story()), 0)
        assert sent >= acknowledged
        engine.close()
        plain = Engine(FakeScorer())
        if engine.sequence:
            send(plain, story())
        for event in events[:sent]:
            send(plain, [event], "feed")
        assert known(engine) == known(plain)


@given(st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_what_a_disk_refuses_is_never_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, chance: Random
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.log"
    engine = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
    send(engine, story())
    plain = Engine(FakeScorer())
    send(plain, story())
    pwrite, ftruncate, fdatasync = os.pwrite, os.ftruncate, os.fdatasync
    fails = {"pwrite": 0.0, "ftruncate": 0.0, "fdatasync": 0.0}

    def failing(name: str) -> None:
        if chance.random() < fails[name]:
            number = chance.choice([errno.ENOSPC, errno.EIO])
            raise OSError(number, os.strerror(number))

    def write(descriptor: int, content: bytes, offset: int) -> int:
        failing("pwrite")
        whole = chance.random() < 0.5
        return pwrite(
            descriptor, content if whole else content[: chance.randrange(1, 1 + len(content))], offset
        )

    def truncate(descriptor: int, length: int) -> None:
        failing("ftruncate")
        ftruncate(descriptor, length)

    def sync(descriptor: int) -> None:
        failing("fdatasync")
        fdatasync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        patch.setattr(os, "ftruncate", truncate)
        patch.setattr(os, "fdatasync", sync)
        for event in numbered_transfers(30):
            fails["pwrite"] = chance.choice([0.0, 0.5])
            fails["ftruncate"], fails["fdatasync"] = chance.choice([0.0, 0.1]), chance.choice([0.0, 0.05])
            before = known(engine)
            try:
                send(engine, [event], "feed")
            except RefusalError as refusal:
                assert (refusal.status, refusal.code) == (503, "log_unavailable")
                assert known(engine) == before
            else:
                send(plain, [event], "feed")
            try:
                engine.sync()
            except LogError:
                assert engine.fault is not None
    assert known(engine) == known(plain)
    os.close(engine._log._descriptor)  # type: ignore[union-attr]  # the process dies here
    again = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
    assert known(again) == known(plain)
    again.close()
