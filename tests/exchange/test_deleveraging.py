from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange import deleveraging
from tests.exchange.strategies import law, prices, signed

RANKINGS = (
    deleveraging.BITMEX, deleveraging.HYPERLIQUID, deleveraging.BINANCE,
    deleveraging.RANDOM, deleveraging.PRO_RATA, deleveraging.PROFIT_LEVERAGE,
)  # fmt: skip
BY_PROFIT = (
    deleveraging.BITMEX,
    deleveraging.HYPERLIQUID,
    deleveraging.BINANCE,
    deleveraging.PROFIT_LEVERAGE,
)


def place(ranking: int, quantity: float, entry: float, mark: float, equity: float) -> float:
    """Rank of the only position of a pool with this equity; maintenance 5%."""
    notional = abs(quantity) * mark
    bankruptcy = mark - equity / quantity
    return deleveraging.rank(
        ranking, quantity, entry, mark, equity, equity - quantity * (mark - entry), 0.05 * notional, notional,
        bankruptcy if bankruptcy > 0 else math.nan, 0.5,
    )  # fmt: skip


@law
@given(
    st.sampled_from((deleveraging.BITMEX, deleveraging.HYPERLIQUID, deleveraging.PROFIT_LEVERAGE)),
    signed(1e-2, 1e4),
    prices(),
    st.floats(0.05, 2.0),
    st.floats(0.5, 1.5),
    st.floats(0.5, 1.5),
)
def test_more_profit_at_the_same_equity_goes_earlier(
    ranking: int, quantity: float, mark: float, margin: float, a: float, b: float
) -> None:
    worse, better = sorted((a, b), reverse=quantity > 0)  # a long that bought dearer gained less
    equity = margin * abs(quantity) * mark
    ranks = [place(ranking, quantity, mark * over, mark, equity) for over in (worse, better)]
    assert ranks[0] <= ranks[1] + 1e-9 * abs(ranks[1])


@law
@given(st.sampled_from(BY_PROFIT), signed(1e-2, 1e4), prices(), st.floats(0.01, 0.4), st.floats(0.05, 0.9))
def test_of_two_winners_the_one_with_less_behind_it_goes_earlier(
    ranking: int, quantity: float, mark: float, gain: float, margin: float
) -> None:
    entry = mark * (1.0 - math.copysign(gain, quantity))
    notional = abs(quantity) * mark
    profit = quantity * (mark - entry)
    levered, covered = (
        place(ranking, quantity, entry, mark, profit + share * notional) for share in (margin, margin + 1.0)
    )
    assert levered > covered > 0.0


@law
@given(
    st.sampled_from((deleveraging.BITMEX, deleveraging.PROFIT_LEVERAGE)),
    signed(1e-2, 1e4),
    prices(),
    st.floats(0.01, 0.5),
    st.floats(0.05, 2.0),
    st.floats(0.05, 2.0),
)
def test_of_two_losers_the_levered_one_goes_earlier_and_both_after_every_winner(
    ranking: int, quantity: float, mark: float, loss: float, a: float, b: float
) -> None:
    """Divided by leverage: a small leverage makes a loser's rank lower."""
    assume(abs(a - b) > 1e-6)
    less, more = sorted((a, b))
    entry = mark * (1.0 + math.copysign(loss, quantity))
    notional = abs(quantity) * mark
    levered, covered = (place(ranking, quantity, entry, mark, m * notional) for m in (less, more))
    winner = place(ranking, quantity, mark * (1.0 - math.copysign(0.001, quantity)), mark, more * notional)
    assert covered < levered < 0.0 < winner


@law
@given(signed(1e-2, 1e4), prices(), st.floats(0.5, 1.5), st.floats(0.05, 2.0))
def test_one_position_alone_makes_bitmex_and_profit_times_leverage_agree_but_for_the_base(
    quantity: float, mark: float, entry_over: float, margin: float
) -> None:
    """BitMEX takes profit over the entry value, the other over the value at mark."""
    entry = mark * entry_over
    equity = margin * abs(quantity) * mark
    one, other = (
        place(ranking, quantity, entry, mark, equity)
        for ranking in (deleveraging.BITMEX, deleveraging.PROFIT_LEVERAGE)
    )
    assert one * entry == pytest.approx(other * mark, rel=1e-6, abs=1e-12)


@law
@given(st.floats(1e-2, 1e4), prices(), st.floats(0.5, 2.0), st.floats(0.05, 2.0))
def test_hyperliquid_ranks_a_short_that_halved_as_a_long_that_doubled(
    size: float, mark: float, factor: float, margin: float
) -> None:
    equity = margin * size * mark
    long = place(deleveraging.HYPERLIQUID, size, mark / factor, mark, equity)
    short = place(deleveraging.HYPERLIQUID, -size, mark * factor, mark, equity)
    assert long == pytest.approx(short)
    assert long == pytest.approx(factor / margin)


def test_lot_and_profit() -> None:
    assert place(deleveraging.RANDOM, -1.0, 10.0, 12.0, 5.0) == 0.5
    assert place(deleveraging.PRO_RATA, 2.0, 10.0, 12.0, 5.0) == 4.0
    assert math.isnan(place(deleveraging.PRO_RATA, -2.0, 10.0, 12.0, 5.0))
    assert math.isnan(place(99, 2.0, 10.0, 12.0, 5.0))


@pytest.mark.parametrize("ranking", RANKINGS)
def test_who_is_on_no_list(ranking: int) -> None:
    assert place(ranking, 1.0, 10.0, 12.0, 5.0) > 0.0
    assert math.isnan(deleveraging.rank(ranking, 0.0, 10.0, 12.0, 5.0, 5.0, 0.0, 0.0, math.nan, 0.5))
    for equity in (0.0, -1.0, math.nan):
        bankrupt = place(ranking, 1.0, 10.0, 12.0, equity)
        if ranking == deleveraging.BINANCE:
            assert bankrupt == 0.0  # last, as its documents say of a balance that is not above zero
        else:
            assert math.isnan(bankrupt)


def test_prices() -> None:
    kinds = (deleveraging.AT_BANKRUPTCY, deleveraging.AT_MARK, deleveraging.AT_PREVIOUS_ORACLE)
    assert [deleveraging.deleverage_price(kind, 1.0, 2.0, 3.0) for kind in kinds] == [1.0, 2.0, 3.0]
    assert math.isnan(deleveraging.deleverage_price(9, 1.0, 2.0, 3.0))


queues = st.lists(
    # hundredths, so that equal ranks come up and weights are not lost beside each other
    st.tuples(
        st.one_of(st.integers(-500, 500).map(lambda n: n / 100), st.just(math.nan)), st.floats(0.0, 100.0)
    ),
    min_size=1,
    max_size=12,
)


@law
@given(queues, st.floats(0.0, 600.0))
def test_the_queue_gives_what_is_asked_for_or_all_it_has_from_the_top(
    queue: list[tuple[float, float]], amount: float
) -> None:
    ranks, sizes = np.array(queue).T.copy()
    taken = deleveraging.take_by_rank(ranks, sizes, amount)
    listed = ~np.isnan(ranks)
    assert (taken >= 0).all() and (taken <= sizes).all() and (taken[~listed] == 0).all()
    assert taken.sum() == pytest.approx(min(amount, sizes[listed].sum()), abs=1e-9)
    for row in np.flatnonzero(listed):
        if taken[row] < sizes[row]:  # nobody behind a position that is not closed out gives anything
            assert (taken[listed & (ranks < ranks[row])] == 0).all()


@law
@given(queues, st.floats(0.0, 600.0))
def test_pro_rata_gives_what_is_asked_for_and_favours_nobody(
    queue: list[tuple[float, float]], amount: float
) -> None:
    weights, sizes = np.array(queue).T.copy()
    taken = deleveraging.take_pro_rata(weights, sizes, amount)
    able = weights > 0
    assert (taken >= 0).all() and (taken <= sizes).all() and (taken[~able] == 0).all()
    assert taken.sum() == pytest.approx(min(amount, sizes[able].sum()), rel=1e-9, abs=1e-9)
    uncapped = able & (taken < sizes)
    shares = taken[uncapped] / weights[uncapped]
    if shares.size:
        assert shares == pytest.approx(np.full(shares.size, shares[0]), rel=1e-6, abs=1e-12)
        capped = able & ~uncapped
        assert (taken[capped] / weights[capped] <= shares[0] * (1 + 1e-6) + 1e-9).all()


@law
@given(queues)
def test_fifths_rise_down_the_queue(queue: list[tuple[float, float]]) -> None:
    ranks, sizes = np.array(queue).T.copy()
    sizes += 1.0
    fifths = deleveraging.queue_fifth(ranks, sizes)
    assert np.array_equal(np.isnan(fifths), np.isnan(ranks))
    order = np.argsort(-ranks[~np.isnan(ranks)], kind="stable")
    in_order = fifths[~np.isnan(ranks)][order]
    assert (np.diff(in_order) >= 0).all()
    if in_order.size:
        assert in_order[-1] == 1.0
        assert in_order == pytest.approx(np.round(in_order * 5) / 5)
