"""One cascade as panels that share their time: prices, book, forced closing, fund, accounts; PNG bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator
from matplotlib.ticker import FuncFormatter, PercentFormatter

from exchange.units import SECOND_US
from models.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, picture, png

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MARKED = 0.05
"""Share of a peak below which a bar cannot be told from nothing."""


class Scene(NamedTuple):
    """What one cascade looked like; times are microseconds, dollars unless it is a share."""

    first_us: int
    last_us: int
    minute_us: Whole
    marks: Floats
    """[minutes, 2]: the market with most open interest, and the one that fell most."""
    lows: Floats
    names: tuple[str, str]
    depth_us: Whole
    depth_share: Floats
    """Of all markets' depth within 1%, over its median before."""
    bin_us: Whole
    liquidated_usd: Floats
    """By ten seconds, likewise the next."""
    deleveraged_usd: Floats
    fund_us: Whole
    fund_usd: Floats
    event_us: tuple[Whole, ...]
    """When accounts were first liquidated, went negative, were deleveraged."""
    open_us: Whole
    open_accounts: Whole


def draw(scene: Scene) -> bytes:
    """The picture as PNG bytes."""
    with picture(12.5, 15.0) as figure:
        axes = figure.subplots(5, 1, sharex=True, height_ratios=(3, 2, 3, 2, 3))
        _prices(axes[0], scene)
        _depth(axes[1], scene)
        _forced(axes[2], scene)
        _fund(axes[3], scene)
        _accounts(axes[4], scene)
        axes[0].set_xlim(_when(np.array([scene.first_us]))[0], _when(np.array([scene.last_us]))[0])
        axes[-1].xaxis.set_major_locator(MinuteLocator(byminute=range(0, 60, 5)))  # type: ignore[no-untyped-call]
        axes[-1].xaxis.set_major_formatter(DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]
        axes[-1].set_xlabel(f"{np.datetime64(scene.first_us, 'us').astype('datetime64[D]')}, UTC")
        figure.align_ylabels(axes)
        return png(figure)


def _when(time_us: Whole) -> Any:
    return time_us.astype("datetime64[us]").astype(object)


def _dollars(value: float, _: Any = None) -> str:
    """Three digits of dollars; a dollar sign that is not taken for mathematics."""
    for size, letter in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(value) >= size:
            return rf"\${value / size:.3g}{letter}"
    return rf"\${value:.0f}"


def _prices(axes: Axes, scene: Scene) -> None:
    begin = scene.marks[0]
    same = scene.names[0] == scene.names[1]
    for column, (colour, name) in enumerate(zip((BLACK, RED), scene.names, strict=True)):
        if column == 1 and same:
            continue
        price, low = scene.marks[:, column] / begin[column], scene.lows[:, column] / begin[column]
        axes.plot(_when(scene.minute_us), price - 1.0, color=colour, linewidth=2.6)
        axes.fill_between(
            _when(scene.minute_us), low - 1.0, price - 1.0, color=colour, alpha=0.25, linewidth=0
        )
        axes.annotate(
            name, (_when(scene.minute_us)[-1], price[-1] - 1.0), (6, 0), textcoords="offset points",
            color=colour, va="center", annotation_clip=False,
        )  # fmt: skip
    falls = 1.0 - scene.lows.min(axis=0) / begin
    words = [f"{name} falls {fall:.0%}" for name, fall in zip(scene.names, falls, strict=True)]
    axes.set_title(", ".join(words[: 1 if same else 2]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("mark, change")


def _depth(axes: Axes, scene: Scene) -> None:
    share = np.maximum(scene.depth_share, 1e-4)
    axes.plot(
        _when(scene.depth_us), share, color=BLUE, linewidth=2.6, marker="o", markersize=5,
        drawstyle="steps-post",
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(min(share.min(initial=0.1) / 2, 0.05), 2.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    left = scene.depth_share.min(initial=np.inf)
    axes.set_title(f"{1 - left:.0%} of the book within 1% is gone" if left < 1 else "The book holds")
    axes.set_ylabel("depth over\nusual")


def _forced(axes: Axes, scene: Scene) -> None:
    width = (scene.bin_us[1] - scene.bin_us[0]) / SECOND_US / 86_400 if len(scene.bin_us) > 1 else 1e-4
    axes.bar(
        _when(scene.bin_us), scene.liquidated_usd, width=width, align="edge", color=ORANGE,
        label="liquidated",
    )  # fmt: skip
    axes.bar(
        _when(scene.bin_us), -scene.deleveraged_usd, width=width, align="edge", color=BLUE,
        label="of it deleveraged: winners closed",
    )  # fmt: skip
    axes.axhline(0.0, color=BLACK, linewidth=0.8)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _dollars(abs(value))))
    closed, won = scene.liquidated_usd.sum(), scene.deleveraged_usd.sum()
    axes.set_title(f"{_dollars(closed)} closed by force, {_dollars(won)} of it against winners")
    axes.set_ylabel("in 10 s")
    axes.legend(loc="best")


def _fund(axes: Axes, scene: Scene) -> None:
    times = np.concatenate([np.maximum(scene.fund_us, scene.first_us), [scene.last_us]])
    worth = np.concatenate([scene.fund_usd, scene.fund_usd[-1:]])
    if len(worth) == len(times):
        axes.step(_when(times), worth, where="post", color=GREEN, linewidth=2.6)
        axes.fill_between(_when(times), worth, step="post", color=GREEN, alpha=0.2, linewidth=0)
        low, first = worth.min(), worth[0]
        words = f"from {_dollars(first)} to {_dollars(low)}"
        axes.set_title(
            f"The insurance fund is spent: {words}"
            if low < MARKED * first
            else f"The insurance fund goes {words}"
        )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(_dollars))
    axes.set_ylabel("fund")


def _accounts(axes: Axes, scene: Scene) -> None:
    looks = zip(("liquidated", "negative", "deleveraged"), (ORANGE, RED, BLUE), ("-", ":", "--"), strict=True)
    counts, ends = [], []
    for times, (name, colour, dash) in zip(scene.event_us, looks, strict=True):
        steps = np.concatenate([[scene.first_us], times, [scene.last_us]])
        total = np.concatenate([[0], np.arange(1, len(times) + 1), [len(times)]])
        axes.step(_when(steps), total, where="post", color=colour, linestyle=dash, linewidth=2.6)
        counts.append(f"{len(times):,} {name}")
        ends.append((float(len(times)), name, colour))
    axes.plot(_when(scene.open_us), scene.open_accounts, color=GREY, linewidth=2.6)
    ends.append((float(scene.open_accounts[-1]), "with a position", GREY))
    top = max(scene.open_accounts.max(initial=1), *(end for end, _, _ in ends)) * 1.08
    axes.set_ylim(0, top)
    place = -1.0
    for end, name, colour in sorted(ends):
        place = max(end / top, place + 0.09, 0.03)  # names beside the ends of their lines, none over another
        axes.annotate(
            name, (1.0, place), (6, 0), xycoords="axes fraction", textcoords="offset points", color=colour,
            va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_ylabel("accounts")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(f"{', '.join(counts)}, {_change(scene.open_accounts)}")


def _change(accounts: Whole) -> str:
    return f"{1 - accounts.min() / max(accounts[0], 1):.0%} of all out of the market"
