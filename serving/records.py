"""Records of the audit log: what was answered, to what, from which numbers, chained by hashes.

    payload   32 bytes digest, 4 bytes length of the content (little endian), content, inputs
    content   a MessagePack array: kind, then the fields of the struct below
    inputs    of an answer: the request's body, the features of its rows, row by row, and then their figures,
              as float64, little endian
    digest    SHA-256 of the digest of the record before and the content

The content of an answer holds the SHA-256 of its inputs, so the digest is of these too, and every byte
is hashed once. The record before the first one has a digest of zeros.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from exchange.errors import WorkError

Floats: TypeAlias = npt.NDArray[np.float64]
Bytes: TypeAlias = bytes | memoryview

Beside: TypeAlias = tuple[int, int, float, float]
"""An account's number and that of its owner's whole among the heights (-1 for none), its static rate at its
owner's tiers, and its share in the whole: see `serving.linked.Together`."""

DIGEST_BYTES = 32
BEGINNING = bytes(DIGEST_BYTES)
"""The digest before the first record."""

_LENGTH = struct.Struct("<I")
_CONTENT = DIGEST_BYTES + _LENGTH.size


class RecordError(WorkError):
    """Bytes that are no record, or not the one that was written."""


class Begun(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """A file begins. It is chained like every record, so a file cannot be swapped for another."""

    number: int
    time_us: int
    worker: str
    file: int
    previous: bytes
    """Digest of the last record of the file before."""
    left: int
    """Bytes of a torn record at the end of the file before, that could not be cut off."""
    reason: str
    program: str
    public_key: bytes


class Noted(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """Something about the log that its reader has to know."""

    number: int
    time_us: int
    text: str


class Read(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """What the answers from here on are computed with, and the columns of their rows.

    A row is the named features, then all figures of `features.emit` in their order.
    """

    number: int
    time_us: int
    model_version: str
    policy_version: str
    fingerprint: str
    """Of the feature catalogue."""
    features: list[str]
    figures: int


class Answered(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """A request was answered; all answers of a batch are one record."""

    number: int
    time_us: int
    """By the machine's clock, whatever the answer's own is."""
    route: str
    codec: str
    model_version: str
    policy_version: str
    request_bytes: int
    heights: list[int]
    """Rows of features of each account with a position, as it stands first; it has one row of figures. Wholes
    of linked accounts follow."""
    row_of: list[int | None]
    """The account with a position that each answer is about; None where it has none."""
    instead: str | None
    """Why the answer falls back, where the question is the reason and not the rows."""
    input_digest: bytes
    answer: bytes
    """The body as it was sent."""
    beside: list[Beside] = []
    """What linked accounts are held against; the wholes follow the accounts in `heights`."""


Content = Begun | Noted | Read | Answered

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Content] = msgspec.msgpack.Decoder(Content)


class Record(NamedTuple):
    """A record as it was read, its digest not yet held against the one before."""

    digest: bytes
    content: Content
    spelt: bytes
    """The content as it stands in the log."""
    inputs: bytes

    def follows(self, previous: bytes) -> bool:
        """Whether the digest is that of the content after a record with this digest."""
        return hashlib.sha256(previous + self.spelt).digest() == self.digest

    @property
    def request(self) -> bytes:
        """The body of the request that was answered."""
        assert isinstance(self.content, Answered)
        return self.inputs[: self.content.request_bytes]

    def rows(self, figures: int) -> tuple[Floats, Floats]:
        """Features and figures that the answer was computed from, with so many figures a row."""
        assert isinstance(self.content, Answered)
        accounts, height = len(self.content.heights), sum(self.content.heights)
        values = np.frombuffer(self.inputs, "<f8", offset=self.content.request_bytes)
        split = len(values) - accounts * figures
        wide = split // height if height else 0
        return values[:split].reshape(height, wide), values[split:].reshape(accounts, figures)


def digest_of(*inputs: Bytes) -> bytes:
    """SHA-256 of the inputs of an answer."""
    sha = hashlib.sha256()
    for part in inputs:
        sha.update(part)
    return sha.digest()


def written(previous: bytes, content: Content, inputs: tuple[Bytes, ...] = ()) -> tuple[bytes, bytes]:
    """The digest of a record that follows one with digest `previous`, and its payload."""
    spelt = _encoder.encode(content)
    digest = hashlib.sha256(previous + spelt).digest()
    return digest, b"".join((digest, _LENGTH.pack(len(spelt)), spelt, *inputs))


def read(payload: bytes) -> Record:
    """A record from its payload; RecordError where it is none or its inputs are not those it names."""
    if len(payload) < _CONTENT:
        raise RecordError("is too short for a record")
    (length,) = _LENGTH.unpack_from(payload, DIGEST_BYTES)
    spelt, inputs = payload[_CONTENT : _CONTENT + length], payload[_CONTENT + length :]
    try:
        content: Any = _decoder.decode(spelt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RecordError("is no record") from None
    if isinstance(content, Answered):
        if hashlib.sha256(inputs).digest() != content.input_digest:
            raise RecordError("has other inputs than it was written with")
    elif inputs:
        raise RecordError("has inputs that do not belong to it")
    return Record(payload[:DIGEST_BYTES], content, spelt, inputs)
