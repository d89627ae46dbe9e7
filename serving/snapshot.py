"""Snapshots: the exact state of an engine in one file, so that a restart need not read the whole log.

    8 bytes MAGIC, 4 bytes length of the header, header (MessagePack: `_Header`), the tables of the state one
    after the other as they lie in memory, 32 bytes SHA-256 of all before

The log remains the truth: a snapshot that is torn, damaged, of another version of the program or of
another log is passed over. One that stands at the beginning of a log (position 0) hands a state that was
read from a dataset to processes that cannot read one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from exchange.errors import WorkError
from features import catalog
from features.state import State, layout, room_of, with_room
from features.venue import Venue
from serving.admission import Frontier, first_frontier

MAGIC = b"PPRKSNP1"
KEPT = 2
SUFFIX = ".snapshot"
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32

_log = logging.getLogger("perprisk.serving")


class SnapshotError(WorkError):
    """A snapshot cannot be written, or cannot be used."""


class Position(NamedTuple):
    """How far a log has been applied: where its last frame begins, the head of that frame, and where it ends.

    All empty before the first one.
    """

    start: int = 0
    head: bytes = b""
    end: int = 0


class Snapshot(NamedTuple):
    """What an engine knows; `sources` are the runs of sequence numbers that each has sent."""

    owner: bytes
    position: Position
    sequence: int
    quote_asset: str
    frontier: Frontier
    sources: dict[str, tuple[list[int], list[int]]]
    venue: Venue


class Log(Protocol):
    """What is asked of an event log, be it written or followed."""

    path: Path
    owner: bytes

    @property
    def end(self) -> int:
        """Where the file ends."""

    def head(self, start: int) -> bytes:
        """The head of the frame that begins there."""


class _Header(msgspec.Struct):
    layout: str
    features: str
    owner: bytes
    position: Position
    sequence: int
    quote_asset: str
    frontier: Frontier
    sources: dict[str, tuple[list[int], list[int]]]
    names: tuple[list[str], list[str], list[str], list[str]]
    room: dict[str, int]


def beginning(venue: Venue, quote_asset: str, owner: bytes) -> Snapshot:
    """A state in which no event of a log has been applied yet."""
    return Snapshot(owner, Position(), 0, quote_asset, first_frontier(venue), {}, venue)


def write(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, which is there whole or not at all; SnapshotError where that fails."""
    state = snapshot.venue.state
    header = msgspec.msgpack.encode(
        _Header(
            layout(),
            catalog.fingerprint(),
            snapshot.owner,
            snapshot.position,
            snapshot.sequence,
            snapshot.quote_asset,
            snapshot.frontier,
            snapshot.sources,
            snapshot.venue.names,
            room_of(state),
        )
    )
    parts: list[bytes | memoryview] = [
        MAGIC,
        _LENGTH.pack(len(header)),
        header,
        *(part.data for part in _bytes_of(state)),
    ]
    digest = hashlib.sha256()
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with aside.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            for part in parts:
                file.write(part)
                digest.update(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise SnapshotError(f"{path}: the snapshot cannot be written ({error.strerror})") from error


def read(path: Path) -> Snapshot:
    """Read a snapshot; SnapshotError for one that is not whole, or of another version of the program."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.startswith(MAGIC):
        raise SnapshotError(f"{path}: is no snapshot of this version")
    if len(content) < len(MAGIC) + _LENGTH.size + _DIGEST_BYTES:
        raise SnapshotError(f"{path}: is torn")
    body = memoryview(content)[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != content[-_DIGEST_BYTES:]:
        raise SnapshotError(f"{path}: is torn or damaged")
    start = len(MAGIC) + _LENGTH.size
    end = start + _LENGTH.unpack_from(body, len(MAGIC))[0]
    try:
        header = msgspec.msgpack.decode(body[start:end], type=_Header)
        if (header.layout, header.features) != (layout(), catalog.fingerprint()):
            raise SnapshotError(f"{path}: was written by another version of the program")
        state = with_room(header.room)
    except (msgspec.DecodeError, KeyError) as error:
        raise SnapshotError(f"{path}: was written by another version of the program") from error
    for part in _bytes_of(state):
        part[:] = np.frombuffer(body[end : end + len(part)], np.uint8)
        end += len(part)
    return Snapshot(
        header.owner,
        header.position,
        header.sequence,
        header.quote_asset,
        header.frontier,
        header.sources,
        Venue.of(state, header.names),
    )


def save(log: Log, snapshot: Snapshot) -> Path:
    """Write a snapshot into the folder of its log and remove all but the newest ones of that log."""
    path = log.path.with_name(f"{log.path.stem}-{snapshot.sequence:020}{SUFFIX}")
    write(path, snapshot)
    for old in _of(log)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def newest(log: Log) -> Snapshot | None:
    """The newest snapshot that belongs to a log; None, and warnings why, where none can be used."""
    for path in _of(log):
        try:
            found = read(path)
        except SnapshotError as error:
            _log.warning("%s; it is passed over", error)
            continue
        if belongs(found, log):
            return found
        _log.warning("%s: is not of this event log; it is passed over", path)
    return None


def belongs(snapshot: Snapshot, log: Log) -> bool:
    """Whether a log holds the frame up to which a snapshot knows it."""
    position = snapshot.position
    if snapshot.owner != log.owner or position.end > log.end:
        return False
    return not position.head or log.head(position.start) == position.head


def _of(log: Log) -> Sequence[Path]:
    """Snapshots beside a log, the newest first."""
    return sorted(log.path.parent.glob(f"{_escaped(log.path.stem)}-*{SUFFIX}"), reverse=True)


def _escaped(name: str) -> str:
    """A name as a pattern that only it matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _bytes_of(state: State) -> list[np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    """The tables as bytes, in memory order; writing to these writes to the state."""
    return [table.view(np.uint8) for table in state]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
