"""The scorecard as Markdown that is aligned for a terminal."""

from __future__ import annotations

import math

from models.panels import BASELINES, LEAST_EQUITY_USD, SCORES, Json

LINES = (
    ("ROC AUC", "roc_auc", ".3f"),
    ("average precision", "average_precision", ".3f"),
    ("recall at 1% false positives", "recall_at_1pct_fpr", ".3f"),
    ("predicted / actual count", "predicted_over_actual", ".2f"),
    ("observed / expected, top 1%", "top_1pct_observed_over_expected", ".2f"),
    ("calibration error / base rate", "calibration_error", ".2f"),
    ("Brier score", "brier", ".4f"),
    ("log loss", "log_loss", ".4f"),
)
WHOLE = ("all", "equity_at_least_100_usd")
"""Panels that are shown with every figure; the others have a line each."""

NAMES = {
    "all": "all accounts",
    "equity_at_least_100_usd": f"equity of at least ${LEAST_EQUITY_USD:.0f}",
    "equity_below_100_usd": f"equity below ${LEAST_EQUITY_USD:.0f}",
    "notional_weighted": "weighted by notional",
    "net_long": "net long",
    "net_short": "net short",
}


def table(card: Json) -> str:
    """The scorecard: a table per target, horizon and main panel, one of the parts, one of the desk's, and
    at the end what the early warning's alarms were worth."""
    level = round(100 * card["intervals"]["level"])
    text = [
        f"# Scorecard of model {card['model_version']}",
        f"Decisions from {card['from']} to {card['to']}, every {card['every_s'] / 3600:g} h.\n"
        f"In brackets {level}% intervals from resampling whole days and accounts.",
    ]
    for target, horizons in card["targets"].items():
        for horizon, panels in horizons.items():
            what = f"{target.replace('_', ' ').capitalize()} within {horizon}"
            for name in WHOLE:
                text += [f"## {what}: {NAMES[name]}", panel_table(panels[name])]
            desk = card["desk"][target][horizon]
            text += [f"## {what}: part by part", markdown(parts(panels, desk["episodes"]))]
            if panels["all"]["events"]:
                text += [f"## {what}: warning and counts", markdown(warning_and_counts(desk))]
    early = card.get("early_warning")
    if early and early["rows"]:
        text += [
            f"## Early warning: alarms on {early['alarm_rate']:.2%} of {early['rows']:,} rows",
            markdown(early_warning(early)),
        ]
    return "\n\n".join(text) + "\n"


def early_warning(early: Json) -> list[list[str]]:
    """A line for each target: the warning beside as many alarms on the lowest margin ratios.

    And what it adds to these: of the events that they miss, the share that the warning flags, and the share
    that as many alarms among the same rows would by chance.
    """
    lines = [["", "events", "alarms", "came true", "of margin ratio", "events flagged", "of margin ratio"]]
    lines[0] += ["missed by margin ratio", "flagged of these", "by chance"]
    for name, of in early["targets"].items():
        shares = [of[who][what] for what in ("precision", "recall") for who in ("warning", "margin_ratio")]
        left = of["complement"]
        lines.append(
            [name.replace("_", " "), f"{of['events']:,}", f"{of['alarms']:,}"]
            + ["-" if share is None else f"{share:.0%}" for share in shares]
            + [f"{of['missed_by_margin_ratio']:,}", with_interval(left["recall"], [], ".1%")]
            + [with_interval(left["by_chance"], [], ".1%")]
        )
    return lines


def panel_table(figures: Json) -> str:
    """Every figure of one panel, for the model and both baselines, and the differences."""
    share = figures["events"] / figures["rows"] if figures["rows"] else math.nan
    counts = (
        f"{figures['rows']:,} rows on {figures['days']:,} days; {figures['events']:,} events "
        f"({share:.2%}) of {figures['accounts']:,} accounts."
    )
    scores = [figures[score] for score in SCORES]
    lines = [["", *(score.replace("_", " ") for score in SCORES)]]
    lines[0] += [f"model - {baseline.replace('_', ' ')}" for baseline in BASELINES]
    lines.append(["predicted count", *(f"{of['predicted_events']:.1f}" for of in scores), "", ""])
    lines.append(["actual count", *(f"{of['events']:,}" for of in scores), "", ""])
    for title, metric, spec in LINES:
        cells = [with_interval(of[metric], of["intervals"][metric], spec) for of in scores]
        lines.append([title, *cells, *(_difference_cell(figures, b, metric, spec) for b in BASELINES)])
    return f"{counts}\n\n{markdown(lines)}"


def parts(panels: Json, by_episode: Json) -> list[list[str]]:
    """A head, then a line for each panel, each episode and calm time: counts, level and ranking."""
    found = [(NAMES[name], of) for name, of in panels.items()]
    found += [(episode_name(of), of) for of in by_episode["each"]] + [("calm time", by_episode["calm"])]
    return [["", "rows", "events", "accounts", *(title for title, _, _ in SHOWN), *_OF_BASELINES]] + [
        [
            name,
            f"{of['rows']:,}",
            f"{of['events']:,}",
            f"{of['accounts']:,}",
            *(with_interval(of["model"][key], of["model"]["intervals"][key], spec) for _, key, spec in SHOWN),
            *(with_interval(of[baseline]["average_precision"], [], ".3f") for baseline in BASELINES),
        ]
        for name, of in found
    ]


SHOWN = (
    ("predicted / actual", "predicted_over_actual", ".2f"),
    ("top 1% observed / expected", "top_1pct_observed_over_expected", ".2f"),
    ("average precision", "average_precision", ".3f"),
)
_OF_BASELINES = tuple(f"of {baseline.replace('_', ' ')}" for baseline in BASELINES)


def warning_and_counts(desk: Json) -> list[list[str]]:
    """A head, then warning at 30% precision and counts against the Poisson band, for each score."""
    lead, counts = desk["lead_time"], desk["counts"]
    of = [(lead[score], counts[score]) for score in SCORES]
    at = f"at {lead['precision']:.0%} precision"
    return [
        ["", *(score.replace("_", " ") for score in SCORES)],
        [
            f"share of {lead['defaults']:,} defaults flagged, {at}",
            *(with_interval(a["share_caught"], a["intervals"]["share_caught"], ".0%") for a, _ in of),
        ],
        [
            "hours of warning where flagged, median",
            *(with_interval(a["median_h"], a["intervals"]["median_h"], ".1f") for a, _ in of),
        ],
        [
            "hours of warning where flagged, quartiles",
            *(_pair(a["lower_quartile_h"], a["upper_quartile_h"], "{:.1f} to {:.1f}") for a, _ in of),
        ],
        [f"share of rows flagged, {at}", *(with_interval(a["alarmed_share"], [], ".2%") for a, _ in of)],
        [
            "defaults an hour: expected, came",
            *(_pair(b["expected_per_hour"], b["observed_per_hour"], "{:.3g}, {:.3g}") for _, b in of),
        ],
        [
            f"decision times within the Poisson {counts['band']:.0%} band",
            *(with_interval(b["share_within_band"], b["interval_within_band"], ".0%") for _, b in of),
        ],
        ["day furthest off: expected, came", *(_day(b["worst_day"]) for _, b in of)],
        ["busiest day: expected, came", *(_day(b["busiest_day"]) for _, b in of)],
    ]


def _pair(first: float | None, second: float | None, form: str) -> str:
    return "-" if first is None or second is None else form.format(first, second)


def _day(of: Json | None) -> str:
    return "-" if of is None else f"{of['day']}: {of['expected']:.1f}, {of['observed']:.1f}"


def episode_name(of: Json) -> str:
    """An episode by its days."""
    days = of["from"] if of["from"] == of["to"] else f"{of['from']} to {of['to']}"
    return f"episode {days}"


def _difference_cell(figures: Json, baseline: str, metric: str, spec: str) -> str:
    of = figures["differences"][baseline].get(metric)
    return with_interval(of["change"], [of["low"], of["high"]], f"+{spec}") if of else ""


def with_interval(value: float | None, bounds: list[float | None], spec: str) -> str:
    """A figure with its interval in brackets, as far as they are known."""
    if value is None:
        return "-"
    known = [f"{bound:{spec}}" for bound in bounds if bound is not None]
    return (
        f"{value:{spec}} [{', '.join(known)}]" if known and len(known) == len(bounds) else f"{value:{spec}}"
    )


def markdown(lines: list[list[str]]) -> str:
    """A Markdown table of aligned columns, the first line its head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
