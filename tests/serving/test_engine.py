"""The engine: one state whatever the way the events came, and refusals that change nothing."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import catalog
from features.tables import TABLES
from features.venue import Venue
from pipelines.events import event_batches
from pipelines.meta import Meta
from pipelines.store import Dataset, write_dataset
from serving.engine import Engine
from serving.sources import RUNS_KEPT, SOURCES_KEPT, Place, Source, Sources
from serving.wire import to_us
from tests.serving import stories as tell
from tests.serving.stories import START, Event, FakeScorer, asked, at, send, story, told


def moment_of(event: Event) -> tuple[str, int]:
    """Time of an event, and the place of its table among those of one time."""
    order = list(TABLES).index(event["table"]) if event["table"] != "observations" else 99
    return event.get("time") or event.get("opened_time") or "", order


# -- the order of events


@given(st.sets(st.integers(1, len(story()) - 1)))
def test_the_state_does_not_depend_on_how_events_are_batched(cuts: set[int]) -> None:
    events = story()
    engine = Engine(FakeScorer())
    edges = [0, *sorted(cuts), len(events)]
    for start, end in pairwise(edges):
        send(engine, events[start:end])
    assert engine.venue.digest() == told(events).venue.digest()
    assert engine.sequence == len(events)


@given(st.randoms(use_true_random=False))
def test_within_a_request_events_apply_in_their_order_whatever_the_order_they_are_sent_in(
    chance: Random,
) -> None:
    groups: dict[tuple[str, int], list[Event]] = {}
    for event in story():
        groups.setdefault(moment_of(event), []).append(event)
    shuffled = list(groups.values())
    chance.shuffle(shuffled)
    assert (
        told([event for group in shuffled for event in group]).venue.digest() == told(story()).venue.digest()
    )


@pytest.mark.parametrize("assets", [["ETH"], ["ETH", "USDC"], ["AAA", "ETH", "USD"]])
def test_the_service_makes_of_rows_what_a_dataset_of_them_makes(tmp_path: Path, assets: list[str]) -> None:
    events = [event for event in story() if event["table"] != "assets"]
    events = [*(tell.asset(name) for name in assets), *events, tell.default(8, "ann")]
    tables: dict[str, list[Event]] = {name: [] for name in TABLES}
    for event in events:
        row = {key: value for key, value in event.items() if key != "table"}
        for nested, table in (("positions", "position_snapshots"), ("balances", "balance_snapshots")):
            key = {name: row[name] for name in ("time", "account_id") if name in row}
            tables[table] += [{**key, **entry} for entry in row.pop(nested, [])]
        tables[event["table"]].append(row)
    frames = {
        name: pl.DataFrame(rows, infer_schema_length=None).with_columns(
            pl.col(column.name).str.to_datetime(time_unit="us", time_zone="UTC")
            for column in TABLES[name].columns
            if column.type == "time" and column.name in rows[0]
        )
        for name, rows in tables.items()
        if rows
    }
    end_us = to_us(START + timedelta(days=1))
    write_dataset(tmp_path / "venue", Meta("story", "accounts", to_us(START), end_us), frames)
    venue = Venue()
    for batch in event_batches(Dataset.open(tmp_path / "venue", "accounts"), None, venue):
        venue.apply(batch)
    engine = told(events)
    assert engine.venue.digest() == venue.digest()
    assert engine.venue.account_names == venue.account_names
    assert engine.venue.market_names == venue.market_names
    assert engine.venue.asset_names == venue.asset_names


@pytest.mark.parametrize("event", [row for row in story() if row["table"] not in ("assets", "accounts")])
def test_what_comes_after_its_place_is_refused_and_changes_nothing(event: Event) -> None:
    engine = told(story())
    digest = engine.venue.digest()
    late = engine.take(asked([event]))
    if event["time"] == at(8):  # the newest moment is still open for its own kind
        assert late.accepted == 1
        return
    assert [entry.code for entry in late.rejected] == ["late"]
    assert late.accepted == 0
    assert engine.venue.digest() == digest
    assert engine.sequence == len(story())


def test_at_one_time_kinds_apply_in_their_order() -> None:
    engine = told(story())
    answer = engine.take(asked([tell.transfer(8, "ann", 1.0)]))
    assert answer.rejected == []
    answer = engine.take(asked([tell.bar(8, 61_000.0), tell.fill(8, "ann", 0.1, 60_600.0)]))
    assert [(entry.index, entry.code) for entry in answer.rejected] == [(0, "late")]
    assert answer.accepted == 1


def test_an_account_may_be_announced_long_after_it_was_opened() -> None:
    engine = told(story())
    send(engine, [tell.account("old", -10_000)])
    held = engine.account("old")
    assert held.opened_time == START - timedelta(minutes=10_000)
    assert engine.now_us == to_us(START + timedelta(minutes=8))


def test_events_from_the_future_are_refused_by_the_wall_clock_only() -> None:
    now_us = to_us(START)
    engine = Engine(FakeScorer(), clock=lambda: now_us)
    answer = engine.take(asked([tell.market(minutes=0.05), tell.market("SOL", minutes=0.1)]))
    assert [(entry.index, entry.code) for entry in answer.rejected] == [(1, "future")]
    now_us += 10_000_000
    assert engine.take(asked([tell.market("SOL", minutes=0.1)])).accepted == 1
    assert Engine(FakeScorer()).take(asked([tell.market(minutes=10**7)])).accepted == 1


# -- what is refused, one by one


@pytest.mark.parametrize(
    ("event", "code", "word"),
    [
        (tell.fill(9, "ann", 1.0, 1.0, market="DOGE"), "unknown_market", "'DOGE'"),
        (tell.fill(9, "zoe", 1.0, 1.0), "unknown_account", "'zoe'"),
        (tell.transfer(9, "zoe", 1.0), "unknown_account", "'zoe'"),
        (tell.rate(9, "zoe", 0.1, 0.1), "unknown_account", "'zoe'"),
        (tell.price(9, 1.0, "XYZ"), "unknown_asset", "'XYZ'"),
        (tell.snapshot(9, "ann", 1.0, positions=[{"market": "X", "quantity": 1}]), "unknown_market", "'X'"),
        (tell.snapshot(9, "ann", 1.0, balances=[{"asset": "X", "amount": 1}]), "unknown_asset", "'X'"),
        (tell.snapshot(9, "ann", 1.0, positions=[{"market": "BTC", "quantity": 1}] * 2), "invalid", "twice"),
        (tell.snapshot(9, "ann", 1.0, balances=[{"asset": "ETH", "amount": 1}] * 2), "invalid", "twice"),
        ({**tell.book(9, 100.0), "bid_usd": [1.0]}, "invalid", "length"),
        (tell.market("NEW", 9, tiers=[]), "invalid", "tiers"),
        (
            tell.market("NEW", 9, tiers=[{"initial_margin_rate": 0.1, "maintenance_margin_rate": 0.2}]),
            "invalid",
            "above",
        ),
        (tell.bar(-(10**8), 100.0), "invalid", "1970"),
        (
            {"table": "default_events", "time": at(9), "account_id": "zoe", "kind": "liquidation",
             "shortfall_usd": 0},
            "unknown_account", "'zoe'",
        ),
        (
            {"table": "default_events", "time": at(9), "account_id": "ann", "kind": "liquidation",
             "shortfall_usd": 0, "time_lower": at(10)},
            "invalid", "time_lower",
        ),
    ],
)  # fmt: skip
def test_a_rejected_event_changes_nothing_and_the_others_go_on(event: Event, code: str, word: str) -> None:
    before = [tell.transfer(9, "ann", 7.0)]
    after = [tell.transfer(9, "bob", 7.0)]
    engine, other = told(story()), told(story())
    answer = engine.take(asked([*before, event, *after]))
    send(other, [*before, *after])
    assert [(entry.index, entry.code) for entry in answer.rejected] == [(1, code)]
    assert word in answer.rejected[0].message
    assert answer.accepted == 2
    assert engine.venue.digest() == other.venue.digest()


def test_history_from_before_a_market_has_terms_is_taken_as_a_dataset_s_is() -> None:
    engine = told(story())
    send(engine, [tell.bar(9, 1.0, "DOGE"), tell.bar(10, 1.1, "DOGE"), tell.funding(10, 1e-4, "DOGE")])
    held = tell.fill(11, "ann", 10.0, 1.1, market="DOGE")
    assert [entry.code for entry in engine.take(asked([held])).rejected] == ["unknown_market"]
    send(engine, [tell.market("DOGE", 11), held])
    row = engine.venue.state.market[engine.venue.find_market("DOGE")]
    assert (row["mark"], row["funding_rate"]) == (1.1, 1e-4)
    assert not math.isnan(row["variance"][0])


def test_the_insurance_fund_is_kept_and_changes_no_feature() -> None:
    engine = told(story())
    digest = engine.venue.digest()
    fund = {"table": "insurance_fund", "time": at(3), "balance_usd": 1e6, "reason": "fees"}
    assert send(engine, [fund]).sequence == len(story()) + 1
    assert engine.venue.digest() == digest


def features_of(engine: Engine, name: str) -> dict[str, float]:
    vectors = engine.venue.vectors([engine.venue.find_account(name)])
    return dict(zip(catalog.NAMES, vectors.features[0].tolist(), strict=True))


def test_a_default_is_remembered_of_its_account() -> None:
    engine = told([*story(), tell.default(20, "ann"), tell.bar(80, 60_600.0)])
    found = features_of(engine, "ann")
    assert found["hours_since_liquidation"] == pytest.approx(1.0)
    assert found["past_liquidations"] == pytest.approx(0.5 ** (1 / 72))
    assert found["outcome_ratio"] > 0.0
    assert features_of(engine, "bob")["past_liquidations"] == 0.0


def test_other_kinds_of_default_are_no_liquidation() -> None:
    others = [tell.default(9, "ann", kind) for kind in ("deleverage", "negative_equity")]
    found = features_of(told([*story(), *others, tell.bar(80, 60_600.0)]), "ann")
    assert found["past_liquidations"] == 0.0
    assert not math.isnan(found["outcome_ratio"])  # but the table is there


def test_a_default_that_comes_late_is_refused() -> None:
    engine = told([*story(), tell.bar(20, 60_600.0)])
    digest = engine.venue.digest()
    answer = engine.take(asked([tell.default(9, "ann")]))
    assert [entry.code for entry in answer.rejected] == ["late"]
    assert engine.venue.digest() == digest


def test_a_crossed_book_is_taken_and_no_depth_is_known() -> None:
    engine = told(story())
    send(engine, [{**tell.book(9, 100.0), "best_bid": 101.0}])
    row = engine.venue.state.market[0]
    assert row["level_count"] == 0
    assert math.isnan(row["best_bid"])


# -- repeats


def numbered(events: list[Event], step: int = 1) -> list[Event]:
    return [{**event, "sequence": 10 + number * step} for number, event in enumerate(events)]


@given(st.lists(st.tuples(st.integers(0, 24), st.integers(1, 25)), max_size=5), st.sampled_from([1, 3]))
def test_repeats_change_nothing_and_count_as_accepted(spans: list[tuple[int, int]], step: int) -> None:
    engine = Engine(FakeScorer())
    events = numbered(story(), step)
    first = engine.take(asked(events, "feed"))
    digest = engine.venue.digest()
    for start, length in spans:
        part = events[start : start + length]
        again = engine.take(asked(part, "feed"))
        assert (again.accepted, again.rejected, again.sequence) == (len(part), [], first.sequence)
        assert engine.venue.digest() == digest


def test_sources_number_their_events_independently() -> None:
    engine = told(story())
    deposit = tell.transfer(9, "ann", 5.0, sequence=4)
    for source in ("a", "b", None):
        assert engine.take(asked([deposit], source)).accepted == 1
    assert engine.sequence == len(story()) + 3
    engine.take(asked([deposit], "b"))
    assert engine.sequence == len(story()) + 3


def test_a_number_that_was_never_accepted_is_no_repeat() -> None:
    engine = told(story())
    answer = engine.take(
        asked([tell.transfer(9, "zoe", 5.0, sequence=3), tell.transfer(9, "ann", 5.0, sequence=4)], "a")
    )
    assert [entry.code for entry in answer.rejected] == ["unknown_account"]
    again = engine.take(
        asked([tell.transfer(9, "zoe", 5.0, sequence=3), tell.transfer(9, "ann", 5.0, sequence=4)], "a")
    )
    assert [(entry.index, entry.code) for entry in again.rejected] == [(0, "out_of_order")]
    assert again.accepted == 1
    assert engine.sequence == len(story()) + 1


def test_numbers_fall_within_a_request_or_stand_twice() -> None:
    engine = told(story())
    events = [tell.transfer(9, "ann", 1.0, sequence=number) for number in (5, 5, 4, 6)]
    answer = engine.take(asked(events, "a"))
    assert [(entry.index, entry.code) for entry in answer.rejected] == [(2, "out_of_order")]
    assert answer.accepted == 3
    assert engine.sequence == len(story()) + 2
    events = [tell.transfer(9, "zoe", 1.0, sequence=7)] * 2
    answer = engine.take(asked(events, "a"))
    assert [entry.code for entry in answer.rejected] == ["unknown_account"] * 2


@given(st.lists(st.integers(0, 60), max_size=40))
def test_a_source_remembers_exactly_what_it_accepted(sent: list[int]) -> None:
    source = Source()
    accepted: set[int] = set()
    for number in sent:
        expected = (
            Place.REPEAT
            if number in accepted
            else Place.NEW
            if number > max(accepted, default=-1)
            else Place.OUT_OF_ORDER
        )
        assert source.place(number) is expected
        if expected is Place.NEW:
            source.accept(number)
            accepted.add(number)


def test_what_is_remembered_of_sources_is_bounded() -> None:
    source = Source()
    for number in range(0, 20 * RUNS_KEPT, 2):
        source.accept(number)
    assert len(source._first) <= 2 * RUNS_KEPT
    assert source.place(0) is Place.OUT_OF_ORDER  # forgotten, and never taken again
    assert source.place(20 * RUNS_KEPT - 2) is Place.REPEAT
    sources = Sources()
    for number in range(SOURCES_KEPT):
        sources.accept(str(number), [1], [1])
    assert sources.find("one more") is None
    assert sources.find("7") is not None
