"""Values that JSON and floats can hold and a margin must survive: refused, or answered at the floor."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import msgspec
import pytest

from features import catalog
from models.bundle import Bundle
from serving.codec import MSGPACK
from serving.engine import Engine
from serving.scorer import Scorer
from serving.service import Call
from tests.serving import stories as tell
from tests.serving.audited import route
from tests.serving.plain_models import write_model
from tests.serving.stories import send, story
from tests.serving.test_app import Caller
from tests.serving.test_openapi import DOCUMENT
from tests.serving.test_swap import quarters

NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", '"1"', "true", "null", "[]", "1_0", "0x1")
NUMBERS = ("0", "-0.0", "-1", "1e308", "-1e308", "1.7976931348623157e308", "5e-324", "9007199254740993",
           "9223372036854775808", "0.1", "1e-300")  # fmt: skip
NAMES = (
    "zoe",
    "BTC ",
    "btc",
    "ВТС",
    "B\u0000TC",
    "𝟙" * 200,
    "é",
    "e\u0301",
    "\u202eCTB",
    "../BTC",
    "<b>",
    "%s",
)
"""Names of which none is known: some look like one that is."""

STATES = (
    '{"account_id":"ann","account":{"equity_usd":VALUE,"positions":[{"market":"BTC","quantity":1}]}}',
    '{"account_id":"ann","account":{"equity_usd":9,"positions":[{"market":"BTC","quantity":VALUE}]}}',
    '{"account_id":"ann","account":{"equity_usd":9,"positions":[{"market":"BTC","quantity":1,"entry_price":VALUE}]}}',
    '{"account_id":"ann","account":{"equity_usd":9,"positions":[{"market":"BTC","quantity":1,"quote_usd":VALUE}]}}',
    '{"account_id":"bob","account":{"equity_usd":9,"margin_mode":"isolated","positions":'
    '[{"market":"BTC","quantity":1,"isolated_collateral_usd":VALUE}]}}',
    '{"account_id":"bob","account":{"equity_usd":9,"positions":[{"market":"BTC","quantity":1}],'
    '"balances":[{"asset":"ETH","amount":VALUE}]}}',
    '{"account_id":"bob","orders":[{"market":"BTC","quantity":VALUE}]}',
    '{"account_id":"bob","orders":[{"market":"BTC","quantity":1,"price":VALUE}]}',
)  # fmt: skip
EVENTS = (
    {"table": "market_bars", "time": tell.at(401), "market": "BTC", "mark_close": "VALUE"},
    {**tell.book(401, 60_000.0), "best_bid": "VALUE"},
    {**tell.book(401, 60_000.0), "bid_usd": ["VALUE", 1e5, 1e6]},
    {**tell.book(401, 60_000.0), "distance_bps": ["VALUE", 50.0, 200.0]},
    tell.funding(401, "VALUE"),  # type: ignore[arg-type]
    tell.transfer(401, "ann", "VALUE"),  # type: ignore[arg-type]
    tell.fill(401, "ann", "VALUE", 60_000.0),  # type: ignore[arg-type]
    tell.fill(401, "ann", 0.1, "VALUE"),  # type: ignore[arg-type]
    tell.rate(401, "ann", "VALUE", 0.05),  # type: ignore[arg-type]
    tell.price(401, "VALUE"),  # type: ignore[arg-type]
    {**tell.snapshot(401, "ann", 1e4), "equity_usd": "VALUE"},
    tell.snapshot(401, "ann", 1e4, positions=[{"market": "BTC", "quantity": "VALUE"}]),
)
IN_FORCE = {"ann": 0.0, "bob": 0.15}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_model(folder)
    return Scorer(Bundle.open(folder, catalog.fingerprint()))


def venue(scorer: Scorer) -> Caller:
    engine = Engine(scorer)
    send(engine, [*story(), *quarters()])
    return Caller(engine)


@pytest.fixture(scope="module")
def call(scorer: Scorer) -> Caller:
    return venue(scorer)


def hold_floor(answer: dict[str, Any], in_force: float, told: Any) -> None:
    """The margin is not below the schedule, nor below the one in force where the answer is a fallback."""
    static, margin = answer["static_initial_margin_rate"], answer["initial_margin_rate"]
    assert margin is not None, told
    if static is not None:
        assert static <= margin <= max(static, 1.0), told
    if answer["status"] == "fallback":
        assert margin >= max(static if static is not None else 1.0 if margin else 0.0, in_force), told
        assert answer["fallback_reason"], told
    for name, value in answer.items():
        assert not isinstance(value, float) or math.isfinite(value), (name, told)


@pytest.mark.parametrize("state", STATES)
def test_what_is_no_number_is_refused_by_its_field(call: Caller, state: str) -> None:
    may_lack = {
        '"entry_price":VALUE',
        '"quote_usd":VALUE',
        '"isolated_collateral_usd":VALUE',
        '"price":VALUE',
    }
    for value in NO_NUMBERS:
        reply = call("POST", "/v1/score", state.replace("VALUE", value).encode())
        if value == "null" and any(place in state for place in may_lack):
            assert reply.status_code == 200
            continue
        assert reply.status_code in (400, 422), (state, value, reply.text)
        assert reply.json()["error"]["code"] in ("bad_json", "invalid")


@pytest.mark.parametrize("state", STATES)
def test_a_number_of_any_size_is_refused_or_answered_at_the_floor(call: Caller, state: str) -> None:
    for value in NUMBERS:
        body = state.replace("VALUE", value).encode()
        reply = call("POST", "/v1/score", body)
        assert reply.status_code in (200, 422), (body, reply.text)
        if reply.status_code == 200:
            hold_floor(reply.json(), IN_FORCE[json.loads(body)["account_id"]], body)


def test_whole_numbers_beyond_two_to_the_53_are_not_taken_for_their_neighbours(call: Caller) -> None:
    for number in (2**53 + 1, 2**63 - 1):
        reply = call("POST", "/v1/score", {"account_id": "ann", "min_sequence": number})
        assert reply.json()["error"]["code"] == "sequence_not_reached"
        assert str(number) in reply.json()["error"]["message"]
    for number in ("9223372036854775808", "-1", "1.5", "1e3"):
        reply = call("POST", "/v1/score", b'{"account_id":"ann","min_sequence":%s}' % number.encode())
        assert reply.status_code == 422, number


def test_names_that_are_not_known_are_refused_whatever_they_look_like(call: Caller) -> None:
    for name in NAMES:
        order = {"market": name, "quantity": 1.0}
        reply = call("POST", "/v1/score", {"account_id": "ann", "orders": [order]})
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "unknown_market"), name
        held = {"equity_usd": 1.0, "positions": [order]}
        reply = call("POST", "/v1/score", {"account_id": "ann", "account": held})
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "unknown_market"), name
        pledged = {"equity_usd": 1.0, "positions": [], "balances": [{"asset": name, "amount": 1.0}]}
        assert call("POST", "/v1/score", {"account_id": "ann", "account": pledged}).status_code == 422, name
        assert call("POST", "/v1/score", {"account_id": name}).status_code == 404, name
        assert call("POST", "/v1/score/batch", {"account_ids": [name]}).json()["unknown"] == [name]
    for body in (b'{"account_id":"\xff"}', b'{"account_id":"\\ud800"}', b'{"account_id":""}'):
        assert call("POST", "/v1/score", body).status_code in (400, 422), body
    assert call("POST", "/v1/score", {"account_id": "x" * 257}).status_code == 422


def test_a_key_that_comes_twice_is_refused_in_questions(call: Caller) -> None:
    """Nobody can say which of the two was meant, on whatever level it stands."""
    for body in (
        '{"account_id":"ann","account_id":"bob"}',
        '{"account_id":"ann","account\\u005fid":"bob"}',
        '{"account_id":"ann","orders":[{"market":"BTC","quantity":0.001,"quantity":2}]}',
        '{"account_id":"ann","min_sequence":0,"min_sequence":0}',
        '{"account_id":"ann","account":{"equity_usd":1,"equity_usd":2,"positions":[]}}',
    ):
        reply = call("POST", "/v1/score", body.encode())
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid"), body
        assert "twice" in reply.json()["error"]["message"]
    assert call("POST", "/v1/score/batch", b'{"account_ids":[],"account_ids":["ann"]}').status_code == 422


@pytest.mark.parametrize("number", range(len(EVENTS)))
def test_events_with_such_values_are_refused_or_leave_answers_at_the_floor(
    scorer: Scorer, number: int
) -> None:
    whole = json.dumps({"events": [EVENTS[number]]})
    for value in (*NO_NUMBERS, *NUMBERS):
        call = venue(scorer)
        before = call.app.front.service.engine.venue.digest()
        reply = call("POST", "/v1/events", whole.replace('"VALUE"', value).encode())
        assert reply.status_code in (200, 400, 422), (value, reply.text)
        if value in NO_NUMBERS and value != "null":
            assert reply.status_code != 200 or reply.json()["accepted"] == 0, (value, reply.text)
        if reply.status_code != 200 or reply.json()["accepted"] == 0:
            assert call.app.front.service.engine.venue.digest() == before
        in_force = dict(IN_FORCE)
        if (
            reply.status_code == 200
            and reply.json()["accepted"]
            and EVENTS[number]["table"] == "margin_rates"
        ):
            in_force["ann"] = float(value)
        for name, orders in itertools.product(("ann", "bob"), ([], [{"market": "BTC", "quantity": 0.5}])):
            told = call("POST", "/v1/score", {"account_id": name, "orders": orders, "explain": True})
            assert told.status_code == 200, (value, told.text)
            hold_floor(told.json(), min(in_force[name], 1.0), (value, told.text))
        assert call("GET", "/v1/accounts/ann").status_code == 200
        assert call("GET", "/v1/alerts").status_code == 200


def test_what_messagepack_can_hold_beyond_json_is_refused(call: Caller) -> None:
    service = call.app.front.service
    for value in (math.nan, math.inf, -math.inf, 2**64 - 1, b"1", msgspec.msgpack.Ext(5, b"x")):
        body = {"account_id": "ann", "orders": [{"market": "BTC", "quantity": value}]}
        reply = service.answer(route(service, "/v1/score"), Call(msgspec.msgpack.encode(body), codec=MSGPACK))
        told = msgspec.msgpack.decode(reply.body)
        if value == 2**64 - 1:  # a number like any other
            assert reply.status == 200
            hold_floor(told, 0.0, value)
        else:
            assert reply.status in (400, 422), value


def test_the_values_are_those_that_the_document_has_bounds_for() -> None:
    order = DOCUMENT["components"]["schemas"]["Order"]["properties"]["quantity"]
    assert order["minimum"] == -order["maximum"] == -1.7976931348623157e308
