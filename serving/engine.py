"""The engine: takes events in order, keeps the venue's state and answers questions about accounts.

One engine holds one venue. An event is accepted whole or rejected whole (`serving.admission`), and what
is accepted is in the log before it changes anything. Questions change nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from features.events import ASSET
from features.venue import Venue
from serving import rows
from serving.admission import CLOCK_SKEW_US, Admission
from serving.batches import Columns, write
from serving.frames import LogError
from serving.log import EventLog
from serving.questions import Asked, Moment, Questions, Scoring
from serving.rows import Request, Row
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


class Logged(msgspec.Struct, array_like=True):
    """What the event log keeps of a request: its accepted rows in the order in which they were applied."""

    source: str
    rows: list[rows.ROW]


_log_encoder = msgspec.msgpack.Encoder()
_log_decoder = msgspec.msgpack.Decoder(Logged)


class Engine:
    """State of one venue and a scorer; not safe for use from several threads.

    `clock` gives the machine's time in microseconds; without one, now is the newest event's time and no
    event is from the future. `venue` is a state to begin with and belongs to the engine from then on.
    With a `log` its events are applied first, which must have been logged on the same beginning.
    """

    def __init__(
        self,
        scorer: Scoring,
        clock: Callable[[], int] | None = None,
        venue: Venue | None = None,
        log: EventLog | None = None,
        quote_asset: str = "USD",
    ) -> None:
        self.venue = Venue() if venue is None else venue
        self.sequence = 0
        """Events applied so far, those that change nothing that is computed included."""
        self._clock = clock
        self._log = log
        self._failed: str | None = None
        self._quote_asset = quote_asset
        self._admission = Admission(self.venue, quote_asset)
        self._questions = Questions(self.venue, scorer, self._admission.knows_market, clock is not None)
        if log is not None:
            for payload in log.payloads():
                logged = _log_decoder.decode(payload)
                self._apply(logged.source, logged.rows)

    @property
    def now_us(self) -> int:
        """What time it is; -1 on an event clock before the first event."""
        return self.venue.now_us if self._clock is None else self._clock()

    # -- events in

    def take(self, request: Request) -> EventsAnswer:
        """Judge the events of a request, in the order in which they apply, and apply those accepted.

        Raises RefusalError 503 where the log cannot be written: nothing is accepted then.
        """
        self._sure()
        newest_us = LAST_US if self._clock is None else self._clock() + CLOCK_SKEW_US
        judged = self._admission.judge(request, newest_us)
        if judged.accepted:
            if self._log is not None:
                try:
                    self._log.append(_log_encoder.encode(Logged(request.source, judged.accepted)))
                except LogError as error:
                    raise RefusalError(503, "log_unavailable", str(error)) from error
            try:
                self._apply(request.source, judged.accepted)
            except BaseException:
                # some of the events may have counted, and nobody knows which
                self._failed = "the state is not sure any more; a restart recovers it from the event log"
                raise
        return EventsAnswer(len(judged.accepted) + judged.repeats, judged.rejected, self.sequence)

    def sync(self) -> None:
        """Carry accepted events to the disk; LogError where that fails."""
        if self._log is not None:
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

    def _apply(self, source: str, accepted: list[Row]) -> None:
        """Apply rows that were judged, in this order."""
        columns = Columns()
        for row in accepted:
            time_us = self._admission.record(row)
            if self._announces_quote(row):
                columns.add(ASSET, time_us, self.venue.asset(self._quote_asset), -1, (1.0, 1.0))
            write(row, time_us, self.venue, columns)
        self.venue.apply(columns.batch())
        self._admission.record_sequences(
            source, [row.sequence for row in accepted if row.sequence is not None]
        )
        self.sequence += len(accepted)

    def _announces_quote(self, row: Row) -> bool:
        """Whether the quote currency becomes known with a row: an asset without a haircut that needs none.

        It does when it is first used, and in its place by name among the assets announced, where a
        dataset has it too: the same rows then give the same ids.
        """
        if self.venue.find_asset(self._quote_asset) >= 0:
            return False
        later = rows.table_of(row) == "assets" and row.asset > self._quote_asset
        return later or self._quote_asset in rows.assets_of(row)

    # -- questions

    @property
    def scorer(self) -> Scoring:
        """What answers are computed with; another one takes effect with the next question."""
        return self._questions.scorer

    @scorer.setter
    def scorer(self, scorer: Scoring) -> None:
        self._questions.scorer = scorer

    def ask(self, request: ScoreRequest | BatchRequest) -> Asked:
        """Answers, and what they rest on.

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
        self._sure()
        return self._questions.account(account_id, self._moment())

    def _moment(self) -> Moment:
        return Moment(self.now_us, self.sequence)

    def _sure(self) -> None:
        if self._failed is not None:
            raise RefusalError(503, "failed", self._failed)

    def _answerable(self, min_sequence: int | None) -> None:
        self._sure()
        if min_sequence is not None and self.sequence < min_sequence:
            raise RefusalError(
                409,
                "sequence_not_reached",
                f"min_sequence: {min_sequence} was asked for, {self.sequence} events have been applied",
                "min_sequence",
            )
        if self.venue.now_us < 0:
            raise RefusalError(503, "no_events_yet", "no event has been applied yet, so no market is known")
