"""Promoting: the place that services look at holds a whole model, and one that somebody vouches for."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from features import catalog
from models.bundle import SIGNATURE, Bundle, BundleError
from models.signature import read_public_key
from pipelines.cli import run as perprisk


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a new private key and of its public half."""
    made = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        made.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def test_a_promoted_model_is_the_model_and_replaces_the_one_before(small_model: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    for _ in range(2):
        assert perprisk(["promote", str(small_model), "--to", str(served)]) == 0
        found = Bundle.open(served, catalog.fingerprint())
        assert found.model_version == Bundle.open(small_model, catalog.fingerprint()).model_version
    assert sorted(entry.name for entry in served.iterdir()) == sorted(
        entry.name for entry in small_model.iterdir()
    )


def test_only_the_trusted_signature_counts(small_model: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "desk")
    _, other = key_pair(tmp_path, "other")
    served = tmp_path / "served"
    assert perprisk(["promote", str(small_model), "--to", str(served), "--sign", str(private)]) == 0
    Bundle.open(served, catalog.fingerprint())  # a signature is in nobody's way
    Bundle.open(served, catalog.fingerprint(), read_public_key(public))
    with pytest.raises(BundleError, match="by the trusted key"):
        Bundle.open(served, catalog.fingerprint(), read_public_key(other))
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(small_model, catalog.fingerprint(), read_public_key(public))
    signature = served / SIGNATURE
    good = signature.read_bytes()
    for wrong in (b"", good[:-1], good + b"x", bytes([good[0] ^ 1]) + good[1:]):
        signature.write_bytes(wrong)
        with pytest.raises(BundleError):
            Bundle.open(served, catalog.fingerprint(), read_public_key(public))


def test_what_is_no_model_leaves_the_served_one(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = tmp_path / "served"
    assert perprisk(["promote", str(small_model), "--to", str(served)]) == 0
    before = {entry.name: entry.read_bytes() for entry in served.iterdir()}
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name, content in before.items():
        (damaged / name).write_bytes(content if name != "model.onnx" else content[:-1])
    capsys.readouterr()
    for model in (damaged, tmp_path / "nowhere", served):
        assert perprisk(["promote", str(model), "--to", str(served)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert {entry.name: entry.read_bytes() for entry in served.iterdir()} == before


def test_serving_asks_for_the_trusted_signature(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, public = key_pair(tmp_path, "desk")
    assert perprisk(["serve", "--model", str(small_model), "--port", "0", "--trust", str(public)]) == 2
    assert "is not signed" in capsys.readouterr().err
