"""What past alerts were worth: which of them came true within their horizon, and how long before.

Counted since the start of the service. An alert that was called off warned nobody, whatever came later; one
whose account closed its positions is not held against anybody either. Both are withdrawn.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

from exchange.units import HOUR_US
from serving.alert import Level

LEADS_KEPT = 1_000
"""Lead times of the newest alerts that came true; the median is theirs."""


class Score:
    """Alerts of one level, by what became of them."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.raised = self.came_true = self.expired = self.withdrawn = 0
        self.leads_h: deque[float] = deque(maxlen=LEADS_KEPT)

    @property
    def open(self) -> int:
        """Alerts of which nobody knows yet."""
        return self.raised - self.came_true - self.expired - self.withdrawn

    @property
    def median_lead_h(self) -> float | None:
        """Median hours between an alert and the liquidation that it was about; None before the first."""
        return statistics.median(self.leads_h) if self.leads_h else None


class Hindsight:
    """Scores of all levels, the lowest first, and liquidations that nothing warned of."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.scores = [Score(level) for level in levels]
        self.liquidations = self.unwarned = 0

    def liquidated(self, time_us: int, since_us: int | None, claims: Claims | None) -> None:
        """An account was liquidated whose alert, if any, has stood since `since_us`, with these claims."""
        self.liquidations += 1
        if since_us is None or time_us < since_us:
            self.unwarned += 1
        if claims is not None:
            claims.come_true(time_us)


class Claims:
    """What one account's alert says at each level that it is at, and since when; settled once each."""

    def __init__(self, hindsight: Hindsight) -> None:
        self._scores = hindsight.scores
        self._since_us: list[int | None] = [None] * len(hindsight.scores)

    def raise_to(self, level: int, came_from: int, now_us: int) -> None:
        """The alert has come to `level` from a lower one, -1 for none."""
        for number in range(came_from + 1, level + 1):
            self._scores[number].raised += 1
            self._since_us[number] = now_us

    def lower_to(self, level: int) -> None:
        """The alert has fallen to `level`, -1 for none: what it said above is withdrawn."""
        for number in range(level + 1, len(self._since_us)):
            if self._since_us[number] is not None:
                self._scores[number].withdrawn += 1
                self._since_us[number] = None

    def come_true(self, time_us: int) -> None:
        """The account was liquidated; what was only said later stays open."""
        self.expire(time_us)
        for number, since_us in enumerate(self._since_us):
            if since_us is not None and since_us <= time_us:
                score = self._scores[number]
                score.came_true += 1
                score.leads_h.append((time_us - since_us) / HOUR_US)
                self._since_us[number] = None

    def expire(self, now_us: int) -> None:
        """Settle what should have happened by now."""
        for number, since_us in enumerate(self._since_us):
            score = self._scores[number]
            if since_us is not None and now_us > since_us + score.level.horizon_h * HOUR_US:
                score.expired += 1
                self._since_us[number] = None
