"""Walk the trees of a dumped booster one node at a time, by the scorer's rules as they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ZERO = float(np.float32(1e-35))


def margin(dump: Mapping[str, Any], row: Sequence[float]) -> float:
    """Sum of the leaves that `row` (in the booster's own columns) reaches, tree after tree."""
    row = [0.0 if abs(x) <= ZERO else x for x in row]  # what is this small is dropped on the way in
    total = 0.0
    for tree in dump["tree_info"]:
        node = tree["tree_structure"]
        while "leaf_value" not in node:
            node = node["left_child"] if goes_left(node, row[node["split_feature"]]) else node["right_child"]
        total += node["leaf_value"]
    return total


def goes_left(node: Mapping[str, Any], x: float) -> bool:
    assert node["decision_type"] == "<="
    if math.isnan(x) and node["missing_type"] != "NaN":
        x = 0.0
    if node["missing_type"] == "Zero" and x == 0.0:
        return bool(node["default_left"])
    if node["missing_type"] == "NaN" and math.isnan(x):
        return bool(node["default_left"])
    threshold = node["threshold"]
    if threshold == 1e300:  # clipped by the dump: the upper bound of everything
        threshold = math.inf
    if threshold == -1e300:  # likewise: the upper bound of -inf alone
        threshold = math.nextafter(-math.inf, 0.0)
    return bool(x <= threshold)
