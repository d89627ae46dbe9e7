"""The messages: read strictly, written so that any JSON reader can read them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.codec import JSON, MSGPACK
from serving.rows import read_events
from serving.wire import (
    LAST_US,
    Answer,
    RefusalError,
    ScoreRequest,
    to_time,
    to_us,
)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"account_id": "a"} {}', 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"account_id": "\xff"}', 400, None),
        (b'{"account_id": "\\ud800"}', 400, None),
        (b"[" * 50_000, 422, None),
        (b'{"account_id": "a", "orders": ' + b"[" * 50_000, 422, "orders[...]"),
        (b"[]", 422, None),
        (b'"a"', 422, None),
        (b"{}", 422, "account_id"),
        (b'{"account_id": null}', 422, "account_id"),
        (b'{"account_id": 7}', 422, "account_id"),
        (b'{"account_id": ""}', 422, "account_id"),
        (b'{"account_id": "' + b"x" * 257 + b'"}', 422, "account_id"),
        (b'{"account_id": "a", "acount": {}}', 422, "acount"),
        (b'{"account_id": "a", "explain": 1}', 422, "explain"),
        (b'{"account_id": "a", "min_sequence": -1}', 422, "min_sequence"),
        (b'{"account_id": "a", "min_sequence": 1.5}', 422, "min_sequence"),
        (b'{"account_id": "a", "min_sequence": 9223372036854775808}', 422, "min_sequence"),
        (b'{"account_id": "a", "orders": [{"market": "M"}]}', 422, "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": "1"}]}', 422, "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": true}]}', 422, "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": NaN}]}', 422, "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": -Infinity}]}', 422,
         "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": 1e999}]}', 422, "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": 1' + b"0" * 400 + b"}]}", 422,
         "orders[0].quantity"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": 1, "price": 0}]}', 422,
         "orders[0].price"),
        (b'{"account_id": "a", "orders": [{"market": "M", "quantity": 1, "side": "buy"}]}', 422,
         "orders[0].side"),
        (b'{"account_id": "a", "account": {"positions": []}}', 422, "account.equity_usd"),
        (b'{"account_id": "a", "account": {"equity_usd": 1, "positions": [], "margin_mode": "x"}}', 422,
         "account.margin_mode"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_and_the_field_named(body: bytes, status: int, field: str | None) -> None:
    with pytest.raises(RefusalError) as refused:
        JSON.decode(ScoreRequest, body)
    assert refused.value.status == status
    if field is not None and not field.endswith("[...]"):
        assert refused.value.field == field
        assert str(refused.value).startswith(field)
    assert len(str(refused.value)) < 1_000
    assert "\n" not in str(refused.value)


def test_what_msgpack_can_say_and_json_cannot_is_refused_too() -> None:
    for value in (math.nan, math.inf, -math.inf):
        body = msgspec.msgpack.encode({"account_id": "a", "orders": [{"market": "M", "quantity": value}]})
        with pytest.raises(msgspec.ValidationError, match="quantity"):
            msgspec.msgpack.decode(body, type=ScoreRequest)


def test_numbers_that_are_not_known_are_null() -> None:
    nan = math.nan
    moment = datetime(2024, 3, 1, 8, tzinfo=UTC)
    answer = Answer(
        "a", moment, 3, moment, nan, nan, nan, nan, nan, 0.1, 0.1, 0.05, "fallback", "missing_mark", "v"
    )
    told = json.loads(JSON.encode(answer), parse_constant=pytest.fail)
    assert told["pd_liquidation_1h"] is None
    assert told["initial_margin_rate"] == 0.1
    assert told["time"] == "2024-03-01T08:00:00Z"
    assert "reasons" not in told  # nobody asked
    assert "cure" not in told


@given(st.lists(st.floats(), min_size=8, max_size=8), st.integers(0, LAST_US))
def test_msgpack_has_the_values_of_json_and_the_very_numbers(numbers: list[float], time_us: int) -> None:
    moment = to_time(time_us)
    answer = Answer("a", moment, 3, moment, *numbers, "ok", None, "v")
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in msgspec.to_builtins(answer).items()
    }
    assert MSGPACK.encode(answer) == msgspec.msgpack.encode(plain)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)), st.integers(-14 * 60, 14 * 60))
def test_times_survive_the_way_there_and_back_in_any_zone(moment: datetime, offset_min: int) -> None:
    utc = moment.replace(tzinfo=UTC)
    time_us = to_us(utc)
    assert to_us(moment) == time_us  # without a zone it is UTC
    assert to_time(time_us) == utc
    assert json.loads(JSON.encode(to_time(time_us))).endswith("Z")
    if datetime(1970, 1, 3) < moment < datetime(9999, 12, 29):
        assert to_us(utc.astimezone(timezone(timedelta(minutes=offset_min)))) == time_us


def test_an_expiry_beyond_the_calendar_is_its_end() -> None:
    assert to_time(LAST_US + 60_000_000).year == 9999


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"price": 0.0}, "price"),
        ({"price": -1.0}, "price"),
        ({"price": None}, "price"),
        ({"quantity": "1"}, "quantity"),
        ({"kind": "swap"}, "kind"),
        ({"time": "yesterday"}, "time"),
        ({"time": 1_700_000_000}, "time"),
        ({"time": "2024-03-01"}, "time"),
        ({"sequence": -1}, "sequence"),
        ({"market": ""}, "market"),
        ({"table": "trades"}, "table"),
        ({"table": "position_snapshots"}, "table"),
        ({"table": 5}, "table"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_by_its_column(change: dict[str, object], field: str) -> None:
    good = {
        "table": "fills", "time": "2024-03-01T00:00:00Z", "account_id": "a", "market": "M", "quantity": 1,
        "price": 2, "fee_usd": 0, "kind": "trade", "sequence": 3,
    }  # fmt: skip
    mixed = read_events(json.dumps({"events": [good, {**good, **change}, good]}).encode())
    assert list(mixed.places) == [0, 2]
    ((index, message),) = mixed.unreadable
    assert index == 1
    assert message.startswith(field)
    with pytest.raises(RefusalError) as refused:  # nothing in it can be read
        read_events(json.dumps({"events": [{**good, **change}]}).encode())
    assert refused.value.status == 422
    assert refused.value.field == f"events[0].{field}"


def test_extra_columns_of_rows_are_ignored_as_in_a_dataset() -> None:
    moment = "2024-03-01T00:00:00Z"
    bar = {"table": "market_bars", "time": moment, "market": "M", "mark_close": 1.0}
    position, tier = (
        {"market": "M", "quantity": 1.0},
        {"initial_margin_rate": 0.1, "maintenance_margin_rate": 0.05},
    )
    snapshot = {
        "table": "account_snapshots", "time": moment, "account_id": "a", "equity_usd": 1.0,
        "collateral_usd": 1.0, "initial_margin_usd": 0.1, "maintenance_margin_usd": 0.05,
    }  # fmt: skip
    terms = {
        "table": "markets", "time": moment, "market": "M", "tick_size": 1.0, "lot_size": 1.0,
        "taker_fee_rate": 0.0, "liquidation_fee_rate": 0.0, "funding_interval_s": 3600,
    }  # fmt: skip
    extra = {"volume_24h_usd": 7.0, "note": ["?"]}
    plain = [bar, {**snapshot, "positions": [position]}, {**terms, "tiers": [tier]}]
    more = [
        {**bar, **extra},
        {**snapshot, **extra, "positions": [{**position, **extra}]},
        {**terms, **extra, "tiers": [{**tier, **extra}]},
    ]
    as_sent = [read_events(json.dumps({"events": rows}).encode()) for rows in (plain, more)]
    assert as_sent[0] == as_sent[1]
    assert len(as_sent[0].rows) == 3


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"events": [{"table": "funding", "funding_rate": NaN}]}', 422),
        (b'{"events": {}}', 422),
        (b'{"event": []}', 422),
        (b'{"events": [], "source": 1}', 422),
        (b'{"events": [}', 400),
        (b"", 400),
    ],
)
def test_what_is_no_request_of_events_is_refused_whole(body: bytes, status: int) -> None:
    with pytest.raises(RefusalError) as refused:
        read_events(body)
    assert refused.value.status == status
