from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import InputError
from exchange.units import DAY_US, HOUR_US, MINUTE_US
from pipelines.times import format_time, parse_duration_us, parse_range_us, parse_time_us

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=ZONES))
def test_any_zone_names_the_same_moment(moment: datetime) -> None:
    parsed = parse_time_us(moment.isoformat(), "--at")
    assert parsed == parse_time_us(moment.isoformat().replace("T", " "), "--at")
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=parsed) == moment


@given(st.datetimes())
def test_without_a_zone_is_utc_and_printing_is_the_inverse(moment: datetime) -> None:
    parsed = parse_time_us(moment.isoformat(), "--at")
    assert parsed == parse_time_us(moment.replace(tzinfo=UTC).isoformat(), "--at")
    assert parse_time_us(format_time(parsed), "--at") == parsed


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01", 0),
        ("1970-01-02", DAY_US),
        ("1970-01-01T01:00:00Z", HOUR_US),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00", HOUR_US),
        ("1970-01-01 00:00:00.000001", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2023-01-15T08:00:00Z", 1_673_769_600_000_000),
    ],
)
def test_times_by_hand(text: str, time_us: int) -> None:
    assert parse_time_us(text, "--at") == time_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2023",
        "2023-02-30",
        "2023-01-15T25:00",
        "15/01/2023",
        "1673769600",
        "nan",
        " 2023-01-15",
    ],
)
def test_what_is_no_time_is_named_with_its_option(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_time_us(text, "--until")
    assert str(caught.value).startswith(f"--until: {text!r} is not")


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [
        ("60s", MINUTE_US),
        ("15m", 15 * MINUTE_US),
        ("4h", 4 * HOUR_US),
        ("1.5d", 36 * HOUR_US),
        ("1d", DAY_US),
    ],
)
def test_durations_by_hand(text: str, duration_us: int) -> None:
    assert parse_duration_us(text, "--every") == duration_us


@pytest.mark.parametrize(
    "text",
    ["", "0h", "-4h", "59s", "4", "h", "4 h", "4H", "1w", "1e3h", "nanh", "infd", "4h30m", "99999999d", "٤h"],
)
def test_what_is_no_duration_is_named_with_its_option(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration_us(text, "--every")
    assert str(caught.value).startswith(f"--every: {text!r} is ")


def test_a_range_includes_its_end_and_is_never_reversed() -> None:
    assert parse_range_us("1970-01-01", "1970-01-01", ("--from", "--to")) == (0, 0)
    with pytest.raises(InputError, match=r"^--to '1970-01-01' is before --from '1970-01-02'$"):
        parse_range_us("1970-01-02", "1970-01-01", ("--from", "--to"))
