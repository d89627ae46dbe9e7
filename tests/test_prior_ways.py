"""How the prior comes in: the rows are what they say, and a search that finds nothing changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks import ablation as ab
from benchmarks import prior_ways
from benchmarks.windows import Window
from features import catalog
from models.train import LOSS_FEATURES, TREE_FEATURES, targets, train
from tests.models.made_rows import made_window

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def window() -> Window:
    return made_window(16, 24, extra=0.0)


@pytest.fixture(scope="module")
def found(window: Window) -> dict:
    return prior_ways.ways(window, trials=2, draws=20)


def test_places_that_are_lent_mean_to_trees_what_the_prior_means() -> None:
    for prior, place in zip(catalog.PRIOR_HAZARDS, prior_ways.STAND_INS, strict=True):
        directions = {catalog.FEATURES[catalog.index(name)].direction for name in (prior, place)}
        assert directions == {1}
        assert place not in TREE_FEATURES + LOSS_FEATURES


def test_as_a_feature_the_prior_is_read_and_not_added(window: Window) -> None:
    rows = window.judged
    moved = prior_ways.as_feature(rows)
    for prior, place in zip(catalog.PRIOR_HAZARDS, prior_ways.STAND_INS, strict=True):
        column = catalog.index(prior)
        np.testing.assert_array_equal(moved.features[:, catalog.index(place)], rows.features[:, column])
        assert np.unique(moved.features[:, column]).tolist() == [0.0]


def test_every_way_is_in_the_table_with_its_own_figures(window: Window, found: dict) -> None:
    rows = {row["row"]: row for row in found["table"]}
    names = (prior_ways.OFFSET, prior_ways.FEATURE, prior_ways.NEITHER)
    assert list(rows) == [name + suffix for name in names for suffix in ("", ", tuned")]
    known, came = targets(window.judged)["liquidation_24h"]
    chance = ab.scored(train(window.training), window.judged)
    expected = average_precision_score(came[known], chance[known])
    assert rows[prior_ways.OFFSET]["average_precision"]["value"] == pytest.approx(expected)
    assert rows[prior_ways.OFFSET]["trees"] == 0, "here the prior knows all there is to know"
    assert rows[prior_ways.FEATURE]["trees"] > 0
    assert rows[prior_ways.FEATURE]["average_precision"]["change"] < 0, "and trees can only draw near to it"


def test_what_the_search_found_is_said(found: dict) -> None:
    assert set(found["tuning"]) == {row["row"] for row in found["table"] if "tuned" in row["row"]}
    rows = {row["row"]: row for row in found["table"]}
    heads = found["tuning"][f"{prior_ways.OFFSET}, tuned"]
    assert heads and not any(head["chosen"] for head in heads.values())
    assert (
        rows[f"{prior_ways.OFFSET}, tuned"]["average_precision"]
        == rows[prior_ways.OFFSET]["average_precision"]
    )
    text = prior_ways.searched(found["tuning"])
    for row, of in found["tuning"].items():
        for head, one in of.items():
            (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} ") and head in line]
            assert line.rstrip(" |").endswith("yes" if one["chosen"] else "no")
    assert prior_ways.searched({}) == ""
