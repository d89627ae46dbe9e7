"""Pictures of how good a model's probabilities and margins are, as PNG bytes, in one style.

Every function takes arrays and returns the bytes of a PNG; matplotlib's global state stays as it was.
Titles say what is to be seen, with its figures. A row is an account at a decision time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from models import metrics as mt
from models.plot_style import BLACK, BLUE, GREY, LOOKS, ORANGE, log_percent, picture, png, spoken

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TAIL = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.6)
"""Where bins of rows are cut, from the riskiest: events are rare, so the top is divided finest."""


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
    with picture(8.8, 8.8) as figure:
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
        log_percent(axes.xaxis)
        log_percent(axes.yaxis)
        expected, came = bins.expected.sum(), bins.events.sum()
        axes.set_title(f"{subject.capitalize()}:\n{expected:,.0f} predicted, {came:,.0f} came")
        axes.legend(loc="best")
        return png(figure)


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
    with picture() as figure:
        axes = figure.add_subplot()
        area: dict[str, float] = {}
        top = 0.0
        for name, chance in probability.items():
            ranked = mt.Ranked.of(happened, chance)
            caught = np.cumsum(ranked.happened)[ranked.ends - 1]
            precision, recall = caught / ranked.ends, caught / max(happened.sum(), 1)
            area[name] = mt.metrics(happened, chance)["average_precision"]
            top = max(top, precision.max(initial=0.0))
            label = f"{spoken(name)}: {area[name]:.3f}"
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
        first, *others = (spoken(name) for name in sorted(area, key=lambda name: -area[name]))
        axes.set_title(
            f"{subject.capitalize()} ({happened.sum():,} of {len(happened):,} rows):\n"
            f"{', then '.join([f'{first} ranks best', *others])}"
        )
        axes.legend(title="average precision", alignment="left", loc="upper right")
        return png(figure)


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
    with picture(13.0, 6.5) as figure:
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
        log_percent(right.xaxis)
        log_percent(right.yaxis)
        right.legend(markerscale=1.3, **aside)
        below = int((multiple < 1 - 1e-9).sum())
        title = (
            f"At most {multiple.max(initial=1.0):.2g} times the static margin,\n{below or 'none'} below it"
        )
        right.set_title(title, pad=40)
        return png(figure)


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
    explanation = shap.Explanation(values=values, data=data, feature_names=[spoken(name) for name in names])
    shown = min(most, values.shape[1])
    state = np.random.get_state()  # shap scatters points by the global generator
    with picture(11.0, 2.2 + 0.5 * shown) as figure:
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
        leading = spoken(names[int(np.abs(values).mean(axis=0).argmax())])
        axes.set_title(f"{leading.capitalize()} moves the score most ({len(values):,} rows)")
        return png(figure)
