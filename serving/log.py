"""The event log: what was accepted, on disk before it counts.

    header  8 bytes MAGIC, then one frame: whose log this is
    frame   as `serving.frames` has it

A frame is handed to the operating system before its events change anything, so that the death of the
process loses nothing; `sync` carries it to the disk. A frame that is torn at the end of the file was
never acknowledged and is cut off; damage anywhere else stops the reader, because what follows it would
be applied to a state that never was.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from exchange.errors import InputError
from serving.frames import HEAD, LONGEST_FRAME, LogError, framed, frames, sync_folder

MAGIC = b"PPRKLOG1"


class EventLog:
    """An event log that one process appends to."""

    def __init__(self, path: Path, descriptor: int, end: int, dropped: int) -> None:
        self.path = path
        self.dropped = dropped
        """Bytes of a torn frame that were cut off when the log was opened."""
        self._descriptor = descriptor
        self._end = end
        self._unsynced = False
        self._broken: str | None = None

    @classmethod
    def open(cls, path: Path, owner: bytes) -> Self:
        """Open a log or begin one; `owner` says what its events apply to.

        Raises InputError where the file cannot be written, another process has it or it is another
        owner's, LogError where it is damaged.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"{path}: the event log cannot be written ({error.strerror})") from error
        try:
            return cls._opened(path, descriptor, owner)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def _opened(cls, path: Path, descriptor: int, owner: bytes) -> Self:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{path}: another process writes this event log") from None
        size = os.fstat(descriptor).st_size
        header = MAGIC + framed(owner)
        begun = os.pread(descriptor, len(header), 0)
        if begun != header:
            if not header.startswith(begun):  # otherwise it was torn when it was begun
                ours = begun.startswith(MAGIC)
                raise InputError(f"{path}: {'an event log of another state' if ours else 'is no event log'}")
            os.ftruncate(descriptor, 0)
            log = cls(path, descriptor, 0, 0)
            log._write(header)
            log.sync()
            sync_folder(path.parent)
            return log
        end = len(header)
        for frame in frames(path, descriptor, end, size):
            end = frame.end
        os.ftruncate(descriptor, end)
        return cls(path, descriptor, end, size - end)

    def payloads(self) -> Iterator[bytes]:
        """All payloads in the order in which they were appended."""
        first = len(MAGIC) + HEAD.size + HEAD.unpack(os.pread(self._descriptor, HEAD.size, len(MAGIC)))[0]
        for frame in frames(self.path, self._descriptor, first, self._end):
            yield frame.payload

    def append(self, payload: bytes) -> None:
        """Append one payload, whole or not at all; LogError where that fails, and ever after if it must."""
        if self._broken:
            raise LogError(self._broken)
        if len(payload) > LONGEST_FRAME:
            raise LogError(f"{self.path}: {len(payload)} bytes are too many for one frame")
        self._write(framed(payload))

    def sync(self) -> None:
        """Carry to the disk what was appended since the last time; LogError where that fails."""
        if not self._unsynced:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # what is on the disk is not known any more, and asking again would report success
            self._broken = f"{self.path}: cannot be synced to disk ({error.strerror})"
            raise LogError(self._broken) from error
        self._unsynced = False

    @property
    def fault(self) -> str | None:
        """Why nothing can be appended any more; None while it can."""
        return self._broken

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def _write(self, content: bytes) -> None:
        written = 0
        try:
            while written < len(content):
                written += os.pwrite(self._descriptor, content[written:], self._end + written)
        except OSError as error:
            reason = f"{self.path}: cannot be written ({error.strerror})"
            if written:
                try:
                    os.ftruncate(self._descriptor, self._end)
                except OSError:
                    self._broken = reason
            raise LogError(reason) from error
        self._end += written
        self._unsynced = True
