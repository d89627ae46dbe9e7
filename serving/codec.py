"""Messages as bytes: JSON over HTTP, MessagePack over the socket; the same structs, as strictly read."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any, NamedTuple

import msgspec

from serving.wire import RefusalError

_PLACE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)
_LACKING = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_LONGEST_MESSAGE = 500

_json_encoder = msgspec.json.Encoder()  # writes NaN as null
_json_decoder = msgspec.json.Decoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


class Codec(NamedTuple):
    """One way of writing messages."""

    name: str
    media_type: str

    def encode(self, answer: Any) -> bytes:
        """An answer; numbers that are not known are null in both."""
        spelt = _json_encoder.encode(answer)
        # the values that JSON has, nulls included: msgspec reads the very floats that it wrote, and going
        # through its text costs less than looking at every value here
        return spelt if self is JSON else _msgpack_encoder.encode(_json_decoder.decode(spelt))

    def read(self, kind: Any, body: bytes | msgspec.Raw) -> Any:
        """A struct, as msgspec reads it, with msgspec's errors."""
        return _decoder(self.name, kind).decode(body)

    def decode(self, kind: Any, body: bytes | msgspec.Raw) -> Any:
        """A struct; RefusalError 400 for what cannot be read at all, 422 for what is not this struct."""
        try:
            return self.read(kind, body)
        except msgspec.ValidationError as error:
            message, field = explained(error)
            raise RefusalError(422, "invalid", message, field) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            field = _not_finite(bytes(body)) if self is JSON else None
            if field is not None:
                raise RefusalError(422, "invalid", f"{field}: numbers must be finite", field) from None
            raise RefusalError(400, f"bad_{self.name}", str(error)[:_LONGEST_MESSAGE]) from None

    def question(self, kind: Any, body: bytes) -> Any:
        """`decode`, and 422 for a field that is there twice: nobody can say which of the two was meant.

        For questions, which are small; in events the last one counts, as JSON's readers commonly have it.
        """
        asked = self.decode(kind, body)
        if self is JSON and body.count(b":") > 1:  # with one colon there is one field
            _pairs.decode(body.decode())
        return asked


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)[:_LONGEST_MESSAGE]
        raise RefusalError(422, "invalid", f"{twice}: is there twice", twice)


_pairs = json.JSONDecoder(object_pairs_hook=_once)  # `json.loads` would make one for every question

JSON = Codec("json", "application/json")
MSGPACK = Codec("msgpack", "application/msgpack")


@cache
def _decoder(name: str, kind: Any) -> Any:
    return msgspec.json.Decoder(kind) if name == JSON.name else msgspec.msgpack.Decoder(kind)


def explained(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """One line that says what is wrong, and the field that it is about."""
    text = str(error)
    field = ""
    placed = _PLACE.fullmatch(text)
    if placed:
        text, field = placed["what"], placed["field"]
    lacking = _LACKING.fullmatch(text)
    if lacking:
        field = f"{field}.{lacking['name']}" if field else lacking["name"]
        text = "is missing" if "missing" in text else "is not a field that is known here"
    field = field[:_LONGEST_MESSAGE]
    return (f"{field}: {text}" if field else text)[:_LONGEST_MESSAGE], field or None


def _not_finite(body: bytes) -> str | None:
    """Where a body that would be JSON but for NaN and Infinity holds one of them."""
    if len(body) > 1_000_000:
        return None
    try:
        return _path_of_infinite(json.loads(body))
    except (ValueError, RecursionError):
        return None


def _path_of_infinite(value: object, path: str = "") -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return path or "body"
    inside: list[tuple[str, object]] = []
    if isinstance(value, dict):
        inside = [(f"{path}.{key}" if path else key, entry) for key, entry in value.items()]
    elif isinstance(value, list):
        inside = [(f"{path}[{number}]", entry) for number, entry in enumerate(value)]
    for where, entry in inside:
        found = _path_of_infinite(entry, where)
        if found is not None:
            return found
    return None
