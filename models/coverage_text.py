"""Coverage as Markdown that is aligned for a terminal."""

from __future__ import annotations

from models.coverage import WINDOW
from models.coverage_card import TESTS, Json
from models.scorecard_text import markdown

MARGINS = {"suggested": "suggested", "static": "static schedule", "in_force": "in force"}


def table(card: Json) -> str:
    """For each period a verdict, a line for each kind of margin and a line for each reference portfolio."""
    text = [f"# Coverage: margin against the worst loss, {card['from']} to {card['to']}"]
    for name, of in card["periods"].items():
        text += [f"## Margin period of risk {name}", verdict(of["all"])]
        text += [markdown(accounts(of["accounts"])), markdown(portfolios(of["portfolios"]))]
    return "\n\n".join(text) + "\n"


def verdict(of: Json) -> str:
    """What the portfolios say together, in two lines."""
    counts = {test: len(names) for test, names in of["rejected"].items()}
    basel = of["basel"]
    green = f"Basel green in {_share(basel['green_share'], 0)} of {basel['all']:,} windows"
    return (
        f"Value at risk at 99%: {green} of at most {WINDOW} periods, {basel['red']} red;\n"
        f"rejected at 5%, of {of['portfolios']} portfolios: {counts['kupiec']} by Kupiec, "
        f"{counts['independence']} by independence, {counts['conditional_coverage']} by both together."
    )


def portfolios(found: Json) -> list[list[str]]:
    """A head, then how often and by how much each portfolio's value at risk was exceeded."""
    head = ["", "exceeded", "of", "rate", "mean value at risk", "Kupiec p", "independence p", "both p"]
    lines = [[*head, "green/yellow/red", "loss over it, mean", "beyond it, largest"]]
    for name, of in found.items():
        basel, excess = of["basel"], of["excess"]
        lines.append(
            [name, f"{of['exceedances']:,}", f"{of['periods']:,}"]
            + [_share(of["exceedance_rate"]), _share(of["mean_value_at_risk"])]
            + [_p_value(of[test]) for test in TESTS]
            + [f"{basel['green']}/{basel['yellow']}/{basel['red']}"]
            + ["-" if excess["mean_over_held"] is None else f"{excess['mean_over_held']:.2f}"]
            + [_share(excess["largest"])]
        )
    return lines


def accounts(found: Json) -> list[list[str]]:
    """A head, then each kind of margin: who lost more than it within the period."""
    lines = [["margin", "accounts looked at", "decision times", "exceeded", "of accounts", "at least"]]
    lines[0] += ["of notional", "times with any", "average rate", "mean shortfall", "under 99%?"]
    for kind, name in MARGINS.items():
        of = found[kind]
        usd = of["mean_shortfall_usd"]
        unknown = of["share_of_accounts_low"] is None
        of_accounts = [_share(of["share_of_accounts"]), _share(of["share_of_accounts_low"])]
        of_notional = [_share(of["share_of_notional"]), f"{of['decision_times_with_exceedance']:,}"]
        money = [_share(of["average_rate"], 1), "-" if usd is None else f"${usd:,.0f}"]
        counts = [f"{of['rows']:,}", f"{of['decision_times']:,}", f"{of['exceeded']:,}"]
        rejected = "too few days" if unknown else "yes" if of["rejected"] else "no"
        lines.append([name, *counts, *of_accounts, *of_notional, *money, rejected])
    return lines


def _share(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _p_value(test: Json) -> str:
    if test["p_value"] is None:
        return "-"
    return f"{test['p_value']:.3f}{' *' if test['rejected'] else ''}"
