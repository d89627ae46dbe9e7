"""Keys of callers: made, revoked and listed in the file that a running service looks at."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from exchange.errors import InputError
from pipelines.output import atomic_file, check_file
from serving.keys import Key, Keys, digest, new_token, read_keys, spelt
from serving.wire import to_time


def open_keys(path: Path | None) -> Keys | None:
    """The keys that callers need; None, and everybody may do everything, without a file of them."""
    return None if path is None else Keys(path)


def add(file: Path, name: str, scopes: list[str], expires_us: int | None) -> int:
    """Add a key to a file and print its token; InputError where the name is taken or a scope unknown."""
    token = new_token()
    now = datetime.now(UTC).replace(microsecond=0)
    fields = {
        "name": name,
        "scopes": list(dict.fromkeys(scopes)),
        "sha256": digest(token),
        "created": now,
        "expires": None if expires_us is None else to_time(expires_us),
    }
    try:
        key = msgspec.convert(fields, Key)
    except msgspec.ValidationError as error:
        raise InputError(f"{name!r} cannot be added: {error}") from None
    with _held(file):
        keys = read_keys(file) if file.exists() else []
        if any(other.name == name and other.is_valid(now) for other in keys):
            raise InputError(f"{file}: {name!r} has a key already; revoke it, or choose another name")
        _write(file, [*keys, key])
    print(token)
    return 0


def revoke(file: Path, name: str) -> int:
    """Revoke all keys of a name; InputError where it has none that is in force."""
    now = datetime.now(UTC).replace(microsecond=0)
    with _held(file):
        keys = read_keys(file)
        ended = [
            msgspec.structs.replace(key, revoked=now) if key.name == name and key.is_valid(now) else key
            for key in keys
        ]
        if ended == keys:
            raise InputError(f"{file}: {name!r} has no key that is in force")
        _write(file, ended)
    return 0


def show(file: Path) -> int:
    """Print the keys of a file, a line each."""
    now = datetime.now(UTC)
    for key in read_keys(file):
        since = f"since {key.created:%Y-%m-%d %H:%M}"
        state = "in force" if key.is_valid(now) else "revoked" if key.revoked is not None else "expired"
        until = "" if key.expires is None else f"until {key.expires:%Y-%m-%d %H:%M}"
        print(f"{key.name:24} {state:9} {','.join(key.scopes):34} {since} {until}".rstrip())
    return 0


def _write(file: Path, keys: list[Key]) -> None:
    with atomic_file(file) as path:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as target:
            target.write(spelt(keys))


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Let nobody else change a file of keys meanwhile."""
    check_file(file)
    descriptor = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock = os.open(f".{file.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
