"""Switches of the margin policy: what they may be, what they mean, and that no change goes unrecorded."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from exchange.errors import InputError
from exchange.units import HOUR_US
from serving.glide import NEVER_US, Pace
from serving.parts import STANDARD
from serving.switches import Parameters, Policy, Switches, Wanted, change_file, changed, read_policy

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_without_a_file_everything_is_standard(tmp_path: Path) -> None:
    policy = read_policy(tmp_path / "policy.json")
    assert policy == Policy()
    assert policy.switches.of("BTC-PERP").terms.tolist() == [
        *STANDARD[:3].tolist(), 0.0, 0.0, 1.0, 0.25, *STANDARD[7:].tolist()
    ]  # fmt: skip
    assert Parameters().pace == Pace()
    assert Parameters().notice_us == NEVER_US


def test_what_switches_mean() -> None:
    parameters = Parameters(
        account_risk=False, loading=5.0, target_pd=0.02, volatility=True, sigmas=3.0, stress_weight=0.25,
        stressed_sigma_day=0.2, floor=False, buffer=0.3, liquidity=1.5, ceiling_ppm=400_000,
        open_positions="priced", entering="fresh", band_ppm=1, windows=2, rise_ppm_per_h=4, fall_ppm_per_h=3,
        notice_h=1.5,
    )  # fmt: skip
    assert parameters.terms.tolist() == [0.0, 0.02, 3.0, 0.25, 0.2, 0.0, 0.3, 1.5, 0.4, 0.0, 0.0]
    assert parameters.pace == Pace(1, 2, 4, 3)
    assert parameters.notice_us == 3 * HOUR_US // 2
    assert msgspec.structs.replace(parameters, account_risk=True).terms[0] == 5.0
    assert msgspec.structs.replace(parameters, volatility=False).terms[2] == 0.0


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("loading", -0.1), ("loading", 101.0), ("loading", "3"), ("loading", True), ("loading", None),
        ("loading", float("nan")), ("loading", float("inf")), ("target_pd", 1.1), ("account_risk", 1),
        ("ceiling_ppm", 1_000_001), ("ceiling_ppm", 0.5), ("windows", 0), ("stress_weight", 0.25),
        ("fall_ppm_per_h", 20_000), ("rise_ppm_per_h", 5_000), ("open_positions", "moved"),
        ("entering", "stamped"), ("notice_h", -1.0), ("buffer", 1.5), ("price", 1.0), ("terms", 1.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("market", [None, "BTC-PERP"])
def test_what_cannot_be_is_refused(market: str | None, parameter: str, value: Any) -> None:
    if market is not None and value is None:
        pytest.skip("back to the venue's")
    with pytest.raises(InputError, match=parameter):
        changed(Policy(), Wanted(market, parameter, value), "ann", "why not", NOON)


def test_falls_may_be_off_and_rises_with_them() -> None:
    policy = changed(Policy(), Wanted(None, "fall_ppm_per_h", 0), "ann", "no relief", NOON)
    policy = changed(policy, Wanted(None, "rise_ppm_per_h", 0), "ann", "nothing moves", NOON)
    assert policy.switches.venue.pace[2:4] == (0, 0)


def test_a_market_has_the_venues_parameters_but_for_its_own() -> None:
    policy = Policy()
    for wanted in (
        Wanted("SOL-PERP", "loading", 6.0), Wanted(None, "loading", 4.0), Wanted(None, "target_pd", 0.02)
    ):  # fmt: skip
        policy = changed(policy, wanted, "ann", "thin book", NOON)
    assert policy.switches.terms_of(["BTC-PERP", "SOL-PERP"])[:, :2].tolist() == [[4.0, 0.02], [6.0, 0.02]]
    policy = changed(policy, Wanted("SOL-PERP", "loading", None), "bob", "as all", NOON)
    assert policy.switches == Switches(policy.switches.venue)
    assert policy.changes[-1].before == 6.0
    assert policy.changes[-1].after is None
    with pytest.raises(InputError, match="already"):
        changed(policy, Wanted("SOL-PERP", "loading", None), "bob", "again", NOON)
    with pytest.raises(InputError, match="already"):
        changed(policy, Wanted(None, "loading", 4.0), "bob", "again", NOON)


def test_the_venues_change_is_refused_where_it_breaks_a_market() -> None:
    policy = changed(Policy(), Wanted("SOL-PERP", "fall_ppm_per_h", 15_000), "ann", "quicker", NOON)
    with pytest.raises(InputError, match="fall_ppm_per_h"):
        changed(policy, Wanted(None, "rise_ppm_per_h", 10_000), "ann", "slower", NOON)


@pytest.mark.parametrize(("who", "why"), [("", "why"), ("ann", ""), ("a" * 501, "why")])
def test_nobody_changes_anything_without_a_name_and_a_reason(who: str, why: str) -> None:
    with pytest.raises(InputError, match=r"who|why"):
        changed(Policy(), Wanted(None, "loading", 4.0), who, why, NOON)


def test_every_change_is_kept_with_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    first = change_file(path, Wanted(None, "loading", 4.0), "ann", "a crash", NOON)
    second = change_file(
        path, Wanted("SOL-PERP", "liquidity", 2), "bob", "thin book", NOON + timedelta(hours=1)
    )
    third = change_file(path, Wanted(None, "loading", 3.5), "ann", "over", NOON + timedelta(hours=2))
    policy = read_policy(path)
    assert policy.changes == [first, second, third]
    assert [(each.sequence, each.before, each.after) for each in policy.changes] == [
        (1, Parameters().loading, 4.0), (2, None, 2), (3, 4.0, 3.5)
    ]  # fmt: skip
    assert policy.switches.of("SOL-PERP").liquidity == 2.0
    assert third.text == "margin policy change 3 by ann: venue loading 4.0 -> 3.5 (over)"
    assert second.text == "margin policy change 2 by bob: SOL-PERP liquidity None -> 2 (thin book)"
    with pytest.raises(InputError, match="before change 3"):
        change_file(path, Wanted(None, "loading", 1.0), "ann", "late", NOON)
    assert read_policy(path) == policy


def damaged(content: dict[str, Any], how: str) -> dict[str, Any]:
    if how == "switch":
        content["switches"]["venue"]["loading"] = 1.0
    elif how == "market":
        content["switches"]["markets"] = {"X": {"loading": 1.0}}
    elif how == "lost":
        del content["changes"][0]
    elif how == "before":
        content["changes"][0]["before"] = 2.0
    elif how == "number":
        content["changes"][1]["sequence"] = 7
    elif how == "impossible":
        content["changes"][1]["after"] = -1.0
    elif how == "more":
        content["changes"][0]["note"] = ""
    return content


@pytest.mark.parametrize("how", ["switch", "market", "lost", "before", "number", "impossible", "more"])
def test_a_file_that_is_not_what_its_changes_made_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "policy.json"
    for loading in (4.0, 5.0):
        change_file(path, Wanted(None, "loading", loading), "ann", "a crash", NOON)
    path.write_text(json.dumps(damaged(json.loads(path.read_text()), how)))
    with pytest.raises(InputError):
        read_policy(path)
    kept = path.read_bytes()
    with pytest.raises(InputError):
        change_file(path, Wanted(None, "loading", 6.0), "ann", "a crash", NOON)
    assert path.read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"switches": 1}'])
def test_what_is_no_policy_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no margin policy"):
        read_policy(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        change_file(tmp_path / "none" / "policy.json", Wanted(None, "loading", 1.0), "ann", "x", NOON)
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(tmp_path)


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.json"
    change_file(path, Wanted(None, "loading", 4.0), "ann", "a crash", NOON)
    kept = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(InputError, match="No space left"):
                change_file(path, Wanted(None, "loading", 5.0), "ann", "more", NOON)
        assert path.read_bytes() == kept


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"

    def change(number: int) -> None:
        change_file(path, Wanted(f"M{number}", "loading", float(number)), "ann", "at once", NOON)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(1, 25)))
    policy = read_policy(path)
    assert [each.sequence for each in policy.changes] == list(range(1, 25))
    assert {name: own["loading"] for name, own in policy.switches.markets.items()} == {
        f"M{number}": float(number) for number in range(1, 25)
    }
    assert np.isfinite(policy.switches.terms_of(list(policy.switches.markets))).all()
