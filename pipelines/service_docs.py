"""Write docs/openapi.json from the service: `make docs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from features.venue import Vectors
from serving.engine import Engine
from serving.ladder import Ladders, Levels
from serving.questions import Explained
from serving.scorer import Scores
from serving.service import Call, Service
from serving.wire import ModelAnswer

OUT = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def document() -> str:
    """The OpenAPI document as it is committed."""
    service = Service(Engine(_NoScorer()), ModelAnswer("", "", ""))
    [route] = [route for route in service.routes if route.operation.path == "/openapi.json"]
    return msgspec.json.format(service.answer(route, Call()).body, indent=1).decode() + "\n"


class _NoScorer:
    """For a service that is asked nothing."""

    model_version = ""

    def score(self, vectors: Vectors, levels: Levels, /) -> Scores:
        raise NotImplementedError

    def score_at_once(self, ladders: Ladders, /) -> Scores:
        raise NotImplementedError

    def reasons(
        self, vectors: Vectors, scores: Scores, all_rows: bool = False
    ) -> Sequence[Sequence[Explained]]:
        raise NotImplementedError


if __name__ == "__main__":
    OUT.write_text(document())
