"""The engine: takes events in order, keeps the venue's state and answers questions about accounts.

One engine holds one venue. An event is accepted whole or rejected whole (`serving.admission`), and what
is accepted is in the log before it changes anything. Questions change nothing at all.

Any number of engines may follow the one that writes, each from a `LogReader` of its log: they take no
events, and before every question they apply what has been logged by then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from features.venue import Venue
from serving import columns, entries, snapshot
from serving.admission import CLOCK_SKEW_US, Admission, Bounds
from serving.entries import Entry
from serving.frames import Frame, LogError
from serving.intake import Intake, Weighed
from serving.log import EventLog, LogReader
from serving.questions import Asked, Moment, Questions, Scoring
from serving.rows import Request
from serving.shared_log import SharedLog
from serving.snapshot import Position, Snapshot
from serving.wire import (
    LAST_US,
    AccountAnswer,
    Answer,
    BatchAnswer,
    BatchRequest,
    EventsAnswer,
    RefusalError,
    ScoreRequest,
)


class Engine:
    """State of one venue and a scorer; not safe for use from several threads.

    `clock` gives the machine's time in microseconds; without one, now is the newest event's time and no
    event is from the future. `venue` is a state to begin with and belongs to the engine from then on.
    With a `log` its events are applied first, which must have been logged on the same beginning; with a
    reader of one the engine follows it. `bounds` are what new names are taken up to.
    """

    def __init__(
        self,
        scorer: Scoring,
        clock: Callable[[], int] | None = None,
        venue: Venue | None = None,
        log: EventLog | LogReader | None = None,
        quote_asset: str = "USD",
        bounds: Bounds | None = None,
    ) -> None:
        owner = b"" if log is None else log.owner
        known = snapshot.beginning(Venue() if venue is None else venue, quote_asset, owner)
        self._begin(scorer, known, clock, log, bounds)

    @classmethod
    def restore(
        cls,
        scorer: Scoring,
        known: Snapshot,
        clock: Callable[[], int] | None = None,
        log: EventLog | LogReader | None = None,
        bounds: Bounds | None = None,
    ) -> Self:
        """An engine that knows what a snapshot does, whose venue is its own from then on, and the log's tail.

        Raises SnapshotError where the snapshot is not of this log.
        """
        if log is not None and not snapshot.belongs(known, log):
            raise snapshot.SnapshotError(f"{log.path}: the snapshot is not of this event log")
        engine = cls.__new__(cls)
        engine._begin(scorer, known, clock, log, bounds)
        return engine

    def _begin(
        self,
        scorer: Scoring,
        known: Snapshot,
        clock: Callable[[], int] | None,
        log: EventLog | LogReader | None,
        bounds: Bounds | None,
    ) -> None:
        self.venue = known.venue
        self.sequence = known.sequence
        """Events applied so far, those that change nothing that is computed included."""
        self._clock = clock
        self._log = log
        self._reader = log if isinstance(log, LogReader) else None
        self._failed: str | None = None
        self._quote_asset = known.quote_asset
        self._position = known.position
        self._admission = Admission(
            self.venue, known.quote_asset, bounds or Bounds(), known.frontier, known.sources
        )
        self._intake = Intake(self.venue, self._admission, known.quote_asset)
        self._questions = Questions(self.venue, scorer, self._admission.knows_market, clock is not None)
        self._recover()

    def _recover(self) -> None:
        """Apply what is in the log already."""
        if self._reader is not None:
            self._reader.skip(self._position.end)
            self.catch_up()
        elif isinstance(self._log, EventLog):
            for frame in self._log.frames(self._position.end):
                self._replay(frame)

    @property
    def now_us(self) -> int:
        """What time it is; -1 on an event clock before the first event."""
        return self.venue.now_us if self._clock is None else self._clock()

    # -- events in

    def take(self, request: Request) -> EventsAnswer:
        """Judge the events of a request, in the order in which they apply, and apply those accepted.

        Raises RefusalError 503 where the log cannot be written or another process writes it: nothing is
        accepted then.
        """
        return self._take(lambda newest_us: self._intake.weigh(request, self.sequence, newest_us))

    def take_columns(self, sent: columns.EventColumns) -> EventsAnswer:
        """The same for events that are columns; raises RefusalError 422 for what no rows could be made of."""
        return self._take(lambda newest_us: self._intake.weigh_columns(sent, self.sequence, newest_us))

    def _take(self, weigh: Callable[[int], Weighed]) -> EventsAnswer:
        self._sure()
        if not isinstance(self._log, SharedLog):
            if self._reader is not None:
                raise RefusalError(503, "not_the_writer", "another process takes the events of this service")
            return self._taken(weigh)
        try:
            with self._log.turn():
                self.catch_up()
                return self._taken(weigh)
        except LogError as error:
            raise RefusalError(503, "log_unavailable", str(error)) from error

    def _taken(self, weigh: Callable[[int], Weighed]) -> EventsAnswer:
        weighed = weigh(LAST_US if self._clock is None else self._clock() + CLOCK_SKEW_US)
        if weighed.entry is not None:
            self._write(weighed.entry)
            self._apply_surely(weighed.entry)
        return EventsAnswer(weighed.accepted, weighed.rejected, self.sequence)

    def catch_up(self) -> int:
        """Apply what another process has logged since the last time; how many events that were.

        Raises RefusalError 503 where the log is damaged: then nothing can be answered any more.
        """
        if self._reader is None:
            return 0
        before = self.sequence
        try:
            for frame in self._reader.fresh():
                self._replay(frame)
        except LogError as error:
            self._failed = str(error)
            raise RefusalError(503, "failed", self._failed) from error
        return self.sequence - before

    def _write(self, entry: Entry) -> None:
        if not isinstance(self._log, EventLog | SharedLog):
            return
        try:
            start = self._log.append(entries.encode(entry))
        except LogError as error:
            raise RefusalError(503, "log_unavailable", str(error)) from error
        self._position = Position(start, b"", self._log.end)

    def _replay(self, frame: Frame) -> None:
        """Apply a frame of the log; LogError for one that does not go on from here."""
        try:
            entry = entries.decode(frame.payload)
        except ValueError as error:
            raise LogError(f"{self._path}: not understood at byte {frame.start}: {error}") from error
        if entry.first != self.sequence:
            raise LogError(
                f"{self._path}: event {entry.first} at byte {frame.start} does not follow {self.sequence}"
            )
        self._apply_surely(entry)
        self._position = Position(frame.start, b"", frame.end)

    def _apply_surely(self, entry: Entry) -> None:
        try:
            self._apply(entry)
        except BaseException:
            # some of the events may have counted, and nobody knows which
            self._failed = "the state is not sure any more; a restart recovers it from the event log"
            raise

    def _apply(self, entry: Entry) -> None:
        """Apply what is in the log."""
        venue = self.venue
        gives = (venue.market, venue.asset, venue.account, venue.owner)
        for give, names in zip(gives, entry.names, strict=True):
            for name in names:
                give(name)
        venue.apply(entry.events)
        self._admission.record(entry)
        self.sequence += entry.rows

    @property
    def _path(self) -> Path | None:
        return None if self._log is None else self._log.path

    def snapshot(self, path: Path | None = None) -> Path:
        """Write all that this engine knows; without a path beside the log, where the newest two are kept.

        The log is carried to the disk first, so that no snapshot knows more than the log does. Raises
        SnapshotError or LogError where that fails.
        """
        self._sure()
        position, log = self._position, self._log
        if log is not None:
            log.sync()
            if position.end:
                position = position._replace(head=log.head(position.start))
        known = Snapshot(
            b"" if log is None else log.owner,
            position,
            self.sequence,
            self._quote_asset,
            self._admission.frontier,
            self._admission.sources.runs(),
            self.venue,
        )
        if path is not None:
            snapshot.write(path, known)
            return path
        if log is None:
            raise snapshot.SnapshotError("without an event log a snapshot needs a path")
        return snapshot.save(log, known)

    def sync(self) -> None:
        """Carry accepted events to the disk, which is the writer's to do; LogError where that fails."""
        if isinstance(self._log, EventLog):
            self._log.sync()

    def close(self) -> None:
        """Sync and close the log."""
        if self._log is not None:
            self._log.close()

    @property
    def fault(self) -> str | None:
        """Why no event can be accepted any more; None while they can."""
        if self._failed is None and self._log is not None:
            return self._log.fault
        return self._failed

    # -- questions

    @property
    def scorer(self) -> Scoring:
        """What answers are computed with; another one takes effect with the next question."""
        return self._questions.scorer

    @scorer.setter
    def scorer(self, scorer: Scoring) -> None:
        self._questions.scorer = scorer

    def ask(self, request: ScoreRequest | BatchRequest) -> Asked:
        """Answers, and what they rest on: all that was logged by now.

        Raises RefusalError: 404 for an account that nothing has announced, 409 where `min_sequence` was not
        reached, 422 for names that are not known, 503 before the first event.
        """
        if isinstance(request, ScoreRequest):
            self._answerable(request.min_sequence)
            return self._questions.score(request, self._moment())
        self._answerable(None)
        return self._questions.score_batch(request, self._moment())

    def score(self, request: ScoreRequest) -> Answer:
        """Answer one question; raises what `ask` does."""
        return self.ask(request).answers[0]

    def score_batch(self, request: BatchRequest) -> BatchAnswer:
        """Answer for many accounts as they stand, in one call of the model; raises what `ask` does."""
        asked = self.ask(request)
        return BatchAnswer(asked.answers, asked.unknown)

    def account(self, account_id: str) -> AccountAnswer:
        """An account as it is held; RefusalError 404 where nothing has announced it."""
        self._current()
        return self._questions.account(account_id, self._moment())

    def _moment(self) -> Moment:
        return Moment(self.now_us, self.sequence)

    def _sure(self) -> None:
        if self._failed is not None:
            raise RefusalError(503, "failed", self._failed)

    def _current(self) -> None:
        self._sure()
        self.catch_up()

    def _answerable(self, min_sequence: int | None) -> None:
        self._current()
        if min_sequence is not None and self.sequence < min_sequence:
            raise RefusalError(
                409,
                "sequence_not_reached",
                f"min_sequence: {min_sequence} was asked for, {self.sequence} events have been applied",
                "min_sequence",
            )
        if self.venue.now_us < 0:
            raise RefusalError(503, "no_events_yet", "no event has been applied yet, so no market is known")
