"""What training on five million rows of sixty columns takes, and what binned data that is kept saves.

Rows come from a `lightgbm.Sequence`, a block at a time, so that all numbers never stand in memory at once:
they are binned as they come. Then several trials are trained on the same binned data, on the folds of a
walk-forward by `subset`. It is measured in a process of its own, and beside it the plain way, a new `Dataset`
of floats for each fold and trial.

    python -m benchmarks.train_million [--rows N] [--columns N] [--trials N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from models.grow import PARAMETERS

Floats = npt.NDArray[np.float64]

BLOCK = 250_000
ROUNDS = 30
FOLDS = 2


class Blocks(lgb.Sequence):
    """Made rows, of which only the block that is asked for exists."""

    batch_size = 4_096

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self._rows, self._columns, self._seed = rows, columns, seed
        self._made: tuple[int, Floats] = (-1, np.empty((0, columns)))

    def __len__(self) -> int:
        return self._rows

    def block(self, number: int) -> Floats:
        """Rows of one block, the same every time."""
        if self._made[0] != number:
            chance = np.random.default_rng((self._seed, number))
            count = min(BLOCK, self._rows - number * BLOCK)
            self._made = (number, chance.normal(size=(count, self._columns)).astype(np.float32))
        return self._made[1]

    def __getitem__(self, rows: int | slice | list[int]) -> Floats:
        if isinstance(rows, int | np.integer):  # one at a time is how LightGBM samples
            return self.block(int(rows) // BLOCK)[rows % BLOCK].astype(np.float64)
        wanted = np.arange(*rows.indices(self._rows)) if isinstance(rows, slice) else np.asarray(rows)
        found = np.empty((len(wanted), self._columns))
        for number in np.unique(wanted // BLOCK):
            here = wanted // BLOCK == number
            found[here] = self.block(int(number))[wanted[here] - number * BLOCK]
        return found


def came_true(source: Blocks, rows: int) -> Floats:
    """A rare event that the first columns speak of."""
    found = np.empty(rows)
    for number in range(-(-rows // BLOCK)):
        block = source.block(number)
        found[number * BLOCK : number * BLOCK + len(block)] = block[:, 0] + 0.5 * block[:, 1] > 3.0
    return found


def worked(way: str, rows: int, columns: int, trials: int) -> None:
    """Train every trial on every fold, and print how the time went."""
    settings = PARAMETERS | {"seed": 1, "num_threads": 1}
    source = Blocks(rows, columns, 1)
    label = came_true(source, rows)
    ends = [rows * (fold + 1) // (FOLDS + 1) for fold in range(FOLDS)]
    begun = time.process_time()
    binned = 0.0
    if way == "kept":
        data = lgb.Dataset(source, label, params={**settings, "max_bin": 255}, free_raw_data=True).construct()
        binned = time.process_time() - begun
        folds = [data.subset(np.arange(end).tolist()) for end in ends]
    for trial in range(trials):
        chosen = settings | {"num_leaves": 5 + 2 * trial}
        for fold, end in enumerate(ends):
            part = folds[fold] if way == "kept" else lgb.Dataset(source[0:end], label[:end])
            lgb.train(chosen, part, ROUNDS)
    print(f"{binned:.1f} {time.process_time() - begun:.1f}")


def main() -> None:
    """Print both ways side by side."""
    parser = argparse.ArgumentParser(description="Binned data kept between trials.")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--columns", type=int, default=60)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--child", choices=("kept", "anew"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        worked(options.child, options.rows, options.columns, options.trials)
        return
    print(
        f"{options.rows:,} rows x {options.columns}, {options.trials} trials of {FOLDS} folds, {ROUNDS} trees"
    )
    for way, words in (("kept", "binned once"), ("anew", "binned for each")):
        command = [sys.executable, "-m", "benchmarks.train_million", "--child", way]
        command += ["--rows", str(options.rows), "--columns", str(options.columns)]
        done = subprocess.Popen(
            [*command, "--trials", str(options.trials)], stdout=subprocess.PIPE, text=True
        )
        assert done.stdout is not None
        told = done.stdout.read().split()
        _, status, usage = os.wait4(done.pid, 0)
        if status:
            raise SystemExit(f"{way} failed")
        print(
            f"{words:<18} {float(told[1]):>8.1f} s of processor time, {float(told[0]):.1f} s of it binning "
            f"beforehand; {usage.ru_maxrss / 2**20:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
