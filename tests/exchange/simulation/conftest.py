from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exchange.simulation.tables import tables_of
from exchange.simulation.venue import Run, run_venue


@pytest.fixture(scope="session")
def run() -> Run:
    """A run with calm and crash, small enough to follow row by row."""
    return run_venue(200, 4.0, np.random.default_rng(11))


@pytest.fixture(scope="session")
def tables(run: Run) -> dict[str, Any]:
    return tables_of(run)
