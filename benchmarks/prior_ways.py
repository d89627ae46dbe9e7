"""How the structural prior should come in: under the trees, among their columns, or not at all.

    python -m benchmarks.prior_ways [DATASET] [--cut TIME ...] [--tune TRIALS] [--json FILE]

Trains before each cut and judges liquidation within 24 h after it, as `benchmarks.walk_forward` does, three
models: the prior as an offset of the score, in the graph, with as many trees over it as walk-forward lets in
(what `perprisk train` makes); ordinary trees over nothing that read the same columns and the prior's three
logits; and ordinary trees without the prior. Differences are to the first, on the same rows, with 90%
intervals from resampling whole days and accounts. `--tune` adds each with parameters searched for in so many
trials a head (`perprisk train --tune`), and what each search found; gains are those over the fixed parameters
on folds that had no part in the choice.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import programs
from benchmarks.ablation import Made, markdown, measured, outcomes, rounds, scored, without_prior
from benchmarks.windows import Window, windows
from features import catalog
from models.rows import Rows
from models.scorecard_text import markdown as aligned
from models.train import TREE_FEATURES, Trained, train
from models.tune import Tuning

OFFSET, FEATURE, NEITHER = "prior as offset", "prior as feature", "no prior"
STAND_INS = ("spread_bps", "spread_change", "outcome_ratio")
"""Columns that no head of liquidation reads, and with the prior's direction: they lend their place to it."""


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.window_parser("prior_ways", __doc__)
    parser.add_argument("--tune", type=int, default=0, help="trials a head")
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        found = []
        for window in windows(options.dataset, programs.cuts_of(options)):
            found.append(ways(window, options.tune, options.draws))
            print(markdown(found[-1]), searched(found[-1]["tuning"]), sep="\n", flush=True)
        return found

    return programs.finish(work, options.json)


def ways(window: Window, trials: int, draws: int) -> dict[str, Any]:
    """Every row of one window's table, and what each search found by row and head."""
    read = {
        OFFSET: (window.training, window.judged, TREE_FEATURES),
        FEATURE: (as_feature(window.training), as_feature(window.judged), (*TREE_FEATURES, *STAND_INS)),
        NEITHER: (without_prior(window.training), without_prior(window.judged), TREE_FEATURES),
    }
    outcomes(window)
    made: dict[str, Made] = {}
    tuning: dict[str, Any] = {}
    for name, (training, judged, columns) in read.items():
        for suffix, wish in (("", None), (", tuned", Tuning(trials))) if trials else (("", None),):
            trained = train(training, tree_features=columns, tuning=wish)
            made[name + suffix] = Made(scored(trained, judged), rounds(trained), OFFSET)
            if wish is not None:
                tuning[name + suffix] = choices(trained)
    return measured(window, made, draws) | {"columns": len(TREE_FEATURES), "tuning": tuning}


def as_feature(rows: Rows) -> Rows:
    """The same rows with one and the same prior for everyone, and its logits where trees read them."""
    features = without_prior(rows).features
    for prior, place in zip(catalog.PRIOR_HAZARDS, STAND_INS, strict=True):
        features[:, catalog.index(place)] = rows.features[:, catalog.index(prior)]
    return rows._replace(features=features)


def choices(trained: Trained) -> dict[str, dict[str, Any]]:
    """By hazard what its search found, without the trials one by one."""
    return {
        head.spec.name: {fact: value for fact, value in head.facts["tuning"].items() if fact != "tried"}
        for head in trained.heads[:3]
        if "tuning" in head.facts
    }


def searched(tuning: dict[str, Any]) -> str:
    """A table of what each search found and whether it was taken; nothing where nothing was searched."""
    lines = [["search", "head", "best of the trials", "gain in average precision", "standard error", "taken"]]
    for row, heads in tuning.items():
        for head, found in heads.items():
            if not found["trials"]:
                lines.append([row, head, "none made: too few events", "", "", "no"])
                continue
            best = ", ".join(
                f"{name} {float(f'{value:.2g}'):g}" for name, value in found["parameters"].items()
            )
            gain, error = f"{found['gain']:+.4f}", f"{found['gain_standard_error']:.4f}"
            lines.append([row, head, best, gain, error, "yes" if found["chosen"] else "no"])
    return aligned(lines) + "\n" if len(lines) > 1 else ""


if __name__ == "__main__":
    sys.exit(main())
