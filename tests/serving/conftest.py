"""Engines that the tests of the service share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from serving.engine import Engine
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
