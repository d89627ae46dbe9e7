"""Laws that hold for any stream of events."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import catalog
from features.events import (
    ACCOUNT,
    ASSET_PRICE,
    BALANCE,
    BAR,
    BOOK,
    FILL,
    LEVEL,
    MARKET,
    OBSERVED,
    POSITION,
    SNAPSHOT,
    TIER,
    TRANSFER,
)
from features.state import (
    FREE_BALANCE,
    FREE_POSITION,
    USED_BALANCES,
    USED_POSITIONS,
    new_state,
)
from features.venue import Venue
from tests.features import streams
from tests.features.streams import ACCOUNTS, Row

laws = settings(max_examples=40)


def all_vectors(venue: Venue) -> list[dict[str, float]]:
    return [streams.vector(venue, account) for account in range(ACCOUNTS)]


def assert_alike(a: Venue, b: Venue) -> None:
    assert a.digest() == b.digest()
    for one, other in zip(all_vectors(a), all_vectors(b), strict=True):
        assert streams.same(one, other) == []


# ---- more collateral is never riskier


@laws
@given(streams.chances, st.integers(0, 12), st.sampled_from((1e-3, 1.0, 40.0, 2_000.0, 1e6)))
def test_a_deposit_moves_no_feature_towards_risk(chance: Random, moments: int, dollars: float) -> None:
    rows = [streams.transfer(streams.START, ACCOUNTS, 1.0), *streams.stream(chance, moments)]
    before = all_vectors(streams.after(rows, accounts=ACCOUNTS + 1))
    deposits = [streams.transfer(rows[-1].time_us, account, dollars) for account in range(ACCOUNTS)]
    after = all_vectors(streams.after(rows + deposits, accounts=ACCOUNTS + 1))
    for poor, rich in zip(before, after, strict=True):
        for feature in catalog.FEATURES if poor else ():
            old, new = poor[feature.name], rich[feature.name]
            assert math.isnan(old) == math.isnan(new), feature.name
            assert not feature.direction * (new - old) > 1e-9 * max(1.0, abs(old)), feature.name


@pytest.mark.parametrize("quantity", [10.0, -10.0])
def test_from_bankrupt_to_rich_every_step_of_equity_is_towards_safety(quantity: float) -> None:
    """All the way through the barrier, where probabilities meet their bounds."""
    changes = (1.0, 1.02, 0.99, 1.01, 1.0)
    market = streams.market_rows(streams.START, 0, [(600.0, 0.1, 0.05), (math.inf, 0.2, 0.1)])
    bars = [
        streams.bar(streams.START + hour * streams.HOUR, 0, 100.0 * change, 1e6)
        for hour, change in enumerate(changes)
    ]
    time = bars[-1].time_us
    book = streams.book_rows(time, 0, 99.9, 100.1, [(100.0, 1e4, 1e4)])
    distances = [*np.linspace(-200.0, 200.0, 81), 0.0, 1e-9, 1e-4, 0.01, 0.1, *np.geomspace(250, 1e6, 12)]
    made = streams.after([*market, *bars, *book])
    previous: dict[str, float] = {}
    for above_maintenance in sorted(distances):
        equity = 70.0 + above_maintenance  # 600 x 5% + 400 x 10%
        snapshot = streams.snapshot_rows(time, 0, equity, [(0, quantity, 100.0, math.nan, math.nan)])
        made.apply(streams.batch(snapshot))
        vector = streams.vector(made)
        for feature in catalog.FEATURES if previous else ():
            change = vector[feature.name] - previous[feature.name]
            assert not feature.direction * change > 1e-9, (feature.name, above_maintenance)
        previous = vector


# ---- units


def in_units(row: Row, share: float) -> Row:
    """The same in contracts `share` times the size; a dollar stays a dollar."""
    v = list(row.values)
    if row.kind in (MARKET, BAR, BOOK):
        prices = {MARKET: (0,), BAR: (0, 1, 2, 3, 4), BOOK: (0, 1)}[row.kind]
        v = [value * share if column in prices else value for column, value in enumerate(v)]
        if row.kind == MARKET:
            v[1] /= share
    elif row.kind in (FILL, POSITION):
        v[0] /= share
        v[1] *= share
    elif row.kind == ASSET_PRICE and row.key != 0:
        v[0] *= share
    elif row.kind == BALANCE and row.sub != 0:
        v[0] /= share
    return row._replace(values=tuple(v))


@laws
@given(streams.chances, st.integers(0, 12), st.sampled_from((-10, -1, 3, 20)))
def test_the_size_of_a_contract_does_not_matter(chance: Random, moments: int, power: int) -> None:
    """Powers of two change no digit, so that nothing at all may differ."""
    rows = streams.stream(chance, moments)
    scaled = [in_units(row, 2.0**power) for row in rows]
    for one, other in zip(all_vectors(streams.after(rows)), all_vectors(streams.after(scaled)), strict=True):
        assert streams.same(one, other) == []


@pytest.mark.parametrize("seed", range(10))
def test_ten_times_the_price_and_a_tenth_of_the_quantity_is_the_same(seed: int) -> None:
    rows = streams.stream(Random(seed), 20)
    scaled = [in_units(row, 10.0) for row in rows]
    for one, other in zip(all_vectors(streams.after(rows)), all_vectors(streams.after(scaled)), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=1e-8, abs=1e-8, nan_ok=True), name


# ---- batches, questions, room


@laws
@given(streams.chances, st.integers(0, 10), st.lists(st.floats(0.0, 1.0), max_size=6))
def test_how_events_are_cut_into_batches_does_not_matter(
    chance: Random, moments: int, cuts: list[float]
) -> None:
    rows = streams.stream(chance, moments)
    parts = streams.blocks(rows)
    cut = streams.venue()
    ends = sorted({0, len(parts), *(int(share * len(parts)) for share in cuts)})
    for start, end in pairwise(ends):
        some = [row for part in parts[start:end] for row in part]
        assert cut.apply(streams.batch(some)) == len(some)
        cut.open_vectors()  # nor does what is asked in between
    assert_alike(cut, streams.after(rows))


@laws
@given(streams.chances, st.integers(0, 10))
def test_asking_changes_nothing(chance: Random, moments: int) -> None:
    rows = streams.stream(chance, moments)
    asked = streams.venue()
    for _, moment in groupby(rows, key=lambda row: row.time_us):
        asked.apply(streams.batch(list(moment)))
        before = asked.digest()
        asked.open_vectors()
        asked.vectors(range(ACCOUNTS))
        asked.vector_of(asked.portfolio(0, orders=2)) if asked.vectors([0]).account.size else None
        assert asked.digest() == before
    assert_alike(asked, streams.after(rows))


@laws
@given(streams.chances, st.integers(0, 10))
def test_room_does_not_matter(chance: Random, moments: int) -> None:
    rows = streams.stream(chance, moments)
    small, large = streams.venue(), streams.venue()
    small.state = new_state(1, 1, 1, 1, 1)
    large.state = new_state(64, 64, 2_000, 5_000, 500)
    for part in streams.blocks(rows):  # one by one, so that every table grows as late as it can
        small.apply(streams.batch(part))
    large.apply(streams.batch(rows))
    assert_alike(small, large)


@laws
@given(streams.chances, st.integers(0, 10))
def test_where_positions_lie_does_not_matter(chance: Random, moments: int) -> None:
    rows = streams.stream(chance, moments)
    laid = streams.venue()
    for part in streams.blocks(rows):
        laid.apply(streams.batch(part))
        before = laid.digest()
        laid.lay_in_order()
        assert laid.digest() == before
        held, free = slots_of(laid, "position", "first_position", FREE_POSITION)
        assert held == list(range(len(held)))
        assert sorted(held + free) == list(range(len(laid.state.position)))
    assert_alike(laid, streams.after(rows))


@laws
@given(streams.chances, st.integers(0, 10))
def test_a_single_vector_is_that_of_all_and_none_where_nothing_is_open(chance: Random, moments: int) -> None:
    made = streams.after(streams.stream(chance, moments))
    opened = made.open_vectors()
    for row, account in enumerate(opened.account.tolist()):
        found = made.vector(account)
        assert found is not None
        np.testing.assert_array_equal(found[0], opened.features[row])
        np.testing.assert_array_equal(found[1], opened.figures[row])
    for account in {-1, ACCOUNTS, 10**6, *range(ACCOUNTS)} - set(opened.account.tolist()):
        assert made.vector(account) is None


@laws
@given(streams.chances, st.integers(0, 10))
def test_all_at_once_is_one_by_one(chance: Random, moments: int) -> None:
    made = streams.after(streams.stream(chance, moments))
    whole = made.open_vectors()
    single = made.vectors(whole.account.tolist())
    for one, other in zip(whole, single, strict=True):
        np.testing.assert_array_equal(one, other)


@laws
@given(streams.chances, st.integers(1, 10))
def test_no_look_at_a_market_is_kept_for_too_long(chance: Random, moments: int) -> None:
    made = streams.venue()
    for part in streams.blocks(streams.stream(chance, moments)):
        made.apply(streams.batch(part))
        if made.now_us >= 0 and chance.random() < 0.3:  # a book too old by then is not any more after
            made.open_vectors(made.now_us + chance.choice((1, 2 * streams.HOUR)))
        for account in range(ACCOUNTS):
            kept = made.vector(account)
            if kept is not None:
                anew = made.vector_of(made.portfolio(account))
                assert [each.tobytes() for each in kept] == [each.tobytes() for each in anew]


# ---- pools of slots


def slots_of(venue: Venue, table: str, head: str, free: int) -> tuple[list[int], list[int]]:
    """Slots that accounts hold, and slots that are free."""
    pool = getattr(venue.state, table)

    def chain(slot: int) -> list[int]:
        found = []
        while slot >= 0:
            found.append(slot)
            slot = int(pool[slot]["next"])
            assert len(found) <= len(pool), "a list that runs in a circle"
        return found

    held = [slot for start in venue.state.account[head] for slot in chain(int(start))]
    return held, chain(int(venue.state.clock[free]))


def assert_pools_are_whole(venue: Venue) -> None:
    """Every slot is held once or free once, and the counts are right."""
    for table, head, free, used in (
        ("position", "first_position", FREE_POSITION, USED_POSITIONS),
        ("balance", "first_balance", FREE_BALANCE, USED_BALANCES),
    ):
        held, spare = slots_of(venue, table, head, free)
        assert sorted(held + spare) == list(range(len(getattr(venue.state, table))))
        assert venue.state.clock[used] == len(held)


@laws
@given(streams.chances, st.integers(0, 12))
def test_no_slot_is_lost_and_all_come_back(chance: Random, moments: int) -> None:
    rows = streams.stream(chance, moments)
    made = streams.venue()
    made.state = new_state(1, 1, 1, 1)
    for _, moment in groupby(rows, key=lambda row: row.time_us):
        made.apply(streams.batch(list(moment)))
        assert_pools_are_whole(made)
    room = len(made.state.position), len(made.state.balance)
    empty = [Row(SNAPSHOT, rows[-1].time_us, key, -1, (0.0, 0.0)) for key in range(ACCOUNTS)]
    made.apply(streams.batch(empty))
    assert_pools_are_whole(made)
    assert made.state.clock[[USED_POSITIONS, USED_BALANCES]].tolist() == [0, 0]
    assert made.open_vectors().account.size == 0
    assert (len(made.state.position), len(made.state.balance)) == room


def test_slots_are_used_again() -> None:
    made = streams.venue()
    opened = [streams.fill(streams.START, 0, market, 1.0, 10.0) for market in range(3)]
    closed = [streams.fill(streams.START, 0, market, -1.0, 10.0) for market in (1, 0, 2)]
    for _ in range(200):
        made.apply(streams.batch(opened))
        made.apply(streams.batch(closed))
        assert_pools_are_whole(made)
    assert len(made.state.position) == len(new_state().position)


def test_two_batches_in_turns_have_room_for_both() -> None:
    """What one batch was promised another may not take."""
    made = streams.venue(accounts=200)
    made.state = new_state(8, 4, 256, 1)
    times = (streams.START, streams.START + 1)
    early = streams.batch([streams.fill(times[account > 0], account, 0, 1.0, 10.0) for account in range(100)])
    other = streams.batch([streams.fill(times[0], account, 0, 1.0, 10.0) for account in range(100, 199)])
    row = made.apply(early, until_us=times[0])
    assert row == 1
    made.apply(other)
    made.apply(early, row)
    assert_pools_are_whole(made)
    assert made.state.clock[USED_POSITIONS] == 199


# ---- who else there is, and what comes later


@laws
@given(streams.chances, st.integers(0, 12), st.permutations(range(ACCOUNTS)))
def test_the_order_of_accounts_does_not_matter(chance: Random, moments: int, order: list[int]) -> None:
    """But for rounding in what is summed up over all of them."""
    rows = streams.stream(chance, moments)
    renamed = [
        row._replace(key=order[row.key]) if row.kind >= ACCOUNT and row.key >= 0 else row for row in rows
    ]
    parts = streams.blocks(renamed)
    parts.sort(
        key=lambda part: (part[0].time_us, part[0].kind, part[0].key if part[0].kind >= ACCOUNT else 0)
    )
    found = all_vectors(streams.after([row for part in parts for row in part]))
    for account, vector in enumerate(all_vectors(streams.after(rows))):
        other = found[order[account]]
        for name in streams.same(vector, other):
            assert name in OF_ALL
            assert other[name] == pytest.approx(vector[name], rel=1e-9, abs=1e-9, nan_ok=True), name


OF_ALL = {
    feature.name
    for feature in catalog.FEATURES
    if feature.family in ("liquidation pressure", "linked accounts", "regime")
} | set(catalog.PRIOR_HAZARDS)
"""What depends on other accounts; the prior does through the regime that it follows."""


@laws
@given(streams.chances, st.integers(0, 12))
def test_other_accounts_change_only_what_speaks_of_all(chance: Random, moments: int) -> None:
    rows = streams.stream(chance, moments)
    alone = [
        row if row.kind < ACCOUNT or row.key <= 0 else Row(OBSERVED, row.time_us, -1, -1, ()) for row in rows
    ]
    seen = [
        streams.fill(streams.START, ACCOUNTS, 0, 1.0, 1.0),
        streams.transfer(streams.START, ACCOUNTS, 1.0),
    ]
    seen.append(streams.default(streams.START, ACCOUNTS))  # the tables are there in both
    one, other = (streams.after([*seen, *some], accounts=ACCOUNTS + 1) for some in (alone, rows))
    vector, company = streams.vector(one), streams.vector(other)
    assert set(streams.same(vector, company)) <= OF_ALL


def test_company_does_change_what_speaks_of_all() -> None:
    """The law above would hold of columns that say nothing, too."""
    changed: set[str] = set()
    for seed in range(60):
        rows = streams.stream(Random(seed), 30)
        alone = [row for row in rows if row.kind < ACCOUNT or row.key <= 0]
        one, other = (streams.vector(streams.after(some)) for some in (alone, rows))
        changed |= set(streams.same(one, other)) if one else set()
    assert changed >= OF_ALL


# ---- money


def in_money(row: Row, share: float) -> Row:
    """The same in a money of which a dollar is worth `share`; the number of dollars held grows with it."""
    v = list(row.values)
    dollars = {
        MARKET: (0,), TIER: (0,), BAR: (0, 1, 2, 3, 4, 5, 6), BOOK: (0, 1), LEVEL: (1, 2), ASSET_PRICE: (0,),
        TRANSFER: (0,), FILL: (1, 2), SNAPSHOT: (0, 1, 2, 3), POSITION: (1, 2, 3), BALANCE: (),
    }.get(row.kind, ())  # fmt: skip
    if row.kind == BALANCE and row.sub == 0:
        dollars = (0,)
    if row.kind == ASSET_PRICE and row.key == 0:
        dollars = ()
    return row._replace(values=tuple(x * share if k in dollars else x for k, x in enumerate(v)))


@laws
@given(streams.chances, st.integers(0, 12), st.sampled_from((-3, 1, 12)))
def test_the_money_that_all_is_counted_in_does_not_matter(chance: Random, moments: int, power: int) -> None:
    """But for the size of the account, and for cents, which count as a cent."""
    rows = streams.stream(chance, moments)
    scaled = [in_money(row, 2.0**power) for row in rows]
    one, other = all_vectors(streams.after(rows)), all_vectors(streams.after(scaled))
    for vector, same in zip(one, other, strict=True):
        differing = {name for name in streams.same(vector, same) if not name.endswith("_USD")}
        assert differing <= {"log_equity", "equity_change"}
        if vector and vector["EQUITY_USD"] > 1.0:
            assert same["log_equity"] - vector["log_equity"] == pytest.approx(power * math.log10(2.0))


@laws
@given(streams.chances, st.integers(1, 12), st.floats(0.0, 1.0))
def test_what_happens_later_changes_nothing(chance: Random, moments: int, share: float) -> None:
    rows = streams.stream(chance, moments)
    time_us = rows[int(share * (len(rows) - 1))].time_us
    until = [row for row in rows if row.time_us <= time_us]
    made = streams.venue()
    assert made.apply(streams.batch(rows), until_us=time_us) == len(until)
    assert_alike(made, streams.after(until))


def test_events_apply_up_to_and_including_the_time_asked_for() -> None:
    rows = [streams.transfer(streams.START + k, 0, 1.0) for k in range(3)]
    made = streams.venue()
    assert made.apply(streams.batch(rows), until_us=streams.START + 1) == 2
    assert made.now_us == streams.START + 1
    assert made.state.account[0]["cash"] == 2.0
