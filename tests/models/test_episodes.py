"""Episodes: which days they are, what joins them, and whose label windows they touch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.units import DAY_US, HOUR_US
from models.episodes import Episode, episodes, member

FIRST = 19_000


def at(counts):
    """Times of defaults, so many on each day."""
    return np.repeat((FIRST + np.arange(len(counts))) * DAY_US + HOUR_US, counts)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1] * 10 + [9] + [1] * 9, [(10, 10, 9)]),
        ([1] * 10 + [9, 8] + [1] * 8, [(10, 11, 17)]),
        ([1] * 10 + [9, 2, 8] + [1] * 17, [(10, 12, 19)]),  # one day between: the same episode
        ([1] * 10 + [9, 2, 2, 8] + [1] * 16, [(10, 10, 9), (13, 13, 8)]),
        ([9] + [1] * 18 + [8], [(0, 0, 9), (19, 19, 8)]),  # at both ends
        ([3] * 20, []),
        ([0] * 20, []),
        ([0] * 19 + [1], [(19, 19, 1)]),
        ([7], []),
    ],
)
def test_episodes_by_hand(counts, expected):
    found = episodes(at(counts), FIRST, FIRST + len(counts) - 1)
    assert [(e.first_day - FIRST, e.last_day - FIRST, e.defaults) for e in found] == expected


def test_a_rate_is_by_the_hour():
    (found,) = episodes(at([1] * 10 + [9, 2, 8] + [1] * 17), FIRST, FIRST + 29)
    assert found.defaults_per_hour == pytest.approx(19 / 72)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_episodes_hold_every_day_above_the_quantile_and_lie_apart(counts):
    found = episodes(at(counts), FIRST, FIRST + len(counts) - 1)
    within = {day for e in found for day in range(e.first_day - FIRST, e.last_day - FIRST + 1)}
    edge = np.quantile(counts, 0.9)
    assert {day for day, count in enumerate(counts) if count > edge} <= within
    for e in found:
        assert counts[e.first_day - FIRST] > edge
        assert counts[e.last_day - FIRST] > edge
        assert e.defaults == sum(counts[e.first_day - FIRST : e.last_day - FIRST + 1])
    for one, other in itertools.pairwise(found):
        assert other.first_day - one.last_day > 2


def test_defaults_of_other_days_do_not_count():
    counts = [1] * 10 + [9] + [1] * 9
    outside = np.array([FIRST - 1, FIRST + 20]).repeat(50) * DAY_US
    found = episodes(np.append(outside, at(counts)), FIRST, FIRST + 19)
    assert found == episodes(at(counts), FIRST, FIRST + 19)


def test_rows_belong_to_the_first_episode_that_their_window_meets():
    found = [Episode(10, 10, 5), Episode(14, 15, 5)]
    begin, after = 10 * DAY_US, 11 * DAY_US
    cases = [
        (begin - DAY_US - 1, begin - 1, -1),
        (begin - DAY_US, begin, 0),  # the end of the window belongs to it
        (begin, begin + DAY_US, 0),
        (after - 2, after + DAY_US, 0),
        (after - 1, after + DAY_US, -1),  # the beginning does not
        (15 * DAY_US, 16 * DAY_US, 1),
        (begin, 15 * DAY_US, 0),
        (16 * DAY_US, 17 * DAY_US, -1),
    ]
    time, end, expected = (np.array(column) for column in zip(*cases, strict=True))
    assert member(time, end, found).tolist() == expected.tolist()
    assert member(time, end, []).tolist() == [-1] * len(cases)
