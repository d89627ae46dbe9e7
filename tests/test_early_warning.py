"""Choices of the early warning's columns and cuts: compared on rows that no forest has seen."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import early_warning as ew
from features import catalog
from features import emit as figure
from models import warning
from models.rows import Rows
from tests.models.made_rows import made_rows


@pytest.fixture(scope="module")
def parts() -> list[tuple[Rows, Rows]]:
    return ew.blocks([made_rows(5, days=30, accounts=40)], 3)


def test_a_block_comes_after_all_that_was_known_before_it(parts: list[tuple[Rows, Rows]]) -> None:
    assert len(parts) == 3
    for before, block in parts:
        assert before.label_end_us[:, -1].max() <= block.time_us.min()


def test_as_many_margin_ratios_are_alarmed_as_states(parts: list[tuple[Rows, Rows]]) -> None:
    before, block = parts[-1]
    lowest = ew.lowest_ratios(block)
    ratio = block.figures[:, figure.MARGIN_RATIO]
    assert ratio[lowest].max() <= ratio[~lowest].min()
    alarm = ew.most_unusual(before, block, ew.choices()[ew.IN_PLACE], 7)
    assert alarm.sum() == lowest.sum() == int(warning.ALARM_RATE * len(ratio))


def test_the_choice_in_place_is_the_one_that_is_trained() -> None:
    every = ew.choices()
    assert every[ew.IN_PLACE] == (warning.WARNING_FEATURES, warning.CUT_AT)
    assert set(ew.OF_DISTANCE + ew.OF_MARKET) <= set(warning.WARNING_FEATURES) <= set(catalog.NAMES)
    assert not set(ew.OF_DISTANCE) & set(every["without the distance to liquidation"].sided)


def test_every_choice_is_in_the_table(parts: list[tuple[Rows, Rows]]) -> None:
    found = ew.compared("made up", parts)
    assert set(found["table"]) == set(ew.choices())
    assert found["table"][ew.IN_PLACE]["caught_gain"] == (0.0, 0.0)
    text = ew.markdown(found)
    assert "3 blocks" in text and "cut at the median" in text
    assert np.isfinite([of["elsewhere"] for of in found["table"].values()]).all()
