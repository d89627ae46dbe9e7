"""Archives that are not as published are refused in one line that says where, and leave nothing behind."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from exchange.errors import InputError
from pipelines import ingest
from pipelines.cli import run
from tests.pipelines import archive_builder as build

KLINES = "ABCUSDT-1m-2024-02"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def swap(line: int, column: int, value: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = [row.split(",") for row in text.splitlines()]
        lines[line - 1][column] = value
        return "\n".join(",".join(row) for row in lines) + "\n"

    return change


def on_lines(how: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "\n".join(how(text.splitlines())) + "\n"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap(3, 4, "0"), "line 3: column close: '0' is not positive"),
        (swap(3, 4, "-1.5"), "line 3: column close: '-1.5' is not positive"),
        (swap(6, 1, "nan"), "line 6: column open: 'nan' is not finite"),
        (swap(6, 1, "1e999"), "line 6: column open: '1e999' is not finite"),
        (swap(4, 3, "cheap"), "line 4: column low: 'cheap' is not a number"),
        (swap(4, 3, ""), "line 4: column low: is empty"),
        (swap(2, 2, "50"), "line 2: column high: '50' is below open"),
        (swap(2, 3, "100.005"), "line 2: column low: '100.005' is above open"),
        (swap(5, 7, "-3"), "line 5: column quote_volume: '-3' is negative"),
        (swap(5, 5, "x"), "line 5: column volume: 'x' is not a number"),
        (swap(5, 0, "soon"), "line 5: column open_time: 'soon' is not a whole number"),
        (swap(5, 0, "1706745840"), "line 5: column open_time: '1706745840' is no time in milli- or micro"),
        (on_lines(lambda rows: [*rows[:4], rows[3]]), "line 5: column open_time: '1706745720000' is there t"),
        (on_lines(lambda rows: [rows[0], *rows[:0:-1]]), "line 3: column open_time: '1706745780000' is befo"),
        (swap(4, 0, "1706745690000"), "line 4: column open_time: '1706745690000' opens before the row above"),
        (on_lines(lambda rows: [*rows[:5], rows[5][:40]]), "line 6: has 5 columns, not 12"),
        (on_lines(lambda rows: [*rows[:5], rows[5] + ",1"]), "line 6: has 13 columns, not 12"),
        (on_lines(lambda rows: [*rows[:3], "", *rows[3:]]), "line 4: has 1 columns, not 12"),
        (on_lines(lambda rows: rows[:1]), "holds no rows, only a header"),
        (lambda _: "", "holds no rows"),
        (lambda _: "\n\n", "holds no rows"),
        (lambda _: "name,price\nhat,3\n", "line 1: column open_time is missing: no klines as published"),
        (lambda _: "1,2,3\n4,5,6\n", "line 1: has 3 columns and no header, klines as published have 12"),
        (lambda text: text.replace("quote_volume", "close", 1), "line 1: column quote_volume is missing"),
        (lambda text: text.replace("ignore", "close", 1), "line 1: a column is there twice"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [True, False])
def test_klines_that_are_not_as_published_are_one_line_that_says_where(
    src: Path, out: Path, change: Callable[[str], str], says: str, packed: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    build.put(src, "AAAUSDT-1m-2024-02", build.kline_csv(build.klines(range(5))))
    file = build.put(src, KLINES, change(build.kline_csv(build.klines(range(5)))), packed=packed)
    assert run(["ingest", "binance-vision", str(src), str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: .+\n", said.err) and f"error: {file}: {says}" in said.err, said.err
    assert not out.exists() and [entry.name for entry in out.parent.iterdir()] == ["src"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("prices.csv", "is no name of a published archive"),
        ("ABCUSDT-1m.zip", "is no name of a published archive"),
        ("ABCUSDT-1m-2024.zip", "is no name of a published archive"),
        ("ABCUSDT-3d-2024-02.zip", "klines of 3d: only intervals of 1m, 3m,"),
        ("ABCUSDT-1s-2024-02.zip", "klines of 1s"),
        ("ABCUSDT-gossip-2024-02.zip", "'gossip' is no kind of published archive"),
        ("ETHBTC-1m-2024-02.zip", "ETHBTC is not quoted in a dollar"),
        ("BTCUSD_PERP-1m-2024-02.zip", "BTCUSD_PERP is margined in coins"),
    ],
)
def test_a_file_of_another_sort_is_refused_by_name(src: Path, out: Path, name: str, says: str) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))))
    (src / name).write_text("1,2,3\n")
    with pytest.raises(InputError, match=re.escape(f"{src / name}: {says}")):
        ingest.run("binance-vision", src, out, None)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "is a damaged zip"),
        (flip, "is a damaged zip"),
        (lambda file: file.write_bytes(b""), "is a damaged zip"),
        (lambda file: file.write_bytes(b"PK\x03\x04 and then something else"), "is a damaged zip"),
    ],
)
def test_a_damaged_zip_is_named(src: Path, out: Path, damage: Callable[[Path], None], says: str) -> None:
    file = build.put(src, KLINES, build.kline_csv(build.klines(range(500))))
    damage(file)
    with pytest.raises(InputError, match=re.escape(f"{file}: {says}")):
        ingest.run("binance-vision", src, out, None)
    assert not out.exists()


def test_a_zip_of_other_things_is_refused(src: Path, out: Path) -> None:
    file = src / f"{KLINES}.zip"
    for names, count in ((["a.txt"], 0), (["a.csv", "b.csv"], 2)):
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, build.kline_csv(build.klines(range(2))))
        with pytest.raises(InputError, match=f"holds {count} csv files"):
            ingest.run("binance-vision", src, out, None)


def test_text_that_is_not_utf8_is_named_by_its_line(src: Path, out: Path) -> None:
    file = src / f"{KLINES}.csv"
    lines = build.kline_csv(build.klines(range(5))).encode().split(b"\n")
    lines[3] = lines[3].replace(b",7,", b",\xff\xfe,")
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=re.escape(f"{file}: line 4: is not UTF-8 text")):
        ingest.run("binance-vision", src, out, None)


def test_a_checksum_is_held_against_its_file(src: Path, out: Path) -> None:
    file = build.put(src, KLINES, build.kline_csv(build.klines(range(5))), checksum=True)
    assert ingest.run("binance-vision", src, out, None) == 0
    beside = file.with_name(f"{file.name}.CHECKSUM")
    build.put(src, KLINES, build.kline_csv(build.klines(range(6))))
    with pytest.raises(InputError, match=re.escape(f"{file}: its SHA-256 is ")):
        ingest.run("binance-vision", src, out, None)
    beside.write_text(f"{'0' * 64}  another.zip\n")
    with pytest.raises(InputError, match=re.escape(f"{beside}: is no checksum of {file.name}")):
        ingest.run("binance-vision", src, out, None)


def test_files_that_overlap_and_disagree_are_both_named(src: Path, out: Path) -> None:
    month = build.put(src, KLINES, build.kline_csv(build.klines(range(100))))
    other = build.klines(range(50, 60))
    other[3] = build.kline(53, 100.54)
    day = build.put(src, f"{KLINES}-01", build.kline_csv(other))
    with pytest.raises(InputError) as error:
        ingest.run("binance-vision", src, out, None)
    said = str(error.value)
    assert said == (
        f"{day}: line 5: column open: 100.54 at 2024-02-01T00:53:00Z disagrees with 100.53 "
        f"in line 55 of {month}"
    )
    assert not out.exists()


def test_one_symbol_at_two_intervals_is_refused(src: Path, out: Path) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(5))))
    build.put(src, "ABCUSDT-5m-2024-02", build.kline_csv(build.klines(range(5), every=5), every=5))
    with pytest.raises(InputError, match="keep one interval of a symbol"):
        ingest.run("binance-vision", src, out, None)


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ([(8, 8, "0.0001"), (8, 8, "0.0001")], "line 3: column calc_time: '1706774400003' is there twice"),
        ([(16, 8, "0.0001"), (8, 8, "0.0001")], "line 3: column calc_time: '1706774400003' is before"),
        ([(8, 0, "0.0001")], "line 2: column funding_interval_hours: '0' is not positive"),
        ([(8, 800, "0.0001")], "line 2: column funding_interval_hours: '800' is longer than a day"),
        ([(8, 8, "2")], "line 2: column last_funding_rate: '2' is more than the whole notional"),
        ([(8, 8, "-")], "line 2: column last_funding_rate: '-' is not a number"),
    ],
)
def test_funding_that_is_not_as_published_is_refused(
    src: Path, out: Path, rates: list[tuple[int, int, str]], says: str
) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))))
    file = build.put(src, "ABCUSDT-fundingRate-2024-02", build.funding_csv(rates))
    with pytest.raises(InputError, match=re.escape(f"{file}: {says}")):
        ingest.run("binance-vision", src, out, None)


@pytest.mark.parametrize("made", ["nothing", "file", "no bars", "only funding"])
def test_without_bars_there_is_no_dataset(src: Path, out: Path, made: str) -> None:
    place, says = src, "holds no klines"
    if made == "nothing":
        says = "holds no archive"
    elif made == "file":
        place, says = src / "x.zip", "is a file, not a folder"
        place.write_bytes(b"")
    elif made == "no bars":
        lines = build.ladder("2024-02-01 00:00:30", 100.0)
        build.put(src, "ABCUSDT-bookDepth-2024-02-01", build.depth_csv(lines))
    else:
        build.put(src, "ABCUSDT-fundingRate-2024-02", build.funding_csv([(8, 8, "0.1")]))
    with pytest.raises(InputError, match=re.escape(f"{place}: {says}")):
        ingest.run("binance-vision", place, out, None)
    with pytest.raises(InputError, match="no such folder"):
        ingest.run("binance-vision", src / "not there", out, None)


def test_an_adapter_that_is_not_there_is_named(
    src: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ingest", "hyperliquid", str(src), str(out)]) == 2
    assert "'hyperliquid' cannot be ingested; known: binance-vision" in capsys.readouterr().err


def test_a_folder_of_others_is_not_replaced(src: Path, out: Path) -> None:
    build.put(src, KLINES, build.kline_csv(build.klines(range(3))))
    with pytest.raises(InputError, match="holds other files"):
        ingest.run("binance-vision", src, src, None)
    assert [file.name for file in src.iterdir()] == [f"{KLINES}.zip"]
