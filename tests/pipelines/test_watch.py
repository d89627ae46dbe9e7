"""`perprisk watch`: what a table and a line say, whatever the service answers."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from exchange.errors import InputError, WorkError
from pipelines import watch
from pipelines.cli import run as perprisk
from pipelines.watch_table import STALE_S, hours, money, remedy, share, table
from serving.alert import Alert, AlertsAnswer, Change, LevelAnswer, TimedCure
from serving.wire import Error, ErrorAnswer, Reduction

NOW = datetime(2025, 10, 10, 21, 14, tzinfo=UTC)


def alert(name: str = "ann", level: str = "critical", **more: object) -> Alert:
    cure = TimedCure(NOW, 12_300.0, [Reduction("BTC-PERP", -0.53), Reduction("ETH-PERP", 1.0)])
    made = Alert(
        account_id=name, level=level, since=NOW - timedelta(minutes=12), level_since=NOW, time=NOW,
        falling=False,
        pd_liquidation_1h=0.43, pd_liquidation_8h=0.71, pd_liquidation_24h=0.88, pd_negative_equity_24h=0.1,
        expected_loss_usd=1_234.0, lead_time_h=1.5, margin_ratio=1.06, distance_to_liquidation=0.012,
        gross_notional_usd=1.2e6, collateral_usd=30_000.0, status="ok", fallback_reason=None, cure=cure,
    )  # fmt: skip
    for name_, value in more.items():
        setattr(made, name_, value)
    return made


def change(number: int, kind: str = "raised", level: str = "critical", name: str = "ann") -> Change:
    return Change(number, NOW, name, kind, level, "probability", 0.43, 0.71, 0.88)  # type: ignore[arg-type]


def answer(*alerts: Alert, changes: tuple[Change, ...] = (), **more: object) -> AlertsAnswer:
    levels = [
        LevelAnswer(name, span, 0.2, 0.1, sum(entry.level == name for entry in alerts), 9, 4, 2, 1, 2, 0.5)
        for name, span in (("watch", 24), ("warning", 8), ("critical", 1))
    ]
    made = AlertsAnswer(
        time=NOW, sequence=7, rounds=3, round_time=NOW, accounts=543, unscored=0, levels=levels,
        liquidations=5, unwarned=1, alerts=list(alerts), more=0, changes=list(changes), model_version="m",
    )  # fmt: skip
    for name, value in more.items():
        setattr(made, name, value)
    return made


def drawn(
    told: AlertsAnswer, level: str = "watch", height: int = 50, fault: str | None = None, width: int = 150
) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(table(told, level, width, height, fault))
    return out.getvalue()


def test_a_row_says_who_how_likely_how_soon_how_much_and_what_to_do() -> None:
    text = drawn(answer(alert()))
    (row,) = (line for line in text.splitlines() if " ann " in line)
    for told in ("critical", "43% in 1 h", "in 1.5 h", "1.2%", "$1.2M", "$1,234", "12 min",
                 "deposit $12.3k or sell 0.53 BTC-PERP and 1 more"):  # fmt: skip
        assert told in row
    assert "543 open accounts" in text
    assert "4 of 6 critical came true within 1 h, 30 min ahead" in text
    assert "1 of 5 liquidations had no alert before" in text


def test_the_table_fits_the_screen_and_the_level_asked_for() -> None:
    told = answer(*(alert(f"a{number}") for number in range(30)), alert("low", "watch"), more=4)
    text = drawn(told, "critical", 20)
    assert len(text.splitlines()) <= 20
    assert "and 23 more" in text
    assert "low" not in drawn(told, "warning", 100)
    assert "low" in drawn(told, "watch", 100)


def test_the_table_says_when_it_cannot_be_relied_upon() -> None:
    late = timedelta(seconds=STALE_S + 1)
    assert "STALE" in drawn(answer(round_time=NOW - late))
    assert "STALE" not in drawn(answer())
    assert "first look" in drawn(answer(round_time=None))
    assert "nobody is at this level" in drawn(answer())
    assert "no newer answer: gone" in drawn(answer(), fault="gone")
    assert "3 cannot be scored" in drawn(answer(unscored=3))
    lost = alert(cure=None, status="fallback", fallback_reason="stale_mark")
    assert "no model: stale_mark" in drawn(answer(lost))


def test_a_narrow_terminal_still_says_what_to_do() -> None:
    (row,) = (line for line in drawn(answer(alert()), width=100).splitlines() if " ann " in line)
    for told in ("critical", "43% in 1 h", "in 1.5 h", "1.2%", "$1,234", "deposit $12.3k or sell 0.53"):
        assert told in row


def test_what_is_about_to_be_called_off_says_so() -> None:
    assert "falling; deposit $12.3k" in drawn(answer(alert(falling=True)))
    assert "falling" not in drawn(answer(alert()))


HOSTILE = "\x1b[2J\x1b]0;pwned\x07[bold red]x[/]\r\nfake\u202e\u0000" + "y" * 300


def test_hostile_names_are_shown_and_do_nothing() -> None:
    cure = TimedCure(NOW, None, [Reduction(HOSTILE, 1.0)])
    told = answer(alert(HOSTILE, cure=cure), changes=(change(1, name=HOSTILE),))
    texts = [drawn(told), watch.line_of_alert(told.alerts[0]), watch.line_of_change(told.changes[0])]
    for text in texts:
        assert not set(text) & {"\x1b", "\x07", "\r", "\u202e", "\u0000"}
        assert "\\x1b[2J" in text
    assert all("\n" not in text for text in texts[1:])
    assert all(len(text) < 500 for text in texts[1:])


def test_numbers_that_are_not_known() -> None:
    nothing = alert(
        pd_liquidation_1h=None, distance_to_liquidation=None, expected_loss_usd=None, lead_time_h=None,
        gross_notional_usd=None, cure=None,
    )  # fmt: skip
    row = drawn(answer(nothing))
    assert "? in 1 h" in row
    assert "> 24 h" in row


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (share(0.0), "0.0%"), (share(1e-9), "<0.1%"), (share(0.0123), "1.2%"), (share(0.4567), "46%"),
        (share(0.9999), ">99.9%"), (share(1.0), "100%"), (share(-0.05), "-5.0%"), (share(None), "?"),
        (hours(0.2), "12 min"), (hours(1.54), "1.5 h"), (hours(23.6), "24 h"), (hours(None), "?"),
        (money(0.0), "$0.00"), (money(12.345), "$12.35"), (money(1_234.4), "$1,234"),
        (money(12_345.0), "$12.3k"), (money(-1.2e6), "-$1.2M"), (money(3e9), "$3B"), (money(None), "?"),
        (remedy(alert(cure=TimedCure(NOW, 0.0, []))), "nothing: it is back at target"),
        (remedy(alert(cure=TimedCure(NOW, None, None))), ""),
        (remedy(alert(cure=TimedCure(NOW, 5.0, None))), "deposit $5.00"),
    ],
)  # fmt: skip
def test_figures_as_people_say_them(said: str, expected: str) -> None:
    assert said == expected


# -- as lines


class _EndError(Exception):
    pass


def followed(*replies: AlertsAnswer | Exception, level: str = "watch") -> list[str]:
    left = list(replies)
    out = io.StringIO()

    def fetch() -> AlertsAnswer:
        if not left:
            raise _EndError
        reply = left.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    with pytest.raises(_EndError):
        watch.follow(fetch, level, out, lambda: None)
    return out.getvalue().splitlines()


def test_one_line_for_what_stands_and_one_for_every_change() -> None:
    first = answer(alert(), changes=(change(1), change(2, "lowered", "watch", "bob")))
    more = (*first.changes, change(3, "cleared"), change(4, "raised", "watch", "cem"))
    lines = followed(first, first, answer(changes=more), answer(changes=more))
    assert lines == [
        "2025-10-10T21:14:00Z standing critical ann: 43% in 1 h, 71% in 8 h, 88% in 24 h; even odds in 1.5 h;"
        " deposit $12.3k or sell 0.53 BTC-PERP and 1 more",
        "2025-10-10T21:14:00Z cleared critical ann: 43% in 1 h, 71% in 8 h, 88% in 24 h",
        "2025-10-10T21:14:00Z raised watch cem: 43% in 1 h, 71% in 8 h, 88% in 24 h",
    ]
    assert len(followed(first, answer(changes=more), level="critical")) == 2


def test_a_service_that_has_begun_anew_is_told_anew() -> None:
    lines = followed(
        answer(changes=(change(1), change(2))), answer(alert("bob"), changes=(change(1),), rounds=1)
    )
    assert [line.split()[1:4] for line in lines] == [["standing", "critical", "bob:"]]


def test_a_gap_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = followed(answer(changes=(change(1),)), answer(changes=(change(9),)))
    assert len(lines) == 1
    assert "7 changes were missed" in capsys.readouterr().err


def test_what_is_lost_for_a_while_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(followed(answer(alert()), WorkError("gone"), WorkError("gone"), answer(alert()))) == 1
    assert capsys.readouterr().err == "warning: gone\n"
    with pytest.raises(WorkError):
        watch.follow(lambda: (_ for _ in ()).throw(WorkError("gone")), "watch", io.StringIO(), lambda: None)
    with pytest.raises(InputError):
        followed(answer(), InputError("revoked"))


def test_the_service_is_waited_for_while_it_has_no_events() -> None:
    assert len(followed(watch.NotYetError("soon"), answer(alert()))) == 1


# -- as a command


@contextmanager
def serving(status: int, body: bytes) -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives every caller the same reply; its address and the keys that it was shown."""
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("authorization"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_once_tells_what_stands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPRISK_KEY", "from-environment")
    with serving(200, msgspec.json.encode(answer(alert(), alert("low", "watch")))) as (url, keys):
        assert perprisk(["watch", "--once", "--url", url, "--level", "warning"]) == 0
        assert perprisk(["watch", "--once", "--url", url, "--key", "given"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["ann:", "ann:", "low:"]
    assert keys == ["Bearer from-environment", "Bearer given"]


def refused(code: str, message: str) -> bytes:
    return msgspec.json.encode(ErrorAnswer(Error(code, message, None)))


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (401, refused("no_key", "a key is needed"), 2, "refused with 401: a key is needed"),
        (404, b"<html>", 2, "refused with 404"),
        (200, b"{}", 2, "tells no alerts"),
        (200, b"<html>", 2, "tells no alerts"),
        (503, refused("no_events_yet", "no event"), 1, "cannot answer now: no event"),
    ],
)
def test_what_goes_wrong_is_one_line(
    status: int, body: bytes, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(status, body) as (url, _):
        assert perprisk(["watch", "--once", "--url", url]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert says in told.err


def test_a_socket_is_asked_in_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a path of a socket is short
    asked: list[object] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()

        def serve() -> None:
            for status, body in ((200, answer(alert())), (403, ErrorAnswer(Error("scope", "not you", None)))):
                connection, _ = listener.accept()
                with connection:
                    size = int.from_bytes(connection.recv(4), "big")
                    asked.append(msgspec.msgpack.decode(connection.recv(size)))
                    reply = msgspec.msgpack.encode({"status": status, "body": body})
                    connection.sendall(len(reply).to_bytes(4, "big") + reply)

        thread = threading.Thread(target=serve)
        thread.start()
        assert perprisk(["watch", "--once", "--socket", "s", "--key", "k"]) == 0
        assert perprisk(["watch", "--once", "--socket", "s"]) == 2
        thread.join()
    assert asked == [{"route": "/v1/alerts", "key": "k"}, {"route": "/v1/alerts"}]
    told = capsys.readouterr()
    assert "critical ann" in told.out
    assert "refused with 403: not you" in told.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--url", "http://127.0.0.1:1"], 1), (["--url", "ftp://x"], 2), (["--url", "127.0.0.1:8700"], 2),
        (["--level", "urgent"], 2), (["--url", "http://[x"], 2), (["--socket", "nowhere.sock"], 1),
    ],
)  # fmt: skip
def test_wrong_requests(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert perprisk(["watch", "--once", *arguments]) == code
    assert capsys.readouterr().err.startswith("error: ")
