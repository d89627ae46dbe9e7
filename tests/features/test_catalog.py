from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import get_args

import pytest

from features import catalog, emit
from features.catalog import FEATURES, NAMES, Feature
from features.events import ASSET, ASSET_PRICE, FUNDING, OBSERVED, RATE
from features.structural import logit, mixed_first_passage, prior_hazards
from tests.features import streams
from tests.features.streams import DAY, HOUR, MINUTE, NAN, START, Row

NOW = START + HOUR
ETH = 2


def test_names_are_unique_and_as_many_as_columns() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(FEATURES) == emit.FEATURES
    assert [catalog.index(name) for name in NAMES] == list(range(emit.FEATURES))
    assert set(catalog.PRIOR_HAZARDS) <= set(NAMES)


def test_every_family_has_columns() -> None:
    assert {feature.family for feature in FEATURES} == set(get_args(catalog.Family))


@pytest.mark.parametrize("feature", FEATURES, ids=NAMES)
def test_a_feature_is_whole(feature: Feature) -> None:
    assert feature.direction in (-1, 0, 1)
    assert feature.unit and feature.why and feature.sources
    said = feature.words.format(0.1234)
    assert said != feature.words, "the words do not say the value"
    assert "{" not in said


def test_the_fingerprint_covers_what_a_column_means(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {catalog.fingerprint()}
    changes = {
        "name": "other", "unit": "other", "direction": 0, "sources": ("other",), "why": "other",
    }  # fmt: skip
    assert {field.name for field in fields(Feature)} - changes.keys() == {"family", "words"}
    for column, value in changes.items():
        changed = (replace(FEATURES[0], **{column: value}), *FEATURES[1:])
        with monkeypatch.context() as patch:
            patch.setattr(catalog, "FEATURES", changed)
            seen.add(catalog.fingerprint())
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "FEATURES", FEATURES[::-1])
        seen.add(catalog.fingerprint())
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "DEFINITION", catalog.DEFINITION + 1)
        seen.add(catalog.fingerprint())
    assert len(seen) == len(changes) + 3


# ---- one account worked out by hand: each column in its place
#
# Ten contracts long at a mark of 100, bought at 96: notional 1,000, in tiers of 10% and 5% up to 600
# dollars and 20% and 10% above, so that initial margin is 60 + 80 and maintenance 30 + 40. Equity of 400
# holds 2 ETH of 50 dollars at a weight of 0.9, so that collateral is 390 and the buffer 320. Two bars an
# hour apart, the second up by 1%: every variance per second is r^2 / 3600, r = log 1.01; ETH never moved.
# Nobody traded or paid in, and there was no sweep since the account is known.

R = math.log(1.01)
SIGMA_DAY = 1_000.0 * R * math.sqrt(24.0)
SLOW_DAY = 1_000.0 * math.sqrt((R * R * 24.0) ** 0.3 * (1.0 / 365.0) ** 0.7)


def by_hand() -> list[Row]:
    tiers = [(600.0, 0.1, 0.05), (math.inf, 0.2, 0.1)]
    return [
        *streams.market_rows(START, 0, tiers, lot=0.1, fee=0.01),
        Row(ASSET, START, ETH, -1, (0.9, 1.1)),
        Row(ASSET_PRICE, START, ETH, -1, (50.0,)),
        streams.bar(START, 0, 100.0 / 1.01, 1e5, 99.0, 500.0),
        Row(ASSET_PRICE, NOW, ETH, -1, (50.0,)),
        streams.bar(NOW, 0, 100.0, 4_000.0, 99.0, 300.0),
        # within 10 bp 500 bid and 700 asked, within 200 bp 4,300 and 1,650
        *streams.book_rows(NOW, 0, 99.95, 100.05, [(10.0, 500.0, 700.0), (200.0, 4_300.0, 1_650.0)]),
        Row(FUNDING, NOW, 0, -1, (0.0002,)),
        Row(RATE, NOW, 0, -1, (0.17, 0.08)),
        *streams.snapshot_rows(NOW, 0, 400.0, [(0, 10.0, 96.0, NAN, NAN)], [(ETH, 2.0)], orders=3.0),
    ]


FEATURES_BY_HAND = {
    "effective_leverage": 1_000 / 400,
    "net_leverage": 1_000 / 400,
    "margin_ratio": 390 / 70,
    "initial_margin_use": 140 / 390,
    "buffer_over_notional": 320 / 1_000,
    # while the notional is above 600 a dollar that it falls takes 90 cents of the buffer
    "distance_to_liquidation": 0.32 / 0.9,
    "concentration": 1.0,
    "funding_carry_day": 1_000 * 0.0002 * 24 / 400,
    "unrealised_return": 40 / 400,
    "haircut_share": 10 / 400,
    "log_equity": math.log10(400),
    "buffer_over_sigma": 320 / SIGMA_DAY,
    "buffer_over_sigma_1h": 320 / SIGMA_DAY,
    "buffer_over_sigma_6h": 320 / SIGMA_DAY,
    "buffer_over_sigma_48h": 320 / SIGMA_DAY,
    "buffer_over_sigma_har": 320 / SIGMA_DAY,
    "buffer_over_sigma_slow": 320 / SLOW_DAY,
    "portfolio_sigma_day": SIGMA_DAY / 1_000,
    "volatility_trend": 0.0,
    "undiversified_share": 1.0,
    "spread_bps": 10.0,
    # 500 at 5 bp on average, then 500 of the 3,800 between 10 and 200: 25 bp further, 22.5 on average
    "slippage_to_close_bps": (500 * 5.0 + 500 * 22.5) / 1_000,
    "slippage_over_buffer": (500 * 5.0 + 500 * 22.5) / 1e4 / 320,
    "position_over_depth": 1_000 / (500 + 3_800 * 90 / 190),
    "depth_imbalance": (2_300 - 1_150) / (2_300 + 1_150),
    "position_over_open_interest": 1_000 / 4_000,
    "effective_buffer_over_notional": 0.32,
    "cushion_over_closing_cost": 70 / (1.375 + 10),
    # 100,000 dollars: 500, 3,800, and the rest at 21.5 a basis point from 200 on; fee 10, maintenance 70
    "prior_severity": (500 * 5.0 + 3_800 * 105.0 + 95_700 * (200 + 0.5 * 95_700 / 21.5)) / 1e9 + 0.01 - 0.07,
    "long_share": 1.0,
    "volatile_collateral_share": 90 / 100,
    "funding_against_day": 0.0002 * 24,
    "basis_against": 100 / 99 - 1,
    "var_99_over_collateral": 2.3263478740408408 * SIGMA_DAY / 390,
    "shortfall_975_over_collateral": 2.3378027922014 * SIGMA_DAY / 390,
    "stress_market_over_buffer": 0.1 * (1_000 + 90) / 320,
    "stress_sigmas_over_buffer": 3 * SIGMA_DAY / 320,
    "stress_single_over_buffer": 200 / 320,
    "jump_hazard_24h": logit(-math.expm1(-0.25 * (0.32 / 0.9 / 0.03) ** -3)),
    "position_over_depth_25bps": 1_000 / (500 + 3_800 * 15 / 190),
    "position_over_depth_2pct": 1_000 / 4_300,
    "slippage_quarter_bps": 2.5,
    "slippage_double_bps": (500 * 5.0 + 1_500 * (10 + 37.5)) / 2_000,
    "depth_change": 0.0,
    "spread_change": 0.0,
    # 300 dollars in an hour, which counts for a little more than the hours to come
    "position_over_volume": 1_000 / (300 * math.log(2) / (1 - 2 ** (-1 / 24))),
    "open_interest_change": math.log(4_000 / 100_000),
    "pressure_1pct": 0.0,
    "pressure_3pct": 0.0,
    "pressure_10pct": 0.0,
    "pressure_opposite_3pct": 0.0,
    "forced_over_open_interest": 0.0,
    "queue_ahead_over_depth": 0.0,
    "queue_over_open_interest": 0.0,
    "open_orders": 3.0,
    "book_age_s": 0.0,
    "funding_age_s": 0.0,
    "account_age_s": 0.0,
    "asset_price_age_s": 0.0,
    "mark_age_s": 0.0,
}

UNKNOWN_BY_HAND = {
    "jump_share", "ignition_over_sigma", "distance_past_ignition", "turnover", "fills", "added_to_losers",
    "loss_streak", "holding_hours", "paid_in", "paid_out", "rescues", "past_liquidations",
    "hours_since_liquidation", "drawdown", "equity_change", "lowest_margin_ratio", "account_age",
    "owner_accounts", "owner_margin_ratio", "outcome_ratio", "forecast_ratio",
}  # fmt: skip

FIGURES_BY_HAND = {
    "EQUITY_USD": 400.0,
    "COLLATERAL_USD": 390.0,
    "INITIAL_MARGIN_USD": 140.0,
    "MAINTENANCE_MARGIN_USD": 70.0,
    "GROSS_NOTIONAL_USD": 1_000.0,
    "MARGIN_RATIO": 390 / 70,
    "BUFFER_OVER_SIGMA_DAY": 320 / SIGMA_DAY,
    "SIGMA_DAY_USD": SIGMA_DAY,
    "CLOSING_COST_USD": 1.375 + 10.0,
    "STATIC_INITIAL_RATE": 0.14,
    "STATIC_MAINTENANCE_RATE": 0.07,
    "FIGURE_INITIAL_IN_FORCE": 0.17,
    "FIGURE_MAINTENANCE_IN_FORCE": 0.08,
    "MARK_AGE_S": 0.0,
    "OPEN_POSITIONS": 1.0,
    "PRICE_AGE_S": FEATURES_BY_HAND["asset_price_age_s"],
    "BOOK_AGE_S": FEATURES_BY_HAND["book_age_s"],
    "SIGMA_SLOW_DAY_USD": SLOW_DAY,
    "ENTERS": 0.0,
}


def test_every_column_is_in_its_place() -> None:
    found = streams.vector(streams.after(by_hand()))
    for name, value in (FEATURES_BY_HAND | FIGURES_BY_HAND).items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name
    assert {name for name in NAMES if math.isnan(found[name])} == UNKNOWN_BY_HAND


def test_what_follows_from_the_forecast_is_in_its_place() -> None:
    """The volatility of the prior is half-way in logs between the shrunk one and the forecast for a day."""
    found = streams.vector(streams.after(by_hand()))
    ahead_day = 320 / found["buffer_over_sigma_ahead_24h"]
    prior_day = math.sqrt(SLOW_DAY * ahead_day)
    hazards = prior_hazards(320 / prior_day, 390 / 70, 0.0)
    expected = {
        "effective_buffer_over_sigma": 320 / prior_day,
        "equity_over_sigma": 390 / prior_day,
        "bankruptcy_hazard_24h": logit(mixed_first_passage(390 / prior_day)),
        "cushion_hazard_1h": logit(mixed_first_passage((70 - 11.375) / prior_day * math.sqrt(24))),
        **{name: logit(hazard) for name, hazard in zip(catalog.PRIOR_HAZARDS, hazards, strict=True)},
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    near = [found[f"buffer_over_sigma_ahead_{hours}h"] for hours in (1, 8, 24)]
    assert len(set(near)) == 3
    done = expected.keys() | {f"buffer_over_sigma_ahead_{hours}h" for hours in (1, 8, 24)}
    assert done | FEATURES_BY_HAND.keys() | UNKNOWN_BY_HAND == set(NAMES)


# ---- a venue worked out by hand
#
# All are long or short ten contracts at 100 with 5% maintenance margin and 50 dollars of it. A long with a
# buffer of b is closed where the mark has lost d: b = (1 - 5%) 1,000 d. Its log distance is -log(1 - d).


def with_others() -> list[Row]:
    """Longs that fall at 2% and at 8%, a short that falls at 2%, and the account itself, which holds out."""
    rows = streams.market_rows(START, 0, [(math.inf, 0.1, 0.05)], lot=0.1, fee=0.01)
    rows += [streams.bar(START, 0, 100.0 / 1.01, 4_000.0), streams.bar(START + HOUR, 0, 100.0, 4_000.0)]
    levels = [(100.0, 500.0, 400.0), (300.0, 900.0, 800.0), (1_000.0, 3_000.0, 3_000.0)]
    rows += streams.book_rows(START + HOUR, 0, 99.9, 100.1, levels)
    rows += [streams.account_row(START + HOUR, key, owner=0 if key < 2 else 1) for key in range(4)]
    held = ((400.0, 10.0), (69.0, 10.0), (126.0, 10.0), (71.0, -10.0))
    for key, (equity, quantity) in enumerate(held):
        rows += streams.snapshot_rows(START + HOUR, key, equity, [(0, quantity, 100.0, NAN, NAN)])
    return [*rows, Row(OBSERVED, START + HOUR + 15 * MINUTE, -1, -1, ())]


def test_pressure_and_owners_are_in_their_places() -> None:
    found = streams.vector(streams.after(with_others()))
    ignition = 0.025  # 1,000 dollars within 2.5%, where the book has 800; within 2% it has more than none
    expected = {
        "pressure_1pct": 0.0,
        "pressure_3pct": 1_000 / 900,
        "pressure_10pct": 2_000 / 3_000,
        "pressure_opposite_3pct": 1_000 / 800,
        "forced_over_open_interest": 2_000 / 4_000,
        "queue_ahead_over_depth": 2_000 / 3_000,
        "queue_over_open_interest": 2_000 / 4_000,
        "ignition_over_sigma": ignition / (R * math.sqrt(24.0)),
        "distance_past_ignition": 0.24 - ignition,
        "owner_accounts": 2.0,
        "owner_margin_ratio": (400 + 69) / (50 + 50),
        "drawdown": 0.0,
        "equity_change": 0.0,
        "lowest_margin_ratio": 400 / 50,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_pressure_comes_nearer_as_the_mark_does() -> None:
    """Liquidation prices stay where they were until the next sweep; inside a step of 0.5% all is even."""
    rows = [*with_others(), streams.bar(START + HOUR + 16 * MINUTE, 0, 99.0, 4_000.0)]
    found = streams.vector(streams.after(rows))
    moved = math.log(100 / 99)
    assert found["pressure_1pct"] == pytest.approx((moved + 0.01 - 0.02) / 0.005 * 1_000 / 500)
    assert found["distance_past_ignition"] == pytest.approx(0.24 - (0.025 - moved))


def test_behaviour_is_in_its_place() -> None:
    """Half of everything is forgotten in three days; a forced closing in two steps is one."""
    time = START + 3 * DAY
    rows = streams.market_rows(START, 0, [(math.inf, 0.1, 0.05)])
    rows += [streams.account_row(START, 0), streams.bar(START, 0, 100.0), streams.transfer(START, 0, 800.0)]
    rows += [streams.transfer(START, 0, -200.0), streams.fill(START, 0, 0, 10.0, 100.0)]
    rows += [streams.bar(START + 1, 0, 90.0), streams.fill(START + 2, 0, 0, 2.0, 90.0)]  # adds to a loser
    rows += [streams.fill(START + 3, 0, 0, -1.0, 90.0), streams.fill(START + 4, 0, 0, -1.0, 90.0, kind=1.0)]
    rows += [streams.default(START + 5, 0), streams.bar(time, 0, 90.0)]
    found = streams.vector(streams.after(rows))
    equity = 600 + 10 * -10
    expected = {
        "turnover": (1_000 + 180 + 180) / 2 / equity,
        "fills": 4 / 2,
        "added_to_losers": 180 / 2 / equity,
        "loss_streak": 2.0,
        "holding_hours": math.log10(72),
        "paid_in": 800 / 2 / equity,
        "paid_out": 200 / 2 / equity,
        "rescues": 0.0,
        "past_liquidations": 1 / 2,
        "hours_since_liquidation": 72.0,
        "account_age": math.log10(3),
        "account_age_s": 3 * 86_400.0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name
    # a deposit while less than twice the margin of 45 dollars is there
    rows += [streams.transfer(time, 0, -430.0), streams.bar(time + HOUR, 0, 90.0)]
    rows += [streams.transfer(time + HOUR, 0, 10.0)]
    assert streams.vector(streams.after(rows))["rescues"] == 1.0


def test_what_an_account_survived_counts_twice() -> None:
    """Below maintenance by 20 dollars at a sweep and still there; a trade begins anew."""
    rows = with_others()[:-1]
    rows += streams.snapshot_rows(START + HOUR, 0, 30.0, [(0, 10.0, 100.0, NAN, NAN)])
    swept = [*rows, Row(OBSERVED, START + HOUR + 15 * MINUTE, -1, -1, ())]
    for given, expected in ((rows, -0.02), (swept, -0.02 + 0.04)):
        found = streams.vector(streams.after(given))
        assert found["effective_buffer_over_notional"] == pytest.approx(expected)
    swept += [streams.fill(START + HOUR + 15 * MINUTE, 0, 0, -0.1, 100.0)]
    assert streams.vector(streams.after(swept))["effective_buffer_over_notional"] < 0.0


def test_a_short_is_the_mirror_of_a_long() -> None:
    """Its book is the other side's, its liquidation lies above, it receives what a long pays."""
    rows = by_hand()[:-3]  # without the snapshot
    rows += streams.snapshot_rows(NOW, 0, 400.0, [(0, -10.0, 104.0, NAN, NAN)], [(ETH, 2.0)])
    found = streams.vector(streams.after(rows))
    mirrored = {
        "net_leverage": 1_000 / 400,
        "distance_to_liquidation": 0.32 / 1.1,
        "funding_carry_day": -1_000 * 0.0002 * 24 / 400,
        "unrealised_return": 40 / 400,
        "position_over_depth": 1_000 / 1_150,
        "depth_imbalance": -(2_300 - 1_150) / (2_300 + 1_150),
        # 700 at 5 bp, then 300 of the 950 between 10 and 200: 60 bp further, 40 on average
        "slippage_to_close_bps": (700 * 5.0 + 300 * 40.0) / 1_000,
    }
    for name, value in mirrored.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
