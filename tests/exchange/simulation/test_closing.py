"""Forced closing on a venue that stands still.

Market M0 is at 100, a lot is 0.01 units, a tick a cent; initial margin 10%, maintenance 5%, penalty 1%. On a
deep book an order costs at most a tick, which is a dollar a 10,000 lots.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.liquidation import DYDX, HYPERLIQUID, PARADEX, WHOLE, LiquidationRule, step_notional_usd
from exchange.simulation.closing import advance_closings, bankruptcy_ticks, look, work_out
from exchange.simulation.ledger import pool
from exchange.simulation.settings import RULE
from exchange.simulation.state import (
    ACTIVE,
    AT_MARK,
    DUE_QUEUE,
    EVENT_NAMES,
    FUND,
    LIQUIDATION,
    LOGGED,
    NONE,
    NOW_S,
)  # fmt: skip
from tests.exchange.simulation.stage import DEEP_USD, Stage
from tests.exchange.simulation.worlds import CALM

law = settings(deadline=None, max_examples=40)
AT_ONCE = RULE._replace(whole_below_usd=math.inf, backstop_share=0.0, safety_share=0.0)
CENT = 0.011


def one_long(deposit: float, mark: float, rule: LiquidationRule = AT_ONCE, fund_usd: float = 0.0) -> Stage:
    """Account 0 long 10 units of M0 from 100, account 1 short them with plenty behind it."""
    stage = Stage([deposit, 1e5], rule=rule, fund_usd=fund_usd)
    stage.fill(0, 1, 0, 1_000, 100.0)
    stage.mark(0, mark)
    stage.clear()
    return stage


def go_on(stage: Stage, seconds: int = 1) -> None:
    """Look at everybody, then let forced closing run."""
    world = stage.world
    for _ in range(seconds):
        for account in range(len(world.account)):
            if world.account["held"][account]:
                look(world, account)
        over = advance_closings(world)
        for number in range(over):
            look(world, int(world.queue[DUE_QUEUE, number]))
        world.clock[NOW_S] += 1
        assert stage.balanced()
        assert world.purse[FUND] >= 0


def events(stage: Stage) -> list[tuple[int, str, float]]:
    rows = stage.rows()["events"]
    return [(int(r["account"]), EVENT_NAMES[r["kind"]], round(r["b"] / 1e6, 2)) for r in rows]


def ratio(stage: Stage, account: int, only: int = int(NONE)) -> float:
    _, collateral, _, maintenance, _, _ = pool(stage.world, account, np.int64(only), AT_MARK)
    return collateral / maintenance


def test_who_meets_maintenance_is_left_alone() -> None:
    # $60 behind 10 units: maintenance of 5% is met down to 98.9474
    stage = one_long(60.0, 98.95)
    go_on(stage)
    assert stage.lots(0)[0] == 1_000 and events(stage) == []
    stage = one_long(60.0, 98.94)
    go_on(stage)
    assert stage.lots(0)[0] == 0 and events(stage) == [(0, "liquidation", 0.0)]


@pytest.mark.parametrize(("at_equality", "closed"), [(0, False), (1, True)])
def test_venues_differ_on_equality(at_equality: int, closed: bool) -> None:
    stage = one_long(50.0, 100.0, AT_ONCE._replace(at_equality=at_equality))
    go_on(stage)
    assert (stage.lots(0)[0] == 0) == closed


def test_the_penalty_goes_to_the_fund() -> None:
    stage = one_long(60.0, 98.94, fund_usd=50.0)
    go_on(stage)
    assert stage.fund_usd == pytest.approx(50.0 + 9.894, abs=CENT)
    assert stage.cash_usd(0) == pytest.approx(60.0 - 10.6 - 9.894, abs=0.12)


def test_the_penalty_takes_no_more_than_there_is() -> None:
    # $60 are used up at 94: at 94.50 five dollars are left
    stage = one_long(60.0, 94.5, fund_usd=50.0)
    go_on(stage)
    assert 0.0 <= stage.cash_usd(0) < 0.01
    assert stage.fund_usd == pytest.approx(55.0, abs=0.11)
    assert events(stage) == [(0, "liquidation", 0.0)]


@pytest.mark.parametrize(("rule", "rate"), [(WHOLE, 0.01), (DYDX, 0.01), (PARADEX, 0.01), (HYPERLIQUID, 0.0)])
def test_the_rule_may_ask_for_less_than_the_market_does(rule: LiquidationRule, rate: float) -> None:
    stage = one_long(60.0, 98.94, rule._replace(backstop_share=0.0, at_equality=0))
    go_on(stage)
    sold = sum(-lots * ticks for _, lots, ticks in stage.forced()) * 1e-4
    assert sold > 0.0
    assert stage.fund_usd == pytest.approx(rate * sold, abs=1e-5)


def test_the_fund_pays_what_the_equity_does_not() -> None:
    stage = one_long(60.0, 90.0, fund_usd=500.0)
    winner = stage.account(1).equity_usd
    go_on(stage)
    assert stage.cash_usd(0) == 0.0
    assert stage.fund_usd == pytest.approx(500.0 - 40.0, abs=0.11)
    assert stage.lots(1)[0] == -1_000 and stage.account(1).equity_usd == winner
    assert [(who, kind) for who, kind, _ in events(stage)] == [(0, "liquidation"), (0, "negative_equity")]


def test_the_shortfall_is_what_was_lost_beyond_the_equity() -> None:
    stage = one_long(60.0, 90.0, fund_usd=500.0)
    go_on(stage)
    rows = stage.rows()["events"]
    assert rows["b"][1] / 1e6 == pytest.approx(40.0, abs=0.11)
    assert rows["a"][1] / 1e6 == pytest.approx(900.0)


def test_a_spent_fund_pays_what_it_can_and_winners_give_up_the_rest() -> None:
    stage = one_long(60.0, 90.0, fund_usd=10.0)
    total = stage.account(1).equity_usd
    go_on(stage)
    assert stage.cash_usd(0) == 0.0 and stage.lots(0)[0] == 0
    # a lot is four dollars a unit under its bankruptcy price: the fund has none of that left
    assert 0.0 <= stage.fund_usd < 0.0401
    taken = 1_000 + stage.lots(1)[0]
    assert taken == pytest.approx(750, abs=3)
    assert stage.account(1).equity_usd == pytest.approx(total - 0.04 * taken, abs=0.01)
    log = stage.rows()
    told = log["events"][log["events"]["kind"] == 2]
    assert told["account"].tolist() == [1]
    assert told["a"][0] / 1e6 == pytest.approx(taken * 0.9)
    assert told["b"][0] / 1e6 == pytest.approx(taken * 0.04)
    deleveraged = log["fills"][log["fills"]["kind"] == 2]
    assert deleveraged["b"].tolist() == [9_400] and deleveraged["a"].tolist() == [taken]


def test_nobody_is_deleveraged_while_the_fund_can_pay() -> None:
    for fund_usd in (0.0, 1.0, 39.0, 41.0, 1e4):
        stage = one_long(60.0, 90.0, fund_usd=fund_usd)
        go_on(stage)
        deleveraged = any(kind == "deleverage" for _, kind, _ in events(stage))
        assert deleveraged == (fund_usd < 40.0)
        if deleveraged:
            assert stage.fund_usd < 0.0411


def test_where_makers_are_gone_a_full_fund_waits() -> None:
    stage = one_long(60.0, 90.0, fund_usd=1e4)
    stage.world.account["status"][stage.first_maker : stage.backstop] = 0
    go_on(stage, 3)
    assert stage.lots(0)[0] == 1_000 and stage.fund_usd == 1e4
    assert [kind for _, kind, _ in events(stage)] == ["liquidation"]


def test_it_closes_a_fifth_a_step_and_stops_at_the_safety_margin() -> None:
    rule = RULE._replace(
        whole_below_usd=0.0, first_share=0.2, step_share=0.2, share_of_start=1, least_step_usd=0.0,
        cooldown_s=2.0, safety_share=0.5, backstop_share=0.0, penalty_rate_cap=0.0,
    )  # fmt: skip
    stage = one_long(60.0, 98.94, rule)
    sold = []
    for _ in range(8):
        go_on(stage)
        sold.append(1_000 - stage.lots(0)[0])
    # safe at 1.5 x 5% of what is left: 49.4 >= 0.075 x 98.94 x units needs 6.66 units or less
    assert sold == [200, 200, 400, 400, 400, 400, 400, 400]
    assert stage.world.clock[ACTIVE] == 0 and stage.world.account["closing"][0] == 0
    assert ratio(stage, 0) >= 1.5


def test_a_small_rest_goes_at_once() -> None:
    rule = RULE._replace(
        first_share=0.2, step_share=0.2, whole_below_usd=700.0, safety_share=9.0, backstop_share=0.0,
        cooldown_s=1.0,
    )  # fmt: skip
    stage = one_long(60.0, 98.94, rule._replace(least_step_usd=0.0))
    go_on(stage, 5)
    assert steps_of(stage) == [200, 200, 600]


def steps_of(stage: Stage) -> list[int]:
    """Lots closed by force in each second."""
    log = stage.world.log[: stage.world.clock[LOGGED]]
    rows = log[(log["table"] == 0) & (log["kind"] == LIQUIDATION)]
    seconds = rows["time"] // 1_000_000
    return [int(-rows["a"][seconds == second].sum()) for second in np.unique(seconds)]


@law
@given(st.integers(0, 1), st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.sampled_from([0.0, 300.0]))
def test_steps_are_those_of_the_rule(of_start: int, first: float, later: float, least: float) -> None:
    rule = RULE._replace(
        whole_below_usd=0.0, first_share=first, step_share=later, share_of_start=of_start,
        least_step_usd=least, cooldown_s=1.0, safety_share=1e9, backstop_share=0.0,
    )  # fmt: skip
    stage = one_long(60.0, 98.94, rule)
    expected = []
    left, start = 1_000, 989.4
    while left > 0 and len(expected) < 6:
        wanted = step_notional_usd(left * 0.9894, start, len(expected), rule)
        expected.append(min(math.ceil(wanted / 0.9894 - 1e-9), left))
        left -= expected[-1]
    go_on(stage, len(expected))
    # a lot more or less by rounding at each step; what is left at the end differs by their sum
    done = steps_of(stage)
    assert len(done) == len(expected)
    assert done[:-1] == pytest.approx(expected[:-1], abs=1)
    assert done[-1] == pytest.approx(expected[-1], abs=len(expected))


def test_the_largest_position_goes_first() -> None:
    rule = RULE._replace(whole_below_usd=math.inf, backstop_share=0.0, cooldown_s=1.0)
    stage = Stage([200.0, 1e6], rule=rule, markets=3)
    for market, lots in ((0, 700), (1, 1_300), (2, 500)):
        stage.fill(0, 1, market, lots, 100.0 / 10**market)
    for market in range(3):
        stage.mark(market, 95.0 / 10**market)
    # 2,500 dollars long lost 125: 75 are left of what needs 0.05 * 665 + 0.025 * 1235 + 0.075 * 475 = 99.75
    stage.clear()
    go_on(stage)
    assert stage.lots(0) == [700, 0, 500]
    go_on(stage)
    assert ratio(stage, 0) >= 1.1 or stage.lots(0) == [0, 0, 500]


def test_an_isolated_position_falls_alone() -> None:
    stage = Stage([5_000.0, 1e6], isolated=(0,), rule=AT_ONCE, fund_usd=500.0)
    for market in (0, 1):
        stage.set_aside(0, market, 60.0)
        stage.fill(0, 1, market, 1_000 if market == 0 else 600, 100.0 / 10**market)
    stage.mark(0, 90.0)
    stage.clear()
    go_on(stage)
    assert stage.lots(0) == [0, 600]
    assert stage.cash_usd(0) == 4_880.0
    assert stage.world.position["collateral"][0, 1] == 60 * 10**6
    assert stage.fund_usd == pytest.approx(460.0, abs=0.11)


def test_of_two_isolated_positions_the_weaker_falls_first_and_the_other_after_it() -> None:
    stage = Stage([1_000.0, 1e6], isolated=(0,), rule=AT_ONCE, fund_usd=500.0)
    for market in (0, 1):
        stage.set_aside(0, market, 60.0)
        stage.fill(0, 1, market, 1_000, 100.0 / 10**market)
    stage.mark(0, 97.0)
    stage.mark(1, 9.45)
    stage.clear()
    go_on(stage)
    assert stage.lots(0) == [1_000, 0]
    go_on(stage)
    assert stage.lots(0) == [0, 0]
    assert stage.rows()["events"]["market"].tolist() == [1, 0]


def test_a_pledged_asset_is_sold_before_the_fund_pays() -> None:
    stage = Stage([50.0, 1e5], rule=AT_ONCE, fund_usd=500.0)
    stage.world.asset["price"][1:] = [1.0, 100.0]
    stage.world.amount[0, 2] = 2_000_000
    stage.fill(0, 1, 0, 1_000, 100.0)
    stage.mark(0, 70.0)
    stage.clear()
    go_on(stage)
    # 300 lost: 50 in cash and 200 in coins, the fund pays the rest
    assert stage.cash_usd(0) == 0.0 and stage.world.amount[0, 2] == 0
    assert stage.fund_usd == pytest.approx(450.0, abs=0.12)
    assert stage.account(0).equity_usd == 0.0


def backed(deposit: float, mark: float, backstop_usd: float) -> Stage:
    stage = one_long(deposit, mark, RULE._replace(whole_below_usd=math.inf))
    stage.pay(stage.backstop, backstop_usd)
    stage.clear()
    return stage


def test_the_backstop_takes_over_at_bankruptcy_under_two_thirds_of_maintenance() -> None:
    # $60: equity is two thirds of maintenance at 60 + 10 (p - 100) = p / 3, 97.241
    stage = backed(60.0, 97.20, 1_000.0)
    go_on(stage)
    assert stage.lots(0)[0] == 0 and stage.lots(stage.backstop)[0] == 1_000
    assert stage.forced() == [(0, -1_000, 9_400)]
    assert stage.cash_usd(0) == 0.0 and stage.fund_usd == 0.0
    stage = backed(60.0, 97.30, 1_000.0)
    go_on(stage)
    assert stage.lots(stage.backstop)[0] == 0 and stage.lots(0)[0] == 0


@pytest.mark.parametrize(("backstop_usd", "takes"), [(0.0, False), (320.0, False), (330.0, True)])
def test_the_backstop_takes_no_more_than_its_leverage_allows(backstop_usd: float, takes: bool) -> None:
    stage = backed(60.0, 97.20, backstop_usd)
    go_on(stage)
    assert (stage.lots(stage.backstop)[0] == 1_000) == takes
    assert stage.lots(0)[0] == 0


def test_the_backstop_leaves_who_has_nothing_to_the_fund() -> None:
    stage = backed(60.0, 93.0, 1_000.0)
    go_on(stage, 2)
    assert stage.lots(stage.backstop)[0] == 0


def test_the_backstop_sells_what_it_took_a_little_at_a_time() -> None:
    stage = backed(60.0, 97.20, 1_000.0)
    go_on(stage)
    stage.world.market["base_depth"][0] = 10_000.0
    stage.mark(0, 97.2)
    held = [stage.lots(stage.backstop)[0]]
    for _ in range(3):
        work_out(stage.world, 1.0)
        held.append(stage.lots(stage.backstop)[0])
    assert [a - b for a, b in pairwise(held)] == pytest.approx([205] * 3, abs=2)
    assert stage.balanced()


def test_a_maker_is_asked_to_pay_in_first() -> None:
    stage = Stage([1e6], rule=AT_ONCE)
    maker = stage.first_maker
    stage.fill(maker, 0, 0, 1_000, 100.0)
    stage.pay(maker, 60.0 - stage.cash_usd(maker))
    stage.world.account["deposit"][maker] = stage.world.account["paid_in"][maker] = 60 * 10**6
    stage.mark(0, 98.0)
    stage.clear()
    go_on(stage)
    assert stage.lots(maker)[0] == 1_000 and events(stage) == []
    stage.mark(0, 60.0)
    go_on(stage)
    assert stage.lots(maker)[0] == 0, "its pockets are not bottomless"


@law
@given(
    st.floats(1.0, 1e4), st.integers(-3_000, 3_000).filter(bool), st.integers(-3_000, 3_000),
    st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.booleans(),
)  # fmt: skip
def test_bankruptcy_prices_are_those_of_the_record_rounded_in_the_accounts_favour(
    deposit: float, first: int, second: int, p: float, q: float, isolated: bool
) -> None:
    stage = Stage([deposit, 1e9], (0,) if isolated else ())
    for market, lots in ((0, first), (1, second)):
        if lots:
            if isolated:
                stage.set_aside(0, market, deposit / 2)
            stage.fill(0, 1, market, lots, 100.0 / 10**market)
    stage.mark(0, 100.0 * p)
    stage.mark(1, 10.0 * q)
    for market, lots in ((0, first), (1, second)):
        if not lots:
            continue
        tick = stage.terms[market].tick_size
        exact = stage.account(0).bankruptcy_price(f"M{market}") / tick
        told = bankruptcy_ticks(stage.world, 0, np.int64(market if isolated else NONE), market)
        if math.isnan(exact) or (lots < 0 and exact < 1.0):
            assert told == 1
        elif lots > 0:
            assert -1e-6 <= told - exact <= 1 + 1e-6
        else:
            assert -1e-6 <= exact - told <= 1 + 1e-6


@st.composite
def ruins(draw: st.DrawFn) -> Stage:
    """Ten traders with too little behind their positions, prices that have moved, any fund, any depth."""
    rule = draw(st.sampled_from([AT_ONCE, RULE, DYDX, PARADEX, WHOLE._replace(at_equality=0), HYPERLIQUID]))
    stage = Stage(
        [draw(st.floats(5.0, 500.0)) for _ in range(10)] + [1e7],
        isolated=(0, 3, 6),
        settings=CALM.settings._replace(
            deleveraging=draw(st.integers(0, 5)), deleveraging_price=draw(st.integers(0, 2)),
            maker_reach=draw(st.sampled_from([0.0, 3.0])),
        ),
        rule=rule,
        fund_usd=draw(st.sampled_from([0.0, 3.0, 100.0, 1e5])),
        depth_usd=draw(st.sampled_from([DEEP_USD, 20_000.0])),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    for account in range(10):
        for market in range(2):
            if rng.random() < 0.7:
                usd = rng.uniform(0.1, 0.5) * stage.cash_usd(account)
                if stage.world.account["isolated"][account]:
                    stage.set_aside(account, market, usd)
                lots = max(int(usd * rng.uniform(1.0, 12.0)), 1) * int(rng.choice([-1, 1, 1]))
                stage.fill(account, 10, market, lots, 100.0 / 10**market)
    for market in range(2):
        stage.mark(market, 100.0 / 10**market * draw(st.sampled_from([0.4, 0.8, 0.9, 0.95, 1.1, 1.5])))
    stage.pay(stage.backstop, draw(st.sampled_from([0.0, 500.0])))
    stage.clear()
    return stage


@law
@given(ruins())
def test_forced_closing_ends_for_everybody_and_leaves_nobody_in_debt(stage: Stage) -> None:
    world = stage.world
    free = world.account["cash"][[0, 3, 6]].copy()
    for _ in range(400):
        go_on(stage)
        if world.clock[ACTIVE] == 0:
            break
    begun = np.unique(stage.rows()["events"]["account"])
    if world.clock[ACTIVE] > 0:
        # what is left waits for makers who can take it, while the fund could pay
        return
    for account in range(10):
        equity = stage.account(account).equity_usd
        assert equity >= -1e-6 or account not in begun
        pools = [m for m in range(2) if stage.lots(account)[m]] if account in (0, 3, 6) else [int(NONE)]
        for only in pools:
            if stage.account(account).positions:
                assert ratio(stage, account, only) >= 1.0 - 1e-9
    # what is set aside for one position is all that its closing can take
    assert (world.account["cash"][[0, 3, 6]] >= free).all()
