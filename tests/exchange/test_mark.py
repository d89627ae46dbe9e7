from __future__ import annotations

import math
import statistics
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import mark
from tests.exchange.strategies import law, prices

NAN = math.nan
maybe = st.one_of(prices(), st.just(NAN))


@law
@given(maybe, maybe, maybe)
def test_the_median_is_that_of_what_is_known_in_any_order(a: float, b: float, c: float) -> None:
    known = [value for value in (a, b, c) if not math.isnan(value)]
    found = {mark.median_of_three(*order) for order in permutations((a, b, c))}
    if not known:
        assert all(math.isnan(value) for value in found)
    else:
        assert found == {statistics.median(known)}


@law
@given(prices(), prices(), st.floats(-1e6, 1e6))
def test_no_single_input_moves_the_median_beyond_the_others(a: float, b: float, wild: float) -> None:
    assert min(a, b) <= mark.median_of_three(a, wild, b) <= max(a, b)


@law
@given(st.floats(1.0, 1e4), st.floats(0.1, 1e4), st.integers(2, 5))
def test_average_over_a_time_does_not_depend_on_how_it_is_cut(span: float, tau: float, parts: int) -> None:
    """Constant inputs: what is left of the old value after n parts is what is left after the whole."""
    whole = 1.0 - mark.ema_weight(span, tau)
    assert (1.0 - mark.ema_weight(span / parts, tau)) ** parts == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_a_ratio_of_decayed_sums_settles_on_the_weight() -> None:
    """Hyperliquid's recurrence: 3 s samples, 2.5 min, a step from 0 to 1 after it has settled."""
    tau, every = 150.0, 3.0
    kept = math.exp(-every / tau)
    numerator = denominator = 0.0
    for _ in range(2_000):
        numerator, denominator = numerator * kept, denominator * kept + every
    weight = mark.ema_weight(every, tau)
    average = 0.0
    for _ in range(20):
        numerator, denominator = numerator * kept + every, denominator * kept + every
        average += (1.0 - average) * weight
        assert numerator / denominator == pytest.approx(average, rel=1e-9)
    assert mark.ema_weight(every, 0.0) == 1.0
    assert mark.ema_weight(0.0, tau) == 0.0


@law
@given(prices(), st.floats(-0.02, 0.02), prices(), prices(), prices(), prices())
def test_oracle_mark_lies_between_two_of_its_three_inputs(
    oracle: float, basis: float, bid: float, ask: float, last: float, others: float
) -> None:
    ema = oracle * basis
    inputs = sorted([oracle + ema, statistics.median([bid, ask, last]), others])
    assert mark.oracle_mark(oracle, ema, bid, ask, last, others) == inputs[1]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ((100.0, 1.0, 99.0, 100.0, 99.5, 105.0), 101.0),
        # without other venues: the mean of 101 and 99.5, or with the book's average the middle one
        ((100.0, 1.0, 99.0, 100.0, 99.5, NAN), 100.25),
        ((100.0, 1.0, 99.0, 100.0, 99.5, NAN, 99.8), 99.8),
        ((100.0, NAN, 99.0, 100.0, 99.5, 98.0, 99.8), 99.5),
        ((100.0, 1.0, NAN, NAN, NAN, 98.0, 99.8), 99.8),
        # one input alone: the book's average does not join
        ((100.0, NAN, NAN, NAN, NAN, 98.0, 99.8), 98.0),
        ((NAN, 1.0, NAN, NAN, NAN, NAN, 99.8), NAN),
    ],
)
def test_oracle_mark_with_inputs_missing(inputs: tuple[float, ...], expected: float) -> None:
    assert mark.oracle_mark(*inputs) == pytest.approx(expected, nan_ok=True)


@law
@given(prices(), st.floats(-0.01, 0.01), st.floats(0.0, 8.0), st.floats(-0.02, 0.02), prices())
def test_index_mark_is_the_middle_of_its_three_prices(
    index: float, rate: float, hours: float, basis: float, last: float
) -> None:
    three = sorted([index * (1.0 + rate * (hours / 8.0)), index + index * basis, last])
    assert mark.index_mark(index, rate, hours, 8.0, index * basis, last) == three[1]


def test_funding_that_is_about_to_be_paid_leaves_the_index_alone() -> None:
    assert mark.index_mark(100.0, 0.01, 0.0, 8.0, NAN, NAN) == 100.0
    assert mark.index_mark(100.0, 0.01, 8.0, 8.0, NAN, NAN) == 101.0
