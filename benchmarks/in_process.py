"""One answer in process beside the model alone: the engine against onnxruntime, for the same number of rows.

The engine looks an account up, computes its vector and those of its margin levels, calls the model once,
suggests a margin and makes the answer. Beside it onnxruntime runs the same graph on ready rows, those of
another account: trees that have just been walked are still in the cache, and would look faster than they are.
Both take turns, account by account, so that whatever else the machine does meets both.

    python -m benchmarks.in_process [MODEL] [--rounds N]

Without a MODEL a reference model is made (`benchmarks/reference_model.py`).
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.reference_model import reference_bundle, venue
from features import catalog
from features.venue import Venue
from models.bundle import Bundle
from serving.engine import Engine
from serving.ladder import Ladder
from serving.scorer import Scorer
from serving.wire import ScoreRequest

ACCOUNTS = 1_000
WARM_UP = 200


class Taken(NamedTuple):
    """Microseconds of every call."""

    engine: npt.NDArray[np.float64]
    raw_ladder: npt.NDArray[np.float64]  # onnxruntime on the account's row and all its levels
    raw_row: npt.NDArray[np.float64]  # on its row alone


def in_process(bundle: Bundle, made: Venue, rounds: int, seed: int = 1) -> Taken:
    """Ask about varied accounts one by one, by the engine and of the bare session in turn."""
    engine = Engine(Scorer(bundle), venue=made)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(seed)
    chosen = chance.permutation(made.open_vectors().account)[:ACCOUNTS].tolist()
    questions = [ScoreRequest(made.account_names[key]) for key in chosen]
    ladder = Ladder(made.handle())
    ready = [ladders.features[0] for key in chosen if (ladders := ladder.take(key, key)) is not None]
    others = chance.permutation(len(ready)).tolist()
    gc.collect()
    gc.freeze()
    taken = []
    names = ["probabilities"]
    for call in range(WARM_UP + rounds):
        question = questions[call % len(questions)]
        rows = ready[others[call % len(others)]]
        row = ready[others[(call + 1) % len(others)]][:1]
        begun = time.perf_counter_ns()
        engine.score(question)
        answered = time.perf_counter_ns()
        session.run(names, {"features": rows})
        ran = time.perf_counter_ns()
        session.run(names, {"features": row})
        taken.append((answered - begun, ran - answered, time.perf_counter_ns() - ran))
    gc.unfreeze()
    return Taken(*(np.array(taken[WARM_UP:]).T / 1e3))


def told(taken: Taken) -> str:
    """The figures as lines."""
    lines = []
    for name, one in zip(
        ("engine, 12 levels", "onnxruntime, 13 rows", "onnxruntime, 1 row"), taken, strict=True
    ):
        middle, tail, far = np.percentile(one, (50, 99, 99.9))
        lines.append(f"{name:<22} p50 {middle:7.1f} us   p99 {tail:7.1f} us   p99.9 {far:7.1f} us")
    ratio = np.median(taken.engine) / np.median(taken.raw_ladder)
    return "\n".join([*lines, f"engine over onnxruntime for the same 13 rows, p50: {ratio:.2f}"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One answer in process.")
    parser.add_argument("model", type=Path, nargs="?", help="a bundle; without one a reference model is made")
    parser.add_argument("--rounds", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            bundle = reference_bundle(Path(folder))
        else:
            bundle = Bundle.open(options.model, catalog.fingerprint())
        print(told(in_process(bundle, venue(), options.rounds)))


if __name__ == "__main__":
    main()
