"""How accounts stood at many times: the columns of `features.standing` from a whole history at once.

Events of different accounts meet nowhere but in marks and funding. Where these are known for all times there
is no need to keep to the order of arrival: fills are laid side by side by account, and one account after the
other goes through its own on a venue that has room for it alone. What a fill does, what fades and what margin
is needed is said by the functions that the live venue calls, so every column is the same to the bit.

Beside them, exact sums over windows of time, which a live venue would have to keep all fills for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import inlined, lean, prefetch
from features.advance import FAR_AHEAD, clear, fill, transfer
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

    `column` has COLUMNS, then WINDOWED for each window.
    """

    time: Integers
    account: Integers
    column: Floats


TRADE_ROW = np.dtype(
    [("time_us", "i8"), ("quantity", "f8"), ("price", "f8"), ("fee_usd", "f8"), ("market", "i8")]
)
WINDOWED = ("traded_usd", "net_usd", "fee_usd", "realised_usd", "fills")
"""Sums over a window of time: notional traded, bought less sold, fees, realised before fees; and how many."""

SUMMED = len(WINDOWED) - 1
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

    `terms` are the rows of a state's markets whose terms are known. WINDOWED is told for the times in
    (time - window, time]. NaN where something is not known; a fee that is not known is none.
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
    before = np.empty((1 + int(each.max(initial=0)), 2 * SUMMED))
    state = new_state(len(terms), 1, 2, len(terms) + 1, 1)._replace(market=terms.copy())
    folio = new_portfolio(len(terms), 1)
    most = len(marks.time_us) * int(np.count_nonzero(each))
    out = Standings(
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty((most, len(COLUMNS) + len(WINDOWED) * len(windows_us))),
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
    rows = len(fills.account)
    for row in range(rows):
        prefetch(out, places[fills.account[min(row + FAR_AHEAD, rows - 1)]])
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
        before[0] = 0.0
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
                    realised = fill(state, 0, one.market, one.quantity, one.price, one.fee_usd, next_us)
                    if len(windows) > 0:
                        _sum_up(one, realised, before[row - start], before[row - start + 1])
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
def _sum_up(trade: np.void, realised: float, last: Floats, out: Floats) -> None:
    """Sums over an account's fills up to this one, from those up to the `last`.

    In two parts: what rounding takes from a sum is kept beside it (Knuth's two-sum).
    """
    dollars = trade.quantity * trade.price
    _add(last, 0, abs(dollars), out)
    _add(last, 1, dollars, out)
    _add(last, 2, 0.0 if math.isnan(trade.fee_usd) else trade.fee_usd, out)
    _add(last, 3, realised, out)


@inlined
def _add(last: Floats, column: int, amount: float, out: Floats) -> None:
    total = last[column]
    grown = total + amount
    taken = grown - total
    out[column] = grown
    out[SUMMED + column] = last[SUMMED + column] + ((total - (grown - taken)) + (amount - taken))


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
    """Write WINDOWED for each window, the last of its fills before `end`."""
    for k in range(len(windows)):
        first = windows[k].first
        while first < end and trades[first].time_us <= now_us - windows[k].length_us:
            first += 1
        windows[k].first = first
        column = len(COLUMNS) + len(WINDOWED) * k
        then = before[first - start]
        now = before[end - start]
        for place in range(SUMMED):
            rest = now[SUMMED + place] - then[SUMMED + place]
            out[column + place] = (now[place] - then[place]) + rest
        out[column + SUMMED] = end - first
