"""Who trades on the generated venue: habits that differ from account to account.

Sizes and leverage follow what whole populations of real venues show: median leverage 3 and 8.5 at the
ninth decile, equity that spreads over decades with a heavy upper tail. No habit says who will default;
that follows from leverage, prices and the arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.simulation.prices import BARS_A_DAY
from exchange.units import DAY_US

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ISOLATED_SHARE = 0.1
PRESENT_SHARE = 0.65
"""Of the accounts that exist when the run starts; the others arrive during it."""
TOKEN_SHARE = 0.15
"""Of the cross accounts that also pledge the token."""
LINKED_SHARE = 0.15


class People(NamedTuple):
    """Habits, one row an account."""

    leverage: Floats
    """Gross notional over equity that the trader aims for."""
    deals_a_day: Floats
    long_share: Floats
    trend: Floats
    """How far the last day's move sways the side taken; positive follows it."""
    rescue: Floats
    """Chance of answering margin stress with a deposit rather than by selling."""
    favour: Floats
    """(accounts, markets) cumulative preference."""
    deposit_usd: Floats
    token_usd: Floats
    """Value of the token brought along when the account opens."""
    isolated: npt.NDArray[np.uint8]
    arrival_bar: Ints
    opened_us: Ints
    """Opening before the warm-up; -1 where the bar of arrival decides."""
    owner: Ints
    """Number of the owner, -1 where not known."""


def population(
    accounts: int, markets: int, first_bar: int, start_bar: int, last_bar: int, start_us: int,
    rng: np.random.Generator,
) -> People:  # fmt: skip
    """Draw `accounts` traders who are there from `first_bar` on or arrive between start and last bar."""
    leverage = np.clip(rng.lognormal(np.log(4.2), 0.85, accounts), 0.3, 40.0)
    wealth = np.clip(rng.lognormal(np.log(400.0), 2.0, accounts), 10.0, 400_000.0)
    isolated = (rng.random(accounts) < ISOLATED_SHARE).astype(np.uint8)
    pledged = (rng.random(accounts) < TOKEN_SHARE) & (isolated == 0)
    token_usd = np.where(pledged, wealth * rng.uniform(0.3, 0.9, accounts), 0.0)

    # few follow alike tastes: each trader's own Dirichlet draw around the venue's order of markets
    popularity = 1.0 / (1.0 + np.arange(markets))
    taste = rng.gamma(np.broadcast_to(1.2 * popularity, (accounts, markets))) + 1e-6
    favour = np.cumsum(taste / taste.sum(axis=1, keepdims=True), axis=1)

    present = rng.random(accounts) < PRESENT_SHARE
    arrival = np.where(present, first_bar, rng.integers(start_bar, max(last_bar, start_bar + 1), accounts))
    age_us = (rng.exponential(90.0, accounts) * DAY_US).astype(np.int64) + 2 * DAY_US
    linked = rng.random(accounts) < LINKED_SHARE
    owner = np.where(linked, rng.integers(0, accounts // 20 + 1, accounts), np.arange(accounts) + accounts)
    return People(
        leverage=leverage,
        deals_a_day=np.clip(rng.lognormal(np.log(1.0), 1.0, accounts), 0.05, 0.1 * BARS_A_DAY),
        long_share=rng.beta(4.2, 2.8, accounts),
        trend=rng.normal(0.08, 0.15, accounts),
        rescue=np.where(rng.random(accounts) < 0.5, rng.uniform(0.1, 0.9, accounts), 0.0),
        favour=favour,
        deposit_usd=np.round(wealth - token_usd, 2),
        token_usd=token_usd,
        isolated=isolated,
        arrival_bar=arrival.astype(np.int64),
        opened_us=np.where(present, start_us - age_us, -1),
        owner=np.where(rng.random(accounts) < 0.95, owner, -1),
    )
