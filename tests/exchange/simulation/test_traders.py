from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.simulation.ledger import pool
from exchange.simulation.orders import order_to_open, order_to_reduce
from exchange.simulation.settings import Settings
from exchange.simulation.state import (
    ABSENT,
    AT_MARK,
    CARRY,
    HEDGER,
    MICRO,
    NONE,
    NOW_S,
    PRESENT,
    RETAIL,
    REVERSAL,
    WHALE,
)  # fmt: skip
from exchange.simulation.traders import (
    CUSHION,
    OPEN,
    _act,
    _answer_call,
    _open_more,
    _side,
    _take_out,
    come_near,
    hurry,
    plan,
    visit,
    wiped_out,
)  # fmt: skip
from exchange.simulation.watch import LEVELS, watch
from exchange.units import DAY_S
from tests.exchange.simulation.stage import Stage

law = settings(deadline=None, max_examples=40)
HOUSE = 2


def trader(
    deposit: float, isolated: bool = False, changes: dict[str, float] | None = None, **habits: float
) -> Stage:
    """Account 0 is the trader, account 2 takes the other side of what is put up by hand."""
    stage = Stage(
        [deposit, 0.0, 1e9], (0,) if isolated else (), markets=3, depth_usd=1e6,
        settings=Settings()._replace(**(changes or {})),
    )  # fmt: skip
    state = stage.world.account
    for name, value in {
        "kind": RETAIL, "leverage": 3.0, "deals_a_day": 5.0, "long_share": 0.6, "trend": 0.0, "rescue": 0.0,
        "stop": 0.0, "stubborn": 0.3, "alert": 1.0, "deposit": round(deposit * MICRO), "pledge": 0, **habits,
    }.items():  # fmt: skip
        state[name][0] = value
    state["minute"] = -1
    stage.world.agenda[:] = -1
    stage.world.taste[0] = [0.5, 0.8, 1.0]
    return stage


def ratio(stage: Stage) -> float:
    return watch(stage.world, 0)


@st.composite
def owners(draw: st.DrawFn) -> Stage:
    """A trader of any kind with any habits and positions, after prices have moved."""
    isolated = draw(st.booleans())
    stage = trader(
        draw(st.floats(20.0, 20_000.0)),
        isolated,
        {
            "open_interest_low_usd": draw(st.sampled_from([float("inf"), 1_000.0])),
            "open_interest_high_usd": 1e5,
            "size_factor": draw(st.sampled_from([0.0, 0.01])),
        },
        kind=draw(st.sampled_from([RETAIL, REVERSAL, CARRY, HEDGER, WHALE])),
        leverage=draw(st.floats(0.5, 25.0)),
        long_share=draw(st.floats(0.0, 1.0)),
        rescue=draw(st.sampled_from([0.0, 0.5, 0.99])),
        stop=draw(st.sampled_from([0.0, 1.2, 2.0])),
        stubborn=draw(st.floats(0.0, 1.0)),
        initial_rate=draw(st.sampled_from([0.0, 0.0, 0.4])),
    )
    stage.world.account["key"][0] = draw(st.integers(0, 2**62))
    for market in range(3):
        if draw(st.booleans()):
            usd = stage.cash_usd(0) * draw(st.floats(0.05, 0.3))
            if isolated:
                stage.set_aside(0, market, usd)
            lots = max(int(usd * draw(st.floats(0.5, 6.0))), 1) * draw(st.sampled_from([1, -1]))
            stage.fill(0, HOUSE, market, lots, 100.0 / 10**market)
            stage.mark(market, 100.0 / 10**market * draw(st.floats(0.93, 1.07)))
    stage.world.market["funding"] = draw(st.sampled_from([0.0, 1e-4, -1e-4]))
    stage.clear()
    return stage


def margins(stage: Stage, market: int) -> tuple[float, float]:
    """Collateral and initial margin in force of the trader's pool that holds a market."""
    only = market if stage.world.account["isolated"][0] else int(NONE)
    _, collateral, initial, _, _, _ = pool(stage.world, 0, np.int64(only), AT_MARK)
    return collateral, initial


@law
@given(owners(), st.integers(1, 12))
def test_no_risk_is_added_and_nothing_withdrawn_that_leaves_less_than_initial_margin(
    stage: Stage, visits: int
) -> None:
    world = stage.world
    for _ in range(visits):
        held, paid_in = stage.lots(0), int(world.account["paid_in"][0])
        now_s = int(world.clock[NOW_S])
        visit(world, 0)
        assert stage.balanced()
        state = world.account[0]
        assert state["next_s"] > now_s and state["minute"] >= 0
        for market, (before, after) in enumerate(zip(held, stage.lots(0), strict=True)):
            if abs(after) > abs(before) or before * after < 0:
                collateral, initial = margins(stage, market)
                assert collateral >= initial - 1e-9
        withdrew = state["paid_in"] < paid_in and state["status"] == PRESENT
        if withdrew and any(stage.lots(0)) and not state["isolated"]:
            collateral, initial = margins(stage, 0)
            assert collateral >= CUSHION * initial - 1e-6
        assert not state["isolated"] or state["cash"] >= 0
        if state["closing"] != 0:
            break
        world.clock[NOW_S] = max(int(state["next_s"]), now_s + 1) % 400_000


@law
@given(owners(), st.integers(0, 2), st.floats(-1e6, 1e6))
def test_anorder_to_open_is_no_larger_than_wanted_and_fits(stage: Stage, market: int, wanted: float) -> None:
    world = stage.world
    cash = int(world.account["cash"][0])
    order, aside = order_to_open(world, 0, market, wanted)
    lot_usd = 0.01 * 100.0 * float(world.market["mark"][market]) / (100.0 / 10**market)
    assert abs(order) * lot_usd <= abs(wanted) * (1 + 1e-9)
    assert order * wanted >= 0.0
    assert abs(order) * lot_usd <= world.settings["most_order"][0] * world.market["depth"][market] * (
        1 + 1e-9
    )
    assert cash - world.account["cash"][0] == aside >= 0
    assert not aside or world.account["isolated"][0]
    if order == 0:
        assert aside == 0


@law
@given(owners(), st.integers(0, 2), st.floats(0.01, 1.0))
def test_anorder_to_reduce_leaves_no_crumbs_and_never_turns_round(
    stage: Stage, market: int, share: float
) -> None:
    held = stage.lots(0)[market]
    order = order_to_reduce(stage.world, 0, market, share, True)
    assert order * held <= 0 and abs(order) <= abs(held)
    if held and order:
        left = abs(held + order) * float(
            stage.world.market["lot"][market] * stage.world.market["mark"][market]
        )
        assert left == 0.0 or left >= 5.0 or abs(order) < abs(held) * share


@law
@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_fear_rises_towards_a_margin_call_and_is_none_far_from_it(first: float, second: float) -> None:
    world = trader(100.0).world
    low, high = sorted((first, second))
    assert hurry(world, 0, low) >= hurry(world, 0, high) >= 0.0
    assert (hurry(world, 0, high) == 0.0) == (high >= LEVELS[0])


def test_owners_look_as_often_as_is_their_habit() -> None:
    stage = trader(100.0, deals_a_day=8.0)
    stage.world.account["ratio"][0] = 100.0
    mood = 1.0
    waits = []
    for _ in range(3_000):
        plan(stage.world, 0)
        waits.append(int(stage.world.account["next_s"][0]) - int(stage.world.clock[NOW_S]))
    looks = DAY_S / np.mean(waits)
    assert looks == pytest.approx(8.0 * mood, rel=0.1)


def test_in_turbulence_and_near_a_call_they_look_more_often() -> None:
    def looks(variance: float, ratio: float) -> float:
        stage = trader(100.0)
        stage.world.market["variance"] = stage.world.market["calm_variance"] * variance
        stage.world.account["ratio"][0] = ratio
        waits = []
        for _ in range(1_000):
            plan(stage.world, 0)
            waits.append(int(stage.world.account["next_s"][0]) - 1_000)
        return float(DAY_S / np.mean(waits))

    calm = looks(1.0, 10.0)
    assert looks(16.0, 10.0) > 2.0 * calm
    assert looks(1.0, 1.1) > calm
    assert looks(0.01, 10.0) < calm


def test_a_stop_goes_off_within_seconds_and_closes_the_largest_position() -> None:
    stage = trader(100.0, stop=1.5)
    stage.fill(0, HOUSE, 0, 800, 100.0)
    before = ratio(stage)
    assert before > 1.5
    stage.mark(0, 94.5)
    assert 1.0 < ratio(stage) <= 1.5
    come_near(stage.world, 0, before)
    assert stage.world.account["next_s"][0] - 1_000 < 120
    visit(stage.world, 0)
    assert stage.lots(0) == [0, 0, 0]


def test_a_call_is_answered_by_who_can_and_cut_by_who_cannot() -> None:
    for rescue in (0.0, 1.0):
        stage = trader(100.0, rescue=rescue)
        stage.fill(0, HOUSE, 0, 900, 100.0)
        stage.mark(0, 94.0)
        paid = int(stage.world.account["paid_in"][0])
        action, market, share = _answer_call(stage.world, 0)
        assert (stage.world.account["paid_in"][0] > paid) == (rescue == 1.0)
        if rescue == 0.0:
            assert market == 0 and 0.3 <= share <= 1.0
        assert (action == 0) == (rescue == 1.0)
        assert stage.balanced()


def test_an_isolated_rescue_goes_to_the_weakest_position() -> None:
    stage = trader(1_000.0, isolated=True, rescue=1.0)
    for market, usd in ((0, 100.0), (1, 3.0)):
        stage.set_aside(0, market, usd)
        stage.fill(0, HOUSE, market, 900, 100.0 / 10**market)
    cash = stage.cash_usd(0)
    _answer_call(stage.world, 0)
    collateral = stage.world.position["collateral"][0]
    assert collateral[0] == 100 * MICRO and collateral[1] > 3 * MICRO
    assert stage.cash_usd(0) == cash


@law
@given(st.floats(50.0, 500.0), st.integers(1, 1_500), st.floats(0.95, 1.3), st.booleans())
def test_no_more_is_taken_out_than_was_gained(
    deposit: float, lots: int, price: float, isolated: bool
) -> None:
    stage = trader(deposit, isolated)
    if isolated:
        stage.set_aside(0, 0, deposit / 2)
    stage.fill(0, HOUSE, 0, lots, 100.0)
    stage.mark(0, 100.0 * price)
    if not isolated:
        # gains are free dollars only once they are dollars
        stage.fill(0, HOUSE, 0, -lots // 2 or -1, 100.0 * price)
    equity = stage.account(0).equity_usd
    paid_in = int(stage.world.account["paid_in"][0]) / MICRO
    _take_out(stage.world, 0, equity)
    taken = equity - stage.account(0).equity_usd
    assert 0.0 <= taken <= max(equity - paid_in, 0.0) + 1e-6
    assert stage.cash_usd(0) >= -1e-6 or taken == 0.0
    if taken and not isolated:
        assert stage.account(0).collateral_usd >= CUSHION * stage.account(0).initial_margin_usd - 1e-6


def test_who_leaves_closes_all_takes_all_and_pays_again_when_back() -> None:
    left = 0
    for key in range(400):
        stage = trader(100.0, stubborn=0.0)
        stage.world.account["key"][0] = key
        stage.fill(0, HOUSE, 1, 50, 10.0)
        visit(stage.world, 0)
        if stage.world.account["status"][0] != ABSENT:
            continue
        left += 1
        assert stage.lots(0) == [0, 0, 0] and stage.cash_usd(0) == 0.0
        assert stage.world.account["next_s"][0] >= 1_060
        visit(stage.world, 0)
        assert stage.world.account["status"][0] == PRESENT
        assert 0.0 < stage.world.account["paid_in"][0] <= 100 * MICRO
        assert stage.balanced()
    assert 1 <= left < 30


def test_who_lost_nearly_all_goes_away_for_a_while() -> None:
    waits = []
    for key in range(40):
        stage = trader(100.0)
        stage.pay(0, -95.0)
        stage.world.account["key"][0] = key
        wiped_out(stage.world, 0)
        assert stage.world.account["status"][0] == ABSENT
        waits.append(int(stage.world.account["next_s"][0]) - 1_000)
    assert np.median(waits) > 0.2 * DAY_S
    stage = trader(100.0)
    wiped_out(stage.world, 0)
    assert stage.world.account["status"][0] == PRESENT


def test_who_follows_buys_what_rose_and_who_reverts_sells_it() -> None:
    def bought(trend: float) -> float:
        stage = trader(100.0, long_share=0.5, trend=trend)
        stage.world.market["day_ago"][0] = 90.0
        sides = []
        for key in range(300):
            stage.world.account["key"][0] = key
            sides.append(_side(stage.world, 0, 0))
        return float(np.mean(np.array(sides) > 0))

    assert bought(0.45) > 0.8 and bought(-0.45) < 0.2 and 0.4 < bought(0.0) < 0.6


@pytest.mark.parametrize(("funding", "side"), [(1e-4, -1), (-1e-4, 1)])
def test_who_carries_stands_where_funding_pays(funding: float, side: int) -> None:
    stage = trader(5_000.0, kind=CARRY, leverage=1.5, deals_a_day=1e6)
    stage.world.market["funding"] = funding
    for _ in range(6):
        visit(stage.world, 0)
    held = [lots for lots in stage.lots(0) if lots]
    assert held and all(lots * side > 0 for lots in held)
    # it pays nothing any more: out
    stage.world.market["funding"] = 0.0
    for _ in range(12):
        visit(stage.world, 0)
    assert stage.lots(0) == [0, 0, 0]


def test_nobody_drains_a_position_into_an_empty_book() -> None:
    stage = trader(1_000.0, changes={"most_order": 2.0, "haste": 2.0})
    stage.fill(0, HOUSE, 0, 5_000, 100.0)
    assert order_to_reduce(stage.world, 0, 0, 1.0, True) == -5_000
    stage.world.market["depth"][0] = 1_500.0
    order = order_to_reduce(stage.world, 0, 0, 1.0, True)
    # three percent of the price is as far as one order goes: 3 x 1,500 dollars
    assert order == pytest.approx(-4_500, abs=2)
    stage.world.market["spread"][0] = 0.15
    assert order_to_reduce(stage.world, 0, 0, 1.0, True) == 0


@pytest.mark.parametrize(("hasty", "lots"), [(False, 1_200), (True, 4_800)])
def test_who_is_not_in_haste_sends_no_more_than_a_piece(hasty: bool, lots: int) -> None:
    stage = trader(1_000.0, changes={"most_order": 0.12, "haste": 4.0})
    stage.fill(0, HOUSE, 0, 5_000, 100.0)
    stage.world.market["depth"][0] = 10_000.0
    assert order_to_reduce(stage.world, 0, 0, 1.0, hasty) == pytest.approx(-lots, abs=2)


def test_an_order_that_the_book_is_too_thin_for_is_sent_in_pieces_until_it_is_done() -> None:
    stage = trader(1_000.0, leverage=3.0, long_share=1.0, changes={"most_order": 0.12})
    stage.world.taste[0] = [1.0, 1.0, 1.0]
    stage.world.market["base_depth"][0] = stage.world.market["depth"][0] = 5_000.0
    _act(stage.world, 0, 0, OPEN, 2_000.0, False)
    held = [stage.lots(0)[0]]
    state = stage.world.account
    while state["work"][0] != 0.0:
        assert state["work"][0] == pytest.approx(2_000.0 - held[-1] * 1.0, rel=0.02)
        visit(stage.world, 0)
        held.append(stage.lots(0)[0])
        assert held[-1] > held[-2], "each piece adds"
        assert held[-1] - held[-2] <= 0.12 * 5_000.0
    assert len(held) == 4 and held[-1] == pytest.approx(2_000, rel=0.03)


def test_nobody_goes_on_adding_near_a_margin_call() -> None:
    stage = trader(1_000.0, leverage=12.0)
    stage.fill(0, HOUSE, 0, 10_000, 100.0)
    stage.mark(0, 98.0)
    assert 1.0 < ratio(stage) < 2.0
    stage.world.account["work"][0], stage.world.account["work_market"][0] = 500.0, 0
    visit(stage.world, 0)
    assert stage.lots(0)[0] <= 10_000 and stage.world.account["work"][0] == 0.0


def test_turbulence_does_not_make_anybody_buy_more_often() -> None:
    opened = []
    for fast in (1.0, 50.0):
        stage = trader(1_000.0, long_share=1.0)
        stage.world.market["variance"] = stage.world.market["calm_variance"] * fast
        count = 0
        for _ in range(400):
            action, _, _ = _open_more(stage.world, 0, 0)
            count += action == OPEN
        opened.append(count)
    assert opened[0] == 400
    # 50 times as many looks, a fiftieth of them buys: 400 / 50 give or take four standard deviations
    assert 0 < opened[1] < 8 + 4 * 8**0.5
