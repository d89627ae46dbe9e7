"""What an answer rests on, and the answer computed again from it.

An answer is a function of the model, the policy and the rows that both read: the columns of the catalogue
that the model reads and the figures of each account. These are recorded, and nothing else is needed to
compute every number in it again, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from features import catalog
from features.venue import Vectors
from models.bundle import Bundle
from serving.codec import JSON, MSGPACK, Codec
from serving.questions import ISOLATED_UNKNOWN, Asked, Scoring
from serving.reasons import columns_of_reasons
from serving.records import Answered, Read, Record
from serving.scorer import Scorer, Scores
from serving.wire import Answer, BatchAnswer, Reason

Floats = npt.NDArray[np.float64]

BATCH = "/v1/score/batch"


class Rows(NamedTuple):
    """The rows behind the accounts of an answer."""

    features: Floats  # (feature rows, all columns of the catalogue)
    heights: list[int]  # feature rows of each account, which lie together: as it stands comes first
    figures: Floats  # (accounts with a row, FIGURES)
    row_of: list[int | None]  # of each account in the answer, its number among the heights
    instead: str | None = None  # why the answer falls back, where the question is the reason


def rows_of(asked: Asked) -> Rows:
    """The rows that answers were computed from."""
    vectors = asked.vectors
    instead = ISOLATED_UNKNOWN if ISOLATED_UNKNOWN in asked.scores.fallback else None
    return Rows(vectors.features, [1] * len(vectors.features), vectors.figures, asked.rows, instead)


def columns_read(scorer: Scoring) -> npt.NDArray[np.int64]:
    """Columns that scoring and its reasons read, in order; all where it is not known."""
    if isinstance(scorer, Scorer):
        return columns_of(scorer.bundle)
    return np.arange(len(catalog.NAMES))


def columns_of(bundle: Bundle) -> npt.NDArray[np.int64]:
    """Columns of a bundle's trees, priors, warning and reasons, and those that it cannot do without."""
    names = {
        *bundle.model["required_features"],
        *(name for name in catalog.NAMES if name.startswith("prior_")),
        *(bundle.model.get("warning") or {}).get("features", ()),
    }
    read = {catalog.index(name) for name in names} | columns_of_reasons()
    for forest in bundle.trees.values():
        read.update(forest.feature[forest.feature >= 0].tolist())
    return np.array(sorted(read), np.int64)


def answers_in(content: Answered) -> list[Answer]:
    """The answers that a record holds."""
    decoded = _codec(content).read(BatchAnswer if content.route == BATCH else Answer, content.answer)
    return decoded.answers if isinstance(decoded, BatchAnswer) else [decoded]


def recomputed(record: Record, read: Read, scorer: Scoring) -> bytes:
    """The answer of a record as this scorer gives it from the record's rows, as it would be sent.

    Time, sequence and a cure are the record's own: a cure is a search among portfolios that are not in it.
    Raises InputError where the record was made with another model or catalogue.
    """
    content = record.content
    assert isinstance(content, Answered)
    _check(content, read, scorer)
    vectors = _vectors(record, read)
    scores = scorer.score(vectors)
    answers = answers_in(content)
    for answer, row in zip(answers, content.row_of, strict=True):
        _renew(answer, scores, row, content.instead)
        if answer.reasons:
            found = scorer.reasons(vectors, scores, all_rows=True)[row or 0]
            answer.reasons = [
                Reason(reason.code, reason.feature, reason.value, reason.contribution) for reason in found
            ]
    codec = _codec(content)
    if content.route != BATCH:
        return codec.encode(answers[0])
    unknown = codec.read(BatchAnswer, content.answer).unknown
    return codec.encode(BatchAnswer(answers, unknown))


def differences(content: Answered, again: bytes) -> Iterator[tuple[str, str, Any, Any]]:
    """Account, field, recorded and new value, wherever an answer computed again is another."""
    other = answers_in(msgspec.structs.replace(content, answer=again))
    for before, after in zip(answers_in(content), other, strict=True):
        for name in before.__struct_fields__:
            one, two = getattr(before, name), getattr(after, name)
            if one != two:
                yield before.account_id, name, one, two


def _codec(content: Answered) -> Codec:
    return JSON if content.codec == JSON.name else MSGPACK


def _check(content: Answered, read: Read, scorer: Scoring) -> None:
    if content.model_version != scorer.model_version:
        raise InputError(
            f"record {content.number} was answered by model {content.model_version},"
            f" not by {scorer.model_version}"
        )
    if read.fingerprint != catalog.fingerprint():
        raise InputError(f"record {content.number} is of another feature catalogue than this version's")


def _vectors(record: Record, read: Read) -> Vectors:
    """The rows of a record in the catalogue's columns, NaN in those that the model does not read."""
    features, figures = record.rows(read.figures)
    whole = np.full((len(features), len(catalog.NAMES)), np.nan)
    whole[:, [catalog.index(name) for name in read.features]] = features
    return Vectors(np.arange(len(figures)), whole, figures)


def _renew(answer: Answer, scores: Scores, row: int | None, instead: str | None) -> None:
    """Put what was computed into an answer; zeros where the account has no position."""
    pd = [0.0] * 4 if row is None else scores.pd[row].tolist()
    answer.pd_liquidation_1h, answer.pd_liquidation_8h = pd[0], pd[1]
    answer.pd_liquidation_24h, answer.pd_negative_equity_24h = pd[2], pd[3]
    answer.expected_loss_usd = 0.0 if row is None else float(scores.expected_loss_usd[row])
    answer.static_initial_margin_rate = 0.0 if row is None else float(scores.static_initial_rate[row])
    answer.initial_margin_rate = 0.0 if row is None else float(scores.initial_rate[row])
    answer.maintenance_margin_rate = 0.0 if row is None else float(scores.maintenance_rate[row])
    reason = None if row is None else instead or scores.fallback[row]
    answer.status, answer.fallback_reason = "ok" if reason is None else "fallback", reason
