"""What an alert is: its levels, how soon, and the messages in which alerts are told.

A level asks one question: is liquidation at least so likely within its horizon? The thresholds are the
same share by default, so that a level says how near it is: one in five within a day, within eight hours,
within the hour. An alert falls back only below half of that, since a probability that sways about a
threshold is one alert and not many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import Struct

from exchange.errors import InputError
from serving.wire import Figure, Reason, Reduction

EVEN_ODDS = math.log(2.0)
"""Cumulated hazard at which what may happen has happened with a probability of one half."""


class Level(NamedTuple):
    """One level: liquidation within `horizon_h` at least as likely as `raised_from` raises it."""

    name: str
    horizon_h: int
    raised_from: float
    cleared_below: float


CLEARED_SHARE = 0.5
"""An alert is called off below this share of the threshold that raised it."""

LEVEL_NAMES, LEVEL_HORIZONS_H = ("watch", "warning", "critical"), (24, 8, 1)
RAISED_FROM = 0.2


def levels(raised_from: Sequence[float] = (RAISED_FROM,) * 3) -> tuple[Level, ...]:
    """The levels watch, warning and critical, raised from these probabilities; InputError outside (0, 1)."""
    for name, probability in zip(LEVEL_NAMES, raised_from, strict=True):
        if not 0.0 < probability < 1.0:
            raise InputError(f"alert level {name}: {probability!r} is not a probability between 0 and 1")
    return tuple(
        Level(name, horizon, probability, CLEARED_SHARE * probability)
        for name, horizon, probability in zip(LEVEL_NAMES, LEVEL_HORIZONS_H, raised_from, strict=True)
    )


def chosen_levels(texts: Iterable[str]) -> tuple[Level, ...]:
    """Levels with thresholds as `critical=0.3` changes them; InputError for another name or value."""
    raised_from = dict.fromkeys(LEVEL_NAMES, RAISED_FROM)
    for text in texts:
        name, _, value = text.partition("=")
        try:
            if name not in raised_from:
                raise ValueError
            raised_from[name] = float(value)
        except ValueError:
            known = ", ".join(LEVEL_NAMES)
            raise InputError(f"{text[:100]!r} is not LEVEL=PROBABILITY with a level out of {known}") from None
    return levels(tuple(raised_from.values()))


def lead_time_h(pd: Sequence[float]) -> float | None:
    """Hours until liquidation is as likely as not, from its probabilities within 1, 8 and 24 hours.

    Between the horizons the hazard is taken for constant. None where even odds are not reached within
    24 hours, or a probability is not known.
    """
    begin_h, passed = 0.0, 0.0
    for horizon_h, probability in zip((1.0, 8.0, 24.0), pd, strict=False):
        if math.isnan(probability):
            return None
        cumulated = -math.log1p(-probability) if probability < 1.0 else math.inf
        if cumulated >= EVEN_ODDS:
            if math.isinf(cumulated):
                return begin_h  # it has happened as good as surely once this horizon begins
            return begin_h + (horizon_h - begin_h) * (EVEN_ODDS - passed) / (cumulated - passed)
        begin_h, passed = horizon_h, cumulated
    return None


# -- messages


class TimedCure(Struct):
    """The way out as it was at `time`: each of the two is enough by itself; null where it leads nowhere."""

    time: datetime
    deposit_usd: float | None
    reduce: list[Reduction] | None


class Alert(Struct):
    """One account at a level. Figures are those of `time`, the last look at it."""

    account_id: str
    level: str
    since: datetime
    """When it was first at any level, without a break; after a restart, when it was first seen there."""
    level_since: datetime
    """When it came to the level at which it is."""
    time: datetime
    falling: bool
    """Whether it is below the lower threshold of its level, which it loses if it stays there."""
    pd_liquidation_1h: Figure
    pd_liquidation_8h: Figure
    pd_liquidation_24h: Figure
    pd_negative_equity_24h: Figure
    expected_loss_usd: Figure
    lead_time_h: float | None
    """Hours until liquidation is as likely as not, hazards constant between horizons; null beyond 24."""
    margin_ratio: Figure
    """Collateral over maintenance margin: liquidation is due below 1."""
    distance_to_liquidation: Figure
    """Share of its gross notional that the account may lose before liquidation is due."""
    gross_notional_usd: Figure
    collateral_usd: Figure
    status: Literal["ok", "fallback"]
    fallback_reason: str | None
    reasons: list[Reason] | None = None
    """Null where they have not been looked for yet."""
    cure: TimedCure | None = None
    """Only of the worst accounts of a round, since it takes many rows of the model; null for the others."""


class Change(Struct):
    """What happened to an alert. `number` rises by one from change to change, from 1 after a start."""

    number: int
    time: datetime
    account_id: str
    change: Literal["raised", "lowered", "cleared"]
    level: str
    """The level at which it is now; of a cleared alert, the level at which it was."""
    why: str
    """`probability`, `closed` (no open position any more) or `liquidated` (that, after a liquidation)."""
    pd_liquidation_1h: Figure
    pd_liquidation_8h: Figure
    pd_liquidation_24h: Figure


class LevelAnswer(Struct):
    """A level, how many accounts are at it, and what its past alerts were worth.

    An alert counts for its level and for those below. It comes true with the first liquidation of its
    account within the horizon of the level, has `expired` when that has passed without one, and is
    `withdrawn` if it was called off before either; until then it is `open`.
    """

    level: str
    horizon_h: int
    raised_from: float
    cleared_below: float
    accounts: int
    raised: int
    came_true: int
    expired: int
    withdrawn: int
    open: int
    median_lead_h: float | None
    """Hours from an alert to the liquidation that it was about, over the newest that came true."""


class AlertsAnswer(Struct):
    """Accounts at a level, the worst first.

    `alerts` holds the worst ones and `more` says how many it leaves out. A round is one look at every open
    account: `rounds` have ended since the start, the last at `round_time` (null before its end, while
    what stands here may be only a part), with `accounts` open and `unscored` of them without a
    probability. `liquidations` counts those that the service was told of since its start, without which
    nothing can come true; `unwarned` those of them before which the account had no alert.
    """

    time: datetime
    sequence: int
    rounds: int
    round_time: datetime | None
    accounts: int
    unscored: int
    levels: list[LevelAnswer]
    liquidations: int
    unwarned: int
    alerts: list[Alert]
    more: int
    changes: list[Change]
    model_version: str
