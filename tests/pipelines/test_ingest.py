"""Published archives become a dataset that says what they say."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import InputError
from exchange.units import MINUTE_US
from pipelines import check, ingest
from pipelines.binance_survey import decimals, joined
from pipelines.cli import run
from pipelines.store import Dataset
from tests.pipelines import archive_builder as build

FEBRUARY = datetime(2024, 2, 1, tzinfo=UTC)
KLINES = "ABCUSDT-1m-2024-02"


def at(minute: float) -> datetime:
    return FEBRUARY + timedelta(minutes=minute)


def ingested(src: Path, out: Path, terms: Path | None = None) -> Dataset:
    assert ingest.run("binance-vision", src, out, terms) == 0
    assert [problem for problem in check.problems(out) if problem.severity == "error"] == []
    return Dataset.open(out, "markets")


def rows(dataset: Dataset, table: str) -> list[dict[str, object]]:
    frame = dataset.read(table)
    return frame.sort("time", "market").to_dicts()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()
    }


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# ---- what is read


def test_klines_become_bars_that_are_complete_when_their_interval_is_over(src: Path, out: Path) -> None:
    build.put(src, KLINES, build.kline_csv([build.kline(0, 101.5, opening=100.0), build.kline(1, 99.25)]))
    dataset = ingested(src, out)
    assert rows(dataset, "market_bars") == [
        {
            "time": at(1),
            "market": "ABCUSDT",
            "mark_close": 101.5,
            "index_close": None,
            "mark_open": 100.0,
            "mark_high": 101.51,
            "mark_low": 99.99,
            "volume_usd": 1268.75,
            "open_interest_usd": None,
        },
        {
            "time": at(2),
            "market": "ABCUSDT",
            "mark_close": 99.25,
            "index_close": None,
            "mark_open": 99.25,
            "mark_high": 99.26,
            "mark_low": 99.24,
            "volume_usd": 1240.625,
            "open_interest_usd": None,
        },
    ]
    (market,) = rows(dataset, "markets")
    assert (market["time"], market["market"]) == (FEBRUARY, "ABCUSDT")
    assert (market["tick_size"], market["lot_size"]) == (0.01, 0.1), "the decimals seen: 12.500 is 12.5"
    assert market["funding_interval_s"] == 28_800
    meta = json.loads((out / "dataset.json").read_text())
    assert (meta["kind"], meta["venue"], meta["quote_asset"]) == ("markets", "binance", "USDT")
    assert (meta["start"], meta["end"]) == ("2024-02-01T00:00:00Z", "2024-02-01T00:02:00Z")
    assert meta["markets"]["ABCUSDT"]["mark"] == "last trade"
    assert "assumed" in meta["source"]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_way_in_which_klines_are_published_reads_alike(
    src: Path, out: Path, packed: bool, header: bool, scale: int, ends: str
) -> None:
    made = build.klines(range(5))
    build.put(
        src / "any" / "where", KLINES, build.kline_csv(made, header, scale).replace("\n", ends), packed=packed
    )
    found = rows(ingested(src, out), "market_bars")
    assert [row["time"] for row in found] == [at(n + 1) for n in range(5)]
    assert [row["mark_close"] for row in found] == [float(row[4]) for row in made]


@pytest.mark.parametrize(("name", "minutes"), [("1m", 1), ("15m", 15), ("1h", 60), ("4h", 240), ("1d", 1440)])
def test_intervals_up_to_a_day(src: Path, out: Path, name: str, minutes: int) -> None:
    made = build.klines(range(3), every=minutes)
    build.put(src, f"ABCUSDT-{name}-2024-02", build.kline_csv(made, every=minutes))
    dataset = ingested(src, out)
    assert [row["time"] for row in rows(dataset, "market_bars")] == [at(minutes * n) for n in (1, 2, 3)]


def test_mark_prices_are_the_marks_and_trades_only_give_volume(src: Path, out: Path) -> None:
    build.put(src / "klines", KLINES, build.kline_csv(build.klines(range(4))))
    build.put(src / "markPriceKlines/ABCUSDT/1m", KLINES, build.kline_csv(build.klines(range(1, 3), 200.0)))
    build.put(src / "indexPriceKlines/ABCUSDT/1m", KLINES, build.kline_csv(build.klines(range(2, 9), 300.0)))
    dataset = ingested(src, out)
    found = rows(dataset, "market_bars")
    assert [row["mark_close"] for row in found] == [100.0, 200.01, 200.02, 100.03]
    assert [row["mark_open"] for row in found] == [100.0, 200.01, 200.02, 100.03]
    assert [row["index_close"] for row in found] == [None, None, 300.02, 300.03]
    assert [row["volume_usd"] for row in found] == [12.5 * (100 + n / 100) for n in range(4)]
    said = dataset.meta.more["markets"]["ABCUSDT"]["mark"]
    assert said == "mark price, last trade where it is missing"


def test_mark_prices_alone_are_bars_without_volume(src: Path, out: Path) -> None:
    build.put(src / "markPriceKlines", KLINES, build.kline_csv(build.klines(range(3), 2_000.0)))
    dataset = ingested(src, out)
    assert [row["volume_usd"] for row in rows(dataset, "market_bars")] == [None] * 3
    (market,) = rows(dataset, "markets")
    assert (market["tick_size"], market["lot_size"]) == (0.01, 1e-4), "small against a price of 2,000"


def test_files_of_a_month_and_of_its_days_agree(src: Path, out: Path) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(100))))
    build.put(src, f"{KLINES}-01", build.kline_csv(build.klines(range(40, 120)), header=False))
    build.put(src, f"{KLINES}-02", build.kline_csv(build.klines(range(120, 130))), packed=False)
    found = rows(ingested(src, out), "market_bars")
    assert [row["time"] for row in found] == [at(n + 1) for n in range(130)]


def test_funding_is_as_published_and_a_change_of_interval_is_one_of_terms(src: Path, out: Path) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))))
    rates = [(8, 8, "0.0001"), (16, 8, "-0.00005"), (20, 4, "0.002")]
    build.put(src, "ABCUSDT-fundingRate-2024-02", build.funding_csv(rates))
    build.put(src, "XYZUSDT-fundingRate-2024-02", build.funding_csv(rates))
    dataset = ingested(src, out)
    assert rows(dataset, "funding") == [
        {"time": at(60 * hour) + timedelta(milliseconds=3), "market": "ABCUSDT", "funding_rate": rate}
        for hour, rate in ((8, 0.0001), (16, -0.00005), (20, 0.002))
    ]
    terms = [(row["time"], row["funding_interval_s"]) for row in rows(dataset, "markets")]
    assert terms == [(FEBRUARY, 28_800), (at(16 * 60) + timedelta(milliseconds=3), 14_400)]


def test_missing_minutes_stay_missing_and_gaps_are_listed(
    src: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes = [*range(10), *range(15, 20), *range(78, 80), *range(139, 140)]
    build.put(src, KLINES, build.kline_csv(build.klines(minutes)))
    dataset = ingested(src, out)
    assert [row["time"] for row in rows(dataset, "market_bars")] == [at(n + 1) for n in minutes]
    # from 00:20 to 01:19 there is an hour less a minute between bars, from 01:20 to 02:20 an hour
    assert dataset.meta.gaps == ()
    assert dataset.meta.more["markets"]["ABCUSDT"]["missing_bars"] == 5 + 58 + 59
    assert "ABCUSDT: bars missing, none for more than an hour: 122" in capsys.readouterr().out
    build.put(src, f"{KLINES}-01", build.kline_csv(build.klines([200, 201])))
    dataset = ingested(src, out)
    assert dataset.meta.gaps == ("2024-02-01T02:20:00Z/2024-02-01T03:20:00Z ABCUSDT",)
    assert sum("gap" in problem.message for problem in check.problems(out)) == 1


def test_what_holds_nothing_for_prices_is_named_and_left(
    src: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))), checksum=True)
    build.put(src, "ABCUSDT-metrics-2024-02-01", "what,ever\n1,2\n")
    build.put(src / "premiumIndexKlines", KLINES, "not,looked,at\n")
    (src / "README.md").write_text("mine")
    build.put(src / ".trash", "anything", "at all")
    ingested(src, out)
    said = capsys.readouterr().out
    assert "not read, of kind metrics: 1 files" in said and "of kind premiumIndexKlines: 1 files" in said
    assert "marks are prices of the last trade" in said


def test_the_same_archives_give_the_same_bytes_and_replace_what_they_gave(src: Path, tmp_path: Path) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(30))))
    build.put(src, "ZZZUSDC-1m-2024-02", build.kline_csv(build.klines(range(30))))
    build.put(
        src, "ABCUSDT-bookDepth-2024-02-01", build.depth_csv(build.ladder("2024-02-01 00:00:30", 100.0))
    )
    ingested(src, tmp_path / "one")
    ingested(src, tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    ingested(src, tmp_path / "one")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert Dataset.open(tmp_path / "one").meta.quote_asset == "USD", "two kinds of dollar"


def test_progress_is_not_said_to_what_is_no_terminal(
    src: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))))
    assert run(["ingest", "binance-vision", str(src), str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.startswith(f"{out}: 1 market, 3 bars, 2024-02-01T00:00:00Z to ")


# ---- contract terms


TERMS = {"*": {"taker_fee_rate": 0.001}, "ABCUSDT": {"tick_size": 0.05, "funding_interval_s": 3600}}


def test_terms_of_a_file_replace_the_assumed_ones(src: Path, out: Path, tmp_path: Path) -> None:
    tier = {"notional_cap_usd": None, "initial_margin_rate": 0.25, "maintenance_margin_rate": 0.125}
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({**TERMS, "XYZUSDT": {"tiers": [tier]}}))
    for symbol in ("ABCUSDT", "XYZUSDT"):
        build.put(src, f"{symbol}-1m-2024-02", build.kline_csv(build.klines(range(3))))
    abc, xyz = rows(ingested(src, out, terms), "markets")
    assert (abc["taker_fee_rate"], abc["tick_size"], abc["funding_interval_s"]) == (0.001, 0.05, 3600)
    assert (xyz["taker_fee_rate"], xyz["tick_size"], xyz["tiers"]) == (0.001, 0.01, [tier])
    assert len(abc["tiers"]) > 1  # type: ignore[arg-type]
    assert "terms.json" in json.loads((out / "dataset.json").read_text())["source"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON (Expecting property name enclosed in double quotes, line 1)"),
        ("[]", "must be an object of markets, not []"),
        ('{"*": 3}', "'*': must be an object, not 3"),
        ('{"*": {"tick": 1}}', "'*': tick is none of tick_size, lot_size"),
        ('{"*": {"tiers": 1}}', "tiers must be a list, not 1"),
        ('{"*": {"tiers": []}}', "market ABCUSDT: tiers must be 1 to 32, not 0"),
        ('{"*": {"tiers": [7]}}', "tier 0 must be"),
        ('{"*": {"tiers": [{"initial_margin_rate": 0.1}]}}', "tier 0: maintenance_margin_rate"),
        ('{"*": {"tick_size": -1}}', "market ABCUSDT: tick_size must be a finite number above 0, not -1"),
        ('{"*": {"lot_size": "1"}}', "lot_size must be a finite number above 0, not '1'"),
        (
            '{"*": {"funding_interval_s": 1.5}}',
            "funding_interval_s must be a whole number of seconds, not 1.5",
        ),
        ("\xff", "is not JSON"),
    ],
)
def test_wrong_terms_are_one_line(src: Path, out: Path, tmp_path: Path, text: str, says: str) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))))
    terms = tmp_path / "terms.json"
    terms.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=re.escape(says)) as error:
        ingest.run("binance-vision", src, out, terms)
    assert str(error.value).startswith(str(terms)) and not out.exists()


# ---- small laws


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1), st.integers(0, 8))
def test_decimals_are_the_fewest_that_write_every_number(units: list[int], count: int) -> None:
    values = np.array([float(f"{unit}e-{count}") for unit in units])
    found = decimals(values)
    assert all(float(f"{value:.{found}f}") == value for value in values)
    assert found == 0 or any(float(f"{value:.{found - 1}f}") != value for value in values)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10))))
def test_joined_spans_cover_the_same_without_touching(spans: list[tuple[int, int]]) -> None:
    pairs = [(start, start + length) for start, length in spans]
    merged = joined(pairs)
    assert {n for a, b in pairs for n in range(a, b)} == {n for a, b in merged for n in range(a, b)}
    assert all(one[1] < other[0] for one, other in pairwise(merged))


# ---- what was really published


def test_the_published_klines(real_data: Path, tmp_path: Path) -> None:
    archives = real_data / "binance-vision"
    if not archives.is_dir():
        pytest.skip(f"published archives are not here: {archives} (set PERPRISK_DATA)")
    dataset = ingested(archives, tmp_path / "out")
    bars = dataset.read("market_bars")
    counts = dict(bars.group_by("market").len().iter_rows())
    assert counts["FILUSDT"] == 1440 * (28 + 30 + 31 + 29 + 30)
    steps = {row["market"]: (row["tick_size"], row["lot_size"]) for row in rows(dataset, "markets")}
    # as the venue lists them
    assert steps["FILUSDT"] == (0.001, 0.1) and steps["BTCUSDT"] == (0.1, 0.001)
    assert steps["NEARUSDT"] == (0.001, 1.0) and steps["ALGOUSDT"] == (0.0001, 0.1)
    crash = bars.filter(
        (pl.col("market") == "FILUSDT") & (pl.col("time").dt.date() == datetime(2023, 8, 17).date())
    )
    assert crash.select(pl.col("mark_low").min() / pl.col("mark_high").max() - 1).item() < -0.15
    spacing = bars.sort("market", "time").select(pl.col("time").diff().over("market").dt.total_microseconds())
    assert spacing.to_series().min() == MINUTE_US
