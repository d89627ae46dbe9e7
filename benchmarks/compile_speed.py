"""How long a machine that has compiled nothing yet waits for machine code: processor time, cold and warm.

    python benchmarks/compile_speed.py [--json FILE]

Each part runs in two processes one after the other with one cache folder, empty at first; the difference is
what compiling costs, once for each version of the sources. "venue" is a small simulated venue, "vectors" the
features of that venue's accounts, replayed from its dataset.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PARTS = ("venue", "vectors")
ACCOUNTS, DAYS, SEED = 60, 1.0, 1


def measure(part: str, dataset: Path) -> dict[str, float]:
    """Do one part in this process; its processor seconds."""
    began = time.process_time()
    if part == "venue":
        from pipelines import simulate

        for _ in simulate.generated_venue(ACCOUNTS, DAYS, SEED).run():
            pass
    else:
        from pipelines.replay import replay
        from pipelines.store import Dataset

        history = Dataset.open(dataset, "accounts")
        for _ in replay(history, np.array([history.meta.end_us])):
            pass
    return {"seconds": time.process_time() - began}


def child(part: str, dataset: Path, cache: Path) -> float:
    """`measure` in a process of its own, with a cache folder."""
    ran = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps([part, str(dataset)])],
        env=os.environ | {"PERPRISK_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(json.loads(ran.stdout)["seconds"])


def main() -> int:
    """Print seconds cold and warm, and what lies in the cache."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, dataset = json.loads(options.child)
        print(json.dumps(measure(part, Path(dataset))))
        return 0
    from pipelines import simulate

    found = []
    with tempfile.TemporaryDirectory() as folder:
        simulate.run(Path(folder) / "dataset", ACCOUNTS, DAYS, SEED)
        print(f"{'':<10}{'cold s':>8}{'warm s':>8}{'compiling s':>13}{'kept MiB':>10}")
        for part in PARTS:
            cache = Path(folder) / part
            cold, warm = (child(part, Path(folder) / "dataset", cache) for _ in range(2))
            kept = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 2**20
            print(f"{part:<10}{cold:8.1f}{warm:8.1f}{cold - warm:13.1f}{kept:10.1f}", flush=True)
            found.append({"part": part, "cold_s": cold, "warm_s": warm, "kept_mib": kept})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
