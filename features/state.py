"""The state of a venue as tables of flat records, and how they grow.

`State` is what the compiled kernels see: one structured array per table, a row per market, asset or
account, and two pools of slots for positions and balances. An account's positions and balances are
linked lists through those pools, each in rising id order, so that a sum over positions always runs in
the same order. Ids are given in the order in which names first appear in the stream of events: nothing
that comes later can change them.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.contracts import MAX_TIERS
from features.depth import MAX_LEVELS
from features.volatility import HALF_LIVES_H, RING_HOURS, SERIES_COLUMNS

# Slots of `State.clock`: first what answers can depend on, then how the pools stand.
NOW, OBSERVED, NEXT_SWEEP, EXPECTED_AT, FILLS_SEEN, TRANSFERS_SEEN, DEFAULTS_SEEN = range(7)
FREE_POSITION, FREE_BALANCE, USED_POSITIONS, USED_BALANCES = range(7, 11)
CLOCK_FACTS, CLOCK_SLOTS = 7, 11

# Slots of `State.regime`.
EXPECTED_HOURS, OBSERVED_HOURS, FORECAST_RATIO, KNOWN_ACCOUNTS = range(4)
REGIME_SLOTS = 4

# What a portfolio's sigma is computed under: slots of a market's or an asset's `sigma`.
SIGMA_1H, SIGMA_6H, SIGMA_48H, SIGMA_HAR, SIGMA_MEAN, SIGMA_SLOW = range(6)
SIGMA_AHEAD_1H, SIGMA_AHEAD_8H, SIGMA_AHEAD_24H, SIGMA_PRIOR = range(6, 10)
ESTIMATORS = 10

PRESSURE_BINS = 48
"""Steps of `features.pressure`: how far from the mark forced closing is followed."""

# What an account did, each a sum that fades (`features.behaviour`): slots of `habit`.
TRADED, FILLED, ADDED, PAID_IN, PAID_OUT, RESCUED, LIQUIDATED = range(7)
HABITS = 7

_VOLATILITY = [
    ("variance", "f8", (len(HALF_LIVES_H),)),  # per second, one EWMA per half-life
    ("series", "f8", (SERIES_COLUMNS,)),
    ("ring", "f8", (RING_HOURS,)),
    ("sigma", "f8", (ESTIMATORS,)),  # per square root of a second, under each estimator
]

MARKET_ROW = np.dtype(
    [
        ("changes", "i8"),  # events and sweeps so far that wrote to this row
        ("mark_time", "i8"),
        ("book_time", "i8"),
        ("funding_time", "i8"),
        ("mark", "f8"),
        ("index", "f8"),
        ("open_interest", "f8"),
        ("funding_rate", "f8"),
        ("funding_paid", "f8"),  # dollars that a long of one unit has paid since the market appeared
        ("best_bid", "f8"),
        ("best_ask", "f8"),
        ("tick_size", "f8"),
        ("lot_size", "f8"),
        ("taker_fee_rate", "f8"),
        ("liquidation_fee_rate", "f8"),
        ("funding_interval_s", "f8"),
        ("underlying", "i8"),  # what a market and an asset have in common; given with the name
        ("tier_count", "i8"),
        ("level_count", "i8"),
        ("tier_cap", "f8", (MAX_TIERS,)),
        ("tier_floor", "f8", (MAX_TIERS,)),
        ("initial_rate", "f8", (MAX_TIERS,)),
        ("maintenance_rate", "f8", (MAX_TIERS,)),
        ("initial_deduction", "f8", (MAX_TIERS,)),
        ("maintenance_deduction", "f8", (MAX_TIERS,)),
        ("distance", "f8", (MAX_LEVELS,)),
        ("bid_depth", "f8", (MAX_LEVELS,)),
        ("ask_depth", "f8", (MAX_LEVELS,)),
        ("usual_depth", "f8", (2,)),  # mean over a day within 1% of the mid, bids and asks
        ("usual_spread", "f8"),
        ("usual_interest", "f8"),
        ("volume", "f8"),  # sum that fades by half in a day, over bars that tell it
        ("volume_s", "f8"),  # and the time that these bars cover
        ("swept_mark", "f8"),
        ("ignition", "f8", (2,)),
        ("forced", "f8", (2, PRESSURE_BINS + 1)),
        *_VOLATILITY,
    ]
)

ASSET_ROW = np.dtype(
    [
        ("price_time", "i8"),
        ("price", "f8"),  # NaN until known; 1 for an asset without haircuts, which is a dollar
        ("collateral_weight", "f8"),
        ("liability_weight", "f8"),
        ("underlying", "i8"),
        *_VOLATILITY,
    ]
)

ACCOUNT_ROW = np.dtype(
    [
        ("cash", "f8"),  # equity = cash + sum quantity x mark + sum amount x price, less unsettled funding
        ("initial_in_force", "f8"),
        ("maintenance_in_force", "f8"),
        ("open_orders", "f8"),
        ("opened", "i8"),
        ("changed", "i8"),  # time of the account's newest row, -1 before the first
        ("habit", "f8", (HABITS,)),
        ("faded", "i8"),  # time that `habit` is stated at
        ("liquidated", "i8"),
        ("loss_streak", "f8"),
        # as the sweeps saw it: smallest buffer since the newest row, equity and collateral over maintenance
        ("survived", "f8"),
        ("survived_from", "i8"),
        ("swept_ratio", "f8"),
        ("lowest_ratio", "f8"),
        ("peak_equity", "f8"),
        ("usual_equity", "f8"),
        ("owner", "i4"),
        ("first_position", "i4"),
        ("first_balance", "i4"),
        ("isolated", "i4"),
        ("owner_next", "i4"),  # the owner's next account and the one before, -1 at the ends
        ("owner_before", "i4"),
    ]
)

OWNER_ROW = np.dtype(
    [
        # all of its accounts with an open position, as the last sweep saw them
        ("collateral", "f8"),
        ("maintenance", "f8"),
        ("accounts", "f8"),
        # and all of its accounts, as `features.owners` keeps them
        ("first_account", "i4"),
        ("members", "i4"),
    ]
)
"""One owner and what it has."""

POSITION_ROW = np.dtype(
    [
        ("quantity", "f8"),
        ("entry_price", "f8"),
        ("quote", "f8"),  # cash leg: unrealised profit = quantity x mark + quote
        ("isolated_collateral", "f8"),
        ("funding_mark", "f8"),  # the market's `funding_paid` up to which cash and quote are settled
        ("opened", "i8"),  # time of the fill that opened it; -1 where only a snapshot tells of it
        ("market", "i4"),
        ("next", "i4"),
    ]
)

BALANCE_ROW = np.dtype([("amount", "f8"), ("asset", "i4"), ("next", "i4")])


class State(NamedTuple):
    """Everything a feature may depend on, as it was known at `clock[NOW]`.

    Money is in dollars, rates are fractions, NaN where not known yet; times are microseconds, -1 for never.
    """

    clock: npt.NDArray[np.int64]
    market: npt.NDArray[np.void]
    asset: npt.NDArray[np.void]
    account: npt.NDArray[np.void]
    owner: npt.NDArray[np.void]
    position: npt.NDArray[np.void]
    balance: npt.NDArray[np.void]
    regime: npt.NDArray[np.float64]


_ROWS = {
    "market": MARKET_ROW,
    "asset": ASSET_ROW,
    "account": ACCOUNT_ROW,
    "owner": OWNER_ROW,
    "position": POSITION_ROW,
    "balance": BALANCE_ROW,
}
_POOLS = {"position": FREE_POSITION, "balance": FREE_BALANCE}
_START = {
    "habit": 0.0,
    "loss_streak": 0.0,
    "forced": 0.0,
    "volume": 0.0,
    "volume_s": 0.0,
    "survived": np.inf,
    "ring": 0.0,
    "funding_paid": 0.0,
    "cash": 0.0,
    "tier_floor": np.inf,
    "changes": 0,
    "tier_count": 0,
    "level_count": 0,
    "isolated": 0,
    "collateral": 0.0,
    "maintenance": 0.0,
    "accounts": 0.0,
    "members": 0,
}


def _fresh(table: str, rows: int) -> npt.NDArray[np.void]:
    """Rows of a table of which nothing is known; slots of a pool linked one after the other."""
    row = _ROWS[table]
    array = np.zeros(rows, row)
    for name in row.names or ():
        unknown = np.nan if row[name].base.kind == "f" else -1
        array[name] = _START.get(name, unknown)
    if table in _POOLS:
        array["next"] = np.arange(1, rows + 1)
        array["next"][-1] = -1
    return array


def new_state(
    markets: int = 8, assets: int = 4, accounts: int = 64, slots: int = 64, owners: int = 64
) -> State:
    """An empty state with room for that many rows and pool slots."""
    clock = np.zeros(CLOCK_SLOTS, np.int64)
    clock[[NOW, OBSERVED, NEXT_SWEEP, EXPECTED_AT]] = -1
    room = {
        "market": markets, "asset": assets, "account": accounts, "owner": owners, "position": slots,
        "balance": slots,
    }  # fmt: skip
    tables = {table: _fresh(table, rows) for table, rows in room.items()}
    return State(clock, **tables, regime=np.zeros(REGIME_SLOTS))


def layout() -> str:
    """SHA-256 of how the tables lie in memory: only where it is the same are a state's bytes a state."""
    told = [f"{sys.byteorder} {CLOCK_SLOTS} {REGIME_SLOTS}"]
    told += [f"{table} {row.itemsize} {row.descr}" for table, row in _ROWS.items()]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def room_of(state: State) -> dict[str, int]:
    """How many rows each table has room for."""
    return {table: len(getattr(state, table)) for table in _ROWS}


def with_room(room: dict[str, int]) -> State:
    """A state of exactly so many rows in each table, to be written over; KeyError where one is missing."""
    tables = {table: np.zeros(room[table], row) for table, row in _ROWS.items()}
    return State(np.zeros(CLOCK_SLOTS, np.int64), **tables, regime=np.zeros(REGIME_SLOTS))


def grown(state: State, **rows: int) -> State:
    """The state with room for at least `rows` of each table named; the same object where there is room."""
    changes: dict[str, Any] = {}
    for table, wanted in rows.items():
        old: npt.NDArray[np.void] = getattr(state, table)
        have = len(old)
        if wanted <= have:
            continue
        array = _fresh(table, max(wanted, 2 * have))
        if table in _POOLS:  # new slots come before what is left of the old free list
            array["next"][have:-1] = np.arange(have + 1, len(array))
            array["next"][-1] = state.clock[_POOLS[table]]
            state.clock[_POOLS[table]] = have
        array[:have] = old
        changes[table] = array
    return state._replace(**changes) if changes else state


SUMS_ROW = np.dtype(
    [
        (name, "f8")
        for name in (
            # over positions
            "gross", "net", "squares", "initial", "maintenance", "unrealised", "carry_day", "closing_fees",
            "funding_against", "basis_against", "slippage", "slippage_quarter", "slippage_double",
            "slippage_thin", "spread", "imbalance", "over_depth_25bps", "over_depth", "over_depth_2pct",
            "over_interest", "over_volume", "jumps", "depth_change", "spread_change", "interest_change",
            "long", "largest_move", "pressure_1pct", "pressure_3pct", "pressure_10pct", "opposite_3pct",
            "forced_share", "ignition", "ahead", "rank", "past_ignition", "holding_s",
            # over pools, the worst one where it says so
            "equity", "collateral", "needed", "haircut", "absolute", "worst_ratio", "worst_distance",
            "worst_bankruptcy", "worst_effective", "volatile", "pledged", "moving",
            # the oldest of what was read, microseconds
            "mark_time", "book_time", "funding_time", "price_time",
        )
    ]
)  # fmt: skip
"""Scratch of `features.emit`: what is summed up on the way to a vector."""


VIEW_ROW = np.dtype(
    [
        # the market's `changes` that it was looked at after, from neither side and from each; -1 before
        ("seen", "i8"),
        ("side_seen", "i8", (2,)),
        ("fresh", "i8"),  # whether the book counted then
        ("levels", "i8"),  # of the book, 0 where it is not known
        *((name, "f8") for name in (
            "carry_day", "basis", "jumps", "volume_day", "interest_change", "spread", "spread_change")),
        # by side
        *((name, "f8", (2,)) for name in (
            "moved", "depth_25bps", "depth_1pct", "depth_2pct", "imbalance", "depth_change",
            "pressure_1pct", "pressure_3pct", "pressure_10pct", "opposite_3pct", "forced_share",
            "ignition", "ignition_over_sigma")),
    ]
)  # fmt: skip
"""Scratch of `features.views`: what every position in a market reads alike, NaN where not known.

Kept from vector to vector; a portfolio is for one venue, whose events tell when to look again.
"""


class Portfolio(NamedTuple):
    """One account's positions and balances side by side: what a vector is computed from.

    Filled from the state, from a request that sends an account along, or from either with orders added.
    """

    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # (3,) positions in use, balances in use, 1 if isolated
    account: npt.NDArray[np.float64]  # (3,) cash, initial and maintenance rate in force
    facts: npt.NDArray[np.void]  # (1,) the account's row: what it did, how it stood
    position: npt.NDArray[np.void]  # rows in rising market order, settled; `next` is not used
    balance: npt.NDArray[np.void]
    work: npt.NDArray[np.float64]  # (3, ESTIMATORS) scratch of `emit`
    sums: npt.NDArray[np.void]  # (1,) likewise
    away: npt.NDArray[np.float64]  # likewise, by position: the adverse move that liquidates
    markets: npt.NDArray[np.void]  # likewise, by market


POSITIONS, BALANCES, ISOLATED = 0, 1, 2
CASH, INITIAL_IN_FORCE, MAINTENANCE_IN_FORCE = 0, 1, 2


def new_portfolio(markets: int, assets: int) -> Portfolio:
    """Room for one account on a venue of that many markets and assets."""
    views = np.zeros(markets, VIEW_ROW)
    views["seen"] = -1
    return Portfolio(
        np.zeros(3, np.int64),
        np.full(3, np.nan),
        _fresh("account", 1),
        _fresh("position", markets),
        _fresh("balance", assets),
        np.zeros((3, ESTIMATORS)),
        np.zeros(1, SUMS_ROW),
        np.zeros(markets),
        views,
    )


def digest(state: State, markets: int, assets: int, accounts: int, owners: int) -> str:
    """SHA-256 of all that answers can depend on; spare rows and the layout of the pools do not count."""
    sha = hashlib.sha256(state.clock[:CLOCK_FACTS].tobytes())
    sha.update(state.regime.tobytes())
    sha.update(state.market[:markets].tobytes())
    sha.update(state.asset[:assets].tobytes())
    sha.update(state.owner[:owners].tobytes())
    lists = {"first_position": state.position, "first_balance": state.balance}
    facts = [name for name in ACCOUNT_ROW.names or () if name not in lists]
    for name in facts:
        sha.update(np.ascontiguousarray(state.account[name][:accounts]).tobytes())
    for head, pool in lists.items():
        fields = [name for name in pool.dtype.names or () if name != "next"]
        for first in state.account[head][:accounts].tolist():
            slot = first
            while slot >= 0:
                sha.update(b"".join(pool[slot][name].tobytes() for name in fields))
                slot = int(pool[slot]["next"])
            sha.update(b";")
    return sha.hexdigest()
