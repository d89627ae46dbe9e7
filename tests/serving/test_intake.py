"""The ways in: whole columns at once, row by row, columns as sent; one outcome for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import events as ev
from features.events import VALUES, EventBatch
from serving import intake, quick
from serving.admission import Bounds
from serving.codec import MSGPACK
from serving.columns import EventColumns, of_batch
from serving.engine import Engine
from serving.log import EventLog, LogReader
from serving.rows import Request, read_events
from serving.wire import EventsAnswer, RefusalError, to_us
from tests.serving import stories as tell
from tests.serving.stories import START, Event, FakeScorer, asked, send, story, told

OWNER = b"a venue"


def known(engine: Engine) -> tuple[Any, ...]:
    """Everything that an engine goes on from."""
    admission = engine._admission
    return (
        engine.venue.digest(),
        engine.venue.names,
        engine.sequence,
        admission.frontier,
        admission.sources.runs(),
    )


# -- a stream with everything that may be unusual about it

MINUTES = st.sampled_from([8.0, 8.5, 9.0, 9.0, 9.5, 10.0, 11.0])
MARKETS = st.sampled_from(["BTC", "BTC", "SOL", "SOL", "NEW", "PRE"])
ACCOUNTS = st.sampled_from(["ann", "ann", "bob", "cem", "cem", "zoe"])
NUMBERS = st.sampled_from([1.0, -0.5, 2.5, 60_000.0, 3])


BOOKS = st.builds(tell.book, MINUTES, st.just(99.0), MARKETS)


@st.composite
def levels(draw: st.DrawFn) -> dict[str, list[float]]:
    count = draw(st.integers(0, 18))
    distance = [5.0 * (number + 1) for number in range(count)]
    if draw(st.integers(0, 5)) == 0:
        distance = distance[::-1]
    return {
        "distance_bps": distance,
        "bid_usd": [100.0 + number for number in range(count)],
        "ask_usd": [200.0 + number for number in range(count + (draw(st.integers(0, 9)) == 0))],
    }


USUAL: list[st.SearchStrategy[Event]] = [
    st.builds(tell.fill, MINUTES, ACCOUNTS, NUMBERS, st.sampled_from([1.0, 60_000.0]), market=MARKETS,
              kind=st.sampled_from(["trade", "liquidation", "deleverage"])),
    st.builds(tell.bar, MINUTES, st.sampled_from([100.0, 60_000.0]), MARKETS),
    st.builds(tell.funding, MINUTES, NUMBERS, MARKETS),
    st.builds(tell.transfer, MINUTES, ACCOUNTS, NUMBERS),
    st.builds(tell.rate, MINUTES, ACCOUNTS, st.just(0.2), st.just(0.1)),
    st.builds(tell.price, MINUTES, st.just(2_100.0), st.sampled_from(["ETH", "ETH", "XYZ", "USD"])),
    st.builds(lambda book, some: book | some, BOOKS, levels()),
]  # fmt: skip
UNUSUAL: list[st.SearchStrategy[Event]] = [
    st.builds(tell.market, st.sampled_from(["NEW", "SOL"]), MINUTES),
    st.builds(tell.account, st.sampled_from(["zoe", "ann"]), MINUTES),
    st.builds(tell.snapshot, MINUTES, ACCOUNTS, NUMBERS),
    st.builds(tell.default, MINUTES, ACCOUNTS),
    st.builds(tell.asset, st.just("XYZ")),
    st.builds(lambda book: {**book, "best_bid": 120.0}, st.builds(tell.book, MINUTES, st.just(99.0))),
]


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[list[Event], str]]:
    """Requests: most of them usual, in order and numbered upwards; some anything but."""
    made = []
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        kinds = USUAL if draw(st.integers(0, 3)) else [*USUAL, *UNUSUAL]
        events = draw(st.lists(st.one_of(kinds), min_size=1, max_size=12))
        if draw(st.booleans()):
            tame = {"NEW": "BTC", "PRE": "SOL", "zoe": "ann", "XYZ": "ETH", "USD": "ETH"}
            events = [
                {
                    key: tame.get(value, value) if isinstance(value, str) else value
                    for key, value in event.items()
                }
                for event in events
            ]
            events.sort(key=lambda event: str(event.get("time", "")))
        if draw(st.integers(0, 4)):
            step = draw(st.sampled_from([1, 1, 2]))
            number -= draw(st.sampled_from([0, 0, 0, 1, 3]))
            events = [
                {**event, "sequence": max(number + place * step, 0)} for place, event in enumerate(events)
            ]
            number += len(events) * step
        made.append((events, draw(st.sampled_from(["feed", "feed", "other"]))))
    return made


Way = Callable[[Engine, list[Event], str], EventsAnswer]


def by_json(engine: Engine, events: list[Event], source: str) -> EventsAnswer:
    return engine.take(asked(events, source))


def by_msgpack(engine: Engine, events: list[Event], source: str) -> EventsAnswer:
    rows = asked(events, source).rows
    return engine.take(read_events(msgspec.msgpack.encode({"events": rows, "source": source}), MSGPACK))


@given(streams())
@settings(max_examples=150)
def test_quick_and_exact_ways_end_alike(stream: list[tuple[list[Event], str]]) -> None:
    ends = []
    for few, way in ((0, by_json), (0, by_msgpack), (10**9, by_json)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(intake, "FEW_ROWS", few)
            engine = Engine(FakeScorer(), clock=lambda: to_us(START) + 10 * 60_000_000)
            send(engine, story())
            answers = [way(engine, *request) for request in stream]
        ends.append((answers, known(engine)))
    assert ends[0] == ends[2]
    assert ends[1] == ends[2]


@given(streams())
@settings(max_examples=100)
def test_the_log_tells_writer_and_follower_the_same(
    tmp_path_factory: pytest.TempPathFactory, stream: list[tuple[list[Event], str]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "FEW_ROWS", 0)
        engine = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
        follower = Engine(FakeScorer(), log=LogReader.open(path, OWNER))
        send(engine, story())
        for request in stream:
            by_json(engine, *request)
            follower.catch_up()
            assert known(follower) == known(engine)
    engine.close()
    again = Engine(FakeScorer(), log=EventLog.open(path, OWNER))
    assert known(again) == known(engine)
    again.close()
    follower.close()


def test_usual_rows_do_take_the_quick_way(engine: Engine) -> None:
    usual = [
        tell.fill(9, "ann", 0.1, 60_000.0),
        tell.transfer(9, "bob", 10.0),
        tell.bar(9, 60_000.0),
        tell.bar(9, 100.0, "SOL"),
        tell.book(9, 60_000.0),
        tell.book(9.5, 100.0, "SOL"),
        tell.funding(9.5, 1e-4),
        tell.price(9, 2_000.0),
        tell.rate(9, "ann", 0.2, 0.1),
    ]
    request = asked([{**event, "sequence": 7 + number} for number, event in enumerate(usual)], "feed")
    assert quick.of_rows(request, engine.venue, engine._admission, 2**62) is not None
    for event in (
        tell.fill(9, "zoe", 0.1, 60_000.0),
        tell.fill(9, "ann", 0.1, 60_000.0, market="DOGE"),
        tell.bar(9, 1.0, "DOGE"),
        tell.bar(7, 60_000.0),
        tell.market("DOGE", 9),
        tell.price(9, 1.0, "XYZ"),
        {**tell.book(9, 100.0), "best_bid": 101.0},
        {**tell.book(9, 100.0), "bid_usd": [1.0]},
        {**tell.book(9, 100.0), "distance_bps": [50.0, 10.0, 200.0]},
        {**tell.transfer(9, "ann", 1.0), "sequence": 3},
    ):
        assert quick.of_rows(asked([*usual, event]), engine.venue, engine._admission, 2**62) is None


# -- columns


def columns_of(request: Request) -> EventColumns:
    """What a feeder would send in the place of usual rows that are in order."""
    markets = ["BTC", "SOL", "NEW", "PRE"]
    accounts = ["ann", "bob", "cem", "zoe"]
    assets = ["ETH", "XYZ", "USD"]
    kinds: list[int] = []
    times: list[int] = []
    keys: list[int] = []
    subs: list[int] = []
    values: list[list[float]] = []

    def add(kind: int, row: Any, key: int, sub: int, *numbers: float | None) -> None:
        kinds.append(kind)
        times.append(to_us(row.time))
        keys.append(key)
        subs.append(sub)
        told = [np.nan if number is None else number for number in numbers]
        values.append(told + [np.nan] * (VALUES - len(told)))

    for row in request.rows:
        match type(row).__name__:
            case "fills":
                kind = ("trade", "liquidation", "deleverage").index(row.kind)
                add(ev.FILL, row, accounts.index(row.account_id), markets.index(row.market), row.quantity,
                    row.price, row.fee_usd, kind)  # fmt: skip
            case "transfers":
                add(ev.TRANSFER, row, accounts.index(row.account_id), -1, row.amount_usd)
            case "margin_rates":
                add(ev.RATE, row, accounts.index(row.account_id), -1, row.initial_margin_rate,
                    row.maintenance_margin_rate)  # fmt: skip
            case "asset_prices":
                add(ev.ASSET_PRICE, row, assets.index(row.asset), -1, row.price)
            case "funding":
                add(ev.FUNDING, row, markets.index(row.market), -1, row.funding_rate)
            case "market_bars":
                add(ev.BAR, row, markets.index(row.market), -1, row.mark_close, row.index_close,
                    row.mark_open, row.mark_high, row.mark_low, row.volume_usd,
                    row.open_interest_usd)  # fmt: skip
            case "book_depth":
                add(ev.BOOK, row, markets.index(row.market), -1, row.best_bid, row.best_ask)
                for number, level in enumerate(zip(row.distance_bps, row.bid_usd, row.ask_usd, strict=True)):
                    add(ev.LEVEL, row, markets.index(row.market), -1, *level, number)
    batch = EventBatch(*map(np.array, (kinds, times, keys, subs, values)))  # type: ignore[arg-type]
    sequence = [row.sequence for row in request.rows]
    return of_batch(
        batch,
        markets=markets,
        accounts=accounts,
        assets=assets,
        source=request.source,
        sequence=None if None in sequence else np.array(sequence, np.int64),
    )


@given(st.lists(st.one_of(USUAL), min_size=1, max_size=15), st.booleans(), st.booleans())
@settings(max_examples=150)
def test_columns_are_judged_as_the_rows_that_they_mean(
    events: list[Event], is_tame: bool, is_numbered: bool
) -> None:
    if is_tame:
        events = [
            event for event in events
            if not {"NEW", "PRE", "zoe", "XYZ", "USD"} & {str(value) for value in event.values()}
        ]  # fmt: skip
        events.sort(key=lambda event: (event["time"], list(quick._KIND).index(type(asked([event]).rows[0]))))
    events = [event for event in events if len(event.get("bid_usd", [])) == len(event.get("ask_usd", []))]
    if is_numbered:
        events = [{**event, "sequence": 3 + number} for number, event in enumerate(events)]
    if not events:
        return
    left, right = (Engine(FakeScorer(), clock=lambda: to_us(START) + 10 * 60_000_000) for _ in range(2))
    send(left, story())
    send(right, story())
    request = asked(events, "feed")
    assert right.take_columns(columns_of(request)) == left.take(request)
    assert known(right) == known(left)


def test_columns_with_values_that_no_row_can_have_are_told_as_the_row_s() -> None:
    good = asked([tell.fill(9, "ann", 0.1, 60_000.0), tell.bar(9.5, 60_000.0), tell.transfer(10, "bob", 1.0)])
    for row, column, value, word in (
        (0, 1, -1.0, "price"),
        (0, 0, np.nan, "quantity"),
        (0, 3, 7.0, "kind"),
        (0, 2, np.inf, "fee_usd"),
        (1, 0, 0.0, "mark_close"),
        (2, 0, -np.inf, "amount_usd"),
    ):
        engine = told(story())
        sent = columns_of(good)
        sent.events.values[row, column] = value
        answer = engine.take_columns(sent)
        assert [(entry.index, entry.code) for entry in answer.rejected] == [(row, "invalid")]
        assert word in answer.rejected[0].message
        assert (answer.accepted, answer.sequence) == (2, len(story()) + 2)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", ev.SNAPSHOT),
        ("kind", 99),
        ("kind", ev.LEVEL),
        ("key", 50),
        ("key", -1),
        ("sub", 9),
        ("time_us", -5),
    ],
)
def test_columns_that_mean_no_rows_are_refused(engine: Engine, column: str, value: int) -> None:
    sent = columns_of(asked([tell.fill(9, "ann", 0.1, 60_000.0)]))
    getattr(sent.events, column)[0] = value
    with pytest.raises(RefusalError) as refused:
        engine.take_columns(sent)
    assert refused.value.status == 422
    with pytest.raises(RefusalError):
        of_batch(sent.events._replace(kind=np.zeros(2, np.uint8)))
    with pytest.raises(RefusalError):
        engine.take_columns(columns_of(asked([tell.fill(9, "ann", 1, 1.0)]))._replace(sequence=np.arange(3)))


# -- bounds


@pytest.mark.parametrize(
    ("bounds", "event", "code"),
    [
        (Bounds(accounts=3), tell.account("new", 9), "too_many_accounts"),
        (Bounds(accounts=3), tell.snapshot(9, "new", 1.0), "too_many_accounts"),
        (Bounds(markets=2), tell.market("NEW", 9), "too_many_markets"),
        (Bounds(markets=2), tell.bar(9, 1.0, "NEW"), "too_many_markets"),
        (Bounds(assets=2), tell.asset("NEW"), "too_many_assets"),
        (Bounds(owners=1), tell.account("ann", 9, owner="o2"), "too_many_owners"),
        (Bounds(sources=1), {**tell.transfer(9, "ann", 1.0), "sequence": 1}, "too_many_sources"),
    ],
)
def test_memory_is_bounded_by_names(tmp_path: Path, bounds: Bounds, event: Event, code: str) -> None:
    engine = Engine(FakeScorer(), log=EventLog.open(tmp_path / "log", OWNER), bounds=bounds)
    send(engine, [{**tell.market("BTC"), "sequence": 0}], "first")
    send(engine, story()[1:])
    before = known(engine)
    answer = engine.take(asked([event], "second"))
    assert [entry.code for entry in answer.rejected] == [code]
    assert known(engine) == before
    same = {**event, "sequence": None} if code == "too_many_sources" else tell.transfer(9, "ann", 1.0)
    send(engine, [same])  # what is known already goes on
    engine.close()
    again = Engine(FakeScorer(), log=EventLog.open(tmp_path / "log", OWNER), bounds=Bounds(1, 1, 1, 1, 1))
    assert known(again) == known(engine)  # what was accepted once stays


def test_bounds_count_what_one_request_makes_known() -> None:
    engine = Engine(FakeScorer(), bounds=Bounds(accounts=2))
    answer = engine.take(asked([tell.market(), *(tell.account(name) for name in ("a", "b", "a", "c"))]))
    assert [(entry.index, entry.code) for entry in answer.rejected] == [(4, "too_many_accounts")]
    assert engine.venue.account_names == ["a", "b"]
