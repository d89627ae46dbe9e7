"""Prints docs/features.md from the catalogue: `make docs`."""

from __future__ import annotations

from itertools import groupby

from features.catalog import FEATURES, Feature

DIRECTIONS = {1: "riskier when higher", -1: "riskier when lower", 0: "either way"}


def _row(feature: Feature) -> str:
    cells = (
        f"`{feature.name}`",
        feature.unit,
        DIRECTIONS[feature.direction],
        feature.why,
        ", ".join(feature.sources),
    )
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def page() -> str:
    """The page as Markdown, one table a family, in the order of the vector."""
    lines = [
        "# Features",
        "",
        "Every column of the vector that is computed for an account with an open position at a decision",
        "time, from nothing later than that time. A feature whose inputs are missing is NaN, never zero.",
        "",
        "Printed from the catalogue by `make docs`.",
    ]
    for family, members in groupby(FEATURES, key=lambda feature: feature.family):
        lines += ["", f"## {family.capitalize()}", ""]
        lines += ["| feature | unit | risk | what it is | from |", "|---|---|---|---|---|"]
        lines += [_row(feature) for feature in members]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
