"""What is admitted in one turn of the loop, by a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx

from features.venue import Vectors
from serving.app import App
from serving.front import Front
from serving.ladder import Levels
from serving.limits import Limits
from serving.overload import Overload
from serving.scorer import Scores
from serving.service import Call
from tests.serving import stories as tell
from tests.serving.served import prepared, replies, said, served


class Loop:
    """Time, and what is to be called in the next turn."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.next: list[Callable[[], None]] = []

    def turn(self) -> None:
        called, self.next = self.next, []
        for function in called:
            function()

    def overload(self, **limits: Any) -> Overload:
        return Overload(Limits(**limits), lambda: self.now_s, self._later)

    def _later(self, function: Callable[[], None]) -> None:
        self.next.append(function)


def test_a_turn_has_a_budget_of_time_and_the_next_begins_anew() -> None:
    loop = Loop()
    overload = loop.overload(turn_s=0.02)
    for _ in range(3):
        begun_s = loop.now_s
        for took_s in (0.0, 0.01, 0.009):
            loop.now_s += took_s
            assert overload.admits()
        loop.now_s = begun_s + 0.0201
        assert overload.admits()  # perhaps of a caller whose last request took all the time
        assert not overload.admits()
        assert not overload.admits()
        assert len(loop.next) == 1
        loop.turn()
        assert loop.next == []
    assert overload.refused == 6


def test_whoever_comes_first_in_a_turn_is_admitted_however_long_the_last_one_took() -> None:
    loop = Loop()
    overload = loop.overload(turn_s=0.02)
    for _ in range(5):
        assert overload.admits()
        loop.now_s += 10.0
        loop.turn()


def test_bodies_on_their_way_have_room_for_so_many_bytes() -> None:
    overload = Loop().overload(held_bytes=100)
    assert overload.hold(60)
    assert not overload.hold(41)
    assert overload.hold(40)
    overload.release(100)
    assert overload.hold(100)


def spent(front: Front) -> Overload:
    """A front whose turn has no time left."""
    loop = Loop()
    front.overload = overload = loop.overload()
    assert overload.admits()
    loop.now_s += 1.0
    assert overload.admits()
    return overload


def test_how_the_service_is_can_always_be_asked() -> None:
    front = prepared()
    spent(front)
    for route in front.service.routes:
        path = route.operation.path
        reply = front.answer(route, Call(b'{"account_id":"ann"}', "ann"))
        assert reply.status == (503 if path.startswith("/v1/") else 200), path
        if reply.status == 503:
            assert json.loads(reply.body)["error"]["code"] == "overloaded"
    [figures] = [route for route in front.service.routes if route.operation.path == "/metrics"]
    told = front.answer(figures, Call()).body.decode()
    assert 'perprisk_requests_total{route="/v1/score",status="503"} 1.0' in told


def test_a_refusal_says_when_to_come_again_and_changes_nothing() -> None:
    front = prepared()
    overload = spent(front)
    before = front.service.engine.venue.digest()

    async def ask(**more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=App(front))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/events", **more)

    reply = asyncio.run(ask(json={"events": [tell.bar(9, 1.0)]}))
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert front.service.engine.venue.digest() == before
    # no room for a body
    loop = Loop()
    front.overload = loop.overload(held_bytes=10)
    reply = asyncio.run(ask(content=b"x" * 11))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
    assert front.overload.hold(10)
    assert overload.refused == 1


class SlowScorer(tell.FakeScorer):
    """Computes for a while, as a large model does."""

    def score(self, vectors: Vectors, levels: Levels | None = None) -> Scores:
        total = 0
        for number in range(60_000):
            total += number
        return super().score(vectors, levels)


def test_a_flood_is_answered_rightly_or_refused() -> None:
    front = prepared(Limits())
    front.service.engine.scorer = SlowScorer()
    ask = b'{"account_id":"%s"}'
    expected = {
        name: front.service.engine.score(tell.question(name)).initial_margin_rate for name in ("ann", "bob")
    }
    refused = 0
    with served(front) as port:
        callers = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(60)]
        try:
            for number, caller in enumerate(callers):
                body = ask % (b"ann", b"bob")[number % 2]
                head = b"POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
                caller.sendall(head % len(body) + body)
            for number, caller in enumerate(callers):
                caller.sendall(b"GET /health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                (status, body), (health, _) = replies(said(caller))
                assert health == 200
                if status == 503:
                    refused += 1
                    assert json.loads(body)["error"]["code"] == "overloaded"
                else:
                    assert status == 200
                    name = ("ann", "bob")[number % 2]
                    assert json.loads(body)["initial_margin_rate"] == expected[name]
        finally:
            for caller in callers:
                caller.close()
    assert front.overload.refused == refused
