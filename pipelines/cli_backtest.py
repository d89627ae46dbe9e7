"""The command that tries margin policies in closed loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.options import Model, path, within


def backtest(
    model: Model,
    prices: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATASET", parser=path, help="Replay every path of these prices too; may be repeated."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only these, beside static and account-risk; may be repeated."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", parser=within("--seeds", int, 1, 10_000), help="Generated worlds.")
    ] = 60,
    calibration: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=within("--calibration", int, 0, 1_000),
            help="Further worlds in which policies are brought to one average margin; 0: as they are.",
        ),
    ] = 12,
    frontier: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=within("--frontier", int, 0, 10_000),
            help="Worlds in which static and account-risk are run at other strengths; 0: none.",
        ),
    ] = 30,
    without: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=within("--without", int, 0, 10_000),
            help="Worlds that are run without price impact, and without trader reaction, too; 0: none.",
        ),
    ] = 12,
    accounts: Annotated[
        int, typer.Option(metavar="N", parser=within("--accounts", int, 50, 100_000), help="Traders a world.")
    ] = 3_000,
    days: Annotated[
        float,
        typer.Option(metavar="D", parser=within("--days", float, 0.25, 365.0), help="Length of a world."),
    ] = 20.0,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=within("--jobs", int, 1, 256),
            help="Processes; as many as processors if not given.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", parser=path, help="Folder for the result; a run cut off goes on here."),
    ] = Path("backtest"),
) -> int:
    """Try margin policies against each other in the simulated venue.

    All are brought to the average margin of account-risk, which runs as it is. Writes
    backtest.json and pictures: changes against static, frontiers of margin and of refused demand, and what
    assumptions are worth.

    \b
    Examples:
      perprisk backtest --model model --seeds 6 --calibration 3 --accounts 1000 --days 5 --out backtest
      perprisk backtest --model model --prices crashes --policy static-1.5 --policy null
    """
    from pipelines import backtest as stage

    return stage.run(
        model=model,
        prices=prices or (),
        out=out,
        policies=policy or (),
        seeds=seeds,
        calibration=calibration,
        accounts=accounts,
        days=days,
        frontier_worlds=frontier,
        without_worlds=without,
        jobs=jobs,
    )
