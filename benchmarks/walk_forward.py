"""Walk-forward validation on an account history: train before each cut, judge what came after.

    python -m benchmarks.walk_forward DATASET [--cut TIME ...] [--columns account|all] [--json FILE]

Prints one Markdown table a window: liquidation within 24 h and 8 h, for all accounts, for those with at
least $100 of equity and for those with positions of at least $10, beside both baselines, with 90%
intervals from resampling whole days and accounts. Each model sees nothing after its cut, neither
features nor labels; each window ends where the next cut begins. `--columns all` lets trees read every
column of the catalogue, the ones that are the same for all accounts included: what that does is the point.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from exchange.errors import PerpriskError
from exchange.units import DAY_US
from features import catalog
from features import emit as figure
from models import scorecard as cards
from models.rows import Rows
from models.train import TREE_FEATURES, targets, train
from pipelines.evaluate import Judged, judge
from pipelines.replay import DEFAULT_EVERY_US, training_rows
from pipelines.store import Dataset
from pipelines.times import format_time, parse_time_us
from pipelines.train import passing_scorer

DEFAULT_CUTS = ("2022-12-01", "2022-12-15", "2023-01-15")
LEAST_NOTIONAL_USD = 10.0
TARGETS = (("liquidation", "24h", 2), ("liquidation", "8h", 1))
METRICS = (
    ("average_precision", "average precision", "{:.3f}"),
    ("roc_auc", "ROC AUC", "{:.3f}"),
    ("recall_at_1pct_fpr", "recall at 1% FPR", "{:.2f}"),
    ("predicted_over_actual", "predicted / actual", "{:.2f}"),
    ("top_1pct_observed_over_expected", "top 1% observed / expected", "{:.2f}"),
    ("log_loss", "log loss", "{:.4f}"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk_forward", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cut", action="append", help="train before this time (default: three cuts)")
    parser.add_argument("--draws", type=int, default=200, help="resamples for the intervals")
    parser.add_argument("--columns", choices=("account", "all"), default="account", help="what trees read")
    parser.add_argument("--json", type=Path, help="write the same figures here")
    options = parser.parse_args(arguments)
    try:
        columns = catalog.NAMES if options.columns == "all" else TREE_FEATURES
        found = windows(options.dataset, options.cut or list(DEFAULT_CUTS), options.draws, columns)
    except PerpriskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for window in found:
        print(markdown(window))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def windows(path: Path, cuts: list[str], draws: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Figures of every window."""
    dataset = Dataset.open(path, "accounts")
    cuts_us = sorted(parse_time_us(cut, "--cut") for cut in cuts)
    # A window's last decision is a day before the next cut, so that no label reaches over it.
    ends_us = [following - DAY_US - 1 for following in cuts_us[1:]] + [dataset.meta.end_us]
    found = []
    for cut_us, end_us in zip(cuts_us, ends_us, strict=True):
        rows = training_rows(dataset, DEFAULT_EVERY_US, cut_us)
        judged = judge(
            dataset,
            passing_scorer(train(rows, tree_features=columns)),
            cut_us,
            end_us,
            DEFAULT_EVERY_US,
            draws,
        )
        panels = []
        for target, horizon, column in TARGETS:
            for name, figures in judged.card["targets"][target][horizon].items():
                panels.append({"target": f"{target} {horizon}", "population": name, **figures})
            panels.append(
                {
                    "target": f"{target} {horizon}",
                    "population": "notional_at_least_10_usd",
                    **_notional_panel(judged, f"{target}_{horizon}", column, draws),
                }
            )
        facts = {
            "trained_before": format_time(cut_us),
            "until": format_time(end_us),
            "training": _training_facts(rows),
        }
        found.append({**facts, "panels": panels})
    return found


def _training_facts(rows: Rows) -> dict[str, Any]:
    """What the training part held within 24 h: liquidations and accounts with negative equity."""
    known = targets(rows)
    liquidation, negative = known["liquidation_24h"], known["negative_equity_24h"]
    came = liquidation[0] & liquidation[1]
    return {
        "rows": int(liquidation[0].sum()),
        "events": int(came.sum()),
        "accounts": len(np.unique(rows.account[came])),
        "negative_accounts": len(np.unique(rows.account[negative[0] & negative[1]])),
    }


def _notional_panel(judged: Judged, target: str, column: int, draws: int) -> dict[str, Any]:
    gross = judged.rows.figures[:, figure.GROSS_NOTIONAL_USD]
    chosen = judged.known[target] & (gross >= LEAST_NOTIONAL_USD)
    scored = cards.Scored(
        judged.rows.time_us[chosen],
        judged.rows.account[chosen],
        judged.came[target][chosen],
        judged.rows.figures[chosen, figure.EQUITY_USD],
        {name: values[chosen, column] for name, values in judged.probability.items()},
    )
    return cards.panel(scored, draws, 0)


def markdown(window: dict[str, Any]) -> str:
    """One window as Markdown tables."""
    training = window["training"]
    share = training["events"] / training["rows"]
    lines = [
        f"## Trained before {window['trained_before'][:10]}, judged until {window['until'][:10]}",
        "",
        f"Trained on {training['rows']:,} rows; {training['events']} ({share:.1%}) "
        f"were followed by a liquidation within 24 h, of {training['accounts']} accounts; "
        f"{training['negative_accounts']} accounts by negative equity.",
        "",
    ]
    for panel in window["panels"]:
        population = panel["population"].replace("_", " ").replace("all", "all accounts")
        lines += [
            f"**{panel['target']}, {population}**: {panel['rows']:,} rows, {panel['events']} events, "
            f"{panel['accounts']} accounts; predicted count {panel['model']['predicted_events']:.0f}, "
            f"actual {panel['events']}",
            "",
            "| | model | margin ratio | structural | model - margin ratio | model - structural |",
            "|---|---|---|---|---|---|",
        ]
        for key, label, form in METRICS:
            cells = [_cell(panel[score][key], panel[score]["intervals"][key], form) for score in cards.SCORES]
            for baseline in cards.BASELINES:
                difference = panel["differences"][baseline].get(key)
                bounds = [difference["low"], difference["high"]] if difference else [None, None]
                cells.append(_cell(difference["change"] if difference else None, bounds, "{:+.3f}"))
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: float | None, bounds: list[float | None], form: str) -> str:
    if value is None or not np.isfinite(value):
        return ""
    if None in bounds:
        return form.format(value)
    return f"{form.format(value)} [{form.format(bounds[0])}, {form.format(bounds[1])}]"


if __name__ == "__main__":
    sys.exit(main())
