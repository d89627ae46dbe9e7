"""The same graph behind other servers: MLflow's own, and a plain FastAPI app.

Neither knows accounts: both are given rows of features that are ready, and only the columns that the graph
reads. They give the probabilities of every row, and make no margins.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle

if TYPE_CHECKING:
    from fastapi import FastAPI

GRAPH = "PERPRISK_RIVAL_GRAPH"
"""Environment variable that names the graph of the FastAPI app."""


def columns_of_graph(bundle: Bundle) -> npt.NDArray[np.int64]:
    """Columns of the catalogue that a bundle's graph reads, in order."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(bundle.graph).graph
    constants = {constant.name: constant for constant in graph.initializer}
    read: set[int] = set()
    for node in graph.node:
        if graph.input[0].name not in node.input:
            continue
        if node.op_type == "Gather":
            read.update(numpy_helper.to_array(constants[node.input[1]]).ravel().tolist())
        else:
            (splits,) = (each.ints for each in node.attribute if each.name == "nodes_featureids")
            read.update(splits)
    return np.array(sorted(read), np.int64)


def narrow_graph(bundle: Bundle, columns: npt.NDArray[np.int64]) -> bytes:
    """The graph of a bundle for rows of these columns alone, which gives `probabilities` alone."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(bundle.graph)
    graph = model.graph
    wide = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    place = np.zeros(wide, np.int64)  # what the graph does not read may be anything
    place[columns] = np.arange(len(columns))
    graph.initializer.append(numpy_helper.from_array(place, "place"))
    graph.node.insert(0, helper.make_node("Gather", ["rows", "place"], [graph.input[0].name], axis=1))
    del graph.input[0]
    graph.input.append(helper.make_tensor_value_info("rows", TensorProto.DOUBLE, [None, len(columns)]))
    others = [output for output in graph.output if output.name != "probabilities"]
    for output in others:
        graph.output.remove(output)
    told: bytes = model.SerializeToString()
    return told


def app() -> FastAPI:
    """FastAPI and pydantic around the graph in `GRAPH`."""
    import onnxruntime
    from fastapi import FastAPI
    from pydantic import BaseModel

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ[GRAPH], options, providers=["CPUExecutionProvider"])

    class Question(BaseModel):
        rows: list[list[float]]

    class Answer(BaseModel):
        probabilities: list[list[float]]

    made = FastAPI()

    async def score(question: Question) -> Answer:
        (found,) = session.run(["probabilities"], {"rows": np.array(question.rows)})
        return Answer(probabilities=found.tolist())

    # annotations of what is defined here are not found by their names
    score.__annotations__ = {"question": Question, "return": Answer}
    made.post("/score")(score)
    return made


def fastapi_server(graph: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that serves the app, and what it needs in its environment."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.serving_rivals:app"]
    return [*command, "--port", str(port), "--log-level", "warning"], {GRAPH: str(graph)}


def mlflow_server(graph: bytes, columns: int, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that `mlflow models serve --env-manager local` runs for the graph, saved in `folder`.

    Logging every request, which is uvicorn's default there, is left out.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import scoring_server
    from mlflow.types import Schema, TensorSpec

    options: dict[str, Any] = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    mlflow.onnx.save_model(
        onnx.load_from_string(graph),
        folder,
        signature=ModelSignature(Schema([TensorSpec(np.dtype(np.float64), (-1, columns), "rows")])),
        pip_requirements=[],
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options=options,
    )
    command, environment = scoring_server.get_cmd(str(folder), port, "127.0.0.1", nworkers=1)
    added = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    return [sys.executable, "-m", *shlex.split(command), "--log-level", "warning"], added
