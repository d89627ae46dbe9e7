"""Times and durations as people write them on the command line, to and from microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from exchange.errors import InputError
from exchange.units import DAY_US, HOUR_US, MINUTE_US, SECOND_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS_US = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
LONGEST_DURATION_US = 36_500 * DAY_US
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", re.ASCII)


def parse_time_us(text: str, option: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time or date; `option` is named in the error.

    A time without a zone is UTC, one with a zone is converted; a date is its midnight.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option}: {text!r} is not an ISO 8601 time such as 2023-01-15 or 2023-01-15T08:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


def format_time(time_us: int) -> str:
    """ISO 8601 in UTC with a closing Z; a fraction only where there is one."""
    moment = EPOCH + timedelta(microseconds=time_us)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def parse_duration_us(text: str, option: str) -> int:
    """Microseconds of a duration such as 90s, 15m, 4h or 1.5d, at least a minute."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"{option}: {text!r} is not a duration such as 15m, 4h or 1d")
    duration_us = int(Decimal(match[1]) * UNITS_US[match[2]])
    if duration_us < MINUTE_US:
        raise InputError(f"{option}: {text!r} is shorter than a minute")
    if duration_us > LONGEST_DURATION_US:
        raise InputError(f"{option}: {text!r} is longer than a century")
    return duration_us


def parse_range_us(start: str, end: str, options: tuple[str, str]) -> tuple[int, int]:
    """Both ends of a range that includes its end; an end before the start is an error."""
    start_us, end_us = parse_time_us(start, options[0]), parse_time_us(end, options[1])
    if end_us < start_us:
        raise InputError(f"{options[1]} {end!r} is before {options[0]} {start!r}")
    return start_us, end_us
