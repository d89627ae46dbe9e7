"""What may happen to a book: replays of its own past and of known crashes, shocks, failures, and chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.simulation.settings import Settings
from exchange.stress.book import Shock
from exchange.units import HOUR_S, SECOND_US
from pipelines.stress_book import Standing
from pipelines.stress_prices import DAY_POINTS, STEP_US, Past, betas, correlations, freedom, worst_windows
from pipelines.times import format_time

Floats = npt.NDArray[np.float64]

MINUTE_S = 60.0
SHOCK_MINUTES = 30
SIZES = (0.05, 0.10, 0.20, 0.40)
THIN = 0.1
DEPEG = 0.65
"""Of a stablecoin, on this venue alone: USDe on 10 October 2025."""
STABLE_WITHIN = 0.1
"""An asset whose price is so near a dollar, and that follows no market, is taken for a stablecoin."""
CRASH = 0.20
"""Fall of the leading market in the scenarios in which something else fails as well."""
REPLAYS = 3
SETTLE_MINUTES = 30
"""Time without moves that follows a sudden one: closings that are under way go on."""

ANCHORED = 0.0
"""Permanent share of forced orders on recorded paths, which already hold what stayed."""


class Scenario(NamedTuple):
    """A shock with a name."""

    name: str
    family: str
    title: str
    shock: Shock


class Crash(NamedTuple):
    """A known crash as the way of the leading market, and how much more the others moved."""

    name: str
    title: str
    hours: float
    lead: tuple[float, ...]
    """Price over that at the start, evenly spaced."""
    others: float
    """Log move of another market over its beta times the leading one's."""


CRASHES = (
    Crash(
        "crash-2025-10-10", "10 October 2025: the leading coin -14% within the hour, others far more",
        1.0, (0.99, 0.985, 0.975, 0.97, 0.96, 0.93, 0.88, 0.86, 0.89, 0.915, 0.92, 0.925), 2.5,
    ),
    Crash(
        "crash-2021-05-19", "19 May 2021: the leading coin -30% within the day, half of it back",
        12.0, (0.97, 0.95, 0.91, 0.88, 0.84, 0.70, 0.80, 0.86, 0.87, 0.88, 0.86, 0.87), 1.15,
    ),
    Crash(
        "crash-2020-03-12", "12 March 2020: the leading coin -50% in a day and a night, in two waves",
        24.0, (0.97, 0.93, 0.77, 0.76, 0.78, 0.75, 0.73, 0.70, 0.60, 0.50, 0.64, 0.66), 1.1,
    ),
)  # fmt: skip
"""Rounded, of the leading coin; docs/stress.md says from which prices."""

INCIDENTS = (
    ("incident-mango", "Mango, October 2022: the smallest market x13 within 30 minutes", 13.0),
    ("incident-jelly", "JELLY, March 2025: the smallest market x5 within 30 minutes", 5.0),
    ("incident-yfi", "YFI, November 2023: the smallest market -43% within 30 minutes", 0.57),
    ("incident-popcat", "POPCAT, November 2025: the smallest market -40% within 30 minutes", 0.60),
)


class World(NamedTuple):
    """What scenarios are made of."""

    standing: Standing
    past: Past
    lead: int
    beta: Floats
    follows: npt.NDArray[np.int64]
    """By asset: the market whose moves its price follows, -1 for none."""
    stable: npt.NDArray[np.bool_]
    """By asset: a stablecoin, though not the quote currency itself."""


def world_of(
    standing: Standing, past: Past, market_underlying: list[int], asset_underlying: list[int]
) -> World:
    """Markets and assets with what is common between them; the market with most open interest leads."""
    lead = int(np.argmax(standing.open_interest_usd))
    number = {underlying: key for key, underlying in reversed(list(enumerate(market_underlying)))}
    follows = np.array([number.get(underlying, -1) for underlying in asset_underlying], np.int64)
    price, weight = standing.book.price, standing.book.collateral_weight
    near = np.abs(np.nan_to_num(price, nan=0.0) - 1.0) <= STABLE_WITHIN
    return World(standing, past, lead, betas(past, lead), follows, near & (follows < 0) & (weight < 1.0))


def named(world: World) -> list[Scenario]:
    """Every scenario that has a name, in the order in which they are told."""
    return [
        Scenario("nothing-moves", "as it is", "Nothing moves", _sudden(world, np.zeros(_markets(world)))),
        *_replays(world),
        *_crashes(world),
        *_incidents(world),
        *_correlated(world),
        *_failures(world),
        *_by_market(world),
    ]


class Chance:
    """Days of chance: one draw of how wild the day is for all markets, then normal moves by the half hour.

    Together the moves of a day are Student's t with the degrees of freedom that fit the past, and the
    correlations of the past.
    """

    def __init__(self, world: World, sigma: Floats, seed: int) -> None:
        """`sigma` is float64[M], per root of a second."""
        self.freedom = freedom(world.past)
        self.world, self._seed = world, seed
        self._root = np.linalg.cholesky(correlations(world.past))
        self._step_s = STEP_US / SECOND_US
        self._sigma = sigma * math.sqrt(self._step_s)

    def day(self, number: int) -> Scenario:
        """The day of this number: the same whichever days are drawn beside it."""
        chance = np.random.default_rng([self._seed, number])
        wild = math.sqrt((self.freedom - 2.0) / chance.chisquare(self.freedom))
        draws = chance.standard_normal((DAY_POINTS, len(self._sigma))) @ self._root.T
        path = np.cumsum(draws * (self._sigma * wild), axis=0)
        title = f"A day of chance, {wild:.1f} times as wild as forecast"
        return Scenario(f"day-{number}", "chance", title, _shock(self.world, path, self._step_s))


def _markets(world: World) -> int:
    return len(world.standing.markets)


def _shock(
    world: World, path: Floats, knot_s: float, *, depth: float = 1.0, frozen: int = 0,
    permanent: float | None = None, asset: Floats | None = None,
) -> Shock:  # fmt: skip
    """A shock along `path`; assets go with the market that they follow unless told otherwise."""
    if asset is None:
        asset = np.where(world.follows >= 0, path[:, world.follows], 0.0)
    share = Settings().permanent_share if permanent is None else permanent
    return Shock(np.ascontiguousarray(path), np.ascontiguousarray(asset), knot_s, depth, frozen, share)


def _ramp(moves: Floats) -> Floats:
    """There in half an hour, and half an hour in which nothing else happens."""
    there = np.arange(1, SHOCK_MINUTES + 1)[:, None] / SHOCK_MINUTES * moves
    return np.concatenate([there, np.repeat(moves[None, :], SETTLE_MINUTES, axis=0)])


def _sudden(world: World, moves: Floats, *, depth: float = 1.0, frozen: int = 0) -> Shock:
    return _shock(world, _ramp(moves), MINUTE_S, depth=depth, frozen=frozen)


def _together(world: World, move: float) -> Floats:
    """Log moves of all markets by beta, when the leading one changes by `move`."""
    return math.log1p(move) * world.beta / world.beta[world.lead]


def _said(change: float) -> str:
    return f"{change:+.0%}"


def _replays(world: World) -> Iterator[Scenario]:
    weights = world.standing.open_interest_usd
    for sign, word in ((-1.0, "fall"), (1.0, "rise")):
        windows = worst_windows(world.past, weights, DAY_POINTS, REPLAYS, sign)
        for number, window in enumerate(windows, 1):
            yield Scenario(
                f"replay-{word}-{number}", "replay",
                f"The day to {format_time(window.end_us)}, number {number} of the days that {word} most",
                _shock(world, window.moves, STEP_US / SECOND_US, permanent=ANCHORED),
            )  # fmt: skip


def _crashes(world: World) -> Iterator[Scenario]:
    relative = world.beta / world.beta[world.lead]
    for crash in CRASHES:
        lead = np.log(np.array(crash.lead))
        factor = np.where(np.arange(len(relative)) == world.lead, 1.0, relative * crash.others)
        knots = len(lead)
        yield Scenario(
            crash.name, "known crash", crash.title,
            _shock(world, lead[:, None] * factor, crash.hours * HOUR_S / knots, permanent=ANCHORED),
        )  # fmt: skip


def _incidents(world: World) -> Iterator[Scenario]:
    interest = np.where(world.standing.open_interest_usd > 0.0, world.standing.open_interest_usd, np.inf)
    smallest = int(np.argmin(interest))
    for name, title, factor in INCIDENTS:
        moves = np.zeros(_markets(world))
        moves[smallest] = math.log(factor)
        yield Scenario(
            name, "incident", f"{title} ({world.standing.markets[smallest]})", _sudden(world, moves)
        )


def _correlated(world: World) -> Iterator[Scenario]:
    name = world.standing.markets[world.lead]
    for sign in (-1.0, 1.0):
        for size in SIZES:
            change = sign * size
            yield Scenario(
                f"all{change:+.0%}",
                "all markets",
                f"{name} {_said(change)} in half an hour, the others by beta",
                _sudden(world, _together(world, change)),
            )  # fmt: skip


def _failures(world: World) -> Iterator[Scenario]:
    moves = _together(world, -CRASH)
    fall = f"{world.standing.markets[world.lead]} {_said(-CRASH)}"
    yield Scenario(
        "thin-book",
        "failure",
        f"{fall} into a book at a tenth of its depth",
        _sudden(world, moves, depth=THIN),
    )
    yield Scenario(
        "oracle-stops", "failure", f"{fall} while marks stand still for half an hour",
        _sudden(world, moves, frozen=SHOCK_MINUTES),
    )  # fmt: skip
    if world.stable.any():
        names = ", ".join(np.array(world.standing.assets)[world.stable].tolist())
        still = np.zeros(_markets(world))
        for name, title, base in (
            ("depeg", f"{names} falls to {DEPEG} on this venue", still),
            ("depeg-in-crash", f"{fall} and {names} falls to {DEPEG}", moves),
        ):
            path = _ramp(base)
            asset = np.where(world.follows >= 0, path[:, world.follows], 0.0)
            price = world.standing.book.price
            asset += _ramp(np.where(world.stable, np.log(DEPEG / np.where(world.stable, price, 1.0)), 0.0))
            yield Scenario(name, "failure", title, _shock(world, path, MINUTE_S, asset=asset))


def _by_market(world: World) -> Iterator[Scenario]:
    for market, name in enumerate(world.standing.markets):
        if not world.standing.open_interest_usd[market] > 0.0:
            continue
        for sign in (-1.0, 1.0):
            for size in SIZES:
                moves = np.zeros(_markets(world))
                moves[market] = math.log1p(sign * size)
                yield Scenario(
                    f"{name}{sign * size:+.0%}", "one market", f"{name} {_said(sign * size)} in half an hour",
                    _sudden(world, moves),
                )  # fmt: skip
