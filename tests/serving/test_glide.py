"""How rates follow what is asked: a table by hand, another way of reckoning, and whole histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from exchange.units import HOUR_US
from serving.glide import LONGEST_US, NEVER_US, Held, Pace, begun, looked, noticed, step

Integers = npt.NDArray[np.int64]


def of(*values: int) -> Integers:
    return np.array(values, np.int64)


def stepped(
    in_force: Any, target: Any, floor: Any, beyond: Any, elapsed_us: int, pace: Pace
) -> tuple[Integers, Integers]:
    given = [
        np.ascontiguousarray(one, np.int64) for one in np.broadcast_arrays(in_force, target, floor, beyond)
    ]
    rate, count = np.empty_like(given[0]), np.empty_like(given[0])
    step(*given, elapsed_us, np.array(pace, np.int64), rate, count)
    return rate, count


PACE = Pace(band_ppm=100, windows=2, rise_ppm_per_h=1_000, fall_ppm_per_h=300)


@pytest.mark.parametrize(
    ("in_force", "target", "floor", "beyond", "hours", "rate", "count"),
    [
        (50_000, 50_100, 0, 0, 1, 50_000, 0),  # within the band, its edge included
        (50_000, 49_900, 0, 5, 1, 50_000, 0),
        (50_000, 50_101, 0, 0, 1, 50_000, 1),  # beyond it for the first time
        (50_000, 50_101, 0, 1, 1, 50_101, 2),  # and once more
        (50_000, 49_899, 0, -1, 1, 49_899, -2),
        (50_000, 50_101, 0, -7, 1, 50_000, 1),  # the other side begins anew
        (50_000, 49_899, 0, 7, 1, 50_000, -1),
        (50_000, 90_000, 0, 4, 1, 51_000, 5),  # bounded, falls more closely
        (50_000, 10_000, 0, -4, 1, 49_700, -5),
        (50_000, 90_000, 0, 4, 0, 50_000, 5),  # no time, no move
        (50_000, 90_000, 0, 4, -1, 50_000, 5),
        (50_000, 90_000, 60_000, 0, 1, 60_000, 1),  # the schedule is exempt
        (50_000, 10_000, 49_900, -4, 1, 49_900, -5),
        (50_000, 50_000, 60_000, 0, 0, 60_000, 0),
    ],
)
def test_by_hand(
    in_force: int, target: int, floor: int, beyond: int, hours: int, rate: int, count: int
) -> None:
    found = stepped(of(in_force), target, floor, beyond, hours * HOUR_US, PACE)
    assert [int(one[0]) for one in found] == [rate, count]


def test_an_allowance_is_rounded_down_and_bounded() -> None:
    pace = Pace(0, 1, 1_000, 300)
    for elapsed_us, gained in ((HOUR_US - 1, 999), (HOUR_US // 1_000 - 1, 0), (LONGEST_US * 5, 1_000_000)):
        rate, _ = stepped(of(0), 10**9, 0, 0, elapsed_us, pace)
        assert rate[0] == gained


def draw(seed: int, count: int = 20_000) -> tuple[Integers, Integers, Integers, Integers, Pace]:
    chance = np.random.default_rng(seed)
    in_force = chance.integers(0, 300_000, count)
    near = in_force + chance.integers(-3_000, 3_001, count)
    target = np.where(chance.random(count) < 0.5, near, chance.integers(0, 1_000_001, count))
    floor = np.where(chance.random(count) < 0.5, 0, chance.integers(0, 300_000, count))
    rise = int(chance.integers(1, 50_000))
    pace = Pace(
        int(chance.integers(0, 3_000)), int(chance.integers(1, 5)), rise, int(chance.integers(0, rise))
    )
    return in_force, target, floor, chance.integers(-6, 7, count), pace


@pytest.mark.parametrize("seed", range(3))
def test_reckoned_another_way(seed: int) -> None:
    in_force, target, floor, beyond, pace = draw(seed)
    elapsed_us = int(np.random.default_rng(seed).integers(0, 5 * HOUR_US))
    rate, count = stepped(in_force, target, floor, beyond, elapsed_us, pace)
    gap = target - in_force
    side = np.sign(gap) * (abs(gap) > pace.band_ppm)
    run = np.where(side * beyond > 0, abs(beyond), 0)
    assert (count == side * (run + 1)).all()
    hours = elapsed_us / HOUR_US
    most = np.where(side > 0, np.floor(pace.rise_ppm_per_h * hours), np.floor(pace.fall_ppm_per_h * hours))
    moves = np.where(run + 1 >= pace.windows, side * np.minimum(abs(gap), most), 0)
    assert (rate == np.maximum(in_force + moves, floor)).all()


def test_looks_are_whole_windows_and_asking_between_them_changes_nothing() -> None:
    held = begun(np.array([[50_000, 60_000], [70_000, 80_000]]), 10)
    assert held.rate_ppm.shape == (2, 2)
    asked = held.rate_ppm + 50_000
    for now_us in (10, 11, 10 + HOUR_US - 1):
        assert looked(held, asked, 0, now_us, PACE) is held
    once = looked(held, asked, 0, 10 + HOUR_US, PACE)
    assert (once.beyond == 1).all()
    assert (once.rate_ppm == held.rate_ppm).all()
    late = looked(once, asked, 0, 10 + HOUR_US + 5 * HOUR_US // 2, PACE)
    assert late.since_us == 10 + 3 * HOUR_US, "the next window ends where it would have"
    assert (late.rate_ppm == held.rate_ppm + 2_000).all(), "two whole windows have gone by"
    assert looked(late, asked, 0, 10 + 4 * HOUR_US - 1, PACE) is late
    floored = looked(held, asked, np.array([[0, 90_000], [0, 0]]), 10 + HOUR_US, PACE)
    assert floored.rate_ppm.tolist() == [[50_000, 90_000], [70_000, 80_000]]


def followed(held: Held, targets: Integers, pace: Pace) -> Integers:
    """Rates in force after each of many windows, (windows, n)."""
    rates = []
    for window, target in enumerate(targets, 1):
        held = looked(held, target, 0, window * pace.window_us, pace)
        rates.append(held.rate_ppm)
    return np.array(rates)


def test_what_stays_asked_is_reached_but_for_the_band() -> None:
    pace = Pace(500, 3, 4_000, 1_000)
    for target in (150_000, 40_000):
        held = begun(of(50_000, 100_000), 0)
        rates = followed(held, np.full((200, 2), target), pace)
        assert (abs(rates[-1] - target) <= pace.band_ppm).all()


@pytest.mark.parametrize(
    ("told_h", "target", "floor", "notice_h", "rate"),
    [
        (5, 90_000, 0, None, 50_000),  # never
        (7, 90_000, 0, 8, 50_000),  # not yet
        (8, 90_000, 0, 8, 50_000),
        (10, 90_000, 0, 8, 52_000),
        (100, 90_000, 0, 8, 90_000),
        (100, 10_000, 0, 8, 50_000),  # never down
        (7, 90_000, 60_000, 8, 60_000),  # the schedule is exempt
        (0, 90_000, 0, 0, 50_000),
        (1, 90_000, 0, 0, 51_000),
    ],
)
def test_open_positions_have_notice(
    told_h: int, target: int, floor: int, notice_h: int | None, rate: int
) -> None:
    found = np.empty(1, np.int64)
    notice_us = NEVER_US if notice_h is None else notice_h * HOUR_US
    noticed(of(50_000), of(target), of(floor), of(told_h * HOUR_US), notice_us, 1_000, found)
    assert found[0] == rate
