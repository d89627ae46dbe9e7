"""Nothing from after T is in a score at T, nor in a model trained until T; and the check can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from features import events as ev
from features.events import EventBatch
from features.venue import Vectors, Venue
from models.bundle import Bundle
from models.labels import NO_LABEL_END
from models.rows import Rows
from pipelines import replay as replaying
from pipelines import train as training
from pipelines.events import event_batches
from pipelines.replay import replay, stacked, training_rows
from pipelines.score import write_scores
from pipelines.store import Dataset
from serving.scorer import Scorer, Scores
from tests.pipelines import dataset_builder as build

EVERY_US = 4 * HOUR_US
Times = list[int]


@pytest.fixture(scope="module")
def scorer(small_model: Path) -> Scorer:
    return Scorer(Bundle.open(small_model, catalog.fingerprint()))


@pytest.fixture(scope="module")
def generated(small_dataset: Path) -> Dataset:
    return Dataset.open(small_dataset, "accounts")


def telling_times(dataset: Dataset) -> Times:
    """Moments at which something happens, the microseconds around them, and one at which nothing does."""
    start_us, end_us = dataset.meta.start_us, dataset.meta.end_us
    found = {start_us + (end_us - start_us) // 3 + 12_345_678}
    for table in ("default_events", "fills"):
        times = dataset.read(table)["time"].unique().sort().dt.epoch("us").to_list()
        if times:
            middle = times[len(times) // 2]
            found |= {middle - 1, middle} if table == "fills" else {middle, times[-1]}
    return sorted(time_us for time_us in found if start_us <= time_us <= end_us)


def bits(frame: pl.DataFrame) -> list[Any]:
    """Every value, floats by their bits."""
    return [
        frame[name].reinterpret(signed=True).to_list()
        if frame.schema[name] == pl.Float64
        else frame[name].to_list()
        for name in frame.columns
    ]


def assert_same(one: tuple[npt.NDArray[Any], ...], other: tuple[npt.NDArray[Any], ...]) -> None:
    # Compared first and asserted after: a difference of megabytes written out takes minutes.
    for number, (left, right) in enumerate(zip(one, other, strict=True)):
        assert left.shape == right.shape
        same = left.tobytes() == right.tobytes()
        assert same, f"array {number} differs"


def check_scores(dataset: Dataset, scorer: Scorer, times_us: Times, folder: Path) -> int:
    """Score all times in one run, and each on a copy that ends then; the number of rows compared.

    The run goes on after each time, so that what it should not look at yet is at hand.
    """
    later_us = min(times_us[-1] + HOUR_US, dataset.meta.end_us)
    write_scores(dataset, scorer, np.array([*times_us, later_us]), folder / "whole.parquet")
    whole = pl.read_parquet(folder / "whole.parquet")
    compared = 0
    for time_us in times_us:
        copy = build.truncate_after(dataset.path, folder / f"until{time_us}", time_us)
        write_scores(Dataset.open(copy), scorer, np.array([time_us]), folder / "then.parquet")
        then = pl.read_parquet(folder / "then.parquet")
        expected = whole.filter(pl.col("time").dt.epoch("us") == time_us)
        same = bits(then) == bits(expected)
        assert same, f"scores at {time_us} differ"
        compared += then.height
    return compared


def check_training(dataset: Dataset, times_us: Times, folder: Path) -> int:
    """Training rows until each time, and of a copy that ends then; the number of rows compared."""
    compared = 0
    for time_us in times_us:
        copy = build.truncate_after(dataset.path, folder / f"until{time_us}", time_us)
        then = training_rows(Dataset.open(copy), EVERY_US, time_us)
        until = training_rows(dataset, EVERY_US, time_us)
        assert_same(then, until)
        assert (until.time_us <= time_us).all()
        assert (until.label_end_us <= time_us).all()
        compared += len(then.time_us)
    return compared


def check_vectors(dataset: Dataset, times_us: Times, folder: Path) -> int:
    """Every column at all times in one run, and at each on a copy that ends then; how many rows."""
    later_us = min(times_us[-1] + HOUR_US, dataset.meta.end_us)
    steps = replaying.replay(dataset, np.array([*times_us, later_us]))
    whole = {time_us: tuple(vectors) for time_us, vectors, _ in steps}
    compared = 0
    for time_us in times_us:
        copy = build.truncate_after(dataset.path, folder / f"until{time_us}", time_us)
        ((_, then, _),) = replaying.replay(Dataset.open(copy), np.array([time_us]))
        assert_same(tuple(then), whole[time_us])
        compared += len(then.account)
    return compared


# ---- columns ---------------------------------------------------------------------------------------


def test_what_comes_after_changes_no_column(generated: Dataset, tmp_path: Path) -> None:
    assert check_vectors(generated, telling_times(generated)[::2], tmp_path) > 300


def peeking(column: int) -> Callable[..., Iterator[tuple[int, Vectors, Venue]]]:
    """A replay in which one column of every account is what it will be at the next time."""

    def leaky(*arguments: Any, **options: Any) -> Iterator[tuple[int, Vectors, Venue]]:
        steps = list(replay(*arguments, **options))
        for number, (time_us, vectors, venue) in enumerate(steps):
            features = vectors.features.copy()
            _, following, _ = steps[min(number + 1, len(steps) - 1)]
            later = dict(zip(following.account.tolist(), following.features[:, column].tolist(), strict=True))
            for row, account in enumerate(vectors.account.tolist()):
                features[row, column] = later.get(account, features[row, column])
            yield time_us, vectors._replace(features=features), venue

    return leaky


@pytest.mark.parametrize(
    "name", ["margin_ratio", "pressure_3pct", "fills", "lowest_margin_ratio", "outcome_ratio"]
)
def test_a_column_that_peeks_one_step_ahead_is_caught(
    generated: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    start_us = telling_times(generated)[0]
    times_us = [start_us, start_us + 7 * HOUR_US]
    monkeypatch.setattr(replaying, "replay", peeking(catalog.index(name)))
    with pytest.raises(AssertionError, match="array 1 differs"):
        check_vectors(generated, times_us, tmp_path)


# ---- scores ----------------------------------------------------------------------------------------


def test_what_comes_after_changes_no_score(generated: Dataset, scorer: Scorer, tmp_path: Path) -> None:
    times_us = telling_times(generated)
    assert len(times_us) == 5
    assert check_scores(generated, scorer, times_us, tmp_path) > 500


@pytest.mark.real_data
def test_what_comes_after_changes_no_score_of_real_accounts(
    drift: Path, scorer: Scorer, tmp_path: Path
) -> None:
    until_us = build.us(datetime(2022, 11, 18, tzinfo=UTC))
    slice_ = Dataset.open(build.truncate_after(drift, tmp_path / "slice", until_us), "accounts")
    times_us = telling_times(slice_)
    assert check_scores(slice_, scorer, times_us, tmp_path) > 50


def shifted(shift: int) -> Callable[..., Iterator[EventBatch]]:
    """The stream with every mark known `shift` bars ahead."""

    def leaky(*arguments: Any, **options: Any) -> Iterator[EventBatch]:
        for batch in event_batches(*arguments, **options):
            for market in np.unique(batch.key[batch.kind == ev.BAR]):
                rows = np.flatnonzero((batch.kind == ev.BAR) & (batch.key == market))
                marks = batch.values[rows, 0]
                batch.values[rows, 0] = np.append(marks[shift:], marks[len(marks) - shift :])
            yield batch

    return leaky


def test_a_mark_known_a_bar_ahead_is_caught(
    generated: Dataset, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_us = telling_times(generated)[:1]
    monkeypatch.setattr(replaying, "event_batches", shifted(0))
    (tmp_path / "sound").mkdir()
    assert check_scores(generated, scorer, times_us, tmp_path / "sound")
    monkeypatch.setattr(replaying, "event_batches", shifted(1))
    (tmp_path / "leaky").mkdir()
    with pytest.raises(AssertionError):
        check_scores(generated, scorer, times_us, tmp_path / "leaky")


def test_the_order_of_rows_in_files_changes_no_score(
    generated: Dataset, scorer: Scorer, tmp_path: Path
) -> None:
    times_us = np.array(telling_times(generated)[-2:])
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for file in generated.path.glob("*.parquet"):
        rows = pl.read_parquet(file)
        rows.sample(fraction=1.0, shuffle=True, seed=5).write_parquet(shuffled / file.name)
    (shuffled / "dataset.json").write_bytes((generated.path / "dataset.json").read_bytes())
    assert (
        pl.read_parquet(shuffled / "fills.parquet").rows()
        != pl.read_parquet(generated.path / "fills.parquet").rows()
    )
    write_scores(generated, scorer, times_us, tmp_path / "one.parquet")
    write_scores(Dataset.open(shuffled), scorer, times_us, tmp_path / "other.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


def test_an_account_scores_the_same_in_any_company(generated: Dataset, scorer: Scorer) -> None:
    times_us = np.array(telling_times(generated))
    vectors = stacked([found for _, found, _ in replay(generated, times_us)])

    def score(vectors: Vectors) -> Scores:
        posted = vectors.features[:, None]  # at every level what it is without
        return scorer.score(vectors, lambda rows, first, last: np.repeat(posted[rows], last - first, axis=1))

    whole = score(vectors)
    reasons = scorer.reasons(vectors, whole)
    rng = np.random.default_rng(3)
    count = len(vectors.account)
    sizes = [1, 2, 3, 7, 64, 255, count - 1]
    for size in sizes:
        for chosen in (
            rng.choice(count, size, replace=False),
            np.arange(size),
            np.arange(count - size, count),
        ):
            some = Vectors._make(column[chosen] for column in vectors)
            scores = score(some)
            assert_same(scores[:-1], tuple(column[chosen] for column in whole[:-1]))
            assert scores.fallback == [whole.fallback[row] for row in chosen]
            assert scorer.reasons(some, scores) == [reasons[row] for row in chosen]


# ---- models ----------------------------------------------------------------------------------------


def test_a_model_learns_nothing_from_after_its_time(generated: Dataset, tmp_path: Path) -> None:
    times_us = [time_us for time_us in telling_times(generated) if time_us > generated.meta.start_us + DAY_US]
    assert len(times_us) >= 3
    assert check_training(generated, times_us, tmp_path) > 1_000


@pytest.mark.real_data
def test_a_model_of_real_accounts_learns_nothing_from_after_its_time(drift: Path, tmp_path: Path) -> None:
    times_us = [build.us(datetime(2022, 11, day, hour, tzinfo=UTC)) for day, hour in ((13, 0), (20, 7))]
    assert check_training(Dataset.open(drift), times_us, tmp_path) > 200


def test_a_label_from_the_future_is_caught(
    generated: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = replaying.labelled_rows

    def leaky(dataset: Dataset, times_us: Any, _until_us: int, *more: Any) -> Rows:
        return honest(dataset, times_us, dataset.meta.end_us, *more)

    monkeypatch.setattr(replaying, "labelled_rows", leaky)
    events = generated.read("default_events").filter(pl.col("kind") == "liquidation")["time"].sort()
    before_many_us = build.us(events[len(events) // 2]) - HOUR_US
    with pytest.raises(AssertionError):
        check_training(generated, [before_many_us], tmp_path)


def test_training_until_a_time_is_training_on_a_copy_that_ends_then(
    generated: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "record", lambda *_: None)  # where the run is kept is not the question
    monkeypatch.setattr(training, "_held_out", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    until_us = generated.meta.start_us + 6 * DAY_US + 5 * HOUR_US + 1
    copy = build.truncate_after(generated.path, tmp_path / "copy", until_us)
    training.train_model([generated.path], tmp_path / "until", until_us)
    training.train_model([copy], tmp_path / "then")
    models = []
    for name in ("until", "then"):
        folder = tmp_path / name
        model = json.loads((folder / "model.json").read_text())
        assert model["heads"]["hazard_24h"]["events"] > 0
        (described,) = model.pop("datasets")
        assert described.pop("digest")
        models.append(
            (model, described, (folder / "model.onnx").read_bytes(), (folder / "trees.npz").read_bytes())
        )
    assert models[0] == models[1]
    whole = training_rows(generated, EVERY_US, generated.meta.end_us)
    until = training_rows(generated, EVERY_US, until_us)
    assert (whole.label_end_us != NO_LABEL_END).sum() > (until.label_end_us != NO_LABEL_END).sum()
