from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exchange.errors import InputError, WorkError
from models.bundle import Bundle, BundleError
from models.export import HeadSpec, export_heads
from models.forest import forest_from_dump
from models.heads import HEADS, Outputs
from models.session import Session
from tests.models.boosters import HARD, KINDS, booster, hard_rows, table_of_decisions
from tests.oracle import tree_oracle

Matrix = NDArray[np.float64]

CATALOGUE = 10
FEATURES = {  # every head sees other columns of the catalogue, in another order
    name: tuple(int(column) for column in np.random.default_rng(seed).permutation(CATALOGUE)[:6])
    for seed, name in enumerate(HEADS)
}
OFFSETS: dict[str, int | None] = dict(zip(HEADS, (8, 9, 8, None, None), strict=True))


def session_of(heads: list[HeadSpec], feature_count: int) -> Session:
    graph, forests = export_heads(heads, feature_count)
    return Session(Bundle(Path("model"), "version", "fingerprint", {}, graph, forests, "card"))


def constant_heads(**changed: HeadSpec) -> list[HeadSpec]:
    return [changed.get(name, HeadSpec(name)) for name in HEADS]


def same(left: Outputs, right: Outputs) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def boosters() -> dict[str, lightgbm.Booster]:
    return {
        name: booster(kind, seed=seed) for seed, (name, kind) in enumerate(zip(HEADS, KINDS, strict=True))
    }


@pytest.fixture(scope="module")
def heads(boosters: dict[str, lightgbm.Booster]) -> list[HeadSpec]:
    return [
        HeadSpec(
            name,
            boosters[name].dump_model(),
            FEATURES[name],
            OFFSETS[name],
            intercept=0.1 * number - 0.7,
            slope=1.3 - 0.1 * number,
        )
        for number, name in enumerate(HEADS)
    ]


@pytest.fixture(scope="module")
def session(heads: list[HeadSpec]) -> Session:
    return session_of(heads, CATALOGUE)


@pytest.fixture(scope="module")
def rows(heads: list[HeadSpec]) -> Matrix:
    blocks = []
    for number, head in enumerate(heads):
        block = np.random.default_rng(100 + number).normal(size=(20_000, CATALOGUE))
        assert head.trees is not None
        block[:, head.features] = hard_rows(head.trees, 6, len(block), seed=number)
        blocks.append(block)
    matrix = np.concatenate(blocks)
    return matrix[np.random.default_rng(0).permutation(len(matrix))]


def reference(boosters: dict[str, lightgbm.Booster], heads: list[HeadSpec], matrix: Matrix) -> Outputs:
    scores = []
    for head in heads:
        trees = boosters[head.name].predict(matrix[:, head.features], raw_score=True, num_threads=1)
        offset = matrix[:, head.offset] if head.offset is not None else 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            scores.append(head.intercept + head.slope * (offset + np.asarray(trees)))
    with np.errstate(over="ignore"):
        h1, h8, h24, negative, severity = (1.0 / (1.0 + np.exp(-score)) for score in scores)
    p8 = h1 + (1.0 - h1) * h8
    p24 = p8 + (1.0 - p8) * h24
    return Outputs(*scores, h1, p8, p24, p24 * negative, severity, np.full(len(matrix), math.nan))


def test_the_graph_is_lightgbm_on_rows_chosen_to_break_it(
    boosters: dict[str, lightgbm.Booster], heads: list[HeadSpec], session: Session, rows: Matrix
) -> None:
    assert len(rows) >= 100_000
    answer, expected = session.run(rows), reference(boosters, heads, rows)
    for name, got, want in zip(Outputs._fields, answer, expected, strict=True):
        if name.startswith("score_"):
            assert np.array_equal(got, want, equal_nan=True), name  # to the bit, not just within 1e-6
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-300, err_msg=name)


def test_a_row_scores_the_same_in_any_company(session: Session, rows: Matrix) -> None:
    whole = session.run(rows)
    for size, count in ((1, 1_500), (2, 1_500), (7, 3_500), (64, 20_000), (1_000, 40_000)):
        parts = [session.run(rows[first : first + size]) for first in range(0, count, size)]
        joined = Outputs(*(np.concatenate(columns)[:count] for columns in zip(*parts, strict=True)))
        assert same(joined, Outputs(*(column[:count] for column in whole))), size
    order = np.random.default_rng(5).permutation(len(rows))
    assert same(session.run(rows[order]), Outputs(*(column[order] for column in whole)))


def test_memory_layout_does_not_matter(session: Session, rows: Matrix) -> None:
    some = rows[:501]
    assert same(session.run(some), session.run(np.asfortranarray(some)))
    assert same(session.run(some), session.run(np.repeat(some, 2, axis=0)[::2]))


def test_every_decision_with_every_threshold_and_input_that_could_matter() -> None:
    trees = table_of_decisions()
    dump = trees.dump_model()
    inputs = np.array([*HARD, 1.0, -1.0, 0.5, -0.5])[:, None]
    expected = trees.predict(inputs, raw_score=True, num_threads=1)
    assert [tree_oracle.margin(dump, row) for row in inputs.tolist()] == list(expected)
    session = session_of(constant_heads(hazard_1h=HeadSpec("hazard_1h", dump, (1,))), 2)
    answer = session.run(np.concatenate([np.full_like(inputs, 7.0), inputs], axis=1))
    assert np.array_equal(answer.score_hazard_1h, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_is_lightgbm(kind: str) -> None:
    trees = booster(kind, trees=20, seed=7)
    dump = trees.dump_model()
    matrix = hard_rows(dump, 6, 400, seed=3)
    expected = trees.predict(matrix, raw_score=True, num_threads=1)
    assert [tree_oracle.margin(dump, row) for row in matrix.tolist()] == list(np.asarray(expected))


def test_a_booster_that_never_splits() -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 2))
    parameters = {"objective": "binary", "min_data_in_leaf": 40, "verbose": -1, "num_threads": 1}
    trees = lightgbm.train(parameters, lightgbm.Dataset(matrix, matrix[:, 0] > 0.3), 5)
    dump = trees.dump_model()
    assert all("leaf_value" in tree["tree_structure"] for tree in dump["tree_info"])
    session = session_of(constant_heads(severity=HeadSpec("severity", dump, (0, 1))), 2)
    assert np.array_equal(session.run(matrix).score_severity, trees.predict(matrix, raw_score=True))


def test_one_leaf_among_trees_that_split() -> None:
    trees = booster("gaps", trees=6)
    dump = trees.dump_model()
    dump["tree_info"][2]["tree_structure"] = {"leaf_value": 0.25}
    dump["tree_info"][5]["tree_structure"] = {"leaf_value": -1.5, "leaf_count": 0}
    session = session_of(constant_heads(hazard_8h=HeadSpec("hazard_8h", dump, range(6))), 6)
    matrix = hard_rows(dump, 6, 200, seed=1)
    assert list(session.run(matrix).score_hazard_8h) == [
        tree_oracle.margin(dump, row) for row in matrix.tolist()
    ]


@pytest.fixture(scope="module")
def tail() -> Session:
    """Heads that are their prior, to put any score before the rest of the graph."""
    return session_of([HeadSpec(name, offset=number) for number, name in enumerate(HEADS)], len(HEADS))


ANY_SCORE = st.floats(allow_nan=False) | st.floats(-800.0, 800.0) | st.floats(-45.0, 45.0)


@given(st.lists(st.tuples(*[ANY_SCORE] * len(HEADS)), min_size=1, max_size=40))
def test_probabilities_are_ordered_and_bounded_whatever_the_scores(
    tail: Session, scores: list[tuple[float, ...]]
) -> None:
    out = tail.run(np.array(scores))
    chain = (out.pd_liquidation_1h, out.pd_liquidation_8h, out.pd_liquidation_24h)
    assert np.all(chain[0] >= 0.0)
    assert np.all(chain[0] <= chain[1])
    assert np.all(chain[1] <= chain[2])
    assert np.all(chain[2] <= 1.0)
    assert np.all((out.pd_negative_equity_24h >= 0.0) & (out.pd_negative_equity_24h <= chain[2]))
    assert np.all((out.severity >= 0.0) & (out.severity <= 1.0))


@given(st.lists(ANY_SCORE, min_size=40, max_size=40).map(sorted))
def test_a_higher_score_is_never_a_lower_probability(tail: Session, scores: list[float]) -> None:
    matrix = np.zeros((len(scores), len(HEADS)))
    matrix[:, 0] = scores
    assert np.all(np.diff(tail.run(matrix).pd_liquidation_1h) >= 0.0)


def test_probabilities_of_saturated_scores(tail: Session) -> None:
    def first(score: float) -> float:
        return float(tail.run(np.full((3, len(HEADS)), score)).pd_liquidation_1h[2])

    assert (first(-math.inf), first(-800.0), first(0.0), first(800.0), first(math.inf)) == (0, 0, 0.5, 1, 1)
    assert first(-50.0) == pytest.approx(math.exp(-50.0), rel=1e-12)  # not rounded away against 1


def test_a_missing_prior_is_missing_in_what_rests_on_it_and_nowhere_else(tail: Session) -> None:
    matrix = np.zeros((len(HEADS) + 1, len(HEADS)))
    matrix[np.arange(len(HEADS)), np.arange(len(HEADS))] = np.nan
    out = tail.run(matrix)
    missing = {
        name: set(np.flatnonzero(np.isnan(column))) for name, column in zip(Outputs._fields, out, strict=True)
    }
    assert missing == {
        **{f"score_{name}": {number} for number, name in enumerate(HEADS)},
        "pd_liquidation_1h": {0},
        "pd_liquidation_8h": {0, 1},
        "pd_liquidation_24h": {0, 1, 2},
        "pd_negative_equity_24h": {0, 1, 2, 3},
        "severity": {4},
        "warning": set(range(len(matrix))),  # there is none
    }


def test_a_prior_of_one_head_does_not_touch_another() -> None:
    session = session_of(constant_heads(hazard_8h=HeadSpec("hazard_8h", offset=0)), 1)
    out = session.run(np.array([[np.nan], [np.inf]]))
    assert np.array_equal(out.score_hazard_1h, [0.0, 0.0])
    assert np.array_equal(out.score_severity, [0.0, 0.0])


@pytest.mark.parametrize(
    ("value", "severity"),
    [(-0.2, 0.0), (0.0, 0.0), (0.3, 0.3), (1.0, 1.0), (1.7, 1.0), (np.inf, 1.0), (-np.inf, 0.0)],
)
def test_severity_without_a_sigmoid_is_cut_to_shares(value: float, severity: float) -> None:
    head = HeadSpec("severity", offset=0, link="identity")
    session = session_of(constant_heads(severity=head), 1)
    assert session.run(np.array([[value]])).severity[0] == severity
    assert np.isnan(session.run(np.array([[np.nan]])).severity[0])


def test_a_constant_head_is_its_intercept() -> None:
    head = HeadSpec("severity", intercept=0.02, link="identity")
    session = session_of(constant_heads(severity=head), 3)
    out = session.run(np.full((2, 3), np.nan))
    assert np.array_equal(out.severity, [0.02, 0.02])
    assert np.array_equal(out.pd_liquidation_1h, [0.5, 0.5])


def test_no_rows_give_no_scores(session: Session) -> None:
    assert all(column.shape == (0,) for column in session.run(np.empty((0, CATALOGUE))))


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((2, CATALOGUE - 1)),
        np.zeros(CATALOGUE),
        np.zeros((2, CATALOGUE), np.float32),
        np.zeros((2, CATALOGUE), ">f8"),
        np.zeros((2, CATALOGUE), np.int64),
    ],
)
def test_a_matrix_of_another_form_is_refused(session: Session, matrix: Any) -> None:
    with pytest.raises(InputError, match="the model takes float64"):
        session.run(matrix)


def test_the_same_heads_give_the_same_bytes(heads: list[HeadSpec]) -> None:
    assert export_heads(heads, CATALOGUE).graph == export_heads(heads[::-1], CATALOGUE).graph


@pytest.mark.parametrize("graph", [b"", b"not a graph", b"\x08\x0a"])
def test_what_is_no_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(BundleError, match=r"model/model\.onnx|model: model\.onnx") as refusal:
        Session(Bundle(Path("model"), "version", "fingerprint", {}, graph, {}, "card"))
    assert "\n" not in str(refusal.value)


def trained(**parameters: Any) -> dict[str, Any]:
    chance = np.random.default_rng(0)
    matrix = np.column_stack([chance.integers(0, 8, 400), chance.normal(size=400)]).astype(float)
    label = (matrix[:, 0] % 3 == 0) + (matrix[:, 1] > 0)
    settings = {"objective": "regression", "verbose": -1, "num_threads": 1, "num_leaves": 4, **parameters}
    columns = settings.pop("categorical_feature", "auto")
    data = lightgbm.Dataset(matrix, label, categorical_feature=columns, params=settings)
    return dict(lightgbm.train(settings, data, 3).dump_model())


def empty_leaf() -> dict[str, Any]:
    dump = trained()
    dump["tree_info"][0]["tree_structure"]["left_child"] = {"leaf_value": 1.0, "leaf_count": 0}
    return dump


@pytest.mark.parametrize(
    ("dump", "reason"),
    [
        (lambda: trained(categorical_feature=[0]), "categorical splits cannot be exported"),
        (lambda: trained(boosting="rf", bagging_freq=1, bagging_fraction=0.5), "averages its trees"),
        (lambda: trained(objective="multiclass", num_class=3), "several classes"),
        (lambda: trained(linear_tree=True), "linear leaves"),
        (empty_leaf, "no training row"),
    ],
)
def test_what_has_no_exact_counterpart_is_refused(dump: Any, reason: str) -> None:
    with pytest.raises(WorkError, match=reason):
        forest_from_dump(dump(), (0, 1))


def test_an_unknown_missing_type_is_refused() -> None:
    dump = copy.deepcopy(trained())
    dump["tree_info"][0]["tree_structure"]["missing_type"] = "Infinity"
    with pytest.raises(WorkError, match="missing type 'Infinity'"):
        forest_from_dump(dump, (0, 1))


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        (constant_heads()[1:], "needs the heads"),
        ([*constant_heads(), HeadSpec("severity")], "needs the heads"),
        ([*constant_heads()[1:], HeadSpec("hazard_2h")], "given .*hazard_2h"),
        (constant_heads(severity=HeadSpec("severity", slope=math.nan)), "slope nan"),
        (constant_heads(severity=HeadSpec("severity", intercept=math.inf)), "intercept inf"),
        (constant_heads(severity=HeadSpec("severity", offset=3)), "column 3 of a catalogue of 3"),
        (constant_heads(severity=HeadSpec("severity", offset=-1)), "column -1"),
        (constant_heads(hazard_1h=HeadSpec("hazard_1h", link="identity")), "link 'identity'"),
        (constant_heads(hazard_1h=HeadSpec("hazard_1h", trained(), (0,))), "trained on 2 columns, 1 were"),
        (constant_heads(hazard_1h=HeadSpec("hazard_1h", trained(), (0, 3))), "column 3"),
    ],
)
def test_heads_that_do_not_fit_are_refused(heads: list[HeadSpec], reason: str) -> None:
    with pytest.raises(WorkError, match=reason):
        export_heads(heads, 3)
