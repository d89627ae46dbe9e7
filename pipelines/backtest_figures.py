"""What a backtest found: means, paired changes with intervals, a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.plot_style import BLUE, GREY, RED, png
from models.plot_style import picture as new_picture

Floats = npt.NDArray[np.float64]

STATIC, POLICY, NULL = "static", "account-risk", "null"
DRAWS = 2_000
LOW, HIGH = 5.0, 95.0
"""Percentiles of the 90% intervals."""
SHOWN = (
    ("liquidated_notional_usd", "liquidated"),
    ("cascade_minutes", "cascade minutes"),
    ("insurance_draw_usd", "insurance draw"),
    ("negative_accounts", "negative accounts"),
    ("deleveraged_notional_usd", "deleveraged"),
    ("net_fund_usd", "net fund"),
    ("refused_demand", "refused demand"),
    ("open_interest_usd", "open interest"),
    ("average_margin_rate", "average margin"),
)


def paired(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """`policies` and `paired` of `backtest.json` from the metrics by policy and world.

    A change is that of the sum over worlds, relative to static's; intervals are 90%, from drawing whole
    worlds with replacement, the same ones for both policies.
    """
    static = found[STATIC]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(static), (DRAWS, len(static)))
    out: dict[str, Any] = {"policies": {}, "paired": {}}
    for name, runs in found.items():
        out["policies"][name] = {metric: float(np.mean([run[metric] for run in runs])) for metric in runs[0]}
        if name == STATIC:
            continue
        changes = {}
        for metric in runs[0]:
            own = np.array([run[metric] for run in runs])
            base = np.array([run[metric] for run in static])
            changes[metric] = _change(own, base, drawn)
        out["paired"][f"{name}_vs_{STATIC}"] = changes
    return out


def _change(own: Floats, base: Floats, drawn: npt.NDArray[np.int64]) -> dict[str, float | None]:
    if base.sum() == 0.0:
        return {"change": None, "low": None, "high": None}
    below = base[drawn].sum(axis=1)
    ratios = (own - base)[drawn].sum(axis=1)[below != 0.0] / np.abs(below[below != 0.0])
    low, high = np.percentile(ratios, [LOW, HIGH])
    return {
        "change": float((own - base).sum() / abs(base.sum())), "low": float(low), "high": float(high)
    }  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """The comparison for a terminal, in the form that Markdown reads."""
    worlds = len(result["paths"])
    lines = [
        f"{worlds} worlds of {result['accounts']} accounts and {result['days']:g} days; change against"
        " static, % [90% interval]",
        "",
        "| policy | " + " | ".join(title for _, title in SHOWN) + " |",
        "|---" * (1 + len(SHOWN)) + "|",
    ]
    base = result["policies"][STATIC]
    lines.append(f"| {STATIC} | " + " | ".join(_plain(metric, base[metric]) for metric, _ in SHOWN) + " |")
    for key, changes in result["paired"].items():
        cells = [_cell(changes[metric]) for metric, _ in SHOWN]
        lines.append(f"| {key.removesuffix('_vs_' + STATIC)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(metric: str, value: float) -> str:
    if metric in ("refused_demand", "average_margin_rate"):
        return f"{value:.2%}"
    return f"{value:,.0f}"


def _cell(change: Mapping[str, float | None]) -> str:
    if change["change"] is None:
        return "none under static"
    return (
        f"{100 * change['change']:+.0f} [{100 * (change['low'] or 0):.0f}, {100 * (change['high'] or 0):.0f}]"
    )


def picture(result: Mapping[str, Any]) -> bytes:
    """Changes against static with their intervals; the band is what other draws of behaviour alone make."""
    names = [key.removesuffix("_vs_" + STATIC) for key in result["paired"]]
    panels = SHOWN[:4]
    with new_picture(15.0, 1.6 + 0.55 * len(names)) as figure:
        axes = figure.subplots(1, len(panels), sharey=True)
        for axis, (metric, title) in zip(axes, panels, strict=True):
            null = result["paired"].get(f"{NULL}_vs_{STATIC}", {}).get(metric)
            if null is not None and null["change"] is not None:
                axis.axvspan(100 * null["low"], 100 * null["high"], color=GREY, alpha=0.18, linewidth=0)
            axis.axvline(0.0, color=GREY, linewidth=1.2)
            for row, name in enumerate(names):
                change = result["paired"][f"{name}_vs_{STATIC}"][metric]
                if change["change"] is None or math.isnan(change["change"]):
                    continue
                color = BLUE if name == POLICY else RED if name.endswith("-open") else GREY
                low, high = max(100 * change["low"], -100.0), min(100 * change["high"], 150.0)
                axis.plot([low, high], [row, row], color=color, linewidth=3)
                axis.plot([min(100 * change["change"], 150.0)], [row], "o", color=color, markersize=9)
            axis.set_title(title)
            axis.set_xlabel("change against static, %")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        return png(figure)
