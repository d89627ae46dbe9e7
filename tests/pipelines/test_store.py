"""Opening, reading and writing datasets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exchange.errors import InputError, WorkError
from features.tables import TABLES
from pipelines.meta import Meta
from pipelines.schema import TYPES
from pipelines.store import Dataset, DatasetError, write_dataset
from tests.pipelines import dataset_builder as build


def test_every_table_comes_in_the_types_of_the_format(tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path), "accounts")
    for name, rows in build.tables().items():
        read = dataset.read(name)
        assert dict(read.schema) == {column.name: TYPES[column.type] for column in TABLES[name].columns}
        assert read.height == rows.height
        for column in rows.columns:
            assert read[column].to_list() == rows[column].to_list()
        for column in set(read.columns) - set(rows.columns):
            assert read[column].null_count() == read.height


def test_tables_that_are_absent_are_empty_and_typed(tmp_path: Path) -> None:
    build.write(tmp_path)
    (tmp_path / "funding.parquet").unlink()
    dataset = Dataset.open(tmp_path)
    assert not dataset.has("funding")
    assert dataset.has("fills")
    assert dataset.read("funding").schema == {
        "time": TYPES["time"],
        "market": pl.String,
        "funding_rate": pl.Float64,
    }
    assert dataset.scan("funding").collect().is_empty()


def test_meta_says_what_the_file_says(tmp_path: Path) -> None:
    meta = Dataset.open(build.write(tmp_path, snapshot_based=True, gaps=["a/b"])).meta
    assert (meta.venue, meta.kind, meta.quote_asset, meta.seed) == ("handmade", "accounts", "USD", 1)
    assert (meta.start_us, meta.end_us) == (build.us(build.START), build.us(build.END))
    assert meta.more == {"snapshot_based": True}
    assert Meta.from_json(json.loads(json.dumps(meta.to_json())), "x") == meta


@pytest.mark.parametrize(
    "text", ["2024-03-01T12:00:00Z", "2024-03-01 13:00:00+01:00", "2024-03-01T12:00:00", "2024-03-01 12:00"]
)
def test_end_is_utc_unless_it_says_otherwise(tmp_path: Path, text: str) -> None:
    assert Dataset.open(build.write(tmp_path, end=text)).meta.end_us == build.us(build.END)


def test_a_dataset_of_accounts_has_prices_but_not_the_reverse(tmp_path: Path) -> None:
    accounts = build.write(tmp_path / "accounts")
    tables = {name: build.tables()[name] for name in ("markets", "market_bars")}
    markets = build.write(tmp_path / "markets", tables, kind="markets")
    Dataset.open(accounts, "markets")
    Dataset.open(markets, "markets")
    with pytest.raises(
        DatasetError, match=r"dataset\.json: kind is 'markets', a dataset of kind 'accounts' is needed"
    ):
        Dataset.open(markets, "accounts")


def test_a_table_with_its_time_bounds_has_the_rows_between(tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path))
    after, until = build.at(2), build.at(5)
    bars = build.tables()["market_bars"]
    expected = bars.filter((pl.col("time") > after) & (pl.col("time") <= until))
    read = dataset.read("market_bars", build.us(after), build.us(until))
    assert read["mark_close"].to_list() == expected["mark_close"].to_list() != []
    assert dataset.read("assets", 0, 1).height == 2  # no time: always known


def hour_values(type_: Any) -> pa.Array:
    return pa.array([build.START, build.END]).cast(pa.timestamp("us", "UTC")).cast(type_)


WHOLE = pa.array([5, 7])
DECIMAL = WHOLE.cast(pa.decimal128(21, 2))
FITS = {
    "float": [WHOLE, WHOLE.cast("uint8"), WHOLE.cast("float32"), WHOLE.cast("int64"), DECIMAL],
    "int": [WHOLE.cast("int16"), WHOLE.cast("uint64"), WHOLE.cast("float64"), DECIMAL],
    "string": [
        pa.array(["5", "7"]).cast("large_string"),
        pa.array(["5", "7"]).dictionary_encode(),
        pa.array(["5", "7"]).cast(pa.string_view()),
        WHOLE,
    ],
    "time": [hour_values(pa.timestamp("ms", "Asia/Tokyo")), hour_values(pa.timestamp("ns", "+02:00"))],
    "floats": [
        pa.array([[5], [7]], pa.large_list(pa.int32())),
        pa.array([[5], [7]], pa.list_(pa.float32(), 1)),
    ],
}
FIT = {
    "float": [5.0, 7.0],
    "int": [5, 7],
    "string": ["5", "7"],
    "time": [build.START, build.END],
    "floats": [[5.0], [7.0]],
}
PLACE = {
    "float": ("funding", "funding_rate"),
    "int": ("transfers", "sequence"),
    "string": ("insurance_fund", "reason"),
    "time": ("observations", "time"),
    "floats": ("book_depth", "bid_usd"),
}


def with_column(path: Path, type_: str, values: pa.Array) -> tuple[str, str]:
    """A dataset where one column of that logical type holds these two values."""
    table, column = PLACE[type_]
    build.write(path)
    arrow = build.tables()[table].head(2).to_arrow()
    names = arrow.column_names
    position = names.index(column)
    pq.write_table(arrow.set_column(position, column, values), path / f"{table}.parquet")
    return table, column


@pytest.mark.parametrize("type_", FITS)
@pytest.mark.parametrize("number", range(5))
def test_types_that_cast_without_loss(tmp_path: Path, type_: str, number: int) -> None:
    choices = [*FITS[type_], pa.nulls(2)]
    values = choices[number % len(choices)]
    table, column = with_column(tmp_path, type_, values)
    read = Dataset.open(tmp_path).read(table)[column]
    assert read.dtype == TYPES[type_]  # type: ignore[index]
    assert read.to_list() == ([None, None] if values.null_count else FIT[type_])


LOSSES = [
    ("float", pa.array([2**53 + 1, 1]), "9007199254740993"),
    ("float", pa.array(["1.5", "2"]), "does not cast to float64"),
    ("float", pa.array([True, False]), "does not cast to float64"),
    ("float", pa.array([1, 2]).cast(pa.timestamp("us", "UTC")), "does not cast to float64"),
    ("int", pa.array([1.5, 2.0]), "value 1.5"),
    ("int", pa.array([float("nan"), 2.0]), "NaN"),
    ("int", pa.array([2**63, 1], pa.uint64()), "9223372036854775808"),
    ("string", pa.array([1.5, 2.5]), "does not cast to string"),
    ("string", pa.array([b"a", b"b"]), "does not cast to string"),
    ("time", pa.array([1, 2]).cast(pa.timestamp("us")), "have no zone"),
    ("time", pa.array([1001, 2000]).cast(pa.timestamp("ns", "UTC")), "without loss"),
    ("time", pa.array([2**62, 2000]).cast(pa.timestamp("ms", "UTC")), "without loss"),
    ("time", pa.array([1, 2]), "does not cast to timestamp"),
    ("time", pa.array(["2024-03-01", "2024-03-01"]), "does not cast to timestamp"),
    ("time", pa.array([1, 2], pa.date32()), "does not cast to timestamp"),
    ("floats", pa.array([1.0, 2.0]), "does not cast to list of float64"),
    ("floats", pa.array([["1"], ["2"]]), "does not cast to list of float64"),
    ("floats", pa.array([[2**53 + 1], [2]]), "9007199254740993"),
]


@pytest.mark.parametrize(
    ("type_", "values", "message"), LOSSES, ids=[f"{t}-{v.type}-{m}" for t, v, m in LOSSES]
)
def test_types_and_values_that_would_lose_something(
    tmp_path: Path, type_: str, values: pa.Array, message: str
) -> None:
    table, column = with_column(tmp_path, type_, values)
    with pytest.raises(DatasetError, match=f"{table}.parquet: column {column}: .*{message}"):
        Dataset.open(tmp_path).scan(table)


def test_tiers_may_leave_out_the_cap_and_hold_more(tmp_path: Path) -> None:
    build.write(tmp_path)
    tiers = pa.array([[{"maintenance_margin_rate": 1, "initial_margin_rate": 2.0, "x": "y"}], []])
    table = build.tables()["markets"].head(2).to_arrow()
    pq.write_table(
        table.set_column(table.column_names.index("tiers"), "tiers", tiers), tmp_path / "markets.parquet"
    )
    assert Dataset.open(tmp_path).read("markets")["tiers"].to_list() == [[build.tier(None, 2.0, 1.0)], []]


def test_parts_of_different_schemas_make_one_table(tmp_path: Path) -> None:
    rows = build.tables()["market_bars"]
    build.write(tmp_path)
    (tmp_path / "market_bars.parquet").unlink()
    folder = tmp_path / "market_bars" / "market=nonsense"
    folder.mkdir(parents=True)
    rows[:10].drop("index_close").write_parquet(folder / "a.parquet")
    rows[10:].select(reversed(rows.columns)).with_columns(note=pl.lit("x")).write_parquet(
        folder / "b.parquet"
    )
    (folder / "_SUCCESS").touch()
    read = Dataset.open(tmp_path).read("market_bars").sort("time", "market")
    assert read["mark_close"].to_list() == rows.sort("time", "market")["mark_close"].to_list()
    assert set(read["market"]) == {"BTC-PERP", "ETH-PERP"}


def test_a_name_is_taken_as_it_is(tmp_path: Path) -> None:
    odd = tmp_path / "[a]*=b?"
    assert Dataset.open(build.write(odd)).read("fills").height == 5


def test_digest_changes_with_any_byte_and_with_nothing_else(tmp_path: Path) -> None:
    one, two = build.write(tmp_path / "one"), build.write(tmp_path / "two")
    first = Dataset.open(one).digest()
    assert first == Dataset.open(two).digest()
    (two / "README.md").write_text("not a table")
    assert first == Dataset.open(two).digest()
    build.set_value(two, "insurance_fund", "balance_usd", 1.0)
    changed = Dataset.open(two).digest()
    build.write_meta(two, source="elsewhere")
    assert len({first, changed, Dataset.open(two).digest()}) == 3


def written(path: Path, **changed: Any) -> dict[str, Any]:
    meta = Meta.from_json(build.META, "x")
    write_dataset(path, meta, {**build.tables(), **changed})
    dataset = Dataset.open(path)
    assert dataset.meta == meta
    return {name: dataset.read(name) for name in TABLES}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    source = build.write(tmp_path / "source", build.random_tables(5))
    expected = Dataset.open(source)
    tables = {name: expected.read(name) for name in expected.tables}
    target = tmp_path / "target"
    write_dataset(target, expected.meta, tables)
    for name, table in TABLES.items():
        rows = expected.read(name)
        ordered = rows.sort(table.time, maintain_order=True) if table.time else rows
        assert Dataset.open(target).read(name).equals(ordered, null_equal=True)
    again = tmp_path / "again"
    write_dataset(again, expected.meta, tables)
    assert Dataset.open(again).digest() == Dataset.open(target).digest()


def test_frames_lazy_frames_and_streams_of_frames_are_written_alike(tmp_path: Path) -> None:
    bars = build.tables()["market_bars"].sort("time")
    plain = written(tmp_path / "plain")
    lazy = written(tmp_path / "lazy", market_bars=bars.lazy())
    parts = written(tmp_path / "parts", market_bars=iter([bars[:5], bars[5:]]), fills=iter([]))
    assert (tmp_path / "parts" / "market_bars" / "part-00001.parquet").exists()
    assert plain["market_bars"].equals(lazy["market_bars"])
    assert plain["market_bars"].equals(parts["market_bars"])
    assert parts["fills"].is_empty()


def test_writing_replaces_a_dataset_but_no_other_folder(tmp_path: Path) -> None:
    written(tmp_path / "out")
    tables = build.tables()
    del tables["insurance_fund"]
    meta = Meta.from_json(build.META, "x")
    write_dataset(tmp_path / "out", replace(meta, end_us=meta.end_us + 1), tables)
    assert not Dataset.open(tmp_path / "out").has("insurance_fund")
    assert Dataset.open(tmp_path / "out").meta.end_us == meta.end_us + 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(InputError, match="mine"):
        write_dataset(tmp_path / "mine", meta, tables)
    with pytest.raises(InputError, match="nowhere"):
        write_dataset(tmp_path / "nowhere" / "out", meta, tables)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"market_bars": pl.DataFrame({"time": [build.START]})}, "market_bars: column market is missing"),
        (
            {"funding": build.tables()["funding"].cast({"funding_rate": pl.String})},
            "funding_rate: type String",
        ),
        ({"bars": pl.DataFrame()}, "no table bars"),
    ],
)
def test_tables_that_make_no_dataset_leave_nothing_behind(
    tmp_path: Path, changed: dict[str, pl.DataFrame], message: str
) -> None:
    with pytest.raises(WorkError, match=message):
        write_dataset(tmp_path / "out", Meta.from_json(build.META, "x"), {**build.tables(), **changed})
    with pytest.raises(WorkError, match="table markets is missing"):
        write_dataset(tmp_path / "out", Meta.from_json(build.META, "x"), {})
    assert list(tmp_path.iterdir()) == []


def test_rows_at_the_edge_of_calendars_are_read(tmp_path: Path) -> None:
    build.write(tmp_path)
    build.set_value(tmp_path, "observations", "time", build.datetime(9999, 12, 31, tzinfo=build.UTC))
    dataset = Dataset.open(tmp_path)
    assert dataset.read("observations", 0, None).height == 2
    assert dataset.read("observations", 0, build.us(build.END)).height == 1
    assert dataset.read("observations", until_us=build.us(build.at(6) - timedelta(seconds=1))).is_empty()


@pytest.mark.real_data
def test_real_history_opens(drift: Path) -> None:
    dataset = Dataset.open(drift, "accounts")
    assert dataset.meta.venue == "drift-v2"
    assert dataset.read("account_snapshots").height == 46_406
    assert dataset.read("market_bars")["volume_usd"].null_count() == 6_402
