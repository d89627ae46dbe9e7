"""Metrics: against scikit-learn and slow loops, by law, and intervals against a simulated truth."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score, roc_curve

from exchange.units import DAY_US, HOUR_US
from models import metrics as mt

LEVELS = [0.0, 1e-6, 0.01, 0.02, 0.3, 0.5, 0.999, 1.0]
ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from(LEVELS), st.integers(0, 3)), min_size=1, max_size=60)


def split(rows):
    happened, chance, weight = zip(*rows, strict=True)
    return np.array(happened), np.array(chance), np.array(weight)


def random_rows(seed, rows, ties):
    generator = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-generator.normal(-4, 1.5, rows)))
    if ties:
        chance = np.round(chance, 2)
    return generator.random(rows) < np.clip(chance * 1.3, 0, 1), chance


@settings(max_examples=60)
@given(ROWS)
def test_ranking_and_loss_equal_scikit_learn(rows):
    happened, chance, weight = split(rows)
    found = mt.metrics(happened, chance, weight)
    if weight.sum() == 0:
        assert all(np.isnan(value) for value in found.values())
        return
    assert found["brier"] == pytest.approx(
        brier_score_loss(happened, chance, sample_weight=weight, pos_label=True), abs=1e-12
    )
    assert found["log_loss"] == pytest.approx(
        log_loss(happened, chance, sample_weight=weight, labels=[False, True]), rel=1e-9
    )
    events, others = weight[happened].sum(), weight[~happened].sum()
    if events == 0:
        undefined = set(mt.METRICS) - {"brier", "log_loss"}
        assert all(np.isnan(found[name]) for name in undefined)
        return
    kept = weight > 0
    assert found["average_precision"] == pytest.approx(
        average_precision_score(happened[kept], chance[kept], sample_weight=weight[kept])
    )
    if others == 0:
        assert np.isnan(found["roc_auc"])
        assert np.isnan(found["recall_at_1pct_fpr"])
        return
    assert found["roc_auc"] == pytest.approx(
        roc_auc_score(happened[kept], chance[kept], sample_weight=weight[kept])
    )


@pytest.mark.parametrize(("rows", "ties"), list(itertools.product([50, 101, 3_000], [False, True])))
def test_recall_at_one_percent_is_the_best_point_of_the_roc_curve(rows, ties):
    for seed in range(10):
        happened, chance = random_rows(seed, rows, ties)
        if not happened.any():
            continue
        false_rate, recall, _ = roc_curve(happened, chance, drop_intermediate=False)
        expected = recall[false_rate <= 0.01 + 1e-12].max()
        assert mt.metrics(happened, chance)["recall_at_1pct_fpr"] == pytest.approx(expected)


def naive_auc(happened, chance):
    pairs = [(a, b) for a in chance[happened] for b in chance[~happened]]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def naive_top(happened, chance):
    """Every order of tied rows is equally likely: the mean over orders is each row's share of the top."""
    wanted, observed, expected = Fraction(len(chance), 100), Fraction(0), Fraction(0)
    for level in sorted(set(chance), reverse=True):
        group = chance == level
        share = min(wanted, Fraction(int(group.sum())))
        observed += share * Fraction(int(happened[group].sum()), int(group.sum()))
        expected += share * Fraction(level)
        wanted -= share
    return float(observed / expected)


def naive_calibration_error(happened, chance):
    """Each group of equal probability goes to the tenth in which its middle row lies."""
    ascending = np.sort(chance)
    bins: dict[int, list[float]] = {}
    for level in np.unique(chance):
        group = np.flatnonzero(ascending == level)
        middle = Fraction(int(group[0] + group[-1] + 1), 2)
        tenth = int(middle * 10 / len(chance))
        of_bin = bins.setdefault(tenth, [0.0, 0.0])
        of_bin[0] += happened[chance == level].sum()
        of_bin[1] += level * len(group)
    return sum(abs(events - expected) for events, expected in bins.values()) / happened.sum()


@pytest.mark.parametrize(("rows", "ties"), list(itertools.product([37, 100, 400], [False, True])))
def test_figures_equal_slow_definitions(rows, ties):
    for seed in range(8):
        happened, chance = random_rows(seed, rows, ties)
        chance = np.maximum(chance, 1e-3)
        if not happened.any():
            continue
        found = mt.metrics(happened, chance)
        assert found["roc_auc"] == pytest.approx(naive_auc(happened, chance))
        assert found["predicted_over_actual"] == pytest.approx(chance.sum() / happened.sum())
        assert found["top_1pct_observed_over_expected"] == pytest.approx(naive_top(happened, chance))
        assert found["calibration_error"] == pytest.approx(naive_calibration_error(happened, chance))


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    before, after = mt.metrics(*split(rows)), mt.metrics(*split(shuffled))
    for name in mt.METRICS:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9)


@given(ROWS)
def test_a_weight_of_two_is_a_row_twice(rows):
    happened, chance, weight = split(rows)
    repeated = mt.metrics(np.repeat(happened, weight), np.repeat(chance, weight))
    weighted = mt.metrics(happened, chance, weight)
    for name in mt.METRICS:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-9, atol=1e-12)


@given(ROWS)
def test_ranking_figures_depend_on_ranks_alone(rows):
    happened, chance, weight = split(rows)
    before, after = mt.metrics(happened, chance, weight), mt.metrics(happened, chance / 3 + 0.1, weight)
    for name in ("roc_auc", "average_precision", "recall_at_1pct_fpr"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9)


def test_perfect_and_useless_scores():
    happened = np.array([True] * 5 + [False] * 495)
    perfect = mt.metrics(happened, happened.astype(float))
    assert perfect["roc_auc"] == perfect["average_precision"] == perfect["recall_at_1pct_fpr"] == 1
    assert perfect["brier"] == perfect["calibration_error"] == 0
    assert perfect["predicted_over_actual"] == perfect["top_1pct_observed_over_expected"] == 1
    constant = mt.metrics(happened, np.full(500, 0.01))
    assert (constant["roc_auc"], constant["average_precision"]) == (0.5, 0.01)
    assert constant["recall_at_1pct_fpr"] == 0
    assert constant["calibration_error"] == pytest.approx(0)


def test_empty_rows_have_no_figures():
    assert all(np.isnan(value) for value in mt.metrics([], []).values())


@pytest.mark.parametrize("chance", [[0.5, np.nan], [0.5, 1.0001], [-1e-9, 0.5], [0.5]])
def test_what_is_not_a_probability_is_refused(chance):
    with pytest.raises(ValueError, match=r"probabilit"):
        mt.metrics([True, False], chance)


@given(ROWS, st.lists(st.floats(0.01, 0.99), max_size=12).map(sorted))
def test_bins_hold_every_row_once_and_rise(rows, cut_at):
    happened, chance, weight = split(rows)
    if weight.sum() == 0:
        return
    bins = mt.quantile_bins(mt.Ranked.of(happened, chance), cut_at, weight)
    assert len(bins.rows) <= len(cut_at) + 1
    assert bins.rows.sum() == weight.sum()
    assert bins.events.sum() == weight[happened].sum()
    assert bins.expected.sum() == pytest.approx((weight * chance).sum())
    assert (np.diff(bins.predicted) > 0).all()


def test_resamples_draw_whole_days_and_whole_accounts():
    day, account = (grid.ravel() for grid in np.meshgrid(np.arange(6), np.arange(9), indexing="ij"))
    time = day * DAY_US + 5 * HOUR_US + account
    draws = list(mt.resamples(time, account, 300, seed=4))
    for weight in draws[:50]:
        grid = weight.reshape(6, 9)
        assert np.linalg.matrix_rank(grid) == 1, "not the product of a draw of days and one of accounts"
        assert grid.sum() == len(day)
    assert np.mean(draws) == pytest.approx(1)
    again = list(mt.resamples(time, account, 300, seed=4))
    assert all(np.array_equal(a, b) for a, b in zip(draws, again, strict=True))
    order = np.random.default_rng(0).permutation(len(day))
    shuffled = next(mt.resamples(time[order], account[order], 1, seed=4))
    assert np.array_equal(shuffled, draws[0][order])


def test_intervals_cover_a_truth_that_single_rows_miss():
    """Days and accounts with effects of their own: resampling rows promises too much, whole ones do not."""
    generator = np.random.default_rng(7)
    day, account = (grid.ravel() for grid in np.meshgrid(np.arange(25), np.arange(40), indexing="ij"))
    chance = 0.2
    covered, covered_by_rows, repeats = 0, 0, 60
    for seed in range(repeats):
        of_day, of_account = generator.beta(2, 8, 25) / 0.2, generator.beta(4, 16, 40) / 0.2
        happened = generator.random(len(day)) < np.minimum(chance * of_day[day] * of_account[account], 1)
        ranked = mt.Ranked.of(happened, np.full(len(day), chance))
        column = mt.METRICS.index("predicted_over_actual")
        drawn = [mt.measure(ranked, weight) for weight in mt.resamples(day * DAY_US, account, 60, seed)]
        low, high = (bound[column] for bound in mt.interval(np.array(drawn)))
        covered += low <= 1 <= high
        rows = [
            len(day) * chance / happened[generator.integers(len(day), size=len(day))].sum() for _ in range(60)
        ]
        low, high = mt.interval(np.array(rows))
        covered_by_rows += low <= 1 <= high
    assert covered >= 0.8 * repeats
    assert covered_by_rows <= 0.6 * repeats, "the simulation does not tell the two apart"


def test_intervals_of_what_is_seldom_defined_are_unknown():
    values = np.array([[1.0, 1.0, np.nan], [2.0, np.nan, np.nan], [3.0, np.nan, np.nan]])
    low, high = mt.interval(values)
    assert (low[0], high[0]) == (pytest.approx(1.1), pytest.approx(2.9))
    assert np.isnan(low[1:]).all()
    assert np.isnan(high[1:]).all()


def test_the_interval_of_the_calibration_error_holds_it():
    happened, chance = random_rows(3, 4_000, ties=False)
    ranked = mt.Ranked.of(happened, chance)
    drawn = np.array(
        [
            mt.measure(ranked, w)
            for w in mt.resamples(np.arange(4_000) % 30 * DAY_US, np.arange(4_000) % 77, 100, 1)
        ]
    )
    values = mt.measure(ranked)
    low, high = mt.measured_interval(values, drawn)
    column = mt.METRICS.index("calibration_error")
    assert low[column] < values[column] < high[column]
    others = np.arange(len(values)) != column
    assert np.array_equal(low[others], mt.interval(drawn)[0][others])
