"""Train and judge on simulated venues that share neither seed, prices nor mix of traders.

    python -m benchmarks.simulated_venues [--klines FOLDER] [--accounts N] [--ablate] [--json FILE]

Models are trained on a default venue, a calm one, a crash and three shocks like 10 October 2025, on different
days, so that later ones tell what was learnt from earlier ones, and judged on venues of other seeds and
mixes: a default one, a crash, a shock like 10 October 2025, and with --klines (data.binance.vision's
one-minute files of February 2024) a replay of 28 February 2024. Prints, beside both baselines, ranking and
level of liquidation within 24 h, the lift of average precision over the better one with its interval (whole
days and accounts resampled), negative equity and severity against constants and a structural estimate.
`--ablate` leaves out one family of features at a time, of models without the prior, trained without the two
further shocks: over the prior trees are seldom let in, and then nothing can be missed.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import programs, replays
from benchmarks.ablation import variants, without_prior
from features import emit as figure
from models.labels import NO_LABEL_END
from models.rows import Rows
from models.scorecard import SCORES
from models.scorecard_text import with_interval
from models.session import Session
from models.train import TREE_FEATURES, Trained, train
from pipelines import simulate
from pipelines.evaluate import judge_rows
from pipelines.replay import DEFAULT_EVERY_US, joined, training_rows
from pipelines.store import Dataset
from pipelines.train import passing_scorer

Floats = npt.NDArray[np.float64]
REPLAYED_DAY = "2024-02-28"


class Made(NamedTuple):
    """A venue to be simulated; `mix` as `perprisk simulate --mix` takes it."""

    name: str
    scenario: str
    seed: int
    days: float
    mix: tuple[str, ...] = ()


TRAINING = (
    Made("default", "default", 101, 30.0),
    Made("calm, more carry", "calm", 102, 20.0, ("carry=0.15", "retail=0.45")),
    Made("crash, more momentum", "crash", 103, 20.0, ("momentum=0.25",)),
    Made("like 10 October 2025, more whales", "october-2025", 104, 12.0, ("whale=0.02",)),
)
SHOCKS = (
    Made("like 10 October 2025, more retail", "october-2025", 105, 16.0, ("retail=0.6",)),
    Made("like 10 October 2025, more momentum", "october-2025", 106, 20.0, ("momentum=0.25",)),
)
"""To train on beside the others, but for the ablation: severity is what one shock says of another."""

JUDGED = (
    Made("default", "default", 201, 24.0),
    Made("crash, more retail", "crash", 202, 20.0, ("retail=0.7", "hedger=0.02")),
    Made("like 10 October 2025, more linked", "october-2025", 203, 12.0, ("linked=0.25",)),
)


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.parser("simulated_venues", __doc__)
    parser.add_argument("--klines", type=Path, help="folder of published one-minute files")
    parser.add_argument("--accounts", type=int, default=1_500)
    parser.add_argument("--ablate", action="store_true", help="also without each family of features")
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        parts = [made_rows(made, options.accounts) for made in (*TRAINING, *SHOCKS)]
        training = joined_rows(parts)
        judged = [(made.name, made_rows(made, options.accounts)) for made in JUDGED]
        if options.klines is not None:
            judged.append((f"replay of {REPLAYED_DAY}", replayed_rows(options.klines, options.accounts)))
        trained = train(training)
        found = [
            against_baselines(trained, name, rows, options.draws)
            | {"severity": severity(trained, mean_share(training), rows)}
            for name, rows in judged
        ]
        print(markdown(training, trained, found))
        if options.ablate:
            ablated = ablation(joined_rows(parts[: len(TRAINING)]), judged)
            print(ablation_table(ablated))
            found.append({"ablation": ablated})
        return found

    return programs.finish(work, options.json)


def made_rows(made: Made, accounts: int) -> Rows:
    """Labelled rows of a simulated venue."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "venue"
        mix = simulate.chosen_mix(made.mix) if made.mix else None
        simulate.run(path, accounts, made.days, made.seed, scenario=made.scenario, mix=mix)
        return _rows(path)


def replayed_rows(klines: Path, accounts: int) -> Rows:
    """Labelled rows of a venue on published prices."""
    with tempfile.TemporaryDirectory() as folder:
        return _rows(replays.replay_day(REPLAYED_DAY, klines, Path(folder), accounts, 301))


def _rows(path: Path) -> Rows:
    dataset = Dataset.open(path, "accounts")
    return training_rows(dataset, DEFAULT_EVERY_US, dataset.meta.end_us)


def joined_rows(parts: list[Rows]) -> Rows:
    """Rows of several venues, accounts numbered apart."""
    first = 0
    apart = []
    for rows in parts:
        apart.append(rows._replace(account=rows.account + first))
        first += int(rows.account.max(initial=0)) + 1
    return joined(apart)


def against_baselines(trained: Trained, name: str, rows: Rows, draws: int) -> dict[str, Any]:
    """Figures of one venue beside both baselines: liquidation and negative equity within 24 h."""
    scorer = passing_scorer(trained)
    judged = judge_rows(scorer, rows, draws=draws)
    panel = judged.card["targets"]["liquidation"]["24h"]["all"]
    negative = judged.card["targets"]["negative_equity"]["24h"]["all"]
    return {"venue": name, "liquidation": panel, "negative": negative}


def mean_share(rows: Rows) -> float:
    """Mean of shortfall over notional given negative equity, an account counting once."""
    chosen, share = _lost(rows)
    copies = np.bincount(rows.account[chosen])[rows.account[chosen]]
    return float(np.average(share, weights=1.0 / copies)) if len(chosen) else math.nan


def severity(trained: Trained, mean: float, rows: Rows) -> dict[str, float]:
    """Error of shortfall over notional, given negative equity: model, constants, structural.

    Mean absolute error, and the root of the mean squared one, by which a mean that is multiplied by money
    is to be judged. The constants are the training rows' total over total and `mean`, that over accounts. The
    structural estimate is what closing in the book as it is slips beyond the maintenance margin.
    """
    chosen, truth = _lost(rows)
    if len(chosen) == 0:
        return {"cases": 0.0}
    gross = rows.figures[chosen, figure.GROSS_NOTIONAL_USD]
    session = Session(passing_scorer(trained).bundle)
    estimate = session.run(np.ascontiguousarray(rows.features[chosen])).severity
    slip = rows.figures[chosen, figure.CLOSING_COST_USD] / gross
    structural = np.clip(slip - rows.figures[chosen, figure.STATIC_MAINTENANCE_RATE], 0.0, 1.0)
    said = {
        "model": estimate,
        "constant": trained.model["mean_severity"],
        "mean": mean,
        "structural": structural,
    }
    found = {"cases": float(len(chosen)), "accounts": float(len(np.unique(rows.account[chosen])))}
    for name, share in said.items():
        found[name] = float(np.nanmean(np.abs(share - truth)))
        found[f"{name}_squared"] = float(np.sqrt(np.nanmean((share - truth) ** 2)))
    return found


def _lost(rows: Rows) -> tuple[npt.NDArray[np.int64], Floats]:
    """Rows before a negative equity, and the share of gross notional that was lost."""
    end_us = rows.label_end_us[:, -1]
    chosen = np.flatnonzero((end_us != NO_LABEL_END) & (rows.negative_us <= end_us))
    gross = rows.figures[chosen, figure.GROSS_NOTIONAL_USD]
    return chosen, np.clip(rows.shortfall_usd[chosen] / gross, 0.0, 1.0)


def ablation(training: Rows, judged: list[tuple[str, Rows]]) -> dict[str, dict[str, float]]:
    """Average precision on each venue of models without the prior, whose trees do without a family."""
    bare = without_prior(training)
    found: dict[str, dict[str, float]] = {}
    for label, names in variants(TREE_FEATURES).items():
        trained = train(bare, tree_features=names)
        found[label] = {
            name: against_baselines(trained, name, without_prior(rows), 0)["liquidation"]["model"][
                "average_precision"
            ]
            for name, rows in judged
        }
    return found


def markdown(training: Rows, trained: Trained, found: list[dict[str, Any]]) -> str:
    """All venues as tables."""
    rounds = {name: head.get("rounds") for name, head in trained.model["heads"].items()}
    venues = len(TRAINING) + len(SHOCKS)
    lines = [f"Trained on {len(training.time_us):,} rows of {venues} venues; trees {rounds}.", ""]
    lines += [
        "| judged on | rows | events | AP model | AP margin ratio | AP structural | over the better | "
        "AUC model / better | predicted / actual | top 1% |",
        "|---|--:|--:|--:|--:|--:|---|---|--:|--:|",
    ]
    for one in found:
        panel = one["liquidation"]
        better = max(("margin_ratio", "structural"), key=lambda name: panel[name]["average_precision"])
        change = panel["differences"][better]["average_precision"]
        auc = max(panel[name]["roc_auc"] for name in ("margin_ratio", "structural"))
        lines.append(
            f"| {one['venue']} | {panel['rows']:,} | {panel['events']} | "
            f"{panel['model']['average_precision']:.3f} | {panel['margin_ratio']['average_precision']:.3f} | "
            f"{panel['structural']['average_precision']:.3f} | "
            f"{with_interval(change['change'], [change['low'], change['high']], '+.3f')} | "
            f"{panel['model']['roc_auc']:.3f} / {auc:.3f} | {panel['model']['predicted_over_actual']:.2f} | "
            f"{panel['model']['top_1pct_observed_over_expected']:.2f} |"
        )
    lines += [
        "",
        "| negative equity on | events | AP model | margin ratio | structural | predicted / actual |",
    ]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for one in found:
        panel = one["negative"]
        cells = [_figure(panel[name]["average_precision"]) for name in SCORES]
        level = _figure(panel["model"]["predicted_over_actual"])
        lines.append(f"| {one['venue']} | {panel['events']} | {' | '.join(cells)} | {level} |")
    head = trained.model["heads"]["severity"]
    of_prior = "" if head["fitted"] == "constant" else f" and {head['slope']:.4f} of its prior"
    lines += [
        "",
        f"Severity: {head['fitted']}, {head['intercept']:.4f}{of_prior}, from {head['accounts']} accounts; "
        f"at most {trained.model['unknown_severity']:.4f}.",
        "",
        "| severity on | rows | accounts | absolute error of model | total over total | mean of accounts | "
        "structural | root mean square of model | total over total | mean of accounts | structural |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in found:
        told = one["severity"]
        names = ("model", "constant", "mean", "structural")
        cells = [_figure(told.get(f"{name}{kind}")) for kind in ("", "_squared") for name in names]
        accounts = told.get("accounts", 0.0)
        lines.append(f"| {one['venue']} | {told['cases']:.0f} | {accounts:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ablation_table(found: dict[str, dict[str, float]]) -> str:
    """Average precision by venue and what was left out."""
    venues = list(next(iter(found.values())))
    lines = ["| without the prior, trees read | " + " | ".join(venues) + " |", "|---|" + "--:|" * len(venues)]
    for label, values in found.items():
        lines.append(f"| {label} | " + " | ".join(_figure(values[name]) for name in venues) + " |")
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
