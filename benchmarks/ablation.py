"""What each family of features is worth: a model without it, and with nothing else, in every window.

    python -m benchmarks.ablation [DATASET] [--cut TIME ...] [--columns model|all] [--json FILE]

Trains before each cut and judges liquidation within 24 h after it, as `benchmarks.walk_forward` does: with
all columns that trees may read, without the columns of one family, with those of one family only, and with
the structural prior alone. Then the same without the prior, which holds leverage, volatility and what the
account survived: where trees over the prior are not let in, that is what shows which family knows something.
Differences are to the first row of each half, on the same rows, with 90% intervals from resampling whole
days and accounts. `--columns all` starts from every column of the catalogue rather than from the model's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import programs
from benchmarks.windows import Window, windows
from exchange.errors import InputError
from features import catalog
from features.venue import Vectors
from models import metrics as mt
from models.panels import number
from models.rows import Rows
from models.scorecard_text import markdown as aligned
from models.train import TREE_FEATURES, Trained, targets, train
from pipelines.times import format_time
from pipelines.train import passing_scorer

TARGET, COLUMN = "liquidation_24h", 2
SHOWN = (
    ("average precision", "average_precision", ".3f"),
    ("ROC AUC", "roc_auc", ".3f"),
    ("predicted / actual", "predicted_over_actual", ".2f"),
    ("top 1% observed / expected", "top_1pct_observed_over_expected", ".2f"),
)
FULL = "all columns"
PRIOR_ALONE = "prior alone"
NO_PRIOR = "no prior"

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.window_parser("ablation", __doc__)
    parser.add_argument(
        "--columns", choices=("model", "all"), default="model", help="what there is to leave out"
    )
    options = parser.parse_args(arguments)
    columns = catalog.NAMES if options.columns == "all" else TREE_FEATURES

    def work() -> list[dict[str, Any]]:
        found = []
        for window in windows(options.dataset, programs.cuts_of(options)):
            found.append(ablation(window, columns, options.draws))
            print(markdown(found[-1]), flush=True)
        return found

    return programs.finish(work, options.json)


def variants(columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns that trees may read in each row of the table but those about the prior."""
    family = {feature.name: feature.family for feature in catalog.FEATURES}
    families = [name for name in dict.fromkeys(family.values()) if name in {family[c] for c in columns}]
    found = {FULL: tuple(columns)}
    for name in families:
        rest = tuple(column for column in columns if family[column] != name)
        if rest:
            found[f"without {name}"] = rest
    if len(families) > 1:
        for name in families:
            found[f"only {name}"] = tuple(column for column in columns if family[column] == name)
    return found


class Made(NamedTuple):
    """A row of a table: what a model says of the judged rows, its number of trees, what it stands beside."""

    chance: Floats
    trees: int
    against: str


def ablation(window: Window, columns: Sequence[str], draws: int, seed: int = 0) -> dict[str, Any]:
    """Every row of one window's table; raises InputError where nothing was liquidated in it."""
    outcomes(window)
    made: dict[str, Made] = {}
    for name, of in variants(columns).items():
        trained = train(window.training, tree_features=of)
        made[name] = Made(scored(trained, window.judged), rounds(trained), FULL)
    made[PRIOR_ALONE] = Made(scored(without_trees(window.training), window.judged), 0, FULL)
    bare = window._replace(training=without_prior(window.training), judged=without_prior(window.judged))
    own = [column for column in columns if column not in catalog.PRIOR_HAZARDS]
    for variant, of in variants(own).items():
        trained = train(bare.training, tree_features=of)
        made[f"{NO_PRIOR}, {variant}"] = Made(
            scored(trained, bare.judged), rounds(trained), f"{NO_PRIOR}, {FULL}"
        )
    return measured(window, made, draws, seed) | {"columns": len(columns)}


def measured(window: Window, made: dict[str, Made], draws: int, seed: int = 0) -> dict[str, Any]:
    """Figures of every model on the same rows, and paired differences to what it stands beside."""
    chosen, happened = outcomes(window)
    known = np.all([np.isfinite(one.chance) for one in made.values()], axis=0) & chosen
    account, time_us, came = window.judged.account[known], window.judged.time_us[known], happened[known]
    ranked = {name: mt.Ranked.of(came, one.chance[known]) for name, one in made.items()}
    drawn = {name: np.full((draws, len(mt.METRICS)), np.nan) for name in made}
    for draw, weight in enumerate(mt.resamples(time_us, account, draws, seed)):
        for name in made:
            drawn[name][draw] = mt.measure(ranked[name], weight)
    rows = []
    for name, one in made.items():
        values, full = mt.measure(ranked[name]), mt.measure(ranked[one.against])
        low, high = mt.interval(drawn[name] - drawn[one.against])
        rows.append(
            {
                "row": name,
                "trees": one.trees,
                "against": one.against,
                **{
                    key: {
                        "value": number(values[mt.METRICS.index(key)]),
                        "change": number(values[mt.METRICS.index(key)] - full[mt.METRICS.index(key)]),
                        "low": number(low[mt.METRICS.index(key)]),
                        "high": number(high[mt.METRICS.index(key)]),
                    }
                    for _, key, _ in SHOWN
                },
            }
        )
    return {
        "trained_before": format_time(window.cut_us),
        "until": format_time(window.end_us),
        "rows": len(came),
        "events": int(came.sum()),
        "accounts": len(np.unique(account[came])),
        "table": rows,
    }


def outcomes(window: Window) -> tuple[Flags, Flags]:
    """Which rows are judged and what came of each; raises InputError where nothing was liquidated."""
    has_label, happened = targets(window.judged)[TARGET]
    chosen = has_label & window.on_grid[TARGET]
    if not happened[chosen].any():
        raise InputError(
            f"no liquidation between {format_time(window.cut_us)} and {format_time(window.end_us)}"
        )
    return chosen, happened


def scored(trained: Trained, rows: Rows) -> Floats:
    """Probability of liquidation within 24 h, as a service would give it."""
    vectors = Vectors(rows.account, rows.features, rows.figures)
    return np.asarray(passing_scorer(trained).assess(vectors).pd[:, COLUMN])


def without_prior(rows: Rows) -> Rows:
    """The same rows with one and the same prior for everyone; where it was not known it still is not."""
    features = rows.features.copy()
    for name in catalog.PRIOR_HAZARDS:
        column = features[:, catalog.index(name)]
        column[~np.isnan(column)] = 0.0
    return rows._replace(features=features)


def without_trees(rows: Rows) -> Trained:
    """A model of the prior and its calibration alone: trees that may read nothing but a constant."""
    features = rows.features.copy()
    features[:, catalog.index("mark_age_s")] = 0.0
    return train(rows._replace(features=features), tree_features=("mark_age_s",))


def rounds(trained: Trained) -> int:
    """Number of trees of all hazards."""
    return sum(int(head.facts.get("rounds", 0)) for head in trained.heads[:3])


def markdown(found: dict[str, Any]) -> str:
    """One window as a Markdown table."""
    lines = [["trees read", "trees", *(cell for title, _, _ in SHOWN for cell in (title, "change"))]]
    for row in found["table"]:
        cells = [row["row"], str(row["trees"])]
        for _, key, spec in SHOWN:
            of = row[key]
            cells.append("-" if of["value"] is None else f"{of['value']:{spec}}")
            if row["row"] == row["against"] or None in (of["change"], of["low"], of["high"]):
                cells.append("")
            else:
                cells.append(f"{of['change']:+{spec}} [{of['low']:+{spec}}, {of['high']:+{spec}}]")
        lines.append(cells)
    return (
        f"## Trained before {found['trained_before'][:10]}, judged until {found['until'][:10]}\n\n"
        f"{found['columns']} columns; {found['rows']:,} rows judged, {found['events']} events of "
        f"{found['accounts']} accounts.\n\n{aligned(lines)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
