"""What the programs that judge models have in common: options, one line for what fails, figures as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.windows import DEFAULT_CUTS, real_accounts
from exchange.errors import PerpriskError


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Options of every program of this kind: how often to resample, and where figures go."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--draws", type=int, default=200, help="resamples for the intervals")
    made.add_argument("--json", type=Path, help="write the same figures here")
    return made


def window_parser(
    name: str, description: str | None, cuts: tuple[str, ...] = DEFAULT_CUTS
) -> argparse.ArgumentParser:
    """Those of a program that trains before cuts of a history; `cuts_of` has the cuts."""
    made = parser(name, description)
    made.add_argument("dataset", type=Path, nargs="?", default=real_accounts())
    made.add_argument("--cut", action="append", help=f"train before this time (default: {', '.join(cuts)})")
    made.set_defaults(cuts=cuts)
    return made


def cuts_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The cuts that were asked for, else the program's own."""
    return tuple(options.cut or options.cuts)


def finish(work: Callable[[], Any], path: Path | None) -> int:
    """Do the work, which prints, and write what it found; 2 for wrong input, said in one line."""
    try:
        found = work()
    except PerpriskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n")
    return 0
