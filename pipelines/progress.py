"""How far long work has come: a bar with an estimate on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What the work tells: `advance(n)` after n more units are done."""

    advance: Callable[[float], None]


def _silently(_amount: float) -> None:
    pass


@contextmanager
def progress(total: float | None, title: str) -> Iterator[Progress]:
    """Show a bar for `total` units of work on stderr, with the time left, if stderr is a terminal.

    `total` None is work of unknown length: the bar then shows the time that has passed.
    """
    if not sys.stderr.isatty():
        yield Progress(_silently)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), clock)
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield Progress(lambda amount: bar.advance(task, amount))
