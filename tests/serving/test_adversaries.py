"""Nobody pays less margin for the same risk: every attack of `benchmarks.adversaries`, and why it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks import adversaries
from benchmarks.adversaries import ATTACKS, NOT_HERE, Finding, Stage, Theatre, theatre
from exchange.units import DAY_US
from features import catalog
from features.venue import Venue
from models.bundle import Bundle
from pipelines.replay import replay
from pipelines.store import Dataset
from serving.ladder import Ladder
from serving.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(small_model) -> Scorer:
    return Scorer(Bundle.open(small_model, catalog.fingerprint()))


@pytest.fixture(scope="module")
def venue(small_dataset) -> Venue:
    dataset = Dataset.open(small_dataset)
    _, _, venue = next(replay(dataset, np.array([dataset.meta.start_us + 3 * DAY_US])))
    return venue


@pytest.fixture(scope="module")
def at(venue: Venue, scorer: Scorer) -> Theatre:
    return theatre(venue, scorer)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attacker_is_asked_no_less(attack: Callable[[Theatre], Iterator[Finding]], at: Theatre) -> None:
    found = list(attack(at))
    assert found
    for finding in found:
        assert finding.honest_usd > 0.0
        assert finding.verdict in ("holds", "needs liquidity", NOT_HERE), adversaries.table([finding])


def test_who_splits_without_a_link_is_asked_no_more(at: Theatre) -> None:
    """So that it is the link by which a split earns nothing, and not that wallets are dearer anyhow."""
    alone = [one for one in adversaries.splits(at) if "nobody links" in one.attack]
    assert len(alone) == 3
    assert all(one.attacker_usd <= one.honest_usd * (1.0 + 1e-6) for one in alone)


def ladder_rows(stage: Stage, name: str) -> bytes:
    key = stage.venue.find_account(name)
    found = Ladder(stage.venue.handle()).take(key, key)
    assert found is not None
    return found.features[0, 1:].tobytes()


def test_no_model_can_learn_to_reward_what_an_owner_does_at_will(at: Theatre) -> None:
    """Levels are the same to the bit after wash trades, deposits, a paper profit and orders: every column."""
    stage = at.stage()
    for name in ("idle", "busy", "other"):
        stage.opened(name, None if name == "idle" else "linked", at.size_usd)
    stage.traded("busy", at.thin, 0.1 * at.size_usd)
    stage.traded("other", at.thin, 1.0)
    for _ in range(20):
        stage.passed()
        stage.paid("busy", at.size_usd)
        for usd in (at.size_usd, -at.size_usd):
            stage.traded("busy", at.thin, usd)
        stage.paid("busy", -at.size_usd)
    stage.passed(20, {at.thin: 1.2})  # and a sweep has seen it
    row = stage.venue.portfolio(stage.venue.find_account("busy")).position[0]
    mark = float(stage.venue.state.market["mark"][at.thin])
    stage.traded("idle", at.thin, float(row["quantity"]) * mark)
    assert stage.venue.portfolio(stage.venue.find_account("idle")).position[0]["quantity"] == row["quantity"]
    before = stage.venue.state.account["opened"]
    before[stage.venue.find_account("idle")] = before[stage.venue.find_account("busy")]
    assert ladder_rows(stage, "idle") == ladder_rows(stage, "busy")
