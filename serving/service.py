"""The service without a transport: what each route takes and gives, who may ask, and how a refusal is told.

HTTP (`serving.app`) and the socket (`serving.socket`) hand bodies in and take replies out. Everything is
done at once, in the event loop: a hop to a thread costs more than an answer. What a caller sent never leads
to a 500; what fails here without the caller's doing is a 503, and the caller's margin engine then applies
rule 2 of the margins itself: the static rate or the one in force, whichever is higher.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from serving import openapi
from serving.alert import AlertsAnswer
from serving.alerts import Alerts
from serving.codec import JSON, Codec
from serving.engine import Engine
from serving.log import LogError
from serving.logs import SLOW_S, Diary
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
    to_time,
)

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


class Call(NamedTuple):
    """What came in for a route."""

    body: bytes = b""
    argument: str = ""
    """What the route's path leaves open: the name of an account."""
    codec: Codec = JSON


class Reply(NamedTuple):
    """What goes out."""

    status: int
    body: bytes
    media_type: str = JSON.media_type
    closes: bool = False
    """Whether the connection ends with it, because the rest of a body may still be on its way."""


class Route(NamedTuple):
    """One route: its contract, the most bytes that it takes, and the function that answers.

    What `work` returns is encoded, unless it is a reply already. A route without a scope answers everybody.
    """

    operation: Operation
    scope: str | None
    most_bytes: int
    work: Callable[[Call], Any]
    meter: Callable[[int, float], None]


class Service:
    """All routes of one engine."""

    def __init__(
        self,
        engine: Engine,
        model: ModelAnswer,
        limits: Limits | None = None,
        alerts: Alerts | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.engine = engine
        self.alerts = alerts or Alerts(engine)
        self.limits = limits or Limits()
        self._model = model
        self._metrics = metrics or Metrics(engine, self.alerts)
        self._diary = Diary(_log)
        self._synced = engine.sequence
        small, large = self.limits.body_bytes, self.limits.batch_body_bytes
        route = self._route
        self.routes = [
            route("POST", "/v1/events", "Send events", "events", (EventsRequest, EventsAnswer), large,
                  self._events),
            route("POST", "/v1/score", "Ask about an account", "score", (ScoreRequest, Answer), small,
                  self._score),
            route("POST", "/v1/score/batch", "Ask about many accounts", "score", (BatchRequest, BatchAnswer),
                  large, self._batch),
            route("GET", "/v1/accounts/{account_id}", "State of an account", "read", (None, AccountAnswer), 0,
                  self._account),
            route("GET", "/v1/alerts", "Accounts at risk", "read", (None, AlertsAnswer), 0,
                  lambda _call: self.alerts.answer()),
            route("GET", "/v1/model", "The model that answers", "read", (None, ModelAnswer), 0, self._card),
            route("GET", "/health/live", "Is it alive?", None, (None, HealthAnswer), 0, self._live),
            route("GET", "/health/ready", "Can it answer?", None, (None, HealthAnswer), 0, self._ready),
            route("GET", "/metrics", "Figures for Prometheus", "metrics", (None, None), 0, self._figures),
            route("GET", "/openapi.json", "This document", None, (None, None), 0, self._document),
        ]  # fmt: skip
        self._openapi = JSON.encode(openapi.document([route.operation for route in self.routes]))

    def answer(self, route: Route, call: Call) -> Reply:
        """Answer one call; never raises."""
        began = perf_counter()
        try:
            answer = route.work(call)
            reply = (
                answer
                if isinstance(answer, Reply)
                else Reply(200, call.codec.encode(answer), call.codec.media_type)
            )
        except RefusalError as refusal:
            reply = self.refused(refusal, call.codec)
        except Exception:
            _log.exception("an answer failed", extra={"route": route.operation.path})
            failed = RefusalError(503, "failed", "the service failed to answer this request")
            reply = self.refused(failed, call.codec)
        duration_s = perf_counter() - began
        route.meter(reply.status, duration_s)
        if duration_s > SLOW_S:
            self._diary.slow(route.operation.path, reply.status, duration_s)
        return reply

    def refused(self, refusal: RefusalError, codec: Codec = JSON) -> Reply:
        """The reply that tells a refusal."""
        self._metrics.count_refusal(refusal.code)
        told = ErrorAnswer(Error(refusal.code, str(refusal), refusal.field))
        closes = refusal.code in ("too_large", "timeout")
        return Reply(refusal.status, codec.encode(told), codec.media_type, closes)

    def sync(self) -> bool:
        """Carry to the disk what was accepted; False where that fails, once and for all."""
        self._metrics.flush()
        began = perf_counter()
        try:
            self.engine.sync()
        except LogError as error:
            # readiness tells it too, and no event is accepted any more
            _log.critical("the event log failed", extra={"fault": str(error)})
            return False
        if self.engine.sequence != self._synced:  # otherwise there was nothing to carry
            self._synced = self.engine.sequence
            self._metrics.synced_log(perf_counter() - began)
        return True

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    # -- one function a route

    def _events(self, call: Call) -> EventsAnswer:
        answer = self.engine.take(read_events(call.body, call.codec))
        self._metrics.count_events(answer)
        self._diary.rejected(answer)
        return answer

    def _score(self, call: Call) -> Answer:
        asked = self.engine.ask(call.codec.decode(ScoreRequest, call.body))
        self._metrics.count_answers(asked.answers)
        return asked.answers[0]

    def _batch(self, call: Call) -> BatchAnswer:
        asked = self.engine.ask(call.codec.decode(BatchRequest, call.body))
        self._metrics.count_answers(asked.answers)
        return BatchAnswer(asked.answers, asked.unknown)

    def _account(self, call: Call) -> AccountAnswer:
        return self.engine.account(call.argument)

    def _card(self, _call: Call) -> ModelAnswer:
        return self._model

    def _live(self, _call: Call) -> HealthAnswer:
        return self._health("live")

    def _ready(self, _call: Call) -> HealthAnswer:
        if self.engine.fault is not None:
            raise RefusalError(503, "no_more_events", self.engine.fault)
        return self._health("ready")

    def _health(self, status: str) -> HealthAnswer:
        now_us = self.engine.now_us
        return HealthAnswer(status, to_time(now_us) if now_us >= 0 else None, self.engine.sequence)

    def _figures(self, _call: Call) -> Reply:
        content, media_type = self._metrics.exposition()
        return Reply(200, content, media_type)

    def _document(self, _call: Call) -> Reply:
        return Reply(200, self._openapi)

    def _route(
        self,
        method: str,
        path: str,
        summary: str,
        scope: str | None,
        messages: tuple[Any, Any],
        most_bytes: int,
        work: Callable[[Call], Any],
    ) -> Route:
        operation = Operation(method, path, summary, *messages)
        return Route(operation, scope, most_bytes, work, self._metrics.route(path))
