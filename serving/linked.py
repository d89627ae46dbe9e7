"""Accounts of one owner taken together: what each is asked is not under what the whole of them would be.

An account whose owner holds something in others too is asked at least

    the schedule's rate of its positions, at the tiers of what the owner holds in each market
    + the surcharge of the owner's whole, as far as the account is part of it

where the surcharge is what `serving.policy` asks beyond the schedule of all that the owner holds, as one
account. Summed over the accounts that is at least the margin in dollars of the one account, below 100%:
the schedule's parts add up to no less than its own, since sizes add up and tiers rise, and every dollar bears
the same surcharge. Positions that cancel between accounts count twice: netted, as one account would hold
them, and the larger side of each market alone, since a venue closes accounts and not owners; the dearer of
the two is asked.

The surcharge is taken, not the whole rate, or who keeps a thin coin apart from a liquid one would pay the
thin one's schedule on both. Where the whole cannot be judged an account is asked at least the rate in force,
and says so. An account that stands as it is keeps a rate that is in force: what another one adds is asked
where it is added, and of this one when it is asked about as entering.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from exchange.rates import ppm_up
from exchange.units import PPM, SECOND_US
from features import emit as figure
from features.emit import FEATURES, FIGURES
from features.handle import Handle
from features.state import NOW, State, new_portfolio
from features.venue import Vectors, Venue
from features.whole import Found, lay_together, new_held, new_wholes
from serving.judgement import MARK_LIFETIME_S
from serving.ladder import Ladder, Levels, Read, levels_of
from serving.parts import LINKED
from serving.scorer import Scores

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LINKED_UNKNOWN = "unknown_linked_accounts"
"""Why an account falls back that could be judged alone: what its owner holds in all of them cannot be."""

OWNERS_AT_ONCE = 1_024
"""Owners that are looked at together: what they take on the way is taken for these only."""

A_HAIR = 1e-12
"""What sums of the same dollars may differ by, as a rate."""


class Scoring(Protocol):
    """What is asked of a scorer here."""

    def score(self, vectors: Vectors, levels: Levels, /) -> Scores:
        """Score every row, looking at levels as far as they are needed."""


class Room:
    """Scratch for the wholes of a venue, kept from question to question; not for several threads at once."""

    def __init__(self, venue: Venue) -> None:
        markets, assets = len(venue.state.market), len(venue.state.asset)
        self.folio = new_portfolio(markets, assets)
        self.held, self.nothing = new_held(markets, assets), new_held(markets, assets)

    def fits(self, state: State) -> bool:
        """Whether there is a place for every market and asset."""
        return len(self.held.position) >= len(state.market) and len(self.held.amount) >= len(state.asset)


class Together(NamedTuple):
    """Rows that have linked accounts, each held against a whole; a row may come twice."""

    row: Integers  # of the accounts asked about
    whole: Integers  # row of `vectors`, -1 where none can be judged
    static_rate: Floats  # what the schedule asks of the account at its owner's tiers
    share: Floats  # share of the account's gross notional that is in the whole
    vectors: Vectors  # of the wholes, numbered from 0
    levels: Levels


def score_linked(scorer: Scoring, venue: Venue, vectors: Vectors, at_us: int | None = None) -> Scores:
    """Scores of accounts that this venue gave as it stands now (or as of `at_us`), linked ones together."""
    scores = scorer.score(vectors, levels_of(venue, vectors, at_us))
    for part in together(venue, Room(venue), vectors.account, at_us):
        scores = held_together(scores, vectors.figures, part, scorer.score(part.vectors, part.levels))
    return scores


def together(
    venue: Venue,
    room: Room,
    accounts: Integers,
    at_us: int | None = None,
    trial: State | None = None,
    older_s: float = 0.0,
) -> Iterator[Together]:
    """What holds accounts against their owners' wholes, in parts; nothing where none is linked.

    With a `trial` the only account of `accounts` is as that state's first one has it. `older_s` is added to
    ages, where the clock is ahead of the newest event.
    """
    state = venue.state
    chosen = accounts[accounts >= 0]
    owner = state.account["owner"][chosen].astype(np.int64)
    linked = (owner >= 0) & (state.owner["members"][owner] > 1)
    if not linked.any():
        return
    rows = np.flatnonzero(accounts >= 0)[linked]
    owner = owner[linked]
    order = np.argsort(owner, kind="stable")
    rows, owner = rows[order], owner[order]
    owners, counts = np.unique(owner, return_counts=True)
    ends = np.cumsum(counts)
    for first in range(0, len(owners), OWNERS_AT_ONCE):
        last = min(first + OWNERS_AT_ONCE, len(owners))
        begin = int(ends[first] - counts[first])
        some = rows[begin : int(ends[last - 1])]
        with venue.as_of(at_us):
            part = _laid(
                venue, room, owners[first:last], ends[first:last] - begin, accounts[some], trial, older_s
            )
        if len(part.row):
            yield part._replace(row=some[part.row])


def _laid(
    venue: Venue,
    room: Room,
    owners: Integers,
    ends: Integers,
    accounts: Integers,
    trial: State | None,
    older_s: float,
) -> Together:
    """Wholes of these owners; `row` is a place in `accounts`."""
    state = venue.state
    slots = 2 * len(owners) * max(len(venue.market_names), len(venue.asset_names), 1)
    out = new_wholes(state, 2 * len(owners), slots)
    most = 2 * len(accounts)
    found = Found(np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most), np.empty(most))
    now_us = int(state.clock[NOW]) + round(older_s * SECOND_US)
    lifetimes = np.array([now_us, round(MARK_LIFETIME_S * SECOND_US)], np.int64)
    wholes, count = lay_together(
        state,
        state if trial is None else trial,
        -1 if trial is None else int(accounts[0]),
        owners,
        ends,
        accounts,
        lifetimes,
        room.folio,
        room.held,
        room.nothing,
        out,
        found,
    )
    ladder = Ladder(Handle(out, room.folio))
    features, figures = np.empty((wholes, FEATURES)), np.empty((wholes, FIGURES))
    for whole in range(wholes):
        taken = ladder.handle.take(whole)
        assert taken, "a whole has positions"
        features[whole], figures[whole] = ladder.handle.both
    figures[:, [figure.MARK_AGE_S, figure.PRICE_AGE_S, figure.BOOK_AGE_S]] += older_s
    numbers = np.arange(wholes)

    def levels(rows: Integers, first: int, last: int) -> Floats:
        return ladder.levels(numbers[rows], figures[rows], first, last)

    return Together(
        found.row[:count],
        found.whole[:count],
        found.static_rate[:count],
        found.share[:count],
        Vectors(numbers, features, figures),
        levels,
    )


def held_together(scores: Scores, figures: Floats, part: Together, wholes: Scores) -> Scores:
    """Scores whose rates are not under what accounts are asked together; `wholes` are those of its wholes."""
    initial, parts, fallback = scores.initial_rate.copy(), scores.parts.copy(), list(scores.fallback)
    beyond = wholes.initial_rate - wholes.static_initial_rate
    for row, whole, static, share in zip(*(column.tolist() for column in part[:4]), strict=True):
        in_force = float(figures[row, figure.FIGURE_INITIAL_IN_FORCE])
        if not math.isnan(in_force) and figures[row, figure.ENTERS] == 0.0:
            continue
        asked = static
        if whole >= 0 and wholes.fallback[whole] is None:
            asked += share * float(beyond[whole])
        elif whole >= 0:
            asked = max(asked, in_force) if in_force > 0.0 else asked
            fallback[row] = fallback[row] or LINKED_UNKNOWN
        own = float(initial[row])
        if asked > own + A_HAIR:  # in whole ppm, rounded up
            most = max(float(scores.static_initial_rate[row]), 1.0)
            initial[row] = max(own, min(ppm_up(min(asked, most)) / PPM, most))
            parts[row, LINKED] += ppm_up(float(initial[row])) - ppm_up(own)
    return scores._replace(initial_rate=initial, parts=parts, fallback=fallback)


def only(part: Together, row: int) -> Together | None:
    """What holds one of the rows, which is then row 0, with its own wholes only; None where nothing does."""
    places = np.flatnonzero(part.row == row)
    if len(places) == 0:
        return None
    wholes = np.unique(part.whole[places][part.whole[places] >= 0])
    return Together(
        np.zeros(len(places), np.int64),
        np.where(part.whole[places] >= 0, np.searchsorted(wholes, part.whole[places]), -1),
        part.static_rate[places],
        part.share[places],
        part.vectors.where(wholes),
        _levels_read(part.levels, wholes),
    )


def _levels_read(levels: Levels, wholes: Integers) -> Levels:
    """Levels of some wholes; those that were kept as they were read need no table any more."""
    if isinstance(levels, Read):
        return levels_kept([levels.parts[whole] for whole in wholes.tolist()])
    return lambda rows, first, last: levels(wholes[rows], first, last)


def levels_kept(parts: Sequence[Sequence[Floats]]) -> Levels:
    """Levels from what was read of each row, from the lowest up."""
    rows_of = [np.concatenate([np.empty((0, FEATURES)), *read]) for read in parts]
    return lambda rows, first, last: np.stack([rows_of[row][first:last] for row in rows.tolist()])


def any_linked(venue: Venue, account: int) -> bool:
    """Whether an account's owner has others."""
    state = venue.state
    owner = int(state.account["owner"][account]) if account >= 0 else -1
    return owner >= 0 and int(state.owner["members"][owner]) > 1
