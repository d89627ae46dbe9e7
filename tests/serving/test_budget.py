"""Terms within a budget: the mildest ones, by trying all of them, and the same in any order of accounts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from exchange.errors import InputError
from serving.budget import (
    MOST_LOADING,
    STEPS_OF_LOADING,
    Book,
    expected_loss_micro,
    loading_within,
    target_within,
)
from serving.policy import RUNGS, level

NAN = math.nan


def book(seed: int, count: int = 40) -> Book:
    chance = np.random.default_rng(seed)
    falling = np.sort(chance.random((count, RUNGS)) ** 3, axis=1)[:, ::-1]
    pd = np.where(chance.random(count) < 0.1, NAN, 1.0)[:, None] * falling
    loss = falling * 1_000.0 * chance.random((count, 1))
    loss[::3] = chance.random((len(loss[::3]), RUNGS))  # no order: what a model says need not fall
    return Book(0.02 + 0.2 * chance.random(count), 0.1 * chance.random(count), pd.copy(), loss)


def one(pd: list[float], loss: list[float]) -> Book:
    return Book(np.array([0.1]), np.array([0.05]), np.array([pd]), np.array([loss]))


def test_by_hand() -> None:
    """At 3 x (26% - 1%) x 5% what is asked for is 3.75%; the seventh level is 2.98%, the eighth 4.05%."""
    assert level(0.1, 0.05, 6) < 0.1375 < level(0.1, 0.05, 7)
    losses = [12.0 - rung for rung in range(RUNGS)]
    assert expected_loss_micro(one([0.26] * RUNGS, losses), 0.01, 3.0) == 6_000_000
    assert expected_loss_micro(one([NAN] * RUNGS, losses), 0.01, 3.0) == 12_000_000, "as by the schedule"
    assert expected_loss_micro(one([0.0] * RUNGS, losses), 0.01, 3.0) == 12_000_000
    rising = losses[:7] + [9.5] * 5
    assert expected_loss_micro(one([0.26] * RUNGS, rising), 0.01, 3.0) == 9_500_000, "no less than above it"
    assert expected_loss_micro(one([0.26] * RUNGS, [1e-7] * RUNGS), 0.01, 3.0) == 1, "rounded up"
    # the risk of the level below is paid for at less than the level: what is posted lies between the two
    falls = [0.2] * 6 + [0.0] * 6
    assert expected_loss_micro(one(falls, losses), 0.01, 3.0) == 7_000_000
    falls = [0.9] * 6 + [0.0] * 6
    assert expected_loss_micro(one(falls, losses), 0.01, 3.0) == 6_000_000


@pytest.mark.parametrize("seed", range(20))
def test_the_mildest_terms_are_found(seed: int) -> None:
    accounts = book(seed)
    free, least = (expected_loss_micro(accounts, 0.01, loading) for loading in (0.0, MOST_LOADING))
    fund_usd = (least + (free - least) * (seed + 1) / 21) / 1e6 / 0.1
    found = loading_within(accounts, fund_usd, 0.1, 0.01)
    assert found is not None
    assert found.target_pd == 0.01
    assert found.budget_micro == math.floor(fund_usd * 0.1 * 1_000_000)
    assert found.expected_loss_micro == expected_loss_micro(accounts, 0.01, found.loading)
    assert found.expected_loss_micro <= found.budget_micro
    if found.loading > 0.0:
        milder = found.loading - 1.0 / STEPS_OF_LOADING
        assert expected_loss_micro(accounts, 0.01, milder) > found.budget_micro
    at_zero = expected_loss_micro(accounts, 0.0, 3.0)
    by_target = target_within(accounts, fund_usd, 0.1, 3.0)
    assert (by_target is None) == (at_zero > found.budget_micro)
    if by_target is not None:
        assert by_target.loading == 3.0
        assert by_target.expected_loss_micro == expected_loss_micro(accounts, by_target.target_pd, 3.0)
        assert by_target.expected_loss_micro <= by_target.budget_micro
        if by_target.target_pd < 1.0:
            assert expected_loss_micro(accounts, by_target.target_pd + 1e-6, 3.0) > by_target.budget_micro


def test_more_prudence_never_adds_to_the_loss() -> None:
    accounts = book(99, 150)
    losses = [expected_loss_micro(accounts, 0.01, loading) for loading in np.linspace(0.0, 30.0, 100)]
    assert (np.diff(losses) <= 0).all()
    assert len(set(losses)) > 20
    by_target = [expected_loss_micro(accounts, target, 3.0) for target in np.linspace(0.0, 1.0, 100)]
    assert (np.diff(by_target) >= 0).all()
    assert len(set(by_target)) > 20


def test_the_order_of_accounts_does_not_matter() -> None:
    accounts = book(7, 300)
    for seed in range(5):
        mixed = np.random.default_rng(seed).permutation(300)
        shuffled = Book(*(column[mixed] for column in accounts))
        assert expected_loss_micro(shuffled) == expected_loss_micro(accounts)


def test_what_cannot_be_reached_is_none_and_what_cannot_be_is_refused() -> None:
    accounts = one([0.5] * RUNGS, [1.0] * RUNGS)
    assert loading_within(accounts, 0.5, 1.0) is None
    assert target_within(accounts, 0.5, 1.0) is None
    mild = loading_within(accounts, 1.0, 1.0)
    assert mild is not None
    assert mild.loading == 0.0
    free = target_within(accounts, 1.0, 1.0)
    assert free is not None
    assert free.target_pd == 1.0
    for fund_usd, share in ((-1.0, 0.1), (math.inf, 0.1), (NAN, 0.1), (1.0, 1.1), (1.0, -0.1), (1.0, NAN)):
        with pytest.raises(InputError, match="cannot be"):
            loading_within(accounts, fund_usd, share)
    for loss in (-1.0, math.inf, NAN):
        with pytest.raises(InputError, match="expected losses"):
            expected_loss_micro(one([0.5] * RUNGS, [loss] * RUNGS))
    for wrong in (np.zeros((1, RUNGS - 1)), np.zeros(RUNGS)):
        with pytest.raises(InputError, match="expected losses"):
            expected_loss_micro(accounts._replace(loss_usd=wrong))
