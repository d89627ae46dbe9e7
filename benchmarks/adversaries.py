"""Accounts that try to pay less margin for the same risk, beside honest ones that hold the same.

    python -m benchmarks.adversaries DATASET --model MODEL [--at TIME] [--json FILE]

Every attack is played on a copy of the venue as it stood then, with accounts of its own: rows are told to it
as a venue would tell them, and margin is asked of the accounts that result. Prints a line an attack: margin
in dollars of who is honest, of who attacks, and whether the attacker is asked no less.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import programs
from exchange.units import MINUTE_US
from features import catalog
from features import emit as figure
from features import events as ev
from features.depth import depth_within_usd
from features.state import State
from features.venue import Venue
from models.bundle import Bundle
from models.scorecard_text import markdown
from pipelines.replay import replay
from pipelines.store import Dataset
from pipelines.times import parse_time_us
from serving.batches import Columns
from serving.linked import score_linked
from serving.parts import BY_LIQUIDITY, STANDARD
from serving.scorer import Scorer

NOT_HERE = "not here"
"""The verdict where nobody can hold it in the service: it knows no owner but those that it is told, and takes
the venue's mark for the price."""

ROUNDING = 2e-6
"""Sums of the same dollars may be rounded up to another part per million, in each of two steps."""

WALLETS = (2, 19, 100)
"""Three accounts took JELLY apart, nineteen POPCAT, more than a hundred YFI."""


class Finding(NamedTuple):
    """One attack and what came of it."""

    attack: str
    compared: str
    honest_usd: float
    attacker_usd: float
    otherwise: str = "FAILS"  # the verdict if the attacker is asked less

    @property
    def verdict(self) -> str:
        """Whether the attacker is asked no less."""
        if self.attacker_usd >= self.honest_usd * (1.0 - ROUNDING):
            return "holds"
        return self.otherwise


class Stage:
    """A copy of a venue that rows are told to; prices stay as they are unless a scene moves them."""

    def __init__(self, venue: Venue, scorer: Scorer) -> None:
        self.venue = Venue.of(State(*(table.copy() for table in venue.state)), venue.names)
        self.scorer = scorer
        self.now_us = venue.now_us

    def tell(self, kind: int, key: int, sub: int = -1, *values: float) -> None:
        """One row, now."""
        columns = Columns()
        columns.add(kind, self.now_us, key, sub, values)
        self.venue.apply(columns.batch())

    def opened(self, name: str, owner: str | None = None, cash_usd: float = 0.0) -> str:
        """A new account, with money."""
        of = -1 if owner is None else self.venue.owner(owner)
        self.tell(ev.ACCOUNT, self.venue.account(name), of, float(self.now_us), 0.0)
        self.paid(name, cash_usd)
        return name

    def paid(self, name: str, amount_usd: float) -> None:
        """Money in, or out where it is negative."""
        self.tell(ev.TRANSFER, self.venue.account(name), -1, amount_usd)

    def traded(self, name: str, market: int, usd: float) -> None:
        """Bought at the mark for so many dollars, sold where they are negative; fees are left out."""
        mark = float(self.venue.state.market["mark"][market])
        self.tell(ev.FILL, self.venue.account(name), market, usd / mark, mark, 0.0, 0.0)

    def holding(self, name: str, balance: float, asset: int) -> None:
        """The account as it is, in a snapshot, with a balance besides."""
        row = self.venue.portfolio(self.venue.find_account(name)).position[0]
        mark = float(self.venue.state.market["mark"][row["market"]])
        key = self.venue.account(name)
        price = float(self.venue.state.asset["price"][asset])
        columns = Columns()
        columns.add(ev.SNAPSHOT, self.now_us, key, -1, (balance * price,))
        position = (float(row["quantity"]), mark, math.nan, math.nan)
        columns.add(ev.POSITION, self.now_us, key, int(row["market"]), position)
        columns.add(ev.BALANCE, self.now_us, key, asset, (balance,))
        self.venue.apply(columns.batch())

    def passed(self, minutes: int = 1, moves: dict[int, float] | None = None) -> None:
        """Minutes go by; marks move by these factors in equal steps, and books follow, as deep in dollars."""
        for _ in range(minutes):
            self.now_us += MINUTE_US
            for market in range(len(self.venue.market_names)):
                rows = self.venue.state.market
                mark = float(rows["mark"][market]) * (moves or {}).get(market, 1.0) ** (1.0 / minutes)
                self.tell(ev.BAR, market, -1, mark, mark)
                levels = int(rows["level_count"][market])
                if levels == 0:
                    continue
                told = [
                    rows[name][market][:levels].tolist() for name in ("distance", "bid_depth", "ask_depth")
                ]
                columns = Columns()
                columns.add(ev.BOOK, self.now_us, market, -1, (0.9999 * mark, 1.0001 * mark))
                for number, level in enumerate(zip(*told, strict=True)):
                    columns.add(ev.LEVEL, self.now_us, market, -1, (*level, float(number)))
                self.venue.apply(columns.batch())
            for asset in np.flatnonzero(self.venue.state.asset["price_time"] >= 0).tolist():
                self.tell(ev.ASSET_PRICE, asset, -1, float(self.venue.state.asset["price"][asset]))

    def flatten(self, market: int) -> None:
        """Give a market the rates of its first tier, whatever the size."""
        row = self.venue.state.market[market]
        rates = (float(row["initial_rate"][0]), float(row["maintenance_rate"][0]))
        terms = ("tick_size", "lot_size", "taker_fee_rate", "liquidation_fee_rate", "funding_interval_s")
        columns = Columns()
        columns.add(ev.MARKET, self.now_us, market, -1, [float(row[name]) for name in terms])
        columns.add(ev.TIER, self.now_us, market, -1, (math.inf, *rates, 0.0))
        self.venue.apply(columns.batch())

    def asked(self, *names: str) -> dict[str, float]:
        """Of these accounts as they enter: margin, cost of closing and equity in dollars, and the rate."""
        vectors = self.venue.vectors(self.venue.find_account(name) for name in names)
        vectors.figures[:, figure.ENTERS] = 1.0
        scores = score_linked(self.scorer, self.venue, vectors)
        gross = vectors.figures[:, figure.GROSS_NOTIONAL_USD]
        margin_usd = float((scores.initial_rate * gross).sum())
        return {
            "margin": margin_usd,
            "rate": margin_usd / float(gross.sum()),
            "closing": float(vectors.figures[:, figure.CLOSING_COST_USD].sum()),
            "equity": float(vectors.figures[:, figure.EQUITY_USD].sum()),
        }

    def margin_usd(self, *names: str) -> float:
        """Dollars of margin that are asked of these accounts."""
        return self.asked(*names)["margin"]


class Theatre(NamedTuple):
    """Where attacks are played: stages, a thin market, a deep one, and what the thin one's book takes."""

    stage: Callable[[], Stage]
    thin: int
    deep: int
    size_usd: float  # what the thin book takes within 1% of the mid
    liquid: Scorer  # with the cost of closing as a part of the margin


def theatre(venue: Venue, scorer: Scorer) -> Theatre:
    """The venue's markets by the depth of their books."""
    rows = venue.state.market
    depth = {
        market: depth_within_usd(
            100.0, rows["distance"][market], rows["bid_depth"][market], int(rows["level_count"][market])
        )
        for market in range(len(venue.market_names))
        if rows["level_count"][market] > 0 and rows["tier_count"][market] > 0
    }
    thin, deep = min(depth, key=depth.__getitem__), max(depth, key=depth.__getitem__)
    terms = STANDARD.copy()
    terms[BY_LIQUIDITY] = 1.0
    liquid = Scorer(scorer.bundle, terms)
    return Theatre(lambda: Stage(venue, scorer), thin, deep, float(depth[thin]), liquid)


# -- attacks


def splits(at: Theatre) -> Iterator[Finding]:
    """One position in many accounts of one owner, at sizes that fill a tier and the next ones."""
    for times in (0.2, 1.0, 5.0):
        stage = at.stage()
        usd = times * at.size_usd
        stage.opened("whole", "honest", usd)
        stage.traded("whole", at.thin, usd)
        honest = stage.margin_usd("whole")
        for wallets in WALLETS:
            names = [
                stage.opened(f"{wallets} {k}", f"splits {wallets}", usd / wallets) for k in range(wallets)
            ]
            for name in names:
                stage.traded(name, at.thin, usd / wallets)
            attack = f"split over {wallets} linked accounts"
            yield Finding(attack, f"one account, {times:g} x depth", honest, stage.margin_usd(*names))
        names = [stage.opened(f"alone {k}", None, usd / 100) for k in range(100)]
        for name in names:
            stage.traded(name, at.thin, usd / 100)
        attack = "split over 100 accounts that nobody links"
        yield Finding(attack, f"one account, {times:g} x depth", honest, stage.margin_usd(*names), NOT_HERE)


def split_markets(at: Theatre) -> Iterator[Finding]:
    """The thin and the deep position of one account in an account each; and one that cannot be judged."""
    stage = at.stage()
    held = {at.thin: at.size_usd, at.deep: -at.size_usd}
    stage.opened("whole", "honest", at.size_usd)
    names = []
    for market, usd in held.items():
        stage.traded("whole", market, usd)
        names.append(stage.opened(f"of {market}", "by market", at.size_usd))
        stage.traded(names[-1], market, usd)
    honest = stage.margin_usd("whole")
    yield Finding("an account a market", "one account of both", honest, stage.margin_usd(*names))
    stage = at.stage()
    dark = stage.venue.market("DARK")
    stage.tell(ev.BAR, dark, -1, 1.0, 1.0)  # has a mark and nothing else
    stage.opened("whole", "honest", at.size_usd)
    stage.traded("whole", at.thin, at.size_usd)
    names = [stage.opened(f"half {k}", "halves", 0.5 * at.size_usd) for k in range(2)]
    for name in names:
        stage.traded(name, at.thin, 0.5 * at.size_usd)
    blind = stage.opened("blind", "halves", 100.0)
    stage.traded(blind, dark, 1.0)
    attack = "split over 2, and one in a market without a book"
    yield Finding(attack, "one account", stage.margin_usd("whole"), stage.margin_usd(*names))


def washes(at: Theatre) -> Iterator[Finding]:
    """Trades with oneself, and money in and out again, before margin is asked."""
    for attack in ("200 wash trades", "200 deposits withdrawn again"):
        stage = at.stage()
        for name in ("idle", "busy", "other"):
            stage.opened(name, None if name == "idle" else "washes", 0.3 * at.size_usd)
            stage.traded(name, at.thin, 0.5 * at.size_usd if name != "other" else 1.0)
        for _ in range(200):
            if attack == "200 wash trades":
                for usd in (at.size_usd, -at.size_usd):
                    stage.traded("busy", at.thin, usd)
                    stage.traded("other", at.thin, -usd)
            else:
                stage.paid("busy", 10.0 * at.size_usd)
                stage.passed()
                stage.paid("busy", -10.0 * at.size_usd)
        yield Finding(attack, "who does nothing", stage.margin_usd("idle"), stage.margin_usd("busy"))


def profits(at: Theatre) -> Iterator[Finding]:
    """A small position whose price runs, and what is added against its profit."""
    stage = at.stage()
    usd = 0.2 * at.size_usd
    stage.opened("rider", "rides", 0.3 * usd)
    stage.traded("rider", at.thin, usd)
    stage.passed(30, {at.thin: 1.5})
    equity_usd = stage.asked("rider")["equity"]
    stage.opened("fresh", "honest", equity_usd)
    stage.traded("fresh", at.thin, 1.5 * usd)
    yield Finding(
        "a position with half its price in profit", "the same bought now, equity in cash",
        stage.margin_usd("fresh"), stage.margin_usd("rider"),
    )  # fmt: skip
    for name in ("fresh", "rider"):
        stage.traded(name, at.thin, at.size_usd)
    fresh = stage.margin_usd("fresh")
    yield Finding("adds against the profit", "the same, equity in cash", fresh, stage.margin_usd("rider"))
    stage.paid("rider", -0.5 * equity_usd)
    yield Finding("withdraws half of it", "the same before", fresh, stage.margin_usd("rider"))


def pushes(at: Theatre) -> Iterator[Finding]:
    """The mark of a thin market pushed to 13 times its price in 30 minutes by whoever is long of it."""
    for schedule, times in (("", 1.0), (", schedule of one tier", 1.0), (", schedule of one tier", 5.0)):
        stage = at.stage()
        if schedule:
            stage.flatten(at.thin)
        usd = times * at.size_usd
        stage.opened("pusher", "pushes", usd)
        stage.traded("pusher", at.thin, usd)
        before = stage.margin_usd("pusher")
        stage.passed(30, {at.thin: 13.0})
        after = stage.asked("pusher")
        margin = after["margin"]
        size = f"{times:g} x depth{schedule}"
        yield Finding(f"mark pushed to 13 times, {size}", "the same quantity before", before, margin)
        stage.opened("fresh", "honest", 13.0 * usd)
        stage.traded("fresh", at.thin, 13.0 * usd)
        yield Finding(f"after it, {size}", "as much bought now for cash", stage.margin_usd("fresh"), margin)
        out = f"takes out what is free, {size}"
        yield Finding(out, "closing in the book", after["closing"], margin, "needs liquidity")
        stage.scorer = at.liquid
        yield Finding(
            f"{out}, liquidity on", "closing in the book", after["closing"], stage.margin_usd("pusher")
        )
        back = f"and the mark comes back, {size}"
        yield Finding(back, "the loss then", 12.0 * usd, margin, NOT_HERE)


def squeezes(at: Theatre) -> Iterator[Finding]:
    """Two long accounts and a short one of one owner; the short one is emptied."""
    stage = at.stage()
    names = [stage.opened(name, "squeezes", at.size_usd) for name in ("short", "long 1", "long 2")]
    for name, share in zip(names, (-1.0, 0.5, 0.5), strict=True):
        stage.traded(name, at.thin, share * at.size_usd)
    before = stage.margin_usd("short")
    for name, share in (("one short", -1.0), ("one long", 1.0)):
        stage.opened(name, None, at.size_usd)
        stage.traded(name, at.thin, share * at.size_usd)
    honest = stage.margin_usd("one short", "one long")
    yield Finding(
        "two long and one short, linked", "one long and one short", honest, stage.margin_usd(*names)
    )
    stage.paid("short", -0.9 * at.size_usd)
    yield Finding("the short one is emptied", "the same before", before, stage.margin_usd("short"))


def depegs(at: Theatre) -> Iterator[Finding]:
    """Collateral in a coin that trades at 0.65 on one venue."""
    stage = at.stage()
    coin = stage.venue.asset("COIN")
    stage.tell(ev.ASSET, coin, -1, 0.95, 1.05)
    stage.tell(ev.ASSET_PRICE, coin, -1, 1.0)
    stage.passed(30)
    for name in ("in coin", "in cash"):
        stage.opened(name, None, at.size_usd)
        stage.traded(name, at.deep, at.size_usd)
    stage.holding("in coin", at.size_usd, coin)
    before = stage.margin_usd("in coin")
    cash = stage.margin_usd("in cash")
    yield Finding("collateral in a coin", "the same with cash", cash, before)
    stage.now_us += MINUTE_US
    stage.tell(ev.ASSET_PRICE, coin, -1, 0.65)
    yield Finding("the coin trades at 0.65", "the same before", before, stage.margin_usd("in coin"))


ATTACKS: Sequence[Callable[[Theatre], Iterator[Finding]]] = (
    splits, split_markets, washes, profits, pushes, squeezes, depegs,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adversaries", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--at", help="when (default: the end of the dataset)")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args(arguments)

    def work() -> dict[str, Any]:
        dataset = Dataset.open(options.dataset)
        at_us = dataset.meta.end_us if options.at is None else parse_time_us(options.at, "--at")
        _, _, venue = next(replay(dataset, np.array([at_us])))
        scorer = Scorer(Bundle.open(options.model, catalog.fingerprint()))
        where = theatre(venue, scorer)
        found = [finding for attack in ATTACKS for finding in attack(where)]
        told = {"market": venue.market_names[where.thin], "depth_usd": where.size_usd}
        print(f"thin market: {told['market']}, {where.size_usd:,.0f} USD within 1% of the mid")
        print(table(found))
        return {**told, "attacks": [{**one._asdict(), "verdict": one.verdict} for one in found]}

    return programs.finish(work, options.json)


def table(found: Sequence[Finding]) -> str:
    """A line an attack."""
    lines = [["attack", "beside", "honest, USD", "attacker, USD", "verdict"]]
    lines += [
        [one.attack, one.compared, f"{one.honest_usd:,.0f}", f"{one.attacker_usd:,.0f}", one.verdict]
        for one in found
    ]
    return markdown(lines)


if __name__ == "__main__":
    sys.exit(main())
