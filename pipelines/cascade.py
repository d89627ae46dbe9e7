"""What happened in a simulated dataset: figures of the run, and one picture of its worst cascade.

    write_summary(folder)     # summary.json and cascade.png beside dataset.json

The worst cascade is the ten minutes in which most notional was closed by force. Both files follow from the
tables alone: the same dataset gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.book import DEPTH_AT
from exchange.simulation import moments as mo
from exchange.simulation.record import Bars, Events, Fills, Holdings, Midnights, Record, shock_begin_us
from exchange.simulation.state import DELEVERAGE, EVENT_NAMES, FILL_NAMES, LIQUIDATED
from exchange.units import BPS, DAY_US, MINUTE_US, SECOND_US
from pipelines.cascade_picture import Scene, draw
from pipelines.store import Dataset
from pipelines.times import format_time

SUMMARY, PICTURE = "summary.json", "cascade.png"
WORST_US = 10 * MINUTE_US
BEFORE_US, AFTER_US = 5 * MINUTE_US, 30 * MINUTE_US
"""What the picture shows before and after the cascade begins."""
BIN_US = 10 * SECOND_US
NOT_TRADERS = r"^(p\d+-)?(maker-\d+|backstop)$"
NO_POSITION = 1e-9

Whole = npt.NDArray[np.int64]


class Run(NamedTuple):
    """A dataset with its record; `accounts` and `markets` are the names that its numbers stand for."""

    dataset: Dataset
    record: Record
    accounts: list[str]
    markets: list[str]


def write_summary(folder: Path) -> None:
    """Write `summary.json` and, where anybody was closed by force, `cascade.png` into a simulated dataset."""
    run = read_run(folder)
    (folder / SUMMARY).write_text(json.dumps(summary(run), indent=1) + "\n")
    if len(run.record.fills.time):
        (folder / PICTURE).write_bytes(picture(run))


def read_run(folder: Path) -> Run:
    """The record of a simulated dataset, of its forced fills only; raises DatasetError for a damaged one."""
    dataset = Dataset.open(folder, "accounts")
    accounts = _column(dataset, "accounts", "account_id").sort().to_list()
    markets = _column(dataset, "markets", "market").unique().sort().to_list()
    ids, names = pl.Enum(accounts), pl.Enum(markets)
    fills = _collect(
        dataset.scan("fills").filter(pl.col("kind") != FILL_NAMES[0]), ids, names,
        pl.col("quantity"), pl.col("price"), pl.col("kind").cast(pl.Enum(FILL_NAMES)).to_physical(),
    )  # fmt: skip
    events = _collect(
        dataset.scan("default_events"), ids, None,
        pl.col("notional_usd").fill_null(0.0), pl.col("shortfall_usd"),
        pl.col("kind").cast(pl.Enum(EVENT_NAMES)).to_physical(),
    )  # fmt: skip
    bars = _bars(dataset, names)
    trader = ~pl.Series(accounts).str.contains(NOT_TRADERS).to_numpy()
    record = Record(
        start_us=dataset.meta.start_us,
        end_us=dataset.meta.end_us,
        fills=Fills(
            _whole(fills, "time"), _whole(fills, "account"), _whole(fills, "market"),
            fills["quantity"].to_numpy(), fills["price"].to_numpy(), _whole(fills, "kind"),
        ),
        events=Events(
            _whole(events, "time"), _whole(events, "account"), _whole(events, "kind"),
            events["notional_usd"].to_numpy(), events["shortfall_usd"].to_numpy(),
        ),
        midnights=_midnights(dataset, ids, names, bars, trader),
        holdings=Holdings(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)),
        bars=bars,
        trader=trader,
        shock_us=shock_begin_us(bars),
    )  # fmt: skip
    return Run(dataset, record, accounts, markets)


def _column(dataset: Dataset, table: str, name: str) -> pl.Series:
    return dataset.scan(table).select(name).collect()[name]


def _collect(rows: pl.LazyFrame, ids: pl.Enum, names: pl.Enum | None, *more: pl.Expr) -> pl.DataFrame:
    """Rows in the order of time, accounts and markets by number."""
    chosen = [pl.col("time").dt.epoch("us"), pl.col("account_id").cast(ids).to_physical().alias("account")]
    if names is not None:
        chosen.append(pl.col("market").cast(names).to_physical())
    return rows.select(*chosen, *more).sort("time", maintain_order=True).collect()


def _whole(frame: pl.DataFrame, name: str) -> Whole:
    return frame[name].cast(pl.Int64).to_numpy()


def _bars(dataset: Dataset, names: pl.Enum) -> Bars:
    """Bars by minute and market; books are known every few minutes only, NaN between."""
    start = dataset.meta.start_us
    rows = dataset.scan("market_bars", start - 1).collect()
    time = np.unique(rows["time"].dt.epoch("us").to_numpy())
    shape = (len(time), len(names.categories))

    def spread_out(frame: pl.DataFrame, column: str) -> npt.NDArray[np.float64]:
        out = np.full(shape, np.nan)
        row = np.searchsorted(time, frame["time"].dt.epoch("us").to_numpy())
        out[row, frame["market"].cast(names).to_physical().to_numpy()] = frame[column].to_numpy()
        return out

    within = pl.col("distance_bps").list.eval(pl.element() == DEPTH_AT / BPS).list.arg_max()
    books = (
        dataset.scan("book_depth", start - 1)
        .filter(pl.col("time").dt.epoch("us").is_in(time.tolist()))
        .with_columns(
            depth=pl.col("bid_usd").list.get(within),
            spread=2.0
            * (pl.col("best_ask") - pl.col("best_bid"))
            / (pl.col("best_ask") + pl.col("best_bid")),
        )
        .collect()
    )
    return Bars(
        time=time,
        close=spread_out(rows, "mark_close"),
        low=spread_out(rows, "mark_low"),
        oracle=spread_out(rows, "index_close"),
        open_interest=spread_out(rows, "open_interest_usd"),
        spread=spread_out(books, "spread"),
        depth=spread_out(books, "depth"),
    )


def _midnights(
    dataset: Dataset, ids: pl.Enum, names: pl.Enum, bars: Bars, trader: npt.NDArray[np.bool_]
) -> Midnights:
    """Traders with positions at each midnight."""
    midnight = pl.col("time").dt.epoch("us") % DAY_US == 0
    held = _collect(dataset.scan("position_snapshots").filter(midnight), ids, names, pl.col("quantity"))
    row = np.minimum(np.searchsorted(bars.time, held["time"].to_numpy()), len(bars.time) - 1)
    notional = np.abs(held["quantity"].to_numpy() * bars.close[row, held["market"].to_numpy()])
    gross = held.with_columns(gross=notional).group_by("time", "account").agg(pl.col("gross").sum())
    shots = _collect(
        dataset.scan("account_snapshots").filter(midnight), ids, None,
        pl.col("equity_usd"), pl.col("collateral_usd"), pl.col("maintenance_margin_usd"),
    )  # fmt: skip
    shots = shots.join(gross, on=["time", "account"], how="inner", maintain_order="left")
    shots = shots.filter(pl.Series(trader[shots["account"].to_numpy()]) & (shots["gross"] > 0.0))
    return Midnights(
        _whole(shots, "time"), _whole(shots, "account"), shots["equity_usd"].to_numpy(),
        shots["collateral_usd"].to_numpy(), shots["maintenance_margin_usd"].to_numpy(),
        shots["gross"].to_numpy(),
    )  # fmt: skip


# ---- figures


def summary(run: Run) -> dict[str, Any]:
    """Counts and dollars by kind, the fund, the worst cascade, and moments; None stands for not known."""
    record = run.record
    events, fills = record.events, record.fills
    fund = run.dataset.read("insurance_fund").sort("time", maintain_order=True)
    low = fund["balance_usd"].arg_min()
    begin = worst_us(record)
    size = np.abs(fills.quantity) * fills.price
    forced = np.isin(fills.kind, (1, 2))
    counts: dict[str, Any] = {}
    for kind, name in enumerate(EVENT_NAMES):
        of = events.kind == kind
        counts[name] = {
            "events": int(of.sum()),
            "accounts": len(np.unique(events.account[of])),
            "shortfall_usd": _plain(float(events.shortfall[of].sum())),
        }
    for kind in (1, 2):
        counts[EVENT_NAMES[0 if kind == 1 else 2]]["closed_usd"] = _plain(
            float(size[fills.kind == kind].sum())
        )
    return {
        "accounts": int(record.trader.sum()),
        "days": _plain((record.end_us - record.start_us) / DAY_US),
        "counts": counts,
        "insurance_fund": {
            "first_usd": _plain(fund["balance_usd"][0] if fund.height else math.nan),
            "low_usd": _plain(fund["balance_usd"][low] if low is not None else math.nan),
            "low_time": format_time(int(fund["time"].dt.epoch("us")[low])) if low is not None else None,
            "last_usd": _plain(fund["balance_usd"][-1] if fund.height else math.nan),
        },
        "worst_cascade": _cascade(record, begin, size, forced) if begin >= 0 else None,
        "moments": {name: _plain(measure(record)) for name, measure in MEASURES.items()},
    }


def worst_us(record: Record) -> int:
    """When the ten minutes with most forced notional begin, whole minutes; -1 where nothing was forced."""
    orders = mo.forced_orders(record)
    if not len(orders.second):
        return -1
    minute = orders.second * SECOND_US // MINUTE_US
    first = int(minute.min())
    by_minute = np.bincount(minute - first, orders.usd)
    running = np.concatenate([[0.0], np.cumsum(by_minute)])
    width = WORST_US // MINUTE_US
    sums = running[np.minimum(np.arange(len(by_minute)) + width, len(by_minute))] - running[:-1]
    begin = int(np.argmax(sums))
    begin += int(np.flatnonzero(by_minute[begin:] > 0.0)[0])
    return (first + begin) * MINUTE_US


def _cascade(
    record: Record, begin: int, size: npt.NDArray[np.float64], forced: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    fills, events = record.fills, record.events
    now = (fills.time >= begin) & (fills.time < begin + WORST_US)
    recent = (events.time >= begin) & (events.time < begin + WORST_US)
    deleveraged = events.time[recent & (events.kind == EVENT_NAMES.index("deleverage"))]
    first = events.time[recent & (events.kind == LIQUIDATED)]
    delay = (deleveraged.min() - first.min()) / SECOND_US if len(deleveraged) and len(first) else math.nan
    return {
        "time": format_time(begin),
        "minutes": WORST_US // MINUTE_US,
        "liquidated_usd": _plain(float(size[now & forced & (fills.kind != DELEVERAGE)].sum())),
        "deleveraged_usd": _plain(float(size[now & (fills.kind == DELEVERAGE)].sum())),
        "accounts": {
            name: len(np.unique(events.account[recent & (events.kind == kind)]))
            for kind, name in enumerate(EVENT_NAMES)
        },
        "first_deleveraging_s": _plain(float(delay)),
    }


def _orders_near(record: Record, share: float) -> float:
    return mo.order_size_quantile(mo.forced_orders(record), share)


def _forced_days(record: Record, share: float) -> float:
    days = mo.forced_share_by_day(record)
    return float(np.quantile(days, share)) if np.isfinite(days).all() else math.nan


MEASURES: dict[str, Callable[[Record], float]] = {
    **{f"leverage_{q:g}": partial(mo.leverage_quantile, share=q) for q in (0.5, 0.75, 0.9, 0.99)},
    **{f"equity_{q:g}_usd": partial(mo.equity_quantile, share=q) for q in (0.1, 0.5, 0.9, 0.99)},
    "wealth_tail_index": mo.wealth_tail_index,
    **{
        f"liquidated_within_a_day_at_{low:g}": partial(mo.liquidated_within_a_day, low=low, high=high)
        for low, high in ((1.0, 1.25), (1.5, 2.0), (3.0, 5.0))
    },
    "liquidated_within_a_day": partial(mo.liquidated_within_a_day, low=0.0, high=math.inf),
    "forced_over_open_interest_median_day": partial(_forced_days, share=0.5),
    "forced_over_open_interest_worst_day": partial(_forced_days, share=1.0),
    **{f"forced_order_{q:g}_usd": partial(_orders_near, share=q) for q in (0.5, 0.95, 0.99)},
}
"""Moments in the summary; `benchmarks/simulation_moments.py` prints more of them beside the facts."""


def _plain(value: float) -> float | None:
    """A number of JSON, to nine digits."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


# ---- picture


def picture(run: Run) -> bytes:
    """The worst cascade as a PNG; needs a run in which somebody was closed by force."""
    return draw(scene(run))


def scene(run: Run) -> Scene:
    """All that the picture shows, by minute, by ten seconds and by event."""
    record = run.record
    begin = worst_us(record)
    first = max(begin - BEFORE_US, record.start_us)
    last = min(begin + AFTER_US, record.end_us)
    bars = record.bars
    shown = (bars.time >= first) & (bars.time <= last)
    at = int(np.flatnonzero(shown)[0])
    live = np.isfinite(bars.close[shown]).all(axis=0) & np.isfinite(bars.open_interest[at])
    fall = np.where(
        live, np.nanmin(np.where(shown[:, None], bars.low, np.nan), axis=0) / bars.close[at], np.inf
    )
    worst = int(np.argmin(fall))
    leading = int(np.argmax(np.where(live, bars.open_interest[at], -1.0)))
    known = shown & np.isfinite(bars.depth[:, live]).all(axis=1)
    usual = np.isfinite(bars.depth[:, live]).all(axis=1) & (bars.time >= begin - mo.BEFORE_US)
    usual &= bars.time <= begin
    depth = bars.depth[:, live].sum(axis=1)
    fills, events = record.fills, record.events
    bins = np.arange(first, last + BIN_US, BIN_US)
    size = np.abs(fills.quantity) * fills.price
    dealt = [
        np.histogram(fills.time[of], bins, weights=size[of])[0] for of in (fills.kind == 1, fills.kind == 2)
    ]
    fund = run.dataset.read("insurance_fund", until_us=last).sort("time", maintain_order=True)
    fund_time = fund["time"].dt.epoch("us").to_numpy()
    before = max(int(np.searchsorted(fund_time, first, "right")) - 1, 0)
    open_time, open_count = _open_accounts(run, first, last)
    return Scene(
        first_us=first,
        last_us=last,
        minute_us=bars.time[shown],
        marks=bars.close[shown][:, [leading, worst]],
        lows=bars.low[shown][:, [leading, worst]],
        names=(run.markets[leading], run.markets[worst]),
        depth_us=bars.time[known],
        depth_share=depth[known] / float(np.median(depth[usual])) if usual.any() else depth[known] * np.nan,
        bin_us=bins[:-1],
        liquidated_usd=dealt[0],
        deleveraged_usd=dealt[1],
        fund_us=fund_time[before:],
        fund_usd=fund["balance_usd"].to_numpy()[before:],
        event_us=tuple(_first_times(events, kind, first, last) for kind in range(len(EVENT_NAMES))),
        open_us=open_time,
        open_accounts=open_count,
    )


def _first_times(events: Events, kind: int, first: int, last: int) -> Whole:
    """When each account first had an event of a kind between two times, in order."""
    of = (events.kind == kind) & (events.time >= first) & (events.time <= last)
    _, place = np.unique(events.account[of], return_index=True)
    return np.sort(events.time[of][place])


def _open_accounts(run: Run, first: int, last: int) -> tuple[Whole, Whole]:
    """How many traders hold a position, at the end of each ten seconds between two times."""
    midnights = run.record.midnights.time
    began = int(midnights[midnights <= first].max(initial=run.record.start_us))
    ids = pl.Enum(run.accounts)
    at_begin = pl.col("time").dt.epoch("us") == began
    held = (
        run.dataset.scan("position_snapshots")
        .filter(at_begin)
        .select("time", "account_id", "market", "quantity")
    )
    dealt = run.dataset.scan("fills", began, last).select("time", "account_id", "market", "quantity")
    moved = (
        pl.concat([held, dealt])
        .filter(~pl.col("account_id").str.contains(NOT_TRADERS))
        .with_columns(
            time=pl.col("time").dt.epoch("us"), account=pl.col("account_id").cast(ids).to_physical()
        )
        .sort("time", maintain_order=True)
        .with_columns(size=pl.col("quantity").cum_sum().over("account", "market"))
        .with_columns(
            now=(pl.col("size").abs() > NO_POSITION).cast(pl.Int64),
            before=((pl.col("size") - pl.col("quantity")).abs() > NO_POSITION).cast(pl.Int64),
        )
        .with_columns(markets=(pl.col("now") - pl.col("before")).cum_sum().over("account"))
        .with_columns(
            change=(pl.col("markets") > 0).cast(pl.Int64)
            - (pl.col("markets") - pl.col("now") + pl.col("before") > 0).cast(pl.Int64)
        )
        .select("time", "change")
        .collect()
    )
    ends = np.arange(first, last + 1, BIN_US)
    count = np.cumsum(moved["change"].to_numpy())
    place = np.searchsorted(moved["time"].to_numpy(), ends, "right") - 1
    return ends, np.where(place >= 0, count[np.maximum(place, 0)], 0)
