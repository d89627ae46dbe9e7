"""The picture of coverage: how often each portfolio exceeded its value at risk, beside what chance allows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import PercentFormatter

from models import coverage as cv
from models.coverage_card import Json
from models.plot_style import BLUE, GREY, RED, picture, png


def exceedances(portfolios: Mapping[str, Json], *, period: str) -> bytes:
    """PNG: a dot for each portfolio, red where Kupiec's test rejects; grey where it would not."""
    found = {name: of for name, of in portfolios.items() if of["periods"]}
    with picture(10.0, 2.4 + 0.3 * len(found)) as figure:
        axes = figure.add_subplot()
        for place, of in enumerate(found.values()):
            low, high = _kept(of["periods"])
            axes.plot([low, high], [place, place], color=GREY, linewidth=7, alpha=0.35, solid_capstyle="butt")
            colour = RED if of["kupiec"]["rejected"] else BLUE
            axes.plot(of["exceedance_rate"], place, "o", color=colour, markersize=7)
        axes.axvline(cv.RATE, color=GREY, linestyle="--", linewidth=1.5)
        axes.set_yticks(np.arange(len(found)), list(found))
        axes.invert_yaxis()
        axes.set_xlim(left=0.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.set_xlabel(f"periods of {period} whose worst loss exceeded the 99% value at risk")
        outside = sum(of["kupiec"]["rejected"] for of in found.values())
        axes.set_title(f"{outside} of {len(found)} portfolios outside what\nKupiec's test allows (grey)")
        return png(figure)


def _kept(periods: int) -> tuple[float, float]:
    """Lowest and highest share of exceedances that the test does not reject."""
    kept = [count for count in range(periods + 1) if not cv.kupiec(count, periods).rejected]
    return kept[0] / periods, kept[-1] / periods
