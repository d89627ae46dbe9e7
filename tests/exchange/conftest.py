from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the first call of a compiled function takes seconds, and no law is about time
settings.register_profile("exchange", deadline=None, max_examples=60)
settings.load_profile("exchange")


@pytest.fixture(scope="session")
def drift_tables() -> Path:
    """Folder of the real account history; skips where it is not there."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("PERPRISK_DATA", beside)) / "drift-v2"
    if not (folder / "dataset.json").is_file():
        pytest.skip(f"no real account history at {folder} (set PERPRISK_DATA to the folder that holds it)")
    return folder
