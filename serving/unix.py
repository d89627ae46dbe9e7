"""The service on a Unix socket: the same messages as over HTTP, in the frames of `serving.frames`.

Frames may be sent without waiting; answers come in the order of the questions.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from exchange.errors import InputError
from serving import envelopes
from serving.codec import JSON, MSGPACK
from serving.envelopes import LENGTH_BYTES, Envelope, Id
from serving.front import Front
from serving.service import Call, Reply
from serving.wire import RefusalError


class Frames(asyncio.Protocol):
    """One connection."""

    def __init__(self, front: Front, connections: set[Frames]) -> None:
        self._front = front
        self._limits = front.limits
        self._connections = connections
        self._buffer = bytearray()
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._waiting = self._stuck = False
        self._timer: asyncio.TimerHandle | None = None
        self._held_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > self._limits.connections:
            self._end(RefusalError(503, "overloaded", "there are too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_timer()
        self._hold(0)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._stuck:
            self._take()

    def pause_writing(self) -> None:
        # a caller that does not read is not answered any further, and not for ever
        self._stuck = True
        self._transport.pause_reading()
        self._set_timer(self._limits.write_s, self._transport.abort)

    def resume_writing(self) -> None:
        self._stuck = self._waiting = False
        self._stop_timer()
        self._transport.resume_reading()
        self._loop.call_soon(self._take)

    def shut(self) -> None:
        """End the connection."""
        self._transport.close()

    def _take(self) -> None:
        """Answer the frames that are whole, and wait for the rest of one that is not."""
        start, buffer = 0, self._buffer
        most_bytes = self._limits.batch_body_bytes
        answered = False
        while not self._stuck and not self._transport.is_closing():
            begin = start + LENGTH_BYTES
            if len(buffer) < begin:
                break
            size = int.from_bytes(buffer[start:begin], "big")
            if size > most_bytes:
                self._end(RefusalError(413, "too_large", f"frame: at most {most_bytes} bytes are taken here"))
                return
            if len(buffer) < begin + size:
                break
            frame = bytes(buffer[begin : begin + size])
            start = begin + size
            answered = True
            self._transport.write(self._answer(frame))
        del buffer[:start]
        if self._stuck or self._transport.is_closing():
            return
        if not self._hold(len(buffer)):
            self._end(RefusalError(503, "overloaded", "too many bodies are on their way"))
        elif not buffer:
            self._waiting = False
            self._stop_timer()
        elif answered or not self._waiting:
            self._waiting = True
            self._set_timer(self._limits.body_s, self._late)

    def _answer(self, frame: bytes) -> bytes:
        """The frame that answers a frame."""
        front = self._front
        try:
            asked = MSGPACK.decode(Envelope, frame)
        except RefusalError as refusal:
            return _frame(front.refused(None, refusal, MSGPACK), UNSET)
        found = front.find(asked.route)
        if found is None:
            unknown = RefusalError(404, "unknown_route", f"there is no {asked.route[:200]}", "route")
            return _frame(front.refused(None, unknown, MSGPACK), asked.id)
        route, argument = found
        if route.most_bytes and len(asked.body) > route.most_bytes:
            large = RefusalError(413, "too_large", f"body: at most {route.most_bytes} bytes are taken here")
            return _frame(front.refused(route, large, MSGPACK), asked.id)
        return _frame(front.answer(route, Call(bytes(asked.body), argument, MSGPACK), asked.key), asked.id)

    def _end(self, refusal: RefusalError) -> None:
        """Say why, and end the connection."""
        self._buffer.clear()
        self._transport.write(_frame(self._front.refused(None, refusal, MSGPACK), UNSET))
        self._transport.close()

    def _late(self) -> None:
        self._end(RefusalError(400, "timeout", f"frame: was not there within {self._limits.body_s:g} s"))

    def _hold(self, size: int) -> bool:
        """Count what is held of a frame that is not whole; False where there is no room for it."""
        if size == self._held_bytes:
            return True
        overload = self._front.overload
        overload.release(self._held_bytes)
        self._held_bytes = 0
        if not overload.hold(size):
            return False
        self._held_bytes = size
        return True

    def _set_timer(self, after_s: float, call: Any) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(after_s, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _frame(reply: Reply, asked_id: Id) -> bytes:
    body: Any
    if reply.media_type == MSGPACK.media_type:
        body = Raw(reply.body)
    elif reply.media_type == JSON.media_type:
        body = msgspec.json.decode(reply.body)
    else:
        body = reply.body.decode()
    return envelopes.frame(envelopes.Reply(reply.status, body, asked_id))


def bind(path: Path, mode: int = 0o600) -> socket.socket:
    """A socket bound to a path; a socket file that nobody listens on is replaced.

    Raises InputError where somebody does, and where the path is taken or cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            os.unlink(path)
        # made with these permissions, not given them later, when somebody may have connected already
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
    except OSError as error:
        listener.close()
        raise InputError(f"{path}: cannot listen here ({error.strerror or error})") from error
    except BaseException:
        listener.close()
        raise
    return listener


@asynccontextmanager
async def listening(front: Front, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on a bound socket for as long as the context lasts; its file is removed at the end."""
    loop = asyncio.get_running_loop()
    path = listener.getsockname()
    made = os.stat(path).st_ino
    connections: set[Frames] = set()
    server = await loop.create_unix_server(lambda: Frames(front, connections), sock=listener)
    try:
        yield
    finally:
        with suppress(OSError):
            if os.stat(path).st_ino == made:  # not one that came in its place
                os.unlink(path)
        server.close()
        for connection in list(connections):
            connection.shut()


def _is_stale(path: Path) -> bool:
    """Whether a socket is there that nobody listens on; InputError where somebody does, or for a file."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(kind):
        raise InputError(f"{path}: is there and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        refused = probe.connect_ex(str(path))
    if refused != errno.ECONNREFUSED:
        raise InputError(f"{path}: another process listens here")
    return True
