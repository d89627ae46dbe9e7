"""Models that are wrong in one way each, and what the line names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from features import catalog
from models.bundle import FILES, MANIFEST, Bundle, fill_bundle
from tests.pipelines.broken_datasets import Break


def flipped(name: str) -> Break:
    def how(place: Path) -> None:
        target = place / "model" / name
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 4
        target.write_bytes(content)

    return how


def model_file(name: str, content: bytes) -> Break:
    return lambda place: (place / "model" / name).write_bytes(content)


def half(name: str) -> Break:
    def how(place: Path) -> None:
        target = place / "model" / name
        content = target.read_bytes()
        target.write_bytes(content[: len(content) // 2])

    return how


def without(name: str) -> Break:
    return lambda place: (place / "model" / name).unlink()


def rewritten(**entries: Any) -> Break:
    """Another manifest, spelt as manifests are."""

    def how(place: Path) -> None:
        target = place / "model" / MANIFEST
        manifest = json.loads(target.read_text()) | entries
        target.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    return how


def remade(**parts: Any) -> Break:
    """A model written anew with other parts, so that every digest is right."""

    def how(place: Path) -> None:
        model = place / "model"
        bundle = Bundle.open(model, catalog.fingerprint())
        shutil.rmtree(model)
        model.mkdir()
        constants = {**bundle.model, **parts.get("model", {})}
        constants = {key: entry for key, entry in constants.items() if entry is not None}
        graph = parts.get("graph", bundle.graph)
        fill_bundle(
            model, graph, constants, bundle.trees, bundle.card, parts.get("fingerprint", bundle.fingerprint)
        )

    return how


def swapped(by: str) -> Break:
    def how(place: Path) -> None:
        shutil.rmtree(place / "model")
        if by == "file":
            (place / "model").write_text("somebody's\n")
        elif by != "nothing":
            shutil.copytree(place / by, place / "model")

    return how


def linked(place: Path) -> None:
    (place / "model" / "model.onnx").rename(place / "model.onnx")
    (place / "model" / "model.onnx").symlink_to(place / "model.onnx")


MODELS: dict[str, tuple[Break, str]] = {
    "no such folder": (swapped("nothing"), "model | no such model folder"),
    "file given for the folder": (swapped("file"), "model | is a file"),
    "empty folder": (swapped("empty"), "model | no manifest.json"),
    "a dataset given for the model": (swapped("data"), "model | does not belong in a model folder"),
    "another catalogue": (
        rewritten(catalogue_fingerprint="0" * 64),
        "model | another feature catalogue | 000000000000 | train the model again",
    ),
    "another catalogue, written properly": (
        remade(fingerprint="f" * 64),
        "model | another feature catalogue",
    ),
    "another version of the format": (rewritten(version=3), "manifest.json | version 3"),
    "a version without early warning": (
        rewritten(version=1),
        "manifest.json | version 1 | train the model again",
    ),
    "another format": (rewritten(format="onnx"), "manifest.json | perprisk-model"),
    "another model version": (rewritten(model_version="0" * 12), "manifest.json | model_version"),
    "torn manifest": (half(MANIFEST), "manifest.json | not readable JSON"),
    "a file too many": (model_file("model.pkl", b"\x80\x04."), "model | 'model.pkl' does not belong"),
    "a link": (linked, "model.onnx | link"),
    "a graph that is none": (remade(graph=b"nonsense"), "model.onnx | cannot be loaded"),
    "no required features": (remade(model={"required_features": None}), "model.json | required_features"),
    "a feature that is not known": (
        remade(model={"required_features": ["luck"]}),
        "model.json | lacks or misstates",
    ),
    "no levels of baselines": (remade(model={"baseline_levels": {}}), "model.json | margin_ratio"),
    "no severity": (remade(model={"unknown_severity": None}), "model.json | unknown_severity"),
    **{f"tampered {name}": (flipped(name), "model | damaged") for name in (*FILES, MANIFEST)},
    **{f"truncated {name}": (half(name), f"{name} | damaged") for name in FILES},
    **{f"no {name}": (without(name), f"model | {name} is missing") for name in FILES},
}  # fmt: skip
