from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.depth import depth_within_usd, slippage_bps
from tests.oracle import market_oracle as oracle

DISTANCES = np.array([10.0, 50.0, 100.0])
DEPTHS = np.array([1_000.0, 5_000.0, 5_000.0])  # nothing rests between 50 and 100 bps


@st.composite
def books(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rising distances and cumulative depths that never fall; something rests somewhere."""
    count = draw(st.integers(1, 6))
    distances = sorted(draw(st.sets(st.integers(1, 1_000), min_size=count, max_size=count)))
    steps = draw(st.lists(st.sampled_from((0.0, 1.0, 250.0, 1e5)), min_size=count, max_size=count))
    steps[-1] = max(steps[-1], 1.0)
    return np.array(distances, float), np.cumsum(steps)


sizes = st.floats(1e-2, 1e7)


@pytest.mark.parametrize(
    ("notional", "bps"),
    [
        (0.0, 0.0),
        (1_000.0, 5.0),  # uniform from 0 to 10
        (500.0, 2.5),
        (5_000.0, (1_000 * 5.0 + 4_000 * 30.0) / 5_000),
        (3_000.0, (1_000 * 5.0 + 2_000 * 20.0) / 3_000),
        # beyond the book: 50 dollars a basis point, as the 5,000 within 100
        (7_500.0, (1_000 * 5.0 + 4_000 * 30.0 + 2_500 * 125.0) / 7_500),
        (1e12, 10_000.0),
    ],
)
def test_slippage_by_hand(notional: float, bps: float) -> None:
    assert slippage_bps(notional, DISTANCES, DEPTHS, 3) == pytest.approx(bps, rel=1e-12)


@pytest.mark.parametrize(
    ("bps", "depth"),
    [(0.0, 0.0), (5.0, 500.0), (10.0, 1_000.0), (30.0, 3_000.0), (75.0, 5_000.0), (900.0, 5_000.0)],
)
def test_depth_within_by_hand(bps: float, depth: float) -> None:
    assert depth_within_usd(bps, DISTANCES, DEPTHS, 3) == pytest.approx(depth, rel=1e-12)


def test_a_book_that_is_not_there_is_unknown() -> None:
    assert math.isnan(slippage_bps(1.0, DISTANCES, DEPTHS, 0))
    assert math.isnan(depth_within_usd(100.0, DISTANCES, DEPTHS, 0))
    assert slippage_bps(1.0, DISTANCES, np.zeros(3), 3) == 10_000.0
    assert math.isnan(slippage_bps(math.nan, DISTANCES, DEPTHS, 3))
    assert depth_within_usd(100.0, DISTANCES, np.zeros(3), 3) == 0.0


def test_only_levels_in_use_count() -> None:
    assert slippage_bps(2_000.0, DISTANCES, DEPTHS, 1) == pytest.approx(10.0)
    assert depth_within_usd(100.0, DISTANCES, DEPTHS, 1) == 1_000.0


@given(books(), sizes)
def test_slippage_is_the_area_beside_the_depth_curve(
    book: tuple[np.ndarray, np.ndarray], size: float
) -> None:
    distances, depths = book
    found = slippage_bps(size, distances, depths, len(distances))
    assert found == pytest.approx(oracle.slippage_bps(size, distances.tolist(), depths.tolist()), rel=1e-9)


@given(books(), sizes, st.floats(1.0, 100.0))
def test_a_larger_position_slips_no_less_a_dollar(
    book: tuple[np.ndarray, np.ndarray], size: float, factor: float
) -> None:
    distances, depths = book
    small = slippage_bps(size, distances, depths, len(distances))
    large = slippage_bps(size * factor, distances, depths, len(distances))
    assert large >= small * (1 - 1e-12)
    assert 0.0 <= large <= 10_000.0


@given(books(), sizes)
def test_twice_the_depth_never_costs_more(book: tuple[np.ndarray, np.ndarray], size: float) -> None:
    distances, depths = book
    thin = slippage_bps(size, distances, depths, len(distances))
    assert slippage_bps(size, distances, 2 * depths, len(distances)) <= thin * (1 + 1e-12)


@given(books(), st.floats(0.0, 2_000.0), st.floats(0.0, 2_000.0))
def test_depth_rises_with_distance_and_is_never_more_than_the_book(
    book: tuple[np.ndarray, np.ndarray], one: float, other: float
) -> None:
    distances, depths = book
    near, far = (depth_within_usd(bps, distances, depths, len(distances)) for bps in sorted((one, other)))
    assert 0.0 <= near <= far <= depths[-1]
