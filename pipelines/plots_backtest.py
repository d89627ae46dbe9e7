"""Pictures of a backtest: changes against static, what assumptions are worth, and the frontiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from models.plot_style import BLUE, GREY, ORANGE, RED, png
from models.plot_style import picture as new_picture
from pipelines.backtest_figures import NULL, POLICY, SHOWN, STATIC

FARTHEST = 100.0
"""Percent beyond which an interval is cut off."""
HIGHEST = 250.0
"""Percent of the schedule's losses beyond which points of a frontier are cut off."""
PANELS = SHOWN[:4]
FRONTIER_ACROSS = (("average_margin_rate", "average margin, %"), ("refused_demand", "refused demand, %"))
FRONTIER_UP = SHOWN[:3]
COLORS = {STATIC: GREY, POLICY: BLUE}


def pictures(result: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name."""
    found = {"backtest.png": changes_picture(result)}
    if result["frontier"]:
        found["frontier.png"] = frontier_picture(result["frontier"])
    if result["without"]:
        found["assumptions.png"] = assumptions_picture(result)
    return found


def changes_picture(result: Mapping[str, Any]) -> bytes:
    """Changes against static with their intervals; the band is what other draws of behaviour alone make."""
    rows = [_row(key.removesuffix("_vs_" + STATIC), found) for key, found in result["paired"].items()]
    return _forest(rows, result["paired"].get(f"{NULL}_vs_{STATIC}"))


def assumptions_picture(result: Mapping[str, Any]) -> bytes:
    """What is left of account-risk's effect where something that it might hang on is otherwise."""
    key = f"{POLICY}_vs_{STATIC}"
    rows = [_Row("as it is", result["paired"][key], BLUE)]
    rows += [_Row(f"without {lacking}", found[key], ORANGE) for lacking, found in result["without"].items()]
    for name, title, color in (("ahead", "features a day ahead", ORANGE), ("open", "on open positions", RED)):
        found = result["paired"].get(f"{POLICY}-{name}_vs_{STATIC}")
        if found is not None:
            rows.append(_Row(title, found, color))
    return _forest(rows, result["paired"].get(f"{NULL}_vs_{STATIC}"))


class _Row(NamedTuple):
    """Changes of one run against another, and the colour that they are drawn in."""

    title: str
    found: Mapping[str, Any]
    color: str


def _row(name: str, found: Mapping[str, Any]) -> _Row:
    return _Row(name, found, {POLICY: BLUE, f"{POLICY}-open": RED}.get(name, GREY))


def _forest(rows: Sequence[_Row], null: Mapping[str, Any] | None) -> bytes:
    with new_picture(16.0, 2.3 + 0.55 * len(rows)) as figure:
        axes: Sequence[Axes] = figure.subplots(1, len(PANELS), sharey=True)
        for axis, (metric, title) in zip(axes, PANELS, strict=True):
            if null is not None and null[metric]["change"] is not None:
                low, high = _cut(null[metric]["low"]), _cut(null[metric]["high"])
                axis.axvspan(low, high, color=GREY, alpha=0.18, linewidth=0)
            axis.axvline(0.0, color=GREY, linewidth=1.2)
            for place, row in enumerate(rows):
                change = row.found[metric]
                if change["change"] is None or math.isnan(change["change"]):
                    continue
                ends = [_cut(change["low"]), _cut(change["high"])]
                axis.plot(ends, [place, place], color=row.color, linewidth=3)
                axis.plot([_cut(change["change"])], [place], "o", color=row.color, markersize=9)
            axis.set_title(title)
            axis.set_xlim(-FARTHEST - 5.0, FARTHEST + 5.0)
            axis.set_xlabel("change, %")
        axes[0].set_yticks(range(len(rows)), [row.title for row in rows])
        axes[0].invert_yaxis()
        figure.suptitle(
            "Change against static margin. Left is better; inside the grey band it may be chance alone.",
            fontsize=14, x=0.01, ha="left",
        )  # fmt: skip
        return png(figure)


def _cut(share: float) -> float:
    return min(max(100.0 * share, -FARTHEST), FARTHEST)


def frontier_picture(found: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """What margin buys: losses over average margin, and over refused demand; low and left is good."""
    base = found[STATIC][0]
    with new_picture(16.0, 9.5) as figure:
        grid = figure.subplots(len(FRONTIER_ACROSS), len(FRONTIER_UP))
        for row, (across, label) in zip(grid, FRONTIER_ACROSS, strict=True):
            for axis, (metric, title) in zip(row, FRONTIER_UP, strict=True):
                for name, points in found.items():
                    x = 100.0 * np.array([point[across] for point in points])
                    y = np.array([100.0 * point[metric] / base[metric] if base[metric] else math.nan
                                  for point in points])  # fmt: skip
                    axis.plot(x, y, "o-", color=COLORS.get(name, ORANGE), linewidth=2.5, label=name)
                    for point, left, top in zip(points, x, y, strict=True):
                        axis.annotate(
                            f"x{point['strength']:g}", (left, top), textcoords="offset points",
                            xytext=(5, 5), fontsize=11, color=COLORS.get(name, ORANGE),
                        )  # fmt: skip
                axis.set_title(title)
                axis.set_xlabel(label)
                axis.set_ylim(0.0, min(max(axis.get_ylim()[1], 110.0), HIGHEST))
        for row in grid:
            row[0].set_ylabel("schedule as it is = 100")
        grid[0][0].legend()
        figure.suptitle("What margin buys: lower and further left is better.", fontsize=14, x=0.01, ha="left")
        return png(figure)
