"""`perprisk serve`: a verified model, the state that a dataset ends in, and the processes that answer.

One worker is this process. Several are processes of their own (`pipelines.worker`), which are handed the
listening sockets and find the state to begin with in a snapshot beside the event log: they never read
Parquet. `serving.workers` keeps them alive.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from prometheus_client.multiprocess import mark_process_dead

from exchange.errors import InputError
from features.venue import Venue
from pipelines.addresses import checked
from pipelines.answering import METRICS_FOLDER, Setting, answer, read_model
from pipelines.events import event_batches
from pipelines.keys import open_keys
from pipelines.options import Options
from pipelines.progress import progress
from pipelines.store import Dataset
from serving import logs, snapshot, unix
from serving.alert import chosen_levels
from serving.board import Board
from serving.log import EventLog
from serving.snapshot import Snapshot
from serving.workers import Workers

LOG_FOLDER = "PERPRISK_EVENT_LOG"
"""Environment variable that names the folder of event logs; without it, DEFAULT_LOG_FOLDER."""

DEFAULT_LOG_FOLDER = "perprisk-events"


class Beginning(NamedTuple):
    """What a log begins with, and the log itself, which nobody else has as long as `lock` is open."""

    log: Path
    lock: int
    known: Snapshot


def run(options: Options) -> int:
    """Serve until asked to end (SIGTERM or SIGINT); 0 then.

    Raises InputError for a model, dataset, log, key file or address that cannot be used, WorkError where
    workers cannot be kept alive.
    """
    logs.set_up()
    read_model(options.model, options.trust)  # a model that cannot answer is told of before anything is begun
    open_keys(options.keys)
    chosen_levels(options.alerts)
    with ExitStack() as held:
        door = held.enter_context(bind(options.host, options.port, options.keys is not None))
        door.listen(1_024)
        unix_door = None if options.socket is None else held.enter_context(unix.bind(options.socket))
        begun = begin(options.dataset)
        held.callback(os.close, begun.lock)
        setting = Setting(
            model=str(options.model),
            clock=options.clock,
            log=str(begun.log),
            owner=begun.known.owner.decode(),
            quote_asset=begun.known.quote_asset,
            door=door.fileno(),
            unix_door=None if unix_door is None else unix_door.fileno(),
            keys=None if options.keys is None else str(options.keys),
            audit=options.audit,
            alerts=options.alerts,
            trust=None if options.trust is None else str(options.trust),
            certificates=options.certificates,
        )
        if options.workers == 1:
            return answer(setting, begun.known)
        beginning = begun.log.with_suffix(".begin")
        snapshot.write(beginning, begun.known)
        shared = msgspec.structs.replace(setting, beginning=str(beginning), workers=options.workers)
        return _several(shared)


def begin(dataset: Path | None) -> Beginning:
    """The state that a dataset ends in, and the log of events that came after this very state.

    Every state to begin with has a log of its own. Raises InputError where it cannot be written, or where
    another service has it.
    """
    venue, quote_asset = Venue(), "USD"
    if dataset is not None:
        quote_asset = _warm(venue, dataset)
    told = json.dumps([venue.digest(), quote_asset, *venue.names]).encode()
    owner = hashlib.sha256(told).hexdigest()
    folder = Path(os.environ.get(LOG_FOLDER) or DEFAULT_LOG_FOLDER)
    try:
        folder.mkdir(exist_ok=True)
        path = folder / f"events-{owner[:16]}.log"
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(
            f"{folder}: events cannot be logged here ({error.strerror}); {LOG_FOLDER} names another folder"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{path}: another service writes this event log") from None
        log = EventLog.open(path, owner.encode())  # makes it, or cuts off what a death left of a frame
        if log.dropped:
            print(f"warning: {path}: {log.dropped} bytes of a torn record were dropped", file=sys.stderr)
        log.close()
    except BaseException:
        os.close(lock)
        raise
    return Beginning(path, lock, snapshot.beginning(venue, quote_asset, owner.encode()))


def _warm(venue: Venue, path: Path) -> str:
    """Apply a whole dataset; its quote asset."""
    dataset = Dataset.open(path, "accounts")
    with progress(None, "reading the dataset") as bar:
        for batch in event_batches(dataset, None, venue):
            venue.apply(batch)
            bar.advance(1)
    return dataset.meta.quote_asset


def _several(setting: Setting) -> int:
    """Keep several workers answering until asked to end."""
    board = Board.make(setting.workers)
    passed = [entry for entry in (setting.door, setting.unix_door, board.descriptor) if entry is not None]
    with _metrics_folder() as metrics:

        def start(worker: int) -> subprocess.Popen[bytes]:
            own = msgspec.structs.replace(
                setting, worker=worker, board=board.descriptor, supervisor=os.getpid()
            )
            return subprocess.Popen(
                [sys.executable, "-m", "pipelines.worker", msgspec.json.encode(own).decode()],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                env=os.environ | {METRICS_FOLDER: metrics},
                start_new_session=True,  # a Ctrl-C is for the supervisor, which ends them in order
            )

        return Workers(board, setting.workers, start).run(lambda pid: mark_process_dead(pid, metrics))  # type: ignore[no-untyped-call]


@contextmanager
def _metrics_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="perprisk-metrics-") as folder:
        yield folder


def bind(host: str, port: int, keyed: bool = False) -> socket.socket:
    """A socket bound to an address that `checked` lets pass; port 0 takes a free one."""
    address = checked(host, keyed)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise InputError(f"--port: cannot listen on {host}:{port} ({error.strerror})") from error
    return listener
