"""Prints docs/features.md from the catalogue: `python -m pipelines.feature_docs` writes it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from features import catalog
from features.catalog import FEATURES, Feature

PAGE = Path(__file__).resolve().parent.parent / "docs" / "features.md"
DIRECTIONS = {1: "rises with it", -1: "falls as it rises", 0: "either way"}

HEAD = """# Features

What is known of an account with an open position at a decision time, from nothing later than that time:
{count} numbers, in the order of the vector that models read.

- **NaN is missing, never zero.** A feature is NaN where one of the tables (or columns) that it is made
  from is missing for any of the account's open positions. Whatever needs the worth of a balance that is
  not in dollars needs `assets` and `asset_prices` too. A book that is crossed, or older than an hour, is
  missing.
- **Isolated accounts** are as many pools as they have positions. What says how near liquidation is
  (`margin_ratio`, `distance_to_liquidation`, every `buffer_over_sigma`, every `prior_hazard`) is that of
  the worst pool; the rest are sums over the pools. Free balances stand behind no position.
- **Ratios** are kept within ±1000: that is leverage without equity, or a distance that no price reaches.
- **Risk** says how the risk of default moves when the feature rises and all else stays; models are held
  to it.

Definition {definition}, fingerprint `{fingerprint}`. A model is bound to the fingerprint: it changes with
any name, unit, direction, source or meaning below, or with a formula (then the definition's number is
raised), and a model of another fingerprint is refused. Printed from the catalogue by `make docs`.
"""


def page() -> str:
    """The page as Markdown, one table a family, in the order of the vector; ends with a line break."""
    head = HEAD.format(count=len(FEATURES), definition=catalog.DEFINITION, fingerprint=catalog.fingerprint())
    parts = [head]
    for family, members in groupby(FEATURES, key=lambda feature: feature.family):
        rows = "\n".join(map(_row, members))
        parts.append(
            f"\n## {family.capitalize()}\n\n"
            "| feature | unit | risk | made from | what it is |\n|---|---|---|---|---|\n"
            f"{rows}\n"
        )
    return "".join(parts)


def _row(feature: Feature) -> str:
    cells = (
        f"`{feature.name}`",
        feature.unit,
        DIRECTIONS[feature.direction],
        ", ".join(feature.sources),
        feature.why,
    )
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def main(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page())


if __name__ == "__main__":
    main()
