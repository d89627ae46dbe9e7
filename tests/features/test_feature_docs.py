from __future__ import annotations

from pathlib import Path
from typing import get_args

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


def test_the_page_has_a_table_a_family() -> None:
    lines = feature_docs.page().splitlines()
    families = get_args(catalog.Family)
    assert [line for line in lines if line.startswith("## ")] == [
        f"## {family.capitalize()}" for family in families
    ]
    by_family = [f.name for family in families for f in FEATURES if f.family == family]
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == by_family
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}


def test_the_page_says_which_definition_it_prints() -> None:
    assert catalog.fingerprint() in feature_docs.page()
    assert f"Definition {catalog.DEFINITION}," in feature_docs.page()


def test_the_page_is_written_where_asked(tmp_path: Path) -> None:
    feature_docs.main(tmp_path / "features.md")
    assert (tmp_path / "features.md").read_text() == feature_docs.page()
