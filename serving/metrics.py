"""Figures of the service for Prometheus; names of accounts and markets, which are hostile, are no labels."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from exchange.units import SECOND_US
from serving.engine import Engine
from serving.wire import Answer, EventsAnswer

BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)


class Metrics:
    """What is counted while an engine answers."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "perprisk_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "perprisk_request_duration_seconds",
            "Time from the head of a request to its answer.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._events = Counter(
            "perprisk_events", "Events by what became of them.", ["outcome"], registry=self._registry
        )
        self._answers = Counter(
            "perprisk_answers", "Accounts answered for, by status.", ["status"], registry=self._registry
        )
        for name, words, value in (
            ("perprisk_sequence", "Events applied.", lambda: engine.sequence),
            (
                "perprisk_newest_event_timestamp_seconds",
                "Time of the newest event.",
                lambda: engine.venue.now_us / SECOND_US,
            ),
            ("perprisk_accounts", "Accounts announced.", lambda: len(engine.venue.account_names)),
        ):
            Gauge(name, words, registry=self._registry).set_function(value)

    def route(self, path: str) -> Callable[[int, float], None]:
        """A meter for one route: takes the status and seconds of every answer."""
        seconds = self._seconds.labels(path)
        by_status: dict[int, Counter] = {}

        def meter(status: int, duration_s: float) -> None:
            counter = by_status.get(status)
            if counter is None:
                counter = by_status[status] = self._requests.labels(path, str(status))
            counter.inc()
            seconds.observe(duration_s)

        return meter

    def count_events(self, answer: EventsAnswer) -> None:
        """Count what became of events."""
        self._events.labels("accepted").inc(answer.accepted)
        for code, number in Tally(entry.code for entry in answer.rejected).items():
            self._events.labels(code).inc(number)

    def count_answers(self, answers: Iterable[Answer]) -> None:
        """Count answers by whether they are fallbacks."""
        for status, number in Tally(answer.status for answer in answers).items():
            self._answers.labels(status).inc(number)

    def exposition(self) -> tuple[bytes, str]:
        """All figures as text, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
