"""TreeSHAP rows a second: the compiled one against shap, same forest, same rows, one thread each.

shap has two ways to explain a LightGBM model: it hands the rows to LightGBM (`pred_contrib`), which is what
it does unasked, and an algorithm of its own in C. Both are measured; the claim is against the faster. Every
round times all three one after the other, in processor time, and the values are compared in the same run.

    python benchmarks/treeshap_speed.py [--trees N] [--leaves N] [--rows N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import shap

from models.forest import forest_from_dump
from models.treeshap import TreeShap

Floats = npt.NDArray[np.float64]
COLUMNS = 60
ROUNDS = 3


def grown(trees: int, leaves: int, seed: int) -> tuple[lgb.Booster, Floats]:
    """A classifier of rows with gaps, and rows that it has not seen."""
    chance = np.random.default_rng(seed)
    matrix = chance.normal(size=(60_000, COLUMNS))
    matrix[chance.random(matrix.shape) < 0.02] = np.nan
    plain = np.nan_to_num(matrix)
    signal = plain[:, 0] * plain[:, 1] + np.sin(2.0 * plain[:, 2]) + 0.3 * plain @ chance.normal(size=COLUMNS)
    label = (signal + chance.normal(size=len(signal)) > 1.0).astype(float)
    settings = {
        "objective": "binary", "num_leaves": leaves, "learning_rate": 0.05, "min_data_in_leaf": 20,
        "feature_fraction": 0.7, "num_threads": 1, "verbose": -1, "seed": seed, "deterministic": True,
    }  # fmt: skip
    half = len(matrix) // 2
    return lgb.train(settings, lgb.Dataset(matrix[:half], label[:half]), trees), matrix[half:]


def timed(work: Callable[[Floats], Floats], rows: Floats) -> tuple[float, Floats]:
    """Processor seconds of all threads, and what came out."""
    start = time.process_time()
    found = work(rows)
    return time.process_time() - start, found


def main() -> None:
    """Print rows a second and the largest difference."""
    parser = argparse.ArgumentParser(description="TreeSHAP: compiled against shap.")
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--leaves", type=int, default=63)
    parser.add_argument("--rows", type=int, default=400, help="rows explained in each round")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    booster, rows = grown(options.trees, options.leaves, options.seed)
    ours = TreeShap(forest_from_dump(booster.dump_model(), range(COLUMNS)), COLUMNS)
    unasked = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    own = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    own.model.model_type = "internal"  # so that it does not hand over to LightGBM
    ways: dict[str, Callable[[Floats], Floats]] = {
        "compiled": ours.contributions,
        "shap, by LightGBM's pred_contrib": lambda part: _of_risk(unasked.shap_values(part)),
        "shap, by its own C": lambda part: _of_risk(own.shap_values(part, check_additivity=False)),
    }
    ours.contributions(rows[:1])  # compiled by now
    spent: dict[str, list[float]] = {name: [] for name in ways}
    largest = 0.0
    for number in range(ROUNDS):
        part = rows[number * options.rows : (number + 1) * options.rows]
        found = {}
        for name, work in ways.items():
            seconds, found[name] = timed(work, part)
            spent[name].append(seconds)
        reference = found["shap, by LightGBM's pred_contrib"]
        for name in ("compiled", "shap, by its own C"):
            difference = float(np.abs(found[name] - reference).max())
            if name == "compiled":
                largest = max(largest, difference)
    print(
        f"{options.trees} trees x {options.leaves} leaves, {COLUMNS} columns, one thread, "
        f"{ROUNDS} rounds of {options.rows} rows, processor time"
    )
    print(f"{'':<36} {'rows/s':>10} {'compiled is':>14}")
    for name, seconds in spent.items():
        ratios = np.array(seconds) / np.array(spent["compiled"])
        print(f"{name:<36} {options.rows / np.median(seconds):>10,.0f} {np.median(ratios):>12.1f} x")
    print(f"largest difference from shap: {largest:.1e}")
    assert largest < 1e-9, "the two do not agree"


def _of_risk(values: Floats | list[Floats]) -> Floats:
    """Contributions to the margin of the positive class, whatever form this version of shap gives them in."""
    return np.asarray(values[-1] if isinstance(values, list) else values)


if __name__ == "__main__":
    main()
