"""The twelve invariants of a suggestion, one test a number, each on at least 10,000 examples.

An example is a row that a generator drew: an account with its terms, a history of 48 windows, an answer or an
event; how many each test looks at is asserted in it. What else holds an invariant is named in its docstring.
`s` is the static schedule's rate, `p` the one in force, `m` the suggestion.
"""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest

from exchange.units import HOUR_US, MINUTE_US
from serving.admission import CLOCK_SKEW_US
from serving.audit import Audit
from serving.budget import Book, expected_loss_micro
from serving.client import AsyncClient, Rates
from serving.codec import JSON
from serving.engine import Engine
from serving.frames import LogError
from serving.glide import Held, Pace, looked
from serving.parts import BY_BUFFER, BY_FLOOR, BY_KEPT, BY_SIGMAS, BY_STAMPED
from serving.policy import RUNGS
from serving.questions import LIFETIME_US
from serving.rows import read_events
from serving.wire import Answer, ScoreRequest, to_time
from tests.serving import stories as tell
from tests.serving.audited import COLUMNS, ROWS, answers
from tests.serving.stories import FakeScorer, send, story
from tests.serving.suggestions import NAN, Accounts, Floats, draw, stands, suggest_all

EXAMPLES = 10_000
SEEDS = (1, 2, 3)


def schedule(accounts: Accounts) -> Floats:
    return np.where(np.isnan(accounts.static), 1.0, accounts.static)


@pytest.mark.parametrize("seed", SEEDS)
def test_1_between_the_schedule_and_all_of_it(seed: int) -> None:
    """s <= m <= max(s, 100%)."""
    accounts = draw(EXAMPLES, seed)
    static, rate = schedule(accounts), suggest_all(*accounts).rate
    assert len(rate) == EXAMPLES
    assert (static <= rate).all()
    assert (rate <= np.maximum(static, 1.0)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_2_a_failure_gives_what_stands(seed: int) -> None:
    """Where data or model fail, m = max(s, p); s only where no p is in force. See test_stale, test_client."""
    accounts = draw(EXAMPLES, seed)
    expected = stands(accounts.static, accounts.in_force)
    everybody = np.ones(EXAMPLES, bool)
    unread = np.full((EXAMPLES, RUNGS), NAN)
    for failing in (
        accounts._replace(failed=everybody), accounts._replace(pd=unread),
        accounts._replace(sigma=unread[:, 0]), accounts._replace(pd=np.empty((EXAMPLES, 0))),
    ):  # fmt: skip
        assert suggest_all(*failing).rate.tobytes() == expected.tobytes()


FIELDS = ("static", "pd", "cost", "sigma", "slow")


@pytest.mark.parametrize("seed", SEEDS)
def test_3_without_any_of_its_fields_it_is_not_under_what_stands(seed: int) -> None:
    """For every subset of fields removed: m(without) >= max(s, p). See test_stale for events that stop."""
    accounts = draw(EXAMPLES, seed, missing=0.0)
    accounts = accounts._replace(static=np.minimum(accounts.static, 1.0))
    whole, least = suggest_all(*accounts).rate, stands(accounts.static, accounts.in_force)
    term = accounts.terms.T
    reads_slow = (term[BY_SIGMAS] > 0) & ((term[BY_FLOOR] > 0) | (term[BY_BUFFER] > 0))
    for removed in product((False, True), repeat=len(FIELDS)):
        if not any(removed):
            continue
        left = {
            name: np.full_like(getattr(accounts, name), NAN)
            for name, gone in zip(FIELDS, removed, strict=True)
            if gone
        }
        without = suggest_all(*accounts._replace(**left)).rate
        read = np.ones(EXAMPLES, bool) if set(left) != {"slow"} else reads_slow
        assert (without[read] >= least[read]).all(), left.keys()
        assert (without[~read] == whole[~read]).all(), "what is not read is not missed"


@pytest.mark.parametrize("seed", SEEDS)
def test_4_more_risk_is_never_cheaper_on_new_exposure(seed: int) -> None:
    """A higher probability, cost, sigma, or all of them, never lowers m. The stamped rate does not move.

    For scaled positions through features and model see test_ladder; that equity and withdrawals change no
    level is held there too.
    """
    accounts = draw(EXAMPLES, seed, missing=0.0)
    accounts = accounts._replace(enters=np.ones(EXAMPLES, bool))
    before = suggest_all(*accounts).rate
    chance = np.random.default_rng(seed)
    up = chance.random((EXAMPLES, RUNGS)) ** 4
    riskier = np.minimum(accounts.pd + up * (chance.random((EXAMPLES, 1)) < 0.7), 1.0)
    dearer, wilder, longer = (
        getattr(accounts, name) + 0.3 * up[:, place] for place, name in enumerate(("cost", "sigma", "slow"))
    )
    for more in (
        {"pd": riskier}, {"cost": dearer}, {"sigma": wilder}, {"slow": longer},
        {"pd": riskier, "cost": dearer, "sigma": wilder, "slow": longer},
    ):  # fmt: skip
        assert (suggest_all(*accounts._replace(**more)).rate >= before).all(), more.keys()
    stamped = accounts._replace(enters=np.zeros(EXAMPLES, bool))
    stamped.terms[:, BY_STAMPED] = 1.0
    recorded = ~np.isnan(accounts.in_force)
    found = suggest_all(*stamped).rate[recorded]
    assert (found == stands(accounts.static, accounts.in_force)[recorded]).all()
    moved = stamped._replace(pd=riskier, cost=dearer, sigma=wilder, slow=longer)
    assert (suggest_all(*moved).rate[recorded] == found).all()


WINDOWS = 48


def histories(seed: int) -> tuple[np.ndarray, Pace]:
    """Targets of 10,000 rates over 48 windows, (windows, rates), that wander, jump and sway; and a pace."""
    chance = np.random.default_rng(seed)
    steps = chance.normal(0.0, 3_000.0, (WINDOWS, EXAMPLES)) * (chance.random(EXAMPLES) < 0.8)
    jumps = chance.normal(0.0, 100_000.0, (WINDOWS, EXAMPLES)) * (chance.random((WINDOWS, EXAMPLES)) < 0.05)
    start = chance.integers(0, 400_000, EXAMPLES)
    targets = np.clip(start + np.cumsum(steps + jumps, axis=0), 0, 1_000_000).astype(np.int64)
    rise = int(chance.integers(100, 40_000))
    return targets, Pace(int(chance.integers(0, 5_000)), int(chance.integers(1, 5)), rise, rise // 4)


def followed(targets: np.ndarray, pace: Pace, floor: np.ndarray | int = 0) -> np.ndarray:
    """Rates in force from the first target on, (windows, rates), every window asked three times."""
    held = Held(targets[0].copy(), np.zeros(targets.shape[1], np.int64), 0)
    rates = [held.rate_ppm]
    for window in range(1, len(targets)):
        now_us = window * pace.window_us
        held = looked(held, targets[window], floor, now_us, pace)
        for again_us in (now_us, now_us + pace.window_us - 1):
            assert looked(held, targets[-1 - window], floor, again_us, pace) is held
        rates.append(held.rate_ppm)
    return np.array(rates)


@pytest.mark.parametrize("seed", SEEDS)
def test_5_rises_and_falls_are_bounded_in_event_time(seed: int) -> None:
    """Over any window; falls slower; asking again changes nothing; a window in parts gives no more."""
    targets, pace = histories(seed)
    rates = followed(targets, pace)
    for hours in (1, 2, 3, 7, 24, WINDOWS - 1):
        moved = rates[hours:] - rates[:-hours]
        assert moved.max() <= pace.rise_ppm_per_h * hours
        assert -moved.min() <= pace.fall_ppm_per_h * hours
    assert pace.fall_ppm_per_h < pace.rise_ppm_per_h
    assert rates.shape[1] == EXAMPLES
    assert len(np.unique(rates[-1])) > 1_000, "something moved"
    # rises of the schedule are exempt, and nothing else is
    floor = np.full(EXAMPLES, 150_000, np.int64)
    floored = followed(targets, pace, floor)
    assert (floored[1:] >= floor).all()
    rises = floored[1:] - floored[:-1]
    assert (rises <= np.maximum(pace.rise_ppm_per_h, floor - floored[:-1])).all()
    # the same target over a whole window, or over two that make it up
    for share in (1, 7, 29, 30):
        first, second = (
            pace._replace(windows=1, window_us=minutes * MINUTE_US) for minutes in (share, 60 - share)
        )
        held = Held(targets[0], np.zeros(EXAMPLES, np.int64), 0)
        whole = looked(held, targets[1], 0, HOUR_US, pace._replace(windows=1)).rate_ppm
        half = looked(held, targets[1], 0, first.window_us, first)
        both = looked(half, targets[1], 0, HOUR_US, second).rate_ppm
        assert (abs(both - targets[0]) <= abs(whole - targets[0])).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_6_what_sways_about_a_band_changes_nothing(seed: int) -> None:
    """Inside it, or beyond it in fewer windows in a row than it takes, on whichever side."""
    chance = np.random.default_rng(seed)
    pace = Pace(2_500, 3, 20_000, 5_000)
    start = chance.integers(10_000, 400_000, EXAMPLES)
    targets = start + chance.integers(-2_500, 2_501, (WINDOWS, EXAMPLES))
    far = chance.integers(2_501, 500_000, (WINDOWS, EXAMPLES)) * chance.choice([-1, 1], (WINDOWS, EXAMPLES))
    beyond = chance.random((WINDOWS, EXAMPLES)) < 0.5
    beyond[2::3] = False  # never three in a row
    targets = np.where(beyond, start + far, targets)
    targets[0] = start
    assert (followed(targets, pace) == start).all()
    targets[2::3] = targets[1::3]  # now there are
    assert (followed(targets, pace)[-1] != start).mean() > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_7_the_same_accounts_give_the_same_bytes(seed: int) -> None:
    """In any order and in batches of any size, and so do sums of money.

    Online, batch, replay, restarts and workers: test_same_answers, test_equality, pipelines/test_same_bytes.
    """
    accounts = draw(EXAMPLES, seed)
    whole = suggest_all(*accounts)
    chance = np.random.default_rng(seed)
    order = chance.permutation(EXAMPLES)
    cuts = np.sort(chance.integers(0, EXAMPLES, 30))
    batches = [suggest_all(*(c[rows] for c in accounts)) for rows in np.split(order, cuts) if len(rows)]
    assert np.concatenate([batch.rate for batch in batches]).tobytes() == whole.rate[order].tobytes()
    assert np.concatenate([batch.parts for batch in batches]).tobytes() == whole.parts[order].tobytes()
    book = Book(
        schedule(accounts), np.nan_to_num(accounts.cost), accounts.pd, 1e5 * np.nan_to_num(accounts.pd)
    )
    mixed = Book(*(column[order] for column in book))
    assert expected_loss_micro(mixed) == expected_loss_micro(book)


@pytest.mark.parametrize("seed", SEEDS)
def test_8_parts_sum_to_the_suggestion_exactly(seed: int) -> None:
    """In whole parts per million. Contributions to the score: test_reasons."""
    accounts = draw(EXAMPLES, seed)
    found = suggest_all(*accounts)
    assert (found.parts == np.round(found.parts)).all()
    assert (found.parts.sum(axis=1) == [math.ceil(rate * 1e6 - 1e-6) for rate in found.rate.tolist()]).all()
    scheduled = [math.ceil(rate * 1e6 - 1e-6) for rate in schedule(accounts).tolist()]
    assert (found.parts[:, 0] == scheduled).all()
    assert (found.parts[:, 1:5] >= 0).all(), "what is asked for adds, only limits and the record take away"
    assert (found.parts[np.isnan(accounts.in_force), -1] == 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_9_asking_and_entering_again_never_lowers_it(seed: int) -> None:
    """What wash trades and round trips do to the rate on record: it is asked for, stamped, asked for again.

    Risk falls and rises meanwhile. Unrealised profit and deposits change no level: test_ladder. Accounts that
    split among linked ones are judged together elsewhere.
    """
    accounts = draw(EXAMPLES, seed, missing=0.05)
    accounts.terms[:, [BY_STAMPED, BY_KEPT]] = 1.0
    record = accounts.in_force
    chance = np.random.default_rng(seed)
    for round_trip in range(10):
        other = draw(EXAMPLES, 1_000 * seed + round_trip, missing=0.05)
        asked = accounts._replace(
            in_force=record, pd=other.pd, cost=other.cost, sigma=other.sigma, slow=other.slow,
            failed=other.failed, enters=chance.random(EXAMPLES) < 0.5,
        )  # fmt: skip
        rate = suggest_all(*asked).rate
        top = np.maximum(schedule(accounts), 1.0)
        assert (rate >= np.fmin(np.fmax(record, 0.0), top) - 1e-15).all()
        record = rate


def test_10_an_answer_that_was_seen_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever writes fail in between. Deaths, full disks, failed syncs: test_audit_failures."""
    import os

    chance, seen, refused = Random(10), [], 0
    audit = Audit.open(tmp_path, segment_bytes=400_000)
    audit.reads("model-1", COLUMNS)
    real = os.pwrite

    def sometimes(descriptor: int, content: bytes, offset: int) -> int:
        draw = chance.random()
        if draw < 0.02:
            raise OSError(28, "No space left on device")
        return real(descriptor, content[: len(content) // 2] if draw < 0.05 else content, offset)

    monkeypatch.setattr(os, "pwrite", sometimes)
    for number in range(EXAMPLES):
        answer = b"answer %d" % number
        try:
            audit.append("/v1/score", "json", b"question", answer, ROWS)
        except LogError:
            refused += 1
        else:
            seen.append(answer)
    monkeypatch.undo()
    audit.close()
    assert refused > 100
    assert answers(tmp_path) == seen


def test_11_answers_carry_a_sequence_and_an_expiry_past_which_the_caller_helps_itself() -> None:
    """The client applies rule 2 then; see test_client over the wire."""
    engine = Engine(FakeScorer())
    send(engine, story())
    chance = Random(11)
    now = [to_time(0)]
    client = AsyncClient("http://127.0.0.1:9", clock=lambda: now[0])
    late = 0
    for _ in range(EXAMPLES):
        answer: Answer = engine.score(ScoreRequest(chance.choice(("ann", "bob"))))
        assert answer.sequence == engine.sequence
        assert answer.valid_until == answer.time + timedelta(microseconds=LIFETIME_US)
        rates = Rates(chance.random(), chance.choice((None, chance.random())))
        after_us = chance.choice((-1, 0, 1, chance.randrange(-LIFETIME_US, LIFETIME_US)))
        now[0] = answer.valid_until + timedelta(microseconds=after_us)
        suggested = answer.initial_margin_rate
        assert suggested is not None
        told = client._checked(answer, answer.account_id, rates)
        if after_us >= 0:
            late += 1
            assert (told.status, told.fallback_reason) == ("fallback", "expired")
            assert told.initial_margin_rate == rates.floor
        else:
            assert told.initial_margin_rate == max(suggested, rates.static)
    assert 2_000 < late < 8_000


def test_12_repeats_change_nothing_and_what_is_from_the_future_is_refused() -> None:
    """Sequences with gaps and in any spans: test_engine, test_intake."""
    now_us = [0]
    engine = Engine(FakeScorer(), clock=lambda: now_us[0])
    start_us = int(tell.START.timestamp() * 1_000_000)
    now_us[0] = start_us + HOUR_US * 10
    send(engine, story())
    chance = Random(12)
    sequence = tried = repeated = 0
    sent: list[dict[str, object]] = []
    while tried < EXAMPLES:
        now_us[0] += chance.randrange(MINUTE_US)
        rows = []
        for _ in range(chance.randrange(1, 60)):
            time = to_time(now_us[0]).isoformat()
            rows.append({"table": "market_bars", "time": time, "market": "BTC", "mark_close": 60_000.0,
                         "sequence": sequence})  # fmt: skip
            sequence += 1
        early = [
            {**row, "time": to_time(now_us[0] + CLOCK_SKEW_US + chance.randrange(1, HOUR_US)).isoformat(),
             "sequence": sequence + number}
            for number, row in enumerate(rows[:2])
        ]  # fmt: skip
        again = chance.sample(sent, min(len(sent), 20))
        before = engine.sequence
        answer = engine.take(read_events(JSON.encode({"source": "a", "events": rows})))
        assert (answer.accepted, answer.rejected, engine.sequence) == (len(rows), [], before + len(rows))
        digest = engine.venue.digest()
        answer = engine.take(read_events(JSON.encode({"source": "a", "events": early})))
        assert answer.accepted == 0
        assert len(answer.rejected) == len(early)
        if again:
            answer = engine.take(read_events(JSON.encode({"source": "a", "events": again})))
            assert (answer.accepted, answer.rejected) == (len(again), [])
        assert (engine.venue.digest(), engine.sequence) == (digest, before + len(rows))
        sent = (sent + rows)[-500:]
        tried += len(rows) + len(early) + len(again)
        repeated += len(again)
    assert repeated > 1_000
