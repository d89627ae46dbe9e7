"""Reading audit logs: the chain of each worker's records, and whether it is what was written.

audit-WORKER-NUMBER.log    8 bytes MAGIC, then frames (`serving.frames`) of records (`serving.records`);
                           the first of each file says whose it is, its number and what it follows
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exchange.errors import InputError
from serving.frames import LogError, frames
from serving.records import BEGINNING, Answered, Begun, Content, Record, RecordError, read
from serving.signing import Head, is_signed

MAGIC = b"PPRKAUD1"
BEGINS, FULL = "the log begins", "the file before was full"
REASONS = (BEGINS, FULL)
"""Why a file was begun where nothing went wrong."""

_NAME = re.compile(r"audit-(?P<worker>[A-Za-z0-9_]+)-(?P<number>[0-9]{6,})\.log")


def file_name(worker: str, number: int) -> str:
    """The name of a worker's file; they are numbered from 1."""
    return f"audit-{worker}-{number:06}.log"


def files_of(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Numbers and paths of every worker's files, in order; InputError where the folder cannot be read."""
    found: dict[str, list[tuple[int, Path]]] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: the audit log cannot be read ({error.strerror})") from error
    for name in names:
        if (match := _NAME.fullmatch(name)) is not None:
            found.setdefault(match["worker"], []).append((int(match["number"]), folder / name))
    return {worker: sorted(files) for worker, files in sorted(found.items())}


class Tail(NamedTuple):
    """How far a file can be trusted: its last record, where that ends, and what follows."""

    number: int
    digest: bytes
    end: int
    size: int
    fault: str | None = None
    """What is wrong behind the last record; None where nothing but a torn record is there."""
    public_key: bytes = b""
    """Whose signature counts by what the file says."""


def tail_of(path: Path) -> Tail:
    """The last record of a file that is chained from its first; number 0 where there is none.

    Raises InputError where the file cannot be read.
    """
    try:
        tail = Tail(0, BEGINNING, 0, path.stat().st_size)
        for record, end in records_of(path):
            content = record.content
            if not tail.number:
                if not isinstance(content, Begun) or not record.follows(content.previous):
                    return tail._replace(fault="its first record does not begin a file")
                tail = tail._replace(public_key=content.public_key)
            elif content.number != tail.number + 1 or not record.follows(tail.digest):
                return tail._replace(fault=f"record {content.number} does not follow {tail.number}")
            tail = tail._replace(number=content.number, digest=record.digest, end=end)
    except LogError as error:
        return tail._replace(fault=str(error))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return tail


def records_of(path: Path) -> Iterator[tuple[Record, int]]:
    """Records of a file and where each ends; LogError for damage, a torn record at the end is left out."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        begun = os.pread(descriptor, len(MAGIC), 0)
        if begun != MAGIC:
            if MAGIC.startswith(begun):
                return
            raise LogError(f"{path}: is no audit log")
        for frame in frames(path, descriptor, len(MAGIC), size):
            try:
                yield read(frame.payload), frame.end
            except RecordError as error:
                raise LogError(f"{path}: what ends at byte {frame.end} {error}") from None
    finally:
        os.close(descriptor)


class Finding(NamedTuple):
    """What a walk along a worker's chain came to."""

    worker: str
    files: int
    records: int
    """Records whose place in the chain is certain, from the first that was there."""
    answers: int
    problems: list[str]
    """What can only be damage or tampering; the walk ends at the first within the files."""
    notices: list[str]
    """What a reader has to know, and is no fault."""
    covered: int
    """The last record that a signed head kept elsewhere vouches for; 0 for none."""
    last_us: int
    public_key: bytes
    """Of the last file that says one."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems


class Verifier:
    """Walks along the chain of one worker and holds it against heads."""

    def __init__(self, worker: str, public_key: Ed25519PublicKey | None, archived: bool = False) -> None:
        """`public_key`: whose heads count, else that which the log itself names; `archived`: the first
        files may have been taken away."""
        self.worker = worker
        self._public_key = public_key
        self._archived = archived
        self.problems: list[str] = []
        """What is wrong, as far as the walk has come."""
        self._notices: list[str] = []
        self._number = 0
        self._first = 1
        self._digest = BEGINNING
        self._digests: dict[int, bytes] = {}
        self._wanted: set[int] = set()
        self._answers = 0
        self._last_us = 0
        self._keys: list[bytes] = []

    def verify(
        self, files: list[tuple[int, Path]], kept: Iterable[Head] = (), beside: Iterable[Head] = ()
    ) -> Finding:
        """Walk along all files; `kept` are heads from elsewhere, `beside` those in the folder itself."""
        kept, beside = list(kept), list(beside)
        self._wanted = {head.records for head in (*kept, *beside)}
        for _ in self.walk(files):
            pass
        covered = max((head.records for head in kept if self._holds(head, "the head given")), default=0)
        for head in beside:
            self._holds(head, "a head in the folder")
        return Finding(
            self.worker, len(files), self._number, self._answers, self.problems, self._notices, covered,
            self._last_us, self._keys[-1] if self._keys else b"",
        )  # fmt: skip

    def walk(self, files: list[tuple[int, Path]]) -> Iterator[Record]:
        """Records in order, each held against the one before; ends at the first that is wrong."""
        torn: str | None = None
        for place, (number, path) in enumerate(files):
            if number != (expected := files[place - 1][0] + 1 if place else 1):
                missing = f"{file_name(self.worker, expected)} to {file_name(self.worker, number - 1)}"
                if place or not self._archived:
                    self.problems.append(f"missing: {missing}")
                    return
                self._notices.append(f"taken to be archived, and not looked at: {missing}")
            first, end = True, 0
            try:
                for record, record_end in records_of(path):
                    fault = self._fault(record.content, number, first, place == 0, torn, record)
                    if fault is not None:
                        self.problems.append(f"{path.name}: {fault}")
                        return
                    end, first = record_end, False
                    yield record
            except (LogError, OSError) as error:
                self.problems.append(str(error))
                return
            left = path.stat().st_size - end
            torn = f"{path.name}: {left} bytes at its end are no whole record" if left else None
            if first:
                torn = f"{path.name}: holds no record"
        if torn is not None:
            self._notices.append(f"{torn}: its process was killed while it wrote, or it was cut")

    def _fault(
        self, content: Content, file: int, first: bool, oldest: bool, torn: str | None, record: Record
    ) -> str | None:
        """What is wrong with the next record; None where it is, and then it counts."""
        if first:
            if not isinstance(content, Begun):
                return "does not say whose it is"
            if (content.worker, content.file) != (self.worker, file):
                return f"is {file_name(content.worker, content.file)} by what it says of itself"
            if content.reason not in REASONS:
                self._notices.append(f"{file_name(content.worker, file)} was begun because {content.reason}")
            if torn is not None and not content.left:
                return f"follows a file that has lost its end ({torn})"
            if oldest and file > 1:
                self._digest, self._number = content.previous, content.number - 1
                self._first = content.number
            elif content.previous != self._digest:
                return f"does not follow record {self._number}, the last of the file before"
            if content.public_key not in self._keys:
                self._keys.append(content.public_key)
        elif isinstance(content, Begun):
            return "begins twice"
        if content.number != self._number + 1 or not record.follows(self._digest):
            return f"record {content.number} does not follow record {self._number}"
        self._number, self._digest, self._last_us = content.number, record.digest, content.time_us
        self._answers += isinstance(content, Answered)
        if content.number in self._wanted:
            self._digests[content.number] = record.digest
        return None

    def _holds(self, head: Head, whose: str) -> bool:
        """Whether a head agrees with the chain; a problem is noted where it does not."""
        name = f"{whose} of {head.time}"
        keys = [self._public_key]
        if self._public_key is None:
            keys = [Ed25519PublicKey.from_public_bytes(key) for key in self._keys]
        if not any(key is not None and is_signed(head, key) for key in keys):
            self.problems.append(f"{name} is not signed by the key that counts")
            return False
        if head.records < self._first:
            self._notices.append(f"{name} is about records that are archived")
            return False
        if head.records > self._number:
            self.problems.append(f"{name} vouches for {head.records} records, {self._number} can be followed")
            return False
        if self._digests.get(head.records) != _bytes(head.digest):
            self.problems.append(f"{name} vouches for another record {head.records}")
            return False
        return True


def verify(
    folder: Path,
    kept: Iterable[Head] = (),
    beside: Iterable[Head] = (),
    public_key: Ed25519PublicKey | None = None,
    archived: bool = False,
) -> list[Finding]:
    """What every worker's chain in a folder comes to, those included that only a head speaks of."""
    kept, beside = list(kept), list(beside)
    files = files_of(folder)
    workers = sorted({*files, *(head.worker for head in (*kept, *beside))})
    return [
        Verifier(worker, public_key, archived).verify(
            files.get(worker, []),
            (head for head in kept if head.worker == worker),
            (head for head in beside if head.worker == worker),
        )
        for worker in workers
    ]


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def as_json(finding: Finding) -> dict[str, object]:
    """A finding as plain values."""
    plain = finding._asdict() | {"sound": finding.sound, "public_key": finding.public_key.hex()}
    return dict(msgspec.to_builtins(plain))
