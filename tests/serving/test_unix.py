"""The service on a Unix socket."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.errors import InputError
from serving.unix import bind
from tests.serving import stories as tell
from tests.serving.served import PATIENT, prepared, said, served

QUICK = PATIENT._replace(body_s=0.3, write_s=0.3, connections=20, batch_body_bytes=1_000_000)
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("s") / "s"
    with served(prepared(QUICK), path):
        yield path
    assert not path.exists()


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


def answers(stream: bytes) -> list[Any]:
    found = []
    while stream:
        size = int.from_bytes(stream[:4], "big")
        assert len(stream) >= 4 + size
        found.append(unpack(stream[4 : 4 + size]))
        stream = stream[4 + size :]
    return found


def ask(path: Path, *questions: Any) -> list[Any]:
    """Send all questions at once, and read as many answers."""
    with connect(path) as connection:
        connection.sendall(b"".join(framed(pack(question)) for question in questions))
        told = b""
        while True:
            try:
                got = answers(told)
            except AssertionError:
                got = []
            if len(got) >= len(questions):
                return got
            block = connection.recv(65_536)
            assert block
            told += block


def test_every_route_answers(path: Path) -> None:
    engine = tell.told(tell.story())
    score = {"route": "/v1/score", "body": {"account_id": "ann", "explain": True}, "id": 7}
    scored, batch, account, model, live, figures, document = ask(
        path,
        score,
        {"route": "/v1/score/batch", "body": {"account_ids": ["ann", "zoe"]}, "id": "b"},
        {"route": "/v1/accounts/bob"},
        {"route": "/v1/model", "key": "unused"},
        {"route": "/health/live"},
        {"route": "/metrics"},
        {"route": "/openapi.json"},
    )
    expected = msgspec.json.decode(msgspec.json.encode(engine.score(tell.question("ann", explain=True))))
    assert scored == {"status": 200, "body": expected, "id": 7}
    assert (batch["status"], batch["id"], batch["body"]["unknown"]) == (200, "b", ["zoe"])
    assert account["body"]["positions"][0]["market"] == "BTC"
    assert "id" not in account
    assert model["body"]["model_version"] == "fake-1"
    assert live["body"]["status"] == "live"
    assert "perprisk_requests_total" in figures["body"]
    assert document["body"]["openapi"].startswith("3.1")


def test_events_are_taken(path: Path) -> None:
    [answer] = ask(path, {"route": "/v1/events", "body": {"events": [tell.account("a/b %2F", 8)]}})
    assert answer["body"]["accepted"] == 1
    [answer] = ask(path, {"route": "/v1/accounts/a/b %2F"})
    assert answer["body"]["account_id"] == "a/b %2F"


def test_numbers_that_are_not_known_are_null(path: Path) -> None:
    account = {"equity_usd": 1.0, "margin_mode": "isolated",
               "positions": [{"market": "BTC", "quantity": 1.0}]}  # fmt: skip
    orders = [{"market": "BTC", "quantity": 1.0}]
    body = {"account_id": "new", "account": account, "orders": orders}
    [answer] = ask(path, {"route": "/v1/score", "body": body})
    assert answer["status"] == 200
    assert all(value == value for value in answer["body"].values())  # noqa: PLR0124
    assert answer["body"]["status"] == "fallback"


@pytest.mark.parametrize(
    ("question", "status", "code"),
    [
        ({"route": "/v1/nothing"}, 404, "unknown_route"),
        ({"route": "/v1/score", "body": {"account_id": "zoe"}}, 404, "unknown_account"),
        ({"route": "/v1/score", "body": {"account_id": 5}}, 422, "invalid"),
        ({"route": "/v1/score", "body": {"account_id": "a", "orders": [
            {"market": "BTC", "quantity": float("nan")}]}}, 422, "invalid"),
        ({"route": "/v1/score"}, 422, "invalid"),
        ({"route": "/v1/score", "body": {"account_id": "x" * 70_000}}, 413, "too_large"),
        ({"path": "/v1/score"}, 422, "invalid"),
        ({"route": "/v1/score", "more": 1}, 422, "invalid"),
        ([1, 2], 422, "invalid"),
        (None, 422, "invalid"),
    ],
)  # fmt: skip
def test_refusals(path: Path, question: Any, status: int, code: str) -> None:
    [refused, live] = ask(path, question, {"route": "/health/live"})
    assert refused["status"] == status
    assert refused["body"]["error"]["code"] in (code, "bad_msgpack")
    assert live["status"] == 200


def test_what_is_no_messagepack_is_refused(path: Path) -> None:
    with connect(path) as connection:
        connection.sendall(framed(b"\xc1") + framed(b"") + framed(b"\x91" * 100_000))
        for _ in range(3):
            size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
            assert unpack(connection.recv(size, socket.MSG_WAITALL))["status"] in (400, 422)


def test_answers_come_in_order_however_the_bytes_come(path: Path) -> None:
    questions = [{"route": "/v1/score", "body": {"account_id": f"z{n}"}, "id": n} for n in range(200)]
    assert [answer["id"] for answer in ask(path, *questions)] == list(range(200))
    stream = b"".join(framed(pack(question)) for question in questions[:3])
    with connect(path) as connection:
        for place in range(len(stream)):
            connection.sendall(stream[place : place + 1])
        connection.shutdown(socket.SHUT_WR)
        assert [answer["id"] for answer in answers(said(connection))] == [0, 1, 2]


@pytest.mark.parametrize("part", [b"\x00", b"\x00\x00\x00\x10abc"])
def test_half_a_frame_is_not_waited_for(path: Path, part: bytes) -> None:
    with connect(path) as connection:
        connection.sendall(part)
        [answer] = answers(said(connection))
    assert (answer["status"], answer["body"]["error"]["code"]) == (400, "timeout")


def test_frames_have_a_bound(path: Path) -> None:
    with connect(path) as connection:
        connection.sendall((1_000_001).to_bytes(4, "big"))
        [answer] = answers(said(connection))
    assert (answer["status"], answer["body"]["error"]["code"]) == (413, "too_large")


def test_a_caller_that_does_not_read_is_left(path: Path) -> None:
    with connect(path) as connection, pytest.raises(OSError, match=r"."):
        connection.settimeout(10)
        for _ in range(100_000):
            connection.sendall(framed(pack({"route": "/openapi.json"})) * 10)
    assert ask(path, {"route": "/health/live"})[0]["status"] == 200


def test_too_many_connections_are_told(path: Path) -> None:
    held = [connect(path) for _ in range(QUICK.connections)]
    try:
        for connection in held:
            connection.sendall(framed(pack({"route": "/health/live"})))
            assert connection.recv(1_000)
        with connect(path) as connection:
            [answer] = answers(said(connection))
        assert (answer["status"], answer["body"]["error"]["code"]) == (503, "overloaded")
    finally:
        for connection in held:
            connection.close()


def test_overload_is_told_here_too(tmp_path: Path) -> None:
    front = prepared()
    with served(front, tmp_path / "s"):
        front.overload.admits = lambda: False  # type: ignore[method-assign]
        score, live = ask(
            tmp_path / "s", {"route": "/v1/score", "body": {"account_id": "ann"}}, {"route": "/health/live"}
        )
    assert (score["status"], score["body"]["error"]["code"], live["status"]) == (503, "overloaded", 200)


# -- the file


def test_only_its_owner_may_ask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(bind(tmp_path / "s")), closing(bind(tmp_path / "g", 0o660)):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
            assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind(path).close()
    assert path.exists()
    with closing(bind(path)) as listener:
        listener.listen()
        with pytest.raises(InputError, match="another process listens here"):
            bind(path)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(InputError, match="no socket"):
        bind(path)
    assert path.read_text() == "mine"
    for bad in (tmp_path / "none" / "s", tmp_path / ("x" * 200)):
        with pytest.raises(InputError, match="cannot listen here"):
            bind(bad)
