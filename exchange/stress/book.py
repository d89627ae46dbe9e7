"""What a stress run is given and what it writes: the book as it stands, one shock, and the run's own tables.

A pool is what answers for its positions together: a cross account, or one position of an isolated one. Its
equity is cash + sum quantity * mark + sum amount * price, with every cash leg in `cash`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.contracts import FloatArray, TierArrays
from exchange.margin import IdArray

Flags = npt.NDArray[np.int64]

BIDS, ASKS = 0, 1


class Book(NamedTuple):
    """Accounts, markets and the insurance fund at one moment; never written to.

    P pools, N positions in the order of their pools, B balances likewise, M markets, A assets. Dollars.
    """

    first_position: IdArray
    """int32[P + 1]: the positions of pool p are rows first_position[p] to first_position[p + 1] - 1."""
    market: IdArray
    quantity: FloatArray
    entry_price: FloatArray
    """Average entry, the mark where it is not known: such a position then ranks without profit."""
    first_balance: IdArray
    asset: IdArray
    amount: FloatArray
    cash: FloatArray
    mark: FloatArray
    tiers: TierArrays
    liquidation_fee_rate: FloatArray
    depth_usd: FloatArray
    """float64[M, 2]: notional within 1% of the mid, bids and asks."""
    half_spread: FloatArray
    """float64[M], a fraction of the mid."""
    variance: FloatArray
    """float64[M]: of the log price in a minute, at which the book is as deep as `depth_usd` says."""
    price: FloatArray
    collateral_weight: FloatArray
    liability_weight: FloatArray
    fund_usd: FloatArray
    """float64[1]."""


class Shock(NamedTuple):
    """What happens to outside prices, books and the oracle; K knots, straight lines between them."""

    market: FloatArray
    """float64[K, M]: log of the outside price over that at the start, at the end of each stretch."""
    asset: FloatArray
    """float64[K, A]."""
    knot_s: float
    """Seconds of a stretch."""
    depth_factor: float
    """Share of the book that is there at all, from the start."""
    frozen_knots: int
    """Stretches in which marks and asset prices of the margin engine stand still."""
    permanent_share: float
    """Part of what forced orders do to the price that stays; 0 where the path already holds what stayed."""


# Slots of `Live.clock`.
TRAVELLED, EXPECTED = range(2)

# Slots of `Live.total`, dollars.
FUND, PAID, RECEIVED, LIQUIDATED, DELEVERAGED, WINNERS_LOSS, UNCOVERED, BOOK_CASH = range(8)
TOTALS = 8


class Live(NamedTuple):
    """Everything that a run changes; made once, filled anew by every run."""

    cash: FloatArray
    quantity: FloatArray
    amount: FloatArray
    closing: Flags
    """0, or 1 while the pool is being closed by force."""
    steps: Flags
    first_notional_usd: FloatArray
    liquidated_usd: FloatArray
    shortfall_usd: FloatArray
    """Loss beyond a pool's equity at the prices at which it was closed, whoever bore it."""
    deleveraged_usd: FloatArray
    deleveraging_loss_usd: FloatArray
    """What winners were paid less than the mark; below zero where they were paid more."""
    near: Flags
    watched: Flags
    due: FloatArray
    """How far prices have to have gone, by `clock`, before anything could bring the pool near maintenance."""
    clock: FloatArray
    """float64[2]: sum of the largest log moves between looks at all pools, and pools to be closed."""
    last_mark: FloatArray
    """At the last such look."""
    last_price: FloatArray
    mark: FloatArray
    price: FloatArray
    ahead_mark: FloatArray
    ahead_price: FloatArray
    outside: FloatArray
    """Log of the outside price over that at the start."""
    mid: FloatArray
    shift: FloatArray
    wave: FloatArray
    liquidity: FloatArray
    spread: FloatArray
    fast_variance: FloatArray
    looked_at: FloatArray
    """Feedback at which the pools to be watched were chosen."""
    feedback: FloatArray
    """Largest that forced orders moved the price, log, with its sign."""
    queue: npt.NDArray[np.int64]
    """int64[2 M, 3]: round in which a queue was ranked, its length, whose turn it is."""
    order: npt.NDArray[np.int64]
    """int64[2, N]: positions in the order in which they are deleveraged, market by market."""
    rank: FloatArray
    total: FloatArray
    no_quote: FloatArray


BY_POOL = (
    "cash", "closing", "steps", "first_notional_usd", "liquidated_usd", "shortfall_usd", "deleveraged_usd",
    "deleveraging_loss_usd", "near", "watched", "due",
)  # fmt: skip


NEVER = -1_000_000
"""Round in which a queue was ranked that has not been."""


class Places(NamedTuple):
    """The book's positions by market, and the pool of each: what deleveraging goes by."""

    pool: IdArray
    first: IdArray
    """int32[M + 1]"""
    position: IdArray


def places_of(book: Book) -> Places:
    """Where the positions of each market are."""
    pools = np.repeat(np.arange(len(book.cash)), np.diff(book.first_position)).astype(np.int32)
    counts = np.bincount(book.market, minlength=len(book.mark))
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Places(pools, first, np.argsort(book.market, kind="stable").astype(np.int32))


def new_live(book: Book) -> Live:
    """Tables for runs of this book."""
    pools, positions, markets = len(book.cash), len(book.market), len(book.mark)
    assets = len(book.price)
    sizes: dict[str, int | tuple[int, int]] = dict.fromkeys(Live._fields, markets)
    sizes |= dict.fromkeys(BY_POOL, pools) | dict.fromkeys(("quantity", "rank", "no_quote"), positions)
    sizes |= {"amount": len(book.amount), "price": assets, "ahead_price": assets, "last_price": assets}
    sizes |= {"total": TOTALS, "clock": 2}
    sizes |= {"queue": (2 * markets, 3), "order": (2, positions)}
    whole = ("closing", "steps", "near", "watched", "queue", "order")
    made: Any = {name: np.zeros(size, np.int64 if name in whole else float) for name, size in sizes.items()}
    return Live(**made)


def begin(book: Book, live: Live) -> Live:
    """The same tables as they are before anything has happened."""
    for table in live:
        table[...] = 0
    live.cash[:], live.quantity[:], live.amount[:] = book.cash, book.quantity, book.amount
    live.mark[:], live.mid[:], live.price[:] = book.mark, book.mark, book.price
    live.last_mark[:], live.last_price[:] = book.mark, book.price
    live.liquidity[:] = 1.0
    live.spread[:], live.fast_variance[:] = book.half_spread, book.variance
    live.queue[:] = NEVER
    live.total[FUND] = book.fund_usd[0]
    return live
