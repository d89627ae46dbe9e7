"""HTTP/1.1 on a connection: uvicorn's protocol, within limits of time and size, and answering at once.

uvicorn holds a connection that sends a byte at a time for as long as it likes, and so does this process with
what hundreds of such callers need. Here every state of a connection has a deadline: the first request, the
head of a request, what is left of a body that nobody reads any more, the pause between requests, and an
answer that finds no room at the caller's. Bodies have theirs where they are read (`serving.app`).

A request for a plain path that came whole in one piece is answered on the spot, without the task, the event
and the messages of ASGI; everything else goes to the application. Both ask `Front` and write equal headers.
"""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

import httptools
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serving.app import App, asker, headers_of
from serving.front import Front
from serving.service import Call, Reply, Route
from serving.wire import RefusalError

_GRACE_S = 0.02
"""What is due is looked at once more after this time: the loop may have been busy with bytes in the queue."""

State = tuple[str, int]
"""What a connection waits for, and in which request."""


def server_config(front: Front, unix: socket.socket | None = None, **more: Any) -> Config:
    """How uvicorn is to serve; `unix` is a bound socket to answer on too.

    `more` are options of uvicorn, such as those of TLS.
    """
    app = App(front, unix)

    class Bound(Protocol):
        """This protocol with its application."""

        application = app

    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Bound,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody is believed about who asks
        **more,
    )


class Protocol(HttpToolsProtocol):
    """One connection."""

    application: App

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.front = self.application.front
        self.limits = self.front.limits
        self._hot = self.application.hot
        self._crowd = self.application.crowd
        self._in_head = self._in_message = False
        self._head_bytes = 0
        self._serial = 0
        self._answering: Route | None = None
        """The route of the request at hand, while it may still prove to have come in one piece."""
        self._body: list[bytes] = []
        self._refusal: RefusalError | None = None
        self._ended = False
        """Nothing that comes is read any more."""
        self._ignored_bytes = 0
        self._excess = False
        self._state: State | None = None
        self._due_s = math.inf
        self._late = False
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(self)
        self._excess = len(self.connections) > self.limits.connections
        if self._excess:
            self.app = self.application.too_many
        if len(self.connections) > 2 * self.limits.connections:
            transport.abort()
        else:
            self._wait_for(("request", 0))

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._stuck):
            if timer is not None:
                timer.cancel()
        self._timer = self._stuck = None
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            self._ignored_bytes += len(data)
            if self._ignored_bytes > self.limits.drained_bytes:
                self.transport.abort()
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._hand_over()
            self.cycle.keep_alive = False  # there is nothing to upgrade to: answered, and that was it
            self._ended = True
            return
        except httptools.HttpParserError as error:
            self._refuse(
                self._refusal or RefusalError(400, "bad_http", f"this is not HTTP/1.1: {error}"[:200])
            )
            return
        if self._answering is not None:
            self._hand_over()
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(self._too_large())
                return
        self._look_ahead()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    # -- what the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = 0
        self._serial += 1

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.transport.is_closing():
            raise ConnectionError  # what comes after the last answer is not looked at
        size = len(self.url)
        for name, value in self.headers:
            size += len(name) + len(value) + 4
        if size > self.limits.head_bytes:
            self._refusal = self._too_large()
            raise self._refusal
        if len(self.pipeline) >= self.limits.pipelined:
            self._refusal = RefusalError(
                400, "too_many_requests", f"at most {self.limits.pipelined} requests may wait on a connection"
            )
            raise self._refusal
        route = self._hot.get(self.url)
        if route is not None and self._is_plain():
            self._answering = route
        else:
            super().on_headers_complete()
            if self._excess:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._answering is not None:
            self._body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        route = self._answering
        if route is None:
            super().on_message_complete()
            return
        body = b"".join(self._body)
        if len(body) > route.most_bytes:
            self._hand_over()
            super().on_message_complete()
            return
        self._answering = None
        self._body.clear()
        self._answer(route, body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._look_ahead()
        elif self.transport.get_write_buffer_size():
            self._abort_later()

    # -- answering on the spot

    def _is_plain(self) -> bool:
        """Whether nothing about the request asks for more than an answer."""
        return (
            not self._outstanding()
            and not self.expect_100_continue
            and not self._excess
            and not self.flow.write_paused
            and not self.parser.should_upgrade()
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
        )

    def _answer(self, route: Route, body: bytes) -> None:
        try:
            key = asker(self.headers)
        except RefusalError as refusal:
            reply = self.front.refused(route, refusal)
        else:
            reply = self.front.answer(route, Call(body), key)
        if not self.parser.should_keep_alive():
            reply = reply._replace(closes=True)
        self.transport.write(self._written(reply))
        self.server_state.total_requests += 1
        if reply.closes:
            self._close()

    def _hand_over(self) -> None:
        """Give a request that was not answered on the spot to the application."""
        if self._answering is not None:
            self._answering = None
            super().on_headers_complete()
            for body in self._body:
                super().on_body(body)
            self._body.clear()

    def _written(self, reply: Reply) -> bytes:
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *headers_of(reply)):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", reply.body)
        return b"".join(parts)

    # -- refusing

    def _too_large(self) -> RefusalError:
        return RefusalError(
            431, "headers_too_large", f"request line and headers: at most {self.limits.head_bytes} bytes"
        )

    def _refuse(self, refusal: RefusalError) -> None:
        """Say what was wrong with what came, after the answers that are due, and end the connection."""
        if self.transport.is_closing():
            return
        self._answering = None
        self._body.clear()
        self._ended = True
        cycle = self.cycle
        if self._outstanding():
            if self.pipeline or cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False  # its answer is the last one
                self._wait_for(None)
                return
            cycle.disconnected = True  # its own body was wrong
            cycle.message_event.set()
        reply = self.front.refused(None, refusal)._replace(closes=True)
        self.transport.write(self._written(reply))
        # closed with bytes unread, the connection would be reset and the caller never see why
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._wait_for(("end", self._serial))
        else:
            self._close()

    # -- deadlines

    def _outstanding(self) -> bool:
        """Whether a request is with the application."""
        return self.cycle is not None and not self.cycle.response_complete

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: `_look_ahead` has the pause between requests among its states."""

    def _look_ahead(self) -> None:
        """Set the deadline of what is waited for now."""
        if self.timeout_keep_alive_task is not None:  # uvicorn's own
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self.transport.is_closing() or self._ended:
            return
        if self._in_head:
            self._wait_for(("head", self._serial))
        elif self._outstanding():
            self._wait_for(None)
        elif self._in_message:
            self._wait_for(("rest", self._serial))
        elif self._serial:
            self._wait_for(("idle", self._serial))

    def _wait_for(self, state: State | None) -> None:
        """Begin a state; one that lasts keeps its deadline, however much comes in it."""
        if state == self._state:
            return
        self._state = state
        self._late = False
        if state is not None and state[0] in ("request", "head"):
            self._crowd.join(self)
        else:
            self._crowd.leave(self)
        if state is None:
            self._due_s = math.inf
            return
        self._due_s = self.loop.time() + self.application.allowed_s[state[0]]
        # a timer that comes too early looks and is set anew: cheaper than one for every request
        if self._timer is not None and self._timer.when() > self._due_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(self._due_s, self._look)

    def turn_away(self) -> None:
        """End a connection that brings no request where too many do not."""
        self._refuse(RefusalError(503, "overloaded", "too many connections wait without a request"))

    def _look(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self._state is None:
            return
        if self.loop.time() < self._due_s:
            self._timer = self.loop.call_at(self._due_s, self._look)
        elif not self._late:
            self._late = True
            self._timer = self.loop.call_later(_GRACE_S, self._look)
        elif self._state[0] == "head":
            message = f"headers: were not there within {self.limits.head_s:g} s"
            self._refuse(RefusalError(400, "timeout", message))
        else:
            self._close()

    def _close(self) -> None:
        self._ended = True
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._abort_later()

    def _abort_later(self) -> None:
        """Do not wait for ever for a caller to read the last answer."""
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.limits.write_s, self.transport.abort)


class _Flow(FlowControl):
    """Reads no further while requests wait on the connection: else they could be piled up without end."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.pipeline:
            super().resume_reading()
