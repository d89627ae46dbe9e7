"""The scorecard: every figure of a model beside those of the two baselines, as JSON and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from exchange.units import DAY_US
from models import metrics as mt

FORMAT = "perprisk-scorecard"
VERSION = 1
SCORES = ("model", "margin_ratio", "structural")
BASELINES = ("margin_ratio", "structural")
PANELS = ("all", "equity_at_least_100_usd")
LEAST_EQUITY_USD = 100.0
COMPARED = ("roc_auc", "average_precision")

Json = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Rows (account and decision time) of one target and horizon with the probabilities to compare.

    `happened` is the label, `equity_usd` the account's equity at T (NaN: unknown, so not in the panel of
    at least $100), `probability` holds float64[n] for each name in SCORES, NaN where a score has none.
    """

    time_us: npt.NDArray[np.int64]
    account: npt.NDArray[np.int64]
    happened: npt.NDArray[np.bool_]
    equity_usd: npt.NDArray[np.float64]
    probability: Mapping[str, npt.NDArray[np.float64]]

    def where(self, chosen: npt.NDArray[np.bool_]) -> Scored:
        """The rows for which `chosen` is true."""
        return Scored(
            self.time_us[chosen],
            self.account[chosen],
            self.happened[chosen],
            self.equity_usd[chosen],
            {name: values[chosen] for name, values in self.probability.items()},
        )


def scorecard(
    targets: Mapping[str, Mapping[str, Scored]],
    *,
    dataset: Json,
    model_version: str,
    from_us: int,
    to_us: int,
    every_s: float,
    draws: int = 200,
    seed: int = 0,
) -> Json:
    """Figures for each target and horizon, such as `targets["liquidation"]["24h"]`, ready for JSON.

    Each score is measured on the rows where it has a probability (its own `rows`, `events`, `accounts`),
    each difference on the rows where both have one. Intervals hold 90% of `draws` resamples of whole days
    and accounts, the same for every score of a panel. What is undefined is null.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": dict(dataset),
        "model_version": model_version,
        "from": _iso(from_us),
        "to": _iso(to_us),
        "every_s": every_s,
        "intervals": {"level": mt.LEVEL, "draws": draws, "seed": seed, "resampled": ["days", "accounts"]},
        "targets": {
            target: {
                horizon: {
                    "all": panel(scored, draws, seed),
                    PANELS[1]: panel(scored.where(scored.equity_usd >= LEAST_EQUITY_USD), draws, seed),
                }
                for horizon, scored in horizons.items()
            }
            for target, horizons in targets.items()
        },
    }


def panel(scored: Scored, draws: int, seed: int) -> Json:
    """The figures of one set of rows for the model, both baselines and the differences between them."""
    known = {name: np.isfinite(scored.probability[name]) for name in SCORES}
    both = {name: known["model"] & known[name] for name in BASELINES}
    subsets = [(name, known[name]) for name in SCORES]
    subsets += [(name, both[baseline]) for baseline in BASELINES for name in ("model", baseline)]
    # Scores are mostly known everywhere: what is measured on the same rows is measured once.
    distinct = {(name, mask.tobytes()): mask for name, mask in subsets}
    ranked = {
        key: mt.Ranked.of(scored.happened[mask], scored.probability[key[0]][mask])
        for key, mask in distinct.items()
    }
    values = {key: mt.measure(ranked[key]) for key in distinct}
    drawn = {key: np.full((draws, len(mt.METRICS)), np.nan) for key in distinct}
    for draw, weight in enumerate(mt.resamples(scored.time_us, scored.account, draws, seed)):
        for key, mask in distinct.items():
            drawn[key][draw] = mt.measure(ranked[key], weight[mask])

    result: Json = {**_counts(scored), "days": len(np.unique(scored.time_us // DAY_US))}
    for name in SCORES:
        key = (name, known[name].tobytes())
        result[name] = _figures(scored.where(known[name]), name, values[key], drawn[key])
    result["differences"] = {}
    for baseline in BASELINES:
        model, other = ((name, both[baseline].tobytes()) for name in ("model", baseline))
        result["differences"][baseline] = _difference(
            values[model] - values[other], drawn[model] - drawn[other]
        )
    return result


def _counts(scored: Scored) -> Json:
    return {
        "rows": len(scored.happened),
        "events": int(scored.happened.sum()),
        "accounts": len(np.unique(scored.account[scored.happened])),
    }


def _figures(
    scored: Scored, name: str, values: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]
) -> Json:
    low, high = mt.measured_interval(values, drawn)
    figures = {metric: _number(value) for metric, value in zip(mt.METRICS, values, strict=True)}
    intervals = {metric: [_number(low[i]), _number(high[i])] for i, metric in enumerate(mt.METRICS)}
    return {
        **_counts(scored),
        "predicted_events": float(scored.probability[name].sum()),
        **figures,
        "intervals": intervals,
    }


def _difference(change: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> Json:
    """Model minus baseline; in every draw both saw the same days and accounts."""
    low, high = mt.interval(drawn)
    return {
        metric: {"change": _number(change[i]), "low": _number(low[i]), "high": _number(high[i])}
        for i, metric in enumerate(mt.METRICS)
        if metric in COMPARED
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _iso(time_us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).isoformat()


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


def table(card: Json) -> str:
    """The scorecard as Markdown, aligned for a terminal: one table per target, horizon and panel."""
    level = round(100 * card["intervals"]["level"])
    parts = [
        f"# Scorecard of model {card['model_version']}",
        f"Decisions from {card['from']} to {card['to']}, every {card['every_s'] / 3600:g} h.\n"
        f"In brackets {level}% intervals from resampling whole days and accounts.",
    ]
    for target, horizons in card["targets"].items():
        for horizon, panels in horizons.items():
            for name, figures in panels.items():
                who = "all accounts" if name == "all" else f"equity of at least ${LEAST_EQUITY_USD:.0f}"
                parts.append(f"## {target.replace('_', ' ').capitalize()} within {horizon}: {who}")
                parts.append(_panel_table(figures))
    return "\n\n".join(parts) + "\n"


def _panel_table(figures: Json) -> str:
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
        cells = [_with_interval(of[metric], of["intervals"][metric], spec) for of in scores]
        lines.append([title, *cells, *(_difference_cell(figures, b, metric, spec) for b in BASELINES)])
    return f"{counts}\n\n{_markdown(lines)}"


def _difference_cell(figures: Json, baseline: str, metric: str, spec: str) -> str:
    of = figures["differences"][baseline].get(metric)
    return _with_interval(of["change"], [of["low"], of["high"]], f"+{spec}") if of else ""


def _with_interval(value: float | None, bounds: list[float | None], spec: str) -> str:
    if value is None:
        return "-"
    known = [f"{bound:{spec}}" for bound in bounds if bound is not None]
    return f"{value:{spec}} [{', '.join(known)}]" if len(known) == len(bounds) else f"{value:{spec}}"


def _markdown(lines: list[list[str]]) -> str:
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
