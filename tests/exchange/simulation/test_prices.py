from __future__ import annotations

import numpy as np
import pytest

from exchange.simulation.prices import BARS_A_DAY, Paths, price_paths
from exchange.simulation.terms import listings

DAYS = 60


@pytest.fixture(scope="module")
def paths() -> Paths:
    return price_paths(listings(), 2 * BARS_A_DAY, DAYS * BARS_A_DAY, np.random.default_rng(5))


def test_a_bar_holds_its_own_prices(paths: Paths) -> None:
    assert (paths.low > 0).all()
    assert (paths.high >= np.maximum(paths.opening, paths.mark)).all()
    assert (paths.low <= np.minimum(paths.opening, paths.mark)).all()
    assert (paths.opening[1:] == paths.mark[:-1]).all()


def test_marks_lie_on_ticks(paths: Paths) -> None:
    ticks = paths.mark / np.array([listing.market.tick_size for listing in listings()])
    assert np.abs(ticks - np.round(ticks)).max() < 1e-6


def test_returns_are_fat_tailed_clustered_and_shared(paths: Paths) -> None:
    returns = np.diff(np.log(paths.mark), axis=0)
    standard = (returns - returns.mean(axis=0)) / returns.std(axis=0)
    assert ((standard**4).mean(axis=0) > 6).all(), "a normal path has 3"
    size = np.minimum(np.abs(returns), np.quantile(np.abs(returns), 0.99, axis=0))
    for market in range(returns.shape[1]):
        # an hour later: hardly 0.01 for independent draws of this length
        assert np.corrcoef(size[:-12, market], size[12:, market])[0, 1] > 0.05
    assert np.corrcoef(returns.T).min() > 0.25


@pytest.mark.parametrize("seed", range(5))
def test_every_month_has_a_crash_that_thins_the_books(seed: int) -> None:
    paths = price_paths(listings(), BARS_A_DAY, 30 * BARS_A_DAY, np.random.default_rng(seed))
    hours = 3 * 12
    fall = paths.mark[hours:] / paths.mark[:-hours] - 1.0
    worst = int(fall[:, 0].argmin())
    assert fall[worst, 0] < -0.08
    assert (fall[worst] < -0.05).all(), "all markets fall together"
    assert (paths.bid_usd[worst : worst + hours].min(axis=0) < 0.2 * np.median(paths.bid_usd, axis=0)).all()


def test_index_and_funding_stay_near_the_mark(paths: Paths) -> None:
    assert np.abs(paths.mark / paths.index_price - 1.0).max() < 0.025
    assert np.median(np.abs(paths.mark / paths.index_price - 1.0)) < 0.002
    assert np.abs(paths.funding).max() <= 0.0075
    assert (np.median(np.abs(paths.funding), axis=0) < 1e-3).all()
