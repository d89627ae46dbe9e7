"""One ONNX graph for all heads and the early warning: trees, priors, calibration, horizons, in double.

Built by hand from the trees' arrays, because converters round thresholds to float32. Two things
make the result the same to the bit whatever the batch: trees are summed row by row in order (one
thread), and every exponential is taken of an [n, 8] matrix. ONNX Runtime's vectorised exp differs
from its scalar one in the last bit and falls back to the scalar for what is left over; eight
columns leave nothing over. `docs/decisions/0004-one-graph-in-double.md` has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from exchange.errors import WorkError
from models.forest import ZERO_BOUND, Forest, empty_forest, fault_of, forest_from_dump
from models.heads import HEADS, PROBABILITIES, SCORES, WARNING

LANES = 8
OPSET, ML_OPSET, IR_VERSION = 21, 5, 10


@dataclass(frozen=True)
class HeadSpec:
    """One head: score = intercept + slope * (offset + trees), then its link.

    `trees` is `Booster.dump_model()` of a single-margin booster, or None for margin 0; `features`
    are the catalogue columns it was trained on, in its order. `offset` is the catalogue column of a
    prior logit, or None for 0; where it is NaN the head is NaN. The link is `sigmoid`, or for
    severity also `identity`, cut to [0, 1].
    """

    name: str
    trees: Mapping[str, Any] | None = None
    features: Sequence[int] = ()
    offset: int | None = None
    intercept: float = 0.0
    slope: float = 1.0
    link: Literal["sigmoid", "identity"] = "sigmoid"


@dataclass(frozen=True)
class WarningSpec:
    """An isolation forest as scikit-learn grows it, over some columns of the catalogue.

    A column is filled with its median where it is NaN, cut to [lowest, highest], both within float32, and
    rounded to float32, which is what scikit-learn compares. `forest` numbers the columns as `features`
    lists them, compares zero like any number, and its leaves hold the depth of a row that ends there.
    The warning is the threshold less the mean depth: above 0 is an alarm.
    """

    features: Sequence[int]
    medians: ArrayLike
    lowest: ArrayLike
    highest: ArrayLike
    forest: Forest
    threshold: float


class Export(NamedTuple):
    """A graph as bytes, and the same trees as arrays by head."""

    graph: bytes
    forests: dict[str, Forest]


def export_heads(heads: Sequence[HeadSpec], feature_count: int, warning: WarningSpec | None = None) -> Export:
    """The graph from float64[n, feature_count] `features` to `scores`, `probabilities` and `warning`.

    They are float64[n, 5], [n, 5] and [n, 1]; their columns are `SCORES`, `PROBABILITIES` and `WARNING`,
    named in the graph's metadata as well. The warning is NaN in a row that has none of its columns, and in
    all rows where there is no forest. The same heads give the same bytes. Raises WorkError where a head is
    missing or unknown, names a column outside the catalogue, has a non-finite constant or trees that cannot
    be exported.
    """
    by_name = {head.name: head for head in heads}
    if len(by_name) != len(heads) or set(by_name) != set(HEADS):
        given = ", ".join(head.name for head in heads)
        raise WorkError(f"a model needs the heads {', '.join(HEADS)}; given {given}")
    ordered = [by_name[name] for name in HEADS]
    for head in ordered:
        _check(head, feature_count)
    if warning is not None:
        _check_warning(warning, feature_count)
    forests = {
        head.name: empty_forest() if head.trees is None else forest_from_dump(head.trees, head.features)
        for head in ordered
    }
    graph = _Graph()
    margins = _margins(graph, [forests[name] for name in HEADS], feature_count)
    scores = _scores(graph, ordered, margins)
    _outputs(graph, scores, severity_link=by_name["severity"].link)
    _warning(graph, warning)
    return Export(graph.serialized(feature_count), forests)


def _check(head: HeadSpec, feature_count: int) -> None:
    if not (math.isfinite(head.intercept) and math.isfinite(head.slope)):
        raise WorkError(f"head {head.name} has intercept {head.intercept} and slope {head.slope}: not finite")
    if head.link not in ("sigmoid", "identity") or (head.link == "identity" and head.name != "severity"):
        raise WorkError(f"head {head.name} cannot have link {head.link!r}")
    columns = [*head.features, *([] if head.offset is None else [head.offset])]
    outside = [column for column in columns if not 0 <= column < feature_count]
    if outside:
        raise WorkError(f"head {head.name} names column {outside[0]} of a catalogue of {feature_count}")


def _check_warning(warning: WarningSpec, feature_count: int) -> None:
    outside = [column for column in warning.features if not 0 <= column < feature_count]
    if outside:
        raise WorkError(f"the warning names column {outside[0]} of a catalogue of {feature_count}")
    largest = float(np.finfo(np.float32).max)
    bounds = [np.asarray(values, np.float64) for values in (warning.lowest, warning.medians, warning.highest)]
    if any(row.shape != (len(warning.features),) or not np.all(np.abs(row) <= largest) for row in bounds):
        raise WorkError(f"the warning needs {len(warning.features)} medians and bounds within float32")
    if not math.isfinite(warning.threshold):
        raise WorkError(f"the warning has threshold {warning.threshold}: not finite")
    fault = fault_of(warning.forest, len(warning.features))
    if fault is not None:
        raise WorkError(f"the warning's forest: {fault}")


class _Graph:
    """Nodes and constants in order of appearance; a node's first output is named after it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, values: ArrayLike, dtype: type = np.float64) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def add(
        self, operator: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def columns(self, matrix: str, count: int) -> list[str]:
        """The first `count` of LANES columns as [n, 1] each; one operator, which several would not be."""
        names = [f"column_{len(self.nodes)}_{number}" for number in range(count + 1)]
        sizes = self.constant([1] * count + [LANES - count], np.int64)
        self.nodes.append(helper.make_node("Split", [matrix, sizes], names, axis=1))
        return names[:count]

    def serialized(self, feature_count: int) -> bytes:
        columns = {"scores": SCORES, "probabilities": PROBABILITIES, "warning": WARNING}
        graph = helper.make_graph(
            self.nodes,
            "perprisk",
            [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["rows", feature_count])],
            [
                helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows", len(names)])
                for name, names in columns.items()
            ],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="perprisk"
        )
        for name, names in columns.items():
            model.metadata_props.add(key=name, value=",".join(names))
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def _tensor(values: ArrayLike, dtype: type = np.float64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype))


def _margins(graph: _Graph, forests: Sequence[Forest], feature_count: int) -> str:
    """[n, LANES] sums of leaves, one lane a head; spare lanes repeat the first."""
    odd = sorted({int(column) for forest in forests for column in forest.feature[_zero_is_odd(forest)]})
    source = "features"
    if odd:
        # Where zero takes a way of its own, a second copy of the column has NaN in its place.
        copies = graph.add("Gather", "features", graph.constant(odd, np.int64), axis=1)
        is_zero = graph.add("LessOrEqual", graph.add("Abs", copies), graph.constant(ZERO_BOUND))
        masked = graph.add("Where", is_zero, graph.constant(math.nan), copies)
        source = graph.add("Concat", "features", masked, axis=1)
    column_of_copy = {column: feature_count + rank for rank, column in enumerate(odd)}
    lanes = [_ensemble(graph, source, forest, column_of_copy) for forest in forests]
    return graph.add("Concat", *lanes, *lanes[:1] * (LANES - len(lanes)), axis=1)


def _zero_is_odd(forest: Forest) -> Any:
    return (forest.feature >= 0) & (forest.zero_left != (forest.threshold >= 0.0))


def _ensemble(
    graph: _Graph,
    source: str,
    forest: Forest,
    column_of_copy: Mapping[int, int],
    zero_bound: float = ZERO_BOUND,
) -> str:
    """A TreeEnsemble node, [n, 1] in double, that decides as `Forest` says for every double.

    With a `zero_bound` below 0 nothing but zero counts as zero.
    """
    # A tree that is one leaf becomes a split with that leaf on both sides.
    split = forest.feature >= 0
    split[forest.start[:-1]] = True
    inner = np.flatnonzero(split)
    alone = forest.feature[inner] < 0
    place = np.cumsum(split) - 1
    leaf_place = np.cumsum(forest.feature < 0) - 1

    threshold = forest.threshold[inner]
    column = np.where(alone, 0, forest.feature[inner])
    odd = _zero_is_odd(forest)[inner]
    # |x| ≤ zero_bound counts as zero: move thresholds within the band to the edge zero is sent to.
    below_band = np.nextafter(-zero_bound, -math.inf)
    in_band = ~odd & (np.abs(threshold) <= zero_bound)
    threshold = np.where(in_band, np.where(threshold >= 0.0, zero_bound, below_band), threshold)
    column[odd] = [column_of_copy[int(number)] for number in column[odd]]

    def branch(child: Any) -> tuple[list[int], list[int]]:
        target = np.where(alone, inner, child[inner])
        is_leaf = forest.feature[target] < 0
        return np.where(is_leaf, leaf_place[target], place[target]).tolist(), is_leaf.astype(int).tolist()

    true_nodes, true_leaves = branch(forest.left)
    false_nodes, false_leaves = branch(forest.right)
    weights = forest.value[forest.feature < 0]
    return graph.add(
        "TreeEnsemble",
        source,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,  # sum
        post_transform=0,  # none
        tree_roots=place[forest.start[:-1]].tolist(),
        nodes_modes=_tensor(np.zeros(len(inner)), np.uint8),  # true branch where x <= split
        nodes_featureids=column.tolist(),
        nodes_splits=_tensor(threshold),
        nodes_missing_value_tracks_true=forest.nan_left[inner].astype(int).tolist(),
        nodes_truenodeids=true_nodes,
        nodes_trueleafs=true_leaves,
        nodes_falsenodeids=false_nodes,
        nodes_falseleafs=false_leaves,
        leaf_targetids=[0] * len(weights),
        leaf_weights=_tensor(weights),
    )


def _scores(graph: _Graph, heads: Sequence[HeadSpec], margins: str) -> str:
    """[n, LANES] intercept + slope * (offset + trees)."""
    spare = LANES - len(heads)
    if any(head.offset is not None for head in heads):
        columns = graph.constant([head.offset or 0 for head in heads] + [0] * spare, np.int64)
        has_offset = graph.constant([head.offset is not None for head in heads] + [False] * spare, np.bool_)
        # A selection, not a product with 0: another head's NaN prior must not reach this one.
        priors = graph.add("Gather", "features", columns, axis=1)
        offsets = graph.add("Where", has_offset, priors, graph.constant(0.0))
        margins = graph.add("Add", offsets, margins)
    slopes = graph.constant([head.slope for head in heads] + [0.0] * spare)
    intercepts = graph.constant([head.intercept for head in heads] + [0.0] * spare)
    return graph.add("Add", intercepts, graph.add("Mul", slopes, margins))


def _outputs(graph: _Graph, scores: str, severity_link: str) -> None:
    one = graph.constant(1.0)
    # Not the operator Sigmoid: it takes 1 - p below zero, which turns 1e-17 into 0.
    odds_against = graph.add("Exp", graph.add("Neg", scores))
    likely = graph.add("Div", one, graph.add("Add", one, odds_against))
    first, hazard_8h, hazard_24h, negative, severity = graph.columns(likely, len(HEADS))

    def then(before: str, hazard: str) -> str:
        # p + (1 - p) * h never falls below p nor exceeds 1, rounding included; 1 - (1 - p)(1 - h) does.
        return graph.add("Add", before, graph.add("Mul", graph.add("Sub", one, before), hazard))

    second = then(first, hazard_8h)
    third = then(second, hazard_24h)
    below_zero = graph.add("Mul", third, negative)
    if severity_link == "identity":
        # Where, not Clip: Clip may turn NaN into a bound.
        zero = graph.constant(0.0)
        raw = graph.add("Gather", scores, graph.constant([HEADS.index("severity")], np.int64), axis=1)
        floored = graph.add("Where", graph.add("Less", raw, zero), zero, raw)
        severity = graph.add("Where", graph.add("Greater", floored, one), one, floored)
    graph.add("Concat", first, second, third, below_zero, severity, axis=1, name="probabilities")
    bounds = [graph.constant([bound], np.int64) for bound in (0, len(HEADS), 1)]
    graph.add("Slice", scores, *bounds, name="scores")


NO_ZERO_BAND = -1.0


def _warning(graph: _Graph, warning: WarningSpec | None) -> None:
    if warning is None:
        first = graph.add("Gather", "features", graph.constant([0], np.int64), axis=1)
        graph.add("Add", first, graph.constant(math.nan), name="warning")
        return
    columns = graph.add("Gather", "features", graph.constant(warning.features, np.int64), axis=1)
    missing = graph.add("IsNaN", columns)
    filled = graph.add("Where", missing, graph.constant(warning.medians), columns)
    floored = graph.add("Max", filled, graph.constant(warning.lowest))
    cut = graph.add("Min", floored, graph.constant(warning.highest))
    single = graph.add("Cast", cut, to=TensorProto.FLOAT)
    matrix = graph.add("Cast", single, to=TensorProto.DOUBLE)
    depths = _ensemble(graph, matrix, warning.forest, {}, NO_ZERO_BAND)
    trees = graph.constant(float(len(warning.forest.start) - 1))
    early = graph.add("Sub", graph.constant(warning.threshold), graph.add("Div", depths, trees))
    flags = graph.add("Cast", missing, to=TensorProto.INT32)
    axis = graph.constant([1], np.int64)
    nothing = graph.add("Cast", graph.add("ReduceMin", flags, axis), to=TensorProto.BOOL)
    graph.add("Where", nothing, graph.constant(math.nan), early, name="warning")
