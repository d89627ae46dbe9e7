"""The catalogue: every column of the vector with its unit, direction and source, and its fingerprint.

The order is that of the vector. `docs/features.md` is printed from here; a model is bound to the
fingerprint, so that it never reads a column that means something else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Family = Literal["leverage", "volatility", "order book"]


@dataclass(frozen=True)
class Feature:
    """One column of the vector.

    `direction` is how risk moves with it: 1 rises, -1 falls, 0 either; training constrains trees to it.
    `sources` are the tables without which it is NaN. `words` is a format of the value for people.
    """

    name: str
    family: Family
    unit: str
    direction: Literal[-1, 0, 1]
    sources: tuple[str, ...]
    why: str
    words: str


_POSITIONS = ("account_snapshots or fills", "market_bars")
_MARGIN = (*_POSITIONS, "markets")
_BOOK = ("book_depth", *_POSITIONS)

FEATURES: tuple[Feature, ...] = (
    Feature("effective_leverage", "leverage", "ratio", 1, _POSITIONS,
            "gross notional over equity; 1000 without equity", "leverage is {:.1f}x"),
    Feature("net_leverage", "leverage", "ratio", 1, _POSITIONS,
            "absolute net notional over equity: leverage that hedges do not cancel",
            "net leverage is {:.1f}x"),
    Feature("margin_ratio", "leverage", "ratio", -1, _MARGIN,
            "collateral over maintenance margin, of the worst pool; liquidation starts below 1",
            "collateral is {:.2f} times the maintenance margin"),
    Feature("initial_margin_use", "leverage", "ratio", 1, _MARGIN,
            "initial margin over collateral: above 1 nothing can be added",
            "initial margin uses {:.0%} of the collateral"),
    Feature("buffer_over_notional", "leverage", "fraction", -1, _MARGIN,
            "collateral less maintenance margin, over gross notional",
            "the buffer is {:.1%} of the position"),
    Feature("distance_to_liquidation", "leverage", "fraction", -1, _MARGIN,
            "smallest adverse move of one mark alone that brings liquidation; 1000 where none does",
            "a move of {:.1%} against the position liquidates it"),
    Feature("concentration", "leverage", "fraction", 0, _POSITIONS,
            "Herfindahl index of notionals: 1 for a single position",
            "concentration of positions is {:.2f}"),
    Feature("funding_carry_day", "leverage", "fraction a day", 0, (*_MARGIN, "funding"),
            "funding that the positions would pay in a day at the last rates, over equity",
            "funding costs {:.2%} of the equity a day"),
    Feature("unrealised_return", "leverage", "fraction", 0, (*_POSITIONS, "entry prices"),
            "unrealised profit against entry prices, over equity",
            "unrealised profit is {:.0%} of the equity"),
    Feature("haircut_share", "leverage", "fraction", 1, _POSITIONS,
            "part of equity that haircuts keep from counting as collateral",
            "haircuts take {:.1%} of the equity"),
    Feature("log_equity", "leverage", "log10 USD", 0, _POSITIONS,
            "size of the account, at least a cent", "equity is 10^{:.1f} dollars"),
    Feature("buffer_over_sigma", "volatility", "sigmas a day", -1, _MARGIN,
            "buffer over the portfolio's sigma a day, variance the mean of EWMA half-lives 6 h and 48 h, "
            "correlation 0.75; of the worst pool",
            "the buffer is {:.1f} daily sigmas of the portfolio"),
    Feature("buffer_over_sigma_1h", "volatility", "sigmas a day", -1, _MARGIN,
            "the same under the EWMA of half-life 1 h",
            "the buffer is {:.1f} daily sigmas at the last hour's volatility"),
    Feature("buffer_over_sigma_6h", "volatility", "sigmas a day", -1, _MARGIN,
            "the same under the EWMA of half-life 6 h",
            "the buffer is {:.1f} daily sigmas at the last hours' volatility"),
    Feature("buffer_over_sigma_48h", "volatility", "sigmas a day", -1, _MARGIN,
            "the same under the EWMA of half-life 48 h",
            "the buffer is {:.1f} daily sigmas at the last days' volatility"),
    Feature("buffer_over_sigma_har", "volatility", "sigmas a day", -1, _MARGIN,
            "the same under HAR: realised variance of a day, a week and a month",
            "the buffer is {:.1f} daily sigmas at the month's volatility"),
    Feature("buffer_over_sigma_slow", "volatility", "sigmas a day", -1, _MARGIN,
            "the same under the EWMA of half-life 48 h shrunk in logs (weight 0.7) to 100% a year",
            "the buffer is {:.1f} daily sigmas at the volatility of a usual month"),
    Feature("portfolio_sigma_day", "volatility", "fraction a day", 1, _POSITIONS,
            "portfolio sigma a day over gross notional", "the portfolio moves {:.1%} a day"),
    Feature("volatility_trend", "volatility", "log ratio", 0, _POSITIONS,
            "log of portfolio sigma at half-life 1 h over that at 48 h: rising above 0",
            "volatility is {:+.1f} in logs against two days ago"),
    Feature("jump_share", "volatility", "fraction", 0, _POSITIONS,
            "share of recent variance that came in jumps (bipower), weighted by notional",
            "jumps made {:.0%} of the recent variance"),
    Feature("undiversified_share", "volatility", "fraction", 1, _POSITIONS,
            "portfolio sigma over the sum of its parts' own, balances included: 1 for a single one",
            "hedges leave {:.0%} of the positions' risk"),
    Feature("prior_hazard_1h", "volatility", "logit", 1, _MARGIN,
            "first passage of the buffer within 1 h at the shrunk volatility, averaged over its uncertainty",
            "structural risk within 1 h, logit {:.1f}"),
    Feature("prior_hazard_8h", "volatility", "logit", 1, _MARGIN,
            "the same between 1 h and 8 h, given none before",
            "structural risk from 1 h to 8 h, logit {:.1f}"),
    Feature("prior_hazard_24h", "volatility", "logit", 1, _MARGIN,
            "the same between 8 h and 24 h, given none before",
            "structural risk from 8 h to 24 h, logit {:.1f}"),
    Feature("spread_bps", "order book", "basis points", 1, _BOOK,
            "best ask less best bid over mid, weighted by notional", "the spread is {:.1f} bp"),
    Feature("slippage_to_close_bps", "order book", "basis points", 1, _BOOK,
            "average distance from mid at which the whole position fills, weighted by notional",
            "closing the position slips {:.0f} bp"),
    Feature("slippage_over_buffer", "order book", "ratio", 1, ("book_depth", *_MARGIN),
            "cost of that slippage over the buffer", "slippage to close takes {:.0%} of the buffer"),
    Feature("position_over_depth", "order book", "ratio", 1, _BOOK,
            "largest share of the depth within 1% on the closing side that one position takes",
            "position is {:.0%} of the depth within 1%"),
    Feature("depth_imbalance", "order book", "fraction", 0, _BOOK,
            "depth within 1% on the closing side less the other's, over both; weighted by notional",
            "depth on the closing side leads by {:.0%}"),
    Feature("position_over_open_interest", "order book", "ratio", 1, ("open_interest_usd", *_POSITIONS),
            "largest share of a market's open interest that one position is",
            "position is {:.1%} of the open interest"),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)

PRIOR_HAZARDS = ("prior_hazard_1h", "prior_hazard_8h", "prior_hazard_24h")

DEFINITION = 3
"""Raised whenever a column's formula changes while its row above does not."""


def fingerprint() -> str:
    """SHA-256 of names, units, directions, sources and the definition number, in vector order."""
    rows = [f"{f.name}|{f.unit}|{f.direction}|{','.join(f.sources)}|{f.why}" for f in FEATURES]
    return hashlib.sha256("\n".join([str(DEFINITION), *rows]).encode()).hexdigest()


def index(name: str) -> int:
    """Column of a feature."""
    return NAMES.index(name)
