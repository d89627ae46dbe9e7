"""Early warning: the graph is scikit-learn to the bit, alarms come at their rate, safety raises none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import _iforest

from exchange.errors import WorkError
from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import emit as figure
from models import warning
from models.bundle import Bundle
from models.card import model_card
from models.export import HeadSpec, WarningSpec, export_heads
from models.forest import DTYPES, Forest
from models.heads import HEADS
from models.labels import NEVER_US
from models.rows import Rows
from models.session import Session
from models.warning import ALARM_RATE, WARNING_FEATURES, EarlyWarning
from tests.models.made_rows import START_US, made_rows, part, permuted

Matrix = NDArray[np.float64]

CATALOGUE, SIDES = len(catalog.NAMES), list(WARNING_FEATURES.values())
COLUMNS = [catalog.index(name) for name in WARNING_FEATURES]
LARGEST = float(np.finfo(np.float32).max)
EXTREME = (
    *(0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, 7.1e-46, 7e-46, -1e-45, 1e-40, 1.1754944e-38),
    *(LARGEST, -LARGEST, np.nextafter(LARGEST, math.inf), 3.5e38, -3.5e38, 1e308, math.inf, -math.inf),
    math.nan,
)


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Made-up rows with gaps, and with what a division by nothing leaves."""
    rows = made_rows(1, days=20)
    chance = np.random.default_rng(3)
    rows.features[chance.random(rows.features.shape) < 0.05] = np.nan
    rows.features[chance.random(rows.features.shape) < 0.001] = np.inf
    return rows


@pytest.fixture(scope="module")
def early(rows: Rows) -> EarlyWarning:
    return fitted(rows)


def fitted(rows: Rows, seed: int = 7) -> EarlyWarning:
    early = warning.fit(rows, seed)
    assert early is not None
    return early


def session_of(spec: WarningSpec | None, feature_count: int = CATALOGUE) -> Session:
    graph, forests = export_heads([HeadSpec(name) for name in HEADS], feature_count, spec)
    return Session(Bundle(Path("model"), "version", "fingerprint", {}, graph, forests, "card"))


@pytest.fixture(scope="module")
def session(early: EarlyWarning) -> Session:
    return session_of(early.spec)


def as_sklearn_sees(spec: WarningSpec, features: Matrix) -> NDArray[np.float32]:
    """Written out once more, column by column."""
    seen = features[:, list(spec.features)].copy()
    for k, median in enumerate(np.asarray(spec.medians)):
        column = seen[:, k]
        column[np.isnan(column)] = median
        lowest, highest = np.asarray(spec.lowest)[k], np.asarray(spec.highest)[k]
        column[column < lowest] = lowest
        column[column > highest] = highest
    with np.errstate(under="ignore"):
        return seen.astype(np.float32)


@pytest.fixture(scope="module")
def hard(rows: Rows, early: EarlyWarning) -> Matrix:
    """Rows that look like training, with cells on, beside and between thresholds, and extreme ones."""
    chance = np.random.default_rng(4)
    matrix = rows.features[chance.integers(0, len(rows.time_us), 24_000)]
    matrix *= np.exp(chance.normal(0.0, 0.3, matrix.shape))
    forest = early.spec.forest
    for k, column in enumerate(COLUMNS):
        at = forest.threshold[forest.feature == k]
        near = np.concatenate(
            [at.astype(np.float32), np.nextafter(at.astype(np.float32), np.float32(np.inf))]
        )
        below = np.nextafter(near, np.float32(-np.inf)).astype(float)
        middle = 0.5 * (near.astype(float) + below)  # a tie of the rounding to float32
        beside = [np.nextafter(middle, way) for way in (-np.inf, np.inf)]
        pool = np.concatenate([at, near.astype(float), below, middle, *beside, np.repeat(EXTREME, 5)])
        cells = np.flatnonzero(chance.random(len(matrix)) < 0.4)
        matrix[cells, column] = chance.choice(pool, len(cells))
    return matrix


def test_the_graph_is_scikit_learn_on_rows_chosen_to_break_it(
    early: EarlyWarning, session: Session, hard: Matrix
) -> None:
    assert len(hard) >= 20_000
    found = session.run(hard).warning
    forest, seen = early.forest, as_sklearn_sees(early.spec, hard)
    depth = np.zeros(len(seen))
    for number, tree in enumerate(forest.estimators_):  # as scikit-learn adds them up
        leaf = tree.apply(seen, check_input=False)
        depth += forest._decision_path_lengths[number][leaf] + (
            forest._average_path_length_per_tree[number][leaf] - 1.0
        )
    np.testing.assert_allclose(found, early.spec.threshold - depth / len(forest.estimators_), atol=1e-12)

    score = forest.score_samples(seen)
    order = np.argsort(found, kind="stable")
    assert (np.diff(score[order]) <= 0.0).all(), "more of a warning is never less unusual"
    order = np.argsort(score, kind="stable")
    assert (np.diff(found[order]) <= 0.0).all(), "and the other way round"
    assert len(np.unique(found)) > 10_000

    share = early.spec.threshold / _iforest._average_path_length([forest.max_samples_])[0]
    forest.offset_ = -(2.0**-share)
    alarm = found > 0.0
    assert np.array_equal(alarm, forest.predict(seen) == -1)
    assert 100 < alarm.sum() < len(hard) - 100


def test_the_mean_depth_is_that_of_scikit_learn_to_the_bit(
    early: EarlyWarning, session: Session, hard: Matrix
) -> None:
    """Its score is 2 to the power of minus the depth over a constant; from the graph's depth to the bit."""
    forest = early.forest
    spec = replace(early.spec, threshold=0.0)
    trees = len(forest.estimators_)
    assert trees == 64, "a power of two: a sum divided and multiplied by it stays what it was"
    total = -session_of(spec).run(hard).warning * trees
    denominator = trees * _iforest._average_path_length([forest.max_samples_])
    score = -(2.0 ** -(total / denominator))
    assert np.array_equal(score, forest.score_samples(as_sklearn_sees(early.spec, hard)))


def test_every_threshold_of_every_tree_is_decided_as_scikit_learn_does(early: EarlyWarning) -> None:
    """One row a split, the row's cell exactly on it, and one on either side in float32."""
    spec, session = early.spec, session_of(early.spec)
    inner = np.flatnonzero(spec.forest.feature >= 0)
    assert len(inner) > 2_000
    on = spec.forest.threshold[inner]
    for cell in (
        on,
        np.nextafter(on.astype(np.float32), np.float32(np.inf)).astype(float),
        np.nextafter(on.astype(np.float32), np.float32(-np.inf)).astype(float),
    ):
        features = np.full((len(inner), CATALOGUE), np.nan)
        features[np.arange(len(inner)), np.array(COLUMNS)[spec.forest.feature[inner]]] = cell
        expected = early.forest.score_samples(as_sklearn_sees(spec, features))
        found = session.run(features).warning
        order = np.argsort(found, kind="stable")
        assert (np.diff(expected[order]) <= 0.0).all()
        different = np.diff(found[order]) > 1e-9
        assert (np.diff(expected[order])[different] < 0.0).all()


SMALL = (0.0, 1e-45, -1e-45, 1e-40, 1e-36, -1e-36, 1e-35, 2e-35, 1e-30)


@pytest.mark.parametrize("threshold", SMALL)
def test_next_to_nothing_is_not_zero(threshold: float) -> None:
    """LightGBM's trees take |x| up to 1e-35 for zero, scikit-learn's take nothing for it."""
    columns: dict[str, list[Any]] = {
        "start": [0, 3],
        "feature": [0, -1, -1],
        "threshold": [threshold, 0.0, 0.0],
        "left": [1, -1, -1],
        "right": [2, -1, -1],
        "zero_left": [threshold >= 0.0, False, False],
        "nan_left": [False] * 3,
        "value": [1.5, 1.0, 2.0],
        "cover": [2, 1, 1],
    }
    forest = Forest(**{name: np.array(column, DTYPES[name]) for name, column in columns.items()})
    session = session_of(WarningSpec([1], [0.0], [-LARGEST], [LARGEST], forest, 0.0), 3)
    cells = np.array([*SMALL, *(-x for x in SMALL), *EXTREME[:-1]])
    features = np.full((len(cells), 3), 9.0)
    features[:, 1] = cells
    single = np.clip(cells, -LARGEST, LARGEST).astype(np.float32).astype(float)
    assert np.array_equal(session.run(features).warning, np.where(single <= threshold, -1.0, -2.0))


def test_a_row_is_warned_of_alike_in_any_company(session: Session, hard: Matrix) -> None:
    whole = session.run(hard).warning
    for size, count in ((1, 500), (2, 500), (7, 1_400), (64, 6_400), (999, 20_000)):
        parts = [session.run(hard[first : first + size]).warning for first in range(0, count, size)]
        assert np.concatenate(parts)[:count].tobytes() == whole[:count].tobytes(), size
    order = np.random.default_rng(5).permutation(len(hard))
    assert session.run(hard[order]).warning.tobytes() == whole[order].tobytes()


def test_a_missing_value_is_its_median_and_nothing_at_all_is_no_warning(
    early: EarlyWarning, session: Session, hard: Matrix
) -> None:
    filled = hard.copy()
    for column, median in zip(early.spec.features, np.asarray(early.spec.medians), strict=True):
        filled[np.isnan(filled[:, column]), column] = median
    assert np.isnan(hard[:, COLUMNS]).any(axis=1).sum() > 1_000
    assert np.array_equal(session.run(filled).warning, session.run(hard).warning)
    nothing = filled[:3].copy()
    nothing[:, COLUMNS] = np.nan
    nothing[1, COLUMNS[4]] = 1.0
    nothing[2, COLUMNS[0]] = -np.inf
    assert np.isnan(session.run(nothing).warning).tolist() == [True, False, False]
    others = np.setdiff1d(np.arange(CATALOGUE), COLUMNS)
    blind = hard.copy()
    blind[:, others] = np.nan
    assert np.array_equal(session.run(blind).warning, session.run(hard).warning)


# ---- what is learnt --------------------------------------------------------------------------------


def test_what_is_safer_than_usual_raises_no_warning(
    early: EarlyWarning, session: Session, rows: Rows
) -> None:
    features = rows.features[::7]
    before = session.run(features).warning
    cut = 0
    for column, side, at in zip(COLUMNS, SIDES, early.model["cuts"], strict=True):
        if side == 0:
            continue
        safer = features.copy()
        harmless = (safer[:, column] - at) * side <= 0.0
        assert harmless.mean() > 0.6  # some rows lack the column
        safer[harmless, column] -= side * 100.0
        assert np.array_equal(session.run(safer).warning, before)
        cut += int(harmless.sum())
    assert cut > len(features)


def test_the_risky_side_is_the_one_that_the_catalogue_states() -> None:
    stated = [catalog.FEATURES[column].direction for column in COLUMNS]
    assert sum(direction != 0 for direction in stated) > 8
    for name, side, direction in zip(WARNING_FEATURES, SIDES, stated, strict=True):
        assert direction in (0, side), name


def test_states_at_the_edge_of_the_record_are_warned_of_and_usual_ones_are_not(
    early: EarlyWarning, session: Session, rows: Rows
) -> None:
    known = rows.features[:, COLUMNS]
    known = np.where(np.isfinite(known), known, np.nan)
    usual, edge = np.full((2, 1, CATALOGUE), np.nan)
    usual[:, COLUMNS] = np.nanmedian(known, axis=0)
    low, high = np.nanquantile(known, [0.001, 0.999], axis=0)
    edge[:, COLUMNS] = np.where(np.array(SIDES) < 0, low, high)
    assert session.run(usual).warning[0] < -1.0
    assert session.run(edge).warning[0] > 1.0


def test_a_stated_share_of_the_training_rows_raises_the_alarm(
    early: EarlyWarning, session: Session, rows: Rows
) -> None:
    alarms = int((session.run(rows.features).warning > 0.0).sum())
    assert alarms == int(ALARM_RATE * len(rows.time_us))
    assert early.model["alarm_rate"] == ALARM_RATE


def test_the_share_holds_where_only_some_rows_are_looked_at(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warning, "MOST_CALIBRATED", 3_000)
    some = session_of(fitted(rows).spec).run(rows.features).warning
    assert (some > 0.0).mean() == pytest.approx(ALARM_RATE, rel=0.5)


@pytest.mark.parametrize(
    ("depths", "rate", "below"),
    [
        ([5.0, 1.0, 2.0, 3.0], 0.25, 1),
        ([5.0, 1.0, 2.0, 3.0], 0.5, 2),
        ([5.0, 1.0, 2.0, 3.0], 0.74, 2),
        ([5.0, 1.0, 2.0, 3.0], 0.1, 0),
        ([1.0, 2.0, 2.0, 3.0], 0.5, 1),  # two alike: both would be too many
        ([1.0, 2.0, 2.0 + 1e-13, 3.0], 0.5, 1),  # alike but for rounding
        ([2.0, 2.0, 2.0, 2.0], 0.5, 0),
    ],
)
def test_the_threshold_lies_between_depths(depths: list[float], rate: float, below: int) -> None:
    threshold = warning._threshold(np.array(depths), rate)
    assert sum(depth < threshold for depth in depths) == below
    assert min(abs(depth - threshold) for depth in depths) > 0.4


def test_the_same_rows_and_seed_give_the_same_bytes_and_labels_none(rows: Rows, early: EarlyWarning) -> None:
    def content(early: EarlyWarning) -> tuple[bytes, dict[str, Any]]:
        return export_heads([HeadSpec(name) for name in HEADS], CATALOGUE, early.spec).graph, early.model

    assert content(fitted(rows)) == content(early)
    assert content(fitted(permuted(rows, 2))) == content(early)
    assert content(fitted(rows, 8))[0] != content(early)[0]


def test_one_row_of_every_account_and_day_is_kept() -> None:
    rows = part(made_rows(2, days=5, accounts=7), np.random.default_rng(0).random(210) < 0.6)
    chosen = warning.thinned(rows.time_us, rows.account, 3)
    every = [(int(a), int(t) // DAY_US) for a, t in zip(rows.account, rows.time_us, strict=True)]
    assert sorted(every[row] for row in chosen) == sorted(set(every))
    assert (np.diff(chosen) > 0).all()
    hours = {int(rows.time_us[row] - START_US) % DAY_US // HOUR_US for row in chosen}
    assert len(hours) == 6, "not always the same hour"


def test_few_rows_give_no_warning() -> None:
    rows = made_rows(3, days=5, accounts=51)
    assert warning.fit(rows) is None
    assert warning.fit(made_rows(3, days=5, accounts=52)) is not None
    assert np.isnan(session_of(None).run(rows.features).warning).all()


def test_a_column_that_is_never_known_is_constant(rows: Rows) -> None:
    blind = rows._replace(features=rows.features.copy())
    blind.features[:, COLUMNS[3]] = np.nan
    early = fitted(blind)
    assert early.model["medians"][3] == 0.0
    assert not (early.spec.forest.feature == 3).any()


def test_the_mean_path_is_that_of_scikit_learn() -> None:
    counts = np.arange(1, 2_000)
    assert np.array_equal(warning.average_path_length(counts), _iforest._average_path_length(counts))


# ---- how it does -----------------------------------------------------------------------------------


def test_alarms_are_judged_beside_as_many_of_the_margin_ratio() -> None:
    rows = part(made_rows(4, days=1, accounts=2), np.arange(8))
    rows.figures[:, figure.MARGIN_RATIO] = [1.0, 1.1, 1.2, 9.0, 8.0, np.nan, 1.05, 1.3]
    alarms = np.array([0.3, -0.1, 0.2, 0.1, -1.0, -0.5, np.nan, 0.4])
    came = np.array([True, True, False, True, False, True, True, True])
    known = np.array([True, True, True, True, True, True, True, False])
    found = warning.early_warning(rows, alarms, known, came)
    assert (found["rows"], found["alarm_rate"]) == (7, 4 / 7)
    # judged: rows 0 to 5; 0, 2 and 3 raise the alarm; 0, 1 and 2 have the lowest ratios
    assert found["targets"]["liquidation_24h"] == {
        "rows": 6,
        "events": 4,
        "alarms": 3,
        "warning": {"precision": 2 / 3, "recall": 2 / 4},
        "margin_ratio": {"precision": 2 / 3, "recall": 2 / 4},
        "missed_by_margin_ratio": 2,
        "complement": {"recall": 1 / 2, "by_chance": 1 / 3},  # of rows 3, 4 and 5, 3 raises the alarm
    }
    figures = warning.figures_of(found)
    assert figures["early_warning_liquidation_24h_warning_precision"] == 2 / 3
    assert figures["early_warning_liquidation_24h_complement_recall"] == 1 / 2
    assert figures["early_warning_alarm_rate"] == 4 / 7


def test_where_nothing_is_known_shares_are_null(rows: Rows) -> None:
    nothing = np.zeros(len(rows.time_us), bool)
    found = warning.early_warning(rows, np.full(len(nothing), np.nan), nothing, nothing)
    assert found["alarm_rate"] is None
    for target in found["targets"].values():
        assert target["warning"] == target["margin_ratio"] == {"precision": None, "recall": None}
        assert target["complement"] == {"recall": None, "by_chance": None}
    assert warning.figures_of(found) == {}
    empty = part(rows, nothing)
    none = np.zeros(0, bool)
    assert warning.early_warning(empty, np.zeros(0), none, none)["rows"] == 0


def test_losing_half_is_told_by_the_last_sight_within_a_day() -> None:
    chance = np.random.default_rng(6)
    rows = made_rows(5, days=4, accounts=30)
    rows = part(rows, chance.permutation(np.flatnonzero(chance.random(len(rows.time_us)) < 0.7)))
    column = catalog.index("paid_out")
    rows.features[:, column] = np.where(chance.random(len(rows.time_us)) < 0.3, 0.8, 0.0)
    rows.features[chance.random(len(rows.time_us)) < 0.1, column] = np.nan
    rows.figures[chance.random(len(rows.time_us)) < 0.1, figure.EQUITY_USD] *= -1.0
    rows.figures[chance.random(len(rows.time_us)) < 0.1, figure.EQUITY_USD] = np.nan
    known, fell = warning._halved(rows)
    equity = rows.figures[:, figure.EQUITY_USD]
    spared = 0
    for row in range(len(equity)):
        passed = np.where(rows.account == rows.account[row], rows.time_us - rows.time_us[row], -1)
        passed[passed > DAY_US] = -1
        last = int(np.argmax(passed))
        judged = passed[last] >= 20 * HOUR_US and equity[row] > 0.0 and not math.isnan(equity[last])
        assert known[row] == judged
        if not judged:
            assert not fell[row]
            continue
        out_before, out_after = (np.nan_to_num(rows.features[k, column]) * equity[k] for k in (row, last))
        withdrawn = max(out_after - out_before * 2.0 ** -(passed[last] / DAY_US / 3.0), 0.0)
        assert fell[row] == (equity[last] + withdrawn < 0.5 * equity[row])
        spared += equity[last] < 0.5 * equity[row] and not fell[row]
    assert known.any()
    assert fell.any()
    assert (known & ~fell).any()
    assert spared, "a withdrawal is not a loss"


def test_what_came_to_pass_is_what_the_labels_say(rows: Rows, session: Session) -> None:
    """Alarms on accounts that are liquidated a moment later, and on no others."""
    found = session.run(rows.features).warning
    doomed = rows._replace(liquidated_us=np.where(found > 0.0, rows.time_us + 1, NEVER_US))
    came = doomed.liquidated_us <= doomed.time_us + DAY_US
    judged = warning.early_warning(doomed, found, np.ones(len(found), bool), came)
    assert judged["targets"]["liquidation_24h"]["warning"] == {"precision": 1.0, "recall": 1.0}


# ---- what is refused, and what is said -------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": [*COLUMNS[:-1], CATALOGUE]}, f"column {CATALOGUE} of a catalogue of {CATALOGUE}"),
        ({"features": [*COLUMNS[:-1], -1]}, "column -1"),
        ({"threshold": math.nan}, "threshold nan"),
        ({"medians": [0.0] * len(COLUMNS[1:])}, "medians and bounds"),
        ({"medians": [math.nan] * len(COLUMNS)}, "within float32"),
        ({"lowest": [-math.inf] * len(COLUMNS)}, "within float32"),
        ({"highest": [1e39] * len(COLUMNS)}, "within float32"),
    ],
)
def test_a_warning_that_does_not_fit_is_refused(
    early: EarlyWarning, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(WorkError, match=reason):
        session_of(replace(early.spec, **change))


def test_a_forest_that_cannot_be_walked_is_refused(early: EarlyWarning) -> None:
    forest = early.spec.forest
    for spoilt in (
        forest._replace(feature=np.where(forest.feature == 0, len(COLUMNS), forest.feature).astype(np.int32)),
        forest._replace(left=np.zeros_like(forest.left)),
    ):
        with pytest.raises(WorkError, match="the warning's forest"):
            session_of(replace(early.spec, forest=spoilt))


HEAD = {
    "rows": 9,
    "events": 8,
    "accounts": 7,
    "rounds": 0,
    "slope": 1.0,
    "intercept": 0.04,
    "fitted": "constant",
}


def card_of(early: EarlyWarning | None, judged: dict[str, Any] | None, **heads: dict[str, Any]) -> str:
    told: dict[str, Any] = {name: HEAD | heads.get(name, {}) for name in HEADS}
    return model_card(
        {"datasets": [], "heads": told, "warning": early.model if early else None}, None, judged
    )


def test_the_card_says_what_the_warning_is_and_how_it_does(
    rows: Rows, early: EarlyWarning, session: Session
) -> None:
    found = session.run(rows.features).warning
    judged = warning.early_warning(rows, found, np.ones(len(found), bool), found > 1.0)
    card = card_of(early, judged)
    assert "1% of the training rows raise\nits alarm" in card
    assert f"{early.model['rows']} rows" in card
    shares = judged["targets"]["liquidation_24h"]["warning"]
    assert f"| early warning | {shares['precision']:.3f} | {shares['recall']:.3f} |" in card
    assert f"Of the {judged['targets']['liquidation_24h']['missed_by_margin_ratio']} that" in card
    assert "early warning |" not in card_of(early, None)
    assert "too few rows" in card_of(None, None)


def test_the_card_says_what_was_fitted_after_a_liquidation() -> None:
    card = card_of(None, None)
    assert "a constant share" in card
    assert "Severity is the constant 0.0400 of gross notional, from 7 accounts." in card
    card = card_of(
        None,
        None,
        negative_given_liquidation={"fitted": "calibrated cushion", "rounds": 30},
        severity={"fitted": "line", "rounds": 60, "slope": 0.25},
    )
    assert "the passage of the account's cushion and 30 trees, calibrated" in card
    assert "0.0400 of gross notional and 0.2500 of what closing into a crash's book costs" in card
    assert "the maintenance margin and 60 trees,\nfrom 7 accounts." in card
    assert "constant" not in card
    trees = card_of(None, None, severity={"rounds": 60})
    assert "Severity is the mean 0.0400 of gross notional and 60 trees, from 7 accounts." in trees
    assert "a default" in card_of(None, None, severity={"accounts": 0})
