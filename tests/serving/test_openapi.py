"""The committed document is the service's own, and the service keeps to it whatever it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import service_docs
from serving.engine import Engine
from serving.questions import Scoring
from tests.serving.schemas import KNOWN, Schemas
from tests.serving.served import PATIENT
from tests.serving.stories import FakeScorer, send, story
from tests.serving.test_app import Caller

DOCUMENT: dict[str, Any] = json.loads(service_docs.OUT.read_text())
OPERATIONS = [
    (method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations
]
EXAMPLES, MANY_EXAMPLES = 100, 2_000


def test_the_document_is_what_the_service_gives() -> None:
    assert service_docs.OUT.read_text() == service_docs.document(), "Messages have changed: make docs"


def test_every_refusal_has_its_headers_and_every_key_its_scheme() -> None:
    for method, path in OPERATIONS:
        told = DOCUMENT["paths"][path][method.lower()]
        assert {"200", "400", "403", "431", "503"} <= set(told["responses"])
        assert "Retry-After" in told["responses"]["503"]["headers"]
        assert (
            ("security" in told)
            == ("401" in told["responses"])
            == (path.startswith("/v1/") or path == "/metrics")
        )
    assert DOCUMENT["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}


def calls(method: str, path: str) -> st.SearchStrategy[tuple[str, Any]]:
    """Paths and bodies for one operation: most as the document has them, some spoilt, some anything."""
    told = DOCUMENT["paths"][path][method.lower()]
    bodies: st.SearchStrategy[Any] = st.none()
    if "requestBody" in told:
        schema = told["requestBody"]["content"]["application/json"]["schema"]
        bodies = st.one_of(
            Schemas(DOCUMENT, 0).values(schema), Schemas(DOCUMENT, 5).values(schema), st.binary(max_size=40)
        )
    names = st.sampled_from(KNOWN) | st.text(min_size=1, max_size=12)
    paths = names.map(lambda name: path.replace("{account_id}", quote(name, safe="")))
    return st.tuples(paths if "{" in path else st.just(path), bodies)


def caller(scorer: Scoring) -> Caller:
    engine = Engine(scorer)
    send(engine, story())
    return Caller(engine, PATIENT)


@pytest.fixture(scope="module")
def plain() -> Caller:
    """A service with a scorer of a few lines."""
    return caller(FakeScorer())


@pytest.fixture(scope="module")
def trained(small_model: Path) -> Caller:
    """A service with a trained model."""
    from features import catalog
    from models.bundle import Bundle
    from serving.scorer import Scorer

    return caller(Scorer(Bundle.open(small_model, catalog.fingerprint())))


def hold(call: Caller, method: str, path: str, asked: tuple[str, Any]) -> None:
    """Ask, and check the answer against the document and the floor of margins."""
    reply = call(method, *asked)
    told = DOCUMENT["paths"][path][method.lower()]["responses"]
    assert str(reply.status_code) in told, (asked, reply.text)
    assert reply.status_code < 500, (asked, reply.text)
    if reply.status_code != 200:
        assert set(reply.json()["error"]) == {"code", "message", "field"}
    elif path.startswith("/v1/score"):
        answer = reply.json()
        for entry in answer["answers"] if path.endswith("batch") else [answer]:
            static, initial = entry["static_initial_margin_rate"], entry["initial_margin_rate"]
            assert static is None or (initial is not None and initial >= static), (asked, entry)


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much,
         HealthCheck.function_scoped_fixture]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_nothing_that_is_asked_is_a_failure(plain: Caller, method: str, path: str) -> None:
    @given(calls(method, path))
    @settings(max_examples=EXAMPLES, suppress_health_check=QUIET)
    def fuzz(asked: tuple[str, Any]) -> None:
        hold(plain, method, path, asked)

    fuzz()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_nothing_that_is_asked_is_a_failure_of_a_trained_model(
    trained: Caller, method: str, path: str
) -> None:
    @given(calls(method, path))
    @settings(max_examples=MANY_EXAMPLES, suppress_health_check=QUIET)
    def fuzz(asked: tuple[str, Any]) -> None:
        hold(trained, method, path, asked)

    fuzz()
