"""The compiled venue against the slow and obvious one, feature by feature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import catalog
from features.events import ACCOUNT, OBSERVED
from features.venue import Venue
from pipelines.events import event_batches
from pipelines.store import Dataset
from tests.features import streams
from tests.oracle.feature_oracle import Answer, Row, answer

RELATIVE = 1e-9
ABSOLUTE = dict.fromkeys(catalog.PRIOR_HAZARDS, 1e-6) | {
    # differences of nearly equal numbers
    "unrealised_return": 1e-10,
    "jump_share": 1e-10,
    "volatility_trend": 1e-10,
}
OVER_EQUITY = {
    "effective_leverage", "net_leverage", "funding_carry_day", "unrealised_return", "haircut_share",
    "log_equity",
}  # fmt: skip
OVER_COLLATERAL = {"initial_margin_use", "margin_ratio", "MARGIN_RATIO"}
OVER_BUFFER = {
    "distance_to_liquidation", "slippage_over_buffer", "buffer_over_notional", "BUFFER_OVER_SIGMA_DAY",
    *catalog.PRIOR_HAZARDS, *(name for name in catalog.NAMES if name.startswith("buffer_over_sigma")),
}  # fmt: skip


def on_an_edge(expected: Answer) -> set[str]:
    """Columns that rounding alone decides: what they divide by is all but zero."""
    least = 1e-5 * expected.moved_usd
    figures = expected.figures
    edge: set[str] = set()
    if abs(figures["EQUITY_USD"]) < least:
        edge |= OVER_EQUITY
    if abs(figures["COLLATERAL_USD"]) < least:
        edge |= OVER_COLLATERAL
    if abs(figures["COLLATERAL_USD"] - figures["MAINTENANCE_MARGIN_USD"]) < least:
        edge |= OVER_BUFFER
    return edge


def differences(found: dict[str, float], expected: Answer, is_isolated: bool) -> list[str]:
    """What is not as the oracle says, one line a column."""
    wrong = []
    edge = on_an_edge(expected)
    if is_isolated and abs(expected.features["distance_to_liquidation"]) < 1e-9:
        edge |= OVER_COLLATERAL | OVER_BUFFER  # one pool may be on the edge where their sum is not
    dollars = max(expected.moved_usd, expected.figures["GROSS_NOTIONAL_USD"])
    for name, value in (expected.features | expected.figures).items():
        if math.isnan(value) != math.isnan(found[name]):
            wrong.append(f"{name}: {found[name]!r}, not {value!r}")
        elif not math.isnan(value) and name not in edge:
            least = 1e-12 * dollars if name.endswith("_USD") else ABSOLUTE.get(name, 1e-13)
            if abs(value - found[name]) > RELATIVE * abs(value) + least:
                wrong.append(f"{name}: {found[name]!r}, not {value!r}")
    return wrong


def compare_at(rows: Sequence[Row], cuts: Sequence[int]) -> int:
    """Hold every account at each of these numbers of rows against the oracle; how many were open."""
    venue = streams.venue()
    events = streams.batch(rows)
    start = compared = 0
    for cut in [*cuts, len(rows)]:
        until_us = rows[cut - 1].time_us
        start = venue.apply(events, start, until_us)
        assert start == len(rows) or rows[start].time_us > until_us
        compared += compare(venue, rows[:start])
    return compared


def compare(venue: Venue, rows: Sequence[Row]) -> int:
    vectors = venue.open_vectors()
    opened = []
    for account in range(streams.ACCOUNTS):
        expected = answer(rows, account)
        if expected is None:
            continue
        opened.append(account)
        found = streams.vector(venue, account)
        assert differences(found, expected, is_isolated=account % 2 == 1) == [], f"account {account}"
    assert vectors.account.tolist() == opened
    return len(opened)


@settings(max_examples=100)
@given(chance=streams.chances, moments=st.integers(0, 12), cut=st.floats(0.01, 1.0))
def test_every_column_is_as_the_oracle_says(chance: Random, moments: int, cut: float) -> None:
    rows = streams.stream(chance, moments)
    compare_at(rows, [math.ceil(cut * len(rows))])


@pytest.mark.parametrize("seed", range(40))
def test_every_column_is_as_the_oracle_says_on_streams_by_seed(seed: int) -> None:
    rows = streams.stream(Random(seed), 40)
    assert compare_at(rows, [len(rows) // 3, 2 * len(rows) // 3]) > 0


@pytest.mark.parametrize("seed", range(3))
def test_two_months_of_uneven_bars_wrap_the_ring_of_hours(seed: int) -> None:
    minute, hour = streams.MINUTE, streams.HOUR
    steps = (minute, 10 * minute, 55 * minute, hour, hour, 3 * hour, 30 * hour)
    rows = streams.stream(Random(seed), 320, steps)
    assert rows[-1].time_us - rows[0].time_us > 45 * streams.DAY
    assert compare_at(rows, [len(rows) // 2]) > 0


@pytest.mark.real_data
def test_real_accounts_are_as_the_oracle_says(drift: Path) -> None:
    until_us = 1_670_500_000 * streams.SECOND  # 8 December 2022: all of November, and two new markets
    venue = Venue()
    rows: list[Row] = []
    for events in event_batches(Dataset.open(drift), until_us, venue):
        venue.apply(events)
        columns = (column.tolist() for column in events)
        rows += [Row(*row[:4], tuple(row[4])) for row in zip(*columns, strict=True)]
    opened = venue.open_vectors().account
    assert len(opened) > 100
    of_markets = [row for row in rows if row.kind < ACCOUNT]
    now = Row(OBSERVED, venue.now_us, -1, -1, ())
    for account in np.random.default_rng(3).choice(opened, 12, replace=False).tolist():
        of_account = [row for row in rows if row.kind >= ACCOUNT and row.key == account]
        history = sorted([*of_markets, *of_account, now], key=lambda row: (row.time_us, row.kind))
        expected = answer(history, account)
        assert expected is not None
        assert differences(streams.vector(venue, account), expected, is_isolated=False) == []
