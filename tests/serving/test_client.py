"""The client: a suggestion whatever happens, and what the caller got wrong told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.client import AsyncClient, Client, Rates, RequestError, UnavailableError
from serving.wire import Order, SentAccount, SentPosition
from tests.serving import stories as tell
from tests.serving.served import prepared, served

ROOT = Path(__file__).resolve().parents[2]
PATIENT_S = 60.0


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    path = tmp_path_factory.mktemp("s") / "s"
    with served(prepared(), path) as port:
        yield {"http": f"http://127.0.0.1:{port}", "unix": f"unix:{path}"}


@pytest.fixture(params=["http", "unix"])
def client(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Iterator[Client]:
    with Client(addresses[request.param], deadline_s=PATIENT_S, clock=None) as client:
        yield client


def test_answers_are_those_of_the_engine(client: Client) -> None:
    engine = tell.told(tell.story())
    for orders in ([], [Order("BTC", 0.5), Order("SOL", -3.0, 99.0)]):
        raw = [{"market": order.market, "quantity": order.quantity} | (
            {"price": order.price} if order.price else {}) for order in orders]  # fmt: skip
        expected = engine.score(tell.question("ann", orders=raw, explain=True, cure=True))
        answer = client.score("ann", orders, static_rate=0.0, in_force=0.9, explain=True, cure=True)
        assert answer == expected
    sent = SentAccount(1e6, [SentPosition("BTC", 1.0)])
    assert client.score("new", account=sent, static_rate=0.0).status == "ok"


def test_everything_else_can_be_asked(client: Client) -> None:
    assert client.model().model_version == "fake-1"
    for name in ("bob", "a/b", "..", "é %2F"):
        client.events([tell.account(name, 8)])
        assert client.account(name).account_id == name
    answer = client.events([tell.account("new", 8), tell.fill(0, "new", 1.0, 1.0)], source="s")
    assert [entry.code for entry in answer.rejected] == ["late"]


def test_an_answer_is_never_below_the_static_rate_nor_a_fallback_below_what_is_in_force(
    client: Client,
) -> None:
    assert client.score("ann", static_rate=0.0).initial_margin_rate < 0.7
    assert client.score("ann", static_rate=0.7).initial_margin_rate == 0.7
    account = SentAccount(1.0, [SentPosition("BTC", 1.0)], margin_mode="isolated")
    orders = [Order("BTC", 1.0)]
    answer = client.score("new", orders, static_rate=0.2, in_force=0.8, account=account)
    assert (answer.status, answer.initial_margin_rate) == ("fallback", 0.8)
    assert answer.fallback_reason == "unknown_isolated_collateral"


def test_batches_are_whole_and_in_order(client: Client) -> None:
    rates = {"bob": Rates(0.0, 0.3), "zoe": Rates(0.1, 0.3), "ann": Rates(0.9)}
    answers = client.batch(rates, PATIENT_S)
    assert [answer.account_id for answer in answers] == list(rates)
    assert [answer.fallback_reason for answer in answers] == [None, "unknown_account", None]
    assert [answers[1].initial_margin_rate, answers[2].initial_margin_rate] == [0.3, 0.9]


def test_what_the_caller_got_wrong_is_raised(client: Client) -> None:
    for work, status, code in (
        (lambda: client.score("zoe", static_rate=0.1), 404, "unknown_account"),
        (lambda: client.score("ann", [Order("NONE", 1.0)], static_rate=0.1), 422, "unknown_market"),
        (lambda: client.score("ann", [Order("BTC", float("nan"))], static_rate=0.1), 422, "invalid"),
        (lambda: client.account("zoe"), 404, "unknown_account"),
        (lambda: client.events(5), 422, "invalid"),
    ):
        with pytest.raises(RequestError) as caught:
            work()
        assert (caught.value.status, caught.value.code) == (status, code)
    for bad in (float("nan"), -0.1, float("inf")):
        with pytest.raises(ValueError, match="finite"):
            client.score("ann", static_rate=bad)
        with pytest.raises(ValueError, match="finite"):
            client.score("ann", static_rate=0.1, in_force=bad)


def test_a_sequence_that_is_not_reached_is_a_fallback(client: Client) -> None:
    answer = client.score("ann", static_rate=0.2, in_force=0.1, min_sequence=10**9)
    assert (answer.initial_margin_rate, answer.fallback_reason) == (0.2, "sequence_not_reached")


def test_an_answer_that_has_expired_is_not_used(addresses: dict[str, str]) -> None:
    told = tell.START + timedelta(minutes=8)
    for clock, status in (
        (lambda: datetime.now(UTC), "fallback"),
        (lambda: told + timedelta(seconds=60), "fallback"),
        (lambda: told + timedelta(seconds=59), "ok"),
    ):
        for address in addresses.values():
            with Client(address, deadline_s=PATIENT_S, clock=clock) as client:
                answer = client.score("bob", static_rate=0.01, in_force=0.8)
            assert answer.status == status
            if status == "fallback":
                assert (answer.initial_margin_rate, answer.fallback_reason) == (0.8, "expired")


@contextmanager
def saying(reply: Callable[[], list[bytes]], folder: Path, drip_s: float = 0.0) -> Iterator[list[str]]:
    """Servers on a port and a socket that say these parts to whoever asks; gives their addresses."""
    ready, loop, found = threading.Event(), asyncio.new_event_loop(), []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(10_000)
            for part in reply():
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(drip_s)
        except OSError:
            pass
        finally:
            writer.close()

    async def begin() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        await asyncio.start_unix_server(talk, folder / "s")
        found.extend([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", f"unix:{folder / 's'}"])
        ready.set()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(begin(), loop).result(30)

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


def packed(status: int, body: Any) -> bytes:
    message = msgspec.msgpack.encode({"status": status, "body": body})
    return len(message).to_bytes(4, "big") + message


GOOD = msgspec.to_builtins(tell.told(tell.story()).score(tell.question("ann")))


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, {"error": {"code": "overloaded", "message": "m", "field": None}}, "overloaded"),
        (429, {"error": {"code": "slow_down", "message": "m", "field": None}}, "slow_down"),
        (400, {"error": {"code": "timeout", "message": "m", "field": None}}, "timeout"),
        (500, "oops", "refused"),
        (302, {}, "refused"),
        (200, {}, "malformed"),
        (200, [], "malformed"),
        (200, {**GOOD, "initial_margin_rate": None}, "malformed"),
        (200, {**GOOD, "initial_margin_rate": -0.5}, "malformed"),
        (200, {**GOOD, "initial_margin_rate": "0.5"}, "malformed"),
        (200, {**GOOD, "account_id": "bob"}, "malformed"),
        (200, {**GOOD, "status": "fine"}, "malformed"),
        (200, {**GOOD, "valid_until": "yesterday"}, "malformed"),
        (200, {**GOOD, "valid_until": GOOD["time"]}, "expired"),
    ],
)
def test_whatever_comes_back_there_is_a_margin(tmp_path: Path, status: int, body: Any, reason: str) -> None:
    forms = [http(status, msgspec.json.encode(body)), packed(status, body)]
    for number, form in enumerate(forms):
        folder = tmp_path / str(number)
        folder.mkdir()
        with (
            saying(lambda form=form: [form], folder) as addresses,
            Client(addresses[number], deadline_s=PATIENT_S, clock=None) as client,
        ):
            answer = client.score("ann", static_rate=0.25, in_force=0.5)
            several = client.batch({"ann": Rates(0.25), "bob": Rates(0.5, 0.1)})
    assert answer.fallback_reason == reason
    assert (answer.status, answer.initial_margin_rate) == ("fallback", 0.5)
    assert answer.pd_liquidation_24h is None
    assert [entry.initial_margin_rate for entry in several] == [0.25, 0.5]


@pytest.mark.parametrize("garbage", [[], [b"\x00" * 10], [b"\xff" * 10], [b"HTTP/1.1 200 OK\r\n\r\n{"]])
def test_garbage_and_silence_are_a_fallback(tmp_path: Path, garbage: list[bytes]) -> None:
    with saying(lambda: garbage, tmp_path) as addresses:
        for address in addresses:
            with Client(address, deadline_s=PATIENT_S) as client:
                answer = client.score("ann", static_rate=0.25, in_force=0.5)
                assert (answer.status, answer.initial_margin_rate) == ("fallback", 0.5)
                with pytest.raises(UnavailableError):
                    client.account("ann")


def test_a_deadline_is_on_the_whole(tmp_path: Path) -> None:
    drops = [b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", *[b" "] * 100_000]
    with saying(lambda: drops, tmp_path, 0.01) as addresses:
        for address in addresses:
            with Client(address, deadline_s=0.1) as client:
                answer = client.score("ann", static_rate=0.25, in_force=0.5)
                assert answer.initial_margin_rate == 0.5
                assert answer.status == "fallback"


def test_nobody_there_is_a_fallback(tmp_path: Path) -> None:
    for address in ("http://127.0.0.1:1", f"unix:{tmp_path / 'none'}"):
        with Client(address, deadline_s=PATIENT_S) as client:
            answer = client.score("ann", static_rate=0.25)
            assert (answer.fallback_reason, answer.initial_margin_rate) == ("unreachable", 0.25)


def test_the_key_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = prepared()
    shown = []
    answer = front.answer

    def note(route: Any, call: Any, key: str | None = None) -> Any:
        shown.append(key)
        return answer(route, call, key)

    monkeypatch.setattr(front, "answer", note)
    with served(front, tmp_path / "s") as port:
        for address in (f"http://127.0.0.1:{port}", f"unix:{tmp_path / 's'}"):
            with Client(address, key="secret", deadline_s=PATIENT_S, clock=None) as client:
                client.score("ann", static_rate=0.1)
    assert shown == ["secret", "secret"]


def test_a_service_that_was_started_anew_is_found_again(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path / 's'}", deadline_s=PATIENT_S, clock=None) as client:
        for _ in range(2):
            with served(prepared(), tmp_path / "s"):
                assert client.score("ann", static_rate=0.1).status == "ok"


def test_within_an_event_loop(addresses: dict[str, str]) -> None:
    async def ask() -> None:
        for address in addresses.values():
            async with AsyncClient(address, deadline_s=PATIENT_S, clock=None) as client:
                answers = await asyncio.gather(*(client.score("ann", static_rate=0.1) for _ in range(20)))
                assert all(answer == answers[0] for answer in answers)
                assert answers[0].status == "ok"

    asyncio.run(ask())


def test_nothing_of_the_scoring_process_is_loaded_with_it() -> None:
    code = "import sys, serving.client; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "numba", "onnxruntime", "starlette", "uvicorn", "features"} & set(eval(done.stdout))
