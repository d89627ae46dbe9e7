"""The service on a real port or socket, in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn

from serving.front import Front
from serving.http import server_config
from serving.limits import Limits
from serving.service import Service
from serving.unix import bind
from serving.wire import BatchRequest, ModelAnswer
from tests.serving import stories as tell

ABOUT = ModelAnswer("fake-1", "f" * 64, "# A model\n")


PATIENT = Limits(turn_s=60.0)
"""Limits for tests of anything but overload: a slow machine is not refused."""


def prepared(limits: Limits = PATIENT) -> Front:
    """A service that was told the story, with everything compiled that a question needs."""
    engine = tell.told(tell.story())
    for question in ({}, {"orders": [{"market": "BTC", "quantity": 0.1}], "explain": True, "cure": True}):
        engine.score(tell.question("ann", **question))
    sent = {"equity_usd": 1.0, "positions": [{"market": "BTC", "quantity": 1.0}]}
    engine.score(tell.question("ann", account=sent, cure=True))
    engine.score_batch(BatchRequest(["ann", "bob"]))
    engine.account("bob")
    return Front(Service(engine, ABOUT, limits))


@contextmanager
def served(front: Front, unix: Path | None = None) -> Iterator[int]:
    """Serve on a free port of this machine, and on a Unix socket; gives the port."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = Server(server_config(front, bind(unix) if unix else None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert started.wait(30)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()


def said(connection: socket.socket) -> bytes:
    """Everything that comes until the other side ends the connection."""
    told = b""
    while block := connection.recv(65_536):
        told += block
    return told


def replies(stream: bytes) -> list[tuple[int, bytes]]:
    """Status and body of every HTTP answer in what came."""
    found = []
    while stream:
        head, stream = stream.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        length = lengths[0] if lengths else 0
        found.append((int(lines[0].split()[1]), stream[:length]))
        stream = stream[length:]
    return found
