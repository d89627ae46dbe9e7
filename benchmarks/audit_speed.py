"""What the audit log adds to an answer: microseconds until it may leave.

Records rest on 13 rows of 60 columns (an account and twelve margin levels) out of the whole catalogue.
They come at a steady pace, so that the disk is not what is measured, and back to back, where it is.

    python -m benchmarks.audit_speed [--answers N] [--rate N] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.programs import finish
from features import catalog
from features.emit import FIGURES
from serving.audit import Audit, Mode
from serving.chain import verify
from serving.evidence import Rows
from serving.signing import HEADS, newest_heads, read_heads

LEVELS, COLUMNS = 13, 60
REQUEST = b'{"account_id": "account-00005", "orders": [{"market": "BTC-PERP", "quantity": 0.5}]}'
ANSWER = b"{" + b" " * 600 + b"}"


def costs_us(folder: Path, mode: Mode, answers: int, pause_s: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Microseconds of each answer's record, so far apart; the log must be sound at the end."""
    chance = np.random.default_rng(1)
    columns = np.sort(chance.permutation(len(catalog.NAMES))[:COLUMNS]).astype(np.int64)
    features = chance.normal(size=(LEVELS, len(catalog.NAMES)))
    rows = Rows(features, [LEVELS], chance.normal(size=(1, FIGURES)), [0])
    audit = Audit.open(folder, mode=mode)
    audit.reads("0123456789ab", columns)
    spent = np.empty(answers)
    due = time.perf_counter()
    for number in range(answers):
        due += pause_s
        while time.perf_counter() < due:
            pass
        began = time.perf_counter()
        audit.append("/v1/score", "json", REQUEST, ANSWER, rows)
        spent[number] = time.perf_counter() - began
    audit.close()
    (finding,) = verify(folder, newest_heads(read_heads(folder / HEADS)[0]).values())
    assert finding.sound, finding.problems
    assert finding.answers == answers
    return 1e6 * spent


def measured(answers: int, rate: int, folder: Path) -> dict[str, dict[str, float]]:
    """Print and return the figures."""
    print(f"{LEVELS} rows x {COLUMNS} columns, {answers:,} answers each")
    print(f"{'microseconds an answer':<34} {'least':>8} {'p50':>8} {'mean':>8} {'p99':>8}")
    found = {}
    ways: list[tuple[str, Mode, int, float]] = [
        (f"group, {rate:,}/s", "group", answers, 1.0 / rate),
        ("group, back to back", "group", answers, 0.0),
        ("strict, back to back", "strict", min(answers, 500), 0.0),
    ]
    for name, mode, count, pause_s in ways:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            spent = costs_us(Path(place) / "audit", mode, count, pause_s)
        found[name] = {
            "least": float(spent.min()),
            "p50": float(np.median(spent)),
            "mean": float(spent.mean()),
            "p99": float(np.quantile(spent, 0.99)),
        }
        print(f"{name:<34} " + " ".join(f"{value:>8.1f}" for value in found[name].values()))
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_speed", description=__doc__)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--rate", type=int, default=2_000, help="answers a second where they are paced")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is to be measured")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args()
    return finish(lambda: measured(options.answers, options.rate, options.folder), options.json)


if __name__ == "__main__":
    sys.exit(main())
