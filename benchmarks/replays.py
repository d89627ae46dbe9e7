"""Replay days that made margin calls, on published one-minute klines: what a venue would have gone through.

    python benchmarks/replays.py 2024-02-28 --klines FOLDER [--out DIR] [--accounts N] [--seed S]

For each day: takes in the files of its month from FOLDER (data.binance.vision's, any markets), runs the
simulated venue from the midnight before that day to the end of the day after it, and prints what fell and
what followed. DIR/DAY then holds `prices` and `dataset`, which every command reads; the latter with a picture
of its worst cascade. The accounts are made up: they say what such prices would have done to a venue like the
simulated one.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from exchange.errors import InputError, PerpriskError
from exchange.units import DAY_US, MINUTE_US, SECOND_US
from pipelines import ingest, simulate
from pipelines.binance_vision import files_under
from pipelines.store import Dataset
from pipelines.times import parse_time_us

DAYS = ("2023-08-17", "2024-02-28", "2024-04-12")
"""Days with a crash in the published klines of thin coins."""


class Move(NamedTuple):
    """What one market did in a replay; fractions, and dollars."""

    market: str
    fall_1h: float
    """Largest fall of the index from the highest of the hour before."""
    mark_fall_1h: float
    """The same of the mark: what forced orders added."""
    open_before_usd: float
    """Open interest when the hour began, at that time's mark."""
    open_change: float
    """Of open interest in units, from then to the lowest in the day that follows."""


class Outcome(NamedTuple):
    """What followed; both sides of a deleveraging count once."""

    accounts: int
    liquidated_accounts: int
    liquidated_usd: float
    negative_accounts: int
    shortfall_usd: float
    deleveraged_accounts: int
    deleveraged_usd: float
    deleveraged_after_s: float | None
    """First deleveraging after the first of the liquidations without a minute's break that led to it."""
    fund_start_usd: float
    fund_least_usd: float
    fund_end_usd: float


def replay_day(day: str, klines: Path, out: Path, accounts: int, seed: int) -> Path:
    """Write `prices` and `dataset` of a day into the folder `out`, and return the latter."""
    noon = date.fromisoformat(day)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        of_month(klines, noon, Path(folder))
        ingest.run("binance-vision", Path(folder), out / "prices", None)
    begin_us = parse_time_us(day, "DAY")
    simulate.run(
        out / "dataset", accounts, None, seed, prices=out / "prices",
        from_us=begin_us - DAY_US, to_us=begin_us + 2 * DAY_US,
    )  # fmt: skip
    return out / "dataset"


def of_month(klines: Path, day: date, folder: Path) -> None:
    """Links in `folder` to the files of the day's month; InputError where there are none."""
    month = re.compile(rf"-{day:%Y-%m}(-\d\d)?\.(zip|csv)$", re.IGNORECASE)
    found = [file for file in files_under(klines) if month.search(file.name)]
    if not found:
        raise InputError(f"{klines}: holds no klines of {day:%Y-%m}")
    for file in found:
        link = folder / file.relative_to(klines)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())


def moves(dataset: Dataset) -> list[Move]:
    """What each market did, the deepest fall first."""
    bars = dataset.read("market_bars").filter(pl.col("time").dt.epoch("us") >= dataset.meta.start_us)
    found = []
    for (market,), plain in bars.sort("time").group_by("market", maintain_order=True):
        fall = pl.col("index_close") / pl.col("index_close").rolling_max_by("time", "1h") - 1.0
        mark_fall = pl.col("mark_low") / pl.col("mark_close").rolling_max_by("time", "1h") - 1.0
        units = pl.col("open_interest_usd") / pl.col("mark_close")
        bar = plain.with_columns(fall=fall, mark_fall=mark_fall, units=units)
        low = bar.filter(pl.col("fall") == pl.col("fall").min()).row(0, named=True)
        around = bar.filter(
            pl.col("time").is_between(low["time"] - pl.duration(hours=1), low["time"] + pl.duration(days=1))
        )
        first = around.row(0, named=True)
        least = around["units"].min()
        found.append(
            Move(
                str(market),
                float(low["fall"]),
                float(bar["mark_fall"].min()),  # type: ignore[arg-type]
                float(first["open_interest_usd"]),
                float(least / first["units"] - 1.0) if first["units"] else 0.0,
            )
        )
    return sorted(found, key=lambda move: move.fall_1h)


def outcome(dataset: Dataset) -> Outcome:
    """What followed, over the whole replay."""
    events, fills = dataset.read("default_events").sort("time"), dataset.read("fills")
    fund = dataset.read("insurance_fund").sort("time")
    of = {
        kind: events.filter(pl.col("kind") == kind)
        for kind in ("liquidation", "negative_equity", "deleverage")
    }
    forced = fills.filter(pl.col("kind") == "liquidation")
    after = None
    if of["deleverage"].height:
        first_us = int(of["deleverage"]["time"].dt.epoch("us")[0])
        begun = of["liquidation"]["time"].dt.epoch("us").to_numpy()
        begun = np.append(begun[begun <= first_us], first_us)
        # back to the last minute in which nobody was liquidated
        apart = np.flatnonzero(np.diff(begun) > MINUTE_US)
        after = float(first_us - begun[apart[-1] + 1 if len(apart) else 0]) / SECOND_US
    balance = fund["balance_usd"]
    return Outcome(
        dataset.read("accounts").height,
        of["liquidation"]["account_id"].n_unique(),
        float((forced["quantity"].abs() * forced["price"]).sum()),
        of["negative_equity"]["account_id"].n_unique(),
        float(of["negative_equity"]["shortfall_usd"].sum()),
        of["deleverage"]["account_id"].n_unique(),
        float(of["deleverage"]["notional_usd"].sum()),
        after,
        float(balance[0]),
        float(balance.min()),  # type: ignore[arg-type]
        float(balance[-1]),
    )


def told(day: str, dataset: Dataset) -> str:
    """A page of text on a replay."""
    lines = [
        f"== {day}",
        f"{'market':12}{'fall in 1 h':>13}{'mark':>9}{'open interest':>16}{'its fall':>10}",
        *(
            f"{m.market:12}{m.fall_1h:>13.1%}{m.mark_fall_1h:>9.1%}{m.open_before_usd:>15,.0f}$"
            f"{m.open_change:>10.1%}"
            for m in moves(dataset)
        ),
    ]
    o = outcome(dataset)
    ratio = o.deleveraged_usd / o.liquidated_usd if o.liquidated_usd else 0.0
    delay = (
        "" if o.deleveraged_after_s is None else f", {o.deleveraged_after_s:.0f} s after liquidations began"
    )
    fund = (o.fund_start_usd, o.fund_least_usd, o.fund_end_usd)
    lines += [
        f"liquidated   ${o.liquidated_usd:,.0f} of {o.liquidated_accounts:,} accounts among {o.accounts:,}",
        f"below zero   {o.negative_accounts:,} accounts, by ${o.shortfall_usd:,.0f}",
        f"deleveraged  ${o.deleveraged_usd:,.0f} of {o.deleveraged_accounts:,} accounts "
        f"({ratio:.2f} of liquidated){delay}",
        "fund         ${:,.0f}, least ${:,.0f}, at the end ${:,.0f}".format(*fund),
    ]
    return "\n".join(lines)


def shown(folder: Path) -> list[Path]:
    """What a replay left that people look at first."""
    return [folder / "prices", folder / "dataset", *sorted((folder / "dataset").glob("*.png"))]


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("days", nargs="*", default=DAYS, metavar="DAY", help=f"default: {', '.join(DAYS)}")
    parser.add_argument("--klines", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--out", type=Path, default=Path("out/replays"))
    parser.add_argument("--accounts", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    try:
        for day in asked.days:
            folder = asked.out / day
            dataset = Dataset.open(replay_day(day, asked.klines, folder, asked.accounts, asked.seed))
            print(told(day, dataset), flush=True)
            print(f"in {folder}: {', '.join(str(file.relative_to(folder)) for file in shown(folder))}")
    except (PerpriskError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError | ValueError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
