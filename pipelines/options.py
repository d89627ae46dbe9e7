"""Arguments and options that several commands share, and what reads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from exchange.errors import InputError


def parse_path(text: str) -> Path:
    """A path; an empty one is refused, since it would silently mean the current folder."""
    if not text:
        raise InputError("an empty path was given")
    return Path(text)


def within(option: str, convert: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers from `low` to `high` whose error names the option and the value."""

    def parse(text: str) -> float:
        try:
            number = convert(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            kind = "a whole number" if convert is int else "a number"
            raise InputError(f"{option}: {text!r} is not {kind} from {low} to {high}")
        return number

    return parse


Model = Annotated[
    Path, typer.Option("--model", metavar="MODEL", parser=parse_path, help="Folder with a model.")
]
