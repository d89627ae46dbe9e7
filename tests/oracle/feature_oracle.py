"""Every feature and figure of one account, slow and obvious, from the list of rows up to a moment.

Nothing here is shared with `features` but the numbers of the kinds and the names of the columns. Equity
is followed move by move (every bar, funding, fill and price change adds what it is worth to who holds it)
instead of through cash, and funding is paid position by position instead of through an index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from features import events as kinds
from tests.oracle import exchange_oracle as exchange
from tests.oracle.market_oracle import (
    Points,
    depth_at,
    jump_share,
    prior_hazards,
    sigma,
    slippage_bps,
    variances,
)

FAR = 1_000.0
SECOND, HOUR = 1_000_000, 3_600_000_000
DAY_S = 86_400.0
NAN = math.nan


class Row(NamedTuple):
    """One event, as `features.events` lays it out."""

    kind: int
    time_us: int
    key: int
    sub: int
    values: tuple[float, ...]


# ---- replaying rows


@dataclass
class Held:
    quantity: float
    entry: float
    quote: float
    isolated: float
    unmarked: list[tuple[float, float]] = field(default_factory=list)
    """Trades in a market that has no mark yet: what they made is not known."""


@dataclass
class Standing:
    """What one account holds and is worth, and the market as all see it."""

    now_us: int = -1
    wealth: float = 0.0
    moved: float = 0.0
    """Sum of all dollars ever added or taken: what rounding is relative to."""
    held: dict[int, Held] = field(default_factory=dict)
    amounts: dict[int, float] = field(default_factory=dict)
    is_isolated: bool = False
    in_force: tuple[float, float] = (NAN, NAN)
    marks: dict[int, Points] = field(default_factory=dict)
    prices: dict[int, float] = field(default_factory=dict)
    price_points: dict[int, Points] = field(default_factory=dict)
    weights: dict[int, tuple[float, float]] = field(default_factory=dict)
    terms: dict[int, tuple[float, ...]] = field(default_factory=dict)
    tiers: dict[int, list[tuple[float, float, float]]] = field(default_factory=dict)
    interest: dict[int, float] = field(default_factory=dict)
    funding: dict[int, float] = field(default_factory=dict)
    books: dict[int, tuple[int, float, float, list[tuple[float, float, float]]]] = field(default_factory=dict)

    def mark(self, market: int) -> float:
        points = self.marks.get(market)
        return points[-1][1] if points else NAN

    def gain(self, dollars: float) -> None:
        self.wealth += dollars
        self.moved += abs(dollars)


def replay(rows: Sequence[Row], account: int) -> Standing:
    s = Standing()
    for row in rows:
        s.now_us = max(s.now_us, row.time_us)
        mine = row.key == account
        v = row.values
        if row.kind == kinds.MARKET:
            s.terms[row.key], s.tiers[row.key] = v, []
        elif row.kind == kinds.TIER:
            s.tiers[row.key].append((v[0], v[1], v[2]))
        elif row.kind == kinds.ASSET:
            s.weights[row.key] = (v[0], v[1])
            if v[:2] == (1.0, 1.0):
                s.prices.setdefault(row.key, 1.0)
        elif row.kind == kinds.ASSET_PRICE:
            amount = s.amounts.get(row.key, 0.0)
            if amount != 0.0:
                s.gain(amount * (v[0] - s.prices.get(row.key, NAN)))
            s.prices[row.key] = v[0]
            s.price_points.setdefault(row.key, []).append((row.time_us, v[0]))
        elif row.kind == kinds.BAR:
            before = s.mark(row.key)
            position = s.held.get(row.key)
            if position:
                if position.unmarked:
                    for quantity, price in position.unmarked:
                        s.gain(quantity * (v[0] - price))
                    position.unmarked = []
                elif position.quantity != 0.0:
                    s.gain(position.quantity * (v[0] - before))
            s.marks.setdefault(row.key, []).append((row.time_us, v[0]))
            s.interest[row.key] = v[6]
        elif row.kind == kinds.BOOK:
            s.books[row.key] = (row.time_us, v[0], v[1], [])
        elif row.kind == kinds.LEVEL:
            s.books[row.key][3].append((v[0], v[1], v[2]))
        elif row.kind == kinds.FUNDING:
            s.funding[row.key] = v[0]
            position = s.held.get(row.key)
            if position and position.quantity != 0.0 and not math.isnan(s.mark(row.key)):
                paid = position.quantity * s.mark(row.key) * v[0]
                s.gain(-paid)
                position.quote -= paid
        elif row.kind == kinds.ACCOUNT and mine:
            s.is_isolated = v[1] == 1.0
        elif row.kind == kinds.TRANSFER and mine:
            s.gain(v[0])
        elif row.kind == kinds.RATE and mine:
            s.in_force = (v[0], v[1])
        elif row.kind == kinds.FILL and mine:
            trade(s, row.sub, v[0], v[1], 0.0 if math.isnan(v[2]) else v[2])
        elif row.kind == kinds.SNAPSHOT and mine:
            s.wealth, s.moved = v[0], abs(v[0])
            s.held, s.amounts = {}, {}
        elif row.kind == kinds.POSITION and mine:
            quote = -v[0] * v[1] if math.isnan(v[2]) else v[2]
            s.held[row.sub] = Held(v[0], v[1], quote, v[3])
            if v[0] != 0.0:
                s.moved += abs(v[0] * s.mark(row.sub))
                if math.isnan(s.mark(row.sub)):
                    s.wealth = NAN  # what the stated equity was made of will never be known
        elif row.kind == kinds.BALANCE and mine:
            s.amounts[row.sub] = v[0]
            if v[0] != 0.0:
                s.moved += abs(v[0] * s.prices.get(row.sub, NAN))
                if math.isnan(s.prices.get(row.sub, NAN)):
                    s.wealth = NAN
    return s


def trade(s: Standing, market: int, quantity: float, price: float, fee: float) -> None:
    position = s.held.setdefault(market, Held(0.0, NAN, 0.0, NAN))
    before = position.quantity
    after = before + quantity
    lot = s.terms[market][1] if market in s.terms else 0.0
    if abs(after) < lot / 2 or abs(after) < 1e-12 * abs(before):
        after = 0.0
    s.gain(-fee)
    s.moved += abs(quantity * price)
    mark = s.mark(market)
    if math.isnan(mark):
        position.unmarked.append((quantity, price))
        if after == 0.0:
            for some, at in position.unmarked:
                s.gain(-some * at)
    else:
        # the trade against the mark, less what is dropped with a residue
        s.gain(quantity * (mark - price) - (before + quantity - after) * mark)
    position.quote -= quantity * price + fee
    if before == 0.0 or (before > 0.0) != (after > 0.0):
        position.entry = price
    elif abs(after) > abs(before):
        position.entry = (before * position.entry + quantity * price) / after
    position.quantity = after
    if after == 0.0:
        del s.held[market]


# ---- the vector


def over(value: float, scale: float) -> float:
    if math.isnan(value) or math.isnan(scale):
        return NAN
    if scale <= 0.0:
        return math.copysign(FAR, value) if value != 0.0 else 0.0
    return min(max(value / scale, -FAR), FAR)


def smallest(values: list[float]) -> float:
    return NAN if any(math.isnan(value) for value in values) else min(values)


def largest(values: list[float]) -> float:
    return NAN if any(math.isnan(value) for value in values) else max(values)


def margin(notional: float, tiers: list[tuple[float, float, float]], column: int) -> float:
    if math.isnan(notional) or not tiers:
        return NAN
    return float(exchange.margin(notional, [(tier[0], tier[column]) for tier in tiers]))


def distance(s: Standing, market: int, quantity: float, buffer: float) -> float:
    mark = s.mark(market)
    if math.isnan(buffer) or math.isnan(mark):
        return NAN
    if buffer <= 0.0:
        return 0.0
    tiers = [(cap, maintenance) for cap, _, maintenance in s.tiers[market]]
    price = exchange.liquidation_price(quantity, mark, buffer, tiers)
    if price is None:
        return FAR
    adverse = float((exchange.exact(mark) - price) / exchange.exact(mark)) * math.copysign(1.0, quantity)
    return min(adverse, FAR) if adverse > 0.0 else FAR


class Answer(NamedTuple):
    features: dict[str, float]
    figures: dict[str, float]
    moved_usd: float
    """What rounding of the dollars is relative to."""


def answer(rows: Sequence[Row], account: int) -> Answer | None:
    """Features and figures by name at the time of the newest row; None without an open position."""
    s = replay(rows, account)
    held = {m: p for m, p in sorted(s.held.items()) if p.quantity != 0.0}
    if not held:
        return None
    marks = {m: s.mark(m) for m in held}
    notional = {m: p.quantity * marks[m] for m, p in held.items()}
    size = {m: abs(x) for m, x in notional.items()}
    gross = sum(size.values())
    initial = sum(margin(notional[m], s.tiers.get(m, []), 1) for m in held)
    needed = {m: margin(notional[m], s.tiers.get(m, []), 2) for m in held}
    moves = {m: variances(s.marks.get(m, [])) for m in held}
    estimators = ("1h", "6h", "48h", "har", "mean", "slow")
    exposures = {e: [notional[m] * math.sqrt(moves[m][e]) for m in held] for e in estimators}

    haircut = liability = 0.0
    for asset, amount in s.amounts.items():
        if amount == 0.0:
            continue
        worth = amount * s.prices.get(asset, NAN)
        counted, charged = s.weights.get(asset, (NAN, NAN))
        if amount > 0.0:
            haircut += worth * (1.0 - counted)
        else:
            liability += -worth * (charged - 1.0)
        moving = not (asset not in s.price_points and asset in s.prices)  # a dollar does not move
        if moving and not s.is_isolated:
            spread_of = variances(s.price_points.get(asset, []))
            if spread_of["48h"] < 0.05**2 / (365 * DAY_S):  # pegged: below 5% a year
                spread_of["slow"] = spread_of["48h"]
            for e in estimators:
                weight = counted if amount > 0.0 else charged
                exposures[e].append(worth * weight * math.sqrt(spread_of[e]))

    maintenance = sum(needed.values())
    if s.is_isolated:
        pools = {m: p.isolated + p.quantity * marks[m] + p.quote for m, p in held.items()}
        equity = collateral = sum(pools.values())
        haircut = 0.0
        ratio = smallest([over(pools[m], needed[m]) for m in held])
        nearest = smallest([distance(s, m, p.quantity, pools[m] - needed[m]) for m, p in held.items()])
        nearness = {
            e: smallest([
                over(pools[m] - needed[m], size[m] * math.sqrt(moves[m][e] * DAY_S)) for m in held
            ])
            for e in estimators
        }  # fmt: skip
    else:
        unmarked = any(position.unmarked for position in held.values())
        equity = NAN if unmarked else s.wealth
        collateral = equity - haircut
        maintenance += liability
        ratio = over(collateral, maintenance)
        nearest = smallest([distance(s, m, p.quantity, collateral - maintenance) for m, p in held.items()])
        nearness = {
            e: over(collateral - maintenance, sigma(exposures[e]) * math.sqrt(DAY_S)) for e in estimators
        }
    buffer = collateral - maintenance

    spread: dict[int, float] = {}
    slip: dict[int, float] = {}
    within: dict[int, float] = {}
    lead: dict[int, float] = {}
    for m, position in held.items():
        spread[m] = slip[m] = within[m] = lead[m] = NAN
        if m not in s.books:
            continue
        time, bid, ask, levels = s.books[m]
        if s.now_us - time > HOUR or bid > ask:
            continue
        spread[m] = (ask - bid) / ((ask + bid) / 2) * 1e4
        if levels:
            distances = [level[0] for level in levels]
            bids, asks = [level[1] for level in levels], [level[2] for level in levels]
            closing, other = (bids, asks) if position.quantity > 0 else (asks, bids)
            slip[m] = slippage_bps(size[m], distances, closing)
            within[m] = depth_at(100.0, distances, closing)
            against = depth_at(100.0, distances, other)
            if within[m] + against > 0.0:
                lead[m] = (within[m] - against) / (within[m] + against)
    slippage_usd = sum(size[m] * slip[m] / 1e4 for m in held)

    def by_notional(values: dict[int, float]) -> float:
        return sum(size[m] * values[m] for m in held) / gross

    terms = {m: s.terms.get(m, (NAN,) * 5) for m in held}
    carry = sum(notional[m] * s.funding.get(m, NAN) * DAY_S / terms[m][4] for m in held)
    unrealised = sum(p.quantity * (marks[m] - p.entry) for m, p in held.items())
    sigma_day = sigma(exposures["mean"]) * math.sqrt(DAY_S)
    hazards = prior_hazards(nearness["slow"])
    least = 1e-12 * gross
    fast, slow = sigma(exposures["1h"]), sigma(exposures["48h"])
    trend = NAN
    if not math.isnan(fast + slow):
        trend = math.log(max(fast, least) / max(slow, least))
    features = {
        "effective_leverage": over(gross, equity),
        "net_leverage": over(abs(sum(notional.values())), equity),
        "margin_ratio": ratio,
        "initial_margin_use": over(initial, collateral),
        "buffer_over_notional": buffer / gross,
        "distance_to_liquidation": nearest,
        "concentration": sum((x / gross) ** 2 for x in size.values()),
        "funding_carry_day": over(carry, equity),
        "unrealised_return": over(unrealised, equity),
        "haircut_share": over(haircut, equity),
        "log_equity": NAN if math.isnan(equity) else math.log10(max(equity, 0.01)),
        "buffer_over_sigma": nearness["mean"],
        "buffer_over_sigma_1h": nearness["1h"],
        "buffer_over_sigma_6h": nearness["6h"],
        "buffer_over_sigma_48h": nearness["48h"],
        "buffer_over_sigma_har": nearness["har"],
        "buffer_over_sigma_slow": nearness["slow"],
        "portfolio_sigma_day": sigma_day / gross,
        "volatility_trend": trend,
        "jump_share": by_notional({m: jump_share(s.marks.get(m, [])) for m in held}),
        "undiversified_share": over(sigma(exposures["6h"]), sum(abs(part) for part in exposures["6h"])),
        "prior_hazard_1h": hazards[0],
        "prior_hazard_8h": hazards[1],
        "prior_hazard_24h": hazards[2],
        "spread_bps": by_notional(spread),
        "slippage_to_close_bps": by_notional(slip),
        "slippage_over_buffer": over(slippage_usd, buffer),
        "position_over_depth": largest([over(size[m], within[m]) for m in held]),
        "depth_imbalance": by_notional(lead),
        "position_over_open_interest": largest([over(size[m], s.interest.get(m, NAN)) for m in held]),
    }
    oldest = min((s.marks[m][-1][0] if m in s.marks else -1) for m in held)
    figures = {
        "EQUITY_USD": equity,
        "COLLATERAL_USD": collateral,
        "INITIAL_MARGIN_USD": initial,
        "MAINTENANCE_MARGIN_USD": maintenance,
        "GROSS_NOTIONAL_USD": gross,
        "MARGIN_RATIO": ratio,
        "BUFFER_OVER_SIGMA_DAY": nearness["mean"],
        "SIGMA_DAY_USD": sigma_day,
        "CLOSING_COST_USD": slippage_usd + sum(size[m] * terms[m][3] for m in held),
        "STATIC_INITIAL_RATE": initial / gross,
        "STATIC_MAINTENANCE_RATE": sum(needed.values()) / gross,
        "FIGURE_INITIAL_IN_FORCE": s.in_force[0],
        "FIGURE_MAINTENANCE_IN_FORCE": s.in_force[1],
        "MARK_AGE_S": (s.now_us - oldest) / SECOND if oldest >= 0 else NAN,
        "OPEN_POSITIONS": float(len(held)),
    }
    return Answer(features, figures, s.moved)
