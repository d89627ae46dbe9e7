"""Frames on the Unix socket: a length in four bytes, big endian, and an envelope in MessagePack.

`{"route", "body"?, "key"?, "id"?}` asks, `{"status", "body", "id"?}` answers. `route` is a path as over HTTP;
every path has one method, so none is named. `id` is whatever the caller wants to have back.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

LENGTH_BYTES = 4

Id = int | str | None | UnsetType

_EMPTY = Raw(b"\x80")  # an empty map


class Envelope(Struct, forbid_unknown_fields=True):
    """A question."""

    route: str
    body: Raw = _EMPTY
    key: str | None = None
    id: Id = UNSET


class Reply(Struct):
    """An answer; `status` is that of HTTP. What is text there (`/metrics`) is text here."""

    status: int
    body: Any
    id: Id = UNSET


_packed = msgspec.msgpack.Encoder()


def frame(message: Envelope | Reply) -> bytes:
    """A message with its length before it."""
    packed = _packed.encode(message)
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed
