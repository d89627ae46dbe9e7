"""The comparison of volatility forecasts looks back only, and scores what is right as right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.forecasts.models import LADDER, MODELS, SHIPPED, SHIPPED_GARCH, gamma_fit
from benchmarks.forecasts.rows import HORIZONS_H, Prices, Rows, ended, rows_of
from benchmarks.volatility import Panel, judge, markdown, qlike
from exchange.units import HOUR_US, MINUTE_US
from features.volatility import PRIOR_VARIANCE

START_US = 473_000 * HOUR_US


def prices(seed: int, days: int, coin: str = "A", step_us: int = 5 * MINUTE_US) -> Prices:
    """A walk whose volatility wanders, seen at even times."""
    rng = np.random.default_rng(seed)
    count = days * 24 * HOUR_US // step_us
    log_volatility = np.repeat(np.cumsum(rng.normal(0.0, 0.1, count // 12 + 1)), 12)[:count] * 0.5
    sigma = np.sqrt(PRIOR_VARIANCE * step_us / 1e6) * np.exp(log_volatility - log_volatility.mean())
    walk = np.exp(np.cumsum(rng.normal(0.0, 1.0, count) * sigma))
    return Prices(coin, "", START_US + step_us * np.arange(count + 1), np.concatenate([[1.0], walk]))


@pytest.fixture(scope="module")
def rows() -> Rows:
    return rows_of(prices(1, 40))


def test_what_was_known_does_not_change_when_the_future_is_taken_away(rows: Rows) -> None:
    whole = prices(1, 40)
    cut = len(whole.price) * 2 // 3
    shorter = rows_of(Prices(whole.coin, "", whole.time_us[:cut], whole.price[:cut]))
    n = len(shorter.hour)
    assert n > 400
    for name in ("hour", "variance", "series", "windows", "hour_return"):
        np.testing.assert_array_equal(getattr(shorter, name), getattr(rows, name)[:n], err_msg=name)


def test_realised_variance_is_that_of_the_hours_to_come(rows: Rows) -> None:
    told = prices(1, 40)
    squares = np.diff(np.log(told.price)) ** 2
    row = 100
    first = int((rows.hour[row] * HOUR_US - START_US) // (5 * MINUTE_US))
    for k, horizon in enumerate(HORIZONS_H):
        expected = squares[first : first + 12 * horizon].sum() / (horizon * 3_600.0)
        assert rows.realised[row, k] == pytest.approx(expected, rel=1e-9)
    assert np.isnan(rows.realised[-1]).all()


def test_rows_to_fit_on_end_with_what_was_realised_by_then(rows: Rows) -> None:
    hour = int(rows.hour[500])
    past = ended(rows, hour)
    assert past.hour.max() == hour - 1
    for k, horizon in enumerate(HORIZONS_H):
        known = past.hour[np.isfinite(past.realised[:, k])]
        assert known.max() == hour - horizon


@pytest.mark.parametrize("name", MODELS)
def test_a_forecast_knows_nothing_of_what_it_is_judged_on(rows: Rows, name: str) -> None:
    middle = int(rows.hour[len(rows.hour) // 2])
    past, judged = ended(rows, middle), rows.cut(rows.hour >= middle)
    blind = judged._replace(realised=np.full_like(judged.realised, np.nan))
    (seeing,), (unseeing,) = MODELS[name]([past], [judged]), MODELS[name]([past], [blind])
    np.testing.assert_array_equal(seeing, unseeing)
    assert (seeing > 0.0).all()


def test_loss_is_least_where_the_forecast_is_right() -> None:
    realised = np.array([1e-9, 3e-8])
    assert qlike(realised, realised) == pytest.approx([0.0, 0.0], abs=1e-15)
    assert (qlike(realised, realised / 2) > qlike(realised, realised * 2)).all()


@pytest.mark.parametrize("in_logs", [True, False])
def test_the_fit_finds_the_weights_that_made_the_data(in_logs: bool) -> None:
    rng = np.random.default_rng(3)
    made = np.array([0.3, 0.5, 0.2])
    inputs = np.column_stack([np.ones(40_000), np.exp(rng.normal(0.0, 0.5, (40_000, 2)))])
    mean = np.exp(inputs @ made) if in_logs else inputs @ made
    realised = mean * rng.gamma(4.0, 0.25, len(mean))
    found = gamma_fit(inputs, realised, np.ones(len(mean)), positive=True, in_logs=in_logs)
    assert found == pytest.approx(made, abs=0.03)


def test_a_panel_ranks_what_was_not_fitted_on_it_and_prints_every_model() -> None:
    both = [rows_of(prices(seed, 40, coin)) for seed, coin in ((1, "A"), (2, "B"))]
    middle = int(both[0].hour[len(both[0].hour) // 2])
    window = ([ended(rows, middle) for rows in both], [rows.cut(rows.hour >= middle) for rows in both])
    figures = judge(Panel("walks", [window]), draws=20)
    for horizon in figures["horizons"].values():
        assert set(horizon["models"]) == set(MODELS)
        assert horizon["best"] not in (SHIPPED, SHIPPED_GARCH)
        best = horizon["models"][horizon["best"]]
        assert best["less_the_best"] == [0.0, 0.0]
        assert best["qlike"] <= horizon["models"][LADDER]["qlike"]
    table = markdown(figures)
    assert all(f"| {name} |" in table for name in MODELS)
