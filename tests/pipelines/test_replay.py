"""History through the venue: at a time what was known then, labelled by what came after."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from exchange.units import DAY_US, HOUR_US
from features.venue import Venue
from models.labels import NEVER_US, NO_LABEL_END
from models.rows import HORIZONS_US
from pipelines import replay as replaying
from pipelines.events import event_batches
from pipelines.replay import (
    default_events,
    joined,
    labelled_rows,
    observations,
    replay,
    stacked,
    training_rows,
    training_times,
)
from pipelines.store import Dataset
from tests.pipelines import dataset_builder as build

EVERY_US = 4 * HOUR_US


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(build.write(tmp_path / "data", build.random_tables(1)))


def us(hours: float) -> int:
    return build.us(build.at(hours))


def bits(*columns: np.ndarray) -> list[bytes]:
    return [column.tobytes() for column in columns]


# ---- vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [500_000, 25])
def test_each_time_is_as_if_it_were_the_end(
    dataset: Dataset, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "event_batches", partial(event_batches, rows=rows))
    times = np.array([us(h) for h in (-5.0, 0.0, 2.0, 2.0 + 1e-9, 5.9, 6.0, 6.1, 9.0, 11.999, 12.0, 30.0)])
    opened = 0
    for time_us, vectors, venue in replay(dataset, times):
        slow = Venue()
        for batch in event_batches(dataset, int(time_us), slow):
            slow.apply(batch)
        expected = slow.open_vectors(int(time_us))
        assert bits(*vectors) == bits(*expected)
        assert [venue.account_names[key] for key in vectors.account] == [
            slow.account_names[key] for key in expected.account
        ]
        opened += len(vectors.account)
    assert opened > 10


def test_every_time_comes_once_and_is_told_of(dataset: Dataset) -> None:
    times = np.array([us(1.0), us(3.0), us(40.0)])
    steps: list[int] = []
    found = [(time_us, len(steps)) for time_us, _, _ in replay(dataset, times, steps.append)]
    assert [time_us for time_us, _ in found] == times.tolist()
    assert steps == [1, 1, 1]
    assert list(replay(dataset, np.empty(0, np.int64))) == []


def test_accounts_with_an_open_position_by_hand(tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path / "data"))
    expected = {0.2: [], 1.0: ["zoe"], 3.0: ["zoe", "abe"], 7.0: ["zoe"], 12.0: ["zoe"]}
    times = np.array([us(hours) for hours in expected])
    for (time_us, vectors, venue), names in zip(replay(dataset, times), expected.values(), strict=True):
        assert [venue.account_names[key] for key in vectors.account] == names, time_us


def test_a_replay_to_the_end_has_applied_every_event(dataset: Dataset) -> None:
    _, _, venue = next(replay(dataset, np.array([us(12.0)])))
    whole = Venue()
    for batch in event_batches(dataset, None, whole):
        whole.reserve(batch)
        whole.apply(batch)
    assert whole.digest() == venue.digest()
    assert whole.account_names == venue.account_names


# ---- labels ----------------------------------------------------------------------------------------


def test_labels_equal_a_double_loop(small_dataset: Path) -> None:
    dataset = Dataset.open(small_dataset)
    start_us, end_us = dataset.meta.start_us, dataset.meta.end_us
    until_us = end_us - DAY_US - 7
    times = np.arange(start_us + 3 * DAY_US, end_us, 11 * HOUR_US, dtype=np.int64)
    times = times[times <= until_us]
    rows = labelled_rows(dataset, times, until_us)
    names: list[str] = []
    for _, vectors, venue in replay(dataset, times):
        names += [venue.account_names[key] for key in vectors.account]
    events: dict[tuple[str, str], list[tuple[int, float]]] = {}
    table = dataset.read("default_events").with_columns(us=pl.col("time").dt.epoch("us")).sort("us")
    for row in table.iter_rows(named=True):
        if row["us"] <= until_us:
            events.setdefault((row["account_id"], row["kind"]), []).append((row["us"], row["shortfall_usd"]))

    def following(account: str, kind: str, time_us: int) -> list[tuple[int, float]]:
        return [event for event in events.get((account, kind), []) if event[0] > time_us]

    assert len(names) == len(rows.time_us) > 500
    for number, name in enumerate(names):
        time_us = int(rows.time_us[number])
        for k, horizon_us in enumerate(HORIZONS_US):
            known = time_us + horizon_us <= until_us
            assert rows.label_end_us[number, k] == (time_us + horizon_us if known else NO_LABEL_END)
        liquidations = following(name, "liquidation", time_us)
        assert rows.liquidated_us[number] == (liquidations[0][0] if liquidations else NEVER_US)
        negatives = following(name, "negative_equity", time_us)
        assert rows.negative_us[number] == (negatives[0][0] if negatives else NEVER_US)
        due = [event for event in negatives if event[0] <= rows.label_end_us[number, -1]]
        lost = sum(event[1] for event in due if event[0] == due[0][0])
        assert np.isnan(rows.shortfall_usd[number]) if not due else rows.shortfall_usd[number] == lost
    assert (rows.liquidated_us != NEVER_US).any()
    assert (rows.negative_us != NEVER_US).any()


def test_training_times_are_those_of_any_horizon(small_dataset: Path) -> None:
    dataset = Dataset.open(small_dataset)
    start_us = dataset.meta.start_us
    until_us = start_us + 3 * DAY_US
    times = training_times(dataset, EVERY_US, until_us)
    expected = np.arange(start_us, until_us - HORIZONS_US[0] + 1, EVERY_US)
    assert times.tolist() == expected.tolist()
    assert len(training_times(dataset, EVERY_US, start_us)) == 0


def test_training_times_of_snapshots_are_observations(tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path / "data"))
    assert observations(dataset) is not None
    # of the observations at 6 h and 9 h the first alone has a later one within two hours of a horizon
    assert training_times(dataset, HOUR_US, us(12.0)).tolist() == [us(6.0)]
    assert len(training_times(dataset, HOUR_US, us(9.0) - 1)) == 0
    (dataset.path / "observations.parquet").unlink()
    assert observations(Dataset.open(dataset.path)) is None


def test_events_of_accounts_that_were_never_seen_are_left_out(tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path / "data"))
    events = default_events(dataset, lambda name: {"abe": 4}.get(name, -1))
    assert events.account.tolist() == [4]
    assert events.time_us.tolist() == [us(8.0)]


# ---- several datasets ------------------------------------------------------------------------------


def test_rows_of_several_datasets_keep_their_accounts_apart(small_dataset: Path) -> None:
    dataset = Dataset.open(small_dataset)
    until_us = dataset.meta.start_us + 3 * DAY_US
    one = training_rows(dataset, EVERY_US, until_us)
    other = training_rows(dataset, EVERY_US, until_us, first_account=10_000)
    assert bits(*(one._replace(account=other.account))) == bits(*other)
    both = joined([one, other])
    assert len(np.unique(both.account)) == 2 * len(np.unique(one.account))
    assert both.features.shape == (2 * len(one.time_us), one.features.shape[1])


def test_no_vectors_at_all_are_no_rows() -> None:
    empty = stacked([])
    assert (len(empty.account), empty.features.shape[0]) == (0, 0)
