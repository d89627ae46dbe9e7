"""The audit log: what was answered is in it as it was sent, over files, restarts and processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exchange.errors import InputError
from features import catalog
from features.emit import FIGURES
from serving import audit as writer
from serving.audit import Audit, policy_version
from serving.chain import files_of, records_of, verify
from serving.codec import MSGPACK
from serving.engine import Engine
from serving.records import Answered, Begun, Noted, Read
from serving.service import Service
from serving.switches import Wanted, change_file
from tests.serving.audited import ABOUT, answers, ask, fill, heads, problems, records
from tests.serving.stories import FakeScorer


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
    features, figures = two.rows(FIGURES)
    vectors = service.engine.venue.vectors([service.engine.venue.find_account("bob")])
    assert features[:1].tobytes() == vectors.features.tobytes()
    assert figures[:1].tobytes() == vectors.figures.tobytes()  # after it what its owner holds in all accounts


def test_what_is_refused_is_no_answer(service: Service, tmp_path: Path) -> None:
    assert ask(service, body={"account_id": "zoe"}).status == 404
    assert answers(tmp_path / "audit") == []


def test_an_account_without_a_position_has_no_row(service: Service, tmp_path: Path) -> None:
    assert ask(service, body={"account_id": "cem"}).status == 200
    (record,) = (record for record in records(tmp_path / "audit") if isinstance(record.content, Answered))
    features, figures = record.rows(FIGURES)
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
    other.write_text(Path(writer.policy.__file__).read_text().replace("LOADING = 100.0", "LOADING = 2.0"))
    monkeypatch.setattr(writer.policy, "__file__", str(other))
    assert policy_version() != before


# -- files and processes


def test_a_change_of_the_policy_is_told_in_the_log(tmp_path: Path) -> None:
    change = change_file(
        tmp_path / "policy.json",
        Wanted("SOL-PERP", "loading", 4.0),
        "ann",
        "a thin book",
        datetime(2026, 11, 22, tzinfo=UTC),
    )
    audit = Audit.open(tmp_path / "audit")
    audit.note(change.text)
    audit.close()
    notes = [one.content.text for one in records(tmp_path / "audit") if isinstance(one.content, Noted)]
    assert notes == ["margin policy change 1 by ann: SOL-PERP loading None -> 4.0 (a thin book)"]
    assert problems(tmp_path / "audit") == []


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
