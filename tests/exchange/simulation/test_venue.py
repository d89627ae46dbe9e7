from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exchange.errors import InputError
from exchange.simulation.tables import tables_of
from exchange.simulation.venue import Run, run_venue
from tests.exchange.simulation.replay import MARKETS, Replay

CLOSE = 1e-6


def test_the_run_has_what_it_should_be_tried_on(tables: dict[str, Any]) -> None:
    kinds = tables["default_events"]["kind"].tolist()
    assert kinds.count("liquidation") >= 10 and kinds.count("negative_equity") >= 3
    assert set(tables["fills"]["kind"]) == {"trade", "liquidation", "deleverage"}
    modes = dict(zip(tables["accounts"]["account_id"], tables["accounts"]["margin_mode"], strict=True))
    fell = {modes[account] for account in tables["default_events"]["account_id"]}
    assert fell == {"cross", "isolated"}


def test_money_is_conserved(run: Run, tables: dict[str, Any]) -> None:
    start, end = run.dollars
    assert end == pytest.approx(start + tables["transfers"]["amount_usd"].sum(), rel=1e-9)


def test_snapshots_follow_from_transfers_fills_and_funding(run: Run, tables: dict[str, Any]) -> None:
    columns = tables["default_events"]
    shortfall: dict[tuple[int, str], float] = {}
    for time, account, kind, loss in zip(
        *(columns[c] for c in ("time", "account_id", "kind", "shortfall_usd")), strict=True
    ):
        if kind == "negative_equity":
            shortfall[time, account] = shortfall.get((time, account), 0.0) + loss
    replay = Replay(run, tables)
    seen: set[str] = set()
    compared = 0
    for table, row in replay.before():
        if table != "account_snapshots":
            continue
        name = row["account_id"]
        found, told = replay.account(name), row["equity_usd"]
        # the fund pays a shortfall with no row but the snapshot; a leaver's token goes the same way
        possible = [found.equity_usd, found.equity_usd + shortfall.get((row["time"], name), 0.0)]
        if not found.positions and replay.accounts[name].usdc == pytest.approx(0.0, abs=CLOSE):
            possible.append(0.0)
        if name in seen:
            compared += 1
            assert any(told == pytest.approx(equity, rel=CLOSE, abs=CLOSE) for equity in possible), row
        seen.add(name)
        replay._apply(table, row)
        after = replay.account(name)
        figures = ("equity_usd", "collateral_usd", "initial_margin_usd", "maintenance_margin_usd")
        assert [row[f] for f in figures] == pytest.approx([getattr(after, f) for f in figures], abs=CLOSE)
    assert compared > 500


def test_nobody_is_closed_at_or_above_maintenance(run: Run, tables: dict[str, Any]) -> None:
    replay = Replay(run, tables)
    begun: set[tuple[int, str]] = set()
    for table, row in replay.before():
        if (
            table == "fills"
            and row["kind"] == "liquidation"
            and (row["time"], row["account_id"]) not in begun
        ):
            begun.add((row["time"], row["account_id"]))
            account = replay.account(row["account_id"])
            assert account.buffer_usd < CLOSE
            pool = account.weakest_pool
            assert pool is not None
            assert row["market"] in {position.market.market for position in pool.positions}
    columns = tables["default_events"]
    events = zip(columns["time"], columns["account_id"], columns["kind"], strict=True)
    assert {(t, a) for t, a, kind in events if kind == "liquidation"} == begun


def test_nobody_stays_under_maintenance_at_a_bar(run: Run, tables: dict[str, Any]) -> None:
    columns = tables["account_snapshots"]
    modes = dict(zip(tables["accounts"]["account_id"], tables["accounts"]["margin_mode"], strict=True))
    at_bar = columns["time"] % 300_000_000 == 0
    cross = np.array([modes[account] == "cross" for account in columns["account_id"]])
    # what is deleveraged away at a bar can weaken an account that was already looked at
    held = columns["maintenance_margin_usd"] > 0.0
    chosen = at_bar & cross & held & (columns["time"] > run.start_us)
    above = (columns["collateral_usd"] >= columns["maintenance_margin_usd"])[chosen]
    assert above.sum() > 100 and above.mean() > 0.99


def test_adding_risk_or_taking_money_leaves_initial_margin(run: Run, tables: dict[str, Any]) -> None:
    replay = Replay(run, tables)
    tried = 0
    checks: list[tuple[str, str]] = []
    for table, row in replay.before():
        # the row before this one has been applied by now
        for name, market in checks:
            account = replay.account(name)
            if account.margin_mode == "cross":
                assert account.collateral_usd >= account.initial_margin_usd, row
                tried += 1
            elif market and table != "account_snapshots":
                pool = next(p for p in account.pools() if p.positions[0].market.market == market)
                assert pool.collateral_usd >= pool.initial_margin_usd, row
                tried += 1
        if table == "account_snapshots" and checks and row["account_id"] == checks[0][0]:
            # collateral set aside for an isolated position is known after the snapshot of that time
            continue
        checks = []
        if table == "fills" and row["kind"] == "trade":
            held = replay.accounts[row["account_id"]].quantity.get(row["market"], 0.0)
            if abs(held + row["quantity"]) > abs(held) or held * (held + row["quantity"]) < 0.0:
                checks = [(row["account_id"], row["market"])]
        elif table == "transfers" and row["amount_usd"] < 0.0:
            checks = [(row["account_id"], "")]
    assert tried > 100


def test_the_fund_is_never_in_debt_and_its_rows_add_up(tables: dict[str, Any]) -> None:
    fund = tables["insurance_fund"]
    assert (fund["balance_usd"] >= 0.0).all()
    assert np.diff(fund["balance_usd"]) == pytest.approx(fund["change_usd"][1:], abs=1e-6)
    assert (np.diff(fund["time"]) > 0).all()


def test_rows_lie_between_start_and_end_in_the_order_of_their_sequence(
    run: Run, tables: dict[str, Any]
) -> None:
    for name in ("fills", "transfers"):
        assert (np.diff(tables[name]["time"]) >= 0).all()
        assert (np.diff(tables[name]["sequence"]) == 1).all()
    for name in ("fills", "transfers", "account_snapshots", "default_events"):
        assert tables[name]["time"].min() >= run.start_us
        assert tables[name]["time"].max() <= run.end_us
    opened = dict(zip(tables["accounts"]["account_id"], tables["accounts"]["opened_time"], strict=True))
    for name in ("fills", "transfers"):
        for account, time in zip(tables[name]["account_id"], tables[name]["time"], strict=True):
            assert opened[account] <= time


def test_quantities_are_whole_lots_and_sum_to_the_positions(tables: dict[str, Any]) -> None:
    fills = tables["fills"]
    for market, quantity in zip(fills["market"], fills["quantity"], strict=True):
        lots = quantity / MARKETS[market].lot_size
        assert abs(lots - round(lots)) < 1e-6 and round(lots) != 0


def test_risk_decides_who_falls() -> None:
    """Accounts near maintenance at midnight fall more often within the day than those far from it."""
    run = run_venue(400, 8.0, np.random.default_rng(3))
    tables = tables_of(run)
    snapshots, events = tables["account_snapshots"], tables["default_events"]
    day = 86_400_000_000
    forced = events["kind"] == "liquidation"
    fell = set(zip((events["time"][forced] - 1) // day, events["account_id"][forced], strict=True))
    held = (snapshots["time"] % day == 0) & (snapshots["maintenance_margin_usd"] > 0)
    held &= snapshots["time"] < run.end_us
    ratio = snapshots["collateral_usd"][held] / snapshots["maintenance_margin_usd"][held]
    days = snapshots["time"][held] // day
    hit = np.array([key in fell for key in zip(days, snapshots["account_id"][held], strict=True)])
    near, middle, far = ratio < 3.0, (ratio >= 3.0) & (ratio < 10.0), ratio >= 10.0
    assert hit[near].mean() > 1.3 * hit[middle].mean() > 4.0 * hit[far].mean()


@pytest.mark.parametrize(("accounts", "days"), [(1, 0.01), (2, 0.5), (50, 1.0)])
def test_small_venues_work(accounts: int, days: float) -> None:
    run = run_venue(accounts, days, np.random.default_rng(0))
    tables = tables_of(run)
    assert len(tables["market_bars"]["time"]) == 6 * (run.start_bar + round(days * 288) + 1)
    assert len(tables["accounts"]["account_id"]) <= accounts


@pytest.mark.parametrize(
    ("accounts", "days"),
    [(0, 1.0), (-1, 1.0), (10, 0.0), (10, -1.0), (10, 0.001), (10, float("nan")), (10, float("inf"))],
)
def test_what_cannot_be_simulated_is_refused(accounts: int, days: float) -> None:
    with pytest.raises(InputError, match=r"(accounts|days) must be"):
        run_venue(accounts, days, np.random.default_rng(0))
