"""The service over HTTP, in process and as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.app import App
from serving.engine import Engine
from serving.front import Front
from serving.limits import Limits
from serving.service import Service
from tests.serving import stories as tell
from tests.serving.served import ABOUT
from tests.serving.stories import FakeScorer, at, send, story

ROOT = Path(__file__).resolve().parents[2]
Reply = httpx.Response


class Caller:
    """Asks an application in this process, without a network."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self.app = App(Front(Service(engine, ABOUT, limits)))

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()

        async def call() -> Reply:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, content=content, **more)

        return asyncio.run(call())


@pytest.fixture
def call(engine: Engine) -> Caller:
    return Caller(engine)


def error_of(reply: Reply) -> dict[str, Any]:
    told = reply.json()
    assert set(told) == {"error"}
    assert set(told["error"]) == {"code", "message", "field"}
    assert told["error"]["message"]
    return dict(told["error"])


def test_every_route_answers(call: Caller) -> None:
    reply = call("POST", "/v1/events", {"source": "feed", "events": [tell.bar(9, 61_000.0)]})
    assert reply.json() == {"accepted": 1, "rejected": [], "sequence": len(story()) + 1}
    reply = call("POST", "/v1/score", {"account_id": "ann", "explain": True, "cure": True})
    answer = reply.json()
    assert list(answer) == [
        "account_id", "time", "sequence", "valid_until", "pd_liquidation_1h", "pd_liquidation_8h",
        "pd_liquidation_24h", "pd_negative_equity_24h", "expected_loss_usd",
        "static_initial_margin_rate", "initial_margin_rate", "maintenance_margin_rate", "status",
        "fallback_reason", "model_version", "reasons", "cure", "parts",
    ]  # fmt: skip
    assert answer["time"] == at(9)
    assert answer["valid_until"] == at(10)
    assert set(answer["reasons"][0]) == {"code", "feature", "value", "contribution"}
    assert set(answer["cure"]) == {"deposit_usd", "reduce"}
    assert set(answer["cure"]["reduce"][0]) == {"market", "quantity"}
    plain = call("POST", "/v1/score", {"account_id": "ann"}).json()
    assert "reasons" not in plain
    assert "cure" not in plain
    reply = call("POST", "/v1/score/batch", {"account_ids": ["ann", "zoe"]})
    assert reply.json() == {"answers": [plain], "unknown": ["zoe"]}
    reply = call("GET", "/v1/accounts/bob")
    assert reply.json()["positions"][0]["market"] == "BTC"
    assert call("GET", "/v1/model").json()["fingerprint"] == "f" * 64
    for state in ("live", "ready"):
        assert call("GET", f"/health/{state}").json() == {"status": state, "time": at(9), "sequence": 26}


def test_names_are_taken_as_they_are(call: Caller) -> None:
    for name in ("a/b", "../etc", "ключ", "<b>", "a b", "%2F", "\u0000", "x" * 256, "😀"):
        reply = call("POST", "/v1/events", {"events": [tell.account(name, 8)]})
        assert reply.json()["accepted"] == 1, name
        assert call("POST", "/v1/score", {"account_id": name}).json()["account_id"] == name
        assert call("GET", f"/v1/accounts/{quote(name, safe='')}").json()["account_id"] == name
    assert "x" * 256 not in call("GET", "/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/score", b"{", 400, "bad_json"),
        ("POST", "/v1/score", b"", 400, "bad_json"),
        ("POST", "/v1/score", b'{"account_id": NaN}', 422, "invalid"),
        ("POST", "/v1/score", {"account_id": "ann", "orders": [{"market": "BTC", "quantity": 1e400}]}, 422,
         "invalid"),
        ("POST", "/v1/score", {"account": "ann"}, 422, "invalid"),
        ("POST", "/v1/score", {"account_id": "zoe"}, 404, "unknown_account"),
        ("POST", "/v1/score", {"account_id": "ann", "min_sequence": 10**6}, 409, "sequence_not_reached"),
        ("POST", "/v1/score", b'{"account_id": "' + b"a" * 70_000, 413, "too_large"),
        ("POST", "/v1/score/batch", {"account_ids": "ann"}, 422, "invalid"),
        ("POST", "/v1/score/batch", {"account_ids": ["a"] * 10_001}, 422, "invalid"),
        ("POST", "/v1/events", {"events": 5}, 422, "invalid"),
        ("POST", "/v1/events", {"events": [{"table": "fills"}]}, 422, "invalid"),
        ("POST", "/v1/events", b"[" * 100_000, 422, "invalid"),
        ("GET", "/v1/accounts/zoe", None, 404, "unknown_account"),
        ("GET", "/v1/accounts/", None, 404, "unknown_account"),
        ("GET", "/v1/score", None, 404, "unknown_route"),
        ("DELETE", "/v1/accounts/ann", None, 404, "unknown_route"),
        ("GET", "/v1/model/", None, 404, "unknown_route"),
        ("GET", "/", None, 404, "unknown_route"),
        ("BREW", "/v1/model", None, 404, "unknown_route"),
    ],
)  # fmt: skip
def test_refusals(call: Caller, method: str, path: str, body: Any, status: int, code: str) -> None:
    reply = call(method, path, body)
    assert reply.status_code == status
    assert error_of(reply)["code"] == code
    assert reply.headers["content-type"] == "application/json"


def test_what_a_web_page_sends_is_not_answered(call: Caller) -> None:
    reply = call(
        "POST", "/v1/events", {"events": [tell.bar(9, 1.0)]}, headers={"origin": "https://example.org"}
    )
    assert reply.status_code == 403
    assert call("GET", "/health/live").json()["sequence"] == len(story())


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["ann", "bob", "BTC", "ETH", "USD", at(9), "fills", "account_snapshots", "cross"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["account_id", "orders", "account", "explain", "cure", "min_sequence", "entering", "market",
             "quantity", "price", "positions", "balances", "equity_usd", "margin_mode", "account_ids",
             "events", "table", "time", "sequence", "asset", "amount", "kind", "fee_usd", "tiers",
             "isolated_collateral_usd"]
        )
        | st.text(max_size=4),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip
_orders = st.lists(
    st.fixed_dictionaries(
        {
            "market": st.sampled_from(["BTC", "SOL"]),
            "quantity": st.floats(allow_nan=False, allow_infinity=False),
        },
        optional={"price": st.floats(min_value=5e-324, max_value=1.7e308)},
    ),
    max_size=3,
)
_states = st.fixed_dictionaries(
    {
        "equity_usd": st.floats(allow_nan=False, allow_infinity=False),
        "positions": st.lists(
            st.fixed_dictionaries(
                {"market": st.sampled_from(["BTC", "SOL"]), "quantity": st.floats(-1e308, 1e308)},
                optional={
                    "entry_price": st.floats(min_value=5e-324, max_value=1.7e308),
                    "quote_usd": st.floats(-1e308, 1e308),
                    "isolated_collateral_usd": st.floats(-1e308, 1e308),
                },
            ),
            max_size=2,
            unique_by=lambda position: position["market"],
        ),
    },
    optional={"margin_mode": st.sampled_from(["cross", "isolated"])},
)


@pytest.fixture(scope="module")
def veteran() -> Caller:
    """An application that has seen everything the tests before sent to it."""
    engine = Engine(FakeScorer())
    send(engine, story())
    return Caller(engine)


@given(st.sampled_from(["/v1/score", "/v1/score/batch", "/v1/events"]), st.binary(max_size=60) | _values)
@settings(max_examples=150)
def test_garbage_is_refused_and_never_a_failure(veteran: Caller, path: str, body: Any) -> None:
    reply = veteran("POST", path, body)
    assert reply.status_code in (200, 400, 404, 409, 413, 422)
    if reply.status_code != 200:
        error_of(reply)


@given(st.sampled_from(["ann", "bob", "cem"]), _orders, st.none() | _states, st.booleans(), st.booleans())
@settings(max_examples=100)
def test_extreme_numbers_are_answered_with_numbers_or_null(
    veteran: Caller, account: str, orders: Any, state: Any, explain: bool, cure: bool
) -> None:
    body = {"account_id": account, "orders": orders, "explain": explain, "cure": cure}
    if state is not None:
        body["account"] = state
    reply = veteran("POST", "/v1/score", body)
    assert reply.status_code == 200, reply.text
    answer = json.loads(reply.content, parse_constant=pytest.fail)
    assert answer["status"] in ("ok", "fallback")


def test_a_failure_of_the_service_is_a_503_and_says_nothing_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(engine.scorer, "score", fail)
    call = Caller(engine)
    reply = call("POST", "/v1/score", {"account_id": "ann"})
    assert reply.status_code == 503
    assert error_of(reply)["code"] == "failed"
    assert "secret" not in reply.text
    assert 'status="503"' in call("GET", "/metrics").text


def test_a_body_that_comes_too_slowly_is_not_waited_for(engine: Engine) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b'{"account_id"'
        await asyncio.sleep(30)
        yield b': "ann"}'

    async def ask() -> Reply:
        transport = httpx.ASGITransport(app=App(Front(Service(engine, ABOUT, Limits(body_s=0.05)))))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/score", content=drip())

    reply = asyncio.run(ask())
    assert reply.status_code == 400
    assert error_of(reply)["code"] == "timeout"
    assert reply.headers["connection"] == "close"


def test_a_large_body_is_read_to_its_end_within_bounds(engine: Engine) -> None:
    taken = 0

    async def pour() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1_000):
            taken += 1_000
            yield b"x" * 1_000

    async def ask(limits: Limits) -> Reply:
        nonlocal taken
        taken = 0
        transport = httpx.ASGITransport(app=App(Front(Service(engine, ABOUT, limits))))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/score", content=pour())

    assert asyncio.run(ask(Limits())).status_code == 413
    assert taken == 1_000_000
    assert asyncio.run(ask(Limits(drained_bytes=100_000))).status_code == 413
    assert taken < 110_000


def test_the_document_tells_every_route_and_refusal(call: Caller) -> None:
    told = call("GET", "/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    routes = {(method.upper(), path) for path, entries in told["paths"].items() for method in entries}
    assert routes == {
        ("POST", "/v1/events"), ("POST", "/v1/score"), ("POST", "/v1/score/batch"),
        ("GET", "/v1/accounts/{account_id}"), ("GET", "/v1/alerts"), ("GET", "/v1/model"),
            ("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    }  # fmt: skip
    schemas = told["components"]["schemas"]
    pointers = [part for part in json.dumps(told).split('"') if part.startswith("#/components/schemas/")]
    assert {pointer.rsplit("/", 1)[1] for pointer in pointers} <= set(schemas)
    assert schemas["ScoreRequest"]["required"] == ["account_id"]
    assert schemas["ScoreRequest"]["additionalProperties"] is False
    assert schemas["Answer"]["properties"]["pd_liquidation_24h"] == {
        "anyOf": [{"type": "number"}, {"type": "null"}]
    }
    tables = {schema["properties"]["table"]["enum"][0] for schema in schemas.values()
              if "table" in schema.get("properties", {})}  # fmt: skip
    assert {"fills", "account_snapshots", "observations"} <= tables
    assert "position_snapshots" not in tables


def test_figures_for_prometheus(engine: Engine) -> None:
    call = Caller(engine)
    call(
        "POST",
        "/v1/events",
        {"events": [tell.bar(9, 1.0), tell.fill(9, "ann", 1.0, 1.0, market="X"), tell.bar(1, 1.0)]},
    )
    call("POST", "/v1/score", {"account_id": "ann"})
    call("POST", "/v1/score", {"account_id": "zoe"})
    figures = call("GET", "/metrics").text
    for line in (
        'perprisk_requests_total{route="/v1/score",status="200"} 1.0',
        'perprisk_requests_total{route="/v1/score",status="404"} 1.0',
        'perprisk_events_total{outcome="accepted"} 1.0',
        'perprisk_events_total{outcome="unknown_market"} 1.0',
        'perprisk_events_total{outcome="late"} 1.0',
        'perprisk_answers_total{status="ok"} 1.0',
        'perprisk_request_duration_seconds_count{route="/v1/score"} 2.0',
        "perprisk_sequence 26.0",
        "perprisk_accounts 3.0",
    ):
        assert line in figures.splitlines()


def test_the_scoring_process_stays_small() -> None:
    code = "import sys, serving.http; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    large = {"pandas", "polars", "pyarrow", "lightgbm", "sklearn", "mlflow", "shap", "matplotlib", "typer"}
    assert not large & set(eval(done.stdout))


# -- as a process of its own

SERVE = """
import sys
from contextlib import closing
from pipelines.answering import serve, start_engine
from pipelines.serve import begin, bind
from pipelines.warmup import warm_up
from serving.service import Service
from serving.wire import ModelAnswer
from tests.serving.started import setting
from tests.serving.stories import FakeScorer
with closing(bind("127.0.0.1", 0)) as listener:
    warm_up(FakeScorer())
    begun = begin(None)
    engine = start_engine(setting(begun, sys.argv[1]), FakeScorer(), begun.known)
    serve(Service(engine, ModelAnswer("fake-1", "f", "card")), listener)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts the service in a process; gives it and its address."""
    running = []

    def start(clock: str = "event") -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, clock],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PERPRISK_EVENT_LOG": str(tmp_path / "events")},
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("serving on "):
                return process, line.split()[-1]
        pytest.fail("".join(said))

    yield start
    for process in running:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_it_serves_ends_on_request_and_goes_on_where_it_was(
    start: Callable[..., tuple[subprocess.Popen[str], str]],
) -> None:
    process, address = start()
    with httpx.Client(base_url=address) as client:
        assert client.get("/health/ready").json() == {"status": "ready", "time": None, "sequence": 0}
        assert client.post("/v1/events", json={"events": story()}).json()["accepted"] == len(story())
        answer = client.post("/v1/score", json={"account_id": "ann"}).json()
        assert answer.get("status") == "ok", answer
        reply = client.post("/v1/score", content=b"x" * 5_000_000)  # a reason, not a broken connection
        assert reply.status_code == 413
        process.kill()
        process.wait()
    process, address = start()
    with httpx.Client(base_url=address) as client:
        assert client.post("/v1/score", json={"account_id": "ann"}).json() == answer
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_quarter_of_a_request_holds_nobody_up(
    start: Callable[..., tuple[subprocess.Popen[str], str]],
) -> None:
    process, address = start("wall")
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Length: 50\r\n\r\n{")
        began = time.monotonic()
        with httpx.Client(base_url=address) as client:
            assert client.get("/health/live").status_code == 200
        told = b""
        while block := slow.recv(4_096):  # until the service closes the connection
            told += block
        assert b"400 Bad Request" in told
        assert time.monotonic() - began < 15
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
