from __future__ import annotations

from itertools import combinations
from math import factorial

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray

from exchange.errors import InputError
from models.forest import Forest, empty_forest, forest_from_dump
from models.treeshap import TreeShap
from tests.models.boosters import HARD, KINDS, booster, hard_rows, table_of_decisions, thresholds

Matrix = NDArray[np.float64]


def contributions(trees: lightgbm.Booster, matrix: Matrix) -> Matrix:
    """Columns of the booster, then the expected value."""
    return np.asarray(trees.predict(matrix, pred_contrib=True, num_threads=1))


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_are_those_of_lightgbm(kind: str) -> None:
    trees = booster(kind, seed=3)
    dump = trees.dump_model()
    columns = (7, 0, 3, 9, 4, 2)
    explain = TreeShap(forest_from_dump(dump, columns), 10)
    matrix = np.random.default_rng(0).normal(size=(1_000, 10))
    matrix[:, columns] = hard_rows(dump, 6, len(matrix), seed=4)
    expected = contributions(trees, matrix[:, columns])
    found = explain.contributions(matrix)
    np.testing.assert_allclose(found[:, columns], expected[:, :-1], rtol=0.0, atol=1e-12)
    assert explain.expected == pytest.approx(expected[0, -1], abs=1e-12)
    assert not np.any(found[:, [1, 5, 6, 8]])  # columns that no tree asks


@pytest.mark.parametrize(("columns", "leaves"), [(1, 63), (2, 127), (30, 127)])
def test_deep_trees_few_and_many_features(columns: int, leaves: int) -> None:
    chance = np.random.default_rng(columns)
    matrix = chance.normal(size=(4_000, columns))
    label = np.sin(3.0 * matrix).sum(axis=1) + 1e3 * (matrix[:, 0] > 3.0)  # long one-sided branches
    settings = {
        "objective": "regression",
        "num_leaves": leaves,
        "min_data_in_leaf": 1,
        "verbose": -1,
        "num_threads": 1,
    }
    trees = lightgbm.train(settings, lightgbm.Dataset(matrix, label), 10)
    found = TreeShap(forest_from_dump(trees.dump_model(), range(columns)), columns)
    expected = contributions(trees, matrix[:300])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        found.contributions(matrix[:300]), expected[:, :-1], rtol=0.0, atol=1e-13 * max(1.0, scale)
    )


def test_every_decision_with_every_threshold_and_input_that_could_matter() -> None:
    trees = table_of_decisions()
    matrix = np.array([*HARD, 1.0, -1.0])[:, None]
    found = TreeShap(forest_from_dump(trees.dump_model(), (0,)), 1)
    np.testing.assert_allclose(
        found.contributions(matrix), contributions(trees, matrix)[:, :-1], rtol=0.0, atol=1e-12
    )


def expectation(forest: Forest, node: int, row: Matrix, known: frozenset[int]) -> float:
    """Mean margin below `node` when only the features in `known` are looked at."""
    if forest.feature[node] < 0:
        return float(forest.value[node])
    left, right = int(forest.left[node]), int(forest.right[node])
    if forest.feature[node] in known:
        goes_left = row[forest.feature[node]] <= forest.threshold[node]
        return expectation(forest, left if goes_left else right, row, known)
    shares = forest.cover[[left, right]] / forest.cover[node]
    return float(
        shares[0] * expectation(forest, left, row, known) + shares[1] * expectation(forest, right, row, known)
    )


def test_contributions_are_shapley_values_by_definition() -> None:
    columns = 5
    trees = booster("complete", columns=columns, trees=3, leaves=12, seed=5)
    forest = forest_from_dump(trees.dump_model(), range(columns))
    assert (
        len(
            {
                column
                for tree in trees.dump_model()["tree_info"]
                for column, _ in thresholds(tree["tree_structure"])
            }
        )
        > 2
    )
    matrix = np.random.default_rng(6).normal(size=(8, columns))
    found = TreeShap(forest, columns).contributions(matrix)
    for row, answer in zip(matrix, found, strict=True):
        for feature in range(columns):
            others = [other for other in range(columns) if other != feature]
            total = 0.0
            for size in range(columns):
                weight = factorial(size) * factorial(columns - 1 - size) / factorial(columns)
                for coalition in combinations(others, size):
                    with_it = frozenset(coalition) | {feature}
                    for root in forest.start[:-1]:
                        total += weight * expectation(forest, int(root), row, with_it)
                        total -= weight * expectation(forest, int(root), row, frozenset(coalition))
            assert answer[feature] == pytest.approx(total, abs=1e-13)


def test_contributions_and_the_expected_value_add_up_to_the_margin() -> None:
    trees = booster("gaps", seed=8)
    dump = trees.dump_model()
    matrix = hard_rows(dump, 6, 3_000, seed=9)
    explain = TreeShap(forest_from_dump(dump, range(6)), 6)
    margin = np.asarray(trees.predict(matrix, raw_score=True, num_threads=1))
    np.testing.assert_allclose(
        explain.contributions(matrix).sum(axis=1) + explain.expected, margin, rtol=0.0, atol=1e-12
    )


def test_a_row_is_explained_the_same_in_any_company() -> None:
    trees = booster("gaps", seed=8)
    explain = TreeShap(forest_from_dump(trees.dump_model(), range(6)), 6)
    matrix = hard_rows(trees.dump_model(), 6, 64, seed=1)
    whole = explain.contributions(matrix)
    assert np.array_equal(whole, np.concatenate([explain.contributions(row[None, :]) for row in matrix]))
    assert np.array_equal(whole, explain.contributions(np.asfortranarray(matrix)))
    assert explain.contributions(matrix[:0]).shape == (0, 6)


def test_no_trees_explain_nothing() -> None:
    explain = TreeShap(empty_forest(), 3)
    assert explain.expected == 0.0
    assert np.array_equal(explain.contributions(np.full((2, 3), np.nan)), np.zeros((2, 3)))


def test_trees_and_rows_of_another_catalogue_are_refused() -> None:
    forest = forest_from_dump(booster("gaps", trees=3).dump_model(), range(6))
    with pytest.raises(InputError, match="a node reads column"):
        TreeShap(forest, 2)
    explain = TreeShap(forest, 6)
    for matrix in (np.zeros((1, 5)), np.zeros(6), np.zeros((1, 6), np.float32)):
        with pytest.raises(InputError, match="explanations take float64"):
            explain.contributions(matrix)  # type: ignore[arg-type]
