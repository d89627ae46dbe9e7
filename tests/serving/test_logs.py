"""Lines about the service: JSON or readable, bounded, harmless, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from serving import logs
from serving.logs import LONGEST_VALUE, REPEATED_S, Diary, clean
from serving.wire import EventsAnswer, Rejected


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """The log as JSON."""
    root, ours = logging.getLogger(), logging.getLogger("perprisk")
    before = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    logs.set_up(stream)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_time_level_and_values(out: io.StringIO) -> None:
    log = logging.getLogger("perprisk.serving")
    log.info("model swapped", extra={"model_version": "m2", "seconds": 0.5})
    log.debug("nobody reads this")
    structlog.get_logger("perprisk.other").warning("odd", number=3)
    logging.getLogger("uvicorn").info("a library is quiet")
    first, second = lines(out)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "model swapped", "level": "info", "logger": "perprisk.serving", "model_version": "m2",
        "seconds": 0.5,
    }  # fmt: skip
    assert (second["event"], second["number"], second["logger"]) == ("odd", 3, "perprisk.other")


def test_a_failure_keeps_its_trace(out: io.StringIO) -> None:
    try:
        raise RuntimeError("broken\x1b[2J" * 1_000)
    except RuntimeError:
        logging.getLogger("perprisk").exception("an answer failed")
    (line,) = lines(out)
    assert "RuntimeError" in line["exception"]
    assert "\x1b" not in line["exception"]
    assert len(line["exception"]) < 10_000


@given(st.text(max_size=2_000))
def test_a_hostile_name_is_one_bounded_harmless_value(name: str) -> None:
    shown = clean(name)
    assert shown.isprintable()
    assert len(shown) <= 10 * LONGEST_VALUE
    if name.isprintable() and len(name) <= LONGEST_VALUE:
        assert shown == name


def test_hostile_values_stay_in_their_line(out: io.StringIO) -> None:
    name = 'x%s%n{}\n{"event": "forged"}\x1b[2J' + "y" * 10_000
    logging.getLogger("perprisk").warning("refused", extra={"account": name, "more": [name], "at": None})
    (line,) = lines(out)
    assert line["event"] == "refused"
    assert line["at"] is None
    assert "\x1b" not in out.getvalue()
    assert len(out.getvalue()) < 2_000


def test_no_secrets(out: io.StringIO) -> None:
    logging.getLogger("perprisk").warning(
        "refused",
        extra={
            "key": "s3cret",
            "api_key": "s3cret",
            "told": "Authorization: Bearer s3cret",
            "token": b"s3cret",
        },
    )
    assert "s3cret" not in out.getvalue()


def test_readable_lines_have_no_colours_where_there_is_no_terminal() -> None:
    root, ours = logging.getLogger(), logging.getLogger("perprisk")
    before = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    try:
        logs.set_up(stream, readable=True)
        logging.getLogger("perprisk").warning("odd", extra={"account": "a\nb"})
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])
        structlog.reset_defaults()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "odd" in text and "\x1b" not in text


def test_a_class_of_refused_events_has_one_line_a_minute(out: io.StringIO) -> None:
    now = [0.0]
    diary = Diary(logging.getLogger("perprisk.serving"), lambda: now[0])

    def reject(*codes: str) -> None:
        diary.rejected(EventsAnswer(0, [Rejected(0, code, "why") for code in codes], 0))

    reject("late", "late", "future")
    reject(*["late"] * 50)
    assert [(line["code"], line["number"]) for line in lines(out)] == [("late", 1), ("future", 1)]
    now[0] += REPEATED_S
    reject("late")
    assert lines(out)[-1]["number"] == 52
    for number in range(1_000):
        reject(f"made-up-{number}")
    assert len(lines(out)) <= 3 + logs.MOST_CLASSES + 1


def test_slow_answers_have_a_line(out: io.StringIO) -> None:
    diary = Diary(logging.getLogger("perprisk.serving"), lambda: 0.0)
    diary.slow("/v1/score", 200, 0.5)
    diary.slow("/v1/score", 200, 0.7)
    (line,) = lines(out)
    assert (line["route"], line["status"], line["duration_s"]) == ("/v1/score", 200, 0.5)
