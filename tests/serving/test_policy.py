"""Laws of a suggestion: within the schedule and 100%, rising with risk, never cheaper for missing data."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exchange.units import PPM
from serving.parts import BY_KEPT, BY_STAMPED, STANDARD
from serving.policy import (
    LOADING,
    MOST,
    RUNGS,
    TARGET_PD,
    UNKNOWN,
    UNKNOWN_CLOSING_COST,
    cost_of_liquidation,
    level,
    maintenance_margin_rate,
    paying_rate,
)
from serving.policy import lowest_paying as lowest_paying_at
from tests.serving.suggestions import suggest_all

NAN = math.nan
SHARE = st.floats(0.0, 1.0)
LADDER = st.lists(SHARE, min_size=RUNGS, max_size=RUNGS).map(np.array)
FALLING = LADDER.map(lambda found: np.sort(found)[::-1].copy())
STATIC = st.one_of(
    st.floats(0.005, 1.0), st.integers(5_000, 1_000_000).map(lambda ppm: ppm / PPM), st.just(1.5)
)
IN_FORCE = st.one_of(st.just(NAN), st.floats(0.005, 1.0))
COST = st.one_of(st.floats(0.0, 2.0), st.just(NAN))
SIGMA = st.floats(0.0, 5.0)
UP = st.floats(0.0, 0.5)
ROUNDING = 1.0 / PPM + 1e-12

Floats = npt.NDArray[np.float64]

PRICED = STANDARD.copy()
PRICED[[BY_STAMPED, BY_KEPT]] = 0.0


def initial_margin_rate(
    static: float, in_force: float, pd: Floats, cost: float, sigma: float, failed: bool
) -> float:
    """What is suggested on terms by which nothing is stamped."""
    given = (static, in_force, cost, sigma, NAN)
    return float(suggest_all(*given[:2], pd, *given[2:], failed, False, PRICED)[0][0])


def lowest_paying(static: float, cost: float, pd: Floats) -> int:
    return lowest_paying_at(static, cost, pd, TARGET_PD, LOADING)


def flat(pd: float) -> Floats:
    """The same probability whatever is posted."""
    return np.full(RUNGS, pd)


def stands(static: float, in_force: float) -> float:
    """What a failure gives, before it is rounded and bounded."""
    return static if math.isnan(in_force) else max(static, in_force)


@given(STATIC, IN_FORCE, st.one_of(LADDER, st.just(flat(NAN))), COST, st.one_of(SIGMA, st.just(NAN)),
       st.booleans())  # fmt: skip
def test_between_the_schedule_and_all_of_it(
    static: float, in_force: float, pd: Floats, cost: float, sigma: float, failed: bool
) -> None:
    rate = initial_margin_rate(static, in_force, pd, cost, sigma, failed)
    assert static <= rate <= max(static, 1.0)


@given(STATIC, IN_FORCE, LADDER, st.floats(0.0, 1.0), SIGMA, UP, st.integers(0, 2))
def test_more_risk_at_every_level_is_never_cheaper(
    static: float, in_force: float, pd: Floats, cost: float, sigma: float, up: float, which: int
) -> None:
    rate = initial_margin_rate(static, in_force, pd, cost, sigma, False)
    if which == 0:
        pd = np.minimum(pd + up * np.linspace(1.0, 0.3, RUNGS), 1.0)
    else:
        cost, sigma = cost + up * (which == 1), sigma + up * (which == 2)
    assert initial_margin_rate(static, in_force, pd, cost, sigma, False) >= rate


@pytest.mark.parametrize("which", range(3))
def test_each_of_the_three_raises_it(which: int) -> None:
    more = [1.01 * TARGET_PD, 0.02, 0.1]
    rate = initial_margin_rate(0.05, NAN, flat(more[0]), 0.02, 0.1, False)
    more[which] *= 2.0
    assert rate > 0.05
    assert initial_margin_rate(0.05, NAN, flat(more[0]), more[1], more[2], False) > rate


def test_by_hand() -> None:
    """100 x (10.5% - 10%) x (2% + 12% x sqrt(1/24)) on top of 10%, whatever is posted."""
    cost = 0.02 + 0.12 * math.sqrt(1 / 24)
    rate = initial_margin_rate(0.1, NAN, flat(0.105), 0.02, 0.12, False)
    assert rate == math.ceil((0.1 + 0.5 * cost) * PPM) / PPM
    assert initial_margin_rate(0.1, NAN, flat(0.21), 0.02, 0.12, False) == 0.2  # at most twice the schedule
    # where the level below is far riskier, the level itself
    falling = np.array([0.9] * 5 + [0.1] * 7)
    rate = initial_margin_rate(0.1, NAN, falling, 0.02, 0.12, False)
    assert rate == math.ceil((0.1 + 0.1 * (25 / 121)) * PPM) / PPM


def test_levels_run_from_the_schedule_to_a_certain_liquidation() -> None:
    for cost, most in ((0.0004, LOADING * (1.0 - TARGET_PD) * 0.0004), (0.04, MOST * 0.05)):
        found = [level(0.05, cost, rung) for rung in range(RUNGS)]
        assert found[0] == 0.05
        assert found[-1] == 0.05 + most
        steps = np.diff(found)
        assert (np.diff(steps) > 0.0).all()
        assert steps[0] > 0.0
    assert math.isnan(level(0.05, NAN, 1))


@given(STATIC, LADDER, st.floats(0.0, 2.0))
def test_the_rate_is_the_lowest_level_that_pays_for_itself(static: float, pd: Floats, cost: float) -> None:
    levels = np.array([level(static, cost, rung) for rung in range(RUNGS)])
    pays = levels >= static + np.minimum(LOADING * np.maximum(pd - TARGET_PD, 0.0) * cost, MOST * static)
    assert pays[-1]
    assert lowest_paying(static, cost, pd) == np.flatnonzero(pays)[0]


@given(STATIC, st.one_of(LADDER, FALLING), st.floats(0.001, 2.0), SHARE, st.floats(0.0, 200.0))
@example(0.1, flat(1.0), 0.001, 0.0, 200.0)  # what no level pays for
@example(0.1, np.array([1.0] * 11 + [0.95]), 0.001, 0.0, 100.0)  # nor the last one for itself
@example(0.1, np.array([0.02] + [0.01] * 11), 0.1, 0.01, 0.5)  # the first but one, at less than it
def test_the_rate_that_pays_reckoned_another_way(
    static: float, pd: Floats, cost: float, target: float, loading: float
) -> None:
    asked = static + np.minimum(loading * np.maximum(pd - target, 0.0) * cost, MOST * static)
    levels = np.array([level(static, cost, rung) for rung in range(RUNGS)])
    paying = np.flatnonzero(levels >= asked)
    if len(paying) == 0:
        expected = min(max(levels[-1], asked[-1]), asked[-2])
    elif paying[0] == 0:
        expected = levels[0]
    else:
        expected = min(levels[paying[0]], asked[paying[0] - 1])
    rate = paying_rate(static, cost, pd, target, loading)
    assert rate == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert lowest_paying_at(static, cost, pd, target, loading) == (paying[0] if len(paying) else RUNGS - 1)


@given(STATIC, st.floats(0.0, 2.0))
def test_the_last_level_pays_for_whatever_may_come(static: float, cost: float) -> None:
    assert lowest_paying(static, cost, flat(1.0)) != UNKNOWN
    most = min(LOADING * (1.0 - TARGET_PD) * cost, MOST * static)
    assert level(static, cost, RUNGS - 1) >= static + most


@given(STATIC, FALLING, st.floats(0.001, 2.0))
def test_levels_above_the_answer_are_not_looked_at(static: float, pd: Floats, cost: float) -> None:
    rung = lowest_paying(static, cost, pd)
    changed = pd.copy()
    changed[rung + 1 :] = NAN
    assert lowest_paying(static, cost, changed) == rung
    assert lowest_paying(static, cost, pd[: rung + 1].copy()) == rung
    assert lowest_paying(static, cost, pd[:rung].copy()) == UNKNOWN
    changed[rung] = NAN
    assert lowest_paying(static, cost, changed) == UNKNOWN


@given(
    st.floats(0.01, 0.3),
    st.floats(0.001, 0.2),
    st.floats(0.0, 60.0),
    st.floats(1.0, 3.0),
    st.floats(1.0, 3.0),
)
def test_a_dearer_schedule_or_closing_never_lowers_it_by_a_whole_level(
    static: float, cost: float, steep: float, more: float, dearer: float
) -> None:
    """Risk falls with what is posted: the levels stand elsewhere then, the answer hardly."""

    def rung_of(static: float, cost: float) -> int:
        levels = np.array([level(static, cost, rung) for rung in range(RUNGS)])
        return lowest_paying(static, cost, np.exp(-steep * levels))

    rung = rung_of(static, cost)
    below = level(static, cost, rung - 1) if rung > 0 else static
    after = level(static * more, cost * dearer, rung_of(static * more, cost * dearer))
    assert after >= below


@given(STATIC, LADDER, st.floats(0.0, 1.0), SIGMA)
def test_a_rise_is_whole_ppm_rounded_up_by_less_than_one(
    static: float, pd: Floats, cost: float, sigma: float
) -> None:
    rate = initial_margin_rate(static, NAN, pd, cost, sigma, False)
    lost = cost_of_liquidation(cost, sigma)
    rung = lowest_paying(static, lost, pd)
    exact = level(static, lost, rung)
    if rung > 0:
        more = LOADING * max(pd[rung - 1] - TARGET_PD, 0.0) * lost
        exact = min(exact, static + min(more, MOST * static))
    exact = min(exact, max(static, 1.0))
    if exact <= static:
        assert rate == static, "nothing is added, so nothing is rounded"
    else:
        assert exact - 1e-12 <= rate < exact + ROUNDING
        assert rate == static or math.isclose(rate * PPM, round(rate * PPM), abs_tol=1e-6)


@given(STATIC, IN_FORCE, st.one_of(LADDER, st.just(flat(NAN))), COST, SIGMA)
def test_a_failure_gives_what_stands(
    static: float, in_force: float, pd: Floats, cost: float, sigma: float
) -> None:
    rate = initial_margin_rate(static, in_force, pd, cost, sigma, True)
    assert min(stands(static, in_force), max(static, 1.0)) <= rate <= stands(static, in_force) + ROUNDING
    assert initial_margin_rate(static, in_force, flat(NAN), cost, sigma, False) == rate


@given(STATIC, IN_FORCE, LADDER, st.floats(0.0, 2.0), SIGMA)
def test_removing_any_fields_is_never_cheaper_than_what_stands(
    static: float, in_force: float, pd: Floats, cost: float, sigma: float
) -> None:
    for kept in product((True, False), repeat=4):
        if all(kept):
            continue
        given_static, given_cost, given_sigma = (
            value if keep else NAN for value, keep in zip((static, cost, sigma), kept[1:], strict=True)
        )
        given_pd = pd if kept[0] else flat(NAN)
        rate = initial_margin_rate(given_static, in_force, given_pd, given_cost, given_sigma, False)
        assert rate >= min(stands(static, in_force), max(static, 1.0)) or (not kept[1] and rate >= 1.0)


def test_a_book_that_is_not_there_counts_as_a_dear_one() -> None:
    risk = flat(1.02 * TARGET_PD)
    unknown = initial_margin_rate(0.05, NAN, risk, NAN, 0.1, False)
    assert unknown == initial_margin_rate(0.05, NAN, risk, UNKNOWN_CLOSING_COST, 0.1, False)
    assert unknown > initial_margin_rate(0.05, NAN, risk, 0.01, 0.1, False)
    assert initial_margin_rate(0.05, 0.9, risk, NAN, 0.1, False) == 0.9, "and not under the one in force"


def test_an_unknown_schedule_asks_for_everything() -> None:
    assert initial_margin_rate(NAN, 0.2, flat(0.0), 0.01, 0.1, False) == 1.0


@given(STATIC, st.one_of(st.just(NAN), STATIC), IN_FORCE, STATIC)
def test_maintenance_is_what_stands_and_never_above_initial(
    static: float, maintenance: float, in_force: float, initial: float
) -> None:
    """Risk does not raise it: on positions that are open that sets off the liquidations it should prevent."""
    rate = maintenance_margin_rate(maintenance, in_force, initial)
    if math.isnan(maintenance) and math.isnan(in_force):
        assert rate == initial
    assert rate <= initial
    assert rate == min(initial, np.fmax(maintenance, in_force)) or math.isnan(maintenance)
