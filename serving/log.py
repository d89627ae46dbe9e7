"""The event log: what was accepted, on disk before it counts.

    header  8 bytes MAGIC, then one frame: whose log this is
    frame   as `serving.frames` has it

A frame is handed to the operating system before its events change anything, so that the death of the
process loses nothing; `sync` carries it to the disk. A frame that is torn at the end of the file was
never acknowledged and is cut off; damage anywhere else stops the reader, because what follows it would
be applied to a state that never was.

`EventLog` is for the one process that writes; `LogReader` is for those that follow it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from exchange.errors import InputError
from serving.frames import HEAD, LONGEST_FRAME, Frame, LogError, framed, frames, sync_folder

MAGIC = b"PPRKLOG2"


class EventLog:
    """An event log that one process appends to."""

    def __init__(self, path: Path, owner: bytes, descriptor: int, end: int, dropped: int) -> None:
        self.path = path
        self.dropped = dropped
        """Bytes of a torn frame that were cut off when the log was opened."""
        self.owner = owner
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
                raise _foreign(path, begun)
            os.ftruncate(descriptor, 0)
            log = cls(path, owner, descriptor, 0, 0)
            log._write(header)
            log.sync()
            sync_folder(path.parent)
            return log
        end = len(header)
        for frame in frames(path, descriptor, end, size):
            end = frame.end
        os.ftruncate(descriptor, end)
        return cls(path, owner, descriptor, end, size - end)

    @property
    def end(self) -> int:
        """Where the next frame goes."""
        return self._end

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """All frames in the order in which they were appended, from where one of them begins, or all."""
        return frames(self.path, self._descriptor, max(start, first_frame(self.owner)), self._end)

    def payloads(self) -> Iterator[bytes]:
        """All payloads in the order in which they were appended."""
        for frame in self.frames():
            yield frame.payload

    def head(self, start: int) -> bytes:
        """The head of the frame that begins there."""
        return os.pread(self._descriptor, HEAD.size, start)

    def go_on_at(self, end: int) -> None:
        """Append there, where the last whole frame ends: others may have appended (`serving.shared_log`)."""
        self._end = end

    def append(self, payload: bytes) -> int:
        """Append one payload, whole or not at all; where its frame begins.

        Raises LogError where that fails, and ever after if it must.

        Followers never see what fails: a frame is whole only with its last byte, after which nothing can.
        """
        if self._broken:
            raise LogError(self._broken)
        if len(payload) > LONGEST_FRAME:
            raise LogError(f"{self.path}: {len(payload)} bytes are too many for one frame")
        start = self._end
        self._write(framed(payload))
        return start

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
            try:  # whatever it says to have written
                os.ftruncate(self._descriptor, self._end)
            except OSError:
                self._broken = reason
            raise LogError(reason) from error
        self._end += written
        self._unsynced = True


class LogReader:
    """An event log that another process writes, read while it grows.

    A frame that is not wholly there yet is not there. The writer may still take back what it did not
    finish, so nothing of such a frame is kept either.
    """

    def __init__(self, path: Path, owner: bytes, descriptor: int) -> None:
        self.path = path
        self.owner = owner
        self._descriptor = descriptor
        self._next = first_frame(owner)

    @classmethod
    def open(cls, path: Path, owner: bytes) -> Self:
        """Open a log that has been begun; InputError where it cannot be read or is another owner's."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{path}: the event log cannot be read ({error.strerror})") from error
        header = MAGIC + framed(owner)
        begun = os.pread(descriptor, len(header), 0)
        if begun != header:
            os.close(descriptor)
            raise _foreign(path, begun)
        return cls(path, owner, descriptor)

    @property
    def end(self) -> int:
        """Where the file ends: at least where the last whole frame does."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def head(self, start: int) -> bytes:
        """The head of the frame that begins there."""
        return os.pread(self._descriptor, HEAD.size, start)

    def skip(self, start: int) -> None:
        """Go on with the frame that begins there."""
        self._next = max(start, first_frame(self.owner))

    def fresh(self) -> Iterator[Frame]:
        """Frames that are whole and were not given before; LogError for damage with more frames after it.

        Asking where there is none costs a look at the length of the file.
        """
        end = self.end
        while end > self._next:
            for frame in self._whole(end):
                self._next = frame.end
                yield frame
            before, end = end, self.end
            if end == before:
                return
        if end < self._next:
            raise LogError(f"{self.path}: is shorter than what was read of it")

    def sync(self) -> None:
        """Carry to the disk what was read; LogError where that fails."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be synced to disk ({error.strerror})") from error

    @property
    def fault(self) -> str | None:
        """Nothing keeps a reader from reading on; whoever reads learns of damage by `fresh`."""
        return None

    def close(self) -> None:
        """Close."""
        os.close(self._descriptor)

    def _whole(self, end: int) -> Iterator[Frame]:
        """Whole frames up to `end`; what looks damaged is read again, as it may be being taken back."""
        for again in range(_LOOKS):
            try:
                yield from frames(self.path, self._descriptor, self._next, end)
                return
            except LogError:
                if again == _LOOKS - 1:
                    raise
                time.sleep(_LOOK_S)
                end = self.end


_LOOKS, _LOOK_S = 20, 0.005
"""How often, and after how long, a frame that looks damaged is looked at before it counts as that."""


def first_frame(owner: bytes) -> int:
    """Where the first frame of a log begins, behind the header."""
    return len(MAGIC) + HEAD.size + len(owner)


def _foreign(path: Path, begun: bytes) -> InputError:
    if begun.startswith(MAGIC):
        return InputError(f"{path}: an event log of another state")
    if begun.startswith(MAGIC[:-1]):
        return InputError(f"{path}: an event log of another version")
    return InputError(f"{path}: is no event log")
