"""Books, marks and prices that are missing, odd or old: whoever lacks them never gets relief for it.

A venue of a few dozen accounts lives on; before each look its markets' books, marks and the price of what
is pledged are made fresh, odd, or exactly a millisecond younger or older than their lifetimes. An oracle of a
few lines says which accounts must fall back.
"""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any, NamedTuple

import pytest

from exchange.units import PPM, SECOND_US
from features import catalog
from features.arithmetic import BOOK_LIFETIME_US
from models.bundle import Bundle
from serving.engine import Engine
from serving.judgement import BOOK_LIFETIME_S, MARK_LIFETIME_S, PRICE_LIFETIME_S
from serving.scorer import Scorer
from serving.wire import BatchRequest, to_us
from tests.serving import stories as tell
from tests.serving.plain_models import REQUIRED, write_model
from tests.serving.stories import START, Event, send

MARKS = {"BTC": 60_000.0, "SOL": 100.0}
BOOKS = ("usual", "empty", "no bids", "no asks", "nothing on either side", "crossed", "touching", "frozen")
ACCOUNTS = 48
MS = 0.001
AGES = (0.0, 1.0, 3_600.0 - MS, 3_600.0, 3_600.0 + MS, 5_000.0)
"""Seconds since an input; those of 3,600 are a millisecond about its lifetime."""


def test_lifetimes_are_an_hour() -> None:
    assert MARK_LIFETIME_S == PRICE_LIFETIME_S == BOOK_LIFETIME_S == BOOK_LIFETIME_US / SECOND_US == 3_600.0


class Look(NamedTuple):
    """How old everything is at a look, in seconds by the newest event; books by what they are."""

    book: dict[str, tuple[str, float]]
    mark: dict[str, float]
    price: float


class Holder(NamedTuple):
    """An account of the venue."""

    name: str
    positions: dict[str, float]
    pledges: bool
    in_force: float | None


def holders(chance: Random) -> list[Holder]:
    made = []
    for number in range(ACCOUNTS):
        markets = chance.choice([["BTC"], ["SOL"], ["BTC", "SOL"]])
        sizes = {name: chance.choice([-1, 1]) * chance.uniform(10, 90_000) / MARKS[name] for name in markets}
        rate = chance.choice([None, None, 0.02, 0.11, 0.3, 0.77, 0.123456789])
        made.append(Holder(f"acc-{number}", sizes, chance.random() < 0.5, rate))
    return made


def beginning(accounts: list[Holder], chance: Random) -> list[Event]:
    """The venue with its accounts, and prices for long enough that volatilities are known."""
    events = [tell.market(name, 0) for name in MARKS] + [tell.asset("ETH"), tell.price(0, 2_000.0)]
    for holder in accounts:
        mode = "cross" if holder.pledges or chance.random() < 0.7 else "isolated"
        events.append(tell.account(holder.name, 0, mode))
    for minute in range(1, 300, 5):
        events += [
            tell.bar(minute, mark * chance.uniform(0.998, 1.002), name) for name, mark in MARKS.items()
        ]
        events.append(tell.price(minute, 2_000.0 * chance.uniform(0.998, 1.002)))
    for holder in accounts:
        gross = sum(abs(size) * MARKS[name] for name, size in holder.positions.items())
        positions = [
            {"market": name, "quantity": size, "entry_price": MARKS[name],
             "isolated_collateral_usd": abs(size) * MARKS[name] * 0.2}
            for name, size in holder.positions.items()
        ]  # fmt: skip
        balances = [{"asset": "USD", "amount": gross}]
        if holder.pledges:
            balances.append({"asset": "ETH", "amount": gross / 20_000.0})
        if holder.in_force is not None:
            events.append(tell.rate(300, holder.name, holder.in_force, holder.in_force / 2))
        events.append(
            tell.snapshot(300, holder.name, gross * chance.uniform(0.12, 0.6), positions=positions,
                          balances=balances)
        )  # fmt: skip
    return sorted(events, key=lambda event: str(event.get("time", event.get("opened_time", tell.at(0)))))


def odd_book(kind: str, minutes: float, market: str) -> Event:
    """A book of one of the kinds."""
    book = tell.book(minutes, MARKS[market], market)
    empty = [0.0, 0.0, 0.0]
    match kind:
        case "empty":
            return book | {"distance_bps": [], "bid_usd": [], "ask_usd": []}
        case "no bids":
            return book | {"bid_usd": empty}
        case "no asks":
            return book | {"ask_usd": empty}
        case "nothing on either side":
            return book | {"bid_usd": empty, "ask_usd": empty}
        case "crossed":
            return book | {"best_bid": book["best_ask"], "best_ask": book["best_bid"]}
        case "touching":
            return book | {"best_bid": MARKS[market], "best_ask": MARKS[market]}
    return book


def made(chance: Random, minutes: float) -> tuple[list[Event], Look]:
    """What happens before a look at `minutes`, in order, and how old it all is then."""
    books, marks, events = {}, {}, []
    for market, usual in MARKS.items():
        kind = chance.choice(BOOKS)
        age = chance.choice(AGES[2:]) if kind == "frozen" else chance.choice(AGES)
        books[market] = (kind, age)
        events.append((age, odd_book(kind, minutes - age / 60, market)))
        marks[market] = chance.choice([0.0, 0.0, *AGES])
        mark = usual * chance.uniform(0.999, 1.001)
        events.append((marks[market], tell.bar(minutes - marks[market] / 60, mark, market)))
    price = chance.choice([0.0, 0.0, *AGES])
    events.append((price, tell.price(minutes - price / 60, 2_000.0)))
    events.append((0.0, {"table": "observations", "time": tell.at(minutes)}))
    kinds = ("asset_prices", "market_bars", "book_depth", "observations")  # the order of rows of one time
    events.sort(key=lambda pair: (-pair[0], kinds.index(pair[1]["table"]), str(pair[1].get("market"))))
    return [event for _, event in events], Look(books, marks, price)


def too_old(age_s: float) -> bool:
    return age_s > 3_600.0


def expected(holder: Holder, look: Look, is_cross: bool, behind_s: float) -> set[str]:
    """Why an account may fall back; empty if it must not. `behind_s`: the clock runs ahead of the events."""
    why = set()
    for market in holder.positions:
        kind, age = look.book[market]
        if kind in ("empty", "crossed") or too_old(age):
            why.add("missing_slippage_to_close_bps")
        elif too_old(age + behind_s):
            why.add("stale_book")
        if too_old(look.mark[market] + behind_s):
            why.add("stale_mark")
    if "missing_slippage_to_close_bps" in why:  # then closing has no known cost that could be out of date
        why.discard("stale_book")
    if holder.pledges and is_cross and too_old(look.price + behind_s):
        why.add("stale_asset_price")
    return why


def hold(scorer: Scorer, cases: int, seed: int, needs_book: bool) -> Counter[str]:
    """Look at a venue until so many answers were checked; how many fell back, by reason."""
    chance = Random(seed)
    accounts = holders(chance)
    now_us = 0
    engine = Engine(scorer, clock=lambda: now_us)
    now_us = to_us(START) + 10**15  # whatever comes is not from the future
    send(engine, beginning(accounts, chance))
    cross = {holder.name: engine.account(holder.name).margin_mode == "cross" for holder in accounts}
    found: Counter[str] = Counter()
    minutes = 300.0
    while found.total() < cases:
        minutes += 200.0
        events, look = made(chance, minutes)
        now_us = to_us(START) + 10**15
        send(engine, events)
        newest_us = engine.venue.now_us
        behind_s = chance.choice([0.0, 0.0, *AGES])
        now_us = newest_us + round(behind_s * SECOND_US)
        answers = engine.score_batch(BatchRequest([holder.name for holder in accounts])).answers
        for holder, answer in zip(accounts, answers, strict=True):
            place = (holder, look, behind_s, answer)
            why = expected(holder, look, cross[holder.name], behind_s)
            known_book = not {"missing_slippage_to_close_bps", "stale_book"} & why
            if not needs_book:
                why.discard("missing_slippage_to_close_bps")
            assert answer.fallback_reason in (why or {None}), place
            static, margin = answer.static_initial_margin_rate, answer.initial_margin_rate
            assert static is not None and margin is not None, place
            stands = max(static, holder.in_force or 0.0)
            assert static <= margin <= max(static, 1.0), place
            if why:
                assert answer.status == "fallback", place
                assert stands <= margin < stands + 1.0 / PPM, place
            elif not known_book:
                assert margin >= stands, place
            assert answer.expected_loss_usd is None or answer.expected_loss_usd >= 0.0, place
            found[answer.fallback_reason or ("ok" if known_book else "ok without a book")] += 1
    return found


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Scorer]:
    """A model that needs the book, and one that does not."""
    found = {}
    for needs_book in (True, False):
        folder = tmp_path_factory.mktemp("model") / "model"
        write_model(folder, required=REQUIRED if needs_book else ())
        found[needs_book] = Scorer(Bundle.open(folder, catalog.fingerprint()))
    return found


@pytest.mark.parametrize("needs_book", [True, False])
def test_what_is_missing_or_old_never_earns_relief(scorers: dict[bool, Scorer], needs_book: bool) -> None:
    found = hold(scorers[needs_book], 2_000, 1, needs_book)
    reasons = {"ok", "stale_mark", "stale_asset_price", "stale_book"}
    assert set(found) == reasons | {"missing_slippage_to_close_bps" if needs_book else "ok without a book"}


@pytest.mark.slow
@pytest.mark.parametrize("needs_book", [True, False])
def test_what_is_missing_or_old_never_earns_relief_in_10_000_cases(
    scorers: dict[bool, Scorer], needs_book: bool
) -> None:
    print(dict(hold(scorers[needs_book], 10_000, 2, needs_book)))


def test_a_millisecond_decides(scorers: dict[bool, Scorer]) -> None:
    """Each input alone, by the events' clock and by the machine's."""
    for what in ("mark", "price", "book"):
        for by_clock in (False, True):
            for late_ms in (-1, 0, 1):
                assert reason(scorers[True], what, by_clock, late_ms) == (
                    None if late_ms <= 0 else REASON[what][by_clock]
                ), (what, by_clock, late_ms)


REASON = {
    "mark": ("stale_mark", "stale_mark"),
    "price": ("stale_asset_price", "stale_asset_price"),
    "book": ("missing_slippage_to_close_bps", "stale_book"),
}


def reason(scorer: Scorer, what: str, by_clock: bool, late_ms: int) -> str | None:
    """Why an account falls back when one input is so much older than its lifetime."""
    chance = Random(3)
    holder = Holder("one", {"BTC": 0.5}, True, 0.3)
    now_us = to_us(START) + 10**15
    engine = Engine(scorer, clock=lambda: now_us)
    age_s = 3_600.0 + late_ms / 1_000
    behind_s = age_s - 1_000.0 if by_clock else 0.0  # the events end so long before
    looked = 500.0 - behind_s / 60
    last = 500.0 - age_s / 60
    inputs: list[tuple[str, Any]] = [
        ("price", lambda at: tell.price(at, 2_000.0)),
        ("mark", lambda at: tell.bar(at, 60_000.0)),
        ("book", lambda at: tell.book(at, 60_000.0)),
    ]
    events = beginning([holder], chance)
    for name, event in inputs:
        if name == what:
            events.append(event(last))
    events += [event(looked) for name, event in inputs if name != what]
    events.append({"table": "observations", "time": tell.at(looked)})
    send(engine, events)
    now_us = to_us(START) + 500 * 60 * SECOND_US
    answer = engine.score(tell.question("one"))
    assert math.isclose(answer.initial_margin_rate or 0.0, 0.3) or answer.status == "ok"
    return answer.fallback_reason
