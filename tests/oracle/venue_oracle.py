"""What only shows when all accounts are looked at together, slow and obvious: every quarter of an hour.

A sweep keeps what it saw (every position with its liquidation price, every owner's accounts, what the
prior expects); readers work out the rest from these lists when they are asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tests.oracle.account_oracle import NAN, Look, Names, over
from tests.oracle.market_oracle import bounded, depth_at, logit_of, passage, prior, prior_24h
from tests.oracle.replay_oracle import DAY, HOUR, Account, Book, Row, Sight, World, replay

STEP, STEPS = 0.005, 48
REACH = STEP * STEPS
FADE_US = 3 * DAY


def remaining(elapsed_us: float, half_life_us: float) -> float:
    return float(0.5 ** (elapsed_us / half_life_us))


class Forced(NamedTuple):
    """A position that is closed by force where the mark has moved so far, in logs, against it."""

    side: int
    away: float
    notional: float


class Expected(NamedTuple):
    """Liquidations within a day expected: by the prior, and by first passage alone at two volatilities."""

    time_us: int
    accounts: int
    prior: float
    slow: float
    ahead: float


@dataclass
class Pressed:
    """One market as a sweep saw it."""

    mark: float
    book: Book | None
    forced: list[Forced] = field(default_factory=list)

    def curve(self, side: int) -> list[float]:
        """Notional closed within 0, 1, 2 ... steps; what is due already is in all of them."""
        due = sum(f.notional for f in self.forced if f.side == side and f.away <= 0.0)
        return [due] + [
            sum(f.notional for f in self.forced if f.side == side and f.away < k * STEP)
            for k in range(1, STEPS + 1)
        ]

    def moved(self, side: int, mark: float) -> float:
        """How far the mark has come since then towards what is closed on a side."""
        return math.log(self.mark / mark) * (1 if side == 0 else -1)

    def within(self, side: int, away: float, mark: float) -> float:
        """Closed within a distance from the mark as it is now; in even parts inside a step."""
        place = (away + self.moved(side, mark)) / STEP
        return float(np.interp(place, range(STEPS + 1), self.curve(side)))

    def before(self, side: int, away: float, mark: float) -> float:
        """Closed in the steps before the one in which that distance lies."""
        place = (away + self.moved(side, mark)) / STEP
        return 0.0 if place <= 0.0 else self.curve(side)[min(math.floor(min(place, 1e9)), STEPS)]

    def ignition(self, side: int, mark: float) -> float:
        """From the mark as it is now to the first step at which what is closed outweighs the depth passed."""
        if self.book is None or not self.book.levels:
            return NAN
        curve = self.curve(side)
        found = REACH
        for k in range(STEPS, 0, -1):
            if curve[k] > 0.0 and curve[k] >= depth_at(k * STEP * 1e4, *self.book.side(side)):
                found = k * STEP
        return min(max(found - self.moved(side, mark), 0.0), REACH)


@dataclass
class Owned:
    """Accounts of one owner that had an open position."""

    collateral: float = 0.0
    maintenance: float = 0.0
    accounts: int = 0


@dataclass
class Sweeps:
    """All that the sweeps have seen of the venue; what they saw of an account is with the account."""

    names: Names
    count: int = 0
    pressed: dict[int, Pressed] = field(default_factory=dict)
    owned: dict[int, Owned] = field(default_factory=dict)
    hours: list[int] = field(default_factory=list)
    """Times of the first sweep of each hour."""
    expected: list[Expected] = field(default_factory=list)

    def sweep(self, world: World, now_us: int, elapsed_us: int) -> None:
        self.count += 1
        begins_hour = not self.hours or now_us // HOUR > self.hours[-1] // HOUR
        for m, market in world.markets.items():
            if market.bars and market.tiers:
                self.pressed[m] = Pressed(market.mark, market.books[-1] if market.books else None)
            elif m in self.pressed:
                self.pressed[m].forced = []
        self.owned = {}
        known = 0
        expected = slow = ahead = 0.0
        regime = self._regime()
        for account in world.accounts.values():
            account.swept_ratio = NAN
            if not account.open:
                continue
            look = Look(world, account, self.names)
            self._press(look)
            if account.owner >= 0:
                owned = self.owned.setdefault(account.owner, Owned())
                owned.collateral += look.collateral
                owned.maintenance += look.maintenance
                owned.accounts += 1
            if math.isnan(look.equity) or math.isnan(look.buffer):
                continue
            near, far = look.nearness("slow"), look.nearness("ahead_24h")
            if begins_hour and near > 0.0 and far > 0.0:
                known += 1
                expected += prior_24h(look.shown_nearness("prior"), look.ratio, regime)
                slow += bounded(passage(near))
                ahead += bounded(passage(far))
            remember(account, Sight(now_us, elapsed_us, look.equity, look.ratio, look.buffer))
        if begins_hour:
            self.hours.append(now_us)
            self.expected.append(Expected(now_us, known, expected, slow, ahead))

    def _press(self, look: Look) -> None:
        for m, held in look.held.items():
            if m in self.pressed and not math.isnan(look.distances[m]):
                side = 0 if held.quantity > 0.0 else 1
                away = log_distance(look.distances[m], side)
                self.pressed[m].forced.append(Forced(side, away, look.size[m]))

    # -- the venue's regime

    def _regime(self) -> float:
        """The newest forecast over what is usual; before there is one all is as usual."""
        known = [expected for expected in self.expected if expected.accounts]
        return min(max(math.log(known[-1].ahead / known[-1].slow), -1.5), 1.5) if known else 0.0

    @property
    def is_known(self) -> bool:
        """Whether the newest hour knew any account that is not past its end."""
        return bool(self.expected) and self.expected[-1].accounts > 0

    def forecast_ratio(self) -> float:
        return self._regime() if self.is_known else NAN

    def prior_logits(self, look: Look) -> list[float]:
        return [
            NAN if math.isnan(hazard) else logit_of(hazard)
            for hazard in prior(look.shown_nearness("prior"), look.ratio, self._regime())
        ]

    def outcome_ratio(self, world: World, is_told: bool) -> float:
        """Account-hours that were within a day of liquidation over those expected, five accounts' day added.

        Both fade at the first sweep of every hour.
        """
        if not is_told or not self.is_known:
            return NAN
        last_us = self.hours[-1]
        expected = sum(
            this.prior * min(this.time_us - before.time_us, DAY) / HOUR
            * remaining(last_us - this.time_us, FADE_US)
            for before, this in zip(self.expected, self.expected[1:], strict=False)
        )  # fmt: skip
        observed = sum(
            hours * remaining(last_us - self._hour_of(time_us), FADE_US)
            for account in world.accounts.values()
            for time_us, hours in account.liquidations
        )
        return math.log((observed + 120.0) / (expected + 120.0))

    def _hour_of(self, time_us: int) -> int:
        return max((hour for hour in self.hours if hour <= time_us), default=self.hours[0])

    def owner(self, look: Look) -> tuple[float, float]:
        """Number of the owner's accounts at risk, and what they have over what they need, all together."""
        if look.account.owner < 0 or not self.count:
            return NAN, NAN
        owned = self.owned.get(look.account.owner)
        if owned is None:  # the first was opened since
            return 1.0, over(look.collateral, look.maintenance)
        return float(owned.accounts), over(owned.collateral, owned.maintenance)


def log_distance(fraction: float, side: int) -> float:
    """Log of the ratio of prices for an adverse move: down for longs (0), up for shorts (1)."""
    if side == 0 and fraction >= 1.0:
        return math.inf
    return -math.log(1.0 - fraction) if side == 0 else math.log(1.0 + fraction)


def remember(account: Account, sight: Sight) -> None:
    account.sights.append(sight)
    if account.survived and sight.time_us - account.survived[0].time_us > 30 * DAY:
        account.survived = []
    account.survived.append(sight)
    account.swept_ratio = sight.ratio


# ---- what sweeps tell of one account


def best_equity(account: Account) -> float:
    return max((sight.equity for sight in account.sights), default=NAN)


def usual_equity(account: Account) -> float:
    """Mean over a day (half-life) of what the sweeps saw; the first stands for all time before it."""
    if not account.sights:
        return NAN
    usual = account.sights[0].equity
    for sight in account.sights[1:]:
        keep = remaining(sight.elapsed_us, DAY)
        usual = keep * usual + (1.0 - keep) * sight.equity
    return usual


def lowest_ratio(account: Account) -> float:
    """The lowest seen, half of its distance to what is seen now forgotten in a week."""
    if not account.sights:
        return NAN
    lowest = account.sights[0].ratio
    for sight in account.sights[1:]:
        lowest = min(sight.ratio, sight.ratio + remaining(sight.elapsed_us, 7 * DAY) * (lowest - sight.ratio))
    return lowest


def told(rows: list[Row], names: Names) -> tuple[World, Sweeps]:
    """The world after these rows and what the sweeps saw on the way."""
    sweeps = Sweeps(names)
    return replay(rows, sweeps.sweep), sweeps
