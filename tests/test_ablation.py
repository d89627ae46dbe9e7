"""Ablation: rows of the table are what they say, differences are paired, and a prior that is gone is gone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks import ablation as ab
from benchmarks.windows import Window
from features import catalog
from models.train import TREE_FEATURES, targets, train
from tests.models.made_rows import made_window

COLUMNS = ("margin_ratio", "buffer_over_sigma", "position_over_depth")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def window() -> Window:
    return made_window(20, 30, extra=2.0)


@pytest.fixture(scope="module")
def found(window: Window) -> dict:
    return ab.ablation(window, COLUMNS, draws=30)


def test_families_are_left_out_and_alone_by_the_catalogue() -> None:
    for columns in (COLUMNS, TREE_FEATURES, catalog.NAMES):
        made = ab.variants(columns)
        assert made[ab.FULL] == tuple(columns)
        for name, of in made.items():
            families = {catalog.FEATURES[catalog.index(column)].family for column in of}
            if name.startswith("only "):
                assert families == {name.removeprefix("only ")}
                assert set(of) | set(made[f"without {name.removeprefix('only ')}"]) == set(columns)
            elif name.startswith("without "):
                assert name.removeprefix("without ") not in families


def test_the_table_has_every_row_and_its_figures(window: Window, found: dict) -> None:
    rows = {row["row"]: row for row in found["table"]}
    variants = list(ab.variants(COLUMNS))
    assert list(rows) == [*variants, "prior alone", *(f"no prior, {name}" for name in variants)]
    has_label, happened = targets(window.judged)["liquidation_24h"]
    assert (found["rows"], found["events"]) == (has_label.sum(), happened[has_label].sum())
    chance = ab.scored(train(window.training, tree_features=COLUMNS), window.judged)[has_label]
    expected = average_precision_score(happened[has_label], chance)
    assert rows[ab.FULL]["average_precision"]["value"] == pytest.approx(expected)
    for name, row in rows.items():
        of, full = (
            row["average_precision"],
            "no prior, all columns" if name.startswith("no prior") else ab.FULL,
        )
        assert of["change"] == pytest.approx(of["value"] - rows[full]["average_precision"]["value"])
        assert (of["low"] == of["high"] == 0) if name == full else of["low"] <= of["high"]


def test_what_brings_the_lift_is_found(found: dict) -> None:
    """In these rows the order book adds to the prior and nothing else does."""
    rows = {row["row"]: row for row in found["table"]}
    assert rows[ab.FULL]["trees"] > 0
    assert rows["without order book"]["average_precision"]["high"] < 0
    assert rows["prior alone"]["average_precision"]["high"] < 0
    assert rows["prior alone"]["trees"] == 0
    assert (
        rows["no prior, without order book"]["average_precision"]["value"]
        < (rows["no prior, all columns"]["average_precision"]["value"])
    )
    for family in ("leverage", "volatility"):
        assert rows[f"only {family}"]["average_precision"]["high"] < 0


def test_a_prior_that_is_taken_away_says_nothing(window: Window) -> None:
    rows = window.judged
    before = rows.features.copy()
    before[3, catalog.index(catalog.PRIOR_HAZARDS[0])] = np.nan
    bare = ab.without_prior(rows._replace(features=before))
    for name in catalog.NAMES:
        column, old = bare.features[:, catalog.index(name)], before[:, catalog.index(name)]
        if name in catalog.PRIOR_HAZARDS:
            np.testing.assert_array_equal(column, np.where(np.isnan(old), np.nan, 0.0))
        else:
            np.testing.assert_array_equal(column, old)


def test_the_table_is_printed_with_every_row(found: dict) -> None:
    text = ab.markdown(found)
    for row in found["table"]:
        assert f"\n| {row['row']} " in text
    assert f"{found['rows']:,} rows judged" in text
