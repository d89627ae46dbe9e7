"""Cumulative depth bounds the mid that it does not give; a book that cannot be is told from one that can."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import InputError
from pipelines import check, ingest
from pipelines.binance_depth import Ladders, bounds, even_middle, ladders_of, quotes_of
from pipelines.binance_files import Source, rows_of, source_of
from pipelines.store import Dataset
from tests.pipelines import archive_builder as build

PERCENTS = (0.2, 1, 2, 3, 4, 5)
TIME_US = 1_760_054_407_000_000
DEPTH = "ABCUSDT-bookDepth-2024-02-01"


def ladders(mid: float, orders: list[tuple[float, float]], percents: tuple[float, ...] = PERCENTS) -> Ladders:
    """What would be published of orders (price, quantity) around a mid: bids below it, asks above."""
    prices, sizes = np.array(orders).reshape(-1, 2).T
    rows = []
    for percent in percents:
        for side in (-1.0, 1.0):
            edge = mid * (1 + side * percent / 100.0)
            within = (side * (prices - mid) >= 0) & (side * (edge - prices) >= 0)
            quantity = sizes[within].sum()
            rows.append((TIME_US, side * percent, quantity, (sizes * prices)[within].sum()))
    return ladders_of(pl.DataFrame(rows, ["time_us", "percentage", "depth", "notional"], orient="row"))


def known(price: float) -> npt.NDArray[np.float64]:
    return np.array([price])


UNKNOWN = known(np.nan)
STILL = known(0.0)

sides = st.lists(st.tuples(st.floats(0.00001, 0.049), st.floats(0.001, 1e6)), max_size=30)


@st.composite
def books(draw: st.DrawFn) -> tuple[float, list[tuple[float, float]]]:
    """A mid and orders on both sides of it."""
    mid = draw(st.floats(1e-4, 1e5))
    bids, asks = draw(sides), draw(sides)
    return mid, [(mid * (1 - d), q) for d, q in bids] + [(mid * (1 + d), q) for d, q in asks]


@given(books())
def test_the_mid_of_any_book_lies_within_the_bounds(book: tuple[float, list[tuple[float, float]]]) -> None:
    mid, orders = book
    lowest, highest = bounds(ladders(mid, orders or [(mid, 0.0)]))
    assert lowest[0] <= mid * (1 + 1e-9) and highest[0] >= mid * (1 - 1e-9)


@given(books())
def test_no_book_that_can_be_is_called_crossed(book: tuple[float, list[tuple[float, float]]]) -> None:
    mid, orders = book
    for price in (known(mid), UNKNOWN):
        quotes = quotes_of(ladders(mid, orders or [(mid, 0.0)]), price, STILL, mid * 1e-5)
        assert not quotes.best_bid[0] > quotes.best_ask[0]


@given(st.floats(1.0, 1e5), st.floats(0.1, 1e3))
def test_an_even_book_gives_its_mid(mid: float, each: float) -> None:
    orders = [(mid * (1 + side * d), each) for side in (-1, 1) for d in np.arange(0.0001, 0.05, 0.0002)]
    assert even_middle(ladders(mid, orders))[0] == pytest.approx(mid, rel=1e-4)
    quotes = quotes_of(ladders(mid, orders), UNKNOWN, STILL, 0.01)
    assert quotes.best_ask[0] - quotes.best_bid[0] == pytest.approx(0.01)
    assert (quotes.best_ask[0] + quotes.best_bid[0]) / 2 == pytest.approx(mid, rel=1e-4)


@given(st.floats(0.03, 0.2))
def test_bids_that_nobody_took_away_cross_the_book(fall: float) -> None:
    """The price fell and old bids are still counted; the mid is half way between them and the asks."""
    price = 100.0 * (1 - fall)
    mid = (100.0 + price) / 2
    distance = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    asks = price * (1 + np.arange(0.0001, 0.3, 0.0005))
    within = asks[None, :] <= mid * (1 + distance[:, None])
    stale = np.full((1, 5), 17.0)  # above the mid, so within every distance below it
    published = Ladders(
        np.array([TIME_US]), distance, stale, stale * 100.0, within.sum(1)[None] * 10.0,
        (within * asks * 10.0).sum(1)[None],
    )  # fmt: skip
    lowest, highest = bounds(published)
    assert lowest[0] > highest[0]
    quotes = quotes_of(published, UNKNOWN, STILL, 0.01)
    assert quotes.best_bid[0] > quotes.best_ask[0]


@pytest.mark.parametrize("fault", ["price is far", "figures fall", "a side is empty"])
def test_what_cannot_be_told_is_not_told(fault: str) -> None:
    orders = [(100.0 * (1 + side * d), 1.0) for side in (-1, 1) for d in np.arange(0.001, 0.05, 0.001)]
    look = ladders(100.0, orders)
    fine = quotes_of(look, known(100.02), STILL, 0.01)
    assert (fine.best_bid[0], fine.best_ask[0]) == (pytest.approx(100.015), pytest.approx(100.025))
    if fault == "price is far":
        for price in (97.0, 103.0):
            quotes = quotes_of(look, known(price), STILL, 0.01)
            assert quotes.best_bid[0] > quotes.best_ask[0]
            calm = quotes_of(look, known(price), known(0.03), 0.01)
            assert calm.best_bid[0] < calm.best_ask[0], "the last bar swung so far"
    elif fault == "figures fall":
        falling = look.bid_usd.copy()
        falling[0, 3] = falling[0, 2] * 0.9
        quotes = quotes_of(look._replace(bid_usd=falling), known(100.0), STILL, 0.01)
        assert np.isnan(quotes.best_bid[0]) and np.isnan(quotes.best_ask[0])
    else:
        empty = ladders(100.0, [order for order in orders if order[0] < 100.0])
        assert np.isnan(quotes_of(empty, UNKNOWN, STILL, 0.01).best_bid[0])
        assert quotes_of(empty, known(100.0), STILL, 0.01).best_bid[0] == pytest.approx(99.995)


# ---- from files


def ingested(src: Path, out: Path) -> Dataset:
    assert ingest.run("binance-vision", src, out, None) == 0
    assert [problem for problem in check.problems(out) if problem.severity == "error"] == []
    return Dataset.open(out)


def test_looks_become_rows_around_the_price_known_at_the_time(tmp_path: Path) -> None:
    src = tmp_path / "src"
    build.put(src, "ABCUSDT-1m-2024-02", build.kline_csv(build.klines(range(5))))
    lines = build.ladder("2024-02-01 00:00:30", 100.1)  # no bar is complete yet
    lines += build.ladder("2024-02-01 00:02:07", 100.1, percents=PERCENTS)
    build.put(src, DEPTH, build.depth_csv(lines))
    first, second = ingested(src, tmp_path / "out").read("book_depth").sort("time").to_dicts()
    start = datetime(2024, 2, 1, tzinfo=UTC)
    assert [first["time"], second["time"]] == [start + timedelta(seconds=s) for s in (30, 127)]
    assert first["distance_bps"] == [100.0, 200.0, 300.0, 400.0, 500.0]
    assert second["distance_bps"] == [20.0, 100.0, 200.0, 300.0, 400.0, 500.0]
    assert first["bid_usd"][0] == pytest.approx(10 * 100.1 * (0.9975 + 0.9925))
    assert first["ask_usd"][4] == pytest.approx(10 * 100.1 * sum(1 + (n + 0.5) * 0.005 for n in range(10)))
    assert (first["best_bid"] + first["best_ask"]) / 2 == pytest.approx(100.1, abs=0.3)
    assert second["best_bid"] == pytest.approx(100.01 - 0.005) and second["best_ask"] == pytest.approx(
        100.015
    )


@pytest.mark.parametrize("months", [True, False])
def test_how_files_are_cut_does_not_matter(tmp_path: Path, months: bool) -> None:
    made = build.klines(range(2 * 1440))
    looks = {
        day: [
            line
            for minute in range(0, 1440, 97)
            for line in build.ladder(f"2024-02-0{day} {minute // 60:02}:{minute % 60:02}:09", 100 + day * 10)
        ]
        for day in (1, 2)
    }
    datasets = []
    for name, parts in (("whole", [made]), ("days", [made[:1440], made[1440:]])):
        src = tmp_path / f"{name}-src"
        for n, part in enumerate(parts, 1):
            build.put(
                src,
                f"ABCUSDT-1m-2024-02-0{n}" if name == "days" else "ABCUSDT-1m-2024-02",
                build.kline_csv(part),
            )
        for day, lines in looks.items():
            build.put(src, f"ABCUSDT-bookDepth-2024-02-0{day}", build.depth_csv(lines), packed=months)
        datasets.append(ingested(src, tmp_path / name))
    for table in ("market_bars", "book_depth"):
        one, other = (dataset.read(table) for dataset in datasets)
        assert one.height > 0 and one.equals(other)


@pytest.mark.parametrize(
    ("written", "second"),
    [
        ("2024-02-01 00:02:07", 127), (" 2024-02-01 00:02:07", 127), ("2024-2-1 0:2:7", 127),
        ("2024-02-01  00:02:07 ", 127), ("2024-02-01T00:02:07", 127), ("1706745727000", 127),
    ],
)  # fmt: skip
def test_times_are_read_however_they_are_written(tmp_path: Path, written: str, second: int) -> None:
    file = build.put(tmp_path, DEPTH, build.depth_csv(build.ladder(written, 100.0)), packed=False)
    source = source_of(file)
    assert isinstance(source, Source)
    assert set(rows_of(source)["time_us"]) == {build.FEBRUARY_MS * 1000 + second * 1_000_000}


def test_columns_may_come_in_any_number_and_order(tmp_path: Path) -> None:
    lines = build.ladder("2024-02-01 00:02:07", 100.0)
    text = build.depth_csv(lines)
    moved = ["weighted_avg_price,notional,depth,percentage,timestamp"]
    moved += [",".join(["1.5", *reversed(line.split(","))]) for line in lines]
    files = [
        build.put(tmp_path / name, DEPTH, each, packed=False)
        for name, each in (("a", text), ("b", "\n".join(moved)))
    ]
    one, other = (rows_of(source) for file in files if isinstance(source := source_of(file), Source))
    assert one.equals(other)


LINES = build.ladder("2024-02-01 00:02:07", 100.0)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["soon,1,1,1"], "line 2: column timestamp: 'soon' is no time such as 2025-10-10 00:00:07"),
        (["2024-02-30 00:00:07,1,1,1"], "line 2: column timestamp: '2024-02-30 00:00:07' is no time"),
        (["2024-02-01 00:02:07,0,1,1"], "line 2: column percentage: '0' is no distance from the mid"),
        (["2024-02-01 00:02:07,-100,1,1"], "line 2: column percentage: '-100' is no distance"),
        (["2024-02-01 00:02:07,1,-1,1"], "line 2: column depth: '-1' is negative"),
        (["2024-02-01 00:02:07,1,0,1"], "line 2: column depth: '0' of nothing has a notional"),
        (["2024-02-01 00:02:07,1,1,inf"], "line 2: column notional: 'inf' is not finite"),
        ([*LINES, LINES[3]], "line 12: column percentage: '-4' is there twice for that moment"),
        ([*LINES, "2024-02-01 00:01:07,1,1,1"], "line 12: column timestamp: '2024-02-01 00:01:07' is before"),
    ],
)  # fmt: skip
def test_depth_that_is_not_as_published_is_refused(tmp_path: Path, lines: list[str], says: str) -> None:
    build.put(tmp_path / "src", "ABCUSDT-1m-2024-02", build.kline_csv(build.klines(range(5))))
    file = build.put(tmp_path / "src", DEPTH, build.depth_csv(lines))
    with pytest.raises(InputError, match=re.escape(f"{file}: {says}")):
        ingest.run("binance-vision", tmp_path / "src", tmp_path / "out", None)


# ---- what was really published


@pytest.fixture(scope="module")
def crash_day(real_data: Path) -> Ladders:
    file = real_data / "binance-vision" / "bookDepth" / "BTCUSDT-bookDepth-2025-10-10.zip"
    if not file.is_file():
        pytest.skip(f"published book depth is not here: {file} (set PERPRISK_DATA)")
    source = source_of(file)
    assert isinstance(source, Source)
    return ladders_of(rows_of(source))


def test_the_even_middle_is_near_the_price_while_the_published_book_is_whole(
    crash_day: Ladders, real_data: Path
) -> None:
    candles = real_data / "funding-oi" / "candles.parquet"
    if not candles.is_file():
        pytest.skip(f"hourly candles are not here: {candles} (set PERPRISK_DATA)")
    hours = pl.read_parquet(candles).filter((pl.col("venue") == "binance") & (pl.col("coin") == "BTC"))
    closes = dict(zip(hours["timestamp"].to_physical() // 1_000_000, hours["c"], strict=True))
    middle = even_middle(crash_day)
    start = datetime(2025, 10, 10, tzinfo=UTC).timestamp()
    for hour in range(14):
        end = start + 3600 * (hour + 1)
        last = np.searchsorted(crash_day.time_us, end * 1e6) - 1
        assert middle[last] == pytest.approx(closes[end - 3600], rel=0.002)


def test_the_published_book_of_a_crash_is_no_book(crash_day: Ladders) -> None:
    """Old bids were counted to the end of the day; its thin depth then is no depth of the market."""
    quotes = quotes_of(
        crash_day, np.full(len(crash_day.time_us), np.nan), np.zeros(len(crash_day.time_us)), 0.1
    )
    crossed = quotes.best_bid > quotes.best_ask
    start_us = int(datetime(2025, 10, 10, tzinfo=UTC).timestamp() * 1e6)
    hour = (crash_day.time_us - start_us) // 3_600_000_000
    assert not crossed[hour < 15].any() and crossed[hour >= 17].all()
