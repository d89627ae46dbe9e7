"""The commands `perprisk keys ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.options import path
from pipelines.times import parse_time_us

keys = typer.Typer(rich_markup_mode=None, help="Make, list and revoke the keys of the service's callers.")

File = Annotated[Path, typer.Argument(metavar="FILE", parser=path, help="File of keys.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key: letters, digits, . _ -")]


@keys.command()
def add(
    file: File,
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(metavar="SCOPE", help="events, score, read, metrics or admin; repeatable."),
    ],
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the key ends; never, if not given.")
    ] = None,
) -> int:
    """Make a key and print it, once.

    The file, which is made where there is none, keeps a digest only. A running service takes the key up
    within a second.

    \b
    Examples:
      perprisk keys add keys.json engine-1 --scope events --scope score --scope read
      perprisk keys add keys.json prometheus --scope metrics --expires 2030-01-01
    """
    expires_us = None if expires is None else parse_time_us(expires, "--expires")
    from pipelines import keys as stage

    return stage.add(file=file, name=name, scopes=scope, expires_us=expires_us)


@keys.command()
def revoke(file: File, name: Name) -> int:
    """End a key; a running service refuses it within a second.

    \b
    Examples:
      perprisk keys revoke keys.json engine-1
    """
    from pipelines import keys as stage

    return stage.revoke(file=file, name=name)


@keys.command(name="list")
def listed(file: File) -> int:
    """List the keys in a file, without anything that could be used as one.

    \b
    Examples:
      perprisk keys list keys.json
    """
    from pipelines import keys as stage

    return stage.show(file=file)
