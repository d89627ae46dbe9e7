"""A model of a stated size to measure speed with: three hazards of 300 trees x 63 leaves over 60 columns.

Its trees are grown on vectors of a made venue (`benchmarks/flows.py`), towards chance and the prior, so that
they split where accounts differ and every row takes its own way down; what it says is of no use otherwise.

    python -m benchmarks.reference_model FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightgbm
import numpy as np
import numpy.typing as npt

from benchmarks.flows import arrivals, flow, opened_venue
from features import catalog
from features.venue import Venue
from models import baselines
from models.bundle import Bundle, fill_bundle
from models.export import HeadSpec, export_heads
from models.heads import HEADS

TREES, LEAVES, COLUMNS = 300, 63, 60
ACCOUNTS, MARKETS, FILLS = 5_000, 20, 60_000
INTERCEPTS = {"negative_given_liquidation": -4.0, "severity": 0.05}


def venue(accounts: int = ACCOUNTS, markets: int = MARKETS, fills: int = FILLS, seed: int = 1) -> Venue:
    """A venue of accounts with a few positions each, at the end of its fills."""
    made = opened_venue(accounts, markets)
    made.apply(arrivals(flow(fills, accounts, markets, seed)))
    return made


def reference_bundle(folder: Path, seed: int = 1, grown_on: Venue | None = None) -> Bundle:
    """Write the model into the empty `folder` and open it; trees grow on `grown_on` or a venue of its own."""
    rows = (venue() if grown_on is None else grown_on).open_vectors().features
    chance = np.random.default_rng(seed)
    priors = [catalog.index(name) for name in catalog.PRIOR_HAZARDS]
    told = [
        column
        for column in np.flatnonzero(~np.isnan(rows).any(axis=0))
        if len(np.unique(rows[:, column])) > 1
    ]
    rest = [column for column in range(rows.shape[1]) if column not in told]
    columns = sorted((told + rest)[:COLUMNS])
    heads = [
        HeadSpec(name, _trees(rows[:, columns], rows[:, prior], chance), columns, prior)
        for name, prior in zip(HEADS[:3], priors, strict=True)
    ]
    heads += [HeadSpec(name, intercept=INTERCEPTS[name]) for name in HEADS[3:]]
    exported = export_heads(heads, len(catalog.NAMES))
    model = {
        "heads": {
            head.name: {"intercept": head.intercept, "slope": head.slope, "link": head.link} for head in heads
        },
        "required_features": list(catalog.PRIOR_HAZARDS),
        "tree_features": [catalog.NAMES[column] for column in columns],
        "baseline_levels": {name: dict.fromkeys(baselines.TARGETS, 0.0) for name in baselines.BASELINES},
        "mean_severity": INTERCEPTS["severity"],
        "unknown_severity": INTERCEPTS["severity"],
        "usual": {"effective_buffer_over_notional": 0.1, "sigma_day": 0.05, "margin_ratio": 2.0},
    }
    fingerprint = catalog.fingerprint()
    fill_bundle(
        folder, exported.graph, model, exported.forests, "A model to measure speed with.\n", fingerprint
    )
    return Bundle.open(folder, fingerprint)


def _trees(
    rows: npt.NDArray[np.float64], prior: npt.NDArray[np.float64], chance: np.random.Generator
) -> dict[str, object]:
    """Boosted trees of exactly the size stated."""
    target = 0.2 * np.nan_to_num(prior) + chance.normal(0.0, 1.0, len(rows))
    parameters = {
        "objective": "regression", "num_leaves": LEAVES, "min_data_in_leaf": 5, "learning_rate": 0.01,
        "feature_fraction": 0.5, "seed": int(chance.integers(1 << 30)), "verbosity": -1, "num_threads": 1,
        "boost_from_average": False, "deterministic": True,
    }  # fmt: skip
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), TREES)
    dump: dict[str, object] = booster.dump_model()
    sizes = [tree["num_leaves"] for tree in dump["tree_info"]]  # type: ignore[index, attr-defined]
    assert sizes == [LEAVES] * TREES
    return dump


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description="A model to measure speed with.")
    parser.add_argument("folder", type=Path, help="made for it")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True)
    print(f"model {reference_bundle(folder).model_version} in {folder}")


if __name__ == "__main__":
    main()
