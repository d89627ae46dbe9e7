"""Pictures of a stress run; PNG bytes by name."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from models.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, picture, png
from pipelines.stress_measures import tail_count
from pipelines.stress_runs import DUST_USD

Json = dict[str, Any]

SHOWN_SHARE = 0.05
"""Part of the days of chance that is drawn: the rest cost less."""
MOST_BARS = 14
LABEL_WIDTH = 46
"""Letters of a line of a title; what is longer takes two lines."""
LONGEST_HALF_WORD = 6
LONGEST_ID = 18
TICKS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Multiples that are named on the axis."""


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


def _shown(rows: Sequence[Json]) -> tuple[str, str]:
    """The figure of rows that a picture is of, and its words: where nothing is lost, what is closed."""
    if any(row["shortfall_usd"] > DUST_USD for row in rows):
        return "shortfall_usd", "loss beyond equity, borne by"
    return "liquidated_notional_usd", "closed by force"


def _parts(rows: Sequence[Json], figure: str) -> list[tuple[str, str, Any]]:
    """Heights of one stack: who bears a loss beyond equity, of those who bear some; or all of the figure."""
    total = np.array([row[figure] for row in rows])
    if figure != "shortfall_usd":
        return [("closed by force", BLUE, total)]
    fund = np.array([row["insurance_draw_usd"] for row in rows])
    nobody = np.array([row["uncovered_usd"] for row in rows])
    winners = np.maximum(total - fund - nobody, 0.0)
    parts = (("insurance fund", GREEN, fund), ("deleveraged winners", BLUE, winners), ("nobody", RED, nobody))
    return [part for part in parts if part[2].max() > DUST_USD]


def costly_days(days: Sequence[Json]) -> str:
    """How many days cost more than accounts hold, in words."""
    costly = sum(row["shortfall_usd"] > DUST_USD for row in days)
    if costly == 0:
        return f"None of {len(days):,} days of chance costs more than accounts hold"
    return f"{costly:,} of {len(days):,} days of chance cost more than accounts hold"


def _days(rows: Sequence[Json], card: Json) -> bytes:
    count = max(tail_count(1.0 - SHOWN_SHARE, len(rows)), 1)
    shown, words = _shown(rows)
    worst = sorted(rows, key=lambda row: -row[shown])[:count]
    figure_of, fund = card["risk"][shown], card["book"]["fund_usd"]
    lost = shown == "shortfall_usd"
    with picture(10.0, 6.0) as figure:
        axes = figure.subplots()
        bottom = np.zeros(count)
        for name, colour, height in _parts(worst, shown):
            axes.bar(np.arange(count), height, bottom=bottom, width=0.86, color=colour, label=name)
            bottom += height
        dear = lost and figure_of["var_99"] > DUST_USD
        axes.set_title(
            f"One day in a hundred costs {dollars(figure_of['var_99'])} or more beyond equity"
            if dear
            else costly_days(rows)
        )
        lines = (
            (figure_of["var_99"], "value at risk 99%", BLACK, "--"),
            (figure_of["es_99"], "expected shortfall 99%", BLACK, ":"),
            (fund if lost else 0.0, "fund at the start", GREEN, "-."),
        )
        top = max(bottom.max(), figure_of["es_99"]) * 1.08 or 1.0
        for height, name, colour, dash in lines:
            if DUST_USD < height <= 1.5 * top:
                label = f"{name}: {dollars(height)}"
                axes.axhline(height, color=colour, linestyle=dash, linewidth=2.2, label=label)
                top = max(top, height * 1.08)
        axes.set_ylim(0, top)
        axes.set_xlabel(f"the worst {count} of {len(rows):,} days, worst first")
        axes.set_ylabel(words)
        axes.yaxis.set_major_formatter(FuncFormatter(dollars))
        axes.set_xticks([])
        if bottom.max() <= DUST_USD:  # parts of a dollar would look like something
            axes.set_yticks([0.0])
        _legend(axes, "upper right")
        return png(figure)


def short_id(name: str) -> str:
    """A long name of an account by its two ends."""
    return name if len(name) <= LONGEST_ID else f"{name[: LONGEST_ID - 7]}…{name[-6:]}"


def _legend(axes: Axes, place: Literal["upper right", "lower right"]) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place)


def _lines(title: str) -> str:
    return title if len(title) <= LABEL_WIDTH else fill(title, len(title) // 2 + LONGEST_HALF_WORD)


def _bars(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), [_lines(name) for name in names])
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(dollars))


def _scenarios(rows: Sequence[Json]) -> bytes:
    worst = sorted(rows, key=lambda row: (-row["shortfall_usd"], -row["liquidated_notional_usd"]))[:MOST_BARS]
    costly = sum(row["shortfall_usd"] > DUST_USD for row in rows)
    shown, words = _shown(rows)
    with picture(13.0, 7.8) as figure:
        axes = figure.subplots()
        left = np.zeros(len(worst))
        for name, colour, width in _parts(worst, shown):
            axes.barh(np.arange(len(worst)), width, left=left, color=colour, label=name)
            left += width
        for place, row in enumerate(worst):
            axes.annotate(
                f"{row['liquidated_accounts']:,} liquidated", (left[place], place), (6, 0),
                textcoords="offset points", va="center", color=GREY,
            )  # fmt: skip
        _bars(axes, [row["title"] for row in worst])
        axes.set_xlim(0, max(left.max(), 1.0) * 1.3)
        if left.max() <= DUST_USD:
            axes.set_xticks([0.0])
        axes.set_xlabel(words)
        axes.set_title(f"{costly or 'None'} of {len(rows)} named scenarios cost more than accounts hold")
        _legend(axes, "lower right")
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
    loss = {row["multiple"]: row["shortfall_usd"] for row in curve}
    with picture(10.0, 6.0) as figure:
        axes = figure.subplots()
        axes.plot(
            list(loss), list(loss.values()), color=BLUE, linewidth=2.8, marker="o", markersize=7,
            label="a multiple of initial margin for all",
        )  # fmt: skip
        even = suggested["same_money_evenly_multiple"]
        axes.plot(
            even, suggested["shortfall_usd"], color=RED, marker="D", markersize=11, linestyle="none",
            label=f"the model's, where a multiple brings as much: {dollars(suggested['brought_usd'])}",
        )  # fmt: skip
        edge = margin["multiple_at_edge"]
        if edge is not None:
            axes.axvline(
                edge, color=GREY, linestyle=":", linewidth=2.2,
                label=f"{edge:.2f}x: no loss in the one scenario at the edge",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(0.97, max(curve[-1]["multiple"], even) * 1.08)
        brought = {row["multiple"]: dollars(row["brought_usd"]) for row in curve}
        axes.set_xticks(TICKS, [f"{multiple:g}x\n{brought[multiple]}" for multiple in TICKS])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, max(*loss.values(), suggested["shortfall_usd"], 1.0) * 1.45)
        axes.yaxis.set_major_formatter(FuncFormatter(dollars))
        axes.set_xlabel("initial margin over today's, and what accounts bring for it")
        axes.set_ylabel("mean loss beyond equity in the tail")
        axes.set_title(_said_of_twice(loss))
        axes.legend(loc="upper right", frameon=True, facecolor="white", edgecolor="none", framealpha=1.0)
        return png(figure)


def _said_of_twice(loss: dict[float, float]) -> str:
    if not loss[1.0] > DUST_USD:
        return "Today's margin leaves no loss in the scenarios looked into"
    change = loss[2.0] / loss[1.0] - 1.0
    word = "more" if change > 0.0 else "less"
    return f"Twice the initial margin leaves {abs(change):.0%} {word} loss in the tail"
