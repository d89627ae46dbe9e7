"""What an answer costs on its way out: the bare graph, the engine, the socket, HTTP, and other servers.

Each question is about another account: as it stands and at twelve margin levels, 13 rows for the model. The
bare graph and the other servers are given these rows ready; the engine and the service look the account up,
make its rows and suggest its margin. Every way runs in this one program and they take turns, block by block,
so that whatever else the machine does meets all of them. Then many callers at once ask the service.

The model is a reference of a stated size (`benchmarks/reference_model.py`, grown on the venue that is asked
about), and then one that `perprisk train` makes of that venue, or MODEL with DATASET.

    python benchmarks/serving.py [--model MODEL --dataset DATASET] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import asking
from benchmarks.programs import finish
from benchmarks.reference_model import reference_bundle
from benchmarks.served import perprisk, processor_s
from benchmarks.serving_ways import Case, Way, check, engine_ways, raw_ways, rival_ways, service_ways
from exchange.errors import InputError
from features import catalog
from features.venue import Venue
from models import registry
from models.bundle import Bundle
from pipelines import demo, simulate
from pipelines.events import event_batches
from pipelines.store import Dataset
from pipelines.train import train_model

Floats = npt.NDArray[np.float64]

BLOCK = 100
"""Questions of one way before it is the next one's turn."""

RAW, MLFLOW = "onnxruntime, 13 rows", "MLflow's scoring server"
TARGETS = {"engine": 1.3, "socket, audit off": 1.7, "HTTP, audit off": 2.0}
"""The most that p50 may be over that of the bare graph for the same 13 rows, on the reference model."""

FASTER = 4.0
"""Times that an answer over HTTP must be quicker than MLflow's."""


class Size(NamedTuple):
    """How much is measured."""

    accounts: int
    days: float
    questions: int  # of each way
    seconds: float  # of each load


WHOLE = Size(demo.VENUE_ACCOUNTS, demo.VENUE_DAYS, 4_000, 5.0)
QUICK = Size(1_000, 8.0, 1_000, 2.0)


class Taken(NamedTuple):
    """Microseconds of every answer of one way, and of processor time where it was computed, in the mean."""

    wall_us: Floats
    processor_us: float


def measured(ways: list[Way], questions: int, rows: int) -> dict[str, Taken]:
    """Ask so many questions each way, in turns, each way about accounts in an order of its own."""
    orders = [np.random.default_rng(seed).permutation(rows) for seed in range(len(ways))]
    wall_ns: list[list[int]] = [[] for _ in ways]
    spent_s = np.zeros(len(ways))
    gc.collect()
    gc.freeze()
    for start in range(-BLOCK, questions, BLOCK):  # the first round warms up
        for place, way in enumerate(ways):
            chosen = orders[place].take(range(start, start + BLOCK), mode="wrap").tolist()
            spent: Callable[[], float] = (
                time.thread_time if way.process is None else lambda way=way: processor_s(way.process)
            )
            before = spent()
            taken = wall_ns[place]
            for number in chosen:
                began = time.perf_counter_ns()
                way.ask(number)
                taken.append(time.perf_counter_ns() - began)
            if start < 0:
                taken.clear()
            else:
                spent_s[place] += spent() - before
    gc.unfreeze()
    return {
        way.name: Taken(np.array(wall) / 1e3, float(1e6 * spent / len(wall)))
        for way, wall, spent in zip(ways, wall_ns, spent_s, strict=True)
    }


def latencies(case: Case, folder: Path, questions: int) -> dict[str, Any]:
    """Print and return what each way takes."""
    folder.mkdir()
    with ExitStack() as held:
        ways = [
            *raw_ways(case),
            *engine_ways(case, folder / "audit", held),
            *service_ways(case, folder, held),
            *rival_ways(case, folder, held),
        ]
        check(case, ways, range(0, len(case.names), 100))
        taken = measured(ways, questions, len(case.names))
    raw_us = float(np.median(taken[RAW].wall_us))
    print(f"{'microseconds':<26} {'p50':>8} {'p99':>8} {'p99.9':>8} {'over raw':>9} {'processor':>10}")
    found = {}
    for name, one in taken.items():
        middle, tail, far = np.percentile(one.wall_us, (50, 99, 99.9)).tolist()
        found[name] = {
            "p50_us": middle, "p99_us": tail, "p99.9_us": far, "p50_over_raw": middle / raw_us,
            "processor_us": one.processor_us,
        }  # fmt: skip
        print(
            f"{name:<26} {middle:>8,.0f} {tail:>8,.0f} {far:>8,.0f} {middle / raw_us:>9.2f}"
            f" {one.processor_us:>10,.0f}"
        )
    return found


def against_targets(found: dict[str, Any]) -> dict[str, Any]:
    """Print and return what was asked for beside what was found."""
    rows = [(name, found[name]["p50_over_raw"], most, "at most") for name, most in TARGETS.items()]
    rows.append(
        ("MLflow over HTTP", found[MLFLOW]["p50_us"] / found["HTTP, audit off"]["p50_us"], FASTER, "at least")
    )
    told = {}
    for name, ratio, bound, kind in rows:
        reached = ratio <= bound if kind == "at most" else ratio >= bound
        verdict = "reached" if reached else f"missed by {abs(ratio / bound - 1):.0%}"
        told[name] = {"found": ratio, kind.replace(" ", "_"): bound, "reached": reached}
        print(f"{name:<26} {ratio:.2f}, asked for {kind} {bound:g}: {verdict}")
    return told


def loads(case: Case, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Print and return what many callers get that each wait for their answers."""
    heads = ("answers/s", "p50 ms", "p99 ms", "p99.9 ms", "refused", "errors")
    print(f"{'':<34} " + " ".join(f"{head:>9}" for head in heads))
    found = []
    for workers in (1, 2):
        running = perprisk(case.bundle.path, case.dataset, folder / f"load-{workers}", "group", workers)
        with running as (_, port, path):
            for way, door in (("socket", path), ("HTTP", port)):
                for connections in (16, 64):
                    one = asking.asked_at_once(door, connections, seconds, case.names)
                    found.append({"way": way, "workers": workers, "connections": connections, **one})
                    asked = f"{way}, {workers} worker{'s' * (workers > 1)}, {connections} connections"
                    times = " ".join(f"{one[each]:>9.2f}" for each in ("p50_ms", "p99_ms", "p99.9_ms"))
                    counts = f"{one['refused']:>9,.0f} {one['errors']:>9,.0f}"
                    print(f"{asked:<34} {one['answers_per_s']:>9,.0f} {times} {counts}")
    return found


def venue_of(dataset: Path) -> Venue:
    """The state that a dataset ends in."""
    venue = Venue()
    for batch in event_batches(Dataset.open(dataset, "accounts"), None, venue):
        venue.apply(batch)
    return venue


def run(model: Path | None, dataset: Path | None, size: Size) -> dict[str, Any]:
    """Measure both models."""
    if (model is None) != (dataset is None):
        raise InputError("--model and --dataset are of use only together")
    found: dict[str, Any] = {"load_average_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if model is None or dataset is None:
            model, dataset = folder / "model", folder / "dataset"
            simulate.run(dataset, size.accounts, size.days, demo.VENUE_SEED)
            train_model([dataset], model, None, registry.default_uri(folder))
        (folder / "reference").mkdir()
        models = {
            "reference": reference_bundle(folder / "reference", grown_on=venue_of(dataset)),
            "shipped": Bundle.open(model, catalog.fingerprint()),
        }
        for name, bundle in models.items():
            case = Case.of(bundle, dataset, venue_of(dataset))
            print(f"\n{name} model, {len(case.names):,} accounts, {size.questions:,} answers each way")
            found[name] = latencies(case, folder / f"{name}-ways", size.questions)
            if name == "reference":
                found["targets"] = against_targets(found[name])
                print(f"\n{name} model, callers that wait for their answers, audit group")
                found["loads"] = loads(case, folder, size.seconds)
    found["load_average_after"] = os.getloadavg()
    before, after = (found[f"load_average_{when}"][0] for when in ("before", "after"))
    print(f"\n{os.cpu_count()} processors; load in a minute: {before:.1f} before, {after:.1f} after")
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/serving.py", description=__doc__)
    parser.add_argument("--model", type=Path, help="measured beside the reference, in place of a trained one")
    parser.add_argument("--dataset", type=Path, help="whose accounts are asked about")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    parser.add_argument("--quick", action="store_true", help="a smaller venue, and a tenth of the questions")
    options = parser.parse_args()
    size = QUICK if options.quick else WHOLE
    return finish(lambda: run(options.model, options.dataset, size), options.json)


if __name__ == "__main__":
    sys.exit(main())
