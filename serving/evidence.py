"""What an answer rests on, and the answer computed again from it.

An answer is a function of the model, the policy and the rows that both read: the columns of the catalogue
that the model reads and the figures of each account. These are recorded, and nothing else is needed to
compute every number in it again, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from exchange.errors import InputError
from features import catalog
from features.emit import FIGURES
from features.venue import Vectors
from models.bundle import Bundle
from serving.codec import JSON, MSGPACK, Codec
from serving.ladder import Ladders, Read
from serving.linked import Together, levels_kept
from serving.questions import Asked, Evidence, Numbers, Scoring, numbers_of, parts_of, scored
from serving.reasons import columns_of_reasons
from serving.records import Answered, Beside, Record
from serving.records import Read as Reading
from serving.scorer import Scorer
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
    beside: Sequence[Beside] = ()  # what linked accounts are held against


def rows_of(asked: Asked) -> Rows:
    """The rows that answers were computed from: of each account as it stands, then at the levels read.

    After them those of the wholes that linked accounts are held against, in the same way.
    """
    beside: list[Beside] = []
    parts: list[Floats] = []
    heights: list[int] = []

    def add(vectors: Vectors, levels: Sequence[Sequence[Floats]]) -> None:
        for row, read in enumerate(levels):
            own = [vectors.features[row : row + 1], *read]
            parts.extend(own)
            heights.append(sum(map(len, own)))

    add(asked.vectors, asked.levels)
    for part in asked.beside:
        assert isinstance(part.levels, Read), "what an answer rests on is kept"
        first = len(heights)
        add(part.vectors, part.levels.parts)
        for row, whole, static, share in zip(*(column.tolist() for column in part[:4]), strict=True):
            beside.append((row, whole if whole < 0 else first + whole, static, share))
    features = np.concatenate(parts) if parts else asked.vectors.features[:0]
    figures = np.concatenate([asked.vectors.figures, *(part.vectors.figures for part in asked.beside)])
    return Rows(features, heights, figures, asked.rows, asked.instead, beside)


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


def recomputed(record: Record, read: Reading, scorer: Scoring) -> bytes:
    """The answer of a record as this scorer gives it from the record's rows, as it would be sent.

    Time, sequence and a cure are the record's own: a cure is a search among portfolios that are not in it.
    Raises InputError where the record was made with another model or catalogue.
    """
    content = record.content
    assert isinstance(content, Answered)
    _check(content, read, scorer)
    ladders = _ladders(record, read)
    answers = answers_in(content)
    for answer, row in zip(answers, content.row_of, strict=True):
        found = Evidence(
            None if row is None else ladders[row],
            content.instead,
            None if row is None else _beside(content.beside, row, ladders),
        )
        scores = scored(scorer, found)
        numbers = Numbers() if scores is None else numbers_of(scores, 0)
        for name, value in zip(Numbers._fields, numbers, strict=True):
            setattr(answer, name, value)
        if answer.reasons and row is not None and scores is not None:
            reasons = scorer.reasons(ladders[row].vectors, scores, all_rows=True)[0]
            answer.reasons = [
                Reason(reason.code, reason.feature, reason.value, reason.contribution) for reason in reasons
            ]
        if answer.parts is not UNSET and scores is not None:
            answer.parts = parts_of(scores, 0)
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


def _check(content: Answered, read: Reading, scorer: Scoring) -> None:
    if content.model_version != scorer.model_version:
        raise InputError(
            f"record {content.number} was answered by model {content.model_version},"
            f" not by {scorer.model_version}"
        )
    if read.fingerprint != catalog.fingerprint() or read.figures != FIGURES:
        raise InputError(f"record {content.number} is of another feature catalogue than this version's")


def _ladders(record: Record, read: Reading) -> list[Ladders]:
    """The rows of each account in a record, in the catalogue's columns; NaN where the model does not read."""
    features, figures = record.rows(read.figures)
    whole = np.full((len(features), len(catalog.NAMES)), np.nan)
    whole[:, [catalog.index(name) for name in read.features]] = features
    content = record.content
    assert isinstance(content, Answered)
    found = []
    first = 0
    for number, height in enumerate(content.heights):
        rows = whole[first : first + height]
        found.append(Ladders(np.array([number]), rows[None], figures[number : number + 1]))
        first += height
    return found


def _beside(beside: list[Beside], row: int, ladders: list[Ladders]) -> Together | None:
    """What a record holds an account against; None where nothing."""
    told = [found[1:] for found in beside if found[0] == row]
    if not told:
        return None
    wholes = [ladders[whole] for whole, _, _ in told if whole >= 0]
    numbers = np.cumsum([whole >= 0 for whole, _, _ in told]) - 1
    return Together(
        np.zeros(len(told), np.int64),
        np.array([number if whole >= 0 else -1 for number, (whole, _, _) in zip(numbers, told, strict=True)]),
        np.array([static for _, static, _ in told]),
        np.array([share for _, _, share in told]),
        Vectors(
            np.arange(len(wholes)),
            np.array([found.features[0, 0] for found in wholes]).reshape(-1, len(catalog.NAMES)),
            np.array([found.figures[0] for found in wholes]).reshape(-1, FIGURES),
        ),
        levels_kept([[found.features[0, 1:]] for found in wholes]),
    )
