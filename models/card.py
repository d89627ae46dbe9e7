"""The model card: what a model is, what it was trained on, how it did and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(model: Mapping[str, Any], held_out: Mapping[str, Any] | None) -> str:
    """Markdown for `card.md`; `held_out` is the 24 h panel of a scorecard on held-out time, if any."""
    lines = [
        "# Model card",
        "",
        "Probability that an account of a perpetuals venue is liquidated within 1, 8 and 24 hours, or has",
        "negative equity within 24 hours, from its own state and the market's as known at that time.",
        "",
        "## Trained on",
        "",
        "| venue | from | to | digest |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {_plain(d['venue'])} | {d['start']} | {d['end']} | `{d['digest'][:16]}` |"
        for d in model["datasets"]
    ]
    lines += [
        "",
        "## Heads",
        "",
        "| head | rows | events | accounts | trees | slope |",
        "|---|---|---|---|---|---|",
    ]
    for name, head in model["heads"].items():
        trees = head.get("rounds", head.get("fitted", ""))
        counts = f"{head['rows']} | {head['events']} | {head['accounts']}"
        lines.append(f"| {name} | {counts} | {trees} | {head['slope']:.2f} |")
    negative, severity = model["heads"]["negative_given_liquidation"], model["heads"]["severity"]
    lines += [
        "",
        f"Negative equity was seen in {negative['accounts']} accounts: its probability is a constant share",
        "of that of liquidation (half a case added), nothing more is fitted.",
        f"Severity is the constant {severity['intercept']:.4f} of gross notional, from",
        f"{severity['accounts']} accounts"
        + (" (a default, none was seen)." if not severity["accounts"] else "."),
        "",
        "## On held-out time",
        "",
    ]
    if held_out is None:
        lines.append("The record was too short to hold any of it out.")
    else:
        lines += [
            "A model of the first three quarters of the time, judged on the last (liquidation within 24 h, "
            f"{held_out['rows']} rows, {held_out['events']} events, {held_out['accounts']} accounts):",
            "",
            "| | ROC AUC | average precision | predicted over actual |",
            "|---|---|---|---|",
        ]
        for name in ("model", "margin_ratio", "structural"):
            figures = held_out[name]
            lines.append(
                f"| {name} | {_figure(figures['roc_auc'])} | {_figure(figures['average_precision'])} | "
                f"{_figure(figures['predicted_over_actual'])} |"
            )
    lines += [
        "",
        "## Limits",
        "",
        "- The level follows the training record: when the regime turns, expected counts can be off by a",
        "  factor of two or three either way, while the ranking holds better.",
        "- Positions are taken as frozen until the horizon; what an owner will do is not foreseen.",
        "- Rows whose required inputs are missing or stale get the structural baseline's answer and say so.",
        "",
    ]
    return "\n".join(lines)


def _plain(name: str) -> str:
    """A name that says nothing in Markdown or HTML, on one line."""
    return "".join(c if c.isprintable() and c not in "|<>`&[]*_\\" else " " for c in name)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
