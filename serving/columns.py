"""Which columns of the catalogue a model reads: what an answer of its can be computed again from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features import catalog
from models.bundle import Bundle
from serving.questions import Scoring
from serving.reasons import columns_of_reasons
from serving.scorer import Scorer


def columns_read(scorer: Scoring) -> npt.NDArray[np.int64]:
    """Columns that scoring and its reasons read, in order; all where it is not known."""
    if isinstance(scorer, Scorer):
        return columns_of(scorer.bundle)
    return np.arange(len(catalog.NAMES))


def columns_of(bundle: Bundle) -> npt.NDArray[np.int64]:
    """Columns of a bundle's trees, priors, warning and reasons, and those that it cannot do without."""
    names = {
        *bundle.model["required_features"],
        *(name for name in catalog.NAMES if name.startswith("prior_")),
        *(bundle.model.get("warning") or {}).get("features", ()),
    }
    read = {catalog.index(name) for name in names} | columns_of_reasons()
    for forest in bundle.trees.values():
        read.update(forest.feature[forest.feature >= 0].tolist())
    return np.array(sorted(read), np.int64)
