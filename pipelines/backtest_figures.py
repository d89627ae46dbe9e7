"""What a backtest found: means, paired changes with intervals, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
    ("share_above_10x", "held above 10x"),
    ("traders_cost_usd", "traders' cost"),
    ("deleveraging_overshoot_usd", "overshoot"),
)
FRONTIER_SHOWN = (
    ("average_margin_rate", "average margin"),
    ("refused_demand", "refused demand"),
    ("liquidated_notional_usd", "liquidated"),
    ("cascade_minutes", "cascade minutes"),
    ("insurance_draw_usd", "insurance draw"),
    ("negative_accounts", "negative accounts"),
    ("net_fund_usd", "net fund"),
    ("open_interest_usd", "open interest"),
)
RATES = ("refused_demand", "average_margin_rate", "share_above_10x")
RIVALS = ("static-refused", "static-1.5", "volatility-new")
"""Whom account-risk is put beside as well."""


FRONTIER_METRICS = (
    "average_margin_rate", "refused_demand", "liquidated_notional_usd", "cascade_minutes",
    "insurance_draw_usd", "negative_accounts", "net_fund_usd", "open_interest_usd", "share_above_10x",
)  # fmt: skip


def paired(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """`policies` and `paired` of `backtest.json` from the metrics by policy and world.

    A change is that of the sum over worlds, relative to static's; intervals are 90%, from drawing whole
    worlds with replacement, the same ones for both policies.
    """
    out: dict[str, Any] = {"policies": {}, "paired": {}}
    for name, runs in found.items():
        out["policies"][name] = {metric: float(np.mean([run[metric] for run in runs])) for metric in runs[0]}
        if name != STATIC:
            out["paired"][f"{name}_vs_{STATIC}"] = changes(runs, found[STATIC])
    return out


def against(found: Mapping[str, Sequence[Mapping[str, float]]], name: str) -> dict[str, Any]:
    """Changes of a policy against each of the others, as `paired` has them against static."""
    return {
        f"{name}_vs_{other}": changes(found[name], runs)
        for other, runs in found.items()
        if other not in (name, STATIC)
    }


def frontier(
    found: Mapping[str, Mapping[float, Sequence[Mapping[str, float]]]],
) -> dict[str, list[dict[str, float]]]:
    """Means over worlds by policy and strength; the first strength of static is the schedule as it is."""
    return {
        name: [
            {"strength": strength}
            | {metric: float(np.mean([run[metric] for run in runs])) for metric in FRONTIER_METRICS}
            for strength, runs in by_strength.items()
        ]
        for name, by_strength in found.items()
    }


def changes(
    runs: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, float | None]]:
    """By metric: the relative change of the sum over worlds, with its 90% interval."""
    drawn = np.random.default_rng(0).integers(0, len(runs), (DRAWS, len(runs)))
    return {
        metric: _change(
            np.array([run[metric] for run in runs]), np.array([run[metric] for run in others]), drawn
        )
        for metric in runs[0]
    }


def _change(own: Floats, base: Floats, drawn: npt.NDArray[np.int64]) -> dict[str, float | None]:
    if base.sum() == 0.0:
        return {"change": None, "low": None, "high": None}
    below = base[drawn].sum(axis=1)
    ratios = (own - base)[drawn].sum(axis=1)[below != 0.0] / np.abs(below[below != 0.0])
    low, high = np.percentile(ratios, [LOW, HIGH])
    return {
        "change": float((own - base).sum() / abs(base.sum())), "low": float(low), "high": float(high)
    }  # fmt: skip


def told(result: Mapping[str, Any]) -> str:
    """All tables for a terminal, in the form that Markdown reads."""
    parts = [table(result)]
    ours = {key: found for key, found in result["against"].items() if key.split("_vs_")[1] in RIVALS}
    if ours:
        rows = [(f"against {key.split('_vs_')[1]}", found) for key, found in ours.items()]
        parts.append(_rows(f"{POLICY}, change in % [90% interval]", rows))
    for lacking, found in result["without"].items():
        rows = [(key.removesuffix("_vs_" + STATIC), found[key]) for key in found]
        parts.append(_rows(f"without {lacking}: change against static in the same worlds", rows))
    if result["frontier"]:
        base = result["frontier"][STATIC][0]
        lines = [
            "frontier: change against the schedule as it is, %; average margin and refused demand themselves",
            "", "| policy | " + " | ".join(title for _, title in FRONTIER_SHOWN) + " |",
            "|---" * (1 + len(FRONTIER_SHOWN)) + "|",
        ]  # fmt: skip
        for name, points in result["frontier"].items():
            lines += [
                f"| {name} x{point['strength']:g} | "
                + " | ".join(
                    f"{point[metric]:.2%}" if metric in RATES else _percent(point[metric], base[metric])
                    for metric, _ in FRONTIER_SHOWN
                )
                + " |"
                for point in points
            ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def table(result: Mapping[str, Any]) -> str:
    """The comparison of policies."""
    worlds = len(result["paths"])
    base = result["policies"][STATIC]
    return _rows(
        f"{worlds} worlds of {result['accounts']} accounts and {result['days']:g} days; change against"
        " static, % [90% interval]",
        [(key.removesuffix("_vs_" + STATIC), found) for key, found in result["paired"].items()],
        f"| {STATIC} | " + " | ".join(_plain(metric, base[metric]) for metric, _ in SHOWN) + " |",
    )


def _rows(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], first: str = "") -> str:
    lines = [
        title, "", "| policy | " + " | ".join(name for _, name in SHOWN) + " |",
        "|---" * (1 + len(SHOWN)) + "|", *([first] if first else []),
    ]  # fmt: skip
    lines += [
        f"| {name} | " + " | ".join(_cell(found[metric]) for metric, _ in SHOWN) + " |"
        for name, found in rows
    ]
    return "\n".join(lines)


def _percent(value: float, base: float) -> str:
    return f"{100 * (value / base - 1.0):+.0f}" if base else "none"


def _plain(metric: str, value: float) -> str:
    if metric in RATES:
        return f"{value:.2%}"
    return f"{value:,.0f}"


def _cell(change: Mapping[str, float | None]) -> str:
    if change["change"] is None:
        return "none under static"
    return (
        f"{100 * change['change']:+.0f} [{100 * (change['low'] or 0):.0f}, {100 * (change['high'] or 0):.0f}]"
    )
