from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.deleveraging import (
    AT_BANKRUPTCY,
    AT_MARK,
    AT_PREVIOUS_ORACLE,
    BINANCE,
    BITMEX,
    HYPERLIQUID,
    PRO_RATA,
    PROFIT_LEVERAGE,
    RANDOM,
    rank,
    take_pro_rata,
)  # fmt: skip
from exchange.simulation.closing import _deleverage, _make_ranking
from exchange.simulation.state import DELEVERAGE, FEES, LOGGED, MICRO, NOW_S, RANK
from tests.exchange.simulation.stage import Stage
from tests.exchange.simulation.worlds import CALM

law = settings(deadline=None, max_examples=40)
LOSER, WINNERS = 0, range(1, 9)
HOUSE = 9
"""An account with plenty, that took the other side when positions were opened."""


@st.composite
def queues(draw: st.DrawFn, ranking: st.SearchStrategy[int]) -> tuple[Stage, int]:
    """A long or short loser without equity, and eight on the other side with profits, losses or neither."""
    stage = Stage(
        [10.0] + [draw(st.floats(20.0, 3_000.0)) for _ in WINNERS] + [1e9],
        isolated=[account for account in WINNERS if draw(st.booleans())],
        settings=CALM.settings._replace(
            deleveraging=draw(ranking), deleveraging_price=draw(st.integers(0, 2)), ranking_s=1e6
        ),
    )  # fmt: skip
    side = draw(st.sampled_from([1, -1]))
    stage.fill(LOSER, HOUSE, 0, side * draw(st.integers(1, 4_000)), 100.0)
    for account in WINNERS:
        if stage.world.account["isolated"][account]:
            stage.set_aside(account, 0, stage.cash_usd(account) * 0.7)
        stage.fill(account, HOUSE, 0, -side * draw(st.integers(1, 500)), draw(st.floats(60.0, 150.0)))
        if draw(st.booleans()):
            if stage.world.account["isolated"][account]:
                stage.set_aside(account, 1, stage.cash_usd(account) * 0.7)
            stage.fill(account, HOUSE, 1, draw(st.integers(-400, 400).filter(bool)), 10.0)
    stage.mark(0, 100.0 - side * 15.0)
    stage.world.market["previous_oracle"][0] = 100.0 - side * 12.0
    stage.clear()
    return stage, side


def score(stage: Stage, account: int, ranking: int) -> float:
    """An account's rank by the books: from its record alone."""
    record = stage.account(account)
    position = next(p for p in record.positions if p.market.market == "M0")
    pool = next(p for p in record.pools() if position in p.positions)
    row = stage.world.position[account]
    wallet = pool.equity_usd
    for each in pool.positions:
        market = int(each.market.market[1:])
        wallet -= each.notional_usd - int(row["cost"][market]) / MICRO
    entry = int(row["cost"][0]) / MICRO / position.quantity
    return rank(
        ranking, position.quantity, entry, position.mark, pool.equity_usd, wallet,
        pool.maintenance_margin_usd, pool.gross_notional_usd, record.bankruptcy_price("M0"), 0.5,
    )  # fmt: skip


@law
@given(queues(st.sampled_from([BITMEX, HYPERLIQUID, BINANCE, PRO_RATA, PROFIT_LEVERAGE])))
def test_the_queue_is_by_rank_and_those_on_no_list_come_last(drawn: tuple[Stage, int]) -> None:
    stage, side = drawn
    ranking = int(stage.world.settings["deleveraging"][0])
    count = _make_ranking(stage.world, 0, side)
    ranks = stage.world.scratch[RANK, :count]
    entry = stage.world.ranking[0, 0 if side > 0 else 1]
    who = [int(account) for account in entry[3 : 3 + entry[1]]]
    others = [a for a in range(HOUSE + 1) if a != LOSER and stage.lots(a)[0] * side < 0]
    assert sorted(who) == sorted(others) and entry[2] == 0
    expected = [score(stage, account, ranking) for account in who]
    known = [value for value in expected if not math.isnan(value)]
    assert known == pytest.approx(sorted(known, reverse=True), rel=1e-9, abs=1e-12)
    assert all(math.isnan(value) for value in expected[len(known) :])
    assert ranks[: len(known)] == pytest.approx(known, rel=1e-9, abs=1e-12)


def test_by_lot_everybody_may_come_first_and_a_second_draws_anew() -> None:
    first = set()
    for second in range(60):
        stage = Stage([10.0] + [1e4] * 4 + [1e9], settings=CALM.settings._replace(deleveraging=RANDOM))
        for account in range(1, 5):
            stage.fill(account, 5, 0, -10, 100.0)
        stage.world.clock[NOW_S] = second
        _make_ranking(stage.world, 0, 1)
        again = stage.world.ranking[0, 0].copy()
        _make_ranking(stage.world, 0, 1)
        assert (again == stage.world.ranking[0, 0]).all()
        first.add(int(again[3]))
    assert first == {1, 2, 3, 4}


def deleveraged(stage: Stage) -> dict[int, int]:
    """Lots taken from each winner, in the order in which they were."""
    fills = stage.world.log[: stage.world.clock[LOGGED]]
    taken: dict[int, int] = {}
    for row in fills[(fills["table"] == 0) & (fills["kind"] == DELEVERAGE)]:
        taken[int(row["account"])] = taken.get(int(row["account"]), 0) + abs(int(row["a"]))
    return taken


def go(stage: Stage, lots: int) -> tuple[int, int]:
    """Deleverage `lots` of the loser; its bankruptcy price in ticks, and lots closed."""
    before = stage.lots(LOSER)[0]
    side = 1 if before > 0 else -1
    limit = 10_000 - side * 800
    stage.world.account["closing"][LOSER] = -1
    _deleverage(stage.world, LOSER, 0, lots, limit)
    return limit, abs(before - stage.lots(LOSER)[0])


@law
@given(
    queues(st.sampled_from([BITMEX, HYPERLIQUID, BINANCE, RANDOM, PRO_RATA, PROFIT_LEVERAGE])),
    st.floats(0.01, 1.0),
)
def test_what_is_closed_against_winners_is_booked_twice_and_told(
    drawn: tuple[Stage, int], share: float
) -> None:
    stage, side = drawn
    held = abs(stage.lots(LOSER)[0])
    lots = math.ceil(held * share)
    before = {account: stage.account(account).equity_usd for account in WINNERS}
    sizes = {account: abs(stage.lots(account)[0]) for account in WINNERS}
    limit, closed = go(stage, lots)
    taken = deleveraged(stage)
    assert sum(taken.values()) == closed <= lots
    assert stage.balanced()
    assert all(taken[account] <= sizes.get(account, 10**9) for account in taken)
    mark_ticks = round(float(stage.world.market["mark"][0]) * 100)
    kind = int(stage.world.settings["deleveraging_price"][0])
    ticks = {AT_BANKRUPTCY: limit, AT_MARK: mark_ticks, AT_PREVIOUS_ORACLE: 10_000 - side * 1_200}[kind]
    each = side * (ticks - mark_ticks) * 100  # micro-dollars that a winner gives up a lot
    for account in WINNERS:
        lost = taken.get(account, 0) * each / MICRO
        assert stage.account(account).equity_usd == pytest.approx(before[account] - lost, abs=1e-5)
    # the venue answers for the rest of the way to the bankruptcy price
    assert -int(stage.world.purse[FEES]) == closed * max(side * (limit - ticks), 0) * 100
    rows = stage.rows()
    events = rows["events"][rows["events"]["kind"] == 2]
    assert {int(a) for a in events["account"]} == set(taken)
    assert events["a"].sum() / MICRO == pytest.approx(closed * mark_ticks * 1e-4, abs=1e-4)
    assert events["b"].sum() == pytest.approx(closed * side * (limit - mark_ticks) * 100, abs=len(events))


@law
@given(queues(st.sampled_from([BITMEX, HYPERLIQUID, BINANCE, PROFIT_LEVERAGE])), st.floats(0.01, 1.0))
def test_winners_are_taken_whole_from_the_top(drawn: tuple[Stage, int], share: float) -> None:
    stage, side = drawn
    stage.world.settings["deleveraging_price"] = AT_MARK
    _make_ranking(stage.world, 0, side)
    entry = stage.world.ranking[0, 0 if side > 0 else 1]
    order = [int(account) for account in entry[3 : 3 + entry[1]]]
    sizes = {account: abs(stage.lots(account)[0]) for account in order}
    lots = math.ceil(abs(stage.lots(LOSER)[0]) * share)
    _, closed = go(stage, lots)
    expected: dict[int, int] = {}
    left = lots
    for account in order:
        if left == 0:
            break
        expected[account] = min(left, sizes[account])
        left -= expected[account]
    assert deleveraged(stage) == expected
    assert closed == lots - left


@law
@given(queues(st.just(PRO_RATA)), st.floats(0.01, 1.0))
def test_pro_rata_takes_from_all_winners_in_proportion_to_profit(
    drawn: tuple[Stage, int], share: float
) -> None:
    stage, side = drawn
    stage.world.settings["deleveraging_price"] = AT_MARK
    lots = math.ceil(abs(stage.lots(LOSER)[0]) * share)
    count = _make_ranking(stage.world, 0, side)
    ranks = stage.world.scratch[RANK, :count].copy()
    entry = stage.world.ranking[0, 0 if side > 0 else 1]
    order = [int(account) for account in entry[3 : 3 + entry[1]]]
    size = np.array([float(abs(stage.lots(account)[0])) for account in order])
    wanted = take_pro_rata(ranks, size, float(lots))
    _, closed = go(stage, lots)
    taken = deleveraged(stage)
    for account, amount in zip(order, wanted, strict=True):
        # whole lots, rounded up until there is nothing left to take
        if closed == sum(math.ceil(x - 1e-9) for x in wanted):
            assert taken.get(account, 0) == math.ceil(amount - 1e-9)
        if amount > 0.0 and sum(wanted) <= lots - len(order):
            assert taken.get(account, 0) >= math.floor(amount)


def test_nobody_gives_up_more_than_stands_behind_the_position() -> None:
    # at 92 each lot of a short from 85 that is marked at 85 costs its holder 7 cents
    stage = Stage([10.0, 30.0, 1e4, 1e9], isolated=(1,), settings=CALM.settings._replace(ranking_s=1e6))
    stage.fill(0, 3, 0, 1_000, 100.0)
    stage.set_aside(1, 0, 7.0)
    stage.fill(1, 3, 0, -200, 85.0)
    stage.fill(2, 3, 0, -300, 85.0)
    stage.mark(0, 85.0)
    stage.clear()
    stage.pay(3, -stage.cash_usd(3))
    _, closed = go(stage, 1_000)
    assert stage.account(1).equity_usd >= 23.0 and stage.cash_usd(1) >= 23.0
    assert deleveraged(stage)[2] == 300
    assert closed >= 400 and stage.balanced()


def test_where_nobody_is_on_the_other_side_the_rest_waits() -> None:
    stage = Stage([10.0, 1e4], settings=CALM.settings._replace(deleveraging=BITMEX))
    stage.fill(0, 1, 0, 100, 100.0)
    stage.fill(1, stage.first_maker, 0, 40, 100.0)
    stage.mark(0, 85.0)
    stage.clear()
    _, closed = go(stage, 100)
    assert closed == 100
    assert set(deleveraged(stage)) == {1, stage.first_maker}
