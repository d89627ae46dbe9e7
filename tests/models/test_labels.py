"""Decision times, labels and folds: against naive loops, by law, and by the counts of a real venue."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.units import DAY_US, HOUR_US
from models import labels as lb

GAPS_US = st.integers(1, 30).map(lambda tenths: tenths * HOUR_US // 4)


def naive_decision_times(start, end, every, horizon, observations, within):
    """The specification, one observation at a time."""
    taken = []
    for time in sorted(t for t in observations if start <= t <= end):
        if taken and time < taken[-1][0] + every:
            continue
        closing = [u for u in sorted(observations) if time + horizon <= u <= time + horizon + 2 * HOUR_US]
        if closing and closing[0] <= end:
            taken.append((time, closing[0]))
    return [(t, u) for t, u in taken if within[0] <= t <= within[1]]


@given(
    gaps=st.lists(GAPS_US, min_size=0, max_size=60),
    every=st.sampled_from([HOUR_US, 4 * HOUR_US]),
    horizon=st.sampled_from([HOUR_US, 8 * HOUR_US, 24 * HOUR_US]),
    cut=st.tuples(st.integers(0, 200), st.integers(0, 200)),
)
def test_decision_times_of_observations_follow_the_specification(gaps, every, horizon, cut):
    observations = np.cumsum(np.array(gaps, np.int64)) + 10 * HOUR_US
    within = (min(cut) * HOUR_US, max(cut) * HOUR_US)
    end = int(observations[-1]) - 3 * HOUR_US if len(observations) else 0
    found = lb.decision_times(11 * HOUR_US, end, every, horizon, observations, within)
    expected = naive_decision_times(11 * HOUR_US, end, every, horizon, observations.tolist(), within)
    assert list(zip(found.time_us.tolist(), found.label_end_us.tolist(), strict=True)) == expected


def test_an_observation_without_a_label_end_is_not_taken():
    hours = np.array([0, 1, 3, 24, 27], np.int64) * HOUR_US
    # 0 h closes at 24 h; 1 h and 3 h close at 27 h, the last and the first moment that they may.
    found = lb.decision_times(0, 30 * HOUR_US, HOUR_US, 24 * HOUR_US, hours, (0, 30 * HOUR_US))
    assert (found.time_us / HOUR_US).tolist() == [0, 1, 3]
    without = np.array([0, 1, 3, 24, 28], np.int64) * HOUR_US
    found = lb.decision_times(0, 30 * HOUR_US, 3 * HOUR_US, 24 * HOUR_US, without[1:], (0, 30 * HOUR_US))
    assert (found.time_us / HOUR_US).tolist() == [3], "the unlabelled hour 1 must not use up the 3 h step"


def test_windows_of_one_dataset_agree_on_their_times():
    observations = np.arange(0, 20 * DAY_US, 7 * HOUR_US // 4, dtype=np.int64)
    args = (0, 20 * DAY_US, 4 * HOUR_US, 24 * HOUR_US, observations)
    whole = lb.decision_times(*args, (0, 20 * DAY_US)).time_us
    part = lb.decision_times(*args, (3 * DAY_US, 7 * DAY_US)).time_us
    assert np.array_equal(part, whole[(whole >= 3 * DAY_US) & (whole <= 7 * DAY_US)])


@pytest.mark.parametrize(
    ("start_h", "end_h", "within_h", "expected_h"),
    [
        (0, 100, (10, 30), [10, 14, 18, 22, 26, 30]),
        (12, 100, (10, 22), [14, 18, 22]),
        (14, 100, (10, 22), [14, 18, 22]),
        (0, 30, (0, 100), [0, 4]),  # T + 24 h must not pass the end
        (0, 28, (0, 100), [0, 4]),
        (0, 27.9, (0, 100), [0]),
        (0, 10, (0, 100), []),
        (0, 100, (30, 10), []),
    ],
)
def test_grid_without_observations(start_h, end_h, within_h, expected_h):
    found = lb.decision_times(
        start_h * HOUR_US,
        int(end_h * HOUR_US),
        4 * HOUR_US,
        24 * HOUR_US,
        None,
        (within_h[0] * HOUR_US, within_h[1] * HOUR_US),
    )
    assert (found.time_us / HOUR_US).tolist() == expected_h
    assert np.array_equal(found.label_end_us, found.time_us + 24 * HOUR_US)


@pytest.mark.parametrize(("every", "horizon"), [(0, 1), (-1, 1), (1, 0)])
def test_steps_and_horizons_must_be_positive(every, horizon):
    with pytest.raises(ValueError, match="positive"):
        lb.decision_times(0, 10, every, horizon, None, (0, 10))


TIMES = st.integers(0, 12)
EVENT = st.tuples(st.integers(0, 4), TIMES, st.integers(0, 3))
ROW = st.tuples(st.integers(0, 5), TIMES, st.integers(1, 6))


def columns(rows, width):
    return np.array(rows, np.int64).reshape(-1, width).T


@given(events=st.lists(EVENT, max_size=25), rows=st.lists(ROW, max_size=25))
def test_labels_equal_a_double_loop(events, rows):
    event_account, event_time, loss = columns(events, 3)
    account, time, length = columns(rows, 3)
    happened = lb.labels(time, account.astype(np.int32), time + length, event_account, event_time)
    first = lb.next_event_us(time, account, event_account, event_time)
    short = lb.shortfall_usd(time, account, time + length, event_account, event_time, loss.astype(float))
    for i, (a, t, n) in enumerate(rows):
        later = sorted((when, usd) for who, when, usd in events if who == a and when > t)
        within = [(when, usd) for when, usd in later if when <= t + n]
        assert happened[i] == bool(within)
        assert first[i] == (later[0][0] if later else lb.NEVER_US)
        expected = sum(usd for when, usd in within if when == within[0][0]) if within else np.nan
        np.testing.assert_equal(short[i], float(expected))


def test_codes_times_and_accounts_of_any_size_do_not_overflow():
    now = 1_900_000_000_000_000
    account = np.array([2_000_000_000, 2_000_000_000, 7], np.int32)
    found = lb.labels(
        np.full(3, now), account, np.full(3, now + 10), account[:1], np.array([now + 10], np.int64)
    )
    assert found.tolist() == [True, True, False]


def test_events_of_one_kind_keep_their_columns_together():
    events = lb.Events(
        np.array([1, 2, 3]), np.array([10, 20, 30]), np.array([0, 1, 0]), np.array([0.0, 5.0, 0.0])
    )
    only = events.of(lb.NEGATIVE_EQUITY)
    assert (only.account.tolist(), only.time_us.tolist(), only.shortfall_usd.tolist()) == ([2], [20], [5.0])


@given(
    hours=st.lists(st.integers(0, 24 * 12), min_size=1, max_size=80),
    horizon_h=st.sampled_from([1, 8, 24, 40]),
    folds=st.integers(1, 4),
)
def test_no_training_label_reaches_into_its_validation_block(hours, horizon_h, folds):
    time = np.array(hours, np.int64) * HOUR_US
    end = time + horizon_h * HOUR_US
    days = time // DAY_US
    if len(np.unique(days)) < folds + 1:
        with pytest.raises(ValueError, match="days"):
            lb.purged_folds(time, end, folds)
        return
    found = lb.purged_folds(time, end, folds)
    validated = [row for fold in found for row in fold.validation.tolist()]
    assert len(validated) == len(set(validated))
    for fold in found:
        first = time[fold.validation].min()
        assert end[fold.training].max() <= first
        assert not set(days[fold.training]) & set(days[fold.validation]), "a day stands on both sides"
        assert len(fold.training) == (end <= first).sum(), "a row that was already known is missing"


def test_rows_without_a_label_cannot_enter_a_fold():
    time = np.arange(5, dtype=np.int64) * DAY_US
    end = np.append(time[:-1] + 1, lb.NO_LABEL_END)
    with pytest.raises(ValueError, match="label end"):
        lb.purged_folds(time, end, 2)


# --- the real accounts of Drift v2 -------------------------------------------------------------------


def micros(table: pl.DataFrame) -> np.ndarray:
    return table["time"].dt.epoch("us").to_numpy()


def date_us(date: str) -> int:
    return int(np.datetime64(date, "us").astype(np.int64))


@pytest.fixture(scope="module")
def venue():
    """Last known positions at each 24 h decision time, and the liquidations, as plain arrays."""
    root = Path(os.environ.get("PERPRISK_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    folder = root / "drift-v2"
    if not folder.is_dir():
        pytest.skip(f"real accounts are not here: {folder} (set PERPRISK_DATA)")

    def read(name: str) -> pl.DataFrame:
        return pl.read_parquet(folder / f"{name}.parquet").sort("time")

    found = lb.decision_times(
        date_us("2022-11-07"),
        date_us("2023-03-01"),
        4 * HOUR_US,
        24 * HOUR_US,
        micros(read("observations")),
        (date_us("2022-11-07"), date_us("2023-03-01")),
    )
    codes = {name: code for code, name in enumerate(read("account_snapshots")["account_id"].unique())}
    snapshots = read("account_snapshots").select("account_id", snapshot=pl.col("time"), time=pl.col("time"))
    open_positions = read("position_snapshots").filter(pl.col("quantity") != 0)
    marks = read("market_bars").select("time", "market", "mark_close").sort("time")
    when = pl.DataFrame({"time": found.time_us, "end": found.label_end_us}).with_columns(
        pl.col("time").cast(pl.Datetime("us", "UTC"))
    )
    pairs = when.join(pl.DataFrame({"account_id": list(codes)}), how="cross").sort("time")
    rows = (
        pairs.join_asof(snapshots, on="time", by="account_id", check_sortedness=False)
        .drop_nulls("snapshot")
        .join(open_positions.rename({"time": "snapshot"}), on=["snapshot", "account_id"])
        .sort("time")
        .join_asof(marks, on="time", by="market", check_sortedness=False)
        .group_by("time", "end", "account_id")
        .agg(notional_usd=(pl.col("quantity") * pl.col("mark_close")).abs().sum())
        .sort("time", "account_id")
    )
    events = read("default_events").filter(pl.col("kind") == "liquidation")
    return {
        "time": micros(rows),
        "end": rows["end"].to_numpy(),
        "account": np.array([codes[name] for name in rows["account_id"]]),
        "notional_usd": rows["notional_usd"].to_numpy(),
        "event_account": np.array([codes.get(name, len(codes)) for name in events["account_id"]]),
        "event_time": micros(events),
    }


@pytest.mark.parametrize(
    ("first", "last", "least_notional_usd", "times", "rows", "events", "accounts"),
    [
        ("2022-12-01", "2022-12-14", 10.0, 80, 8_622, 104, 16),
        ("2022-12-15", "2023-01-13", 10.0, 72, 11_679, 588, 158),
        ("2023-01-15", "2023-02-28", 10.0, 18, 4_376, 47, 26),
        ("2022-12-01", "2022-12-14", 0.0, 80, 12_120, 122, 19),
        ("2022-12-15", "2023-01-13", 0.0, 72, 14_664, 665, 182),
        ("2023-01-15", "2023-02-28", 0.0, 18, 5_071, 48, 27),
    ],
)
def test_known_counts_of_real_accounts(venue, first, last, least_notional_usd, times, rows, events, accounts):
    """The figures measured before on these accounts left out positions of less than $10 in all."""
    chosen = (
        (venue["time"] >= date_us(first))
        & (venue["time"] < date_us(last) + DAY_US)
        & (venue["notional_usd"] >= least_notional_usd)
    )
    account, time = venue["account"][chosen], venue["time"][chosen]
    happened = lb.labels(time, account, venue["end"][chosen], venue["event_account"], venue["event_time"])
    found = (len(np.unique(time)), len(time), int(happened.sum()), len(np.unique(account[happened])))
    assert found == (times, rows, events, accounts)
