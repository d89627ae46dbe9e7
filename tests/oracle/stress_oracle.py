"""A shock through a small book in plain Python: every account is looked at whenever anybody is.

Written from docs/stress.md for stretches of one round; nothing of `exchange` but its settings and the tiers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from exchange.stress.book import Book, Shock

REACH, MOST_TURNS, RANKED_FOR = 0.01, 30, 10


@dataclass
class Account:
    cash: float
    held: dict[int, float]
    entry: dict[int, float]
    pledged: dict[int, float]
    closing: bool = False
    steps: int = 0
    begun_usd: float = 0.0
    liquidated: float = 0.0
    shortfall: float = 0.0
    deleveraged: float = 0.0


@dataclass
class Market:
    start: float
    mark: float
    shift: float = 0.0
    wave: float = 0.0
    liquidity: float = 1.0
    outside: float = 0.0
    variance: float = 0.0
    spread: float = 0.0
    queue: dict[float, tuple[int, list[int]]] = field(default_factory=dict)


@dataclass
class Venue:
    book: Book
    shock: Shock
    rule: Any
    settings: Any
    fund: float = 0.0
    now: int = 0
    accounts: list[Account] = field(default_factory=list)
    markets: list[Market] = field(default_factory=list)
    prices: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        book = self.book
        self.fund = float(book.fund_usd[0])
        self.prices = book.price.tolist()
        for key, mark in enumerate(book.mark.tolist()):
            market = Market(mark, mark, variance=float(book.variance[key]))
            market.spread = float(book.half_spread[key])
            self.markets.append(market)
        for pool, cash in enumerate(book.cash.tolist()):
            rows = range(book.first_position[pool], book.first_position[pool + 1])
            pledged = range(book.first_balance[pool], book.first_balance[pool + 1])
            self.accounts.append(
                Account(
                    cash,
                    {int(book.market[row]): float(book.quantity[row]) for row in rows},
                    {int(book.market[row]): float(book.entry_price[row]) for row in rows},
                    {int(book.asset[row]): float(book.amount[row]) for row in pledged},
                )
            )

    # -- one account

    def needs(self, market: int, notional: float) -> float:
        floors = self.book.tiers.floor_usd[market]
        rates = self.book.tiers.maintenance_rate[market]
        total = 0.0
        for tier in range(len(floors)):
            top = floors[tier + 1] if tier + 1 < len(floors) else math.inf
            if notional > floors[tier]:
                total += (min(notional, top) - floors[tier]) * rates[tier]
        return float(total)

    def sums(self, account: Account, marks: list[float], prices: list[float]) -> dict[str, float]:
        equity = account.cash + sum(size * marks[key] for key, size in account.held.items())
        haircut = liability = 0.0
        for key, amount in account.pledged.items():
            equity += amount * prices[key]
            if amount > 0.0:
                haircut += amount * prices[key] * (1.0 - self.book.collateral_weight[key])
            else:
                liability -= amount * prices[key] * (self.book.liability_weight[key] - 1.0)
        own = sum(self.needs(key, abs(size) * marks[key]) for key, size in account.held.items())
        gross = sum(abs(size) * marks[key] for key, size in account.held.items())
        needed = own + liability
        return {
            "equity": equity, "collateral": equity - haircut, "needed": needed, "own": own, "gross": gross,
        }  # fmt: skip

    def state(self, account: Account, marks: list[float], prices: list[float]) -> int:
        """2 under maintenance, 1 near it, 0 neither."""
        found = self.sums(account, marks, prices)
        if not found["gross"] > 0.0:
            return 0
        buffer = found["collateral"] - found["needed"]
        return 0 if buffer >= REACH * found["gross"] else 2 if buffer < 0.0 else 1

    def limit(self, account: Account, key: int) -> float:
        marks = [market.mark for market in self.markets]
        found = self.sums(account, marks, self.prices)
        size = account.held[key]
        return marks[key] - found["equity"] * self.needs(key, abs(size) * marks[key]) / found["own"] / size

    # -- prices

    def felt(self, market: Market) -> float:
        return float(market.shift + self.settings.spillover * market.wave)

    def mid(self, market: Market) -> float:
        return market.start * math.exp(market.outside + market.shift + market.wave)

    def move(self, knot: int, part: float, elapsed_s: float) -> None:
        s, shock = self.settings, self.shock
        frozen = knot < shock.frozen_knots
        for key, market in enumerate(self.markets):
            before = 0.0 if knot == 0 else float(shock.market[knot - 1, key])
            swing = float(shock.market[knot, key]) - before
            market.outside = before + part * swing
            pushed = market.wave
            market.wave *= math.exp(-elapsed_s / s.resilience_s * (1.0 + abs(pushed) / s.snap))
            rate = swing**2 * 60.0 / shock.knot_s + (market.wave - pushed) ** 2 * 60.0 / elapsed_s
            keep = 0.5 ** (elapsed_s / s.variance_half_life_s)
            market.variance = keep * market.variance + (1.0 - keep) * rate
            sigma = math.sqrt(market.variance / float(self.book.variance[key]))
            wanted = min(max(sigma**-s.thinning, s.least_liquidity), 1.0)
            time_s = s.withdraw_s if wanted < market.liquidity else s.return_s
            market.liquidity += (1.0 - math.exp(-elapsed_s / time_s)) * (wanted - market.liquidity)
            market.spread = min(float(self.book.half_spread[key]) * max(sigma, 0.7) ** s.spread_power, 0.05)
            if not frozen:
                market.mark = market.start * math.exp(market.outside + self.felt(market))
        if not frozen:
            for key, start in enumerate(self.book.price.tolist()):
                before = 0.0 if knot == 0 else float(shock.asset[knot - 1, key])
                self.prices[key] = start * math.exp(before + part * (float(shock.asset[knot, key]) - before))

    # -- closing

    def attend(self, account: Account) -> int:
        rule = self.rule
        found = self.sums(account, [market.mark for market in self.markets], self.prices)
        if not account.closing:
            if not (found["needed"] > 0.0 and found["collateral"] < found["needed"]):
                return 0
            account.closing, account.steps, account.begun_usd = True, 0, found["gross"]
        elif found["needed"] <= 0.0 or found["collateral"] >= found["needed"] * (1.0 + rule.safety_share):
            account.closing = False
            return 0
        self.step(account)
        account.steps += 1
        if not any(account.held.values()):
            self.settle(account)
        return 1

    def step(self, account: Account) -> None:
        rule, s = self.rule, self.settings
        key = max(account.held, key=lambda each: abs(account.held[each]) * self.markets[each].mark)
        market, size = self.markets[key], account.held[key]
        notional = abs(size) * market.mark
        wanted_usd = notional
        if notional > rule.whole_below_usd:
            wanted_usd = min(notional, max(0.2 * account.begun_usd, rule.least_step_usd))
        wanted = size if wanted_usd == notional else size * (wanted_usd / notional)
        limit = self.limit(account, key)
        side = 0 if size > 0.0 else 1
        depth = float(self.book.depth_usd[key, side]) * self.shock.depth_factor * market.liquidity
        mid = self.mid(market)
        sent = math.copysign(min(abs(wanted), depth * s.most_walk / 0.01 / mid), size)
        walk = 0.01 * abs(sent) * mid / depth
        fill = mid * (1.0 - math.copysign(market.spread + walk / 2, size))
        better = sent * (fill - limit)
        fee = (
            min(float(self.book.liquidation_fee_rate[key]) * abs(sent) * fill, better)
            if better > 0.0
            else 0.0
        )
        cost = max(-better, 0.0)
        part = 1.0 if cost <= 0.0 else min(self.fund / cost, 1.0)
        sent, cost = sent * part, cost * part
        account.cash += sent * fill - fee + cost
        account.held[key] = 0.0 if sent == size else size - sent
        account.shortfall += cost
        account.liquidated += abs(sent) * market.mark
        self.fund = max(self.fund + fee - cost, 0.0)
        market.wave -= math.copysign((1.0 - self.shock.permanent_share) * part * walk, size)
        market.shift -= math.copysign(self.shock.permanent_share * part * walk, size)
        if part < 1.0:
            self.deleverage(account, key, abs(wanted - sent), limit)

    def deleverage(self, loser: Account, key: int, left: float, limit: float) -> None:
        market = self.markets[key]
        sign = 1.0 if loser.held[key] > 0.0 else -1.0
        each = sign * (limit - market.mark)
        if self.now - market.queue.get(sign, (-RANKED_FOR, []))[0] >= RANKED_FOR:
            market.queue[sign] = (self.now, self.ranked(key, sign))
        queue = market.queue[sign][1]
        while left > 0.0 and queue:
            winner = self.accounts[queue[0]]
            size = abs(winner.held[key])
            if each > 0.0:
                marks = [other.mark for other in self.markets]
                size = min(size, max(self.sums(winner, marks, self.prices)["equity"], 0.0) / each)
            taken = min(size, left)
            if taken <= 0.0:
                queue.pop(0)
                continue
            winner.held[key] = 0.0 if taken == abs(winner.held[key]) else winner.held[key] + sign * taken
            winner.cash -= sign * taken * limit
            loser.held[key] = 0.0 if taken == abs(loser.held[key]) else loser.held[key] - sign * taken
            loser.cash += sign * taken * limit
            winner.deleveraged += taken * market.mark
            loser.liquidated += taken * market.mark
            loser.shortfall += max(taken * each, 0.0)
            left -= taken
            if left > 0.0:
                queue.pop(0)

    def ranked(self, key: int, sign: float) -> list[int]:
        """BitMEX: profit over entry value times leverage to bankruptcy; losers by profit over leverage."""
        marks = [market.mark for market in self.markets]
        scores = []
        for number, account in enumerate(self.accounts):
            size = account.held.get(key, 0.0)
            if size * sign >= 0.0:
                continue
            equity = self.sums(account, marks, self.prices)["equity"]
            score = -math.inf
            if equity > 0.0:
                gain = size * (marks[key] - account.entry[key]) / (abs(size) * account.entry[key])
                limit = self.limit(account, key)
                gross = self.sums(account, marks, self.prices)["gross"]
                behind = size * (marks[key] - limit)
                if limit <= 0.0 or behind > 0.0:
                    leverage = gross / equity if limit <= 0.0 else abs(size) * marks[key] / behind
                    score = gain * leverage if gain > 0.0 else gain / leverage
            scores.append((-score, number))
        return [number for _, number in sorted(scores)]

    def settle(self, account: Account) -> None:
        account.cash += sum(amount * self.prices[key] for key, amount in account.pledged.items())
        account.pledged = dict.fromkeys(account.pledged, 0.0)
        if account.cash < 0.0:
            self.fund -= min(-account.cash, self.fund)
            account.shortfall -= account.cash
            account.cash = 0.0
        account.closing = False

    # -- the whole

    def run(self) -> None:
        last = [self.state(each, [m.mark for m in self.markets], self.prices) for each in self.accounts]
        for knot in range(len(self.shock.market)):
            frozen = knot < self.shock.frozen_knots
            marks, prices = [m.mark for m in self.markets], list(self.prices)
            if not frozen:
                moves = self.shock.market[knot].tolist()
                marks = [
                    m.start * math.exp(way + self.felt(m)) for m, way in zip(self.markets, moves, strict=True)
                ]
                assets = self.shock.asset[knot].tolist()
                prices = [
                    start * math.exp(way) for start, way in zip(self.book.price.tolist(), assets, strict=True)
                ]
            ahead = [self.state(each, marks, prices) for each in self.accounts]
            worst = [max(pair) for pair in zip(last, ahead, strict=True)]
            last = ahead
            listed = [n for n, each in enumerate(self.accounts) if worst[n] > 0 or each.closing]
            expected = sum(worst[n] == 2 or self.accounts[n].closing for n in listed)
            turns = min(max(expected, 1), MOST_TURNS)
            self.now = knot + 1
            for turn in range(turns):
                self.move(knot, (turn + 1) / turns, self.shock.knot_s / turns)
                for n in listed[len(listed) * turn // turns : len(listed) * (turn + 1) // turns]:
                    self.attend(self.accounts[n])
