"""The service without a transport: what each route takes and gives, who may ask, and how a refusal is told.

HTTP (`serving.app`) and the socket (`serving.unix`) hand bodies in and take replies out. Everything is
done at once, in the event loop: a hop to a thread costs more than an answer. What a caller sent never leads
to a 500; what fails here without the caller's doing is a 503, and the caller's margin engine then applies
rule 2 of the margins itself: the static rate or the one in force, whichever is higher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, NamedTuple

from serving import openapi
from serving.alert import AlertsAnswer
from serving.alerts import Alerts, keep_looking
from serving.audit import Audit
from serving.board import Board
from serving.codec import JSON, Codec
from serving.engine import Engine
from serving.evidence import columns_read, rows_of
from serving.frames import LogError
from serving.judgement import NO_NUMBER, REASONS
from serving.keys import Keys
from serving.limits import Limits
from serving.logs import SLOW_S, Diary
from serving.metrics import Metrics
from serving.openapi import Operation
from serving.questions import Asked, Scoring
from serving.rows import EventsRequest, read_events
from serving.swap import ModelWatch
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
    """All routes of one engine.

    With an `audit` no answer about an account's risk is given that is not in it; with `keys` a caller
    needs one for every route that has a scope, without them everybody has every scope. With a watch over
    models another one can take over, and the last good one comes back where that fails. `board` and
    `metrics_folder` are what several workers share.
    """

    def __init__(
        self,
        engine: Engine,
        model: ModelAnswer | ModelWatch,
        limits: Limits | None = None,
        audit: Audit | None = None,
        keys: Keys | None = None,
        alerts: Alerts | None = None,
        board: Board | None = None,
        metrics_folder: str | None = None,
    ) -> None:
        self.engine = engine
        self.alerts = alerts or Alerts(engine)
        self.board = board
        self.beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """More that is to go on beside the answers."""
        self.limits = limits or Limits()
        self._audit = audit
        self._keys = keys
        self._recorded: Scoring | None = None  # whose columns the audit knows
        self._models = model if isinstance(model, ModelWatch) else None
        self._model = model
        # every worker looks for alerts, and finds the same: counted by one, they are not told twice
        counted = self.alerts if board is None or board.worker == 0 else None
        self._metrics = Metrics(engine, counted, board, metrics_folder)
        if audit is not None:
            audit.took_s = self._metrics.synced_audit
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

    def counts_refused(self, refused: Callable[[], int]) -> None:
        """Where to read how many requests the way in has refused for overload."""
        self._metrics.follow(overloaded=refused)

    @property
    def fault(self) -> str | None:
        """Why this process cannot be relied upon; None while it can."""
        if self.engine.fault is not None:
            return self.engine.fault
        return None if self._audit is None else self._audit.fault

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What is to go on beside the answers, until it is cancelled."""
        works = [self._keep_synced(), keep_looking(self.alerts), *(begin() for begin in self.beside)]
        return works if self._models is None else [*works, self._models.run()]

    async def _keep_synced(self) -> None:
        while self.sync():
            await asyncio.sleep(self.limits.sync_s)

    def authorize(self, route: Route, key: str | None) -> None:
        """Raise RefusalError where the owner of a key may not call a route: 401 or 403.

        `answer` asks too; a transport may ask before it reads a body. A route without a scope is everybody's.
        """
        if self._keys is not None and route.scope is not None:
            self._keys.authorize(key, route.scope)

    def answer(self, route: Route, call: Call, key: str | None = None) -> Reply:
        """Answer one call of somebody who showed this key, or refuse it; never raises."""
        began = perf_counter()
        try:
            self.authorize(route, key)
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
        return self.told(refusal, codec)

    def told(self, refusal: RefusalError, codec: Codec = JSON) -> Reply:
        """The same, not counted: for replies that are made beforehand."""
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
        """Close the engine and the audit log."""
        try:
            self.engine.close()
        finally:
            if self._audit is not None:
                self._audit.close()

    # -- one function a route

    def _events(self, call: Call) -> EventsAnswer:
        answer = self.engine.take(read_events(call.body, call.codec))
        self._metrics.count_events(answer)
        self._diary.rejected(answer)
        return answer

    def _score(self, call: Call) -> Reply:
        asked = self._ask(call.codec.question(ScoreRequest, call.body))
        return self._given("/v1/score", call, asked, asked.answers[0])

    def _batch(self, call: Call) -> Reply:
        asked = self._ask(call.codec.question(BatchRequest, call.body))
        return self._given("/v1/score/batch", call, asked, BatchAnswer(asked.answers, asked.unknown))

    def _ask(self, request: ScoreRequest | BatchRequest) -> Asked:
        """The engine's answers; where the model fails, those of the last good one."""
        if self._models is None:
            return self.engine.ask(request)
        try:
            asked = self.engine.ask(request)
        except RefusalError:
            raise
        except Exception as error:
            if not self._models.give_back(f"{type(error).__name__}: {error}"):
                raise
            return self.engine.ask(request)
        failed = any(answer.fallback_reason == REASONS[NO_NUMBER] for answer in asked.answers)
        if failed and self._models.give_back("it gave no number"):
            return self.engine.ask(request)
        return asked

    def _given(self, path: str, call: Call, asked: Asked, answer: Answer | BatchAnswer) -> Reply:
        """The reply with an answer about risk, which is in the audit log by then; RefusalError 503 if not."""
        body = call.codec.encode(answer)
        audit = self._audit
        if audit is not None:
            scorer = self.engine.scorer
            try:
                if scorer is not self._recorded:
                    audit.reads(scorer.model_version, columns_read(scorer))
                    self._recorded = scorer
                audit.append(path, call.codec.name, call.body, body, rows_of(asked))
            except LogError as error:
                raise RefusalError(503, "audit_unavailable", str(error)) from error
        self._metrics.count_answers(asked.answers)
        return Reply(200, body, call.codec.media_type)

    def _account(self, call: Call) -> AccountAnswer:
        return self.engine.account(call.argument)

    def _card(self, _call: Call) -> ModelAnswer:
        return self._model.about if isinstance(self._model, ModelWatch) else self._model

    def _live(self, _call: Call) -> HealthAnswer:
        return self._health("live")

    def _ready(self, _call: Call) -> HealthAnswer:
        if self.engine.fault is not None:
            raise RefusalError(503, "no_more_events", self.engine.fault)
        if self.fault is not None:
            raise RefusalError(503, "audit_unavailable", self.fault)
        missing = [] if self.board is None else [one.worker for one in self.board.read() if not one.ready]
        if missing:
            listed = ", ".join(map(str, missing))
            raise RefusalError(503, "worker_down", f"workers that do not answer as they should: {listed}")
        ready = self._health("ready")
        faults = (
            None if self._keys is None else self._keys.fault,
            None if self._models is None else self._models.refused,
        )
        if any(faults):
            ready.warnings = [fault for fault in faults if fault is not None]
        return ready

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
        operation = Operation(method, path, summary, *messages, scope)
        return Route(operation, scope, most_bytes, work, self._metrics.route(path))
