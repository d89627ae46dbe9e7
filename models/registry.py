"""Runs and registered models in MLflow: the only module that knows it.

MLflow is where runs are compared, never what scoring loads: the bundle is an artifact beside the ONNX
graph, and nothing that is stored is a pickle.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exchange.errors import InputError, WorkError

EXPERIMENT = "perprisk"
REGISTERED_MODEL = "perprisk"
CHAMPION = "champion"
LONGEST_PARAMETER = 500
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
SQLITE_START = b"SQLite format 3\0"


def default_uri(folder: Path) -> str:
    """Tracking address of an SQLite file in `folder`."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def check_uri(uri: str) -> None:
    """Raise InputError for an address that no run can be recorded at; to be asked before long work.

    MLflow itself makes missing folders, tries a hundred seconds to open a folder as a database, and knows
    of an address that it cannot use only when the training is done.
    """
    scheme, found, rest = uri.partition("://")
    if not found or scheme.partition("+")[0] not in SCHEMES:
        raise InputError(
            f"--tracking-uri: {uri!r} is neither sqlite:///FILE nor the address of an MLflow server"
        )
    if scheme != "sqlite":
        return
    file = Path(rest[1:].partition("?")[0])
    if not rest.startswith("/") or not file.name:
        raise InputError(f"--tracking-uri: {uri!r} names no file, as sqlite:///mlflow.db does")
    try:
        if not file.resolve().parent.is_dir():
            raise InputError(f"--tracking-uri: {uri!r}: the folder {file.resolve().parent} does not exist")
        if file.exists():
            with file.open("rb") as stream:
                start = stream.read(len(SQLITE_START))
            if start and start != SQLITE_START:
                raise InputError(f"--tracking-uri: {uri!r}: {file} is no SQLite database")
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise InputError(f"--tracking-uri: {uri!r}: {file} cannot be used ({reason.lower()})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow tells of migrations and versions; none of it is for the user of a command line."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOG_UV_FILES", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    names = ("mlflow", "alembic", "mlflow.store.db.utils", "alembic.runtime.migration")
    levels = {name: logging.getLogger(name).level for name in names}
    silence = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
    ):
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def record_run(
    uri: str,
    *,
    name: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    artifacts: Path,
    graph: bytes,
    requirements: list[str],
) -> str:
    """Record one training run and register its graph as the champion; the run's id.

    `artifacts` is a folder of files to keep with the run. Raises WorkError with MLflow's reason where it
    cannot be recorded.
    """
    with _quiet():
        import mlflow
        import onnx
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # MLflow sets its own level when imported.
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        try:
            mlflow.set_tracking_uri(uri)
            client = mlflow.MlflowClient()
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                client.create_experiment(EXPERIMENT, artifact_location=_artifact_location(uri))
            mlflow.set_experiment(EXPERIMENT)
            with mlflow.start_run(run_name=name) as run:
                mlflow.log_params({key: str(value)[:LONGEST_PARAMETER] for key, value in parameters.items()})
                mlflow.log_metrics(dict(metrics))
                mlflow.set_tags(dict(tags))
                mlflow.log_artifacts(str(artifacts))
                logged = mlflow.onnx.log_model(
                    onnx.load_from_string(graph),
                    name="graph",
                    pip_requirements=requirements,
                    registered_model_name=REGISTERED_MODEL,
                )
            client.set_registered_model_alias(
                REGISTERED_MODEL, CHAMPION, str(logged.registered_model_version)
            )
            return str(run.info.run_id)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as problem:
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            raise WorkError(f"the run cannot be recorded at {uri}: {reason}") from problem


def _artifact_location(uri: str) -> str | None:
    """Artifacts lie beside an SQLite file; another tracking server knows its own place."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
