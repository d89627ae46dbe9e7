"""What a model of simulated venues is worth on real accounts, alone and continued on them.

    python -m benchmarks.transfer DATASET [--cut TIME ...] [--accounts N] [--draws N] [--json FILE]

Three recipes, judged on the same real windows at 24 h (as `benchmarks.walk_forward` cuts them):
trained on simulated venues only; on the real accounts before the cut only; and on both, simulated first,
then levels and slopes fitted to the real accounts before the cut. Prints average precision beside the better
baseline, ROC AUC, predicted over actual and the top hundredth.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulated_venues import TRAINING, joined_rows, made_rows
from exchange.errors import PerpriskError
from exchange.units import DAY_US
from models import labels
from models.rows import HORIZONS_US, Rows
from models.train import Trained, continued, purged, train
from pipelines.evaluate import judge_rows
from pipelines.replay import DEFAULT_EVERY_US, observations, training_rows
from pipelines.store import Dataset
from pipelines.times import parse_time_us
from pipelines.train import passing_scorer

DEFAULT_CUTS = ("2022-12-15", "2023-01-15")


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cut", action="append", help="train before this time (default: two cuts)")
    parser.add_argument("--accounts", type=int, default=1_500, help="of each simulated venue")
    parser.add_argument("--draws", type=int, default=200, help="resamples for the intervals")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args(arguments)
    try:
        dataset = Dataset.open(options.dataset, "accounts")
        rows = training_rows(dataset, DEFAULT_EVERY_US, dataset.meta.end_us)
        simulated = train(joined_rows([made_rows(made, options.accounts) for made in TRAINING]))
        cuts_us = sorted(parse_time_us(cut, "--cut") for cut in options.cut or DEFAULT_CUTS)
        ends_us = [following - DAY_US - 1 for following in cuts_us[1:]] + [dataset.meta.end_us]
        found = []
        for cut_us, end_us in zip(cuts_us, ends_us, strict=True):
            before = purged(rows, cut_us)
            recipes = {
                "simulated": simulated,
                "real": train(before),
                "simulated, continued on real": continued(simulated, before),
            }
            window = _window(dataset, rows, cut_us, end_us)
            found += [
                judged(name, trained, window, cut_us, options.draws) for name, trained in recipes.items()
            ]
    except PerpriskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _window(dataset: Dataset, rows: Rows, from_us: int, to_us: int) -> Rows:
    """The rows at decision times of the 24 h horizon between two times."""
    meta = dataset.meta
    times_us = labels.decision_times(
        meta.start_us, meta.end_us, DEFAULT_EVERY_US, HORIZONS_US[-1], observations(dataset), (from_us, to_us)
    ).time_us
    return rows.where(np.isin(rows.time_us, times_us))


def judged(recipe: str, trained: Trained, window: Rows, cut_us: int, draws: int) -> dict[str, Any]:
    """One recipe on one window."""
    panel = judge_rows(passing_scorer(trained), window, draws=draws).card["targets"]["liquidation"]["24h"][
        "all"
    ]
    return {"recipe": recipe, "cut_us": cut_us, "panel": panel}


def markdown(found: list[dict[str, Any]]) -> str:
    """One row a recipe and window."""
    lines = [
        "| trained before | recipe | events | average precision | better baseline | difference | ROC AUC | "
        "predicted / actual | top 1% |",
        "|---|---|--:|---|--:|---|--:|--:|--:|",
    ]
    for one in found:
        panel = one["panel"]
        model = panel["model"]
        better = max(("margin_ratio", "structural"), key=lambda name: panel[name]["average_precision"])
        change = panel["differences"][better]["average_precision"]
        low, high = model["intervals"]["average_precision"]
        lines.append(
            f"| {np.datetime64(one['cut_us'], 'us').astype('datetime64[D]')} | {one['recipe']} | "
            f"{panel['events']} | {model['average_precision']:.3f} [{low:.3f}, {high:.3f}] | "
            f"{panel[better]['average_precision']:.3f} | "
            f"{change['change']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}] | "
            f"{model['roc_auc']:.3f} | {model['predicted_over_actual']:.2f} | "
            f"{model['top_1pct_observed_over_expected']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
