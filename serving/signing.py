"""Signed heads of audit logs: how far a log had come at a time, so that nobody can shorten it unseen.

A head says how many records a worker's chain held and the digest of the last one. Kept elsewhere, it
shows any change of what came before it; the signature shows where it comes from.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exchange.errors import InputError
from models.signature import read_private_key
from serving.frames import sync_folder

PRIVATE_KEY = "signing.key"
PUBLIC_KEY = "signing.pub"
HEADS = "heads.jsonl"

_CONTEXT = b"perprisk audit head 1\n"  # a signature counts for this purpose only


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a worker's log had come."""

    worker: str
    file: str
    records: int
    """Records from the beginning of the worker's first file on."""
    digest: str
    """Of the last of them, hexadecimal."""
    time: str
    signature: str = ""
    """Ed25519 over all other fields, hexadecimal."""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is made over."""
        return _CONTEXT + msgspec.json.encode(msgspec.structs.replace(self, signature=""))


def sign(head: Head, key: Ed25519PrivateKey) -> Head:
    """The head with its signature."""
    return msgspec.structs.replace(head, signature=key.sign(head.signed_bytes).hex())


def is_signed(head: Head, key: Ed25519PublicKey) -> bool:
    """Whether a head was signed by the owner of this key."""
    try:
        key.verify(bytes.fromhex(head.signature), head.signed_bytes)
    except (InvalidSignature, ValueError):
        return False
    return True


def append_head(path: Path, head: Head) -> None:
    """Add a head to a file that every worker adds to."""
    line = msgspec.json.encode(head) + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line)  # one call: lines of several workers do not mix
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def read_heads(path: Path) -> tuple[list[Head], int]:
    """Heads in a file, one a line, and how many lines are none; InputError where it cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    heads, others = [], 0
    for line in filter(bytes.strip, lines):
        try:
            heads.append(msgspec.json.decode(line, type=Head))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            others += 1
    return heads, others


def newest_heads(heads: Iterable[Head]) -> dict[str, Head]:
    """The head that covers most, by worker."""
    newest: dict[str, Head] = {}
    for head in heads:
        if head.worker not in newest or head.records > newest[head.worker].records:
            newest[head.worker] = head
    return newest


def own_key(folder: Path) -> Ed25519PrivateKey:
    """The key in a folder, made there with its public half on first use; its owner alone can read it."""
    path = folder / PRIVATE_KEY
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        _write_new(path, _private_pem(made), 0o600)
    key = read_private_key(path)  # another process may have been first
    _write_new(folder / PUBLIC_KEY, public_pem(key.public_key()), 0o644)
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as a PEM file holds it."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes_raw()


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole, unless there is one."""
    if path.exists():
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(name, path)
        except FileExistsError:
            pass  # another process was first
        finally:
            os.unlink(name)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
