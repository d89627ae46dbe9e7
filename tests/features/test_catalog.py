from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from features import catalog, emit
from features.catalog import FEATURES, NAMES, Feature
from features.events import ASSET, ASSET_PRICE, FUNDING, RATE
from features.structural import logit, mixed_first_passage
from tests.features import streams
from tests.features.streams import HOUR, NAN, START, Row

NOW = START + HOUR


def test_names_are_unique_and_as_many_as_columns() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(FEATURES) == emit.FEATURES
    assert [catalog.index(name) for name in NAMES] == list(range(emit.FEATURES))
    assert set(catalog.PRIOR_HAZARDS) <= set(NAMES)


def test_each_family_has_at_least_six() -> None:
    for family in ("leverage", "volatility", "order book"):
        assert sum(feature.family == family for feature in FEATURES) >= 6


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
# holds 2 SOL of 50 dollars at a weight of 0.9, so that collateral is 390 and the buffer 320. Two bars an
# hour apart, the second up by 1%: every variance per second is r^2 / 3600, r = log 1.01; SOL never moved.

R = math.log(1.01)
SIGMA_DAY = 1_000.0 * R * math.sqrt(24.0)
SLOW_DAY = 1_000.0 * math.sqrt((R * R * 24.0) ** 0.3 * (1.0 / 365.0) ** 0.7)


def by_hand() -> list[Row]:
    tiers = [(600.0, 0.1, 0.05), (math.inf, 0.2, 0.1)]
    return [
        *streams.market_rows(START, 0, tiers, lot=0.1, fee=0.01),
        Row(ASSET, START, 1, -1, (0.9, 1.1)),
        Row(ASSET_PRICE, START, 1, -1, (50.0,)),
        streams.bar(START, 0, 100.0 / 1.01, 1e5),
        Row(ASSET_PRICE, NOW, 1, -1, (50.0,)),
        streams.bar(NOW, 0, 100.0, 4_000.0),
        # within 10 bp 500 bid and 700 asked, within 200 bp 4,300 and 1,650
        *streams.book_rows(NOW, 0, 99.95, 100.05, [(10.0, 500.0, 700.0), (200.0, 4_300.0, 1_650.0)]),
        Row(FUNDING, NOW, 0, -1, (0.0002,)),
        Row(RATE, NOW, 0, -1, (0.17, 0.08)),
        *streams.snapshot_rows(NOW, 0, 400.0, [(0, 10.0, 96.0, NAN, NAN)], [(1, 2.0)]),
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
}

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
}


def test_every_column_is_in_its_place() -> None:
    found = streams.vector(streams.after(by_hand()))
    for name, value in (FEATURES_BY_HAND | FIGURES_BY_HAND).items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name
    rest = set(NAMES) - FEATURES_BY_HAND.keys()
    assert rest == {"jump_share", *catalog.PRIOR_HAZARDS}
    assert math.isnan(found["jump_share"])


def test_the_prior_hazards_are_in_their_places() -> None:
    """First within an hour, then from one to eight hours, then to a day; all at the slow volatility."""
    found = streams.vector(streams.after(by_hand()))
    day = found["buffer_over_sigma_slow"]
    by_1h, by_8h, by_24h = (mixed_first_passage(day * math.sqrt(24 / hours)) for hours in (1, 8, 24))
    assert found["prior_hazard_1h"] == pytest.approx(logit(by_1h), rel=1e-9)
    assert found["prior_hazard_8h"] == pytest.approx(logit((by_8h - by_1h) / (1 - by_1h)), rel=1e-6)
    assert found["prior_hazard_24h"] == pytest.approx(logit((by_24h - by_8h) / (1 - by_8h)), rel=1e-9)


def test_a_short_is_the_mirror_of_a_long() -> None:
    """Its book is the other side's, its liquidation lies above, it receives what a long pays."""
    rows = by_hand()[:-3]  # without the snapshot
    rows += streams.snapshot_rows(NOW, 0, 400.0, [(0, -10.0, 104.0, NAN, NAN)], [(1, 2.0)])
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
