"""The service over HTTP: routes, limits and what a refusal looks like; answers are the engine's.

Everything runs in the event loop: a hop to a thread costs more than an answer. What a caller sent never
leads to a 500; what fails here without the caller's doing is a 503, and the caller's margin engine then
applies rule 2 of the margins itself: the static rate or the one in force, whichever is higher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving import openapi
from serving.engine import Engine
from serving.log import LogError
from serving.metrics import Metrics
from serving.openapi import Operation
from serving.rows import EventsRequest, read_events
from serving.wire import (
    AccountAnswer,
    Answer,
    BatchAnswer,
    BatchRequest,
    Error,
    ErrorAnswer,
    EventsAnswer,
    HealthAnswer,
    ModelAnswer,
    RefusalError,
    ScoreRequest,
    decode,
    encode,
    to_time,
)

JSON = "application/json"
_log = logging.getLogger("perprisk.serving")


class Limits(NamedTuple):
    """What a caller may take up.

    A body that is too large is read to its end before it is refused, within bounds, because a caller that
    is cut off while sending sees a broken connection and no reason.
    """

    body_bytes: int = 64 * 1024
    batch_body_bytes: int = 8 * 1024 * 1024
    drained_bytes: int = 16 * 1024 * 1024
    body_s: float = 2.0
    """Seconds within which a body must be there."""
    sync_s: float = 0.05
    """Seconds after which accepted events are on the disk."""


class _Handled(NamedTuple):
    operation: Operation
    handle: Callable[[Request], Awaitable[Any]]


def create_app(engine: Engine, model: ModelAnswer, limits: Limits | None = None) -> Starlette:
    """The ASGI application of one engine; closes the engine when it shuts down."""
    service = _Service(engine, model, limits or Limits())
    app = Starlette(
        routes=[service.route(handled) for handled in service.operations],
        exception_handlers={HTTPException: service.no_such_route},
        lifespan=service.lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Service:
    def __init__(self, engine: Engine, model: ModelAnswer, limits: Limits) -> None:
        self._engine = engine
        self._model = model
        self._limits = limits
        self._metrics = Metrics(engine)
        self._score_decoder = msgspec.json.Decoder(ScoreRequest)
        self._batch_decoder = msgspec.json.Decoder(BatchRequest)
        self.operations = [
            _Handled(
                Operation("POST", "/v1/events", "Send events", EventsRequest, EventsAnswer), self._events
            ),
            _Handled(
                Operation("POST", "/v1/score", "Ask about an account", ScoreRequest, Answer), self._score
            ),
            _Handled(
                Operation("POST", "/v1/score/batch", "Ask about many accounts", BatchRequest, BatchAnswer),
                self._batch,
            ),
            _Handled(
                Operation("GET", "/v1/accounts/{account_id}", "State of an account", None, AccountAnswer),
                self._account,
            ),
            _Handled(Operation("GET", "/v1/model", "The model that answers", None, ModelAnswer), self._card),
            _Handled(Operation("GET", "/health/live", "Is it alive?", None, HealthAnswer), self._live),
            _Handled(Operation("GET", "/health/ready", "Can it answer?", None, HealthAnswer), self._ready),
            _Handled(Operation("GET", "/metrics", "Figures for Prometheus", None, None), self._figures),
            _Handled(Operation("GET", "/openapi.json", "This document", None, None), self._document),
        ]
        operations = [handled.operation for handled in self.operations]
        self._openapi = encode(openapi.document(operations))

    # -- one function a route: what it returns is encoded, unless it is a response already

    async def _events(self, request: Request) -> EventsAnswer:
        body = await self._body(request, self._limits.batch_body_bytes)
        answer = self._engine.take(read_events(body))
        self._metrics.count_events(answer)
        return answer

    async def _score(self, request: Request) -> Answer:
        body = await self._body(request, self._limits.body_bytes)
        answer = self._engine.score(decode(self._score_decoder, body))
        self._metrics.count_answers([answer])
        return answer

    async def _batch(self, request: Request) -> BatchAnswer:
        body = await self._body(request, self._limits.batch_body_bytes)
        answer = self._engine.score_batch(decode(self._batch_decoder, body))
        self._metrics.count_answers(answer.answers)
        return answer

    async def _account(self, request: Request) -> AccountAnswer:
        return self._engine.account(request.path_params["account_id"])

    async def _card(self, _request: Request) -> ModelAnswer:
        return self._model

    async def _live(self, _request: Request) -> HealthAnswer:
        return self._health("live")

    async def _ready(self, _request: Request) -> HealthAnswer:
        if self._engine.fault is not None:
            raise RefusalError(503, "no_more_events", self._engine.fault)
        return self._health("ready")

    def _health(self, status: str) -> HealthAnswer:
        now_us = self._engine.now_us
        return HealthAnswer(status, to_time(now_us) if now_us >= 0 else None, self._engine.sequence)

    async def _figures(self, _request: Request) -> Response:
        content, media_type = self._metrics.exposition()
        return Response(content, media_type=media_type)

    async def _document(self, _request: Request) -> Response:
        return Response(self._openapi, media_type=JSON)

    # -- what all routes have in common

    def route(self, handled: _Handled) -> Route:
        method, path = handled.operation.method, handled.operation.path
        meter = self._metrics.route(path)

        async def endpoint(request: Request) -> Response:
            began = perf_counter()
            try:
                _check_origin(request)
                answer = await handled.handle(request)
                response = (
                    answer if isinstance(answer, Response) else Response(encode(answer), 200, None, JSON)
                )
            except RefusalError as refusal:
                response = _refused(refusal)
            except ClientDisconnect:
                response = Response(status_code=400)  # nobody is there to read it
            except Exception:
                _log.exception("%s %s failed", method, path)
                response = _refused(RefusalError(503, "failed", "the service failed to answer this request"))
            meter(response.status_code, perf_counter() - began)
            return response

        # names of accounts may hold slashes
        return Route(path.replace("_id}", "_id:path}"), endpoint, methods=[method])

    async def no_such_route(self, request: Request, error: Exception) -> Response:
        """What has no route, or not with this method."""
        assert isinstance(error, HTTPException)
        message = f"there is no {request.method} {request.url.path[:200]}"
        response = _refused(RefusalError(404, "unknown_route", message))
        response.headers.update(error.headers or {})  # which methods there are
        return response

    async def _body(self, request: Request, most_bytes: int) -> bytes:
        """The body of a request; RefusalError 413 where it is too large, 400 where it does not come."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most_bytes:
                        chunks.append(chunk)
                    elif size > self._limits.drained_bytes:
                        break
        except TimeoutError:
            if size <= most_bytes:
                message = f"body: was not there within {self._limits.body_s:g} s"
                raise RefusalError(400, "timeout", message) from None
        if size > most_bytes:
            raise RefusalError(413, "too_large", f"body: at most {most_bytes} bytes are taken here")
        return b"".join(chunks)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Sync the log while the service runs, and close it at the end."""
        syncing = asyncio.create_task(self._sync())
        try:
            yield
        finally:
            syncing.cancel()
            with suppress(asyncio.CancelledError):
                await syncing
            self._engine.close()

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(self._limits.sync_s)
            try:
                self._engine.sync()
            except LogError as error:
                _log.critical("%s", error)  # readiness tells it too, and no event is accepted any more
                return


def _check_origin(request: Request) -> None:
    """Refuse what a page in a browser sends: nobody meant to give web sites a say about margins."""
    if "origin" in request.headers:
        raise RefusalError(403, "cross_site", "requests from web pages are not answered (Origin header)")


def _refused(refusal: RefusalError) -> Response:
    body = encode(ErrorAnswer(Error(refusal.code, str(refusal), refusal.field)))
    response = Response(body, refusal.status, None, JSON)
    if refusal.code in ("too_large", "timeout"):
        response.headers["connection"] = "close"  # the rest of the body may still be on its way
    return response
