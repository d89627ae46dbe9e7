"""The service over HTTP: bodies in, within limits of size and time, and replies out.

Paths that name no account are found in a dictionary, everything else by Starlette's router; both lead to the
same endpoints. Below this application, `serving.http` answers by itself what came whole in one piece.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from serving.crowd import Crowd
from serving.front import Front
from serving.service import Call, Reply, Route
from serving.unix import listening
from serving.wire import RefusalError

Header = tuple[bytes, bytes]

_RETRY_AFTER_S = b"1"
_BEARER = b"bearer "


class App:
    """The ASGI application of a service; closes the service when it shuts down."""

    def __init__(self, front: Front, unix: socket.socket | None = None) -> None:
        """`unix`: a bound Unix socket, on which the service is to answer too."""
        self.front = front
        self._unix = unix
        self.hot: dict[bytes, Route] = {}
        """Routes that take a body and have a plain path."""
        self.crowd = Crowd(front.limits)
        limits = front.limits
        self.allowed_s = {
            "request": limits.head_s, "head": limits.head_s, "rest": limits.body_s, "idle": limits.idle_s,
            "end": limits.body_s,
        }  # fmt: skip
        """Seconds that each state of a connection may last (`serving.http`)."""
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        paths = []
        for route in front.service.routes:
            method, path, *_ = route.operation
            endpoint = Endpoint(front, route)
            if "{" not in path:
                self._endpoints[method, path] = endpoint
                if method == "POST":
                    self.hot[path.encode()] = route
            # names of accounts may hold slashes
            paths.append(Path(path.replace("_id}", "_id:path}"), endpoint, methods=[method]))
        self._others = Starlette(
            routes=paths,
            exception_handlers={HTTPException: self._no_such_route},
            lifespan=lambda _app: self.lifespan(),
        )
        self._others.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the application's life."""
        endpoint = None
        if scope["type"] == "http":
            endpoint = self._endpoints.get((scope["method"], scope["path"]))
        await (endpoint or self._others)(scope, receive, send)

    async def too_many(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a connection that is one too many: only how the service is."""
        path = scope["path"]
        found = self.front.find(path) if path.startswith("/v1/") else None
        if found is None:
            await self(scope, receive, send)
        else:
            await _send(self.front.overloaded(found[0])._replace(closes=True), send)

    async def _no_such_route(self, request: Request, error: Exception) -> Response:
        """What has no route, or not with this method."""
        assert isinstance(error, HTTPException)
        message = f"there is no {request.method} {request.url.path[:200]}"
        reply = self.front.refused(None, RefusalError(404, "unknown_route", message))
        # the error's own headers say which methods there are
        return Response(reply.body, reply.status, error.headers, reply.media_type)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """What goes on while the application answers."""
        service = self.front.service
        tasks = [asyncio.create_task(work) for work in service.work()]
        frames = nullcontext() if self._unix is None else listening(self.front, self._unix)
        try:
            async with frames:
                yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            service.close()


class Endpoint:
    """One route as an ASGI application."""

    def __init__(self, front: Front, route: Route) -> None:
        self._front = front
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        front, route = self._front, self._route
        try:
            key = asker(scope["headers"])
            front.service.authorize(route, key)
            body = await self._body(scope["headers"], receive) if route.most_bytes else b""
        except RefusalError as refusal:
            reply = front.refused(route, refusal)
            if refusal.code == "overloaded":
                reply = reply._replace(closes=True)  # the rest of the body may still be on its way
        else:
            if body is None:
                return  # nobody is there any more
            account_id = scope.get("path_params", {}).get("account_id", "")
            reply = front.answer(route, Call(body, account_id), key)
        await _send(reply, send)

    async def _body(self, headers: Iterable[Header], receive: Receive) -> bytes | None:
        """The body of a request, None where the caller went away.

        Raises RefusalError: 413 where it is too large, 400 where it does not come in time, 503 where too many
        are on their way.
        """
        limits, overload, most_bytes = self._front.limits, self._front.overload, self._route.most_bytes
        too_large = RefusalError(413, "too_large", f"body: at most {most_bytes} bytes are taken here")
        if _waits_for_word(headers, most_bytes):
            raise too_large
        chunks: list[bytes] = []
        size = held = 0
        try:
            async with asyncio.timeout(limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= most_bytes:
                        if not overload.hold(len(chunk)):
                            raise RefusalError(503, "overloaded", "too many bodies are on their way")
                        held += len(chunk)
                        chunks.append(chunk)
                    elif size > limits.drained_bytes:
                        break
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            if size <= most_bytes:
                late = f"body: was not there within {limits.body_s:g} s"
                raise RefusalError(400, "timeout", late) from None
        finally:
            overload.release(held)
        if size > most_bytes:
            raise too_large
        return b"".join(chunks)


def asker(headers: Iterable[Header]) -> str | None:
    """The key that a caller shows, if any.

    Raises RefusalError 403 for what a page in a browser sends: nobody meant to give web sites a say about
    margins.
    """
    key = None
    for name, value in headers:
        if name == b"authorization":
            if value[: len(_BEARER)].lower() == _BEARER:
                key = value[len(_BEARER) :].strip().decode("latin-1")
        elif name == b"origin":
            raise RefusalError(403, "cross_site", "requests from web pages are not answered (Origin header)")
    return key


def headers_of(reply: Reply) -> list[Header]:
    """The headers of a reply; those of its body, and what its status asks for."""
    headers = [
        (b"content-type", reply.media_type.encode()),
        (b"content-length", str(len(reply.body)).encode()),
    ]
    if reply.status == 503:
        headers.append((b"retry-after", _RETRY_AFTER_S))
    elif reply.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if reply.closes:
        headers.append((b"connection", b"close"))
    return headers


async def _send(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": headers_of(reply)})
    await send({"type": "http.response.body", "body": reply.body})


def _waits_for_word(headers: Iterable[Header], most_bytes: int) -> bool:
    """Whether a caller asks before sending (`Expect: 100-continue`) a body that is known to be too large."""
    told = {name: value for name, value in headers if name in (b"expect", b"content-length")}
    # the parser took the length for a number
    return len(told) == 2 and int(told[b"content-length"]) > most_bytes
