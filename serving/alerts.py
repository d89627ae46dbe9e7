"""Alerts: which accounts cross a level of risk, looked for round by round while the service answers.

A round looks at every account with an open position, a slice at a time, each slice as the state then
stands, so that no question waits longer than a slice takes; then at the worst of those at a level once
more, for reasons and the way out. It changes nothing that is computed, and a restart finds the same
accounts anew within one round. What stands is raised at once and called off late (`serving.alert`).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Literal

import numpy as np
import numpy.typing as npt

from exchange.units import MINUTE_US
from features import emit as figure
from features.venue import Vectors
from serving.alert import (
    Alert,
    AlertsAnswer,
    Change,
    Level,
    LevelAnswer,
    TimedCure,
    lead_time_h,
    levels,
)
from serving.engine import Engine
from serving.hindsight import Claims, Hindsight
from serving.questions import Asked
from serving.wire import BatchRequest, Cure, RefusalError, ScoreRequest, to_time

ROUND_US = MINUTE_US
"""A round begins when the time of the service has moved so far since the last one began."""

CALM_ROUNDS = 5
"""Rounds in a row that an account must be below a level's lower threshold to lose the level."""

LISTED = 100
"""Alerts that an answer holds; all of them have reasons."""

CURED = 20
"""The worst accounts of a round, whose way out is looked for."""

CHANGES_KEPT = 500

SLICE_S = 0.001
"""Seconds that a slice is meant to take; their accounts are fitted to it as the work goes."""

LEAST_SLICE, MOST_SLICE = 4, 256
SCANNED = 16_384
"""Accounts of which is known at once who has positions."""

PAUSE_S = 0.01
"""Seconds that belong to answers after every slice; a round thus takes a tenth of the time at most."""

IDLE_S = 0.25

_COLUMN = {1: 0, 8: 1, 24: 2}  # of probabilities, by horizon

_log = logging.getLogger("perprisk.serving")


class _Standing:
    """An account at a level."""

    def __init__(self, alert: Alert, level: int, since_us: int, claims: Claims) -> None:
        self.alert = alert
        self.level = level
        self.since_us = since_us
        self.claims = claims
        self.calm_rounds = 0
        self.liquidated = False


class Alerts:
    """Accounts of one engine at a level; `step` goes on with the look at them.

    Not safe for use from several threads, like the engine. What was liquidated before the start is of the
    past: nothing is said of it.
    """

    def __init__(
        self, engine: Engine, chosen: Sequence[Level] | None = None, listed: int = LISTED, cured: int = CURED
    ) -> None:
        """`listed` alerts an answer holds at most, and the worst `cured` of them with the way out."""
        self.levels = tuple(levels() if chosen is None else chosen)
        self.hindsight = Hindsight(self.levels)
        self.rounds = 0
        self.ended_us: int | None = None
        """When the last round ended; None before the first."""
        self._engine = engine
        self._listed, self._cured = listed, cured
        self._standing: dict[int, _Standing] = {}
        self._changes: deque[Change] = deque(maxlen=CHANGES_KEPT)
        self._changed = 0
        self._going: Iterator[None] | None = None
        self._began_us: int | None = None
        self._open = self._unscored = 0
        self._slice = LEAST_SLICE
        self._liquidated_us = self._liquidations(0, len(engine.venue.account_names)).copy()

    def step(self) -> bool:
        """Go on with the round under way, or begin one that is due; whether there is more to do at once.

        Raises what scoring raises; the round is given up then.
        """
        if self._going is None:
            if not self._due():
                return False
            self._going = self._round()
        try:
            next(self._going)
        except (StopIteration, RefusalError):  # no market is known yet, or the engine has failed and says so
            self._going = None
            return False
        except BaseException:
            self._going = None
            raise
        return True

    def counts(self) -> list[int]:
        """Accounts at each level, the lowest first."""
        found = [0] * len(self.levels)
        for standing in self._standing.values():
            found[standing.level] += 1
        return found

    def answer(self) -> AlertsAnswer:
        """Who stands at a level, the worst first; RefusalError 503 where the engine's state is not sure."""
        self._engine.ask(BatchRequest([]))  # refuses what no question is answered from
        worst = self._worst(self._listed)
        told = [
            LevelAnswer(
                level.name, level.horizon_h, level.raised_from, level.cleared_below, count, score.raised,
                score.came_true, score.expired, score.withdrawn, score.open, score.median_lead_h,
            )
            for level, count, score in zip(self.levels, self.counts(), self.hindsight.scores, strict=True)
        ]  # fmt: skip
        return AlertsAnswer(
            time=to_time(max(self._engine.now_us, 0)),
            sequence=self._engine.sequence,
            rounds=self.rounds,
            round_time=None if self.ended_us is None else to_time(self.ended_us),
            accounts=self._open,
            unscored=self._unscored,
            levels=told,
            liquidations=self.hindsight.liquidations,
            unwarned=self.hindsight.unwarned,
            alerts=[standing.alert for standing in worst],
            more=len(self._standing) - len(worst),
            changes=list(self._changes),
            model_version=self._engine.scorer.model_version,
        )

    # -- a round

    def _due(self) -> bool:
        now_us = self._engine.now_us
        return self._engine.venue.now_us >= 0 and (
            self._began_us is None or now_us >= self._began_us + ROUND_US
        )

    def _round(self) -> Iterator[None]:
        """One round, with a stop wherever others may go first."""
        venue = self._engine.venue
        self._began_us = self._engine.now_us
        met: set[int] = set()
        unscored = 0
        for begin in range(0, len(venue.account_names), SCANNED):
            end = min(begin + SCANNED, len(venue.account_names))
            self._settle(begin, end)
            holding = begin + np.flatnonzero(venue.state.account["first_position"][begin:end] >= 0)
            first = 0
            while first < len(holding):
                keys = holding[first : first + self._slice].tolist()
                first += len(keys)
                began = perf_counter()
                names = [venue.account_names[key] for key in keys]
                unscored += self._look(self._engine.ask(BatchRequest(names)), met)
                self._fit(len(keys), perf_counter() - began)
                yield
        for key in [key for key in self._standing if key not in met]:
            self._clear(key, "liquidated" if self._standing[key].liquidated else "closed")
        for standing in self._standing.values():
            standing.claims.expire(self._engine.now_us)
        for place, standing in enumerate(self._worst(self._listed)):
            yield
            self._explain(standing.alert, place < self._cured)
        self._open, self._unscored = len(met), unscored
        self.ended_us = self._engine.now_us
        self.rounds += 1

    def _fit(self, accounts: int, took_s: float) -> None:
        """Move the size of a slice towards what fits into its time, not too much on one measurement."""
        fitting = accounts * SLICE_S / max(took_s, 1e-9)
        fitting = min(max(fitting, self._slice / 2), self._slice * 2)
        self._slice = int(min(max(fitting, LEAST_SLICE), MOST_SLICE))

    def _settle(self, begin: int, end: int) -> None:
        """Take note of liquidations since the last look at these accounts."""
        known = len(self._liquidated_us)
        if end > known:
            self._liquidated_us = np.concatenate([self._liquidated_us, np.full(end - known, -1, np.int64)])
        newest_us = self._liquidations(begin, end)
        for key in (begin + np.flatnonzero(newest_us > self._liquidated_us[begin:end])).tolist():
            time_us = int(newest_us[key - begin])
            standing = self._standing.get(key)
            if standing is None:
                self.hindsight.liquidated(time_us, None, None)
            else:
                standing.liquidated |= time_us >= standing.since_us
                self.hindsight.liquidated(time_us, standing.since_us, standing.claims)
        self._liquidated_us[begin:end] = newest_us

    def _liquidations(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """When accounts were last liquidated, -1 for never."""
        return self._engine.venue.state.account["liquidated"][begin:end]

    def _look(self, asked: Asked, met: set[int]) -> int:
        """Judge the accounts of a slice; how many have no probability."""
        pd = asked.scores.pd
        known = np.asarray(~np.isnan(pd[:, :3]).any(axis=1), bool)
        reached, kept = np.full(len(pd), -1), np.full(len(pd), -1)
        for number, level in enumerate(self.levels):
            reached[pd[:, _COLUMN[level.horizon_h]] >= level.raised_from] = number
            kept[pd[:, _COLUMN[level.horizon_h]] >= level.cleared_below] = number
        for row, key in enumerate(asked.vectors.account.tolist()):
            met.add(key)
            standing = self._standing.get(key)
            if standing is None and (reached[row] < 0 or not known[row]):
                continue
            alert = self._alert(asked, row, standing)
            if standing is None:
                self._raise(key, alert, int(reached[row]))
            else:
                standing.alert = alert
                if known[row]:  # nothing is called off because nobody knows
                    self._judge(key, standing, int(reached[row]), int(kept[row]))
        return int(np.count_nonzero(~known))

    def _judge(self, key: int, standing: _Standing, reached: int, kept: int) -> None:
        if reached > standing.level:
            self._raise(key, standing.alert, reached)
        elif kept >= standing.level:
            standing.calm_rounds = 0
            standing.alert.falling = False
        else:
            standing.calm_rounds += 1
            standing.alert.falling = True
            if standing.calm_rounds < CALM_ROUNDS:
                return
            if kept < 0:
                self._clear(key, "probability")
            else:
                self._move(standing, kept)
                standing.claims.lower_to(kept)
                self._tell(standing.alert, "lowered", "probability")

    def _raise(self, key: int, alert: Alert, level: int) -> None:
        now_us = self._engine.now_us
        standing = self._standing.get(key)
        if standing is None:
            standing = self._standing[key] = _Standing(alert, -1, now_us, Claims(self.hindsight))
        standing.claims.raise_to(level, standing.level, now_us)
        self._move(standing, level)
        self._tell(alert, "raised", "probability")

    def _move(self, standing: _Standing, level: int) -> None:
        standing.level, standing.calm_rounds = level, 0
        standing.alert.falling = False
        standing.alert.level = self.levels[level].name
        standing.alert.level_since = standing.alert.time

    def _clear(self, key: int, why: str) -> None:
        standing = self._standing.pop(key)
        standing.claims.expire(self._engine.now_us)
        standing.claims.lower_to(-1)
        standing.alert.time = to_time(self._engine.now_us)
        self._tell(standing.alert, "cleared", why)

    def _tell(self, alert: Alert, change: Literal["raised", "lowered", "cleared"], why: str) -> None:
        self._changed += 1
        self._changes.append(
            Change(
                self._changed, alert.time, alert.account_id, change, alert.level, why,
                alert.pd_liquidation_1h, alert.pd_liquidation_8h, alert.pd_liquidation_24h,
            )
        )  # fmt: skip

    def _alert(self, asked: Asked, row: int, standing: _Standing | None) -> Alert:
        """The alert of a row, with what is remembered of the one that stands."""
        before = None if standing is None else standing.alert
        vectors, scores = asked.vectors, asked.scores
        time = to_time(self._engine.now_us)
        pd = scores.pd[row].tolist()
        reason = scores.fallback[row]
        figures = vectors.figures[row]
        return Alert(
            account_id=self._engine.venue.account_names[int(vectors.account[row])],
            level="" if before is None else before.level,
            since=time if before is None else before.since,
            level_since=time if before is None else before.level_since,
            time=time,
            falling=before is not None and before.falling,
            pd_liquidation_1h=pd[0],
            pd_liquidation_8h=pd[1],
            pd_liquidation_24h=pd[2],
            pd_negative_equity_24h=pd[3],
            expected_loss_usd=float(scores.expected_loss_usd[row]),
            lead_time_h=lead_time_h(pd),
            margin_ratio=float(figures[figure.MARGIN_RATIO]),
            distance_to_liquidation=_distance(vectors, row),
            gross_notional_usd=float(figures[figure.GROSS_NOTIONAL_USD]),
            collateral_usd=float(figures[figure.COLLATERAL_USD]),
            status="ok" if reason is None else "fallback",
            fallback_reason=reason,
            reasons=None if before is None else before.reasons,
            cure=None if before is None else before.cure,
        )

    def _explain(self, alert: Alert, cure: bool) -> None:
        """Look for the reasons of an alert, and for the way out of its account."""
        answer = self._engine.score(ScoreRequest(alert.account_id, explain=True, cure=cure))
        alert.reasons = answer.reasons or None
        way = answer.cure
        alert.cure = TimedCure(answer.time, way.deposit_usd, way.reduce) if isinstance(way, Cure) else None

    def _worst(self, most: int) -> list[_Standing]:
        """The worst alerts, the worst first: by level, its probability, and what would be lost.

        Those that are about to lose their level come last in it.
        """

        def badness(standing: _Standing) -> tuple[float, ...]:
            alert = standing.alert
            pd = (alert.pd_liquidation_1h, alert.pd_liquidation_8h, alert.pd_liquidation_24h)
            own = pd[_COLUMN[self.levels[standing.level].horizon_h]]
            return (standing.level, not alert.falling, _known(own), _known(alert.expected_loss_usd))

        return heapq.nlargest(most, self._standing.values(), badness)


async def keep_looking(alerts: Alerts) -> None:
    """Look round by round, between answers, until cancelled."""
    failed = False
    while True:
        try:
            busy = alerts.step()
            failed = failed and busy
        except Exception:
            if not failed:  # a line a round would say no more
                _log.exception("looking for alerts failed; the next round tries again")
            busy, failed = False, True
        await asyncio.sleep(PAUSE_S if busy else IDLE_S)


def _known(number: float | None) -> float:
    return -1.0 if number is None or math.isnan(number) else number


def _distance(vectors: Vectors, row: int) -> float:
    figures = vectors.figures[row]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # positions of absurd size
        spare = figures[figure.COLLATERAL_USD] - figures[figure.MAINTENANCE_MARGIN_USD]
        return float(spare / figures[figure.GROSS_NOTIONAL_USD])
