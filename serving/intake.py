"""From a request to an entry of the log: what of its events is accepted, and what these events do.

A request of rows that are all usual takes a quick way, whole columns at a time (`serving.quick`); every
other one is judged row by row (`serving.admission`). Both give the same entry and the same answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.events import ASSET
from features.venue import Venue
from serving import quick, rows
from serving.admission import Admission, moved, place_in_time
from serving.batches import Columns, Naming, write
from serving.columns import EventColumns
from serving.entries import Entry, runs_of
from serving.rows import Request, Row
from serving.wire import Rejected

FEW_ROWS = 8
"""So many are judged one by one sooner than in columns."""


class Weighed(NamedTuple):
    """What is to be logged and applied, None where nothing is; accepted events and repeats; the others."""

    entry: Entry | None
    accepted: int
    rejected: list[Rejected]


class Intake:
    """Weighs requests against what a venue knows; changes nothing."""

    def __init__(self, venue: Venue, admission: Admission, quote_asset: str) -> None:
        self._venue = venue
        self._admission = admission
        self._quote_asset = quote_asset

    def weigh(self, request: Request, first: int, newest_us: int) -> Weighed:
        """Weigh a request where `first` events have been applied and the future begins after `newest_us`."""
        if len(request.rows) > FEW_ROWS and not request.unreadable:
            usual = quick.of_rows(request, self._venue, self._admission, newest_us)
            if usual is not None:
                return self._taken(usual, request.source, first)
        return self._judged(request, first, newest_us)

    def weigh_columns(self, columns: EventColumns, first: int, newest_us: int) -> Weighed:
        """The same for columns; raises RefusalError 422 for columns that no rows could be made of."""
        usual = columns.usual(self._venue, self._admission, newest_us)
        if usual is not None:
            return self._taken(usual, columns.source, first)
        return self._judged(columns.request(), first, newest_us)

    def _taken(self, usual: quick.Usual, source: str, first: int) -> Weighed:
        entry = Entry(first, usual.rows, source, usual.runs, usual.frontier, ([], [], [], []), usual.events)
        return Weighed(entry, usual.rows, [])

    def _judged(self, request: Request, first: int, newest_us: int) -> Weighed:
        judged = self._admission.judge(request, newest_us)
        entry = self._entry(judged.accepted, request.source, first) if judged.accepted else None
        return Weighed(entry, len(judged.accepted) + judged.repeats, judged.rejected)

    def _entry(self, accepted: list[Row], source: str, first: int) -> Entry:
        columns, naming, frontier = Columns(), Naming(self._venue), self._admission.frontier
        for row in accepted:
            frontier = moved(frontier, *place_in_time(row))
            if self._announces_quote(row, naming):
                columns.add(ASSET, frontier[0], naming.asset(self._quote_asset), -1, (1.0, 1.0))
            write(row, frontier[0], naming, columns)
        sequence = sorted(row.sequence for row in accepted if row.sequence is not None)
        runs = runs_of(np.array(sequence, np.int64))
        return Entry(first, len(accepted), source, runs, frontier, naming.new, columns.batch())

    def _announces_quote(self, row: Row, naming: Naming) -> bool:
        """Whether the quote currency becomes known with a row: an asset without a haircut that needs none.

        It does when it is first used, and in its place by name among the assets announced, where a
        dataset has it too: the same rows then give the same ids.
        """
        if naming.find_asset(self._quote_asset) >= 0:
            return False
        later = rows.table_of(row) == "assets" and row.asset > self._quote_asset
        return later or self._quote_asset in rows.assets_of(row)
