"""What `perprisk simulate` makes of `--set` and `--mix`."""

from __future__ import annotations

import pytest

from exchange.deleveraging import AT_MARK, HYPERLIQUID
from exchange.errors import InputError
from exchange.simulation.population import MIX
from exchange.simulation.settings import Settings
from exchange.simulation.state import WHALE
from pipelines.simulate import chosen_mix, chosen_settings


def test_numbers_and_words_change_what_they_name_and_nothing_else() -> None:
    chosen = chosen_settings(["spillover=0.5", "deleveraging=hyperliquid", "deleveraging_price=mark"])
    expected = Settings(spillover=0.5, deleveraging=HYPERLIQUID, deleveraging_price=AT_MARK)
    assert chosen == expected
    assert chosen_settings([]) == Settings()


def test_shares_of_kinds_change() -> None:
    mix = chosen_mix(["whale=0.25"])
    assert mix[WHALE].share == 0.25
    assert {kind: habits for kind, habits in mix.items() if kind != WHALE} == {
        kind: habits for kind, habits in MIX.items() if kind != WHALE
    }


@pytest.mark.parametrize("pair", ["nothing=1", "spillover", "spillover=x", "spillover=nan", "spillover=-1"])
def test_numbers_that_make_no_sense_are_refused(pair: str) -> None:
    with pytest.raises(InputError, match=r"--set"):
        chosen_settings([pair])


def test_a_ranking_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="must be one of bitmex, hyperliquid"):
        chosen_settings(["deleveraging=first-come"])


@pytest.mark.parametrize("pair", ["maker=0.1", "shark=0.1", "whale=", "whale=inf"])
def test_kinds_and_shares_that_are_none_are_refused(pair: str) -> None:
    with pytest.raises(InputError, match=r"--mix"):
        chosen_mix([pair])
