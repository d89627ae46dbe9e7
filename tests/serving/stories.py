"""A small venue told in events, and a scorer whose answers can be reckoned by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np

from features import emit as figure
from features.venue import Vectors
from serving.codec import JSON
from serving.engine import Engine
from serving.ladder import Ladders, Levels
from serving.parts import PARTS
from serving.rows import Request, read_events
from serving.scorer import Scores
from serving.wire import EventsAnswer, ScoreRequest

START = datetime(2024, 3, 1, tzinfo=UTC)
Event = dict[str, Any]


class FakeReason(NamedTuple):
    code: str
    feature: str
    value: float
    contribution: float


class FakeScorer:
    """Risk falls with the margin ratio alone: within a day it is 1 / (1 + ratio^2)."""

    model_version = "fake-1"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score_at_once(self, ladders: Ladders) -> Scores:
        return self.score(ladders.vectors)

    def score(self, vectors: Vectors, _levels: Levels | None = None) -> Scores:
        self.calls.append(len(vectors.account))
        figures = vectors.figures
        ratio = np.maximum(figures[:, figure.MARGIN_RATIO], 0.0)
        day = 1.0 / (1.0 + ratio * ratio)
        stale = figures[:, figure.MARK_AGE_S] > 3_600.0
        fallback = [
            "missing_collateral" if math.isnan(value) else "stale_mark" if old else None
            for value, old in zip(ratio.tolist(), stale.tolist(), strict=True)
        ]
        static = figures[:, figure.STATIC_INITIAL_RATE]
        return Scores(
            account=vectors.account,
            pd=np.column_stack([day / 4, day / 2, day, day / 8]),
            expected_loss_usd=0.01 * day * figures[:, figure.GROSS_NOTIONAL_USD],
            static_initial_rate=static,
            initial_rate=np.where(np.isnan(day), static, static + 0.1 * np.nan_to_num(day)),
            maintenance_rate=figures[:, figure.STATIC_MAINTENANCE_RATE],
            warning=1.2 - ratio,
            parts=np.zeros((len(static), PARTS)),
            fallback=fallback,
        )

    def reasons(
        self, vectors: Vectors, scores: Scores, all_rows: bool = False
    ) -> list[tuple[FakeReason, ...]]:
        return [
            (FakeReason("MARGIN_RATIO", "margin_ratio", float(row[figure.MARGIN_RATIO]), 0.5),)
            for row in vectors.figures
        ]


def at(minutes: float) -> str:
    """A time so many minutes into the venue's life."""
    return (START + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def market(name: str = "BTC", minutes: float = 0, **terms: Any) -> Event:
    return {
        "table": "markets",
        "time": at(minutes),
        "market": name,
        "tick_size": 0.1,
        "lot_size": 0.001,
        "taker_fee_rate": 0.0005,
        "liquidation_fee_rate": 0.01,
        "funding_interval_s": 3600,
        "tiers": [
            {"notional_cap_usd": 100_000.0, "initial_margin_rate": 0.1, "maintenance_margin_rate": 0.05},
            {"notional_cap_usd": None, "initial_margin_rate": 0.2, "maintenance_margin_rate": 0.1},
        ],
        **terms,
    }


def asset(name: str = "ETH", collateral_weight: float = 0.9, liability_weight: float = 1.1) -> Event:
    return {
        "table": "assets",
        "asset": name,
        "collateral_weight": collateral_weight,
        "liability_weight": liability_weight,
    }


def price(minutes: float, value: float, name: str = "ETH") -> Event:
    return {"table": "asset_prices", "time": at(minutes), "asset": name, "price": value}


def bar(minutes: float, mark: float, name: str = "BTC") -> Event:
    return {"table": "market_bars", "time": at(minutes), "market": name, "mark_close": mark}


def book(minutes: float, mid: float, name: str = "BTC") -> Event:
    return {
        "table": "book_depth",
        "time": at(minutes),
        "market": name,
        "best_bid": mid * 0.9999,
        "best_ask": mid * 1.0001,
        "distance_bps": [10.0, 50.0, 200.0],
        "bid_usd": [1e4, 1e5, 1e6],
        "ask_usd": [2e4, 1e5, 8e5],
    }


def funding(minutes: float, rate: float, name: str = "BTC") -> Event:
    return {"table": "funding", "time": at(minutes), "market": name, "funding_rate": rate}


def account(name: str, minutes: float = 0, mode: str = "cross", owner: str | None = None) -> Event:
    return {
        "table": "accounts",
        "account_id": name,
        "opened_time": at(minutes),
        "owner_id": owner,
        "margin_mode": mode,
    }


def transfer(minutes: float, name: str, amount_usd: float, **more: Any) -> Event:
    return {"table": "transfers", "time": at(minutes), "account_id": name, "amount_usd": amount_usd, **more}


def fill(minutes: float, name: str, quantity: float, at_price: float, **more: Any) -> Event:
    return {
        "table": "fills",
        "time": at(minutes),
        "account_id": name,
        "market": "BTC",
        "quantity": quantity,
        "price": at_price,
        "fee_usd": 0.0,
        "kind": "trade",
        **more,
    }


def default(minutes: float, name: str, kind: str = "liquidation", **more: Any) -> Event:
    return {
        "table": "default_events",
        "time": at(minutes),
        "account_id": name,
        "kind": kind,
        "shortfall_usd": 0.0,
        **more,
    }


def rate(minutes: float, name: str, initial: float, maintenance: float) -> Event:
    return {
        "table": "margin_rates",
        "time": at(minutes),
        "account_id": name,
        "initial_margin_rate": initial,
        "maintenance_margin_rate": maintenance,
    }


def snapshot(minutes: float, name: str, equity_usd: float, **nested: Any) -> Event:
    return {
        "table": "account_snapshots",
        "time": at(minutes),
        "account_id": name,
        "equity_usd": equity_usd,
        "collateral_usd": equity_usd,
        "initial_margin_usd": 0.0,
        "maintenance_margin_usd": 0.0,
        **nested,
    }


def story() -> list[Event]:
    """A venue with three accounts, in the order in which its rows apply; they end open, open and flat."""
    return [
        market("BTC", 0),
        market("SOL", 0),
        asset("ETH"),
        price(0, 2_000.0),
        bar(1, 60_000.0),
        bar(1, 100.0, "SOL"),
        book(1, 60_000.0),
        account("ann", 1, owner="o1"),
        account("bob", 1, owner="o1"),
        account("cem", 1),
        transfer(2, "ann", 10_000.0),
        transfer(2, "bob", 3_000.0),
        transfer(2, "cem", 500.0),
        fill(3, "ann", 1.0, 60_000.0, fee_usd=30.0),
        fill(3, "bob", -0.5, 60_010.0),
        fill(3, "cem", 0.01, 60_000.0),
        bar(4, 60_300.0),
        bar(4, 101.0, "SOL"),
        funding(5, 0.0001),
        fill(6, "cem", -0.01, 60_300.0),
        rate(6, "bob", 0.15, 0.08),
        snapshot(
            7,
            "bob",
            2_900.0,
            positions=[
                {"market": "SOL", "quantity": 20.0, "entry_price": 100.0},
                {"market": "BTC", "quantity": -0.5, "entry_price": 60_010.0},
            ],
            balances=[{"asset": "USD", "amount": 1_000.0}, {"asset": "ETH", "amount": 0.5}],
        ),
        {"table": "observations", "time": at(7)},
        bar(8, 60_600.0),
        bar(8, 102.0, "SOL"),
    ]


def asked(events: list[Event], source: str | None = None) -> Request:
    """A request as it comes over the wire."""
    return read_events(msgspec.json.encode({"events": events, "source": source}))


def send(engine: Engine, events: list[Event], source: str | None = None) -> EventsAnswer:
    """Send events that must all be accepted."""
    answer = engine.take(asked(events, source))
    assert answer.rejected == []
    assert answer.accepted == len(events)
    return answer


def told(events: list[Event]) -> Engine:
    """An engine that has heard these events and nothing else."""
    engine = Engine(FakeScorer())
    send(engine, events)
    return engine


def question(account_id: str, **more: Any) -> ScoreRequest:
    """A question as it comes over the wire."""
    return JSON.decode(ScoreRequest, msgspec.json.encode({"account_id": account_id, **more}))
