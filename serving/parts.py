"""The initial margin rate in parts that add up: from the schedule's rate to the suggestion, step by step.

A suggestion is built in levels, each at least the one before it:

    static         the venue's schedule
    volatility     what a move of so many sigmas takes, where the schedule is below that; the move through
                   the cycle: weighted with a stressed one, never under the long-run one (both by choice)
    liquidity      a multiple of what closing costs: liquidation fee and slippage, so concentration over depth
    account risk   where the rate that pays for the risk of this portfolio (`serving.policy`) is above that
    buffer         where a margin of the long-run move and a quarter more, say, is above that: it is there in
                   calm times, and used up while volatility rises up to it
    limit          less, where a bound says so: the venue's ceiling, 100%
    in force       what the rate on record adds or takes away
    linked         what the owner's other accounts add (`serving.linked`)

Levels are rounded up to whole parts per million and a part is the difference of two of them, so that parts
sum to the suggestion exactly. What volatility and liquidity ask for pays for the account's risk too, so that
nothing is asked for twice; raising any input raises the last level or leaves it.

The rate in force, p, is stamped on positions that are open: an account as it stands keeps max(s, p), since
raising margin on them makes the liquidations it should prevent. What enters is priced, and never under p,
which only the record lowers (`serving.glide`). Where data or model failed the rate is max(s, p), and where
the cost of closing is not known it is not under p: missing data earns no relief.

`terms` say which parts are on and how strong (`serving.switches`); the standard ones ask for the schedule and
the account's risk.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled
from exchange.rates import ppm_up
from exchange.units import PPM
from serving.policy import LOADING, TARGET_PD, closing, cost_of_liquidation, move, paying_rate

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

STATIC, VOLATILITY, LIQUIDITY, ACCOUNT_RISK, BUFFER, LIMIT, IN_FORCE, LINKED = range(8)
PARTS = 8
PART_NAMES = ("static", "volatility", "liquidity", "account_risk", "buffer", "limit", "in_force", "linked")

# Columns of terms.
(
    BY_LOADING,  # of account risk; 0 switches it off
    BY_TARGET,
    BY_SIGMAS,  # of the move over the margin period of risk; 0 switches volatility and buffer off
    BY_STRESS,  # weight of a stressed move, 0...1
    BY_STRESSED_SIGMA,  # that of a day in the stressed period
    BY_FLOOR,  # 1: never under the long-run move
    BY_BUFFER,  # share by which the long-run move is exceeded in calm times; 0 switches the buffer off
    BY_LIQUIDITY,  # times the cost of closing
    BY_CEILING,  # rate above which nothing is asked beyond the schedule and the record
    BY_STAMPED,  # 1: open positions keep the rate in force
    BY_KEPT,  # 1: nor does what enters come under it
) = range(11)
TERMS = 11

STANDARD = np.array([LOADING, TARGET_PD, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
"""The schedule and account risk, stamped."""

MOST_COUNTED = 1_000.0
"""Rates above it, which no venue has, count as it in parts."""


@compiled
def _ppm(rate: float) -> int:
    return ppm_up(min(rate, MOST_COUNTED))


@compiled
def through_the_cycle(sigma_day: float, sigma_slow_day: float, terms: Floats) -> tuple[float, float]:
    """Margin rates that the volatility of now takes, and with the buffer of calm times on top.

    Sigmas are shares of gross notional a day: as estimated now, and in the long run. The second is never
    under the first; 0 where the part is switched off, NaN where a sigma that is needed is not known.
    """
    if terms[BY_SIGMAS] == 0.0:
        return 0.0, 0.0
    moved = move(sigma_day)
    moved += terms[BY_STRESS] * max(move(terms[BY_STRESSED_SIGMA]) - moved, 0.0)
    usual = move(sigma_slow_day)
    unknown = math.isnan(moved)
    if terms[BY_FLOOR] != 0.0:
        unknown = unknown or math.isnan(usual)
        moved = max(moved, usual)
    buffered = moved
    if terms[BY_BUFFER] > 0.0:
        unknown = unknown or math.isnan(usual)
        buffered = max(moved, (1.0 + terms[BY_BUFFER]) * usual)
    if unknown:
        return math.nan, math.nan
    return terms[BY_SIGMAS] * moved, terms[BY_SIGMAS] * buffered


@compiled
def suggested(
    static_rate: float,
    in_force: float,
    pd_24h: Floats,
    closing_cost: float,
    sigma_day: float,
    sigma_slow_day: float,
    failed: bool,
    enters: bool,
    terms: Floats,
    parts: Floats,
) -> float:
    """Initial margin rate of one account; fills `parts`, float64[PARTS] of whole parts per million.

    Rates, costs and sigmas are shares of gross notional, NaN unknown; `pd_24h` is as in `paying_rate`. An
    unknown static rate counts as 100%: nobody can say that less is enough. `enters`: the portfolio holds
    exposure that its owner would add now. Parts sum to the rate, rounded up to whole ppm.
    """
    static = 1.0 if math.isnan(static_rate) else static_rate
    stands = static if math.isnan(in_force) else max(static, in_force)
    top = max(static, 1.0)
    for part in range(PARTS):
        parts[part] = 0.0
    reached = _ppm(static)
    parts[STATIC] = reached

    paid = math.nan
    if not failed:
        cost = cost_of_liquidation(closing_cost, sigma_day)
        paid = paying_rate(static, cost, pd_24h, terms[BY_TARGET], terms[BY_LOADING])
    wanted = stands
    if not math.isnan(paid):
        moved, buffered = through_the_cycle(sigma_day, sigma_slow_day, terms)
        unknown = math.isnan(closing_cost) or math.isnan(moved)
        if math.isnan(moved):
            moved = 0.0
            buffered = 0.0
        add_on = terms[BY_LIQUIDITY] * closing(closing_cost) if terms[BY_LIQUIDITY] > 0.0 else 0.0
        wanted = static
        for part in range(VOLATILITY, IN_FORCE):
            if part == VOLATILITY:
                wanted = min(max(wanted, moved), top)
            elif part == LIQUIDITY:
                wanted = min(wanted + add_on, top)
            elif part == ACCOUNT_RISK:
                wanted = min(max(wanted, paid), top)
            elif part == BUFFER:
                wanted = min(max(wanted, max(static, buffered) + add_on), top)
            else:
                wanted = min(wanted, max(static, terms[BY_CEILING]))
            parts[part] = _ppm(wanted) - reached
            reached = _ppm(wanted)
        if not math.isnan(in_force):
            if terms[BY_STAMPED] != 0.0 and not enters:
                wanted = stands
            elif unknown or (enters and terms[BY_KEPT] != 0.0):
                wanted = max(wanted, stands)

    rate = static  # as it is: rounded, it would look like a rise
    if wanted > static:
        # The first max: a rate a hair above whole ppm is not undercut by its own rounding.
        rate = min(max(static, ppm_up(min(wanted, 1.0)) / PPM), top)
    parts[IN_FORCE] = _ppm(rate) - reached
    return rate


@compiled
def suggest(
    static_rate: Floats,
    in_force: Floats,
    pd_24h: Floats,
    closing_cost: Floats,
    sigma_day: Floats,
    sigma_slow_day: Floats,
    failed: Flags,
    enters: Flags,
    terms: Floats,
    rate: Floats,
    parts: Floats,
) -> None:
    """`suggested` of n accounts: fills `rate`, float64[n], and `parts`, float64[n, PARTS].

    `pd_24h` is float64[n, RUNGS]; `terms` are float64[n, TERMS], or float64[1, TERMS] for all.
    """
    for row in range(len(rate)):
        rate[row] = suggested(
            static_rate[row], in_force[row], pd_24h[row], closing_cost[row], sigma_day[row],
            sigma_slow_day[row], failed[row], enters[row], terms[row if len(terms) > 1 else 0], parts[row],
        )  # fmt: skip
