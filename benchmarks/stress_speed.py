"""How long `perprisk stress` takes: a made book of N accounts with positions, S days of chance.

    python -m benchmarks.stress_speed [--accounts 20000] [--scenarios 1000] [--json FILE]

Times the part that grows with accounts and scenarios, on one core: reading a dataset and scoring its accounts
come on top (docs/speed.md has both). Compiled code is warm, the first run is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from exchange.contracts import MarginTier, TierArrays, tier_arrays
from exchange.stress.book import Book, begin, new_live
from exchange.stress.pools import FIGURES, initial_figures
from pipelines.stress_book import Standing
from pipelines.stress_prices import Past
from pipelines.stress_runs import Desk
from pipelines.stress_scenarios import Chance, named, world_of

MARKETS = 10
DAY_SIGMA = 0.05
DEPTH_SHARE = 0.004
FUND_SHARE = 0.0013
MOST_WEALTH_USD = 200_000.0


def made_book(accounts: int, seed: int = 1) -> Standing:
    """Accounts with one to three positions, log-normal wealth, leverage 0.5 to 12 that falls with wealth."""
    chance = np.random.default_rng(seed)
    counts = chance.choice([1, 2, 3], accounts, p=[0.6, 0.25, 0.15])
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    positions = int(first[-1])
    market = np.concatenate([chance.choice(MARKETS, count, replace=False) for count in counts]).astype(
        np.int32
    )
    mark = np.exp(chance.uniform(0.0, 10.0, MARKETS))
    owner = np.repeat(np.arange(accounts), counts)
    wealth = np.minimum(np.exp(chance.normal(5.0, 2.3, accounts)), MOST_WEALTH_USD)
    median = 3.0 * (1.0 + wealth / 2_000.0) ** -0.3
    leverage = np.clip(median * np.exp(chance.normal(0.0, 0.8, accounts)), 0.5, 12.0)
    notional = (wealth * leverage / counts)[owner]
    quantity = notional / mark[market] * chance.choice([-1.0, 1.0], positions, p=[0.45, 0.55])
    cash = wealth - np.bincount(owner, quantity * mark[market], accounts)
    one = tier_arrays([MarginTier(1e6, 0.08, 0.05), MarginTier(math.inf, 0.16, 0.10)])
    interest = np.bincount(market, notional, MARKETS) / 2
    depth = np.repeat(DEPTH_SHARE * interest[:, None], 2, axis=1)
    book = Book(
        first, market, quantity, mark[market], np.zeros(accounts + 1, np.int32), np.zeros(0, np.int32),
        np.zeros(0), cash, mark, TierArrays(*(np.tile(column, (MARKETS, 1)) for column in one)),
        np.full(MARKETS, 0.01), depth, np.full(MARKETS, 3e-4),
        np.full(MARKETS, DAY_SIGMA**2 / 1440), np.ones(1), np.ones(1), np.ones(1),
        np.array([FUND_SHARE * interest.sum()]),
    )  # fmt: skip
    figures = np.empty((accounts, FIGURES))
    initial_figures(book, begin(book, new_live(book)), figures)
    names = tuple(f"M{key}-PERP" for key in range(MARKETS))
    return Standing(book, np.arange(accounts), figures, names, ("USD",), interest, (), ())


def measure(accounts: int, scenarios: int) -> dict[str, Any]:
    """Seconds of the named scenarios and of the days of chance."""
    standing = made_book(accounts)
    empty = Past(np.empty(0, np.int64), np.empty((0, MARKETS)))
    world = world_of(standing, empty, list(range(MARKETS)), [-1])
    chance = Chance(world, np.full(MARKETS, DAY_SIGMA / math.sqrt(86_400.0)), 7)
    desk, told = Desk(standing), named(world)
    desk.row(told[0].shock)
    start = time.perf_counter()
    for scenario in told:
        desk.row(scenario.shock)
    between = time.perf_counter()
    losses = [desk.row(chance.day(number).shock)[0]["shortfall_usd"] for number in range(scenarios)]
    end = time.perf_counter()
    return {
        "accounts": accounts,
        "named_scenarios": len(told),
        "named_s": between - start,
        "days": scenarios,
        "days_s": end - between,
        "shortfall_99_usd": float(np.sort(losses)[-max(scenarios // 100, 1)]),
    }


def main() -> None:
    """Print the table."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.stress_speed", description=__doc__)
    made.add_argument("--accounts", type=int, default=20_000)
    made.add_argument("--scenarios", type=int, default=1_000)
    made.add_argument("--json", type=Path, help="write the same figures here")
    options = made.parse_args()
    found = measure(options.accounts, options.scenarios)
    print(f"{found['accounts']:,} accounts, one core")
    print(f"{found['named_scenarios']:>6,} named scenarios  {found['named_s']:8.1f} s")
    print(f"{found['days']:>6,} days of chance   {found['days_s']:8.1f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
