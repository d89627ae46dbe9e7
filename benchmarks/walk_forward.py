"""Walk-forward validation on an account history: train before each cut, judge what came after.

    python -m benchmarks.walk_forward [DATASET] [--cut TIME ...] [--columns account|all] [--panels]
                                      [--json FILE]

Prints one Markdown table a window: liquidation within 24 h and 8 h, for all accounts, for those with at
least $100 of equity and for those with positions of at least $10, beside both baselines, with 90%
intervals from resampling whole days and accounts. Each model sees nothing after its cut, neither
features nor labels; each window ends where the next cut begins. `--panels` adds the parts: equity below
$100, weighted by notional, by side, by episode, hours of warning, counts against a Poisson band.
`--columns all` lets trees read every column of the catalogue, the ones that are the same for all accounts
included: what that does is the point.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks import programs
from benchmarks.windows import Window, windows
from features import catalog
from models import scorecard as cards
from models.rows import Rows
from models.scorecard_text import markdown as aligned
from models.scorecard_text import parts, warning_and_counts
from models.train import TREE_FEATURES, targets, train
from pipelines.evaluate import Judged
from pipelines.times import format_time

LEAST_NOTIONAL_USD = 10.0
SHOWN = ("all", "equity_at_least_100_usd")
TARGETS = (("liquidation", "24h"), ("liquidation", "8h"))
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
    parser = programs.window_parser("walk_forward", __doc__)
    parser.add_argument("--columns", choices=("account", "all"), default="account", help="what trees read")
    parser.add_argument("--panels", action="store_true", help="print parts, warning and counts as well")
    options = parser.parse_args(arguments)
    columns = catalog.NAMES if options.columns == "all" else TREE_FEATURES

    def work() -> list[dict[str, Any]]:
        found = []
        for window in windows(options.dataset, programs.cuts_of(options)):
            found.append(figures(window, columns, options.draws))
            print(markdown(found[-1]), flush=True)
            if options.panels:
                print(desk(found[-1]), flush=True)
        return found

    return programs.finish(work, options.json)


def figures(window: Window, columns: tuple[str, ...], draws: int) -> dict[str, Any]:
    """Train before a window's cut, and everything that is measured after it."""
    judged = window.judge(train(window.training, tree_features=columns), draws)
    panels = []
    for target, horizon in TARGETS:
        for name in SHOWN:
            measured = judged.card["targets"][target][horizon][name]
            panels.append({"target": f"{target} {horizon}", "population": name, **measured})
        panels.append(
            {
                "target": f"{target} {horizon}",
                "population": "notional_at_least_10_usd",
                **_notional_panel(judged, f"{target}_{horizon}", draws),
            }
        )
    return {
        "trained_before": format_time(window.cut_us),
        "until": format_time(window.end_us),
        "training": _training_facts(window.training),
        "panels": panels,
        "card": judged.card,
    }


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


def _notional_panel(judged: Judged, target: str, draws: int) -> dict[str, Any]:
    scored = judged.scored[target]
    return cards.panel(scored.where(scored.notional_usd >= LEAST_NOTIONAL_USD), draws, 0)


def desk(window: dict[str, Any]) -> str:
    """The parts of one window, its hours of warning and its counts, as Markdown."""
    text = []
    for target, horizon in TARGETS:
        beside = window["card"]["desk"][target][horizon]
        text += [
            f"**{target} {horizon}, part by part**",
            aligned(parts(window["card"]["targets"][target][horizon], beside["episodes"])),
            f"**{target} {horizon}, warning and counts**",
            aligned(warning_and_counts(beside)),
        ]
    return "\n\n".join(text) + "\n"


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
            f"**{panel['target']}, {population}**: {panel['rows']:,} rows on {panel['days']} days, "
            f"{panel['events']} events, "
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
