"""Markets and accounts as venues have them, for laws."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from exchange.account import Account, Balance, Position
from exchange.contracts import Market, MarginTier


@st.composite
def schedules(draw: st.DrawFn, max_tiers: int = 6) -> tuple[MarginTier, ...]:
    """Rising tiers: caps of 1e2 to 1e8 dollars, maintenance of 0.1% to 50%, initial up to three times it."""
    count = draw(st.integers(1, max_tiers))
    caps = sorted(draw(st.sets(st.integers(100, 10**8), min_size=count, max_size=count)))
    rates = sorted(draw(st.lists(st.integers(10, 5_000), min_size=count, max_size=count)))
    multiples = [draw(st.integers(100, 300)) for _ in range(count)]
    tiers = []
    initial = 0
    for number, (cap, rate, multiple) in enumerate(zip(caps, rates, multiples, strict=True)):
        initial = max(initial, rate * multiple // 100)
        is_last = number + 1 == count
        tiers.append(MarginTier(math.inf if is_last else float(cap), initial / 10_000, rate / 10_000))
    return tuple(tiers)


def market_of(tiers: tuple[MarginTier, ...], name: str = "BTC-PERP") -> Market:
    return Market(name, 0.01, 0.001, 0.0005, 0.01, 3_600, tiers)


def signed(low: float, high: float) -> st.SearchStrategy[float]:
    magnitude = st.floats(math.log(low), math.log(high)).map(math.exp)
    return st.tuples(st.sampled_from((-1.0, 1.0)), magnitude).map(lambda pair: pair[0] * pair[1])


def prices() -> st.SearchStrategy[float]:
    return st.floats(math.log(1e-3), math.log(1e5)).map(math.exp)


@st.composite
def positions(draw: st.DrawFn, name: str = "BTC-PERP", isolated: bool = False) -> Position:
    """A position of $1 to $100M, in profit or loss by up to half its notional."""
    market = market_of(draw(schedules()), name)
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
def cross_accounts(draw: st.DrawFn, max_positions: int = 4) -> Account:
    """Positions in several markets over dollars (of up to twice their gross notional, or borrowed) and SOL."""
    count = draw(st.integers(1, max_positions))
    held = tuple(draw(positions(name=f"M{number}-PERP")) for number in range(count))
    gross = sum(abs(position.notional_usd) for position in held)
    dollars = Balance("USD", gross * draw(st.floats(-0.5, 2.0)))
    others = (draw(balances()),) if draw(st.booleans()) else ()
    return Account(held, (dollars, *others))
