"""Killed at, and failed by, every single call that carries an event or an answer to the disk.

A service with an event log and an audit log takes events and answers, one after the other. It is run once
for every call that it makes, and dies or is refused there: whatever it had acknowledged is in the logs, the
state is that of the acknowledged events and at most the one under way, and going on ends where an undisturbed
run ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from serving import snapshot
from serving.audit import Audit
from serving.engine import Engine
from serving.log import EventLog
from serving.service import Service
from tests.serving import stories as tell
from tests.serving.audited import ABOUT, answers, ask, heads, problems
from tests.serving.dying import FAILURES, KILLS, Calls, Fate, in_a_child
from tests.serving.stories import FakeScorer, asked, send, story
from tests.serving.test_intake import known

OWNER = b"a venue"
STEPS = 6
EVENTS = [tell.transfer(9 + number, "ann", 1.0, sequence=number) for number in range(STEPS)]


def engine_of(folder: Path) -> Engine:
    log = EventLog.open(folder / "events.log", OWNER)
    found = snapshot.newest(log)
    return Engine(FakeScorer(), log=log) if found is None else Engine.restore(FakeScorer(), found, log=log)


def service_of(folder: Path) -> Service:
    # the thread that syncs and signs would make the number of a call hang on chance: strict does it in line
    audit = Audit.open(folder / "audit", mode="strict", segment_bytes=4_000, sync_s=3_600.0, head_s=3_600.0)
    return Service(engine_of(folder), ABOUT, audit=audit)


def live(folder: Path, acknowledge: Callable[[bytes], None]) -> None:
    """Begin or go on: send what is not there yet, ask after each event, snapshot in the middle, and close."""
    service = service_of(folder)
    engine = service.engine
    if engine.sequence == 0:
        reply = ask(service, "/v1/events", {"events": story()})
        if reply.status != 200:
            return
        acknowledge(b"story")
    for number in range(engine.sequence - len(story()), STEPS):
        reply = ask(service, "/v1/events", {"source": "feed", "events": [EVENTS[number]]})
        if reply.status == 200:
            assert json.loads(reply.body)["accepted"] == 1
            acknowledge(b"event %d" % number)
        reply = ask(service)
        if reply.status == 200:
            acknowledge(b"answer " + reply.body)
        else:
            assert reply.status == 503
        service.sync()
        if number == STEPS // 2 and service.fault is None:
            engine.snapshot()
    service.close()


def run(folder: Path, calls: Calls) -> tuple[list[bytes], bool]:
    def work(counting: Calls, acknowledge: Callable[[bytes], None]) -> None:
        counting.stand_before()
        live(folder, acknowledge)
        acknowledge(b"calls %d" % counting.count)

    return in_a_child(work, calls)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Any]:
    """How many calls a whole run makes, and the state that it ends in."""
    live(tmp_path_factory.mktemp("warm"), lambda _: None)  # no child is to write compiled code to its cache
    folder = tmp_path_factory.mktemp("whole")
    signing(folder)
    told, died = run(folder, Calls())
    assert not died
    engine = engine_of(folder)
    state = known(engine)
    engine.close()
    assert len(answers(folder / "audit")) == STEPS
    return int(told[-1].split()[1]), state


def signing(folder: Path) -> None:
    """The pair of keys, made at a first start; as long as it is being made nothing was acknowledged.

    In a process of its own: a log's thread may hold a lock of OpenSSL's while it ends, which a fork would
    inherit.
    """
    in_a_child(lambda _calls, _acknowledge: Audit.open(folder / "audit").close(), Calls())


def check(folder: Path, told: list[bytes], killed: bool = True) -> None:
    """What was acknowledged is there, and both logs are whole; without a kill there is nothing else."""
    events = [int(line.split()[1]) for line in told if line.startswith(b"event ")]
    seen = [line.removeprefix(b"answer ") for line in told if line.startswith(b"answer ")]
    engine = engine_of(folder)
    sent = engine.sequence - len(story())
    assert sent > max(events, default=-len(story()) - 1) or not killed
    assert sent >= 0 or b"story" not in told
    plain = Engine(FakeScorer())
    if engine.sequence:
        send(plain, story())
        for number in range(sent) if killed else events:
            send(plain, [EVENTS[number]], "feed")
        assert known(engine) == known(plain)
    engine.close()
    found = answers(folder / "audit")
    assert [answer for answer in found if answer in set(seen)] == seen
    assert problems(folder / "audit", heads(folder / "audit")) == []


def die_at(folder: Path, number: int, fate: Fate, end: Any) -> None:
    folder.mkdir()
    signing(folder)
    told, died = run(folder, Calls(number, fate))
    assert died, (number, fate)
    check(folder, told)
    again, died = run(folder, Calls())
    assert not died
    check(folder, again)
    engine = engine_of(folder)
    assert known(engine) == end, (number, fate)  # as if nothing had happened
    engine.close()


def test_killed_at_a_call_nothing_acknowledged_is_lost(undisturbed: tuple[int, Any], tmp_path: Path) -> None:
    calls, end = undisturbed
    assert calls > 40
    for number in range(0, calls, 4):
        die_at(tmp_path / str(number), number, KILLS[number % len(KILLS)], end)


@pytest.mark.slow
def test_killed_at_every_call_in_every_way_and_500_times_at_random(
    undisturbed: tuple[int, Any], tmp_path: Path
) -> None:
    calls, end = undisturbed
    for fate in KILLS:
        for number in range(calls):
            die_at(tmp_path / f"{fate}-{number}", number, fate, end)
    chance = Random(9)
    for round_ in range(500):  # and again while it recovers from the last time
        folder = tmp_path / f"random-{round_}"
        folder.mkdir()
        signing(folder)
        told: list[bytes] = []
        for _ in range(chance.randrange(1, 4)):
            more, _ = run(folder, Calls(chance.randrange(calls), chance.choice(KILLS)))
            told += more
            check(folder, told)
        run(folder, Calls())
        engine = engine_of(folder)
        assert known(engine) == end
        engine.close()
    print(f"killed at each of {calls} calls in {len(KILLS)} ways, and in 500 runs at random")


def fail_at(folder: Path, number: int, fate: Fate, lasts: bool) -> None:
    folder.mkdir()
    signing(folder)

    def work(calls: Calls, acknowledge: Callable[[bytes], None]) -> None:
        calls.stand_before()
        try:
            live(folder, acknowledge)
        except Exception as error:  # at the start or the end of a service: one that never answered
            acknowledge(f"ended {type(error).__name__}: {error}".encode())

    told, died = in_a_child(work, Calls(number, fate, lasts))
    assert not died
    check(folder, told, killed=False)


def test_failed_by_a_call_nothing_is_acknowledged_that_is_not_there(
    undisturbed: tuple[int, Any], tmp_path: Path
) -> None:
    for number in range(1, undisturbed[0], 4):
        fail_at(tmp_path / str(number), number, FAILURES[number % len(FAILURES)], number % 8 == 1)


@pytest.mark.slow
def test_failed_by_every_call_in_every_way(undisturbed: tuple[int, Any], tmp_path: Path) -> None:
    for fate in FAILURES:
        for lasts in (False, True):
            for number in range(undisturbed[0]):
                fail_at(tmp_path / f"{fate}-{lasts}-{number}", number, fate, lasts)
    print(f"each of {undisturbed[0]} calls failed in {2 * len(FAILURES)} ways")


def test_a_disk_that_is_full_refuses_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    service = service_of(tmp_path)
    send(service.engine, story())
    before = known(service.engine)
    calls = Calls(0, "ENOSPC", lasts=True)
    calls.stand_before(names=("pwrite",))
    try:
        for path, body in (("/v1/events", {"events": [tell.transfer(9, "ann", 1.0)]}), ("/v1/score", None)):
            reply = ask(service, path, body)
            assert reply.status == 503
            assert json.loads(reply.body)["error"]["code"] in ("log_unavailable", "audit_unavailable")
    finally:
        calls.step_aside()
    assert known(service.engine) == before
    assert os.pwrite is calls._real["pwrite"]
    assert service.engine.take(asked([tell.transfer(9, "ann", 1.0)])).accepted == 1
    assert ask(service).status == 200
    service.close()
