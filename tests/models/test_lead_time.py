"""Lead times: the level of the alarms, which defaults count, and hours against a slow walk back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.units import DAY_US, HOUR_US
from models import lead_time as lt

LEVELS = [0.0, 0.01, 0.02, 0.3, 0.5, 1.0]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(LEVELS)), min_size=1, max_size=50),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_the_level_is_the_lowest_that_is_precise_enough(rows, precision):
    happened, chance = (np.array(column) for column in zip(*rows, strict=True))
    level = lt.precision_level(happened, chance, precision)
    precise = [cut for cut in sorted(set(chance)) if happened[chance >= cut].mean() >= precision - 1e-12]
    assert level == (precise[0] if precise else np.inf)


def naive_first(defaults, quiet_h):
    found = []
    for i, (who, when) in enumerate(defaults):
        if i == 0 or defaults[i - 1][0] != who or when - defaults[i - 1][1] >= quiet_h:
            found.append((who, when))
    return found


def naive_lead(rows, when, level, lookback_h):
    """Hours since the alarm that stands at the last decision time began."""
    seen = sorted((t, p) for t, p in rows if when - lookback_h <= t < when)
    if not seen:
        return np.nan
    lead = 0.0
    for time, chance in reversed(seen):
        if chance < level:
            break
        lead = when - time
    return lead


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 40), st.sampled_from(LEVELS)),
        max_size=60,
        unique_by=lambda row: row[:2],
    ),
    events=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=12),
    level=st.sampled_from([0.01, 0.5]),
)
def test_lead_times_equal_a_slow_walk_back(rows, events, level):
    account, hour, chance = (np.array(c) for c in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 3
    who, when = (np.array(c) for c in zip(*events, strict=True)) if events else [np.zeros(0)] * 2
    defaults = lt.first_defaults(who.astype(np.int64), (when * HOUR_US).astype(np.int64), 6 * HOUR_US)
    first = naive_first(sorted(events), 6)
    assert list(zip(defaults.account.tolist(), (defaults.time_us // HOUR_US).tolist(), strict=True)) == first
    found = lt.lead_times_h(
        (hour * HOUR_US).astype(np.int64),
        account.astype(np.int64),
        chance.astype(float),
        defaults,
        level,
        20 * HOUR_US,
    )
    expected = [naive_lead([(t, p) for a, t, p in rows if a == who], when, level, 20) for who, when in first]
    np.testing.assert_allclose(found, np.array(expected).reshape(-1))


def test_figures_are_those_of_the_defaults_that_were_scored():
    hours = np.array([0.0, 2.0, 4.0, 6.0, 8.0, np.nan])
    of = lt.warned(np.array([0.9, 0.2, 0.1]), 0.2, hours)
    assert (of.level, of.alarmed_rows, of.scored_defaults) == (0.2, 2, 5)
    assert of.share_caught == pytest.approx(4 / 5)
    assert of.quartiles_h.tolist() == [2.0, 4.0, 6.0], "of the four that were caught, each an hour that was"


def test_nobody_warned_has_no_hours():
    of = lt.warned(np.array([0.1]), np.inf, np.array([0.0, np.nan]))
    assert (of.alarmed_rows, of.share_caught) == (0, 0.0)
    assert np.isnan(of.quartiles_h).all()
    nothing = lt.warned(np.empty(0), np.inf, np.empty(0))
    assert np.isnan(nothing.share_caught)


def test_resamples_draw_whole_accounts():
    """All defaults of an account are warned or none is: the share then varies as that of accounts does."""
    account = np.repeat(np.arange(10), 50)
    defaults = lt.Defaults(account, np.tile(np.arange(50) * DAY_US, 10))
    hours = np.where(account < 5, 3.0, 0.0)
    share = lt.resampled(hours, defaults, 400, 1)[:, 0]
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.std() == pytest.approx(np.sqrt(0.25 / 10), rel=0.25)
    assert np.array_equal(lt.resampled(hours, defaults, 5, 3), lt.resampled(hours, defaults, 5, 3))
