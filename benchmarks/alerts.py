"""What alerts cost the answers beside them, and what they were worth on a simulated venue.

    python -m benchmarks.alerts [--venue DATASET --model MODEL] [--json FILE]

Without a venue and a model, one venue is simulated to train on and another, of another seed, to judge on,
with a round a minute of its time. Steps of a round are slices of accounts, and looks for the reasons and the
way out of one account; of both the middle, one in a hundred and the longest, in milliseconds of the
processor. What counting costs is the least of several runs, beside Prometheus' own objects.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from benchmarks import programs
from exchange.simulation.settings import Settings
from exchange.units import MINUTE_US
from features import catalog
from models.bundle import Bundle
from pipelines import simulate, train
from pipelines.events import event_batches
from pipelines.store import Dataset
from serving.alerts import Alerts
from serving.engine import Engine
from serving.metrics import BUCKETS_S, Metrics
from serving.scorer import Scorer
from serving.wire import BatchRequest

ACCOUNTS, DAYS = 600, (8.0, 4.0)
CALLS, RUNS = 20_000, 7
DETAILS = 10
"""Rounds with reasons and ways out that are timed."""


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts", description=__doc__)
    parser.add_argument("--venue", type=Path, help="dataset to judge on")
    parser.add_argument("--model", type=Path, help="model to judge")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args(arguments)

    def work() -> dict[str, Any]:
        if options.venue is not None and options.model is not None:
            return show(options.venue, options.model)
        with tempfile.TemporaryDirectory() as folder:
            return show(*made(Path(folder)))

    return programs.finish(work, options.json)


def made(folder: Path) -> tuple[Path, Path]:
    """A venue that nobody has seen, and a model trained on another."""
    # thin books, and next to no fund and backstop: liquidations enough, however few the accounts are
    settings = Settings(least_depth_usd=10_000.0, fund_share=1e-6, backstop_funding=1e-6)
    for number, days in enumerate(DAYS):
        out, seed = folder / str(number), 11 + number
        simulate.run(out, ACCOUNTS, days, seed, scenario="october-2025", settings=settings)
    train.train_model([folder / "0"], folder / "model", None, f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "1", folder / "model"


def show(venue: Path, model: Path) -> dict[str, Any]:
    """Run through the venue and print what was found."""
    engine = Engine(Scorer(Bundle.open(model, catalog.fingerprint())))
    alerts = Alerts(engine, listed=0)
    slices_s: list[float] = []
    for _ in minutes(Dataset.open(venue, "accounts"), engine):
        slices_s += steps(alerts)
    answer = alerts.answer()
    found: dict[str, Any] = {"levels": {}, "liquidations": answer.liquidations, "unwarned": answer.unwarned}
    print(f"{answer.rounds:,} rounds, {answer.accounts} accounts open at the end\n")
    print("| level | raised | came true | expired | withdrawn | median lead, h |\n|---|--:|--:|--:|--:|--:|")
    for level in answer.levels:
        lead = "" if level.median_lead_h is None else f"{level.median_lead_h:.1f}"
        counts = (level.raised, level.came_true, level.expired, level.withdrawn)
        print(f"| {level.level} | {' | '.join(map(str, counts))} | {lead} |")
        found["levels"][level.level] = [*counts, level.median_lead_h]
    print(f"\n{answer.unwarned} of {answer.liquidations} liquidations had no alert before\n")
    print("| step of a round, ms | middle | 1 in 100 | longest |\n|---|--:|--:|--:|")
    size = answer_size(engine)
    details_s = [
        step_s for _ in range(DETAILS) for step_s in steps(Alerts(engine, listed=size, cured=size))[-size:]
    ]
    for name, taken_s in (("a slice of accounts", slices_s[100:]), ("reasons and way out", details_s)):
        figures = [1e3 * float(np.quantile(taken_s, share)) for share in (0.5, 0.99, 1.0)]
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")
        found[name] = figures
    print("\n| counting a request and its answer, us | |\n|---|--:|")
    for name, microseconds in counting(engine).items():
        print(f"| {name} | {microseconds:.2f} |")
        found[name] = microseconds
    return found


def minutes(dataset: Dataset, engine: Engine) -> Iterator[None]:
    """Apply a dataset minute by minute, with a stop after each."""
    for batch in event_batches(dataset, None, engine.venue):
        row = 0
        while row < len(batch.kind):
            end_us = (int(batch.time_us[row]) // MINUTE_US + 1) * MINUTE_US - 1
            row = engine.venue.apply(batch, row, end_us)
            yield


def steps(alerts: Alerts) -> list[float]:
    """Seconds of the processor for each step of the round that is due, if one is."""
    taken_s = []
    while True:
        began = time.process_time()
        more = alerts.step()
        taken_s.append(time.process_time() - began)
        if not more:
            return taken_s[:-1]


def answer_size(engine: Engine) -> int:
    """How many accounts are looked at for their way out in a round."""
    alerts = Alerts(engine, listed=20)
    steps(alerts)
    return max(len(alerts.answer().alerts), 1)


def counting(engine: Engine) -> dict[str, float]:
    """Microseconds for the count of one request and answer, here and with Prometheus' own objects."""
    made = Metrics(engine)
    meter = made.route("/v1/score")
    names = engine.venue.account_names[:1]
    answers = engine.ask(BatchRequest(names)).answers
    registry = CollectorRegistry()
    requests = Counter("requests", "-", ["route", "status"], registry=registry).labels("/v1/score", "200")
    seconds = Histogram("seconds", "-", ["route"], buckets=BUCKETS_S, registry=registry).labels("/v1/score")
    status = Counter("answers", "-", ["status"], registry=registry)

    def here() -> None:
        meter(200, 0.0006)
        made.count_answers(answers)

    def there() -> None:
        requests.inc()
        seconds.observe(0.0006)
        status.labels("ok").inc()

    return {"here": _least_us(here), "Prometheus' own objects": _least_us(there)}


def _least_us(call: Callable[[], None]) -> float:
    least_s = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        least_s = min(least_s, time.perf_counter() - began)
    return least_s / CALLS * 1e6


if __name__ == "__main__":
    raise SystemExit(main())
