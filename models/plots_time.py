"""Pictures of a model through time: counts against expected ones, and hours of warning.

As in `models.plots`, functions take arrays and return the bytes of a PNG.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import PercentFormatter

from exchange.units import DAY_US, HOUR_US
from models import counts as ct
from models import lead_time as lt
from models.plot_style import BLUE, DASHES, LOOKS, RED, log_percent, percent, picture, png, spoken

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def over_time(
    time_us: I64, happened: Flags, probability: F64, *, subject: str = "liquidations within 24 h"
) -> bytes:
    """By UTC day: events predicted and actual (mean per decision time), and quantiles of probability.

    The band around what was predicted holds 90% of a day's counts where accounts default independently;
    the title says how many decision times lie inside theirs.
    """
    found = ct.counts(time_us, happened, probability)
    by_day = ct.daily(found)
    first = int(by_day.day[0]) if len(by_day.day) else 0
    # All days of the span, so that lines break where there are no rows.
    days = first + np.arange(int(by_day.day[-1]) - first + 1 if len(by_day.day) else 0)
    at = by_day.day - first
    predicted, actual = np.full((2, len(days)), np.nan)
    predicted[at], actual[at] = by_day.expected, by_day.observed
    low, high = ct.poisson_band(predicted)
    member = np.asarray(time_us, np.int64) // DAY_US - first
    quantiles = np.full((len(days), 3), np.nan)
    for day in np.unique(member):
        quantiles[day] = np.quantile(probability[member == day], (0.99, 0.9, 0.5))
    when: Any = days.astype("datetime64[D]").astype("datetime64[s]").astype(object)
    edges = np.append(days, first + len(days)).astype("datetime64[D]").astype("datetime64[s]")
    steps: Any = (edges - np.timedelta64(12, "h")).astype(object)
    with picture(11.0, 8.5) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        outside = (actual < low) | (actual > high)
        for chosen, colour, label in (
            (~outside, "#9A9A9A", "came, inside"),
            (outside, RED, "came, outside"),
        ):
            some = np.where(chosen, actual, np.nan)
            above.bar(when, some, width=0.6, color=colour, label=label)
        if len(days):
            band: dict[str, Any] = {"step": "post", "color": BLUE, "alpha": 0.18, "linewidth": 0}
            ends = (np.append(bound, bound[-1:]) for bound in (low, high))
            above.fill_between(steps, *ends, label="90% band of it", **band)
        above.plot(when, predicted, color=BLUE, marker="o", markersize=5, linewidth=2.4, label="predicted")
        above.set_ylabel("accounts per decision time")
        above.set_ylim(bottom=0)
        above.legend(ncols=4, loc="lower left", bbox_to_anchor=(-0.01, 0.98))
        inside = f"{ct.in_band(found).within:.0%} of {len(found.time_us):,}" if len(found.time_us) else "no"
        above.set_title(
            f"{subject.capitalize()}: {probability.sum():,.0f} predicted, {happened.sum():,} came;\n"
            f"{inside} decision times in the band of independent accounts",
            pad=40,
        )
        names = ("1% of accounts above", "10% above", "half above")
        for column, (name, (colour, dash)) in enumerate(
            zip(names, (DASHES[k] for k in (3, 2, 0)), strict=True)
        ):
            values = np.maximum(quantiles[:, column], 1e-6)
            below.plot(when, values, color=colour, linestyle=dash, linewidth=2.4, label=name)
        below.set_yscale("log")
        below.set_ylabel("probability")
        log_percent(below.yaxis)
        below.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 0.98))
        below.set_xlabel("decision time (UTC day)")
        return png(figure)


def lead_time(
    time_us: I64,
    account: I64,
    happened: Flags,
    event_us: I64,
    probability: Mapping[str, F64],
    *,
    subject: str = "liquidations",
    precision: float = lt.PRECISION,
    span_h: int = 48,
) -> bytes:
    """Share of defaults whose warning had stood for at least x hours, for each score.

    Each score is an alarm at the level where `precision` of its alarms come true. What counts as a warning,
    and which defaults are one, is said in `models.lead_time`; a default whose account was not scored before
    counts as not warned. The title speaks of the first score.
    """
    defaults = lt.first_defaults(account[happened], event_us[happened])
    at = np.linspace(0.0, span_h, span_h * 20 + 1)
    at[0] = 1e-9  # at least x hours, for the smallest x that is a warning at all
    titles = []
    with picture() as figure:
        axes = figure.add_subplot()
        for name, chance in probability.items():
            level = lt.precision_level(happened, chance, precision)
            lookback_us = (span_h + 24) * HOUR_US  # beyond the picture, so that no run is cut short inside it
            measured = lt.lead_times_h(time_us, account, chance, defaults, level, lookback_us)
            hours = np.nan_to_num(measured)
            share = (hours >= at[:, None]).sum(axis=1) / max(len(hours), 1)
            reach = f"PD ≥ {percent(level)}" if np.isfinite(level) else "never that precise"
            axes.step(at, share, label=f"{spoken(name)} ({reach})", **LOOKS.get(name, {}))
            caught = hours[hours > 0]
            median = f", half of those {np.median(caught):.0f} h ahead" if len(caught) else ""
            titles.append(f"{len(caught) / max(len(hours), 1):.0%} of {subject} were flagged{median}")
        axes.set(xlim=(0, span_h), ylim=(0, 1.02), xticks=np.arange(0, span_h + 1, max(span_h // 12, 1)))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("flagged without a break for at least this many hours before the event")
        axes.set_ylabel(f"share of {len(defaults.account):,} {subject}")
        axes.set_title(f"{titles[0]},\nwhere {precision:.0%} of flags come true")
        axes.legend(title=f"flags at {precision:.0%} precision", alignment="left", loc="upper right")
        return png(figure)
