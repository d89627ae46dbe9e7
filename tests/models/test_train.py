"""Training: the same rows give the same bytes, what is not to be known is not learnt, levels hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from exchange.errors import InputError
from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import emit as figure
from models import baselines
from models.bundle import Bundle, fill_bundle
from models.export import export_heads
from models.grow import FEWEST_EVENTS
from models.heads import HEADS, Outputs
from models.labels import NEVER_US, NO_LABEL_END
from models.rows import HORIZONS_US, Rows
from models.session import Session
from models.severity import DEFAULT_SEVERITY, PRIOR_SEVERITY
from models.train import (
    CUSHION_HAZARD,
    LOSS_FEATURES,
    OF_CLOSING_COST,
    TREE_FEATURES,
    Trained,
    eligible,
    purged,
    targets,
    train,
)
from tests.models.made_rows import START_US, made_rows, part, permuted

HAZARDS = HEADS[:3]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return made_rows(1)


@pytest.fixture(scope="module")
def trained(rows: Rows) -> Trained:
    return train(rows)


def session_of(trained: Trained, folder: Path) -> Session:
    folder.mkdir()
    exported = export_heads([head.spec for head in trained.heads], len(catalog.NAMES))
    fill_bundle(folder, exported.graph, trained.model, exported.forests, "", catalog.fingerprint())
    return Session(Bundle.open(folder, catalog.fingerprint()))


@pytest.fixture(scope="module")
def session(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return session_of(trained, tmp_path_factory.mktemp("trained") / "model")


def bytes_of(trained: Trained) -> tuple[bytes, str]:
    exported = export_heads([head.spec for head in trained.heads], len(catalog.NAMES))
    return exported.graph, json.dumps(trained.model, sort_keys=True)


def facts(trained: Trained) -> dict[str, dict[str, Any]]:
    return {head.spec.name: head.facts for head in trained.heads}


# ---- which rows count ------------------------------------------------------------------------------


def test_a_row_counts_for_a_hazard_as_long_as_nothing_came_before() -> None:
    rows = made_rows(2, days=4, accounts=20, risk=5.0)
    rows.features[::9, catalog.index(catalog.PRIOR_HAZARDS[1])] = np.nan
    for k in range(3):
        counts, came = eligible(rows, k)
        for row in range(len(rows.time_us)):
            end_us, event_us = rows.label_end_us[row, k], rows.liquidated_us[row]
            known = end_us != NO_LABEL_END and not math.isnan(
                rows.features[row, catalog.index(catalog.PRIOR_HAZARDS[k])]
            )
            earlier = k > 0 and event_us <= rows.time_us[row] + HORIZONS_US[k - 1]
            assert counts[row] == (known and not earlier)
            if counts[row]:
                assert came[row] == (event_us <= rows.time_us[row] + HORIZONS_US[k])
        assert counts.any()
        assert came[counts].any()
        assert k == 0 or not counts.all()


def test_an_event_is_counted_in_one_hazard_only() -> None:
    rows = made_rows(3, days=6, accounts=30, risk=5.0)
    counted = np.zeros(len(rows.time_us), int)
    for k in range(3):
        counts, came = eligible(rows, k)
        counted += counts & came
    known = rows.label_end_us[:, -1] != NO_LABEL_END
    happened = rows.liquidated_us <= rows.time_us + HORIZONS_US[-1]
    assert (counted[known] == happened[known]).all()


def test_purging_leaves_nothing_from_after() -> None:
    rows = made_rows(4, days=8, accounts=10)
    for hours in (0, 1, 7, 24, 25, 100, 191, 192):
        until_us = START_US + hours * HOUR_US + 5
        kept = purged(rows, until_us)
        assert (kept.time_us <= until_us).all()
        assert (kept.label_end_us <= until_us).all()
        was = part(rows, rows.time_us <= until_us)
        for left, right in zip(kept, was, strict=True):
            if right is not was.label_end_us:
                assert left.tobytes() == right.tobytes()
        unchanged = kept.label_end_us == was.label_end_us
        assert (was.label_end_us[~unchanged] > until_us).all(), "what was known by then is kept"
        # what came after the last known label is in no target
        for counts, came in targets(kept).values():
            assert (kept.liquidated_us[counts & came] <= until_us).all()


# ---- what comes out --------------------------------------------------------------------------------


def test_the_same_rows_and_seed_give_the_same_bytes(rows: Rows, trained: Trained) -> None:
    assert bytes_of(train(rows)) == bytes_of(trained)
    assert bytes_of(train(rows, seed=8))[0] != bytes_of(trained)[0]


def test_labels_that_are_not_known_change_nothing(rows: Rows, trained: Trained) -> None:
    """What happened to a row whose label cannot be known yet must not be looked at."""
    unknown = rows.label_end_us[:, 0] == NO_LABEL_END
    later = rows.liquidated_us > START_US + 30 * DAY_US
    assert (later & ~unknown).any()
    other = rows._replace(liquidated_us=np.where(later, NEVER_US, rows.liquidated_us))
    assert bytes_of(train(other)) == bytes_of(trained)


def test_heads_say_what_they_were_fitted_on(rows: Rows, trained: Trained) -> None:
    assert tuple(head.spec.name for head in trained.heads) == HEADS
    for k, name in enumerate(HAZARDS):
        counts, came = eligible(rows, k)
        told = facts(trained)[name]
        assert told["rows"] == counts.sum()
        assert told["events"] == (counts & came).sum()
        assert told["accounts"] == len(np.unique(rows.account[counts & came]))
        assert told["accounts"] >= FEWEST_EVENTS
    assert any(facts(trained)[name]["rounds"] for name in HAZARDS), "something is left to learn here"
    assert trained.model["heads"]["hazard_8h"]["rounds"] == facts(trained)["hazard_8h"]["rounds"]


def test_as_many_are_expected_as_came(rows: Rows, session: Session) -> None:
    outputs = session.run(rows.features)
    for horizon, name in enumerate(("pd_liquidation_1h", "pd_liquidation_8h", "pd_liquidation_24h")):
        known = rows.label_end_us[:, horizon] != NO_LABEL_END
        came = (rows.liquidated_us <= rows.label_end_us[:, horizon]) & known
        assert getattr(outputs, name)[known].sum() == pytest.approx(came.sum(), rel=0.15)


def test_it_beats_its_prior_where_there_is_more_to_know(trained: Trained, tmp_path: Path) -> None:
    later = made_rows(99)
    day = session_of(trained, tmp_path / "model").run(later.features).pd_liquidation_24h
    known, came = targets(later)["liquidation_24h"]
    distance = later.figures[:, figure.BUFFER_OVER_SIGMA_DAY]
    assert roc_auc_score(came[known], day[known]) > roc_auc_score(came[known], -distance[known]) + 0.01


def test_risk_moves_the_way_the_catalogue_says(session: Session, rows: Rows) -> None:
    base = rows.features[::97]
    before = session.run(base)
    moved = 0
    for name in TREE_FEATURES:
        column = catalog.index(name)
        direction = catalog.FEATURES[column].direction
        if direction == 0:
            continue
        features = base.copy()
        features[:, column] += direction * 0.7
        after = session.run(features)
        for horizon in ("pd_liquidation_1h", "pd_liquidation_8h", "pd_liquidation_24h"):
            change = getattr(after, horizon) - getattr(before, horizon)
            assert (change >= -1e-15).all(), name
            moved += int((change > 1e-6).sum())
    assert moved > 0


def test_nothing_is_learnt_from_labels_that_mean_nothing(tmp_path: Path) -> None:
    """Trained on shuffled outcomes and judged on shuffled outcomes, any ranking is as good as chance."""
    whole = permuted(made_rows(5, days=40), 6)
    cut_us = START_US + 25 * DAY_US
    trained = train(purged(whole, cut_us))
    later = part(whole, whole.time_us > cut_us)
    outputs: Outputs = session_of(trained, tmp_path / "model").run(later.features)
    for target, probability in (
        ("liquidation_8h", outputs.pd_liquidation_8h),
        ("liquidation_24h", outputs.pd_liquidation_24h),
    ):
        known, came = targets(later)[target]
        events = int(came[known].sum())
        assert events > 100
        assert roc_auc_score(came[known], probability[known]) == pytest.approx(
            0.5, abs=1.5 / math.sqrt(events)
        )


# ---- too little to learn from ----------------------------------------------------------------------


def test_few_events_leave_the_prior_with_a_level(tmp_path: Path) -> None:
    rows = made_rows(7, days=6, accounts=25)
    trained = train(rows)
    outputs = session_of(trained, tmp_path / "model").run(rows.features)
    for k, name in enumerate(HAZARDS):
        head = trained.heads[k]
        assert 0 < head.facts["accounts"] < FEWEST_EVENTS
        assert (head.booster, head.spec.trees, head.spec.slope) == (None, None, 1.0)
        counts, came = eligible(rows, k)
        chance = 1.0 / (1.0 + np.exp(-getattr(outputs, f"score_{name}")[counts]))
        assert chance.sum() == pytest.approx(came[counts].sum(), rel=1e-6)


def test_without_rows_or_liquidations_it_says_so(rows: Rows) -> None:
    with pytest.raises(InputError, match="no account has an open position"):
        train(part(rows, np.zeros(len(rows.time_us), bool)))
    never = rows._replace(liquidated_us=np.full(len(rows.time_us), NEVER_US))
    with pytest.raises(InputError, match="no liquidation"):
        train(never)


def test_negative_equity_of_few_is_a_share_of_accounts_with_half_a_case_added(rows: Rows) -> None:
    rows = rows._replace(negative_us=np.where(rows.account < 20, rows.negative_us, NEVER_US))
    trained = train(rows)
    end_us = rows.label_end_us[:, -1]
    known = end_us != NO_LABEL_END
    negative = set(rows.account[known & (rows.negative_us <= end_us)].tolist())
    either = negative | set(rows.account[known & (rows.liquidated_us <= end_us)].tolist())
    share = (len(negative) + 0.5) / (len(either) + 1.0)
    assert trained.heads[3].spec.intercept == pytest.approx(math.log(share / (1.0 - share)))
    nobody = train(rows._replace(negative_us=np.full(len(rows.time_us), NEVER_US)))
    assert 0.0 < 1.0 / (1.0 + math.exp(-nobody.heads[3].spec.intercept)) < 0.01
    assert nobody.heads[4].spec.intercept == DEFAULT_SEVERITY


def test_severity_is_loss_over_notional_once_an_account(rows: Rows, trained: Trained) -> None:
    assert trained.heads[4].spec.intercept == pytest.approx(0.03), "three percent is what every one lost"
    assert trained.model["mean_severity"] == trained.heads[4].spec.intercept
    # a loss of many rows of one account weighs as much as one of a single row
    end_us = rows.label_end_us[:, -1]
    cases = np.flatnonzero((end_us != NO_LABEL_END) & (rows.negative_us <= end_us))
    account = rows.account[cases[0]]
    dear = np.where(rows.account == account, 10.0 * rows.shortfall_usd, rows.shortfall_usd)
    accounts = {int(a): max(row for row in cases if rows.account[row] == a) for a in rows.account[cases]}
    notional = rows.figures[list(accounts.values()), figure.GROSS_NOTIONAL_USD]
    lost = dear[list(accounts.values())]
    assert train(rows._replace(shortfall_usd=dear)).heads[4].spec.intercept == pytest.approx(
        lost.sum() / notional.sum()
    )


def test_what_heads_read_and_is_nearly_always_known_is_required(rows: Rows) -> None:
    features = rows.features.copy()
    some, few, unread = "margin_ratio", "position_over_depth", "jump_share"
    features[::50, catalog.index(some)] = np.nan  # 2% missing
    features[::200, catalog.index(few)] = np.nan  # half a percent
    required = set(train(rows._replace(features=features)).model["required_features"])
    assert {*catalog.PRIOR_HAZARDS, few} <= required
    assert required <= {
        *catalog.PRIOR_HAZARDS,
        *TREE_FEATURES,
        *LOSS_FEATURES,
        CUSHION_HAZARD,
        OF_CLOSING_COST,
        PRIOR_SEVERITY,
    }
    assert some not in required and unread not in required


def test_trees_that_do_not_clearly_rank_better_are_left_out() -> None:
    """Where the prior knows all there is to know, walk-forward must say so."""
    trained = train(made_rows(11, extra=0.0))
    assert [facts(trained)[name]["rounds"] for name in HAZARDS] == [0, 0, 0]


def test_negative_equity_and_severity_are_fitted_where_cases_allow(tmp_path: Path) -> None:
    """A thin cushion makes negative equity likelier, and slippage makes it dearer."""
    made = made_rows(12, accounts=120)
    rng = np.random.default_rng(4)
    cushion = rng.normal(-1.0, 1.5, len(made.time_us))
    slippage = np.exp(rng.normal(0.0, 1.0, len(made.time_us)))
    features = made.features.copy()
    features[:, catalog.index(CUSHION_HAZARD)] = cushion
    features[:, catalog.index("slippage_to_close_bps")] = slippage
    falls = (made.liquidated_us != NEVER_US) & (rng.random(len(cushion)) < 1.0 / (1.0 + np.exp(-cushion)))
    share = np.where(slippage > 1.0, 0.2, 0.02)
    rows = made._replace(
        features=features,
        negative_us=np.where(falls, made.liquidated_us, NEVER_US),
        shortfall_usd=np.where(falls, share * made.figures[:, figure.GROSS_NOTIONAL_USD], math.nan),
    )
    trained = train(rows)
    told = facts(trained)
    assert told["negative_given_liquidation"]["fitted"] == "calibrated cushion"
    assert trained.heads[3].spec.slope == pytest.approx(1.0, abs=0.25)
    assert trained.heads[3].spec.intercept == pytest.approx(0.0, abs=0.25)
    assert told["severity"]["rounds"] > 0
    outputs = session_of(trained, tmp_path / "model").run(features)
    assert np.median(outputs.severity[slippage > 1.2]) > 3.0 * np.median(outputs.severity[slippage < 0.8])


def test_levels_of_baselines_make_expected_what_came(rows: Rows, trained: Trained) -> None:
    ratio = rows.figures[:, figure.MARGIN_RATIO]
    distance = rows.figures[:, figure.BUFFER_OVER_SIGMA_DAY]
    for baseline in baselines.BASELINES:
        for target, (known, came) in targets(rows).items():
            level = trained.model["baseline_levels"][baseline][target]
            raw: npt.NDArray[np.float64] = baselines.raw_probability(
                baseline, target, ratio[known], distance[known]
            )
            assert baselines.shifted(raw, level).sum() == pytest.approx(came[known].sum(), rel=1e-9)
