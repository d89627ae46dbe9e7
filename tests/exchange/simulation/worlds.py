"""Tiny venues to try laws on: made prices, thin books, eager traders, and every rule that can be set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from exchange.contracts import MarginTier, Market
from exchange.deleveraging import AT_BANKRUPTCY, AT_MARK, AT_PREVIOUS_ORACLE, BITMEX, PROFIT_LEVERAGE
from exchange.liquidation import LiquidationRule
from exchange.simulation.listings import Asset, Listing
from exchange.simulation.paths import Paths
from exchange.simulation.population import MIX, Habits
from exchange.simulation.settings import RULE, Settings
from exchange.simulation.state import CARRY, HEDGER, LINKED, MOMENTUM, RETAIL, REVERSAL, WHALE
from exchange.simulation.tables import (
    account_names,
    accounts_table,
    first_seen,
    fixed_tables,
    stretch_tables,
)
from exchange.simulation.venue import Rows, Venue
from exchange.units import MINUTE_US
from tests.exchange.simulation.oracle import Tables, rows_of

START_US = 20_089 * 86_400_000_000 - 180 * MINUTE_US
"""Three hours before a midnight, so that one and a funding time lie early in every story."""
WARM_UP = 60
"""Minutes in which traders trade before rows are written."""
ASSETS = (Asset("USDC", 1.0, 1.0, None), Asset("STABLE", 0.95, 1.05, None), Asset("COIN", 0.8, 1.2, "M0"))


class Story(NamedTuple):
    """All that makes a venue; printed by hypothesis when a law does not hold in it."""

    seed: int
    accounts: int
    markets: int
    minutes: int
    """Recorded ones."""
    crashes: tuple[tuple[int, float, int], ...]
    """Minute, log move of market 0 (others move by their betas) and minutes that it takes."""
    noise: float
    """Of a minute, log."""
    peg: float
    """Lowest price of the stablecoin, at the first crash."""
    leverage: float
    """Multiplies what traders aim for."""
    eager: float
    """Looks a day of a trader."""
    kinds: tuple[int, ...]
    settings: Settings
    rule: LiquidationRule
    rates: tuple[tuple[int, float, float], ...]
    """Minute, initial and maintenance margin rate put in force for every other account."""


def market_terms(number: int, rate: float = 0.1, cap: float = 20_000.0) -> Market:
    """Terms of a made market: prices near 100, 10, 1 or 0.1, a lot worth about a dollar or less."""
    price = 10.0 ** (2 - number % 4)
    rates = [min(rate * 2.0**tier, 1.0) for tier in range(4)]
    caps = (cap, 4 * cap, 16 * cap, math.inf)
    tiers = tuple(MarginTier(c, r, r / 2) for c, r in zip(caps, rates, strict=True))
    return Market(f"M{number}", price / 10_000, 0.01 * 100.0 / price, 0.0005, 0.01, 28_800.0, tiers)


def listed_markets(count: int) -> tuple[Listing, ...]:
    """`count` made markets, the first the most popular and the calmest."""
    return tuple(
        Listing(
            market_terms(n, (0.1, 0.05, 0.15, 0.02)[n % 4]), 10.0 ** (2 - n % 4), 1.0 + 0.3 * n, 0.02, 0.01,
            1.0 + 3 * n, 1.0 / (n + 1),
        )
        for n in range(count)
    )  # fmt: skip


def made_paths(story: Story) -> Paths:
    """Outside prices of a story: noise, and crashes that go on over their minutes and stay."""
    rng = np.random.default_rng([story.seed, 9])
    total = WARM_UP + story.minutes + 1
    steps = rng.normal(0.0, story.noise, (total, story.markets))
    for minute, move, length in story.crashes:
        beta = 1.0 + 0.2 * np.arange(story.markets)
        at = WARM_UP + minute
        steps[at : at + length] += move / length * beta
    start = np.array([10.0 ** (2 - n % 4) for n in range(story.markets)])
    # no lower than where ticks become coarse
    log_close = np.clip(np.log(start) + np.cumsum(steps, axis=0), np.log(start / 50.0), np.log(start * 50.0))
    close = np.exp(log_close)
    opening = np.vstack([start, close[:-1]])
    wick = np.abs(rng.normal(0.0, story.noise, (2, *close.shape)))
    high = np.maximum(opening, close) * np.exp(wick[0])
    low = np.minimum(opening, close) * np.exp(-wick[1])
    asset = np.ones((total, len(ASSETS)))
    if story.crashes:
        at = WARM_UP + story.crashes[0][0]
        asset[at : at + 20, 1] = np.linspace(1.0, story.peg, len(asset[at : at + 20]))
        asset[at + 20 : at + 60, 1] = story.peg
    asset[:, 2] = close[:, 0]
    return Paths(START_US, opening, high, low, close, asset, np.full_like(close, np.nan))


def eager_mix(story: Story) -> dict[int, Habits]:
    """The default kinds of traders, of which only those of the story are there, who look often."""
    kept = {kind: MIX[kind] for kind in story.kinds}
    return {
        kind: habits._replace(
            leverage=habits.leverage * story.leverage,
            deals_a_day=story.eager,
            wealth=min(habits.wealth, 20.0),
        )
        for kind, habits in kept.items()
    }


def venue_of(story: Story) -> Venue:
    """The venue of a story, before its first minute."""
    return Venue(
        listed_markets(story.markets), made_paths(story), story.accounts, story.seed, WARM_UP,
        settings=story.settings, rule=story.rule, assets=ASSETS, mix=eager_mix(story),
        warm_up_minutes=WARM_UP,
    )  # fmt: skip


def stretches(story: Story, venue: Venue, minutes: int = 1) -> Iterator[Rows]:
    """Run a story to its end, `minutes` at a time; rates are put in force when their minute comes."""
    waiting = sorted(story.rates)
    while venue.minute < venue.minutes:
        while waiting and venue.minute >= WARM_UP + waiting[0][0]:
            _, initial, maintenance = waiting.pop(0)
            who = np.arange(0, story.accounts, 2)
            venue.set_margin_rates(who, np.full(len(who), initial), np.full(len(who), maintenance))
        yield from venue.run(venue.minute + minutes)


def joined(stretched: Sequence[Rows]) -> Rows:
    """The rows of all stretches as those of one."""
    return {name: np.concatenate([rows[name] for rows in stretched]) for name in stretched[0]}


CALM = Story(
    seed=1, accounts=4, markets=2, minutes=150, crashes=(), noise=3e-4, peg=1.0, leverage=1.0, eager=20.0,
    kinds=(RETAIL,), settings=Settings(), rule=RULE, rates=(),
)  # fmt: skip
CRASH = CALM._replace(
    seed=7, accounts=80, minutes=220, crashes=((60, -0.5, 4), (120, 0.6, 2), (170, -0.9, 1)), peg=0.7,
    leverage=3.0, eager=400.0, kinds=(RETAIL, MOMENTUM, REVERSAL, LINKED), rates=((30, 0.2, 0.1),),
    settings=Settings(least_depth_usd=500.0, fund_share=0.003, backstop_funding=0.01),
    rule=RULE._replace(whole_below_usd=100.0, least_step_usd=50.0),
)  # fmt: skip
"""One in which everything happens."""


def tables_of(venue: Venue, rows: Rows) -> Tables:
    """What a dataset would hold of a run."""
    names = account_names(venue)
    first_us = np.zeros(len(names), np.int64)
    first_seen(rows, first_us)
    return rows_of(
        {
            **fixed_tables(venue),
            **stretch_tables(venue, rows, names),
            "accounts": accounts_table(venue, names, first_us),
        }
    )


# ---- stories of all sorts

_KINDS = (RETAIL, MOMENTUM, REVERSAL, CARRY, HEDGER, WHALE, LINKED)

drawn_settings = st.builds(
    Settings()._replace,
    thinning=st.sampled_from([0.0, 1.2, 2.0]),
    withdraw_s=st.sampled_from([1.0, 15.0]),
    resilience_s=st.sampled_from([20.0, 600.0]),
    permanent_share=st.sampled_from([0.0, 0.1, 1.0]),
    spillover=st.sampled_from([0.0, 0.7, 1.0]),
    least_depth_usd=st.sampled_from([300.0, 5_000.0, 60_000.0]),
    most_walk=st.sampled_from([0.005, 0.03]),
    maker_reach=st.sampled_from([0.0, 3.0]),
    backstop_funding=st.sampled_from([0.0, 0.004, 0.2]),
    fund_share=st.sampled_from([0.0, 0.0005, 0.02]),
    deleveraging=st.integers(BITMEX, PROFIT_LEVERAGE),
    deleveraging_price=st.sampled_from([AT_BANKRUPTCY, AT_MARK, AT_PREVIOUS_ORACLE]),
    ranking_s=st.sampled_from([0.0, 5.0]),
    open_interest_low_usd=st.sampled_from([math.inf, math.inf, 5_000.0]),
    open_interest_high_usd=st.just(50_000.0),
    size_factor=st.sampled_from([0.0, 0.0, 0.002]),
    fine_volatility=st.sampled_from([0.5, 5.0, math.inf]),
)
drawn_rules = st.builds(
    RULE._replace,
    at_equality=st.integers(0, 1),
    whole_below_usd=st.sampled_from([0.0, 500.0, math.inf]),
    first_share=st.sampled_from([0.2, 1.0]),
    step_share=st.sampled_from([0.1, 0.5]),
    share_of_start=st.integers(0, 1),
    least_step_usd=st.sampled_from([0.0, 100.0]),
    cooldown_s=st.sampled_from([0.0, 1.0, 30.0]),
    safety_share=st.sampled_from([0.0, 0.1, 0.5]),
    backstop_share=st.sampled_from([0.0, 2.0 / 3.0]),
)


@st.composite
def stories(draw: Any) -> Story:
    """Small worlds in which prices, rules, habits and purses are drawn freely."""
    minutes = draw(st.integers(150, 260))
    crash = st.tuples(
        st.integers(5, minutes - 20),
        st.sampled_from([-1.6, -0.6, -0.25, -0.1, 0.1, 0.4, 1.0]),
        st.sampled_from([1, 4, 30]),
    )
    rate = st.tuples(
        st.integers(0, minutes - 1), st.sampled_from([0.12, 0.5, 1.0]), st.sampled_from([0.0, 0.06, 0.12])
    )
    return Story(
        seed=draw(st.integers(0, 2**20)),
        accounts=draw(st.sampled_from([2, 5, 12, 25, 40])),
        markets=draw(st.integers(1, 5)),
        minutes=minutes,
        crashes=tuple(draw(st.lists(crash, min_size=1, max_size=3))),
        noise=draw(st.sampled_from([1e-5, 3e-4, 3e-3])),
        peg=draw(st.sampled_from([1.0, 0.6])),
        leverage=draw(st.sampled_from([1.0, 3.0])),
        eager=draw(st.sampled_from([20.0, 200.0])),
        kinds=tuple(draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=4, unique=True))),
        settings=draw(drawn_settings),
        rule=draw(drawn_rules),
        rates=tuple(draw(st.lists(rate, max_size=2))),
    )
