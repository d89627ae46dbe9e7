from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.simulation.ledger import pool
from exchange.simulation.state import AGENDA_MINUTE, AT_MARK, AT_WORST, DUE_QUEUE, NIL, NONE
from exchange.simulation.watch import (
    AGENDA,
    BUCKETS,
    LEVELS,
    bucket_of,
    collect_due,
    enlist,
    make_all_due,
    next_level,
    unhang,
    unlist,
    watch,
    would_be_closed,
)  # fmt: skip
from tests.exchange.simulation.stage import Stage

law = settings(deadline=None, max_examples=40)
MARKETS = 3
Step = tuple[tuple[float, float, float], float]


def pools(stage: Stage, account: int) -> list[int]:
    """Pools of an account: the markets of an isolated one, else the whole."""
    if stage.world.account["isolated"][account]:
        return [market for market in range(MARKETS) if stage.lots(account)[market]]
    return [int(NONE)]


def ratios(stage: Stage, account: int) -> list[float]:
    """Collateral over maintenance of every pool, by brute force."""
    found = []
    for only in pools(stage, account):
        _, collateral, _, maintenance, gross, _ = pool(stage.world, account, np.int64(only), AT_MARK)
        found.append(collateral / maintenance if gross > 0.0 else math.inf)
    return found or [math.inf]


def due(stage: Stage, worst: Any = AT_MARK) -> list[int]:
    count = collect_due(stage.world, worst)
    return [int(account) for account in stage.world.queue[DUE_QUEUE, :count]]


@st.composite
def crowds(draw: st.DrawFn) -> Stage:
    """Twelve traders, every third isolated, with positions against account 12, who has plenty."""
    stage = Stage([draw(st.floats(5.0, 400.0)) for _ in range(12)] + [1e9], range(0, 12, 3), markets=MARKETS)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rated = draw(st.booleans())
    for account in range(12):
        for market in range(MARKETS):
            if rng.random() < 0.5:
                usd = rng.uniform(0.1, 0.9) * stage.cash_usd(account)
                if account % 3 == 0:
                    stage.set_aside(account, market, usd / 2)
                lots = max(int(usd * rng.uniform(0.2, 6.0)), 1) * rng.choice([-1, 1])
                stage.fill(account, 12, market, int(lots), 100.0 / 10**market)
        if account % 3 == 1:
            stage.world.amount[account, 1:] = rng.integers(0, 10**8, 2)
            stage.world.asset["price"][1:] = 1.0
        if rated and account % 2:
            stage.world.account["maintenance_rate"][account] = rng.uniform(0.0, 0.3)
    for market in range(MARKETS):
        stage.mark(market, 100.0 / 10**market)
    stage.settle_rings()
    for asset in (1, 2):
        stage.world.ring[MARKETS + asset, 0, BUCKETS] = bucket_of(1.0)
    for account in range(13):
        watch(stage.world, account)
    return stage


def move(stage: Stage, steps: tuple[float, ...], peg: float) -> None:
    for market in range(MARKETS):
        stage.mark(market, max(float(stage.world.market["mark"][market]) * math.exp(steps[market]), 1e-3))
    stage.world.asset["price"][1:] *= peg


walks = st.lists(
    st.tuples(
        st.tuples(*[st.sampled_from([0.0, 1e-4, -1e-4, 0.004, -0.004, 0.05, -0.08, 0.4, -0.6])] * 3),
        st.sampled_from([1.0, 1.0, 0.999, 0.7, 1.01]),
    ),
    min_size=1,
    max_size=10,
)  # fmt: skip


@law
@given(crowds(), walks)
def test_nobody_falls_below_the_next_level_unseen(stage: Stage, walk: list[Step]) -> None:
    seen = {account: ratios(stage, account) for account in range(12)}
    for steps, peg in walk:
        move(stage, steps, peg)
        found = due(stage)
        assert len(set(found)) == len(found)
        for account in range(12):
            now = ratios(stage, account)
            if account in found:
                continue
            for before, ratio in zip(seen[account], now, strict=True):
                # a pool at or below 1 is closed by force, and hangs nowhere
                assert before <= 1.0 or ratio > next_level(before) - 1e-9
        for account in found:
            told = watch(stage.world, account)
            if account < 12:
                seen[account] = ratios(stage, account)
                assert told == min(seen[account])


@law
@given(crowds(), walks, st.lists(st.floats(0.0, 0.5), min_size=7, max_size=7))
def test_no_minute_is_taken_for_calm_in_which_somebody_could_be_closed(
    stage: Stage, walk: list[Step], away: list[float]
) -> None:
    world = stage.world
    # who is under maintenance is closed by force, and hangs nowhere
    closing = {account for account in range(12) if min(ratios(stage, account)) <= 1.0}
    for steps, peg in walk:
        move(stage, steps, peg)
        for account in due(stage):
            if watch(world, account) <= 1.0:
                closing.add(account)
    for account in closing:
        unhang(world, account)
    world.market["worst_low"] = world.market["mark"] * (1 - np.array(away[:3]) ** 2)
    world.market["worst_high"] = world.market["mark"] * (1 + np.array(away[3:6]) ** 2)
    world.asset["worst"] = world.asset["price"] * (1 - away[6] ** 2)
    world.asset["worst"][0] = 1.0
    fall = []
    for account in set(range(12)) - closing:
        for only in pools(stage, account):
            _, collateral, _, maintenance, _, _ = pool(world, account, np.int64(only), AT_WORST)
            if collateral < maintenance:
                fall.append(account)
    assert would_be_closed(world) == bool(fall)


def chain(stage: Stage, series: int, side: int) -> dict[int, int]:
    """Accounts in a ring and their buckets, with the links between them checked in both directions."""
    found: dict[int, int] = {}
    place = 2 * series + side
    for slot in range(BUCKETS):
        previous, account = -1, int(stage.world.ring[series, side, slot])
        while account >= 0:
            node = stage.world.node[account, place]
            assert node["previous"] == previous and account not in found
            assert node["bucket"] % BUCKETS == slot
            found[account] = int(node["bucket"])
            previous, account = account, int(node["following"])
    return found


@settings(deadline=None, max_examples=8)
@given(crowds(), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=30))
def test_rings_hold_who_is_watched_and_nobody_else(stage: Stage, acts: list[tuple[int, int]]) -> None:
    gone: set[int] = set()
    for account, act in acts:
        if act == 0:
            unhang(stage.world, account)
            gone.add(account)
        else:
            if act == 1:
                watch(stage.world, account)
            else:
                make_all_due(stage.world, np.array([account]))
            gone.discard(account)
    for series in range(MARKETS + 3):
        for side in range(2):
            found = chain(stage, series, side)
            marked = (stage.world.account["watched"] >> np.uint64(2 * series + side)) & np.uint64(1)
            assert set(found) == set(np.flatnonzero(marked).tolist())
            assert not gone & set(found)
            if series < MARKETS:
                for account in found:
                    assert stage.lots(account)[series] != 0


def test_who_is_made_due_is_found_whatever_prices_do() -> None:
    for factor in (1.0, 0.9, 1.1):
        stage = Stage([1e6, 1e6])
        stage.fill(0, 1, 0, 10, 100.0)
        stage.settle_rings()
        watch(stage.world, 0)
        watch(stage.world, 1)
        stage.mark(0, 100.0 * factor)
        assert due(stage) == []
        make_all_due(stage.world, np.array([0]))
        stage.mark(0, 100.0 * factor**2)
        assert due(stage) == [0]


def test_levels_go_down_to_forced_closing() -> None:
    for ratio in (0.5, 1.0, 1.01, 1.2, 1.3, 2.5, 3.0, 99.0):
        below = [level for level in LEVELS if level < ratio]
        assert next_level(ratio) == (max(below) if below else 1.0)


@law
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["list", "unlist", "pass"]), st.integers(0, 700_000)),
        max_size=40,
    )
)
def test_the_agenda_holds_everybody_once_and_never_in_the_past(acts: list[tuple[int, str, int]]) -> None:
    stage = Stage([1.0] * 5)
    world = stage.world
    listed: dict[int, int] = {}
    world.clock[AGENDA_MINUTE] = start = 20
    world.account["minute"] = -1
    world.agenda[:] = -1
    for account, act, number in acts:
        if act == "list":
            enlist(world, account, number)
            listed[account] = min(max(number // 60, start), start + AGENDA - 2)
            assert world.account["next_s"][account] == number
        elif act == "unlist":
            unlist(world, account)
            listed.pop(account, None)
    found = {}
    for slot in range(AGENDA):
        account = int(world.agenda[slot])
        while account >= 0:
            assert account not in found and world.account["minute"][account] % AGENDA == slot
            found[account] = int(world.account["minute"][account])
            account = int(world.account["next_link"][account])
    assert found == listed
    assert all(world.account["minute"][account] == listed.get(account, -1) for account in range(5))


def test_what_is_due_is_told_once_a_step() -> None:
    stage = Stage([30.0, 1e6], markets=3)
    for market in range(3):
        stage.fill(0, 1, market, 100, 100.0 / 10**market)
    stage.settle_rings()
    watch(stage.world, 0)
    for market in range(3):
        stage.mark(market, 85.0 / 10**market)
    assert due(stage) == [0]
    assert due(stage) == []
    assert NIL == 0
