"""The command `perprisk`: reads the request, hands it to the stage that does it, tells the outcome.

Every command lives in its own module and is imported when it is called, so that `--help` is quick.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from exchange.errors import InputError, PerpriskError
from pipelines import cli_backtest, cli_service, cli_stress
from pipelines.cli_audit import audit
from pipelines.cli_keys import keys
from pipelines.options import Dataset, From, Model, To
from pipelines.options import path as _path
from pipelines.options import within as _within
from pipelines.output import check_file, check_folder
from pipelines.times import parse_duration_us, parse_range_us, parse_time_us

DONE, FAILED, WRONG = 0, 1, 2
INTERRUPTED, READER_LEFT, TERMINATED = 130, 141, 143  # what a shell reports for these signals
LARGEST_SEED = 2**53
MOST_TRIALS = 1_000
SHORTEST_SIMULATION_DAYS, LONGEST_SIMULATION_DAYS = 0.01, 3_650

app = typer.Typer(
    name="perprisk",
    add_completion=False,
    rich_markup_mode=None,  # plain help: quick to load and easy to search
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


app.add_typer(audit, name="audit")
app.add_typer(keys, name="keys")


@app.callback(invoke_without_command=True)
def perprisk(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Who is likely to be liquidated, why, and what margin they should post.

    Times are ISO 8601 (2023-01-15 or 2023-01-15T08:00:00Z), UTC unless they say otherwise; a date is
    its midnight. Durations are a number with s, m, h or d (4h). The folder in which a result is to be
    written must exist.

    Exit codes: 0 done, 1 the work failed, 2 the request or its input was wrong.
    """
    if version:
        from importlib.metadata import version as version_of

        print(f"perprisk {version_of('perprisk')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise InputError("no command given (perprisk --help lists them)")


@app.command()
def demo(
    dataset: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", parser=_path, help="Use this dataset, not a generated one."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", parser=_path, help="Folder for the report and what led to it.")
    ] = Path("perprisk-demo"),
) -> int:
    """Do the main job end to end and write a report.

    From a dataset to features, models, scores, suggested margins and one HTML page.

    \b
    Examples:
      perprisk demo
      perprisk demo --dataset data/venue --out report
    """
    check_folder(out)
    from pipelines import demo as stage

    return stage.run(dataset=dataset, out=out)


@app.command()
def check(
    dataset: Dataset,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print every problem, as JSON; otherwise at most 20.")
    ] = False,
) -> int:
    """Tell whether a folder is a valid dataset.

    \b
    Examples:
      perprisk check data/venue
      perprisk check data/venue --json
    """
    from pipelines import check as stage

    return stage.run(dataset=dataset, json_output=json_output)


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=_path, help="Folder for the new dataset.")],
    accounts: Annotated[
        int, typer.Option(metavar="N", parser=_within("--accounts", int, 1, 1_000_000), help="Traders.")
    ] = 1_500,
    days: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            parser=_within("--days", float, SHORTEST_SIMULATION_DAYS, LONGEST_SIMULATION_DAYS),
            help="Days of trading, fractions allowed; 30 on generated prices, all on replayed ones.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="S",
            parser=_within("--seed", int, 0, LARGEST_SEED),
            help="The same seed, the same dataset.",
        ),
    ] = 7,
    prices: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", parser=_path, help="Replay the prices of this dataset."),
    ] = None,
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="Of generated prices: default, calm, crash, october-2025.")
    ] = "default",
    numbers: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a number of the venue; repeatable."),
    ] = None,
    shares: Annotated[
        list[str] | None,
        typer.Option("--mix", metavar="KIND=SHARE", help="Change a kind's share of traders; repeatable."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Replay prices from this time on.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Replay prices up to this time.")
    ] = None,
) -> int:
    """Write a dataset of a simulated venue, on generated or on replayed prices.

    \b
    Examples:
      perprisk simulate venue
      perprisk simulate venue --accounts 200 --days 7 --seed 1
      perprisk simulate venue --scenario october-2025 --days 2
      perprisk simulate venue --prices klines --from 2024-02-27 --to 2024-03-01
      perprisk simulate venue --set deleveraging=hyperliquid --set spillover=0.5 --mix whale=0.02

    The numbers of the venue and the kinds of traders are in docs/simulation.md.
    """
    check_folder(out)
    if prices is None and (start is not None or end is not None):
        raise InputError("--from and --to choose from the prices of --prices, which is not given")
    if prices is not None and scenario != "default":
        raise InputError("--scenario is of generated prices, and --prices replays others")
    from pipelines import simulate as stage

    from_us = None if start is None else parse_time_us(start, "--from")
    to_us = None if end is None else parse_time_us(end, "--to")
    return stage.run(
        out=out, accounts=accounts, days=days, seed=seed, prices=prices, scenario=scenario,
        from_us=from_us, to_us=to_us, settings=stage.chosen_settings(numbers or ()),
        mix=stage.chosen_mix(shares or ()),
    )  # fmt: skip


@app.command()
def ingest(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Whose files they are: binance-vision.")],
    src: Annotated[Path, typer.Argument(metavar="SRC", parser=_path, help="Folder with the files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=_path, help="Folder for the new dataset.")],
    terms: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", parser=_path, help="Contract terms to use in place of the assumed ones."
        ),
    ] = None,
) -> int:
    """Turn published market data into a dataset of prices.

    \b
    Examples:
      perprisk ingest binance-vision downloads prices
      perprisk ingest binance-vision downloads prices --terms terms.json
    """
    check_folder(out)
    from pipelines import ingest as stage

    return stage.run(adapter=adapter, src=src, out=out, terms=terms)


@app.command()
def train(
    datasets: Annotated[
        list[Path], typer.Argument(metavar="DATASET", parser=_path, help="Folders with datasets.")
    ],
    out: Annotated[Path, typer.Option(metavar="MODEL", parser=_path, help="Folder for the model.")],
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Use nothing that happened later, neither features nor labels."),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow store, such as sqlite:///mlflow.db.")
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            metavar="TRIALS",
            parser=_within("--tune", int, 0, MOST_TRIALS),
            help="Search for the trees' parameters, so many trials a head; 0 takes the fixed ones.",
        ),
    ] = 0,
) -> int:
    """Train the models and write them with all that scoring needs.

    What --tune finds is taken only where it ranks clearly better than the fixed parameters; the model
    records what was tried.

    \b
    Examples:
      perprisk train data/venue --out model
      perprisk train data/venue --out model --tune 30
      perprisk train data/venue --until 2022-12-15 --out model --tracking-uri sqlite:///mlflow.db
    """
    until_us = None if until is None else parse_time_us(until, "--until")
    check_folder(out)
    from pipelines import train as stage

    return stage.run(datasets=datasets, out=out, until_us=until_us, tracking_uri=tracking_uri, tune=tune)


@app.command()
def evaluate(
    dataset: Dataset,
    model: Model,
    start: From,
    end: To,
    out: Annotated[Path, typer.Option(metavar="DIR", parser=_path, help="Folder for the scorecard.")],
    every: Annotated[str, typer.Option(metavar="DURATION", help="Time between decision times.")] = "4h",
    margin: Annotated[
        bool, typer.Option("--margin", help="Also hold margin against the worst loss that came after it.")
    ] = False,
) -> int:
    """Compare predictions with what happened.

    Writes scorecard.json and pictures, for the model and for two simple baselines; with --margin also
    coverage.json, of value at risk and of accounts' margin over an hour and over a day.

    \b
    Examples:
      perprisk evaluate data/venue --model model --from 2022-12-15 --to 2023-01-15 --out evaluation
      perprisk evaluate data/venue --model model --from 2022-12-15 --to 2023-01-15 --margin --out coverage
    """
    from_us, to_us = parse_range_us(start, end, ("--from", "--to"))
    every_us = parse_duration_us(every, "--every")
    check_folder(out)
    from pipelines import evaluate as stage

    return stage.run(
        dataset=dataset, model=model, from_us=from_us, to_us=to_us, every_us=every_us, out=out, margin=margin
    )


@app.command()
def score(
    dataset: Dataset,
    model: Model,
    out: Annotated[Path, typer.Option(metavar="SCORES.parquet", parser=_path, help="File for the scores.")],
    at: Annotated[
        list[str] | None, typer.Option(metavar="TIME", help="A decision time; may be repeated.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="First decision time.")] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Last decision time, included.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Time between decision times.")
    ] = None,
) -> int:
    """Score every account with an open position.

    At the times given, or along a range from its first to its last time.

    \b
    Examples:
      perprisk score data/venue --model model --at 2023-01-15T08:00:00Z --out scores.parquet
      perprisk score data/venue --model model --from 2023-01-15 --to 2023-01-20 --every 4h --out s.parquet
    """
    times_us: list[int] | None = None
    from_us = to_us = every_us = None
    if at and (start or end or every):
        raise InputError("--at cannot be combined with --from, --to and --every")
    if at:
        times_us = [parse_time_us(time, "--at") for time in at]
    elif start is not None and end is not None and every is not None:
        from_us, to_us = parse_range_us(start, end, ("--from", "--to"))
        every_us = parse_duration_us(every, "--every")
    else:
        missing = [
            name for name, given in (("--from", start), ("--to", end), ("--every", every)) if given is None
        ]
        raise InputError(
            "no decision times: give --at, or --from, --to and --every"
            if len(missing) == 3
            else f"{' and '.join(missing)} missing: --from, --to and --every go together"
        )
    check_file(out)
    from pipelines import score as stage

    return stage.run(
        dataset=dataset,
        model=model,
        times_us=times_us,
        from_us=from_us,
        to_us=to_us,
        every_us=every_us,
        out=out,
    )


app.command()(cli_backtest.backtest)
app.command()(cli_stress.stress)
app.command()(cli_service.serve)
app.command()(cli_service.watch)
app.command()(cli_service.promote)


class Terminated(BaseException):
    """The process was asked to end; raised so that unfinished results are cleared away on the way out."""


def main() -> int:
    """Entry point of the command; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # under nohup it stays ignored
            signal.signal(number, _terminate)
    return run(sys.argv[1:])


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def run(arguments: Sequence[str]) -> int:
    """Carry out one request and return the exit code; whatever goes wrong is one line on stderr."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except BaseException as error:  # the outermost edge: nothing may leave as a traceback
        return _report(error)


def _invoke(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("perprisk", list(arguments)) as context:
            result = command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    return result if isinstance(result, int) else DONE


def _report(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return READER_LEFT
    if os.environ.get("PERPRISK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    text, code = _outcome(error)
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return code


def _outcome(error: BaseException) -> tuple[str, int]:
    """What to say of an exception, and the exit code."""
    match error:
        case PerpriskError():
            return str(error), WRONG if isinstance(error, InputError) else FAILED
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            where = context.command_path if context else "perprisk"
            return f"{error.format_message().rstrip('.')} (see {where} --help)", error.exit_code
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
        case Terminated():
            return "terminated", TERMINATED
        case MemoryError():
            return "out of memory", FAILED
        case OSError(strerror=str(), filename=str() | bytes()):
            return f"{os.fsdecode(error.filename)}: {error.strerror}", FAILED
        case _:
            return f"unexpected {type(error).__name__}: {error} (PERPRISK_DEBUG=1 shows where)", FAILED


def _nobody_reads() -> bool:
    """Whether stdout was closed at its other end; what is left to write then goes nowhere."""
    stdout = sys.stdout.fileno()
    poll = select.poll()
    poll.register(stdout, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True
