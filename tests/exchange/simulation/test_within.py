"""A minute's path meets its bar exactly, any second alone, and is as rough as a Brownian one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.compiled import compiled
from exchange.simulation.chance import key_of
from exchange.simulation.within import high_comes_first, within_minute


@compiled
def walks(bars, key):
    """float64[bars, 61] with the opening first."""
    out = np.empty((bars.shape[0], 61))
    for n in range(bars.shape[0]):
        for second in range(61):
            out[n, second] = within_minute(
                bars[n, 0], bars[n, 1], bars[n, 2], bars[n, 3], second, key + np.uint64(n)
            )
    return out


def brownian_bars(count, steps=1200):
    """Bars of minutes of a Brownian path seen finely, and whether the high came first."""
    rng = np.random.default_rng(4)
    moves = rng.normal(0.0, 1.0 / np.sqrt(steps), (count, steps))
    path = 100.0 + np.hstack([np.zeros((count, 1)), moves.cumsum(axis=1)])
    bars = np.column_stack([path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]])
    return bars, path.argmax(axis=1) < path.argmin(axis=1)


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4),
    st.permutations(range(4)),
    st.integers(0, 2**64 - 1),
)
def test_path_meets_its_bar(prices, order, seed):
    low, *inner, high = sorted(prices)
    opening, close = (high, inner[0]) if order[0] == 0 else (inner[1], inner[0])
    close = {0: high, 1: low}.get(order[1], close)
    bar = np.array([[opening, high, low, close]])
    walk = walks(bar, np.uint64(seed))[0]
    assert walk[0] == opening and walk[-1] == close
    assert walk[1:].max() == high and walk[1:].min() == low
    assert np.array_equal(walk, walks(bar, np.uint64(seed))[0])


def test_any_second_alone_is_the_same_as_in_order():
    bar = (10.0, 11.0, 9.0, 10.5)
    walk = walks(np.array([bar]), key_of(1, 0))[0]
    backwards = [within_minute(*bar, second, key_of(1, 0)) for second in range(60, 0, -1)]
    assert backwards == list(walk[:0:-1])


def test_a_minute_without_a_move_and_times_outside_it():
    assert within_minute(5.0, 5.0, 5.0, 5.0, 30, key_of(0, 0)) == 5.0
    assert within_minute(5.0, 6.0, 4.0, 5.5, 0, key_of(0, 0)) == 5.0
    assert within_minute(5.0, 6.0, 4.0, 5.5, 99, key_of(0, 0)) == 5.5


def test_keys_make_different_paths_of_one_bar():
    bars = np.tile([100.0, 101.0, 99.0, 100.2], (50, 1))
    assert len(np.unique(walks(bars, key_of(2, 0))[:, 30])) == 50


def test_order_of_extremes_is_that_of_brownian_paths():
    bars, high_first = brownian_bars(20_000)
    walk = walks(bars, key_of(3, 0))
    drawn = walk[:, 1:].argmax(axis=1) < walk[:, 1:].argmin(axis=1)
    share = (bars[:, 3] - bars[:, 0]) / (bars[:, 1] - bars[:, 2])
    for lower in (-0.6, -0.35, -0.1, 0.1, 0.35):
        near = (share > lower) & (share < lower + 0.25)
        assert drawn[near].mean() == pytest.approx(high_first[near].mean(), abs=0.04)
    assert high_comes_first(-0.9, 0.9) and not high_comes_first(0.9, 0.1)


def test_path_is_as_rough_as_a_brownian_one():
    bars, _ = brownian_bars(5_000)
    moves = np.diff(walks(bars, key_of(4, 0)), axis=1) / (bars[:, 1] - bars[:, 2])[:, None]
    squares = (moves**2).mean(axis=0)
    assert squares.sum() == pytest.approx(0.54, rel=0.15)  # Brownian: 0.537 of the squared range
    assert squares.reshape(6, 10).mean(axis=1) == pytest.approx(squares.mean(), rel=0.12)
    assert abs(np.corrcoef(moves[:, 1:].ravel(), moves[:, :-1].ravel())[0, 1]) < 0.05
