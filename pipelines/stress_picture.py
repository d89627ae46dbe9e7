"""Pictures of a stress run; PNG bytes by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from models.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, picture, png
from pipelines.stress_measures import tail_count

Json = dict[str, Any]

SHOWN_SHARE = 0.05
"""Part of the days of chance that is drawn: the rest cost less."""
MOST_BARS = 14
LONGEST_LABEL = 62
LONGEST_ID = 18
LABELS_APART = 0.035
"""Of an axis: multiples nearer to the last one are not named."""


def pictures(card: Json) -> dict[str, bytes]:
    """All pictures that there is something to see on."""
    days = [row for row in card["scenarios"] if row["family"] == "chance"]
    told = [row for row in card["scenarios"] if row["family"] != "chance"]
    made = {"days": _days(days, card), "scenarios": _scenarios(told)}
    if card["accounts"]:
        made["accounts"] = _accounts(card["accounts"])
        made["margin"] = _margin(card["margin"])
    return made


def dollars(value: float, _: Any = None) -> str:
    """Three digits; a dollar sign that is not taken for mathematics."""
    for size, letter in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return rf"\${value / size:.3g}{letter}"
    return rf"\${value:.0f}"


def _parts(rows: Sequence[Json]) -> list[tuple[str, str, Any]]:
    """Who bears a loss beyond equity, as heights of one stack."""
    fund = np.array([row["insurance_draw_usd"] for row in rows])
    nobody = np.array([row["uncovered_usd"] for row in rows])
    winners = np.maximum(np.array([row["shortfall_usd"] for row in rows]) - fund - nobody, 0.0)
    return [("insurance fund", GREEN, fund), ("deleveraged winners", BLUE, winners), ("nobody", RED, nobody)]


def _days(rows: Sequence[Json], card: Json) -> bytes:
    count = max(tail_count(1.0 - SHOWN_SHARE, len(rows)), 1)
    worst = sorted(rows, key=lambda row: -row["shortfall_usd"])[:count]
    figure_of, fund = card["risk"]["shortfall_usd"], card["book"]["fund_usd"]
    with picture(10.0, 6.0) as figure:
        axes = figure.subplots()
        bottom = np.zeros(count)
        for name, colour, height in _parts(worst):
            axes.bar(np.arange(count), height, bottom=bottom, width=0.86, color=colour, label=name)
            bottom += height
        if bottom.max() <= 0.0:
            axes.set_title(f"None of {len(rows):,} days of chance costs more than accounts hold")
        else:
            axes.set_title(f"One day in a hundred costs {dollars(figure_of['var_99'])} or more beyond equity")
        lines = (
            (figure_of["var_99"], "value at risk 99%", BLACK, "--"),
            (figure_of["es_99"], "expected shortfall 99%", BLACK, ":"),
            (fund, "fund at the start", GREEN, "-."),
        )
        top = max(bottom.max(), figure_of["es_99"]) * 1.08 or 1.0
        for height, name, colour, dash in lines:
            if 0.0 < height <= 1.5 * top:
                label = f"{name}: {dollars(height)}"
                axes.axhline(height, color=colour, linestyle=dash, linewidth=2.2, label=label)
                top = max(top, height * 1.08)
        axes.set_ylim(0, top)
        axes.set_xlabel(f"the worst {count} of {len(rows):,} days, worst first")
        axes.set_ylabel("loss beyond equity, borne by")
        axes.yaxis.set_major_formatter(FuncFormatter(dollars))
        axes.set_xticks([])
        if bottom.max() <= 0.0:  # parts of a dollar would look like something
            axes.set_yticks([0.0])
        axes.legend(loc="upper right")
        return png(figure)


def short_id(name: str) -> str:
    """A long name of an account by its two ends."""
    return name if len(name) <= LONGEST_ID else f"{name[: LONGEST_ID - 7]}…{name[-6:]}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def _bars(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), [_short(name) for name in names])
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(dollars))


def _scenarios(rows: Sequence[Json]) -> bytes:
    worst = sorted(rows, key=lambda row: (-row["shortfall_usd"], -row["liquidated_notional_usd"]))[:MOST_BARS]
    costly = sum(row["shortfall_usd"] > 0.0 for row in rows)
    with picture(14.0, 7.0) as figure:
        axes = figure.subplots()
        left = np.zeros(len(worst))
        for name, colour, width in _parts(worst):
            axes.barh(np.arange(len(worst)), width, left=left, color=colour, label=name)
            left += width
        for place, row in enumerate(worst):
            axes.annotate(
                f"{row['liquidated_accounts']:,} liquidated", (left[place], place), (6, 0),
                textcoords="offset points", va="center", color=GREY,
            )  # fmt: skip
        _bars(axes, [row["title"] for row in worst])
        axes.set_xlim(0, max(left.max(), 1.0) * 1.22)
        axes.set_xlabel("loss beyond equity, borne by")
        axes.set_title(f"{costly} of {len(rows)} named scenarios cost more than accounts hold")
        if costly:
            axes.legend(loc="lower right")
        return png(figure)


def _accounts(rows: Sequence[Json]) -> bytes:
    share = sum(row["share_of_shortfall"] for row in rows)
    with picture(10.0, 6.0) as figure:
        axes = figure.subplots()
        axes.barh(np.arange(len(rows)), [row["shortfall_usd"] for row in rows], height=0.7, color=ORANGE)
        for place, row in enumerate(rows):
            axes.annotate(
                f"{row['share_of_shortfall']:.0%}", (row["shortfall_usd"], place), (6, 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
        _bars(axes, [short_id(row["account_id"]) for row in rows])
        axes.set_xlim(0, max(row["shortfall_usd"] for row in rows) * 1.15)
        axes.set_xlabel("mean loss that others bear for it in the tail")
        who = "One account makes" if len(rows) == 1 else f"{len(rows)} accounts make"
        axes.set_title(f"{who} {share:.0%} of the loss")
        return png(figure)


def _margin(margin: Json) -> bytes:
    curve, suggested = margin["curve"], margin["suggested"]
    with picture(10.0, 6.0) as figure:
        axes = figure.subplots()
        axes.plot(
            [row["brought_usd"] for row in curve], [row["shortfall_usd"] for row in curve], color=BLUE,
            linewidth=2.8, marker="o", markersize=7, label="a multiple of initial margin for all",
        )  # fmt: skip
        apart, told = LABELS_APART * max(row["brought_usd"] for row in curve), -np.inf
        for row in curve:
            if row["brought_usd"] < told + apart:
                continue
            told = row["brought_usd"]
            axes.annotate(
                f"{row['multiple']:g}x", (row["brought_usd"], row["shortfall_usd"]), (4, 7),
                textcoords="offset points", color=BLUE,
            )  # fmt: skip
        axes.plot(
            suggested["brought_usd"], suggested["shortfall_usd"], color=RED, marker="D", markersize=11,
            linestyle="none", label="the margins that the model suggests",
        )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(dollars))
        axes.yaxis.set_major_formatter(FuncFormatter(dollars))
        axes.set_xlabel("margin that accounts bring beside what they have")
        axes.set_ylabel("mean loss beyond equity in the tail")
        multiple = margin["multiple_at_edge"]
        axes.set_title(
            "No uniform margin that was tried leaves no loss" if multiple is None
            else f"No loss at the edge of the tail from {multiple:.2f}x initial margin on"
        )  # fmt: skip
        axes.legend(loc="upper right")
        return png(figure)
