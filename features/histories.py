"""How accounts stood at many times: the columns of `features.standing` from a whole history at once.

Events of different accounts meet nowhere but in marks and funding. Where these are known for all times there
is no need to keep to the order of arrival: fills are laid side by side by account, and one account after the
other goes through its own on a venue that has room for it alone. What a fill does, what fades and what margin
is needed is said by the functions that the live venue calls, so every column is the same to the bit.

Beside them, exact sums over windows of time, which a live venue would have to keep all fills for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import inlined, lean
from features.advance import clear, fill, transfer
from features.standing import COLUMNS, stand
from features.state import NOW, Portfolio, State, new_portfolio, new_state

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]

END_OF_TIME_US = np.iinfo(np.int64).max


class Fills(NamedTuple):
    """Trades of all accounts in the order in which they apply; as `features.events` says of FILL."""

    time_us: Integers
    account: Ids
    market: Ids
    quantity: Floats
    price: Floats
    fee_usd: Floats


class Transfers(NamedTuple):
    """Money paid in (positive) and taken out, in the order in which it applies."""

    time_us: Integers
    account: Ids
    amount_usd: Floats


class Marks(NamedTuple):
    """When accounts are looked at, and at what marks (times, markets)."""

    time_us: Integers
    mark: Floats


class Funding(NamedTuple):
    """What a long of one unit has paid since the beginning, in dollars (times, markets)."""

    time_us: Integers
    paid: Floats


class Standings(NamedTuple):
    """A row for every account with an open position at a time: in order of account, then of time.

    `column` has COLUMNS, then for each window what was traded in it in dollars, and in how many fills.
    """

    time: Integers
    account: Integers
    column: Floats


TRADE_ROW = np.dtype(
    [("time_us", "i8"), ("quantity", "f8"), ("price", "f8"), ("fee_usd", "f8"), ("market", "i8")]
)
WINDOW_ROW = np.dtype([("length_us", "i8"), ("first", "i8")])
"""A window, and the first trade within it."""


def stand_through(
    terms: npt.NDArray[np.void],
    accounts: int,
    fills: Fills,
    transfers: Transfers,
    marks: Marks,
    funding: Funding | None = None,
    windows_us: Sequence[int] = (),
) -> Standings:
    """How each of `accounts` cross accounts of dollars stood at each time, events at that time included.

    `terms` are the rows of a state's markets whose terms are known. What was traded is told for the times in
    (time - window, time]. NaN where something is not known.
    """
    trades, payments = np.empty(len(fills.time_us), TRADE_ROW), np.empty(len(transfers.time_us), np.int64)
    of_fills, of_transfers = places_of(fills.account, accounts), places_of(transfers.account, accounts)
    lay_fills(fills, of_fills[1:], trades)
    lay_rows(transfers.account, of_transfers[1:], payments)
    if funding is None:
        funding = Funding(np.empty(0, np.int64), np.empty((0, len(terms))))
    windows = np.zeros(len(windows_us), WINDOW_ROW)
    windows["length_us"] = windows_us
    each = np.diff(of_fills[:-1])
    before = np.empty((1 + int(each.max(initial=0)), 2))
    state = new_state(len(terms), 1, 2, len(terms) + 1, 1)._replace(market=terms.copy())
    folio = new_portfolio(len(terms), 1)
    most = len(marks.time_us) * int(np.count_nonzero(each))
    out = Standings(
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty((most, len(COLUMNS) + 2 * len(windows_us))),
    )
    written = go_through(
        state,
        folio,
        trades,
        of_fills,
        transfers,
        payments,
        of_transfers,
        marks,
        funding,
        windows,
        before,
        out,
    )
    return Standings(out.time[:written], out.account[:written], out.column[:written])


def places_of(account: Ids, accounts: int) -> Integers:
    """Where the rows of account k begin once they lie by account, at k + 1, after a 0 to begin with.

    Laying them moves each number on to where the account ends: then k has the rows from place k to k + 1.
    """
    places = np.zeros(accounts + 2, np.int64)
    np.cumsum(np.bincount(account, minlength=accounts), out=places[2:])
    return places


@lean
def lay_fills(fills: Fills, places: Integers, out: npt.NDArray[np.void]) -> None:
    """Copy fills to their places by account, in the order in which they apply."""
    for row in range(len(fills.account)):
        key = fills.account[row]
        trade = out[places[key]]
        places[key] += 1
        trade.time_us = fills.time_us[row]
        trade.quantity = fills.quantity[row]
        trade.price = fills.price[row]
        trade.fee_usd = fills.fee_usd[row]
        trade.market = fills.market[row]


@lean
def lay_rows(account: Ids, places: Integers, out: Integers) -> None:
    """The same with the numbers of rows."""
    for row in range(len(account)):
        out[places[account[row]]] = row
        places[account[row]] += 1


@lean
def go_through(
    state: State,
    folio: Portfolio,
    trades: npt.NDArray[np.void],
    of_fills: Integers,
    transfers: Transfers,
    payments: Integers,
    of_transfers: Integers,
    marks: Marks,
    funding: Funding,
    windows: npt.NDArray[np.void],
    before: Floats,
    out: Standings,
) -> int:
    """One account after the other on a venue of one; the number of rows written.

    The venue's second account is one of which nothing is known: what every account begins as.
    """
    written = 0
    for key in range(len(of_fills) - 2):
        start, end = of_fills[key], of_fills[key + 1]
        if start == end:
            continue
        row = start
        _begin(state, windows, start)
        if len(windows) > 0:
            _sum_up(trades, start, end, before)
        payment, last_payment = of_transfers[key], of_transfers[key + 1]
        funded = 0
        for step in range(len(marks.time_us)):
            until_us = marks.time_us[step]
            while True:
                # at the same time funding comes first, then transfers, then fills
                next_us = trades[row].time_us if row < end else END_OF_TIME_US
                if payment < last_payment:
                    next_us = min(next_us, transfers.time_us[payments[payment]])
                if funded < len(funding.time_us) and funding.time_us[funded] <= min(next_us, until_us):
                    for market in range(len(state.market)):
                        state.market[market].funding_paid = funding.paid[funded, market]
                    funded += 1
                elif next_us > until_us:
                    break
                elif payment < last_payment and transfers.time_us[payments[payment]] == next_us:
                    transfer(state, 0, transfers.amount_usd[payments[payment]], next_us)
                    payment += 1
                else:
                    one = trades[row]
                    fill(state, 0, one.market, one.quantity, one.price, one.fee_usd, next_us)
                    row += 1
            state.clock[NOW] = until_us
            _mark(state, marks.mark[step])
            if stand(state, 0, folio, out.column[written]):
                _look_back(trades, before, start, row, until_us, windows, out.column[written])
                out.time[written] = until_us
                out.account[written] = key
                written += 1
        clear(state, 0)
    return written


@inlined
def _sum_up(trades: npt.NDArray[np.void], start: int, end: int, before: Floats) -> None:
    """Dollars that an account traded before each of its fills, and before what comes after the last.

    In two parts: what rounding takes from the sum is kept beside it (Knuth's two-sum).
    """
    total = 0.0
    rest = 0.0
    before[0, 0] = 0.0
    before[0, 1] = 0.0
    for row in range(start, end):
        traded = abs(trades[row].quantity) * trades[row].price
        grown = total + traded
        taken = grown - total
        rest += (total - (grown - taken)) + (traded - taken)
        total = grown
        before[row - start + 1, 0] = total
        before[row - start + 1, 1] = rest


@inlined
def _begin(state: State, windows: npt.NDArray[np.void], start: int) -> None:
    """A new account, before anything was paid."""
    state.account[0] = state.account[1]
    for market in range(len(state.market)):
        state.market[market].funding_paid = 0.0
    for k in range(len(windows)):
        windows[k].first = start


@inlined
def _mark(state: State, mark: Floats) -> None:
    """Bring the marks of markets that the account is in up to a time."""
    slot = state.account[0].first_position
    while slot >= 0:
        position = state.position[slot]
        state.market[position.market].mark = mark[position.market]
        slot = position.next


@inlined
def _look_back(
    trades: npt.NDArray[np.void],
    before: Floats,
    start: int,
    end: int,
    now_us: int,
    windows: npt.NDArray[np.void],
    out: Floats,
) -> None:
    """Write what was traded within each window and in how many fills, the last of them before `end`."""
    for k in range(len(windows)):
        first = windows[k].first
        while first < end and trades[first].time_us <= now_us - windows[k].length_us:
            first += 1
        windows[k].first = first
        column = len(COLUMNS) + 2 * k
        a, b = first - start, end - start
        out[column] = (before[b, 0] - before[a, 0]) + (before[b, 1] - before[a, 1])
        out[column + 1] = end - first
