"""Boosted trees as flat arrays: the one form from which the graph is built and reasons are computed.

The source is LightGBM's `Booster.dump_model()`. What the dump does not say, but its scorer does:

- An input with |x| ≤ 1e-35 (the float32 nearest to it) counts as zero before any comparison.
- NaN counts as zero where the node's missing type is None or Zero. Where it is Zero, zero (and so
  NaN) goes the node's default way; where it is NaN, NaN does.
- The dump clips thresholds to ±1e300. The upper bound of everything is +inf, that of -inf alone the
  lowest double, so these are what 1e300 and -1e300 stand for. (They could also stand for a bound
  between finite training values beyond 1e300, which no feature has.)

Every node here carries the outcome for zero and for NaN, so no reader has to know these rules.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exchange.errors import WorkError

ZERO_BOUND = float(np.float32(1e-35))
"""Largest |x| that counts as zero: LightGBM's constant is a float32, a hair above 1e-35."""

CLIPPED_THRESHOLD = 1e300
LOWEST = -sys.float_info.max


class Forest(NamedTuple):
    """Trees of one head, nodes of a tree side by side with every parent before its children.

    An inner node sends a row left when x ≤ threshold, by `zero_left` when |x| ≤ ZERO_BOUND, by
    `nan_left` when x is NaN. In a leaf `feature`, `left` and `right` are -1.
    """

    start: NDArray[np.int32]
    """[trees + 1] first node of each tree, then the number of nodes."""
    feature: NDArray[np.int32]
    """[nodes] column of the feature catalogue."""
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    """[nodes] index into all nodes."""
    zero_left: NDArray[np.bool_]
    nan_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    """[nodes] margin of a leaf; in an inner node the mean of its leaves, weighted by cover."""
    cover: NDArray[np.float64]
    """[nodes] training rows that reached the node."""


DTYPES: dict[str, np.dtype[Any]] = {
    "start": np.dtype(np.int32),
    "feature": np.dtype(np.int32),
    "threshold": np.dtype(np.float64),
    "left": np.dtype(np.int32),
    "right": np.dtype(np.int32),
    "zero_left": np.dtype(np.bool_),
    "nan_left": np.dtype(np.bool_),
    "value": np.dtype(np.float64),
    "cover": np.dtype(np.float64),
}


def forest_from_dump(dump: Mapping[str, Any], features: Sequence[int]) -> Forest:
    """Flatten `Booster.dump_model()`; `features[i]` is the catalogue column of the booster's column i.

    Raises WorkError for what has no exact counterpart: several classes, averaged trees (random
    forests), linear leaves, categorical splits, and leaves that no training row reached.
    """
    if dump.get("num_class", 1) != 1 or dump.get("num_tree_per_iteration", 1) != 1:
        raise WorkError("the booster predicts several classes: only one margin can be exported")
    if dump.get("average_output"):
        raise WorkError("the booster averages its trees (boosting=rf): only sums can be exported")
    if dump["max_feature_idx"] + 1 != len(features):
        raise WorkError(
            f"the booster was trained on {dump['max_feature_idx'] + 1} columns, {len(features)} were named"
        )
    nodes: list[dict[str, Any]] = []
    start = [0]
    for tree in dump["tree_info"]:
        _append_tree(nodes, tree["tree_structure"], features)
        start.append(len(nodes))
    return _from_nodes(start, nodes) if nodes else empty_forest()


def _append_tree(nodes: list[dict[str, Any]], root: Mapping[str, Any], features: Sequence[int]) -> None:
    """Preorder, left before right: a left child stands right behind its parent."""
    if "split_feature" not in root:
        # The count of a lone leaf may be absent, and is no share of anything.
        nodes.append(_leaf({**root, "leaf_count": 1}))
        return
    pending: list[tuple[Mapping[str, Any], int | None]] = [(root, None)]
    while pending:
        node, right_of = pending.pop()
        here = len(nodes)
        if right_of is not None:
            nodes[right_of]["right"] = here
        if "split_feature" in node:
            nodes.append({**_split(node, features), "left": here + 1})
            pending += [(node["right_child"], here), (node["left_child"], None)]
        else:
            nodes.append(_leaf(node))


def _split(node: Mapping[str, Any], features: Sequence[int]) -> dict[str, Any]:
    if node["decision_type"] != "<=":
        raise WorkError(
            f"a tree splits column {node['split_feature']} by {node['decision_type']!r}:"
            " categorical splits cannot be exported"
        )
    threshold = float(node["threshold"])
    if threshold >= CLIPPED_THRESHOLD:
        threshold = math.inf
    if threshold <= -CLIPPED_THRESHOLD:
        threshold = LOWEST
    default_left = bool(node["default_left"])
    as_number = threshold >= 0.0
    ways = {  # of zero, of NaN
        "None": (as_number, as_number),
        "NaN": (as_number, default_left),
        "Zero": (default_left, default_left),
    }
    if node["missing_type"] not in ways:
        raise WorkError(f"a tree has missing type {node['missing_type']!r}: None, NaN and Zero are known")
    zero_left, nan_left = ways[node["missing_type"]]
    return {
        "feature": features[node["split_feature"]],
        "threshold": threshold,
        "zero_left": zero_left,
        "nan_left": nan_left,
    }


def _leaf(node: Mapping[str, Any]) -> dict[str, Any]:
    if "leaf_coeff" in node or "leaf_const" in node:
        raise WorkError("a tree has linear leaves (linear_tree): only constant leaves can be exported")
    if node["leaf_count"] <= 0:
        raise WorkError("a leaf was reached by no training row: its share in an explanation is undefined")
    return {
        "feature": -1,
        "threshold": 0.0,
        "left": -1,
        "right": -1,
        "zero_left": False,
        "nan_left": False,
        "value": float(node["leaf_value"]),
        "cover": float(node["leaf_count"]),
    }


def _from_nodes(start: Sequence[int], nodes: Sequence[dict[str, Any]]) -> Forest:
    for node in reversed(nodes):  # children stand behind their parent
        if node["feature"] >= 0:
            left, right = nodes[node["left"]], nodes[node["right"]]
            node["cover"] = left["cover"] + right["cover"]
            node["value"] = (left["cover"] * left["value"] + right["cover"] * right["value"]) / node["cover"]
    columns = {name: np.array([node[name] for node in nodes], DTYPES[name]) for name in Forest._fields[1:]}
    return Forest(np.array(start, np.int32), **columns)


def empty_forest() -> Forest:
    """No trees, written as one leaf worth 0 so that readers need no case for it."""
    return _from_nodes([0, 1], [_leaf({"leaf_value": 0.0, "leaf_count": 1})])


def fault_of(forest: Forest, feature_count: int | None = None) -> str | None:
    """What makes these arrays unsafe to walk over rows of `feature_count` columns (None: any), or None.

    Compiled code does not check its indices: a child outside its tree would read foreign memory,
    a child before its parent would never end.
    """
    for name in Forest._fields:
        array: NDArray[np.generic] = getattr(forest, name)  # the columns' types have no common one to mypy
        if array.ndim != 1 or array.dtype != DTYPES[name]:
            return f"{name} is {array.dtype}[{array.ndim}-d], expected {DTYPES[name]}[1-d]"
    count = len(forest.feature)
    if any(len(array) != count for array in forest[1:]):
        return "its arrays have unequal lengths"
    start = forest.start
    if len(start) == 0 or start[0] != 0 or start[-1] != count or np.any(np.diff(start) < 1):
        return "its trees do not cover its nodes"
    inner = np.flatnonzero(forest.feature >= 0)
    end = np.repeat(start[1:], np.diff(start))[inner]
    children = forest.left[inner], forest.right[inner]
    if any(np.any(child <= inner) or np.any(child >= end) for child in children):
        return "a child lies outside its tree"
    parents = np.bincount(np.concatenate(children), minlength=count) if len(inner) else np.zeros(count, int)
    parents[start[:-1]] += 1
    if np.any(parents != 1):
        return "a node has not exactly one parent"
    if feature_count is not None and np.any(forest.feature >= feature_count):
        return f"a node reads column {forest.feature.max()} of {feature_count}"
    if not (np.all(np.isfinite(forest.value)) and np.all(forest.cover > 0)):
        return "a value is not finite or a cover not positive"
    return None
