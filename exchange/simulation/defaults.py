"""Forced closing on the generated venue: liquidation, the insurance fund, auto-deleveraging.

A pool whose collateral is under its maintenance margin is closed whole, at mark less what walking the
thinned book costs. What is left pays the liquidation fee into the fund. A loss beyond the equity is paid
by the fund while it can; when it cannot, the winners with the highest profit rate times leverage are
closed against the account at its bankruptcy price. Should there be too few of them, the house maker takes
the rest at that price.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.account import bankruptcy_price, bankruptcy_share_usd
from exchange.simulation.ledger import EQUITY, LEVEL, WEAKEST, Ledger
from exchange.simulation.terms import DOLLAR

DEPTH_POWER = 0.8
"""Depth within a distance grows with this power of the distance."""
DEPTH_AT = 0.01
"""Distance at which `Paths.bid_usd` and `ask_usd` are measured, fraction of the mid."""
BACKSTOP = 0.08
"""Worst average slippage: from there on the house maker takes the order over."""


def slippage(size_usd: float, used_usd: float, depth_usd: float) -> float:
    """Average distance from the mid, as a fraction, at which an order fills behind others' `used_usd`."""
    power = 1.0 + 1.0 / DEPTH_POWER
    walked = ((used_usd + size_usd) / depth_usd) ** power - (used_usd / depth_usd) ** power
    return float(min(DEPTH_AT * walked * depth_usd / (power * size_usd), BACKSTOP))


def force_close(ledger: Ledger, time_us: int) -> list[int]:
    """Close every pool that is under maintenance, in the order of account ids; all accounts concerned.

    The figures of all accounts with positions must be up to date.
    """
    before_usd, paid_usd = ledger.fund_usd, 0.0
    used_usd = np.zeros((len(ledger.mark), 2))
    touched: set[int] = set()
    for account in np.flatnonzero(ledger.figures[:, LEVEL] < 1.0).tolist():
        # an isolated account may have several pools to close; deleveraging may have cured one meanwhile
        while ledger.value_one(account)[LEVEL] < 1.0:
            only = int(ledger.figures[account, WEAKEST])
            paid_usd += _liquidate(ledger, account, only, used_usd, touched, time_us)
    taken_usd = ledger.fund_usd - before_usd + paid_usd
    if taken_usd > 0.0:
        ledger.rows["fund"].append((time_us, before_usd + taken_usd, taken_usd, "liquidation_fees"))
    if paid_usd > 0.0:
        # a moment later, so that a time names one row and the balance never dips between them
        ledger.rows["fund"].append((time_us + 1, ledger.fund_usd, -paid_usd, "negative_equity"))
    return sorted(touched)


def _liquidate(
    ledger: Ledger, account: int, only: int, used_usd: npt.NDArray[np.float64], touched: set[int],
    time_us: int,
) -> float:  # fmt: skip
    """Close all positions, or `only` one if not -1, market by market; what the fund paid."""
    markets = [only] if only >= 0 else ledger.held(account)
    equity_usd = ledger.pool_equity_usd(account, only) if only >= 0 else ledger.figures[account, EQUITY]
    left_usd, fee_due_usd = float(equity_usd), 0.0
    exits, notional = {}, {}
    for m in markets:
        quantity, mark = float(ledger.quantity[account, m]), float(ledger.mark[m])
        tick = float(ledger.terms.tick[m])
        notional[m] = ledger.notional_usd(account, m)
        book = (ledger.paths.bid_usd if quantity > 0 else ledger.paths.ask_usd)[ledger.bar, m]
        slip = slippage(notional[m], used_usd[m, int(quantity < 0)], book)
        exits[m] = round(mark * (1.0 - math.copysign(slip, quantity)) / tick) * tick
        left_usd += quantity * (exits[m] - mark)
        fee_due_usd += notional[m] * ledger.terms.liquidation_fee[m]
    gross_usd = sum(notional.values())
    largest = max(notional, key=lambda m: notional[m])
    ledger.rows["events"].append((time_us, account, "liquidation", largest, gross_usd, 0.0))
    bankrupt = left_usd < 0.0
    insured = bankrupt and ledger.fund_usd >= -left_usd
    if bankrupt:
        ledger.rows["events"].append((time_us, account, "negative_equity", largest, gross_usd, -left_usd))
    fee_share = 0.0 if bankrupt else min(left_usd / fee_due_usd, 1.0)
    needs = {m: ledger.maintenance_usd(m, notional[m]) for m in markets}
    for m in markets:
        lots = int(ledger.lots[account, m])
        if bankrupt and not insured:
            share_usd = bankruptcy_share_usd(equity_usd, needs[m], sum(needs.values()))
            price = bankruptcy_price(ledger.quantity[account, m], ledger.mark[m], share_usd)
            # where no price above zero uses the share up, a nearly worthless one comes nearest
            price = float(ledger.terms.tick[m]) if math.isnan(price) else float(price)
            ledger.trade(account, m, -lots, price, 0.0, "liquidation", time_us)
            _deleverage(ledger, m, -lots, price, touched, time_us)
        else:
            fee_usd = fee_share * notional[m] * float(ledger.terms.liquidation_fee[m])
            ledger.trade(account, m, -lots, exits[m], fee_usd, "liquidation", time_us)
            used_usd[m, int(lots < 0)] += notional[m]
    paid_usd = -left_usd if insured else 0.0
    ledger.amount[account, DOLLAR] += paid_usd
    ledger.fund_usd -= paid_usd
    if only < 0:
        ledger.sell_token(account)
    ledger.give_up_dust(account)
    touched.add(account)
    return paid_usd


def _deleverage(
    ledger: Ledger, market: int, lots: int, price: float, touched: set[int], time_us: int
) -> None:
    """Close winners' positions on the side of `lots` (a long's are positive), most leveraged profit first."""
    side = 1 if lots > 0 else -1
    mark = float(ledger.mark[market])
    rank = {}
    for account in np.flatnonzero(ledger.lots[:, market] * side > 0).tolist():
        profit_usd = ledger.quantity[account, market] * mark + ledger.quote[account, market]
        equity_usd = ledger.value_one(account)[EQUITY]
        if ledger.people.isolated[account]:
            equity_usd = ledger.pool_equity_usd(account, market)
        if profit_usd > 0.0 and equity_usd > 0.0:
            paid_in_usd = abs(ledger.quantity[account, market]) * ledger.entry[account, market]
            rank[account] = profit_usd / paid_in_usd * ledger.notional_usd(account, market) / equity_usd
    left = abs(lots)
    for account in sorted(rank, key=lambda a: (-rank[a], a)):
        if left == 0:
            break
        taken = min(left, abs(int(ledger.lots[account, market])))
        size = taken * float(ledger.terms.lot[market])
        ledger.trade(account, market, -side * taken, price, 0.0, "deleverage", time_us)
        loss_usd = max(side * (mark - price) * size, 0.0)
        ledger.rows["events"].append((time_us, account, "deleverage", market, size * mark, loss_usd))
        touched.add(account)
        left -= taken
