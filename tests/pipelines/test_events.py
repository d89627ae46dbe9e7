"""The event stream against a row-by-row one, and against what must not matter to it."""

from __future__ import annotations

import shutil
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import events as ev
from features.events import EventBatch
from features.venue import Venue
from pipelines.events import event_batches
from pipelines.rules import checked
from pipelines.store import Dataset, DatasetError
from tests.pipelines import dataset_builder as build
from tests.pipelines.events_oracle import KINDS, Ids
from tests.pipelines.events_oracle import events as slow_events


def stream(path: Path, until_us: int | None = None, rows: int = 500_000) -> tuple[EventBatch, Ids, int]:
    """All batches as one, the ids that were given and the number of batches."""
    ids = Ids()
    batches = list(event_batches(Dataset.open(path), until_us, ids, rows))
    parts = [np.concatenate(column) for column in zip(*batches, strict=True)]
    return EventBatch(*parts) if batches else EventBatch.empty(0), ids, len(batches)


def assert_same(one: tuple[EventBatch, Ids, int], other: tuple[EventBatch, Ids, int]) -> None:
    for left, right in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(left, right)
    assert one[1].given == other[1].given


def test_kinds_are_numbered_as_the_oracle_numbers_them() -> None:
    assert [getattr(ev, name) for name in KINDS] == list(range(len(KINDS)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hours", [None, 7.0, 3.1, -1.5])
@pytest.mark.parametrize("rows", [500_000, 60])
def test_equals_a_stream_made_row_by_row(tmp_path: Path, seed: int, hours: float | None, rows: int) -> None:
    tables = build.random_tables(seed)
    build.write(tmp_path, tables)
    until_us = None if hours is None else build.us(build.at(hours))
    batch, ids, count = stream(tmp_path, until_us, rows)

    slow_ids = Ids()
    expected = slow_events(tables, until_us, slow_ids)
    assert len(batch.kind) == len(expected) > 0
    for number, (kind, time_us, key, sub, values) in enumerate(expected):
        assert (batch.kind[number], batch.time_us[number]) == (kind, time_us)
        assert (batch.key[number], batch.sub[number]) == (key, sub), KINDS[kind]
        np.testing.assert_array_equal(batch.values[number], values, err_msg=KINDS[kind])
    assert ids.given == slow_ids.given
    if hours is None:
        assert (count > 1) == (rows == 60)


@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_packing_of_files_do_not_matter(tmp_path: Path, seed: int) -> None:
    tables = build.random_tables(seed)
    plain = build.write(tmp_path / "plain", tables)
    shuffled = build.write(
        tmp_path / "shuffled",
        {name: rows.sample(fraction=1.0, shuffle=True, seed=99) for name, rows in tables.items()},
    )
    split = build.write(tmp_path / "split", tables)
    for name, rows in tables.items():
        (split / f"{name}.parquet").unlink()
        for number, part in enumerate([rows[::2], rows[1::2], rows[:0]]):
            folder = split / name / f"date=2024-03-0{number + 1}"
            folder.mkdir(parents=True)
            part.write_parquet(folder / "part.parquet")
    expected = stream(plain)
    assert len(expected[0].kind) > 100
    assert_same(stream(shuffled), expected)
    assert_same(stream(split), expected)


def test_other_types_that_cast_do_not_matter(tmp_path: Path) -> None:
    tables = build.tables()
    expected = stream(build.write(tmp_path / "plain", tables))
    other = {name: rows.with_columns(_other_types(rows)) for name, rows in tables.items()}
    assert other["fills"].schema["kind"] == pl.Categorical
    assert_same(stream(build.write(tmp_path / "other", other)), expected)


def _other_types(rows: pl.DataFrame) -> list[pl.Expr]:
    other: list[pl.Expr] = []
    for number, (name, type_) in enumerate(rows.schema.items()):
        column = pl.col(name)
        if rows[name].null_count() == rows.height:
            other.append(pl.lit(None).alias(name))
        elif type_ == pl.String:
            other.append(column.cast(pl.Categorical))
        elif isinstance(type_, pl.Datetime):
            zone = ("Europe/Berlin", "America/New_York")[number % 2]
            other.append(column.cast(pl.Datetime(("ms", "ns")[rows.height % 2], zone)))
        elif type_ == pl.Int64:
            other.append(column.cast(pl.Float64))
        elif type_ == pl.Float64 and rows.select((column == column.round()).all()).item():
            other.append(column.cast(pl.Int64))
        elif type_ == pl.List(pl.Float64):
            other.append(column.cast(pl.Array(pl.Int64, 2)))
        elif name == "tiers":
            fields = ("maintenance_margin_rate", "notional_cap_usd", "initial_margin_rate")
            turned = [pl.element().struct.field(field) for field in fields]
            other.append(column.list.eval(pl.struct(*turned, pl.lit("x").alias("note"))))
    return other


@pytest.mark.parametrize("hours", [11.9, 8.0, 6.0, 3.99, 0.0])
def test_what_comes_later_changes_nothing(tmp_path: Path, hours: float) -> None:
    for seed in range(2):
        whole = build.write(tmp_path / f"whole{seed}", build.random_tables(seed))
        then_us = build.us(build.at(hours))
        cut = build.truncate_after(whole, tmp_path / f"cut{seed}", then_us)
        assert_same(stream(cut), stream(whole, then_us))
        if hours < 11:
            assert len(stream(cut)[0].kind) < len(stream(whole)[0].kind)


def test_ids_follow_first_appearance_and_not_the_alphabet(tmp_path: Path) -> None:
    _, ids, _ = stream(build.write(tmp_path))
    assert ids.given["account"] == {"zoe": 0, "abe": 1, "mia": 2}
    assert ids.given["owner"] == {"olga": 0}
    assert ids.given["market"] == {"BTC-PERP": 0, "ETH-PERP": 1}


def test_sequence_orders_fills_of_one_moment(tmp_path: Path) -> None:
    build.write(tmp_path)
    moment = build.at(11)

    def two_fills(sequence: list[int | None]) -> pl.DataFrame:
        rows = [
            (moment, "zoe", "BTC-PERP", float(size), 110.0, 0.1, "trade", number)
            for size, number in zip((1, 2, 3), sequence, strict=True)
        ]
        schema = dict(build.tables()["fills"].schema) | {"sequence": pl.Int64()}
        return build.frame(schema, rows)

    for sequence, expected in [([9, 8, 7], [3, 2, 1]), ([7, 8, 9], [1, 2, 3]), ([None] * 3, [1, 2, 3])]:
        two_fills(sequence).write_parquet(tmp_path / "fills.parquet")
        batch, _, _ = stream(tmp_path)
        assert batch.values[batch.kind == ev.FILL, 0].tolist() == expected


def test_quote_currency_needs_no_row_in_assets(tmp_path: Path) -> None:
    build.write(tmp_path)
    (tmp_path / "assets.parquet").unlink()
    (tmp_path / "asset_prices.parquet").unlink()
    build.change(tmp_path, "balance_snapshots", lambda rows: rows.filter(pl.col("asset") == "USD"))
    batch, ids, _ = stream(tmp_path)
    assert ids.given["asset"] == {"USD": 0}
    assert batch.values[batch.kind == ev.ASSET, :2].tolist() == [[1.0, 1.0]]


def test_prices_alone_make_a_stream(tmp_path: Path) -> None:
    tables = build.tables()
    build.write(tmp_path, {name: tables[name] for name in ("markets", "market_bars")}, kind="markets")
    batch, _, _ = stream(tmp_path)
    assert set(batch.kind) == {ev.MARKET, ev.TIER, ev.BAR}


def test_nothing_before_the_first_row(tmp_path: Path) -> None:
    batch, ids, count = stream(build.write(tmp_path), build.us(build.at(-3)))
    assert (len(batch.kind), ids.given, count) == (0, {}, 0)


def test_prices_from_before_a_market_has_terms_are_history(tmp_path: Path) -> None:
    build.write(tmp_path)
    build.set_value(tmp_path, "market_bars", "time", build.at(-1.5))
    batch, _, _ = stream(tmp_path)
    assert batch.kind[batch.kind != ev.ASSET][1] == ev.BAR


WRONG_VALUES = [
    ("market_bars", "mark_close", float("nan"), "is not finite"),
    ("market_bars", "mark_close", -1.0, "is not positive"),
    ("market_bars", "index_close", 0.0, "is not positive"),
    ("market_bars", "mark_close", None, "is null"),
    ("market_bars", "market", None, "is null"),
    ("book_depth", "best_ask", float("inf"), "is not finite"),
    ("book_depth", "ask_usd", [1.0], "differ in length"),
    ("book_depth", "bid_usd", [1.0, None], "null, not finite or negative"),
    ("asset_prices", "price", 0.0, "is not positive"),
    ("asset_prices", "asset", "DOGE", "is not in assets"),
    ("fills", "market", "DOGE-PERP", "is not in markets"),
    ("fills", "account_id", "nobody", "is not in accounts"),
    ("fills", "account_id", "mia", "before it opened"),
    ("fills", "market", "ETH-PERP", "before its first row in markets"),
    ("fills", "kind", "gift", "is not trade or liquidation or deleverage"),
    ("position_snapshots", "account_id", "mia", "before it opened"),
    ("position_snapshots", "time", build.at(6.5), "has no row in account_snapshots"),
    ("balance_snapshots", "time", build.at(6.5), "has no row in account_snapshots"),
    ("account_snapshots", "equity_usd", float("-inf"), "is not finite"),
    ("accounts", "margin_mode", "portfolio", "is not cross or isolated"),
    ("accounts", "account_id", "abe", "is there twice"),
    ("accounts", "opened_time", None, "is null"),
    ("assets", "asset", "SOL", "is there twice"),
    ("assets", "liability_weight", float("nan"), "is not finite"),
    ("markets", "tiers", [build.tier(None, 0.1, 0.2)], "above initial"),
    ("markets", "tiers", [build.tier(9.0, 0.1, 0.05), build.tier(8.0, 0.1, 0.05)], "unsorted tiers"),
    ("markets", "tiers", [build.tier(float(n), 0.1, 0.05) for n in range(1, 40)], "32"),
    ("funding", "time", build.at(2), "is there twice"),
    ("transfers", "sequence", 2, "does not rise"),
    ("transfers", "time", build.at(99), "is after the end"),
]


@pytest.mark.parametrize(
    ("table", "column", "value", "message"), WRONG_VALUES, ids=[f"{w[0]}.{w[1]}-{w[3]}" for w in WRONG_VALUES]
)
def test_values_that_would_bend_results_stop_the_stream(
    tmp_path: Path, table: str, column: str, value: object, message: str
) -> None:
    build.set_value(build.write(tmp_path), table, column, value)
    with pytest.raises(DatasetError, match=f"{table}.parquet: .*{message}") as caught:
        stream(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_later_does_not_stop_the_stream_now(tmp_path: Path) -> None:
    build.set_value(build.write(tmp_path), "market_bars", "mark_close", -1.0, row=-1)
    stream(tmp_path, build.us(build.END) - 1)
    with pytest.raises(DatasetError):
        stream(tmp_path, build.us(build.END))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("kind", "bust", "column kind: is not liquidation"),
        ("account_id", "nobody", "column account_id: is not in accounts"),
        ("time", None, "column time: is null"),
        ("time", build.at(13), "column time: is after the end"),
        ("shortfall_usd", float("nan"), "column shortfall_usd: is not finite"),
    ],
)
def test_tables_that_make_no_events_are_checked_too(
    tmp_path: Path, column: str, value: object, message: str
) -> None:
    build.write(tmp_path)
    assert checked(Dataset.open(tmp_path), "default_events").height == 2
    build.set_value(tmp_path, "default_events", column, value)
    with pytest.raises(DatasetError, match=f"default_events.parquet: {message}"):
        checked(Dataset.open(tmp_path), "default_events")
    if value is not None:  # what is wrong later is not looked at now
        assert checked(Dataset.open(tmp_path), "default_events", build.us(build.at(7))).is_empty()


def test_a_name_given_again_later_does_not_stop_the_stream_now(tmp_path: Path) -> None:
    build.set_value(build.write(tmp_path), "accounts", "account_id", "zoe", row=2)  # mia's, from hour 7
    for table in ("transfers", "fills"):
        build.change(tmp_path, table, lambda rows: rows.filter(pl.col("account_id") != "mia"))
    stream(tmp_path, build.us(build.at(6.9)))
    with pytest.raises(DatasetError, match="is there twice"):
        stream(tmp_path, build.us(build.at(7)))


def test_the_last_moment_is_exact(tmp_path: Path) -> None:
    build.write(tmp_path)
    moment = build.at(5.25)
    build.set_value(tmp_path, "asset_prices", "time", moment)
    then_us = build.us(moment)
    for until_us, expected in [(then_us - 1, 0), (then_us, 1), (then_us + 1, 1)]:
        batch, _, _ = stream(tmp_path, until_us)
        assert np.count_nonzero(batch.time_us == then_us) == expected
        assert batch.time_us.max() <= until_us
    # rows of the same minute that come later are not there either
    build.set_value(tmp_path, "asset_prices", "time", moment + timedelta(seconds=2), row=1)
    assert stream(tmp_path, then_us)[0].time_us.max() == then_us


def test_moments_are_never_split(tmp_path: Path) -> None:
    build.write(tmp_path, build.random_tables(3))
    batches = list(event_batches(Dataset.open(tmp_path), None, Ids(), rows=1))
    assert len(batches) > 10
    for before, after in pairwise(batches):
        assert before.time_us[-1] < after.time_us[0]


@pytest.mark.real_data
def test_real_history_streams_whole_and_cut(tmp_path: Path, drift: Path) -> None:
    batch, ids, _ = stream(drift)
    assert (np.diff(batch.time_us) >= 0).all()
    rows = {kind: int(np.count_nonzero(batch.kind == kind)) for kind in range(len(KINDS))}
    assert rows[ev.SNAPSHOT] == 46_406
    assert rows[ev.POSITION] == 39_669
    assert len(ids.given["account"]) == 2_100
    # the state machine takes it as it comes
    venue = Venue()
    for part in event_batches(Dataset.open(drift), None, venue):
        assert venue.apply(part) == len(part.kind)

    then_us = build.us(
        build.datetime(2023, 2, 8, 8, 0, tzinfo=build.UTC)
    )  # funding of a market without terms
    cut = build.truncate_after(drift, tmp_path / "cut", then_us)
    assert_same(stream(cut), stream(drift, then_us, rows=20_000))
    shutil.rmtree(cut)


def test_times_of_every_unit_filter_alike(tmp_path: Path) -> None:
    build.write(tmp_path)
    expected = stream(tmp_path, build.us(build.at(5)))
    for unit in ("ms", "ns"):
        kind = pl.Datetime(unit, "Asia/Tokyo")
        build.change(
            tmp_path, "market_bars", lambda rows, kind=kind: rows.with_columns(pl.col("time").cast(kind))
        )
        assert_same(stream(tmp_path, build.us(build.at(5))), expected)
        one_less = build.us(build.at(5) - timedelta(microseconds=1))
        assert len(stream(tmp_path, one_less)[0].kind) < len(expected[0].kind)
