"""What traders of the generated venue do between two bars, at the marks of the earlier one.

No trade that adds risk and no withdrawal leaves a pool's collateral below its initial margin.
"""

from __future__ import annotations

import math

import numpy as np

from exchange.simulation.defaults import slippage
from exchange.simulation.ledger import COLLATERAL, EQUITY, INITIAL, LEVEL, MAINTENANCE, WEAKEST, Ledger
from exchange.simulation.prices import BAR_US, BARS_A_DAY
from exchange.simulation.terms import DOLLAR, TOKEN
from exchange.units import SECOND_US

LEAST_ORDER_USD = 5.0
CUSHION = 1.05
"""Collateral over initial margin that an opening trade or a withdrawal leaves."""
STRESS_RATIO = 3.0
"""Collateral over maintenance under which traders begin to act on it."""
STRESS_A_DAY = 1.5
"""Answers a day per unit of ratio below that."""


class Crowd:
    """All traders, their comings and goings, and the generator that decides for them."""

    def __init__(self, ledger: Ledger, rng: np.random.Generator) -> None:
        self.ledger, self.people, self.rng = ledger, ledger.people, rng
        self.back_bar = ledger.people.arrival_bar.copy()
        """Bar at which an absent trader comes (back); 0 while present."""
        self.visits = np.zeros(len(self.back_bar), np.int64)

    def between_bars(self, bar_time_us: int) -> None:
        """Give every trader the chance to act once in the five minutes after the bar.

        The figures of all accounts with positions must be up to date.
        """
        ledger, people = self.ledger, self.people
        mood = float(np.clip(ledger.paths.stress[ledger.bar, 0], 0.5, 2.5)) / BARS_A_DAY
        # a leaver's last row comes a second after the deal, so nothing starts in the last two seconds
        offset = self.rng.random(len(self.back_bar)) * (BAR_US - 3 * SECOND_US)
        time_us = (bar_time_us + SECOND_US + offset).astype(np.int64)
        stressed = np.clip(STRESS_RATIO - ledger.figures[:, LEVEL], 0.0, STRESS_RATIO)
        stressed = np.where(ledger.open_positions > 0, stressed, 0.0) * (STRESS_A_DAY / BARS_A_DAY)
        drawn = self.rng.random(len(self.back_bar))
        acts = (self.back_bar == 0) & (drawn < stressed + people.deals_a_day * mood)
        comes = (self.back_bar > 0) & (self.back_bar <= ledger.bar)
        for account in np.flatnonzero(acts | comes).tolist():
            when_us = int(time_us[account])
            if comes[account]:
                self._arrive(account, when_us)
                continue
            if drawn[account] < stressed[account]:
                self._answer_stress(account, when_us)
            else:
                self._act(account, when_us)
            # what became of isolated collateral or of a pledged token shows in no other row
            if self._repay(account) or (people.isolated[account] and self.back_bar[account] == 0):
                ledger.snapshot(account, when_us)

    def wiped_out(self, account: int) -> None:
        """Half of those who lost nearly everything come back within days, most others not in time."""
        ledger = self.ledger
        left_usd = ledger.value_one(account)[EQUITY]
        if left_usd < 0.1 * self.people.deposit_usd[account] and not ledger.held(account):
            days = self.rng.exponential(1.5 if self.rng.random() < 0.5 else 60.0)
            self.back_bar[account] = ledger.bar + 1 + int(days * BARS_A_DAY)
            ledger.basis[account] = 0.0

    def _arrive(self, account: int, time_us: int) -> None:
        """Pay in, and the first time bring the token; a snapshot says so."""
        ledger, people = self.ledger, self.people
        size_usd = float(people.deposit_usd[account])
        if self.visits[account] == 0:
            ledger.amount[account, TOKEN] += people.token_usd[account] / ledger.price[ledger.bar, TOKEN]
            ledger.basis[account] += people.token_usd[account]
        else:
            size_usd = round(size_usd * self.rng.uniform(0.2, 1.0), 2)
        self.visits[account] += 1
        self.back_bar[account] = 0
        ledger.transfer(account, max(size_usd, LEAST_ORDER_USD), time_us)
        ledger.snapshot(account, time_us)

    def _leave(self, account: int, time_us: int) -> None:
        """Close everything and take everything out a second later; back after some days, or not in time."""
        ledger = self.ledger
        for m in ledger.held(account):
            self._reduce(account, m, 1.0, time_us)
        if ledger.held(account):
            return
        self._repay(account)
        if ledger.amount[account, DOLLAR] > 0.0:
            ledger.transfer(account, -float(ledger.amount[account, DOLLAR]), time_us + SECOND_US)
        ledger.amount[account, TOKEN] = 0.0
        ledger.snapshot(account, time_us + SECOND_US)
        ledger.basis[account] = 0.0
        self.back_bar[account] = ledger.bar + 1 + int(self.rng.exponential(5.0) * BARS_A_DAY)

    def _repay(self, account: int) -> bool:
        """Sell token for dollars still owed once no position is left; whether there was need to."""
        ledger = self.ledger
        if ledger.amount[account, DOLLAR] >= 0.0 or ledger.held(account):
            return False
        ledger.sell_token(account)
        ledger.give_up_dust(account)
        return True

    def _answer_stress(self, account: int, time_us: int) -> None:
        """Pay in more, or close a part of the weakest pool."""
        ledger = self.ledger
        figures = ledger.value_one(account)
        weak = int(figures[WEAKEST])
        if self.rng.random() < self.people.rescue[account]:
            needed_usd = figures[MAINTENANCE]
            if weak >= 0:
                needed_usd = ledger.maintenance_usd(weak, ledger.notional_usd(account, weak))
            amount_usd = min(needed_usd * self.rng.uniform(1.0, 3.0), self.people.deposit_usd[account])
            amount_usd = round(float(amount_usd), 2)
            if amount_usd >= 1.0:
                ledger.transfer(account, amount_usd, time_us)
                if weak >= 0:
                    ledger.set_aside(account, weak, amount_usd)
                return
        market = weak if weak >= 0 else self._one_of(ledger.held(account))
        self._reduce(account, market, self.rng.uniform(0.3, 1.0), time_us)

    def _act(self, account: int, time_us: int) -> None:
        """An ordinary decision: leave, pay in, take out, reduce, turn round, add."""
        ledger, rng = self.ledger, self.rng
        held = ledger.held(account)
        equity_usd = ledger.value_one(account)[EQUITY]
        choice = rng.random()
        if choice < (0.01 if held else 0.03) or (not held and equity_usd < 2.0 * LEAST_ORDER_USD):
            self._leave(account, time_us)
        elif choice < 0.07:
            amount_usd = round(float(self.people.deposit_usd[account]) * rng.uniform(0.1, 0.5), 2)
            ledger.transfer(account, max(amount_usd, 1.0), time_us)
        elif choice < 0.17:
            self._take_profit(account, time_us)
        elif held and choice < 0.50:
            share = 1.0 if choice < 0.42 else rng.uniform(0.2, 0.7)
            self._reduce(account, self._one_of(held), share, time_us)
        elif held and choice < 0.56:
            # an isolated position is closed rather than turned: its collateral would have to be set anew
            share = 1.0 if self.people.isolated[account] else 2.0
            self._reduce(account, self._one_of(held), share, time_us)
        else:
            market = self._one_of(held) if held and rng.random() < 0.6 else self._favourite(account)
            self._add(account, market, time_us)

    def _take_profit(self, account: int, time_us: int) -> None:
        """Withdraw a part of what was gained, as far as initial margin allows."""
        ledger = self.ledger
        figures = ledger.value_one(account)
        free_usd = float(ledger.amount[account, DOLLAR])
        if not self.people.isolated[account]:
            free_usd = min(free_usd, figures[COLLATERAL] - CUSHION * figures[INITIAL])
        amount_usd = min(free_usd, figures[EQUITY] - float(ledger.basis[account]))
        amount_usd = round(amount_usd * self.rng.uniform(0.3, 0.9), 2)
        if amount_usd >= 1.0:
            ledger.transfer(account, -amount_usd, time_us)

    def _one_of(self, markets: list[int]) -> int:
        return markets[int(self.rng.random() * len(markets))]

    def _favourite(self, account: int) -> int:
        """A market drawn from the trader's taste."""
        drawn = int(np.searchsorted(self.people.favour[account], self.rng.random()))
        return min(drawn, self.people.favour.shape[1] - 1)

    def _side(self, account: int, market: int) -> int:
        """1 to buy, -1 to sell: that of the position if there is one, else as habit and trend have it."""
        ledger, people = self.ledger, self.people
        if ledger.lots[account, market] != 0:
            return 1 if ledger.lots[account, market] > 0 else -1
        moved = math.log(ledger.mark[market] / ledger.paths.mark[ledger.bar - BARS_A_DAY, market])
        chance = people.long_share[account] + people.trend[account] * math.tanh(moved / 0.04)
        return 1 if self.rng.random() < chance else -1

    def _away(self, market: int, buys: bool, size_usd: float) -> float:
        """How far from mark an order fills, fraction: half the spread and the walk through the book."""
        paths, bar = self.ledger.paths, self.ledger.bar
        depth_usd = paths.ask_usd[bar, market] if buys else paths.bid_usd[bar, market]
        return float(paths.half_spread[bar, market] + slippage(size_usd, 0.0, depth_usd))

    def _cost_usd(self, market: int, buys: bool, size_usd: float) -> float:
        """Fee and distance from mark of an order, rounded up for the tick."""
        rate = float(self.ledger.terms.taker_fee[market]) + self._away(market, buys, size_usd)
        return 1.1 * rate * size_usd

    def _deal(self, account: int, market: int, lots: int, time_us: int) -> None:
        terms, mark = self.ledger.terms, float(self.ledger.mark[market])
        tick, lot = float(terms.tick[market]), float(terms.lot[market])
        away = self._away(market, lots > 0, abs(lots) * lot * mark)
        price = round(mark * (1.0 + math.copysign(away, lots)) / tick) * tick
        fee_usd = abs(lots) * lot * price * float(terms.taker_fee[market])
        self.ledger.trade(account, market, lots, price, fee_usd, "trade", time_us)

    def _reduce(self, account: int, market: int, share: float, time_us: int) -> None:
        """Close a share of a position, all of it if the rest would be too small to keep.

        Nobody sells into a book so thin that the cost would eat up what stands behind the position. A share
        of two turns the position round, if margin allows it.
        """
        ledger = self.ledger
        held = int(ledger.lots[account, market])
        unit_usd = float(ledger.terms.lot[market] * ledger.mark[market])
        lots = math.ceil(abs(held) * share)
        if share <= 1.0 and (abs(held) - lots) * unit_usd < LEAST_ORDER_USD:
            lots = abs(held)
        figures = ledger.value_one(account)
        standing_usd, needed_usd = figures[COLLATERAL], 0.0
        if self.people.isolated[account]:
            standing_usd = ledger.pool_equity_usd(account, market)
        if share > 1.0:
            needed_usd = CUSHION * figures[INITIAL]
        if standing_usd - self._cost_usd(market, held < 0, lots * unit_usd) >= needed_usd:
            self._deal(account, market, -lots if held > 0 else lots, time_us)

    def _add(self, account: int, market: int, time_us: int) -> None:
        """Open or increase towards the trader's leverage, shrunk until initial margin is met."""
        ledger, people, rng = self.ledger, self.people, self.rng
        side = self._side(account, market)
        figures = ledger.value_one(account)
        gross_usd = sum(ledger.notional_usd(account, m) for m in ledger.held(account))
        wanted_usd = figures[EQUITY] * float(people.leverage[account]) * math.exp(rng.normal(0.0, 0.3))
        size_usd = (wanted_usd - gross_usd) * rng.uniform(0.5, 1.0)
        unit_usd = float(ledger.terms.lot[market] * ledger.mark[market])
        notional_usd = ledger.notional_usd(account, market)
        while size_usd >= LEAST_ORDER_USD:
            lots = int(size_usd / unit_usd)
            size_usd = lots * unit_usd
            if size_usd < LEAST_ORDER_USD:
                return
            cost_usd = self._cost_usd(market, side > 0, size_usd)
            needed_usd = ledger.initial_usd(market, notional_usd + size_usd)
            if people.isolated[account]:
                standing_usd = ledger.pool_equity_usd(account, market) if notional_usd > 0.0 else 0.0
                aside_usd = max(
                    size_usd / float(people.leverage[account]),
                    CUSHION * needed_usd - standing_usd + cost_usd,
                )
                fits = aside_usd + cost_usd <= ledger.amount[account, DOLLAR]
                if fits:
                    ledger.set_aside(account, market, aside_usd)
            else:
                needed_usd += figures[INITIAL] - ledger.initial_usd(market, notional_usd)
                fits = figures[COLLATERAL] - cost_usd >= CUSHION * needed_usd
            if fits:
                self._deal(account, market, side * lots, time_us)
                return
            size_usd *= 0.6
