"""Runs as MLflow keeps them: everything to compare runs by, nothing that is a pickle."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from exchange.errors import PerpriskError
from features import catalog
from models import registry
from models.bundle import Bundle, fill_bundle
from models.export import export_heads
from models.session import Session
from models.train import train as fit
from pipelines import train
from tests.models.made_rows import made_rows


@pytest.fixture(scope="module")
def client(small_model: Path):  # type: ignore[no-untyped-def]
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{small_model.parent / 'mlflow.db'}")


def test_a_run_holds_parameters_metrics_digest_pictures_and_the_bundle(client, small_model: Path) -> None:  # type: ignore[no-untyped-def]
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    bundle = Bundle.open(small_model, catalog.fingerprint())
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.03"
    assert run.data.params["catalogue_fingerprint"] == catalog.fingerprint()
    assert run.data.metrics["rows"] > 0
    assert run.data.tags["dataset_digest"] == bundle.model["datasets"][0]["digest"]
    assert run.data.tags["model_version"] == bundle.model_version
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"bundle", "boosters", "reliability.png", "precision_recall.png", "shap_bar.png"} <= names


def test_the_newest_model_is_the_champion(client) -> None:  # type: ignore[no-untyped-def]
    version = client.get_model_version_by_alias(registry.REGISTERED_MODEL, registry.CHAMPION)
    assert str(version.version) == "1"


def test_nothing_that_is_kept_is_a_pickle(small_model: Path) -> None:
    kept = [path for path in small_model.parent.rglob("*") if path.is_file()]
    assert any(path.suffix == ".onnx" for path in kept)
    for path in kept:
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".cloudpickle"}
        head = path.read_bytes()[:2]
        assert not (head[:1] == b"\x80" and head[1:] in {b"\x02", b"\x03", b"\x04", b"\x05"}), path


def test_the_boosters_that_are_kept_are_those_of_the_graph(tmp_path: Path) -> None:
    """LightGBM itself, reading its own file, says what the graph says: prior, trees and calibration."""
    import mlflow

    rows = made_rows(1)
    trained = fit(rows)
    exported = export_heads([head.spec for head in trained.heads], len(catalog.NAMES))
    (tmp_path / "model").mkdir()
    model = trained.model | {"datasets": [], "libraries": {"onnxruntime": version("onnxruntime")}}
    fill_bundle(tmp_path / "model", exported.graph, model, exported.forests, "", catalog.fingerprint())
    bundle = Bundle.open(tmp_path / "model", catalog.fingerprint())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    train.record(bundle, trained, None, rows, [], uri)

    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(registry.EXPERIMENT).experiment_id])
    folder = Path(client.download_artifacts(run.info.run_id, "boosters"))
    outputs = Session(bundle).run(rows.features)
    columns = [catalog.index(name) for name in bundle.model["tree_features"]]
    tried = 0
    for file in folder.glob("hazard_*.txt"):
        head = bundle.model["heads"][file.stem]
        prior = rows.features[:, catalog.index(f"prior_{file.stem}")]
        margin = prior + lgb.Booster(model_file=file).predict(rows.features[:, columns], raw_score=True)
        score = head["intercept"] + head["slope"] * margin
        chance = 1.0 / (1.0 + np.exp(-score))
        graph = 1.0 / (1.0 + np.exp(-getattr(outputs, f"score_{file.stem}")))
        assert np.abs(chance - graph).max() <= 1e-6
        tried += 1
    assert tried


def test_a_store_that_cannot_be_used_is_an_error_and_leaves_no_model(
    small_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(PerpriskError):
        train.train_model([small_dataset], tmp_path / "model", None, "sqlite:////no/such/folder/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_how_many_cases_there_were(small_model: Path) -> None:
    bundle = Bundle.open(small_model, catalog.fingerprint())
    severity = bundle.model["heads"]["severity"]
    assert f"{severity['accounts']} accounts" in bundle.card
    assert json.dumps(bundle.model, allow_nan=False)
