"""Tuning: the same choice every time, on the purged folds, nothing made of noise, what is there found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from exchange.units import DAY_US, HOUR_US
from features import catalog
from models import grow as growing
from models import train as training
from models import tune
from models.card import model_card
from models.export import export_heads
from models.grow import FOLDS, PARAMETERS, ROUNDS, Ground, Grown, folds_of, grow
from models.labels import purged_folds
from models.train import TUNED_HEADS, Trained, eligible, train
from models.tune import FEWEST_FOLDS, Tuning, binned, tuned, unseen
from tests.models.made_rows import EVERY_US, made_rows, permuted

TRIALS = 6
SEARCHED = {"num_leaves", "min_data_in_leaf", "learning_rate", "lambda_l2", "feature_fraction"}


def ground(seed: int, strength: float, days: int = 24, accounts: int = 40) -> Ground:
    """Rows whose odds rise by e^strength where two columns are large at once, which the offset does not know.

    So few rows are in that corner that leaves of the fixed size do not part it from the rest.
    """
    rng = np.random.default_rng(seed)
    time_us = np.repeat(np.arange(0, days * DAY_US, EVERY_US), accounts)
    features = rng.normal(size=(len(time_us), 4))
    offset = rng.normal(-3.0, 1.0, len(time_us))
    corner = (features[:, 0] > 0.8) & (features[:, 1] > 0.8)
    came = rng.random(len(time_us)) < growing.sigmoid(offset + strength * corner)
    return Ground(features, [0] * 4, offset, came, folds_of(time_us, time_us + 24 * HOUR_US, came), 7)


@pytest.fixture(scope="module")
def planted() -> Ground:
    return ground(1, 3.5)


@pytest.fixture(scope="module")
def found(planted: Ground) -> tuple[Grown, dict[str, Any]]:
    grown, facts = tuned(planted, Tuning(TRIALS))
    return grown, facts["tuning"]


def graph(trained: Trained) -> bytes:
    return export_heads([head.spec for head in trained.heads], len(catalog.NAMES)).graph


def test_what_needs_smaller_leaves_is_found_and_taken(
    planted: Ground, found: tuple[Grown, dict[str, Any]]
) -> None:
    grown, facts = found
    assert facts["chosen"]
    assert facts["parameters"]["min_data_in_leaf"] < PARAMETERS["min_data_in_leaf"]
    assert facts["gain"] > growing.CLEAR_GAIN * facts["gain_standard_error"] > 0.0
    assert grown.booster is not None and grown.rounds in ROUNDS[1:]
    fixed = grow(planted)
    later = ground(99, 3.5)

    def precision(of: Grown) -> float:
        assert of.booster is not None
        margin = growing.margin_of(of.booster, later.features, of.rounds)
        return float(average_precision_score(later.came, later.offset + margin))

    assert precision(grown) > precision(fixed) + 0.02


def test_the_same_rows_and_seed_give_the_same_choice(
    planted: Ground, found: tuple[Grown, dict[str, Any]]
) -> None:
    grown, facts = found
    again, same = tuned(planted, Tuning(TRIALS))
    assert same["tuning"] == facts
    assert grown.booster is not None and again.booster is not None
    assert again.booster.model_to_string() == grown.booster.model_to_string()
    assert again.margin.tobytes() == grown.margin.tobytes()
    assert json.loads(json.dumps(facts)) == facts, "it goes into model.json"
    other = Ground(**(vars(planted) | {"seed": 8}))
    assert tuned(other, Tuning(TRIALS))[1]["tuning"]["tried"] != facts["tried"]


def test_all_trials_are_told_and_the_fixed_parameters_are_the_first(
    found: tuple[Grown, dict[str, Any]],
) -> None:
    tried = found[1]["tried"]
    assert found[1]["trials"] == TRIALS == len(tried) - 1
    assert {name: tried[0][name] for name in SEARCHED} == {name: PARAMETERS[name] for name in SEARCHED}
    assert all(set(one) == SEARCHED | {"gain_over_none"} for one in tried)
    best = max(tried, key=lambda one: float(one["gain_over_none"]))
    assert {name: best[name] for name in SEARCHED} == found[1]["parameters"]


def test_rows_are_binned_once(planted: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = lgb.Dataset

    def counted(data: Any, *arguments: Any, **named: Any) -> lgb.Dataset:
        made.append(len(data))
        return plain(data, *arguments, **named)

    monkeypatch.setattr(lgb, "Dataset", counted)
    _, facts = tuned(planted, Tuning(TRIALS))
    assert facts["tuning"]["chosen"]
    assert made == [len(planted.came)]


def test_the_parts_that_are_lent_are_what_the_folds_train_on(planted: Ground) -> None:
    parts = binned(planted)
    for number, fold in [*enumerate(planted.folds), (None, None)]:
        lent, anew = parts.data(number), planted.data(number).construct()
        assert lent.num_data() == (len(fold.training) if fold else len(planted.came))
        np.testing.assert_array_equal(lent.get_label(), anew.get_label())
        np.testing.assert_array_equal(lent.get_init_score(), anew.get_init_score())
    # all rows have the same bins either way, so the same parameters grow the same trees
    settings = planted.parameters({})
    texts = [lgb.train(settings, of.data(None), 20).dump_model()["tree_info"] for of in (planted, parts)]
    assert texts[0] == texts[1]


def test_each_fold_is_scored_by_what_the_others_rank_best() -> None:
    scores = np.random.default_rng(3).random((4, len(ROUNDS), 5))
    expected = []
    for fold in range(5):
        others = [other for other in range(5) if other != fold]
        pairs = [(t, r) for t in range(4) for r in range(len(ROUNDS))]
        best = max(pairs, key=lambda pair: float(scores[pair][others].sum()))
        expected.append(scores[best][fold])
    np.testing.assert_array_equal(unseen(scores), expected)


def test_nothing_is_made_of_noise() -> None:
    for seed in range(3):
        nothing = ground(seed, 0.0, accounts=20)
        grown, facts = tuned(nothing, Tuning(TRIALS))
        assert not facts["tuning"]["chosen"]
        assert grown.rounds == grow(nothing).rounds


def test_labels_that_mean_nothing_leave_the_model_as_it_was() -> None:
    rows = permuted(made_rows(5, days=14), 7)
    plain, heard = train(rows), []
    searched = train(rows, tuning=Tuning(3, heard.append))
    assert graph(searched) == graph(plain)
    assert sum(heard) == 3 * TUNED_HEADS
    tuning = [head.facts["tuning"] for head in searched.heads if "tuning" in head.facts]
    assert any(one["trials"] for one in tuning) and not any(one["chosen"] for one in tuning)
    without = {
        name: {fact: value for fact, value in head.items() if fact != "tuning"}
        for name, head in searched.model["heads"].items()
    }
    assert searched.model | {"heads": without} == plain.model | {"tuned_trials": 3}


def test_without_trials_nothing_is_said_of_tuning() -> None:
    trained = train(made_rows(7, days=8, accounts=40))
    assert "tuned_trials" not in trained.model
    assert not any("tuning" in head for head in trained.model["heads"].values())


def test_it_is_judged_on_the_purged_folds_of_the_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Ground] = []

    def watched(of: Ground, tuning: Tuning | None) -> tuple[Grown, dict[str, Any]]:
        seen.append(of)
        return tuned(of, None)

    monkeypatch.setattr(training, "tuned", watched)
    rows = made_rows(8, days=16)
    train(rows, tuning=Tuning(1))
    for k in range(3):
        counts, _ = eligible(rows, k)
        time_us, end_us = rows.time_us[counts], rows.label_end_us[counts, k]
        expected = purged_folds(time_us, end_us, FOLDS)
        assert len(seen[k].folds) == len(expected) == FOLDS
        for fold, wanted in zip(seen[k].folds, expected, strict=True):
            np.testing.assert_array_equal(fold.training, wanted.training)
            np.testing.assert_array_equal(fold.validation, wanted.validation)
            assert end_us[fold.training].max() <= time_us[fold.validation].min()
            days = set((time_us[fold.validation] // DAY_US).tolist())
            assert not days & set((time_us[fold.training] // DAY_US).tolist())


def test_a_short_record_is_left_alone(planted: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_search", lambda *_: pytest.fail("searched"))
    short = Ground(**(vars(planted) | {"folds": planted.folds[: FEWEST_FOLDS - 1]}))
    nobody = np.zeros(len(planted.came), bool)
    nobody[:: len(nobody) // 20] = True
    rare = Ground(**(vars(planted) | {"came": nobody}))
    for of in (short, rare):
        heard: list[float] = []
        assert tuned(of, Tuning(5, heard.append))[1] == {"tuning": {"trials": 0, "chosen": False}}
        assert heard == [5]


def test_the_run_and_the_card_say_what_was_tried(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from models import registry
    from models.bundle import Bundle
    from pipelines import train as stage

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    asked: list[int] = []
    monkeypatch.setattr(stage, "_held_out", lambda _, tune: asked.append(tune))  # another test's business
    stage.train_model([small_dataset], tmp_path / "model", None, uri, tune=2)
    assert asked == [2], "what is said of held-out time is said of a model that was tuned as well"
    bundle = Bundle.open(tmp_path / "model", catalog.fingerprint())
    assert bundle.model["tuned_trials"] == 2
    assert "optuna" in bundle.model["libraries"]
    assert "\nTuning by 2 trials a head, of hazard_" in bundle.card
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(registry.EXPERIMENT).experiment_id])
    assert run.data.params["tuned_trials"] == "2"
    for name, head in bundle.model["heads"].items():
        for fact, value in head.get("tuning", {}).items():
            if fact in ("trials", "chosen", "gain", "gain_standard_error"):
                assert run.data.metrics[f"{name}_tuning_{fact}"] == pytest.approx(float(value))


def test_the_card_names_the_heads_that_were_tuned() -> None:
    head = {
        "rows": 1,
        "events": 1,
        "accounts": 1,
        "slope": 1.0,
        "intercept": 0.1,
        "fitted": "constant",
        "rounds": 0,
    }
    model = {"datasets": [], "warning": None, "tuned_trials": 9}

    def line(*chosen: bool) -> str:
        tuning = [{"tuning": {"trials": 9, "chosen": one}} for one in chosen]
        heads = dict(zip(("hazard_1h", "hazard_8h"), ({**head, **one} for one in tuning), strict=True))
        heads |= {"negative_given_liquidation": head, "severity": head}
        text = model_card(model | {"heads": heads}, None)
        return next(line for line in text.splitlines() if line.startswith("Tuning"))

    start = "Tuning by 9 trials a head, of hazard_1h, hazard_8h, found "
    assert line(False, True) == start + "better parameters for hazard_8h."
    assert line(False, False) == start + "nothing clearly better than the fixed parameters."
