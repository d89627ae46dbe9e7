"""Every kind of question once, so that no caller waits for code to be compiled."""

from __future__ import annotations

import json
from datetime import datetime

from serving.engine import Engine
from serving.questions import Scoring
from serving.rows import read_events
from serving.wire import BatchRequest, Order, ScoreRequest, to_us


def warm_up(scorer: Scoring) -> None:
    """Ask them of a venue made up for it."""
    engine = Engine(scorer, clock=lambda: _NOW_US)  # by a clock, so that what is known grows older too
    engine.take(read_events(json.dumps({"events": _WARM_UP}).encode()))
    engine.take(read_events(json.dumps({"source": "w", "events": _USUAL}).encode()))
    engine.score(ScoreRequest("a", explain=True, cure=True))
    engine.score_batch(BatchRequest(["a"]))
    engine.score(ScoreRequest("a", orders=[Order("M", 0.1)]))
    engine.account("a")


def _at(minute: int) -> dict[str, str]:
    return {"time": f"2024-01-01T00:{minute:02}:00Z"}


_NOW_US = to_us(datetime(2024, 1, 1, 0, 20))

# A market with prices and a book, and an account near its liquidation.
_WARM_UP = [
    {
        **_at(0),
        "table": "markets",
        "market": "M",
        "tick_size": 0.1,
        "lot_size": 0.1,
        "taker_fee_rate": 0.0,
        "liquidation_fee_rate": 0.0,
        "funding_interval_s": 3600,
        "tiers": [{"initial_margin_rate": 0.1, "maintenance_margin_rate": 0.05}],
    },
    *(
        {**_at(minute), "table": "market_bars", "market": "M", "mark_close": 100.0 + minute % 2,
         "index_close": 100.0, "open_interest_usd": 1e6}
        for minute in range(10)
    ),
    {**_at(9), "table": "funding", "market": "M", "funding_rate": 1e-5},
    {**_at(9), "table": "book_depth", "market": "M", "best_bid": 100.9, "best_ask": 101.1,
     "distance_bps": [10.0, 500.0], "bid_usd": [1e4, 1e6], "ask_usd": [1e4, 1e6]},
    {**_at(9), "table": "account_snapshots", "account_id": "a", "equity_usd": 11.0, "collateral_usd": 11.0,
     "initial_margin_usd": 20.0, "maintenance_margin_usd": 10.0,
     "positions": [{"market": "M", "quantity": 2.0, "entry_price": 100.0}],
     "balances": [{"asset": "USD", "amount": 10.0}]},
]  # fmt: skip

# What comes all day, in the order in which a source would number it.
_USUAL = [
    {**_at(10), "table": "market_bars", "market": "M", "mark_close": 100.0,
     "index_close": 100.0, "sequence": 1},
    {**_at(11), "table": "transfers", "account_id": "a", "amount_usd": 1.0, "sequence": 2},
    {**_at(12), "table": "fills", "account_id": "a", "market": "M", "quantity": 0.1, "price": 100.0,
     "fee_usd": 0.0, "kind": "trade", "sequence": 3},
]  # fmt: skip
