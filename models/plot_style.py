"""The one style of all pictures: palette, figure, and how shares are written on axes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

# The palette of Okabe and Ito, which colour-blind readers tell apart; lines also differ in their dashes.
BLUE, ORANGE, GREEN, RED, GREY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8C8C8C", "#222222"
LOOKS: dict[str, dict[str, Any]] = {
    "model": {"color": BLUE, "linestyle": "-", "linewidth": 2.8},
    "structural": {"color": GREEN, "linestyle": "--", "linewidth": 2.2},
    "margin_ratio": {"color": ORANGE, "linestyle": "-.", "linewidth": 2.2},
}
DASHES = ((RED, ":"), (ORANGE, "-."), (GREEN, "--"), (BLUE, "-"))
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 14,
    "axes.titlesize": 16,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "date.converter": "concise",
    "legend.frameon": False,
    "legend.fontsize": 13,
    "legend.title_fontsize": 13,
}
DPI = 110


@contextmanager
def picture(width_in: float = 10.0, height_in: float = 6.5) -> Iterator[Figure]:
    """A figure of its own, outside pyplot, so that no state is shared and nothing needs closing."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def png(figure: Figure) -> bytes:
    """The figure's bytes, the same whenever it is the same."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def spoken(score: str) -> str:
    """A score's or feature's name as words."""
    return score.replace("_", " ")


def percent(share: float) -> str:
    """A share with two or three digits, however small: 12.3%, 0.45%."""
    return f"{100 * share:.3g}%" if share >= 0.1 else f"{100 * share:.2g}%"


def log_percent(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as shares in percent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axis.set_minor_formatter(NullFormatter())
