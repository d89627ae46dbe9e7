"""Alerts as a table for a tired risk officer: the worst first, and what to do about it in the same row."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from serving.alert import LEVEL_NAMES, Alert, AlertsAnswer, LevelAnswer
from serving.logs import clean
from serving.wire import Reduction

STYLES = {"critical": "bold white on red", "warning": "black on yellow", "watch": "cyan"}
LONGEST_NAME = 28
AROUND = 9
"""Lines of the screen that belong to what stands around the rows."""

WIDE = 120
"""Columns of a terminal that has room for all that is told of an account."""

STALE_S = 300.0
"""An answer whose last round is older than this, by the clock of the service, is called stale."""


def show(answer: AlertsAnswer, level: str) -> None:
    """Print the table once."""
    console = Console()
    console.print(table(answer, level, console.width, 10**6, None))


def waiting(fault: str | None) -> RenderableType:
    """What is shown while there is no answer yet."""
    return Panel(Text(clean(fault or "waiting for the first answer")), title="perprisk", style="yellow")


def table(answer: AlertsAnswer, level: str, width: int, height: int, fault: str | None) -> RenderableType:
    """The table of an answer, of at most `height` lines of `width`; `fault` is why there is no newer one."""
    shown = [alert for alert in answer.alerts if _rank(alert.level) >= _rank(level)]
    room = max(height - AROUND, 1)
    hidden = len(shown) - min(room, len(shown)) + answer.more
    parts: list[RenderableType] = [_head(answer)]
    if fault is not None:
        parts.append(Text(f" no newer answer: {clean(fault)} ", style="bold white on red"))
    nobody = Text("\n  nobody is at this level\n", "green")
    parts.append(_rows(shown[:room], answer, width) if shown else nobody)
    if hidden:
        parts.append(Text(f"  and {hidden} more, less urgent", style="dim"))
    parts.append(_foot(answer))
    return Group(*parts)


def _head(answer: AlertsAnswer) -> Text:
    text = Text(f" {answer.time:%Y-%m-%d %H:%M:%S} UTC   ", no_wrap=True, overflow="ellipsis")
    for level in reversed(answer.levels):
        style = STYLES.get(level.level, "") if level.accounts else "dim"
        text.append(f" {level.accounts} {clean(level.level)} ", style)
        text.append("  ")
    text.append(f" of {answer.accounts} open accounts", "dim")
    if answer.unscored:
        text.append(f", {answer.unscored} cannot be scored", "bold yellow")
    if answer.round_time is None:
        text.append("   the first look is still under way", "yellow")
    elif (late_s := (answer.time - answer.round_time).total_seconds()) > STALE_S:
        text.append(f"   STALE: last look {hours(late_s / 3_600)} ago", "bold white on red")
    return text


def _rows(alerts: list[Alert], answer: AlertsAnswer, width: int) -> Table:
    horizon = {level.level: level.horizon_h for level in answer.levels}
    wide = width >= WIDE
    rows = Table(expand=True, box=None, header_style="dim", pad_edge=True)
    rows.add_column("level")
    rows.add_column("account", overflow="ellipsis", no_wrap=True, max_width=LONGEST_NAME)
    rows.add_column("liquidation", justify="right", no_wrap=True)
    rows.add_column("even odds", justify="right", no_wrap=True)
    for name in ("room", "positions", "exp. loss") if wide else ("room", "exp. loss"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("what would do", overflow="ellipsis", no_wrap=True, ratio=1)
    if wide:
        rows.add_column("for", justify="right", no_wrap=True)
    for alert in alerts:
        span = horizon.get(alert.level, 24)
        cells: list[RenderableType] = [
            Text(f" {clean(alert.level)} ", STYLES.get(alert.level, "")),
            Text(clean(alert.account_id, LONGEST_NAME)),
            Text(f"{share(_within(alert, span))} in {span} h", "dim" if alert.falling else "bold"),
            "> 24 h" if alert.lead_time_h is None else f"in {hours(alert.lead_time_h)}",
            share(alert.distance_to_liquidation),
            *([money(alert.gross_notional_usd)] if wide else []),
            money(alert.expected_loss_usd),
            Text(_note(alert)),
        ]
        if wide:
            cells.append(hours((answer.time - alert.since).total_seconds() / 3_600))
        rows.add_row(*cells)
    return rows


def _note(alert: Alert) -> str:
    if alert.status == "fallback":
        return f"no model: {clean(alert.fallback_reason or '')}"
    return f"falling; {remedy(alert)}".rstrip("; ") if alert.falling else remedy(alert)


def _foot(answer: AlertsAnswer) -> Text:
    """What past alerts were worth, so that nobody has to believe."""
    room = "\n room: what the positions may lose, of their size, before liquidation is due"
    text = Text(room, "dim", no_wrap=True, overflow="ellipsis")
    settled = [_worth(level) for level in reversed(answer.levels) if level.came_true + level.expired]
    if settled:
        text.append(f"\n so far: {'; '.join(settled)}", "dim")
    if answer.liquidations:
        text.append(f"\n {answer.unwarned} of {answer.liquidations} liquidations had no alert before", "dim")
    return text


def _worth(level: LevelAnswer) -> str:
    lead = "" if level.median_lead_h is None else f", {hours(level.median_lead_h)} ahead"
    settled = level.came_true + level.expired
    return f"{level.came_true} of {settled} {clean(level.level)} came true within {level.horizon_h} h{lead}"


def remedy(alert: Alert) -> str:
    """What would bring the account to target, in a few words; empty where that is not known."""
    cure = alert.cure
    if cure is None:
        return ""
    ways = []
    if cure.deposit_usd:
        ways.append(f"deposit {money(cure.deposit_usd)}")
    if cure.reduce:
        first = _order(cure.reduce[0])
        more = f" and {len(cure.reduce) - 1} more" if len(cure.reduce) > 1 else ""
        ways.append(first + more)
    if not ways and (cure.deposit_usd == 0.0 or cure.reduce == []):
        return "nothing: it is back at target"
    return " or ".join(ways)


def _order(order: Reduction) -> str:
    quantity = order.quantity or 0.0
    return f"{'buy' if quantity > 0 else 'sell'} {abs(quantity):.6g} {clean(order.market, LONGEST_NAME)}"


def _within(alert: Alert, hours_ahead: int) -> float | None:
    return {1: alert.pd_liquidation_1h, 8: alert.pd_liquidation_8h}.get(hours_ahead, alert.pd_liquidation_24h)


def _rank(level: str) -> int:
    return LEVEL_NAMES.index(level) if level in LEVEL_NAMES else len(LEVEL_NAMES)


def share(value: float | None) -> str:
    """A share as a percentage; `?` where it is not known."""
    if value is None:
        return "?"
    percent = 100.0 * value
    if 0.0 < percent < 0.1:
        return "<0.1%"
    if 99.95 <= percent < 100.0:
        return ">99.9%"
    return f"{percent:.0f}%" if abs(percent) >= 10.0 else f"{percent:.1f}%"


def hours(value: float | None) -> str:
    """Hours as people say them; `?` where they are not known."""
    if value is None:
        return "?"
    if value < 1.0:
        return f"{value * 60:.0f} min"
    return f"{value:.1f} h" if value < 10.0 else f"{value:.0f} h"


def money(value: float | None) -> str:
    """Dollars in three digits; `?` where they are not known."""
    if value is None:
        return "?"
    sign, size = ("-" if value < 0.0 else ""), abs(value)
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            scaled = size / (1e3 if name == "k" else unit)
            return f"{sign}${scaled:,.3g}{name}" if scaled < 1000 else f"{sign}${scaled:,.0f}{name}"
    return f"{sign}${size:,.0f}" if size >= 100 else f"{sign}${size:,.2f}"
