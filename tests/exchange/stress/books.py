"""Small books for stress runs: made by hand, or of chance with as many longs as shorts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from exchange.contracts import MarginTier, TierArrays, tier_arrays
from exchange.stress.book import Book, Shock

MAINTENANCE, INITIAL = 0.05, 0.08


def tiers(markets: int) -> TierArrays:
    """Two tiers in every market."""
    one = tier_arrays(
        [MarginTier(1e6, INITIAL, MAINTENANCE), MarginTier(math.inf, 2 * INITIAL, 2 * MAINTENANCE)]
    )
    return TierArrays(*(np.tile(column, (markets, 1)) for column in one))


def book(
    pools: Sequence[tuple[float, Sequence[tuple[int, float, float]], Sequence[tuple[int, float]]]],
    *,
    marks: Sequence[float] = (100.0,),
    prices: Sequence[float] = (1.0,),
    weight: float = 0.9,
    depth_usd: float = 1e5,
    fund_usd: float = 1_000.0,
) -> Book:
    """Pools as (cash, positions (market, quantity, entry), balances (asset, amount))."""
    positions = [row for _, held, _ in pools for row in held]
    balances = [row for _, _, pledged in pools for row in pledged]
    markets = len(marks)
    return Book(
        first_position=np.cumsum([0, *(len(held) for _, held, _ in pools)]).astype(np.int32),
        market=np.array([row[0] for row in positions], np.int32),
        quantity=np.array([row[1] for row in positions], float),
        entry_price=np.array([row[2] for row in positions], float),
        first_balance=np.cumsum([0, *(len(pledged) for _, _, pledged in pools)]).astype(np.int32),
        asset=np.array([row[0] for row in balances], np.int32),
        amount=np.array([row[1] for row in balances], float),
        cash=np.array([cash for cash, _, _ in pools], float),
        mark=np.array(marks, float),
        tiers=tiers(markets),
        liquidation_fee_rate=np.full(markets, 0.01),
        depth_usd=np.full((markets, 2), depth_usd),
        half_spread=np.full(markets, 1e-4),
        variance=np.full(markets, 0.04**2 / 1440),
        price=np.array(prices, float),
        collateral_weight=np.full(len(prices), weight),
        liability_weight=np.full(len(prices), 2.0 - weight),
        fund_usd=np.array([fund_usd]),
    )


def chance_book(
    seed: int, pools: int = 40, markets: int = 3, depth_usd: float = 1e5, fund: float = 50.0
) -> Book:
    """A book in which every long has its short, leverage from 1 to 15, some assets pledged and borrowed."""
    chance = np.random.default_rng(seed)
    marks = np.exp(chance.uniform(0, 8, markets))
    held: list[list[tuple[int, float, float]]] = [[] for _ in range(pools)]
    for market in range(markets):
        for one, other in chance.permutation(pools)[: pools // 2 * 2].reshape(-1, 2):
            size = math.exp(chance.normal(8, 1.5)) / marks[market]
            held[one].append((market, size, marks[market] * chance.uniform(0.8, 1.2)))
            held[other].append((market, -size, marks[market] * chance.uniform(0.8, 1.2)))
    rows = []
    for positions in held:
        notional = sum(abs(size) * marks[market] for market, size, _ in positions)
        cost = sum(size * marks[market] for market, size, _ in positions)
        equity = notional / chance.uniform(1, 15)
        pledged = [(0, float(chance.normal(0.3, 0.3)) * equity)] if chance.random() < 0.4 else []
        rows.append((equity - cost - sum(amount for _, amount in pledged), positions, pledged))
    return book(rows, marks=marks.tolist(), depth_usd=depth_usd, fund_usd=fund)


def shock(
    moves: Sequence[float], *, asset: float = 0.0, knots: int = 20, knot_s: float = 60.0, depth: float = 1.0,
    frozen: int = 0, rest: int = 10,
) -> Shock:  # fmt: skip
    """Prices that go by log `moves` in equal steps, then stand still."""
    ramp = np.concatenate([np.arange(1, knots + 1) / knots, np.ones(rest)])
    market = ramp[:, None] * np.array(moves, float)
    return Shock(market, ramp[:, None] * np.array([asset]), knot_s, depth, frozen, 0.1)
