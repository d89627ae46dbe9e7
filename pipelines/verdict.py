"""What a scorecard comes to, in four lines that take ten seconds: ranking, level, warning, crises."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from models.panels import BASELINES
from models.scorecard_text import episode_name

Grade = Literal["good", "fair", "poor", "unknown"]
CLOSE = (0.8, 1.25)
USABLE = (0.5, 2.0)
"""Bounds of predicted over actual counts: within the first a level is good, within the second fair."""


class Line(NamedTuple):
    """One line: what is judged, its grade, the figure in a few words, and what it means."""

    title: str
    grade: Grade
    figure: str
    meaning: str


def verdict(card: dict[str, Any], target: str = "liquidation", horizon: str = "24h") -> list[Line]:
    """Grades of a scorecard's main target, `unknown` where nothing came that could be judged by."""
    panel, desk = card["targets"][target][horizon]["all"], card["desk"][target][horizon]
    return [_ranking(panel), _level(panel), _warning(desk["lead_time"]), _crises(desk["episodes"])]


def _ranking(panel: dict[str, Any]) -> Line:
    title, own = "Ranking", panel["model"]["average_precision"]
    if own is None:
        return Line(title, "unknown", "no event", "there is nothing to rank by")
    better = max(BASELINES, key=lambda name: panel[name]["average_precision"] or 0.0)
    of = panel["differences"][better]["average_precision"]
    figure = f"{own:.3f} against {panel[better]['average_precision']:.3f}"
    name = better.replace("_", " ")
    if of["low"] is None or of["high"] is None:
        return Line(title, "unknown", figure, f"too few events to tell it from {name}, the better baseline")
    if of["low"] > 0:
        return Line(title, "good", figure, f"average precision is above {name}, the better baseline")
    if of["high"] < 0:
        return Line(title, "poor", figure, f"average precision is below {name}, the better baseline")
    return Line(title, "fair", figure, f"average precision cannot be told from {name}, the better baseline")


def _level(panel: dict[str, Any]) -> Line:
    ratio = panel["model"]["predicted_over_actual"]
    figure = f"{panel['model']['predicted_events']:,.0f} predicted, {panel['events']:,} came"
    if ratio is None:
        return Line("Level", "unknown", figure, "nothing came that the level could be judged by")
    top = panel["model"]["top_1pct_observed_over_expected"]
    among = "" if top is None else f"; among the riskiest 1% {top:.2f} times as many came as expected"
    return Line("Level", graded(ratio), figure, f"predicted over actual is {ratio:.2f}{among}")


def graded(ratio: float) -> Grade:
    """Grade of a ratio of counts."""
    if CLOSE[0] <= ratio <= CLOSE[1]:
        return "good"
    return "fair" if USABLE[0] <= ratio <= USABLE[1] else "poor"


def _warning(lead: dict[str, Any]) -> Line:
    own, precision = lead["model"], lead["precision"]
    if own["share_caught"] is None:
        return Line("Warning", "unknown", "no event", "nobody defaulted whom a flag could have preceded")
    if own["median_h"] is None:
        return Line("Warning", "poor", "none", f"no level of alarm is right {precision:.0%} of the time")
    figure = f"{own['share_caught']:.0%} flagged, half of those {own['median_h']:.0f} h ahead"
    best = max(lead[name]["share_caught"] or 0.0 for name in BASELINES)
    meaning = f"where {precision:.0%} of flags come true; the better baseline flags {best:.0%}"
    low, high = own["intervals"]["share_caught"]
    if low is None or high is None:
        return Line("Warning", "unknown", figure, meaning)
    return Line("Warning", "good" if low > best else "poor" if high < best else "fair", figure, meaning)


def _crises(episodes: dict[str, Any]) -> Line:
    each = [of for of in episodes["each"] if of["events"]]
    if not each:
        return Line("Crises", "unknown", "none", "no day stood out: how it does in a crisis is not known")
    predicted = sum(of["model"]["predicted_events"] for of in each)
    came = sum(of["events"] for of in each)
    days = ", ".join(episode_name(of).removeprefix("episode ") for of in each[:3])
    more = f" and {len(each) - 3} more" if len(each) > 3 else ""
    calm = episodes["calm"]["model"]["predicted_over_actual"]
    between = "" if calm is None else f"; {calm:.2f} in calm time"
    figure = f"{predicted / came:.2f} of what came was predicted"
    return Line("Crises", graded(predicted / came), figure, f"in {days}{more}{between}")
