"""What the early warning adds to the margin ratio, and how its columns are cut.

    python -m benchmarks.early_warning [DATASET] [--cut TIME ...] [--accounts N] [--json FILE]

Before each cut, and on simulated venues of N accounts each (0: none), columns and cuts are compared on
purged walk-forward blocks, none of which the forest has seen: the 1% most unusual rows of a block against
the 1% with the lowest margin ratios. `caught of missed` is the share that the warning catches of the
liquidations within 24 h that those margin ratios miss, `elsewhere` what came true of its alarms on other
rows than theirs. Gains are to the choice in place, with standard errors over blocks. Then the choice in
place and the one before it are judged after each cut, alarms at their own thresholds, as `perprisk evaluate`
does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import programs
from benchmarks.simulated_venues import JUDGED, TRAINING, made_rows
from benchmarks.windows import Window, windows
from features import emit as figure
from models import scorecard_text as text
from models import warning
from models.grow import mean_and_error
from models.labels import purged_folds
from models.rows import Rows
from models.train import targets, train
from pipelines.evaluate import judge_rows
from pipelines.times import format_time
from pipelines.train import passing_scorer

CUTS = ("2022-12-15", "2023-01-15")
TARGET = "liquidation_24h"
FOLDS = {"before": 6, "simulated": 3}
SEEDS = (7, 8, 9)
"""Forests whose figures are averaged: a forest is partly chance."""

OF_DISTANCE = (
    "margin_ratio",
    "effective_leverage",
    "effective_buffer_over_sigma",
    "buffer_over_sigma",
    "stress_market_over_buffer",
    "lowest_margin_ratio",
)
OF_MARKET = (
    "portfolio_sigma_day",
    "volatility_trend",
    "jump_share",
    "depth_change",
    "spread_change",
    "open_interest_change",
)

Flags = npt.NDArray[np.bool_]


class Choice(NamedTuple):
    """Columns with their sides, and where they are cut."""

    sided: Mapping[str, int]
    cut_at: float


IN_PLACE, BEFORE = "in place", "cut at the median"
SHOWN = (IN_PLACE, BEFORE)
"""Choices that are judged after the cuts: the one that is trained, and the one that was."""


def choices() -> dict[str, Choice]:
    """What is compared."""

    def without(names: tuple[str, ...]) -> dict[str, int]:
        return {name: side for name, side in warning.WARNING_FEATURES.items() if name not in names}

    every, cut_at = warning.WARNING_FEATURES, warning.CUT_AT
    return {
        IN_PLACE: Choice(every, cut_at),
        BEFORE: Choice(every, 0.5),
        "cut at 90%": Choice(every, 0.9),
        "without what is the same for all": Choice(without(OF_MARKET), cut_at),
        "without the distance to liquidation": Choice(without(OF_DISTANCE), cut_at),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.window_parser("early_warning", __doc__, CUTS)
    parser.add_argument("--accounts", type=int, default=500, help="of each simulated venue")
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cut = windows(options.dataset, programs.cuts_of(options))
        for window in cut:
            title = f"Before {format_time(window.cut_us)[:10]}"
            found.append(compared(title, blocks([window.training], FOLDS["before"])))
            print(markdown(found[-1]), flush=True)
        if options.accounts:
            venues = [made_rows(made, options.accounts) for made in (*TRAINING, *JUDGED)]
            title = f"{len(venues)} simulated venues of {options.accounts} accounts"
            found.append(compared(title, blocks(venues, FOLDS["simulated"])))
            print(markdown(found[-1]), flush=True)
        for window in cut:
            for name in SHOWN:
                found.append(judged(window, name))
                print(f"## Judged from {found[-1]['from'][:10]}, {name}\n")
                print(text.markdown(text.early_warning(found[-1]["early_warning"])) + "\n", flush=True)
        return found

    return programs.finish(work, options.json)


def blocks(venues: list[Rows], folds: int) -> list[tuple[Rows, Rows]]:
    """What was known before each block, and the block, where it has alarms and liquidations to compare."""
    found = []
    for venue in venues:
        rows = venue.where(targets(venue)[TARGET][0])
        for fold in purged_folds(rows.time_us, rows.label_end_us[:, -1], folds):
            before, block = rows.where(fold.training), rows.where(fold.validation)
            enough = len(warning.thinned(before.time_us, before.account, SEEDS[0])) >= warning.FEWEST_ROWS
            if enough and targets(block)[TARGET][1].any():
                found.append((before, block))
    return found


def compared(title: str, parts: list[tuple[Rows, Rows]]) -> dict[str, Any]:
    """Figures of every choice, their means over blocks, and gains over the choice in place."""
    table = {
        name: np.array([_of_block(choice, *part) for part in parts]) for name, choice in choices().items()
    }
    rows = {}
    for name, values in table.items():
        gains = [mean_and_error(values[:, k] - table[IN_PLACE][:, k]) for k in range(2)]
        sums = values[:, 2:].sum(axis=0)
        rows[name] = {
            "precision": float(values[:, 0].mean()),
            "precision_gain": gains[0],
            "caught_of_missed": float(values[:, 1].mean()),
            "caught_gain": gains[1],
            "elsewhere": float(sums[0] / sums[1]),
        }
    return {"title": title, "blocks": len(parts), "table": rows, "margin_ratio": _of_ratios(parts)}


def _of_block(choice: Choice, before: Rows, block: Rows) -> tuple[float, ...]:
    """Precision, share caught of what margin ratios miss, and alarms elsewhere: those that came true, all."""
    came, lowest = targets(block)[TARGET][1], lowest_ratios(block)
    figures = []
    for seed in SEEDS:
        alarm = most_unusual(before, block, choice, seed)
        missed, elsewhere = came & ~lowest, alarm & ~lowest
        figures.append(
            (
                float((alarm & came).sum() / alarm.sum()),
                float((alarm & missed).sum() / max(int(missed.sum()), 1)),
                float((elsewhere & came).sum()),
                float(elsewhere.sum()),
            )
        )
    return tuple(np.mean(figures, axis=0))


def _of_ratios(parts: list[tuple[Rows, Rows]]) -> dict[str, float]:
    """Mean precision of the lowest margin ratios, and the share of liquidations among all other rows."""
    precision, came, others = [], 0, 0
    for _, block in parts:
        happened, lowest = targets(block)[TARGET][1], lowest_ratios(block)
        precision.append(float(happened[lowest].mean()))
        came, others = came + int(happened[~lowest].sum()), others + int((~lowest).sum())
    return {"precision": float(np.mean(precision)), "elsewhere": came / others}


def most_unusual(before: Rows, block: Rows, choice: Choice, seed: int) -> Flags:
    """As many rows of a block as `ALARM_RATE` says, by a forest that was grown before it."""
    early = warning.fit(before, seed, *choice)
    assert early is not None
    spec = early.spec
    values = block.features[:, list(spec.features)]
    seen = warning.prepared(values, spec.medians, spec.lowest, spec.highest)
    return _first(np.asarray(early.forest.score_samples(seen)))


def lowest_ratios(block: Rows) -> Flags:
    """As many rows of a block, by their margin ratio."""
    ratio = block.figures[:, figure.MARGIN_RATIO]
    return _first(np.where(np.isnan(ratio), np.inf, ratio))


def _first(values: npt.NDArray[np.float64]) -> Flags:
    chosen = np.zeros(len(values), bool)
    chosen[np.argsort(values, kind="stable")[: max(int(warning.ALARM_RATE * len(values)), 1)]] = True
    return chosen


def judged(window: Window, name: str) -> dict[str, Any]:
    """What came of the alarms after a cut, as the scorecard has it."""
    trained = train(window.training)
    scorer = passing_scorer(trained, warning.fit(window.training, trained.model["seed"], *choices()[name]))
    card = judge_rows(scorer, window.judged, window.on_grid, draws=0).card
    return {"from": format_time(window.cut_us), "choice": name, "early_warning": card["early_warning"]}


def markdown(found: dict[str, Any]) -> str:
    """One comparison as a Markdown table."""
    lines = [["", "precision", "gain", "caught of missed", "gain", "elsewhere"]]
    for name, of in found["table"].items():
        own = name == IN_PLACE
        cells = [name]
        for key, gain in (("precision", "precision_gain"), ("caught_of_missed", "caught_gain")):
            mean, error = of[gain]
            cells += [f"{of[key]:.3f}", "" if own else f"{mean:+.3f} ± {error:.3f}"]
        lines.append([*cells, f"{of['elsewhere']:.3f}"])
    ratios = found["margin_ratio"]
    lines.append(["lowest margin ratios", f"{ratios['precision']:.3f}", "", "", "", ""])
    lines.append(["all rows but theirs", "", "", "", "", f"{ratios['elsewhere']:.3f}"])
    return f"## {found['title']}: {found['blocks']} blocks\n\n{text.markdown(lines)}\n"


if __name__ == "__main__":
    sys.exit(main())
