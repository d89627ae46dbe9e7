"""Questions about accounts, answered from the state as it stands; none of them changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from exchange.account import notional_usd
from exchange.compiled import lean
from exchange.units import MINUTE_US, SECOND_US
from features import emit as figure
from features.emit import FEATURES, FIGURES
from features.venue import Vectors, Venue
from serving import cure
from serving.ladder import Ladder, Ladders, Levels, Read, levels_of
from serving.linked import Room, Together, any_linked, held_together, only, together
from serving.parts import PARTS
from serving.scorer import Scores
from serving.whatif import Trial
from serving.wire import (
    AccountAnswer,
    Answer,
    Balance,
    BatchRequest,
    Cure,
    Parts,
    Position,
    Reason,
    RefusalError,
    ScoreRequest,
    to_time,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

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

    def score(self, vectors: Vectors, levels: Levels, /) -> Scores:
        """Score every row, looking at levels as far as they are needed."""

    def score_at_once(self, ladders: Ladders, /) -> Scores:
        """Score every row in one call of the model, its levels read with it."""

    def reasons(
        self, vectors: Vectors, scores: Scores, all_rows: bool = False
    ) -> Sequence[Sequence[Explained]]:
        """What raises each row's risk."""


class Moment(NamedTuple):
    """When a question is answered: now by the service's clock (-1 before any event), and events applied."""

    now_us: int
    sequence: int


_NOBODY = (
    Vectors(np.empty(0, np.int64), np.empty((0, FEATURES)), np.empty((0, FIGURES))),
    Scores._make([np.empty(0, np.int64), np.empty((0, 4)), *[np.empty(0)] * 5, np.empty((0, PARTS)), []]),
)


class Numbers(NamedTuple):
    """What is computed of an answer, as `Answer` names it and in its order."""

    pd_liquidation_1h: float = 0.0
    pd_liquidation_8h: float = 0.0
    pd_liquidation_24h: float = 0.0
    pd_negative_equity_24h: float = 0.0
    expected_loss_usd: float = 0.0
    static_initial_margin_rate: float = 0.0
    initial_margin_rate: float = 0.0
    maintenance_margin_rate: float = 0.0
    status: Literal["ok", "fallback"] = "ok"
    fallback_reason: str | None = None


class Evidence(NamedTuple):
    """All that the numbers of one answer were computed from, besides the model."""

    ladders: Ladders | None  # of one row; None for an account without an open position
    instead: str | None = None  # why the answer falls back, where the question is the reason
    beside: Together | None = None  # what its owner holds in all accounts, where that is several


class Asked(NamedTuple):
    """Answers with what they rest on: the row of each in `vectors` and `scores`, None without a position.

    `levels` has for every row the vectors of the levels that the model read, from the lowest up, in parts of
    float64[levels, FEATURES]; `instead` is as in `Evidence`. `beside` holds linked rows against their owners'
    wholes, whose levels are `Read`.
    """

    answers: list[Answer]
    rows: list[int | None]
    vectors: Vectors
    scores: Scores
    unknown: list[str]
    levels: Sequence[Sequence[Floats]]
    instead: str | None = None
    beside: Sequence[Together] = ()

    def evidence(self, number: int) -> Evidence:
        """What the answer with that number in `answers` was computed from."""
        row = self.rows[number]
        if row is None:
            return Evidence(None)
        chosen = slice(row, row + 1)
        features = np.concatenate([self.vectors.features[chosen], *self.levels[row]])[None]
        beside = next((found for part in self.beside if (found := only(part, row)) is not None), None)
        return Evidence(
            Ladders(self.vectors.account[chosen], features, self.vectors.figures[chosen]),
            self.instead,
            beside,
        )


def scored(scorer: Scoring, evidence: Evidence) -> Scores | None:
    """The scores behind an answer, from its evidence alone; None for an account without an open position.

    With the same model they are the same to the bit.
    """
    return None if evidence.ladders is None else _scores(scorer, evidence.ladders, evidence)


def _scores(scorer: Scoring, ladders: Ladders, evidence: Evidence) -> Scores:
    """The scores of an account with an open position, whose ladders are those of the evidence."""
    scores = scorer.score_at_once(ladders)
    part = evidence.beside
    if part is not None:
        scores = held_together(scores, ladders.figures, part, scorer.score(part.vectors, part.levels))
    return _instead(scores, evidence.instead)


def numbers_of(scores: Scores, row: int) -> Numbers:
    """A row of scores as plain numbers."""
    reason = scores.fallback[row]
    hour, eight_hours, day, negative = scores.pd[row].tolist()
    return Numbers(
        hour,
        eight_hours,
        day,
        negative,
        scores.expected_loss_usd.item(row),
        scores.static_initial_rate.item(row),
        scores.initial_rate.item(row),
        scores.maintenance_rate.item(row),
        "ok" if reason is None else "fallback",
        reason,
    )


def parts_of(scores: Scores, row: int) -> Parts:
    """The parts of a row's initial rate."""
    return Parts(*map(int, scores.parts[row].tolist()))


def _instead(scores: Scores, reason: str | None) -> Scores:
    """Scores of one row that fall back for a reason that the question itself gave, if it did."""
    return scores if reason is None else scores._replace(fallback=[reason])


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
        self._scratch: Room | None = None
        self._ladder: Ladder | None = None

    def score(self, request: ScoreRequest, moment: Moment) -> Asked:
        """Answer one question.

        Raises RefusalError: 404 for an account that nothing has announced, 422 for names that are not known.
        """
        account = self._venue.find_account(request.account_id)
        if account < 0 and request.account is None:
            raise RefusalError(
                404, "unknown_account", f"account_id: {request.account_id!r} is not known", "account_id"
            )
        if request.account is None and not request.orders:
            ladders = self._standing().take(account, account)
        else:
            self._beginning(request, account)()
            ladders = self._trial.ladders(account)
        if ladders is None:
            return self._without_position(request, moment)
        self._age(ladders.figures, moment)
        tried = request.account is not None or len(request.orders) > 0
        enters = request.entering or (tried and self._adds(account))
        if enters:
            ladders.figures[:, figure.ENTERS] = 1.0
        vectors = ladders.vectors
        instead = None
        if request.orders and self._trial.isolated and np.isnan(vectors.figures[0, figure.COLLATERAL_USD]):
            instead = ISOLATED_UNKNOWN
        standing = request.account is None and not request.orders
        beside = self._beside(account, None if standing else self._trial, moment)
        scores = _scores(self.scorer, ladders, Evidence(ladders, instead, beside))
        answer = self._answer(request.account_id, numbers_of(scores, 0), moment)
        if request.explain:
            answer.reasons = [
                Reason(reason.code, reason.feature, reason.value, reason.contribution)
                for reason in self.scorer.reasons(vectors, scores, all_rows=True)[0]
            ]
            answer.parts = parts_of(scores, 0)
        if request.cure:
            begin = self._beginning(request, account)
            aged = _Aged(self, account, moment, enters)
            answer.cure = cure.cure(self._venue, self._trial, begin, aged)
        read = [[ladders.features[0, 1:]]]
        return Asked([answer], [0], vectors, scores, [], read, instead, () if beside is None else (beside,))

    def _adds(self, account: int) -> bool:
        """Whether what is in the trial has a position that the account has not, or not as large."""
        state = self._venue.state
        held: dict[int, float] = {}
        slot = int(state.account["first_position"][account]) if account >= 0 else -1
        while slot >= 0:
            row = state.position[slot]
            held[int(row["market"])] = float(row["quantity"])
            slot = int(row["next"])
        for market, quantity in self._trial.open_positions():
            before = held.get(market, 0.0)
            if abs(quantity) > abs(before) or quantity * before < 0.0:
                return True
        return False

    def _without_position(self, request: ScoreRequest, moment: Moment) -> Asked:
        """The answer for an account that has nothing at risk: zeros."""
        answer = self._answer(request.account_id, Numbers(), moment)
        if request.explain:
            answer.reasons = []
            answer.parts = Parts(*[0] * PARTS)
        if request.cure:
            answer.cure = Cure(0.0, [])
        return Asked([answer], [None], *_NOBODY, [], [])

    def _beside(self, account: int, trial: Trial | None, moment: Moment) -> Together | None:
        """What its owner holds in all accounts, this one as the trial has it; None where that is only one."""
        if not any_linked(self._venue, account):
            return None
        state = None if trial is None else trial.state
        keys = np.array([account], np.int64)
        found = together(self._venue, self._room(), keys, None, state, self._older_s(moment))
        return next((_reading(part) for part in found), None)

    def _room(self) -> Room:
        """Scratch for what owners hold."""
        if self._scratch is None or not self._scratch.fits(self._venue.state):
            self._scratch = Room(self._venue)
        return self._scratch

    def _standing(self) -> Ladder:
        """Ladders of the venue's accounts as they stand; its tables are replaced when they grow."""
        handle = self._venue.handle()
        if self._ladder is None or self._ladder.handle is not handle:
            self._ladder = Ladder(handle)
        return self._ladder

    def score_batch(self, request: BatchRequest, moment: Moment) -> Asked:
        """Answer for many accounts as they stand, scored together."""
        keys = [self._venue.find_account(name) for name in request.account_ids]
        known = list(dict.fromkeys(key for key in keys if key >= 0))
        vectors = self._venue.vectors(known)
        self._age(vectors.figures, moment)
        read = Read(levels_of(self._venue, vectors), len(vectors.account))
        scores = self.scorer.score(vectors, read)
        beside = []
        for found in together(self._venue, self._room(), vectors.account, older_s=self._older_s(moment)):
            part = _reading(found)
            wholes = self.scorer.score(part.vectors, part.levels)
            scores = held_together(scores, vectors.figures, part, wholes)
            beside.append(part)
        row_of = {key: row for row, key in enumerate(scores.account.tolist())}
        rows = [row_of.get(key) for key in keys if key >= 0]
        names = [name for name, key in zip(request.account_ids, keys, strict=True) if key >= 0]
        numbers = (Numbers() if row is None else numbers_of(scores, row) for row in rows)
        answers = [self._answer(name, one, moment) for name, one in zip(names, numbers, strict=True)]
        unknown = [name for name, key in zip(request.account_ids, keys, strict=True) if key < 0]
        return Asked(answers, rows, vectors, scores, unknown, read.parts, beside=beside)

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

    def _age(self, figures: Floats, moment: Moment) -> None:
        """Make what may grow stale as old as it is by the clock, not only by the newest event."""
        if self._clocked:
            _grow_older(figures, self._older_s(moment))

    def _older_s(self, moment: Moment) -> float:
        """Seconds by which the clock is ahead of the newest event."""
        return max((moment.now_us - self._venue.now_us) / SECOND_US, 0.0) if self._clocked else 0.0

    def _answer(self, account_id: str, numbers: Numbers, moment: Moment) -> Answer:
        """An answer of this moment."""
        time, valid_until = _life(max(moment.now_us, 0))
        return Answer(account_id, time, moment.sequence, valid_until, *numbers, self.scorer.model_version)


@lean
def _grow_older(figures: Floats, by_s: float) -> None:
    """Add to the ages; compiled, since numpy takes as long for three numbers as for all else of an answer."""
    for row in range(len(figures)):
        figures[row, figure.MARK_AGE_S] += by_s
        figures[row, figure.PRICE_AGE_S] += by_s
        figures[row, figure.BOOK_AGE_S] += by_s


@lru_cache(maxsize=1)
def _life(now_us: int) -> tuple[datetime, datetime]:
    """From when to when an answer of this time may be acted on; whole batches are of one time."""
    return to_time(now_us), to_time(now_us + LIFETIME_US)


class _Aged(NamedTuple):
    """A scorer that sees everything as old as the clock says, as entering where the question enters, and an
    account with those linked to it."""

    questions: Questions
    account: int
    moment: Moment
    enters: bool

    def beside(self) -> Together | None:
        return self.questions._beside(self.account, self.questions._trial, self.moment)

    def score(self, vectors: Vectors, levels: Levels, beside: Sequence[Together | None]) -> Scores:
        figures = vectors.figures.copy()
        scorer = self.questions.scorer
        self.questions._age(figures, self.moment)
        if self.enters:
            figures[:, figure.ENTERS] = 1.0
        scores = scorer.score(vectors._replace(figures=figures), levels)
        for row, part in enumerate(beside):
            if part is not None:
                moved = part._replace(row=np.full_like(part.row, row))
                scores = held_together(scores, figures, moved, scorer.score(part.vectors, part.levels))
        return scores


def _reading(part: Together) -> Together:
    """The same, its levels kept as they are read."""
    return part._replace(levels=Read(part.levels, len(part.vectors.account)))


def _all_different(names: Iterable[str], place: str) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name in seen:
            raise RefusalError(
                422, "invalid", f"{place}[{number}]: {name!r} is there twice", f"{place}[{number}]"
            )
        seen.add(name)
