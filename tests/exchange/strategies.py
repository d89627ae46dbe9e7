"""Markets and accounts as venues have them, and what may be done to them, for laws."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

from hypothesis import settings
from hypothesis import strategies as st

from exchange.account import Account, Balance, Position
from exchange.contracts import MarginTier, Market
from tests.oracle import exchange_oracle as oracle

law = settings(deadline=None, max_examples=60)
"""No law is about time: the first call of a compiled function takes seconds."""


@cache
def schedules(max_tiers: int = 5) -> st.SearchStrategy[tuple[MarginTier, ...]]:
    """Rising tiers: caps of 1e2 to 1e8 dollars, maintenance of 0.1% to 50%, initial up to three times it."""
    steps = st.tuples(st.integers(100, 10**8), st.integers(10, 5_000), st.integers(100, 300))
    return st.lists(steps, min_size=1, max_size=max_tiers, unique_by=lambda step: step[0]).map(_in_order)


def _in_order(drawn: list[tuple[int, int, int]]) -> tuple[MarginTier, ...]:
    caps = sorted(cap for cap, _, _ in drawn)
    rates = sorted(rate for _, rate, _ in drawn)
    tiers = []
    initial = 0
    for number, (cap, rate, (_, _, multiple)) in enumerate(zip(caps, rates, drawn, strict=True)):
        initial = max(initial, rate * multiple // 100)
        is_last = number + 1 == len(drawn)
        tiers.append(MarginTier(math.inf if is_last else float(cap), initial / 10_000, rate / 10_000))
    return tuple(tiers)


KNOWN_SCHEDULES = (
    (MarginTier(math.inf, 0.1, 0.05),),
    (MarginTier(math.inf, 0.01, 0.01),),
    (MarginTier(1e4, 0.02, 0.005), MarginTier(math.inf, 0.5, 0.25)),
    (MarginTier(2e4, 0.1, 0.05), MarginTier(1e5, 0.2, 0.1), MarginTier(math.inf, 1 / 3, 1 / 6)),
    (MarginTier(1e3, 0.05, 0.02), MarginTier(2e3, 0.05, 0.025), MarginTier(4e6, 0.1, 0.1)),
)
"""For accounts with many positions, where drawing every tier of every market takes too long."""
KNOWN = st.sampled_from(KNOWN_SCHEDULES)


def market_of(tiers: tuple[MarginTier, ...], name: str = "BTC-PERP") -> Market:
    return Market(name, 0.01, 0.001, 0.0005, 0.01, 3_600, tiers)


@cache
def signed(low: float, high: float) -> st.SearchStrategy[float]:
    magnitude = st.floats(math.log(low), math.log(high)).map(math.exp)
    return st.tuples(st.sampled_from((-1.0, 1.0)), magnitude).map(lambda pair: pair[0] * pair[1])


@cache
def prices() -> st.SearchStrategy[float]:
    return st.floats(math.log(1e-3), math.log(1e5)).map(math.exp)


@st.composite
def positions(
    draw: st.DrawFn,
    name: str = "BTC-PERP",
    isolated: bool = False,
    tiers: st.SearchStrategy[tuple[MarginTier, ...]] | None = None,
) -> Position:
    """A position of $1 to $100M, in profit or loss by up to half its notional."""
    market = market_of(draw(schedules() if tiers is None else tiers), name)
    mark = draw(prices())
    notional = draw(signed(1.0, 1e8))
    entry = mark * draw(st.floats(0.5, 1.5))
    quantity = notional / mark
    margin = abs(notional) * draw(st.floats(-0.5, 2.0)) if isolated else math.nan
    return Position(market, quantity, mark, quote_usd=-quantity * entry, isolated_collateral_usd=margin)


@st.composite
def balances(draw: st.DrawFn, asset: str = "SOL") -> Balance:
    return Balance(
        asset,
        draw(signed(1e-2, 1e5)),
        draw(prices()),
        draw(st.integers(0, 100)) / 100,
        1.0 + draw(st.integers(0, 100)) / 100,
    )


@st.composite
def cross_accounts(draw: st.DrawFn, max_positions: int = 3) -> Account:
    """Positions in several markets over dollars (up to twice the gross notional, or borrowed) and SOL."""
    count = draw(st.integers(1, max_positions))
    held = tuple(draw(positions(f"M{number}-PERP", tiers=KNOWN)) for number in range(count))
    gross = sum(abs(position.notional_usd) for position in held)
    dollars = Balance("USD", gross * draw(st.floats(-0.5, 2.0)))
    others = (draw(balances()),) if draw(st.booleans()) else ()
    return Account(held, (dollars, *others))


FLAT = (MarginTier(math.inf, 0.1, 0.05),)


def money_scale(account: Account) -> float:
    """Size of the sums that make up the account: what rounding is measured against."""
    gross = sum(abs(position.notional_usd) for position in account.positions)
    return gross + sum(abs(balance.value_usd) for balance in account.balances)


def remarked(account: Account, market: str, mark: float) -> Account:
    return replace(
        account,
        positions=tuple(
            replace(position, mark=mark) if position.market.market == market else position
            for position in account.positions
        ),
    )


def maintenance_tiers(tiers: tuple[MarginTier, ...]) -> list[oracle.Tier]:
    return [(tier.notional_cap_usd, tier.maintenance_margin_rate) for tier in tiers]
