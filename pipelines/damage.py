"""What a damaged file makes the readers do, turned into one clear line."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from exchange.errors import InputError
from pipelines.times import format_time

LONGEST_SHOWN = 80
LONGEST_LINE = 5_000  # paths may be long


class DatasetError(InputError):
    """A dataset is not what its format says; the text names file, column and value where they apply."""

    def __init__(self, message: str, table: str | None = None, column: str | None = None) -> None:
        """`table` and `column` say again what the line says, for those who list problems."""
        super().__init__(one_line(message, LONGEST_LINE))
        self.table = table
        self.column = column


def shown(value: object) -> str:
    """A value as an error quotes it: on one line, not too long, text in quotes."""
    return one_line(str(value) if isinstance(value, float | int) else repr(value))


def one_line(text: str, most: int = LONGEST_SHOWN) -> str:
    """Text without line breaks or control characters, and not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."


def shown_time(time_us: int) -> str:
    """A time for an error line; plain microseconds where no calendar reaches."""
    try:
        return format_time(time_us)
    except OverflowError:
        return f"{time_us} us since 1970"


@contextmanager
def reading(place: Path | str, table: str | None = None) -> Iterator[None]:
    """Turn what goes wrong while reading a file into a DatasetError that names it."""
    try:
        with _hushed():
            yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, MemoryError, UnicodeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"{place}: cannot be read as Parquet ({one_line(reason)})", table) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DatasetError(f"{place}: cannot be read ({one_line(reason)})", table) from error


class _Hush:
    """What holds the process's standard error while the readers are at work, for all threads together."""

    lock = threading.Lock()
    depth = 0
    kept = -1
    said = -1


@contextmanager
def _hushed() -> Iterator[None]:
    """Hold back standard error, and drop it if the reader panicked.

    Polars is written in Rust, and some damaged files make it panic: Python sees an exception, but the
    terminal has already been sent a page of Rust. What others wrote meanwhile is passed on.
    """
    _start_holding()
    panicked = False
    try:
        yield
    except pl.exceptions.PanicException:
        panicked = True
        raise
    finally:
        _stop_holding(drop=panicked)


def _start_holding() -> None:
    with _Hush.lock:
        _Hush.depth += 1
        if _Hush.depth > 1 or not hasattr(os, "memfd_create"):
            return
        try:
            _Hush.kept = os.dup(2)
        except OSError:  # standard error is closed: nothing to hold back
            return
        _Hush.said = os.memfd_create("stderr")
        os.dup2(_Hush.said, 2)


def _stop_holding(drop: bool) -> None:
    with _Hush.lock:
        _Hush.depth -= 1
        if _Hush.kept < 0 or (_Hush.depth and not drop):
            return
        size = os.lseek(_Hush.said, 0, os.SEEK_CUR)
        text = b"" if drop else os.pread(_Hush.said, size, 0)
        os.ftruncate(_Hush.said, 0)
        os.lseek(_Hush.said, 0, os.SEEK_SET)
        if _Hush.depth == 0:
            os.dup2(_Hush.kept, 2)
            os.close(_Hush.kept)
            os.close(_Hush.said)
            _Hush.kept = _Hush.said = -1
        while text:
            text = text[os.write(2, text) :]
