"""Policies in closed loop: the same worlds for all, equal average margin, and what was cut off goes on."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from exchange.errors import InputError
from exchange.margin import tiered_margin_usd
from exchange.simulation.outcome import Outcome
from pipelines import backtest, simulate
from pipelines.backtest_figures import paired, told
from pipelines.backtest_runs import read_metrics, read_run, write_run
from pipelines.cli import run as command
from pipelines.closed_loop import POLICIES, Task, lift_schedule, run
from pipelines.entry_risk import EntryRisk, Follower
from tests.serving.plain_models import write_model

ACCOUNTS, DAYS = 80, 0.25
METRICS = {
    "insurance_draw_usd", "negative_accounts", "liquidated_notional_usd", "deleveraged_notional_usd",
    "net_fund_usd", "traded_notional_usd", "refused_demand", "open_interest_usd", "cascade_minutes",
    "average_margin_rate", "margin_peak_over_trough", "largest_hourly_rise",
    "deleveraging_overshoot_usd", "traders_cost_usd", "share_above_5x", "share_above_10x",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_model(folder)
    return folder


def small_world(seed: int = 3) -> object:
    return simulate.generated_venue(ACCOUNTS, DAYS, seed, "crash")


def figures(policy: str, model: Path | None = None, strength: float | None = None) -> dict[str, float]:
    chosen = POLICIES[policy].strength if strength is None else strength
    return run(Task("w", policy, chosen, partial(small_world), model)).metrics


def test_the_same_run_gives_the_same_figures_and_another_policy_others(model: Path) -> None:
    once, again = figures("account-risk", model), figures("account-risk", model)
    assert once == again
    assert set(once) == METRICS
    static = figures("static")
    assert once["average_margin_rate"] > static["average_margin_rate"]
    assert figures("null") != static
    assert static["margin_peak_over_trough"] == 1.0 and static["largest_hourly_rise"] == 0.0


@pytest.mark.parametrize("policy", ["size", "volatility-new", "span-like"])
def test_a_policy_of_no_strength_is_the_schedule_and_more_strength_more_margin(policy: str) -> None:
    none, some = (figures(policy, strength=strength) for strength in (0.0, 4.0))
    assert some["average_margin_rate"] > none["average_margin_rate"]
    if policy != "span-like":  # whose liquidity part has no strength
        assert none["average_margin_rate"] == pytest.approx(
            figures("static")["average_margin_rate"], rel=0.02
        )


def test_a_lifted_schedule_is_that_many_times_the_schedule_and_continuous() -> None:
    venue, plain = small_world(), small_world()
    lift_schedule(venue, 1.5)
    for lifted, before in zip(venue.world.market, plain.world.market, strict=True):
        for usd in (10.0, 1e4, 3e5, 2e6, 5e7):
            own, old = (
                tiered_margin_usd(usd, row["floor"], row["initial_rate"], row["initial_deduction"])
                for row in (lifted, before)
            )
            assert own == pytest.approx(1.5 * old) or max(lifted["initial_rate"]) == 1.0
        assert (lifted["maintenance_rate"] == before["maintenance_rate"]).all()
        finite = lifted["floor"][np.isfinite(lifted["floor"])]
        for floor in finite[1:]:
            below, above = (
                tiered_margin_usd(
                    floor * near, lifted["floor"], lifted["initial_rate"], lifted["initial_deduction"]
                )
                for near in (1 - 1e-9, 1 + 1e-9)
            )
            assert below == pytest.approx(above, rel=1e-6)


def test_what_the_model_is_asked_rises_with_leverage_and_knows_no_future(model: Path) -> None:
    from pipelines.closed_loop import _scorer

    whole, cut = small_world(), small_world()
    cut.paths = cut.paths._replace(  # what comes after the first hours is another story
        **{
            name: np.vstack([getattr(cut.paths, name)[: cut.history_minutes + 120],
                             1.2 * getattr(cut.paths, name)[cut.history_minutes + 120 :]])
            for name in ("opening", "high", "low", "close")
        }
    )  # fmt: skip
    found = []
    for venue in (whole, cut):
        follower = Follower(venue, _scorer(model))
        for rows in venue.run(venue.history_minutes + 120):
            follower.follow(rows)
        found.append(follower.risk())
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()
    pd = found[0].pd_24h
    assert not np.isnan(pd).any()
    assert (np.diff(pd, axis=2) >= 0.0).all() and (pd[:, :, -1] > pd[:, :, 0]).all()


def test_forced_closing_makes_a_minute_of_cascade_where_the_mark_follows() -> None:
    venue = small_world()
    outcome = Outcome(venue)
    for rows in venue.run():
        outcome.add(rows)
    outcome.look()
    whole = outcome.figures()
    forced, close, held = outcome._forced, outcome._close, outcome._open_usd
    minutes = 0
    for minute in range(len(close) - 1):
        hit = False
        for market in range(close.shape[1]):
            moved = close[minute + 1, market] / close[minute, market] - 1.0
            bought, sold = forced[minute, market] / max(held[minute, market], 1.0)
            hit |= (bought > 0.001 and moved >= 0.005) or (sold > 0.001 and moved <= -0.005)
        minutes += hit
    assert whole["cascade_minutes"] == minutes
    assert whole["liquidated_notional_usd"] == pytest.approx(forced.sum())
    assert whole["net_fund_usd"] == pytest.approx(
        outcome._sums["penalties"] - whole["insurance_draw_usd"], abs=1.0
    )


def test_features_ahead_are_those_that_account_risk_had_a_day_later(model: Path) -> None:
    own = run(Task("w", "account-risk", 1.0, partial(small_world), model))
    assert len(own.asked) == 2
    later = [EntryRisk(each.pd_24h * 0.0 + share, each.sigma_day)
             for each, share in zip(own.asked * 4, np.linspace(0.0, 0.9, 8), strict=True)]  # fmt: skip
    ahead = run(Task("w", "account-risk-ahead", 1.0, partial(small_world), None, own._replace(asked=later)))
    said = [float(each.pd_24h[0, 0, 0]) for each in ahead.asked]
    assert said == [float(each.pd_24h[0, 0, 0]) for each in later[6:]]


def test_what_a_run_found_is_read_as_it_was_written(model: Path, tmp_path: Path) -> None:
    for policy in ("static", "account-risk"):
        found = run(Task("w", policy, 1.0, partial(small_world), model))
        write_run(tmp_path / "run.json", found)
        read = read_run(tmp_path / "run.json")
        assert read.metrics == found.metrics == read_metrics(tmp_path / "run.json")
        assert read.negative == found.negative
        for one, other in zip(read.asked, found.asked, strict=True):
            assert one.pd_24h.tobytes() == other.pd_24h.tobytes()
            assert one.sigma_day.tobytes() == other.sigma_day.tobytes()


def test_without_impact_prices_are_those_of_the_world_outside() -> None:
    for without, follows in (("impact", True), ("", False)):
        world = backtest.World("w", 3, "crash", without=without)
        venue = backtest.make_world(world, ACCOUNTS, DAYS, ())
        for _ in venue.run():
            pass
        rows = venue.world.market
        assert np.allclose(rows["mid"], rows["outside"], rtol=1e-12) == follows


def test_changes_are_of_sums_and_worlds_are_drawn_whole() -> None:
    static = [{"a": 1.0, "b": 0.0}, {"a": 3.0, "b": 0.0}]
    half = [{"a": 0.5, "b": 0.0}, {"a": 1.5, "b": 1.0}]
    found = paired({"static": static, "half": half})
    assert found["policies"]["half"] == {"a": 1.0, "b": 0.5}
    assert found["paired"]["half_vs_static"]["a"] == {"change": -0.5, "low": -0.5, "high": -0.5}
    assert found["paired"]["half_vs_static"]["b"]["change"] is None


def test_a_backtest_is_whole_goes_on_where_it_stopped_and_belongs_to_its_plan(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "backtest"
    asked = ["backtest", "--model", str(model), "--seeds", "2", "--calibration", "1", "--jobs", "1",
             "--accounts", str(ACCOUNTS), "--days", str(DAYS), "--policy", "null",
             "--frontier", "1", "--without", "1", "--out", str(out)]  # fmt: skip
    assert command(asked) == 0
    said = capsys.readouterr().out
    found = json.loads((out / "backtest.json").read_text())
    assert set(found["policies"]) == {"static", "account-risk", "null"}
    assert set(found["policies"]["static"]) == METRICS
    assert set(found["paired"]) == {"account-risk_vs_static", "null_vs_static"}
    assert found["seeds"] == [10_000, 10_001] and len(found["paths"]) == 2
    aim = found["brought_to"]["account-risk average_margin_rate"]
    assert found["brought_to"]["static"] == pytest.approx(aim, rel=0.02)
    assert told(found) in said
    for picture in ("backtest.png", "frontier.png", "assumptions.png"):
        assert (out / picture).stat().st_size > 1_000
    margins = [point["average_margin_rate"] for point in found["frontier"]["static"]]
    assert margins == sorted(margins) and margins[0] < margins[-1]
    assert set(found["without"]) == {"impact", "reaction"}
    assert set(found["against"]) == {"account-risk_vs_null"}
    # what was cut off is done, what was done is not done again
    runs = sorted((out / "runs").iterdir())
    kept = {file.name: file.stat().st_mtime_ns for file in runs if file.stem != runs[0].stem}
    runs[0].unlink()
    (out / "backtest.json").unlink()
    assert command(asked) == 0
    assert json.loads((out / "backtest.json").read_text()) == found
    assert {name: (out / "runs" / name).stat().st_mtime_ns for name in kept} == kept
    assert command([*asked, "--seeds", "3"]) == 2
    assert "another folder" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("x")
    assert command([*asked[:-1], str(other)]) == 2
    assert [file.name for file in other.iterdir()] == ["mine"]


def test_an_unknown_policy_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--policy"):
        backtest.run(model, (), tmp_path / "b", ["best"], 1, 0, ACCOUNTS, DAYS, jobs=1)
    assert not (tmp_path / "b").exists()


def test_every_policy_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(policy.about for policy in POLICIES.values())
    assert math.isclose(POLICIES["static-1.5"].strength, 1.5)
