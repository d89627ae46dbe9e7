"""The model card: what a model is, what it was trained on, how it did and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(
    model: Mapping[str, Any],
    held_out: Mapping[str, Any] | None,
    early_warning: Mapping[str, Any] | None = None,
) -> str:
    """Markdown for `card.md`.

    `held_out` is the 24 h panel of a scorecard on held-out time and `early_warning` its entry of that name,
    if any.
    """
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
    if "tuned_trials" in model:
        lines += ["", _tuning_line(model)]
    lines += ["", *_negative_lines(model["heads"]["negative_given_liquidation"])]
    lines += _severity_lines(model["heads"]["severity"])
    lines += ["", "## Early warning", "", *_warning_lines(model["warning"], early_warning)]
    lines += ["", "## On held-out time", ""]
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


def _tuning_line(model: Mapping[str, Any]) -> str:
    found = {name: head["tuning"] for name, head in model["heads"].items() if "tuning" in head}
    taken = ", ".join(name for name, tuning in found.items() if tuning["chosen"])
    tried = ", ".join(name for name, tuning in found.items() if tuning["trials"]) or "no head (few events)"
    kept = f"better parameters for {taken}" if taken else "nothing clearly better than the fixed parameters"
    return f"Tuning by {model['tuned_trials']} trials a head, of {tried}, found {kept}."


def _negative_lines(head: Mapping[str, Any]) -> list[str]:
    seen = f"Negative equity was seen in {head['accounts']} accounts: its probability given liquidation is"
    if head["fitted"] == "constant":
        return [seen, "a constant share (half a case added), nothing more is fitted."]
    trees = f" and {head['rounds']} trees" if head["rounds"] else ""
    return [seen, f"the passage of the account's cushion{trees}, calibrated."]


def _severity_lines(head: Mapping[str, Any]) -> list[str]:
    level = f"{head['intercept']:.4f} of gross notional"
    if not head["accounts"]:
        return [f"Severity is {level}: a default, since it was seen in 0 accounts."]
    trees = f" and {head['rounds']} trees" if head["rounds"] else ""
    if head["fitted"] == "constant":
        kind = "the mean" if trees else "the constant"
        return [f"Severity is {kind} {level}{trees}, from {head['accounts']} accounts."]
    of_prior = f"{head['slope']:.4f} of what closing into a crash's book costs beyond the maintenance margin"
    return [f"Severity is {level} and {of_prior}{trees},", f"from {head['accounts']} accounts."]


def _warning_lines(warning: Mapping[str, Any] | None, judged: Mapping[str, Any] | None) -> list[str]:
    if warning is None:
        return ["None: there are too few rows to grow it on."]
    lines = [
        f"An isolation forest of {warning['trees']} trees on {len(warning['features'])} columns, grown on "
        f"{warning['rows']} rows",
        f"(one an account and day) without labels: {warning['alarm_rate']:.0%} of the training rows raise",
        "its alarm. It tells which states are unusual on the risky side, not how likely a liquidation is.",
    ]
    if judged is None or judged["alarm_rate"] is None:
        return lines
    day = judged["targets"]["liquidation_24h"]
    lines += [
        "",
        f"On held-out time {judged['alarm_rate']:.2%} of the rows raise the alarm "
        f"({day['alarms']} of those whose outcome is known):",
        "",
        "| liquidation within 24 h | precision | recall |",
        "|---|---|---|",
    ]
    for name, who in (("warning", "early warning"), ("margin_ratio", "as many of the lowest margin ratios")):
        lines.append(f"| {who} | {_figure(day[name]['precision'])} | {_figure(day[name]['recall'])} |")
    left = day["complement"]
    return [
        *lines,
        "",
        f"Of the {day['missed_by_margin_ratio']} that the margin ratios miss, the warning flags a share of "
        f"{_figure(left['recall'])}; as many alarms by chance {_figure(left['by_chance'])}.",
    ]


def _plain(name: str) -> str:
    """A name that says nothing in Markdown or HTML, on one line."""
    return "".join(c if c.isprintable() and c not in "|<>`&[]*_\\" else " " for c in name)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
