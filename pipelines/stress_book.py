"""The book of a venue at one moment, from the state that features see: what a stress run begins with."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.contracts import TierArrays
from exchange.errors import InputError
from exchange.margin import quote_leg_usd
from exchange.simulation.settings import Settings
from exchange.stress.book import Book, begin, new_live
from exchange.stress.pools import FIGURES, initial_figures
from features.depth import depth_within_usd
from features.portfolio import gather
from features.state import BALANCES, CASH, ISOLATED, POSITIONS, SIGMA_MEAN, Portfolio, new_portfolio
from features.venue import Venue
from pipelines.store import Dataset

Floats = npt.NDArray[np.float64]

DEPTH_BPS = 100.0
DEPTH_SHARE = 0.0024
"""Depth within 1% over open interest where no book is known: that of the thinnest simulated market."""
HALF_SPREAD = 0.0005
"""Where no book is known."""
DAY_SIGMA = 0.05
"""Volatility of a day where no bars tell it."""


class Standing(NamedTuple):
    """A book, whose its pools are, and what had to be assumed."""

    book: Book
    account: npt.NDArray[np.int64]
    """Venue's id of the account of each pool."""
    figures: Floats
    """float64[pools, FIGURES] of `exchange.stress.pools`, dollars."""
    markets: tuple[str, ...]
    assets: tuple[str, ...]
    open_interest_usd: Floats
    """By market: as the venue's bars have it, else half of what the accounts hold."""
    left_out: tuple[str, ...]
    """Accounts whose equity is not known, as a mark or a price is missing."""
    assumed: tuple[str, ...]
    """In words."""


def standing_of(venue: Venue, dataset: Dataset, time_us: int) -> Standing:
    """The book of all accounts with open positions at `time_us`; raises InputError where there are none."""
    rows = _Rows()
    folio = new_portfolio(len(venue.state.market), len(venue.state.asset))
    for key in range(len(venue.account_names)):
        if gather(venue.state, key, folio):
            rows.add(key, folio)
    if not rows.account:
        raise InputError(f"{dataset.path}: no account has an open position at that time")
    assumed: list[str] = []
    count = len(venue.market_names)
    market = venue.state.market[:count]
    interest = _open_interest(rows, market)
    book = _book(venue, rows, interest, _fund_usd(dataset, time_us, interest, assumed), assumed)
    figures = np.empty((len(book.cash), FIGURES))
    initial_figures(book, begin(book, new_live(book)), figures)
    known = np.isfinite(figures).all(axis=1)
    account = np.array(rows.account, np.int64)
    unknown = np.unique(account[~known])
    keep = ~np.isin(account, unknown)
    if not keep.any():
        raise InputError(f"{dataset.path}: equity is known of no account at that time (marks are missing)")
    return Standing(
        without(book, np.flatnonzero(~keep)) if unknown.size else book,
        account[keep],
        figures[keep],
        tuple(venue.market_names),
        tuple(venue.asset_names),
        interest,
        tuple(venue.account_names[key] for key in unknown.tolist()),
        tuple(assumed),
    )


def without(book: Book, pools: npt.NDArray[np.int64]) -> Book:
    """The book without some pools."""
    keep = np.ones(len(book.cash), bool)
    keep[pools] = False

    def rows(first: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        counts = np.diff(first)
        return np.repeat(keep, counts), _starts(counts[keep])

    positions, first_position = rows(book.first_position)
    balances, first_balance = rows(book.first_balance)
    return book._replace(
        first_position=first_position, market=book.market[positions], quantity=book.quantity[positions],
        entry_price=book.entry_price[positions], first_balance=first_balance, asset=book.asset[balances],
        amount=book.amount[balances], cash=book.cash[keep],
    )  # fmt: skip


class _Rows:
    """Pools, positions and balances as they are read, account by account."""

    def __init__(self) -> None:
        self.account: list[int] = []
        self.cash: list[float] = []
        self.positions: list[int] = []
        self.balances: list[int] = []
        self.position: list[tuple[int, float, float]] = []
        self.balance: list[tuple[int, float]] = []

    def add(self, key: int, folio: Portfolio) -> None:
        held = folio.position[: folio.count[POSITIONS]]
        held = held[held["quantity"] != 0.0]
        rows = [(int(row["market"]), float(row["quantity"]), float(row["entry_price"]), row) for row in held]
        if folio.count[ISOLATED]:  # isolated: a pool a position, with its own collateral and cash leg
            for market, quantity, entry, row in rows:
                leg = quote_leg_usd(quantity, entry, float(row["quote"]))
                self._pool(key, float(row["isolated_collateral"]) + leg, 1, 0)
                self.position.append((market, quantity, entry))
            return
        pledged = folio.balance[: folio.count[BALANCES]]
        self._pool(key, float(folio.account[CASH]), len(rows), len(pledged))
        self.position += [row[:3] for row in rows]
        self.balance += [(int(row["asset"]), float(row["amount"])) for row in pledged]

    def _pool(self, key: int, cash: float, positions: int, balances: int) -> None:
        self.account.append(key)
        self.cash.append(cash)
        self.positions.append(positions)
        self.balances.append(balances)


def _starts(counts: Any) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _book(venue: Venue, rows: _Rows, interest: Floats, fund_usd: float, assumed: list[str]) -> Book:
    market = venue.state.market[: len(venue.market_names)]
    asset = venue.state.asset[: len(venue.asset_names)]
    number = np.array([row[0] for row in rows.position], np.int32)
    entry = np.array([row[2] for row in rows.position])
    mark = np.ascontiguousarray(market["mark"])
    depth, spread = _liquidity(venue, interest, assumed)
    sigma = np.ascontiguousarray(market["sigma"][:, SIGMA_MEAN])
    unknown = ~(sigma > 0.0)
    if unknown.any():
        names = ", ".join(np.array(venue.market_names)[unknown].tolist())
        assumed.append(f"a volatility of {DAY_SIGMA:.0%} a day in {names}, where no bars tell it")
    sigma = np.where(unknown, DAY_SIGMA / math.sqrt(86_400.0), sigma)
    price = np.ascontiguousarray(asset["price"])
    return Book(
        first_position=_starts(rows.positions),
        market=number,
        quantity=np.array([row[1] for row in rows.position]),
        entry_price=np.where(entry > 0.0, entry, mark[number]),
        first_balance=_starts(rows.balances),
        asset=np.array([row[0] for row in rows.balance], np.int32),
        amount=np.array([row[1] for row in rows.balance], np.float64),
        cash=np.array(rows.cash),
        mark=mark,
        tiers=TierArrays(
            *(
                np.ascontiguousarray(market[name])
                for name in (
                    "tier_floor", "initial_rate", "maintenance_rate", "initial_deduction",
                    "maintenance_deduction",
                )
            )
        ),
        liquidation_fee_rate=np.ascontiguousarray(market["liquidation_fee_rate"]),
        depth_usd=depth,
        half_spread=spread,
        variance=sigma * sigma * 60.0,
        price=price,
        collateral_weight=np.ascontiguousarray(asset["collateral_weight"]),
        liability_weight=np.ascontiguousarray(asset["liability_weight"]),
        fund_usd=np.array([fund_usd]),
    )  # fmt: skip


def _open_interest(rows: _Rows, market: Any) -> Floats:
    """Dollars by market: as the bars have it, else half of what the accounts hold."""
    held = np.zeros(len(market))
    for number, quantity, _ in rows.position:
        held[number] += 0.5 * abs(quantity) * market["mark"][number]
    told = market["open_interest"]
    return np.where(told > 0.0, told, np.nan_to_num(held))


def _liquidity(venue: Venue, interest: Floats, assumed: list[str]) -> tuple[Floats, Floats]:
    count = len(venue.market_names)
    depth, spread = np.empty((count, 2)), np.empty(count)
    guessed = []
    for key, name in enumerate(venue.market_names):
        row = venue.state.market[key]
        levels = int(row["level_count"])
        sides = [
            depth_within_usd(DEPTH_BPS, row["distance"], row[side], levels)
            for side in ("bid_depth", "ask_depth")
        ]
        if levels == 0 or not all(size > 0.0 for size in sides):
            sides = [DEPTH_SHARE * float(interest[key])] * 2
            guessed.append(name)
        depth[key] = sides
        bid, ask = float(row["best_bid"]), float(row["best_ask"])
        half = (ask - bid) / (ask + bid)
        spread[key] = half if half >= 0.0 else HALF_SPREAD
    if guessed:
        assumed.append(
            f"no book is known of {', '.join(guessed)}: {DEPTH_SHARE:.2%} of open interest within 1%, a side"
        )
    return depth, spread


def _fund_usd(dataset: Dataset, time_us: int, interest: Floats, assumed: list[str]) -> float:
    rows = dataset.read("insurance_fund", None, time_us).sort("time", maintain_order=True)
    if rows.height:
        return max(float(rows["balance_usd"][-1]), 0.0)
    share = Settings().fund_share
    assumed.append(f"the insurance fund is not in the dataset: {share:.2%} of open interest")
    return share * float(interest.sum())
