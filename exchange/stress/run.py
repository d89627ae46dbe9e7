"""One shock through one book: prices move, pools are looked at, what is closed moves prices.

Stretches between two knots are gone through in rounds, the time between two steps of a forced closing. All
pools are looked at once a stretch, at the prices at its end; in its rounds only those that were near
maintenance at either end, each once a round at an instant of its own.
"""

from __future__ import annotations

import math
from typing import Any

from exchange.compiled import inlined, lean
from exchange.contracts import FloatArray
from exchange.liquidation import LiquidationRule
from exchange.margin import asset_value_usd
from exchange.stress.book import EXPECTED, TRAVELLED, Book, Live, Places, Shock
from exchange.stress.closing import attend
from exchange.stress.pools import figures
from exchange.stress.prices import felt, move

REACH = 0.01
"""A pool is watched whose collateral exceeds maintenance by less than this share of its notional ..."""
LOOK_AGAIN = 0.01
"""... and all pools are looked at again once feedback has moved a market by so much."""
MOST_TURNS = 30
"""Most instants of a round, as many as pools are closed in it, so that prices recover in between."""
NEAR, UNDER = 1, 2
"""What a look finds of a pool: near maintenance, or under it."""


@lean
def run(
    book: Book, places: Places, live: Live, shock: Shock, settings: Any, rule: LiquidationRule
) -> int:  # fmt: skip
    """Carry one shock through a book that `live` has just begun with; the number of rounds.

    What became of everybody is in `live`.
    """
    now = 0
    _look_at_all(book, live, live.mark, live.price, False)
    for knot in range(shock.market.shape[0]):
        frozen = knot < shock.frozen_knots
        _look_ahead(book, live, shock, settings, knot, frozen)
        count = _list(live)
        expected = live.clock[EXPECTED]
        rounds = max(round(shock.knot_s / max(rule.cooldown_s, 1.0)), 1) if expected > 0.0 else 1
        acted = 0
        for number in range(rounds):
            now += 1
            if number > 0 and not frozen and _has_drifted(live, settings):
                live.watched[:] = 0
                _look_at_all(book, live, live.mark, live.price, True)
                count = _list(live)
                expected = live.clock[EXPECTED]
                for market in range(book.mark.shape[0]):
                    live.looked_at[market] = felt(live, settings, market)
            turns = min(max(acted, int(expected / rounds), 1), MOST_TURNS)
            acted = 0
            for turn in range(turns):
                part = (number + (turn + 1) / turns) / rounds
                _move_all(book, live, shock, settings, knot, part, shock.knot_s / (rounds * turns), frozen)
                for place in range(count * turn // turns, count * (turn + 1) // turns):
                    acted += attend(
                        book, places, live, shock, settings, rule, now, live.watched[place]
                    )  # fmt: skip
    return now


@inlined
def _move_all(
    book: Book, live: Live, shock: Shock, settings: Any, knot: int, part: float, elapsed_s: float,
    frozen: bool,
) -> None:  # fmt: skip
    """Go on to where `part` of a stretch is over."""
    for market in range(book.mark.shape[0]):
        before = 0.0 if knot == 0 else shock.market[knot - 1, market]
        swing = shock.market[knot, market] - before
        live.outside[market] = before + part * swing
        move(book, live, settings, swing * swing * (60.0 / shock.knot_s), elapsed_s, market)
        if not frozen:
            moved = live.outside[market] + felt(live, settings, market)
            live.mark[market] = book.mark[market] * math.exp(moved)
    if frozen:
        return
    for asset in range(book.price.shape[0]):
        before = 0.0 if knot == 0 else shock.asset[knot - 1, asset]
        log = before + part * (shock.asset[knot, asset] - before)
        live.price[asset] = book.price[asset] * math.exp(log)


@inlined
def _has_drifted(live: Live, settings: Any) -> bool:
    for market in range(live.mark.shape[0]):
        if abs(felt(live, settings, market) - live.looked_at[market]) > LOOK_AGAIN:
            return True
    return False


@inlined
def _look_ahead(book: Book, live: Live, shock: Shock, settings: Any, knot: int, frozen: bool) -> None:
    """Look at all at the end of a stretch, as if forced orders did no more; keep the last look."""
    for pool in range(live.near.shape[0]):
        live.watched[pool] = live.near[pool]
    for market in range(book.mark.shape[0]):
        live.looked_at[market] = felt(live, settings, market)
        moved = shock.market[knot, market] + live.looked_at[market]
        live.ahead_mark[market] = live.mark[market] if frozen else book.mark[market] * math.exp(moved)
    for asset in range(book.price.shape[0]):
        ahead = book.price[asset] * math.exp(shock.asset[knot, asset])
        live.ahead_price[asset] = live.price[asset] if frozen else ahead
    _look_at_all(book, live, live.ahead_mark, live.ahead_price, False)


@inlined
def _look_at_all(book: Book, live: Live, mark: FloatArray, price: FloatArray, keep: bool) -> None:
    """Mark every pool that is near maintenance at given prices; those that cannot be yet are passed over.

    With `keep`, those that were marked stay so.

    Where every price moves by at most a factor e^x, equity less margin falls by at most (e^x - 1) times twice
    what is held and pledged: margin rates are at most 1.
    """
    clock = live.clock[TRAVELLED] + max(_farthest(live.last_mark, mark), _farthest(live.last_price, price))
    live.clock[TRAVELLED] = clock
    for pool in range(live.near.shape[0]):
        if not keep:
            live.near[pool] = 0
        if clock < live.due[pool]:
            continue
        sums = figures(book, live, pool, mark, price)
        if not sums.gross_notional_usd > 0.0:
            live.due[pool] = math.inf
            continue
        buffer = sums.collateral_usd - sums.maintenance_margin_usd
        spare = buffer - REACH * sums.gross_notional_usd
        live.due[pool] = clock
        if spare < 0.0:
            live.near[pool] = max(live.near[pool], UNDER if buffer < 0.0 else NEAR)
            continue
        exposed = (2.0 + REACH) * sums.gross_notional_usd
        for row in range(book.first_balance[pool], book.first_balance[pool + 1]):
            exposed += 2.0 * abs(asset_value_usd(live.amount[row], price[book.asset[row]]))
        live.due[pool] += math.log1p(spare / exposed)


@inlined
def _farthest(last: FloatArray, now: FloatArray) -> float:
    """Largest log move since the last look, of those that are known; what is looked at becomes the last."""
    most = 0.0
    for row in range(now.shape[0]):
        moved = abs(math.log(now[row] / last[row]))
        if not math.isnan(moved):
            most = max(most, moved)
        last[row] = now[row]
    return most


@inlined
def _list(live: Live) -> int:
    """Pools to be watched, in their order, from those near at either end and those being closed."""
    count = 0
    live.clock[EXPECTED] = 0.0
    for pool in range(live.near.shape[0]):
        if live.watched[pool] != 0 or live.near[pool] != 0 or live.closing[pool] != 0:
            if max(live.watched[pool], live.near[pool]) == UNDER or live.closing[pool] != 0:
                live.clock[EXPECTED] += 1.0
            live.watched[count] = pool
            count += 1
    return count


@lean
def count_open_deficits(book: Book, live: Live) -> float:
    """Add to shortfalls what pools that still hold positions lack at the end; the sum in dollars."""
    total = 0.0
    for pool in range(live.cash.shape[0]):
        sums = figures(book, live, pool, live.mark, live.price)
        if sums.gross_notional_usd > 0.0 and sums.equity_usd < 0.0:
            live.shortfall_usd[pool] -= sums.equity_usd
            total -= sums.equity_usd
    return total
