"""The audit log: every answer that was seen is in it first, and nothing in it can be changed unseen.

A record is handed to the operating system before the answer leaves, so that the death of the process
loses nothing; it is on the disk before the answer leaves (`strict`), or within 50 ms (`group`), by a
thread of its own. Records are chained by hashes (`serving.records`) across files, and how far the chain
has come is signed every few seconds (`serving.signing`).

An answer that cannot be recorded is not given. Writing is tried again with every request: after a failed
write in the same file, after a failed sync never there, since what of it is on the disk is not known and
a second sync would report success; the log then goes on in a new file, which says why.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.errors import InputError
from features import catalog
from features.emit import FIGURES
from serving import judgement, ladder, parts, policy
from serving.chain import BEGINS, FULL, MAGIC, Tail, file_name, files_of, tail_of
from serving.evidence import Rows
from serving.frames import LONGEST_FRAME, LogError, framed, sync_folder
from serving.records import BEGINNING, Answered, Begun, Bytes, Content, Noted, Read, digest_of, written
from serving.signing import HEADS, Head, append_head, own_key, public_bytes, sign

Mode = Literal["strict", "group"]

SEGMENT_BYTES = 256 * 1024 * 1024
"""A file that has reached this size is followed by a new one."""

SYNC_S = 0.02
"""Seconds from a record to the beginning of its sync in `group`: what is left of 50 ms is the disk's."""

HEAD_S = 10.0
"""Seconds between signed heads while records are written."""

ROOM_BYTES = 1024 * 1024
"""Free space from which on writing is tried again after it failed: a note alone would fit sooner."""

_WORKER = re.compile(r"[A-Za-z0-9_]{1,32}")
_log = logging.getLogger("perprisk.audit")


class Reading(NamedTuple):
    """What answers are computed with."""

    model_version: str
    columns: npt.NDArray[np.int64]
    """Columns of the catalogue that the model reads; the others are not recorded."""


class Audit:
    """The audit log of one process; records are appended by one thread."""

    def __init__(
        self,
        folder: Path,
        worker: str,
        mode: Mode,
        key: Ed25519PrivateKey,
        segment_bytes: int,
        sync_s: float,
        head_s: float,
    ) -> None:
        """See `open`."""
        self.folder = folder
        self.worker = worker
        self.mode = mode
        self.policy_version = policy_version()
        self.took_s: Callable[[float], None] = lambda _seconds: None
        """Is told the seconds of every sync, in the thread that syncs."""
        self._key = key
        self._segment_bytes = segment_bytes
        self._sync_s = sync_s
        self._head_s = head_s
        self._file = 0
        self._descriptor = -1
        self._tail = Tail(0, BEGINNING, 0, 0)
        self._reading: Reading | None = None
        self._fault: str | None = None
        self._lost: str | None = None  # why the file cannot be written any more, whatever the disk says
        self._refused = 0
        self._unsynced = False
        self._synced = self._tail
        self._signed = 0
        self._next_head = 0.0
        self._process_lock = -1
        self._descriptor_lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._syncer: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        worker: str = "0",
        mode: Mode = "group",
        key: Ed25519PrivateKey | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        sync_s: float = SYNC_S,
        head_s: float = HEAD_S,
    ) -> Self:
        """Go on with a worker's log in a folder, or begin it; without a key, with the folder's own.

        To be called in the process that appends: a fork has no syncing thread. Raises InputError where
        the folder cannot be written or another process writes this worker's log.
        """
        if _WORKER.fullmatch(worker) is None:
            raise InputError(f"{worker!r} cannot be a worker's name in an audit log")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(folder / f"audit-{worker}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"{folder}: answers cannot be recorded here ({error.strerror})") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{folder}: another process records as worker {worker}") from None
            audit = cls(folder, worker, mode, key or own_key(folder), segment_bytes, sync_s, head_s)
            audit._process_lock = lock
            try:
                audit._resume()
            except (OSError, LogError) as error:
                raise InputError(f"{folder}: answers cannot be recorded here ({error})") from error
        except BaseException:
            os.close(lock)
            raise
        audit._syncer = threading.Thread(target=audit._keep_synced, name="audit", daemon=True)
        audit._syncer.start()
        return audit

    # -- appending

    def reads(self, model_version: str, columns: npt.NDArray[np.int64]) -> None:
        """Say what the answers that come next are computed with; LogError where that cannot be written."""
        reading = Reading(model_version, columns)
        self._ready_to_write()
        self._append(self._read_record(reading, self._tail.number + 1))
        self._reading = reading

    def append(self, route: str, codec: str, request: bytes, answer: bytes, rows: Rows) -> None:
        """Record an answer before it is given; LogError where that fails, and then it must not be given.

        `reads` comes first.
        """
        reading = self._reading
        assert reading is not None, "what the answers are computed with was not said"
        try:
            if self._fault is not None or self._lost is not None or self._tail.end >= self._segment_bytes:
                self._ready_to_write()
            values = (
                rows.features.take(reading.columns, 1).data,
                np.ascontiguousarray(rows.figures).data,
            )
            content = Answered(
                self._tail.number + 1,
                time.time_ns() // 1_000,
                route,
                codec,
                reading.model_version,
                self.policy_version,
                len(request),
                rows.heights,
                rows.row_of,
                rows.instead,
                digest_of(request, *values),
                answer,
                list(rows.beside),
            )
            self._append(content, (request, *values))
        except LogError:
            self._refused += 1
            raise

    def note(self, text: str) -> None:
        """Record something that the log's reader has to know; LogError where that fails.

        Such as a change of the margin policy (`serving.switches.Change.text`).
        """
        self._ready_to_write()
        self._append(self._note(text))

    @property
    def fault(self) -> str | None:
        """Why answers cannot be recorded now, after another try; None where they can."""
        if self._fault is not None:
            try:
                self._ready_to_write()
            except LogError as error:
                return str(error)
        return None

    def close(self) -> None:
        """Sync, sign and close."""
        self._closing.set()
        self._wake.set()
        if self._syncer is not None:
            self._syncer.join()
        try:
            self._sync()
            self._sign_head()
        finally:
            os.close(self._descriptor)
            os.close(self._process_lock)

    def _append(self, content: Content, inputs: tuple[Bytes, ...] = ()) -> None:
        digest, payload = written(self._tail.digest, content, inputs)
        self._write(framed(payload), digest)
        if self.mode == "strict":
            self._sync()
            if self._lost is not None:
                raise LogError(self._lost)

    def _write(self, content: bytes, digest: bytes) -> None:
        """Write one record at the end, whole or not at all."""
        if len(content) > LONGEST_FRAME:
            raise LogError(f"{len(content)} bytes are too many for one record of the audit log")
        end, done = self._tail.end, 0
        try:
            while done < len(content):  # once, but for a disk that is about to be full
                done += os.pwrite(self._descriptor, content[done:] if done else content, end + done)
        except OSError as error:
            reason = f"{self._name}: cannot be written ({error.strerror})"
            self._fail(reason)
            if done:
                try:
                    os.ftruncate(self._descriptor, end)
                except OSError:
                    self._lost = reason
            raise LogError(reason) from error
        self._tail = Tail(self._tail.number + 1, digest, end + done, 0)
        if not self._unsynced:
            self._unsynced = True
            self._wake.set()

    # -- going on after a failure, or in the next file

    def _ready_to_write(self) -> None:
        """Do what has to be done before the next record; LogError where it cannot be written."""
        fault = self._fault
        try:
            if fault is not None:
                room = os.statvfs(self.folder)
                if room.f_bavail * room.f_frsize < ROOM_BYTES:
                    raise LogError(f"{self.folder}: no space is left for the audit log")
            if self._lost is not None:
                self._begin(self._lost)
            elif self._tail.end >= self._segment_bytes:
                self._begin(FULL)
            if fault is not None:
                self._append(self._note(f"{fault}; answers refused meanwhile: {self._refused}"))
        except OSError as error:
            reason = f"{self.folder}: cannot be written ({error.strerror})"
            self._fail(reason)
            raise LogError(reason) from error
        if fault is not None:
            _log.warning("answers are recorded again (%s)", fault)
            self._fault, self._refused = None, 0

    def _begin(self, reason: str) -> None:
        """Begin the next file; the log goes on there once its first records are on the disk."""
        if self._lost is None and self._descriptor >= 0:
            self._sync()
            if self._lost is not None:
                raise LogError(self._lost)
        file, tail = self._file + 1, self._tail
        left = 0
        if self._descriptor >= 0 and self._lost is not None:
            left = max(os.fstat(self._descriptor).st_size - tail.end, 0)
        now_us = time.time_ns() // 1_000
        begun = Begun(
            tail.number + 1, now_us, self.worker, file, tail.digest, left, reason, _program(),
            public_bytes(self._key.public_key()),
        )  # fmt: skip
        digest, payload = written(tail.digest, begun)
        content, number = MAGIC + framed(payload), begun.number
        if self._reading is not None:
            digest, payload = written(digest, self._read_record(self._reading, number + 1))
            content, number = content + framed(payload), number + 1
        path = self.folder / file_name(self.worker, file)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, 0)  # left by an earlier try
            done = 0
            while done < len(content):
                done += os.pwrite(descriptor, content[done:], done)
            os.fdatasync(descriptor)
            sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            raise
        with self._descriptor_lock:
            before, self._descriptor = self._descriptor, descriptor
            self._file, self._tail = file, Tail(number, digest, len(content), 0)
            self._synced = self._tail
            self._lost, self._unsynced = None, False
        if before >= 0:
            os.close(before)

    def _resume(self) -> None:
        """Go on where the worker's log ends."""
        files = files_of(self.folder).get(self.worker, [])
        self._file = files[-1][0] if files else 0
        damage, tail = None, self._tail
        for number, path in reversed(files):
            tail = tail_of(path)
            if tail.fault is not None:
                damage = f"{path.name} is damaged: {tail.fault}"
            if tail.number:
                break
            if damage is None:
                self._file = number - 1  # it was only being begun, and is begun anew
        if not tail.number:
            self._begin(damage or BEGINS)
            return
        self._tail = tail
        if damage is not None:
            _log.critical("%s; see: perprisk audit verify", damage)
            self._begin(damage)
            return
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, tail.end)
        if tail.public_key != public_bytes(self._key.public_key()):
            self._begin("another key signs from here on")
            return
        torn = tail.size - tail.end
        self._append(self._note(f"started again by {_program()}; bytes of a torn record cut off: {torn}"))

    def _fail(self, reason: str) -> None:
        if self._fault is None:  # the first failure tells most
            self._fault = reason
            _log.critical("answers cannot be recorded: %s", reason)

    # -- syncing and signing

    def _keep_synced(self) -> None:
        while not self._closing.is_set():
            if self._wake.wait(self._head_s):
                self._wake.clear()
                self._closing.wait(self._sync_s)
                self._sync()
            if time.monotonic() >= self._next_head:
                self._sign_head()

    def _sync(self) -> None:
        """Carry what was written to the disk."""
        with self._descriptor_lock:
            if not self._unsynced or self._lost is not None:
                return
            self._unsynced = False  # before: what is written meanwhile is the next one's
            tail = self._tail
            began = time.perf_counter()
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                self._lost = f"{self._name}: cannot be synced to disk ({error.strerror})"
                self._fail(self._lost)
            else:
                self._synced = tail
                self.took_s(time.perf_counter() - began)

    def _sign_head(self) -> None:
        """Sign how far the log has come on the disk."""
        tail, file = self._synced, self._name
        if tail.number == self._signed:
            return
        self._next_head = time.monotonic() + self._head_s
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = sign(Head(self.worker, file, tail.number, tail.digest.hex(), now), self._key)
        try:
            append_head(self.folder / HEADS, head)
        except OSError as error:
            _log.error("%s: a signed head cannot be written (%s)", self.folder / HEADS, error.strerror)
            return
        self._signed = tail.number

    # -- small parts

    @property
    def _name(self) -> str:
        return file_name(self.worker, self._file)

    def _note(self, text: str) -> Noted:
        return Noted(self._tail.number + 1, time.time_ns() // 1_000, text)

    def _read_record(self, reading: Reading, number: int) -> Read:
        return Read(
            number,
            time.time_ns() // 1_000,
            reading.model_version,
            self.policy_version,
            catalog.fingerprint(),
            [catalog.NAMES[column] for column in reading.columns],
            FIGURES,
        )


def policy_version() -> str:
    """Names the rules by which probabilities become margins: a digest of the modules that hold them."""
    modules = (policy, parts, ladder, judgement)
    sources = [Path(one.__file__ or "").read_bytes() for one in modules]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def _program() -> str:
    try:
        return f"perprisk {version('perprisk')}"
    except PackageNotFoundError:
        return "perprisk"
