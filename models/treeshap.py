"""Why a margin is what it is: exact path-dependent TreeSHAP over a head's trees, compiled.

The Shapley value of feature i for one leaf of value v, on whose path each feature j has the share
of training rows z_j and o_j = 1 if the row itself goes that way, else 0, is

    phi_i = v (o_i - z_i) ∫₀¹ Π_{j≠i} (z_j (1 - t) + o_j t) dt

because the integral of t^k (1 - t)^(d-1-k) is the weight of a coalition of k among d - 1 players.
The integrand is a polynomial of degree d - 1 in t, so Gauss-Legendre quadrature on ⌈d/2⌉ points is
exact; all its terms are positive, so nothing cancels. Sums over the leaves below a branch are made
once, on the way up, as in Linear TreeSHAP (Yu et al. 2022): the cost is nodes x points, against
leaves x depth² of the original algorithm (Lundberg et al. 2018, arXiv:1802.03888).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exchange.compiled import compiled
from exchange.errors import InputError
from models.forest import ZERO_BOUND, Forest, fault_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]


LANES = 8
"""Rows that are explained side by side."""


class TreeShap:
    """Contributions of each feature to the margin of one head (before offset, intercept and slope).

    Safe to call from several threads at once. Raises InputError where the trees do not fit
    `feature_count` columns.
    """

    def __init__(self, forest: Forest, feature_count: int) -> None:
        fault = fault_of(forest, feature_count)
        if fault is not None:
            raise InputError(f"trees cannot be explained: {fault}")
        self.feature_count = feature_count
        self._forest = forest
        self.expected = float(np.sum(forest.value[forest.start[:-1]]))
        """Mean margin over the training rows: what the contributions start from."""
        self._parent, self._previous, self._share, asked = _branches(
            forest.start, forest.feature, forest.left, forest.right, forest.cover
        )
        self._degree = np.maximum(1, (asked + 1) // 2)
        self._points, self._weights = _rules(int(np.max(self._degree)))

    def contributions(self, matrix: Floats) -> Floats:
        """float64[n, feature_count], rows in catalogue order: a row sums to its margin less `expected`.

        NaN and infinite inputs are explained like any other. Raises InputError for another shape.
        """
        if matrix.dtype != np.float64 or matrix.ndim != 2 or matrix.shape[1] != self.feature_count:
            raise InputError(
                f"explanations take float64[rows, {self.feature_count}],"
                f" given {matrix.dtype}{list(matrix.shape)}"
            )
        out = np.empty(matrix.shape)
        forest = self._forest
        _explain(
            np.ascontiguousarray(matrix),
            forest.start,
            forest.feature,
            forest.threshold,
            forest.left,
            forest.zero_left,
            forest.nan_left,
            forest.value,
            self._parent,
            self._previous,
            self._share,
            self._degree,
            self._points,
            self._weights,
            out,
        )
        return out


def _rules(largest: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre points and weights on [0, 1]: row m - 1 holds the rule of m points."""
    points, weights = np.zeros((largest, largest)), np.zeros((largest, largest))
    for size in range(1, largest + 1):
        x, w = np.polynomial.legendre.leggauss(size)
        points[size - 1, :size], weights[size - 1, :size] = (x + 1.0) / 2.0, w / 2.0
    return points, weights


@compiled
def _branches(
    start: Ints, feature: Ints, left: Ints, right: Ints, cover: Floats
) -> tuple[Ints, Ints, Floats, Ints]:
    """What is the same for every row, by the branch that ends in each node.

    parent: the node above, -1 at a root. previous: the nearest branch above that asked the same
    feature, -1 if none. share: training rows that pass this branch and those before it on the same
    feature, as a product of fractions. And for each tree the most features that a path asks.
    """
    count = len(feature)
    parent = np.full(count, -1, np.int32)
    previous = np.full(count, -1, np.int32)
    share = np.ones(count)
    asked = np.zeros(count, np.int32)
    most = np.zeros(len(start) - 1, np.int32)
    for tree in range(len(start) - 1):
        for node in range(start[tree], start[tree + 1]):
            if feature[node] >= 0:
                parent[left[node]] = node
                parent[right[node]] = node
            above = parent[node]
            if above < 0:
                continue
            share[node] = cover[node] / cover[above]
            asked[node] = asked[above] + 1
            branch = above
            while parent[branch] >= 0:
                if feature[parent[branch]] == feature[above]:
                    previous[node] = branch
                    share[node] *= share[branch]
                    asked[node] -= 1
                    break
                branch = parent[branch]
            most[tree] = max(most[tree], asked[node])
    return parent, previous, share, most


@compiled
def _explain(
    matrix: Floats,
    start: Ints,
    feature: Ints,
    threshold: Floats,
    left: Ints,
    zero_left: Flags,
    nan_left: Flags,
    value: Floats,
    parent: Ints,
    previous: Ints,
    share: Floats,
    degree: Ints,
    rule_points: Floats,
    rule_weights: Floats,
    out: Floats,
) -> None:
    """Write the contributions of every row to `out`; scratch is made once a call.

    Rows go through the trees side by side, a few at a time, so that what concerns a node is read once for
    all of them and the innermost loops are of one length, which the compiler turns into vectors. No row's
    numbers meet another's: a row has the same contributions in any company. A path's product starts with
    the weight of its point, so trees of different depth can use different rules.
    """
    most = rule_points.shape[1]
    largest = np.max(start[1:] - start[:-1])
    columns = matrix.shape[1]
    x = np.empty((columns, LANES))
    # By branch: 1 where the row takes it and those before it on the same feature.
    followed = np.empty((largest, LANES))
    # Its factor, relative to that of the branch before it on the same feature.
    factor = np.empty((largest, most, LANES))
    # The product of the factors from the root down to it, its own included.
    above_product = np.empty((largest, most, LANES))
    # Over the leaves below it: the sum of value times the factors in between.
    below_sum = np.empty((largest, most, LANES))
    gain = np.empty(LANES)
    parts = np.empty((columns, LANES))
    for begin in range(0, matrix.shape[0], LANES):
        rows = min(LANES, matrix.shape[0] - begin)
        for column in range(columns):
            for lane in range(LANES):  # the last row again where there are too few
                x[column, lane] = matrix[begin + min(lane, rows - 1), column]
        parts[:, :] = 0.0
        for tree in range(len(start) - 1):
            first, end = start[tree], start[tree + 1]
            count = degree[tree]
            points = rule_points[count - 1]
            for q in range(count):
                for lane in range(LANES):
                    above_product[0, q, lane] = rule_weights[count - 1, q]
                    below_sum[0, q, lane] = 0.0
            if feature[first] < 0:
                continue
            for node in range(first + 1, end):
                here, up = node - first, parent[node] - first
                asking = parent[node]
                bound = threshold[asking]
                is_left = left[asking] == node
                zero_here = 1.0 if zero_left[asking] == is_left else 0.0
                nan_here = 1.0 if nan_left[asking] == is_left else 0.0
                below_here = 1.0 if is_left else 0.0
                asked = feature[asking]
                for lane in range(LANES):
                    value_here = x[asked, lane]
                    one = below_here if value_here <= bound else 1.0 - below_here
                    one = zero_here if abs(value_here) <= ZERO_BOUND else one
                    followed[here, lane] = nan_here if np.isnan(value_here) else one
                earlier = previous[node]
                if earlier < 0:
                    for q in range(count):
                        low = share[node] * (1.0 - points[q])
                        for lane in range(LANES):
                            factor[here, q, lane] = low + followed[here, lane] * points[q]
                else:
                    for lane in range(LANES):
                        followed[here, lane] *= followed[earlier - first, lane]
                    for q in range(count):
                        low = share[node] * (1.0 - points[q])
                        low_before = share[earlier] * (1.0 - points[q])
                        for lane in range(LANES):
                            before = low_before + followed[earlier - first, lane] * points[q]
                            factor[here, q, lane] = (low + followed[here, lane] * points[q]) / before
                if feature[node] >= 0:
                    for q in range(count):
                        for lane in range(LANES):
                            above_product[here, q, lane] = above_product[up, q, lane] * factor[here, q, lane]
                            below_sum[here, q, lane] = 0.0
            for node in range(end - 1, first, -1):
                here, up = node - first, parent[node] - first
                asked = feature[parent[node]]
                if feature[node] < 0:
                    for q in range(count):
                        for lane in range(LANES):
                            below_sum[here, q, lane] = value[node]
                for lane in range(LANES):
                    gain[lane] = followed[here, lane] - share[node]
                earlier = previous[node]
                if earlier < 0:
                    for q in range(count):
                        for lane in range(LANES):
                            parts[asked, lane] += (
                                gain[lane] * above_product[up, q, lane] * below_sum[here, q, lane]
                            )
                else:
                    # The earlier branch counted the leaves below this one with its own gain: replace it.
                    before = share[earlier]
                    for q in range(count):
                        low_before = before * (1.0 - points[q])
                        for lane in range(LANES):
                            one_before = followed[earlier - first, lane]
                            others = above_product[up, q, lane] / (low_before + one_before * points[q])
                            change = gain[lane] - (one_before - before) * factor[here, q, lane]
                            parts[asked, lane] += change * others * below_sum[here, q, lane]
                for q in range(count):
                    for lane in range(LANES):
                        below_sum[up, q, lane] += factor[here, q, lane] * below_sum[here, q, lane]
        for lane in range(rows):
            for column in range(columns):
                out[begin + lane, column] = parts[column, lane]
