"""The command `perprisk stress`: what it is asked, and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.options import Dataset, Model, path, within
from pipelines.output import check_folder
from pipelines.times import parse_time_us

LEAST_SCENARIOS, MOST_SCENARIOS = 100, 100_000
LARGEST_SEED = 2**53


def stress(
    dataset: Dataset,
    model: Model,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="The moment whose book is stressed.")],
    out: Annotated[Path, typer.Option(metavar="DIR", parser=path, help="Folder for stress.json and report.")],
    scenarios: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=within("--scenarios", int, LEAST_SCENARIOS, MOST_SCENARIOS),
            help="Days of chance, beside the scenarios that have names.",
        ),
    ] = 1_000,
    seed: Annotated[
        int,
        typer.Option(
            metavar="S", parser=within("--seed", int, 0, LARGEST_SEED), help="The same seed, the same days."
        ),
    ] = 7,
) -> int:
    """Put the book of a moment under stress.

    Replays, known crashes, shocks, failures and days of chance, with forced closing that moves prices: what
    the insurance fund may lose, to whom, who is deleveraged, and what margin would have prevented it. Writes
    stress.json, report.html and its pictures; docs/stress.md tells how to read them.

    \b
    Examples:
      perprisk stress data/venue --model model --at 2023-01-15T08:00:00Z --out stress
      perprisk stress data/venue --model model --at 2023-01-15 --scenarios 5000 --seed 1 --out stress
    """
    at_us = parse_time_us(at, "--at")
    check_folder(out)
    from pipelines import stress as stage

    return stage.run(dataset=dataset, model=model, at_us=at_us, out=out, scenarios=scenarios, seed=seed)
