"""One simulated venue under one margin policy: what the policy asks each hour, and what came of it.

Policies differ in what they ask beyond the schedule and of whom; all act through the same door
(`exchange.simulation.entry`, `Venue.set_margin_rates`). Whatever a policy reads is of the hour's past: rows
that the venue has written by then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.simulation.entry import rates_of_open
from exchange.simulation.outcome import Outcome
from exchange.simulation.state import MAKER, NEGATIVE
from exchange.simulation.venue import Rows, Venue
from exchange.units import DAY_US, HOUR_US, MINUTE_US
from features import catalog
from models.bundle import Bundle
from pipelines.entry_risk import EntryRisk, Follower
from serving.policy import LOADING, MOST, TARGET_PD, move
from serving.scorer import Scorer

Floats = npt.NDArray[np.float64]

EVERY_MINUTES = 60
MODEL_EVERY = 4
"""Hours after which the model is asked anew."""
FAST_H, SLOW_H = 12.0, 240.0
"""Half-lives of the volatilities that rules of thumb go by: of now, and through the cycle."""
QUANTILE = 2.33
"""Standard deviations of a normal move that is exceeded once in a hundred."""
STRESS_WEIGHT = 0.25
"""Of stressed observations in a SPAN-like margin, as EMIR asks for at least."""


class Market(NamedTuple):
    """What rules of thumb know of the markets by an hour, one number each."""

    scheduled: Floats
    """First initial rate of the schedule."""
    fast_day: Floats
    """A day's standard deviation of the mark's log return, by the fast half-life."""
    slow_day: Floats
    worst_day: Floats
    """The largest that the fast one has been."""


class Policy(NamedTuple):
    """What a policy asks; `strength` scales it where policies are brought to the same average margin."""

    about: str
    asks: Callable[[npt.NDArray[Any], Market, float], None] | None = None
    """Writes terms of entry, given the markets and the strength."""
    strength: float = 1.0
    fitted_to: str = ""
    """Metric in which it is brought to `account-risk` by its strength; "" for one that runs as it is."""
    lifts: bool = False
    """Whether the strength multiplies the schedule's initial rates."""
    on_open: bool = False
    """Whether open positions are asked too, at once."""
    model: bool = False
    ahead_h: int = 0
    """By how many hours its features are ahead of time."""
    knows_future: bool = False
    other_draws: bool = False


def _by_size(entry: npt.NDArray[Any], _market: Market, strength: float) -> None:
    entry["per_slip"] = strength


def _by_volatility(entry: npt.NDArray[Any], market: Market, strength: float) -> None:
    above = np.maximum(market.fast_day / market.slow_day - 1.0, 0.0)
    entry["add_on"] = market.scheduled * strength * above


def _like_span(entry: npt.NDArray[Any], market: Market, strength: float) -> None:
    at_risk = QUANTILE * ((1.0 - STRESS_WEIGHT) * market.fast_day + STRESS_WEIGHT * market.worst_day)
    entry["add_on"] = np.maximum(strength * at_risk - market.scheduled, 0.0)
    entry["per_slip"] = 1.0 + strength


MARGIN, REFUSED = "average_margin_rate", "refused_demand"
POLICIES: dict[str, Policy] = {
    "static": Policy("the venue's tiers, lifted to the same average margin", lifts=True, fitted_to=MARGIN),
    "static-1.5": Policy("the venue's tiers, initial rates half as much again", lifts=True, strength=1.5),
    "static-refused": Policy(
        "the venue's tiers, lifted until as much demand is refused", lifts=True, fitted_to=REFUSED
    ),
    "size": Policy(
        "more for positions that are large beside the book, on new exposure", _by_size, fitted_to=MARGIN
    ),
    "volatility": Policy(
        "more when volatility is above its slow level, on open positions at once", _by_volatility,
        fitted_to=MARGIN, on_open=True,
    ),
    "volatility-new": Policy("the same on new exposure only", _by_volatility, fitted_to=MARGIN),
    "span-like": Policy(
        "value at risk, stress, liquidity and concentration, on open positions", _like_span,
        fitted_to=MARGIN, on_open=True,
    ),
    "account-risk": Policy("what brings the model's risk at entry to its target, stamped", model=True),
    "account-risk-open": Policy("the same, on open positions at once: the trap", model=True, on_open=True),
    "account-risk-ahead": Policy(
        "account-risk with features a day ahead of time: what leakage would be worth", ahead_h=24
    ),
    "oracle": Policy("nobody who will go negative within a day may add", knows_future=True),
    "null": Policy("static again, other draws of behaviour", lifts=True, fitted_to=MARGIN, other_draws=True),
}  # fmt: skip
ORACLE_SEES_US = DAY_US


class Result(NamedTuple):
    """What came of a run."""

    metrics: dict[str, float]
    """Those of `backtest.json`."""
    negative: list[tuple[int, int]]
    """Traders who went negative, and when for the first time, microseconds."""
    asked: list[EntryRisk]
    """What the model said, every `MODEL_EVERY` hours from the start on."""


class Task(NamedTuple):
    """One run: which world, under which policy."""

    world: str
    """Name in the report, and of the file with its figures."""
    policy: str
    strength: float
    make: Callable[[], Venue]
    model: Path | None
    future: Result | None = None
    """What came of the same world: under `static` for the oracle, under `account-risk` for features ahead."""


def run(task: Task) -> Result:
    """Run it to its end.

    Raises BundleError where the model cannot be used.
    """
    policy = POLICIES[task.policy]
    venue = task.make()
    world = venue.world
    if policy.other_draws:
        world.account["draws"] = 1 << 32  # another stretch of everybody's stream of random numbers
    if policy.lifts:
        lift_schedule(venue, task.strength)
    asks: Callable[[int], EntryRisk] | None = None
    follower = None
    if policy.model:
        assert task.model is not None
        follower = Follower(venue, _scorer(task.model))
        asks = _present(follower)
    elif policy.ahead_h:
        assert task.future is not None
        asks = _ahead(task.future.asked, policy.ahead_h)
    gauge = Gauge(venue)
    negative: dict[int, int] = {}
    asked: list[EntryRisk] = []
    for rows in venue.run(venue.history_minutes):
        gauge.add(rows)
        if follower is not None:
            follower.follow(rows)
    outcome = Outcome(venue)
    hour = 0
    while True:
        if asks is not None and hour % MODEL_EVERY == 0:
            asked.append(asks(hour))
            price(venue.world.entry, asked[-1], task.strength)
        act(venue, policy, task, gauge.market)
        if venue.minute >= venue.minutes:
            break
        for rows in venue.run(min(venue.minute + EVERY_MINUTES, venue.minutes)):
            outcome.add(rows)
            gauge.add(rows)
            for event in rows["events"][rows["events"]["kind"] == NEGATIVE]:
                negative.setdefault(int(event["account"]), int(event["time"]))
            if follower is not None:
                follower.follow(rows)
        outcome.look()
        hour += 1
    assert venue.total_micro() == venue.paid_in_micro
    traders = venue.world.account["kind"] < MAKER
    first = sorted((who, at) for who, at in negative.items() if traders[who])
    return Result(outcome.figures(), first, asked)


def _present(follower: Follower) -> Callable[[int], EntryRisk]:
    return lambda _hour: follower.risk()


def _ahead(asked: list[EntryRisk], ahead_h: int) -> Callable[[int], EntryRisk]:
    return lambda hour: asked[min((hour + ahead_h) // MODEL_EVERY, len(asked) - 1)]


def lift_schedule(venue: Venue, times: float) -> None:
    """Multiply the schedule's initial rates, up to 100%, tiers staying continuous; maintenance stays."""
    for row in venue.world.market:
        rate = np.minimum(row["initial_rate"] * times, 1.0)
        steps = np.diff(rate, prepend=rate[0]) * np.where(np.isfinite(row["floor"]), row["floor"], 0.0)
        row["initial_rate"] = rate
        row["initial_deduction"] = np.cumsum(steps)


def act(venue: Venue, policy: Policy, task: Task, market: Market) -> None:
    """Put what a policy asks from now on in force; what the model says stands in the terms already."""
    entry = venue.world.entry
    if policy.asks is not None:
        entry["stamps"], entry["most"] = 1, MOST
        policy.asks(entry, market, task.strength)
    if policy.on_open:
        accounts = len(venue.world.account)
        initial, maintenance = np.zeros(accounts), np.zeros(accounts)
        rates_of_open(venue.world, initial, maintenance)
        held = np.flatnonzero((initial > 0.0) | (venue.world.account["maintenance_rate"] > 0.0))
        venue.set_margin_rates(held, initial[held], maintenance[held])
    if policy.knows_future:
        now_us = venue.paths.start_us + venue.minute * MINUTE_US
        assert task.future is not None
        barred = [who for who, at in task.future.negative if now_us < at <= now_us + ORACLE_SEES_US]
        before = np.flatnonzero(venue.world.account["initial_rate"] > 0.0)
        who = np.union1d(before, np.array(barred, np.int64)).astype(np.int64)
        venue.set_margin_rates(who, np.isin(who, barred).astype(np.float64), np.zeros(len(who)))


def price(entry: npt.NDArray[Any], risk: EntryRisk, strength: float) -> None:
    """Write terms of the policy that the service suggests by (`serving.policy`); stronger is stricter."""
    entry["stamps"], entry["most"] = 1, MOST
    known = ~np.isnan(risk.pd_24h)
    entry["pd"] = np.where(known, risk.pd_24h, 1.0)  # missing data earns no relief
    entry["loading"], entry["target"] = LOADING, TARGET_PD / strength
    moved = np.array([move(sigma) for sigma in risk.sigma_day.tolist()])
    entry["move"] = np.where(np.isnan(moved), entry["move"], moved)


class Gauge:
    """Volatilities by market from the bars that have been written."""

    def __init__(self, venue: Venue) -> None:
        self._last: Floats | None = None
        self._time_us = venue.paths.start_us
        markets = len(venue.listed)
        self._scheduled = np.array([listing.market.schedule.initial_rate[0] for listing in venue.listed])
        self._fast = self._slow = np.full(markets, np.nan)
        self._worst = np.zeros(markets)

    def add(self, rows: Rows) -> None:
        """Take in the bars of a stretch."""
        bars = rows["bars"]
        if not len(bars):
            return
        markets = len(self._scheduled)
        close = np.log(bars["close"].reshape(-1, markets))
        times = bars["time"][::markets]
        if self._last is not None:
            close = np.vstack([self._last, close])
            times = np.concatenate([[self._time_us], times])
        squares = np.square(np.diff(close, axis=0))
        hour = (times[1:] - 1) // HOUR_US
        for each in np.unique(hour).tolist():
            self._fade(squares[hour == each].sum(axis=0), float(np.diff(times)[hour == each].sum()))
        self._last, self._time_us = close[-1:], int(times[-1])

    def _fade(self, squares: Floats, elapsed_us: float) -> None:
        day = squares * (DAY_US / elapsed_us)
        hours = elapsed_us / HOUR_US
        for name, half_life in (("_fast", FAST_H), ("_slow", SLOW_H)):
            old = getattr(self, name)
            keep = 0.5 ** (hours / half_life)
            setattr(self, name, np.where(np.isnan(old), day, keep * old + (1.0 - keep) * day))
        self._worst = np.maximum(self._worst, self._fast)

    @property
    def market(self) -> Market:
        """What is known now."""
        return Market(self._scheduled, *map(np.sqrt, (self._fast, self._slow, self._worst)))


_scorers: dict[Path, Scorer] = {}


def _scorer(model: Path) -> Scorer:
    """A process scores with one model, loaded once."""
    if model not in _scorers:
        _scorers[model] = Scorer(Bundle.open(model, catalog.fingerprint()))
    return _scorers[model]
