"""Counts: bands are Poisson's, days are averaged over decision times, the share counts decision times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from exchange.units import DAY_US, HOUR_US
from models import counts as ct


@given(st.lists(st.floats(0, 5_000), min_size=1, max_size=30), st.sampled_from([0.5, 0.9, 0.99]))
def test_bands_are_those_of_scipy(expected, level):
    low, high = ct.poisson_band(expected, level)
    mean = np.maximum(expected, 1e-300)
    np.testing.assert_array_equal(low, poisson.ppf((1 - level) / 2, mean))
    np.testing.assert_array_equal(high, poisson.ppf((1 + level) / 2, mean))


def rows():
    """Two decision times on the first day, one on the second: 2, 0 and 30 come, 1, 1 and 4 are expected."""
    time = np.array([0] * 4 + [4] * 4 + [24] * 40) * HOUR_US
    happened = np.array([True] * 2 + [False] * 6 + [True] * 30 + [False] * 10)
    return time, happened, np.array([0.25] * 8 + [0.1] * 40)


def test_counts_are_by_decision_time_and_days_their_means():
    found = ct.counts(*rows())
    assert found.expected.tolist() == pytest.approx([1.0, 1.0, 4.0])
    assert found.observed.tolist() == [2.0, 0.0, 30.0]
    days = ct.daily(found)
    assert days.day.tolist() == [0, 1]
    assert days.expected.tolist() == pytest.approx([1.0, 4.0])
    assert days.observed.tolist() == [1.0, 30.0]
    assert ct.worst_day(days) == 1


def test_the_order_of_rows_changes_nothing():
    order = np.random.default_rng(0).permutation(48)
    before, after = ct.counts(*rows()), ct.counts(*(column[order] for column in rows()))
    assert before.time_us.tolist() == after.time_us.tolist()
    assert before.observed.tolist() == after.observed.tolist()


def test_the_share_counts_decision_times_on_either_side():
    found = ct.Counts(np.arange(4) * DAY_US, np.full(4, 10.0), np.array([10.0, 3.0, 18.0, 12.0]))
    assert ct.poisson_band(10.0) == (5, 15)
    assert np.isnan(ct.poisson_band([np.nan, 0.0])).tolist() == [[True, False]] * 2
    assert ct.in_band(found) == (0.5, 0.25, 0.25)
    drawn = ct.resampled_within(found, 300, 0)
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)
    assert set(drawn) <= {0, 0.25, 0.5, 0.75, 1}


def test_independent_accounts_stay_in_the_band_nine_times_in_ten():
    generator = np.random.default_rng(3)
    time = np.repeat(np.arange(600) * HOUR_US, 400)
    chance = generator.uniform(0, 0.1, len(time))
    share = ct.in_band(ct.counts(time, generator.random(len(time)) < chance, chance)).within
    assert 0.86 < share < 0.97


def test_the_worst_day_may_be_one_on_which_nothing_came():
    days = ct.Days(np.arange(3), np.array([2.0, 40.0, 3.0]), np.array([3.0, 0.0, 9.0]))
    assert ct.worst_day(days) == 1


def test_no_rows_have_no_share_and_no_day():
    found = ct.counts(np.empty(0, np.int64), np.empty(0, bool), np.empty(0))
    assert np.isnan(ct.in_band(found)).all()
    assert ct.worst_day(ct.daily(found)) is None
    assert np.isnan(ct.resampled_within(found, 3, 0)).all()
