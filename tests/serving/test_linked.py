"""Accounts of one owner: together never asked less than one account, and each answered alike by all ways."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.adversaries import ROUNDING, Stage
from exchange.units import DAY_US
from features import catalog
from features import emit as figure
from features import events as ev
from features.venue import Venue
from models.bundle import Bundle
from pipelines.replay import replay
from pipelines.store import Dataset
from serving.codec import JSON
from serving.engine import Engine
from serving.ladder import levels_of
from serving.linked import LINKED_UNKNOWN, Room, any_linked, score_linked, together
from serving.parts import LINKED
from serving.questions import numbers_of, scored
from serving.scorer import Scorer
from serving.wire import BatchRequest, Order, ScoreRequest
from tests.serving.stories import question


@pytest.fixture(scope="module")
def scorer(small_model: Path) -> Scorer:
    return Scorer(Bundle.open(small_model, catalog.fingerprint()))


@pytest.fixture(scope="module")
def venue(small_dataset: Path) -> Venue:
    dataset = Dataset.open(small_dataset)
    _, _, venue = next(replay(dataset, np.array([dataset.meta.start_us + 3 * DAY_US])))
    return venue


@pytest.fixture
def stage(venue: Venue, scorer: Scorer) -> Stage:
    return Stage(venue, scorer)


def portfolio(chance: np.random.Generator, markets: int) -> dict[int, float]:
    """Dollars by market, of one side or both, up to more than a book takes."""
    held = chance.choice(markets, chance.integers(1, 4), replace=False).tolist()
    sides = chance.choice([-1.0, 1.0], len(held)) if chance.random() < 0.5 else np.ones(len(held))
    sizes = 10.0 ** chance.uniform(4.0, 5.7, len(held))
    return dict(zip(held, (sides * sizes).tolist(), strict=True))


def split(seed: int, stage: Stage) -> tuple[dict[str, float], float]:
    """What is asked of one account, and of accounts of one owner that it was cut into."""
    chance = np.random.default_rng(seed)
    held = portfolio(chance, len(stage.venue.market_names))
    stage.opened(f"one {seed}", f"one {seed}", 1e6)
    for market, usd in held.items():
        stage.traded(f"one {seed}", market, usd)
    parts = range(int(chance.integers(2, 6)))
    names = [stage.opened(f"{k} of {seed}", f"parts {seed}", 1e5) for k in parts]
    for market, usd in held.items():
        shares = 0.1 / len(names) + 0.9 * chance.dirichlet(np.full(len(names), 0.7))  # lots, not dust
        if chance.random() < 0.3:  # what one sells another buys
            shares[0] += 0.5
            shares[-1] -= 0.5
        for name, share in zip(names, shares.tolist(), strict=True):
            stage.traded(name, market, share * usd)
    return stage.asked(f"one {seed}"), stage.margin_usd(*names)


def assert_split_in_vain(seeds: range, stage: Stage) -> None:
    raised = 0
    for seed in seeds:
        one, parts = split(seed, stage)
        if one["rate"] < 0.9:  # nothing is asked beyond all of it
            assert parts >= one["margin"] * (1.0 - ROUNDING), seed
            raised += 1
    assert raised > 0.8 * len(seeds)


def test_splitting_never_lowers_the_total(stage: Stage) -> None:
    assert_split_in_vain(range(100), stage)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 10_100, 100))
def test_splitting_never_lowers_the_total_at_length(first: int, stage: Stage) -> None:
    assert_split_in_vain(range(first, first + 100), stage)


def test_what_an_owner_holds_apart_in_other_markets_costs_no_schedule(stage: Stage) -> None:
    """A thin coin beside a liquid one, each small: neither pays for the other."""
    for name, owner in (("thin", "o"), ("deep", "o"), ("thin alone", None), ("deep alone", None)):
        stage.opened(name, owner, 1e5)
        stage.traded(name, 0 if name.startswith("thin") else 1, 200.0)
    both = stage.margin_usd("thin", "deep")
    assert both == pytest.approx(stage.margin_usd("thin alone", "deep alone"), rel=0.02)


def test_an_account_without_links_is_scored_as_ever(venue: Venue, scorer: Scorer) -> None:
    vectors = venue.open_vectors()
    linked = np.array([any_linked(venue, int(key)) for key in vectors.account])
    alone = vectors.where(~linked)
    assert 0 < linked.sum() < len(linked)
    assert list(together(venue, Room(venue), alone.account)) == []
    own = scorer.score(alone, levels_of(venue, alone))
    beside = score_linked(scorer, venue, vectors).where(np.flatnonzero(~linked))
    for one, other in zip(own[:-1], beside[:-1], strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_rates_rise_or_stay_and_parts_add_up(venue: Venue, scorer: Scorer) -> None:
    vectors = venue.open_vectors()
    vectors.figures[:, figure.ENTERS] = 1.0
    own = scorer.score(vectors, levels_of(venue, vectors))
    found = score_linked(scorer, venue, vectors)
    assert (found.initial_rate >= own.initial_rate).all()
    raised = found.initial_rate > own.initial_rate
    assert raised.any()
    assert (found.parts[raised, LINKED] > 0).all()
    assert (found.parts[~raised, LINKED] == 0).all()
    np.testing.assert_array_equal(found.parts.sum(1), np.ceil(found.initial_rate * 1e6 - 1e-6))


def test_an_open_position_keeps_the_rate_in_force(stage: Stage, scorer: Scorer) -> None:
    names = [stage.opened(f"{k}", "o", 1e6) for k in range(5)]
    for name in names:
        stage.traded(name, 0, 2e5)
    key = stage.venue.find_account("0")
    static = float(stage.venue.vectors([key]).figures[0, figure.STATIC_INITIAL_RATE])
    stage.tell(ev.RATE, key, -1, static, 0.5 * static)
    vectors = stage.venue.vectors([key])
    assert score_linked(scorer, stage.venue, vectors).initial_rate[0] == static
    vectors.figures[:, figure.ENTERS] = 1.0
    assert score_linked(scorer, stage.venue, vectors).initial_rate[0] > static


def test_a_whole_that_cannot_be_judged_gives_no_relief(stage: Stage, scorer: Scorer) -> None:
    class Silent:
        def score(self, vectors, levels):
            found = scorer.score(vectors, levels)
            if len(vectors.account) and vectors.account[0] == 0 and vectors.account[-1] < 2:  # a whole
                found = found._replace(fallback=["missing_mark"] * len(found.fallback))
            return found

    names = [stage.opened(f"{k}", "o", 1e6) for k in range(2)]
    for name in names:
        stage.traded(name, 0, 2e3)
    keys = [stage.venue.find_account(name) for name in names]
    stage.tell(ev.RATE, keys[0], -1, 0.7, 0.3)
    vectors = stage.venue.vectors(keys)
    vectors.figures[:, figure.ENTERS] = 1.0
    found = score_linked(Silent(), stage.venue, vectors)
    assert found.fallback == [LINKED_UNKNOWN, LINKED_UNKNOWN]
    assert found.initial_rate[0] == 0.7
    assert found.initial_rate[1] >= found.static_initial_rate[1]


@pytest.fixture(scope="module")
def engine(small_dataset: Path, scorer: Scorer, venue: Venue) -> Engine:
    """The service in the same state."""
    quote_asset = Dataset.open(small_dataset).meta.quote_asset
    return Engine(scorer, venue=Stage(venue, scorer).venue, quote_asset=quote_asset)


def linked_names(venue: Venue) -> list[str]:
    keys = venue.open_vectors().account.tolist()
    return [venue.account_names[key] for key in keys if any_linked(venue, key)]


def test_all_ways_to_ask_about_a_linked_account_agree(engine: Engine) -> None:
    names = linked_names(engine.venue)[:12]
    assert names
    together_asked = {one.account_id: one for one in engine.score_batch(BatchRequest(names)).answers}
    for name in names:
        alone = engine.score(ScoreRequest(name))
        assert together_asked[name] == alone
        held = engine.account(name)
        if held.margin_mode == "cross":
            sent = engine.score(question(name, account=json.loads(JSON.encode(held))))
            assert sent.initial_margin_rate == pytest.approx(alone.initial_margin_rate, abs=1e-6)


def test_an_order_is_judged_with_what_the_owner_holds(engine: Engine) -> None:
    name = next(
        name
        for name in linked_names(engine.venue)
        if engine.account(name).margin_mode == "cross" and engine.score(ScoreRequest(name)).status == "ok"
    )
    held = engine.account(name).positions[0]
    order = [Order(held.market, 30.0 * held.quantity)]
    with_others = engine.score(ScoreRequest(name, orders=order, explain=True))
    rows = engine.venue.state.account
    key = engine.venue.find_account(name)
    owner, members = int(rows["owner"][key]), engine.venue.state.owner["members"]
    before = int(members[owner])
    members[owner] = 1  # as if it had no others
    without = engine.score(ScoreRequest(name, orders=order))
    members[owner] = before
    assert with_others.pd_liquidation_24h == without.pd_liquidation_24h
    assert with_others.initial_margin_rate >= without.initial_margin_rate
    parts = msgspec.structs.astuple(with_others.parts)
    assert sum(parts) == math.ceil(with_others.initial_margin_rate * 1e6 - 1e-6)


def test_evidence_is_all_that_an_answer_needs(engine: Engine) -> None:
    names = linked_names(engine.venue)[:6]
    for request in (BatchRequest(names), *(ScoreRequest(name) for name in names)):
        asked = engine.ask(request)
        assert asked.beside
        for number, answer in enumerate(asked.answers):
            found = scored(engine.scorer, asked.evidence(number))
            assert found is not None
            assert numbers_of(found, 0).initial_margin_rate == answer.initial_margin_rate
