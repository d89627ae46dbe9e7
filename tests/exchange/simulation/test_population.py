from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import InputError
from exchange.simulation.population import (
    LARGEST_USD,
    LEAST_ALERT,
    LEAST_LEVERAGE,
    LEAST_MAKERS,
    LEAST_WEALTH_USD,
    MIX,
    MOST_ALERT,
    MOST_LEVERAGE,
    MOST_MAKERS,
    MOST_WEALTH_USD,
    PRESENT_SHARE,
    Population,
    intended_usd,
    makers_for,
    population,
)  # fmt: skip
from exchange.simulation.state import (
    ABSENT,
    BACKSTOP,
    CARRY,
    HEDGER,
    INSTITUTION,
    LINKED,
    MAKER,
    MICRO,
    RETAIL,
    WHALE,
)  # fmt: skip

POPULARITY = np.array([10.0, 5.0, 2.0, 1.0])
TRADING_S, START_S, END_S = 86_400, 4 * 86_400, 10 * 86_400


def drawn(accounts: int, seed: int = 0, **more: object) -> Population:
    return population(accounts, POPULARITY, 3, TRADING_S, START_S, END_S, np.random.default_rng(seed), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def crowd() -> Population:
    return drawn(20_000)


def traders(people: Population) -> np.ndarray:
    return people.account[people.account["kind"] < MAKER]


def test_the_same_seed_draws_the_same_people() -> None:
    first, again, other = drawn(300, 1), drawn(300, 1), drawn(300, 2)
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(first.account["deposit"], other.account["deposit"])
    assert len(np.unique(first.account["key"])) == len(first.account)


def test_kinds_come_in_their_shares(crowd: Population) -> None:
    kinds = traders(crowd)["kind"]
    whole = sum(habits.share for habits in MIX.values())
    for kind, habits in MIX.items():
        share = habits.share / whole
        assert abs((kinds == kind).sum() - share * len(kinds)) <= 1.0
    # in no order: the first half has its part of every kind
    half = kinds[: len(kinds) // 2]
    assert (half == RETAIL).mean() == pytest.approx((kinds == RETAIL).mean(), abs=0.02)


def test_wealth_spreads_over_five_orders_with_a_heavy_tail(crowd: Population) -> None:
    people = traders(crowd)
    wealth = (people["deposit"] + people["pledge"]) / MICRO
    assert wealth.min() >= LEAST_WEALTH_USD - 0.01 and wealth.max() <= MOST_WEALTH_USD + 0.01
    low, middle, high = np.quantile(wealth, [0.1, 0.5, 0.99])
    assert low < middle / 5 and high > 50 * middle
    top = np.sort(wealth)[-len(wealth) // 100 :]
    # Hill's estimate of the tail index, where Drift's accounts have 0.75 to 1.1
    index = 1.0 / np.mean(np.log(top / top[0]))
    assert 0.5 < index < 1.5


def test_pledges_are_part_of_wealth_and_of_cross_accounts_alone(crowd: Population) -> None:
    people = traders(crowd)
    pledged = people[people["pledge"] > 0]
    assert 0.05 < len(pledged) / len(people) < 0.3
    assert not pledged["isolated"].any()
    assert set(pledged["pledge_asset"].tolist()) == {1, 2}
    assert (people["deposit"] % 10_000 == 0).all(), "in whole cents"


def test_habits_stay_within_their_bounds(crowd: Population) -> None:
    people = traders(crowd)
    assert people["leverage"].min() >= LEAST_LEVERAGE and people["leverage"].max() <= MOST_LEVERAGE
    assert people["long_share"].min() >= 0.0 and people["long_share"].max() <= 1.0
    assert people["deals_a_day"].min() > 0.0
    assert set(people["stop"].tolist()) == {0.0, 1.2, 1.5, 2.0}
    assert ((people["rescue"] == 0.0) | (people["rescue"] >= 0.2)).all() and people["rescue"].max() < 1.0
    assert not people["isolated"][np.isin(people["kind"], (CARRY, HEDGER, WHALE, INSTITUTION))].any()
    assert 0.05 < people["isolated"].mean() < 0.15
    assert people["alert"].min() >= LEAST_ALERT and people["alert"].max() <= MOST_ALERT


def test_large_accounts_are_the_more_careful(crowd: Population) -> None:
    people = traders(crowd)
    people = people[people["kind"] == RETAIL]
    wealth = (people["deposit"] + people["pledge"]) / MICRO
    small, large = people[wealth < 1_000.0], people[wealth > 20_000.0]
    assert len(large) > 50
    assert (large["stop"] > 0.0).mean() > 1.5 * (small["stop"] > 0.0).mean()
    assert (large["rescue"] > 0.0).mean() > 1.5 * (small["rescue"] > 0.0).mean()
    assert np.median(large["alert"]) > 5.0 * np.median(small["alert"])
    assert np.median(large["leverage"]) < 0.95 * np.median(small["leverage"])
    assert large["alert"].min() < np.median(small["alert"]), "some large ones are careless"


def test_a_few_institutions_hold_most(crowd: Population) -> None:
    people = traders(crowd)
    wealth = (people["deposit"] + people["pledge"]) / MICRO
    held = wealth * people["leverage"]
    few = people["kind"] == INSTITUTION
    assert few.mean() < 0.005 and held[few].sum() > 0.4 * held.sum()
    # of one kind: none aims for what the boldest aim for, and all look after what they hold
    assert people["leverage"][few].max() < np.quantile(people["leverage"][~few], 0.95)
    assert people["alert"][few].min() > np.quantile(people["alert"][~few], 0.95)
    assert (people["rescue"][few] > 0.2).mean() > 0.9
    liked = np.diff(crowd.taste[: len(people)][few], axis=1, prepend=0.0).mean(axis=0)
    others = np.diff(crowd.taste[: len(people)][people["kind"] == RETAIL], axis=1, prepend=0.0).mean(axis=0)
    assert liked[0] > others[0] and liked[-1] < others[-1], "in the leading markets"


def test_tastes_are_cumulative_and_popular_markets_are_chosen_more(crowd: Population) -> None:
    taste = crowd.taste
    assert (np.diff(taste, axis=1) >= 0.0).all() and (taste[:, -1] == 1.0).all()
    people = crowd.account["kind"] == RETAIL
    share = np.diff(taste[people], axis=1, prepend=0.0).mean(axis=0)
    assert (np.diff(share) < 0.0).all()
    whales = np.diff(taste[crowd.account["kind"] == WHALE], axis=1, prepend=0.0)
    assert (whales.max(axis=1) > 0.99).all()
    assert set(np.argmax(whales, axis=1).tolist()) == {2, 3}, "whales sit in thin markets"


def test_accounts_of_one_owner_do_the_same_and_no_others_share_one(crowd: Population) -> None:
    people = traders(crowd)
    owned = defaultdict(list)
    for number, (owner, kind) in enumerate(zip(people["owner"], people["kind"], strict=True)):
        if owner >= 0:
            owned[int(owner), kind == LINKED].append(number)
    linked = [numbers for (_, is_linked), numbers in owned.items() if is_linked]
    assert all(len(numbers) == 1 for (_, is_linked), numbers in owned.items() if not is_linked)
    assert len({owner for owner, _ in owned}) == len(owned)
    assert 4 < np.mean([len(numbers) for numbers in linked]) < 16
    alike = 0
    for numbers in linked:
        assert len(set(people["long_share"][numbers].tolist())) == 1
        picks = np.argmax(np.diff(crowd.taste[numbers], axis=1, prepend=0.0), axis=1)
        alike += len(set(picks.tolist())) == 1
    assert alike / len(linked) > 0.9


def test_most_are_there_at_the_start_and_the_others_come_later(crowd: Population) -> None:
    people = traders(crowd)
    opened = crowd.opened_s[: len(people)]
    present = opened != -1
    assert present.mean() == pytest.approx(PRESENT_SHARE, abs=0.02)
    first = people["first_s"]
    assert first[present].min() >= TRADING_S
    assert first[present].max() < TRADING_S + (START_S - TRADING_S) / 4
    assert first[~present].min() >= START_S + 60 and first[~present].max() < END_S
    assert (opened[present] <= START_S - 2 * 86_400).all()
    assert (crowd.account["status"] == ABSENT).all()


def test_makers_and_the_backstop_come_last(crowd: Population) -> None:
    kinds = crowd.account["kind"]
    assert kinds[-1] == BACKSTOP and (kinds[20_000:-1] == MAKER).all()
    assert len(kinds) == 20_000 + makers_for(20_000) + 1
    assert not crowd.account["isolated"][20_000:].any()
    assert (crowd.account["first_s"][20_000:] == TRADING_S).all()


def test_how_many_makers() -> None:
    counts = [makers_for(accounts) for accounts in (1, 1_000, 5_000, 10**6)]
    assert counts[0] == LEAST_MAKERS and counts[-1] == MOST_MAKERS and counts == sorted(counts)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(0, 10**6), st.sampled_from(sorted(MIX)), st.integers(1, 3))
def test_any_number_of_any_kind_can_be_drawn(accounts: int, seed: int, kind: int, assets: int) -> None:
    people = population(
        accounts, POPULARITY[:1], assets, 0, 0, 60, np.random.default_rng(seed), {kind: MIX[kind]}
    )
    assert (traders(people)["kind"] == kind).all() and len(traders(people)) == accounts
    assert (people.taste[:, -1] == 1.0).all()
    assert assets > 1 or not people.account["pledge"].any()
    assert (intended_usd(people, 1) > 0.0).all()


def test_what_traders_mean_to_hold_follows_their_money(crowd: Population) -> None:
    meant = intended_usd(crowd, 4)
    people = traders(crowd)
    equity = np.minimum((people["deposit"] + people["pledge"]) / MICRO, LARGEST_USD)
    assert meant.sum() == pytest.approx(PRESENT_SHARE * (equity * people["leverage"]).sum(), rel=1e-6)


@pytest.mark.parametrize("accounts", [0, -1])
def test_nobody_is_no_population(accounts: int) -> None:
    with pytest.raises(InputError, match="accounts must be at least 1"):
        drawn(accounts)


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    mix = {**MIX, RETAIL: MIX[RETAIL]._replace(share=share)}
    with pytest.raises(InputError, match="retail"):
        drawn(10, mix=mix)
    with pytest.raises(InputError, match="shares"):
        drawn(10, mix={RETAIL: MIX[RETAIL]._replace(share=0.0)})
