"""The audit log: what was seen is in it, and no change of it goes unseen."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import InputError
from features import catalog
from features import emit as figure
from features.venue import Venue
from models.bundle import Bundle
from pipelines import audit as stage
from pipelines.cli import run as perprisk
from pipelines.events import event_batches
from pipelines.store import Dataset
from serving import audit as writer
from serving import chain
from serving.audit import Audit, policy_version
from serving.chain import Finding, files_of, records_of, verify
from serving.codec import JSON, MSGPACK
from serving.engine import Engine
from serving.evidence import Rows, recomputed
from serving.frames import LogError
from serving.records import Answered, Begun, Noted, Read, Record
from serving.scorer import Scorer
from serving.service import Call, Reply, Route, Service
from serving.signing import HEADS, Head, newest_heads, own_key, read_heads, sign
from serving.wire import ModelAnswer
from tests.serving.stories import FakeScorer, send, story

ROOT = Path(__file__).resolve().parents[2]
ABOUT = ModelAnswer("fake-1", "f" * 64, "# A model\n")
COLUMNS = np.array([0, 2, 5])
ROWS = Rows(np.arange(2.0 * 90).reshape(2, 90), [2], np.arange(15.0).reshape(1, 15), [0])


def fill(audit: Audit, answers: int, first: int = 0) -> None:
    audit.reads("model-1", COLUMNS)
    for number in range(first, first + answers):
        audit.append("/v1/score", "json", b"question %d" % number, b"answer %d" % number, ROWS)


def records(folder: Path, worker: str = "0") -> list[Record]:
    return [record for _, path in files_of(folder)[worker] for record, _ in records_of(path)]


def answers(folder: Path, worker: str = "0") -> list[bytes]:
    return [
        record.content.answer for record in records(folder, worker) if isinstance(record.content, Answered)
    ]


def heads(folder: Path) -> list[Head]:
    return list(newest_heads(read_heads(folder / HEADS)[0]).values())


def problems(folder: Path, kept: list[Head] | None = None) -> list[str]:
    return [problem for finding in verify(folder, kept or ()) for problem in finding.problems]


def route(service: Service, path: str) -> Route:
    return next(entry for entry in service.routes if entry.operation.path == path)


def ask(service: Service, path: str = "/v1/score", body: Any = None, codec: Any = JSON) -> Reply:
    content = codec.encode({"account_id": "ann"} if body is None else body)
    return service.answer(route(service, path), Call(content, codec=codec))


@pytest.fixture
def service(engine: Engine, tmp_path: Path) -> Iterator[Service]:
    with_audit = Service(engine, ABOUT, audit=Audit.open(tmp_path / "audit"))
    yield with_audit
    with_audit.close()


# -- what is in it


def test_an_answer_is_in_the_log_as_it_was_sent(service: Service, tmp_path: Path) -> None:
    first = ask(service, body={"account_id": "ann", "explain": True, "cure": True})
    second = ask(service, "/v1/score/batch", {"account_ids": ["bob", "cem", "zoe"]}, MSGPACK)
    assert (first.status, second.status) == (200, 200)
    one, two = (record for record in records(tmp_path / "audit") if isinstance(record.content, Answered))
    assert isinstance(one.content, Answered)
    assert one.content.answer == first.body
    assert json.loads(one.request) == {"account_id": "ann", "explain": True, "cure": True}
    assert one.content.model_version == "fake-1"
    assert one.content.policy_version == policy_version()
    assert isinstance(two.content, Answered)
    assert two.content.answer == second.body
    assert (two.content.route, two.content.codec) == ("/v1/score/batch", "msgpack")
    assert two.content.row_of == [0, None]  # the second has no position, the third is nobody
    features, figures = two.rows(15)
    vectors = service.engine.venue.vectors([service.engine.venue.find_account("bob")])
    assert features.tobytes() == vectors.features.tobytes()
    assert figures.tobytes() == vectors.figures.tobytes()


def test_what_is_refused_is_no_answer(service: Service, tmp_path: Path) -> None:
    assert ask(service, body={"account_id": "zoe"}).status == 404
    assert answers(tmp_path / "audit") == []


def test_an_account_without_a_position_has_no_row(service: Service, tmp_path: Path) -> None:
    assert ask(service, body={"account_id": "cem"}).status == 200
    (record,) = (record for record in records(tmp_path / "audit") if isinstance(record.content, Answered))
    features, figures = record.rows(15)
    assert (len(features), len(figures)) == (0, 0)


def test_another_model_is_told_before_its_answers(service: Service, tmp_path: Path) -> None:
    ask(service)
    other = FakeScorer()
    other.model_version = "fake-2"
    service.engine.scorer = other
    ask(service)
    told = [record.content for record in records(tmp_path / "audit")]
    assert [type(content) for content in told] == [Begun, Read, Answered, Read, Answered]
    assert [content.model_version for content in told if isinstance(content, Answered)] == [
        "fake-1",
        "fake-2",
    ]
    assert isinstance(told[1], Read)
    assert told[1].features == list(catalog.NAMES)
    assert told[1].fingerprint == catalog.fingerprint()


def test_the_version_of_the_policy_is_that_of_its_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = policy_version()
    assert before == policy_version()
    other = tmp_path / "policy.py"
    other.write_text(Path(writer.policy.__file__).read_text().replace("LOADING = 3.0", "LOADING = 2.0"))
    monkeypatch.setattr(writer.policy, "__file__", str(other))
    assert policy_version() != before


# -- files and processes


def test_files_follow_one_another(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path, segment_bytes=4_000)
    fill(audit, 40)
    audit.close()
    assert len(files_of(tmp_path)["0"]) > 3
    assert all(path.stat().st_size < 4_500 for _, path in files_of(tmp_path)["0"])
    assert answers(tmp_path) == [b"answer %d" % number for number in range(40)]
    assert problems(tmp_path, heads(tmp_path)) == []
    for _, path in files_of(tmp_path)["0"]:  # each says by itself what its rows are
        first, second = (record.content for record, _ in list(records_of(path))[:2])
        assert isinstance(first, Begun)
        assert isinstance(second, Read)


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    for start in (0, 3, 6):
        audit = Audit.open(tmp_path, segment_bytes=2_000)
        fill(audit, 3, start)
        audit.close()
    assert answers(tmp_path) == [b"answer %d" % number for number in range(9)]
    assert problems(tmp_path, heads(tmp_path)) == []


def test_workers_have_chains_of_their_own(tmp_path: Path) -> None:
    for worker in ("0", "1"):
        audit = Audit.open(tmp_path, worker)
        fill(audit, 2)
        audit.close()
    assert [finding.answers for finding in verify(tmp_path)] == [2, 2]
    assert problems(tmp_path, heads(tmp_path)) == []
    assert {head.worker for head in heads(tmp_path)} == {"0", "1"}
    for path in tmp_path.glob("audit-1-*.log"):
        path.unlink()
    assert problems(tmp_path, heads(tmp_path)) != []


def test_one_process_writes_a_log(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path)
    with pytest.raises(InputError, match="another process"):
        Audit.open(tmp_path)
    audit.close()
    Audit.open(tmp_path).close()
    with pytest.raises(InputError, match="worker"):
        Audit.open(tmp_path, "../0")


def test_a_torn_record_is_cut_off_and_told(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path / "whole")
    fill(audit, 3)
    audit.close()
    (whole,) = (path for _, path in files_of(tmp_path / "whole")["0"])
    content = whole.read_bytes()
    ends = [end for _, end in records_of(whole)]
    for length in range(0, len(content), 29):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / whole.name).write_bytes(content[:length])
        shutil.copy(tmp_path / "whole" / "signing.key", folder)
        audit = Audit.open(folder)
        fill(audit, 1, 7)
        audit.close()
        assert problems(folder, heads(folder)) == []
        kept = [number for number, end in enumerate(ends[2:]) if end <= length]
        assert answers(folder) == [*(b"answer %d" % number for number in kept), b"answer 7"]
        notes = [entry.content.text for entry in records(folder) if isinstance(entry.content, Noted)]
        if length >= ends[0]:
            torn = length - max(end for end in ends if end <= length)
            assert notes[0].endswith(f"cut off: {torn}")


def test_a_damaged_log_is_gone_on_with_in_a_new_file_and_told(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path)
    fill(audit, 5)
    audit.close()
    (path,) = (path for _, path in files_of(tmp_path)["0"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    audit = Audit.open(tmp_path)
    fill(audit, 1, 9)
    audit.close()
    assert len(files_of(tmp_path)["0"]) == 2
    last = list(records_of(files_of(tmp_path)["0"][1][1]))
    assert isinstance(last[0][0].content, Begun)
    assert "damaged" in last[0][0].content.reason
    assert problems(tmp_path) != []


# -- changes


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three files, whole."""
    folder = tmp_path_factory.mktemp("audit")
    audit = Audit.open(folder, segment_bytes=2_000)
    fill(audit, 18)
    audit.close()
    assert len(files_of(folder)["0"]) >= 3
    return folder


def changed(kept: Path, folder: Path, change: Callable[[list[Path]], None]) -> list[str]:
    """What is found after a change of a copy, given the last signed head."""
    shutil.copytree(kept, folder)
    change([path for _, path in files_of(folder)["0"]])
    return problems(folder, heads(kept))


@given(data=st.data())
@settings(max_examples=150)
def test_every_change_is_found(data: st.DataObject, kept: Path, tmp_path_factory: Any) -> None:
    def change(paths: list[Path]) -> None:
        path = data.draw(st.sampled_from(paths))
        content = path.read_bytes()
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["edit", "delete", "insert", "truncate", "no file"]))
        if kind == "edit":
            new = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
        elif kind == "delete":
            new = content[:at] + content[at + data.draw(st.integers(1, 700)) :]
        elif kind == "insert":
            new = content[:at] + data.draw(st.binary(min_size=1, max_size=50)) + content[at:]
            if new[: len(content)] == content:
                return path.unlink()  # the same bytes once more at the end: as good as torn
        elif kind == "truncate":
            new = content[:at]
        else:
            return path.unlink()
        path.write_bytes(new)

    assert changed(kept, tmp_path_factory.mktemp("changed") / "copy", change) != []


@given(data=st.data())
@settings(max_examples=100)
def test_records_that_are_swapped_deleted_or_repeated_are_found(
    data: st.DataObject, kept: Path, tmp_path_factory: Any
) -> None:
    def change(paths: list[Path]) -> None:
        path = data.draw(st.sampled_from(paths))
        content = path.read_bytes()
        ends = [len(chain.MAGIC), *(end for _, end in records_of(path))]
        whole = [content[start:end] for start, end in itertools.pairwise(ends)]
        one, other = (data.draw(st.integers(0, len(whole) - 1)) for _ in range(2))
        kind = data.draw(st.sampled_from(["swap", "delete", "repeat"]))
        if kind == "swap" and one != other:
            whole[one], whole[other] = whole[other], whole[one]
        elif kind == "repeat":
            whole.insert(other, whole[one])
        else:
            del whole[one]
        path.write_bytes(content[: ends[0]] + b"".join(whole))

    assert changed(kept, tmp_path_factory.mktemp("changed") / "copy", change) != []


def test_files_that_are_swapped_or_renamed_are_found(kept: Path, tmp_path: Path) -> None:
    def swap(paths: list[Path]) -> None:
        aside = paths[0].with_suffix(".aside")
        paths[0].rename(aside)
        paths[1].rename(paths[0])
        aside.rename(paths[1])

    def rename(paths: list[Path]) -> None:
        for path in paths:
            path.rename(path.with_name(path.name.replace("audit-0", "audit-1")))

    def drop_last(paths: list[Path]) -> None:
        paths[-1].unlink()

    for number, change in enumerate((swap, rename, drop_last)):
        assert changed(kept, tmp_path / str(number), change) != []


def test_a_log_written_anew_is_found_by_the_head_alone(kept: Path, tmp_path: Path) -> None:
    """Whoever has the signing key can write a whole log; the head that was kept says that it is another."""
    audit = Audit.open(tmp_path, key=own_key(kept), segment_bytes=2_000)
    fill(audit, 18)
    audit.close()
    assert problems(tmp_path) == []
    assert problems(tmp_path, heads(kept)) != []


def test_without_a_head_the_end_is_not_certain(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    files_of(tmp_path / "copy")["0"][-1][1].unlink()
    (finding,) = verify(tmp_path / "copy")
    assert finding.sound
    assert finding.covered == 0


def test_a_head_counts_if_the_right_key_signed_it(kept: Path, tmp_path: Path) -> None:
    (head,) = heads(kept)
    other = own_key(tmp_path)
    (finding,) = verify(kept, [head], public_key=own_key(kept).public_key())
    assert finding.sound
    assert finding.covered == head.records == finding.records
    forged = sign(head, other)
    assert problems(kept, [forged]) != []
    (finding,) = verify(kept, [head], public_key=other.public_key())
    assert not finding.sound
    for name, value in (("records", 3), ("digest", "00"), ("worker", "1"), ("time", ""), ("signature", "x")):
        assert problems(kept, [msgspec.structs.replace(head, **{name: value})]) != [], name


def test_files_may_be_archived_if_that_is_said(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    files_of(tmp_path / "copy")["0"][0][1].unlink()
    assert problems(tmp_path / "copy", heads(kept)) != []
    (finding,) = verify(tmp_path / "copy", heads(kept), archived=True)
    assert finding.sound
    assert "archived" in finding.notices[0]
    audit = Audit.open(tmp_path / "copy")  # and the log goes on
    fill(audit, 1)
    audit.close()
    assert verify(tmp_path / "copy", heads(kept), archived=True)[0].sound


def test_another_key_begins_a_file_of_its_own(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    other = own_key(tmp_path)
    audit = Audit.open(tmp_path / "copy", key=other)
    fill(audit, 1)
    audit.close()
    both = [*heads(kept), *heads(tmp_path / "copy")]
    assert problems(tmp_path / "copy", both) == []
    (finding,) = verify(tmp_path / "copy", both[1:], public_key=other.public_key())
    assert finding.sound
    assert "another key" in finding.notices[0]


def test_the_key_is_its_owners_alone(kept: Path) -> None:
    assert (kept / "signing.key").stat().st_mode & 0o777 == 0o600
    assert all(path.stat().st_mode & 0o777 == 0o600 for _, path in files_of(kept)["0"])


# -- failures


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


# -- reading it


@pytest.fixture(scope="module")
def served(small_dataset: Path, small_model: Path, tmp_path_factory: Any) -> tuple[Path, str]:
    """An audit log of a real model's answers, and an account that they are about."""
    folder = tmp_path_factory.mktemp("served") / "audit"
    venue = Venue()
    for batch in event_batches(Dataset.open(small_dataset, "accounts"), None, venue):
        venue.apply(batch)
    engine = Engine(Scorer(Bundle.open(small_model, catalog.fingerprint())), venue=venue)
    service = Service(engine, ABOUT, audit=Audit.open(folder))
    vectors = venue.open_vectors()
    names = [venue.account_names[key] for key in vectors.account.tolist()]
    market = venue.market_names[0]
    for name in names[:20]:
        assert ask(service, body={"account_id": name, "explain": True}).status == 200
    riskiest = names[int(np.nanargmin(vectors.figures[:, figure.MARGIN_RATIO]))]
    orders = [{"market": market, "quantity": 0.5}]
    for more in ({}, {"explain": True, "cure": True}, {"orders": orders, "explain": True}):
        assert ask(service, body={"account_id": riskiest, **more}).status == 200
    assert ask(service, "/v1/score/batch", {"account_ids": [*names, "nobody"]}, MSGPACK).status == 200
    service.close()
    return folder, riskiest


def test_every_answer_can_be_computed_again_from_its_record(
    served: tuple[Path, str], small_model: Path
) -> None:
    scorer = Scorer(Bundle.open(small_model, catalog.fingerprint()))
    count, read = 0, None
    for record in records(served[0]):
        if isinstance(record.content, Read):
            read = record.content
        elif isinstance(record.content, Answered):
            assert read is not None
            assert recomputed(record, read, scorer) == record.content.answer
            count += 1
    assert count == 24
    assert read is not None
    assert len(read.features) < len(catalog.NAMES)  # only what is read is kept


def test_the_log_is_shown_and_recomputed(
    served: tuple[Path, str], small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, account = served
    command = ["audit", "show", account, "--audit", str(folder)]
    assert perprisk(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["time", "asked"]
    assert any("as it stands, 1 order" in line for line in lines)
    assert any("batch of" in line for line in lines)
    assert all(len(line) < 160 for line in lines)
    assert perprisk([*command, "--recompute", "--model", str(small_model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in lines[1:]} == {"same"}
    assert perprisk([*command, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert len(plain) == len(lines) - 1
    assert plain[0]["answer"]["account_id"] == account
    assert perprisk([*command, "--from", "2200-01-01"]) == 0
    assert capsys.readouterr().out.startswith("no answer")
    assert perprisk([*command, "--recompute"]) == 2


def test_another_answer_in_the_record_is_told(
    served: tuple[Path, str], small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, account = served
    forged = Audit.open(tmp_path / "forged")
    for record in records(folder):
        content = record.content
        if isinstance(content, Read):
            forged.reads(content.model_version, np.array([catalog.index(name) for name in content.features]))
            width = len(content.features)
        elif isinstance(content, Answered):
            features, figures = record.rows(15)
            whole = np.full((len(features), 90), np.nan)
            whole[:, forged._reading.columns] = features  # type: ignore[union-attr]
            assert width == features.shape[1] or not len(features)
            answer = content.answer.replace(b'"status":"ok"', b'"status":"fallback"')
            forged.append(
                content.route, content.codec, record.request, answer,
                Rows(whole, content.heights, figures, content.row_of, content.instead),
            )  # fmt: skip
    forged.close()
    command = ["audit", "show", account, "--audit", str(tmp_path / "forged"), "--recompute", "--model"]
    assert perprisk([*command, str(small_model)]) == 1
    told = capsys.readouterr()
    assert "DIFFERS" in told.out
    assert "status was fallback, now ok" in told.err


def test_the_command_says_what_is_sound_and_what_it_cannot_know(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(kept, copy)
    assert perprisk(["audit", "head", str(copy), "--out", str(tmp_path / "head")]) == 0
    assert perprisk(["audit", "verify", str(copy)]) == 0
    told = capsys.readouterr().out
    assert "sound" in told
    assert "Without --head" in told
    command = ["audit", "verify", str(copy), "--head", str(tmp_path / "head")]
    assert perprisk([*command, "--public-key", str(kept / "signing.pub")]) == 0
    assert "cannot be told" not in capsys.readouterr().out
    assert perprisk([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["sound"] is True
    files_of(copy)["0"][-1][1].unlink()
    (copy / HEADS).unlink()
    assert perprisk(["audit", "verify", str(copy)]) == 0  # nothing in it says that there was more
    assert perprisk(command) == 1
    assert "wrong: the head given" in capsys.readouterr().out
    assert perprisk(["audit", "verify", str(tmp_path)]) == 2
    assert perprisk(["audit", "verify", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "head").write_text("no head")
    assert perprisk(command) == 2


def test_the_service_opens_the_log_that_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stage.FOLDER, str(tmp_path / "here"))
    assert stage.open_audit("off") is None
    for mode in ("strict", "group"):
        audit = stage.open_audit(mode, "7")
        assert audit is not None
        assert (audit.mode, audit.worker) == (mode, "7")
        audit.close()
    with pytest.raises(InputError, match="--audit"):
        stage.open_audit("sometimes")
    monkeypatch.setenv(stage.FOLDER, str(tmp_path / "no" / "where"))
    with pytest.raises(InputError, match="cannot be recorded"):
        stage.open_audit("group")


def _finding(**more: Any) -> Finding:
    return Finding("0", 1, 1, 0, [], [], 0, 0, b"")._replace(**more)


def test_a_finding_can_be_written_as_json() -> None:
    assert chain.as_json(_finding(problems=["one"], public_key=b"\1"))["public_key"] == "01"
    assert chain.as_json(_finding())["sound"] is True
