"""Whole histories at once against the live venue: the same bits. Windows against plain sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import catalog
from features.events import FILL, FUNDING, TRANSFER
from features.histories import WINDOWED, Fills, Funding, Marks, Standings, Transfers, stand_through
from features.standing import COLUMNS, stand
from features.state import new_portfolio
from features.venue import Venue
from tests.features import streams
from tests.features.streams import HOUR, LOTS, MARKETS, MINUTE, NAN, PRICES, START
from tests.oracle.feature_oracle import Row

ACCOUNTS = 4
WINDOWS_US = (HOUR, 24 * HOUR)
WEAK_TIERS = ((2_000.0, 0.1, 0.05), (math.inf, 0.4, 0.3))


def terms(markets: Sequence[int] = range(MARKETS)) -> list[Row]:
    return [row for key in markets for row in streams.market_rows(START, key, WEAK_TIERS, LOTS[key])]


def size(chance: Random, market: int) -> float:
    """Mostly a few lots, so that positions close and flip; now and then a residue of less than half a lot."""
    lots = chance.choice((-3, -2, -1, -1, 1, 1, 2, 3))
    dust = chance.choice((0.0, 0.0, 0.0, 0.2, -0.3))
    return (lots + dust) * LOTS[market] * chance.choice((1.0, 1.0, 40.0))


def history(chance: Random, steps: int) -> tuple[list[Row], list[int], list[list[float]]]:
    """Events between steps of some minutes or hours, the times of the steps, and the marks then."""
    rows = terms()
    time, marks = START, list(PRICES)
    times, seen = [], []
    for _ in range(steps):
        for _ in range(chance.randrange(6)):
            time += chance.choice((0, 1, MINUTE, 20 * MINUTE, 5 * HOUR))
            some = []
            for key in range(MARKETS):
                if chance.random() < 0.3:
                    some.append(Row(FUNDING, time, key, -1, (chance.uniform(-1e-2, 1e-2),)))
            for key in range(ACCOUNTS):
                if chance.random() < 0.3:
                    some.append(streams.transfer(time, key, chance.choice((5_000.0, -300.0, 0.0))))
            for key in range(ACCOUNTS):
                for _ in range(chance.choice((0, 0, 1, 1, 3))):
                    market = chance.randrange(MARKETS)
                    price = streams.moved(chance, marks[market])
                    fee = chance.choice((NAN, 0.0, 0.7, -0.1))
                    some.append(streams.fill(time, key, market, size(chance, market), price, fee, 0.0))
            rows += some
        time += chance.choice((1, HOUR, HOUR))
        marks = [streams.moved(chance, mark) for mark in marks]
        rows += [streams.bar(time, key, mark, NAN, mark) for key, mark in enumerate(marks)]
        times.append(time)
        seen.append(list(marks))
    rows[len(terms()) :] = sorted(rows[len(terms()) :], key=lambda row: (row.time_us, row.kind))
    return rows, times, seen


def live(rows: Sequence[Row], times: Sequence[int]) -> Standings:
    """Accounts as the venue has them at each time, in order of account, then of time."""
    venue = streams.venue(accounts=ACCOUNTS)
    events = streams.batch(rows)
    folio = new_portfolio(8, 4)
    found, row = [], 0
    for time_us in times:
        row = venue.apply(events, row, time_us)
        for key in range(ACCOUNTS):
            column = np.empty(len(COLUMNS))
            if not stand(venue.state, key, folio, column):
                continue
            found.append((key, time_us, column))
            vector = streams.vector(venue, key)
            for name, value in zip(COLUMNS, column.tolist(), strict=True):
                if name in catalog.NAMES:
                    assert vector[name] == value or (math.isnan(vector[name]) and math.isnan(value)), name
    found.sort(key=lambda one: one[:2])
    return Standings(
        np.array([one[1] for one in found], np.int64),
        np.array([one[0] for one in found], np.int64),
        np.array([one[2] for one in found]).reshape(-1, len(COLUMNS)),
    )


def fills_in(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.kind == FILL]


def summed_up(rows: Sequence[Row]) -> list[tuple[float, float, float, float]]:
    """Of each fill what WINDOWED adds up; realised against the mean price of what is still open."""
    lots: dict[tuple[int, int], tuple[float, float]] = {}
    found = []
    for row in fills_in(rows):
        quantity, price, fee = row.values[:3]
        held, entry = lots.get((row.key, row.sub), (0.0, NAN))
        closed = min(abs(quantity), abs(held)) if held * quantity < 0.0 else 0.0
        realised = (closed if held > 0.0 else -closed) * (price - entry) if closed else 0.0
        left = held + quantity
        if abs(left) < 0.5 * LOTS[row.sub] or abs(left) < 1e-12 * abs(held):
            left = 0.0
        if held == 0.0 or held * left < 0.0:
            entry = price
        elif abs(left) > abs(held):
            entry = (held * entry + quantity * price) / left
        lots[row.key, row.sub] = (left, entry)
        found.append((abs(quantity * price), quantity * price, 0.0 if math.isnan(fee) else fee, realised))
    return found


def fills_of(rows: Sequence[Row]) -> Fills:
    some = fills_in(rows)
    columns = np.array([row.values[:3] for row in some]).reshape(-1, 3).T.copy()
    return Fills(
        np.array([row.time_us for row in some], np.int64),
        np.array([row.key for row in some], np.int32),
        np.array([row.sub for row in some], np.int32),
        *columns,
    )


def transfers_of(rows: Sequence[Row]) -> Transfers:
    some = [row for row in rows if row.kind == TRANSFER]
    return Transfers(
        np.array([row.time_us for row in some], np.int64),
        np.array([row.key for row in some], np.int32),
        np.array([row.values[0] for row in some], np.float64),
    )


def funding_of(rows: Sequence[Row], times: Sequence[int], seen: Sequence[Sequence[float]]) -> Funding:
    """What has been paid after each payment, at the mark of the newest bar; none before the first."""
    paid, mark, total = [], [NAN] * MARKETS, [0.0] * MARKETS
    when = []
    bars = dict(zip(times, seen, strict=True))
    for row in rows:
        if row.time_us in bars and row.kind < FUNDING:
            mark = list(bars[row.time_us])
        if row.kind == FUNDING:
            if not math.isnan(mark[row.key]):
                total[row.key] += mark[row.key] * row.values[0]
            when.append(row.time_us)
            paid.append(list(total))
    return Funding(np.array(when, np.int64), np.array(paid).reshape(-1, MARKETS))


def at_once(rows: list[Row], times: list[int], seen: list[list[float]]) -> Standings:
    knowing: Venue = streams.after(terms(), accounts=ACCOUNTS)
    return stand_through(
        knowing.state.market[:MARKETS],
        ACCOUNTS,
        fills_of(rows),
        transfers_of(rows),
        Marks(np.array(times, np.int64), np.array(seen).reshape(-1, MARKETS)),
        funding_of(rows, times, seen),
        WINDOWS_US,
    )


def compare(rows: list[Row], times: list[int], seen: list[list[float]]) -> int:
    found, expected = at_once(rows, times, seen), live(rows, times)
    assert found.account.tolist() == expected.account.tolist()
    assert found.time.tolist() == expected.time.tolist()
    assert np.ascontiguousarray(found.column[:, : len(COLUMNS)]).tobytes() == expected.column.tobytes()
    summed = [(one, *sums) for one, sums in zip(fills_in(rows), summed_up(rows), strict=True)]
    for place, window_us in enumerate(WINDOWS_US):
        for row, (key, now) in enumerate(zip(found.account.tolist(), found.time.tolist(), strict=True)):
            within = [
                sums for one, *sums in summed if one.key == key and now - window_us < one.time_us <= now
            ]
            *sums, count = found.column[row, len(COLUMNS) + len(WINDOWED) * place :][: len(WINDOWED)].tolist()
            assert count == len(within)
            for amount, amounts in zip(sums, zip(*within, strict=True), strict=False):
                # what cancels leaves the last bit of a sum that was as large as its parts
                size = math.fsum(map(abs, amounts))
                assert amount == pytest.approx(math.fsum(amounts), rel=1e-15, abs=1e-16 * size)
            assert within or sums == [0.0] * len(sums)
    return len(found.account)


@settings(max_examples=40)
@given(chance=streams.chances, steps=st.integers(0, 12))
def test_a_history_at_once_is_the_live_venue_to_the_bit(chance: Random, steps: int) -> None:
    compare(*history(chance, steps))


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_at_once_is_the_live_venue_to_the_bit(seed: int) -> None:
    assert compare(*history(Random(seed), 60)) > 60


def test_what_a_large_trade_leaves_is_not_lost_on_small_ones() -> None:
    """A sum from which a large number is taken again keeps no trace of it."""
    rows = terms()
    rows += [
        streams.fill(START, 0, 0, 1e12, 30.0, 0.0, 0.0),
        streams.fill(START, 0, 0, -1e12, 30.0, 0.0, 0.0),
    ]
    rows += [streams.fill(START + HOUR + n, 0, 0, 0.1, 0.3, 0.0, 0.0) for n in range(1, 8)]
    times = [START + 2 * HOUR]
    rows += [streams.bar(times[0], key, mark, NAN, mark) for key, mark in enumerate(PRICES)]
    found = at_once(rows, times, [list(PRICES)])
    assert found.column[0, len(COLUMNS)] == math.fsum([0.1 * 0.3] * 7)
    assert found.column[0, len(COLUMNS) + 1] == math.fsum([0.1 * 0.3] * 7)
    assert found.column[0, len(COLUMNS) + WINDOWED.index("fills")] == 7.0
