"""The engine: takes events in order, keeps the venue's state and answers questions about accounts.

One engine holds one venue. An event is accepted whole or rejected whole (`serving.admission`), and what
is accepted is in the log before it changes anything. Questions change nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from exchange.account import notional_usd
from exchange.units import MINUTE_US, SECOND_US
from features import emit as figure
from features.events import ASSET
from features.venue import Vectors, Venue
from serving import cure, rows
from serving.admission import CLOCK_SKEW_US, Admission
from serving.batches import Columns, write
from serving.log import EventLog, LogError
from serving.rows import Request, Row
from serving.scorer import Scores
from serving.whatif import Trial
from serving.wire import (
    LAST_US,
    AccountAnswer,
    Answer,
    Balance,
    BatchAnswer,
    BatchRequest,
    EventsAnswer,
    Position,
    Reason,
    RefusalError,
    ScoreRequest,
    to_time,
)

LIFETIME_US = MINUTE_US
"""How long an answer may be acted on: past `valid_until` the caller applies max(static, in force) itself."""

ISOLATED_UNKNOWN = "unknown_isolated_collateral"
"""Why a what-if order of an isolated account falls back: what would stand behind it is not known."""


class Explained(Protocol):
    """A reason as a scorer gives it."""

    @property
    def code(self) -> str: ...
    @property
    def feature(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def contribution(self) -> float: ...


class Scoring(Protocol):
    """What the engine asks of a scorer."""

    model_version: str

    def score(self, vectors: Vectors, /) -> Scores:
        """Score every row."""

    def reasons(
        self, vectors: Vectors, scores: Scores, all_rows: bool = False
    ) -> Sequence[Sequence[Explained]]:
        """What raises each row's risk."""


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
        self.scorer = scorer
        self.venue = Venue() if venue is None else venue
        self.sequence = 0
        """Events applied so far, those that change nothing that is computed included."""
        self._clock = clock
        self._log = log
        self._failed: str | None = None
        self._quote_asset = quote_asset
        self._admission = Admission(self.venue, quote_asset)
        self._trial = Trial(self.venue)
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

    def score(self, request: ScoreRequest) -> Answer:
        """Answer one question.

        Raises RefusalError: 404 for an account that nothing has announced, 409 where `min_sequence` was not
        reached, 422 for names that are not known, 503 before the first event.
        """
        self._answerable(request.min_sequence)
        account = self.venue.find_account(request.account_id)
        if account < 0 and request.account is None:
            raise RefusalError(
                404, "unknown_account", f"account_id: {request.account_id!r} is not known", "account_id"
            )
        begin = self._beginning(request, account)
        begin()
        vectors = self._aged(self._trial.vectors(account))
        scores = self.scorer.score(vectors)
        unknown = np.isnan(vectors.figures[:, figure.COLLATERAL_USD]).any()
        if request.orders and self._trial.isolated and unknown:
            scores.fallback[0] = ISOLATED_UNKNOWN
        answer = self._answer(request.account_id, scores, 0 if scores.fallback else None)
        if request.explain:
            found = self.scorer.reasons(vectors, scores, all_rows=True)
            answer.reasons = [
                Reason(reason.code, reason.feature, reason.value, reason.contribution)
                for reason in (found[0] if found else ())
            ]
        if request.cure:
            answer.cure = cure.cure(self.venue, self._trial, begin, _Aged(self.scorer, self._aged))
        return answer

    def score_batch(self, request: BatchRequest) -> BatchAnswer:
        """Answer for many accounts as they stand, in one call of the model; 503 before the first event."""
        self._answerable(None)
        keys = [self.venue.find_account(name) for name in request.account_ids]
        known = list(dict.fromkeys(key for key in keys if key >= 0))
        scores = self.scorer.score(self._aged(self.venue.vectors(known)))
        row_of = {key: row for row, key in enumerate(scores.account.tolist())}
        answers = [
            self._answer(name, scores, row_of.get(key))
            for name, key in zip(request.account_ids, keys, strict=True)
            if key >= 0
        ]
        unknown = [name for name, key in zip(request.account_ids, keys, strict=True) if key < 0]
        return BatchAnswer(answers, unknown)

    def account(self, account_id: str) -> AccountAnswer:
        """An account as it is held; RefusalError 404 where nothing has announced it."""
        key = self.venue.find_account(account_id)
        if key < 0:
            raise RefusalError(404, "unknown_account", f"{account_id!r} is not known", "account_id")
        self._sure()
        self._trial.load(key)
        state = self.venue.state
        row = state.account[key]
        holdings = self._trial.holdings()
        owner, opened_us = int(row["owner"]), int(row["opened"])
        return AccountAnswer(
            account_id=account_id,
            time=to_time(max(self.now_us, 0)),
            sequence=self.sequence,
            owner_id=None if owner < 0 else self.venue.owner_names[owner],
            margin_mode="isolated" if row["isolated"] else "cross",
            opened_time=None if opened_us < 0 else to_time(opened_us),
            equity_usd=holdings.equity_usd,
            collateral_usd=holdings.collateral_usd,
            initial_margin_usd=holdings.initial_margin_usd,
            maintenance_margin_usd=holdings.maintenance_margin_usd,
            initial_margin_rate_in_force=float(row["initial_in_force"]),
            maintenance_margin_rate_in_force=float(row["maintenance_in_force"]),
            positions=[
                Position(
                    market=self.venue.market_names[position["market"]],
                    quantity=float(position["quantity"]),
                    entry_price=float(position["entry_price"]),
                    quote_usd=float(position["quote"]),
                    isolated_collateral_usd=float(position["isolated_collateral"]),
                    mark=float(state.market["mark"][position["market"]]),
                    notional_usd=notional_usd(
                        float(position["quantity"]), float(state.market["mark"][position["market"]])
                    ),
                )
                for position in holdings.positions
            ],
            balances=[
                Balance(self.venue.asset_names[balance["asset"]], float(balance["amount"]))
                for balance in holdings.balances
            ],
        )

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

    def _beginning(self, request: ScoreRequest, account: int) -> Callable[[], None]:
        """What puts the account of a question into the trial; raises RefusalError 422 for unknown names."""
        orders = [
            (self._market(order.market, f"orders[{number}].market"), order.quantity, order.price)
            for number, order in enumerate(request.orders)
        ]
        sent = request.account
        if sent is not None:
            for number, position in enumerate(sent.positions):
                self._market(position.market, f"account.positions[{number}].market")
            for number, balance in enumerate(sent.balances):
                if self.venue.find_asset(balance.asset) < 0:
                    place = f"account.balances[{number}].asset"
                    raise RefusalError(
                        422, "unknown_asset", f"{place}: {balance.asset!r} is not known", place
                    )
            _all_different((position.market for position in sent.positions), "account.positions")
            _all_different((balance.asset for balance in sent.balances), "account.balances")

        def begin() -> None:
            if sent is None:
                self._trial.load(account)
            else:
                self._trial.send(sent, account)
            for market, quantity, price in orders:
                self._trial.order(market, quantity, price)

        return begin

    def _market(self, name: str, place: str) -> int:
        if not self._admission.knows_market(name):
            raise RefusalError(422, "unknown_market", f"{place}: {name!r} is not known", place)
        return self.venue.find_market(name)

    def _aged(self, vectors: Vectors) -> Vectors:
        """Vectors with their marks as old as they are by the clock, not only by the newest event."""
        if self._clock is not None:
            behind_s = (self._clock() - self.venue.now_us) / SECOND_US
            vectors.figures[:, figure.MARK_AGE_S] += max(behind_s, 0.0)
        return vectors

    def _answer(self, account_id: str, scores: Scores, row: int | None) -> Answer:
        """The answer in a row of scores; zeros where the account has no open position and thus no row."""
        now_us = max(self.now_us, 0)
        pd: list[float] = [0.0] * 4 if row is None else scores.pd[row].tolist()
        reason = None if row is None else scores.fallback[row]
        return Answer(
            account_id=account_id,
            time=to_time(now_us),
            sequence=self.sequence,
            valid_until=to_time(now_us + LIFETIME_US),
            pd_liquidation_1h=pd[0],
            pd_liquidation_8h=pd[1],
            pd_liquidation_24h=pd[2],
            pd_negative_equity_24h=pd[3],
            expected_loss_usd=0.0 if row is None else float(scores.expected_loss_usd[row]),
            static_initial_margin_rate=0.0 if row is None else float(scores.static_initial_rate[row]),
            initial_margin_rate=0.0 if row is None else float(scores.initial_rate[row]),
            maintenance_margin_rate=0.0 if row is None else float(scores.maintenance_rate[row]),
            status="ok" if reason is None else "fallback",
            fallback_reason=reason,
            model_version=self.scorer.model_version,
        )


class _Aged(NamedTuple):
    """A scorer that sees marks as old as the clock says."""

    scorer: Scoring
    aged: Callable[[Vectors], Vectors]

    def score(self, vectors: Vectors, /) -> Scores:
        return self.scorer.score(self.aged(vectors))


def _all_different(names: Iterable[str], place: str) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name in seen:
            raise RefusalError(
                422, "invalid", f"{place}[{number}]: {name!r} is there twice", f"{place}[{number}]"
            )
        seen.add(name)
