"""A simulated venue: outside prices in, rows of what happened out, a stretch of minutes at a time.

    venue = Venue(listed, paths, accounts=1_500, seed=7, history_minutes=14_400)
    for rows in venue.run():
        ...

Between two stretches whoever drives the venue may set margin rates of single accounts (`set_margin_rates`),
as a margin policy does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from exchange.liquidation import LiquidationRule
from exchange.simulation.chance import key_of
from exchange.simulation.engine import enter, run_minutes, set_clock
from exchange.simulation.ledger import change_fund, transfer
from exchange.simulation.listings import ASSETS, Asset, Listing
from exchange.simulation.market import quote
from exchange.simulation.paths import MINUTES_A_DAY, Paths
from exchange.simulation.population import MIX, Habits, intended_usd, population
from exchange.simulation.settings import RULE, Settings
from exchange.simulation.state import (
    ASSET_ROW,
    BACKSTOP,
    BAR_ROW,
    BARS,
    CLOCK_ROWS,
    COLUMNS,
    ENTRY_ROW,
    FEES,
    FULL,
    FUND,
    LOG_ROW,
    LOGGED,
    MAKER,
    MAKER_QUEUE,
    MAKERS,
    MARKET_ROW,
    MICRO,
    NODE_ROW,
    NOW_S,
    PAID_IN,
    PENALTIES,
    POSITION_ROW,
    PURSES,
    QUEUES,
    RATE_ROW,
    SCRATCHES,
    STARTED,
    World,
)  # fmt: skip
from exchange.simulation.watch import AGENDA, BUCKETS, bucket_of, make_all_due
from exchange.units import BPS, MINUTE_US, SECOND_US

Rows = dict[str, npt.NDArray[Any]]

SCHEDULE_FIELDS = ("floor", "initial_rate", "maintenance_rate", "initial_deduction", "maintenance_deduction")
WARM_UP_MINUTES = 2 * MINUTES_A_DAY
"""Before the start traders already trade, unrecorded, so that the run opens on a lived-in venue."""
DEFAULTS = Settings()
MOST_MARKETS = 28
MAKER_CAPITAL = 0.3
"""What makers bring along, over the notional that traders mean to hold."""
ROWS_A_STRETCH = 1 << 18


class Venue:
    """One venue and its traders; the same arguments give the same rows."""

    def __init__(
        self,
        listed: Sequence[Listing],
        paths: Paths,
        accounts: int,
        seed: int,
        history_minutes: int,
        *,
        settings: Settings = DEFAULTS,
        rule: LiquidationRule = RULE,
        assets: Sequence[Asset] = ASSETS,
        mix: dict[int, Habits] = MIX,
        warm_up_minutes: int = WARM_UP_MINUTES,
    ) -> None:
        markets = len(listed)
        if not 1 <= markets <= MOST_MARKETS:
            raise InputError(f"a venue has 1 to {MOST_MARKETS} markets, not {markets}")
        self.listed, self.paths, self.assets, self.seed = tuple(listed), paths, tuple(assets), seed
        minutes = len(paths.opening)
        self.history_minutes = history_minutes
        self.trading_minute = max(history_minutes - warm_up_minutes, 0)
        self.minutes = minutes
        self.minute = 0
        rng = np.random.default_rng([seed, 1])
        popularity = np.array([listing.popularity for listing in listed], dtype=np.float64)
        people = population(
            accounts, popularity, len(assets), self.trading_minute * 60, history_minutes * 60, minutes * 60,
            rng, mix,
        )  # fmt: skip
        self.opened_s = people.opened_s
        self._key = key_of(seed, 2)
        self._funding_s = np.array([int(x.market.funding_interval_s) for x in listed], np.int64)
        self.world = _world(self.listed, self.assets, paths, people.account, people.taste, settings, rule)
        self._open_books(intended_usd(people, markets))
        self._rates: list[npt.NDArray[Any]] = []
        self.fund_at_start_usd = 0.0

    @property
    def start_us(self) -> int:
        """When the recorded part begins, microseconds."""
        return self.paths.start_us + self.history_minutes * MINUTE_US

    @property
    def end_us(self) -> int:
        """The last minute that the venue goes through."""
        return self.paths.start_us + (self.minutes - 1) * MINUTE_US

    def run(self, until_minute: int | None = None) -> Iterator[Rows]:
        """Go on to a minute (the end if None), yielding the rows of each stretch in order of time."""
        paths = self.paths
        last = self.minutes if until_minute is None else min(until_minute, self.minutes)
        while self.minute < last:
            begins = self.history_minutes if self.minute < self.history_minutes else last
            before = self.minute
            if self.minute == self.history_minutes:
                self._fund()
            self.minute = run_minutes(
                self.world, self.minute, min(begins, last), self.trading_minute, self.history_minutes,
                self.minutes - 1, self._spare, paths.opening, paths.high, paths.low, paths.close,
                paths.asset_price, self._funding_s, paths.start_us // SECOND_US, self._key,
            )  # fmt: skip
            if self.world.clock[FULL]:
                raise AssertionError("a log of the venue overflowed")
            rows = self.drain()
            if self.minute == before and not any(map(len, rows.values())):
                raise AssertionError("the venue stands still")
            yield rows

    def drain(self) -> Rows:
        """Take the rows written so far."""
        log = self.world.log[: self.world.clock[LOGGED]]
        rows: Rows = {name: log[log["table"] == table] for name, (table, _) in COLUMNS.items()}
        rows["bars"] = self.world.bars[: self.world.clock[BARS]].copy()
        self.world.clock[LOGGED] = self.world.clock[BARS] = 0
        rows["rates"] = np.concatenate(self._rates) if self._rates else np.zeros(0, RATE_ROW)
        self._rates = []
        return rows

    def set_margin_rates(
        self, accounts: npt.NDArray[np.int64], initial: npt.NDArray[np.float64],
        maintenance: npt.NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Put margin rates in force for accounts: at least these shares of gross notional, from now on.

        A rate of 0 takes it back to the static schedule. Raises InputError for what is no number of an
        account, a rate that is no share or a maintenance rate above the initial one.
        """
        accounts = np.asarray(accounts)
        if accounts.ndim != 1 or (len(accounts) and accounts.dtype.kind not in "iu"):
            raise InputError(
                f"accounts must be a row of whole numbers, not {accounts.dtype} of shape {accounts.shape}"
            )
        accounts = accounts.astype(np.int64)
        if not len(accounts) == len(initial) == len(maintenance):
            raise InputError(
                f"accounts and rates must be as many: {len(accounts)}, {len(initial)}, {len(maintenance)}"
            )
        known = (accounts >= 0) & (accounts < len(self.world.account))
        if not known.all():
            raise InputError(f"accounts must be numbers of accounts, not {accounts[~known][0]}")
        if len(np.unique(accounts)) < len(accounts):
            raise InputError("accounts must not name one twice")
        bad = ~((initial >= maintenance) & (maintenance >= 0.0) & (initial <= 1.0))
        if bad.any():
            n = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"rates must satisfy 0 <= maintenance <= initial <= 1, not initial {initial[n]}, "
                f"maintenance {maintenance[n]}"
            )
        self.world.account["initial_rate"][accounts] = initial
        self.world.account["maintenance_rate"][accounts] = maintenance
        rows = np.zeros(len(accounts), RATE_ROW)
        rows["time"] = self.paths.start_us + self.minute * MINUTE_US
        rows["account"], rows["initial"], rows["maintenance"] = accounts, initial, maintenance
        if not len(accounts):
            return
        # of two rates for one account at one time the later is in force
        self._rates = [
            old[(old["time"] != rows["time"][:1]) | ~np.isin(old["account"], accounts)] for old in self._rates
        ]
        self._rates.append(rows)
        make_all_due(self.world, accounts)

    def total_micro(self) -> int:
        """All dollars on the venue in micro-dollars: accounts, fund, fees, desk, rounding.

        Positions' cash legs count; what positions are worth at mark sums to nothing over all accounts.
        Equal to what came in, always.
        """
        world = self.world
        held = int(world.account["cash"].sum()) + int(world.position["quote"].sum())
        held += int(world.position["collateral"].sum())
        return held + int(world.purse[FUND] + world.purse[FEES]) + int(world.purse[2:4].sum())

    @property
    def paid_in_micro(self) -> int:
        """All dollars that came in, less those that went out."""
        return int(self.world.purse[PAID_IN])

    # ---- making it

    @property
    def _spare(self) -> int:
        """Rows that one minute may need at most: a snapshot of everybody, and a minute of forced closing."""
        return 8 * len(self.world.account) + 40_000

    def _open_books(self, intended: npt.NDArray[np.float64]) -> None:
        world = self.world
        for market in range(len(self.listed)):
            row = world.market[market]
            least = world.settings[0]["least_depth_usd"] * row["depth_share"] / self.listed[0].depth_share
            row["least_depth"] = least
            row["base_depth"] = max(row["depth_share"] * intended[market], least)
            quote(world, market)
            price = max(round(row["mid"] / row["tick"]), 1) * row["tick"]
            row["mark"] = row["opening"] = row["high"] = row["low"] = row["last"] = price
            row["previous_oracle"] = row["oracle"]
            world.ring[market, 0, BUCKETS] = bucket_of(price)
        for asset in range(1, len(self.assets)):
            world.ring[len(self.listed) + asset, 0, BUCKETS] = bucket_of(world.asset["price"][asset])
        makers = np.flatnonzero(world.account["kind"] == MAKER)
        world.clock[NOW_S] = self.trading_minute * 60
        each = int(MAKER_CAPITAL * intended.sum() / len(makers) * MICRO) + 10_000 * MICRO
        for account in range(len(world.account)):
            kind = world.account["kind"][account]
            if kind == MAKER:
                world.account["deposit"][account] = each
                transfer(world, account, each)
                world.account["visits"][account] = 1
            elif kind == BACKSTOP:
                world.account["visits"][account] = 1
            enter(world, account)
        set_clock(world, 0)

    def _fund(self) -> None:
        """Give the fund and the backstop what a venue with this open interest has."""
        world = self.world
        open_usd = float((world.market["open_lots"] * world.market["lot"] * world.market["mark"]).sum())
        settings = world.settings[0]
        set_clock(world, self.minute * 60)
        added = int(settings["fund_share"] * open_usd * MICRO) - int(world.purse[FUND])
        world.purse[PAID_IN] += added
        change_fund(world, added, PENALTIES)
        self.fund_at_start_usd = float(world.purse[FUND] / MICRO)
        backstop = len(world.account) - 1
        transfer(world, backstop, int(settings["backstop_funding"] * open_usd * MICRO))


def calm_variance(paths: Paths) -> npt.NDArray[np.float64]:
    """Variance of a minute's log return on a calm day: the median over hours of the mean square."""
    steps = np.diff(np.log(np.vstack([paths.opening, paths.close[-1:]])), axis=0)
    hours = max(len(steps) // 60, 1)
    size = min(60, len(steps))
    hourly = np.square(steps[: hours * size]).reshape(hours, size, -1).mean(axis=1)
    return np.asarray(np.maximum(np.median(hourly, axis=0), 1e-10))


def _world(
    listed: tuple[Listing, ...], assets: tuple[Asset, ...], paths: Paths, account: npt.NDArray[Any],
    taste: npt.NDArray[np.float32], settings: Settings, rule: LiquidationRule,
) -> World:  # fmt: skip
    markets, total = len(listed), len(account)
    market = np.zeros(markets, MARKET_ROW)
    for m, listing in enumerate(listed):
        terms = listing.market
        row = market[m]
        unit = terms.tick_size * terms.lot_size * MICRO
        if abs(unit - round(unit)) > 1e-6 * unit or round(unit) < 1:
            raise InputError(
                f"{terms.market}: tick {terms.tick_size} times lot {terms.lot_size} must be a whole number "
                "of micro-dollars"
            )
        row["tick"], row["lot"], row["unit"] = terms.tick_size, terms.lot_size, round(unit)
        row["taker_fee"], row["liquidation_fee"] = terms.taker_fee_rate, terms.liquidation_fee_rate
        row["calm_spread"], row["depth_share"] = listing.half_spread_bps * BPS, listing.depth_share
        row["outside"] = row["day_ago"] = paths.opening[0, m]
        for field, values in zip(SCHEDULE_FIELDS, terms.schedule, strict=True):
            row[field] = values
    market["calm_variance"] = market["variance"] = calm_variance(paths)
    market["liquidity"] = market["presence"] = 1.0
    market["paid"] = np.nan
    series = markets + len(assets)
    asset = np.zeros(len(assets), ASSET_ROW)
    asset["price"] = asset["worst"] = paths.asset_price[0]
    asset["collateral_weight"] = [each.collateral_weight for each in assets]
    asset["liability_weight"] = [each.liability_weight for each in assets]
    makers = np.flatnonzero(account["kind"] == MAKER)
    queue = np.zeros((QUEUES, total + 16), np.int64)
    queue[MAKER_QUEUE, : len(makers)] = makers
    clock = np.zeros(CLOCK_ROWS, np.int64)
    clock[STARTED], clock[MAKERS] = paths.start_us, len(makers)
    ranking = np.zeros((markets, 2, 3 + total), np.int64)
    ranking[:, :, 0] = -(10**9)
    return World(
        settings=_record(settings),
        rule=_record(rule),
        market=market,
        account=account,
        position=np.zeros((total, markets), POSITION_ROW),
        amount=np.zeros((total, len(assets)), np.int64),
        taste=taste,
        asset=asset,
        node=np.zeros((total, 2 * series), NODE_ROW),
        ring=np.full((series, 2, BUCKETS + 1), -1, np.int64),
        agenda=np.full(AGENDA, -1, np.int64),
        queue=queue,
        scratch=np.zeros((SCRATCHES, total + 16)),
        ranking=ranking,
        entry=np.zeros(markets, ENTRY_ROW),
        purse=np.zeros(PURSES, np.int64),
        clock=clock,
        log=np.zeros(16 * total + ROWS_A_STRETCH, LOG_ROW),
        bars=np.zeros(MINUTES_A_DAY * markets, BAR_ROW),
    )


def _record(values: Any) -> npt.NDArray[Any]:
    """A NamedTuple of numbers as an array of one row, which compiled code hands on more cheaply.

    Types are those of the fields, whatever was given: another layout would be compiled anew.
    """
    kinds = get_type_hints(type(values))
    fields = [(name, "i8" if kinds[name] is int else "f8") for name in values._fields]
    return np.array([tuple(values)], np.dtype(fields))
