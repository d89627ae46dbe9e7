"""What the service suggests for open positions and for new exposure, and the parts that it says it in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from features import catalog
from models.bundle import Bundle
from serving.engine import Engine
from serving.linked import score_linked
from serving.parts import IN_FORCE, PART_NAMES, STANDARD
from serving.scorer import Scorer
from serving.wire import Answer, Parts
from tests.serving.plain_models import write_model
from tests.serving.stories import bar, book, funding, price, question, rate, send, story


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_model(folder, required=())
    return Bundle.open(folder, catalog.fingerprint())


@pytest.fixture
def engine(model: Bundle) -> Engine:
    """The story, gone on with until volatility is known; bob's rate on record is 15%."""
    engine = Engine(Scorer(model))
    send(engine, story())
    rng = np.random.default_rng(1)
    marks = (60_600.0 * np.exp(np.cumsum(rng.normal(0.0, 0.002, 300)))).tolist()
    for minute, mark in enumerate(marks, 9):
        send(engine, [bar(minute, mark), bar(minute, mark / 600.0, "SOL")])
    send(engine, [price(309, 2_000.0), book(309, marks[-1]), book(309, marks[-1] / 600.0, "SOL"),
                  funding(309, 0.0)])  # fmt: skip
    return engine


def ask(engine: Engine, account_id: str = "bob", **more: Any) -> tuple[float, Parts]:
    answer: Answer = engine.score(question(account_id, explain=True, **more))
    assert answer.status == "ok", answer.fallback_reason
    assert answer.initial_margin_rate is not None
    assert isinstance(answer.parts, Parts)
    assert sum(ppm(answer.parts)) == np.ceil(answer.initial_margin_rate * 1e6 - 1e-6)
    return answer.initial_margin_rate, answer.parts


def ppm(parts: Parts) -> list[int]:
    return [getattr(parts, f"{name}_ppm") for name in PART_NAMES]


def record(engine: Engine, initial: float) -> None:
    send(engine, [rate(309, "bob", initial, 0.05)])


def order(quantity: float, market: str = "BTC") -> dict[str, Any]:
    return {"market": market, "quantity": quantity}


def test_an_account_as_it_stands_keeps_the_rate_on_record(engine: Engine) -> None:
    record(engine, 0.0)
    priced, parts = ask(engine, orders=[order(-1e-9)])
    assert parts.static_ppm == 100_000
    assert parts.account_risk_ppm > 0
    for on_record in (0.05, 0.1, 0.12, 0.8):
        record(engine, on_record)
        found, parts = ask(engine)
        assert found == pytest.approx(max(0.1, on_record), abs=1e-12)
        assert parts.in_force_ppm == round(found * 1e6) - parts.static_ppm - parts.account_risk_ppm
        entered, _ = ask(engine, orders=[order(-1e-9)])
        assert entered == pytest.approx(max(priced, on_record), abs=1e-6)


@pytest.mark.parametrize(
    ("more", "enters"),
    [
        ({}, False),
        ({"entering": True}, True),  # as before a withdrawal
        ({"orders": [order(-0.1)]}, True),
        ({"orders": [order(0.1)]}, False),  # bob is short half a coin
        ({"orders": [order(0.5)]}, False),
        ({"orders": [order(0.7)]}, True),  # turned, though smaller
        ({"orders": [order(0.1), order(1.0, "SOL")]}, True),
        ({"orders": [order(-3.0), order(3.0)]}, False),  # washed
        ({"orders": [order(-0.1), order(0.2)]}, False),
        ({"orders": [order(0.1)], "entering": True}, True),
    ],
)
def test_what_counts_as_new_exposure(engine: Engine, more: dict[str, Any], enters: bool) -> None:
    record(engine, 0.1)
    found, _ = ask(engine, **more)
    assert (found > 0.1001) == enters


def test_a_state_that_is_sent_enters_where_it_holds_more(engine: Engine) -> None:
    record(engine, 0.1)
    held = engine.account("bob")
    positions = [{"market": each.market, "quantity": each.quantity} for each in held.positions]
    sent = {"equity_usd": held.equity_usd, "positions": positions}
    assert ask(engine, account=sent)[0] == pytest.approx(0.1, abs=1e-12)
    positions[0]["quantity"] *= 0.5
    assert ask(engine, account=sent)[0] == pytest.approx(0.1, abs=1e-12)
    positions[0]["quantity"] *= 3.0
    assert ask(engine, account=sent)[0] > 0.1001


def test_a_tiny_entry_buys_no_cheap_addition(engine: Engine) -> None:
    """What is added is priced on the terms of now, whatever stands on record from when it was tiny."""
    record(engine, 0.1)
    large, _ = ask(engine, orders=[order(-5.0)])
    record(engine, 0.000001)
    assert ask(engine, orders=[order(-5.0)])[0] == large


def test_parts_are_the_same_live_and_in_batch(engine: Engine, model: Bundle) -> None:
    venue = engine.venue
    vectors = venue.open_vectors()
    scores = score_linked(Scorer(model), venue, vectors)
    assert len(scores.parts) == 2
    for row, key in enumerate(scores.account.tolist()):
        name = venue.account_names[key]
        found, parts = ask(engine, name)
        assert found == scores.initial_rate[row]
        assert ppm(parts) == scores.parts[row].tolist()
    assert scores.where(np.array([1])).parts.tolist() == [scores.parts[1].tolist()]
    assert scores.parts[:, IN_FORCE].any()


def test_parts_are_said_where_they_are_asked_for(engine: Engine) -> None:
    assert not isinstance(engine.score(question("bob")).parts, Parts)
    flat = engine.score(question("cem", explain=True))
    assert isinstance(flat.parts, Parts)
    assert ppm(flat.parts) == [0] * len(PART_NAMES)


def test_a_scorer_goes_by_its_terms(engine: Engine, model: Bundle) -> None:
    standard, _ = ask(engine, "ann")
    terms = STANDARD.copy()
    terms[0] = 0.0
    engine.scorer = Scorer(model, terms)
    rate_without, parts = ask(engine, "ann")
    assert rate_without < standard
    assert parts.account_risk_ppm == 0
    terms[2] = 99.0
    engine.scorer = Scorer(model, terms)
    _, parts = ask(engine, "ann")
    assert parts.volatility_ppm > 0


def test_a_cure_of_new_exposure_is_for_new_exposure(engine: Engine) -> None:
    """What is deposited carries what entering takes, not what is on record."""
    record(engine, 0.1)
    orders = [order(-0.1)]
    answer = engine.score(question("bob", orders=orders, cure=True))
    assert answer.cure
    deposit = answer.cure.deposit_usd
    assert deposit is not None
    held = engine.account("bob")
    positions = {each.market: each.quantity for each in held.positions}
    positions["BTC"] -= 0.1
    gross = sum(
        abs(quantity) * each.mark for each, quantity in zip(held.positions, positions.values(), strict=True)
    )
    assert answer.initial_margin_rate is not None
    assert held.collateral_usd + deposit >= answer.initial_margin_rate * gross - 30.0
