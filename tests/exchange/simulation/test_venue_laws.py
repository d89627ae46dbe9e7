from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from exchange.contracts import MarginTier, Market
from exchange.errors import InputError
from exchange.simulation.ledger import pool
from exchange.simulation.settings import Settings
from exchange.simulation.state import AT_MARK, MAKER, NONE
from exchange.simulation.venue import Rows, Venue
from tests.exchange.simulation.laws import broken, standing_broken
from tests.exchange.simulation.worlds import (
    CALM,
    CRASH,
    WARM_UP,
    Story,
    joined,
    listed_markets,
    made_paths,
    stories,
    stretches,
    tables_of,
    venue_of,
)  # fmt: skip


def rows_of_run(story: Story, minutes: int = 1) -> tuple[Venue, Rows]:
    venue = venue_of(story)
    return venue, joined(list(stretches(story, venue, minutes)))


def same(first: Rows, second: Rows) -> bool:
    # field by field, as the bytes between fields mean nothing
    return all(
        np.array_equal(
            first[name][field], second[name][field], equal_nan=first[name].dtype[field].kind == "f"
        )
        for name in first
        for field in first[name].dtype.names
    )


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(stories())
def test_every_law_holds_in_any_story(story: Story) -> None:
    venue = venue_of(story)
    stretched = []
    for rows in stretches(story, venue):
        stretched.append(rows)
        assert standing_broken(venue) == [], f"in minute {venue.minute}"
    assert broken(tables_of(venue, joined(stretched)), story.rule).broken == []


def test_a_story_in_which_everything_happens_tries_every_law() -> None:
    venue, rows = rows_of_run(CRASH)
    found = broken(tables_of(venue, rows), CRASH.rule)
    assert found.broken == []
    least = {
        "fills": 1_000, "forced fills": 100, "bars": 400, "initial margin": 400,
        "isolated initial margin": 10, "snapshots": 300, "figures": 300, "liquidation": 80,
        "negative_equity": 5, "deleverage": 5, "fund": 80,
    }  # fmt: skip
    assert {law: found.tried[law] for law in least if found.tried[law] < least[law]} == {}
    assert len(rows["rates"]) == CRASH.accounts // 2
    kinds = venue.world.account["isolated"][np.unique(rows["events"]["account"])]
    assert set(kinds.tolist()) == {0, 1}


@pytest.mark.parametrize("minutes", [7, 1_000])
def test_it_does_not_matter_in_how_many_stretches_a_venue_runs(minutes: int) -> None:
    story = CRASH._replace(rates=())
    one, whole = rows_of_run(story), rows_of_run(story, minutes)
    assert same(one[1], whole[1])
    assert one[0].world.account.tobytes() == whole[0].world.account.tobytes()


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    first, again, other = (rows_of_run(CRASH._replace(seed=seed), 50)[1] for seed in (5, 5, 6))
    assert same(first, again)
    assert not any(
        np.array_equal(first[name]["time"], other[name]["time"])
        for name in ("fills", "transfers", "snapshots")
    )


def test_rows_come_in_order_and_none_from_before_the_start() -> None:
    venue, rows = rows_of_run(CRASH)
    for name in ("fills", "transfers", "snapshots", "events", "fund"):
        times = rows[name]["time"]
        assert len(times) and times.min() >= venue.start_us and times.max() < venue.end_us + 1_000_000
    for name in ("fills", "events", "fund", "transfers"):
        assert (np.diff(rows[name]["time"]) >= 0).all()
    # of one time there are two fills, and one row of anything else
    assert np.unique(rows["fills"]["time"], return_counts=True)[1].tolist() == [2] * (len(rows["fills"]) // 2)
    for name in ("events", "fund", "transfers"):
        assert len(np.unique(rows[name]["time"])) == len(rows[name])


def test_the_start_finds_a_lived_in_venue_and_tells_all_of_it() -> None:
    venue, rows = rows_of_run(CALM._replace(accounts=40))
    first = rows["snapshots"][rows["snapshots"]["time"] == venue.start_us]
    held = rows["holdings"][rows["holdings"]["time"] == venue.start_us]
    assert len(held) > 10
    assert len(np.unique(first["account"])) == len(first)
    lots = np.zeros(2, np.int64)
    np.add.at(lots, held["market"], held["a"])
    assert lots.tolist() == [0, 0]
    makers = np.flatnonzero(venue.world.account["kind"] >= MAKER)
    assert set(makers.tolist()) <= set(first["account"].tolist())
    assert venue.fund_at_start_usd >= 0.0


# ---- margin rates from outside


def leverage(venue: Venue) -> np.ndarray:
    """Gross notional over equity of every trader with a position."""
    found = []
    for account in range(CALM.accounts * 10):
        equity, _, _, _, gross, _ = pool(venue.world, account, NONE, AT_MARK)
        if gross > 0.0:
            found.append(gross / equity)
    return np.array(found)


def everybody(venue: Venue) -> np.ndarray:
    return np.flatnonzero(venue.world.account["kind"] < MAKER)


def with_rates(initial: float, maintenance: float, at_minute: int = 0) -> tuple[Venue, Rows]:
    """A calm story in which a rate is put in force for all traders at a minute."""
    venue = venue_of(CALM._replace(accounts=40, leverage=3.0, eager=200.0))
    stretched = list(venue.run(at_minute)) if at_minute else []
    who = everybody(venue)
    venue.set_margin_rates(who, np.full(len(who), initial), np.full(len(who), maintenance))
    stretched += list(venue.run())
    return venue, joined(stretched)


def test_a_higher_initial_rate_keeps_leverage_down() -> None:
    free, _ = with_rates(0.0, 0.0)
    bound, rows = with_rates(0.5, 0.0)
    assert leverage(free).max() > 3.0
    # at the moment of the trade it is two at most, and prices are calm
    assert len(leverage(bound)) > 3 and leverage(bound).max() < 2.05
    assert rows["rates"]["initial"].tolist() == [0.5] * len(everybody(bound))
    assert not (rows["events"]["kind"] == 0).any(), "who is open already is left alone"


def test_a_higher_maintenance_rate_closes_earlier() -> None:
    at = WARM_UP + 60
    venue, rows = with_rates(0.25, 0.25, at)
    put = venue.paths.start_us + at * 60_000_000
    assert set(rows["rates"]["time"]) == {put}
    forced = rows["events"][rows["events"]["kind"] == 0]
    assert len(forced) > 3
    assert (forced["time"] > put).all() and (forced["time"] < put + 60_000_000).sum() > 3
    untouched = []
    looks = {(r["account"], r["time"]): r for r in rows["snapshots"]}
    for event in forced:
        look = looks[event["account"], event["time"] - 1]
        assert look["b"] < look["d"]
        if event["time"] < put + 60_000_000 and not venue.world.account["isolated"][event["account"]]:
            assert look["d"] == pytest.approx(0.25 * event["a"], rel=1e-9)
            untouched.append(look["b"] > 0.05 * event["a"])
    # nearly all where the static schedule would not have closed them
    assert len(untouched) > 3 and np.mean(untouched) > 0.8
    assert broken(tables_of(venue, rows), CALM.rule).broken == []


def test_a_rate_of_zero_gives_the_static_schedule_back() -> None:
    venue = venue_of(CALM._replace(accounts=40, leverage=3.0, eager=200.0))
    who = everybody(venue)
    for _ in venue.run(30):
        pass
    venue.set_margin_rates(who, np.full(len(who), 0.9), np.zeros(len(who)))
    venue.set_margin_rates(who, np.zeros(len(who)), np.zeros(len(who)))
    for _ in venue.run():
        pass
    assert leverage(venue).max() > 3.0


def test_the_last_of_two_rates_of_one_moment_is_the_one_that_is_told() -> None:
    venue = venue_of(CALM)
    who = np.array([0, 1, 2])
    venue.set_margin_rates(who, np.full(3, 0.3), np.full(3, 0.1))
    venue.set_margin_rates(who[:1], np.array([0.4]), np.array([0.2]))
    venue.set_margin_rates(who[:0], np.zeros(0), np.zeros(0))
    rates = venue.drain()["rates"]
    told = {int(r["account"]): (float(r["initial"]), float(r["maintenance"])) for r in rates}
    assert len(rates) == 3 and told == {0: (0.4, 0.2), 1: (0.3, 0.1), 2: (0.3, 0.1)}


@pytest.mark.parametrize(
    ("accounts", "initial", "maintenance"),
    [
        ([0], [0.1], [0.2]), ([0], [1.5], [0.1]), ([0], [0.1], [-0.1]), ([0], [-0.2], [-0.2]),
        ([0], [float("nan")], [0.1]), ([0], [0.2], [float("nan")]), ([0], [float("inf")], [0.1]),
        ([-1], [0.2], [0.1]), ([10_000], [0.2], [0.1]), ([0, 0], [0.2, 0.2], [0.1, 0.1]),
        ([0, 1], [0.2], [0.1]), ([0], [0.2, 0.3], [0.1]),
    ],
)  # fmt: skip
def test_rates_that_are_none_are_refused_and_change_nothing(
    accounts: list[int], initial: list[float], maintenance: list[float]
) -> None:
    venue = venue_of(CALM)
    with pytest.raises(InputError):
        venue.set_margin_rates(np.array(accounts), np.array(initial), np.array(maintenance))
    assert not venue.world.account["initial_rate"].any() and not len(venue.drain()["rates"])


@pytest.mark.parametrize("accounts", [[0.0], [0.5], [True], ["0"], [[0]], [None], [float("nan")]])
def test_what_is_no_number_of_an_account_is_refused_and_changes_nothing(accounts: list[object]) -> None:
    venue = venue_of(CALM)
    with pytest.raises(InputError, match="whole numbers"):
        venue.set_margin_rates(np.array(accounts), np.array([0.2]), np.array([0.1]))
    assert not venue.world.account["initial_rate"].any() and not len(venue.drain()["rates"])


# ---- what cannot be a venue


def test_a_venue_has_one_to_28_markets_and_at_least_one_trader() -> None:
    paths = made_paths(CALM._replace(markets=29))
    for count in (0, 29):
        with pytest.raises(InputError, match="markets"):
            Venue(listed_markets(count), paths, 4, 1, WARM_UP)
    with pytest.raises(InputError, match="accounts"):
        venue_of(CALM._replace(accounts=0))


def test_28_markets_fit() -> None:
    venue = venue_of(CALM._replace(markets=28, accounts=12, minutes=10))
    for _ in stretches(CALM, venue, 30):
        assert standing_broken(venue) == []


def test_a_lot_must_be_worth_whole_micro_dollars() -> None:
    odd = Market("ODD", 1e-5, 0.05, 0.0, 0.0, 28_800.0, (MarginTier(float("inf"), 0.1, 0.05),))
    listed = [listed_markets(1)[0]._replace(market=odd)]
    with pytest.raises(InputError, match="micro-dollars"):
        Venue(listed, made_paths(CALM._replace(markets=1)), 4, 1, WARM_UP, settings=Settings())
