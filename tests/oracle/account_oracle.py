"""One account at one moment, slow and obvious: its margin pools, and how near each is to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from features.volatility import WEIGHTS
from tests.oracle import exchange_oracle as exchange
from tests.oracle.market_oracle import PRIOR, Points, climbed, sigma, variances
from tests.oracle.replay_oracle import Account, Asset, Held, Market, World

NAN = math.nan
FAR = 1_000.0
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
ESTIMATORS = ("1h", "6h", "48h", "har", "mean", "slow", "ahead_1h", "ahead_8h", "ahead_24h", "prior")


def over(value: float, scale: float) -> float:
    """A ratio within 1000 either way; to nothing it is at that bound."""
    if math.isnan(value) or math.isnan(scale):
        return NAN
    if scale <= 0.0:
        return math.copysign(FAR, value) if value != 0.0 else 0.0
    return min(max(value / scale, -FAR), FAR)


def smallest(values: Sequence[float]) -> float:
    return NAN if any(math.isnan(value) for value in values) else min(values)


def largest(values: Sequence[float]) -> float:
    return NAN if any(math.isnan(value) for value in values) else max(values)


@dataclass
class Names:
    """What markets and assets are about, by id, and volatilities that were worked out before."""

    market: Mapping[int, str]
    asset: Mapping[int, str]
    known: dict[tuple[str, int, int], dict[str, float]] = field(default_factory=dict)

    def volatility(self, table: str, key: int, points: Points) -> dict[str, float]:
        """Sigma for the root of a second under every estimator."""
        place = (table, key, len(points))
        if place not in self.known:
            self.known[place] = volatility(points, is_asset=table == "asset")
        return self.known[place]


def volatility(points: Points, is_asset: bool) -> dict[str, float]:
    seen = variances(points)
    ladder = [1.0, *climbed(points)] if len(points) > 1 else [NAN] * len(WEIGHTS[0])
    for hours, weights in zip((1, 8, 24), WEIGHTS, strict=True):
        seen[f"ahead_{hours}h"] = PRIOR * math.exp(sum(w * x for w, x in zip(weights, ladder, strict=True)))
    seen["prior"] = math.sqrt(seen["slow"] * seen["ahead_24h"])  # half-way in logs
    if is_asset and seen["48h"] < 0.05**2 / YEAR_S:  # pegged: below 5% a year
        for name in ("slow", "ahead_1h", "ahead_8h", "ahead_24h", "prior"):
            seen[name] = seen["48h"]
    return {name: math.sqrt(seen[name]) for name in ESTIMATORS}


def margin(notional: float, tiers: Sequence[tuple[float, float, float]], column: int) -> float:
    if math.isnan(notional) or not tiers:
        return NAN
    return float(exchange.margin(notional, [(tier[0], tier[column]) for tier in tiers]))


def distance(market: Market, quantity: float, buffer: float) -> float:
    """Adverse move of one mark alone that uses up the buffer, as a fraction."""
    if math.isnan(buffer) or math.isnan(market.mark):
        return NAN
    if buffer <= 0.0:
        return 0.0
    tiers = [(cap, maintenance) for cap, _, maintenance in market.tiers]
    price = exchange.liquidation_price(quantity, market.mark, buffer, tiers)
    if price is None:
        return FAR
    mark = exchange.exact(market.mark)
    adverse = float((mark - price) / mark) * math.copysign(1.0, quantity)
    return min(adverse, FAR) if adverse > 0.0 else FAR


@dataclass
class Look:
    """An account with open positions, as it stands in a world; whatever is not known is NaN."""

    world: World
    account: Account
    names: Names

    @cached_property
    def held(self) -> dict[int, Held]:
        return self.account.open

    @cached_property
    def markets(self) -> dict[int, Market]:
        return {m: self.world.markets[m] for m in self.held}

    @cached_property
    def notional(self) -> dict[int, float]:
        return {m: held.quantity * self.markets[m].mark for m, held in self.held.items()}

    @cached_property
    def size(self) -> dict[int, float]:
        return {m: abs(dollars) for m, dollars in self.notional.items()}

    @cached_property
    def gross(self) -> float:
        return sum(self.size.values())

    @cached_property
    def needed(self) -> dict[int, float]:
        """Maintenance margin by position."""
        return {m: margin(self.notional[m], self.markets[m].tiers, 2) for m in self.held}

    @cached_property
    def initial(self) -> float:
        return sum(margin(self.notional[m], self.markets[m].tiers, 1) for m in self.held)

    @cached_property
    def closing_fee(self) -> dict[int, float]:
        return {m: self.size[m] * self.markets[m].terms[3] for m in self.held}

    # -- balances, which stand behind the positions of a cross account only

    @cached_property
    def balances(self) -> dict[int, tuple[Asset, float]]:
        if self.account.is_isolated:
            return {}
        amounts = sorted(self.account.amounts.items())
        return {a: (self.world.assets[a], amount) for a, amount in amounts if amount != 0.0}

    @cached_property
    def pledged(self) -> float:
        return sum(abs(amount * asset.price) for asset, amount in self.balances.values())

    @cached_property
    def haircut(self) -> float:
        held = [(asset, amount) for asset, amount in self.balances.values() if amount > 0.0]
        return sum((amount * asset.price * (1.0 - asset.weights[0]) for asset, amount in held), 0.0)

    @cached_property
    def liability(self) -> float:
        owed = [(asset, amount) for asset, amount in self.balances.values() if amount < 0.0]
        return sum((-amount * asset.price * (asset.weights[1] - 1.0) for asset, amount in owed), 0.0)

    @cached_property
    def counted(self) -> dict[int, float]:
        """What each balance counts for, haircut taken."""
        return {
            a: amount * asset.price * asset.weights[0 if amount > 0.0 else 1]
            for a, (asset, amount) in self.balances.items()
        }

    @cached_property
    def moving(self) -> dict[int, float]:
        return {a: dollars for a, dollars in self.counted.items() if self.balances[a][0].moves}

    # -- pools

    @cached_property
    def pools(self) -> dict[int, float]:
        """What stands behind each position of an isolated account."""
        return {m: p.isolated + p.quantity * self.markets[m].mark + p.quote for m, p in self.held.items()}

    @cached_property
    def equity(self) -> float:
        if self.account.is_isolated:
            return sum(self.pools.values())
        return NAN if any(held.unmarked for held in self.held.values()) else self.account.wealth

    @cached_property
    def collateral(self) -> float:
        return self.equity - self.haircut

    @cached_property
    def maintenance(self) -> float:
        return sum(self.needed.values()) + self.liability

    @cached_property
    def buffer(self) -> float:
        return self.collateral - self.maintenance

    @cached_property
    def buffers(self) -> dict[int, float]:
        """Of the pool that each position belongs to."""
        if self.account.is_isolated:
            return {m: self.pools[m] - self.needed[m] for m in self.held}
        return dict.fromkeys(self.held, self.buffer)

    @cached_property
    def shown(self) -> float:
        """The buffer as far as a cross account has shown: given back twice what it stood below zero."""
        if self.account.is_isolated or not self.account.survived:
            return self.buffer
        return self.buffer - 2.0 * min(0.0, *(sight.buffer for sight in self.account.survived))

    @cached_property
    def ratio(self) -> float:
        if self.account.is_isolated:
            return smallest([over(self.pools[m], self.needed[m]) for m in self.held])
        return over(self.collateral, self.maintenance)

    @cached_property
    def distances(self) -> dict[int, float]:
        return {m: distance(self.markets[m], p.quantity, self.buffers[m]) for m, p in self.held.items()}

    # -- exposures

    def sigma_of(self, market: int) -> dict[str, float]:
        return self.names.volatility("market", market, self.markets[market].points)

    @cached_property
    def parts(self) -> dict[str, list[float]]:
        """Dollars times sigma, position by position and balance by balance."""
        of_assets = {a: self.names.volatility("asset", a, self.balances[a][0].points) for a in self.moving}
        return {
            e: [self.notional[m] * self.sigma_of(m)[e] for m in self.held]
            + [dollars * of_assets[a][e] for a, dollars in self.moving.items()]
            for e in ESTIMATORS
        }

    @cached_property
    def exposures(self) -> dict[str, list[float]]:
        """The same by underlying: a coin against its own short is no risk, except to the baseline.

        What is in an underlying of a position moves with the first market in it.
        """
        if self.account.is_isolated:
            return self.parts
        dollars: dict[str, float] = {}
        moves: dict[str, dict[str, float]] = {}
        for m in self.held:
            about = self.names.market[m]
            dollars[about] = dollars.get(about, 0.0) + self.notional[m]
            moves.setdefault(about, self.sigma_of(m))
        alone = []
        for a, counted in self.counted.items():
            about = self.names.asset[a]
            if about in moves:
                dollars[about] += counted
            elif a in self.moving:
                alone.append((counted, self.names.volatility("asset", a, self.balances[a][0].points)))
        terms = [(dollars[about], moves[about]) for about in dollars] + alone
        netted = {e: [worth * sigmas[e] for worth, sigmas in terms] for e in ESTIMATORS}
        return netted | {"mean": self.parts["mean"]}

    def sigma_day(self, estimator: str) -> float:
        return sigma(self.exposures[estimator]) * math.sqrt(DAY_S)

    def nearness(self, estimator: str) -> float:
        """Buffer in daily sigmas, of the worst pool."""
        if not self.account.is_isolated:
            return over(self.buffer, self.sigma_day(estimator))
        return self._worst_pool(self.buffers, estimator)

    def shown_nearness(self, estimator: str) -> float:
        """The same of the buffer that the account has shown."""
        if self.account.is_isolated:
            return self.nearness(estimator)
        return over(self.shown, self.sigma_day(estimator))

    @cached_property
    def to_bankruptcy(self) -> float:
        """Equity less the fee of closing, in daily sigmas; of the worst pool."""
        if not self.account.is_isolated:
            return over(self.equity - sum(self.closing_fee.values()), self.sigma_day("prior"))
        return self._worst_pool({m: self.pools[m] - self.closing_fee[m] for m in self.held}, "prior")

    def _worst_pool(self, left: dict[int, float], estimator: str) -> float:
        sigmas = {m: self.size[m] * self.sigma_of(m)[estimator] * math.sqrt(DAY_S) for m in self.held}
        return smallest([over(left[m], sigmas[m]) for m in self.held])
