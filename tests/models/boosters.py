"""Boosters of every sort that can be exported, and rows that sit where exports go wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

ZERO = float(np.float32(1e-35))
SMALL = (0.0, -0.0, 5e-324, -5e-324, 1e-36, -1e-36, 1e-35, -1e-35, ZERO, -ZERO)
BESIDE_SMALL = tuple(float(np.nextafter(edge, way)) for edge in (ZERO, -ZERO) for way in (-1.0, 1.0))
LARGE = (1e299, -1e299, 1e300, -1e300, 1e308, -1e308, float(np.finfo(float).max), float(np.finfo(float).min))
HARD = (*SMALL, *BESIDE_SMALL, *LARGE, np.nan, np.inf, -np.inf)


def training_rows(kind: str, columns: int, rows: int, seed: int) -> NDArray[np.float64]:
    """Normal columns; by kind with gaps, zeros or infinities, as real features have them."""
    chance = np.random.default_rng(seed)
    matrix = chance.normal(size=(rows, columns))
    matrix[:, 0] = np.exp(3.0 * matrix[:, 0])
    if kind != "complete":
        matrix[chance.random(matrix.shape) < 0.1] = np.nan
    if kind in ("zero_as_missing", "ignore_missing"):
        matrix[chance.random(matrix.shape) < 0.3] = 0.0
    if kind == "infinite":
        matrix[chance.random(matrix.shape) < 0.05] = np.inf
        matrix[chance.random(matrix.shape) < 0.05] = -np.inf
    return matrix


KINDS: dict[str, dict[str, Any]] = {
    "complete": {},
    "gaps": {},
    "infinite": {},
    "zero_as_missing": {"zero_as_missing": True},
    "ignore_missing": {"use_missing": False},
}


def booster(
    kind: str, columns: int = 6, trees: int = 40, leaves: int = 15, rows: int = 3_000, seed: int = 0
) -> lightgbm.Booster:
    matrix = training_rows(kind, columns, rows, seed)
    chance = np.random.default_rng(seed + 1)
    plain = np.nan_to_num(matrix, posinf=3.0, neginf=-3.0)
    signal = plain[:, 1] * plain[:, 2] - plain[:, 3 % columns] + 0.3 * chance.normal(size=rows) - 1.0
    # Missing and zero have to matter for the trees to ask for them.
    signal += np.where(np.isnan(matrix[:, 2]), 1.5, 0.0) + np.where(matrix[:, 1] == 0.0, -1.5, 0.0)
    parameters = {
        "objective": "binary",
        "num_leaves": leaves,
        "learning_rate": 0.1,
        "min_data_in_leaf": 5,
        "num_threads": 1,
        "verbose": -1,
        "seed": seed,
        **KINDS[kind],
    }
    data = lightgbm.Dataset(matrix, (signal > 0.0).astype(float), params=parameters)
    return lightgbm.train(parameters, data, trees)


def table_of_decisions() -> lightgbm.Booster:
    """One column, one split a tree: every decision type with every threshold that could matter."""
    matrix = np.linspace(-1.0, 1.0, 200)[:, None]
    parameters = {"objective": "regression", "num_leaves": 2, "verbose": -1, "num_threads": 1}
    text = lightgbm.train(parameters, lightgbm.Dataset(matrix, matrix[:, 0]), 1).model_to_string()
    text = re.sub(r"tree_sizes=.*\n", "", text)  # sizes of the blocks, which change here
    head, tree, tail = re.split(r"(Tree=0\n.*?\n\n\n)", text, maxsplit=1, flags=re.DOTALL)
    chance = np.random.default_rng(0)
    blocks: list[str] = []
    for threshold in (*SMALL, *BESIDE_SMALL, 1.0, -1.0, 1e299, -1e299, LARGE[-1], np.inf):
        for decision_type in (0, 2, 4, 6, 8, 10):  # missing None, Zero, NaN; default right, left
            block = tree.replace("Tree=0", f"Tree={len(blocks)}")
            block = re.sub(r"\nthreshold=.*", f"\nthreshold={threshold!r}", block)
            block = re.sub(r"\ndecision_type=.*", f"\ndecision_type={decision_type}", block)
            left, right = chance.normal(size=2)
            block = re.sub(r"\nleaf_value=.*", f"\nleaf_value={left!r} {right!r}", block)
            blocks.append(block.replace("np.float64(", "").replace(")", ""))
    return lightgbm.Booster(model_str=head + "".join(blocks) + tail)


def thresholds(node: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    if "threshold" in node:
        yield node["split_feature"], node["threshold"]
        yield from thresholds(node["left_child"])
        yield from thresholds(node["right_child"])


def hard_rows(dump: Mapping[str, Any], columns: int, rows: int, seed: int) -> NDArray[np.float64]:
    """Rows in the booster's columns, a fifth with cells on and beside thresholds, tiny, infinite or NaN."""
    chance = np.random.default_rng(seed)
    matrix = chance.normal(size=(rows, columns))
    matrix[:, 0] = np.exp(3.0 * matrix[:, 0])
    split_at: list[list[float]] = [list(HARD) for _ in range(columns)]
    for tree in dump["tree_info"]:
        for column, threshold in thresholds(tree["tree_structure"]):
            split_at[column] += [threshold, np.nextafter(threshold, -np.inf), np.nextafter(threshold, np.inf)]
    hard = np.flatnonzero(chance.random(rows) < 0.2)
    for column in range(columns):
        cells = hard[chance.random(len(hard)) < 0.7]
        matrix[cells, column] = chance.choice(split_at[column], len(cells))
    return matrix
