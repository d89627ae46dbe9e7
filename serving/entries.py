"""What the event log says of a request: its accepted events as they apply, and all to be remembered of them.

    4 bytes   length of the head
    head      MessagePack: `_Head`
    columns   sequence runs (first, last), then of the events: time, numbers, key, sub, kind; little endian

Ids are those that names got in the order in which they first appeared, so an entry means something only
after all entries before it, and it says how many events these were. An entry carries the names that it is
the first to use. Of each event only the numbers that its kind has are kept.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from exchange.compiled import lean
from features import events as ev
from features.events import VALUES, EventBatch

Runs = npt.NDArray[np.int64]
"""(runs, 2) first and last of neighbouring sequence numbers, in rising order."""

NewNames = tuple[list[str], list[str], list[str], list[str]]
"""Markets, assets, accounts and owners that are new, in the order of their ids."""

WIDTH = np.zeros(ev.DEFAULT + 1, np.int64)
"""How many numbers an event of each kind has; `values` is NaN beyond them."""
for _kind, _width in (
    (ev.MARKET, 5), (ev.TIER, 4), (ev.ASSET, 2), (ev.ASSET_PRICE, 1), (ev.BAR, 7), (ev.BOOK, 2),
    (ev.LEVEL, 4), (ev.FUNDING, 1), (ev.ACCOUNT, 2), (ev.TRANSFER, 1), (ev.FILL, 4), (ev.RATE, 2),
    (ev.SNAPSHOT, 5), (ev.POSITION, 4), (ev.BALANCE, 1), (ev.OBSERVED, 0), (ev.DEFAULT, 1),
):  # fmt: skip
    WIDTH[_kind] = _width


class Entry(NamedTuple):
    """Accepted events of one request; `first` is how many were applied before them, `rows` how many they are.

    `frontier` is time and kind up to which events have been applied once these are.
    """

    first: int
    rows: int
    source: str
    runs: Runs
    frontier: tuple[int, int]
    names: NewNames
    events: EventBatch


class _Head(msgspec.Struct, array_like=True):
    first: int
    rows: int
    source: str
    frontier: tuple[int, int]
    names: NewNames
    runs: int
    events: int
    numbers: int


_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Head)


def encode(entry: Entry) -> bytes:
    """An entry as the payload of a frame."""
    events = entry.events
    numbers = np.empty(int(WIDTH[events.kind].sum()))
    _pack(events.kind, events.values, numbers)
    head = _encoder.encode(
        _Head(
            entry.first,
            entry.rows,
            entry.source,
            entry.frontier,
            entry.names,
            len(entry.runs),
            len(events.kind),
            len(numbers),
        )
    )
    columns = (entry.runs, events.time_us, numbers, events.key, events.sub, events.kind)
    return b"".join([_LENGTH.pack(len(head)), head, *(column.tobytes() for column in columns)])


def decode(payload: bytes) -> Entry:
    """The entry of a payload; ValueError for bytes that are none."""
    try:
        at = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
        head = _decoder.decode(memoryview(payload)[_LENGTH.size : at])
    except (struct.error, msgspec.DecodeError) as error:
        raise ValueError(str(error)) from error
    found = []
    for kind, length in (
        ("i8", 2 * head.runs),
        ("i8", head.events),
        ("f8", head.numbers),
        ("i4", head.events),
        ("i4", head.events),
        ("u1", head.events),
    ):
        # copied, since the bytes of a payload are neither aligned nor writable
        found.append(np.frombuffer(payload, "<" + kind, length, at).copy())
        at += found[-1].nbytes
    runs, time_us, numbers, key, sub, kinds = found
    if at != len(payload) or kinds.max(initial=0) > ev.DEFAULT or WIDTH[kinds].sum() != head.numbers:
        raise ValueError("its parts have other lengths than it says")
    values = np.full((head.events, VALUES), np.nan)
    _unpack(kinds, numbers, values)
    events = EventBatch(kinds, time_us, key, sub, values)
    return Entry(head.first, head.rows, head.source, runs.reshape(-1, 2), head.frontier, head.names, events)


def runs_of(sequence: npt.NDArray[np.int64]) -> Runs:
    """Rising sequence numbers as runs of neighbours."""
    if len(sequence) == 0:
        return np.empty((0, 2), np.int64)
    if sequence[-1] - sequence[0] == len(sequence) - 1:
        return sequence[[0, -1]].reshape(1, 2)
    breaks = np.flatnonzero(np.diff(sequence) != 1)
    return np.column_stack(
        [sequence[np.concatenate([[0], breaks + 1])], sequence[np.concatenate([breaks, [-1]])]]
    )


@lean
def _pack(
    kind: npt.NDArray[np.uint8], values: npt.NDArray[np.float64], packed: npt.NDArray[np.float64]
) -> None:
    at = 0
    for row in range(len(kind)):
        for column in range(WIDTH[kind[row]]):
            packed[at] = values[row, column]
            at += 1


@lean
def _unpack(
    kind: npt.NDArray[np.uint8], packed: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> None:
    at = 0
    for row in range(len(kind)):
        for column in range(WIDTH[kind[row]]):
            values[row, column] = packed[at]
            at += 1
