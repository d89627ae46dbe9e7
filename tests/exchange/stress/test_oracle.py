"""The compiled run against the slow and obvious one, on books and shocks of chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.simulation.settings import RULE, Settings
from exchange.stress.book import DELEVERAGED, FUND, begin, new_live, places_of
from exchange.stress.run import run
from tests.exchange.stress.books import chance_book, shock
from tests.oracle.stress_oracle import Venue


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    size=st.floats(-0.5, 0.5),
    asset=st.sampled_from([0.0, -0.4]),
    depth=st.sampled_from([1.0, 0.1]),
    frozen=st.sampled_from([0, 8]),
    fund=st.sampled_from([0.0, 100.0, 1e6]),
)
def test_the_compiled_run_does_what_the_obvious_one_does(
    seed: int, size: float, asset: float, depth: float, frozen: int, fund: float
) -> None:
    made = chance_book(seed, pools=24, markets=2, fund=fund)
    moves = size * np.random.default_rng(seed).uniform(0.3, 1.5, 2)
    # stretches of one round, so that there is one look a round
    shocked = shock(
        moves.tolist(), asset=asset, knots=12, knot_s=RULE.cooldown_s, depth=depth, frozen=frozen, rest=8
    )
    live = begin(made, new_live(made))
    run(made, places_of(made), live, shocked, Settings(), RULE)
    slow = Venue(made, shocked, RULE, Settings())
    slow.run()
    scale = float(np.abs(made.cash).sum())

    def near(fast: object, obvious: object) -> None:
        assert fast == pytest.approx(obvious, rel=1e-7, abs=1e-9 * scale)

    near(live.cash.tolist(), [each.cash for each in slow.accounts])
    near(live.liquidated_usd.tolist(), [each.liquidated for each in slow.accounts])
    near(live.shortfall_usd.tolist(), [each.shortfall for each in slow.accounts])
    near(live.deleveraged_usd.tolist(), [each.deleveraged for each in slow.accounts])
    near(live.total[FUND], slow.fund)
    near(live.mark.tolist(), [market.mark for market in slow.markets])
    assert (live.total[DELEVERAGED] > 0.0) == any(each.deleveraged > 0.0 for each in slow.accounts)
