"""The catalogue: every column of the vector with its unit, direction and source, and its fingerprint.

The order is that of the vector. `docs/features.md` is printed from here; a model is bound to the
fingerprint, so that it never reads a column that means something else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Family = Literal[
    "leverage",
    "volatility",
    "order book",
    "liquidation pressure",
    "behaviour",
    "linked accounts",
    "staleness",
    "regime",
]


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


_HELD = ("account_snapshots or fills",)
_POSITIONS = (*_HELD, "market_bars")
_MARGIN = (*_POSITIONS, "markets")
_BOOK = ("book_depth", *_POSITIONS)
_PRESSURE = ("book_depth", *_MARGIN)
_FILLS = ("fills", *_POSITIONS)
_TRANSFERS = ("transfers", *_POSITIONS)
_DEFAULTS = ("default_events or fills",)

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
            "first passage of the effective buffer within 1 h, volatility half-way between shrunk and "
            "forecast, averaged over its uncertainty, odds moved by forecast_ratio; or a lapse, at a rate "
            "that falls with the margin ratio",
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
    Feature("effective_buffer_over_notional", "leverage", "fraction", -1, _MARGIN,
            "buffer credited with twice what the account already stood below maintenance without being "
            "closed since its newest fill, withdrawal or snapshot, over gross notional",
            "the buffer, as far as the account has shown, is {:.1%} of the position"),
    Feature("cushion_over_closing_cost", "leverage", "ratio", -1, ("book_depth", *_MARGIN),
            "maintenance margin of the positions over what closing them costs: slippage and liquidation fee",
            "the maintenance margin is {:.1f} times the cost to close"),
    Feature("long_share", "leverage", "fraction", 0, _POSITIONS,
            "long notional over gross notional", "{:.0%} of the position is long"),
    Feature("volatile_collateral_share", "leverage", "fraction", 0, _HELD,
            "balances in assets whose price moves, haircut taken, over all balances at their worth",
            "{:.0%} of the balances move in price"),
    Feature("funding_against_day", "leverage", "fraction a day", 0, (*_MARGIN, "funding"),
            "funding that the positions would pay in a day at the last rates, over gross notional",
            "funding runs {:.2%} a day against the position"),
    Feature("basis_against", "leverage", "fraction", 0, ("index_close", *_POSITIONS),
            "mark over index less one, against the position's side, over gross notional",
            "the mark stands {:.2%} against the index"),
    Feature("effective_buffer_over_sigma", "volatility", "sigmas a day", -1, _MARGIN,
            "effective buffer over the portfolio's sigma a day, half-way in logs between the shrunk "
            "volatility and the forecast for a day; of the worst pool",
            "the buffer, as far as the account has shown, is {:.1f} daily sigmas"),
    Feature("buffer_over_sigma_ahead_1h", "volatility", "sigmas a day", -1, _MARGIN,
            "buffer over sigma a day as forecast for the coming hour",
            "the buffer is {:.1f} daily sigmas at the volatility forecast for an hour"),
    Feature("buffer_over_sigma_ahead_8h", "volatility", "sigmas a day", -1, _MARGIN,
            "buffer over sigma a day as forecast for the coming 8 h",
            "the buffer is {:.1f} daily sigmas at the volatility forecast for 8 h"),
    Feature("buffer_over_sigma_ahead_24h", "volatility", "sigmas a day", -1, _MARGIN,
            "buffer over sigma a day as forecast for the coming day",
            "the buffer is {:.1f} daily sigmas at the volatility forecast for a day"),
    Feature("var_99_over_collateral", "volatility", "ratio", 1, _POSITIONS,
            "normal value at risk at 99% over a day, variance the mean of half-lives 6 h and 48 h, over "
            "collateral",
            "a day's loss at 99% takes {:.0%} of the collateral"),
    Feature("shortfall_975_over_collateral", "volatility", "ratio", 1, _POSITIONS,
            "normal expected shortfall at 97.5% over a day, at the worst of half-lives 1 h, 6 h and 48 h, "
            "over collateral",
            "a bad day takes {:.0%} of the collateral"),
    Feature("stress_market_over_buffer", "volatility", "ratio", 1, _MARGIN,
            "loss when all marks and collateral move 10% together, the worse way, over the buffer",
            "a move of 10% in all markets takes {:.0%} of the buffer"),
    Feature("stress_sigmas_over_buffer", "volatility", "ratio", 1, _MARGIN,
            "loss when every mark and asset moves three of its daily sigmas (half-life 48 h) together, over "
            "the buffer",
            "three daily sigmas in all markets take {:.0%} of the buffer"),
    Feature("stress_single_over_buffer", "volatility", "ratio", 1, _MARGIN,
            "loss when the largest position's mark moves 20% against it, over the buffer",
            "a move of 20% in the largest position takes {:.0%} of the buffer"),
    Feature("jump_hazard_24h", "volatility", "logit", 1, _MARGIN,
            "one jump within a day past the liquidation price: cubic tail from 3%, every other day",
            "risk of one jump within a day, logit {:.1f}"),
    Feature("bankruptcy_hazard_24h", "volatility", "logit", 1, _MARGIN,
            "first passage of equity less the fee of closing to zero within a day at the same volatility",
            "structural risk of bankruptcy within a day, logit {:.1f}"),
    Feature("equity_over_sigma", "volatility", "sigmas a day", -1, _MARGIN,
            "equity less the fee of closing over the same sigma a day; of the worst pool",
            "equity is {:.1f} daily sigmas of the portfolio"),
    Feature("position_over_depth_25bps", "order book", "ratio", 1, _BOOK,
            "largest share of the depth within 0.25% on the closing side that one position takes",
            "position is {:.0%} of the depth within 0.25%"),
    Feature("position_over_depth_2pct", "order book", "ratio", 1, _BOOK,
            "likewise of the depth within 2%", "position is {:.0%} of the depth within 2%"),
    Feature("slippage_quarter_bps", "order book", "basis points", 1, _BOOK,
            "average distance from mid at which a quarter of the position fills, weighted by notional",
            "closing a quarter of the position slips {:.0f} bp"),
    Feature("slippage_double_bps", "order book", "basis points", 1, _BOOK,
            "average distance from mid at which twice the position fills, weighted by notional",
            "closing twice the position slips {:.0f} bp"),
    Feature("depth_change", "order book", "log ratio", -1, _BOOK,
            "log of depth within 1% on the closing side over its mean of a day (half-life), weighted by "
            "notional",
            "depth stands at {:+.1f} in logs against its usual"),
    Feature("spread_change", "order book", "log ratio", 1, _BOOK,
            "log of the spread over its mean of a day, weighted by notional",
            "the spread stands at {:+.1f} in logs against its usual"),
    Feature("position_over_volume", "order book", "ratio", 1, ("volume_usd", *_POSITIONS),
            "largest share of a market's volume a day that one position is",
            "position is {:.1%} of the volume of a day"),
    Feature("open_interest_change", "order book", "log ratio", 0, ("open_interest_usd", *_POSITIONS),
            "log of open interest over its mean of a day, weighted by notional",
            "open interest stands at {:+.1f} in logs against its usual"),
    Feature("pressure_1pct", "liquidation pressure", "ratio", 1, _PRESSURE,
            "notional of all accounts on the same side that a move of 1% (log) closes by force, over the "
            "depth within 1%, weighted by notional",
            "a move of 1% closes by force {:.1f} times the depth"),
    Feature("pressure_3pct", "liquidation pressure", "ratio", 1, _PRESSURE,
            "likewise within 3%", "a move of 3% closes by force {:.1f} times the depth"),
    Feature("pressure_10pct", "liquidation pressure", "ratio", 1, _PRESSURE,
            "likewise within 10%", "a move of 10% closes by force {:.1f} times the depth"),
    Feature("pressure_opposite_3pct", "liquidation pressure", "ratio", 0, _PRESSURE,
            "likewise within 3% the other way: what closing by force there would push this position up",
            "a move of 3% the other way closes by force {:.1f} times the depth"),
    Feature("forced_over_open_interest", "liquidation pressure", "ratio", 1, ("open_interest_usd", *_MARGIN),
            "what a move of 10% closes by force on the same side over open interest, weighted by notional",
            "a move of 10% closes {:.0%} of the open interest by force"),
    Feature("queue_ahead_over_depth", "liquidation pressure", "ratio", 0, _PRESSURE,
            "what is closed by force before this account is reached, over the depth up to its own "
            "liquidation price; the largest of its positions",
            "{:.1f} times the depth is closed by force before this account"),
    Feature("queue_over_open_interest", "liquidation pressure", "ratio", 0, ("open_interest_usd", *_MARGIN),
            "the same over open interest, weighted by notional: the account's place in the queue",
            "{:.0%} of the open interest is closed by force before this account"),
    Feature("ignition_over_sigma", "liquidation pressure", "sigmas a day", -1, _PRESSURE,
            "smallest move at which forced closing on the same side outweighs the depth passed, in daily "
            "sigmas (half-life 48 h) of the market; at most 24%; the smallest of its positions",
            "forced closing outweighs the book {:.1f} daily sigmas away"),
    Feature("distance_past_ignition", "liquidation pressure", "log", 0, _PRESSURE,
            "log distance to the own liquidation price, at most 24%, less that move; weighted by notional",
            "liquidation lies {:+.1%} beyond where forced closing outweighs the book"),
    Feature("turnover", "behaviour", "ratio", 0, _FILLS,
            "notional traded, half forgotten in three days, over equity",
            "the account traded {:.1f} times its equity lately"),
    Feature("fills", "behaviour", "count", 0, ("fills",),
            "fills, half forgotten in three days", "{:.0f} fills lately"),
    Feature("added_to_losers", "behaviour", "ratio", 0, _FILLS,
            "notional added to positions that were losing, half forgotten in three days, over equity",
            "{:.1f} times the equity was added to losing positions lately"),
    Feature("loss_streak", "behaviour", "count", 0, ("fills",),
            "closing fills at a loss in a row, up to the newest", "{:.0f} losing closes in a row"),
    Feature("holding_hours", "behaviour", "log10 hours", 0, _FILLS,
            "time since the positions were opened, weighted by notional; NaN where only snapshots tell of "
            "one",
            "positions are held for 10^{:.1f} hours"),
    Feature("paid_in", "behaviour", "ratio", 0, _TRANSFERS,
            "deposits, half forgotten in three days, over equity", "deposits were {:.0%} of equity lately"),
    Feature("paid_out", "behaviour", "ratio", 0, _TRANSFERS,
            "withdrawals, half forgotten in three days, over equity",
            "withdrawals were {:.0%} of equity lately"),
    Feature("rescues", "behaviour", "count", 0, ("transfers", *_MARGIN),
            "deposits while collateral was less than twice the maintenance margin, half forgotten in three "
            "days",
            "{:.1f} deposits under stress lately"),
    Feature("past_liquidations", "behaviour", "count", 0, _DEFAULTS,
            "times the account was closed by force, half forgotten in three days",
            "closed by force {:.1f} times lately"),
    Feature("hours_since_liquidation", "behaviour", "hours", 0, _DEFAULTS,
            "hours since the account was last closed by force; 1000 for longer or never",
            "closed by force {:.0f} hours ago"),
    Feature("drawdown", "behaviour", "fraction", 0, _MARGIN,
            "share of its best equity that the account has lost", "{:.0%} below its best equity"),
    Feature("equity_change", "behaviour", "log ratio", 0, _MARGIN,
            "log of equity over its mean of a day (half-life)",
            "equity stands at {:+.1f} in logs against its usual"),
    Feature("lowest_margin_ratio", "behaviour", "ratio", 0, _MARGIN,
            "lowest collateral over maintenance margin seen, half forgotten in a week",
            "collateral fell to {:.2f} times the maintenance margin lately"),
    Feature("open_orders", "behaviour", "count", 0, ("open_orders",),
            "open orders in the newest snapshot", "{:.0f} open orders"),
    Feature("account_age", "behaviour", "log10 days", 0, ("accounts",),
            "days since the account was opened", "the account is 10^{:.1f} days old"),
    Feature("owner_accounts", "linked accounts", "count", 0, ("owner_id", *_HELD),
            "accounts of the same owner with an open position", "the owner has {:.0f} accounts at risk"),
    Feature("owner_margin_ratio", "linked accounts", "ratio", -1, ("owner_id", *_MARGIN),
            "collateral over maintenance margin of all these accounts together",
            "the owner's collateral is {:.2f} times the maintenance margin of all accounts"),
    Feature("book_age_s", "staleness", "seconds", 0, ("book_depth", *_HELD),
            "age of the oldest book among the positions' markets", "the oldest book is {:.0f} s old"),
    Feature("funding_age_s", "staleness", "seconds", 0, ("funding", *_HELD),
            "age of the oldest funding rate among the positions' markets",
            "the oldest funding rate is {:.0f} s old"),
    Feature("account_age_s", "staleness", "seconds", 0, _HELD,
            "time since the account's newest fill, transfer or snapshot",
            "the account's newest row is {:.0f} s old"),
    Feature("asset_price_age_s", "staleness", "seconds", 0, ("asset_prices", *_HELD),
            "age of the oldest price among the balances that move; 0 without such",
            "the oldest price of a balance is {:.0f} s old"),
    Feature("outcome_ratio", "regime", "log ratio", 1, ("default_events", *_MARGIN),
            "log of the venue's account-hours that turned out to be within a day of liquidation over those "
            "that the structural prior expected, both half forgotten in three days; 0 where little was "
            "expected",
            "lately the venue saw {:+.1f} in logs against the liquidations expected"),
    Feature("forecast_ratio", "regime", "log ratio", 1, _MARGIN,
            "log of the venue's expected liquidations at the volatility forecast for a day over those at the "
            "shrunk volatility, within 1.5",
            "the volatility forecast asks for {:+.1f} in logs against the usual level"),
    Feature("mark_age_s", "staleness", "seconds", 0, _POSITIONS,
            "age of the oldest mark among the positions' markets", "the oldest mark is {:.0f} s old"),
    Feature("cushion_hazard_1h", "volatility", "logit", 1, _PRESSURE,
            "once closed by force, first passage of what is left, maintenance margin less slippage and fee, "
            "within an hour, volatility half-way between shrunk and forecast",
            "structural risk of negative equity once liquidated, logit {:.1f}"),
    Feature("prior_severity", "order book", "fraction", 1, _PRESSURE,
            "what closing costs where a crash has left 1% of the depth, slippage and liquidation fee, beyond "
            "the maintenance margin, over gross notional, within 0 and 1",
            "closing into 1% of the book costs {:.1%} of the position beyond its maintenance margin"),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)

PRIOR_HAZARDS = ("prior_hazard_1h", "prior_hazard_8h", "prior_hazard_24h")

DEFINITION = 4
"""Raised whenever a column's formula changes while its row above does not."""


def fingerprint() -> str:
    """SHA-256 of names, units, directions, sources and the definition number, in vector order."""
    rows = [f"{f.name}|{f.unit}|{f.direction}|{','.join(f.sources)}|{f.why}" for f in FEATURES]
    return hashlib.sha256("\n".join([str(DEFINITION), *rows]).encode()).hexdigest()


def index(name: str) -> int:
    """Column of a feature."""
    return NAMES.index(name)
