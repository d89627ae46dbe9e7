"""Reasons add up to the score, say only what raises it, and are the model's own words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from exchange.units import DAY_US
from features import catalog
from features.structural import logit, prior_hazards
from features.venue import Vectors
from models.bundle import Bundle
from pipelines.replay import replay, stacked
from pipelines.store import Dataset
from serving.reasons import LEAST_SHARE, MOST_REASONS, Explainer
from serving.scorer import Scorer

BUFFER, DISTANCE, RATIO, FORECAST = (
    catalog.index(name)
    for name in (
        "effective_buffer_over_notional", "effective_buffer_over_sigma", "margin_ratio", "forecast_ratio"
    )
)  # fmt: skip
SIGMA = catalog.index("portfolio_sigma_day")
PRIORS = [catalog.index(name) for name in catalog.PRIOR_HAZARDS]
FORMS = {
    "buffer_over_sigma": [
        catalog.index(name)
        for name in catalog.NAMES
        if name.startswith("buffer_over_sigma") or name == "effective_buffer_over_sigma"
    ],
    "buffer_over_notional": [BUFFER, catalog.index("buffer_over_notional")],
}


@pytest.fixture(scope="module")
def bundle(small_model: Path) -> Bundle:
    return Bundle.open(small_model, catalog.fingerprint())


@pytest.fixture(scope="module")
def explainer(bundle: Bundle) -> Explainer:
    return Explainer(bundle)


@pytest.fixture(scope="module")
def vectors(small_dataset: Path) -> Vectors:
    dataset = Dataset.open(small_dataset)
    times_us = dataset.meta.start_us + np.arange(2, 8) * DAY_US
    return stacked([found for _, found, _ in replay(dataset, times_us)])


def placed(features: np.ndarray, buffer: float, distance: float) -> np.ndarray:
    """The rows with another buffer, and the priors that the catalogue computes of it."""
    features = features.copy()
    features[:, BUFFER], features[:, DISTANCE] = buffer, distance
    for row in features:
        row[PRIORS] = [logit(hazard) for hazard in prior_hazards(distance, row[RATIO], row[FORECAST])]
    return features


def test_base_and_contributions_add_up_to_the_score(explainer: Explainer, vectors: Vectors) -> None:
    found = explainer.take_apart(vectors.features)
    assert len(found.score) > 1_000
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=1), found.score, rtol=0, atol=1e-9)
    assert np.abs(found.contributions).max() > 0.1


@pytest.mark.parametrize(
    ("buffer", "distance"),
    [
        (buffer, distance)
        for buffer in (-3.0, -1e-9, 0.0, 1e-12, 0.02, 0.9, 40.0)
        for distance in (-1_000.0, -0.5, 0.0, 1e-9, 0.3, 4.0, 30.0, 1_000.0)
    ],
)
def test_they_add_up_at_the_edges_too(
    explainer: Explainer, vectors: Vectors, buffer: float, distance: float
) -> None:
    """Of an isolated account buffer and distance are those of different pools: every pair can come."""
    found = explainer.take_apart(placed(vectors.features[::200], buffer, distance))
    assert np.isfinite(found.contributions).all()
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=1), found.score, rtol=0, atol=1e-9)


def test_the_score_is_that_of_the_day(bundle: Bundle, explainer: Explainer, vectors: Vectors) -> None:
    """The logits of the three hazards, each weighted by its share of what adds up to the probability."""
    pd = Scorer(bundle).assess(vectors).pd
    survival = 1.0 - pd[:, :3]
    hazards = 1.0 - survival / np.column_stack([np.ones(len(pd)), survival[:, :2]])
    cumulated = -np.log1p(-hazards)
    weights = cumulated / cumulated.sum(axis=1, keepdims=True)
    expected = (weights * np.log(hazards / (1.0 - hazards))).sum(axis=1)
    np.testing.assert_allclose(explainer.take_apart(vectors.features).score, expected, rtol=1e-6)


def test_what_the_model_does_not_read_contributes_nothing(
    bundle: Bundle, explainer: Explainer, vectors: Vectors
) -> None:
    read = {catalog.index(name) for name in bundle.model["tree_features"]}
    read |= {BUFFER, SIGMA, RATIO, FORECAST}
    contributions = explainer.take_apart(vectors.features).contributions
    for column in range(len(catalog.NAMES)):
        if column not in read:
            assert (contributions[:, column] == 0.0).all()


def test_a_larger_buffer_counts_for_less_risk(explainer: Explainer, vectors: Vectors) -> None:
    row = vectors.features[:1]
    sigma = 0.05
    found = [
        explainer.take_apart(placed(row, buffer, buffer / sigma)).contributions[0, BUFFER]
        for buffer in (0.0, 0.02, 0.05, 0.1, 0.2)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]
    found = [
        explainer.take_apart(placed(row, 0.1, 0.1 / sigma)).contributions[0, SIGMA]
        for sigma in (0.01, 0.03, 0.1, 0.3)
    ]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_the_strongest_at_most_three_and_only_what_raises_the_risk(
    explainer: Explainer, vectors: Vectors
) -> None:
    contributions = explainer.take_apart(vectors.features).contributions
    # forms of one statement count together
    together = contributions.copy()
    for plain, forms in FORMS.items():
        together[:, forms] = 0.0
        together[:, catalog.index(plain)] = contributions[:, forms].sum(axis=1)
    lengths = set()
    for row, reasons in enumerate(explainer.explain(vectors.features)):
        values = [reason.contribution for reason in reasons]
        lengths.add(len(values))
        assert values == sorted(values, reverse=True)
        assert all(value > 0.0 for value in values)
        named = {reason.feature for reason in reasons}
        assert len(named) == len(reasons)
        strongest = together[row].max()
        for column, name in enumerate(catalog.NAMES):
            value = together[row, column]
            if name in named:
                reason = next(reason for reason in reasons if reason.feature == name)
                assert reason.contribution == pytest.approx(value, abs=1e-12)
                assert reason.code == name.upper()
                assert reason.value == vectors.features[row, column]
            elif len(reasons) < MOST_REASONS:
                assert value <= max(LEAST_SHARE * strongest, 0.0) + 1e-12, "left out though strong"
            else:
                assert value <= min(values) + 1e-12
    assert max(lengths) <= MOST_REASONS
    assert {0, 1, 2} <= lengths


def test_words_are_those_of_the_catalogue(explainer: Explainer, vectors: Vectors) -> None:
    texts = set()
    for reasons in explainer.explain(vectors.features):
        for reason in reasons:
            words = catalog.FEATURES[catalog.index(reason.feature)].words
            assert reason.text == words.format(reason.value)
            assert "{" not in reason.text
            texts.add(words)
    assert len(texts) >= 2


def test_every_feature_can_be_said() -> None:
    for feature in catalog.FEATURES:
        for value in (0.0, -1.5, 1e9, math.inf):
            assert feature.words.format(value)


def test_no_rows_have_no_reasons(explainer: Explainer) -> None:
    assert explainer.explain(np.empty((0, len(catalog.NAMES)))) == []
