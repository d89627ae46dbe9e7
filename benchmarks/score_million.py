"""Scoring a million accounts from Parquet to Parquet with `perprisk score`, and beside it MLflow's pyfunc.

A dataset of snapshots is made, of accounts with two positions each on average, and the command runs as a
process of its own, whose processor time, wall time and largest memory are those that the system counted.
MLflow's pyfunc has no features of its own: it is given ready vectors, and its job is to read them from
Parquet, to predict with the same graph, and to write the answers, on a sample whose time is scaled up. A
margin beyond the schedule's is looked for only where the schedule does not meet the target, and reasons are
given where they are due.

    python -m benchmarks.score_million MODEL [--accounts N] [--sample N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2024, 3, 1, tzinfo=UTC)
HOURS = 30
MARKETS = 20
TIERS = [
    {"notional_cap_usd": 100_000.0, "initial_margin_rate": 0.05, "maintenance_margin_rate": 0.025},
    {"notional_cap_usd": None, "initial_margin_rate": 0.1, "maintenance_margin_rate": 0.05},
]
TIME = pl.Datetime("us", "UTC")


def dataset(folder: Path, accounts: int, seed: int) -> None:
    """A venue of that many accounts, each looked at once, an hour before the end."""
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    names = [f"M{number:02}-PERP" for number in range(MARKETS)]
    marks = 100.0 * np.exp(np.cumsum(chance.normal(0.0, 0.008, (HOURS + 1, MARKETS)), axis=0))
    hours = [START + timedelta(hours=hour) for hour in range(HOURS + 1)]
    at, seen = hours[-1], hours[-2]
    tables: dict[str, pl.DataFrame] = {
        "markets": pl.DataFrame(
            {"time": [hours[0]] * MARKETS, "market": names, "tick_size": 0.01, "lot_size": 0.001,
             "taker_fee_rate": 0.0005, "liquidation_fee_rate": 0.01, "funding_interval_s": 3_600,
             "tiers": [TIERS] * MARKETS}
        ),
        "market_bars": pl.DataFrame(
            {"time": [hour for hour in hours for _ in range(MARKETS)], "market": names * len(hours),
             "mark_close": marks.ravel(), "index_close": marks.ravel(), "volume_usd": 1e6,
             "open_interest_usd": 1e8}
        ),
        "book_depth": pl.DataFrame(
            {"time": [at] * MARKETS, "market": names, "best_bid": marks[-1] * 0.9999,
             "best_ask": marks[-1] * 1.0001, "distance_bps": [[10.0, 50.0, 100.0, 200.0]] * MARKETS,
             "bid_usd": [[1e5, 5e5, 1e6, 2e6]] * MARKETS, "ask_usd": [[1e5, 5e5, 1e6, 2e6]] * MARKETS}
        ),
        "default_events": pl.DataFrame(
            schema={"time": TIME, "account_id": pl.String, "kind": pl.String, "shortfall_usd": pl.Float64}
        ),
        "assets": pl.DataFrame({"asset": ["USD"], "collateral_weight": [1.0], "liability_weight": [1.0]}),
    }  # fmt: skip
    account = np.array([f"account-{number:07}" for number in range(accounts)])
    tables["accounts"] = pl.DataFrame(
        {"account_id": account, "opened_time": START, "owner_id": None, "margin_mode": "cross"},
        schema_overrides={"owner_id": pl.String, "opened_time": TIME},
    )
    count = 1 + chance.poisson(1.0, accounts).clip(0, 7)
    holder = np.repeat(np.arange(accounts), count)
    first = np.repeat(chance.integers(0, MARKETS, accounts), count)
    place = np.arange(len(holder)) - np.repeat(np.cumsum(count) - count, count)
    market = (first + place) % MARKETS
    mark = marks[-2, market]
    notional = chance.choice((-1.0, 1.0), len(holder)) * np.exp(chance.normal(7.0, 1.5, len(holder)))
    quantity = np.round(notional / mark, 3) + 0.001
    gross = np.bincount(holder, np.abs(quantity * mark), accounts)
    equity = gross / np.exp(chance.normal(1.0, 0.9, accounts))
    tables["account_snapshots"] = pl.DataFrame(
        {
            "time": seen,
            "account_id": account,
            "equity_usd": equity,
            "collateral_usd": equity,
            "initial_margin_usd": 0.05 * gross,
            "maintenance_margin_usd": 0.025 * gross,
        },
        schema_overrides={"time": TIME},
    )
    tables["position_snapshots"] = pl.DataFrame(
        {"time": seen, "account_id": account[holder], "market": np.array(names)[market],
         "quantity": quantity, "entry_price": mark * np.exp(chance.normal(0.0, 0.05, len(holder)))},
        schema_overrides={"time": TIME},
    )  # fmt: skip
    tables["balance_snapshots"] = pl.DataFrame(
        {"time": seen, "account_id": account, "asset": "USD", "amount": equity},
        schema_overrides={"time": TIME},
    )
    for name, table in tables.items():
        times = [column for column in ("time", "opened_time") if column in table.columns]
        table.with_columns(pl.col(times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).write_parquet(
            folder / f"{name}.parquet"
        )
    meta = {
        "format": "account-history", "version": 1, "kind": "accounts", "venue": "made for speed",
        "quote_asset": "USD", "start": START.isoformat(), "end": at.isoformat(), "gaps": [],
        "source": "benchmarks/score_million.py", "seed": seed,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(meta))


def child(command: list[str]) -> dict[str, float]:
    """Seconds and memory of a process that must succeed."""
    begun = time.perf_counter()
    done = subprocess.Popen(command)
    _, status, usage = os.wait4(done.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def scored(data: Path, model: Path, out: Path) -> None:
    """The command's own work; run in the child."""
    from pipelines.score import run

    at_us = int((START + timedelta(hours=HOURS)).timestamp() * 1e6)
    run(data, model, [at_us], None, None, None, out)


def by_pyfunc(data: Path, model: Path, sample: int, folder: Path) -> dict[str, float]:
    """Seconds that MLflow's pyfunc takes for the graph of the same bundle on a sample of the same vectors."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    import onnx

    from features import catalog
    from pipelines.replay import replay
    from pipelines.store import Dataset

    at_us = int((START + timedelta(hours=HOURS)).timestamp() * 1e6)
    history = Dataset.open(data, "accounts")
    _, vectors, _ = next(iter(replay(history, np.array([at_us]))))
    rows = vectors.features[:sample]
    pl.DataFrame(rows, schema=list(catalog.NAMES)).write_parquet(folder / "vectors.parquet")
    graph = onnx.load_model(str(model / "model.onnx"))
    mlflow.onnx.save_model(graph, str(folder / "pyfunc"), pip_requirements=["onnxruntime"])
    loaded = mlflow.pyfunc.load_model(str(folder / "pyfunc"))
    answers: list[dict[str, np.ndarray]] = []

    def job() -> None:
        frame = pl.read_parquet(folder / "vectors.parquet").to_pandas()
        answers.append(loaded.predict({"features": frame.to_numpy(np.float64)}))
        pl.DataFrame(answers[-1]["probabilities"]).write_parquet(folder / "by_pyfunc.parquet")

    return {"cpu_s": _cpu(job), "rows": float(len(rows))}


def _cpu(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Make the dataset, run both, print what they took."""
    parser = argparse.ArgumentParser(description="Scoring many accounts at once.")
    parser.add_argument("model", type=Path, help="a bundle that `perprisk train` wrote")
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=50_000, help="rows that pyfunc is given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=2, type=Path, metavar=("DATASET", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        scored(options.child[0], options.model, options.child[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset(folder / "data", options.accounts, options.seed)
        command = [sys.executable, "-c", "from benchmarks.score_million import main; main()"]
        command += [str(options.model), "--child", str(folder / "data"), str(folder / "scores.parquet")]
        used = child(command)
        table = pl.read_parquet(folder / "scores.parquet")
        fallback = (table["status"] != "ok").mean()
        raised = (table["initial_margin_rate"] > table["static_initial_margin_rate"]).mean()
        print(
            f"{len(table):,} accounts scored: {used['wall_s']:.1f} s on the clock, {used['cpu_s']:.1f} s of "
            f"processor time, {used['peak_gib']:.2f} GiB at most\n"
            f"{fallback:.1%} fallback, more than the schedule asked of {raised:.1%}, "
            f"reasons for {table['reason_1'].is_not_null().mean():.1%}"
        )
        theirs = by_pyfunc(folder / "data", options.model, options.sample, folder)
        scale = options.accounts / theirs["rows"]
        print(
            f"MLflow's pyfunc, on ready vectors: {theirs['cpu_s']:.1f} s of processor time for "
            f"{theirs['rows']:,.0f} rows, so {theirs['cpu_s'] * scale:.1f} s for {options.accounts:,}: "
            f"{theirs['cpu_s'] * scale / used['cpu_s']:.2f} times the whole command"
        )


if __name__ == "__main__":
    main()
