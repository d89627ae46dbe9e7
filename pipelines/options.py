"""Arguments that several commands share, and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from exchange.errors import InputError


def path(text: str) -> Path:
    """A path, which must not be empty."""
    if not text:
        raise InputError("an empty path was given")  # Path("") would silently mean the current folder
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


Dataset = Annotated[Path, typer.Argument(metavar="DATASET", parser=path, help="Folder with a dataset.")]
Model = Annotated[Path, typer.Option("--model", metavar="MODEL", parser=path, help="Folder with a model.")]
From = Annotated[str, typer.Option("--from", metavar="TIME", help="First decision time.")]
To = Annotated[str, typer.Option("--to", metavar="TIME", help="Last decision time, included.")]


class Options(NamedTuple):
    """What `perprisk serve` was asked for."""

    model: Path
    dataset: Path | None = None
    clock: str = "event"
    host: str = "127.0.0.1"
    port: int = 8_700
    socket: Path | None = None
    keys: Path | None = None
    workers: int = 1
    audit: str = "group"
    certificates: tuple[str, str] | None = None
    alerts: tuple[str, ...] = ()
    trust: Path | None = None
