"""Questions: what-ifs are what would happen, cures cure, and none of it changes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from features import catalog
from serving import cure
from serving.codec import JSON
from serving.engine import Engine
from serving.wire import BatchRequest, RefusalError, to_us
from tests.serving import stories as tell
from tests.serving.stories import START, FakeScorer, asked, question, send, story, told


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
    """Every column included: habits, holding time, what was survived, the owner's other accounts."""
    marks = {"BTC": 60_600.0, "SOL": 102.0}
    lived = [tell.bar(minutes, marks[name], name) for minutes in (20, 40, 100) for name in marks]
    engine = told([*story(), tell.default(9, "bob"), *lived, tell.funding(100, 0.001)])
    expected = engine.score(
        question(account, orders=[{"market": name, "quantity": size} for name, size in orders])
    )
    tried = engine._questions._trial.ladders(0)
    fills = [
        tell.fill(100, account, size, marks[name], market=name, fee_usd=abs(size) * marks[name] * 0.0005)
        for name, size in orders
    ]
    send(engine, fills)
    answer = engine.score(question(account))
    answer.sequence = expected.sequence
    held = engine.venue.vectors([engine.venue.find_account(account)])
    if tried is not None:
        for name, one, other in zip(catalog.NAMES, tried.features[0, 0], held.features[0], strict=True):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True), name
    assert (tried is not None) == len(held.account)
    # To a rounding only: funding of several positions is settled in another order than by a fill in one.
    for name, value in msgspec.structs.asdict(expected).items():
        found = getattr(answer, name)
        assert found == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value)


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


@pytest.mark.parametrize("account", ["ann", "bob", "cem"])
def test_what_is_told_of_an_account_can_be_sent_along_as_it_is(engine: Engine, account: str) -> None:
    held = engine.score(question(account))
    sent = engine.score(question(account, account=json.loads(JSON.encode(engine.account(account)))))
    # not to the bit: equity stands for the cash that the state holds, and sums round
    assert asdict(sent) == {
        name: pytest.approx(value) if isinstance(value, float) else value
        for name, value in asdict(held).items()
    }


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
