"""Ways to an answer about one account, each a function of a question's number, for `serving_speed.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks import serving_rivals as rivals
from benchmarks.served import Frames, Http, frame_message, free_port, http_message, listening, perprisk
from features.venue import Venue
from models.bundle import Bundle
from serving.audit import Audit
from serving.codec import JSON
from serving.engine import Engine
from serving.evidence import columns_of, rows_of
from serving.ladder import Ladder
from serving.scorer import Scorer
from serving.wire import ScoreRequest

Floats = npt.NDArray[np.float64]
ACCOUNTS = 1_000
PATH = "/v1/score"
AUDITS = ("off", "group")


class Case(NamedTuple):
    """What is asked: a model, the dataset and the state that it ends in, and accounts with their 13 rows."""

    bundle: Bundle
    dataset: Path
    venue: Venue
    names: list[str]
    rows: list[Floats]

    @classmethod
    def of(cls, bundle: Bundle, dataset: Path, venue: Venue) -> Case:
        """Of accounts by chance that have an open position at the end."""
        chance = np.random.default_rng(1)
        keys = chance.permutation(venue.open_vectors().account)[:ACCOUNTS].tolist()
        ladder = Ladder(venue.handle())
        taken = [ladders for key in keys if (ladders := ladder.take(key, key)) is not None]
        assert len(taken) == len(keys)
        names = [venue.account_names[key] for key in keys]
        return cls(bundle, dataset, venue, names, [ladders.features[0] for ladders in taken])


class Way(NamedTuple):
    """One way to an answer; what `ask` gives is looked at outside of the time that is taken."""

    name: str
    ask: Callable[[int], object]
    process: int | None = None
    """The process that answers; None for this one."""


def raw_ways(case: Case) -> list[Way]:
    """onnxruntime in this process, on rows that are ready."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.bundle.graph, options, providers=["CPUExecutionProvider"])
    wanted, whole = ["probabilities"], case.rows
    own = [rows[:1] for rows in whole]
    return [
        Way("onnxruntime, 1 row", lambda number: session.run(wanted, {"features": own[number]})),
        Way("onnxruntime, 13 rows", lambda number: session.run(wanted, {"features": whole[number]})),
    ]


def engine_ways(case: Case, folder: Path, held: ExitStack) -> list[Way]:
    """The engine in this process, its answers written down or not."""
    scorer = Scorer(case.bundle)
    engine = Engine(scorer, venue=case.venue)
    audit = held.enter_context(closing(Audit.open(folder)))
    audit.reads(scorer.model_version, columns_of(case.bundle))
    questions = [ScoreRequest(name) for name in case.names]
    bodies = [json.dumps({"account_id": name}).encode() for name in case.names]

    def audited(number: int) -> object:
        asked = engine.ask(questions[number])
        body = JSON.encode(asked.answers[0])
        audit.append(PATH, JSON.name, bodies[number], body, rows_of(asked))
        return body

    return [
        Way("engine", lambda number: engine.score(questions[number])),
        Way("engine, audit group", audited),
    ]


def service_ways(case: Case, folder: Path, held: ExitStack) -> list[Way]:
    """`perprisk serve` by its socket and over HTTP, its answers written down or not."""
    bodies = [{"account_id": name} for name in case.names]
    framed = [frame_message(PATH, body) for body in bodies]
    sent = [http_message(PATH, json.dumps(body).encode()) for body in bodies]
    sockets, https = [], []
    for audit in AUDITS:
        running = perprisk(case.bundle.path, case.dataset, folder / f"audit-{audit}", audit)
        process, port, path = held.enter_context(running)
        frames, http = held.enter_context(closing(Frames(path))), held.enter_context(closing(Http(port)))
        sockets.append(Way(f"socket, audit {audit}", _asking(frames.ask, framed), process))
        https.append(Way(f"HTTP, audit {audit}", _asking(http.ask, sent), process))
    return [*sockets, *https]


def rival_ways(case: Case, folder: Path, held: ExitStack) -> list[Way]:
    """FastAPI and MLflow's scoring server around the same graph, given rows that are ready."""
    columns = rivals.columns_of_graph(case.bundle)
    graph = rivals.narrow_graph(case.bundle, columns)
    path = folder / "rival.onnx"
    path.write_bytes(graph)
    ready = [rows[:, columns].tolist() for rows in case.rows]
    fast_port, flow_port = free_port(), free_port()
    servers = [
        ("FastAPI + pydantic", "/score", "rows", fast_port, rivals.fastapi_server(path, fast_port)),
        ("MLflow's scoring server", "/invocations", "inputs", flow_port,
         rivals.mlflow_server(graph, len(columns), folder / "mlflow", flow_port)),
    ]  # fmt: skip
    ways = []
    for number, (name, route, field, port, (command, environment)) in enumerate(servers):
        process = held.enter_context(listening(command, folder / f"rival-{number}", environment, port))
        messages = [http_message(route, json.dumps({field: rows}).encode()) for rows in ready]
        ways.append(Way(name, _asking(held.enter_context(closing(Http(port))).ask, messages), process))
    return ways


def _asking(ask: Callable[[bytes], bytes], messages: list[bytes]) -> Callable[[int], bytes]:
    return lambda number: ask(messages[number])


def check(case: Case, ways: list[Way], numbers: range) -> None:
    """AssertionError where a way does not give the graph's own numbers for some questions."""
    by_name = {way.name: way for way in ways}
    raw, engine = by_name["onnxruntime, 13 rows"], by_name["engine"]
    for number in numbers:
        (probabilities,) = raw.ask(number)  # type: ignore[misc]
        answer = JSON.encode(engine.ask(number))
        told = json.loads(answer)
        assert told["status"] == "fallback" or told["pd_liquidation_24h"] == probabilities[0, 2]
        for way in ways:
            found = way.ask(number)
            if way.name.startswith("HTTP") or way.name == "engine, audit group":
                assert found == answer, way.name
            elif way.name.startswith("socket"):
                assert isinstance(found, bytes)
                assert msgspec.msgpack.decode(found)["body"] == told, way.name
            elif way.process is not None:
                assert isinstance(found, bytes)
                other = json.loads(found)
                other = other.get("predictions", other)["probabilities"]
                np.testing.assert_array_equal(np.array(other, np.float64), probabilities, way.name)
