"""What is not known is NaN, never zero: in exactly the columns that the catalogue says depend on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from features import catalog
from features.events import ACCOUNT, ASSET, ASSET_PRICE, BAR, FUNDING
from tests.features import streams
from tests.features.streams import HOUR, MINUTE, NAN, START, Row

TIERS = [(5_000.0, 0.1, 0.05), (math.inf, 0.2, 0.1)]
LEVELS = [(10.0, 4_000.0, 3_000.0), (100.0, 50_000.0, 40_000.0)]
CHANGES = (1.0, 1.01, 0.995, 1.02, 1.0)
NOW = START + 4 * HOUR
SOL = 1


def history(
    isolated: bool = False,
    without: Callable[[Row], bool] = lambda row: False,
    entry: float = 105.0,
    interest: float = 1e6,
    balances: tuple[tuple[int, float], ...] = ((0, 900.0), (SOL, 20.0)),
) -> list[Row]:
    """An account long in one market and short in another, of which everything is known, less some rows."""
    rows = [*streams.market_rows(START, 0, TIERS), *streams.market_rows(START, 1, TIERS)]
    rows += [Row(ASSET, START, key, -1, streams.WEIGHTS[key]) for key in (0, SOL)]
    rows += [Row(ACCOUNT, START, 0, -1, (float(START), float(isolated)))]
    for hour, change in enumerate(CHANGES):
        time = START + hour * HOUR
        rows.append(Row(ASSET_PRICE, time, SOL, -1, (30.0 * change,)))
        rows += [
            streams.bar(time, 0, 100.0 * change, interest),
            streams.bar(time, 1, 20.0 / change, interest),
        ]
    for key, mark in ((0, 100.0), (1, 20.0)):
        rows += streams.book_rows(NOW, key, mark - 0.01, mark + 0.01, LEVELS)
        rows.append(Row(FUNDING, NOW, key, -1, (0.0001,)))
    positions = [(0, 10.0, entry, -1_050.0, 300.0), (1, -40.0, 19.0, 760.0, 300.0)]
    rows += streams.snapshot_rows(NOW, 0, 1_500.0, positions, balances)
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


@pytest.mark.parametrize("isolated", [False, True])
def test_all_is_known_where_nothing_is_missing(isolated: bool) -> None:
    found = streams.vector(streams.after(history(isolated)))
    assert {name for name, value in found.items() if not math.isfinite(value)} == {
        "FIGURE_INITIAL_IN_FORCE", "FIGURE_MAINTENANCE_IN_FORCE"
    }  # fmt: skip


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("funding", history(without=of(FUNDING))),
        ("book_depth", history(without=lambda row: row.kind in (5, 6) and row.key == 0)),
        ("markets", history(without=lambda row: row.kind in (0, 1) and row.key == 1)),
        ("market_bars", history(without=of(BAR))),
        ("entry prices", history(entry=NAN)),
        ("open_interest_usd", history(interest=NAN)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_a_source_exactly_what_names_it_is_unknown(
    source: str, rows: list[Row], isolated: bool
) -> None:
    mode = [Row(ACCOUNT, NOW, 0, -1, (float(START), float(isolated)))]
    assert unknown(mode + rows if not isolated else rows[:0] + rows + mode) == needing(source)


def test_every_feature_names_the_account_and_its_marks() -> None:
    assert needing("account_snapshots or fills") == needing("market_bars") == set(catalog.NAMES)
    rows = history(without=lambda row: row.key == 0 and row.kind >= streams.SNAPSHOT)
    assert streams.vector(streams.after(rows)) == {}


@pytest.mark.parametrize("age", [HOUR, HOUR + 1])
def test_depth_is_known_for_an_hour(age: int) -> None:
    rows = [*history(), streams.transfer(NOW + age, 1, 1.0)]
    assert unknown(rows) == (set() if age == HOUR else needing("book_depth"))


@pytest.mark.parametrize(("ask", "is_known"), [(99.995, True), (99.99, True), (99.985, False)])
def test_a_crossed_book_says_nothing(ask: float, is_known: bool) -> None:
    rows = [*history(), *streams.book_rows(NOW + MINUTE, 0, 99.99, ask, LEVELS)]
    assert unknown(rows) == (set() if is_known else needing("book_depth"))


def test_a_book_without_levels_has_a_spread_and_no_depth() -> None:
    rows = [*history(), *streams.book_rows(NOW + MINUTE, 0, 99.9, 100.1)]
    assert unknown(rows) == needing("book_depth") - {"spread_bps"}


def test_volatility_is_unknown_before_the_second_bar_and_jumps_before_the_third() -> None:
    volatility = {f.name for f in catalog.FEATURES if f.family == "volatility"}
    later = [START + hour * HOUR for hour in range(1, 5)]
    assert unknown(history(without=lambda row: row.kind == BAR and row.time_us in later)) == volatility
    later = later[1:]
    assert unknown(history(without=lambda row: row.kind == BAR and row.time_us in later)) == {"jump_share"}


def test_an_asset_without_a_price_hides_what_it_is_worth_and_how_it_moves() -> None:
    found = unknown(history(without=of(ASSET_PRICE, key=SOL)))
    # the snapshot's equity was partly in an asset of unknown worth, and nothing later can tell how much
    known = {"concentration", "unrealised_return"}
    assert "effective_leverage" in found
    assert {"portfolio_sigma_day", "volatility_trend", "undiversified_share"} <= found
    of_markets = {
        "spread_bps",
        "slippage_to_close_bps",
        "position_over_depth",
        "depth_imbalance",
        "jump_share",
    }
    assert not found & (of_markets | known - {"unrealised_return"})
    # an asset that is not held is not missed
    assert unknown(history(without=of(ASSET_PRICE, key=SOL), balances=((0, 900.0), (SOL, 0.0)))) == set()


def test_an_asset_without_weights_hides_the_collateral_and_not_the_equity() -> None:
    found = unknown(history(without=of(ASSET, key=SOL)))
    of_positions = needing("funding", "open_interest_usd", "entry prices") | {
        "effective_leverage", "net_leverage", "concentration", "log_equity", "jump_share",
    }  # fmt: skip
    assert found == needing("markets") - {"funding_carry_day"} | {
        "haircut_share", "portfolio_sigma_day", "volatility_trend", "undiversified_share"
    }  # fmt: skip
    assert not found & of_positions


def test_a_dollar_needs_no_price_and_does_not_move() -> None:
    with_dollars = streams.vector(streams.after(history(balances=((0, 900.0),))))
    without = streams.vector(streams.after(history(balances=())))
    assert streams.same(with_dollars, without) == []


def test_an_isolated_pool_of_unknown_collateral_may_be_the_worst() -> None:
    rows = history(isolated=True)
    rows = [
        row._replace(values=(*row.values[:3], NAN)) if row.kind == 13 and row.sub == 1 else row
        for row in rows
    ]
    known = {
        "concentration", "portfolio_sigma_day", "volatility_trend", "jump_share", "undiversified_share",
        "spread_bps", "slippage_to_close_bps", "position_over_depth", "depth_imbalance",
        "position_over_open_interest",
    }  # fmt: skip
    assert unknown(rows) == set(catalog.NAMES) - known


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
    assert lost == 1_500.0 - 0.5 * 900.0
    rows.append(Row(ASSET, NOW + 2 * MINUTE, 0, -1, (1.0, 1.0)))
    assert streams.vector(streams.after(rows))["EQUITY_USD"] == lost
