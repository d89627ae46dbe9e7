"""`perprisk serve`: a verified model, the state that a dataset ends in, the event log, and uvicorn."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from exchange.errors import InputError
from features import catalog
from features.venue import Venue
from models.bundle import Bundle
from pipelines.events import event_batches
from pipelines.progress import progress
from pipelines.store import Dataset
from serving import logs
from serving.alert import chosen_levels
from serving.alerts import Alerts
from serving.app import create_app
from serving.engine import Engine
from serving.log import EventLog
from serving.questions import Scoring
from serving.rows import read_events
from serving.scorer import Scorer
from serving.service import Service
from serving.wire import ModelAnswer, Order, ScoreRequest

LOG_FOLDER = "PERPRISK_EVENT_LOG"
"""Environment variable that names the folder of event logs; without it, DEFAULT_LOG_FOLDER."""

_log = logging.getLogger("perprisk.serving")

DEFAULT_LOG_FOLDER = "perprisk-events"
GRACE_S = 5
"""Seconds that answers under way get when the service is asked to end."""


def run(
    model: Path, dataset: Path | None, clock: str, host: str, port: int, alerts: Sequence[str] = ()
) -> int:
    """Serve until asked to end (SIGTERM or SIGINT).

    `clock` is `event` or `wall`, `alerts` thresholds such as `critical=0.3`. Raises InputError for a model,
    dataset, log, address or threshold that cannot be used; only addresses of this machine itself can.
    """
    logs.set_up()
    chosen = chosen_levels(alerts)
    bundle = Bundle.open(model, catalog.fingerprint())
    about = ModelAnswer(bundle.model_version, bundle.fingerprint, bundle.card)
    with closing(bind(host, port)) as listener:
        engine = start_engine(Scorer(bundle), dataset, clock)
        serve(engine, about, listener, Alerts(engine, chosen))
    return 0


def start_engine(scorer: Scoring, dataset: Path | None, clock: str) -> Engine:
    """An engine in the state that the dataset ends in, with the events that were logged since."""
    _warm_up(scorer)
    venue, quote_asset = Venue(), "USD"
    if dataset is not None:
        quote_asset = _warm(venue, dataset)
    log = _open_log(venue, quote_asset)
    engine = Engine(scorer, _wall_us if clock == "wall" else None, venue, log, quote_asset)
    if log.dropped:
        print(f"warning: {log.path}: {log.dropped} bytes of a torn record were dropped", file=sys.stderr)
    if engine.sequence:
        print(f"{engine.sequence} events recovered from {log.path}", file=sys.stderr)
    return engine


def serve(engine: Engine, about: ModelAnswer, listener: socket.socket, alerts: Alerts | None = None) -> None:
    """Answer on a bound socket until asked to end."""
    app = create_app(Service(engine, about, alerts=alerts))
    # what lives now lives to the end: a full collection over it would stop answers for its duration
    gc.collect()
    gc.freeze()
    server = _Server(
        uvicorn.Config(
            app,
            loop="uvloop" if sys.platform != "win32" else "asyncio",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    about_it = {"model_version": about.model_version, "sequence": engine.sequence}
    _log.info("the service starts", extra=about_it)
    with _ending_quietly():
        server.run(sockets=[listener])
    _log.info("the service has ended", extra={"sequence": engine.sequence})


def _warm(venue: Venue, path: Path) -> str:
    """Apply a whole dataset; its quote asset."""
    dataset = Dataset.open(path, "accounts")
    with progress(None, "reading the dataset") as bar:
        for batch in event_batches(dataset, None, venue):
            venue.apply(batch)
            bar.advance(1)
    return dataset.meta.quote_asset


def _open_log(venue: Venue, quote_asset: str) -> EventLog:
    """The log of events that came after this very state; every state to begin with has its own."""
    names = [venue.market_names, venue.asset_names, venue.account_names, venue.owner_names]
    beginning = json.dumps([venue.digest(), quote_asset, *names]).encode()
    owner = hashlib.sha256(beginning).hexdigest()
    folder = Path(os.environ.get(LOG_FOLDER) or DEFAULT_LOG_FOLDER)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: events cannot be logged here ({error.strerror}); {LOG_FOLDER} names another folder"
        ) from error
    return EventLog.open(folder / f"events-{owner[:16]}.log", owner.encode())


def _warm_up(scorer: Scoring) -> None:
    """Ask every kind of question once, so that the first caller does not wait for code to be compiled."""
    engine = Engine(scorer)
    engine.take(read_events(json.dumps({"events": _WARM_UP}).encode()))
    engine.score(ScoreRequest("a", explain=True, cure=True))
    engine.score(ScoreRequest("a", orders=[Order("M", 0.1)]))
    engine.account("a")


def _at(minute: int) -> dict[str, str]:
    return {"time": f"2024-01-01T00:{minute:02}:00Z"}


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


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving on http://{shown}:{port}", file=sys.stderr, flush=True)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address of this machine itself; port 0 takes a free one."""
    address = "127.0.0.1" if host == "localhost" else host
    if not _is_loopback(address):
        raise InputError(f"--host: {host!r} is not an address of this machine itself; others need keys")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise InputError(f"--port: cannot listen on {host}:{port} ({error.strerror})") from error
    return listener


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the service and nothing more: uvicorn raises them again once it is down."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wall_us() -> int:
    return time.time_ns() // 1_000
