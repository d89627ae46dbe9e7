"""Published csv files, zipped or not: every wrong byte of them becomes one line that says where it is.

Values are read as text first, so that an error can quote what stands in the file.
"""

from __future__ import annotations

import errno
import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from exchange.errors import InputError
from pipelines.damage import one_line, shown

LARGEST_CSV_BYTES = 2 * 1024**3
CHECKSUM = ".CHECKSUM"


class Sheet(NamedTuple):
    """The rows of one csv file as text without blanks around it."""

    file: Path
    text: pl.DataFrame
    first_line: int
    """Line of the first row, counted from 1."""

    def error(self, row: int, column: str, why: str) -> InputError:
        """What is wrong with one value, by the line that it stands on."""
        value = self.text[column][row]
        what = "is empty" if value is None or value == "" else f"{shown(value)} {why}"
        return InputError(f"{self.file}: line {self.first_line + row}: column {column}: {what}")

    def refuse(self, wrong: pl.Series, column: str, why: str) -> None:
        """Raise for the first row that is `wrong`, if there is one; null counts as wrong."""
        row = wrong.fill_null(True).arg_max()
        if row is not None and (wrong[row] is None or wrong[row]):
            raise self.error(row, column, why)

    def numbers(self, column: str, *, above: float | None = None, least: float | None = None) -> pl.Series:
        """A column as finite numbers, above or at least a bound where one is given."""
        values = self.text[column].cast(pl.Float64, strict=False)
        self.refuse(values.is_null(), column, "is not a number")
        self.refuse(~values.is_finite(), column, "is not finite")
        if above is not None:
            self.refuse(
                values <= above, column, "is not positive" if above == 0 else f"is not above {above:g}"
            )
        if least is not None:
            self.refuse(values < least, column, "is negative" if least == 0 else f"is below {least:g}")
        return values

    def whole_numbers(self, column: str) -> pl.Series:
        """A column as whole numbers."""
        values = self.text[column].cast(pl.Int64, strict=False)
        self.refuse(values.is_null(), column, "is not a whole number")
        return values


def read_sheet(file: Path, columns: Sequence[str], needed: Sequence[str], what: str) -> Sheet:
    """The rows of a csv file, or of the one csv file within a zip.

    `columns` are those of a file without a header row; one with a header must have the `needed` ones.
    `what` says in an error what the file should have been. Raises InputError.
    """
    content = _content(file)
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    content = content.strip(b"\n")
    if not content.strip():
        raise InputError(f"{file}: holds no rows")
    first = _text(file, content[: content.find(b"\n") if b"\n" in content else len(content)], 1)
    fields = [field.strip().strip('"') for field in first.split(",")]
    has_header = not fields[0][:1].isdigit()
    if has_header:
        missing = [name for name in needed if name not in fields]
        if missing:
            raise InputError(f"{file}: line 1: column {missing[0]} is missing: no {what} as published")
        if len(set(fields)) < len(fields):
            raise InputError(f"{file}: line 1: a column is there twice: no {what} as published")
    elif len(fields) != len(columns):
        raise InputError(
            f"{file}: line 1: has {len(fields)} columns and no header, {what} as published "
            f"{'has' if len(columns) == 1 else 'have'} {len(columns)}"
        )
    names = fields if has_header else list(columns)
    if has_header and b"\n" not in content:
        raise InputError(f"{file}: holds no rows, only a header")
    try:
        rows = pl.read_csv(
            content,
            has_header=False,
            skip_rows=int(has_header),
            schema=dict.fromkeys(names, pl.String),
            quote_char=None,
            raise_if_empty=False,
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _broken_line(file, content, len(names), error) from error
    text = rows.select(pl.col(name).str.strip_chars() for name in needed)
    sheet = Sheet(file, text, 1 + has_header)
    _refuse_short_lines(sheet, rows, content)
    return sheet


def verify(file: Path) -> bool:
    """Compare a file with the checksum published beside it; False where there is none.

    Raises InputError where they differ, or where the checksum is not one of this file.
    """
    beside = file.with_name(file.name + CHECKSUM)
    if not beside.is_file():
        return False
    try:
        words = beside.read_bytes()[:1000].decode("utf-8", "replace").split()
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(Path(error.filename or file), error) from error
    if len(words) != 2 or len(words[0]) != len(digest) or words[1].lstrip("*") != file.name:
        raise InputError(f"{beside}: is no checksum of {file.name}: {shown(' '.join(words))}")
    if words[0].lower() != digest:
        raise InputError(f"{file}: its SHA-256 is {digest}, {beside.name} says {words[0].lower()}")
    return True


def _content(file: Path) -> bytes:
    try:
        if file.suffix.lower() != ".zip":
            if file.stat().st_size > LARGEST_CSV_BYTES:
                raise InputError(f"{file}: is larger than {LARGEST_CSV_BYTES:,} bytes")
            return file.read_bytes()
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.infolist() if each.filename.lower().endswith(".csv")]
            if len(members) != 1:
                raise InputError(f"{file}: holds {len(members)} csv files, an archive as published holds one")
            if members[0].file_size > LARGEST_CSV_BYTES:
                raise InputError(f"{file}: unpacks to more than {LARGEST_CSV_BYTES:,} bytes")
            return archive.read(members[0])
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged zip may send its reader to before its beginning
            raise _unreadable(file, error) from error
        raise InputError(f"{file}: is a damaged zip") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{file}: is a damaged zip ({one_line(str(error) or type(error).__name__)})"
        ) from error


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"{file}: cannot be read ({(error.strerror or str(error)).lower()})")


def _text(file: Path, line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise InputError(f"{file}: line {number}: is not UTF-8 text") from None


def _broken_line(file: Path, content: bytes, columns: int, error: Exception) -> InputError:
    """The line that a reader gave up at, found the slow way."""
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            count = _text(file, line, number).count(",") + 1
        except InputError as problem:
            return problem
        if count != columns:
            return InputError(f"{file}: line {number}: has {count} columns, not {columns}")
    return InputError(f"{file}: is not csv ({one_line(str(error).strip())})")


def _refuse_short_lines(sheet: Sheet, rows: pl.DataFrame, content: bytes) -> None:
    """Raise for a line cut short: its last column is null, as an empty one would be."""
    suspects = rows[rows.columns[-1]].is_null().arg_true().to_list()
    if not suspects:
        return
    lines = content.split(b"\n")
    for row in suspects:
        number = sheet.first_line + row
        count = lines[number - 1].count(b",") + 1
        if count != rows.width:
            raise InputError(f"{sheet.file}: line {number}: has {count} columns, not {rows.width}")
