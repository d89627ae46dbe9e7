"""`perprisk score` in processes that die or fail at a counted call: one process that forks them on request.

    python -m tests.pipelines.scoring WARM_OUT ARGUMENTS...

scores twice to WARM_OUT and says how many calls the second time took; then every line of `NUMBER FATE LASTS
OUT` on standard input is a process that scores to OUT, and a line of its exit status is the answer. The
process that forks has no threads: it loads what scoring loads, and leaves all work to the others.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines import score
from pipelines.cli import run
from tests.serving.dying import Calls

NAMES = ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open")


class Sink(io.RawIOBase):
    """A file whose writes go through `os.write`, where they are counted: Arrow's own do not pass Python."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        view, done = memoryview(content).cast("B"), 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:])
        return done

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class Writer(pq.ParquetWriter):  # type: ignore[misc]
    """Arrow's writer into such a file."""

    def __init__(self, path: Path, *arguments: Any, **more: Any) -> None:
        self._sink = io.BufferedWriter(Sink(path), 2_048)  # type: ignore[arg-type]
        super().__init__(self._sink, *arguments, **more)

    def close(self) -> None:
        super().close()
        self._sink.close()


def child(calls: Calls, arguments: list[str], out: str) -> int:
    """Score in a process of its own; its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            calls.stand_before(names=NAMES)
            code = run([*arguments, "--out", out])
            if calls.chosen < 0:
                Path(out + ".calls").write_text(str(calls.count))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Serve requests for such processes."""
    warm, *arguments = sys.argv[1:]
    score.pq.ParquetWriter = Writer  # type: ignore[misc]
    for _ in range(2):  # the first one may write compiled code to its cache
        assert child(Calls(), arguments, warm) == 0
    print(Path(warm + ".calls").read_text(), flush=True)
    for line in sys.stdin:
        number, fate, lasts, out = line.split()
        print(child(Calls(int(number), fate, lasts == "True"), arguments, out), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
