"""Generated outside prices: one factor with betas, clustered volatility, jumps that set off jumps, crashes.

A minute's log return of a market is beta x (diffusion + jump of the factor) + (diffusion + jump of its own)
+ its part in a crash. Every diffusion is normal given its variance, so that the minute's high and low can be
drawn from the law of a Brownian bridge from opening to close. Nothing that traders do moves these prices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.simulation.chance import exponential, normal, substream, uniform
from exchange.simulation.paths import MINUTES_A_DAY, Floats, Paths
from exchange.units import MINUTE_US

DOLLAR, STABLECOIN = -1, -2
"""In `Habits.token_market`: an asset that is worth a dollar, and one that is meant to be."""


class Habits(NamedTuple):
    """How the price of each market tends to move, and what prices each asset."""

    start_price: Floats
    """float64[markets], dollars, when minute 0 opens."""
    beta: Floats
    """float64[markets], move per move of the shared factor; 1 for the leading market."""
    own_volatility: Floats
    """float64[markets], of the rest of its return in a day, fraction."""
    token_market: npt.NDArray[np.int64]
    """int64[assets], market whose close prices the asset; `DOLLAR` or `STABLECOIN`."""


class Scenario(NamedTuple):
    """When the markets crash and how; falls are fractions of the price before, from first opening to low."""

    crash_chance: float
    """Of a crash in each 30 days, or in a shorter span."""
    earliest: float
    """Share of the span (history left out) before which no crash begins; of each part of it in a long one."""
    latest: float
    shortest_days: float
    """A shorter span holds a crash with a chance in proportion."""
    least_fall: float
    """Of a market with beta 1; the log fall goes with beta."""
    most_fall: float
    small_coin_fall: float
    """Further log fall of a coin of 2.1% own volatility a day; goes with its power `SMALL_COIN_POWER`."""
    deepest_fall: float
    """No market falls further outside."""
    least_fall_minutes: int
    most_fall_minutes: int
    bursts: float
    """Concentration of the Dirichlet shares of the minutes of the fall: below one a single minute rules."""
    onset: float
    """The fall's pace follows sin(pi * t**onset) of the time t gone, 0 to 1: below one it begins fast."""
    least_recovery: float
    """Share of the fall that is won back, in dollars."""
    most_recovery: float
    least_recovery_minutes: int
    most_recovery_minutes: int
    stress: float
    """What a crash adds to all variances, in multiples of calm variance; halves every two hours."""
    peg_low: float
    """Lowest price of a stablecoin in a crash."""
    peg_minutes: int
    """For which it stays near that."""


_DEFAULT = Scenario(
    crash_chance=1.0,
    earliest=0.2,
    latest=0.92,
    shortest_days=3.0,
    least_fall=0.03,
    most_fall=0.06,
    small_coin_fall=0.0,
    deepest_fall=0.6,
    least_fall_minutes=30,
    most_fall_minutes=90,
    bursts=0.8,
    onset=1.0,
    least_recovery=0.35,
    most_recovery=0.6,
    least_recovery_minutes=60,
    most_recovery_minutes=240,
    stress=4.0,
    peg_low=0.985,
    peg_minutes=20,
)
SCENARIOS: dict[str, Scenario] = {
    "default": _DEFAULT,
    "calm": _DEFAULT._replace(crash_chance=0.0, stress=0.0),
    "crash": _DEFAULT._replace(earliest=0.05, latest=0.25, shortest_days=0.0),
    "october-2025": _DEFAULT._replace(
        earliest=0.5,
        latest=0.5,
        shortest_days=0.0,
        least_fall=0.125,
        most_fall=0.125,
        small_coin_fall=0.8,
        deepest_fall=0.75,
        least_fall_minutes=12,
        most_fall_minutes=12,
        bursts=12.0,
        onset=0.4,
        least_recovery=0.6,
        most_recovery=0.6,
        least_recovery_minutes=45,
        most_recovery_minutes=45,
        stress=12.0,
        peg_low=0.65,
        peg_minutes=30,
    ),
}

FACTOR_VOLATILITY = 0.0275
"""Of the shared factor in a day, fraction."""


class Motion(NamedTuple):
    """What rules variance and jumps, alike for the factor and for each market's own part (a series each).

    Fitted to published one-minute klines by `benchmarks/price_moments.py`, which prints how near they come.
    """

    garch_alpha: float
    """Of the slow variance, updated every hour by the hour's squared return over its calm variance.

    Fitted to daily returns of the path, alpha and beta come out near the published 0.14 and 0.82.
    """
    garch_beta: float
    most_variance: float
    """Of the slow variance over its mean: keeps one crash from feeding itself without end."""
    medium_sd: float
    """Of the log variance that comes and goes within hours."""
    medium_half_life: float
    """Minutes."""
    fast_sd: float
    """Of the log variance that comes and goes within minutes."""
    fast_half_life: float
    shared: float
    """Correlation of a market's own log variances with those of the factor."""
    jumps_a_day: float
    """Of a series on a calm day, those that others set off included."""
    branching: float
    """Jumps that one jump sets off; trade arrivals on these markets have 0.64 to 0.77."""
    excitation_half_life: float
    """Minutes."""
    same_way: float
    """Chance that a jump set off by another goes the same way."""
    jump_size: float
    """Mean size, in standard deviations of the minute's diffusion before its heavy tail."""
    bridge: float
    """Variance of the bridge that makes high and low over the minute's: trades fall on a grid of ticks."""


MOTION = Motion(
    garch_alpha=0.024,
    garch_beta=0.9745,
    most_variance=8.0,
    medium_sd=0.75,
    medium_half_life=60.0,
    fast_sd=0.5,
    fast_half_life=7.0,
    shared=0.7,
    jumps_a_day=2.5,
    branching=0.75,
    excitation_half_life=5.0,
    same_way=0.95,
    jump_size=3.2,
    bridge=0.85,
)

# fmt: off
HOURS = (
    1.08, 1.06, 0.97, 0.86, 0.80, 0.80, 0.81, 0.85, 0.92, 0.90, 0.82, 0.82,
    0.94, 1.17, 1.41, 1.37, 1.30, 1.21, 1.06, 0.99, 0.99, 0.97, 0.97, 0.88,
)
# fmt: on
"""Mean size of a move by hour UTC over the day's mean: between one-minute klines of five coins (2023-24) and
hourly candles of four (2025)."""
WEEKEND, WEEKDAY = 0.83, 1.05
"""Likewise by day, from the same."""
HOURS_A_WEEK = 168
EPOCH_WEEKDAY_HOURS = 72
"""The epoch began on a Thursday, three days into a week."""
STRESS_HALF_LIFE = 120.0
"""Minutes: two hours after the low of a crash the moves are about twice as large as on the day before."""
MOST_SHOCK = 50.0
"""Of an hour's squared return over calm variance, as the slow variance hears of it."""
SMALL_COIN_VOLATILITY, SMALL_COIN_POWER = 0.021, 3.5
MINUTES_APART = 0.2
"""Share of a market's fall that comes in minutes of its own choice."""
RECOVERY_BURSTS = 20.0
FALL_SCATTER = 0.08
"""Of the log fall among markets, as a share of it."""
BURST = np.array([0.04, 0.82, 0.1, 0.04])
"""Of a burst by minute: the worst minute of a crash carries half of its hour's fall, five nearly all."""
MOST_LOG_VARIANCE = 4.0


def season_variance() -> Floats:
    """Variance by hour of the week from Monday 00:00 UTC, mean one."""
    days = np.array([WEEKDAY] * 5 + [WEEKEND] * 2)
    variance = (days[:, None] * np.array(HOURS)[None, :]).ravel() ** 2
    return variance / variance.mean()


@compiled
def _mixing(key: np.uint64, counter: np.uint64) -> float:
    """Variance of mean one that makes a normal a Student t of eight degrees of freedom."""
    product = uniform(key, counter) * uniform(key, counter + np.uint64(1))
    product *= uniform(key, counter + np.uint64(2)) * uniform(key, counter + np.uint64(3))
    return 3.0 / -np.log(product)


@compiled
def _walk(
    key: np.uint64,
    first_hour: int,
    factor_volatility: float,
    start_price: Floats,
    beta: Floats,
    own_volatility: Floats,
    day_volume_usd: Floats,
    motion: Motion,
    season: Floats,
    stress: Floats,
    crash_row: npt.NDArray[np.int64],
    crash_move: Floats,
    opening: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume_usd: Floats,
) -> None:
    """Fill the five tables of a path; series 0 is the factor, series m + 1 what market m does on its own."""
    minutes, markets = opening.shape
    series = markets + 1
    keys = np.empty(series, np.uint64)
    for s in range(series):
        keys[s] = substream(key, np.uint64(s))
    slow = np.ones(series)
    medium = np.zeros(series)
    fast = np.zeros(series)
    excitation = np.zeros(series)
    direction = np.ones(series)
    hour_move = np.zeros(series)
    sigma = np.empty(series)
    sigma[0] = factor_volatility
    for s in range(1, series):  # one by one: a slice brings code for its shapes along, slow to compile
        sigma[s] = own_volatility[s - 1]
    price = np.log(start_price)

    keep_medium = 0.5 ** (1.0 / motion.medium_half_life)
    keep_fast = 0.5 ** (1.0 / motion.fast_half_life)
    keep_excitation = 0.5 ** (1.0 / motion.excitation_half_life)
    medium_step = motion.medium_sd * np.sqrt(1.0 - keep_medium**2)
    fast_step = motion.fast_sd * np.sqrt(1.0 - keep_fast**2)
    log_mean = 0.5 * (motion.medium_sd**2 + motion.fast_sd**2)
    unshared = np.sqrt(1.0 - motion.shared**2)
    base_rate = motion.jumps_a_day * (1.0 - motion.branching) / MINUTES_A_DAY
    kick = motion.branching * (1.0 - keep_excitation) / keep_excitation
    # jumps of exponential size have a mean square of twice the squared mean; diffusion makes up the rest
    calm = 1.0 / (1.0 + 2.0 * motion.jump_size**2 * motion.jumps_a_day / MINUTES_A_DAY)
    garch_omega = 1.0 - motion.garch_alpha - motion.garch_beta
    noise = np.zeros(2)
    for s in range(series):
        medium[s] = motion.medium_sd * normal(keys[s], np.uint64(0))
        fast[s] = motion.fast_sd * normal(keys[s], np.uint64(1))

    for minute in range(minutes):
        base = np.uint64((minute + 1) * 16)
        hour = (first_hour + minute // 60) % HOURS_A_WEEK
        if minute % 60 == 0 and minute > 0:
            before = season[(hour - 1) % HOURS_A_WEEK]
            for s in range(series):
                shock = 24.0 * hour_move[s] ** 2 / (sigma[s] ** 2 * before) if sigma[s] > 0.0 else 1.0
                heard = motion.garch_alpha * min(shock, MOST_SHOCK)
                slow[s] = min(garch_omega + heard + motion.garch_beta * slow[s], motion.most_variance)
                hour_move[s] = 0.0
        factor_move, factor_variance = 0.0, 0.0
        for s in range(series):
            own = keys[s]
            medium_noise, fast_noise = normal(own, base), normal(own, base + np.uint64(1))
            if s == 0:
                noise[0], noise[1] = medium_noise, fast_noise
            else:
                medium_noise = motion.shared * noise[0] + unshared * medium_noise
                fast_noise = motion.shared * noise[1] + unshared * fast_noise
            medium[s] = keep_medium * medium[s] + medium_step * medium_noise
            fast[s] = keep_fast * fast[s] + fast_step * fast_noise
            level = np.exp(min(medium[s] + fast[s] - log_mean, MOST_LOG_VARIANCE))
            level *= sigma[s] ** 2 / MINUTES_A_DAY * calm * slow[s] * season[hour] * (1.0 + stress[minute])
            variance = level * _mixing(own, base + np.uint64(2))
            move = np.sqrt(variance) * normal(own, base + np.uint64(6))
            excitation[s] *= keep_excitation
            rate = base_rate + excitation[s]
            if uniform(own, base + np.uint64(7)) < 1.0 - np.exp(-rate):
                again = 0.5 + (motion.same_way - 0.5) * excitation[s] / rate
                direction[s] = direction[s] if uniform(own, base + np.uint64(9)) < again else -direction[s]
                move += (
                    direction[s] * motion.jump_size * np.sqrt(level) * exponential(own, base + np.uint64(8))
                )
                excitation[s] += kick
            hour_move[s] += move
            if s == 0:
                factor_move, factor_variance = move, variance
                hour_move[0] += crash_move[crash_row[minute], 0]
                continue

            m = s - 1
            crash = crash_move[crash_row[minute], s]
            hour_move[s] += crash - beta[m] * crash_move[crash_row[minute], 0]
            total = beta[m] * factor_move + move + crash
            spread = motion.bridge * (beta[m] ** 2 * factor_variance + variance) + 0.1 * crash * crash
            upwards = 2.0 * spread * exponential(own, base + np.uint64(10))
            downwards = 2.0 * spread * exponential(own, base + np.uint64(11))
            up = 0.5 * (total + np.sqrt(total * total + upwards))
            down = 0.5 * (total - np.sqrt(total * total + downwards))
            began = np.exp(price[m])
            price[m] += total
            ended = np.exp(price[m])
            opening[minute, m] = began
            close[minute, m] = ended
            high[minute, m] = max(began * np.exp(up), began, ended)
            low[minute, m] = min(began * np.exp(down), began, ended)
            calm_minute = (beta[m] ** 2 * sigma[0] ** 2 + sigma[s] ** 2) / MINUTES_A_DAY
            bustle = np.sqrt((beta[m] ** 2 * factor_variance + variance + crash * crash) / calm_minute)
            mood = np.exp(0.8 * normal(own, base + np.uint64(12)) - 0.32)
            volume_usd[minute, m] = day_volume_usd[m] / MINUTES_A_DAY * bustle * mood


def _shares(rng: np.random.Generator, shape: Floats, bursts: float) -> Floats:
    """Random shares, sum one, that follow `shape` on average in about `bursts` bursts of a few minutes."""
    shares = np.convolve(rng.dirichlet(bursts * shape / shape.sum()), BURST)[: len(shape)]
    return shares / shares.sum()


def _crash(scenario: Scenario, habits: Habits, rng: np.random.Generator) -> tuple[Floats, int]:
    """Log moves, float64[minutes, 1 + markets] a beta of 1 first; how many minutes the fall takes."""
    beta = np.concatenate([[1.0], habits.beta])
    own = np.concatenate([[0.0], habits.own_volatility])
    fall_minutes = int(rng.integers(scenario.least_fall_minutes, scenario.most_fall_minutes + 1))
    log_fall = -np.log1p(-rng.uniform(scenario.least_fall, scenario.most_fall)) * beta
    log_fall += scenario.small_coin_fall * (own / SMALL_COIN_VOLATILITY) ** SMALL_COIN_POWER
    log_fall[1:] *= np.exp(FALL_SCATTER * rng.standard_normal(len(habits.beta)))
    log_fall = np.minimum(log_fall, -np.log1p(-scenario.deepest_fall))

    back_minutes = int(rng.integers(scenario.least_recovery_minutes, scenario.most_recovery_minutes + 1))
    recovery = rng.uniform(scenario.least_recovery, scenario.most_recovery)
    log_back = np.log1p(-(1.0 - recovery) * -np.expm1(-log_fall)) + log_fall

    bell = np.sin(np.pi * ((np.arange(fall_minutes) + 0.5) / fall_minutes) ** scenario.onset)
    fading = np.exp(-5.0 * np.arange(back_minutes) / back_minutes)
    down, up = _shares(rng, bell, scenario.bursts), _shares(rng, fading, RECOVERY_BURSTS)
    moves = np.empty((fall_minutes + back_minutes, len(beta)))
    for s in range(len(beta)):
        apart = MINUTES_APART if s > 0 else 0.0
        fall_shares = (1.0 - apart) * down + apart * _shares(rng, bell, scenario.bursts)
        back_shares = (1.0 - apart) * up + apart * _shares(rng, fading, RECOVERY_BURSTS)
        moves[:fall_minutes, s] = -log_fall[s] * fall_shares
        moves[fall_minutes:, s] = log_back[s] * back_shares
    return moves, fall_minutes


def crash_minutes(scenario: Scenario, span_minutes: int, rng: np.random.Generator) -> list[int]:
    """Minutes after the history at which crashes begin, in order: at most one in each 30 days or less."""
    days = span_minutes / MINUTES_A_DAY
    stretches = max(1, round(days / 30.0))
    chance = scenario.crash_chance
    if days < scenario.shortest_days:
        chance *= days / scenario.shortest_days
    begins = []
    for n in range(stretches):
        within = rng.uniform(scenario.earliest, scenario.latest)
        if rng.random() < chance:
            begins.append(int((n + within) / stretches * span_minutes))
    return begins


def _stablecoin(
    falls: list[tuple[int, int]], minutes: int, scenario: Scenario, rng: np.random.Generator
) -> Floats:
    """Price of a dollar that trades: a basis point off at most times, at the scenario's low after a fall."""
    price = 1.0 + 1e-4 * rng.standard_normal(minutes)
    for begin, fall_minutes in falls:
        elapsed = np.arange(minutes - begin)
        sinking = np.minimum(elapsed / fall_minutes, 1.0)
        rising = 0.5 ** (np.maximum(elapsed - fall_minutes - scenario.peg_minutes, 0) / 10.0)
        wobble = 1.0 - 0.1 * rng.random(minutes - begin)
        price[begin:] -= (1.0 - scenario.peg_low) * sinking * rising * wobble
    return np.maximum(price, scenario.peg_low)


def generated_paths(
    habits: Habits,
    minutes: int,
    start_us: int,
    rng: np.random.Generator,
    scenario: Scenario,
    history_minutes: int,
    day_volume_usd: Floats | None = None,
    motion: Motion = MOTION,
) -> Paths:
    """Outside prices of `minutes` minutes, of which the first `history_minutes` hold no crash.

    `day_volume_usd` float64[markets] is what trades outside on a calm day; without it the volume is NaN.
    A generator in the same state gives the same bytes. Needs 0 <= history_minutes < minutes.
    """
    assert 0 <= history_minutes < minutes, (history_minutes, minutes)
    markets = len(habits.start_price)
    key = np.uint64(rng.integers(0, 2**64, dtype=np.uint64))
    stress = np.zeros(minutes)
    crash_row = np.zeros(minutes, np.int64)
    tables = [np.zeros((1, 1 + markets))]
    rows, falls = 1, []
    for after in crash_minutes(scenario, minutes - history_minutes, rng):
        begin = history_minutes + after
        moves, fall_minutes = _crash(scenario, habits, rng)
        length = min(len(moves), minutes - begin)
        crash_row[begin : begin + length] = rows + np.arange(length)
        stress[begin:] += scenario.stress * 0.5 ** (np.arange(minutes - begin) / STRESS_HALF_LIFE)
        tables.append(moves)
        rows += len(moves)
        falls.append((begin, fall_minutes))

    opening, high, low, close, volume = (np.empty((minutes, markets)) for _ in range(5))
    _walk(
        key,
        (start_us // MINUTE_US // 60 + EPOCH_WEEKDAY_HOURS) % HOURS_A_WEEK,
        FACTOR_VOLATILITY,
        np.asarray(habits.start_price, np.float64),
        np.asarray(habits.beta, np.float64),
        np.asarray(habits.own_volatility, np.float64),
        np.full(markets, np.nan) if day_volume_usd is None else np.asarray(day_volume_usd, np.float64),
        motion,
        season_variance(),
        stress,
        crash_row,
        np.vstack(tables),
        opening,
        high,
        low,
        close,
        volume,
    )
    asset_price = np.ones((minutes, len(habits.token_market)))
    for asset, market in enumerate(habits.token_market):
        if market >= 0:
            asset_price[:, asset] = close[:, market]
        elif market == STABLECOIN:
            asset_price[:, asset] = _stablecoin(falls, minutes, scenario, rng)
    return Paths(start_us, opening, high, low, close, asset_price, volume)
