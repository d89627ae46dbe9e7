"""The report: one self-contained HTML page that a risk officer reads in a minute."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import jinja2
import numpy as np

from features import catalog
from features import emit as figure
from features.venue import Vectors, Venue
from models.scorecard_text import parts, warning_and_counts
from pipelines.times import format_time
from pipelines.verdict import verdict
from serving.linked import score_linked
from serving.scorer import REASONS_FROM_PD_24H, Scorer, Scores

MOST_ACCOUNTS = 20
SHORT_ID = 14

PICTURES = (
    ("over_time", "Did as many default as were predicted?"),
    ("lead_time", "How long before a liquidation was the account flagged?"),
    ("reliability", "Can a probability be multiplied by money?"),
    ("precision_recall", "Does the ranking beat the simple ones?"),
    ("margins", "Who is asked for more margin, and how much?"),
    ("shap_beeswarm", "What moves the score?"),
)

METRICS = (
    ("roc_auc", "ROC AUC", "{:.3f}"),
    ("average_precision", "average precision", "{:.3f}"),
    ("recall_at_1pct_fpr", "recall at 1% false positives", "{:.2f}"),
    ("predicted_over_actual", "predicted over actual count", "{:.2f}"),
    ("top_1pct_observed_over_expected", "observed over expected, top 1%", "{:.2f}"),
    ("log_loss", "log loss", "{:.4f}"),
)


def render(
    scorer: Scorer,
    venue: Venue,
    vectors: Vectors,
    time_us: int,
    card: dict[str, Any],
    images: dict[str, bytes],
    venue_name: str,
    trained_until_us: int,
) -> str:
    """The page: accounts at `time_us` by risk, and how the model did after `trained_until_us`."""
    scores = score_linked(scorer, venue, vectors, time_us)
    panels, desk = card["targets"]["liquidation"]["24h"], card["desk"]["liquidation"]["24h"]
    heads = scorer.bundle.model["heads"]
    shown = [(name, question) for name, question in PICTURES if name in images]
    return template("report.html", usd=usd, percent=percent).render(
        venue=venue_name,
        time=format_time(time_us),
        trained_until=format_time(trained_until_us),
        model_version=scorer.model_version,
        accounts=_accounts(scorer, venue, vectors, scores),
        totals=_totals(vectors, scores),
        verdict=verdict(card),
        panel=panels["all"],
        negative=card["targets"]["negative_equity"]["24h"]["all"],
        span=(card["from"], card["to"]),
        metrics=_metrics(panels["all"]),
        parts=parts(panels, desk["episodes"]),
        warning=warning_and_counts(desk),
        constant_negative=heads["negative_given_liquidation"].get("fitted") == "constant",
        pictures=[
            (name, question, base64.b64encode(images[name]).decode("ascii")) for name, question in shown
        ],
        alarm=REASONS_FROM_PD_24H,
    )


def template(name: str, **filters: Callable[..., str]) -> jinja2.Template:
    """A page to be filled in; what is put into it is escaped, and a name that it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= filters
    return environment.get_template(name)


def _totals(vectors: Vectors, scores: Scores) -> dict[str, Any]:
    day = scores.pd[:, 2]
    gross = vectors.figures[:, figure.GROSS_NOTIONAL_USD]
    likely = day >= REASONS_FROM_PD_24H
    return {
        "accounts": len(day),
        "notional": float(np.nansum(gross)),
        "likely": int(likely.sum()),
        "likely_notional": float(np.nansum(gross[likely])),
        "expected": float(np.nansum(day)),
        "expected_loss": float(np.nansum(scores.expected_loss_usd)),
        "raised": int((scores.initial_rate > scores.static_initial_rate).sum()),
        "fallback": sum(reason is not None for reason in scores.fallback),
    }


def _accounts(scorer: Scorer, venue: Venue, vectors: Vectors, scores: Scores) -> list[dict[str, Any]]:
    """The riskiest accounts, as rows of the page's table."""
    order = np.argsort(-np.nan_to_num(scores.pd[:, 2], nan=-1.0), kind="stable")[:MOST_ACCOUNTS]
    top, scores = vectors.where(order), scores.where(order)
    reasons = scorer.reasons(top, scores)
    rows = []
    for k in range(len(order)):
        name = venue.account_names[int(scores.account[k])]
        figures = top.figures[k]
        why = [reason.text for reason in reasons[k]]
        if scores.fallback[k] is not None:
            why = [f"fallback: {scores.fallback[k]}"]
        rows.append(
            {
                "name": name,
                "short": name if len(name) <= SHORT_ID else f"{name[: SHORT_ID - 5]}…{name[-4:]}",
                "equity": figures[figure.EQUITY_USD],
                "notional": figures[figure.GROSS_NOTIONAL_USD],
                "leverage": top.features[k, catalog.index("effective_leverage")],
                "margin_ratio": figures[figure.MARGIN_RATIO],
                "pd": scores.pd[k],
                "loss": scores.expected_loss_usd[k],
                "static": scores.static_initial_rate[k],
                "suggested": scores.initial_rate[k],
                "reasons": why,
            }
        )
    return rows


def _metrics(panel: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the comparison: the figure and its 90% interval for the model and both baselines."""
    rows = []
    for key, label, form in METRICS:
        cells = []
        for score in ("model", "margin_ratio", "structural"):
            value = panel[score][key]
            bounds = panel[score]["intervals"][key]
            if value is None:
                cells.append("n/a")
            elif None in bounds:
                cells.append(form.format(value))
            else:
                cells.append(f"{form.format(value)} [{form.format(bounds[0])}, {form.format(bounds[1])}]")
        rows.append((label, cells))
    return rows


def usd(value: float) -> str:
    """Dollars with a unit that fits: $3.10, $4.2k, $1.3M."""
    if not np.isfinite(value):
        return "unknown"
    size = abs(value)
    sign = "-" if value < 0 else ""
    for bound, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if size >= bound:
            return f"{sign}${size / bound:.1f}{unit}"
    return f"{sign}${size:.2f}"


def percent(value: float) -> str:
    """A share in percent with as many digits as it bears."""
    if not np.isfinite(value):
        return "unknown"
    if 0 < value < 0.001:
        return "<0.1%"
    return f"{value:.1%}"
