"""Audit logs on disks that fail and in processes that die: what was seen is in them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import audit as writer
from serving.audit import Audit
from serving.chain import files_of, records_of
from serving.engine import Engine
from serving.frames import LogError
from serving.records import Answered, Begun, Noted
from serving.service import Call, Service
from serving.signing import HEADS
from tests.serving.audited import ABOUT, COLUMNS, ROWS, answers, ask, fill, heads, problems, records, route
from tests.serving.stories import FakeScorer, send, story

ROOT = Path(__file__).resolve().parents[2]


class Disk:
    """The calls that carry content to a disk, failing on demand: all from a call on, until mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: dict[str, int] = {}
        self.short = 0
        for name in ("pwrite", "fdatasync", "ftruncate", "open"):
            monkeypatch.setattr(writer.os, name, self._call(name, getattr(os, name)))

    def _call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if name == "pwrite" and self.short:
                self.short -= 1
                descriptor, content, place = arguments
                return real(descriptor, content[: len(content) // 2], place)
            if name in self.fails and not (name == "open" and "audit" not in str(arguments[0])):
                raise OSError(self.fails[name], os.strerror(self.fails[name]))
            return real(*arguments, **more)

        return call


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("short", [0, 1])
def test_no_answer_without_a_record_and_writing_again_once_it_works(
    engine: Engine, disk: Disk, tmp_path: Path, short: int
) -> None:
    service = Service(engine, ABOUT, audit=Audit.open(tmp_path))
    seen = [ask(service).body]
    disk.short, disk.fails["pwrite"] = short, errno.ENOSPC
    for _ in range(3):
        refused = ask(service)
        assert refused.status == 503
        assert b"audit_unavailable" in refused.body
        assert service.answer(route(service, "/health/ready"), Call()).status == 503
        assert service.answer(route(service, "/health/live"), Call()).status == 200
    disk.fails.clear()
    assert service.answer(route(service, "/health/ready"), Call()).status == 200
    seen.append(ask(service).body)
    service.close()
    assert answers(tmp_path) == seen
    assert problems(tmp_path, heads(tmp_path)) == []
    (note,) = (entry.content.text for entry in records(tmp_path) if isinstance(entry.content, Noted))
    assert "No space left" in note
    assert note.endswith("refused meanwhile: 3")


def test_a_half_written_record_that_cannot_be_cut_off_ends_the_file(
    engine: Engine, disk: Disk, tmp_path: Path
) -> None:
    service = Service(engine, ABOUT, audit=Audit.open(tmp_path))
    seen = [ask(service).body]
    disk.short = 1
    disk.fails = {"pwrite": errno.EIO, "ftruncate": errno.EIO}
    assert ask(service).status == 503
    assert ask(service).status == 503
    disk.fails.clear()
    seen.append(ask(service).body)
    service.close()
    assert len(files_of(tmp_path)["0"]) == 2
    assert answers(tmp_path) == seen
    assert problems(tmp_path, heads(tmp_path)) == []


@pytest.mark.parametrize("mode", ["strict", "group"])
def test_after_a_failed_sync_only_a_new_file_will_do(
    engine: Engine, disk: Disk, tmp_path: Path, mode: Any
) -> None:
    service = Service(engine, ABOUT, audit=Audit.open(tmp_path, mode=mode, sync_s=0.001))
    before = ask(service)
    assert before.status == 200
    disk.fails["fdatasync"] = errno.EIO
    given = 0
    while ask(service).status == 200:  # in a group the sync comes later
        given += 1
        time.sleep(0.002)
    assert mode == "group" or given == 0
    assert len([path for _, path in files_of(tmp_path)["0"] if path.stat().st_size > 8]) <= 2
    assert ask(service).status == 503
    disk.fails.clear()
    after = ask(service)
    assert after.status == 200
    service.close()
    names = [path for _, path in files_of(tmp_path)["0"]]
    assert len(names) == 2
    assert isinstance(begun := next(records_of(names[1]))[0].content, Begun)
    assert "cannot be synced" in begun.reason
    assert answers(tmp_path)[0] == before.body
    assert answers(tmp_path)[-1] == after.body
    assert len([record for record, _ in records_of(names[1]) if isinstance(record.content, Answered)]) == 1
    assert problems(tmp_path, heads(tmp_path)) == []


@given(
    steps=st.lists(
        st.sampled_from(["ask", "ask", "ask", "ENOSPC", "EIO", "sync", "short", "open", "mend"]), max_size=40
    )
)
@settings(max_examples=40)
def test_whatever_fails_what_was_seen_is_in_the_log(steps: list[str], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("audit")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        audit = Audit.open(folder, mode="strict", segment_bytes=3_000)
        audit.reads("model-1", COLUMNS)
        for number, step in enumerate(steps):
            match step:
                case "ask":
                    try:
                        audit.append("/v1/score", "json", b"q", b"%d" % number, ROWS)
                    except LogError:
                        assert disk.fails or disk.short
                    else:
                        seen.append(b"%d" % number)
                case "ENOSPC" | "EIO":
                    disk.fails["pwrite"] = getattr(errno, step)
                case "sync":
                    disk.fails["fdatasync"] = errno.EIO
                case "short":
                    disk.short = 1
                case "open":
                    disk.fails["open"] = errno.EMFILE
                case "mend":
                    disk.fails.clear()
        disk.fails.clear()
        disk.short = 0
        assert audit.fault is None
        audit.close()
    found = answers(folder)
    assert [answer for answer in found if answer in seen] == seen
    assert problems(folder, heads(folder)) == []


def test_the_disk_is_kept_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(writer.os, "fdatasync", lambda number: (real(number), synced.append(number))[0])
    audit = Audit.open(tmp_path, sync_s=0.001, head_s=0.001)
    before = len(synced)
    fill(audit, 1)
    patience = time.monotonic() + 60.0
    while (len(synced) == before or not (tmp_path / HEADS).exists()) and time.monotonic() < patience:
        time.sleep(0.001)
    assert len(synced) > before
    assert heads(tmp_path)[0].records >= 2
    audit.close()
    strict = Audit.open(tmp_path, mode="strict", sync_s=3_600.0)
    before = len(synced)
    fill(strict, 3)
    assert len(synced) >= before + 3
    strict.close()


ANSWERING = """
import sys
from pathlib import Path
from serving.audit import Audit
from serving.engine import Engine
from serving.evidence import Rows, recomputed
from serving.scorer import Scorer
from serving.service import Call, Service
from serving.wire import ModelAnswer
from tests.serving.stories import FakeScorer, send, story

engine = Engine(FakeScorer())
send(engine, story())
audit = Audit.open(Path(sys.argv[1]), segment_bytes=9_000)
service = Service(engine, ModelAnswer("fake-1", "", ""), audit=audit)
score = next(route for route in service.routes if route.operation.path == "/v1/score")
number = 0
while True:
    number += 1
    body = b'{"account_id": "ann", "orders": [{"market": "BTC", "quantity": %d.25}]}' % number
    sys.stdout.buffer.write(service.answer(score, Call(body)).body + b"\\n")
    sys.stdout.buffer.flush()
"""


def test_a_killed_process_has_recorded_what_was_seen(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    seen: list[bytes] = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", ANSWERING, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(200):
            seen.append(process.stdout.readline().rstrip(b"\n"))
        process.send_signal(signal.SIGKILL)
        seen += [line.rstrip(b"\n") for line in process.stdout.read().splitlines(keepends=True)
                 if line.endswith(b"\n")]  # fmt: skip
        process.wait()
    recorded = answers(folder)
    assert [answer for answer in recorded if answer in set(seen)] == seen
    assert len(recorded) - len(seen) <= 2  # what each was about to say
    assert problems(folder) == []
    engine = Engine(FakeScorer())
    send(engine, story())
    assert all(msgspec.json.decode(answer)["model_version"] == "fake-1" for answer in recorded)
