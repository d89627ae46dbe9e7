"""What a model of simulated venues is worth on real accounts, alone and continued on them.

    python -m benchmarks.transfer DATASET [--cut TIME ...] [--accounts N] [--draws N] [--json FILE]

Three recipes, judged on the same real windows at 24 h (as `benchmarks.walk_forward` cuts them):
trained on simulated venues only; on the real accounts before the cut only; and on both, simulated first,
then levels and slopes fitted to the real accounts before the cut. Prints average precision beside the better
baseline, ROC AUC, predicted over actual and the top hundredth.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks import programs
from benchmarks.simulated_venues import TRAINING, joined_rows, made_rows
from benchmarks.windows import Window, windows
from models.scorecard_text import with_interval
from models.train import Trained, continued, train

CUTS = ("2022-12-15", "2023-01-15")


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.window_parser("transfer", __doc__, CUTS)
    parser.add_argument("--accounts", type=int, default=1_500, help="of each simulated venue")
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        cut = windows(options.dataset, programs.cuts_of(options))
        simulated = train(joined_rows([made_rows(made, options.accounts) for made in TRAINING]))
        found = []
        for window in cut:
            recipes = {
                "simulated": simulated,
                "real": train(window.training),
                "simulated, continued on real": continued(simulated, window.training),
            }
            found += [judged(name, trained, window, options.draws) for name, trained in recipes.items()]
        print(markdown(found))
        return found

    return programs.finish(work, options.json)


def judged(recipe: str, trained: Trained, window: Window, draws: int) -> dict[str, Any]:
    """One recipe on one window."""
    panel = window.judge(trained, draws).card["targets"]["liquidation"]["24h"]["all"]
    return {"recipe": recipe, "cut_us": window.cut_us, "panel": panel}


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
        lines.append(
            f"| {np.datetime64(one['cut_us'], 'us').astype('datetime64[D]')} | {one['recipe']} | "
            f"{panel['events']} | "
            f"{with_interval(model['average_precision'], model['intervals']['average_precision'], '.3f')} | "
            f"{panel[better]['average_precision']:.3f} | "
            f"{with_interval(change['change'], [change['low'], change['high']], '+.3f')} | "
            f"{model['roc_auc']:.3f} | {model['predicted_over_actual']:.2f} | "
            f"{model['top_1pct_observed_over_expected']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
