"""Engines that the tests of the service share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from serving.audit import Audit
from serving.chain import files_of
from serving.engine import Engine
from tests.serving.audited import fill
from tests.serving.stories import FakeScorer, send, story

# the first call of a compiled function takes seconds, and no law is about time
settings.register_profile("serving", deadline=None)
settings.load_profile("serving")


@pytest.fixture
def engine() -> Engine:
    """An engine that the story was told to."""
    engine = Engine(FakeScorer())
    send(engine, story())
    return engine


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three files, whole."""
    folder = tmp_path_factory.mktemp("audit")
    audit = Audit.open(folder, segment_bytes=2_000)
    fill(audit, 18)
    audit.close()
    assert len(files_of(folder)["0"]) >= 3
    return folder
