"""Scenarios through the book: a row each, and who bore what."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.simulation.settings import RULE, Settings
from exchange.stress.book import (
    BOOK_CASH,
    DELEVERAGED,
    FUND,
    LIQUIDATED,
    PAID,
    RECEIVED,
    UNCOVERED,
    WINNERS_LOSS,
    Book,
    Live,
    Places,
    Shock,
    begin,
    new_live,
    places_of,
)
from exchange.stress.run import count_open_deficits, run
from pipelines.stress_book import Standing

Floats = npt.NDArray[np.float64]

DUST_USD = 0.01
"""Below it nothing is counted."""
EXACT = 1e-9
"""Of all money and positions that a run goes over: what rounding may lose."""


class Bearing(NamedTuple):
    """By pool, dollars: what one or more scenarios did."""

    liquidated_usd: Floats
    shortfall_usd: Floats
    deleveraged_usd: Floats
    deleveraging_loss_usd: Floats

    def plus(self, other: Bearing) -> Bearing:
        """Both together."""
        return Bearing._make(a + b for a, b in zip(self, other, strict=True))


class Desk:
    """One book, ready for scenarios."""

    def __init__(self, standing: Standing, book: Book | None = None) -> None:
        """Tables are made once; `book` is that of `standing` with something changed."""
        self.standing = standing
        self.book = standing.book if book is None else book
        self._places: Places = places_of(self.book)
        self._live: Live = new_live(self.book)
        self._settings = Settings()

    def go(self, shock: Shock) -> Live:
        """Run one shock and leave the tables as it left them; asserts that nothing was made or lost."""
        live = begin(self.book, self._live)
        run(self.book, self._places, live, shock, self._settings, RULE)
        self._conserved()
        return live

    def bearing(self, shock: Shock) -> Bearing:
        """Run one shock: who bore what, what open positions lack at the end included."""
        live = self.go(shock)
        live.total[UNCOVERED] += count_open_deficits(self.book, live)
        return Bearing(
            live.liquidated_usd.copy(), live.shortfall_usd.copy(), live.deleveraged_usd.copy(),
            live.deleveraging_loss_usd.copy(),
        )  # fmt: skip

    def row(self, shock: Shock) -> tuple[dict[str, Any], Bearing]:
        """Run one shock: its figures, and who bore what."""
        bearing = self.bearing(shock)
        live, total = self._live, self._live.total
        row = {
            "minutes": round(shock.knot_s * len(shock.market) / 60.0, 3),
            "liquidated_accounts": self._accounts(bearing.liquidated_usd),
            "liquidated_notional_usd": float(total[LIQUIDATED]),
            "negative_accounts": self._accounts(bearing.shortfall_usd),
            "shortfall_usd": float(bearing.shortfall_usd.sum()),
            "insurance_draw_usd": float(total[PAID]),
            "net_fund_usd": float(total[RECEIVED] - total[PAID]),
            "fund_left_usd": float(total[FUND]),
            "deleveraged_accounts": self._accounts(bearing.deleveraged_usd),
            "deleveraged_notional_usd": float(total[DELEVERAGED]),
            "deleveraging_loss_usd": float(total[WINNERS_LOSS]),
            "uncovered_usd": float(total[UNCOVERED]),
            "markets": {
                name: {
                    "outside": float(np.expm1(live.outside[key])),
                    "venue": float(live.mid[key] / self.book.mark[key] - 1.0),
                    "most_feedback": float(np.expm1(live.feedback[key])),
                }
                for key, name in enumerate(self.standing.markets)
            },
        }
        return row, bearing

    def _accounts(self, by_pool: Floats) -> int:
        return len(np.unique(self.standing.account[by_pool > DUST_USD]))

    def _conserved(self) -> None:
        """What one side lost the other gained, and the fund is not below zero."""
        book, live = self.book, self._live
        total = live.total
        before = book.cash.sum() + book.fund_usd[0]
        after = live.cash.sum() + total[FUND] + total[BOOK_CASH] - total[UNCOVERED]
        size = np.abs(book.cash).sum() + book.fund_usd[0] + total[LIQUIDATED] + total[DELEVERAGED] + 1.0
        assert abs(after - before) <= EXACT * size, (before, after)
        assert total[FUND] >= 0.0
        assert (np.abs(live.quantity) <= np.abs(book.quantity)).all()


def nothing(standing: Standing) -> Bearing:
    """Nobody bore anything."""
    return Bearing._make(np.zeros(len(standing.account)) for _ in Bearing._fields)
