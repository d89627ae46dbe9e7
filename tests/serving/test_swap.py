"""Another model while the service answers: a good one takes over, no other does, and no request fails."""

from __future__ import annotations

import asyncio
import json
import os
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest

from exchange.errors import InputError
from features.venue import Vectors
from models.bundle import MANIFEST
from pipelines.answering import read_model
from serving.app import App
from serving.audit import Audit
from serving.codec import JSON
from serving.engine import Engine
from serving.front import Front
from serving.ladder import Ladders
from serving.scorer import Scorer, Scores
from serving.service import Service
from serving.swap import Candidate, ModelWatch
from tests.serving import stories as tell
from tests.serving.audited import answers as recorded
from tests.serving.plain_models import put, write_model
from tests.serving.served import PATIENT
from tests.serving.stories import question, send, story

OTHER_COLUMNS = ("slippage_to_close_bps",) * 3
QUESTIONS = ({"account_id": "ann"}, {"account_id": "bob"},
             {"account_id": "ann", "orders": [{"market": "BTC", "quantity": -0.5}]})  # fmt: skip


def quarters() -> list[dict[str, Any]]:
    """Marks that move and books, for as long as it takes until every column of the prior is known."""
    chance, events = Random(4), []
    for minute in range(9, 400, 5):
        events.append(tell.bar(minute, 60_600.0 * (1 + chance.uniform(-0.002, 0.002))))
        events.append(tell.bar(minute, 102.0 * (1 + chance.uniform(-0.002, 0.002)), "SOL"))
    return [
        *events,
        tell.price(395, 2_000.0),
        tell.book(396, 60_600.0),
        tell.book(396, 102.0, "SOL"),
        tell.funding(396, 1e-4),
        tell.funding(396, 1e-4, "SOL"),
    ]


class Venue:
    """A service that watches a folder for models."""

    def __init__(self, folder: Path, audit: Audit | None = None) -> None:
        self.folder = folder
        self.first = write_model(folder)
        candidate = read_model(folder)
        self.engine = Engine(candidate.scorer)
        send(self.engine, [*story(), *quarters()])
        for body in QUESTIONS:
            self.engine.score(question(**body))  # whatever has to be compiled is
        self.models = ModelWatch(self.engine, candidate, folder, lambda: read_model(folder))
        self.service = Service(self.engine, self.models, PATIENT, audit)
        self.app = App(Front(self.service))

    def look(self) -> None:
        asyncio.run(self.models.look())

    def ask(self, body: Any = QUESTIONS[0], path: str = "/v1/score") -> dict[str, Any]:
        reply = asyncio.run(self.request("POST", path, json=body))
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **more)

    @property
    def version(self) -> str:
        """The version that `/v1/model` tells and that answers carry."""
        told = asyncio.run(self.request("GET", "/v1/model")).json()["model_version"]
        assert self.ask()["model_version"] == told
        return str(told)

    @property
    def warnings(self) -> list[str]:
        return list(asyncio.run(self.request("GET", "/health/ready")).json().get("warnings", []))


@pytest.fixture
def venue(tmp_path: Path) -> Venue:
    return Venue(tmp_path / "model")


def test_a_good_model_takes_over_and_is_told(venue: Venue) -> None:
    before = venue.ask()
    assert before["status"] == "ok"
    assert venue.version == venue.first
    venue.look()
    assert venue.models.swaps == 0  # nothing has changed
    second = write_model(venue.folder, 1)
    assert venue.version == venue.first  # until it has been looked at
    venue.look()
    assert venue.version == second != venue.first
    assert venue.ask()["pd_liquidation_24h"] > before["pd_liquidation_24h"]
    assert (venue.models.swaps, venue.models.refusals, venue.warnings) == (1, 0, [])
    write_model(venue.folder, 0)
    venue.look()
    assert venue.ask() == before


def refused(venue: Venue, says: str) -> None:
    """What lies in the folder is refused and told, and the model from before goes on as it did."""
    before, swaps, refusals = venue.ask(), venue.models.swaps, venue.models.refusals
    venue.look()
    assert venue.models.refusals == refusals + 1
    assert venue.models.swaps == swaps
    assert venue.ask() == before
    assert says in venue.warnings[0]
    venue.look()
    assert venue.models.refusals == refusals + 1  # once for each change of the folder


def test_a_model_that_yields_nan_is_refused(venue: Venue) -> None:
    assert venue.ask()["status"] == "ok"
    write_model(venue.folder, 1, ("basis_against",) * 3)  # no index price was told, so it has no number
    refused(venue, "falls back for 2 of 2")
    write_model(venue.folder, 2, required=("basis_against",))
    refused(venue, "falls back for")
    third = write_model(venue.folder, 3)
    venue.look()
    assert venue.version == third
    assert venue.warnings == []


def damages(whole: dict[str, bytes], flips: int, step: int) -> list[tuple[str, dict[str, bytes]]]:
    """Spoilt copies of a model's files, each with a name."""
    chance, found = Random(8), []
    names = sorted(whole)
    for _ in range(flips):
        name = chance.choice(names)
        content = bytearray(whole[name])
        place = chance.randrange(len(content))
        content[place] ^= 1 << chance.randrange(8)
        found.append((f"{name} flipped at {place}", {**whole, name: bytes(content)}))
    for name in names:
        for length in range(0, len(whole[name]), step):
            found.append((f"{name} cut at {length}", {**whole, name: whole[name][:length]}))
    manifest = json.loads(whole[MANIFEST])
    for change in (
        {"version": manifest["version"] - 1},
        {"fingerprint": sha256(b"another catalogue").hexdigest()},
        {"files": {**manifest["files"], "card.md": {**manifest["files"]["card.md"], "sha256": "0" * 64}}},
    ):
        told = json.dumps({**manifest, **change}, indent=1, sort_keys=True) + "\n"
        found.append((f"manifest with another {[*change]}", {**whole, MANIFEST: told.encode()}))
    found.append(("an extra file", {**whole, "extra.bin": b"x"}))
    found.append(("a file that is missing", {name: whole[name] for name in names if name != "trees.npz"}))
    return found


def refuse_all(venue: Venue, flips: int, step: int) -> int:
    """Put every spoilt copy of a new model where the service looks; how many were refused."""
    write_model(venue.folder, 1)
    whole = {path.name: path.read_bytes() for path in venue.folder.iterdir()}
    put(venue.folder, whole | {"extra.bin": b"x"})
    venue.look()
    before = venue.ask()
    spoilt = damages(whole, flips, step)
    for name, files in spoilt:
        refusals = venue.models.refusals
        put(venue.folder, files)
        venue.look()
        assert venue.models.refusals == refusals + 1, name
        assert venue.ask() == before, name
    put(venue.folder, whole)
    card = venue.folder / "card.md"
    card.rename(venue.folder.parent / "card.md")
    card.symlink_to(venue.folder.parent / "card.md")
    os.utime(venue.folder / MANIFEST)
    refused(venue, "is a link")
    assert venue.models.swaps == 0
    put(venue.folder, whole)
    venue.look()
    assert venue.models.swaps == 1
    return len(spoilt) + 1


def test_no_spoilt_model_takes_over(venue: Venue) -> None:
    assert refuse_all(venue, 60, 65_536) > 60


@pytest.mark.slow
def test_no_spoilt_model_of_a_thousand_takes_over(venue: Venue) -> None:
    print(refuse_all(venue, 1_000, 4_096), "spoilt models refused")


def test_a_model_that_gives_no_number_once_it_answers_is_taken_out_again(venue: Venue) -> None:
    write_model(venue.folder, 1, OTHER_COLUMNS, required=())
    venue.look()
    assert venue.models.swaps == 1
    assert venue.ask()["status"] == "ok"
    # books that crossed: the model's only column has no number now
    crossed = {"best_bid": 60_700.0, "best_ask": 60_600.0}
    send(venue.engine, [tell.book(401, 60_600.0) | crossed])
    answer = venue.ask()
    assert answer["model_version"] == venue.first == venue.version
    assert answer["fallback_reason"] == "missing_slippage_to_close_bps"  # which the first one asks for
    assert (venue.models.returns, venue.models.swaps) == (1, 1)
    assert "failed while it answered" in venue.warnings[0]
    venue.look()
    assert venue.models.swaps == 1  # it is not tried again until the folder changes


class FailingScorer:
    """A model that was good enough to be tried out, and then fails."""

    model_version = "failing"

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.fails = False

    def score_at_once(self, ladders: Ladders) -> Scores:
        if self.fails:
            raise RuntimeError("the graph cannot be computed")
        return self._scorer.score_at_once(ladders)

    def score(self, vectors: Vectors, levels: Any) -> Scores:
        if self.fails:
            raise RuntimeError("the graph cannot be computed")
        return self._scorer.score(vectors, levels)

    def reasons(self, vectors: Vectors, scores: Scores, all_rows: bool = False) -> Any:
        return self._scorer.reasons(vectors, scores, all_rows)


def test_a_model_that_fails_once_it_answers_is_taken_out_again(venue: Venue) -> None:
    before = venue.ask()
    failing = FailingScorer(read_model(venue.folder).scorer)  # type: ignore[arg-type]
    about = venue.models.about
    venue.models._opens = lambda: Candidate(failing, type(about)("failing", about.fingerprint, about.card))
    os.utime(venue.folder / MANIFEST)
    venue.look()
    assert venue.ask() == before | {"model_version": "failing"}
    failing.fails = True
    assert venue.ask() == before
    assert venue.models.returns == 1
    batch = {"account_ids": ["ann", "bob"]}
    assert venue.ask(batch, "/v1/score/batch")["answers"][0] == before
    assert "the graph cannot be computed" in venue.warnings[0]


def test_without_a_model_from_before_a_failure_is_told(venue: Venue) -> None:
    failing = FailingScorer(venue.engine.scorer)  # type: ignore[arg-type]
    failing.fails = True
    venue.engine.scorer = failing
    reply = asyncio.run(venue.request("POST", "/v1/score", json=QUESTIONS[0]))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "failed")
    assert reply.headers["retry-after"] == "1"


def test_whatever_opening_a_model_raises_the_old_one_goes_on(venue: Venue) -> None:
    for fault in (InputError("no model"), MemoryError(), ValueError("odd\nthing"), KeyError("heads")):

        def raising(fault: Exception = fault) -> Candidate:
            raise fault

        venue.models._opens = raising
        os.utime(venue.folder / MANIFEST)
        refused(venue, str(fault).split("\n")[0] if str(fault) else type(fault).__name__)


async def swaps_under_load(venue: Venue, swaps: int, callers: int) -> int:
    """Swap models while callers ask without a pause; every answer is that of the model that it names."""
    engines: dict[str, Engine] = {}
    seen: set[str] = set()
    asked = 0
    done = asyncio.Event()

    def expected(version: str, body: dict[str, Any]) -> bytes:
        return JSON.encode(engines[version].score(question(**body)))

    def known(version: str) -> None:
        engines[version] = Engine(read_model(venue.folder).scorer)
        send(engines[version], [*story(), *quarters()])

    async def call(number: int) -> None:
        nonlocal asked
        chance = Random(number)
        while not done.is_set():
            body = chance.choice(QUESTIONS)
            reply = await venue.request("POST", "/v1/score", json=body)
            assert reply.status_code == 200, reply.text
            version = reply.json()["model_version"]
            assert reply.content == expected(version, body)
            seen.add(version)
            asked += 1
            await asyncio.sleep(0)  # without a network nothing else would give others their turn

    known(venue.first)
    calls = [asyncio.create_task(call(number)) for number in range(callers)]
    for number in range(1, swaps + 1):
        version = write_model(venue.folder, number)
        known(version)
        await venue.models.look()
        before = asked
        assert venue.models.about.model_version == version
        while asked < before + 2 * callers and not any(task.done() for task in calls):
            await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*calls)
    assert venue.models.swaps == swaps
    assert len(seen) == swaps + 1
    return asked


def test_models_are_swapped_under_load_without_a_failed_request(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path / "audit")
    venue = Venue(tmp_path / "model", audit)
    asked = asyncio.run(swaps_under_load(venue, 4, 4))
    venue.service.close()
    assert len(recorded(tmp_path / "audit")) == asked


@pytest.mark.slow
def test_100_swaps_under_load_without_a_failed_request(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path / "audit")
    venue = Venue(tmp_path / "model", audit)
    asked = asyncio.run(swaps_under_load(venue, 100, 8))
    venue.service.close()
    assert len(recorded(tmp_path / "audit")) == asked
    print(asked, "answers to 8 callers over 100 swaps, none of them failed")


def test_probes_are_spread_over_all_accounts(venue: Venue) -> None:
    assert np.array_equal(venue.models._probes().account, [0, 1])  # the third has no open position
