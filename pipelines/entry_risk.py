"""How likely liquidation within a day is for an account that enters a market now, as the model says.

A features venue follows a simulated one through the rows that it writes, as the service follows a real
one through its events. New accounts without a past are then tried out on it: long and short of each market,
at each leverage of `ENTRY_LEVERAGES`, as questions with their state sent along are, and scored together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from exchange.simulation.state import ENTRY_LEVERAGES
from exchange.simulation.tables import account_names, accounts_table, first_seen, fixed_tables, stretch_tables
from exchange.simulation.venue import Rows
from exchange.simulation.venue import Venue as SimulatedVenue
from features import emit as figure
from features.tables import TABLES
from features.venue import Vectors, Venue
from pipelines.events import batch_of
from pipelines.schema import UTC_US, empty
from pipelines.simulate import frame
from serving.scorer import Scorer
from serving.whatif import Trial
from serving.wire import SentAccount, SentPosition

Floats = npt.NDArray[np.float64]

POSITION_USD = 1_000.0
"""Of the accounts that are tried out: small beside any book, since size is priced by itself."""


class EntryRisk(NamedTuple):
    """What the model says of new accounts."""

    pd_24h: Floats
    """(markets, 2, leverages) of `ENTRY_LEVERAGES`, long and short; NaN where the model could not say."""
    sigma_day: Floats
    """(markets,) one day's move of a position, as a share of notional, as the model's figures have it."""


class Follower:
    """A features venue that follows a simulated one."""

    def __init__(self, simulated: SimulatedVenue, scorer: Scorer) -> None:
        self._simulated = simulated
        self._scorer = scorer
        self._venue = Venue()
        self._names = account_names(simulated)
        self._first_us = np.zeros(len(self._names), np.int64)
        fixed = {name: frame(name, columns) for name, columns in fixed_tables(simulated).items()}
        self._prices = fixed.pop("asset_prices")
        start = pl.lit(simulated.paths.start_us).cast(UTC_US)
        self._waiting = fixed | {"assets": fixed["assets"].with_columns(time=start)}
        self._trial = Trial(self._venue)
        self._behind: list[Rows] = []

    def follow(self, rows: Rows) -> None:
        """Take in the rows of a stretch; they are applied before the next look."""
        self._behind.append(rows)

    def _catch_up(self) -> None:
        if not self._behind:
            return
        rows = {name: np.concatenate([each[name] for each in self._behind]) for name in self._behind[0]}
        self._behind.clear()
        simulated = self._simulated
        known = self._first_us > 0
        first_seen(rows, self._first_us)
        tables = stretch_tables(simulated, rows, self._names)
        tables.pop("insurance_fund")
        frames = {name: frame(name, columns) for name, columns in tables.items()}
        frames |= self._waiting
        self._waiting = {}
        new = np.where(known, 0, self._first_us)
        accounts = frame("accounts", accounts_table(simulated, self._names, new))
        # said when it first shows, whenever it was opened: what came before has been applied already
        since = pl.Series(new[new > 0], dtype=pl.Int64).cast(UTC_US)
        frames["accounts"] = accounts.with_columns(opened_time=since)
        frames["asset_prices"] = self._prices_until(rows)
        whole = {
            name: pl.concat([empty(TABLES[name]), each], how="diagonal") for name, each in frames.items()
        }
        if any(len(each) for each in whole.values()):
            self._venue.apply(batch_of(whole, self._venue))

    def risk(self) -> EntryRisk:
        """Try new accounts out on the venue as it stands now."""
        self._catch_up()
        venue = self._venue
        markets = len(self._simulated.listed)
        rows: list[Floats] = []
        figures: list[Floats] = []
        for listing in self._simulated.listed:
            name = listing.market.market
            mark = float(venue.state.market["mark"][venue.find_market(name)])
            for sign in (1.0, -1.0):
                quantity = sign * POSITION_USD / mark
                position = SentPosition(name, quantity, mark, -quantity * mark)
                for leverage in ENTRY_LEVERAGES.tolist():
                    self._trial.send(SentAccount(POSITION_USD / leverage, [position], [], "cross"), -1)
                    found = self._trial.ladders(-1)
                    assert found is not None
                    rows.append(found.features[0, 0])
                    figures.append(found.figures[0])
        vectors = Vectors(np.arange(len(rows)), np.array(rows), np.array(figures))
        scores = self._scorer.assess(vectors)
        shape = (markets, 2, len(ENTRY_LEVERAGES))
        pd = np.where([why is None for why in scores.fallback], scores.pd[:, 2], np.nan).reshape(shape)
        sigma = vectors.figures[:, figure.SIGMA_DAY_USD] / vectors.figures[:, figure.GROSS_NOTIONAL_USD]
        # more leverage is never asked less for, whatever the model's steps are
        return EntryRisk(np.maximum.accumulate(pd, axis=2), sigma.reshape(shape)[:, 0, 0])

    def _prices_until(self, rows: Rows) -> pl.DataFrame:
        last = pl.lit(int(rows["bars"]["time"].max(initial=0))).cast(UTC_US)
        now = self._prices.filter(pl.col("time") <= last)
        self._prices = self._prices.filter(pl.col("time") > last)
        return now
