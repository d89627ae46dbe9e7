"""Coverage of the value at risk over an hour, of the reference portfolios of simulated venues.

    python -m benchmarks.coverage [DATASET ...] [--from-day N] [--json FILE]
    python -m benchmarks.coverage --seed N [--seed N ...] [--days D] [--accounts N] [--json FILE]

Prints one line a dataset: how often the value at risk at 99% was exceeded (mean over portfolios, the least
and the most of any), how many portfolios each test rejects at 5% over the whole span, how many of their
stretches of 1,000 hours, and how many windows of 250 hours are in Basel's green and red zones. A value at
risk that is exactly right is rejected by Kupiec's test in one of twenty such stretches and leaves the green
zone in 11% of windows. Portfolios of one venue share its prices: they are far from independent. Without
datasets venues of the seeds are simulated first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import programs
from exchange.errors import InputError
from exchange.units import DAY_US, HOUR_US
from models import coverage_card as cards
from models.scorecard_text import markdown
from pipelines import simulate
from pipelines.coverage import judged_portfolios, market_marks
from pipelines.store import Dataset

STRETCH = 1_000


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.parser("coverage", __doc__)
    parser.add_argument("datasets", type=Path, nargs="*", help="datasets with bars")
    parser.add_argument("--seed", type=int, action="append", help="simulate venues of these (default: 301)")
    parser.add_argument("--days", type=float, default=60.0, help="days of each simulated venue")
    parser.add_argument("--accounts", type=int, default=30, help="traders of each simulated venue")
    parser.add_argument("--from-day", type=int, default=10, help="days that tails are learnt on before")
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        found = [figures(path, options.from_day) for path in options.datasets]
        with tempfile.TemporaryDirectory() as folder:
            for seed in options.seed or ([] if options.datasets else [301]):
                path = Path(folder) / f"seed {seed}"
                simulate.run(path, options.accounts, options.days, seed)
                found.append(figures(path, options.from_day))
        print(table(found))
        return found

    return programs.finish(work, options.json)


def figures(path: Path, from_day: int) -> dict[str, Any]:
    """What the tests say of one dataset."""
    dataset = Dataset.open(path)
    names, marks = market_marks(dataset)
    from_us = dataset.meta.start_us + from_day * DAY_US
    of_each = judged_portfolios(names, marks, from_us, dataset.meta.end_us, HOUR_US)
    if not of_each:
        raise InputError(f"{path}: no market has bars to judge after day {from_day}")
    whole = {name: cards.portfolio(of, HOUR_US) for name, of in of_each.items()}
    stretches = {
        f"{name} {start}": cards.portfolio(
            cards.Periods._make(column[start : start + STRETCH] for column in of), HOUR_US
        )
        for name, of in of_each.items()
        for start in range(0, len(of.time_us) - STRETCH + 1, STRETCH)
    }
    rates = [of["exceedance_rate"] for of in whole.values()]
    return {
        "dataset": path.name,
        "hours": max(of["periods"] for of in whole.values()),
        "rates": rates,
        "all": cards.together(whole),
        "stretches": cards.together(stretches),
    }


def table(found: list[dict[str, Any]]) -> str:
    """A line a dataset, and one of all together."""
    tests = ["Kupiec", "independence", "both"]
    head = ["", "hours", "portfolios", "exceeded", *(f"rejected: {test}" for test in tests)]
    lines = [[*head, *(f"{STRETCH:,} h: {test}" for test in tests), "green", "red", "windows"]]
    for name, part in [*((of["dataset"], [of]) for of in found), ("together", found)]:
        rates = [rate for of in part for rate in of["rates"]]
        windows, green, red = (
            sum(of["all"]["basel"][zone] for of in part) for zone in ("all", "green", "red")
        )
        stretches = sum(of["stretches"]["portfolios"] for of in part)
        lines.append(
            [
                name,
                f"{sum(of['hours'] for of in part):,}",
                f"{len(rates)}",
                f"{np.mean(rates):.2%} [{min(rates):.2%}, {max(rates):.2%}]",
                *(f"{sum(len(of['all']['rejected'][test]) for of in part)}" for test in cards.TESTS),
                *(
                    f"{sum(len(of['stretches']['rejected'][test]) for of in part)} of {stretches}"
                    for test in cards.TESTS
                ),
                f"{green / windows:.1%}",
                f"{red}",
                f"{windows:,}",
            ]
        )
    return markdown(lines)


if __name__ == "__main__":
    sys.exit(main())
