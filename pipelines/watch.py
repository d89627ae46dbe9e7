"""`perprisk watch`: who is near liquidation, how likely, how soon, how much, and what would help."""

from __future__ import annotations

import socket as sockets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import httpx
import msgspec

from exchange.errors import InputError, PerpriskError, WorkError
from pipelines.watch_table import show
from serving.alert import LEVEL_NAMES, Alert, AlertsAnswer, Change
from serving.logs import clean
from serving.wire import ErrorAnswer

POLL_S = 1.0
TIMEOUT_S = 5.0
LENGTH_BYTES = 4
LARGEST_ANSWER = 16 * 1024 * 1024
Fetch = Callable[[], AlertsAnswer]


class NotYetError(WorkError):
    """The service is there and cannot answer now."""


def run(url: str, socket: Path | None, key: str | None, level: str, once: bool) -> int:
    """Show alerts from `level` on until interrupted, or `once`; 0 then.

    Raises InputError where the service cannot be asked like this, WorkError where it does not answer at
    first. Later on it is asked again and again, and what is shown says so.
    """
    if level not in LEVEL_NAMES:
        raise InputError(f"--level: {level!r} is not one of {', '.join(LEVEL_NAMES)}")
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        fetch = _over_http(client, url, key) if socket is None else _over_socket(socket, key)
        if once:
            answer = fetch()
            if sys.stdout.isatty():
                show(answer, level)
            else:
                _standing(answer, level, sys.stdout)
            return 0
        with suppress(KeyboardInterrupt):
            if sys.stdout.isatty():
                _watch_table(fetch, level)
            else:
                follow(fetch, level, sys.stdout, lambda: time.sleep(POLL_S))
    return 0


def _over_http(client: httpx.Client, url: str, key: str | None) -> Fetch:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InputError(f"--url: {url[:200]!r} is not an address such as http://127.0.0.1:8700")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}

    def fetch() -> AlertsAnswer:
        try:
            reply = client.get(f"{url.rstrip('/')}/v1/alerts", headers=headers)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InputError(f"--url or --key: {error}") from error
        except httpx.HTTPError as error:
            raise WorkError(f"{url}: no answer ({clean(str(error)) or type(error).__name__})") from error
        return read(reply.status_code, reply.content, url)

    return fetch


def _over_socket(path: Path, key: str | None) -> Fetch:
    """Frames of MessagePack: a length in four bytes, big endian, and an envelope."""
    envelope = {"route": "/v1/alerts"} | ({} if key is None else {"key": key})
    question = msgspec.msgpack.encode(envelope)

    def fetch() -> AlertsAnswer:
        try:
            with sockets.socket(sockets.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.connect(str(path))
                connection.sendall(len(question).to_bytes(LENGTH_BYTES, "big") + question)
                with connection.makefile("rb") as stream:
                    size = int.from_bytes(stream.read(LENGTH_BYTES), "big")
                    frame = stream.read(min(size, LARGEST_ANSWER))
        except OSError as error:
            raise WorkError(f"{path}: no answer ({error.strerror or error})") from error
        try:
            reply = msgspec.msgpack.decode(frame, type=_Reply)
        except msgspec.DecodeError as error:
            raise WorkError(f"{path}: no whole answer") from error
        return read(reply.status, bytes(reply.body), str(path), msgspec.msgpack.decode)

    return fetch


class _Reply(msgspec.Struct):
    status: int
    body: msgspec.Raw


def read(status: int, body: bytes, place: str, decode: Any = msgspec.json.decode) -> AlertsAnswer:
    """The answer in a reply; InputError for a refusal that asking again does not change, else WorkError."""
    if status == 200:
        try:
            return decode(body, type=AlertsAnswer)
        except msgspec.DecodeError as error:
            raise InputError(f"{place}: what answers there tells no alerts ({error})") from error
    try:
        told = clean(decode(body, type=ErrorAnswer).error.message)
    except msgspec.DecodeError:
        told = "without saying why"
    if status == 503:
        raise NotYetError(f"{place}: cannot answer now: {told}")
    raise InputError(f"{place}: refused with {status}: {told}")


# -- at a terminal


def _watch_table(fetch: Fetch, level: str) -> None:
    from rich.console import Console
    from rich.live import Live

    from pipelines.watch_table import table, waiting

    answer: AlertsAnswer | None = None
    fault: str | None = None
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                answer, fault = fetch(), None
            except NotYetError as error:
                fault = str(error)
            except PerpriskError as error:
                if answer is None or isinstance(error, InputError):
                    raise
                fault = str(error)
            width, height = console.size
            shown = waiting(fault) if answer is None else table(answer, level, width, height, fault)
            live.update(shown, refresh=True)
            time.sleep(POLL_S)


# -- as lines


def follow(fetch: Fetch, level: str, out: TextIO, pause: Callable[[], None]) -> None:
    """A line for every alert that stands at first, then for every change, without end.

    Lines begin anew where the service has. Errors of the first try are raised, and what asking again does
    not change; everything else is told once on stderr until there is an answer again.
    """
    newest: int | None = None
    rounds, silent = 0, False
    while True:
        try:
            answer = fetch()
        except PerpriskError as error:
            hopeless = isinstance(error, InputError) or (
                newest is None and not isinstance(error, NotYetError)
            )
            if hopeless:
                raise
            if not silent:
                print(f"warning: {error}", file=sys.stderr, flush=True)
            silent = True
        else:
            silent = False
            last = answer.changes[-1].number if answer.changes else 0
            if newest is None or last < newest or answer.rounds < rounds:
                _standing(answer, level, out)
            else:
                lost = (answer.changes[0].number if answer.changes else 1) - newest - 1
                if lost > 0:
                    print(f"warning: {lost} changes were missed", file=sys.stderr, flush=True)
                for change in answer.changes:
                    if change.number > newest and _at_least(change.level, level):
                        print(line_of_change(change), file=out)
            newest, rounds = last, answer.rounds
            out.flush()
        pause()


def _standing(answer: AlertsAnswer, level: str, out: TextIO) -> None:
    for alert in answer.alerts:
        if _at_least(alert.level, level):
            print(line_of_alert(alert), file=out)
    if answer.more:
        print(f"warning: {answer.more} more accounts stand at a level", file=sys.stderr)
    if answer.round_time is None:
        print("warning: the first look at all accounts is still under way", file=sys.stderr)


def line_of_alert(alert: Alert) -> str:
    """An alert that stands, as a line."""
    from pipelines.watch_table import hours, remedy

    chances = _chances(alert.pd_liquidation_1h, alert.pd_liquidation_8h, alert.pd_liquidation_24h)
    soon = f"; even odds in {hours(alert.lead_time_h)}" if alert.lead_time_h is not None else ""
    what = remedy(alert)
    return f"{_moment(alert)} standing {alert.level} {clean(alert.account_id, 64)}: {chances}{soon}" + (
        f"; {what}" if what else ""
    )


def line_of_change(change: Change) -> str:
    """A change as a line."""
    chances = _chances(change.pd_liquidation_1h, change.pd_liquidation_8h, change.pd_liquidation_24h)
    why = "" if change.why == "probability" else f" ({change.why})"
    name = clean(change.account_id, 64)
    return f"{_moment(change)} {change.change} {change.level} {name}{why}: {chances}"


def _chances(*pd: float | None) -> str:
    from pipelines.watch_table import share

    return ", ".join(f"{share(value)} in {span} h" for value, span in zip(pd, (1, 8, 24), strict=True))


def _moment(told: Alert | Change) -> str:
    return told.time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _at_least(level: str, wanted: str) -> bool:
    return LEVEL_NAMES.index(level) >= LEVEL_NAMES.index(wanted) if level in LEVEL_NAMES else True
