"""The page of a stress run: self-contained HTML that a risk officer reads in a minute."""

from __future__ import annotations

import base64
from typing import Any

from pipelines.report import percent, template, usd
from pipelines.stress_picture import costly_days, short_id
from pipelines.stress_runs import DUST_USD

TOP_SINGLE = 10
PICTURES = (
    ("days", "What does a bad day cost, and who pays?"),
    ("scenarios", "Which named scenarios cost most?"),
    ("accounts", "Whose losses do others bear?"),
    ("margin", "What margin would have prevented it?"),
)


def render(card: dict[str, Any], images: dict[str, bytes]) -> str:
    """The page as HTML; names of accounts and markets are escaped."""
    shown = [
        (name, question, base64.b64encode(images[name]).decode("ascii"))
        for name, question in PICTURES
        if name in images
    ]
    told = [row for row in card["scenarios"] if row["family"] not in ("chance", "one market")]
    single = sorted(
        (row for row in card["scenarios"] if row["family"] == "one market"),
        key=lambda row: (-row["shortfall_usd"], -row["liquidated_notional_usd"]),
    )
    return template("stress.html", usd=_usd, percent=_percent, short=short_id).render(
        card=card, pictures=shown, told=told, single=single[:TOP_SINGLE], verdict=verdict(card)
    )


def verdict(card: dict[str, Any]) -> str:
    """The one sentence at the top."""
    fund, loss = card["book"]["fund_usd"], card["risk"]["shortfall_usd"]
    if loss["var_99"] <= DUST_USD:
        return costly_days([row for row in card["scenarios"] if row["family"] == "chance"])
    if loss["var_99"] <= fund:
        return (
            f"A day in a hundred costs {usd(loss['var_99'])} beyond equity; the fund of {usd(fund)} covers it"
        )
    return f"A day in a hundred costs {usd(loss['var_99'])} beyond equity, more than the fund of {usd(fund)}"


def _usd(value: float | None) -> str:
    """A dash where there is no such amount, a plain $0 where it is less than a cent."""
    if value is None:
        return "–"
    return "$0" if abs(value) < DUST_USD else usd(value)


def _percent(value: float | None) -> str:
    return "unknown" if value is None else percent(value)
