"""How fast the simulated venue runs: account-steps a second on one core, with book feedback.

    python benchmarks/simulation_speed.py [--quick] [--write] [--json FILE]

Each run of the default venue is a process of its own, so that its greatest memory is its own; compiled code
is loaded before. Seconds are processor time. A step is a minute in the life of one account; warm-up and the
seconds of busy minutes are paid for but not counted. "paths" are prices and population, "run" is the venue,
"write" is what `perprisk simulate` takes beyond both. Slopes are of log seconds over log work: 1 if linear.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LADDER = (
    (2_000, 30.0),
    (20_000, 3.0),
    (20_000, 10.0),
    (20_000, 30.0),
    (60_000, 10.0),
    (200_000, 3.0),
    (200_000, 10.0),
)
QUICK = ((300, 0.05), (300, 0.1))
TARGET = 3e7
MINUTES_A_DAY = 1_440
ONE_CORE = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def measure(accounts: int, days: float, write: bool, seed: int = 1) -> dict[str, float]:
    """Run one venue in this process; seconds of each part and the process's greatest memory."""
    from pipelines import simulate

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for _ in simulate.generated_venue(300, 0.02, seed).run():
        pass  # loads compiled code
    began = time.process_time()
    venue = simulate.generated_venue(accounts, days, seed)
    made = time.process_time()
    rows = sum(sum(map(len, stretch.values())) for stretch in venue.run())
    ran = time.process_time()
    out = {
        "accounts": accounts, "days": days, "rows": rows, "paths_s": made - began, "run_s": ran - made,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024,
    }  # fmt: skip
    if write:
        del venue
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            simulate.run(Path(folder) / "dataset", accounts, days, seed)
            out["whole_s"] = time.process_time() - began
            out["write_s"] = out["whole_s"] - out["paths_s"] - out["run_s"]
        out["write_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    return out


def child(accounts: int, days: float, write: bool) -> dict[str, float]:
    """`measure` in a process of its own."""
    task = json.dumps([accounts, days, write])
    ran = subprocess.run(
        [sys.executable, __file__, "--child", task],
        env=os.environ | ONE_CORE,
        stdout=subprocess.PIPE,
        check=True,
    )
    return dict(json.loads(ran.stdout))


def slope(work: list[float], seconds: list[float]) -> float:
    """Of log seconds over log work, by least squares; NaN for fewer than two sizes."""
    if len(set(work)) < 2:
        return float("nan")
    return float(np.polyfit(np.log(work), np.log(seconds), 1)[0])


def main() -> int:
    """Print the ladder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two tiny runs, to see that it works")
    parser.add_argument(
        "--write", action="store_true", help="also write the datasets, and say how long it takes"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*json.loads(options.child))))
        return 0
    child(300, 0.02, False)  # compiles what is not compiled yet
    found: list[dict[str, Any]] = []
    print(
        f"{'accounts':>9}{'days':>6}{'paths s':>9}{'run s':>8}{'write s':>9}{'MiB':>7}{'account-steps/s':>17}"
    )
    for accounts, days in QUICK if options.quick else LADDER:
        figures = child(accounts, days, options.write)
        steps = accounts * days * MINUTES_A_DAY
        rate = steps / figures["run_s"]
        found.append(figures | {"steps": steps, "rate": rate})
        written = f"{figures['write_s']:9.1f}" if options.write else f"{'-':>9}"
        print(
            f"{accounts:9,d}{days:6g}{figures['paths_s']:9.1f}{figures['run_s']:8.1f}{written}"
            f"{figures['rss_mib']:7.0f}{rate:17.3g}", flush=True,
        )  # fmt: skip
    for name, fixed in (("days", "accounts"), ("accounts", "days")):
        for value in sorted({each[fixed] for each in found}):
            of = [each for each in found if each[fixed] == value]
            if len(of) > 1:
                found_slope = slope([each["steps"] for each in of], [each["run_s"] for each in of])
                print(f"slope over {name} at {value:,g} {fixed}: {found_slope:.2f}")
    print(f"slope over all: {slope([e['steps'] for e in found], [e['run_s'] for e in found]):.2f}")
    print(f"asked for: {TARGET:.0e} account-steps/s at 20,000 accounts, half of it at 200,000, 1 GiB")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
