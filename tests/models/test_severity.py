"""Severity: a constant unless a line over its prior is nearer on shocks that it has not seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import emit as figure
from models.bundle import Bundle
from models.export import HeadSpec, export_heads
from models.grow import FEWEST_EVENTS
from models.heads import HEADS
from models.labels import NEVER_US
from models.rows import HORIZONS_US, Rows
from models.session import Session
from models.severity import ACCOUNTS_OF_NO_SLOPE, DEFAULT_SEVERITY, PRIOR_SEVERITY, Severity, fit_severity
from tests.models.made_rows import START_US

PRIOR = catalog.index(PRIOR_SEVERITY)
OTHERS = [catalog.index(name) for name in ("concentration", "pressure_3pct")]


def shocks(
    parts: list[npt.NDArray[np.float64]], priors: list[npt.NDArray[np.float64]], looks: int = 3
) -> Rows:
    """A shock every third day, in which one account goes below zero for every part of notional.

    Every account is looked at `looks` times in the hours before. Accounts hold $1,000.
    """
    rows = []
    account = 0
    for shock, (lost, known) in enumerate(zip(parts, priors, strict=True)):
        at_us = START_US + (3 * shock + 1) * DAY_US
        for part, prior in zip(lost, known, strict=True):
            rows += [(at_us - (look + 1) * HOUR_US, account, at_us, prior, part) for look in range(looks)]
            account += 1
    time_us, accounts, negative_us, prior, part = (np.array(column) for column in zip(*rows, strict=True))
    rng = np.random.default_rng(3)
    features = rng.normal(size=(len(rows), len(catalog.NAMES)))
    features[:, PRIOR] = prior
    figures = np.ones((len(rows), figure.FIGURES))
    figures[:, figure.GROSS_NOTIONAL_USD] = 1_000.0
    label_end_us = time_us[:, None] + np.array(HORIZONS_US)[None, :]
    return Rows(time_us, accounts, features, figures, label_end_us, negative_us, negative_us, 1_000.0 * part)


def fitted(rows: Rows) -> Severity:
    return fit_severity(rows, OTHERS, 7)


def told(found: Severity) -> dict[str, Any]:
    return found.facts | {"offset": found.spec.offset, "slope": found.spec.slope}


def drawn(shocks_: int, accounts: int, slope: float, noise: float = 0.01) -> Rows:
    """Shocks in which what is lost follows the prior."""
    rng = np.random.default_rng(5)
    priors = [rng.uniform(0.0, 0.5, accounts) for _ in range(shocks_)]
    parts = [np.clip(0.05 + slope * prior + rng.normal(0.0, noise, accounts), 0.0, 1.0) for prior in priors]
    return shocks(parts, priors)


def session_of(found: Severity) -> Session:
    exported = export_heads([*map(HeadSpec, HEADS[:4]), found.spec], len(catalog.NAMES))
    return Session(Bundle(Path("model"), "version", "fingerprint", {}, exported.graph, exported.forests, ""))


def test_a_line_that_is_nearer_on_later_shocks_is_taken_and_shrunk() -> None:
    found = fitted(drawn(3, 50, 0.3, noise=0.0))
    believed = 150 / (150 + ACCOUNTS_OF_NO_SLOPE)
    assert told(found) | {"offset": PRIOR, "fitted": "line", "rounds": 0, "accounts": 150} == told(found)
    assert found.spec.slope == pytest.approx(0.3 * believed)
    more = fitted(drawn(3, 500, 0.3, noise=0.0))
    assert 0.25 < found.spec.slope / believed < 0.31
    assert found.spec.slope < more.spec.slope < 0.3


@pytest.mark.parametrize("looks", [1, 4])
def test_rows_of_one_account_are_copies(looks: int) -> None:
    rng = np.random.default_rng(1)
    priors = [rng.uniform(0.0, 0.5, 40) for _ in range(3)]
    parts = [0.05 + 0.3 * prior for prior in priors]
    once, often = fitted(shocks(parts, priors, 1)), fitted(shocks(parts, priors, looks))
    assert often.spec.slope == pytest.approx(once.spec.slope)
    assert often.spec.intercept == pytest.approx(once.spec.intercept)


@pytest.mark.parametrize("slope", [0.0, -0.1])
def test_a_prior_that_says_nothing_or_the_wrong_thing_leaves_a_constant(slope: float) -> None:
    rows = drawn(3, 50, slope)
    found = fitted(rows)
    assert told(found) | {"offset": None, "slope": 1.0, "fitted": "constant", "rounds": 0} == told(found)
    assert found.spec.intercept == found.mean == found.unknown
    assert found.mean == pytest.approx(rows.shortfall_usd.sum() / 1_000.0 / len(rows.time_us))


def test_what_held_in_one_shock_and_not_in_the_next_leaves_a_constant() -> None:
    rng = np.random.default_rng(9)
    priors = [rng.uniform(0.0, 0.5, 60) for _ in range(2)]
    parts = [0.05 + 0.3 * priors[0], 0.2 - 0.3 * priors[1]]
    assert fitted(shocks([np.clip(part, 0.0, 1.0) for part in parts], priors)).spec.offset is None


def test_what_cannot_be_tried_on_a_later_shock_is_not_taken() -> None:
    assert fitted(drawn(1, 200, 0.3)).spec.offset is None
    few = drawn(2, FEWEST_EVENTS - 1, 0.3)  # enough to learn from, too few to judge
    assert few.account.max() + 1 > FEWEST_EVENTS
    assert fitted(few).spec.offset is None


def test_a_prior_that_is_not_known_of_every_case_leaves_a_constant() -> None:
    rows = drawn(3, 50, 0.3)
    rows.features[7, PRIOR] = np.nan
    found = fitted(rows)
    assert found.spec.offset is None
    assert session_of(found).run(rows.features).severity[7] == found.mean


def test_without_cases_it_is_a_default() -> None:
    rows = drawn(3, 50, 0.3)
    found = fitted(rows._replace(negative_us=np.full(len(rows.time_us), NEVER_US)))
    assert (found.mean, found.unknown, found.spec.intercept) == (DEFAULT_SEVERITY,) * 3


def test_the_graph_says_the_line_to_the_bit_and_nothing_where_the_prior_is_missing() -> None:
    rows = drawn(3, 50, 0.3)
    found = fitted(rows)
    features = rows.features.copy()
    features[:4, PRIOR] = [0.0, 1.0, math.nan, -9.0]
    said = session_of(found).run(features).severity
    expected = np.clip(found.spec.intercept + found.spec.slope * features[:, PRIOR], 0.0, 1.0)
    assert said.tobytes() == expected.tobytes()
    assert (math.isnan(said[2]), said[3]) == (True, 0.0)


def test_nothing_is_dearer_than_what_is_said_of_the_unknown() -> None:
    rows = drawn(3, 400, 0.3)
    dear = rows.features[:, OTHERS[1]] > 1.0  # what only trees can know
    rows = rows._replace(shortfall_usd=rows.shortfall_usd + 300.0 * dear)
    found = fitted(rows)
    assert found.spec.offset == PRIOR
    assert found.facts["rounds"] > 0
    features = rows.features.copy()
    features[::2, PRIOR] = np.linspace(0.0, 1.0, len(features[::2]))
    said = session_of(found).run(features)
    trees = np.asarray(found.booster.predict(features[:, OTHERS], raw_score=True))  # type: ignore[union-attr]
    score = found.spec.intercept + found.spec.slope * (features[:, PRIOR] + trees)
    assert said.score_severity.tobytes() == score.tobytes()
    assert said.severity.max() <= found.unknown <= 1.0
    assert found.unknown >= found.mean
    assert said.severity[dear].mean() > said.severity[~dear].mean() + 0.1
