"""All accounts of one owner laid together as one portfolio, in a table of their own that a ladder climbs.

Sums run over accounts in rising id order, so that the same accounts give the same bits whoever asks. What a
whole counts of an account is what can be judged: a position without a mark, a book or a volatility, or a
balance without a price, is left to the account that holds it, or one of them would spoil the whole.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.account import notional_usd
from exchange.compiled import compiled, inlined, lean
from exchange.contracts import tiered_margin_usd
from features.arithmetic import book_known
from features.behaviour import HABIT_HALF_LIFE_S, remaining
from features.owners import accounts_of
from features.portfolio import gather
from features.state import (
    ACCOUNT_ROW,
    BALANCE_ROW,
    BALANCES,
    CASH,
    ISOLATED,
    LIQUIDATED,
    POSITION_ROW,
    POSITIONS,
    SIGMA_MEAN,
    SIGMA_PRIOR,
    Portfolio,
    State,
    new_state,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LONG, SHORT = 0, 1
QUANTITY, QUOTE, ENTRY = 0, 1, 2  # what is summed up of positions; entry is that of every unit together
CASH_USD, OPEN, CROSS = 0, 1, 2

NEGLIGIBLE = 1e-9
"""A market's two sides that cancel but for this share of them are nothing but rounding."""


class Held(NamedTuple):
    """What an owner holds, summed over accounts."""

    position: Floats  # (markets, 2, 3) longs and shorts
    opened: Integers  # (markets, 2) when the newest of them was
    amount: Floats  # (assets,)
    total: Floats  # (3,) cash, accounts with a position, cross ones among them
    facts: npt.NDArray[np.void]  # (1,) an account's row


class Found(NamedTuple):
    """Rows that `lay_together` writes: an account asked about, held against a whole."""

    row: Integers
    whole: Integers  # account of the table of wholes; -1 where nothing in it can be judged
    static_rate: Floats  # what the schedule asks of its positions where tiers are the owner's
    share: Floats  # share of its gross notional that is in the whole


def new_held(markets: int, assets: int) -> Held:
    """Room for what one owner holds."""
    return Held(
        np.zeros((markets, 2, 3)),
        np.zeros((markets, 2), np.int64),
        np.zeros(assets),
        np.zeros(3),
        _nothing().account.copy(),
    )


@cache
def _nothing() -> State:
    return new_state(markets=1, assets=1, accounts=1, slots=1, owners=1)


def new_wholes(state: State, accounts: int, slots: int) -> State:
    """Room for so many wholes on the markets of a state, as it stands; what they hold is to be written."""
    return State(
        state.clock.copy(),
        state.market,
        state.asset,
        np.empty(accounts, ACCOUNT_ROW),
        _nothing().owner,
        np.empty(slots, POSITION_ROW),
        np.empty(slots, BALANCE_ROW),
        state.regime,
    )


@lean
def _in_whole(market: np.void, now_us: int, lifetime_us: int) -> bool:
    """Whether what a market says is enough to judge a position in it."""
    known = market.tier_count > 0 and market.level_count > 0 and book_known(market, now_us)
    known = known and now_us - market.mark_time <= lifetime_us
    return known and not math.isnan(market.mark + market.sigma[SIGMA_MEAN] + market.sigma[SIGMA_PRIOR])


@lean
def _counts(asset: np.void, now_us: int, lifetime_us: int) -> bool:
    """The same of an asset; a dollar that never had a price needs none."""
    if math.isnan(asset.price + asset.collateral_weight + asset.liability_weight):
        return False
    if asset.price_time < 0:
        return True
    fresh = now_us - asset.price_time <= lifetime_us
    return fresh and not math.isnan(asset.sigma[SIGMA_MEAN] + asset.sigma[SIGMA_PRIOR])


@inlined
def _clear(held: Held, fresh: np.void) -> None:
    held.position[:] = 0.0
    held.opened[:] = -1
    held.amount[:] = 0.0
    held.total[:] = 0.0
    held.facts[0] = fresh


@inlined
def _add(folio: Portfolio, now_us: int, held: Held) -> None:
    """Add an account that was gathered."""
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        side = LONG if position.quantity > 0.0 else SHORT
        sums = held.position[position.market, side]
        sums[QUANTITY] += position.quantity
        sums[QUOTE] += position.quote
        sums[ENTRY] += position.quantity * position.entry_price
        held.opened[position.market, side] = max(held.opened[position.market, side], position.opened)
    if folio.count[ISOLATED] == 0:  # free balances stand behind no isolated position
        held.total[CROSS] += 1.0
        if not math.isnan(folio.account[CASH]):  # what a level posts takes its place
            held.total[CASH_USD] += folio.account[CASH]
        for i in range(folio.count[BALANCES]):
            held.amount[folio.balance[i].asset] += folio.balance[i].amount
    held.total[OPEN] += 1.0
    facts = folio.facts[0]
    into = held.facts[0]
    keep = remaining(now_us - facts.faded, HABIT_HALF_LIFE_S) if facts.faded >= 0 else 0.0
    # of the past levels read nothing else
    into.habit[LIQUIDATED] += keep * facts.habit[LIQUIDATED]
    into.faded = now_us
    into.liquidated = max(into.liquidated, facts.liquidated)
    into.opened = max(into.opened, facts.opened)


@inlined
def _is_two_sided(held: Held) -> bool:
    """Whether some market is held long in one account and short in another."""
    for market in range(len(held.position)):
        if held.position[market, LONG, QUANTITY] > 0.0 and held.position[market, SHORT, QUANTITY] < 0.0:
            return True
    return False


@inlined
def _lay(
    state: State, held: Held, netted: bool, lifetimes: Integers, out: State, whole: int, used: Integers
) -> bool:
    """Lay what an owner holds into account `whole`, sides of a market netted or the larger alone.

    `used` counts slots of positions and of balances. False where there is nothing to judge.
    """
    row = out.account[whole]
    out.account[whole] = held.facts[0]
    row.owner = 0  # of one account, as far as anybody can tell
    row.isolated = 1 if held.total[CROSS] == 0.0 else 0
    row.cash = held.total[CASH_USD]
    last = -1
    for key in range(len(held.position)):
        longs = held.position[key, LONG, QUANTITY]
        shorts = held.position[key, SHORT, QUANTITY]
        side = LONG if longs >= -shorts else SHORT
        sums = held.position[key, side]
        quantity = sums[QUANTITY]
        quote = sums[QUOTE]
        if netted:
            quantity = longs + shorts
            quote += held.position[key, 1 - side, QUOTE]
        if abs(quantity) <= NEGLIGIBLE * (longs - shorts) or not _in_whole(
            state.market[key], lifetimes[0], lifetimes[1]
        ):
            continue
        slot = used[0]
        used[0] += 1
        position = out.position[slot]
        position.market = key
        position.quantity = quantity
        position.entry_price = sums[ENTRY] / sums[QUANTITY]
        position.quote = quote
        position.isolated_collateral = 0.0  # what a level posts takes its place
        position.funding_mark = state.market[key].funding_paid
        position.opened = held.opened[key, side]
        position.next = -1
        if last < 0:
            row.first_position = slot
        else:
            out.position[last].next = slot
        last = slot
    if last < 0:
        return False
    last = -1
    for key in range(len(held.amount)):
        if held.amount[key] == 0.0 or not _counts(state.asset[key], lifetimes[0], lifetimes[1]):
            continue
        slot = used[1]
        used[1] += 1
        out.balance[slot].asset = key
        out.balance[slot].amount = held.amount[key]
        out.balance[slot].next = -1
        if last < 0:
            row.first_balance = slot
        else:
            out.balance[last].next = slot
        last = slot
    return True


@inlined
def _standing(
    state: State, folio: Portfolio, held: Held, now_us: int, lifetime_us: int
) -> tuple[float, float]:
    """Static rate of a gathered account at its owner's tiers, and the share of it that is in the whole."""
    gross = 0.0
    needed = 0.0
    inside = 0.0
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        size = abs(notional_usd(position.quantity, market.mark))
        sides = held.position[position.market]
        most = notional_usd(max(sides[LONG, QUANTITY], -sides[SHORT, QUANTITY]), market.mark)
        asked = tiered_margin_usd(most, market.tier_floor, market.initial_rate, market.initial_deduction)
        gross += size
        needed += size * (asked / most)
        if _in_whole(market, now_us, lifetime_us):
            inside += size
    return needed / gross, inside / gross


@compiled
def lay_together(
    state: State,
    trial: State,
    tried: int,
    owners: Integers,
    ends: Integers,
    accounts: Integers,
    lifetimes: Integers,
    folio: Portfolio,
    held: Held,
    fresh: Held,
    out: State,
    found: Found,
) -> tuple[int, int]:
    """Lay each owner's accounts into wholes in `out`; how many wholes, and how many rows of `found`.

    `accounts` are those asked about, owner by owner, those of `owners[i]` end before `ends[i]`; account
    `tried` is as `trial` has it. `lifetimes` are now and how old a mark or price may be. An owner has a whole
    of everything netted, and where it stands on both sides of a market a second one with the larger sides;
    none with fewer than two accounts that hold something. `found` has room for two rows an account.
    """
    wholes = 0
    rows = 0
    used = np.zeros(2, np.int64)
    start = 0
    for i in range(len(owners)):
        _clear(held, fresh.facts[0])
        for key in accounts_of(state, owners[i]):
            opened = gather(trial, 0, folio) if key == tried else gather(state, key, folio)
            if opened > 0:
                _add(folio, lifetimes[0], held)
        first = wholes
        if held.total[OPEN] > 1.0:
            if _lay(state, held, True, lifetimes, out, wholes, used):
                wholes += 1
            if _is_two_sided(held) and _lay(state, held, False, lifetimes, out, wholes, used):
                wholes += 1
            for place in range(start, ends[i]):
                key = accounts[place]
                opened = gather(trial, 0, folio) if key == tried else gather(state, key, folio)
                if opened == 0:
                    continue
                static, share = _standing(state, folio, held, lifetimes[0], lifetimes[1])
                for whole in range(first, max(wholes, first + 1)):
                    found.row[rows] = place
                    found.whole[rows] = whole if whole < wholes else -1
                    found.static_rate[rows] = static
                    found.share[rows] = share
                    rows += 1
        start = ends[i]
    return wholes, rows
