"""Sorting in place, for kernels that make no arrays of their own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exchange.compiled import lean


@lean
def sort_by(key: npt.NDArray[np.float64], tag: npt.NDArray[np.int64], count: int) -> None:
    """Put the first `count` keys and their tags in order: by key, of equal keys the lesser tag first.

    Keys must not be NaN. Heapsort (Williams 1964).
    """
    for root in range(count // 2 - 1, -1, -1):
        _sift(key, tag, root, count)
    for last in range(count - 1, 0, -1):
        _swap(key, tag, 0, last)
        _sift(key, tag, 0, last)


@lean
def _swap(key: npt.NDArray[np.float64], tag: npt.NDArray[np.int64], a: int, b: int) -> None:
    key[a], key[b] = key[b], key[a]
    tag[a], tag[b] = tag[b], tag[a]


@lean
def _sift(key: npt.NDArray[np.float64], tag: npt.NDArray[np.int64], root: int, count: int) -> None:
    """Let the entry at `root` sink until both below it come before it."""
    while 2 * root + 1 < count:
        child = 2 * root + 1
        other = child + 1
        if other < count and (
            key[other] > key[child] or (key[other] == key[child] and tag[other] > tag[child])
        ):
            child = other
        if key[root] > key[child] or (key[root] == key[child] and tag[root] >= tag[child]):
            return
        _swap(key, tag, root, child)
        root = child
