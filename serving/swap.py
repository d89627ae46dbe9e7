"""Another model in the place of the one that answers, while it answers.

The folder that the service was given is looked at once a second. When its manifest has changed, the new
model is read and verified as at the start, and tried out on accounts as they stand. Only one that gives
numbers wherever the old one does takes over, between two questions; any other is refused, and the old one
goes on. A model that fails once it answers is taken out again: the last good one comes back by itself, and
the one that failed is not tried again until the folder changes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from exchange.errors import PerpriskError, WorkError
from features.emit import FEATURES, FIGURES
from serving.engine import Engine
from serving.ladder import ROWS, Ladder, Ladders, stacked
from serving.questions import Scoring
from serving.scorer import Scores
from serving.wire import ModelAnswer

LOOK_S = 1.0
PROBES = 256
"""Accounts that a new model is tried out on."""

_log = logging.getLogger("perprisk.serving")


class Candidate(NamedTuple):
    """A model that was read and verified."""

    scorer: Scoring
    about: ModelAnswer


Opens = Callable[[], Candidate]


class ModelWatch:
    """The model that answers, the last good one before it, and the folder that a next one may come from."""

    def __init__(self, engine: Engine, first: Candidate, path: Path, opens: Opens) -> None:
        """`opens` reads the folder at `path`; raises PerpriskError for what is no model of this version."""
        self._engine = engine
        self._now = first
        self._before: Candidate | None = None
        self._manifest = path / "manifest.json"
        self._opens = opens
        self._seen = self._stamp()
        self.swaps = 0
        self.refusals = 0
        self.returns = 0
        self.refused: str | None = None
        """Why the model that lies in the folder does not answer; None where it does."""

    @property
    def about(self) -> ModelAnswer:
        """The model that answers."""
        return self._now.about

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take over the folder's model if it is another one and a good one."""
        stamp = self._stamp()
        if stamp == self._seen or stamp is None:  # between two renames there may be none
            return
        self._seen = stamp
        probes = self._probes()
        ours = self._now.scorer.score_at_once(probes)  # here: a scorer is for one thread
        try:
            candidate = await asyncio.to_thread(self._tried, probes, ours)
        except PerpriskError as fault:
            self._refuse(str(fault))
            return
        except Exception as fault:  # whatever a damaged model does, the old one goes on
            self._refuse(f"{type(fault).__name__}: {fault}")
            return
        if candidate.about.model_version != self._now.about.model_version:
            self._before, self._now = self._now, candidate
            self._engine.scorer = candidate.scorer
            self.swaps += 1
            _log.warning("model %s answers now", candidate.about.model_version)
        self.refused = None

    def give_back(self, fault: str) -> bool:
        """Bring the last good model back, because the present one has failed; False where there is none."""
        if self._before is None:
            return False
        failed = self._now.about.model_version
        self._now, self._before = self._before, None
        self._engine.scorer = self._now.scorer
        self.returns += 1
        self._refuse(
            f"model {failed} failed while it answered ({fault}); {self._now.about.model_version} is back"
        )
        return True

    def _refuse(self, fault: str) -> None:
        self.refusals += 1
        self.refused = " ".join(fault.split())[:500]
        _log.error("a new model was refused: %s", self.refused)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._manifest)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _probes(self) -> Ladders:
        """Accounts as they stand now and with each margin level, spread over all of them."""
        venue = self._engine.venue
        ladder = Ladder(venue.handle())
        step = max(len(venue.account_names) // PROBES, 1)
        found = (ladder.take(key, key) for key in range(0, len(venue.account_names), step))
        return stacked([one for one in found if one is not None]) or Ladders(
            np.empty(0, np.int64), np.empty((0, ROWS, FEATURES)), np.empty((0, FIGURES))
        )

    def _tried(self, probes: Ladders, ours: Scores) -> Candidate:
        """The folder's model, tried out on rows that the present one scored; raises what is against it."""
        candidate = self._opens()
        theirs = candidate.scorer.score_at_once(probes)
        known = ~np.isnan(ours.pd).any(axis=1)
        pd = theirs.pd[known]
        if np.isnan(pd).any():
            raise WorkError(f"gives no number for {np.isnan(pd).any(axis=1).sum()} of {len(pd)} accounts")
        if not ((pd >= 0.0) & (pd <= 1.0)).all() or not (np.diff(pd[:, :3], axis=1) >= 0.0).all():
            raise WorkError("gives probabilities outside [0, 1], or that fall with the horizon")
        fallen = sum(
            old is None and new is not None for old, new in zip(ours.fallback, theirs.fallback, strict=True)
        )
        if fallen:
            raise WorkError(f"falls back for {fallen} of {len(pd)} accounts that the present one scores")
        if not (theirs.initial_rate[known] >= theirs.static_initial_rate[known]).all():
            raise WorkError("suggests less than the schedule")
        return candidate
