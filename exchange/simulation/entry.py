"""Margin on new exposure: what a policy asks beyond the schedule when an owner adds risk, stamped at entry.

A policy writes terms by market into `World.entry`; here they become a rate for a portfolio at the leverage
with which it is entered. The rate is asked for when an owner adds exposure, and stays in force (as the
account's initial rate) until the owner adds again: it does not move with prices, nor with equity. A
withdrawal must leave what entering would take.
Makers and the backstop are outside it.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.book import slippage
from exchange.compiled import lean
from exchange.rates import surcharge
from exchange.simulation.ledger import figures, holds, initial_margin_usd, maintenance_margin_usd
from exchange.simulation.state import ENTRY_LEVERAGES, MAKER, NIL, NONE, World

SHOWN_LEVERAGES = np.array([5.0, 10.0])
"""Gross notional over collateral beyond which notional is added up."""
STEPS = 24
"""Halvings in the search for the least collateral that suffices."""


@lean
def stamps(world: World, account: int) -> bool:
    """Whether an account's new exposure is under a policy."""
    return world.entry[0].stamps != 0 and world.account[account].kind < MAKER


@lean
def pd_at(world: World, market: int, side: int, leverage: float) -> float:
    """Probability of liquidation of who enters a side (0 long, 1 short) of a market; linear in between."""
    pd = world.entry[market].pd
    last = ENTRY_LEVERAGES.shape[0] - 1
    if not leverage < ENTRY_LEVERAGES[last]:
        return float(pd[side, last])
    upper = 0
    while ENTRY_LEVERAGES[upper] < leverage:
        upper += 1
    if upper == 0:
        return float(pd[side, 0] * leverage / ENTRY_LEVERAGES[0])
    low, high = ENTRY_LEVERAGES[upper - 1], ENTRY_LEVERAGES[upper]
    share = (leverage - low) / (high - low)
    return float(pd[side, upper - 1] + share * (pd[side, upper] - pd[side, upper - 1]))


@lean
def entry_rate(world: World, market: int, signed_usd: float, scheduled_usd: float, leverage: float) -> float:
    """What is asked for beyond the schedule's `scheduled_usd`, as a share of the notional of one position.

    What moves with the model and with volatility is at most `most` times the schedule's margin, so that the
    margin of a portfolio never rises from trough to peak by more than 1 + `most`.
    """
    terms = world.entry[market]
    row = world.market[market]
    notional = abs(signed_usd)
    slip = slippage(notional, row.base_depth, row.calm_spread)
    moving = terms.add_on
    if terms.loading > 0.0:
        pd = pd_at(world, market, 0 if signed_usd > 0.0 else 1, leverage)
        moving += surcharge(pd, slip + terms.move, terms.target, terms.loading)
    return float(min(moving, terms.most * scheduled_usd / notional) + terms.per_slip * slip)


@lean
def _asked(
    world: World, account: int, only: int, market: int, lots: int, collateral_usd: float
) -> tuple[float, float]:
    """Initial margin asked of a pool once `market` holds `lots`, and its gross notional; dollars.

    The model is asked about small positions. Of a large one the schedule keeps a higher maintenance margin,
    so that less of the collateral stands between it and liquidation: it is priced at the leverage at which
    a small one would have as much in between.
    """
    first, last = (only, only + 1) if only >= 0 else (0, world.market.shape[0])
    gross = 0.0
    beyond = 0.0
    for each in range(first, last):
        row = world.market[each]
        held = lots if each == market else world.position[account, each].lots
        notional = abs(held) * row.lot * row.mark
        gross += notional
        beyond += maintenance_margin_usd(world, each, notional) - row.maintenance_rate[0] * notional
    between = collateral_usd - beyond
    leverage = gross / between if between > 0.0 else math.inf
    asked = 0.0
    for each in range(first, last):
        row = world.market[each]
        held = lots if each == market else world.position[account, each].lots
        if held != 0:
            signed = held * row.lot * row.mark
            scheduled = initial_margin_usd(world, each, abs(signed))
            asked += scheduled + abs(signed) * entry_rate(world, each, signed, scheduled, leverage)
    return min(asked, max(gross, 0.0)), gross


@lean
def suffices(world: World, account: int, market: int, lots: int, collateral_usd: float) -> bool:
    """Whether collateral carries the pool that an order makes, the market then holding `lots`."""
    only = market if world.account[account].isolated else NONE
    asked, _ = _asked(world, account, only, market, lots, collateral_usd)
    return collateral_usd >= asked


@lean
def least_collateral_usd(world: World, account: int, market: int, lots: int) -> float:
    """The least collateral with which a pool may be entered, the market then holding `lots`; dollars.

    With more collateral less is asked, so there is one such amount; `market` -1 for the account as it is.
    """
    only = market if world.account[account].isolated else NONE
    _, gross = _asked(world, account, only, market, lots, math.inf)
    low, high = 0.0, gross
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        asked, _ = _asked(world, account, only, market, lots, middle)
        if middle >= asked:
            high = middle
        else:
            low = middle
    return high


@lean
def stamp_rate(world: World, account: int, market: int) -> None:
    """Put the rate that is asked of an account now in force for as long as its owner does not act."""
    state = world.account[account]
    only = market if state.isolated else NONE
    _, collateral, _, _, _, _ = figures(world, account, only)
    lots = world.position[account, market].lots
    asked, gross = _asked(world, account, only, market, lots, collateral)
    state.initial_rate = asked / gross if gross > 0.0 else 0.0


@lean
def sum_in_force(world: World, out: np.ndarray) -> None:
    """Add up over traders, dollars: initial margin in force and gross notional, and how that is levered.

    float64[2 + len(SHOWN_LEVERAGES)]: the last are gross notional held at more than these leverages.
    """
    out[:] = 0.0
    for account in range(world.account.shape[0]):
        state = world.account[account]
        if state.kind >= MAKER or state.held == np.uint64(0):
            continue
        if state.isolated == 0:
            _, collateral, initial, _, gross, _ = figures(world, account, NONE)
            _add(out, initial, gross, collateral)
            continue
        for market in range(world.market.shape[0]):
            if holds(world, account, market):
                _, collateral, initial, _, gross, _ = figures(world, account, market)
                _add(out, initial, gross, collateral)


@lean
def _add(out: np.ndarray, initial: float, gross: float, collateral: float) -> None:
    out[0] += initial
    out[1] += gross
    for each in range(SHOWN_LEVERAGES.shape[0]):
        if gross > SHOWN_LEVERAGES[each] * collateral:
            out[2 + each] += gross


@lean
def reference_rate(world: World, position_usd: float, leverage: float) -> float:
    """Initial margin rate of a fixed portfolio, entered now: `position_usd` long in every market."""
    asked = 0.0
    for market in range(world.market.shape[0]):
        scheduled = initial_margin_usd(world, market, position_usd)
        asked += scheduled + position_usd * entry_rate(world, market, position_usd, scheduled, leverage)
    return float(asked / (position_usd * world.market.shape[0]))


@lean
def rates_of_open(world: World, initial: np.ndarray, maintenance: np.ndarray) -> None:
    """What a policy would ask of traders' open positions at their leverage of now, float64[accounts] each.

    Shares of gross notional; maintenance is the schedule's, raised as much as the initial margin is. 0 for
    whoever has no position or is outside.
    """
    for account in range(world.account.shape[0]):
        initial[account] = 0.0
        maintenance[account] = 0.0
        state = world.account[account]
        if state.kind >= MAKER or state.held == np.uint64(0) or state.isolated != 0:
            continue
        _, collateral, _, _, gross, kept = figures(world, account, NONE)
        asked, _ = _asked(world, account, NONE, NONE, NIL, collateral)
        scheduled = 0.0
        for market in range(world.market.shape[0]):
            if holds(world, account, market):
                row = world.market[market]
                notional = abs(world.position[account, market].lots) * row.lot * row.mark
                scheduled += initial_margin_usd(world, market, notional)
        initial[account] = asked / gross
        maintenance[account] = min(kept * asked / scheduled, asked) / gross
