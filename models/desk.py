"""The scorecard as a risk desk reads it: by episode, by hours of warning, by counts against expected ones.

What stands here goes beside the panels of `models.scorecard`, for each target and horizon:

    episodes    figures of the rows whose window meets each episode, and of calm time
    lead_time   hours of warning at the level where 30% of alarms come true, for the model and both baselines
    counts      how often the count at a decision time lies in the Poisson band of the expected one
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from exchange.units import DAY_US
from models import counts as ct
from models import lead_time as lt
from models import metrics as mt
from models.episodes import Episode, episodes, member
from models.panels import SCORES, Json, Scored, number, panel


def venue_episodes(scored: Scored) -> list[Episode]:
    """Episodes of the defaults that the rows were about, over the days that have decision times."""
    if len(scored.time_us) == 0:
        return []
    found = lt.first_defaults(scored.account[scored.happened], scored.event_us[scored.happened], 1)
    return episodes(found.time_us, int(scored.time_us.min()) // DAY_US, int(scored.time_us.max()) // DAY_US)


def desk(scored: Scored, found: list[Episode], horizon_h: float, draws: int, seed: int) -> Json:
    """Episodes, lead time and counts of one target and horizon, ready for JSON; None where undefined."""
    return {
        "episodes": by_episode(scored, found, draws, seed),
        "lead_time": lead_time(scored, draws, seed),
        "counts": count_figures(scored, horizon_h, draws, seed),
    }


def by_episode(scored: Scored, found: list[Episode], draws: int, seed: int) -> Json:
    """Panels of each episode's rows and of calm time; a row whose window meets two counts for the first."""
    of_row = member(scored.time_us, scored.label_end_us, found)
    return {
        "each": [
            {
                "from": _day(episode.first_day),
                "to": _day(episode.last_day),
                "defaults": episode.defaults,
                "defaults_per_hour": episode.defaults_per_hour,
                **panel(scored.where(of_row == number), draws, seed),
            }
            for number, episode in enumerate(found)
        ],
        "calm": panel(scored.where(of_row < 0), draws, seed),
    }


def lead_time(scored: Scored, draws: int, seed: int) -> Json:
    """Warning at 30% precision for each score, on the rows where all of them have a probability."""
    known = np.all([np.isfinite(scored.probability[name]) for name in SCORES], axis=0)
    rows = scored.where(known)
    defaults = lt.first_defaults(rows.account[rows.happened], rows.event_us[rows.happened])
    result: Json = {"precision": lt.PRECISION, "defaults": len(defaults.account)}
    for name in SCORES:
        chance = rows.probability[name]
        level = lt.precision_level(rows.happened, chance)
        hours = lt.lead_times_h(rows.time_us, rows.account, chance, defaults, level)
        of = lt.warned(chance, level, hours)
        low, high = mt.interval(lt.resampled(hours, defaults, draws, seed))
        values = (of.share_caught, *of.quartiles_h)
        result[name] = {
            "level": number(level),
            "alarmed_rows": of.alarmed_rows,
            "alarmed_share": number(of.alarmed_rows / len(chance)) if len(chance) else None,
            "scored_defaults": of.scored_defaults,
            **{figure: number(value) for figure, value in zip(lt.FIGURES, values, strict=True)},
            "intervals": {figure: [number(low[i]), number(high[i])] for i, figure in enumerate(lt.FIGURES)},
        }
    return result


def count_figures(scored: Scored, horizon_h: float, draws: int, seed: int) -> Json:
    """Counts of each score against what came, at the rows where it has a probability."""
    result: Json = {"band": mt.LEVEL, "resampled": ["days"]}
    for name in SCORES:
        rows = scored.where(np.isfinite(scored.probability[name]))
        found = ct.counts(rows.time_us, rows.happened, rows.probability[name])
        share, days = ct.in_band(found), ct.daily(found)
        low, high = mt.interval(ct.resampled_within(found, draws, seed))
        busiest = int(np.argmax(days.observed)) if len(days.day) else None
        times = len(found.time_us)
        result[name] = {
            "decision_times": times,
            "expected_per_hour": number(found.expected.mean() / horizon_h) if times else None,
            "observed_per_hour": number(found.observed.mean() / horizon_h) if times else None,
            "share_within_band": number(share.within),
            "share_above_band": number(share.above),
            "share_below_band": number(share.below),
            "interval_within_band": [number(float(low)), number(float(high))],
            "worst_day": _of_day(days, ct.worst_day(days)),
            "busiest_day": _of_day(days, busiest),
        }
    return result


def _of_day(days: ct.Days, at: int | None) -> Json | None:
    """Counts per decision time on a day, within the horizon."""
    if at is None:
        return None
    expected, observed = float(days.expected[at]), float(days.observed[at])
    ratio = observed / expected if expected > 0 else np.nan
    return {
        "day": _day(int(days.day[at])),
        "expected": expected,
        "observed": observed,
        "observed_over_expected": number(ratio),
    }


def _day(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
