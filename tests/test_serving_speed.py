"""What `benchmarks/serving.py` compares is the same thing, and callers count what they are answered."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.asking import PATH, asked
from benchmarks.reference_model import reference_bundle
from benchmarks.served import frame_message, http_message
from benchmarks.serving_rivals import columns_of_graph, narrow_graph
from features import catalog
from models.bundle import Bundle
from models.session import Session
from serving.scorer import Scorer
from tests.serving.served import prepared, served

ROOT = Path(__file__).resolve().parent.parent


def test_a_narrow_graph_says_what_the_whole_one_does(small_model: Path) -> None:
    bundle = Bundle.open(small_model, catalog.fingerprint())
    columns = columns_of_graph(bundle)
    rows = np.random.default_rng(1).normal(size=(50, len(catalog.NAMES)))
    narrow = onnxruntime.InferenceSession(narrow_graph(bundle, columns), providers=["CPUExecutionProvider"])
    (found,) = narrow.run(None, {"rows": np.ascontiguousarray(rows[:, columns])})
    np.testing.assert_array_equal(found, Session(bundle).tables(rows)[1])


def test_callers_over_either_way_count_answers_and_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with served(prepared(), path) as port:
        options = argparse.Namespace(connections=3, seconds=0.3, port=port, socket=None)
        known, unknown = (http_message(PATH, b'{"account_id": "%s"}' % name) for name in (b"ann", b"nobody"))
        found = asyncio.run(asked([known], options))
        assert found["answers_per_s"] > 0 and found["errors"] == found["refused"] == 0
        found = asyncio.run(asked([known, unknown], options))
        assert found["answers_per_s"] > 0 and found["errors"] > 0
        options.socket = path
        known, unknown = (frame_message(PATH, {"account_id": name}) for name in ("ann", "nobody"))
        found = asyncio.run(asked([known], options))
        assert found["answers_per_s"] > 0 and found["errors"] == found["refused"] == 0
        found = asyncio.run(asked([known, unknown], options))
        assert found["answers_per_s"] > 0 and found["errors"] > 0


def test_the_program_does_not_stand_in_for_the_package() -> None:
    # as for any program in that folder that is run as a script
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import serving.wire as w; print(w)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(Path("serving") / "wire.py") in done.stdout


@pytest.mark.slow
def test_the_reference_model_can_be_scored_with(tmp_path: Path) -> None:
    assert Scorer(reference_bundle(tmp_path)).model_version
