"""Scoring with a bundle's graph, the same to the bit for every batch size and on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from exchange.errors import InputError
from models.bundle import Bundle, BundleError
from models.heads import Outputs

_OUTPUTS = ["scores", "probabilities", "warning"]


class Session:
    """A bundle's graph, loaded; safe to call from several threads at once.

    Raises BundleError where ONNX Runtime refuses the graph or the graph is not of the form that
    `models.export` writes.
    """

    def __init__(self, bundle: Bundle) -> None:
        options = onnxruntime.SessionOptions()
        # With more threads trees are summed in another order, and batches differ in the last bit.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base but Exception
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{bundle.path}: model.onnx cannot be loaded: {reason}") from error
        inputs = self._session.get_inputs()
        if [(entry.name, entry.type) for entry in inputs] != [("features", "tensor(double)")]:
            raise BundleError(f"{bundle.path}: model.onnx does not take one double matrix named features")
        if [entry.name for entry in self._session.get_outputs()] != _OUTPUTS:
            raise BundleError(f"{bundle.path}: model.onnx does not give scores, probabilities and warning")
        self.feature_count: int = inputs[0].shape[1]

    def run(self, matrix: NDArray[np.float64]) -> Outputs:
        """Score float64[n, feature_count] rows in catalogue order, NaN where missing; n may be 0.

        Raises InputError for a matrix of another shape or type.
        """
        if matrix.dtype != np.float64 or matrix.ndim != 2 or matrix.shape[1] != self.feature_count:
            raise InputError(
                f"the model takes float64[rows, {self.feature_count}],"
                f" given {matrix.dtype}{list(matrix.shape)}"
            )
        parts = self.tables(matrix)
        return Outputs(*(column for part in parts for column in np.ascontiguousarray(part.T)))

    def tables(self, matrix: NDArray[np.float64]) -> Sequence[NDArray[np.float64]]:
        """The graph's outputs for a matrix as `run` takes it, unchecked: float64[n, 5], [n, 5], [n, 1]."""
        return self._session.run(_OUTPUTS, {"features": matrix})

    def bound(self, rows: int) -> BoundSession:
        """The same graph for so many rows at a time."""
        return BoundSession(self._session, rows, self.feature_count)


class BoundSession:
    """A graph for matrices of one size, in memory of its own that the graph was told of once.

    It gives the bytes that `Session` gives and spares what every call of that costs beside the graph, where
    arguments are looked at and arrays made. Not safe for use from several threads.
    """

    def __init__(self, session: onnxruntime.InferenceSession, rows: int, feature_count: int) -> None:
        self._session = session
        self._matrix = np.empty((rows, feature_count))
        outputs = {entry.name: entry.shape[1] for entry in session.get_outputs()}
        self._tables = [np.empty((rows, outputs[name])) for name in _OUTPUTS]
        self._binding = session.io_binding()
        self._bind(self._binding.bind_input, "features", self._matrix)
        for name, table in zip(_OUTPUTS, self._tables, strict=True):
            self._bind(self._binding.bind_output, name, table)

    @staticmethod
    def _bind(bind: Any, name: str, array: NDArray[np.float64]) -> None:
        bind(name, "cpu", 0, np.float64, array.shape, array.ctypes.data)

    def tables(self, matrix: NDArray[np.float64]) -> Sequence[NDArray[np.float64]]:
        """As `Session.tables` for a matrix of this size; what it gives is overwritten by the next call."""
        self._matrix[:] = matrix
        self._session.run_with_iobinding(self._binding)
        return self._tables
