"""Frames: how payloads stand one after another in the logs that the service writes.

    frame   4 bytes length, 4 bytes CRC-32 of the payload, 4 bytes CRC-32 of the eight before, payload
            (numbers little endian)

The length has a checksum of its own: with a wrong one all that follows would look like the rest of a
torn frame.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from exchange.errors import WorkError

LONGEST_FRAME = 64 * 1024 * 1024
HEAD = struct.Struct("<III")
_CHECKED = 8  # bytes of the head that its own checksum covers


class Frame(NamedTuple):
    """A payload, and where its frame begins and ends in the file."""

    payload: bytes
    start: int
    end: int


class LogError(WorkError):
    """A log is damaged, or cannot be written any more."""


def framed(payload: bytes) -> bytes:
    """A payload as it stands in a log."""
    head = HEAD.pack(len(payload), zlib.crc32(payload), 0)[:_CHECKED]
    return b"".join((head, zlib.crc32(head).to_bytes(4, "little"), payload))


def frames(path: Path, descriptor: int, start: int, size: int) -> Iterator[Frame]:
    """Whole frames from `start`; stops before a torn one at the end.

    Raises LogError for damage anywhere else.
    """
    while start + HEAD.size <= size:
        head = os.pread(descriptor, HEAD.size, start)
        if len(head) < HEAD.size:  # taken back since `size` was asked for
            return
        length, checksum, head_checksum = HEAD.unpack(head)
        if length == 0 or zlib.crc32(head[:_CHECKED]) != head_checksum:
            if _is_zero(descriptor, start, size):
                return
            raise _damaged(path, start)
        end = start + HEAD.size + length
        if end > size:
            return
        payload = os.pread(descriptor, length, start + HEAD.size)
        if zlib.crc32(payload) != checksum:
            if end == size:
                return
            raise _damaged(path, start)
        yield Frame(payload, start, end)
        start = end


def _damaged(path: Path, start: int) -> LogError:
    return LogError(f"{path}: damaged at byte {start}; restore the file, or move it away to begin anew")


def _is_zero(descriptor: int, start: int, size: int) -> bool:
    """Whether nothing but zeros follows: a file that grew before its content reached the disk."""
    while start < size:
        block = os.pread(descriptor, min(1 << 20, size - start), start)
        if not block or block.strip(b"\0"):
            return False
        start += len(block)
    return True


def sync_folder(folder: Path) -> None:
    """Carry the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
