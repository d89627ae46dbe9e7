"""Which form of calibration and of the prior walk-forward inside the training parts speaks for.

    python -m benchmarks.hazard_forms [DATASET] [--cut TIME ...] [--json FILE]

Before each cut, forms of calibration and of the prior are compared on purged walk-forward folds: average
precision at 8 h and at 24 h, with the gain over the form in place (without trees) and its standard error over
the folds, and the change in log loss at 8 h. A form would be taken where its gain at 8 h before the first cut
is more than two standard errors, if log loss there is no higher, average precision at 24 h does not fall by
more than one standard error, and the folds before later cuts do not turn its gain round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from benchmarks import programs
from benchmarks.windows import Window, windows
from features import catalog, structural
from features import emit as figure
from models import baselines
from models.grow import FEWEST_EVENTS, folds_of, margin_of, mean_and_error, sigmoid
from models.horizons import HORIZONS_H
from models.labels import NO_LABEL_END
from models.rows import Rows
from models.scorecard_text import markdown as aligned
from models.train import eligible, purged, targets, train
from pipelines.times import format_time

CUTS = ("2022-12-15", "2023-01-15")
IN_PLACE = "in place, no trees"

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Fitting(NamedTuple):
    """What a calibration is fitted on: logits (n, hazards) of rows known by then, and which count."""

    rows: Rows
    logits: Floats
    counts: list[Flags]
    came: list[Flags]

    @classmethod
    def of(cls, rows: Rows, logits: Floats) -> Fitting:
        """With the labels of the three intervals."""
        found = [eligible(rows, k) for k in range(len(HORIZONS_H))]
        return cls(rows, logits, [counts for counts, _ in found], [came for _, came in found])

    def few(self, k: int) -> bool:
        """Whether a head would only have its level moved."""
        chosen = self.counts[k] & self.came[k]
        return len(np.unique(self.rows.account[chosen])) < FEWEST_EVENTS


Calibration = Callable[[Fitting, Rows, Floats], Floats]
"""From what is known by then to probabilities (n, horizons) of other rows, whose logits are given."""


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 2 for wrong input."""
    parser = programs.window_parser("hazard_forms", __doc__, CUTS)
    options = parser.parse_args(arguments)

    def work() -> list[dict[str, Any]]:
        found = []
        for window in windows(options.dataset, programs.cuts_of(options)):
            found.append(forms(window))
            print(markdown(found[-1]), flush=True)
        return found

    return programs.finish(work, options.json)


def forms(window: Window) -> dict[str, Any]:
    """Figures of every form over the folds of one training part, (folds, figures) by name."""
    rows = window.training
    rows = rows.where(~np.isnan(rows.features[:, catalog.index(catalog.PRIOR_HAZARDS[0])]))
    known, came = targets(rows)["liquidation_24h"]
    places = np.flatnonzero(known)
    ends_us = rows.label_end_us[known, -1]
    blocks = [rows.time_us[places[f.validation]] for f in folds_of(rows.time_us[known], ends_us, came[known])]
    logits = priors(rows)
    figures: dict[str, list[list[float]]] = {}
    for block_us in blocks:
        then = rows.time_us < block_us.min()
        judged = (rows.time_us >= block_us.min()) & (rows.time_us <= block_us.max())
        before, block = purged(rows.where(then), int(block_us.min())), rows.where(judged)
        for name, (prior, calibrated) in compared(logits).items():
            fitting = Fitting.of(before, prior[then])
            figures.setdefault(name, []).append(measured(block, calibrated(fitting, block, prior[judged])))
        figures.setdefault("in place, trees as walk-forward lets in", []).append(
            measured(block, with_trees(before, block))
        )
    return {"before": format_time(window.cut_us), "folds": len(blocks), "figures": figures}


def compared(logits: dict[str, Floats]) -> dict[str, tuple[Floats, Calibration]]:
    """By name the prior's logits and their calibration."""
    own = logits[IN_PLACE]
    found: dict[str, tuple[Floats, Calibration]] = {
        IN_PLACE: (own, hazard_by_hazard),
        "levels only, slopes 1": (own, levels_only),
        "one slope for all hazards": (own, one_slope),
        "horizon by horizon, not interval by interval": (own, cumulative),
        "margin ratio beside the prior": (own, with_margin_ratio),
    }
    return found | {name: (other, hazard_by_hazard) for name, other in logits.items() if name != IN_PLACE}


def priors(rows: Rows) -> dict[str, Floats]:
    """Logits of the three hazards, (n, 3), by form of the prior."""

    def column(name: str) -> Floats:
        return rows.features[:, catalog.index(name)]

    distance, ratio = column("effective_buffer_over_sigma"), column("margin_ratio")
    forecast = np.nan_to_num(column("forecast_ratio"))  # before the first sweep the prior is not tilted
    day, slow = column("buffer_over_sigma_ahead_24h"), column("buffer_over_sigma_slow")
    credited, plain = column("effective_buffer_over_notional"), column("buffer_over_notional")

    def over(a: Floats, b: Floats) -> Floats:
        return np.divide(a, b, out=np.ones(len(a)), where=(a > 0.0) & (b > 0.0))

    own = np.column_stack([column(name) for name in catalog.PRIOR_HAZARDS])
    nearer = own.copy()
    for k, name in ((0, "buffer_over_sigma_ahead_1h"), (1, "buffer_over_sigma_ahead_8h")):
        nearer[:, k] = hazards(distance * np.sqrt(over(column(name), day)), ratio, forecast)[:, k]
    return {
        IN_PLACE: own,
        "volatility of the hazard's own horizon": nearer,
        "slow volatility alone": hazards(distance * np.sqrt(over(slow, day)), ratio, forecast),
        "forecast volatility alone": hazards(distance * np.sqrt(over(day, slow)), ratio, forecast),
        "no tilt by the venue's forecast": hazards(distance, ratio, np.zeros(len(ratio))),
        "no lapses": hazards(distance, np.full(len(ratio), np.inf), forecast),
        "no credit for what was survived": hazards(
            distance * np.where(credited > 0.0, np.maximum(plain, 0.0) / credited, 1.0), ratio, forecast
        ),
    }


def hazards(distance: Floats, ratio: Floats, forecast: Floats) -> Floats:
    """Logits of `features.structural.prior_hazards`, (n, 3)."""
    chances = np.array(
        [structural.prior_hazards(*row) for row in zip(distance, ratio, forecast, strict=True)]
    )
    return np.asarray(np.log(chances) - np.log1p(-chances))


def joined(chances: list[Floats]) -> Floats:
    """Probabilities by horizon from hazards of the intervals."""
    found = [chances[0]]
    for hazard in chances[1:]:
        found.append(found[-1] + (1.0 - found[-1]) * hazard)
    return np.column_stack(found)


def fitted(regressors: Floats, came: Flags, level_only: bool) -> tuple[float, Floats]:
    """Intercept and slopes; as `models.train` has it, a slope that would turn the ranking round is 1."""
    one = np.zeros(regressors.shape[1])
    one[0] = 1.0
    if not level_only:
        logistic = LogisticRegression(C=1e6, max_iter=1000).fit(regressors, came)
        if (logistic.coef_[0] > 0.0).all():
            return float(logistic.intercept_[0]), np.asarray(logistic.coef_[0])
        if len(one) > 1:
            intercept, slope = fitted(regressors[:, :1], came, level_only)
            return intercept, one * slope[0]
    return baselines.fit_level(sigmoid(regressors[:, 0]), came), one


def hazard_by_hazard(fitting: Fitting, rows: Rows, logits: Floats) -> Floats:
    """Each hazard with an intercept and a slope of its own."""
    return _each(fitting, logits, fitting.few)


def levels_only(fitting: Fitting, rows: Rows, logits: Floats) -> Floats:
    """Each hazard with an intercept of its own."""
    return _each(fitting, logits, lambda k: True)


def _each(fitting: Fitting, logits: Floats, level_only: Callable[[int], bool]) -> Floats:
    chances = []
    for k, (counts, came) in enumerate(zip(fitting.counts, fitting.came, strict=True)):
        intercept, slope = fitted(fitting.logits[counts][:, [k]], came[counts], level_only(k))
        chances.append(sigmoid(intercept + slope[0] * logits[:, k]))
    return joined(chances)


def one_slope(fitting: Fitting, rows: Rows, logits: Floats) -> Floats:
    """Intercepts of their own over one slope."""
    stacked, outcome = [], []
    for k, (counts, came) in enumerate(zip(fitting.counts, fitting.came, strict=True)):
        own = np.zeros((int(counts.sum()), 1 + len(HORIZONS_H)))
        own[:, 0], own[:, 1 + k] = fitting.logits[counts, k], 1.0
        stacked.append(own)
        outcome.append(came[counts])
    logistic = LogisticRegression(C=1e6, max_iter=1000, fit_intercept=False)
    slope, *levels = logistic.fit(np.vstack(stacked), np.concatenate(outcome)).coef_[0]
    return joined([sigmoid(level + slope * logits[:, k]) for k, level in enumerate(levels)])


def cumulative(fitting: Fitting, rows: Rows, logits: Floats) -> Floats:
    """The probability by each horizon calibrated as a whole, cut to that of the shorter one."""

    def whole(of: Floats) -> Floats:
        chance = np.clip(joined(list(sigmoid(of).T)), 1e-12, 1.0 - 1e-12)
        return np.asarray(np.log(chance) - np.log1p(-chance))

    learnt, asked = whole(fitting.logits), whole(logits)
    columns = []
    for k in range(len(HORIZONS_H)):
        end_us = fitting.rows.label_end_us[:, k]
        known = end_us != NO_LABEL_END
        came = fitting.rows.liquidated_us <= end_us
        intercept, slope = fitted(learnt[known][:, [k]], came[known], fitting.few(k))
        columns.append(sigmoid(intercept + slope[0] * asked[:, k]))
    return np.maximum.accumulate(np.column_stack(columns), axis=1)


def with_margin_ratio(fitting: Fitting, rows: Rows, logits: Floats) -> Floats:
    """Each hazard on its prior and on minus the log of the margin ratio."""

    def beside(of: Rows) -> Floats:
        return -np.log(np.maximum(of.figures[:, figure.MARGIN_RATIO], 0.3))

    learnt, asked = beside(fitting.rows), beside(rows)
    chances = []
    for k, (counts, came) in enumerate(zip(fitting.counts, fitting.came, strict=True)):
        both = np.column_stack([fitting.logits[counts, k], learnt[counts]])
        intercept, slopes = fitted(both, came[counts], fitting.few(k))
        chances.append(sigmoid(intercept + slopes[0] * logits[:, k] + slopes[1] * asked))
    return joined(chances)


def with_trees(before: Rows, rows: Rows) -> Floats:
    """What `models.train` makes of what is known by then."""
    chances = []
    for head in train(before).heads[: len(HORIZONS_H)]:
        assert head.spec.offset is not None
        margin = rows.features[:, head.spec.offset].copy()
        if head.booster is not None:
            margin += margin_of(
                head.booster, rows.features[:, list(head.spec.features)], head.facts["rounds"]
            )
        chances.append(sigmoid(head.spec.intercept + head.spec.slope * margin))
    return joined(chances)


def measured(rows: Rows, chance: Floats) -> list[float]:
    """Average precision at 8 h and at 24 h, log loss at 8 h."""
    of = targets(rows)
    (known_8h, came_8h), (known_24h, came_24h) = of["liquidation_8h"], of["liquidation_24h"]
    eight = np.clip(chance[known_8h, 1], 1e-12, 1.0 - 1e-12)
    return [
        float(average_precision_score(came_8h[known_8h], eight)),
        float(average_precision_score(came_24h[known_24h], chance[known_24h, 2])),
        float(log_loss(came_8h[known_8h], eight)),
    ]


def markdown(found: dict[str, Any]) -> str:
    """One training part as a Markdown table."""
    table = {name: np.array(of) for name, of in found["figures"].items()}
    lines = [["", "8 h", "gain", "24 h", "gain", "log loss 8 h"]]
    for name, of in table.items():
        gains = [mean_and_error(of[:, k] - table[IN_PLACE][:, k]) for k in range(3)]
        told = ["" if name == IN_PLACE else f"{mean:+.4f} ± {error:.4f}" for mean, error in gains]
        lines.append([name, f"{of[:, 0].mean():.4f}", told[0], f"{of[:, 1].mean():.4f}", told[1], told[2]])
    title = f"Before {found['before'][:10]}: average precision over {found['folds']} folds"
    return f"## {title}\n\n{aligned(lines)}\n"


if __name__ == "__main__":
    sys.exit(main())
