"""Forced closing of one pool: in steps through the book, with the fund's help, or against winners."""

from __future__ import annotations

import math
from typing import Any

from exchange.book import size_within_usd
from exchange.compiled import inlined
from exchange.contracts import tiered_margin_usd
from exchange.insurance import affordable_share, settle_close
from exchange.liquidation import (
    LiquidationRule,
    is_safe_again,
    must_liquidate,
    penalty_rate,
    step_notional_usd,
)
from exchange.margin import PoolFigures, asset_value_usd, bankruptcy_share_usd
from exchange.stress.book import (
    BOOK_CASH,
    FUND,
    LIQUIDATED,
    PAID,
    RECEIVED,
    UNCOVERED,
    Book,
    Live,
    Places,
    Shock,
)
from exchange.stress.pools import figures
from exchange.stress.prices import depth_usd, fill_price, push
from exchange.stress.winners import deleverage


@inlined
def attend(
    book: Book, places: Places, live: Live, shock: Shock, settings: Any, rule: LiquidationRule,
    now: int, pool: int,
) -> int:  # fmt: skip
    """Begin, go on with or end the forced closing of a pool, as its figures ask for; 1 for a step made."""
    sums = figures(book, live, pool, live.mark, live.price)
    collateral, maintenance = sums.collateral_usd, sums.maintenance_margin_usd
    if live.closing[pool] == 0:
        if not must_liquidate(collateral, maintenance, rule):
            return 0
        live.closing[pool] = 1
        live.steps[pool] = 0
        live.first_notional_usd[pool] = sums.gross_notional_usd
    elif is_safe_again(collateral, maintenance, rule, sums.gross_notional_usd):
        live.closing[pool] = 0
        return 0
    position = _largest(book, live, pool)
    if position >= 0:
        _close(book, places, live, shock, settings, rule, now, pool, position, sums)
        live.steps[pool] += 1
    if _largest(book, live, pool) < 0:
        _settle(book, live, pool)
    return 1


@inlined
def _largest(book: Book, live: Live, pool: int) -> int:
    best = -1
    greatest = 0.0
    for row in range(book.first_position[pool], book.first_position[pool + 1]):
        notional = abs(live.quantity[row]) * live.mark[book.market[row]]
        if notional > greatest:
            greatest = notional
            best = row
    return best


@inlined
def _close(
    book: Book, places: Places, live: Live, shock: Shock, settings: Any, rule: LiquidationRule,
    now: int, pool: int, position: int, sums: PoolFigures,
) -> None:  # fmt: skip
    market = book.market[position]
    held = live.quantity[position]
    mark = live.mark[market]
    notional = abs(held) * mark
    wanted_usd = step_notional_usd(notional, live.first_notional_usd[pool], live.steps[pool], rule)
    wanted = held if wanted_usd >= notional else held * (wanted_usd / notional)
    needed = tiered_margin_usd(
        notional, book.tiers.floor_usd[market], book.tiers.maintenance_rate[market],
        book.tiers.maintenance_deduction_usd[market],
    )  # fmt: skip
    share = bankruptcy_share_usd(sums.equity_usd, needed, sums.position_maintenance_usd)
    if math.isnan(share):  # no position needs margin, a borrowed asset does
        share = sums.equity_usd * (notional / sums.gross_notional_usd)
    limit = mark - share / held
    sells = held > 0.0
    depth = depth_usd(book, live, shock, market, sells)
    room = size_within_usd(settings.most_walk, depth) / live.mid[market]
    sent = math.copysign(min(abs(wanted), room), held)
    if abs(sent) > 0.0:
        size_usd = abs(sent) * live.mid[market]
        fill = fill_price(live, market, size_usd, depth, sells)
        fee = min(book.liquidation_fee_rate[market], penalty_rate(needed / notional, rule))
        to_fund, from_fund = settle_close(sent, fill, limit, fee)
        part = affordable_share(live.total[FUND], from_fund)
        sent *= part
        from_fund *= part
        live.cash[pool] += sent * fill - to_fund + from_fund
        live.quantity[position] = 0.0 if sent == held else held - sent
        live.total[BOOK_CASH] -= sent * fill
        live.total[FUND] = max(live.total[FUND] + to_fund - from_fund, 0.0)
        live.total[PAID] += from_fund
        live.total[RECEIVED] += to_fund
        live.shortfall_usd[pool] += from_fund
        _count(live, pool, abs(sent) * mark)
        push(book, live, shock, market, part * size_usd, depth, sells)
        if part < 1.0:  # the fund is spent: what is left of this step is closed against winners
            taken = deleverage(book, places, live, settings, now, pool, position, wanted - sent, limit)
            _count(live, pool, taken * mark)


@inlined
def _count(live: Live, pool: int, notional_usd: float) -> None:
    live.liquidated_usd[pool] += notional_usd
    live.total[LIQUIDATED] += notional_usd


@inlined
def _settle(book: Book, live: Live, pool: int) -> None:
    """No position is left: what was pledged is sold, the fund pays what is still owed as far as it can."""
    for row in range(book.first_balance[pool], book.first_balance[pool + 1]):
        worth = asset_value_usd(live.amount[row], live.price[book.asset[row]])
        live.cash[pool] += worth
        live.total[BOOK_CASH] -= worth
        live.amount[row] = 0.0
    owed = -live.cash[pool]
    if owed > 0.0:
        paid = min(owed, live.total[FUND])
        live.total[FUND] -= paid
        live.total[PAID] += paid
        live.total[UNCOVERED] += owed - paid
        live.shortfall_usd[pool] += owed
        live.cash[pool] = 0.0
    live.closing[pool] = 0
