"""Services as processes of their own, and callers that cost little: plain sockets, one question at a time."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from serving.envelopes import LENGTH_BYTES, Envelope, frame

STARTS_S = 300.0
"""Seconds that a service may take to start: machine code may have to be compiled first."""

_SERVING = re.compile(rb"serving on http://[^:]+:(\d+)")

PERPRISK = Path(sys.executable).with_name("perprisk")


@contextmanager
def running(
    command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> Iterator[tuple[int, Path]]:
    """Run a command until the context ends; gives its process id and the file of what it says."""
    said = folder / "said"
    with said.open("wb") as told:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, env=os.environ | (environment or {})
        )
    try:
        yield process.pid, said
        if process.poll() is not None:
            raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {said.read_text()[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def perprisk(
    model: Path, dataset: Path, folder: Path, audit: str, workers: int = 1
) -> Iterator[tuple[int, int, Path]]:
    """`perprisk serve` with logs in a new `folder`; gives process id, port and Unix socket.

    Its first look at all accounts is awaited, which is the only one as long as no event comes.
    """
    folder.mkdir()
    path = folder / "socket"
    command = [str(PERPRISK), "serve", "--model", str(model), "--dataset", str(dataset), "--port", "0",
               "--socket", str(path), "--audit", audit, "--workers", str(workers)]  # fmt: skip
    environment = {
        "PERPRISK_EVENT_LOG": str(folder / "events"),
        "PERPRISK_AUDIT": str(folder / "audit"),
    }
    with running(command, folder, environment) as (process, said):
        address = awaited(lambda: _SERVING.search(said.read_bytes()), said, process)
        port = int(address[1])
        awaited(lambda: _looked_at_everybody(port), said, process)
        yield process, port, path


@contextmanager
def listening(command: list[str], folder: Path, environment: dict[str, str], port: int) -> Iterator[int]:
    """A server that is there once somebody listens on its port; gives its process id."""
    folder.mkdir(exist_ok=True)
    with running(command, folder, environment) as (process, said):
        awaited(lambda: _listens(port), said, process)
        yield process


def awaited(there: Any, said: Path, process: int) -> Any:
    """What `there` finds, once it does; RuntimeError with what the process said where it never does."""
    ends = time.monotonic() + STARTS_S
    while time.monotonic() < ends and Path(f"/proc/{process}/stat").read_text().split()[2] != "Z":
        if found := there():
            return found
        time.sleep(0.1)
    raise RuntimeError(f"a server did not start: {said.read_text()[-2000:]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _looked_at_everybody(port: int) -> bool:
    """Whether the first look for alerts is over in every worker that a few connections meet."""
    for _ in range(8):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/alerts") as reply:
            if not json.load(reply)["rounds"]:
                return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processor_s(process: int) -> float:
    """Seconds of processor time that a process has had, its threads included."""
    spent_ns = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        spent_ns += int((task / "schedstat").read_text().split()[0])
    return spent_ns / 1e9


class Caller:
    """One kept connection, opened with the first question: a service ends those that ask nothing for long."""

    def __init__(self, door: Path | int) -> None:
        """`door`: a Unix socket's path, or a port of this machine."""
        self._door = door
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, message: bytes) -> bytes:
        """Send, and give what came first."""
        if self._socket is None:
            if isinstance(self._door, int):
                self._socket = socket.create_connection(("127.0.0.1", self._door))
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.connect(str(self._door))
        self._socket.sendall(message)
        return self._more()

    def _more(self) -> bytes:
        assert self._socket is not None
        told = self._socket.recv(262_144)
        assert told, "the connection was ended"
        return told


class Http(Caller):
    """Asks over HTTP/1.1."""

    def ask(self, message: bytes) -> bytes:
        """The body that answers a message of `http_message`; AssertionError where it is no 200."""
        told = self._send(message)
        while (end := told.find(b"\r\n\r\n")) < 0:
            told += self._more()
        at = told.index(b"ontent-length: ") + 15
        size = end + 4 + int(told[at : told.index(b"\r", at)])
        while len(told) < size:
            told += self._more()
        assert told.startswith(b"HTTP/1.1 200"), told[:500]
        return told[end + 4 :]


class Frames(Caller):
    """Asks in frames."""

    def ask(self, message: bytes) -> bytes:
        """The envelope that answers a message of `frame_message`."""
        told = self._send(message)
        while len(told) < LENGTH_BYTES:
            told += self._more()
        size = LENGTH_BYTES + int.from_bytes(told[:LENGTH_BYTES], "big")
        while len(told) < size:
            told += self._more()
        return told[LENGTH_BYTES:]


def http_message(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def frame_message(path: str, question: Any) -> bytes:
    """The same question as a frame."""
    return frame(Envelope(path, msgspec.Raw(msgspec.msgpack.encode(question))))
