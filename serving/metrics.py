"""Figures of the service for Prometheus; names of accounts and markets, which are hostile, are no labels.

While answers are made, numbers are counted in plain Python, which costs a tenth of what Prometheus' own
objects do; `flush` carries them there. One process keeps them in memory. Several keep them in files of a
folder (prometheus_client's multiprocess mode), so that whichever worker is asked tells the sums of all,
those that have died included.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from exchange.errors import WorkError
from exchange.units import HOUR_S, SECOND_US
from serving.alerts import Alerts
from serving.board import LONGEST_SILENCE_S, Board
from serving.engine import Engine
from serving.wire import Answer, EventsAnswer

BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)

MOST_LABELS = 64
"""Different values that a label may have; whatever comes beyond is counted as OTHER."""

OTHER = "other"


class _Histogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations counted by bucket, the last one unbounded, that sum to `total`."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class _Seconds:
    """Durations observed since the last flush."""

    def __init__(self, histogram: _Histogram) -> None:
        self._histogram = histogram
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._total_s = 0.0

    def observe(self, duration_s: float) -> None:
        self._counts[bisect_left(BUCKETS_S, duration_s)] += 1
        self._total_s += duration_s

    def flush(self) -> None:
        if self._total_s or any(self._counts):
            self._histogram.add(self._counts, self._total_s)
            self._begin()


class _Tally:
    """A counter with one label, counted since the last flush; its values are bounded in number."""

    def __init__(self, counter: Counter, *before: str) -> None:
        """`before` are the values of the counter's other labels."""
        self._counter = counter
        self._before = before
        self._counts: dict[str, int] = {}

    def add(self, value: str, number: int = 1) -> None:
        counts = self._counts
        if value not in counts and len(counts) >= MOST_LABELS:
            value = OTHER
        counts[value] = counts.get(value, 0) + number

    def flush(self) -> None:
        for value, number in self._counts.items():
            if number:
                self._counter.labels(*self._before, value).inc(number)
                self._counts[value] = 0  # a value that was met keeps its place


class Metrics:
    """What is counted while an engine answers, and what is read when somebody asks.

    With a `folder` several processes count together; the one that starts them names it in their environment
    as PROMETHEUS_MULTIPROC_DIR, empty at the start. WorkError where the environment does not. `board` tells
    of the workers, `alerts` of accounts at risk in the one process that looks for them.
    """

    def __init__(
        self,
        engine: Engine,
        alerts: Alerts | None = None,
        board: Board | None = None,
        folder: str | None = None,
    ) -> None:
        self._alerts = alerts
        self._registry = CollectorRegistry()
        self._flushes: list[Callable[[], None]] = []
        self._followed: dict[Counter, tuple[Callable[[], int], int]] = {}
        self._in_flight: Callable[[], int] | None = None
        if folder is not None and not values.ValueClass._multiprocess:
            raise WorkError("PROMETHEUS_MULTIPROC_DIR must be in the environment before the start")
        # what is in a registry and in files as well would be told twice
        self._owner = self._registry if folder is None else None
        if folder is not None:
            MultiProcessCollector(self._registry, folder)  # type: ignore[no-untyped-call]
        self._requests = self._counter("requests", "Requests answered.", "route", "status")
        self._durations = self._histogram(
            "request_duration_seconds", "Time from the head of a request to its answer.", "route"
        )
        self._refusals = self._tally("refusals", "Requests refused, by code.", "code")
        self._events = self._tally("events", "Events by what became of them.", "outcome")
        self._answers = self._tally("answers", "Accounts answered for, by status.", "status")
        self._fallbacks = self._tally("fallbacks", "Accounts answered for with a fallback.", "reason")
        self._overloaded = self._counter("overload_refusals", "Requests refused at once, for want of time.")
        self._flights = self._gauge("requests_in_flight", "Requests that are being answered.", "livesum")
        log = self._histogram("event_log_sync_seconds", "Time to carry accepted events to the disk.")
        audit = self._histogram("audit_sync_seconds", "Time to carry the audit log to the disk.")
        self.synced_log, self.synced_audit = self._seconds(log), self._seconds(audit)
        """Take the seconds that a sync has taken."""
        self._at_level = self._gauge("alerts", "Accounts at a level of risk.", "mostrecent", "level")
        self._ended = self._gauge(
            "alert_round_timestamp_seconds", "When all accounts had been looked at.", "mostrecent"
        )
        self._fates = self._counter("alert_outcomes", "Alerts, by what became of them.", "level", "outcome")
        self._lead = self._gauge(
            "alert_median_lead_seconds", "From an alert to its liquidation.", "mostrecent", "level"
        )
        self._liquidations = self._counter("liquidations", "Liquidations told of.", "warned")
        if alerts is not None:
            self._follow_alerts(alerts)
        self._registry.register(_Readings(engine, board))

    # -- counting

    def route(self, path: str) -> Callable[[int, float], None]:
        """A meter for one route: takes the status and seconds of every answer."""
        observe = self._seconds(self._durations, path)
        statuses: dict[int, int] = {}

        def meter(status: int, duration_s: float) -> None:
            statuses[status] = statuses.get(status, 0) + 1
            observe(duration_s)

        def flush() -> None:
            for status, number in statuses.items():
                if number:
                    self._requests.labels(path, str(status)).inc(number)
                    statuses[status] = 0

        self._flushes.append(flush)
        return meter

    def count_refusal(self, code: str) -> None:
        """Count a request that was refused."""
        self._refusals.add(code)

    def count_events(self, answer: EventsAnswer) -> None:
        """Count what became of events."""
        self._events.add("accepted", answer.accepted)
        for entry in answer.rejected:
            self._events.add(entry.code)

    def count_answers(self, answers: Iterable[Answer]) -> None:
        """Count answers by whether and why they are fallbacks."""
        for answer in answers:
            self._answers.add(answer.status)
            if answer.fallback_reason is not None:
                self._fallbacks.add(answer.fallback_reason)

    def follow(
        self, in_flight: Callable[[], int] | None = None, overloaded: Callable[[], int] | None = None
    ) -> None:
        """Read from now on how many requests are being answered, and how many were refused for overload."""
        self._in_flight = in_flight
        if overloaded is not None:
            self._follow(self._overloaded, overloaded)

    # -- telling

    def flush(self) -> None:
        """Carry what was counted to where it is told from; of several processes each does it often."""
        for flush in self._flushes:
            flush()
        for counter, (read, before) in self._followed.items():
            now = read()
            if now != before:
                counter.inc(now - before)
                self._followed[counter] = (read, now)
        if self._in_flight is not None:
            self._flights.set(self._in_flight())
        if self._alerts is not None:
            self._set_alerts(self._alerts)

    def exposition(self) -> tuple[bytes, str]:
        """All figures as text, and its media type."""
        self.flush()
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    # -- making

    def _follow(self, counter: Counter, read: Callable[[], int]) -> None:
        """Count what `read` gives beyond the last time; it may start from anywhere."""
        counter.inc(0)  # there from the start, so that a first increase is seen as one
        self._followed[counter] = (read, 0)

    def _follow_alerts(self, alerts: Alerts) -> None:
        hindsight = alerts.hindsight
        for score in hindsight.scores:
            for outcome in ("raised", "came_true", "expired", "withdrawn"):
                self._follow(self._fates.labels(score.level.name, outcome), partial(getattr, score, outcome))
        self._follow(self._liquidations.labels("yes"), lambda: hindsight.liquidations - hindsight.unwarned)
        self._follow(self._liquidations.labels("no"), lambda: hindsight.unwarned)

    def _set_alerts(self, alerts: Alerts) -> None:
        for score, count in zip(alerts.hindsight.scores, alerts.counts(), strict=True):
            self._at_level.labels(score.level.name).set(count)
            if score.median_lead_h is not None:
                self._lead.labels(score.level.name).set(score.median_lead_h * HOUR_S)
        if alerts.ended_us is not None:
            self._ended.set(alerts.ended_us / SECOND_US)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"perprisk_{name}", words, labels, registry=self._owner)

    def _gauge(self, name: str, words: str, mode: str, *labels: str) -> Gauge:
        return Gauge(
            f"perprisk_{name}",
            words,
            labels,
            registry=self._owner,
            multiprocess_mode=mode,  # type: ignore[arg-type]
        )

    def _histogram(self, name: str, words: str, *labels: str) -> _Histogram:
        return _Histogram(f"perprisk_{name}", words, labels, buckets=BUCKETS_S, registry=self._owner)

    def _tally(self, name: str, words: str, label: str) -> _Tally:
        tally = _Tally(self._counter(name, words, label))
        self._flushes.append(tally.flush)
        return tally

    def _seconds(self, histogram: _Histogram, *labels: str) -> Callable[[float], None]:
        seconds = _Seconds(histogram.labels(*labels) if labels else histogram)
        self._flushes.append(seconds.flush)
        return seconds.observe


class _Readings(Collector):
    """What is read from this process at the moment when somebody asks, and from the board of all workers."""

    def __init__(self, engine: Engine, board: Board | None) -> None:
        self._engine = engine
        self._board = board

    def describe(self) -> Iterator[Metric]:
        """Nothing: it would have to read."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All readings."""
        engine = self._engine
        for name, words, value in (
            ("sequence", "Events applied.", engine.sequence),
            ("newest_event_timestamp_seconds", "Time of the newest event.", engine.venue.now_us / SECOND_US),
            ("clock_timestamp_seconds", "What time the service takes it to be.", engine.now_us / SECOND_US),
            ("accounts", "Accounts announced.", len(engine.venue.account_names)),
            ("ready", "1 where this process takes events and answers.", engine.fault is None),
        ):
            yield GaugeMetricFamily(f"perprisk_{name}", words, value=float(value))
        model = GaugeMetricFamily("perprisk_model_info", "The model that answers.", labels=["model_version"])
        model.add_metric([engine.scorer.model_version], 1.0)
        yield model
        if self._board is not None:
            yield from _workers(self._board)


def _workers(board: Board) -> Iterator[Metric]:
    """What the board says of each worker."""
    up = GaugeMetricFamily("perprisk_worker_up", "1 where a worker has written lately.", labels=["worker"])
    ready = GaugeMetricFamily("perprisk_worker_ready", "1 where a worker answers.", labels=["worker"])
    applied = GaugeMetricFamily("perprisk_worker_sequence", "Events applied.", labels=["worker"])
    for standing in board.read():
        label = [str(standing.worker)]
        up.add_metric(label, float(board.silent_s(standing.worker) <= LONGEST_SILENCE_S))
        ready.add_metric(label, float(standing.ready))
        applied.add_metric(label, float(standing.sequence))
    yield from (up, ready, applied)
