from __future__ import annotations

from pathlib import Path

import pytest

from features import catalog
from features.catalog import FEATURES, Feature
from pipelines import feature_docs


@pytest.mark.parametrize("feature", FEATURES, ids=catalog.NAMES)
def test_a_feature_has_a_row_that_says_all_of_it(feature: Feature) -> None:
    rows = [line for line in feature_docs.page().splitlines() if line.startswith(f"| `{feature.name}` |")]
    assert len(rows) == 1
    for said in (feature.unit, feature.why, *feature.sources, feature_docs.DIRECTIONS[feature.direction]):
        assert said in rows[0]


def test_the_page_has_a_table_a_family_in_the_order_of_the_vector() -> None:
    lines = feature_docs.page().splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## Leverage",
        "## Volatility",
        "## Order book",
    ]
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == list(catalog.NAMES)
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}


def test_the_page_says_which_definition_it_prints() -> None:
    assert catalog.fingerprint() in feature_docs.page()
    assert f"Definition {catalog.DEFINITION}," in feature_docs.page()


def test_the_page_is_written_where_asked(tmp_path: Path) -> None:
    feature_docs.main(tmp_path / "features.md")
    assert (tmp_path / "features.md").read_text() == feature_docs.page()
