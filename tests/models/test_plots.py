"""Pictures: what they show is what was measured, odd data draws too, and no global state moves."""

from __future__ import annotations

import struct
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import poisson

from exchange.units import DAY_US, HOUR_US
from models import metrics as mt
from models import plot_style, plots, plots_time

ACCOUNTS, TIMES = 40, 36


def rows(events: bool = True):
    generator = np.random.default_rng(2)
    step, account = (
        grid.ravel() for grid in np.meshgrid(np.arange(TIMES), np.arange(ACCOUNTS), indexing="ij")
    )
    time = 19_327 * DAY_US + step * 4 * HOUR_US
    chance = 1 / (
        1 + np.exp(-(generator.normal(-3, 1.5, ACCOUNTS)[account] + generator.normal(0, 1, len(step))))
    )
    return time, account, (generator.random(len(step)) < chance) & events, chance


def draw_rows(events: bool = True, only: slice = slice(None)) -> dict[str, bytes]:
    time, account, happened, chance = (column[only] for column in rows(events))
    static = np.full(len(chance), 0.1)
    return {
        "reliability": plots.reliability(happened, chance, time, account, draws=20),
        "precision_recall": plots.precision_recall(happened, {"model": chance, "structural": chance**2}),
        "lead_time": plots_time.lead_time(time, account, happened, time + 3 * HOUR_US, {"model": chance}),
        "over_time": plots_time.over_time(time, happened, chance),
        "margins": plots.margins(static, np.maximum(static, chance), chance, 1000 * (1 + chance)),
    }


def draw_shap() -> dict[str, bytes]:
    values, matrix = np.random.default_rng(0).normal(size=(2, 50, 15))
    matrix[:, 3] = np.nan
    matrix[0, 2] = np.inf
    names = [f"feature_{i}" for i in range(15)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # shap takes quantiles of a feature never known
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return {
            "shap_beeswarm": plots.shap_beeswarm(values, matrix, names),
            "shap_bar": plots.shap_bar(values, matrix, names),
        }


@pytest.fixture
def figures(monkeypatch):
    """The figures themselves, as they stand when they would be written."""
    kept: list = []

    def keep(figure):
        figure.canvas.draw()
        kept.append(figure)
        return b""

    for module in (plots, plots_time):
        monkeypatch.setattr(module, "png", keep)
    return kept


def test_pictures_are_legible_repeatable_and_move_nothing_global():
    settings, numbers = dict(matplotlib.rcParams), np.random.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a glyph that the font lacks, a layout that failed
        pictures = draw_rows() | draw_shap()
    assert dict(matplotlib.rcParams) == settings
    assert np.array_equal(np.random.get_state()[1], numbers)
    assert plt.get_fignums() == []
    for name, png in pictures.items():
        assert png.startswith(b"\x89PNG\r\n\x1a\n"), name
        width, height = struct.unpack(">II", png[16:24])
        assert 800 <= width <= 1600, name
        assert 500 <= height <= 1200, name
    np.random.random()  # another state of the global generator must not show
    again = draw_shap()
    time, account, happened, chance = rows()
    again["reliability"] = plots.reliability(happened, chance, time, account, draws=20)
    assert [name for name in again if again[name] != pictures[name]] == []


@pytest.mark.parametrize(("events", "only"), [(False, slice(None)), (True, slice(0, 1)), (True, slice(0, 0))])
def test_days_without_events_and_hardly_any_rows_are_drawn_too(monkeypatch, events, only):
    monkeypatch.setattr(plot_style, "DPI", 40)  # only whether, not how
    assert all(draw_rows(events, only).values())


def test_reliability_shows_the_bins(figures):
    time, account, happened, chance = rows()
    plots.reliability(happened, chance, time, account, draws=20, cut_at=(0.1, 0.5))
    bins = mt.quantile_bins(mt.Ranked.of(happened, chance), (0.1, 0.5))
    axes = figures[0].axes[0]
    points = axes.containers[0].lines[0]
    assert points.get_xdata() == pytest.approx(bins.predicted)
    assert points.get_ydata() == pytest.approx(bins.observed)
    assert [int(text.get_text()) for text in axes.texts] == bins.events.astype(int).tolist()
    assert f"{chance.sum():,.0f} predicted, {happened.sum():,} came" in axes.get_title(loc="left")


def test_precision_recall_names_the_best_first(figures):
    _, _, happened, chance = rows()
    noisy = np.random.default_rng(1).permutation(chance)
    plots.precision_recall(happened, {"margin_ratio": noisy, "model": chance})
    axes = figures[0].axes[0]
    assert "model ranks best, then margin ratio" in axes.get_title(loc="left")
    area = mt.metrics(happened, chance)["average_precision"]
    assert f"model: {area:.3f}" in [text.get_text() for text in axes.get_legend().get_texts()]
    curve = axes.lines[1]
    recall, precision = curve.get_xdata(), curve.get_ydata()
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(area)


def test_lead_time_shows_the_share_that_was_warned(figures):
    time = np.tile(np.arange(10, dtype=np.int64) * 4 * HOUR_US, 2)
    account = np.repeat([0, 1], 10)
    # The first account is flagged from 32 h on, 7 h before it defaults; the second never, and defaults too.
    model = np.where((account == 0) & (time >= 32 * HOUR_US), 0.9, 0.1)
    happened = time > 15 * HOUR_US
    event = np.full(20, 39 * HOUR_US)
    plots_time.lead_time(
        time, account, happened, event, {"model": model, "structural": 1 - model}, precision=1
    )
    axes = figures[0].axes[0]
    hours, share = axes.lines[0].get_data()
    assert set(share[hours <= 7]) == {0.5}
    assert set(share[hours > 7]) == {0.0}
    assert set(axes.lines[1].get_ydata()) == {0.0}
    assert axes.get_title(loc="left").startswith("50% of liquidations were flagged, half of those 7 h ahead")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "model (PD ≥ 90%)",
        "structural (never that precise)",
    ]


def test_over_time_counts_by_decision_time(figures):
    time, _, happened, chance = rows()
    plots_time.over_time(time, happened, chance)
    above = figures[0].axes[0]
    days = np.unique(time // DAY_US)
    came = np.array([happened[time // DAY_US == day].sum() / 6 for day in days])
    expected = np.array([chance[time // DAY_US == day].sum() / 6 for day in days])
    bars = np.array([bar.get_height() for bar in above.patches]).reshape(2, -1)
    low, high = poisson.interval(0.9, expected)
    outside = (came < low) | (came > high)
    np.testing.assert_allclose(bars[0], np.where(outside, np.nan, came))
    np.testing.assert_allclose(bars[1], np.where(outside, came, np.nan))
    assert above.lines[0].get_ydata() == pytest.approx(expected)


def test_over_time_breaks_where_days_have_no_rows(figures):
    time = np.array([0, 1, 4], np.int64) * DAY_US
    plots_time.over_time(time, np.array([True, False, False]), np.array([0.5, 0.2, 0.1]))
    above, below = figures[0].axes
    np.testing.assert_equal(above.lines[0].get_ydata(), [0.5, 0.2, np.nan, np.nan, 0.1])
    np.testing.assert_equal(below.lines[2].get_ydata(), [0.5, 0.2, np.nan, np.nan, 0.1])
    assert "100% of 3 decision times in the band" in above.get_title(loc="left")


def test_margins_counts_who_is_asked_for_more_and_for_less(figures):
    static, notional = np.full(4, 0.1), np.array([1.0, 1.0, 1.0, np.nan])
    plots.margins(static, np.array([0.1, 0.3, 0.05, np.nan]), np.full(4, 0.02), notional)
    left, right = figures[0].axes
    assert left.get_title(loc="left").startswith("33% of 3 accounts")
    assert right.get_title(loc="left") == "At most 3 times the static margin,\n1 below it"
