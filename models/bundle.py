"""The MODEL folder: all that scoring needs, written once, verified whole before any of it is used.

    manifest.json   format, version, model version, catalogue fingerprint, digest and size of each file
    model.onnx      the graph (`models.export`)
    model.json      constants of heads, baselines and policy, summary of the training
    trees.npz       the trees as arrays, for explanations (`models.forest`)
    card.md         the model card
    manifest.sig    where somebody vouches for it: an Ed25519 signature of the manifest (`models.signature`)

One flipped bit in a graph can load and score silently wrong, so the bytes that are hashed are the
bytes that are used. Nothing here is a pickle. This module needs little, because the scoring process reads
bundles with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exchange.errors import InputError, WorkError
from models.forest import DTYPES, Forest, fault_of
from models.heads import HEADS
from models.signature import is_signed

FORMAT = "perprisk-model"
VERSION = 2
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
FILES = ("card.md", "model.json", "model.onnx", "trees.npz")
MANIFEST_LIMIT_BYTES = 65_536
SHORT = 12
DAMAGED = "damaged or edited"


class BundleError(InputError):
    """A model folder is missing, damaged, of another version or of another feature catalogue."""


def fill_bundle(
    folder: Path,
    graph: bytes,
    model: Mapping[str, Any],
    trees: Mapping[str, Forest],
    card: str,
    fingerprint: str,
) -> str:
    """Write a bundle's files into the empty `folder` and return its model version.

    The same arguments give the same bytes. `fingerprint` is the feature catalogue's. The caller
    makes the folder appear at once or not at all. Raises WorkError where `model` is not plain JSON
    with finite numbers or the trees are not those of every head.
    """
    if set(trees) != set(HEADS):
        raise WorkError(f"a model needs trees for {', '.join(HEADS)}; given {', '.join(trees)}")
    contents = {
        "card.md": card.encode(),
        "model.json": _json_bytes(model),
        "model.onnx": graph,
        "trees.npz": _trees_bytes(trees),
    }
    files = {name: _entry(content) for name, content in contents.items()}
    version = _model_version(files)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "model_version": version,
        "catalogue_fingerprint": fingerprint,
        "files": files,
    }
    for name, content in [*contents.items(), (MANIFEST, _json_bytes(manifest))]:
        with open(folder / name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return version


@dataclass(frozen=True)
class Bundle:
    """A verified model folder, in memory: nothing is read from the folder afterwards."""

    path: Path
    model_version: str
    fingerprint: str
    model: dict[str, Any]
    """What the caller of `fill_bundle` gave."""
    graph: bytes
    trees: dict[str, Forest]
    """By head."""
    card: str

    @classmethod
    def open(cls, path: Path, expected_fingerprint: str, trusted: Ed25519PublicKey | None = None) -> Self:
        """Read and verify the bundle in folder `path`; BundleError says in one line why it is refused.

        Refused are: anything but a folder, files too many or too few, links, sizes and digests that
        differ from the manifest, a torn manifest, another format version, and a bundle trained for
        another feature catalogue than `expected_fingerprint`. With a `trusted` key also one that its owner
        has not signed.
        """
        path = Path(path)
        try:
            return cls._open(path, expected_fingerprint, trusted)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error

    @classmethod
    def _open(cls, path: Path, expected_fingerprint: str, trusted: Ed25519PublicKey | None) -> Self:
        _check_folder(path)
        manifest = _read_manifest(path, trusted)
        fingerprint = manifest["catalogue_fingerprint"]
        if fingerprint != expected_fingerprint:
            raise BundleError(
                f"{path}: trained for another feature catalogue ({fingerprint[:SHORT]}) than this version's"
                f" ({expected_fingerprint[:SHORT]}): train the model again with this version"
            )
        contents = {name: _read_verified(path / name, manifest["files"][name]) for name in FILES}
        if manifest["model_version"] != _model_version(manifest["files"]):
            raise BundleError(f"{path / MANIFEST}: model_version is not that of its files: {DAMAGED}")
        try:
            model = json.loads(contents["model.json"])
            card = contents["card.md"].decode()
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path}: {error}") from error
        if not isinstance(model, dict):
            raise BundleError(f"{path / 'model.json'}: is not a JSON object")
        trees = _trees_from_bytes(path / "trees.npz", contents["trees.npz"])
        return cls(path, manifest["model_version"], fingerprint, model, contents["model.onnx"], trees, card)


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise BundleError(f"{path}: no such model folder")
    if not path.is_dir():
        raise BundleError(f"{path}: is a file, a model is a folder")
    wanted = {MANIFEST, *FILES}
    found: set[str] = set()
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name not in wanted and entry.name != SIGNATURE:
                raise BundleError(f"{path}: {entry.name!r} does not belong in a model folder")
            if not entry.is_file(follow_symlinks=False):
                raise BundleError(f"{path / entry.name}: is a link or no plain file")
            found.add(entry.name)
    found.discard(SIGNATURE)
    if MANIFEST not in found:
        raise BundleError(f"{path}: is not a model folder, it has no {MANIFEST}")
    if found != wanted:
        raise BundleError(f"{path}: {min(wanted - found)} is missing")


def _read_plain(path: Path, limit_bytes: int) -> bytes:
    """At most `limit_bytes` + 1 bytes of a file that is no link at the moment it is opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: is no plain file")
        # By the smaller of the two: neither a manifest nor a file decides alone what memory this takes.
        return file.read(min(limit_bytes, status.st_size) + 1)


def _read_verified(path: Path, entry: Mapping[str, Any]) -> bytes:
    content = _read_plain(path, entry["bytes"])
    if len(content) != entry["bytes"]:
        size = "more" if len(content) > entry["bytes"] else f"{len(content)}"
        raise BundleError(f"{path}: has {size} bytes, the manifest says {entry['bytes']}: {DAMAGED}")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise BundleError(f"{path}: its digest is not the manifest's: {DAMAGED}")
    return content


def _read_manifest(folder: Path, trusted: Ed25519PublicKey | None) -> dict[str, Any]:
    path = folder / MANIFEST
    content = _read_plain(path, MANIFEST_LIMIT_BYTES)
    if trusted is not None:
        try:
            signature = _read_plain(folder / SIGNATURE, SIGNATURE_BYTES)
        except FileNotFoundError:
            raise BundleError(f"{folder}: is not signed, and only signed models are trusted here") from None
        if not is_signed(content, signature, trusted):
            raise BundleError(f"{folder / SIGNATURE}: is not a signature of this manifest by the trusted key")
    try:
        manifest = json.loads(content)
        canonical = _json_bytes(manifest)
    except (ValueError, RecursionError, WorkError) as error:
        raise BundleError(f"{path}: is not readable JSON: damaged or cut short") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{path}: is not the manifest of a model, its format is not {FORMAT!r}")
    if manifest.get("version") != VERSION or isinstance(manifest["version"], bool):
        raise BundleError(
            f"{path}: model format version {manifest.get('version')!r}, this version reads {VERSION}:"
            " train the model again with this version"
        )
    fault = _manifest_fault(manifest)
    # One spelling only: what was not written by `fill_bundle` byte for byte was damaged or edited.
    if fault is None and content != canonical:
        fault = "is not spelt as it was written"
    if fault is not None:
        raise BundleError(f"{path}: {fault}: {DAMAGED}")
    return manifest


def _manifest_fault(manifest: Mapping[str, Any]) -> str | None:
    if set(manifest) != {"format", "version", "model_version", "catalogue_fingerprint", "files"}:
        return "lacks a field or has one too many"
    if any(not isinstance(manifest[name], str) for name in ("model_version", "catalogue_fingerprint")):
        return "model_version and catalogue_fingerprint must be texts"
    files = manifest["files"]
    if not isinstance(files, dict) or set(files) != set(FILES):
        return f"must list exactly {', '.join(FILES)}"
    for name, entry in files.items():
        if not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
            return f"entry {name} must have bytes and sha256"
        if type(entry["bytes"]) is not int or entry["bytes"] < 0 or not isinstance(entry["sha256"], str):
            return f"entry {name} must have a size and a digest"
    return None


def _entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _model_version(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Names what decides a score: the graph and the constants, not the card."""
    digests = files["model.onnx"]["sha256"] + files["model.json"]["sha256"]
    return hashlib.sha256(digests.encode()).hexdigest()[:SHORT]


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise WorkError(f"the model's description is not plain JSON: {error}") from error


def _trees_bytes(trees: Mapping[str, Forest]) -> bytes:
    """An npz archive without times: numpy's own writer stamps the clock into it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for head in HEADS:
            for name, array in zip(Forest._fields, trees[head], strict=True):
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{head}.{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                target.writestr(entry, member.getvalue())
    return archive.getvalue()


def _trees_from_bytes(path: Path, content: bytes) -> dict[str, Forest]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            trees = {head: Forest(*(arrays[f"{head}.{name}"] for name in DTYPES)) for head in HEADS}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: is not the trees of a model: {error}") from error
    for head, forest in trees.items():
        fault = fault_of(forest)
        if fault is not None:
            raise BundleError(f"{path}: trees of {head}: {fault}")
    return trees
