"""Who trades on a simulated venue: kinds of traders with their own habits, mixed by share.

Wealth and leverage follow a whole population of a real venue (Drift: equity 10% $9, median $154, 90% $6.6k,
99% $78k; leverage median 3.0, 75% 5.5, 90% 8.5, 99% 13.7). A few institutions with little leverage hold
most of the open interest and are hardly ever closed by force, as on large venues. No habit says
who will default; that follows from leverage, prices and the arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from exchange.simulation.state import (
    ABSENT,
    ACCOUNT_ROW,
    BACKSTOP,
    CARRY,
    HEDGER,
    INSTITUTION,
    KIND_NAMES,
    LINKED,
    MAKER,
    MICRO,
    MOMENTUM,
    RETAIL,
    REVERSAL,
    WHALE,
)  # fmt: skip
from exchange.units import DAY_S

Floats = npt.NDArray[np.float64]


class Habits(NamedTuple):
    """What the traders of one kind have in common; medians and spreads of their own."""

    share: float
    """Of all traders."""
    leverage: float
    """Median of gross notional over equity that is aimed for."""
    wealth: float
    """Median deposit over that of the whole population."""
    deals_a_day: float
    long_share: float
    trend: float
    """How far the last day's move sways the side taken; positive follows it."""
    rescuers: float
    """Share of the careful who answer a margin call with a deposit, with a chance of their own."""
    stubborn: float
    """Chance that a loser is added to rather than cut, when it is acted on."""
    care: float = 1.0
    """Over that of others of the same wealth."""
    spread: float = 1.0
    """Of log wealth and log leverage, over that of the whole population."""


MIX: dict[int, Habits] = {
    RETAIL: Habits(0.548, 6.5, 1.0, 0.35, 0.62, 0.05, 0.5, 0.25, care=0.54),
    MOMENTUM: Habits(0.14, 5.5, 1.5, 0.6, 0.52, 0.45, 0.3, 0.1, care=0.54),
    REVERSAL: Habits(0.08, 4.8, 1.5, 0.6, 0.50, -0.45, 0.4, 0.4, care=0.54),
    CARRY: Habits(0.05, 2.5, 16.0, 0.4, 0.0, 0.0, 1.0, 0.0, care=0.72, spread=0.7),
    HEDGER: Habits(0.05, 2.2, 16.0, 0.15, 0.04, 0.0, 0.9, 0.5, care=0.72, spread=0.7),
    WHALE: Habits(0.009, 7.0, 40.0, 0.3, 0.65, 0.1, 0.6, 0.6, care=0.27),
    LINKED: Habits(0.125, 6.6, 1.0, 0.35, 0.58, 0.1, 0.4, 0.25, care=0.54),
    INSTITUTION: Habits(0.0022, 14.0, 60_000.0, 0.07, 0.8, 0.0, 1.0, 0.3, spread=0.35),
}
"""What kinds do. Shares and medians fitted to the quantiles above, care to accounts liquidated within
a day by margin ratio, institutions to forced closing over open interest; the rest swept."""

WEALTH_MEDIAN_USD = 93.0
WEALTH_BELOW, WEALTH_ABOVE = 2.35, 2.4
"""Spread of log wealth under and over the median: the upper tail is the heavier (index about 1)."""
LEAST_WEALTH_USD, MOST_WEALTH_USD = 5.0, 4e7
LEVERAGE_SPREAD = 0.9
LEVERAGE_BY_WEALTH = 0.103
"""Leverage falls with this power of 1 + wealth / `CARE_FROM_USD`; fitted."""
LEAST_LEVERAGE, MOST_LEVERAGE = 0.3, 25.0
DEALS_SPREAD = 1.0
ISOLATED_SHARE = 0.1
PRESENT_SHARE = 0.65
"""Of the accounts that exist when the run starts; the others arrive during it."""
PLEDGE_SHARE = 0.15
"""Of the cross accounts that also pledge another asset than dollars."""
STOP_SHARE, MOST_STOPS = 0.02, 0.8
"""Of traders who leave a stop order near forced closing: grows with care, up to the most; fitted."""
CARE_FROM_USD, CARE_BY_WEALTH, CARE_SPREAD = 2_000.0, 0.58, 1.05
"""Care is (1 + wealth / from) to this power times a log-normal draw: times that of the kind. Large
accounts mostly act before they are closed by force, small ones do not, some large ones neither; fitted."""
ALERT_BY_CARE, LEAST_ALERT, MOST_ALERT = 1.15, 0.02, 3_000.0
"""Looks out of fear grow with this power of care; fitted to open interest that falls in a crash without being
forced to."""
RESCUE_SHARE = 0.3
"""Of a kind's rescuers among those of care one; fitted."""
GROUP = 8
"""Accounts of one owner among the linked, on average."""
LARGEST_USD = 5e6
"""More than this is not counted on from one account when a new venue's books are scaled."""
MAKERS_PER_ACCOUNT = 1 / 250
LEAST_MAKERS, MOST_MAKERS = 4, 40


class Population(NamedTuple):
    """Accounts as they are before the run: traders first, then makers, then the backstop."""

    account: npt.NDArray[Any]
    taste: npt.NDArray[np.float32]
    opened_s: npt.NDArray[np.int64]
    """When an account says that it was opened, seconds from the first minute."""


def makers_for(accounts: int) -> int:
    """How many market makers a venue of so many traders has."""
    return min(max(LEAST_MAKERS, round(accounts * MAKERS_PER_ACCOUNT)), MOST_MAKERS)


def _wealth(rng: np.random.Generator, spreads: Floats) -> Floats:
    drawn = rng.standard_normal(len(spreads)) * spreads
    spread = np.where(drawn > 0.0, WEALTH_ABOVE, WEALTH_BELOW)
    return np.asarray(WEALTH_MEDIAN_USD * np.exp(drawn * spread))


def population(
    accounts: int, popularity: Floats, assets: int, trading_s: int, start_s: int, end_s: int,
    rng: np.random.Generator, mix: dict[int, Habits] = MIX,
) -> Population:  # fmt: skip
    """Draw `accounts` traders, with makers and the backstop after them.

    Most are there from `trading_s` on, the others arrive between `start_s` and `end_s` (seconds from the
    first minute). Raises InputError for no traders and for a mix whose shares are not shares.
    """
    if accounts < 1:
        raise InputError(f"accounts must be at least 1, not {accounts}")
    shares = np.array([habits.share for habits in mix.values()])
    if not (np.isfinite(shares).all() and (shares >= 0.0).all() and shares.sum() > 0.0):
        named = {KIND_NAMES[kind]: habits.share for kind, habits in mix.items()}
        raise InputError(f"shares of kinds of traders must be at least 0 and not all 0, not {named}")
    markets, makers = len(popularity), makers_for(accounts)
    total = accounts + makers + 1
    out = np.zeros(total, ACCOUNT_ROW)
    trader = slice(0, accounts)
    # as many of each kind as its share says, to within one: the few largest hold much of the open interest
    rank = (np.arange(accounts) + rng.random()) / accounts * shares.sum()
    of_kind = np.minimum(np.searchsorted(np.cumsum(shares), rank, side="right"), len(shares) - 1)
    kinds = np.array(list(mix))[of_kind][np.argsort(rng.random(accounts))]
    of = {name: np.empty(accounts) for name in Habits._fields}
    for kind, habits in mix.items():
        for name, value in zip(Habits._fields, habits, strict=True):
            of[name][kinds == kind] = value

    wealth = np.clip(_wealth(rng, of["spread"]) * of["wealth"], LEAST_WEALTH_USD, MOST_WEALTH_USD)
    spread = np.exp(LEVERAGE_SPREAD * of["spread"] * rng.standard_normal(accounts))
    out["kind"][trader] = kinds
    modest = (1.0 + wealth / CARE_FROM_USD) ** -LEVERAGE_BY_WEALTH
    out["leverage"][trader] = np.clip(of["leverage"] * modest * spread, LEAST_LEVERAGE, MOST_LEVERAGE)
    out["deals_a_day"][trader] = np.clip(
        of["deals_a_day"] * rng.lognormal(-0.5 * DEALS_SPREAD**2, DEALS_SPREAD, accounts), 0.05, 60.0
    )
    sway = rng.normal(0.0, 0.18, accounts)
    out["long_share"][trader] = np.clip(of["long_share"] + sway, 0.0, 1.0)
    out["trend"][trader] = of["trend"] + rng.normal(0.0, 0.1, accounts)
    care = of["care"] * (1.0 + wealth / CARE_FROM_USD) ** CARE_BY_WEALTH
    care *= rng.lognormal(0.0, CARE_SPREAD, accounts)
    out["alert"][trader] = np.clip(care**ALERT_BY_CARE, LEAST_ALERT, MOST_ALERT)
    rescues = rng.random(accounts) < of["rescuers"] * RESCUE_SHARE * care
    surely = rng.uniform(0.2, 0.95, accounts) ** (1.0 / np.maximum(care, 1.0))
    out["rescue"][trader] = np.where(rescues, surely, 0.0)
    out["stubborn"][trader] = of["stubborn"]
    # who holds spot against the position adds to the margin rather than stop out
    stopping = np.minimum(STOP_SHARE * care, MOST_STOPS) * (kinds != CARRY)
    stops = rng.choice([1.2, 1.5, 2.0], accounts)
    out["stop"][trader] = np.where(rng.random(accounts) < stopping, stops, 0.0)
    out["isolated"][trader] = (rng.random(accounts) < ISOLATED_SHARE) & ~np.isin(
        kinds, (CARRY, HEDGER, WHALE, INSTITUTION)
    )

    # few follow alike tastes: each trader's own Dirichlet draw around the venue's order of markets
    liking = rng.gamma(np.broadcast_to(3.0 * popularity / popularity.max(), (accounts, markets))) + 1e-6
    liking[kinds == INSTITUTION] *= popularity / popularity.max()
    whales = np.flatnonzero(kinds == WHALE)
    thin = np.argsort(popularity)[: max(1, markets // 2)]
    liking[whales] = 1e-9
    liking[whales, rng.choice(thin, len(whales))] = 1.0
    owner = np.where(rng.random(accounts) < 0.95, np.arange(accounts) + accounts, -1)
    linked = np.flatnonzero(kinds == LINKED)
    groups = rng.integers(0, max(1, len(linked) // GROUP), len(linked))
    owner[linked] = groups
    # accounts of one owner do the same thing: one market, one side
    side = rng.random(groups.max(initial=0) + 1) < mix.get(LINKED, MIX[RETAIL]).long_share
    out["long_share"][linked] = np.where(side[groups], 0.97, 0.03)
    pick = rng.choice(markets, len(side), p=popularity / popularity.sum())
    liking[linked] *= 0.02
    liking[linked, pick[groups]] += 3.0
    taste = np.zeros((total, markets), np.float32)
    taste[trader] = np.cumsum(liking / liking.sum(axis=1, keepdims=True), axis=1)
    taste[:, -1] = 1.0
    out["owner"] = -1
    out["owner"][trader] = owner

    pledges = (rng.random(accounts) < PLEDGE_SHARE) & (out["isolated"][trader] == 0) & (assets > 1)
    pledge = np.where(pledges, wealth * rng.uniform(0.3, 0.9, accounts), 0.0)
    out["pledge"][trader] = (pledge * MICRO).astype(np.int64)
    out["pledge_asset"][trader] = rng.integers(1, max(assets, 2), accounts)
    out["deposit"][trader] = np.rint((wealth - pledge) * 100).astype(np.int64) * (MICRO // 100)

    present = rng.random(accounts) < PRESENT_SHARE
    # those who are there already come in over the first quarter of the warm-up
    early = trading_s + rng.integers(0, max((start_s - trading_s) // 4, 1), accounts)
    out["first_s"][trader] = np.where(
        present, early, rng.integers(start_s + 60, max(end_s, start_s + 61), accounts)
    )
    age_s = (rng.exponential(90.0 * DAY_S, accounts)).astype(np.int64) + int(2 * DAY_S)
    opened_s = np.full(total, start_s - int(400 * DAY_S), np.int64)
    opened_s[trader] = np.where(present, start_s - age_s, -1)

    maker = slice(accounts, accounts + makers)
    out["kind"][maker], out["kind"][-1] = MAKER, BACKSTOP
    out["leverage"][accounts:] = 1.0
    out["first_s"][accounts:] = trading_s
    out["status"] = ABSENT
    out["minute"] = -1
    out["key"] = rng.integers(0, 2**63, total, np.uint64)
    return Population(out, taste, opened_s)


def intended_usd(people: Population, markets: int) -> Floats:
    """Notional by market that traders mean to hold at the start: a new venue's books are scaled to it."""
    account = people.account
    present = (account["kind"] < MAKER) & (people.opened_s >= -(2**62)) & (account["deposit"] > 0)
    equity = (account["deposit"] + account["pledge"]) / MICRO * present
    share = np.diff(people.taste.astype(np.float64), axis=1, prepend=0.0)
    meant = (np.minimum(equity, LARGEST_USD) * account["leverage"]) @ share
    return np.asarray(meant)[:markets] * PRESENT_SHARE
