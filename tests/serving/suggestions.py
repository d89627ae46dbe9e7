"""Suggestions for tests: many accounts at once, drawn so that every edge of the rules comes up often."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.parts import PARTS, TERMS, suggest
from serving.policy import RUNGS

Floats = npt.NDArray[np.float64]
NAN = math.nan


class Accounts(NamedTuple):
    """What `serving.parts.suggest` is given, a row an account."""

    static: Floats
    in_force: Floats
    pd: Floats  # (n, RUNGS)
    cost: Floats
    sigma: Floats
    slow: Floats
    failed: npt.NDArray[np.bool_]
    enters: npt.NDArray[np.bool_]
    terms: Floats  # (n, TERMS)


class Suggested(NamedTuple):
    rate: Floats
    parts: Floats  # (n, PARTS)


def suggest_all(*given: Any) -> Suggested:
    """Suggestions for rows, or for one of plain numbers."""
    rows = max(np.ndim(one) for one in given[:2]) and len(given[0])
    width = (0, 0, 1, 0, 0, 0, 0, 0, 1)
    columns = [
        np.ascontiguousarray(
            np.asarray(one)[None] if np.ndim(one) == wide else one,
            dtype=bool if place in (6, 7) else float,
        )
        for place, (one, wide) in enumerate(zip(given, width, strict=True))
    ]
    found = Suggested(np.empty(rows or 1), np.empty((rows or 1, PARTS)))
    suggest(*columns, *found)
    return found


def stands(static: Floats, in_force: Floats) -> Floats:
    """max(s, p) as rates are told: an unknown schedule is 100%, p in whole ppm up and within 100% or s."""
    known = np.where(np.isnan(static), 1.0, static)
    top = np.maximum(known, 1.0)
    kept = np.ceil(np.minimum(in_force, 1.0) * 1e6 - 1e-6) / 1e6
    return np.where(in_force > known, np.minimum(np.maximum(known, kept), top), known)


def draw(count: int, seed: int, missing: float = 0.1) -> Accounts:
    """Accounts of every kind on terms of every kind; `missing` is the share of values that are not known."""
    chance = np.random.default_rng(seed)

    def holes(values: Floats, share: float = missing) -> Floats:
        return np.where(chance.random(values.shape) < share, NAN, values)

    def some(*of: Floats) -> Floats:
        return np.choose(chance.integers(len(of), size=count), of)

    uniform = chance.random
    ppm = chance.integers(5_000, 1_000_001, count) / 1e6
    static = some(ppm, ppm, 0.005 + 0.2 * uniform(count), np.full(count, 1.0), np.full(count, 1.5))
    in_force = some(
        np.full(count, NAN), static, static * (1.0 + 1e-9), 0.005 + 0.995 * uniform(count),
        chance.integers(5_000, 1_000_001, count) / 1e6, np.full(count, 1.7), np.zeros(count),
    )  # fmt: skip
    pd = uniform((count, RUNGS)) ** np.choose(chance.integers(3, size=count), [1.0, 4.0, 30.0])[:, None]
    falls = uniform(count) < 0.7
    pd[falls] = np.sort(pd[falls], axis=1)[:, ::-1]
    pd[uniform(count) < 0.05] = 0.0
    pd[uniform(count) < 0.05] = 1.0
    cost = some(0.1 * uniform(count), uniform(count), 0.002 * uniform(count), np.zeros(count))
    sigma = some(0.1 * uniform(count), 2.0 * uniform(count), np.zeros(count))
    slow = some(sigma, 0.1 * uniform(count), 2.0 * uniform(count))
    terms = np.column_stack([
        some(np.full(count, 3.0), np.zeros(count), 30.0 * uniform(count)),
        some(np.full(count, 0.01), uniform(count), np.zeros(count)),
        some(np.zeros(count), np.full(count, 2.33), 10.0 * uniform(count)),
        some(np.zeros(count), np.full(count, 0.25), np.ones(count)),
        some(np.zeros(count), 0.5 * uniform(count)),
        chance.integers(0, 2, count),
        some(np.zeros(count), np.full(count, 0.25), uniform(count)),
        some(np.zeros(count), 3.0 * uniform(count)),
        some(np.ones(count), uniform(count)),
        chance.integers(0, 2, count),
        chance.integers(0, 2, count),
    ])  # fmt: skip
    assert terms.shape[1] == TERMS
    known = uniform(count) < 0.5  # half of all know everything
    return Accounts(
        np.where(known, static, holes(static)),
        in_force,
        np.where(known[:, None], pd, np.where(uniform(count) < missing, NAN, 1.0)[:, None] * pd),
        np.where(known, cost, holes(cost)),
        np.where(known, sigma, holes(sigma)),
        np.where(known, slow, holes(slow)),
        uniform(count) < 0.1,
        uniform(count) < 0.5,
        terms.astype(float),
    )
