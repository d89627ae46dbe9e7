"""The service's engine as `perprisk serve` starts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines import answering, serve
from serving.engine import Engine
from serving.questions import Scoring


@contextmanager
def started(scorer: Scoring, dataset: Path | None, clock: str = "event") -> Iterator[Engine]:
    """An engine in the state that the dataset ends in, with the events that were logged since."""
    begun = serve.begin(dataset)
    try:
        engine = answering.start_engine(setting(begun, clock), scorer, begun.known)
        try:
            yield engine
        finally:
            engine.close()
    finally:
        os.close(begun.lock)


def setting(begun: serve.Beginning, clock: str) -> answering.Setting:
    """What one worker is told."""
    return answering.Setting(
        model="",
        clock=clock,
        log=str(begun.log),
        owner=begun.known.owner.decode(),
        quote_asset=begun.known.quote_asset,
        door=-1,
    )
