"""Commands that run the service, and those that talk to one that runs."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from exchange.errors import InputError
from pipelines.options import Model, path, within

KEY = "PERPRISK_KEY"
"""Environment variable with the key of a caller, which others then cannot read in the list of processes."""


def serve(
    model: Model,
    dataset: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", parser=path, help="Begin with the state that this dataset ends in."),
    ] = None,
    clock: Annotated[
        str | None,
        typer.Option(
            metavar="event|wall",
            help="What time it is: the newest event's or this machine's. Event with --dataset, else wall.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="H", help="Address to listen on, of this machine only.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="P", parser=within("--port", int, 0, 65_535), help="Port; 0 takes a free one."),
    ] = 8_700,
    alert: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEVEL=PROBABILITY",
            help="Change from where watch (24 h), warning (8 h) or critical (1 h) is raised; repeatable.",
        ),
    ] = None,
) -> int:
    """Answer a margin engine over HTTP.

    \b
    Examples:
      perprisk serve --model model
      perprisk serve --model model --dataset data/venue --port 9000
      perprisk serve --model model --alert critical=0.1
    """
    if clock is None:
        clock = "wall" if dataset is None else "event"
    if clock not in ("event", "wall"):
        raise InputError(f"--clock: {clock!r} is neither event nor wall")
    if not _is_loopback(host):
        raise InputError(f"--host: {host!r} is not a loopback address; refusing to start there without keys")
    from pipelines import serve as stage

    return stage.run(
        model=model, dataset=dataset, clock=clock, host=host, port=port, alerts=tuple(alert or ())
    )


def watch(
    url: Annotated[
        str, typer.Option(metavar="URL", help="Where the service answers.")
    ] = "http://127.0.0.1:8700",
    socket: Annotated[
        Path | None, typer.Option(metavar="PATH", parser=path, help="Its Unix socket, in place of a URL.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help=f"Key of the caller; {KEY} in the environment else.")
    ] = None,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="Show from this level on: watch, warning or critical.")
    ] = "watch",
    once: Annotated[bool, typer.Option("--once", help="Show what stands now, and leave.")] = False,
) -> int:
    """Show which accounts are near liquidation, as it changes.

    The worst first: who, how likely, how soon, how much, and what would help. Where the output is no
    terminal, a line for every alert that is raised, lowered or cleared. Ctrl-C leaves.

    \b
    Examples:
      perprisk watch
      perprisk watch --url http://127.0.0.1:9000 --level warning
      perprisk watch --socket perprisk.sock --once
    """
    from pipelines import watch as stage

    return stage.run(url=url, socket=socket, key=key or os.environ.get(KEY), level=level, once=once)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
