"""What tests share: the real accounts where they are there, a small generated venue, a model of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from models.rows import Rows

# The same examples in every run of the whole suite: a new one is found by those who look for it, at a
# desk, and not by whoever happens to wait for a result. No deadlines: machines are shared.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("searching", deadline=None)
settings.load_profile("fixed" if "CI" in os.environ else "searching")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data: PERPRISK_DATA, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("PERPRISK_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder} (set PERPRISK_DATA)")
    return folder


@pytest.fixture(scope="session")
def drift(real_data: Path) -> Path:
    """Dataset of real accounts."""
    folder = real_data / "drift-v2"
    if not folder.is_dir():
        pytest.skip(f"real accounts are not here: {folder} (set PERPRISK_DATA)")
    return folder


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated venue of 600 accounts and 8 days, with a crash that ends in all kinds of default events."""
    from exchange.simulation.settings import Settings
    from pipelines import simulate

    # thin books, and next to no fund and backstop: losses reach winners however few the accounts are
    settings = Settings(least_depth_usd=10_000.0, fund_share=1e-6, backstop_funding=1e-6)
    folder = tmp_path_factory.mktemp("venue") / "dataset"
    simulate.run(folder, 600, 8.0, 11, scenario="october-2025", settings=settings)
    return folder


@pytest.fixture(scope="session")
def small_model(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the small dataset, its run recorded beside it."""
    from pipelines import train

    folder = tmp_path_factory.mktemp("model")
    train.train_model([small_dataset], folder / "model", None, f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "model"


@pytest.fixture(scope="session")
def small_rows(small_dataset: Path) -> Rows:
    """Training rows of the small dataset."""
    from pipelines.replay import DEFAULT_EVERY_US, training_rows
    from pipelines.store import Dataset

    dataset = Dataset.open(small_dataset, "accounts")
    return training_rows(dataset, DEFAULT_EVERY_US, dataset.meta.end_us)
