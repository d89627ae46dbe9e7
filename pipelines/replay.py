"""History through the venue: vectors at decision times, and the training rows made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_US
from features import emit
from features.venue import Vectors, Venue
from models import labels
from models.rows import HORIZONS_US, Rows
from pipelines.events import event_batches
from pipelines.rules import checked
from pipelines.store import Dataset

Integers = npt.NDArray[np.int64]
KIND_CODES = {name: code for code, name in enumerate(labels.EVENT_KINDS)}


def replay(
    dataset: Dataset,
    times_us: Integers,
    on_step: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[int, Vectors, Venue]]:
    """Yield (time, vectors of all accounts with an open position, venue) at each of the rising times.

    Nothing after a time is applied, or even read beyond the last one, before its vectors are taken.
    The venue goes on changing: use it before asking for the next. `on_step` hears of each time passed.
    """
    if len(times_us) == 0:
        return
    venue = Venue()
    due = 0
    for batch in event_batches(dataset, int(times_us[-1]), venue):
        venue.reserve(batch)
        row = 0
        # A time is due once an event after it is seen: batches never end within a moment.
        while due < len(times_us) and len(batch.time_us) and times_us[due] < batch.time_us[-1]:
            row = venue.apply(batch, row, int(times_us[due]))
            yield int(times_us[due]), venue.open_vectors(int(times_us[due])), venue
            due += 1
            on_step(1)
        venue.apply(batch, row)
    for time_us in times_us[due:]:
        yield int(time_us), venue.open_vectors(int(time_us)), venue
        on_step(1)


def observations(dataset: Dataset) -> Integers | None:
    """Times at which the whole population was looked at, or None where the record is continuous."""
    if not dataset.has("observations"):
        return None
    return checked(dataset, "observations")["time"].dt.epoch("us").to_numpy().astype(np.int64)


def default_events(dataset: Dataset, account: Callable[[str], int]) -> labels.Events:
    """Events of a dataset by account id; those of accounts that `account` does not know (-1) are left out."""
    table = checked(dataset, "default_events")
    ids = np.array([account(name) for name in table["account_id"]], np.int64)
    events = labels.Events(
        ids,
        table["time"].dt.epoch("us").to_numpy().astype(np.int64),
        np.array([KIND_CODES[kind] for kind in table["kind"]], np.int64),
        table["shortfall_usd"].fill_null(np.nan).to_numpy().astype(np.float64),
    )
    return labels.Events._make(column[ids >= 0] for column in events)


def training_times(dataset: Dataset, every_us: int, until_us: int) -> Integers:
    """Every decision time of any horizon whose label is known by `until_us`."""
    start_us, end_us = dataset.meta.start_us, min(dataset.meta.end_us, until_us)
    seen = observations(dataset)
    if seen is not None:
        seen = seen[seen <= until_us]
    found = [
        labels.decision_times(start_us, end_us, every_us, horizon_us, seen, (start_us, end_us)).time_us
        for horizon_us in HORIZONS_US
    ]
    return np.unique(np.concatenate(found))


def training_rows(
    dataset: Dataset,
    every_us: int,
    until_us: int,
    on_step: Callable[[int], None] = lambda _: None,
    first_account: int = 0,
) -> Rows:
    """Features and labels of a dataset with nothing after `until_us` in either.

    Account codes begin at `first_account`, so that rows of several datasets can be put together.
    """
    times_us = training_times(dataset, every_us, until_us)
    return labelled_rows(dataset, times_us, until_us, on_step, first_account)


def labelled_rows(
    dataset: Dataset,
    times_us: Integers,
    until_us: int,
    on_step: Callable[[int], None] = lambda _: None,
    first_account: int = 0,
    on_vectors: Callable[[int, Vectors, Venue], None] = lambda *_: None,
) -> Rows:
    """Vectors at the given times, and what happened after them as far as it was known at `until_us`.

    `on_vectors` is shown the vectors of each time with the venue as it stands then.
    """
    steps: list[Vectors] = []
    times: list[Integers] = []
    venue = Venue()
    for time_us, vectors, current in replay(dataset, times_us, on_step):
        venue = current
        on_vectors(time_us, vectors, venue)
        steps.append(vectors)
        times.append(np.full(len(vectors.account), time_us, np.int64))
    time_us_of_row = np.concatenate(times) if times else np.empty(0, np.int64)
    vectors = stacked(steps)
    seen = observations(dataset)
    end_us = min(dataset.meta.end_us, until_us)
    label_end_us = np.column_stack(
        [labels.label_ends(time_us_of_row, horizon, end_us, seen) for horizon in HORIZONS_US]
    )
    events = default_events(dataset, venue.find_account)
    events = labels.Events._make(column[events.time_us <= until_us] for column in events)
    liquidations, negatives = events.of(labels.LIQUIDATION), events.of(labels.NEGATIVE_EQUITY)
    return Rows(
        time_us_of_row,
        vectors.account + first_account,
        vectors.features,
        vectors.figures,
        label_end_us,
        labels.next_event_us(time_us_of_row, vectors.account, liquidations.account, liquidations.time_us),
        labels.next_event_us(time_us_of_row, vectors.account, negatives.account, negatives.time_us),
        labels.shortfall_usd(
            time_us_of_row,
            vectors.account,
            label_end_us[:, -1],
            negatives.account,
            negatives.time_us,
            negatives.shortfall_usd,
        ),
    )


def stacked(parts: Sequence[Vectors]) -> Vectors:
    """Vectors one below the other."""
    if not parts:
        return Vectors(np.empty(0, np.int64), np.empty((0, emit.FEATURES)), np.empty((0, emit.FIGURES)))
    return Vectors(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def joined(parts: Sequence[Rows]) -> Rows:
    """Training rows of several datasets one below the other."""
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


DEFAULT_EVERY_US = DAY_US // 6
"""Four hours between training times: closer ones are near-copies of each other."""
