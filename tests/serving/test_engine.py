"""The engine: one state whatever the way the events came, and questions that change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.tables import TABLES
from features.venue import Venue
from pipelines.events import event_batches
from pipelines.meta import Meta
from pipelines.store import Dataset, write_dataset
from serving import cure
from serving.engine import Engine
from serving.sources import RUNS_KEPT, SOURCES_KEPT, Place, Source, Sources
from serving.wire import BatchRequest, RefusalError, ScoreRequest, decode, to_us
from tests.serving import stories as tell
from tests.serving.stories import START, Event, FakeScorer, asked, at, send, story

_score_decoder = msgspec.json.Decoder(ScoreRequest)


def told(events: list[Event]) -> Engine:
    engine = Engine(FakeScorer())
    send(engine, events)
    return engine


def question(account_id: str, **more: Any) -> ScoreRequest:
    return decode(_score_decoder, msgspec.json.encode({"account_id": account_id, **more}))


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


def test_the_service_makes_of_rows_what_a_dataset_of_them_makes(tmp_path: Path) -> None:
    tables: dict[str, list[Event]] = {name: [] for name in TABLES}
    for event in story():
        row = {key: value for key, value in event.items() if key != "table"}
        for nested, table in (("positions", "position_snapshots"), ("balances", "balance_snapshots")):
            key = {name: row[name] for name in ("time", "account_id") if name in row}
            tables[table] += [{**key, **entry} for entry in row.pop(nested, [])]
        tables[event["table"]].append(row)
    tables["default_events"].append(
        {"time": at(8), "account_id": "ann", "kind": "liquidation", "shortfall_usd": 0.0}
    )
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
    engine = told(story())
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
        (tell.bar(9, 1.0, "DOGE"), "unknown_market", "'DOGE'"),
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


def test_tables_that_tell_outcomes_are_kept_and_change_no_feature() -> None:
    engine = told(story())
    digest = engine.venue.digest()
    answer = send(
        engine,
        [
            {"table": "insurance_fund", "time": at(3), "balance_usd": 1e6, "reason": "fees"},
            {"table": "default_events", "time": at(9), "account_id": "ann", "kind": "negative_equity",
             "shortfall_usd": 3.0, "market": "BTC"},
        ],
    )  # fmt: skip
    assert answer.sequence == len(story()) + 2
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
        sources.accept(str(number), [1])
    assert sources.find("one more") is None
    assert sources.find("7") is not None


# -- questions


def test_questions_change_nothing(engine: Engine) -> None:
    digest = engine.venue.digest()
    asked_for = question("ann", orders=[{"market": "SOL", "quantity": -3}], explain=True, cure=True)
    first = engine.score(asked_for)
    engine.score_batch(BatchRequest(["ann", "bob", "cem"]))
    engine.account("bob")
    engine.score(question("new", account={"equity_usd": 5, "positions": [{"market": "BTC", "quantity": 1}]}))
    assert engine.venue.digest() == digest
    assert engine.score(asked_for) == first


def test_an_account_without_positions_is_all_zeros(engine: Engine) -> None:
    answer = engine.score(question("cem", explain=True, cure=True))
    assert answer.status == "ok"
    assert answer.pd_liquidation_24h == answer.initial_margin_rate == answer.expected_loss_usd == 0.0
    assert answer.reasons == []
    assert answer.cure == cure.Cure(0.0, [])


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"account_id": "zoe"}, 404, "unknown_account", "account_id"),
        ({"account_id": "zoe", "orders": [{"market": "BTC", "quantity": 1}]}, 404, "unknown_account",
         "account_id"),
        ({"account_id": "ann", "min_sequence": 26}, 409, "sequence_not_reached", "min_sequence"),
        ({"account_id": "ann", "orders": [{"market": "X", "quantity": 1}]}, 422, "unknown_market",
         "orders[0].market"),
        ({"account_id": "ann", "account": {"equity_usd": 1, "positions": [{"market": "X", "quantity": 1}]}},
         422, "unknown_market", "account.positions[0].market"),
        ({"account_id": "ann", "account": {"equity_usd": 1, "positions": [],
                                           "balances": [{"asset": "X", "amount": 1}]}},
         422, "unknown_asset", "account.balances[0].asset"),
        ({"account_id": "ann",
          "account": {"equity_usd": 1, "positions": [{"market": "BTC", "quantity": 1}] * 2}},
         422, "invalid", "account.positions[1]"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_answered(
    engine: Engine, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    with pytest.raises(RefusalError) as refused:
        engine.score(question(**body))
    assert (refused.value.status, refused.value.code, refused.value.field) == (status, code, field)


def test_before_the_first_event_nothing_is_answered() -> None:
    engine = Engine(FakeScorer())
    with pytest.raises(RefusalError) as refused:
        engine.score(question("a", account={"equity_usd": 1, "positions": []}))
    assert refused.value.status == 503


def test_a_sequence_that_was_reached_is_answered(engine: Engine) -> None:
    answer = engine.score(question("ann", min_sequence=25))
    assert answer.sequence == 25
    assert answer.valid_until - answer.time == timedelta(minutes=1)


@given(
    st.lists(st.tuples(st.sampled_from(["BTC", "SOL"]), st.floats(-2, 2)), min_size=1, max_size=4),
    st.sampled_from(["ann", "bob", "cem"]),
)
def test_orders_that_might_be_sent_are_judged_as_if_they_had_been_filled(
    orders: list[tuple[str, float]], account: str
) -> None:
    engine = told([*story(), tell.funding(9, 0.001)])
    marks = {"BTC": 60_600.0, "SOL": 102.0}
    expected = engine.score(
        question(account, orders=[{"market": name, "quantity": size} for name, size in orders])
    )
    fills = [
        tell.fill(9, account, size, marks[name], market=name, fee_usd=abs(size) * marks[name] * 0.0005)
        for name, size in orders
    ]
    send(engine, fills)
    answer = engine.score(question(account))
    answer.sequence = expected.sequence
    assert answer == expected


def test_an_account_that_is_sent_along_is_judged_as_its_snapshot_would_be(engine: Engine) -> None:
    state = {
        "equity_usd": 5_000.0,
        "positions": [
            {"market": "SOL", "quantity": 9.0},
            {"market": "BTC", "quantity": 0.4, "entry_price": 6e4},
        ],
        "balances": [{"asset": "ETH", "amount": -1.0}],
    }
    sent = engine.score(question("bob", account=state))
    stranger = engine.score(question("nobody", account=state))
    rows = {key: state[key] for key in ("positions", "balances")}
    send(engine, [tell.snapshot(8, "bob", 5_000.0, **rows)])
    held = engine.score(question("bob"))
    held.sequence = sent.sequence
    assert held == sent
    stranger.account_id = "bob"
    assert stranger == sent  # nothing depends on who asks but the rates in force, which only failures use


def test_orders_of_an_isolated_account_fall_back_and_say_why(engine: Engine) -> None:
    isolated = [{"market": "BTC", "quantity": 0.1, "entry_price": 6e4, "isolated_collateral_usd": 900.0}]
    send(
        engine,
        [
            tell.account("iso", 8, "isolated"),
            tell.snapshot(8, "iso", 5_000.0, positions=isolated),
        ],
    )
    plain = engine.score(question("iso", cure=True))
    assert plain.status == "ok"
    assert plain.cure != cure.Cure(None, None)
    added = engine.score(question("iso", orders=[{"market": "BTC", "quantity": 0.1}], cure=True))
    assert (added.status, added.fallback_reason) == ("fallback", "unknown_isolated_collateral")
    assert added.static_initial_margin_rate == pytest.approx(0.1)
    assert added.cure == cure.Cure(None, None)
    closed = engine.score(question("iso", orders=[{"market": "BTC", "quantity": -0.1}]))
    assert closed.status == "ok"
    assert closed.pd_liquidation_24h == 0.0


def test_many_accounts_get_the_answers_that_each_would_get(engine: Engine) -> None:
    names = ["cem", "zoe", "bob", "ann", "bob"]
    answer = engine.score_batch(BatchRequest(names))
    assert answer.unknown == ["zoe"]
    assert answer.answers == [engine.score(question(name)) for name in names if name != "zoe"]


def test_marks_grow_old_by_the_wall_clock() -> None:
    now_us = to_us(START + timedelta(minutes=8))
    engine = Engine(FakeScorer(), clock=lambda: now_us)
    send(engine, story())
    assert engine.score(question("ann")).status == "ok"
    now_us += 2 * 3_600_000_000
    answer = engine.score(question("ann"))
    assert (answer.status, answer.fallback_reason) == ("fallback", "stale_mark")
    assert to_us(answer.time) == now_us
    assert engine.score_batch(BatchRequest(["ann"])).answers[0].status == "fallback"
    assert engine.score(question("ann", cure=True)).cure == cure.Cure(None, None)


@pytest.mark.parametrize("account", ["ann", "bob"])
def test_a_cure_cures_and_little_less_does_not(engine: Engine, account: str) -> None:
    answer = engine.score(question(account, cure=True))
    assert answer.pd_liquidation_24h > cure.TARGET_PD_24H
    assert isinstance(answer.cure, cure.Cure)
    deposit_usd, reduce = answer.cure.deposit_usd, answer.cure.reduce
    assert deposit_usd is not None
    assert reduce

    def cured(after: Callable[[Engine], object]) -> bool:
        other = told(story())
        after(other)
        now = other.score(question(account, cure=True))
        return now.cure == cure.Cure(0.0, []) and now.pd_liquidation_24h <= cure.TARGET_PD_24H

    def reduced(share: float) -> list[dict[str, Any]]:
        return [
            {"market": entry.market, "quantity": round(entry.quantity * share, 3)} for entry in reduce or []
        ]

    assert cured(lambda other: send(other, [tell.transfer(8, account, deposit_usd)]))
    assert not cured(lambda other: send(other, [tell.transfer(8, account, 0.99 * deposit_usd)]))
    what_if = engine.score(question(account, orders=reduced(1.0), cure=True))
    assert what_if.cure == cure.Cure(0.0, [])
    what_if = engine.score(question(account, orders=reduced(0.98), cure=True))
    assert what_if.cure != cure.Cure(0.0, [])


def test_where_no_deposit_helps_there_is_none(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cure, "TARGET_PD_24H", -1.0)
    answer = engine.score(question("ann", cure=True))
    assert isinstance(answer.cure, cure.Cure)
    assert answer.cure.deposit_usd is None
    assert [entry.quantity for entry in answer.cure.reduce or []] == [-1.0]  # nothing left, nothing at risk


def test_an_account_is_shown_as_it_is_held(engine: Engine) -> None:
    held = engine.account("bob")
    assert held.owner_id == "o1"
    assert [(entry.market, entry.quantity) for entry in held.positions] == [("BTC", -0.5), ("SOL", 20.0)]
    assert held.equity_usd == pytest.approx(2_900.0 - 0.5 * 300.0 + 20.0)
    assert held.collateral_usd == pytest.approx(held.equity_usd - 0.1 * 0.5 * 2_000.0)
    assert held.maintenance_margin_rate_in_force == 0.08
    flat = engine.account("cem")
    assert flat.positions == []
    assert flat.equity_usd == flat.collateral_usd == pytest.approx(503.0 - 0.01 * 60_300 * 0.0001)
    with pytest.raises(RefusalError):
        engine.account("zoe")


def test_a_state_that_is_not_sure_is_not_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine.venue, "apply", fail)
    with pytest.raises(ZeroDivisionError):
        engine.take(asked([tell.bar(9, 1.0)]))
    monkeypatch.undo()
    assert engine.fault is not None
    for ask in (
        lambda: engine.score(question("ann")),
        lambda: engine.score_batch(BatchRequest(["ann"])),
        lambda: engine.account("ann"),
        lambda: engine.take(asked([tell.bar(9, 1.0)])),
    ):
        with pytest.raises(RefusalError) as refused:
            ask()
        assert refused.value.status == 503


def test_reductions_are_whole_lots_in_plain_decimals(engine: Engine) -> None:
    answer = engine.score(question("bob", cure=True))
    assert isinstance(answer.cure, cure.Cure)
    for entry in answer.cure.reduce or []:
        assert len(repr(entry.quantity)) <= 9
        assert entry.quantity / 0.001 == pytest.approx(round(entry.quantity / 0.001))
