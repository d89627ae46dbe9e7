"""What a running venue holds: flat records by market, account and position, purses, and a log of rows.

Cash is int64 micro-dollars, positions are whole lots and fills whole ticks, so that every dollar that one
side pays another receives exactly. Marks and what accounts are worth at them are float64 dollars.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from exchange.compiled import lean
from exchange.contracts import MAX_TIERS
from exchange.units import SECOND_US

MICRO = 1_000_000
"""Micro-dollars in a dollar, and millionths of a unit in a unit of an asset."""


def whole_numbers(count: int) -> tuple[int, ...]:
    """0, 1, 2 ... as numpy's: a function is compiled anew for every plain Python constant given to it."""
    return cast(tuple[int, ...], tuple(np.arange(count)))


NONE, NIL = cast(int, np.int64(-1)), cast(int, np.int64(0))
AT_MARK, AT_WORST = cast(bool, np.bool_(False)), cast(bool, np.bool_(True))

# ---- kinds of accounts
RETAIL, MOMENTUM, REVERSAL, CARRY, HEDGER, WHALE, LINKED, INSTITUTION, MAKER, BACKSTOP = range(10)
KIND_NAMES = (
    "retail", "momentum", "reversal", "carry", "hedger", "whale", "linked", "institution", "maker",
    "backstop",
)  # fmt: skip

# ---- kinds of fills, of events, of changes of the fund
TRADE, LIQUIDATION, DELEVERAGE = whole_numbers(3)
FILL_NAMES = ("trade", "liquidation", "deleverage")
LIQUIDATED, NEGATIVE, DELEVERAGED = whole_numbers(3)
EVENT_NAMES = ("liquidation", "negative_equity", "deleverage")
PENALTIES, LOSSES = whole_numbers(2)
FUND_REASONS = ("liquidation_fees", "negative_equity")

ABSENT, PRESENT = range(2)

MARKET_ROW = np.dtype(
    [
        ("tick", "f8"),
        ("lot", "f8"),
        ("unit", "i8"),  # micro-dollars that one lot is worth at one tick
        ("taker_fee", "f8"),
        ("liquidation_fee", "f8"),
        ("calm_spread", "f8"),  # half spread as a fraction of the mid
        ("calm_variance", "f8"),  # of a minute's log return
        ("depth_share", "f8"),
        ("least_depth", "f8"),  # of a calm day
        ("base_depth", "f8"),  # dollars within 1% of the mid on one side on a calm day
        ("outside", "f8"),
        ("day_ago", "f8"),  # outside price a day earlier
        ("shift", "f8"),  # log distance from outside that stays
        ("push", "f8"),  # log distance by ordinary orders, decays
        ("wave", "f8"),  # log distance by forced orders, decays; other venues follow a part of it
        ("skew", "f8"),  # log distance by the makers' stock
        ("variance", "f8"),  # fast, of a minute
        ("liquidity", "f8"),  # depth over calm depth
        ("presence", "f8"),  # share of makers who quote
        ("spread", "f8"),
        ("depth", "f8"),
        ("oracle", "f8"),
        ("previous_oracle", "f8"),
        ("mid", "f8"),
        ("basis", "f8"),  # mean of mid - oracle
        ("last", "f8"),
        ("premium", "f8"),  # sum of premium * seconds since funding
        ("premium_s", "f8"),
        ("funding", "f8"),  # last rate paid
        ("opening", "f8"),  # of the mark in the bar that is being made, likewise the next two
        ("high", "f8"),
        ("low", "f8"),
        ("traded", "i8"),  # micro-dollars in the bar
        ("open_lots", "i8"),
        ("maker_lots", "i8"),
        ("turn", "i8"),  # maker whose turn it is
        ("mark", "f8"),
        ("worst_low", "f8"),  # mark that is the worst of a minute for longs
        ("worst_high", "f8"),
        ("paid", "f8"),  # funding rate paid on this minute, NaN none
        # the schedule of `exchange.contracts.TierArrays`
        ("floor", "f8", (MAX_TIERS,)),
        ("initial_rate", "f8", (MAX_TIERS,)),
        ("maintenance_rate", "f8", (MAX_TIERS,)),
        ("initial_deduction", "f8", (MAX_TIERS,)),
        ("maintenance_deduction", "f8", (MAX_TIERS,)),
    ],
    align=True,
)

ACCOUNT_ROW = np.dtype(
    [
        ("key", "u8"),
        ("draws", "u8"),
        ("cash", "i8"),
        ("paid_in", "i8"),  # deposits less withdrawals
        ("held", "u8"),  # bit m: a position in market m
        ("watched", "u8"),  # bit s: registered in ring s
        ("next_s", "i8"),  # when its owner looks at it next
        ("next_link", "i8"),
        ("previous_link", "i8"),
        ("minute", "i8"),  # of the agenda in which it is listed, -1 none
        ("due", "i8"),  # step in which it was last found due
        ("kind", "i2"),
        ("isolated", "u1"),
        ("status", "u1"),
        ("closing", "i8"),  # 0 no; else forced closing runs: 1 + market of an isolated pool, -1 cross
        ("steps", "i8"),
        ("first_notional", "f8"),
        ("next_step_s", "i8"),
        ("first_market", "i8"),  # largest position when it began
        ("shortfall", "i8"),  # what fund and winners paid in this run of it
        ("ratio", "f8"),  # collateral over maintenance when last looked at
        ("initial_rate", "f8"),  # put in force from outside, share of gross notional; 0 none
        ("maintenance_rate", "f8"),
        ("visits", "i8"),
        ("owner", "i4"),
        # habits
        ("leverage", "f8"),
        ("deals_a_day", "f8"),
        ("long_share", "f8"),
        ("trend", "f8"),
        ("rescue", "f8"),
        ("stop", "f8"),
        ("stubborn", "f8"),
        ("alert", "f8"),  # looks out of fear over those of others at the same margin ratio
        ("work", "f8"),  # signed dollars of an order that is still to be sent in pieces
        ("work_market", "i8"),
        ("deposit", "i8"),
        ("pledge", "i8"),  # micro-dollars brought in as another asset
        ("pledge_asset", "i8"),
        ("first_s", "i8"),  # arrival
    ],
    align=True,
)

POSITION_ROW = np.dtype([("lots", "i8"), ("quote", "i8"), ("cost", "i8"), ("collateral", "i8")])
"""`cost` is what the open lots cost (negative for a short), `quote` the cash leg with fees and funding."""

NODE_ROW = np.dtype([("bucket", "i8"), ("following", "i8"), ("previous", "i8")])

ASSET_ROW = np.dtype(
    [("price", "f8"), ("worst", "f8"), ("collateral_weight", "f8"), ("liability_weight", "f8")], align=True
)

LOG_ROW = np.dtype(
    [("time", "i8"), ("a", "i8"), ("b", "i8"), ("c", "i8"), ("d", "i8"), ("account", "i4"), ("market", "i2"),
     ("table", "i1"), ("kind", "i1")], align=True)  # fmt: skip
"""One row of any table of accounts; what `a` to `d` mean is said by `COLUMNS`."""

FILLS, TRANSFERS, SNAPSHOTS, HOLDINGS, BALANCES, EVENTS, FUND_CHANGES = whole_numbers(7)
COLUMNS = {
    "fills": (FILLS, ("lots", "ticks", "fee", "")),
    "transfers": (TRANSFERS, ("amount", "", "", "")),
    "snapshots": (SNAPSHOTS, ("equity", "collateral", "initial", "maintenance")),
    "holdings": (HOLDINGS, ("lots", "quote", "cost", "collateral")),
    "balances": (BALANCES, ("amount", "", "", "")),
    "events": (EVENTS, ("notional", "shortfall", "", "")),
    "fund": (FUND_CHANGES, ("balance", "change", "", "")),
}
"""Tables of the log and their columns; lots and ticks are whole, the others micro-dollars or millionths."""

ENTRY_LEVERAGES = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0])
"""Gross notional over collateral at which a policy knows how likely liquidation is."""
ENTRY_ROW = np.dtype(
    [
        ("stamps", "i8"),  # of the first market: whether a policy is in force at all
        ("add_on", "f8"),  # share of notional
        ("per_slip", "f8"),  # times the slippage of closing at once in the calm book
        ("loading", "f8"),  # of what a liquidation costs, see `exchange.rates.surcharge`; 0 none
        ("target", "f8"),
        ("most", "f8"),  # of add-on and loading together, times the schedule's margin
        ("move", "f8"),  # share of notional that the price moves while a position is closed
        ("pd", "f8", (2, len(ENTRY_LEVERAGES))),  # long, short
    ],
    align=True,
)
"""What a policy asks of new exposure in a market, beyond the schedule."""

RATE_ROW = np.dtype([("time", "i8"), ("initial", "f8"), ("maintenance", "f8"), ("account", "i4")])
BAR_ROW = np.dtype(
    [("time", "i8"), ("close", "f8"), ("index", "f8"), ("opening", "f8"), ("high", "f8"), ("low", "f8"),
     ("volume", "f8"), ("open_interest", "f8"), ("bid", "f8"), ("ask", "f8"), ("depth", "f8"),
     ("funding", "f8"), ("market", "i2")], align=True)  # fmt: skip

# ---- rows of `World.clock`
(NOW_S, TICK, STEP, RECORDING, DUE, ACTIVE, FULL, AGENDA_MINUTE, STARTED, RUNNING_S, MAKERS, LOGGED,
 BARS) = range(13)  # fmt: skip
CLOCK_ROWS = 13

# ---- rows of `World.queue`
DUE_QUEUE, ACTIVE_QUEUE, MAKER_QUEUE, VISIT_QUEUE, ORDER_QUEUE = range(5)
QUEUES = 5

# ---- rows of `World.scratch`
SORT_KEY, RANK, SIZE, WEIGHT, TAKEN = range(5)
SCRATCHES = 5

# ---- purses, micro-dollars
FUND, FEES, DESK, ROUNDING, PAID_IN, FUND_PEAK, INTENDED, OPENED = range(8)
"""Insurance fund; trading fees; what the venue's desk paid for pledged assets; what rounding of funding left;
all dollars that came in less those that went out; the fund's greatest; notional that traders meant to
open, and what margin let them."""
PURSES = 8


class World(NamedTuple):
    """One venue: few arrays, since compiled functions hand each of them on."""

    settings: Any
    """One row, the fields of `Settings`."""
    rule: Any
    """One row, the fields of `LiquidationRule`."""
    market: Any
    account: Any
    position: Any
    """(accounts, markets)"""
    amount: npt.NDArray[np.int64]
    """(accounts, assets) millionths of a unit; column 0 is unused, dollars are `account.cash`."""
    taste: npt.NDArray[np.float32]
    """(accounts, markets) cumulative preference."""
    asset: Any
    node: Any
    """(accounts, 2 * (markets + assets)) places in the rings."""
    ring: npt.NDArray[np.int64]
    """(markets + assets, 2, buckets + 1) first account, -1 none; last of all the present bucket."""
    agenda: npt.NDArray[np.int64]
    """By minute, first account whose owner looks at it then."""
    queue: npt.NDArray[np.int64]
    """(5, accounts): accounts that are due, under forced closing in the order in which it began, makers,
    visited by their owners in this second, and room to sort in."""
    scratch: npt.NDArray[np.float64]
    """(5, accounts): numbers by place in a queue, for as long as one function needs them."""
    ranking: npt.NDArray[np.int64]
    """(markets, 2, 3 + accounts): when made, how many, next place; then winners, first in rank first."""
    entry: Any
    """By market, see `exchange.simulation.entry`."""
    purse: npt.NDArray[np.int64]
    clock: npt.NDArray[np.int64]
    log: Any
    bars: Any


@lean
def stamp(world: World) -> int:
    """A time of its own for what happens now, microseconds; rows of one time would have no order."""
    world.clock[TICK] += 1
    return world.clock[STARTED] + world.clock[NOW_S] * SECOND_US + world.clock[TICK]


@lean
def moment(world: World) -> int:
    """The present second, microseconds."""
    return world.clock[STARTED] + world.clock[NOW_S] * SECOND_US


@lean
def write(
    world: World, table: int, kind: int, time_us: int, account: int, market: int, a: int, b: int, c: int,
    d: int,
) -> None:  # fmt: skip
    """Write a row of the log, nothing while nothing is recorded; a full log says so in `FULL`."""
    if world.clock[RECORDING] == 0:
        return
    at = world.clock[LOGGED]
    if at >= world.log.shape[0]:
        world.clock[FULL] = 1
        return
    world.clock[LOGGED] = at + 1
    row = world.log[at]
    row.time = time_us
    row.a = a
    row.b = b
    row.c = c
    row.d = d
    row.account = account
    row.market = market
    row.table = table
    row.kind = kind
