"""Deleveraging under stress: who stands on the other side, in which order, and what each can bear."""

from __future__ import annotations

import math
from typing import Any

from exchange.compiled import inlined
from exchange.contracts import tiered_margin_usd
from exchange.deleveraging import deleverage_price, rank
from exchange.margin import bankruptcy_price, bankruptcy_share_usd
from exchange.sorting import sort_by
from exchange.stress.book import DELEVERAGED, WINNERS_LOSS, Book, Live, Places
from exchange.stress.pools import figures

ROUND, LENGTH, TURN = range(3)
RANKED_FOR = 10
"""Rounds for which a ranking is used: to make one takes as long as to look at everybody in the market."""


@inlined
def deleverage(
    book: Book, places: Places, live: Live, settings: Any, now: int,
    loser: int, position: int, wanted: float, limit: float,
) -> float:  # fmt: skip
    """Close `wanted` (signed as held) of a position against winners; what of it was taken, without a sign.

    Goes down the queue, ranked once in a while. No winner is closed beyond what stands behind it; what
    nobody can take stays open.
    """
    market = book.market[position]
    mark = live.mark[market]
    side = 0 if wanted > 0.0 else 1
    entry = live.queue[2 * market + side]
    if now - entry[ROUND] >= RANKED_FOR:
        _rank_all(book, places, live, settings, market, side, now)
    price = deleverage_price(settings.deleveraging_price, limit, mark, mark)
    left = abs(wanted)
    sign = 1.0 if wanted > 0.0 else -1.0
    each = sign * (price - mark)  # what a unit costs the winner against the mark
    order = live.order[side, places.first[market] : places.first[market + 1]]
    while left > 0.0 and entry[TURN] < entry[LENGTH]:
        row = order[entry[TURN]]
        pool = places.pool[row]
        size = abs(live.quantity[row])
        if each > 0.0 and size > 0.0:
            size = min(size, max(figures(book, live, pool, live.mark, live.price).equity_usd, 0.0) / each)
        taken = min(size, left)
        if pool == loser or not taken > 0.0:
            entry[TURN] += 1
            continue
        all_of_it = taken == abs(live.quantity[row])
        live.quantity[row] = 0.0 if all_of_it else live.quantity[row] + sign * taken
        live.cash[pool] -= sign * taken * price
        held = live.quantity[position]
        live.quantity[position] = 0.0 if taken == abs(held) else held - sign * taken
        live.cash[loser] += sign * taken * price
        live.due[pool] = 0.0
        live.deleveraged_usd[pool] += taken * mark
        live.deleveraging_loss_usd[pool] += taken * each
        live.shortfall_usd[loser] += max(taken * each, 0.0)
        live.total[DELEVERAGED] += taken * mark
        live.total[WINNERS_LOSS] += taken * each
        left -= taken
        if left > 0.0:
            entry[TURN] += 1
    return abs(wanted) - max(left, 0.0)


@inlined
def _rank_all(
    book: Book, places: Places, live: Live, settings: Any, market: int, side: int, now: int
) -> None:
    """Order everybody whose position is opposite to the losers'; those on no list come last."""
    mark = live.mark[market]
    count = 0
    start = places.first[market]
    for place in range(start, places.first[market + 1]):
        row = places.position[place]
        size = live.quantity[row]
        if size == 0.0 or (size > 0.0) == (side == 0):
            continue
        pool = places.pool[row]
        sums = figures(book, live, pool, live.mark, live.price)
        equity = wallet = sums.equity_usd
        for other in range(book.first_position[pool], book.first_position[pool + 1]):
            gain = live.mark[book.market[other]] - book.entry_price[other]
            wallet -= live.quantity[other] * gain
        needed = tiered_margin_usd(
            size * mark, book.tiers.floor_usd[market], book.tiers.maintenance_rate[market],
            book.tiers.maintenance_deduction_usd[market],
        )  # fmt: skip
        share = bankruptcy_share_usd(equity, needed, sums.position_maintenance_usd)
        score = rank(
            settings.deleveraging, size, book.entry_price[row], mark, equity, wallet,
            sums.maintenance_margin_usd, sums.gross_notional_usd, bankruptcy_price(size, mark, share), 0.5,
        )  # fmt: skip
        live.rank[count] = -score if not math.isnan(score) else math.inf
        live.order[side, start + count] = row
        count += 1
    sort_by(live.rank, live.order[side, start:], count)
    entry = live.queue[2 * market + side]
    entry[ROUND] = now
    entry[LENGTH] = count
    entry[TURN] = 0
