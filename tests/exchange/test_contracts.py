from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange.contracts import MAX_TIERS, MarginTier, Market, tier_arrays, tiered_margin_usd
from exchange.errors import InputError
from tests.exchange.strategies import law, market_of, schedules
from tests.oracle import exchange_oracle as oracle

notionals = st.just(0.0) | st.floats(1e-6, 1e9)


def initial_and_maintenance(tiers: tuple[MarginTier, ...], notional_usd: float) -> tuple[float, float]:
    market = market_of(tiers)
    return market.initial_margin_usd(notional_usd), market.maintenance_margin_usd(notional_usd)


def slack(notional_usd: float, tiers: tuple[MarginTier, ...]) -> float:
    """Rounding of notional * rate at its largest."""
    return 8 * math.ulp(notional_usd * tiers[-1].initial_margin_rate)


# ---- laws


@law
@given(schedules(), notionals)
def test_margin_is_what_adding_up_the_tiers_gives(tiers: tuple[MarginTier, ...], notional: float) -> None:
    initial, maintenance = initial_and_maintenance(tiers, notional)
    wanted_initial = oracle.margin(notional, [(t.notional_cap_usd, t.initial_margin_rate) for t in tiers])
    wanted = oracle.margin(notional, [(t.notional_cap_usd, t.maintenance_margin_rate) for t in tiers])
    assert initial == pytest.approx(float(wanted_initial), rel=1e-10, abs=1e-300)
    assert maintenance == pytest.approx(float(wanted), rel=1e-10, abs=1e-300)


@law
@given(schedules())
def test_margin_has_no_jump_where_a_tier_begins(tiers: tuple[MarginTier, ...]) -> None:
    for tier in tiers[:-1]:
        edge = tier.notional_cap_usd
        below = initial_and_maintenance(tiers, math.nextafter(edge, 0.0))
        at = initial_and_maintenance(tiers, edge)
        for before, after in zip(below, at, strict=True):
            assert abs(after - before) <= slack(edge, tiers)


@law
@given(schedules(), st.floats(-1.0, 1.0) | st.floats(-1e-6, 1e-6))
def test_the_next_rate_applies_from_the_edge_on(tiers: tuple[MarginTier, ...], dollars: float) -> None:
    """Just beyond an edge each dollar pays the next rate, just before it this one: not a dollar later."""
    for tier, following in pairwise(tiers):
        edge = tier.notional_cap_usd
        rate = following.maintenance_margin_rate if dollars > 0 else tier.maintenance_margin_rate
        at, near = (initial_and_maintenance(tiers, edge + step)[1] for step in (0.0, dollars))
        # dollars as they are after rounding; other edges lie at least a dollar away
        assert near - at == pytest.approx(((edge + dollars) - edge) * rate, abs=3 * slack(edge, tiers))


@law
@given(schedules(), notionals, notionals)
def test_a_larger_position_never_needs_less(tiers: tuple[MarginTier, ...], one: float, two: float) -> None:
    small, large = sorted((one, two))
    for less, more in zip(
        initial_and_maintenance(tiers, small), initial_and_maintenance(tiers, large), strict=True
    ):
        assert more >= less - slack(large, tiers)


@law
@given(schedules(), notionals)
def test_initial_margin_is_never_below_maintenance(tiers: tuple[MarginTier, ...], notional: float) -> None:
    initial, maintenance = initial_and_maintenance(tiers, notional)
    assert initial >= maintenance - slack(notional, tiers)


@law
@given(schedules(), notionals)
def test_shorts_need_what_longs_need(tiers: tuple[MarginTier, ...], notional: float) -> None:
    assert initial_and_maintenance(tiers, notional) == initial_and_maintenance(tiers, -notional)


@law
@given(schedules(), notionals)
def test_the_average_rate_lies_between_the_first_and_the_last(
    tiers: tuple[MarginTier, ...], notional: float
) -> None:
    assume(notional > 0.0)
    _, maintenance = initial_and_maintenance(tiers, notional)
    low, high = tiers[0].maintenance_margin_rate, tiers[-1].maintenance_margin_rate
    assert low * (1 - 1e-9) <= maintenance / notional <= high * (1 + 1e-9)


@law
@given(schedules(), notionals, st.sampled_from((0.5, 4.0, 1024.0)))
def test_money_has_no_scale(tiers: tuple[MarginTier, ...], notional: float, factor: float) -> None:
    """In another unit of money (a power of two: exact) every figure is the same number of units."""
    in_other_unit = tuple(
        MarginTier(t.notional_cap_usd * factor, t.initial_margin_rate, t.maintenance_margin_rate)
        for t in tiers
    )
    margins = initial_and_maintenance(tiers, notional)
    assert initial_and_maintenance(in_other_unit, notional * factor) == tuple(m * factor for m in margins)


@law
@given(schedules(max_tiers=1), notionals)
def test_one_tier_is_a_plain_rate(tiers: tuple[MarginTier, ...], notional: float) -> None:
    assert initial_and_maintenance(tiers, notional)[1] == notional * tiers[0].maintenance_margin_rate


@law
@given(schedules(), notionals)
def test_cutting_a_tier_in_two_changes_nothing(tiers: tuple[MarginTier, ...], notional: float) -> None:
    first = tiers[0]
    cut = MarginTier(
        min(first.notional_cap_usd, 1e8) / 2, first.initial_margin_rate, first.maintenance_margin_rate
    )
    assert initial_and_maintenance((cut, *tiers), notional) == pytest.approx(
        initial_and_maintenance(tiers, notional), rel=1e-12
    )


# ---- the arrays


def test_arrays_hold_the_schedule_and_repeat_its_last_tier() -> None:
    tiers = (MarginTier(1_000.0, 0.1, 0.05), MarginTier(5_000.0, 0.2, 0.1))
    arrays = tier_arrays(tiers)
    assert all(column.shape == (MAX_TIERS,) and column.dtype == np.float64 for column in arrays)
    np.testing.assert_array_equal(arrays.floor_usd, [0.0, 1_000.0] + [math.inf] * (MAX_TIERS - 2))
    np.testing.assert_array_equal(arrays.initial_rate, [0.1] + [0.2] * (MAX_TIERS - 1))
    np.testing.assert_array_equal(arrays.maintenance_rate, [0.05] + [0.1] * (MAX_TIERS - 1))
    np.testing.assert_array_equal(arrays.initial_deduction_usd, [0.0] + [100.0] * (MAX_TIERS - 1))
    np.testing.assert_array_equal(arrays.maintenance_deduction_usd, [0.0] + [50.0] * (MAX_TIERS - 1))


def test_the_last_rate_goes_on_beyond_the_last_cap() -> None:
    capped = market_of((MarginTier(1_000.0, 0.1, 0.05), MarginTier(5_000.0, 0.2, 0.1)))
    assert capped.maintenance_margin_usd(10_000.0) == pytest.approx(1_000 * 0.05 + 9_000 * 0.1)


def test_as_many_tiers_as_fit_are_all_used() -> None:
    tiers = tuple(MarginTier(100.0 * (k + 1), 0.01 * (k + 1), 0.005 * (k + 1)) for k in range(MAX_TIERS))
    wanted = oracle.margin(1e6, [(t.notional_cap_usd, t.maintenance_margin_rate) for t in tiers])
    assert market_of(tiers).maintenance_margin_usd(1e6) == pytest.approx(float(wanted), rel=1e-12)


def test_an_unknown_notional_has_an_unknown_margin() -> None:
    arrays = tier_arrays((MarginTier(1_000.0, 0.1, 0.05), MarginTier(math.inf, 0.2, 0.1)))
    margin = tiered_margin_usd(
        math.nan, arrays.floor_usd, arrays.maintenance_rate, arrays.maintenance_deduction_usd
    )
    assert math.isnan(margin)


def test_markets_with_the_same_terms_are_equal() -> None:
    tiers = (MarginTier(math.inf, 0.1, 0.05),)
    assert market_of(tiers) == market_of(tiers)
    assert hash(market_of(tiers)) == hash(market_of(tiers))
    assert market_of(tiers) != market_of((MarginTier(math.inf, 0.1, 0.04),))


# ---- what is refused, and in which words

GOOD = MarginTier(math.inf, 0.1, 0.05)


@pytest.mark.parametrize(
    ("tiers", "says"),
    [
        ((), "1 to 32, not 0"),
        ([GOOD] * (MAX_TIERS + 1), "1 to 32, not 33"),
        ([MarginTier(math.inf, 0.1, 0.2)], r"tier 0: maintenance_margin_rate 0\.2 is above .* 0\.1"),
        ([MarginTier(1e3, 0.1, 0.05), MarginTier(1e3, 0.2, 0.1)], r"tier 1: notional_cap_usd 1000\.0 is not"),
        ([MarginTier(1e3, 0.1, 0.05), MarginTier(5e2, 0.2, 0.1)], r"tier 1: notional_cap_usd 500\.0 is not"),
        ([GOOD, GOOD], "tier 1: the tier before it has no notional_cap_usd"),
        ([MarginTier(1e3, 0.1, 0.05), MarginTier(2e3, 0.05, 0.05)], r"tier 1: .* 0\.05.* fall below .* 0\.1"),
        ([MarginTier(1e3, 0.1, 0.05), MarginTier(2e3, 0.1, 0.04)], r"tier 1: .* 0\.04 fall below .* 0\.05"),
        ([MarginTier(0.0, 0.1, 0.05)], r"tier 0: notional_cap_usd .* above 0, not 0\.0"),
        ([MarginTier(-5.0, 0.1, 0.05)], r"tier 0: notional_cap_usd .* not -5\.0"),
        ([MarginTier(math.nan, 0.1, 0.05)], "tier 0: notional_cap_usd .* not nan"),
        ([MarginTier(math.inf, math.nan, 0.05)], "tier 0: initial_margin_rate .* not nan"),
        ([MarginTier(math.inf, math.inf, 0.05)], "tier 0: initial_margin_rate .* not inf"),
        ([MarginTier(math.inf, 0.1, -0.05)], r"tier 0: maintenance_margin_rate .* not -0\.05"),
        ([MarginTier(math.inf, "10%", 0.05)], "tier 0: initial_margin_rate .* not '10%'"),  # type: ignore[arg-type]
        ([MarginTier(math.inf, 0.1, None)], "tier 0: maintenance_margin_rate .* not None"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_tiers_that_make_no_schedule_are_refused(tiers: list[MarginTier], says: str) -> None:
    with pytest.raises(InputError, match=says):
        tier_arrays(tiers)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("market", "", "market must be a name, not ''"),
        ("market", 7, "market must be a name, not 7"),
        ("tick_size", 0.0, r"market ETH-PERP: tick_size must be a finite number above 0, not 0\.0"),
        ("tick_size", math.nan, "tick_size .* not nan"),
        ("lot_size", -0.1, r"lot_size .* not -0\.1"),
        ("lot_size", True, "lot_size .* not True"),
        ("taker_fee_rate", math.inf, "taker_fee_rate .* not inf"),
        ("taker_fee_rate", "5bp", "taker_fee_rate .* not '5bp'"),
        ("liquidation_fee_rate", 1.5, r"liquidation_fee_rate .* of at most 1, not 1\.5"),
        ("liquidation_fee_rate", -0.01, r"liquidation_fee_rate .* not -0\.01"),
        ("funding_interval_s", 0, "funding_interval_s .* not 0"),
        ("tiers", (), "market ETH-PERP: tiers must be 1 to 32, not 0"),
    ],
)
def test_terms_out_of_range_are_refused_by_name_and_value(column: str, value: object, says: str) -> None:
    terms: dict[str, Any] = {
        "market": "ETH-PERP",
        "tick_size": 0.01,
        "lot_size": 0.001,
        "taker_fee_rate": 0.0005,
        "liquidation_fee_rate": 0.01,
        "funding_interval_s": 3_600,
        "tiers": (GOOD,),
    }
    Market(**terms)
    with pytest.raises(InputError, match=says):
        Market(**{**terms, column: value})
