"""Audit logs for tests: written, read back, and asked what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from serving.audit import Audit
from serving.chain import files_of, records_of, verify
from serving.codec import JSON
from serving.evidence import Rows
from serving.records import Answered, Record
from serving.service import Call, Reply, Route, Service
from serving.signing import HEADS, Head, newest_heads, read_heads
from serving.wire import ModelAnswer

ABOUT = ModelAnswer("fake-1", "f" * 64, "# A model\n")
COLUMNS = np.array([0, 2, 5])
ROWS = Rows(np.arange(2.0 * 90).reshape(2, 90), [2], np.arange(15.0).reshape(1, 15), [0])


def fill(audit: Audit, answers: int, first: int = 0) -> None:
    audit.reads("model-1", COLUMNS)
    for number in range(first, first + answers):
        audit.append("/v1/score", "json", b"question %d" % number, b"answer %d" % number, ROWS)


def records(folder: Path, worker: str = "0") -> list[Record]:
    return [record for _, path in files_of(folder)[worker] for record, _ in records_of(path)]


def answers(folder: Path, worker: str = "0") -> list[bytes]:
    return [
        record.content.answer for record in records(folder, worker) if isinstance(record.content, Answered)
    ]


def heads(folder: Path) -> list[Head]:
    return list(newest_heads(read_heads(folder / HEADS)[0]).values())


def problems(folder: Path, kept: list[Head] | None = None) -> list[str]:
    return [problem for finding in verify(folder, kept or ()) for problem in finding.problems]


def route(service: Service, path: str) -> Route:
    return next(entry for entry in service.routes if entry.operation.path == path)


def ask(service: Service, path: str = "/v1/score", body: Any = None, codec: Any = JSON) -> Reply:
    content = codec.encode({"account_id": "ann"} if body is None else body)
    return service.answer(route(service, path), Call(content, codec=codec))
