"""API keys: who may call what. Only digests of tokens are kept, so the file gives nobody a key.

    {"keys": [{"name": "engine-1", "scopes": ["events", "score"], "sha256": "...", "created": "...",
               "expires": "...", "revoked": "..."}]}

`expires` and `revoked` may be left out or null; times are ISO 8601. A token is 32 random bytes, so a plain
SHA-256 of it cannot be guessed back, and looking the digest up in a table tells nothing of the token by
its duration.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from exchange.errors import InputError
from serving.wire import RefusalError

Scope: TypeAlias = Literal["events", "score", "read", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = ("events", "score", "read", "metrics", "admin")

LOOK_EVERY_S = 1.0
"""Seconds between two looks at whether the file has changed."""

LONGEST_FILE_BYTES = 4 * 1024 * 1024
LONGEST_TOKEN = 256

_PREFIX = "ppr_"
_log = logging.getLogger("perprisk.keys")


class Key(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """One key, without the token."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    """Of the token, hexadecimal."""
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether the key opens anything at a time."""
        return not (self._by(self.revoked, now) or self._by(self.expires, now))

    @staticmethod
    def _by(end: datetime | None, now: datetime) -> bool:
        if end is None:
            return False
        return (end if end.tzinfo else end.replace(tzinfo=UTC)) <= now


class KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    """What a file of keys holds."""

    keys: list[Key]


class _Stamp(NamedTuple):
    """What tells one version of a file from another."""

    modified_ns: int
    size: int
    inode: int
    mode: int


class Keys:
    """The keys in a file, looked at again when it changes.

    A new version that cannot be read or is wrong leaves the last good one in force, says so in the log and
    in `fault`. `machine_time` gives the time by which keys expire, `since` counts seconds.
    """

    def __init__(
        self,
        path: Path,
        machine_time: Callable[[], datetime] = lambda: datetime.now(UTC),
        since: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file; InputError where it cannot be read or is no list of keys."""
        self.path = path
        self.fault: str | None = None
        """What is wrong with the newest version of the file, or its permissions; None where nothing is."""
        self._machine_time = machine_time
        self._since = since
        self._by_digest: dict[str, Key] = {}
        self._stamp: _Stamp | None = None
        self._read()
        self._looked_s = since()

    def authorize(self, token: str | None, scope: str) -> Key:
        """The key that a token is of; RefusalError 401 where it is none that is valid, 403 for the scope."""
        self._look()
        if not token:
            raise RefusalError(401, "no_key", "a key is needed (HTTP: Authorization: Bearer KEY)")
        key = self._by_digest.get(digest(token)) if len(token) <= LONGEST_TOKEN else None
        if key is None or not key.is_valid(self._machine_time()):
            raise RefusalError(401, "wrong_key", "the key is not known, has expired or was revoked")
        if scope not in key.scopes:
            raise RefusalError(403, "wrong_scope", f"the key {key.name} has no scope {scope}")
        return key

    def _look(self) -> None:
        now_s = self._since()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            self._read()
        except InputError as error:
            told = f"{error}; the keys before it stay in force"
            if told != self.fault:
                self.fault = told
                _log.error("%s", told)

    def _read(self) -> None:
        """Take the file's keys where it has changed."""
        before, self._stamp = self._stamp, None  # where even that cannot be read, the next look reads all
        self._stamp = _stamp(self.path)
        if self._stamp == before:
            return
        self._by_digest = {key.sha256: key for key in read_keys(self.path)}
        _log.info("%s: %d keys are in force", self.path, len(self._by_digest))
        self.fault = None
        if self._stamp.mode & (stat.S_IRWXG | stat.S_IRWXO):
            self.fault = f"{self.path}: others than its owner have access to it; chmod 600 takes that away"
            _log.warning("%s", self.fault)


def digest(token: str) -> str:
    """SHA-256 of a token, hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token() -> str:
    """A token with 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def read_keys(path: Path) -> list[Key]:
    """Keys in a file; InputError, which never quotes a digest, where it is no list of keys."""
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > LONGEST_FILE_BYTES:
        raise InputError(f"{path}: is too large for a file of keys")
    try:
        keys = msgspec.json.decode(content, type=KeyFile).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is no file of keys: {error}") from None
    seen: dict[str, str] = {}
    for key in keys:
        if key.sha256 in seen:
            raise InputError(f"{path}: keys {seen[key.sha256]} and {key.name} are of one token")
        seen[key.sha256] = key.name
    return keys


def spelt(keys: list[Key]) -> bytes:
    """A file of keys."""
    return msgspec.json.format(msgspec.json.encode(KeyFile(keys)), indent=1) + b"\n"


def _stamp(path: Path) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
