"""The same rows, code and seed give the same model to the byte, whichever process made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TRAIN = """
import hashlib, json, sys, tempfile
from pathlib import Path
from features import catalog
from models.bundle import fill_bundle
from models.export import export_heads
from models.train import train
from tests.models.made_rows import made_rows

trained = train(made_rows(5, days=24, extra=2.0), seed=7)
exported = export_heads([head.spec for head in trained.heads], len(catalog.NAMES))
with tempfile.TemporaryDirectory() as folder:
    version = fill_bundle(
        Path(folder), exported.graph, trained.model, exported.forests, "card", catalog.fingerprint()
    )
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }
trees = sum(head.facts.get("rounds", 0) for head in trained.heads)
print(json.dumps({"version": version, "files": digests, "trees": trees}))
"""


def process(**environment: str) -> subprocess.Popen[str]:
    """A process of its own that trains and prints version, digests of all files and number of trees."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_make_the_same_bytes() -> None:
    both = [
        process(PYTHONHASHSEED="1", OMP_NUM_THREADS="1"),
        process(PYTHONHASHSEED="2", OMP_NUM_THREADS="2", TZ="Asia/Tokyo", LC_ALL="C"),
    ]
    told = [each.communicate() for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    first, second = (json.loads(out) for out, _ in told)
    assert first["trees"] > 0, "without trees there is next to nothing that could differ"
    assert len(first["files"]) > 3
    assert second == first
