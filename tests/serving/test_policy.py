"""Laws of a suggestion: within the schedule and 100%, rising with risk, never cheaper for missing data."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.units import PPM
from serving.policy import UNKNOWN_CLOSING_COST, initial_margin_rate, suggest

NAN = math.nan
SHARE = st.floats(0.0, 1.0)
STATIC = st.one_of(
    st.floats(0.005, 1.0), st.integers(5_000, 1_000_000).map(lambda ppm: ppm / PPM), st.just(1.5)
)
IN_FORCE = st.one_of(st.just(NAN), st.floats(0.005, 1.0))
COST = st.one_of(st.floats(0.0, 2.0), st.just(NAN))
SIGMA = st.floats(0.0, 5.0)
UP = st.floats(0.0, 0.5)
ROUNDING = 1.0 / PPM + 1e-12


@given(STATIC, IN_FORCE, st.one_of(SHARE, st.just(NAN)), COST, st.one_of(SIGMA, st.just(NAN)), st.booleans())
def test_between_the_schedule_and_all_of_it(
    static: float, in_force: float, pd: float, cost: float, sigma: float, failed: bool
) -> None:
    rate = initial_margin_rate(static, in_force, pd, cost, sigma, failed)
    assert static <= rate <= max(static, 1.0)


@given(STATIC, IN_FORCE, SHARE, st.floats(0.0, 1.0), SIGMA, UP, st.integers(0, 2))
def test_more_risk_is_never_cheaper(
    static: float, in_force: float, pd: float, cost: float, sigma: float, up: float, which: int
) -> None:
    more = [pd, cost, sigma]
    more[which] = min(more[which] + up, 1.0) if which == 0 else more[which] + up
    rate = initial_margin_rate(static, in_force, pd, cost, sigma, False)
    assert initial_margin_rate(static, in_force, more[0], more[1], more[2], False) >= rate


@pytest.mark.parametrize("which", range(3))
def test_each_of_the_three_raises_it(which: int) -> None:
    more = [0.05, 0.02, 0.1]
    more[which] *= 2.0
    rate = initial_margin_rate(0.05, NAN, 0.05, 0.02, 0.1, False)
    assert rate > 0.05
    assert initial_margin_rate(0.05, NAN, more[0], more[1], more[2], False) > rate


def test_by_hand() -> None:
    """3 x (21% - 1%) x (2% + 12% x sqrt(1/24)) on top of 10%."""
    rate = initial_margin_rate(0.1, NAN, 0.21, 0.02, 0.12, False)
    assert rate == math.ceil((0.1 + 0.6 * (0.02 + 0.12 * math.sqrt(1 / 24))) * PPM) / PPM


@given(STATIC, SHARE, st.floats(0.0, 1.0), SIGMA)
def test_a_rise_is_whole_ppm_rounded_up_by_less_than_one(
    static: float, pd: float, cost: float, sigma: float
) -> None:
    rate = initial_margin_rate(static, NAN, pd, cost, sigma, False)
    exact = min(static + 3.0 * max(pd - 0.01, 0.0) * (cost + sigma * math.sqrt(1.0 / 24.0)), max(static, 1.0))
    if exact <= static:
        assert rate == static, "nothing is added, so nothing is rounded"
    else:
        assert exact - 1e-12 <= rate < exact + ROUNDING
        assert rate == static or math.isclose(rate * PPM, round(rate * PPM), abs_tol=1e-6)


@given(STATIC, IN_FORCE, st.one_of(SHARE, st.just(NAN)), COST, SIGMA)
def test_a_failure_gives_what_stands(
    static: float, in_force: float, pd: float, cost: float, sigma: float
) -> None:
    stands = static if math.isnan(in_force) else max(static, in_force)
    rate = initial_margin_rate(static, in_force, pd, cost, sigma, True)
    assert min(stands, max(static, 1.0)) <= rate <= stands + ROUNDING
    assert initial_margin_rate(static, in_force, NAN, cost, sigma, False) == rate


@given(STATIC, IN_FORCE, SHARE, st.floats(0.0, 2.0), SIGMA)
def test_removing_any_fields_is_never_cheaper_than_what_stands(
    static: float, in_force: float, pd: float, cost: float, sigma: float
) -> None:
    for kept in product((True, False), repeat=4):
        given_static, given_pd, given_cost, given_sigma = (
            value if keep else NAN for value, keep in zip((static, pd, cost, sigma), kept, strict=True)
        )
        if all(kept):
            continue
        stands = static if math.isnan(in_force) else max(static, in_force)
        rate = initial_margin_rate(given_static, in_force, given_pd, given_cost, given_sigma, False)
        assert rate >= min(stands, max(static, 1.0)) or (not kept[0] and rate >= 1.0)


def test_a_book_that_is_not_there_counts_as_a_dear_one() -> None:
    unknown = initial_margin_rate(0.05, NAN, 0.5, NAN, 0.1, False)
    assert unknown == initial_margin_rate(0.05, NAN, 0.5, UNKNOWN_CLOSING_COST, 0.1, False)
    assert unknown > initial_margin_rate(0.05, NAN, 0.5, 0.01, 0.1, False)


def test_an_unknown_schedule_asks_for_everything() -> None:
    assert initial_margin_rate(NAN, 0.2, 0.0, 0.01, 0.1, False) == 1.0


@given(
    st.lists(st.tuples(STATIC, IN_FORCE, IN_FORCE, SHARE, COST, SIGMA, st.booleans()), min_size=1, max_size=8)
)
def test_many_accounts_are_each_its_own(
    rows: list[tuple[float, float, float, float, float, float, bool]],
) -> None:
    static, initial, maintenance, pd, cost, sigma, failed = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    static_maintenance = 0.5 * static
    rates = suggest(static, static_maintenance, initial, maintenance, pd, cost, sigma, failed.astype(bool))
    for k in range(len(rows)):
        alone = initial_margin_rate(static[k], initial[k], pd[k], cost[k], sigma[k], bool(failed[k]))
        assert rates.initial[k] == alone
        kept = max(static_maintenance[k], 0.0 if math.isnan(maintenance[k]) else maintenance[k])
        assert rates.maintenance[k] == min(kept, rates.initial[k])
    assert (rates.maintenance <= rates.initial).all()


def test_maintenance_is_not_raised_by_risk() -> None:
    """Raising it on positions that are open sets off the liquidations that it should prevent."""
    one = np.ones(1)
    no = np.zeros(1, bool)
    calm, wild = (
        suggest(0.1 * one, 0.05 * one, NAN * one, NAN * one, pd * one, 0.01 * one, 0.1 * one, no)
        for pd in (0.0, 0.9)
    )
    assert wild.initial[0] > calm.initial[0]
    assert wild.maintenance[0] == calm.maintenance[0] == 0.05
