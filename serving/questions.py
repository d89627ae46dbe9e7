"""Questions about accounts, answered from the state as it stands; none of them changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from exchange.account import notional_usd
from exchange.units import MINUTE_US, SECOND_US
from features import emit as figure
from features.venue import Vectors, Venue
from serving import cure
from serving.scorer import Scores
from serving.whatif import Trial
from serving.wire import (
    AccountAnswer,
    Answer,
    Balance,
    BatchRequest,
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


class Moment(NamedTuple):
    """When a question is answered: now by the service's clock (-1 before any event), and events applied."""

    now_us: int
    sequence: int


class Asked(NamedTuple):
    """Answers with what they rest on: the row of each in `vectors` and `scores`, None without a position."""

    answers: list[Answer]
    rows: list[int | None]
    vectors: Vectors
    scores: Scores
    unknown: list[str]


class Questions:
    """Answers about the accounts of one venue; not safe for use from several threads."""

    def __init__(
        self, venue: Venue, scorer: Scoring, knows_market: Callable[[str], bool], clocked: bool
    ) -> None:
        """`clocked`: now is the machine's time, not the newest event's, so marks age without events."""
        self.scorer = scorer
        self._venue = venue
        self._knows_market = knows_market
        self._clocked = clocked
        self._trial = Trial(venue)

    def score(self, request: ScoreRequest, moment: Moment) -> Asked:
        """Answer one question.

        Raises RefusalError: 404 for an account that nothing has announced, 422 for names that are not known.
        """
        account = self._venue.find_account(request.account_id)
        if account < 0 and request.account is None:
            raise RefusalError(
                404, "unknown_account", f"account_id: {request.account_id!r} is not known", "account_id"
            )
        begin = self._beginning(request, account)
        begin()
        vectors = self._aged(self._trial.vectors(account), moment)
        scores = self.scorer.score(vectors)
        unknown = np.isnan(vectors.figures[:, figure.COLLATERAL_USD]).any()
        if request.orders and self._trial.isolated and unknown:
            scores.fallback[0] = ISOLATED_UNKNOWN
        row = 0 if scores.fallback else None
        answer = self._answer(request.account_id, scores, row, moment)
        if request.explain:
            found = self.scorer.reasons(vectors, scores, all_rows=True)
            answer.reasons = [
                Reason(reason.code, reason.feature, reason.value, reason.contribution)
                for reason in (found[0] if found else ())
            ]
        if request.cure:
            answer.cure = cure.cure(self._venue, self._trial, begin, _Aged(self, moment))
        return Asked([answer], [row], vectors, scores, [])

    def score_batch(self, request: BatchRequest, moment: Moment) -> Asked:
        """Answer for many accounts as they stand, in one call of the model."""
        keys = [self._venue.find_account(name) for name in request.account_ids]
        known = list(dict.fromkeys(key for key in keys if key >= 0))
        vectors = self._aged(self._venue.vectors(known), moment)
        scores = self.scorer.score(vectors)
        row_of = {key: row for row, key in enumerate(scores.account.tolist())}
        rows = [row_of.get(key) for key in keys if key >= 0]
        names = [name for name, key in zip(request.account_ids, keys, strict=True) if key >= 0]
        answers = [self._answer(name, scores, row, moment) for name, row in zip(names, rows, strict=True)]
        unknown = [name for name, key in zip(request.account_ids, keys, strict=True) if key < 0]
        return Asked(answers, rows, vectors, scores, unknown)

    def account(self, account_id: str, moment: Moment) -> AccountAnswer:
        """An account as it is held; RefusalError 404 where nothing has announced it."""
        key = self._venue.find_account(account_id)
        if key < 0:
            raise RefusalError(404, "unknown_account", f"{account_id!r} is not known", "account_id")
        self._trial.load(key)
        state = self._venue.state
        row = state.account[key]
        holdings = self._trial.holdings()
        owner, opened_us = int(row["owner"]), int(row["opened"])
        return AccountAnswer(
            account_id=account_id,
            time=to_time(max(moment.now_us, 0)),
            sequence=moment.sequence,
            owner_id=None if owner < 0 else self._venue.owner_names[owner],
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
                    market=self._venue.market_names[position["market"]],
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
                Balance(self._venue.asset_names[balance["asset"]], float(balance["amount"]))
                for balance in holdings.balances
            ],
        )

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
                if self._venue.find_asset(balance.asset) < 0:
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
        if not self._knows_market(name):
            raise RefusalError(422, "unknown_market", f"{place}: {name!r} is not known", place)
        return self._venue.find_market(name)

    def _aged(self, vectors: Vectors, moment: Moment) -> Vectors:
        """Vectors with their marks as old as they are by the clock, not only by the newest event."""
        if self._clocked:
            behind_s = (moment.now_us - self._venue.now_us) / SECOND_US
            vectors.figures[:, figure.MARK_AGE_S] += max(behind_s, 0.0)
        return vectors

    def _answer(self, account_id: str, scores: Scores, row: int | None, moment: Moment) -> Answer:
        """The answer in a row of scores; zeros where the account has no open position and thus no row."""
        now_us = max(moment.now_us, 0)
        pd: list[float] = [0.0] * 4 if row is None else scores.pd[row].tolist()
        reason = None if row is None else scores.fallback[row]
        return Answer(
            account_id=account_id,
            time=to_time(now_us),
            sequence=moment.sequence,
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

    questions: Questions
    moment: Moment

    def score(self, vectors: Vectors, /) -> Scores:
        return self.questions.scorer.score(self.questions._aged(vectors, self.moment))


def _all_different(names: Iterable[str], place: str) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name in seen:
            raise RefusalError(
                422, "invalid", f"{place}[{number}]: {name!r} is there twice", f"{place}[{number}]"
            )
        seen.add(name)
