"""Prints docs/features.md from the catalogue: `python -m pipelines.feature_docs` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from features import catalog
from features.catalog import FEATURES, Feature

PAGE = Path(__file__).resolve().parent.parent / "docs" / "features.md"
DIRECTIONS = {1: "rises with it", -1: "falls as it rises", 0: "either way"}

HEAD = """# Features

What is known of an account with an open position at a decision time, from nothing later than that time:
{count} numbers. What speaks of the whole venue (liquidation pressure, linked accounts, regime) comes from a
sweep over all accounts every quarter of an hour of the events' own time.

- **NaN is missing, never zero.** A feature is NaN where one of the tables (or columns) that it is made
  from is missing for any of the account's open positions. Whatever needs the worth of a balance that is
  not in dollars needs `assets` and `asset_prices` too. A book that is crossed, or older than an hour, is
  missing. What only a sweep can see (pressure, owners, the regime, what an account lived through) is NaN
  until one has. A table of which no row came yet is missing: until the first fill of the venue nobody knows
  how many fills an account had.
- **Isolated accounts** are as many pools as they have positions. What says how near the end is
  (`margin_ratio`, `distance_to_liquidation`, `equity_over_sigma`, every `buffer_over_sigma`, every hazard of
  the account) is that of the worst pool; the rest are sums over the pools. Free balances stand behind no
  position.
- **Netting.** A coin held against its own short is no risk: positions and balances of one underlying count
  together in every portfolio sigma but that of `buffer_over_sigma`, which is a baseline.
- **Fading.** What an account did is forgotten by half in three days, what is usual for a market in one.
- **Bounds.** Ratios are kept within ±1000: that is leverage without equity, or a distance that no price
  reaches. Logs of ratios are kept within ±10.
- **Risk** says how the risk of default moves when the feature rises and all else stays; models are held
  to it.

Definition {definition}, fingerprint `{fingerprint}`. A model is bound to the fingerprint: it changes with
any name, unit, direction, source or meaning below, or with a formula (then the definition's number is
raised), and a model of another fingerprint is refused. Printed from the catalogue by `make docs`.
"""


def page() -> str:
    """The page as Markdown, one table a family; ends with a line break."""
    head = HEAD.format(count=len(FEATURES), definition=catalog.DEFINITION, fingerprint=catalog.fingerprint())
    parts = [head]
    for family in get_args(catalog.Family):
        rows = "\n".join(_row(feature) for feature in FEATURES if feature.family == family)
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
