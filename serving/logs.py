"""What the service says of itself: one line for what is unusual, none for a normal answer.

Lines are JSON where nobody sits at the other end, and readable at a terminal. What callers sent, names
of accounts and markets above all, is hostile: it comes as a value beside the words and never in them, is cut
to a bounded length, and loses whatever could steer a terminal or begin another line. Keys and their like are
masked wherever they appear.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from serving.wire import EventsAnswer

LONGEST_VALUE = 300
LONGEST_TRACE = 60
"""Lines that are kept of a trace."""

SLOW_S = 0.1
"""An answer that takes longer gets a line."""

REPEATED_S = 60.0
"""One class of refused events gets a line at most so often."""

MOST_CLASSES = 64
MASK = "[masked]"

_SECRET_NAME = re.compile(r"key$|^keys$|token|secret|password|authorization|cookie", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?i)\b(bearer|authorization:?|x-api-key:?)\s+(bearer\s+)?\S+")


def clean(text: str, longest: int = LONGEST_VALUE) -> str:
    """A text that cannot steer a terminal or begin another line, of bounded length."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut
    )


def _guard(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Bound and clean every value, and mask secrets."""
    for name, value in event.items():
        if name.startswith("_") or name == "exc_info":
            continue  # structlog's own, turned into text elsewhere
        if _SECRET_NAME.search(name):
            event[name] = MASK
        elif name == "exception":
            lines = str(value).splitlines()[-LONGEST_TRACE:]  # the end says what it was
            event[name] = "\n".join(clean(_masked(line)) for line in lines)
        elif not isinstance(value, bool | int | float | None):
            event[name] = clean(_masked(value if isinstance(value, str) else str(value)))
    return event


def _masked(text: str) -> str:
    return _SECRET_TEXT.sub(MASK, text)


def set_up(stream: TextIO | None = None, readable: bool | None = None) -> None:
    """Send the log of this process to `stream` (stderr); called once, by the command that runs it.

    `readable` is for people, otherwise JSON, a line each; by default as the stream is a terminal. Of the
    libraries only warnings are told.
    """
    stream = sys.stderr if stream is None else stream
    readable = stream.isatty() if readable is None else readable
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _guard,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if readable
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("perprisk").setLevel(logging.INFO)


class Diary:
    """Lines about requests, few enough to read whatever callers send."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._log = logger
        self._clock = clock
        self._told_s: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def rejected(self, answer: EventsAnswer) -> None:
        """One line for each class of events that were not accepted, at most once a minute."""
        for entry in answer.rejected:
            number = self._due(entry.code)
            if number:
                told = {"code": entry.code, "number": number, "example": entry.message}
                self._log.warning("events rejected", extra=told)

    def slow(self, route: str, status: int, duration_s: float) -> None:
        """A line about an answer that has taken long; `route` without names in it."""
        number = self._due(f"slow {route}")
        if number:
            told = {"route": route, "status": status, "duration_s": round(duration_s, 6), "number": number}
            self._log.warning("slow request", extra=told)

    def _due(self, kind: str) -> int:
        """How many of a kind a line would stand for; 0 where it is too early for another line."""
        if kind not in self._untold and len(self._untold) >= MOST_CLASSES:
            kind = "other"
        number = self._untold.get(kind, 0) + 1
        now_s = self._clock()
        if now_s - self._told_s.get(kind, -REPEATED_S) < REPEATED_S:
            self._untold[kind] = number
            return 0
        self._told_s[kind], self._untold[kind] = now_s, 0
        return number
