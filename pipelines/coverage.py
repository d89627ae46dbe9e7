"""`perprisk evaluate --margin`: margin at T against the worst loss of the margin period of risk after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.units import DAY_US, HOUR_US
from features import emit as figure
from features.venue import Vectors, Venue
from models import coverage_card as cards
from models import plots_coverage
from models.value_at_risk import LOOKS, value_at_risk
from models.worst_moves import Marks, portfolio_sigmas, sigmas, worst_losses, worst_losses_of_many
from pipelines.rules import checked
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.scorer import Scores

FILE = "coverage.json"

PERIODS_US = {"1h": HOUR_US, "24h": DAY_US}
"""Margin periods of risk: an hour is what margin is set for, a day shows what it would take."""

Floats = npt.NDArray[np.float64]


def market_marks(dataset: Dataset) -> tuple[list[str], Marks]:
    """The markets that have bars, by name, and these side by side."""
    bars = checked(dataset, "market_bars").select(
        pl.col("time").dt.epoch("us"), "market", "mark_close", "mark_high", "mark_low"
    )
    names = sorted(bars["market"].unique())
    time_us, row = np.unique(bars["time"].to_numpy(), return_inverse=True)
    column = bars["market"].replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()
    sides = []
    for name in ("mark_close", "mark_high", "mark_low"):
        side = np.full((len(time_us), len(names)), np.nan)
        side[row, column] = bars[name].fill_null(np.nan).to_numpy()
        sides.append(side)
    return names, Marks(time_us.astype(np.int64), *sides)


def reference_portfolios(names: list[str]) -> dict[str, Floats]:
    """Weights by portfolio: each market long and short, all equally, and the first against the second."""
    each = np.eye(len(names))
    found = {}
    for name, weights in zip(names, each, strict=True):
        found[f"long {name}"] = weights
        found[f"short {name}"] = -weights
    if len(names) > 1:
        found["long all equally"] = each.mean(axis=0)
        found["short all equally"] = -each.mean(axis=0)
        found[f"long {names[0]}, short {names[1]}"] = 0.5 * (each[0] - each[1])
    return found


def judged_portfolios(
    names: list[str], marks: Marks, from_us: int, to_us: int, period_us: int
) -> dict[str, cards.Periods]:
    """Back-to-back periods of each reference portfolio that begin in [from, to], with its value at risk.

    The tail is learnt on all looks before, from the first bar on. Markets that `judged_markets` leaves out
    are in no portfolio.
    """
    judged = judged_markets(names, marks, from_us, to_us)
    if not judged:
        return {}
    at = [names.index(name) for name in judged]
    marks = Marks(marks.time_us, *(side[:, at] for side in marks[1:]))
    step_us = period_us // LOOKS
    before = max(-(-(from_us - int(marks.time_us[0])) // step_us), 0)
    at_us = np.arange(from_us - before * step_us, to_us + 1, step_us, dtype=np.int64)
    sigma = sigmas(marks, at_us, period_us)
    found = {}
    for name, weights in reference_portfolios(judged).items():
        loss = worst_losses(marks, weights, at_us, period_us)
        held = value_at_risk(loss, portfolio_sigmas(weights, sigma))
        chosen = slice(before, None, LOOKS)
        found[name] = cards.Periods(at_us[chosen], loss[chosen], held[chosen])
    return found


def judged_markets(names: list[str], marks: Marks, from_us: int, to_us: int) -> list[str]:
    """Markets with bars close enough together in at least a fifth as many hours as the one with most."""
    at_us = np.arange(from_us, to_us + 1, HOUR_US, dtype=np.int64)
    known = [
        int(np.isfinite(worst_losses(marks, weights, at_us, HOUR_US)).sum()) for weights in np.eye(len(names))
    ]
    most = max(known, default=0)
    return [name for name, hours in zip(names, known, strict=True) if 5 * hours >= most > 0]


class Coverage:
    """Coverage of one stretch of a history: what accounts post is gathered while it goes by."""

    def __init__(self, dataset: Dataset, from_us: int, to_us: int) -> None:
        """Read the marks of a dataset; DatasetError for what is wrong with them."""
        self._names, self._marks = market_marks(dataset)
        self._span_us = (from_us, to_us)
        self._next_us = dict.fromkeys(PERIODS_US, 0)
        self._rows: dict[str, list[tuple[Floats, ...]]] = {name: [] for name in PERIODS_US}

    def look(self, time_us: int, vectors: Vectors, venue: Venue, scores: Scores) -> None:
        """Take the accounts of a decision time, for each period that has ended since the last one taken."""
        due = [name for name in PERIODS_US if time_us >= self._next_us[name]]
        if not due or len(vectors.account) == 0:
            return
        gross_usd = vectors.figures[:, figure.GROSS_NOTIONAL_USD]
        weights = self._weights(venue, vectors.account, gross_usd)
        known = np.isfinite(weights).all(axis=1)
        static = scores.static_initial_rate
        in_force = np.fmax(static, venue.state.account["initial_in_force"][vectors.account])
        for name in due:
            self._next_us[name] = time_us + PERIODS_US[name]
            loss = np.full(len(weights), np.nan)
            loss[known] = worst_losses_of_many(self._marks, weights[known], time_us, PERIODS_US[name])
            moment = np.full(len(weights), time_us, np.float64)
            self._rows[name].append((moment, gross_usd, loss, scores.initial_rate, static, in_force))

    def _weights(self, venue: Venue, accounts: npt.NDArray[np.int64], gross_usd: Floats) -> Floats:
        """Shares of gross notional by market of `marks`; NaN where a market that is held has no mark."""
        quantity = venue.quantities(accounts)
        mark = venue.state.market["mark"][: quantity.shape[1]]
        value_usd = np.where(quantity == 0.0, 0.0, quantity * mark)
        number = {name: k for k, name in enumerate(self._names)}
        weights = np.zeros((len(accounts), len(self._names)))
        for k, name in enumerate(venue.market_names):
            if name in number:
                weights[:, number[name]] = value_usd[:, k] / gross_usd
            else:
                weights[value_usd[:, k] != 0.0] = np.nan
        return weights

    def card(self) -> dict[str, Any]:
        """All of `coverage.json`."""
        from_us, to_us = self._span_us
        periods = {}
        for period, period_us in PERIODS_US.items():
            found = judged_portfolios(self._names, self._marks, from_us, to_us, period_us)
            portfolios = {name: cards.portfolio(of, period_us) for name, of in found.items()}
            periods[period] = {
                "all": cards.together(portfolios),
                "portfolios": portfolios,
                "accounts": self._accounts(period),
            }
        return {
            "from": format_time(from_us),
            "to": format_time(to_us),
            "periods": periods,
        }

    def picture(self, card: dict[str, Any]) -> bytes:
        """PNG of the reference portfolios over the hour that margin is set for."""
        name = next(iter(PERIODS_US))
        return plots_coverage.exceedances(card["periods"][name]["portfolios"], period=name)

    def _accounts(self, period: str) -> dict[str, Any]:
        """Figures of each kind of margin over one period."""
        parts = self._rows[period] or [(np.empty(0),) * 6]
        moment, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        gross_usd, loss, *rates = columns
        return {
            kind: cards.accounts(cards.Posted(moment.astype(np.int64), gross_usd, loss, rate))
            for kind, rate in zip(("suggested", "static", "in_force"), rates, strict=True)
        }
