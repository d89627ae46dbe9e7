"""One process that answers for a venue: its engine, its service, its doors, until it is asked to end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import uvicorn

from exchange.errors import WorkError
from features import catalog
from models.bundle import Bundle
from models.signature import read_public_key
from pipelines.audit import open_audit
from pipelines.keys import open_keys
from pipelines.warmup import warm_up
from serving import logs, snapshot
from serving.alert import chosen_levels
from serving.alerts import Alerts
from serving.board import BEAT_S, FAILED, READY, Board
from serving.engine import Engine
from serving.front import Front
from serving.http import server_config
from serving.log import EventLog
from serving.questions import Scoring
from serving.scorer import Scorer
from serving.service import Service
from serving.shared_log import SharedLog
from serving.snapshot import Snapshot
from serving.swap import Candidate, ModelWatch
from serving.wire import ModelAnswer, RefusalError

_log = logging.getLogger("perprisk.serving")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable by which workers are told where they add their metrics up."""

GRACE_S = 5
"""Seconds that answers under way get when the service is asked to end."""

SNAPSHOT_EVENTS = 1_000_000
"""A snapshot is written whenever so many events have come since the last one."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """All that one worker is told; goes to a process of its own as JSON."""

    model: str
    clock: str
    log: str
    owner: str
    quote_asset: str
    beginning: str | None = None
    """Snapshot of the state that the log begins with; None for a venue of which nothing is known."""
    door: int
    """Descriptor of the socket that HTTP connections come from."""
    unix_door: int | None = None
    """Descriptor of the Unix socket that frames come from."""
    keys: str | None = None
    audit: str = "off"
    alerts: tuple[str, ...] = ()
    trust: str | None = None
    """File of the public key that models must be signed with."""
    certificates: tuple[str, str] | None = None
    """Files of the chain and its key, for TLS."""
    worker: int = 0
    workers: int = 1
    board: int | None = None
    supervisor: int | None = None
    """Process whose end is this one's end."""


def answer(setting: Setting, known: Snapshot | None = None) -> int:
    """Answer until SIGTERM or SIGINT, or until the supervisor is there no more.

    `known`: the state that the log begins with, where this process has it at hand. Raises InputError for a
    model, log, key file or folder that cannot be used.
    """
    logs.set_up()
    levels = chosen_levels(setting.alerts)
    path, trust = Path(setting.model), None if setting.trust is None else Path(setting.trust)
    first = read_model(path, trust)
    warm_up(first.scorer)
    engine = start_engine(setting, first.scorer, known)
    models = ModelWatch(engine, first, path, lambda: read_model(path, trust))
    service = Service(
        engine,
        models,
        audit=open_audit(setting.audit, str(setting.worker)),
        keys=open_keys(None if setting.keys is None else Path(setting.keys)),
        alerts=Alerts(engine, levels),
        board=None if setting.board is None else Board(setting.board, setting.workers, setting.worker),
        metrics_folder=os.environ.get(METRICS_FOLDER) if setting.workers > 1 else None,
    )
    service.beside.append(lambda: _beat(service, setting))
    _log.info("a worker starts", extra={"worker": setting.worker, "sequence": engine.sequence})
    unix = None if setting.unix_door is None else socket.socket(fileno=os.dup(setting.unix_door))
    with socket.socket(fileno=os.dup(setting.door)) as door:
        serve(service, door, unix, setting.certificates)
    _log.info("a worker has ended", extra={"worker": setting.worker, "sequence": engine.sequence})
    return 0


def read_bundle(path: Path, trust: Path | None = None) -> Bundle:
    """The bundle in a folder, verified; BundleError where it cannot be used, or nobody trusted signed it."""
    return Bundle.open(path, catalog.fingerprint(), None if trust is None else read_public_key(trust))


def read_model(path: Path, trust: Path | None = None) -> Candidate:
    """The model in a folder, ready to answer; raises what `read_bundle` does."""
    bundle = read_bundle(path, trust)
    return Candidate(Scorer(bundle), ModelAnswer(bundle.model_version, bundle.fingerprint, bundle.card))


def start_engine(setting: Setting, scorer: Scoring, known: Snapshot | None = None) -> Engine:
    """An engine in the state that the log ends in: from the newest whole snapshot, or from its beginning."""
    path, owner = Path(setting.log), setting.owner.encode()
    log = EventLog.open(path, owner) if setting.workers == 1 else SharedLog.open(path, owner)
    newest = snapshot.newest(log)
    if newest is None:
        newest = known
    if newest is None and setting.beginning is not None:
        newest = snapshot.read(Path(setting.beginning))
    clock = _wall_us if setting.clock == "wall" else None
    if newest is None:
        engine = Engine(scorer, clock, None, log, setting.quote_asset)
    else:
        engine = Engine.restore(scorer, newest, clock, log)
    if engine.sequence and setting.worker == 0:
        print(f"{engine.sequence} events recovered from {path}", file=sys.stderr)
    return engine


def serve(
    service: Service,
    door: socket.socket,
    unix: socket.socket | None = None,
    certificates: tuple[str, str] | None = None,
) -> None:
    """Answer on bound sockets until asked to end; `certificates` are the chain and its key, for TLS."""
    # what lives now lives to the end: a full collection over it would stop answers for its duration
    gc.collect()
    gc.freeze()
    chain, key = certificates or (None, None)
    config = server_config(
        Front(service), unix, timeout_graceful_shutdown=GRACE_S, ssl_certfile=chain, ssl_keyfile=key
    )
    with _ending_quietly():
        _Server(config, says=service.board is None or service.board.worker == 0).run(sockets=[door])


async def _beat(service: Service, setting: Setting) -> None:
    """Tell the other workers that this one is there, and follow the log while nobody asks."""
    written = service.engine.sequence
    while True:
        with suppress(RefusalError):  # whoever asks is told, and so is the board
            service.engine.catch_up()
        if service.board is not None:
            service.board.write(service.engine.sequence, FAILED if service.fault else READY)
        if setting.worker == 0 and service.engine.sequence - written >= SNAPSHOT_EVENTS:
            written = service.engine.sequence
            _snapshot(service.engine)
        if setting.supervisor is not None and os.getppid() != setting.supervisor:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody would start this one again
        await asyncio.sleep(BEAT_S)


def _snapshot(engine: Engine) -> None:
    """Write down what is known, so that the next start need not read all events again."""
    try:
        engine.snapshot()
    except (WorkError, RefusalError) as error:  # the log has it all
        _log.warning("no snapshot could be written", extra={"fault": str(error)})


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, says: bool) -> None:
        super().__init__(config)
        self._says = says
        self._scheme = "https" if config.ssl_certfile else "http"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            if self._says:
                print(f"serving on {self._scheme}://{shown}:{port}", file=sys.stderr, flush=True)


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
