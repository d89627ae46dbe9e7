"""A dataset as a stream of event batches, in the order in which its rows apply.

Rows are read a window of time at a time, put in one total order that does not depend on the order of
rows in the files, and their names become ids in the order in which they first appear in the stream.
What comes after a moment can therefore change nothing about it, not even a number that stands for a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from features import events as ev
from features.depth import MAX_LEVELS
from features.events import EventBatch
from features.tables import DEFAULT_KINDS, FILL_KINDS, TABLES
from pipelines.rules import Rules, always, known_names, timeless
from pipelines.store import Dataset
from pipelines.windows import ROWS_PER_WINDOW, windows

EVENT_TABLES = (
    "markets",
    "asset_prices",
    "market_bars",
    "book_depth",
    "funding",
    "accounts",
    "transfers",
    "fills",
    "margin_rates",
    "account_snapshots",
    "position_snapshots",
    "balance_snapshots",
    "observations",
    "default_events",
)
"""Tables that make events, in the order in which rows of one time apply."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Names(Protocol):
    """Gives an id to a name: the next free one on first sight, the same one ever after."""

    def market(self, name: str, /) -> int:
        """Id of a market."""

    def asset(self, name: str, /) -> int:
        """Id of an asset."""

    def account(self, name: str, /) -> int:
        """Id of an account."""

    def owner(self, name: str, /) -> int:
        """Id of an owner."""


def event_batches(
    dataset: Dataset, until_us: int | None, names: Names, rows: int = ROWS_PER_WINDOW
) -> Iterator[EventBatch]:
    """Yield the events of a dataset up to and including `until_us` (None: all) in batches of about `rows`.

    No batch ends within a moment. Raises DatasetError for values that would bend results: numbers that
    are not finite, prices that are not positive, keys that are there twice, names that nothing has
    introduced by then, unsorted tiers, position rows without their snapshot.
    """
    rules = Rules(known_names(dataset, until_us), dataset.meta.end_us)
    spans = windows(dataset, EVENT_TABLES, until_us, rows)
    problems = [timeless(table, count) for table, count in spans.timeless.items()]
    problems += [*always(dataset, "assets"), *always(dataset, "accounts", until_us)]
    for number, (after_us, span_end_us) in enumerate(spans.spans):
        frames = {table: dataset.read(table, after_us, span_end_us) for table in EVENT_TABLES}
        problems += rules.window(frames)
        for problem in problems:
            if problem.blocking:
                raise problem.error(dataset)
        problems = []
        if number == 0:
            assert spans.first_us is not None
            frames["assets"] = _assets(dataset, spans.first_us)
        yield batch_of(frames, names)


def _assets(dataset: Dataset, first_us: int) -> pl.DataFrame:
    """Assets, which are known from the first moment; the quote currency is one, without a haircut."""
    assets = dataset.read("assets")
    quote = dataset.meta.quote_asset
    if dataset.has("balance_snapshots") and quote not in assets["asset"]:
        dollar = pl.DataFrame({"asset": [quote], "collateral_weight": [1.0], "liability_weight": [1.0]})
        assets = pl.concat([assets, dollar])
    return assets.with_columns(time=pl.lit(first_us).cast(pl.Datetime("us", "UTC")))


class _Codes:
    """Names of one window as whole numbers in the order of the alphabet, -1 for null."""

    def __init__(self, frames: Mapping[str, pl.DataFrame], *columns: str) -> None:
        found = [frame[column] for frame in frames.values() for column in columns if column in frame.columns]
        self.names = pl.concat([series.unique() for series in found]).drop_nulls().unique().sort()
        self._type = pl.Enum(self.names)

    def of(self, frame: pl.DataFrame, column: str) -> pl.Series:
        return frame[column].cast(self._type).to_physical().cast(pl.Int64).fill_null(-1).alias(column)


class _Rows(NamedTuple):
    """Rows of one kind in their own order, names still as codes.

    Rows of kinds of one `group` mix: at one time they go by `place`, the code of the row to which they
    belong, and then by the order in which the kinds are listed.
    """

    kind: int
    group: int
    time_us: Integers
    place: Integers | None
    key: tuple[str, Integers] | None
    sub: tuple[str, Integers] | None
    values: list[npt.NDArray[Any]]


def batch_of(frames: Mapping[str, pl.DataFrame], names: Names) -> EventBatch:
    """The events of tables of one window of time, in the order in which they apply.

    Rows are taken as they are: who reads them from elsewhere has checked them (`event_batches` does).
    """
    codes = {
        "market": _Codes(frames, "market"),
        "asset": _Codes(frames, "asset"),
        "account": _Codes(frames, "account_id"),
        "owner": _Codes(frames, "owner_id"),
    }
    coded = {
        name: frame.with_columns(
            codes[role].of(frame, column) for column, role in _ROLES.items() if column in frame.columns
        )
        for name, frame in frames.items()
        if not frame.is_empty()
    }
    rows = [block for name, frame in coded.items() for block in _ROWS[name](frame)]
    return _merge(rows, codes, names)


_ROLES = {"market": "market", "asset": "asset", "account_id": "account", "owner_id": "owner"}


def _merge(blocks: list[_Rows], codes: Mapping[str, _Codes], names: Names) -> EventBatch:
    """All rows in one order, with ids for codes."""
    sizes = [len(block.time_us) for block in blocks]
    total = sum(sizes)
    time_us = np.concatenate([block.time_us for block in blocks])
    group = np.repeat(np.array([block.group for block in blocks], np.uint8), sizes)
    place = np.concatenate(
        [
            np.zeros(size, np.int64) if block.place is None else block.place
            for block, size in zip(blocks, sizes, strict=True)
        ]
    )
    order = np.lexsort((place, group, time_us))  # stable: each block keeps its own order
    rank = np.empty(total, np.int64)
    rank[order] = np.arange(total)

    batch = EventBatch.empty(total)
    batch.time_us[:] = time_us[order]
    spans = list(zip(blocks, np.split(rank, np.cumsum(sizes)[:-1]), strict=True))
    ids = {role: _ids(role, spans, len(table.names), table.names, names) for role, table in codes.items()}
    for block, where in spans:
        batch.kind[where] = block.kind
        for number, column in enumerate(block.values):
            batch.values[where, number] = column
        for named, target in ((block.key, batch.key), (block.sub, batch.sub)):
            if named is not None:
                role, code = named
                target[where] = ids[role][code]
    return batch


def _ids(
    role: str, spans: list[tuple[_Rows, Integers]], count: int, table: pl.Series, names: Names
) -> npt.NDArray[np.int32]:
    """Ids by code, given in the order of first appearance; the last one, which code -1 finds, is -1."""
    first = np.full(count + 1, np.iinfo(np.int64).max)
    for block, where in spans:
        for named in (block.key, block.sub):
            if named is not None and named[0] == role:
                np.minimum.at(first, named[1], where)
    first = first[:count]
    intern = getattr(names, role)
    ids = np.full(count + 1, -1, np.int32)
    text = table.to_list()
    for code in np.argsort(first, kind="stable").tolist():
        ids[code] = intern(text[code])
    return ids


# -- one function a table: its rows in their own order


def _single(
    kind: int,
    frame: pl.DataFrame,
    order: list[str],
    key: tuple[str, str] | None,
    sub: tuple[str, str] | None,
    *values: str,
    group: int | None = None,
    place: str | None = None,
) -> _Rows:
    frame = frame.sort(["time", *order], nulls_last=False)
    return _Rows(
        kind,
        kind if group is None else group,
        _integers(frame, "time"),
        None if place is None else _integers(frame, place),
        None if key is None else (key[0], _integers(frame, key[1])),
        None if sub is None else (sub[0], _integers(frame, sub[1])),
        [frame[column].to_numpy() for column in values],
    )


def _integers(frame: pl.DataFrame, column: str) -> Integers:
    return frame[column].to_physical().cast(pl.Int64).to_numpy()


_MARKET = ("market", "market")
_ASSET = ("asset", "asset")
_ACCOUNT = ("account", "account_id")
_OWNER = ("owner", "owner_id")


def _markets(frame: pl.DataFrame) -> Iterator[_Rows]:
    terms = [column.name for column in TABLES["markets"].columns if column.type in ("float", "int")]
    yield _single(ev.MARKET, frame, ["market"], _MARKET, None, *terms, place="market")
    tiers = (
        frame.select("time", "market", "tiers")
        .with_columns(number=pl.int_ranges(pl.col("tiers").list.len(), dtype=pl.Int64))
        .explode("tiers", "number")
        .unnest("tiers")
        .with_columns(pl.col("notional_cap_usd").fill_null(np.inf))
    )
    values = ("notional_cap_usd", "initial_margin_rate", "maintenance_margin_rate", "number")
    yield _single(
        ev.TIER, tiers, ["market", "number"], _MARKET, None, *values, group=ev.MARKET, place="market"
    )


def _book(frame: pl.DataFrame) -> Iterator[_Rows]:
    crossed = pl.col("best_bid") > pl.col("best_ask")  # no depth is known then, nor a price
    best = [pl.when(~crossed).then(pl.col(name)).alias(name) for name in ("best_bid", "best_ask")]
    yield _single(
        ev.BOOK, frame.with_columns(best), ["market"], _MARKET, None, "best_bid", "best_ask", place="market"
    )
    lists = ("distance_bps", "bid_usd", "ask_usd")
    levels = (
        frame.filter(~crossed & (pl.col("distance_bps").list.len() > 0))
        .select("time", "market", *lists)
        .explode(*lists)
        .sort("time", "market", *lists)
        .with_columns(number=pl.int_range(pl.len()).over("time", "market"))
        .filter(pl.col("number") < MAX_LEVELS)
    )
    yield _single(
        ev.LEVEL, levels, ["market", "number"], _MARKET, None, *lists, "number", group=ev.BOOK, place="market"
    )


def _accounts(frame: pl.DataFrame) -> Iterator[_Rows]:
    opened = frame.with_columns(
        time=pl.col("opened_time"),
        opened=pl.col("opened_time").to_physical().cast(pl.Float64),
        isolated=(pl.col("margin_mode") == "isolated").cast(pl.Float64),
    )
    yield _single(ev.ACCOUNT, opened, ["account_id"], _ACCOUNT, _OWNER, "opened", "isolated")


def _fills(frame: pl.DataFrame) -> Iterator[_Rows]:
    numbered = frame.with_columns(pl.col("kind").cast(pl.Enum(FILL_KINDS)).to_physical())
    values = ("quantity", "price", "fee_usd", "kind")
    yield _single(
        ev.FILL, numbered, ["sequence", "account_id", "market", *values], _ACCOUNT, _MARKET, *values
    )


def _transfers(frame: pl.DataFrame) -> Iterator[_Rows]:
    yield _single(ev.TRANSFER, frame, ["sequence", "account_id", "amount_usd"], _ACCOUNT, None, "amount_usd")


def _defaults(frame: pl.DataFrame) -> Iterator[_Rows]:
    numbered = frame.with_columns(pl.col("kind").cast(pl.Enum(DEFAULT_KINDS)).to_physical())
    yield _single(ev.DEFAULT, numbered, ["account_id", "kind"], _ACCOUNT, None, "kind")


def _of_market(kind: int, *values: str) -> Any:
    return lambda frame: [_single(kind, frame, ["market"], _MARKET, None, *values)]


def _of_asset(kind: int, *values: str) -> Any:
    return lambda frame: [_single(kind, frame, ["asset"], _ASSET, None, *values)]


def _of_account(kind: int, sub: tuple[str, str] | None, *values: str) -> Any:
    order = ["account_id"] if sub is None else ["account_id", sub[1]]
    group = ev.SNAPSHOT if kind in (ev.SNAPSHOT, ev.POSITION, ev.BALANCE) else kind
    return lambda frame: [
        _single(kind, frame, order, _ACCOUNT, sub, *values, group=group, place="account_id")
    ]


_BARS = ("mark_close", "index_close", "mark_open", "mark_high", "mark_low", "volume_usd", "open_interest_usd")
_RATES = ("initial_margin_rate", "maintenance_margin_rate")
_FIGURES = ("equity_usd", "collateral_usd", "initial_margin_usd", "maintenance_margin_usd", "open_orders")
_POSITION = ("quantity", "entry_price", "quote_usd", "isolated_collateral_usd")

_ROWS: dict[str, Any] = {
    "markets": _markets,
    "assets": _of_asset(ev.ASSET, "collateral_weight", "liability_weight"),
    "asset_prices": _of_asset(ev.ASSET_PRICE, "price"),
    "market_bars": _of_market(ev.BAR, *_BARS),
    "book_depth": _book,
    "funding": _of_market(ev.FUNDING, "funding_rate"),
    "accounts": _accounts,
    "transfers": _transfers,
    "fills": _fills,
    "margin_rates": _of_account(ev.RATE, None, *_RATES),
    "account_snapshots": _of_account(ev.SNAPSHOT, None, *_FIGURES),
    "position_snapshots": _of_account(ev.POSITION, ("market", "market"), *_POSITION),
    "balance_snapshots": _of_account(ev.BALANCE, ("asset", "asset"), "amount"),
    "observations": lambda frame: [_single(ev.OBSERVED, frame, [], None, None)],
    "default_events": _defaults,
}
