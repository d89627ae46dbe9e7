"""Audit logs that were changed: no change goes unseen, given the last signed head."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import chain
from serving.audit import Audit
from serving.chain import Finding, files_of, records_of, verify
from serving.signing import own_key, sign
from tests.serving.audited import fill, heads, problems


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


def _finding(**more: Any) -> Finding:
    return Finding("0", 1, 1, 0, [], [], 0, 0, b"")._replace(**more)


def test_a_finding_can_be_written_as_json() -> None:
    assert chain.as_json(_finding(problems=["one"], public_key=b"\1"))["public_key"] == "01"
    assert chain.as_json(_finding())["sound"] is True
