"""`perprisk stress`: the book of a moment under scenarios; stress.json, a page and its pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from features import catalog
from features.state import SIGMA_AHEAD_24H, SIGMA_SLOW
from features.venue import Vectors, Venue
from models.bundle import Bundle
from pipelines.output import atomic_dir, check_folder
from pipelines.progress import progress
from pipelines.replay import replay
from pipelines.score import check_within
from pipelines.store import Dataset
from pipelines.stress_book import Standing, standing_of
from pipelines.stress_findings import book_of, findings, risks, tail_scenarios
from pipelines.stress_page import render
from pipelines.stress_picture import pictures
from pipelines.stress_prices import past_of
from pipelines.stress_scenarios import Chance, World, world_of
from pipelines.stress_workers import crew_of
from pipelines.times import format_time
from serving.linked import score_linked
from serving.scorer import Scorer

Json = dict[str, Any]

MARKER, PAGE = "stress.json", "report.html"


def run(dataset: Path, model: Path, at_us: int, out: Path, scenarios: int, seed: int) -> int:
    """Stress the book of a dataset at a time and write what came of it to the folder `out`."""
    check_folder(out, MARKER)
    history = Dataset.open(dataset, "accounts")
    check_within(history, at_us, at_us)
    scorer = Scorer(Bundle.open(model, catalog.fingerprint()))
    with progress(None, "reading the history"):
        _, vectors, venue = next(iter(replay(history, np.array([at_us], np.int64))))
        standing = standing_of(venue, history, at_us)
        world = _world(venue, history, standing, at_us)
        chance = Chance(world, _sigma(venue, standing), seed)
    card = {
        "venue": history.meta.venue,
        "time": format_time(at_us),
        "model_version": scorer.model_version,
        "seed": seed,
        "degrees_of_freedom": chance.freedom,
        **stressed(chance, scorer, venue, vectors, at_us, scenarios, seed),
    }
    with atomic_dir(out, MARKER) as folder:
        images = pictures(card)
        (folder / MARKER).write_text(json.dumps(_plain(card), indent=1, allow_nan=False) + "\n")
        for name, png in images.items():
            (folder / f"{name}.png").write_bytes(png)
        (folder / PAGE).write_text(render(card, images), encoding="utf-8")
    print(summary(card))
    print(f"report: {out / PAGE}", file=sys.stderr)
    return 0


def stressed(
    chance: Chance, scorer: Scorer, venue: Venue, vectors: Vectors, at_us: int, count: int, seed: int
) -> Json:
    """All scenarios through the book, and what they say together."""
    with crew_of(chance) as crew:
        standing, told, rows = crew.scenarios.standing, crew.scenarios.told, []
        with progress(len(told) + count, "stressing") as bar:
            for row in crew.rows(count):
                rows.append(row)
                bar.advance(1)
        with progress(None, "asking what would have prevented it"):
            tail = tail_scenarios(told, rows, chance)
            scores = score_linked(scorer, venue, vectors, at_us)
            return {
                "book": book_of(standing),
                "assumed": list(standing.assumed),
                "risk": risks(rows[len(told) :], seed),
                "tail": tail.words,
                **findings(crew, venue.account_names, tail, scores),
                "scenarios": rows,
            }


def summary(card: dict[str, Any]) -> str:
    """The figures that are looked at first, as text."""
    risk = card["risk"]
    lines = [
        f"{card['venue']} at {card['time']}: {card['book']['accounts']:,} accounts, "
        f"fund {card['book']['fund_usd']:,.0f} USD, {len(card['scenarios']):,} scenarios",
        f"{'a day of chance':34s}{'95%':>16s}{'99%':>16s}{'shortfall 99%':>16s}",
    ]
    for key, words in (
        ("liquidated_notional_usd", "liquidated notional, USD"),
        ("liquidated_accounts", "liquidated accounts"),
        ("insurance_draw_usd", "paid by the fund, USD"),
        ("shortfall_usd", "loss beyond equity, USD"),
    ):
        figure = risk[key]
        lines.append(f"{words:34s}{figure['var_95']:16,.0f}{figure['var_99']:16,.0f}{figure['es_99']:16,.0f}")
    return "\n".join(lines)


def _world(venue: Venue, history: Dataset, standing: Standing, at_us: int) -> World:
    past = past_of(history, standing.markets, at_us)
    market = venue.state.market["underlying"][: len(standing.markets)].tolist()
    asset = venue.state.asset["underlying"][: len(standing.assets)].tolist()
    return world_of(standing, past, market, asset)


def _sigma(venue: Venue, standing: Standing) -> Any:
    """By market, per root of a second: the forecast for a day, and the slow level where that is higher."""
    sigma = venue.state.market["sigma"][: len(standing.markets)]
    ahead = np.fmax(sigma[:, SIGMA_AHEAD_24H], sigma[:, SIGMA_SLOW])
    return np.where(ahead > 0.0, ahead, np.sqrt(standing.book.variance / 60.0))


def _plain(value: Any) -> Any:
    """Numbers that JSON has a word for; what is not known becomes null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
