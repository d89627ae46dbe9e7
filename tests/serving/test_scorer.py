"""Scores of accounts: ordered, the same in any company, and honest about what is missing."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import emit as figure
from features.venue import Vectors, Venue
from models.bundle import Bundle
from models.export import HeadSpec, export_heads
from models.heads import HEADS
from models.severity import PRIOR_SEVERITY
from pipelines.replay import replay, stacked
from pipelines.store import Dataset
from serving.engine import Engine
from serving.scorer import REASONS_FROM_PD_24H, Scorer, Scores
from serving.wire import AccountAnswer, Answer, Order, ScoreRequest, SentAccount, SentPosition
from tests.pipelines import dataset_builder as build

Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def scorer(small_model: Path) -> Scorer:
    return Scorer(Bundle.open(small_model, catalog.fingerprint()))


@pytest.fixture(scope="module")
def moment_us(small_dataset: Path) -> int:
    return Dataset.open(small_dataset).meta.start_us + 5 * DAY_US


@pytest.fixture(scope="module")
def vectors(small_dataset: Path, moment_us: int) -> Vectors:
    """All accounts at several times."""
    times_us = np.array([moment_us - DAY_US, moment_us, moment_us + DAY_US])
    return stacked([found for _, found, _ in replay(Dataset.open(small_dataset), times_us)])


def with_figure(vectors: Vectors, column: int, value: float) -> Vectors:
    figures = vectors.figures.copy()
    figures[:, column] = value
    return vectors._replace(figures=figures)


def with_feature(vectors: Vectors, name: str, value: float | npt.NDArray[np.float64]) -> Vectors:
    features = vectors.features.copy()
    features[:, catalog.index(name)] = value
    return vectors._replace(features=features)


def score(scorer: Scorer, vectors: Vectors) -> Scores:
    """Scores of accounts that are as risky as they are whatever they post."""

    def levels(rows: np.ndarray[Any, Any], first: int, last: int) -> np.ndarray[Any, Any]:
        return np.repeat(vectors.features[rows, None], last - first, axis=1)

    return scorer.score(vectors, levels)


def assert_ordered(pd: Any) -> None:
    known = pd[~np.isnan(pd).any(axis=1)]
    assert len(known)
    assert ((known >= 0.0) & (known <= 1.0)).all()
    assert (known[:, 0] <= known[:, 1]).all()
    assert (known[:, 1] <= known[:, 2]).all()
    assert (known[:, 3] <= known[:, 2]).all()


def structural(scorer: Scorer, distance: float) -> list[float]:
    """The baseline's answer by the formula in the interface, written out."""
    levels = scorer.bundle.model["baseline_levels"]["structural"]
    found = []
    for target, hours in (
        ("liquidation_1h", 1.0),
        ("liquidation_8h", 8.0),
        ("liquidation_24h", 24.0),
        ("negative_equity_24h", 24.0),
    ):
        raw = 1.0 if distance <= 0.0 else math.erfc(distance * math.sqrt(24.0 / hours) / math.sqrt(2.0))
        raw = min(max(raw, 1e-9), 1.0 - 1e-4)
        logit = math.log(raw) - math.log1p(-raw) + levels[target]
        found.append(1.0 / (1.0 + math.exp(-logit)))
    day = found[2]
    eight = min(found[1], day)
    return [min(found[0], eight), eight, day, min(found[3], day)]


def assert_fallback(scorer: Scorer, vectors: Vectors, rows: np.ndarray[Any, Any], reason: str) -> None:
    """These rows are fallbacks for this reason, with the structural baseline and what stands as margin."""
    scores = score(scorer, vectors)
    assert len(rows)
    assert {scores.fallback[row] for row in rows} == {reason}
    priors = [catalog.index(name) for name in catalog.PRIOR_HAZARDS]
    due = scores.explained & ~np.isnan(vectors.features[:, priors]).any(axis=1)
    reasons = scorer.reasons(vectors, scores)
    for row in rows:
        # what is not asked for, or hangs on what is not known, is not given
        assert due[row] or reasons[row] == ()
        figures = vectors.figures[row]
        distance = float(figures[figure.BUFFER_OVER_SIGMA_DAY])
        if math.isnan(distance):
            assert np.isnan(scores.pd[row]).all()
        else:
            np.testing.assert_allclose(scores.pd[row], structural(scorer, distance), rtol=1e-9)
        static, in_force = figures[figure.STATIC_INITIAL_RATE], figures[figure.FIGURE_INITIAL_IN_FORCE]
        stands = np.nanmax([1.0 if math.isnan(static) else static, in_force])
        assert stands <= scores.initial_rate[row] <= stands + 1e-6
        assert not math.isnan(scores.maintenance_rate[row])
        assert scores.maintenance_rate[row] <= scores.initial_rate[row]


# ---- laws ------------------------------------------------------------------------------------------


def test_probabilities_are_ordered_and_loss_follows_from_them(scorer: Scorer, vectors: Vectors) -> None:
    scores = score(scorer, vectors)
    assert_ordered(scores.pd)
    assert Counter(scores.fallback)[None] > 0.9 * len(vectors.account)
    assert len(np.unique(scores.pd[:, 2])) > 0.9 * len(vectors.account)
    severity = scorer.bundle.model["mean_severity"]
    gross = vectors.figures[:, figure.GROSS_NOTIONAL_USD]
    np.testing.assert_allclose(scores.expected_loss_usd, scores.pd[:, 3] * severity * gross, rtol=1e-12)
    for baseline in ("margin_ratio", "structural"):
        assert_ordered(scorer.baseline(baseline, vectors))


def test_margins_stay_within_their_bounds(scorer: Scorer, vectors: Vectors) -> None:
    # a model that knows one crash asks everybody for more: every second account is as safe as can be
    features = vectors.features.copy()
    features[::2, [catalog.index(name) for name in catalog.PRIOR_HAZARDS]] = -14.0
    vectors = vectors._replace(features=features)
    scores = score(scorer, vectors)
    static = vectors.figures[:, figure.STATIC_INITIAL_RATE]
    assert (scores.static_initial_rate == static).all()
    assert (scores.initial_rate >= static).all()
    assert (scores.initial_rate <= np.maximum(static, 1.0)).all()
    assert (scores.maintenance_rate <= scores.initial_rate).all()
    assert (scores.maintenance_rate >= vectors.figures[:, figure.STATIC_MAINTENANCE_RATE]).all()
    raised = scores.initial_rate > static
    assert raised.any()
    assert not raised.all()
    assert scores.pd[raised, 2].min() > scores.pd[~raised, 2].max(), (
        "who is asked for more is likelier to fail"
    )


def test_reasons_are_given_exactly_where_they_are_due(scorer: Scorer, vectors: Vectors) -> None:
    vectors = with_figure(vectors, figure.MARK_AGE_S, 0.0)
    vectors.figures[::7, figure.MARK_AGE_S] = 1e6
    scores = score(scorer, vectors)
    reasons = scorer.reasons(vectors, scores)
    everybody = scorer.reasons(vectors, scores, all_rows=True)
    for row, found in enumerate(reasons):
        due = (
            scores.pd[row, 2] >= REASONS_FROM_PD_24H
            or scores.initial_rate[row] > scores.static_initial_rate[row]
        )
        assert found == (everybody[row] if due else ())
        assert len(found) <= 3
    stale = [row for row, why in enumerate(scores.fallback) if why == "stale_mark"]
    assert any(everybody[row] for row in stale)  # old as it is, its buffer can be named
    blind = vectors._replace(features=vectors.features.copy())
    blind.features[:, catalog.index("prior_hazard_8h")] = np.nan
    assert not any(scorer.reasons(blind, score(scorer, blind), all_rows=True))
    given = [bool(found) for found in reasons]
    assert any(given)
    assert not all(given)


@pytest.mark.parametrize("size", [0, 1, 2, 31])
def test_the_company_of_a_row_does_not_change_it(scorer: Scorer, vectors: Vectors, size: int) -> None:
    vectors = with_figure(vectors, figure.MARK_AGE_S, 0.0)
    vectors.figures[::3, figure.MARK_AGE_S] = 1e6  # fallbacks take another way through
    whole = score(scorer, vectors)
    chosen = np.random.default_rng(size).permutation(len(vectors.account))[:size]
    some = score(scorer, Vectors._make(column[chosen] for column in vectors))
    for alone, together in zip(some[:-1], whole[:-1], strict=True):
        assert alone.tobytes() == together[chosen].tobytes()
    assert some.fallback == [whole.fallback[row] for row in chosen]


def test_an_input_is_not_written_to(scorer: Scorer, vectors: Vectors) -> None:
    stale = with_figure(vectors, figure.MARK_AGE_S, 1e6)
    before = [column.copy() for column in stale]
    scorer.reasons(stale, score(scorer, stale))
    for left, right in zip(before, stale, strict=True):
        assert left.tobytes() == right.tobytes()


def test_every_row_has_a_warning_and_few_raise_the_alarm(scorer: Scorer, vectors: Vectors) -> None:
    found = score(scorer, vectors).warning
    assert np.isfinite(found).all()
    assert 0.0 < (found > 0.0).mean() < 0.1
    stale = score(scorer, with_figure(vectors, figure.MARK_AGE_S, 1e6))
    assert stale.warning.tobytes() == found.tobytes()  # it hangs on no probability


# ---- what is missing -------------------------------------------------------------------------------


def changed(table: str, how: Change) -> Callable[[Path], object]:
    return lambda folder: build.change(folder, table, how)


def dropped(table: str) -> Callable[[Path], object]:
    return lambda folder: (folder / f"{table}.parquet").unlink()


BTC = pl.col("market") == "BTC-PERP"

MISSING: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    # what is taken away, the reason, and whether all accounts have it
    "books": (dropped("book_depth"), "missing_slippage_to_close_bps", True),
    "a market's bars": (changed("market_bars", lambda rows: rows.filter(~BTC)), "missing_mark", False),
    "prices of collateral": (dropped("asset_prices"), "missing_collateral", False),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_makes_a_fallback_that_says_so(
    what: str, scorer: Scorer, small_dataset: Path, moment_us: int, tmp_path: Path
) -> None:
    take_away, reason, everybody = MISSING[what]
    folder = tmp_path / "data"
    shutil.copytree(small_dataset, folder)
    take_away(folder)
    _, vectors, _ = next(replay(Dataset.open(folder), np.array([moment_us])))
    scores = score(scorer, vectors)
    rows = np.flatnonzero([found == reason for found in scores.fallback])
    assert_fallback(scorer, vectors, rows, reason)
    assert set(scores.fallback) == ({reason} if everybody else {reason, None})
    assert_ordered(scores.pd)


def test_marks_that_are_hours_old_are_stale(
    scorer: Scorer, small_dataset: Path, moment_us: int, tmp_path: Path
) -> None:
    _, fresh, _ = next(replay(Dataset.open(small_dataset), np.array([moment_us])))
    assert set(score(scorer, fresh).fallback) == {None}
    folder = build.truncate_after(small_dataset, tmp_path / "data", moment_us)
    _, vectors, _ = next(replay(Dataset.open(folder), np.array([moment_us + HOUR_US + 1])))
    assert_fallback(scorer, vectors, np.arange(len(vectors.account)), "stale_mark")
    _, vectors, _ = next(replay(Dataset.open(folder), np.array([moment_us + HOUR_US])))
    assert "stale_mark" not in score(scorer, vectors).fallback


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (figure.GROSS_NOTIONAL_USD, "missing_mark"),
        (figure.STATIC_INITIAL_RATE, "missing_tiers"),
        (figure.COLLATERAL_USD, "missing_collateral"),
        (figure.BUFFER_OVER_SIGMA_DAY, "missing_volatility"),
    ],
)
def test_the_most_telling_reason_comes_first(
    scorer: Scorer, vectors: Vectors, column: int, reason: str
) -> None:
    for broken in (
        with_figure(with_feature(vectors, "prior_hazard_24h", math.nan), column, math.nan),
        with_figure(with_figure(vectors, figure.MARK_AGE_S, 1e6), column, math.nan),
        with_figure(with_feature(vectors, "prior_hazard_1h", math.nan), column, math.nan),
    ):
        assert set(score(scorer, broken).fallback) == {reason}
    assert_fallback(scorer, broken, np.arange(20), reason)


def test_every_required_feature_is_missed(scorer: Scorer, vectors: Vectors) -> None:
    required = scorer.bundle.model["required_features"]
    assert set(catalog.PRIOR_HAZARDS) <= set(required)
    few = Vectors._make(column[:5] for column in vectors)
    for name in required:
        broken = with_feature(few, name, math.nan)
        assert_fallback(scorer, broken, np.arange(5), f"missing_{name}")


def test_a_prior_that_gives_no_number_is_told_apart(small_model: Path, vectors: Vectors) -> None:
    scorer = Scorer(Bundle.open(small_model, catalog.fingerprint()))
    scorer._constants = scorer._constants._replace(required=np.array([], np.int64))
    broken = with_feature(vectors, "prior_hazard_8h", math.nan)
    assert_fallback(scorer, broken, np.arange(20), "model_gave_no_number")


@pytest.mark.parametrize("required", [[], [PRIOR_SEVERITY]])
def test_no_account_becomes_cheaper_because_its_book_is_missing(
    scorer: Scorer, vectors: Vectors, required: list[str]
) -> None:
    """Severity is then the most that the head says of anybody, whether or not the row is a fallback."""
    line = HeadSpec(
        "severity", offset=catalog.index(PRIOR_SEVERITY), intercept=0.03, slope=0.2, link="identity"
    )
    exported = export_heads([*map(HeadSpec, HEADS[:4]), line], len(catalog.NAMES))
    model = scorer.bundle.model | {"required_features": required, "unknown_severity": 0.23}
    bundle = replace(scorer.bundle, model=model, graph=exported.graph, trees=exported.forests)
    prior = np.linspace(0.0, 1.0, len(vectors.account))
    gross = vectors.figures[:, figure.GROSS_NOTIONAL_USD]
    known, missing = (
        score(Scorer(bundle), with_feature(vectors, PRIOR_SEVERITY, value)) for value in (prior, math.nan)
    )
    lost = known.expected_loss_usd / known.pd[:, 3] / gross
    np.testing.assert_allclose(lost, 0.03 + 0.2 * prior, rtol=1e-12)
    np.testing.assert_allclose(missing.expected_loss_usd / missing.pd[:, 3] / gross, 0.23, rtol=1e-12)
    assert set(missing.fallback) == ({f"missing_{PRIOR_SEVERITY}"} if required else {None})


def test_what_is_in_force_stands_where_data_fails(scorer: Scorer, vectors: Vectors) -> None:
    stale = with_figure(with_figure(vectors, figure.MARK_AGE_S, 1e6), figure.FIGURE_INITIAL_IN_FORCE, 0.77)
    scores = score(scorer, stale)
    static = stale.figures[:, figure.STATIC_INITIAL_RATE]
    np.testing.assert_allclose(scores.initial_rate, np.maximum(static, 0.77))
    assert_fallback(scorer, stale, np.arange(50), "stale_mark")


# ---- composed with the venue -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(small_dataset: Path, moment_us: int, scorer: Scorer) -> Engine:
    """The service in the middle of the generated venue."""
    venue: Venue
    _, _, venue = next(replay(Dataset.open(small_dataset), np.array([moment_us])))
    return Engine(scorer, venue=venue, quote_asset="USDC")


def open_accounts(live: Engine) -> list[AccountAnswer]:
    """Accounts with open positions, and what the service knows of them."""
    names = [live.venue.account_names[key] for key in live.venue.open_vectors().account.tolist()]
    return [live.account(name) for name in names[::5]]


def asked(live: Engine, account: AccountAnswer, equity_usd: float, times: float = 1.0) -> Answer:
    """The answer for an account's positions, `times` as large, with another equity behind them."""
    held = [
        SentPosition(position.market, (position.quantity or 0.0) * times, position.entry_price)
        for position in account.positions
    ]
    sent = SentAccount(equity_usd, held, margin_mode="cross")
    return live.score(ScoreRequest("nobody", account=sent))


def test_what_stands_behind_an_account_changes_its_risk_and_not_what_is_asked(live: Engine) -> None:
    """A rate that rose with losses would ask for more of whoever can give it least."""
    accounts = open_accounts(live)
    assert len(accounts) > 30
    riskier = 0
    for account in accounts:
        equity = float(account.equity_usd or 0.0)
        now = asked(live, account, equity)
        assert now.status == "ok"
        for left in (equity - 0.2 * abs(equity), equity - 1.0):
            less = asked(live, account, left)
            assert less.status == "ok"
            assert number(less.pd_liquidation_24h) >= number(now.pd_liquidation_24h) - 1e-12
            assert less.initial_margin_rate == now.initial_margin_rate
            riskier += number(less.pd_liquidation_24h) > number(now.pd_liquidation_24h)
    assert riskier > 20


def test_larger_positions_never_ask_for_less(live: Engine) -> None:
    rose = 0
    for account in open_accounts(live):
        equity = float(account.equity_usd or 0.0)
        now = asked(live, account, equity)
        for times in (1.25, 4.0, 50.0):
            larger = asked(live, account, equity, times)
            assert larger.status == "ok"
            assert number(larger.pd_liquidation_24h) >= number(now.pd_liquidation_24h) - 1e-12
            assert number(larger.initial_margin_rate) >= number(now.initial_margin_rate)
            rose += number(larger.initial_margin_rate) > number(now.initial_margin_rate)
    assert rose > 0


def number(value: float | None) -> float:
    assert value is not None
    return value


def test_closing_everything_leaves_nothing_to_score(live: Engine) -> None:
    account = open_accounts(live)[0]
    orders = [Order(position.market, -number(position.quantity)) for position in account.positions]
    answer = live.score(ScoreRequest(account.account_id, orders=orders))
    assert (answer.pd_liquidation_24h, answer.initial_margin_rate, answer.status) == (0.0, 0.0, "ok")


def test_model_constants_are_plain(small_model: Path) -> None:
    constants = json.loads((small_model / "model.json").read_text())
    assert constants["mean_severity"] == constants["heads"]["severity"]["intercept"]
    assert set(constants["required_features"]) <= set(catalog.NAMES)
