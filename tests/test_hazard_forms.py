"""Forms of hazards: each is what its name says, and judged on rows that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks import hazard_forms as hf
from benchmarks.cases import cases, markdown, ranked
from benchmarks.windows import Window
from features import catalog
from models.rows import Rows
from models.train import targets, train
from tests.models.made_rows import made_window

TREES = "in place, trees as walk-forward lets in"


@pytest.fixture(scope="module")
def window() -> Window:
    return made_window(16, 24, extra=0.0)


@pytest.fixture(scope="module")
def parts(window: Window) -> tuple[hf.Fitting, Rows, hf.Floats]:
    rows = window.training
    logits = rows.features[:, [catalog.index(name) for name in catalog.PRIOR_HAZARDS]]
    asked = window.judged.features[:, [catalog.index(name) for name in catalog.PRIOR_HAZARDS]]
    return hf.Fitting.of(rows, logits), window.judged, asked


def test_the_prior_is_taken_apart_and_put_together_as_it_was(window: Window) -> None:
    rows = window.judged
    own = rows.features[:, [catalog.index(name) for name in catalog.PRIOR_HAZARDS]]
    distance = rows.features[:, catalog.index("effective_buffer_over_sigma")]
    bare = hf.hazards(distance, np.full(len(distance), np.inf), np.zeros(len(distance)))
    np.testing.assert_allclose(bare, own, atol=1e-9)


def test_the_form_in_place_is_what_training_makes(window: Window, parts: tuple) -> None:
    made = hf.with_trees(window.training, window.judged)
    assert not any(head.facts["rounds"] for head in train(window.training).heads[:3])
    np.testing.assert_allclose(hf.hazard_by_hazard(*parts), made, rtol=1e-9)


def test_no_form_has_a_longer_horizon_below_a_shorter_one(parts: tuple) -> None:
    for form in (hf.levels_only, hf.one_slope, hf.cumulative, hf.with_margin_ratio):
        chance = form(*parts)
        assert (np.diff(chance, axis=1) >= 0.0).all()
        assert ((chance > 0.0) & (chance < 1.0)).all()


def test_a_regressor_that_points_the_wrong_way_is_left_out() -> None:
    rng = np.random.default_rng(0)
    good, noise = rng.normal(size=(2, 4_000))
    came = rng.random(4_000) < 1.0 / (1.0 + np.exp(2.0 - good + 0.8 * noise))
    _, slopes = hf.fitted(np.column_stack([good, noise]), came, level_only=False)
    assert slopes[0] > 0.5 and slopes[1] == 0.0
    assert hf.fitted(-good[:, None], came, level_only=False)[1].tolist() == [1.0]
    assert hf.fitted(good[:, None], came, level_only=True)[1].tolist() == [1.0]


def test_every_form_is_in_the_table(window: Window) -> None:
    found = hf.forms(window)
    assert {hf.IN_PLACE, TREES, "one slope for all hazards", "no lapses"} <= set(found["figures"])
    assert all(len(of) == found["folds"] > 1 for of in found["figures"].values())
    text = hf.markdown(found)
    assert all(f"\n| {name} " in text for name in found["figures"])


def test_what_liquidations_add_sums_up_to_the_average_precision(window: Window) -> None:
    rng = np.random.default_rng(1)
    score, came = rng.integers(0, 40, 500) / 40.0, rng.random(500) < 0.1
    rank, precision = ranked(score, came)
    assert precision.sum() / came.sum() == pytest.approx(average_precision_score(came, score))
    assert rank.tolist() == [int((score >= value).sum()) for value in score[came]]
    found = cases(window, 8, 5)
    chance = hf.with_trees(window.training, window.judged)[:, 1]
    known, happened = targets(window.judged)["liquidation_8h"]
    expected = average_precision_score(happened[known], chance[known])
    assert found["average_precision"]["model"] == pytest.approx(expected)
    assert len(found["cases"]) == 5
    assert f"{found['events']} liquidations within 8 h" in markdown(found)
