"""Pictures of how a model behaves, as PNG bytes, in one style.

Every function takes arrays and returns the bytes of a PNG; matplotlib's global state stays as it was.
Titles say what is to be seen, with its figures. A row is an account at a decision time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from exchange.units import DAY_US, HOUR_US
from models import metrics as mt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

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
TAIL = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.6)
"""Where bins of rows are cut, from the riskiest: events are rare, so the top is divided finest."""


@contextmanager
def _picture(width_in: float = 10.0, height_in: float = 6.5) -> Iterator[Figure]:
    """A figure of its own, outside pyplot, so that no state is shared and nothing needs closing."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _name(score: str) -> str:
    return score.replace("_", " ")


def _percent(share: float) -> str:
    """A share with two or three digits, however small: 12.3%, 0.45%."""
    return f"{100 * share:.3g}%" if share >= 0.1 else f"{100 * share:.2g}%"


def _log_percent(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axis.set_minor_formatter(NullFormatter())


def reliability(
    happened: Flags,
    probability: F64,
    time_us: I64,
    account: I64,
    *,
    subject: str = "liquidation within 24 h",
    cut_at: Sequence[float] = TAIL,
    draws: int = 100,
    seed: int = 0,
) -> bytes:
    """Observed share against mean prediction in bins of rows, both logarithmic, with 90% intervals.

    Arrays are float or bool [rows]; `cut_at` are rising shares of the rows, counted from the riskiest.
    Intervals come from resampling whole days and accounts. Figures beside points are events in the bin;
    a bin without events is an open triangle at the foot.
    """
    ranked = mt.Ranked.of(happened, probability)
    bins = mt.quantile_bins(ranked, cut_at)
    member = np.empty(len(happened), np.int64)
    member[ranked.order[::-1]] = np.repeat(np.arange(len(bins.rows)), bins.rows.astype(np.int64))
    weights = mt.resamples(time_us, account, draws, seed)
    low, high = _bin_intervals(happened, member, len(bins.rows), weights)
    some = bins.events > 0
    floor, ceiling = _limits(bins, high)
    with _picture(8.8, 8.8) as figure:
        axes = figure.add_subplot()
        line = np.array([floor, ceiling])
        axes.fill_between(line, line / 2, line * 2, color=GREY, alpha=0.15, linewidth=0, label="factor of 2")
        axes.plot(line, line, color="#444444", linewidth=1.5, label="as many as predicted")
        x = np.maximum(bins.predicted, floor)
        below = (bins.observed - np.maximum(low, floor / 9))[some]
        axes.errorbar(
            x[some],
            bins.observed[some],
            yerr=np.maximum(0, [below, (high - bins.observed)[some]]),
            color=BLUE,
            marker="o",
            markersize=10,
            linewidth=2,
            capsize=5,
            label="bins of rows, finest at the top (90% interval)",
        )
        empty: dict[str, Any] = {"color": BLUE, "linestyle": "", "marker": "v", "markersize": 11}
        if not some.all():
            nothing = np.full((~some).sum(), floor)
            label = "bin without an event"
            axes.plot(x[~some], nothing, markerfacecolor="white", clip_on=False, label=label, **empty)
        for at, share, events in zip(x[some], bins.observed[some], bins.events[some], strict=True):
            axes.annotate(f"{events:,.0f}", (at, share), (10, -15), textcoords="offset points")
        axes.set(xscale="log", yscale="log", xlim=line, ylim=line, box_aspect=1)
        axes.set_xlabel("predicted probability (mean of the bin)")
        axes.set_ylabel("observed share (beside points: events)")
        _log_percent(axes.xaxis)
        _log_percent(axes.yaxis)
        expected, came = bins.expected.sum(), bins.events.sum()
        axes.set_title(f"{subject.capitalize()}:\n{expected:,.0f} predicted, {came:,.0f} came")
        axes.legend(loc="best")
        return _png(figure)


def _limits(bins: mt.Bins, high: F64) -> tuple[float, float]:
    """One range for both axes, down to below the first bin with an event: emptier ones sit on its edge."""
    some = bins.events > 0
    if not some.any():
        return 1e-4, 1.0
    floor = min(bins.predicted[some].min(), bins.observed[some].min()) / 3
    reached = np.nan_to_num(np.concatenate((bins.predicted, bins.observed, high)))
    return max(floor, 1e-7), min(1.0, reached.max() * 2)


def _bin_intervals(happened: Flags, member: I64, bins: int, weights: Iterator[F64]) -> tuple[F64, F64]:
    drawn: list[F64] = []
    for weight in weights:
        rows = np.bincount(member, weight, bins)
        events = np.bincount(member, weight * happened, bins)
        drawn.append(np.divide(events, rows, out=np.full(bins, np.nan), where=rows > 0))
    return mt.interval(np.array(drawn) if drawn else np.empty((0, bins)))


def precision_recall(
    happened: Flags, probability: Mapping[str, F64], *, subject: str = "liquidation within 24 h"
) -> bytes:
    """Precision against recall of each score on the same rows; the base rate is what chance reaches."""
    with _picture() as figure:
        axes = figure.add_subplot()
        area: dict[str, float] = {}
        top = 0.0
        for name, chance in probability.items():
            ranked = mt.Ranked.of(happened, chance)
            caught = np.cumsum(ranked.happened)[ranked.ends - 1]
            precision, recall = caught / ranked.ends, caught / max(happened.sum(), 1)
            area[name] = mt.metrics(happened, chance)["average_precision"]
            top = max(top, precision.max(initial=0.0))
            label = f"{_name(name)}: {area[name]:.3f}"
            start = precision[:1]  # the curve begins at no recall, with the precision of the first flags
            axes.step(
                np.append(0 * start, recall), np.append(start, precision), label=label, **LOOKS.get(name, {})
            )
        base = happened.mean() if len(happened) else np.nan
        axes.axhline(base, color=GREY, linestyle=":", linewidth=2, label=f"by chance: {base:.3f}")
        axes.set(xlim=(0, 1), ylim=(0, min(1.02, 1.2 * top + 1e-3)))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("recall: share of events that are flagged")
        axes.set_ylabel("precision: share of flags that come true")
        first, *others = (_name(name) for name in sorted(area, key=lambda name: -area[name]))
        axes.set_title(
            f"{subject.capitalize()} ({happened.sum():,} of {len(happened):,} rows):\n"
            f"{', then '.join([f'{first} ranks best', *others])}"
        )
        axes.legend(title="average precision", alignment="left", loc="upper right")
        return _png(figure)


def lead_time(
    time_us: I64,
    account: I64,
    probability: F64,
    event_account: I64,
    event_time_us: I64,
    *,
    subject: str = "liquidations",
    budgets: Sequence[float] = (0.005, 0.01, 0.02, 0.05),
    span_h: int = 48,
) -> bytes:
    """Share of events whose warning had stood for at least x hours, for each budget of alarms.

    A budget is the share of rows that may be alarmed; the level of probability follows from it. What
    counts as a warning, and which events are one, is said in `metrics.lead_times_h`. Events of accounts
    that were not scored before count as not warned. The title speaks of the second budget.
    """
    levels = tuple(mt.alarm_level(probability, budget) for budget in budgets)
    lookback_us = (span_h + 24) * HOUR_US  # beyond the picture, so that no run is cut short inside it
    measured = mt.lead_times_h(
        time_us, account, probability, event_account, event_time_us, levels, lookback_us
    )
    unseen = int(np.isnan(measured).all(axis=1).sum())
    hours = np.nan_to_num(measured)
    at = np.linspace(0.0, span_h, span_h * 20 + 1)
    at[0] = 1e-9  # at least x hours, for the smallest x that is a warning at all
    with _picture() as figure:
        axes = figure.add_subplot()
        for k, (budget, level) in enumerate(zip(budgets, levels, strict=True)):
            warned = (hours[:, k] >= at[:, None]).sum(axis=1) / max(len(hours), 1)
            colour, dash = DASHES[k % len(DASHES)]
            reach = f"PD ≥ {_percent(level)}" if np.isfinite(level) else "no alarm"
            label = f"{_percent(budget)} of rows ({reach})"
            axes.step(at, warned, color=colour, linestyle=dash, linewidth=2.8, label=label)
        axes.set(xlim=(0, span_h), ylim=(0, 1.02), xticks=np.arange(0, span_h + 1, max(span_h // 12, 1)))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("flagged without a break for at least this many hours before the event")
        axes.set_ylabel(f"share of {len(hours):,} {subject}")
        spoken = min(len(budgets) - 1, 1)
        early = (hours[:, spoken] >= 4).sum() / max(len(hours), 1)
        note = f" ({unseen:,} never scored before)" if unseen else ""
        axes.set_title(
            f"{early:.0%} of {subject} were flagged at least 4 h ahead,\n"
            f"when {_percent(budgets[spoken])} of all rows are flagged{note}"
        )
        axes.legend(title="flags on the riskiest", alignment="left", loc="upper right")
        return _png(figure)


def over_time(
    time_us: I64, happened: Flags, probability: F64, *, subject: str = "liquidations within 24 h"
) -> bytes:
    """By UTC day: events predicted and actual (mean per decision time), and quantiles of probability."""
    times, of_time = np.unique(np.asarray(time_us, np.int64), return_inverse=True)
    first = int(times[0]) // DAY_US if len(times) else 0
    day_of_time = times // DAY_US - first
    days = first + np.arange(
        day_of_time.max(initial=-1) + 1
    )  # all of them: lines break where rows are missing
    member = day_of_time[of_time]
    decisions = np.bincount(day_of_time, minlength=len(days)).astype(np.float64)
    decisions[decisions == 0] = np.nan
    predicted = np.bincount(member, probability, len(days)) / decisions
    actual = np.bincount(member, happened, len(days)) / decisions
    quantiles = np.full((len(days), 3), np.nan)
    for day in np.unique(member):
        quantiles[day] = np.quantile(probability[member == day], (0.99, 0.9, 0.5))
    when: Any = days.astype("datetime64[D]").astype("datetime64[s]").astype(object)
    with _picture(11.0, 8.0) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        above.bar(when, actual, width=0.85, color="#BBBBBB", label="actual")
        above.plot(when, predicted, color=BLUE, marker="o", markersize=6, linewidth=2.4, label="predicted")
        above.set_ylabel("accounts per decision time")
        above.set_ylim(bottom=0)
        above.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        above.set_title(
            f"{subject.capitalize()}: {probability.sum():,.0f} predicted, {happened.sum():,} came\n"
            f"({len(times):,} decision times on {np.isfinite(decisions).sum()} days)"
        )
        names = ("1% of accounts above", "10% above", "half above")
        for column, (name, (colour, dash)) in enumerate(
            zip(names, (DASHES[k] for k in (3, 2, 0)), strict=True)
        ):
            values = np.maximum(quantiles[:, column], 1e-6)
            below.plot(when, values, color=colour, linestyle=dash, linewidth=2.4, label=name)
        below.set_yscale("log")
        below.set_ylabel("probability")
        _log_percent(below.yaxis)
        below.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 0.98))
        below.set_xlabel("decision time (UTC day)")
        return _png(figure)


def margins(
    static_rate: F64, suggested_rate: F64, probability: F64, notional_usd: F64, *, subject: str = "24 h"
) -> bytes:
    """Suggested initial margin against the static schedule: how much more, for how many, and for whom.

    Rates are shares of gross notional, one row per account; `probability` is that of liquidation within
    `subject`; rows with a NaN among the rates or probability are left out, a NaN notional weighs nothing.
    """
    known = np.isfinite(static_rate + suggested_rate + probability) & (static_rate > 0)
    static, suggested, chance = static_rate[known], suggested_rate[known], probability[known]
    notional = np.nan_to_num(notional_usd[known])
    multiple = suggested / static
    at = np.geomspace(1.0, max(2.0, multiple.max(initial=2.0) * 1.1), 400)
    more = multiple > at[:, None] * (1 + 1e-9)
    aside: dict[str, Any] = {"ncols": 2, "loc": "lower left", "bbox_to_anchor": (-0.02, 0.98)}
    with _picture(13.0, 6.5) as figure:
        left, right = figure.subplots(1, 2)
        shares = more.sum(axis=1) / max(len(static), 1)
        weighted = (more * notional).sum(axis=1) / max(notional.sum(), 1e-12)
        left.step(at, shares, color=BLUE, linewidth=2.8, label="of accounts")
        left.step(at, weighted, color=ORANGE, linestyle="--", linewidth=2.8, label="of notional")
        left.set(xscale="log", xlim=(1, at[-1]), ylim=(0, max(0.05, left.get_ylim()[1])))
        left.set_xlabel("suggested over static margin (multiple)")
        left.set_ylabel("share asked for more than the multiple")
        left.yaxis.set_major_formatter(PercentFormatter(1))
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if at[-1] > 3 else (1, 1.2, 1.5, 2, 2.5)))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.xaxis.set_minor_formatter(NullFormatter())
        left.legend(**aside)
        title = f"{shares[0]:.0%} of {len(static):,} accounts are asked\nfor more than the static margin"
        left.set_title(title, pad=40)

        x = np.maximum(chance, 1e-6)
        right.plot(x, suggested, "o", color=BLUE, alpha=0.5, markersize=7, label="suggested")
        right.plot(x, static, "_", color=BLACK, markersize=9, markeredgewidth=1.6, label="static")
        if len(static):  # an empty logarithmic axis cannot be drawn
            right.set(xscale="log", yscale="log")
            right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.set_xlabel(f"probability of liquidation within {subject}")
        right.set_ylabel("initial margin (share of notional)")
        _log_percent(right.xaxis)
        _log_percent(right.yaxis)
        right.legend(markerscale=1.3, **aside)
        below = int((multiple < 1 - 1e-9).sum())
        title = (
            f"At most {multiple.max(initial=1.0):.2g} times the static margin,\n{below or 'none'} below it"
        )
        right.set_title(title, pad=40)
        return _png(figure)


def shap_beeswarm(values: F64, matrix: F64, names: Sequence[str], *, most: int = 12) -> bytes:
    """What moved each score: shap's beeswarm of `values` (log odds, rows by features) over `matrix`."""
    label = "change of the log odds (SHAP value); grey: feature unknown"
    return _shap("beeswarm", values, matrix, names, most, label, plot_size=None)


def shap_bar(values: F64, matrix: F64, names: Sequence[str], *, most: int = 12) -> bytes:
    """Which features move scores most: shap's bars of the mean absolute `values` (log odds)."""
    return _shap("bar", values, matrix, names, most, "mean absolute change of the log odds (SHAP value)")


def _shap(
    kind: str, values: F64, matrix: F64, names: Sequence[str], most: int, label: str, **options: Any
) -> bytes:
    import shap  # slow to import, and only these two pictures need it

    data = np.where(np.isfinite(matrix), matrix, np.nan)
    explanation = shap.Explanation(values=values, data=data, feature_names=[_name(name) for name in names])
    shown = min(most, values.shape[1])
    state = np.random.get_state()  # shap scatters points by the global generator
    with _picture(11.0, 2.2 + 0.5 * shown) as figure:
        axes = figure.add_subplot()
        np.random.seed(0)
        try:
            getattr(shap.plots, kind)(explanation, max_display=shown, ax=axes, show=False, **options)
        finally:
            np.random.set_state(state)
        axes.grid(False, axis="y")
        if kind == "bar":
            marks: list[Any] = [*axes.patches, *axes.texts]
            for mark in marks:
                mark.set_color(BLUE)
        axes.set_xlabel(label)
        leading = _name(names[int(np.abs(values).mean(axis=0).argmax())])
        axes.set_title(f"{leading.capitalize()} moves the score most ({len(values):,} rows)")
        return _png(figure)
