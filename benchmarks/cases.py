"""The liquidations behind a difference in average precision: how the model ranks them, and the margin ratio.

    python -m benchmarks.cases [DATASET] [--cut TIME ...] [--hours 1|8|24] [--most N] [--json FILE]

Trains before each cut and judges after it, as `benchmarks.walk_forward` does. Prints the liquidations that
set the two scores apart most: the rank of each by either, and what each adds to the average precision (the
precision at its rank over the number of events). Nothing is chosen here: it is for understanding.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import programs
from benchmarks.windows import Window, windows
from models.horizons import HORIZONS_H
from models.scorecard_text import markdown as aligned
from models.train import train
from pipelines.times import format_time

CUTS = ("2022-12-15", "2023-01-15")
NAMES = ("model", "margin_ratio")

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.window_parser("cases", __doc__, CUTS)
    parser.add_argument("--hours", type=int, choices=HORIZONS_H, default=8)
    parser.add_argument("--most", type=int, default=14, help="liquidations that are shown")
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        found = []
        for window in windows(options.dataset, programs.cuts_of(options)):
            found.append(cases(window, options.hours, options.most))
            print(markdown(found[-1]), flush=True)
        return found

    return programs.finish(work, options.json)


def cases(window: Window, hours: int, most: int) -> dict[str, Any]:
    """Liquidations of one window, those first that add most to one average precision and not to the other."""
    scored = window.judge(train(window.training), 0).scored[f"liquidation_{hours}h"]
    came = scored.happened
    ranks = {name: ranked(scored.probability[name], came) for name in NAMES}
    added = {name: precision / came.sum() for name, (_, precision) in ranks.items()}
    apart = np.argsort(-np.abs(added["model"] - added["margin_ratio"]), kind="stable")[:most]
    return {
        "trained_before": format_time(window.cut_us),
        "hours": hours,
        "events": int(came.sum()),
        "average_precision": {name: float(of.sum()) for name, of in added.items()},
        "cases": [
            {
                "time": format_time(int(scored.time_us[row])),
                "account": int(scored.account[row]),
                "equity_usd": float(scored.equity_usd[row]),
                "notional_usd": float(scored.notional_usd[row]),
                "probability": float(scored.probability["model"][row]),
                "rank": {name: int(ranks[name][0][event]) for name in NAMES},
                "added": {name: float(added[name][event]) for name in NAMES},
            }
            for event, row in zip(apart, np.flatnonzero(came)[apart], strict=True)
        ],
    }


def ranked(score: Floats, came: Flags) -> tuple[Integers, Floats]:
    """Of every event its rank, riskiest first, and the precision there; rows alike have the last rank."""
    every, events = np.sort(-score), np.sort(-score[came])
    rank = np.searchsorted(every, -score[came], side="right")
    return rank, np.searchsorted(events, -score[came], side="right") / rank


def markdown(found: dict[str, Any]) -> str:
    """One window as a Markdown table."""
    lines = [["decision", "account", "equity", "notional", "probability"]]
    lines[0] += ["rank", "of margin ratio", "adds", "to margin ratio's"]
    for case in found["cases"]:
        lines.append(
            [case["time"][:16].replace("T", " "), str(case["account"]), f"${case['equity_usd']:,.0f}"]
            + [f"${case['notional_usd']:,.0f}", f"{case['probability']:.3f}"]
            + [str(case["rank"][name]) for name in NAMES]
            + [f"{case['added'][name]:.4f}" for name in NAMES]
        )
    own, ratio = (found["average_precision"][name] for name in NAMES)
    return (
        f"## Trained before {found['trained_before'][:10]}: {found['events']} liquidations within "
        f"{found['hours']} h\n\nAverage precision {own:.3f}, of the margin ratio {ratio:.3f}.\n\n"
        f"{aligned(lines)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
