"""The laws of a simulated venue, read off its tables row by row: what holds in every run, whatever the rule.

`broken(tables, rule)` lists what does not hold, and counts what was tried, since a law that was never put to
the test has not been kept.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from exchange.liquidation import LiquidationRule
from exchange.simulation.ledger import pool
from exchange.simulation.state import AT_MARK, FUND, MAKER, NONE
from exchange.simulation.venue import Venue
from tests.exchange.simulation.oracle import MICRO, Figures, Held, Replay, Row, Tables, micro

CENT = MICRO // 100
SLACK_USD = 1e-6
FIGURES = ("equity_usd", "collateral_usd", "initial_margin_usd", "maintenance_margin_usd")


class Verdict(NamedTuple):
    """What was found."""

    broken: list[str]
    tried: Counter[str]


class Closing(NamedTuple):
    """A forced closing that has begun."""

    event: Row
    markets: tuple[str, ...]
    """Of the pool that is being closed."""
    over: bool
    """Whether the last snapshot says that it may end."""


def standing_broken(venue: Venue) -> list[str]:
    """What does not hold of a venue as it stands between two minutes."""
    world, found = venue.world, []
    account, position = world.account, world.position
    if venue.total_micro() != venue.paid_in_micro:
        found.append(f"{venue.total_micro() - venue.paid_in_micro} micro-dollars too many")
    if position["lots"].sum(axis=0).any():
        found.append(f"longs are not shorts: {position['lots'].sum(axis=0)}")
    if (np.maximum(position["lots"], 0).sum(axis=0) != world.market["open_lots"]).any():
        found.append("open interest is not what longs hold")
    makers = account["kind"] == MAKER
    if (position["lots"][makers].sum(axis=0) != world.market["maker_lots"]).any():
        found.append("the makers' stock is not what they hold")
    if world.purse[FUND] < 0:
        found.append(f"the fund is in debt: {world.purse[FUND]}")
    bits = (account["held"][:, None] >> np.arange(len(world.market), dtype=np.uint64)) & np.uint64(1)
    if ((bits != 0) != (position["lots"] != 0)).any():
        found.append("positions are not those noted")
    closed = position["lots"] == 0
    if any(position[leg][closed].any() for leg in ("quote", "cost", "collateral")):
        found.append("a closed position keeps money")
    if (world.amount < 0).any():
        found.append("an asset is owed")
    if (account["cash"][account["isolated"] == 1] < 0).any():
        found.append("an isolated account owes dollars")
    for number in np.flatnonzero(account["closing"] == 0).tolist():
        found += _at_peace(venue, number)
    return found


def _at_peace(venue: Venue, number: int) -> list[str]:
    """What does not hold of an account that is not being closed by force."""
    world = venue.world
    lots = world.position["lots"][number]
    if not lots.any():
        equity = pool(world, number, NONE, AT_MARK)[0]
        return [f"account {number} has nothing open and owes {equity}"] if equity < 0.0 else []
    if world.account["kind"][number] == MAKER:
        return []  # seen to at the next minute's beginning
    pools = np.flatnonzero(lots).tolist() if world.account["isolated"][number] else [int(NONE)]
    found = []
    for only in pools:
        _, collateral, _, maintenance, _, _ = pool(world, number, np.int64(only), AT_MARK)
        if collateral < maintenance:
            found.append(f"account {number} is under maintenance and left alone: {collateral}, {maintenance}")
    return found


def broken(tables: Tables, rule: LiquidationRule) -> Verdict:
    """Read the tables once and hold them to every law."""
    reading = _Reading(tables, rule)
    reading.go_through()
    return Verdict(reading.broken, reading.tried)


class _Reading:
    def __init__(self, tables: Tables, rule: LiquidationRule) -> None:
        self.tables, self.rule = tables, rule
        self.replay = Replay(tables)
        self.broken: list[str] = self.replay.marks.odd
        self.tried: Counter[str] = Counter()
        self.seen: set[str] = set()
        self.closing: dict[str, Closing] = {}
        self.last_row: dict[str, tuple[str, Row]] = {}
        self.last_event: dict[str, Row] = {}
        self.set_aside: dict[str, tuple[str, int]] = {}
        self.fund: int | None = None
        self.fund_paid = 0
        self.beyond = 0

    def say(self, law: str, row: Row, more: object = "") -> None:
        self.broken.append(f"{law}: {row} {more}")

    def go_through(self) -> None:
        self._fills_have_two_sides()
        for table, row in self.replay:
            self._after_the_row_before()
            name = row.get("account_id")
            if table == "transfers":
                self._transfer(row)
            elif table == "fills":
                self._fill(row)
            elif table == "account_snapshots":
                self._snapshot(row)
            elif table == "default_events":
                self._event(row)
            elif table == "insurance_fund":
                self._fund(row)
            elif table == "market_bars":
                self._bar(row)
            if name is not None:
                self.last_row[name] = (table, row)
        self._after_the_row_before()
        # what the fund paid has reached accounts; what else they got beyond their rows came from the venue
        if self.fund_paid > self.beyond + 10 * CENT:
            self.broken.append(f"the fund paid {self.fund_paid}, accounts got {self.beyond}")

    # ---- one law at a time

    def _fills_have_two_sides(self) -> None:
        sums: dict[tuple[int, str], int] = defaultdict(int)
        prices: dict[tuple[int, str], set[float]] = defaultdict(set)
        for row in self.tables["fills"]:
            key = (row["time"], row["market"])
            lots = self.replay.lots(row["market"], row["quantity"])
            if lots == 0 or self.replay.ticks(row["market"], row["price"]) < 1:
                self.say("a fill of nothing, or for nothing", row)
            sums[key] += lots
            prices[key].add(row["price"])
            self.tried["fills"] += 1
        for (time, market), lots in sums.items():
            if lots != 0 or len(prices[time, market]) != 1:
                self.broken.append(f"fills of {market} at {time} leave {lots} lots, {prices[time, market]}")

    def _bar(self, row: Row) -> None:
        """Open interest is what longs hold, and what shorts hold."""
        market = row["market"]
        if not self.seen:
            return
        held = [each.lots.get(market, 0) for each in self.replay.held.values()]
        if sum(held) != 0:
            self.say("longs are not shorts", row, sum(held))
        value = (
            sum(lots for lots in held if lots > 0) * self.replay.terms[market].lot_size * row["mark_close"]
        )
        # nothing is told before anybody traded
        told = row["open_interest_usd"]
        told = 0.0 if told is None or math.isnan(told) else told
        if abs(value - told) > 1e-9 * value + SLACK_USD:
            self.say("open interest", row, value)
        self.tried["bars"] += 1

    def _transfer(self, row: Row) -> None:
        name = row["account_id"]
        self._moves_by_itself(row)
        if row["amount_usd"] < 0.0:
            self.pending_margin = (name, None, row)

    def _fill(self, row: Row) -> None:
        name, market = row["account_id"], row["market"]
        if row["kind"] == "liquidation":
            if name not in self.closing:
                self.say("closed by force without an event", row)
            elif market not in self.closing[name].markets:
                self.say("closed by force outside its pool", row)
            else:
                self.closing[name] = self.closing[name]._replace(over=False)
            self.tried["forced fills"] += 1
        elif row["kind"] == "trade":
            self._moves_by_itself(row)
            held = self.replay.held[name].lots.get(market, 0)
            now = held + self.replay.lots(market, row["quantity"])
            if abs(now) > abs(held) or now * held < 0:
                self.pending_margin = (name, market, row)
        elif row["kind"] == "deleverage":
            held = self.replay.held[name].lots.get(market, 0)
            lots = self.replay.lots(market, row["quantity"])
            if held * lots >= 0 or abs(lots) > abs(held):
                self.say("deleveraged beyond its position", row, held)
        if row["fee_usd"] < 0.0:
            self.say("a fee below zero", row)

    def _moves_by_itself(self, row: Row) -> None:
        """An account trades and pays by itself only when no forced closing runs."""
        closing = self.closing.get(row["account_id"])
        if closing is None:
            return
        if not closing.over:
            self.say("acts before its forced closing reached the safety margin", row, closing.event)
        del self.closing[row["account_id"]]

    pending_margin: tuple[str, str | None, Row] | None = None

    def _after_the_row_before(self) -> None:
        """Initial margin after a row that added risk or took money out has applied."""
        if self.pending_margin is None:
            return
        name, market, row = self.pending_margin
        self.pending_margin = None
        held = self.replay.held[name]
        if held.mode == "isolated":
            # what is set aside for a position is known from the snapshot that follows
            if market is not None:
                self.set_aside[name] = (market, row["time"])
            return
        best = self._best_case(held, row["time"])
        if best < -SLACK_USD:
            self.say("under initial margin after adding risk or taking money out", row, best)
        self.tried["initial margin"] += 1

    def _best_case(self, held: Held, time: int) -> float:
        """Collateral less initial margin at the marks that are best for it among those possible."""
        mark, least = {}, {}
        for market, lots in held.lots.items():
            low, high = self.replay.marks.at(time, market)
            mark[market] = high if lots > 0 else low
            least[market] = low
        collateral = self.replay.figures(held, mark).collateral_usd
        return collateral - self.replay.figures(held, least).initial_margin_usd

    def _snapshot(self, row: Row) -> None:
        name = row["account_id"]
        before, now = self.replay.held[name], self.replay.told(row)
        if not now.lots and row["equity_usd"] < 0.0 and name not in self.closing:
            self.say("nothing open and in debt", row)
        mark = {}
        exact = True
        for market in now.lots:
            low, high = self.replay.marks.at(row["time"], market)
            mark[market] = low
            exact = exact and low == high
        if exact:
            self._figures(row, self.replay.figures(now, mark))
        if name in self.seen:
            self._follows(row, before, now)
        self.seen.add(name)
        self._set_aside(row, now, mark if exact else None)
        closing = self.closing.get(name)
        if closing is not None and self._safe(closing, row, now, mark if exact else None):
            # for good: a later snapshot may be the look with which the next forced closing begins
            self.closing[name] = closing._replace(over=True)

    def _figures(self, row: Row, expected: Figures) -> None:
        for figure in FIGURES:
            wanted = getattr(expected, figure)
            if abs(row[figure] - wanted) > SLACK_USD + 1e-9 * abs(wanted):
                self.say(f"{figure} should be {wanted}", row)
        self.tried["figures"] += 1

    def _follows(self, row: Row, before: Held, now: Held) -> None:
        """A snapshot follows from the rows before it, but for what fund and venue pay in a forced closing."""
        self.tried["snapshots"] += 1
        if before.lots != now.lots:
            self.say("positions do not follow from fills", row, (before, now))
        extra = now.dollars() - before.dollars()
        for asset, held in before.amount.items():
            left = now.amount.get(asset, 0)
            if left < held:
                if now.lots:
                    self.say("pledged assets go while positions are open", row, (before, now))
                sold = (held - left) * self.replay.price[asset]
                extra -= min(max(extra, 0), int(sold))
        brought = [asset for asset in now.amount if asset not in before.amount]
        if brought and before.dollars() and before.lots:
            self.say("pledged assets appear", row, (before, now))
        if extra == 0:
            return
        dust = not now.lots and abs(extra) < CENT
        if row["account_id"] in self.closing and extra > 0:
            self.beyond += extra
        elif not dust:
            self.say("dollars do not follow from rows", row, (extra, before, now))

    def _set_aside(self, row: Row, now: Held, mark: dict[str, float] | None) -> None:
        name = row["account_id"]
        market, time = self.set_aside.pop(name, ("", 0))
        if market not in now.lots or row["time"] - time > MICRO or mark is None:
            return
        pool = next(
            p for p in self.replay.account(now, mark).pools() if p.positions[0].market.market == market
        )
        rate = max(pool.initial_margin_usd, now.initial_rate * pool.gross_notional_usd)
        if pool.collateral_usd < rate - SLACK_USD:
            self.say("an isolated position under initial margin when opened", row, market)
        self.tried["isolated initial margin"] += 1

    def _safe(self, closing: Closing, row: Row, now: Held, mark: dict[str, float] | None) -> bool:
        """Whether forced closing may end as the account stands."""
        if not any(market in now.lots for market in closing.markets):
            return True
        rule = self.rule
        if now.mode == "cross":
            needed = row["maintenance_margin_usd"] * (1.0 + rule.safety_share)
            return bool(row["collateral_usd"] >= needed - SLACK_USD)
        if mark is None:
            return True
        market = closing.markets[0]
        pool = next(
            p for p in self.replay.account(now, mark).pools() if p.positions[0].market.market == market
        )
        needed = max(pool.maintenance_margin_usd, now.maintenance_rate * pool.gross_notional_usd)
        return pool.collateral_usd >= needed * (1.0 + rule.safety_share) - SLACK_USD

    def _event(self, row: Row) -> None:
        name = row["account_id"]
        if row["kind"] == "liquidation":
            self._begins(row)
        elif row["kind"] == "negative_equity":
            if name not in self.closing:
                self.say("negative equity without forced closing", row)
            if not row["shortfall_usd"] > 0.0:
                self.say("negative equity without a shortfall", row)
        else:
            self._deleveraged(row)
        self.tried[row["kind"]] += 1

    def _begins(self, row: Row) -> None:
        """Just before it the account was looked at, and was under maintenance."""
        name = row["account_id"]
        self._moves_by_itself(row)
        table, look = self.last_row.get(name, ("", {}))
        if table != "account_snapshots" or look["time"] // MICRO != row["time"] // MICRO:
            self.say("forced closing begins without a look", row, (table, look))
            return
        held = self.replay.held[name]
        if held.mode == "cross":
            markets = tuple(held.lots)
            collateral, needed = look["collateral_usd"], look["maintenance_margin_usd"]
        else:
            market = row["market"]
            markets = (market,)
            notional = row["notional_usd"]
            side = 1.0 if held.lots[market] > 0 else -1.0
            collateral = (held.quote[market] + held.margin[market]) / MICRO + side * notional
            needed = self.replay.terms[market].maintenance_margin_usd(notional)
            needed = max(needed, held.maintenance_rate * notional)
        if not collateral <= needed + SLACK_USD:
            self.say("forced closing begins above maintenance", row, (collateral, needed))
        self.closing[name] = Closing(row, markets, False)

    def _deleveraged(self, row: Row) -> None:
        """It follows the winner's fill, when the fund could not have paid for one more lot."""
        name, market = row["account_id"], row["market"]
        table, fill = self.last_row.get(name, ("", {}))
        if table != "fills" or fill["kind"] != "deleverage" or fill["market"] != market:
            self.say("deleveraged without a fill", row, (table, fill))
            return
        terms = self.replay.terms[market]
        low, high = self.replay.marks.at(row["time"], market)
        size = abs(fill["quantity"])
        if not size * low * (1 - 1e-9) - SLACK_USD <= row["notional_usd"] <= size * high * (1 + 1e-9):
            self.say("what was deleveraged is not its fill at mark", row, (fill, low, high))
        # a lot costs the fund no more than it is worth at the worse of mark and price
        lot_usd = terms.lot_size * max(high, fill["price"], fill["price"] + row["shortfall_usd"] / size)
        if self.fund is not None and self.fund >= micro(1.1 * lot_usd):
            self.say("deleveraged while the fund could pay", row, self.fund)
        if row["shortfall_usd"] < 0.0:
            self.say("a shortfall below zero", row)

    def _fund(self, row: Row) -> None:
        balance = micro(row["balance_usd"])
        if balance < 0:
            self.say("the fund is in debt", row)
        change = micro(row["change_usd"] or 0.0)
        if self.fund is not None and balance != self.fund + change:
            self.say("the fund does not add up", row, self.fund)
        if row["reason"] == "negative_equity":
            self.fund_paid -= change
        self.fund = balance
        self.tried["fund"] += 1
