"""What scenarios say together: risk, who matters, who is deleveraged, what would have prevented it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.stress.book import Shock
from exchange.stress.pools import COLLATERAL, EQUITY, GROSS, INITIAL, MAINTENANCE
from pipelines.stress_book import Standing
from pipelines.stress_margin import (
    MULTIPLES,
    at_multiple,
    bearing,
    deposits,
    least_deposit,
    least_multiple,
    same_money,
    shortfall,
    shortfall_without,
)
from pipelines.stress_measures import risk, tail_of
from pipelines.stress_runs import DUST_USD, Bearing, nothing
from pipelines.stress_scenarios import Chance, Scenario
from pipelines.stress_workers import Crew
from serving.scorer import REASONS_FROM_PD_24H, Scores

Floats = npt.NDArray[np.float64]
Json = dict[str, Any]

LEVEL = 0.99
MOST_IN_TAIL = 20
"""Scenarios that are gone through again for every question."""
TOP = 10
MEASURED = (
    "liquidated_notional_usd", "liquidated_accounts", "negative_accounts", "insurance_draw_usd",
    "shortfall_usd", "deleveraged_notional_usd",
)  # fmt: skip
DISASTERS = ("known crash", "incident", "failure")


class Tail(NamedTuple):
    """The scenarios in which losses are looked into."""

    scenarios: list[Scenario]
    edge: Scenario
    """Of the days in the tail the mildest; where the tail is of disasters, the worst of them."""
    words: Json


def risks(rows: Sequence[Json], seed: int) -> Json:
    """Value at risk and expected shortfall over the days of chance."""
    return {name: risk(np.array([row[name] for row in rows], float), seed) for name in MEASURED}


def tail_scenarios(told: Sequence[Scenario], rows: Sequence[Json], chance: Chance) -> Tail:
    """The worst hundredth of the days of chance; where none of it costs anybody, the disasters that do."""
    losses = np.array([row["shortfall_usd"] for row in rows[len(told) :]])
    worst = tail_of(losses, LEVEL)
    costly = worst[losses[worst] > DUST_USD]
    if len(costly):
        words = f"the worst {len(worst):,} of {len(losses):,} days of chance"
        if len(costly) < len(worst):
            words += f", of which {len(costly)} cost anything"
        edge = chance.day(int(costly[-1]))
        chosen = [chance.day(number) for number in costly[:MOST_IN_TAIL].tolist()]
        return Tail(chosen, edge, _told("chance", words, edge))
    cost = [row["shortfall_usd"] if row["family"] in DISASTERS else 0.0 for row in rows[: len(told)]]
    order = np.argsort(-np.array(cost), kind="stable")[:MOST_IN_TAIL].tolist()
    found = [told[number] for number in order if cost[number] > DUST_USD]
    words = "known crashes, incidents and failures that cost something, as the days of chance do not"
    edge = found[0] if found else told[0]
    return Tail(found or [told[0]], edge, _told("disasters" if found else "none", words, edge))


def _told(basis: str, words: str, edge: Scenario) -> Json:
    return {"basis": basis, "words": words, "edge": edge.name, "edge_title": edge.title}


def book_of(standing: Standing) -> Json:
    """The book as it stands, in figures."""
    book, gross = standing.book, standing.figures[:, GROSS]
    side = np.zeros((len(standing.markets), 2))
    notional = book.quantity * book.mark[book.market]
    np.add.at(side, (book.market, (notional < 0.0).astype(int)), np.abs(notional))
    return {
        "accounts": len(np.unique(standing.account)),
        "positions": len(book.market),
        "gross_notional_usd": float(gross.sum()),
        "equity_usd": float(standing.figures[:, EQUITY].sum()),
        "fund_usd": float(book.fund_usd[0]),
        "open_interest_usd": float(standing.open_interest_usd.sum()),
        "left_out": list(standing.left_out),
        "markets": [
            {
                "market": name, "mark": float(book.mark[key]), "long_usd": float(side[key, 0]),
                "short_usd": float(side[key, 1]), "bids_within_1pct_usd": float(book.depth_usd[key, 0]),
                "asks_within_1pct_usd": float(book.depth_usd[key, 1]),
            }
            for key, name in enumerate(standing.markets)
        ],
    }  # fmt: skip


def findings(crew: Crew, names: Sequence[str], tail: Tail, scores: Scores) -> Json:
    """Who matters in the tail, who is deleveraged, what margin would have helped, what the model says.

    `names` are the venue's, by its ids of accounts.
    """
    standing = crew.scenarios.standing
    shocks = [scenario.shock for scenario in tail.scenarios]
    total = nothing(standing)
    for borne in [crew.ask(bearing, shock) for shock in shocks]:
        total = total.plus(borne())
    mean = Bearing._make(column / len(shocks) for column in total)
    people = _People(standing, names, scores)
    # everything is asked before any answer is waited for
    accounts = _accounts(people, mean, shocks, tail.edge.shock, crew)
    margin = _margin(people, shocks, tail, crew)
    return {
        "accounts": accounts(),
        "deleveraged": _deleveraged(people, mean),
        "margin": margin(),
        "by_risk": _by_risk(people, mean),
    }


class _People:
    """Accounts of the book: their pools, and what the model says of them."""

    def __init__(self, standing: Standing, names: Sequence[str], scores: Scores) -> None:
        self.standing, self.names = standing, names
        self.ids, self.of_pool = np.unique(standing.account, return_inverse=True)
        row = {key: number for number, key in enumerate(scores.account.tolist())}
        place = np.array([row[key] for key in self.ids.tolist()])
        self.pd = scores.pd[place, 2]
        self.static, self.suggested = scores.static_initial_rate[place], scores.initial_rate[place]
        self.gross = self.total(standing.figures[:, GROSS])

    def total(self, by_pool: Floats) -> Floats:
        return np.bincount(self.of_pool, by_pool, len(self.ids)).astype(np.float64)

    def pools(self, number: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.of_pool == number)

    def top(self, by_account: Floats) -> list[int]:
        order = np.argsort(-by_account, kind="stable")[:TOP].tolist()
        return [number for number in order if by_account[number] > DUST_USD]

    def about(self, number: int) -> Json:
        pools = self.pools(number)
        figures = self.standing.figures[pools]
        return {
            "account_id": self.names[int(self.ids[number])],
            "equity_usd": float(figures[:, EQUITY].sum()),
            "gross_notional_usd": float(self.gross[number]),
            "collateral_over_maintenance": float(np.min(figures[:, COLLATERAL] / figures[:, MAINTENANCE])),
            "pd_liquidation_24h": float(self.pd[number]),
            "static_initial_margin_rate": float(self.static[number]),
            "initial_margin_rate": float(self.suggested[number]),
        }


def _accounts(
    people: _People, mean: Bearing, shocks: Sequence[Shock], edge: Shock, crew: Crew
) -> Callable[[], list[Json]]:
    """Those whose losses others bear most: their part, what is left without them, what they would bring."""
    by_account = people.total(mean.shortfall_usd)
    whole = float(by_account.sum())
    top = people.top(by_account)
    asked = [
        (crew.ask(shortfall_without, shocks, pools), crew.ask(least_deposit, edge, pools))
        for pools in map(people.pools, top)
    ]

    def told() -> list[Json]:
        return [
            {
                **people.about(number),
                "shortfall_usd": float(by_account[number]),
                "share_of_shortfall": float(by_account[number]) / whole,
                "shortfall_without_it_usd": left(),
                "additional_margin_usd": deposit(),
            }
            for number, (left, deposit) in zip(top, asked, strict=True)
        ]

    return told


def _deleveraged(people: _People, mean: Bearing) -> list[Json]:
    by_account = people.total(mean.deleveraged_usd)
    loss = people.total(mean.deleveraging_loss_usd)
    return [
        {
            **people.about(number),
            "deleveraged_notional_usd": float(by_account[number]),
            "share_of_its_notional": float(by_account[number] / people.gross[number]),
            "deleveraging_loss_usd": float(loss[number]),
        }
        for number in people.top(by_account)
    ]


def _margin(people: _People, shocks: Sequence[Shock], tail: Tail, crew: Crew) -> Callable[[], Json]:
    """Shortfall against margin: uniform multiples, and what the model suggests beside the same money."""
    standing = people.standing
    gross, initial = standing.figures[:, GROSS], standing.figures[:, INITIAL]
    rate = np.fmax(np.nan_to_num(people.suggested), np.nan_to_num(people.static))[people.of_pool]
    asked = deposits(standing, np.where((rate > 0.0) & (gross > 0.0), np.maximum(rate * gross, initial), 0.0))
    even = same_money(standing, float(asked.sum()))
    at_edge = crew.ask(least_multiple, tail.edge.shock)
    curve = []
    for multiple in MULTIPLES:
        brought = at_multiple(standing, multiple)
        curve.append((multiple, float(brought.sum()), crew.ask(shortfall, shocks, brought)))
    with_asked = crew.ask(shortfall, shocks, asked)
    with_even = crew.ask(shortfall, shocks, at_multiple(standing, even))

    def told() -> Json:
        return {
            "multiple_at_edge": at_edge(),
            "curve": [
                {"multiple": multiple, "brought_usd": brought, "shortfall_usd": left()}
                for multiple, brought, left in curve
            ],
            "suggested": {
                "brought_usd": float(asked.sum()),
                "shortfall_usd": with_asked(),
                "same_money_evenly_multiple": even,
                "same_money_evenly_shortfall_usd": with_even(),
            },
        }

    return told


def _by_risk(people: _People, mean: Bearing) -> Json:
    """Shares of what the tail cost by tenths of the accounts, from the riskiest by the model down."""
    loss, closed = people.total(mean.shortfall_usd), people.total(mean.liquidated_usd)
    order = np.argsort(-np.nan_to_num(people.pd), kind="stable")
    parts = np.array_split(order, 10)
    likely = np.nan_to_num(people.pd) >= REASONS_FROM_PD_24H
    more = people.suggested > people.static
    return {
        "tenths": [
            {
                "accounts": len(part),
                "least_pd_liquidation_24h": float(np.nan_to_num(people.pd[part]).min())
                if len(part)
                else None,
                "share_of_shortfall": _share(loss, part),
                "share_of_liquidated": _share(closed, part),
                "share_of_notional": _share(people.gross, part),
            }
            for part in parts
        ],
        "likely": {"accounts": int(likely.sum()), "share_of_shortfall": _share(loss, likely)},
        "asked_more": {"accounts": int(more.sum()), "share_of_shortfall": _share(loss, more)},
    }


def _share(values: Floats, part: npt.NDArray[Any]) -> float | None:
    total = float(values.sum())
    return float(values[part].sum()) / total if total > DUST_USD else None
