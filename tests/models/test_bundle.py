from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange.errors import InputError, WorkError
from models.bundle import FILES, MANIFEST, Bundle, BundleError, fill_bundle
from models.export import Export, HeadSpec, export_heads
from models.forest import Forest, fault_of
from models.heads import HEADS
from models.session import Session
from tests.models.boosters import booster

FINGERPRINT = sha256(b"this catalogue").hexdigest()
OTHER = sha256(b"another catalogue").hexdigest()
MODEL = {
    "heads": {"severity": {"intercept": 0.1}},
    "horizons_h": [1, 8, 24],
    "note": "σ by coin",
    "nothing": None,
}
CARD = "# Model card\n\nTrained on generated accounts, × 2.\n"


@pytest.fixture(scope="module")
def export() -> Export:
    dump = booster("gaps", trees=5, leaves=5, rows=500).dump_model()
    return export_heads([HeadSpec(name, dump, range(6)) for name in HEADS], 6)


@pytest.fixture(scope="module")
def good(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    fill_bundle(folder, export.graph, MODEL, export.forests, CARD, FINGERPRINT)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good, tmp_path / "model"))


def refusal(folder: Path, fingerprint: str = FINGERPRINT) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder, fingerprint)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_what_is_written_is_read_back(good: Path, export: Export) -> None:
    bundle = Bundle.open(good, FINGERPRINT)
    assert bundle.graph == export.graph
    assert bundle.model == MODEL
    assert bundle.card == CARD
    assert bundle.fingerprint == FINGERPRINT
    for head in HEADS:
        for name, got, want in zip(Forest._fields, bundle.trees[head], export.forests[head], strict=True):
            assert got.dtype == want.dtype
            assert np.array_equal(got, want), name
    matrix = np.random.default_rng(0).normal(size=(9, 6))
    assert np.all(np.isfinite(Session(bundle).run(matrix).pd_negative_equity_24h))


def test_a_graph_bound_to_its_own_memory_gives_the_same_bytes(good: Path) -> None:
    session = Session(Bundle.open(good, FINGERPRINT))
    bound = session.bound(13)
    chance = np.random.default_rng(0)
    for _ in range(20):
        matrix = chance.normal(size=(13, 6))
        matrix[chance.random(matrix.shape) < 0.1] = np.nan
        before = matrix.tobytes()
        for own, usual in zip(bound.tables(matrix), session.tables(matrix), strict=True):
            assert own.tobytes() == usual.tobytes()
        assert matrix.tobytes() == before


def test_the_same_content_is_the_same_bytes(good: Path, export: Export, tmp_path: Path) -> None:
    again = dict(reversed(MODEL.items()))
    version = fill_bundle(tmp_path, export.graph, again, export.forests, CARD, FINGERPRINT)
    assert version == Bundle.open(good, FINGERPRINT).model_version
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in good.iterdir()
    }


def test_the_version_names_what_decides_a_score(export: Export, tmp_path: Path) -> None:
    def version(name: str, model: dict[str, Any], card: str, graph: bytes) -> str:
        (tmp_path / name).mkdir()
        return fill_bundle(tmp_path / name, graph, model, export.forests, card, FINGERPRINT)

    first = version("a", MODEL, CARD, export.graph)
    assert version("b", MODEL, CARD + "more", export.graph) == first
    assert version("c", {**MODEL, "note": "x"}, CARD, export.graph) != first
    assert version("d", MODEL, CARD, export.graph + b"x") != first


@pytest.mark.parametrize(
    "model", [{"level": float("nan")}, {"level": float("inf")}, {"level": np.float32(1)}, {1j: 2}]
)
def test_a_description_that_is_no_json_is_not_written(export: Export, tmp_path: Path, model: Any) -> None:
    with pytest.raises(WorkError, match="not plain JSON"):
        fill_bundle(tmp_path, export.graph, model, export.forests, CARD, FINGERPRINT)
    assert not list(tmp_path.iterdir())


def test_trees_of_every_head_are_needed(export: Export, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="needs trees for"):
        fill_bundle(
            tmp_path, export.graph, MODEL, {"severity": export.forests["severity"]}, CARD, FINGERPRINT
        )


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    chance = np.random.default_rng(len(content))
    for place in {0, len(content) - 1, *chance.integers(0, len(content), 200).tolist()}:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(flipped)
        assert "its digest is not the manifest's" in refusal(folder), place
    path.write_bytes(content)
    Bundle.open(folder, FINGERPRINT)


def test_a_flipped_bit_of_any_byte_of_the_manifest_is_refused(folder: Path) -> None:
    path = folder / MANIFEST
    content = path.read_bytes()
    chance = np.random.default_rng(1)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(flipped)
        refusal(folder)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_truncation_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for length in {0, 1, len(content) // 2, len(content) - 1, *range(0, len(content), 4096)}:
        path.write_bytes(content[:length])
        refusal(folder)
    path.write_bytes(content + b"\n")
    refusal(folder)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def swap(folder: Path) -> None:
    (folder / "card.md").rename(folder / "other")
    (folder / "model.json").rename(folder / "card.md")
    (folder / "other").rename(folder / "model.json")


def link(folder: Path) -> None:
    (folder / "card.md").rename(folder.parent / "card.md")
    (folder / "card.md").symlink_to(folder.parent / "card.md")


def dangling(folder: Path) -> None:
    (folder / "card.md").unlink()
    (folder / "card.md").symlink_to(folder / "nowhere")


def pipe(folder: Path) -> None:
    (folder / "card.md").unlink()
    os.mkfifo(folder / "card.md")


def nested(folder: Path) -> None:
    (folder / "card.md").unlink()
    (folder / "card.md").mkdir()


def edit(**changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest.update(changed)
        manifest = {key: value for key, value in manifest.items() if value is not ...}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    return change


def edit_entry(name: str, entry: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        edit(files={**files, name: entry})(folder)

    return change


def respell(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True))


DIGEST = sha256(CARD.encode()).hexdigest()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "extra.bin").write_bytes(b"x"), "'extra.bin' does not belong"),
        (lambda folder: (folder / ".hidden").mkdir(), "'.hidden' does not belong"),
        (link, "card.md: is a link or no plain file"),
        (dangling, "card.md: is a link or no plain file"),
        (pipe, "card.md: is a link or no plain file"),
        (nested, "card.md: is a link or no plain file"),
        (swap, "damaged or edited"),
        (remove("model.onnx"), "model.onnx is missing"),
        (remove("trees.npz"), "trees.npz is missing"),
        (remove(MANIFEST), "is not a model folder, it has no manifest.json"),
        (edit(format="other"), "its format is not 'perprisk-model'"),
        (edit(version=0), "version 0, this version reads 2.*train the model again"),
        (edit(version=1), "version 1, this version reads 2: train the model again"),  # no early warning in it
        (edit(version=3), "version 3, this version reads 2"),
        (edit(version=True), "version True"),
        (edit(version="2"), "version '2'"),
        (edit(model_version="0123456789ab"), "model_version is not that of its files"),
        (edit(model_version=7), "must be texts"),
        (edit(model_version=...), "lacks a field"),
        (edit(created="today"), "one too many"),
        (edit(files=[]), "must list exactly"),
        (edit(files={}), "must list exactly"),
        (edit_entry("../secret", {"bytes": 1, "sha256": DIGEST}), "must list exactly"),
        (edit_entry("card.md", DIGEST), "must have bytes and sha256"),
        (edit_entry("card.md", {"bytes": -1, "sha256": DIGEST}), "must have a size and a digest"),
        (edit_entry("card.md", {"bytes": 1.0, "sha256": DIGEST}), "must have a size and a digest"),
        (edit_entry("card.md", {"bytes": len(CARD.encode()), "sha256": 0}), "must have a size and a digest"),
        (edit_entry("card.md", {"bytes": len(CARD.encode()), "sha256": DIGEST.upper()}), "digest is not"),
        (edit_entry("card.md", {"bytes": len(CARD.encode()), "sha256": "0" * 64}), "digest is not"),
        (edit_entry("card.md", {"bytes": 10**15, "sha256": DIGEST}), "the manifest says 1000000000000000"),
        (respell, "is not spelt as it was written"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "its format is not"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_text("[" * 30_000), "not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), "not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_text('{"version": NaN}'), "not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_text(" " * 100_000 + "{}"), "not readable JSON"),
    ],
)
def test_a_spoilt_folder_is_refused(folder: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=reason):
        Bundle.open(folder, FINGERPRINT)
    refusal(folder)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    assert "no such model folder" in refusal(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    assert "is a file, a model is a folder" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "is not a model folder" in refusal(tmp_path / "empty")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_what_may_not_be_read_is_refused(folder: Path) -> None:
    (folder / "model.onnx").chmod(0)
    assert "cannot be read: Permission denied" in refusal(folder)


def test_a_model_of_another_catalogue_is_refused_with_a_remedy(good: Path) -> None:
    text = refusal(good, OTHER)
    assert "another feature catalogue" in text
    assert FINGERPRINT[:12] in text
    assert OTHER[:12] in text
    assert "train the model again with this version" in text


def test_a_link_to_the_folder_is_followed(good: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(good)
    assert Bundle.open(tmp_path / "current", FINGERPRINT).card == CARD


def test_nothing_is_read_again_after_opening(folder: Path) -> None:
    bundle = Bundle.open(folder, FINGERPRINT)
    before = Session(bundle).run(np.ones((1, 6)))
    shutil.rmtree(folder)
    for after, was in zip(Session(bundle).run(np.ones((1, 6))), before, strict=True):
        assert after.tobytes() == was.tobytes()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda forest: forest._replace(left=forest.left + 10_000), "outside its tree"),
        (lambda forest: forest._replace(left=np.zeros_like(forest.left)), "outside its tree"),
        (lambda forest: forest._replace(right=forest.left), "exactly one parent"),
        (
            lambda forest: forest._replace(feature=forest.feature + 100),
            "column 10[0-9] of 6|outside its tree",
        ),
        (
            lambda forest: forest._replace(feature=np.where(forest.feature < 0, -1, 6).astype(np.int32)),
            "column 6",
        ),
        (lambda forest: forest._replace(start=forest.start[:-1]), "do not cover"),
        (lambda forest: forest._replace(start=np.repeat(forest.start, 2)), "do not cover"),
        (lambda forest: forest._replace(start=forest.start[:0]), "do not cover"),
        (lambda forest: forest._replace(cover=forest.cover * 0.0), "cover not positive"),
        (lambda forest: forest._replace(value=forest.value + np.nan), "not finite"),
        (lambda forest: forest._replace(value=forest.value[:-1]), "unequal lengths"),
        (lambda forest: forest._replace(value=forest.value.astype(np.float32)), "expected float64"),
        (lambda forest: forest._replace(threshold=forest.threshold[:, None]), "expected float64"),
    ],
)
def test_trees_that_would_lead_compiled_code_astray_are_refused(
    export: Export, tmp_path: Path, spoil: Callable[[Forest], Forest], reason: str
) -> None:
    spoilt = spoil(export.forests["severity"])
    fault = fault_of(spoilt, 6)
    assert fault is not None
    if "column" not in reason:  # what only depends on the catalogue is checked where it is known
        trees = {**export.forests, "severity": spoilt}
        fill_bundle(tmp_path, export.graph, MODEL, trees, CARD, FINGERPRINT)
        assert "trees.npz: trees of severity" in refusal(tmp_path)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(fault)


def test_sound_trees_have_no_fault(export: Export) -> None:
    assert [fault_of(forest, 6) for forest in export.forests.values()] == [None] * len(HEADS)
    assert "column 3 of 3" in str(fault_of(export.forests["severity"], 3))


def test_a_graph_with_other_inputs_or_outputs_is_refused(good: Path) -> None:
    import onnx

    bundle = Bundle.open(good, FINGERPRINT)
    for part in ("input", "output"):
        model = onnx.load_model_from_string(bundle.graph)
        names = {getattr(model.graph, part)[0].name: "another"}
        getattr(model.graph, part)[0].name = "another"
        for node in model.graph.node:
            for wires in (node.input, node.output):
                for number, name in enumerate(wires):
                    wires[number] = names.get(name, name)
        with pytest.raises(BundleError, match=r"model\.onnx does not"):
            Session(replace(bundle, graph=model.SerializeToString()))
    model = onnx.load_model_from_string(bundle.graph)
    assert model.graph.output.pop().name == "warning"
    with pytest.raises(BundleError, match=r"model\.onnx does not give scores, probabilities and warning"):
        Session(replace(bundle, graph=model.SerializeToString()))


def test_reading_and_scoring_need_no_training_library() -> None:
    code = "import sys, models.bundle, models.session, models.treeshap; print(*sorted(sys.modules))"
    heavy = {
        "lightgbm",
        "sklearn",
        "onnx",
        "pandas",
        "polars",
        "pyarrow",
        "shap",
        "mlflow",
        "matplotlib",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
    code = "import sys, models.bundle; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (heavy | {"numba", "onnxruntime"}) & set(done.stdout.split())
