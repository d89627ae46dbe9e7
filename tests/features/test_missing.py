"""What is not known is NaN, never zero: in exactly the columns that the catalogue says depend on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from features import catalog
from features.events import (
    ACCOUNT,
    ASSET,
    ASSET_PRICE,
    BALANCE,
    BAR,
    BOOK,
    DEFAULT,
    FILL,
    FUNDING,
    LEVEL,
    MARKET,
    POSITION,
    SNAPSHOT,
    TIER,
    TRANSFER,
)
from tests.features import streams
from tests.features.streams import HOUR, MINUTE, NAN, SECOND, START, Row

TIERS = [(5_000.0, 0.1, 0.05), (math.inf, 0.2, 0.1)]
LEVELS = [(10.0, 4_000.0, 3_000.0), (100.0, 50_000.0, 40_000.0)]
CHANGES = (1.0, 1.01, 0.995, 1.02, 1.0)
NOW = START + 4 * HOUR
ETH = 2
"""An asset that no position hedges."""


def history(
    isolated: bool = False,
    without: Callable[[Row], bool] = lambda row: False,
    entry: float = 105.0,
    interest: float = 1e6,
    index: float = 1.0,
    volume: float = 1e4,
    orders: float = 2.0,
    owner: int = 0,
    balances: tuple[tuple[int, float], ...] = ((0, 900.0), (ETH, 20.0)),
    isolated_collateral: float = 300.0,
) -> list[Row]:
    """An account long in one market and short in another, of which everything is known, less some rows.

    It pays in and trades at the start, is confirmed by a snapshot a minute later, and then watched by sweeps
    for four hours. `index` is the index over the mark.
    """
    rows = [*streams.market_rows(START, 0, TIERS), *streams.market_rows(START, 1, TIERS)]
    rows += [Row(ASSET, START, key, -1, streams.WEIGHTS[key]) for key in (0, ETH)]
    for hour, change in enumerate(CHANGES):
        time = START + hour * HOUR
        marks = (100.0 * change, 20.0 / change)
        rows.append(Row(ASSET_PRICE, time, ETH, -1, (30.0 * change,)))
        rows += [
            streams.bar(time, key, mark, interest, index * mark, volume) for key, mark in enumerate(marks)
        ]
        for key, mark in enumerate(marks):
            rows += streams.book_rows(time, key, mark - 0.01, mark + 0.01, LEVELS)
            rows.append(Row(FUNDING, time, key, -1, (0.0001,)))
        if hour == 0:
            rows += [streams.account_row(time, 0, owner, isolated), streams.account_row(time, 1)]
            rows += [streams.transfer(time, 0, 1_500.0), streams.transfer(time, 0, -10.0)]
            rows += [streams.fill(time, 0, 0, 10.0, 105.0), streams.fill(time, 0, 1, -40.0, 19.0)]
            time += MINUTE
            rows += streams.snapshot_rows(
                time, 0, 1_500.0,
                [(0, 10.0, entry, -1_050.0, isolated_collateral), (1, -40.0, 19.0, 760.0, 300.0)],
                balances, orders,
            )  # fmt: skip
            rows.append(streams.default(time, 1))
    return [row for row in rows if not without(row)]


def unknown(rows: list[Row]) -> set[str]:
    """Features that are NaN."""
    found = streams.vector(streams.after(rows))
    return {name for name in catalog.NAMES if math.isnan(found[name])}


def needing(*sources: str) -> set[str]:
    """Features that the catalogue says need one of these."""
    known = {source for feature in catalog.FEATURES for source in feature.sources}
    assert set(sources) <= known
    return {f.name for f in catalog.FEATURES if set(sources) & set(f.sources)}


def of(*kinds: int, key: int = 0) -> Callable[[Row], bool]:
    return lambda row: row.kind in kinds and row.key == key


def any_of(*kinds: int) -> Callable[[Row], bool]:
    return lambda row: row.kind in kinds


@pytest.mark.parametrize("isolated", [False, True])
def test_all_is_known_where_nothing_is_missing(isolated: bool) -> None:
    found = streams.vector(streams.after(history(isolated)))
    assert {name for name, value in found.items() if not math.isfinite(value)} == {
        "FIGURE_INITIAL_IN_FORCE", "FIGURE_MAINTENANCE_IN_FORCE"
    }  # fmt: skip


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(
    ("source", "without", "changed"),
    [
        ("funding", of(FUNDING), {}),
        ("book_depth", of(BOOK, LEVEL), {}),
        ("markets", of(MARKET, TIER, key=1), {}),
        ("market_bars", of(BAR), {}),
        ("fills", any_of(FILL), {}),
        ("transfers", any_of(TRANSFER), {}),
        ("default_events", any_of(DEFAULT), {}),
        ("default_events or fills", any_of(DEFAULT, FILL), {}),
        ("accounts", of(ACCOUNT), {}),
        ("entry prices", None, {"entry": NAN}),
        ("open_interest_usd", None, {"interest": NAN}),
        ("volume_usd", None, {"volume": NAN}),
        ("index_close", None, {"index": NAN}),
        ("open_orders", None, {"orders": NAN}),
        ("owner_id", None, {"owner": -1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_a_source_exactly_what_names_it_is_unknown(
    source: str, without: Callable[[Row], bool] | None, changed: dict[str, float], isolated: bool
) -> None:
    rows = history(isolated, without or (lambda row: False), **changed)
    expected = needing(source)
    if source == "default_events or fills":
        expected |= needing("default_events", "fills")
    if source == "accounts":
        expected |= needing("owner_id")
        if isolated:  # an account of which nothing is said is a cross one
            return
    assert unknown(rows) == expected


def test_without_rows_of_an_account_there_is_nothing_to_say() -> None:
    rows = history(without=lambda row: row.key == 0 and row.kind in (FILL, SNAPSHOT, POSITION, BALANCE))
    assert streams.vector(streams.after(rows)) == {}


def test_what_sweeps_see_is_unknown_until_one_has_looked() -> None:
    """Pressure, owners, the venue's regime and what an account lived through: nothing is made up for them."""
    rows = [row for row in history() if row.time_us <= START + MINUTE]
    rows += [row._replace(time_us=START + 40 * SECOND) for row in rows if row.kind in (BAR, ASSET_PRICE)]
    rows += [
        streams.bar(START + 50 * SECOND, key, mark, 1e6, mark, 1e4) for key, mark in ((0, 101.0), (1, 19.9))
    ]
    rows.sort(key=lambda row: (row.time_us, row.kind if row.kind < SNAPSHOT else SNAPSHOT))
    before = unknown(rows)
    of_sweeps = {
        feature.name
        for feature in catalog.FEATURES
        if feature.family in ("liquidation pressure", "linked accounts", "regime")
    } | {"drawdown", "equity_change", "lowest_margin_ratio", "rescues"}
    assert before >= of_sweeps
    swept = [*rows, streams.bar(START + 16 * MINUTE, 0, 102.0, 1e6, 102.0, 1e4)]
    assert not unknown(swept) & of_sweeps


@pytest.mark.parametrize("age", [HOUR, HOUR + 1])
def test_depth_is_known_for_an_hour(age: int) -> None:
    rows = [*history(), streams.transfer(NOW + age, 1, 1.0)]
    assert unknown(rows) == (set() if age == HOUR else needing("book_depth") - {"book_age_s"})


@pytest.mark.parametrize(("ask", "is_known"), [(99.995, True), (99.99, True), (99.985, False)])
def test_a_crossed_book_says_nothing(ask: float, is_known: bool) -> None:
    rows = [*history(), *streams.book_rows(NOW + MINUTE, 0, 99.99, ask, LEVELS)]
    assert unknown(rows) == (set() if is_known else needing("book_depth") - {"book_age_s"})


def test_a_book_without_levels_has_a_spread_and_no_depth() -> None:
    rows = [*history(), *streams.book_rows(NOW + MINUTE, 0, 99.9, 100.1)]
    assert unknown(rows) == needing("book_depth") - {"spread_bps", "spread_change", "book_age_s"}


def test_volatility_is_unknown_before_the_second_bar_and_jumps_before_the_third() -> None:
    unmoved = {"stress_market_over_buffer", "stress_single_over_buffer", "jump_hazard_24h"}
    volatility = {f.name for f in catalog.FEATURES if f.family == "volatility"} - unmoved
    # what a bar tells of is the time since the one before; the prior is what the regime is measured by
    others = {"position_over_volume", "ignition_over_sigma", "effective_buffer_over_sigma", *needing_regime()}
    later = [START + hour * HOUR for hour in range(1, 5)]
    assert (
        unknown(history(without=lambda row: row.kind == BAR and row.time_us in later)) == volatility | others
    )
    later = later[1:]
    assert unknown(history(without=lambda row: row.kind == BAR and row.time_us in later)) == {"jump_share"}


def needing_regime() -> set[str]:
    return {f.name for f in catalog.FEATURES if f.family == "regime"}


OF_MARKETS = {
    "concentration", "long_share", "basis_against", "funding_against_day", "jump_share", "spread_bps",
    "slippage_to_close_bps", "position_over_depth", "position_over_depth_25bps", "position_over_depth_2pct",
    "slippage_quarter_bps", "slippage_double_bps", "depth_imbalance", "depth_change", "spread_change",
    "position_over_open_interest", "position_over_volume", "open_interest_change",
    "cushion_over_closing_cost", "prior_severity",
    "pressure_1pct", "pressure_3pct", "pressure_10pct", "pressure_opposite_3pct", "forced_over_open_interest",
    "ignition_over_sigma", "book_age_s", "funding_age_s", "mark_age_s",
}  # fmt: skip
"""What does not depend on how much an account is worth."""

OF_ACCOUNTS = {
    "fills", "loss_streak", "holding_hours", "past_liquidations", "hours_since_liquidation", "open_orders",
    "account_age", "owner_accounts", "account_age_s",
}  # fmt: skip


def test_an_asset_without_a_price_hides_what_it_is_worth_and_how_it_moves() -> None:
    # the snapshot's equity was partly in an asset of unknown worth, and nothing later can tell how much
    found = unknown(history(without=of(ASSET_PRICE, key=ETH)))
    assert found == set(catalog.NAMES) - OF_MARKETS - OF_ACCOUNTS
    # an asset that is not held is not missed
    assert unknown(history(without=of(ASSET_PRICE, key=ETH), balances=((0, 900.0), (ETH, 0.0)))) == set()


def test_an_asset_without_weights_hides_the_collateral_and_not_the_equity() -> None:
    found = unknown(history(without=of(ASSET, key=ETH)))
    of_equity = {
        "effective_leverage", "net_leverage", "funding_carry_day", "unrealised_return", "log_equity",
        "turnover", "added_to_losers", "paid_in", "paid_out", "asset_price_age_s",
    }  # fmt: skip
    assert found == set(catalog.NAMES) - OF_MARKETS - OF_ACCOUNTS - of_equity


def test_a_dollar_needs_no_price_and_does_not_move() -> None:
    with_dollars = streams.vector(streams.after(history(balances=((0, 900.0),))))
    without = streams.vector(streams.after(history(balances=())))
    assert streams.same(with_dollars, without) == []


def test_an_isolated_pool_of_unknown_collateral_may_be_the_worst() -> None:
    found = unknown(history(isolated=True, isolated_collateral=NAN))
    known = {
        "portfolio_sigma_day", "volatility_trend", "undiversified_share", "volatile_collateral_share",
        "asset_price_age_s", "cushion_hazard_1h",
    }  # fmt: skip
    assert found == set(catalog.NAMES) - OF_MARKETS - OF_ACCOUNTS - known


def test_equity_of_a_snapshot_taken_before_the_first_mark_stays_unknown_until_the_next() -> None:
    rows = streams.market_rows(START, 0, TIERS)
    rows += streams.snapshot_rows(START, 0, 500.0, [(0, 10.0, 100.0, NAN, NAN)])
    rows += [streams.bar(START + hour * HOUR, 0, 100.0 + hour, 1e6) for hour in (1, 2, 3)]
    found = streams.vector(streams.after(rows))
    assert math.isnan(found["EQUITY_USD"])
    assert found["GROSS_NOTIONAL_USD"] == 1_030.0
    rows += streams.snapshot_rows(START + 3 * HOUR, 0, 530.0, [(0, 10.0, 100.0, NAN, NAN)])
    assert streams.vector(streams.after(rows))["EQUITY_USD"] == 530.0


def test_a_position_of_nothing_needs_no_mark() -> None:
    """A row of quantity 0 holds unsettled profit only, and that is in the equity."""
    rows = [
        *history(),
        *streams.snapshot_rows(NOW, 0, 1_500.0, [(0, 10.0, 105.0, NAN, NAN), (2, 0.0, NAN, 7.0, NAN)]),
    ]
    found = streams.vector(streams.after(rows))
    assert found["EQUITY_USD"] == 1_500.0
    assert found["OPEN_POSITIONS"] == 1.0
    assert unknown(rows) == set()


def test_the_price_of_a_dollar_outlives_its_terms() -> None:
    rows = [*history(), Row(ASSET_PRICE, NOW + MINUTE, 0, -1, (0.5,))]
    lost = streams.vector(streams.after(rows))["EQUITY_USD"]
    assert lost == streams.vector(streams.after(history()))["EQUITY_USD"] - 0.5 * 900.0
    rows.append(Row(ASSET, NOW + 2 * MINUTE, 0, -1, (1.0, 1.0)))
    assert streams.vector(streams.after(rows))["EQUITY_USD"] == lost
