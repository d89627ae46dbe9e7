"""What stands behind a pool and what it needs, by the rules of `exchange.margin`."""

from __future__ import annotations

from exchange.compiled import inlined, lean
from exchange.contracts import FloatArray
from exchange.margin import PoolFigures, cross_figures
from exchange.stress.book import Book, Live

EQUITY, COLLATERAL, INITIAL, MAINTENANCE, GROSS = range(5)
"""Columns of `initial_figures`, dollars."""
FIGURES = 5


@inlined
def figures(book: Book, live: Live, pool: int, mark: FloatArray, price: FloatArray) -> PoolFigures:
    """The sums of a pool at given marks and asset prices."""
    a, b = book.first_position[pool], book.first_position[pool + 1]
    c, d = book.first_balance[pool], book.first_balance[pool + 1]
    sums = cross_figures(
        book.market[a:b], live.quantity[a:b], live.no_quote[a:b], mark, book.tiers,
        book.asset[c:d], live.amount[c:d], price, book.collateral_weight, book.liability_weight,
    )  # fmt: skip
    cash = live.cash[pool]
    return PoolFigures(
        sums.equity_usd + cash, sums.collateral_usd + cash, sums.initial_margin_usd,
        sums.maintenance_margin_usd, sums.gross_notional_usd, sums.position_maintenance_usd,
    )  # fmt: skip


@lean
def initial_figures(book: Book, live: Live, out: FloatArray) -> None:
    """Every pool as `live` begins, float64[pools, FIGURES]."""
    for pool in range(live.cash.shape[0]):
        sums = figures(book, live, pool, live.mark, live.price)
        out[pool, EQUITY] = sums.equity_usd
        out[pool, COLLATERAL] = sums.collateral_usd
        out[pool, INITIAL] = sums.initial_margin_usd
        out[pool, MAINTENANCE] = sums.maintenance_margin_usd
        out[pool, GROSS] = sums.gross_notional_usd
