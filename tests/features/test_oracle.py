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
from tests.oracle.feature_oracle import Answer, Names, Row, answers

RELATIVE = 1e-9
HAZARDS = {*catalog.PRIOR_HAZARDS, "jump_hazard_24h", "bankruptcy_hazard_24h", "cushion_hazard_1h"}
# differences of nearly equal numbers
ABSOLUTE = (
    {feature.name: 1e-10 for feature in catalog.FEATURES if feature.unit.startswith("log")}
    | {"unrealised_return": 1e-10, "jump_share": 1e-10}
    | dict.fromkeys(HAZARDS, 1e-6)
)
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
    expected = answers(rows, streams.names())
    for account, one in expected.items():
        found = streams.vector(venue, account)
        assert set(one.features) == set(catalog.NAMES)
        assert differences(found, one, is_isolated=account % 3 == 1) == [], f"account {account}"
    assert venue.open_vectors().account.tolist() == list(expected)
    return len(expected)


@settings(max_examples=60)
@given(chance=streams.chances, moments=st.integers(0, 12), cut=st.floats(0.01, 1.0))
def test_every_column_is_as_the_oracle_says(chance: Random, moments: int, cut: float) -> None:
    rows = streams.stream(chance, moments)
    compare_at(rows, [math.ceil(cut * len(rows))])


@pytest.mark.parametrize("seed", range(10))
def test_every_column_is_as_the_oracle_says_on_streams_by_seed(seed: int) -> None:
    rows = streams.stream(Random(seed), 40)
    assert compare_at(rows, [len(rows) // 3, 2 * len(rows) // 3]) > 0


@pytest.mark.parametrize("seed", range(1))
def test_two_months_of_uneven_bars_wrap_the_ring_of_hours(seed: int) -> None:
    minute, hour = streams.MINUTE, streams.HOUR
    steps = (minute, 10 * minute, 55 * minute, hour, hour, 3 * hour, 30 * hour)
    rows = streams.stream(Random(seed), 320, steps)
    assert rows[-1].time_us - rows[0].time_us > 45 * streams.DAY
    assert compare_at(rows, [len(rows) // 2]) > 0


@pytest.mark.real_data
def test_real_accounts_are_as_the_oracle_says(drift: Path) -> None:
    """A venue of some of them: what all accounts do together is theirs alone."""
    until_us = 1_668_300_000 * streams.SECOND  # five days
    everybody = Venue()
    rows: list[Row] = []
    for events in event_batches(Dataset.open(drift), until_us, everybody):
        everybody.apply(events)
        columns = (column.tolist() for column in events)
        rows += [Row(*row[:4], tuple(row[4])) for row in zip(*columns, strict=True)]
    opened = everybody.open_vectors().account
    assert len(opened) > 20
    some = set(np.random.default_rng(3).choice(opened, 4, replace=False).tolist())
    rows = [row for row in rows if row.kind < ACCOUNT or row.key in some or row.kind == OBSERVED]
    venue = Venue()
    for role in ("market", "asset", "account", "owner"):
        for name in getattr(everybody, f"{role}_names"):
            getattr(venue, role)(name)
    venue.apply(streams.batch(rows))
    markets, assets = (dict(enumerate(map(about, of))) for of in (venue.market_names, venue.asset_names))
    expected = answers(rows, Names(markets, assets))
    assert some == set(expected)
    for account, one in expected.items():
        assert differences(streams.vector(venue, account), one, is_isolated=False) == []


def about(name: str) -> str:
    """SOL of SOL-PERP and of SOL."""
    return name.removesuffix("-PERP")
