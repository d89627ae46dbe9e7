"""HTTP on real connections: how it is spoken, and what a hostile caller cannot hold."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.serving.served import PATIENT, prepared, replies, said, served

QUICK = PATIENT._replace(
    head_s=0.3, body_s=0.3, idle_s=0.6, write_s=0.3, connections=40, pipelined=8, drained_bytes=4_000_000
)
"""Deadlines that a test can wait for."""

ASK = b'{"account_id":"ann"}'


def post(body: bytes, path: bytes = b"/v1/score", more: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: t\r\n%sContent-Length: %d\r\n\r\n%s" % (path, more, len(body), body)


LIVE = b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(prepared(QUICK)) as port:
        yield port


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(port: int, *parts: bytes) -> list[tuple[int, bytes]]:
    """Send parts one after the other, and read to the end of the connection."""
    with connect(port) as connection:
        for part in parts:
            connection.sendall(part)
        return replies(said(connection))


def code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


def test_one_piece_and_many_are_answered_alike(port: int) -> None:
    whole = post(ASK)
    at_once = exchange(port, whole, LAST)
    chunked = (
        b"POST /v1/score HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\n" + ASK[:5] + b"\r\n%x\r\n" % (len(ASK) - 5) + ASK[5:] + b"\r\n0\r\n\r\n"
    )
    ways = {
        "two parts": exchange(port, whole[:-3], whole[-3:], LAST),
        "byte by byte": exchange(port, *(whole[i : i + 1] for i in range(len(whole))), LAST),
        "in chunks": exchange(port, chunked, LAST),
        "chunk by chunk": exchange(port, chunked[:70], chunked[70:], LAST),
        "with a query": exchange(port, post(ASK, b"/v1/score?a=b"), LAST),
        "behind others": exchange(port, LIVE + whole + LAST)[1:],
        "before others": exchange(port, whole + LAST),
    }
    assert at_once[0][0] == 200
    assert json.loads(at_once[0][1])["account_id"] == "ann"
    for way, got in ways.items():
        assert got == at_once, way


def test_headers_are_the_same_both_ways(port: int) -> None:
    def head(*parts: bytes) -> set[bytes]:
        with connect(port) as connection:
            for part in (*parts, LAST):
                connection.sendall(part)
            lines = said(connection).split(b"\r\n\r\n")[0].split(b"\r\n")
        return {line for line in lines if not line.startswith(b"date:")}

    whole = post(ASK)
    assert head(whole) == head(whole[:-1], whole[-1:])
    assert b"content-type: application/json" in head(whole)


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    missing = [post(b'{"account_id":"z%d"}' % number) for number in range(4)]
    got = exchange(port, LIVE + missing[0] + missing[1] + LIVE + missing[2], missing[3] + LAST)
    assert [status for status, _ in got] == [200, 404, 404, 200, 404, 404, 200]
    assert [f"'z{n}'".encode() in got[at][1] for n, at in enumerate((1, 2, 4, 5))] == [True] * 4


def test_too_many_pipelined_requests_end_the_connection(port: int) -> None:
    got = exchange(port, LIVE * 100)
    assert [status for status, _ in got] == [200] * len(got)
    assert len(got) <= QUICK.pipelined + 1


def test_old_http_and_asked_for_ends_are_obeyed(port: int) -> None:
    assert [status for status, _ in exchange(port, LIVE.replace(b"1.1", b"1.0"))] == [200]
    assert [status for status, _ in exchange(port, post(ASK).replace(b"1.1", b"1.0"))] == [200]
    assert [status for status, _ in exchange(port, post(ASK, more=b"Connection: close\r\n"))] == [200]


def test_a_head_has_no_body(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(LAST.replace(b"GET", b"HEAD"))
        told = said(connection)
    assert told.startswith(b"HTTP/1.1 200")
    assert told.endswith(b"\r\n\r\n")


def test_who_asks_before_sending_gets_word(port: int) -> None:
    head = b"POST /v1/score HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nConnection: close\r\n"
    with connect(port) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(ASK))
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ASK)
        assert replies(said(connection))[0][0] == 200
    with connect(port) as connection:
        connection.sendall(head + b"Content-Length: 100000\r\n\r\n")
        assert replies(said(connection))[0][0] == 413


def test_nothing_is_upgraded_to(port: int) -> None:
    upgrade = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert [status for status, _ in exchange(port, upgrade + b"\x81\x05hello")] == [200]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT t:1 HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n".encode(),
        b"POST /v1/score HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_refused(port: int, garbage: bytes) -> None:
    [(status, body)] = exchange(port, garbage)
    assert status in (400, 404)
    assert code(body) in ("bad_http", "unknown_route")


def test_an_answer_that_is_due_comes_before_the_refusal_of_what_follows(port: int) -> None:
    for first in (LIVE, post(ASK)):
        got = exchange(port, first + b"\x00garbage")
        assert got[0][0] == 200


@pytest.mark.parametrize("path", [b"/health/live", b"/v1/score"])
def test_headers_have_a_bound(port: int, path: bytes) -> None:
    short = b"POST %s HTTP/1.1\r\nHost: t\r\nX: %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert exchange(port, short % (path, b"x" * 16_000))[0][0] in (400, 404)
    for way in (
        [short % (path, b"x" * 17_000)],
        [b"GET /health/live HTTP/1.1\r\nX: " + b"x" * 900_000],  # without an end
        [b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n"],
        [b"GET /health/live HTTP/1.1\r\n", *(b"X%d: %s\r\n" % (n, b"x" * 1_000) for n in range(20))],
    ):
        [(status, body)] = exchange(port, *way)
        assert status == 431
        assert code(body) == "headers_too_large"


def test_slow_heads_and_silence_have_an_end(port: int) -> None:
    with connect(port) as silent, connect(port) as slow, connect(port) as blank:
        slow.sendall(b"GET /health/live")
        slow.settimeout(0.02)
        blank.settimeout(0.02)
        told = b""
        open_ = {slow, blank}
        for _ in range(500):
            for connection, drop in ((slow, b"x"), (blank, b"\r\n")):
                if connection in open_:
                    try:
                        connection.sendall(drop)
                        block = connection.recv(1_000)
                        told += block
                        if not block:
                            open_.discard(connection)
                    except TimeoutError:
                        continue
                    except OSError:
                        open_.discard(connection)
            if not open_:
                break
        assert not open_
        [(status, body)] = replies(told)
        assert (status, code(body)) == (400, "timeout")
        assert said(silent) == b""


def test_bodies_that_nobody_waits_for_have_an_end(port: int) -> None:
    with connect(port) as connection:  # answered at once, and then it dribbles on
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
        assert said(connection) == b""
    [(status, body)] = exchange(port, post(ASK)[:-1])
    assert (status, code(body)) == (400, "timeout")


def test_kept_connections_are_kept_for_a_while(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(post(ASK))
        told = connection.recv(10_000)
        assert told.startswith(b"HTTP/1.1 200")
        assert said(connection) == b""


def test_a_caller_that_does_not_read_is_left(port: int) -> None:
    with connect(port) as connection:
        connection.settimeout(5)
        with pytest.raises(OSError):
            for _ in range(100_000):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n" * 5)
    assert exchange(port, LAST)[0][0] == 200


def test_more_connections_than_there_is_room_for_are_told(port: int) -> None:
    held = [connect(port) for _ in range(QUICK.connections)]
    try:
        for connection in held:
            connection.sendall(LIVE)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 200")
        [(status, body)] = exchange(port, post(ASK))
        assert (status, code(body)) == (503, "overloaded")
        assert exchange(port, LIVE)[0][0] == 200  # health is always told, and the connection ended
    finally:
        for connection in held:
            connection.close()
    assert exchange(port, post(ASK), LAST)[0][0] == 200


def test_of_many_that_bring_no_request_the_first_ones_are_turned_away() -> None:
    patient = PATIENT._replace(head_s=60.0, unready=3, unready_s=0.05)
    # whoever has asked once may stay, and one that brings a request at once is no part of the crowd
    with served(prepared(patient)) as port, connect(port) as kept:
        kept.sendall(LIVE)
        assert kept.recv(1_000).startswith(b"HTTP/1.1 200")
        crowd = [connect(port) for _ in range(30)]
        for connection in crowd:
            connection.sendall(post(ASK)[:20])
        for connection in crowd[:27]:
            [(status, body)] = replies(said(connection))
            assert (status, code(body)) == (503, "overloaded")
        for connection in crowd[27:]:
            connection.sendall(post(ASK)[20:])
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
        kept.sendall(post(ASK))
        assert kept.recv(10_000).startswith(b"HTTP/1.1 200")
        for connection in crowd:
            connection.close()


def test_clients_of_every_day_work(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            assert client.post("/v1/score", content=ASK).status_code == 200
            assert client.get("/v1/accounts/ann").status_code == 200
        reply = client.post("/v1/score", content=b"x" * 3_000_000)
        assert reply.status_code == 413
        assert client.post("/v1/score/batch", json={"account_ids": ["ann"] * 9_000}).status_code == 200
