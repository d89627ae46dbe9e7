"""Whatever happens while a result is written, the earlier one or the new one stands, whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exchange.errors import InputError
from pipelines import output
from pipelines.output import atomic_dir, atomic_file

MARKER = "manifest.json"
DIED = 77
CALLS = ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "open")


def write_folder(target: Path, content: str) -> None:
    with atomic_dir(target, MARKER) as new:
        (new / MARKER).write_text(content)
        (new / "parts").mkdir()
        (new / "parts" / "one").write_text(content)


def write_file(target: Path, content: str) -> None:
    with atomic_file(target) as new:
        new.write_text(content)


def read_folder(target: Path) -> str | None:
    """The content of a whole folder, None where there is none; a part of one fails."""
    if not target.exists():
        return None
    found = {path.relative_to(target).as_posix(): path for path in target.rglob("*")}
    assert set(found) == {MARKER, "parts", "parts/one"}
    contents = {found[MARKER].read_text(), found["parts/one"].read_text()}
    assert len(contents) == 1, "two results mixed"
    return contents.pop()


def read_file(target: Path) -> str | None:
    return target.read_text() if target.exists() else None


def die_at(step: int, write: Callable[[Path, str], None], target: Path, exchange: bool) -> bool:
    """In a child that ends at its `step`-th call of the file system; True if it came that far."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            left = iter(range(step))
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name), left))
            output._exchange = counted(output._exchange if exchange else no_exchange, left)
            write(target, "new")
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED)
    return code == DIED


def counted(call: Callable[..., object], left: Iterator[int]) -> Callable[..., object]:
    def counting(*arguments: object, **options: object) -> object:
        if next(left, None) is None:
            os._exit(DIED)
        return call(*arguments, **options)

    return counting


def no_exchange(_one: Path, _other: Path) -> bool:
    return False


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


@pytest.mark.parametrize("before", ["old", None])
@pytest.mark.parametrize("kind", ["folder", "folder, no exchange", "file"])
def test_a_kill_at_any_moment_leaves_one_whole_result_and_the_next_start_clears_up(
    tmp_path: Path, kind: str, before: str | None
) -> None:
    write, read = (write_file, read_file) if kind == "file" else (write_folder, read_folder)
    seen = set()
    for step in range(1_000):
        place = tmp_path / str(step)
        place.mkdir()
        target = place / "result.d"
        if before:
            write(target, before)
        died = die_at(step, write, target, exchange=kind == "folder")
        found = read(target)
        if kind == "folder, no exchange" and found is None and before:
            with pytest.raises(RuntimeError, match="given up"), atomic_dir(target, MARKER):
                raise RuntimeError("given up")  # a start that fails later still restores
            found = read(target)
        assert found in (before, "new")
        seen.add(found)
        write(target, "newer")
        assert read(target) == "newer"
        assert [entry.name for entry in place.iterdir()] == ["result.d"]
        if not died:
            break
    else:
        pytest.fail("never came to its end")
    assert step > 10
    assert seen == {before, "new"}


@pytest.mark.parametrize("write", [write_folder, write_file])
def test_a_failure_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    target = tmp_path / "result"
    write(target, "old")
    with pytest.raises(KeyboardInterrupt):
        if write is write_folder:
            with atomic_dir(target, MARKER) as new:
                (new / MARKER).write_text("torn")
                raise KeyboardInterrupt
        with atomic_file(target) as new:
            new.write_text("torn")
            raise KeyboardInterrupt
    assert (target / MARKER if write is write_folder else target).read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


def test_a_reader_of_the_earlier_result_goes_on_reading_it(tmp_path: Path) -> None:
    write_file(tmp_path / "scores", "old")
    write_folder(tmp_path / "model", "old")
    with (tmp_path / "scores").open() as scores, (tmp_path / "model" / MARKER).open() as manifest:
        write_file(tmp_path / "scores", "new")
        write_folder(tmp_path / "model", "new")
        assert (scores.read(), manifest.read()) == ("old", "old")
    assert (read_file(tmp_path / "scores"), read_folder(tmp_path / "model")) == ("new", "new")


def test_another_writer_at_work_is_left_alone_and_the_last_one_wins(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_dir(target, MARKER) as slow:
        (slow / MARKER).write_text("slow")
        (slow / "parts").mkdir()
        write_folder(target, "quick")
        assert read_folder(target) == "quick"
        (slow / "parts" / "one").write_text("slow")
    assert read_folder(target) == "slow"
    assert leftovers(tmp_path) == []


def test_hidden_neighbours_that_are_not_ours_stay(tmp_path: Path) -> None:
    for name in (".model.tmp-mine", ".model.tmp-1-00000000x", ".other.tmp-1-00000000"):
        (tmp_path / name).mkdir()
    (tmp_path / ".model.tmp-1-00000000").write_text("a file")
    before = leftovers(tmp_path)
    write_folder(tmp_path / "model", "new")
    assert leftovers(tmp_path) == before


def test_a_writer_may_look_at_the_suffix_and_leave_files_of_its_own_beside(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "scores.parquet") as new:
        assert new.name == "scores.parquet"
        new.with_suffix(".journal").write_text("scratch")
        new.write_text("scores")
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_link_goes_on_pointing_at_the_result(tmp_path: Path) -> None:
    write_folder(tmp_path / "model-1", "old")
    (tmp_path / "current").symlink_to("model-1")
    write_folder(tmp_path / "current", "new")
    assert (tmp_path / "current").is_symlink()
    assert read_folder(tmp_path / "model-1") == "new"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_folder(tmp_path / "model", "new")
    assert read_folder(tmp_path / "model") == "new"


def test_somebody_elses_folder_is_refused_even_if_it_appears_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "model"
    refused = pytest.raises(InputError, match=r"model: holds other files and no manifest\.json")
    with refused, atomic_dir(target, MARKER) as new:
        (new / MARKER).write_text("new")
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    assert (target / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="holds other files"):
        write_folder(target, "new")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "write", "says"),
    [
        ("no/where", write_file, "the folder .*/no does not exist"),
        ("no/where", write_folder, "the folder .*/no does not exist"),
        ("file/inside", write_file, "file is not a folder"),
        ("file/inside", write_folder, "file is not a folder"),
        ("folder", write_file, "is a folder"),
        ("file", write_folder, "is a file"),
        ("pipe", write_file, "is not a regular file"),
        ("x" * 300, write_file, "file name too long"),
        ("x" * 300, write_folder, "file name too long"),
        ("dangling", write_file, "does not exist"),
        ("/", write_folder, "name a file or folder"),
        (".", write_folder, "name a file or folder"),
        ("..", write_folder, "name a file or folder"),
        ("/proc/result", write_file, "cannot be written"),
        ("/proc/result", write_folder, "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_is_refused_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    write: Callable[[Path, str], None],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "content").write_text("content")
    (tmp_path / "dangling").symlink_to("gone/away")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=says) as caught:
        write(Path(path), "new")
    assert path in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("write", [write_folder, write_file])
def test_permissions_are_respected(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    place = tmp_path / "closed"
    place.mkdir(mode=0o555)
    with pytest.raises(InputError, match="permission denied"):
        write(place / "result", "new")


def test_a_folder_without_its_marker_is_a_broken_promise(tmp_path: Path) -> None:
    refused = pytest.raises(AssertionError, match=r"manifest\.json is missing")
    with refused, atomic_dir(tmp_path / "model", MARKER):
        pass
    assert list(tmp_path.iterdir()) == []
