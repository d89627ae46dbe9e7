"""One run of the generated venue: prices, traders and defaults.

Order at a bar: its marks, funding, forced closing of what is under maintenance, the daily snapshot; then,
up to the next bar, the traders. A bar's fills and snapshots use that bar's marks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from exchange.simulation.behaviour import Crowd
from exchange.simulation.defaults import force_close
from exchange.simulation.ledger import LOGGED, Ledger
from exchange.simulation.prices import BAR_US, BARS_A_DAY, FUNDING_BARS, Paths, price_paths
from exchange.simulation.terms import TOKEN_MARKET, Listing, listings, terms_of
from exchange.simulation.traders import People, population
from exchange.units import DAY_US

Floats = npt.NDArray[np.float64]

START_US = 20_089 * DAY_US
"""2025-01-01 00:00 UTC."""
HISTORY_BARS = 10 * BARS_A_DAY
WARM_UP_BARS = 2 * BARS_A_DAY
"""Before the start traders already trade, unrecorded, so that the run opens on a lived-in venue."""
FUND_PER_ACCOUNT_USD = 3.0
MOST_DAYS = 3_650.0


class Run(NamedTuple):
    """What a run leaves behind; arrays by bar start with the history, `start_bar` is the start's."""

    listed: tuple[Listing, ...]
    people: People
    paths: Paths
    price: Floats
    """(bars, assets) in dollars."""
    open_interest_usd: Floats
    """(bars, markets), NaN before anybody traded."""
    start_bar: int
    start_us: int
    end_us: int
    rows: dict[str, list[tuple[Any, ...]]]
    """By name in `ledger.LOGGED`, in the order in which they were written, from the start on."""
    fund_usd: float
    """Insurance fund at the start."""
    dollars: tuple[float, float]
    """All dollars of traders, house, fund and fees at the start and at the end."""


def run_venue(accounts: int, days: float, rng: np.random.Generator) -> Run:
    """Let `accounts` traders trade for `days` days; the same generator state gives the same run.

    Raises InputError for no accounts, or for days outside one bar to ten years.
    """
    if accounts < 1:
        raise InputError(f"accounts must be at least 1, not {accounts}")
    bars = round(days * BARS_A_DAY) if 0.0 < days <= MOST_DAYS else 0
    if bars < 1:
        raise InputError(f"days must be from {1.0 / BARS_A_DAY:.4f} (one bar) to {MOST_DAYS:g}, not {days:g}")
    listed = listings()
    start_bar, end_bar = HISTORY_BARS, HISTORY_BARS + bars
    first_bar = start_bar - WARM_UP_BARS
    paths = price_paths(listed, start_bar, bars, rng)
    token = [listing.market.market for listing in listed].index(TOKEN_MARKET)
    price = np.column_stack([np.ones(len(paths.mark)), paths.index_price[:, token]])
    people = population(accounts, len(listed), first_bar, start_bar, end_bar, START_US, rng)
    ledger = Ledger(terms_of(listed), people, paths, price, fund_usd=FUND_PER_ACCOUNT_USD * accounts)
    crowd = Crowd(ledger, rng)
    open_interest = np.full(paths.mark.shape, np.nan)
    fund_usd = dollars = 0.0
    for bar in range(first_bar, end_bar + 1):
        ledger.bar = bar
        time_us = START_US + (bar - start_bar) * BAR_US
        if bar == start_bar:
            # what the accounts were before is told by the snapshots of this bar
            ledger.rows.update({table: [] for table in LOGGED})
            fund_usd, dollars = ledger.fund_usd, ledger.total_dollars()
        _step(ledger, crowd, open_interest, time_us, closing=bar != start_bar)
        if bar < end_bar:
            crowd.between_bars(time_us)
    return Run(
        listed, people, paths, price, open_interest, start_bar, START_US, START_US + bars * BAR_US,
        ledger.rows, fund_usd, (dollars, ledger.total_dollars()),
    )  # fmt: skip


def _step(ledger: Ledger, crowd: Crowd, open_interest: Floats, time_us: int, *, closing: bool) -> None:
    """What the venue does at a bar."""
    bar, mark = ledger.bar, ledger.mark
    if bar % FUNDING_BARS == 0:
        ledger.pay_funding(ledger.paths.funding[bar])
    net = ledger.quantity.sum(axis=0)
    # the house maker is short what traders are long on balance: its longs count where they are short
    open_interest[bar] = (np.maximum(ledger.quantity, 0.0).sum(axis=0) + np.maximum(-net, 0.0)) * mark
    ledger.paths.volume_usd[bar] += ledger.traded_usd
    ledger.traded_usd[:] = 0.0
    ledger.value(np.flatnonzero(ledger.open_positions))
    told: set[int] = set()
    if closing:
        told.update(force_close(ledger, time_us))
        for account in sorted(told):
            crowd.wiped_out(account)
    if bar % BARS_A_DAY == 0:
        told.update(np.flatnonzero(ledger.amount.any(axis=1) | (ledger.open_positions > 0)).tolist())
    for account in sorted(told):
        ledger.snapshot(account, time_us)
