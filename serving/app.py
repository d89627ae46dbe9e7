"""The service over HTTP: bodies in, within limits of size and time, and replies out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Path

from serving.alerts import keep_looking
from serving.service import Call, Reply, Route, Service
from serving.wire import RefusalError


def create_app(service: Service) -> Starlette:
    """The ASGI application of a service; closes the service when it shuts down."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        working = [asyncio.create_task(work) for work in (_sync(service), keep_looking(service.alerts))]
        try:
            yield
        finally:
            for task in working:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            service.close()

    async def no_such_route(request: Request, error: Exception) -> Response:
        """What has no route, or not with this method."""
        assert isinstance(error, HTTPException)
        message = f"there is no {request.method} {request.url.path[:200]}"
        response = _response(service.refused(RefusalError(404, "unknown_route", message)))
        response.headers.update(error.headers or {})  # which methods there are
        return response

    app = Starlette(
        routes=[_path(service, route) for route in service.routes],
        exception_handlers={HTTPException: no_such_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _path(service: Service, route: Route) -> Path:
    async def endpoint(request: Request) -> Response:
        try:
            _check_origin(request)
            body = await _body(service, route, request) if route.most_bytes else b""
        except RefusalError as refusal:
            reply = service.refused(refusal)
            route.meter(reply.status, 0.0)
        except ClientDisconnect:
            reply = Reply(400, b"")  # nobody is there to read it
        else:
            reply = service.answer(route, Call(body, request.path_params.get("account_id", "")))
        return _response(reply)

    # names of accounts may hold slashes
    path = route.operation.path.replace("_id}", "_id:path}")
    return Path(path, endpoint, methods=[route.operation.method])


async def _body(service: Service, route: Route, request: Request) -> bytes:
    """The body of a request; RefusalError 413 where it is too large, 400 where it does not come."""
    limits, most_bytes = service.limits, route.most_bytes
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= most_bytes:
                    chunks.append(chunk)
                elif size > limits.drained_bytes:
                    break
    except TimeoutError:
        if size <= most_bytes:
            message = f"body: was not there within {limits.body_s:g} s"
            raise RefusalError(400, "timeout", message) from None
    if size > most_bytes:
        raise RefusalError(413, "too_large", f"body: at most {most_bytes} bytes are taken here")
    return b"".join(chunks)


async def _sync(service: Service) -> None:
    """Sync the log while the service runs."""
    while True:
        await asyncio.sleep(service.limits.sync_s)
        if not service.sync():
            return


def _check_origin(request: Request) -> None:
    """Refuse what a page in a browser sends: nobody meant to give web sites a say about margins."""
    if "origin" in request.headers:
        raise RefusalError(403, "cross_site", "requests from web pages are not answered (Origin header)")


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status, None, reply.media_type)
    if reply.closes:
        response.headers["connection"] = "close"
    return response
