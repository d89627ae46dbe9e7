"""Archives of data.binance.vision as a dataset of prices: markets, bars, book depth and funding.

Every file is read once to check and survey it (`binance_survey`), which gives contract terms, gaps and what
overlaps, and again to write its rows (`binance_rows`), so that memory never holds all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from exchange.errors import InputError
from exchange.units import SECOND_US
from pipelines.assumed_terms import Given, assumed, checked_terms, given_for, read_terms
from pipelines.binance_files import KLINE_KINDS, QUOTES, Kind, Source, rows_of, source_of
from pipelines.binance_rows import Looks, Read, bars_of, books_of, funding_of, in_parts
from pipelines.binance_survey import Listing, listings_of, notes_of, said_of, surveyed
from pipelines.meta import Meta
from pipelines.progress import progress
from pipelines.schema import UTC_US
from pipelines.store import write_dataset
from pipelines.times import format_time

VENUE = "binance"
SUFFIXES = (".zip", ".csv")

Tables = dict[str, pl.DataFrame | Iterable[pl.DataFrame]]
Span = tuple[int, int]


def ingest(src: Path, out: Path, terms: Path | None) -> list[str]:
    """Write the dataset `out` from the archives under `src`; lines on what is in it and what to know of it.

    `terms` is a JSON file with contract terms by market. Raises InputError for files that are not as
    published, and where there is nothing to make bars of.
    """
    given = read_terms(terms)
    sources, unread = _sources(files_under(src))
    with progress(_work(sources), "Reading archives") as bar:

        def read(source: Source) -> pl.DataFrame:
            rows = rows_of(source)
            bar.advance(source.file.stat().st_size)
            return rows

        listings = listings_of(surveyed(source, read(source)) for source in sources)
        listed = [listing for listing in listings if listing.has_bars or listing.of(Kind.DEPTH)]
        if not any(listing.has_bars for listing in listed):
            raise InputError(f"{src}: holds no klines, of which the bars of a dataset are made")
        meta = _meta(listed, terms)
        looks: dict[str, Looks] = {}
        write_dataset(out, meta, _tables(listed, given, terms, read, looks))
    notes: dict[str, list[str]] = {}
    for listing in listings:
        said = notes_of(listing) if listing in listed else ["left out, has neither klines nor book depth"]
        for note in (*said, *_told(looks.get(listing.symbol))):
            notes.setdefault(note, []).append(listing.symbol)
    bars = sum(listing.bars() for listing in listed if listing.has_bars)
    span = f"{format_time(meta.start_us)} to {format_time(meta.end_us)}"
    return [
        f"{out}: {len(listed)} market{'s' if len(listed) > 1 else ''}, {bars:,} bars, {span}",
        *(f"{', '.join(symbols)}: {note}" for note, symbols in notes.items()),
        *(f"not read, of kind {kind}: {count} files" for kind, count in sorted(unread.items())),
    ]


def files_under(src: Path) -> list[Path]:
    """The csv and zip files of a folder and the folders in it, by name; InputError where there are none."""
    if not src.is_dir():
        raise InputError(f"{src}: {'is a file, not a folder' if src.exists() else 'no such folder'}")
    found = [
        file
        for file in sorted(src.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__")) for part in file.relative_to(src).parts)
        and file.is_file()
    ]
    if not found:
        raise InputError(f"{src}: holds no archive such as BTCUSDT-1m-2024-02.zip")
    return found


def _sources(files: Sequence[Path]) -> tuple[list[Source], dict[str, int]]:
    """What is to be read, and how many files of which kinds are not."""
    sources: list[Source] = []
    unread: dict[str, int] = {}
    for file in files:
        what = source_of(file)
        if isinstance(what, Source):
            sources.append(what)
        else:
            unread[what] = unread.get(what, 0) + 1
    return sources, unread


def _work(sources: Sequence[Source]) -> float:
    """Bytes to read in all: everything twice, and klines once more where book depth needs a price."""
    looked_at = {source.symbol for source in sources if source.kind is Kind.DEPTH}
    size = {source: source.file.stat().st_size for source in sources}
    again = sum(size[s] for s in sources if s.kind in KLINE_KINDS and s.symbol in looked_at)
    return float(2 * sum(size.values()) + again)


def _tables(
    listed: Sequence[Listing], given: Given, terms: Path | None, read: Read, looks: dict[str, Looks]
) -> Tables:
    """The tables, those of rows made as they are written; `looks` fills as book depth is."""

    def books() -> Iterator[pl.DataFrame]:
        for listing in listed:
            if listing.of(Kind.DEPTH):
                tick = float(_terms(listing, given, terms)[0][1]["tick_size"])
                yield from books_of(listing, tick, read, looks)

    tables: Tables = {
        "markets": _markets(listed, given, terms),
        "market_bars": in_parts(bars for each in listed if each.has_bars for bars in bars_of(each, read)),
    }
    if any(listing.of(Kind.DEPTH) for listing in listed):
        tables["book_depth"] = in_parts(books())
    funded = [listing for listing in listed if listing.of(Kind.FUNDING)]
    if funded:
        tables["funding"] = in_parts(funding_of(listing, read) for listing in funded)
    return tables


def _told(looks: Looks | None) -> Iterator[str]:
    if looks is not None and looks.crossed:
        yield (
            "looks at the book that contradict themselves or the price, kept as crossed: "
            f"{looks.crossed:,} of {looks.looks:,}"
        )
    if looks is not None and looks.left_out:
        yield (
            f"looks at the book of which nothing can be told, left out: {looks.left_out:,} of {looks.looks:,}"
        )


def _markets(listed: Sequence[Listing], given: Given, file: Path | None) -> pl.DataFrame:
    rows = [
        {"time": since_us, **terms} for listing in listed for since_us, terms in _terms(listing, given, file)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    numbers = {name: pl.Float64 for name in columns if name.endswith(("_size", "_rate"))}
    return pl.DataFrame(columns, schema_overrides=numbers, strict=False).with_columns(
        pl.col("time").cast(UTC_US)
    )


def _terms(listing: Listing, given: Given, file: Path | None) -> list[tuple[int, dict[str, Any]]]:
    """Contract terms and since when: another row where the time between fundings changes."""
    own = given_for(listing.symbol, given)
    changes: list[tuple[int, int | None]] = [
        change for survey in listing.of(Kind.FUNDING) for change in survey.intervals
    ]
    if not changes or "funding_interval_s" in own:
        changes = [(0, None)]
    since_us = min(survey.first_us for survey in listing.files)
    tick, lot = listing.steps()
    rows: list[tuple[int, dict[str, Any]]] = []
    last: int | None = -1
    for change_us, interval_s in changes:
        if interval_s != last:
            last = interval_s
            terms = checked_terms({**assumed(listing.symbol, tick, lot, interval_s), **own}, file)
            rows.append((max(change_us, rows[-1][0] + SECOND_US) if rows else since_us, terms))
    return rows


def _meta(listed: Sequence[Listing], terms: Path | None) -> Meta:
    quotes = {next(q for q in QUOTES if each.symbol.split("_")[0].endswith(q)) for each in listed}
    files = [survey for listing in listed for survey in listing.files]
    ends = [end for listing in listed if listing.has_bars for _, end in listing.runs()]
    ends += [survey.last_us for survey in files if survey.source.kind not in KLINE_KINDS]
    rates = f"from {terms.name} where it gives them, else assumed" if terms else "assumed"
    return Meta(
        VENUE,
        "markets",
        min(survey.first_us for survey in files),
        max(ends),
        quote_asset=quotes.pop() if len(quotes) == 1 else "USD",
        gaps=tuple(
            f"{format_time(end)}/{format_time(start)} {listing.symbol}"
            for listing in listed
            if listing.has_bars
            for end, start, is_gap in listing.holes()
            if is_gap
        ),
        source=f"{len(files)} archives of data.binance.vision; tick and lot sizes from the decimals seen; "
        f"fees and margin tiers {rates}",
        more={"markets": {listing.symbol: said_of(listing) for listing in listed}},
    )
