"""Small archives as data.binance.vision publishes them, made by hand."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
FUNDING_HEADER = "calc_time,funding_interval_hours,last_funding_rate"
DEPTH_HEADER = "timestamp,percentage,depth,notional"
FEBRUARY_MS = 1_706_745_600_000  # 2024-02-01
MINUTE_MS = 60_000

Kline = tuple[int, str, str, str, str, str, str]


def kline(minute: int, close: float, *, opening: float | None = None, every: int = 1) -> Kline:
    """Opening time in ms, open, high, low, close, volume and quote volume; one cent around the two prices."""
    first = close if opening is None else opening
    high, low = max(first, close) + 0.01, min(first, close) - 0.01
    prices = [f"{price:.2f}" for price in (first, high, low, close)]
    return (FEBRUARY_MS + minute * every * MINUTE_MS, *prices, "12.500", f"{12.5 * close:.4f}")  # type: ignore[return-value]


def klines(minutes: Iterable[int], first: float = 100.0, every: int = 1) -> list[Kline]:
    """Klines whose closes rise by a cent a minute from `first`."""
    return [kline(minute, first + minute * 0.01, every=every) for minute in minutes]


def kline_csv(rows: Sequence[Kline], header: bool = True, scale: int = 1, every: int = 1) -> str:
    """The csv of klines; `scale` 1000 gives times in microseconds."""
    lines = [KLINE_HEADER] if header else []
    for time_ms, opening, high, low, close, volume, quote_volume in rows:
        time = time_ms * scale
        end = (time_ms + every * MINUTE_MS) * scale - 1
        lines.append(f"{time},{opening},{high},{low},{close},{volume},{end},{quote_volume},7,1.0,100.0,0")
    return "\n".join(lines) + "\n"


def funding_csv(rows: Sequence[tuple[int, int, str]], header: bool = True) -> str:
    """Rows of hours after FEBRUARY_MS, interval in hours, and the rate."""
    lines = [FUNDING_HEADER] if header else []
    lines += [f"{FEBRUARY_MS + hour * 60 * MINUTE_MS + 3},{interval},{rate}" for hour, interval, rate in rows]
    return "\n".join(lines) + "\n"


def ladder(
    time: str, mid: float, each: float = 10.0, percents: Sequence[float] = (1, 2, 3, 4, 5)
) -> list[str]:
    """Lines of one look at a book in which `each` rests at every half percent from the mid."""
    lines = []
    for side in (-1, 1):
        for percent in percents:
            prices = [mid * (1 + side * (n + 0.5) * 0.005) for n in range(round(percent * 2))]
            depth, notional = each * len(prices), each * sum(prices)
            lines.append(f"{time},{side * percent:g},{depth:.3f},{notional:.4f}")
    return lines


def depth_csv(lines: Iterable[str], header: str = DEPTH_HEADER) -> str:
    """The csv of book depth."""
    return "\n".join([header, *lines]) + "\n"


def put(folder: Path, name: str, text: str, *, packed: bool = True, checksum: bool = False) -> Path:
    """Write `name`.zip with `name`.csv in it, or the csv alone, and its checksum if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        file = folder / f"{name}.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.csv", text)
    else:
        file = folder / f"{name}.csv"
        file.write_text(text)
    if checksum:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (folder / f"{file.name}.CHECKSUM").write_text(f"{digest}  {file.name}\n")
    return file
