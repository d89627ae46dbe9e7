"""The commands `perprisk audit ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exchange.errors import InputError
from pipelines.options import path
from pipelines.output import check_file
from pipelines.times import parse_time_us

audit = typer.Typer(
    rich_markup_mode=None, help="Read the audit log: what was answered, and whether it is still all there."
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", parser=path, help="Folder of the audit log.")]


@audit.command()
def verify(
    folder: Folder,
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Signed heads that were kept elsewhere."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Whose signature counts, in PEM."),
    ] = None,
    archived: Annotated[
        bool, typer.Option("--archived", help="The oldest files were taken away on purpose.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> int:
    """Tell whether an audit log is what was written.

    With a signed head that was kept elsewhere every edit, deletion, swap and truncation up to that head is
    found; without one, records that were cut off at the end cannot be missed. Exit code 1 where something
    is wrong.

    \b
    Examples:
      perprisk audit verify perprisk-audit
      perprisk audit verify perprisk-audit --head kept.jsonl --public-key signing.pub
    """
    from pipelines import audit as stage

    return stage.verify(
        folder=folder, head=head, public_key=public_key, archived=archived, json_output=json_output
    )


@audit.command()
def show(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Whose answers.")],
    folder: Annotated[
        Path, typer.Option("--audit", metavar="FOLDER", parser=path, help="Folder of the audit log.")
    ] = Path("perprisk-audit"),
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Answers as of this time and later.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Answers up to this time, included.")
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute each again from its record, with --model.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", parser=path, help="Folder with the model that answered."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> int:
    """Show what was answered about an account.

    With --recompute every answer is computed again from the rows in its record and compared byte by byte;
    exit code 1 where one differs.

    \b
    Examples:
      perprisk audit show account-00005 --audit perprisk-audit
      perprisk audit show account-00005 --from 2024-03-01T08:00:00Z --to 2024-03-01T09:00:00Z --json
      perprisk audit show account-00005 --recompute --model model
    """
    if recompute != (model is not None):
        raise InputError("--recompute and --model go together")
    from_us = None if start is None else parse_time_us(start, "--from")
    to_us = None if end is None else parse_time_us(end, "--to")
    from pipelines import audit as stage

    return stage.show(
        account=account, folder=folder, from_us=from_us, to_us=to_us, model=model, json_output=json_output
    )


@audit.command()
def head(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(metavar="FILE", parser=path, help="File for the heads.")] = None,
) -> int:
    """Print the newest signed head of every worker, to be kept elsewhere.

    \b
    Examples:
      perprisk audit head perprisk-audit
      perprisk audit head perprisk-audit --out kept.jsonl
    """
    if out is not None:
        check_file(out)
    from pipelines import audit as stage

    return stage.head(folder=folder, out=out)
