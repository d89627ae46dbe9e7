"""Commands that run the service, and those that talk to one that runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from exchange.errors import InputError
from pipelines.addresses import checked
from pipelines.options import Model, Options, path, within

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
        str,
        typer.Option(metavar="H", help="Address; without --keys one of this machine itself."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="P", parser=within("--port", int, 0, 65_535), help="Port; 0 takes a free one."),
    ] = 8_700,
    socket: Annotated[
        Path | None,
        typer.Option(metavar="PATH", parser=path, help="Answer on this Unix socket too, in MessagePack."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Callers need a key of this file (perprisk keys)."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(metavar="N", parser=within("--workers", int, 1, 64), help="Processes that answer."),
    ] = 1,
    audit: Annotated[
        str,
        typer.Option(
            metavar="strict|group|off",
            help="Record every answer: on the disk before it is given, within 50 ms, or not at all.",
        ),
    ] = "group",
    trust: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Take only models signed with this public key."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--tls-certificate", metavar="FILE", parser=path, help="Answer over TLS: the chain."),
    ] = None,
    certificate_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", parser=path, help="Its private key.")
    ] = None,
    alert: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEVEL=PROBABILITY",
            help="Change from where watch (24 h), warning (8 h) or critical (1 h) is raised; repeatable.",
        ),
    ] = None,
) -> int:
    """Answer a margin engine over HTTP, and on a Unix socket.

    \b
    Examples:
      perprisk serve --model model
      perprisk serve --model model --dataset data/venue --port 9000
      perprisk serve --model model --workers 2 --socket run/perprisk.sock
      perprisk serve --model model --host 0.0.0.0 --keys keys.json --audit strict
      perprisk serve --model model --alert critical=0.1
    """
    if clock is None:
        clock = "wall" if dataset is None else "event"
    if clock not in ("event", "wall"):
        raise InputError(f"--clock: {clock!r} is neither event nor wall")
    if audit not in ("strict", "group", "off"):
        raise InputError(f"--audit: {audit!r} is none of strict, group, off")
    if (certificate is None) != (certificate_key is None):
        raise InputError("--tls-certificate and --tls-key are of use only together")
    certificates = None
    if certificate is not None and certificate_key is not None:
        certificates = (str(certificate), str(certificate_key))
    checked(host, keys is not None)
    from pipelines import serve as stage

    return stage.run(
        options=Options(
            model=model,
            dataset=dataset,
            clock=clock,
            host=host,
            port=port,
            socket=socket,
            keys=keys,
            workers=workers,
            audit=audit,
            certificates=certificates,
            alerts=tuple(alert or ()),
            trust=trust,
        )
    )


def promote(
    model: Annotated[Path, typer.Argument(metavar="MODEL", parser=path, help="Folder with a model.")],
    to: Annotated[
        Path, typer.Option(metavar="FOLDER", parser=path, help="Folder that services serve from.")
    ] = Path("champion"),
    key: Annotated[
        Path | None,
        typer.Option("--sign", metavar="FILE", parser=path, help="Sign it with this Ed25519 key, in PEM."),
    ] = None,
) -> int:
    """Put a model where services take it over from, while they answer.

    \b
    Examples:
      perprisk promote out/model
      perprisk promote out/model --to served --sign desk.pem
    """
    from pipelines import promote as stage

    return stage.run(model=model, to=to, key=key)


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
