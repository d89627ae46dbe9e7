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

    Everything is kept by quadrature point and summed at the very end, so that the inner loops have
    no sum of their own and the compiler can take several points at once. A path's product starts
    with the weight of its point, so trees of different depth can use different rules.
    """
    most = rule_points.shape[1]
    largest = np.max(start[1:] - start[:-1])
    # By branch: 1 where the row takes it and those before it on the same feature.
    followed = np.empty(largest)
    # Its factor, relative to that of the branch before it on the same feature.
    factor = np.empty((largest, most))
    # The product of the factors from the root down to it, its own included.
    above_product = np.empty((largest, most))
    # Over the leaves below it: the sum of value times the factors in between.
    below_sum = np.empty((largest, most))
    parts = np.empty((matrix.shape[1], most))
    for row in range(matrix.shape[0]):
        parts[:, :] = 0.0
        for tree in range(len(start) - 1):
            first, end = start[tree], start[tree + 1]
            count = degree[tree]
            points = rule_points[count - 1]
            followed[0] = 1.0
            for q in range(count):
                above_product[0, q] = rule_weights[count - 1, q]
            for node in range(first + 1, end):
                here, up = node - first, parent[node] - first
                asking = parent[node]
                x = matrix[row, feature[asking]]
                if np.isnan(x):
                    goes_left = nan_left[asking]
                elif abs(x) <= ZERO_BOUND:
                    goes_left = zero_left[asking]
                else:
                    goes_left = x <= threshold[asking]
                one = 1.0 if goes_left == (left[asking] == node) else 0.0
                earlier = previous[node]
                if earlier >= 0:
                    one *= followed[earlier - first]
                followed[here] = one
                for q in range(count):
                    factor[here, q] = share[node] * (1.0 - points[q]) + one * points[q]
                if earlier >= 0:
                    before, one_before = share[earlier], followed[earlier - first]
                    for q in range(count):
                        factor[here, q] /= before * (1.0 - points[q]) + one_before * points[q]
                for q in range(count):
                    above_product[here, q] = above_product[up, q] * factor[here, q]
            for node in range(first, end):
                own = value[node] if feature[node] < 0 else 0.0
                for q in range(count):
                    below_sum[node - first, q] = own
            for node in range(end - 1, first, -1):
                here, up = node - first, parent[node] - first
                asked = feature[parent[node]]
                gain = followed[here] - share[node]
                earlier = previous[node]
                if earlier < 0:
                    for q in range(count):
                        parts[asked, q] += gain * above_product[up, q] * below_sum[here, q]
                else:
                    # The earlier branch counted the leaves below this one with its own gain: replace it.
                    before, one_before = share[earlier], followed[earlier - first]
                    gain_before = one_before - before
                    for q in range(count):
                        others = above_product[up, q] / (before * (1.0 - points[q]) + one_before * points[q])
                        change = gain - gain_before * factor[here, q]
                        parts[asked, q] += change * others * below_sum[here, q]
                for q in range(count):
                    below_sum[up, q] += factor[here, q] * below_sum[here, q]
        for column in range(matrix.shape[1]):
            total = 0.0
            for q in range(most):
                total += parts[column, q]
            out[row, column] = total
