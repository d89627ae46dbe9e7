"""Messages of the service: what it takes, what it answers, and how a refusal is told.

Decoding is strict. A field that is not known, a value of another type and a number that is not finite
are refused with the field's name: what is ignored silently today is a wrong margin tomorrow. Only events
may have fields more: they are rows of the dataset's tables, whose extra columns are ignored. In answers a
number that is not known is null. Fields may be added to answers; none is removed or changes its meaning.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from exchange.errors import InputError

LONGEST_NAME = 256
LARGEST = sys.float_info.max

Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]  # bounds that NaN and infinity fail
Positive = Annotated[float, Meta(gt=0.0, le=LARGEST)]
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]

NotRead: TypeAlias = Any
"""A field that may be there and changes nothing."""

Figure: TypeAlias = float | None
"""A number in an answer; one that is not known is NaN here and null on the wire."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = 253_402_300_799_999_999  # the end of the year 9999


class RefusalError(InputError):
    """What was asked cannot be answered; told to the caller with an HTTP status, a code and a field."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


# -- requests


class Order(Struct, forbid_unknown_fields=True):
    """An order that might be sent: base units, bought positive; at the mark where no price is given."""

    market: Name
    quantity: Number
    price: Positive | None = None


class SentPosition(Struct, forbid_unknown_fields=True):
    """A position as `position_snapshots` or an account's answer has it."""

    market: Name
    quantity: Number
    entry_price: Positive | None = None
    quote_usd: Number | None = None
    isolated_collateral_usd: Number | None = None
    mark: NotRead = None
    notional_usd: NotRead = None
    account_id: NotRead = None
    time: NotRead = None


class SentBalance(Struct, forbid_unknown_fields=True):
    """A balance as `balance_snapshots` or an account's answer has it."""

    asset: Name
    amount: Number
    account_id: NotRead = None
    time: NotRead = None


class SentAccount(Struct, forbid_unknown_fields=True):
    """An account's whole state, to be judged on the markets as the service knows them.

    A row of `account_snapshots` or the answer about an account can be sent as it is: of their figures the
    equity is taken, the others are computed anew, and rates in force are those of the record.
    """

    equity_usd: Number
    positions: Annotated[list[SentPosition], Meta(max_length=1_000)]
    balances: Annotated[list[SentBalance], Meta(max_length=1_000)] = []
    margin_mode: Literal["cross", "isolated"] | None = None
    account_id: NotRead = None
    time: NotRead = None
    sequence: NotRead = None
    owner_id: NotRead = None
    opened_time: NotRead = None
    open_orders: NotRead = None
    collateral_usd: NotRead = None
    initial_margin_usd: NotRead = None
    maintenance_margin_usd: NotRead = None
    initial_margin_rate_in_force: NotRead = None
    maintenance_margin_rate_in_force: NotRead = None


class ScoreRequest(Struct, forbid_unknown_fields=True):
    """One question: the account as it stands, or `account` in its place; then `orders` added.

    `entering`: the margin for entering that portfolio now, as before a withdrawal, even where no order adds
    exposure.
    """

    account_id: Name
    orders: Annotated[list[Order], Meta(max_length=200)] = []
    account: SentAccount | None = None
    explain: bool = False
    cure: bool = False
    min_sequence: Sequence | None = None
    entering: bool = False


class BatchRequest(Struct, forbid_unknown_fields=True):
    """Many accounts as they stand."""

    account_ids: Annotated[list[Name], Meta(max_length=10_000)]


# -- answers


class Reason(Struct):
    """What moved a probability: `contribution` in log odds at 24 h, positive where it adds risk."""

    code: str
    feature: str
    value: Figure
    contribution: Figure


class Reduction(Struct):
    """An order that makes a position smaller: quantity signed as in a request's `orders`."""

    market: str
    quantity: Figure


class Cure(Struct):
    """Two ways to the target, each enough by itself; null where that way does not lead there.

    A deposit of 0 and an empty list mean that the account is there already.
    """

    deposit_usd: float | None
    reduce: list[Reduction] | None


class Parts(Struct):
    """Steps from the static rate to the suggested one, in parts per million, which sum to it exactly."""

    static_ppm: int
    volatility_ppm: int
    liquidity_ppm: int
    account_risk_ppm: int
    buffer_ppm: int
    limit_ppm: int
    in_force_ppm: int
    linked_ppm: int


class Answer(Struct):
    """Probabilities of default, and the margin suggested, of one account."""

    account_id: str
    time: datetime
    sequence: int
    valid_until: datetime
    pd_liquidation_1h: Figure
    pd_liquidation_8h: Figure
    pd_liquidation_24h: Figure
    pd_negative_equity_24h: Figure
    expected_loss_usd: Figure
    static_initial_margin_rate: Figure
    initial_margin_rate: Figure
    maintenance_margin_rate: Figure
    status: Literal["ok", "fallback"]
    fallback_reason: str | None
    model_version: str
    reasons: list[Reason] | UnsetType = UNSET
    cure: Cure | UnsetType = UNSET
    parts: Parts | UnsetType = UNSET


class BatchAnswer(Struct):
    """Answers in the order of the request; accounts that nothing has announced stand in `unknown`."""

    answers: list[Answer]
    unknown: list[str]


class Rejected(Struct):
    """An event that was not accepted: its place in the request and why."""

    index: int
    code: str
    message: str


class EventsAnswer(Struct):
    """What became of the events: repeats of accepted ones count as accepted, and change nothing.

    `sequence` is the number of events that the service has applied.
    """

    accepted: int
    rejected: list[Rejected]
    sequence: int


class Position(Struct):
    """A position as the service holds it, funding settled."""

    market: str
    quantity: Figure
    entry_price: Figure
    quote_usd: Figure
    isolated_collateral_usd: Figure
    mark: Figure
    notional_usd: Figure


class Balance(Struct):
    """A balance as the service holds it."""

    asset: str
    amount: Figure


class AccountAnswer(Struct):
    """An account as the service holds it; figures are null where something they need is not known."""

    account_id: str
    time: datetime
    sequence: int
    owner_id: str | None
    margin_mode: Literal["cross", "isolated"]
    opened_time: datetime | None
    equity_usd: Figure
    collateral_usd: Figure
    initial_margin_usd: Figure
    maintenance_margin_usd: Figure
    initial_margin_rate_in_force: Figure
    maintenance_margin_rate_in_force: Figure
    positions: list[Position]
    balances: list[Balance]


class ModelAnswer(Struct):
    """The model that answers."""

    model_version: str
    fingerprint: str
    card: str


class HealthAnswer(Struct):
    """`status` is `live` or `ready`; `time` is now by the service's clock, null before the first event.

    `warnings` are there where something needs to be looked at that stops no answer.
    """

    status: str
    time: datetime | None
    sequence: int
    warnings: list[str] | UnsetType = UNSET


class Error(Struct):
    """Why a request was refused; `field` is the part of the body that was wrong, where one was."""

    code: str
    message: str
    field: str | None


class ErrorAnswer(Struct):
    """The body of every refusal."""

    error: Error


# -- times


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch; a time without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    span = moment - EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def to_time(time_us: int) -> datetime:
    """The time of microseconds since the epoch, at most the end of the year 9999."""
    return EPOCH + timedelta(microseconds=min(time_us, LAST_US))
