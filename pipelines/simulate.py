"""`perprisk simulate`: write the dataset of a simulated venue, on generated or on replayed prices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from exchange import deleveraging
from exchange.errors import InputError
from exchange.simulation.generated import DOLLAR, SCENARIOS, STABLECOIN, Habits, generated_paths
from exchange.simulation.listings import ASSETS, Asset, Listing, listings
from exchange.simulation.paths import MINUTES_A_DAY
from exchange.simulation.population import MIX
from exchange.simulation.population import Habits as TraderKind
from exchange.simulation.settings import Settings
from exchange.simulation.state import BACKSTOP, KIND_NAMES, MAKER
from exchange.simulation.tables import (
    Coded,
    account_names,
    accounts_table,
    first_seen,
    fixed_tables,
    stretch_tables,
)
from exchange.simulation.venue import Venue
from exchange.units import DAY_US, MINUTE_US
from features.tables import TABLES
from pipelines.cascade import write_summary
from pipelines.damage import shown
from pipelines.meta import META, Meta
from pipelines.output import check_folder
from pipelines.prices import ReplayedPath, load_paths
from pipelines.progress import progress
from pipelines.schema import TYPES, UTC_US
from pipelines.store import Dataset
from pipelines.times import format_time
from pipelines.writer import DatasetWriter, dataset_writer

VENUE = "simulated venue"
GENERATED = "perprisk simulate, on generated prices"
REPLAYED = "perprisk simulate, on the prices of "

START_US = 20_089 * DAY_US
"""2025-01-01 00:00 UTC."""
HISTORY_MINUTES = 10 * MINUTES_A_DAY
MOST_DAYS = 3_650.0
REPLAY_HISTORY_MINUTES = MINUTES_A_DAY
REPLAY_DEPTH_SHARE, REPLAY_HALF_SPREAD_BPS = 0.008, 1.5
"""Of a replayed market: calm depth within 1% over open interest, and half the spread."""


RANKINGS = {
    "bitmex": deleveraging.BITMEX,
    "hyperliquid": deleveraging.HYPERLIQUID,
    "binance": deleveraging.BINANCE,
    "random": deleveraging.RANDOM,
    "pro-rata": deleveraging.PRO_RATA,
}
DELEVERAGING_PRICES = {
    "bankruptcy": deleveraging.AT_BANKRUPTCY,
    "mark": deleveraging.AT_MARK,
    "previous-oracle": deleveraging.AT_PREVIOUS_ORACLE,
}
WORDS = {"deleveraging": RANKINGS, "deleveraging_price": DELEVERAGING_PRICES}
"""Settings that are chosen by word."""


class Plan(NamedTuple):
    """One stretch of prices that a venue is run on."""

    venue: Venue
    prefix: str
    """Of its account ids, where a dataset holds several venues."""


def run(
    out: Path,
    accounts: int,
    days: float | None,
    seed: int,
    prices: Path | None = None,
    scenario: str = "default",
    from_us: int | None = None,
    to_us: int | None = None,
    settings: Settings | None = None,
    mix: dict[int, TraderKind] | None = None,
) -> int:
    """Write `days` days of `accounts` traders into the folder `out`; the same arguments give the same bytes.

    With `prices` the venue replays every path of that dataset between two times, whole or `days` of it.
    Raises InputError where `out` cannot become a dataset or there is nothing to simulate.
    """
    check_folder(out, META)
    if accounts < 1:
        raise InputError(f"accounts must be at least 1, not {accounts}")
    if days is not None and not 1.0 / MINUTES_A_DAY <= days <= MOST_DAYS:
        raise InputError(f"days must be from 0.0007 (one minute) to {MOST_DAYS:g}, not {days:g}")
    if scenario not in SCENARIOS:
        raise InputError(f"scenario must be one of {', '.join(SCENARIOS)}, not {scenario!r}")
    settings = settings or Settings()
    source = GENERATED if prices is None else REPLAYED + prices.name
    if prices is None:
        plans = iter(
            [
                Plan(
                    generated_venue(accounts, 30.0 if days is None else days, seed, scenario, settings, mix),
                    "",
                )
            ]
        )
        paths = 1
    else:
        found = _replays(prices, from_us, to_us, days, seed)
        paths = len(found)
        plans = _replayed_venues(found, accounts, seed, settings, mix or MIX, from_us)
    with dataset_writer(out) as writer:
        first_us = last_us = 0
        gaps: list[dict[str, str]] = []
        for plan in plans:
            if last_us:
                gaps.append({"from": format_time(last_us), "to": format_time(plan.venue.paths.start_us)})
            write_run(writer, plan)
            first_us = first_us or plan.venue.start_us
            last_us = plan.venue.end_us
        meta = Meta(VENUE, "accounts", first_us, last_us, gaps=tuple(gaps), source=source, seed=seed)
        writer.close(meta)
        write_summary(writer.folder)
    return 0 if paths else 1


def chosen_settings(pairs: Iterable[str]) -> Settings:
    """Settings with numbers changed as `NAME=VALUE` says; InputError for a name or value that is none."""
    changed: dict[str, float | int] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in Settings._fields:
            raise InputError(f"--set: there is no number {shown(name)} of the venue (docs/simulation.md)")
        if name in WORDS:
            if text not in WORDS[name]:
                raise InputError(f"--set {name}: must be one of {', '.join(WORDS[name])}, not {shown(text)}")
            changed[name] = WORDS[name][text]
            continue
        changed[name] = _number(f"--set {name}", text)
    return Settings()._replace(**changed)  # type: ignore[arg-type]


def chosen_mix(pairs: Iterable[str]) -> dict[int, TraderKind]:
    """Kinds of traders with shares changed as `KIND=SHARE` says; InputError for one that is none."""
    mix = dict(MIX)
    for pair in pairs:
        name, _, text = pair.partition("=")
        kinds = {KIND_NAMES[kind]: kind for kind in mix if kind not in (MAKER, BACKSTOP)}
        if name not in kinds:
            raise InputError(f"--mix: a kind of trader is one of {', '.join(kinds)}, not {shown(name)}")
        mix[kinds[name]] = mix[kinds[name]]._replace(share=_number(f"--mix {name}", text))
    return mix


def _number(what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value < float("inf"):
        raise InputError(f"{what}: must be a number of at least 0, not {shown(text)}")
    return value


def generated_venue(
    accounts: int,
    days: float,
    seed: int,
    scenario: str = "default",
    settings: Settings | None = None,
    mix: dict[int, TraderKind] | None = None,
) -> Venue:
    """A venue on prices of its own, that starts ten days after they do."""
    minutes = max(round(days * MINUTES_A_DAY), 1)
    listed = listings()
    names = [listing.market.market for listing in listed]
    priced = [
        names.index(asset.market) if asset.market else (DOLLAR if number == 0 else STABLECOIN)
        for number, asset in enumerate(ASSETS)
    ]
    habits = Habits(
        np.array([listing.start_price for listing in listed]),
        np.array([listing.beta for listing in listed]),
        np.array([listing.own_volatility for listing in listed]),
        np.array(priced, np.int64),
    )
    paths = generated_paths(
        habits,
        HISTORY_MINUTES + minutes + 1,
        START_US - HISTORY_MINUTES * MINUTE_US,
        np.random.default_rng([seed, 0]),
        SCENARIOS[scenario],
        HISTORY_MINUTES,
    )
    return Venue(
        listed, paths, accounts, seed, HISTORY_MINUTES, settings=settings or Settings(), mix=mix or MIX
    )


def _replays(
    prices: Path, from_us: int | None, to_us: int | None, days: float | None, seed: int
) -> list[ReplayedPath]:
    dataset = Dataset.open(prices, "markets")
    if days is not None and from_us is None:
        from_us = dataset.meta.start_us
    if days is not None and from_us is not None:
        to_us = from_us + round(days * MINUTES_A_DAY) * MINUTE_US
    if from_us is not None:
        # traders settle in before what was asked for
        from_us -= REPLAY_HISTORY_MINUTES * MINUTE_US
    names = [asset.name for asset in ASSETS if asset.market is None]
    found = load_paths(dataset, from_us, to_us, np.random.default_rng([seed, 0]), names)
    if not found:
        raise InputError(f"{prices}: holds no path of prices of an hour or more in that time")
    return found


def replayed_venue(
    prices: Path, path: int, accounts: int, days: float | None, seed: int, settings: Settings | None = None
) -> Venue:
    """A venue on one path of a dataset of prices, by its number; whole, or its first `days`."""
    found = _replays(prices, None, None, None, seed)
    if days is not None:
        paths = found[path].paths
        minutes = min(round(days * MINUTES_A_DAY) + REPLAY_HISTORY_MINUTES, len(paths.opening))
        found[path] = found[path]._replace(paths=paths.until(minutes))
    return _replayed(found[path], accounts, seed, settings or Settings(), MIX, None)


def count_paths(prices: Path) -> int:
    """How many paths a dataset of prices holds."""
    return len(_replays(prices, None, None, None, 0))


def _replayed_venues(
    found: list[ReplayedPath],
    accounts: int,
    seed: int,
    settings: Settings,
    mix: dict[int, TraderKind],
    from_us: int | None,
) -> Iterator[Plan]:
    for number, replay in enumerate(found):
        venue = _replayed(replay, accounts, seed + number, settings, mix, from_us)
        yield Plan(venue, f"p{number + 1}-" if len(found) > 1 else "")


def _replayed(
    replay: ReplayedPath,
    accounts: int,
    seed: int,
    settings: Settings,
    mix: dict[int, TraderKind],
    from_us: int | None,
) -> Venue:
    assets: tuple[Asset, ...] = tuple(asset for asset in ASSETS if asset.market is None)
    volume = np.nan_to_num(replay.volume_day_usd, nan=1.0)
    popularity = np.sqrt(np.maximum(volume, 1.0) / max(volume.max(), 1.0))
    listed = [
        Listing(
            market, float(replay.paths.opening[0, m]), 1.0, 0.0, REPLAY_DEPTH_SHARE,
            REPLAY_HALF_SPREAD_BPS, float(popularity[m]),
        )
        for m, market in enumerate(replay.markets)
    ]  # fmt: skip
    minutes = len(replay.paths.opening)
    # traders settle in before what was asked for, else in the first part of the path
    history = min(REPLAY_HISTORY_MINUTES, minutes // 5)
    if from_us is not None and 60 <= (from_us - replay.paths.start_us) // MINUTE_US < minutes - 1:
        history = (from_us - replay.paths.start_us) // MINUTE_US
    return Venue(
        listed, replay.paths, accounts, seed, history,
        settings=settings._replace(permanent_share=0.0), assets=assets, mix=mix, warm_up_minutes=history,
    )  # fmt: skip


def write_run(writer: DatasetWriter, plan: Plan) -> None:
    """Run a venue to its end and append all that it leaves behind."""
    venue = plan.venue
    names = account_names(venue, plan.prefix)
    for name, columns in fixed_tables(venue).items():
        if name != "assets" or plan.prefix in ("", "p1-"):
            writer.append(name, frame(name, columns))
    writer.append("insurance_fund", frame("insurance_fund", {"time": np.zeros(0, np.int64)}))
    first_us = np.zeros(len(names), np.int64)
    started = False
    with progress(venue.minutes, "simulating") as bar:
        done = 0
        for rows in venue.run():
            bar.advance(venue.minute - done)
            done = venue.minute
            first_seen(rows, first_us)
            if venue.minute > venue.history_minutes and not started:
                started = True
                writer.append("insurance_fund", frame("insurance_fund", _fund_at_start(venue)))
            for name, columns in stretch_tables(venue, rows, names).items():
                writer.append(name, frame(name, columns))
    writer.append("accounts", frame("accounts", accounts_table(venue, names, first_us)))


def _fund_at_start(venue: Venue) -> dict[str, Any]:
    return {
        "time": np.array([venue.start_us]),
        "balance_usd": np.array([venue.fund_at_start_usd]),
        "change_usd": np.zeros(1),
        "reason": np.array(["start"]),
    }


def frame(name: str, columns: dict[str, Any]) -> pl.DataFrame:
    """Columns in the types of the format; what is not known is null, as a NaN would be no number."""
    series = []
    for column, values in columns.items():
        kind = TABLES[name].column(column).type
        if kind == "time":
            series.append(pl.Series(column, values, pl.Int64).cast(UTC_US))
        elif kind == "float":
            series.append(pl.Series(column, values, pl.Float64).fill_nan(None))
        elif isinstance(values, Coded):
            series.append(pl.Series(column, values.name, pl.String).gather(values.code.astype(np.int64)))
        elif isinstance(values, np.ndarray) and values.ndim == 2:
            series.append(pl.Series(column, values).arr.to_list())
        else:
            series.append(pl.Series(column, values, TYPES[kind], strict=False))
    return pl.DataFrame(series)
