"""Results that appear whole or not at all.

A result is written in a hidden work folder beside its target, `.NAME.tmp-PID-RANDOM`, which holds

    new   the result while it is being written (a file or a folder)
    old   the earlier result, between being moved aside and being deleted

A work folder's owner holds a lock on it for as long as it lives, so that the next start can tell an
abandoned one, whatever killed its owner. Beginning and committing hold a lock on the parent folder.

    state                                          what a kill leaves      what the next start does
    1 writing              target = earlier one    target, part of new     delete the work folder
    2 new synced to disk   target = earlier one    target, new             delete the work folder
    3 exchanged            target = the new one    target, earlier as new  delete the work folder
    3' earlier moved aside target missing          old, new                move old back, then delete
    4 finished             target = the new one    part of the earlier     delete the work folder

A file goes from 2 to 4 in one rename; a folder from 2 to 3 in one exchange. Only where the file system
cannot exchange two folders is there the moment 3', and the rule that covers it is the only one that
restores: old is there and the target is not. Before anything in a work folder is deleted, an old one
whose target stands is renamed, so that a part of it can never be taken for the whole.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exchange.errors import InputError

AT_FDCWD = -100
RENAME_EXCHANGE = 2


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file at; on leaving without an exception it stands at `path`, synced.

    Raises InputError where `path` cannot become a file.
    """
    target = _resolve(path)
    check_file(path)
    with _work_folder(target) as work:
        new = work / "new" / target.name  # the target's own name, for writers that look at its suffix
        new.parent.mkdir()
        yield new
        _sync(new)
        with _naming(path), _locked(target.parent):
            check_file(path)
            os.replace(new, target)
            _sync(target.parent)


@contextmanager
def atomic_dir(path: Path, marker: str) -> Iterator[Path]:
    """Give an empty folder to fill; on leaving without an exception it stands at `path`, synced.

    `marker` is a file that every folder of this sort holds. An existing folder is replaced only when
    it is empty or holds it; anything else is somebody's data. Raises InputError where `path` cannot
    become such a folder.
    """
    target = _resolve(path)
    check_folder(path, marker)
    with _work_folder(target) as work:
        new = work / "new"
        new.mkdir()
        yield new
        assert (new / marker).is_file(), f"{marker} is missing: the next run could not replace this folder"
        _sync_tree(new)
        with _naming(path), _locked(target.parent):
            check_folder(path, marker)
            if not target.exists():
                os.rename(new, target)
            elif not _exchange(new, target):
                os.rename(target, work / "old")
                os.rename(new, target)
            _sync(target.parent)


def check_file(path: Path) -> None:
    """Raise InputError where a file cannot be written at `path`; for asking before long work."""
    target = _resolve(path)
    with _naming(path):
        _check_parent(path, target)
        if target.is_dir():
            raise InputError(f"{path}: is a folder, a file is to be written here")
        if target.exists() and not target.is_file():
            raise InputError(f"{path}: is not a regular file")
        if target.exists() and not os.access(target, os.W_OK):
            raise InputError(f"{path}: cannot be written (permission denied)")


def check_folder(path: Path, marker: str | None = None) -> None:
    """Raise InputError where a folder cannot be written at `path`; for asking before long work.

    Without a marker nothing is said of what a folder that is already there holds.
    """
    target = _resolve(path)
    with _naming(path):
        _check_parent(path, target)
        if not target.exists():
            return
        if not target.is_dir():
            raise InputError(f"{path}: is a file, a folder is to be written here")
        if not os.access(target, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written (permission denied)")
        if marker is not None and not (target / marker).is_file() and any(target.iterdir()):
            raise InputError(f"{path}: holds other files and no {marker}; not replaced, name another folder")


def _resolve(path: Path) -> Path:
    """The place itself: a link to an earlier result goes on pointing at the result."""
    if not Path(path).name or Path(path).name == "..":
        raise InputError(f"{str(path)!r}: name a file or folder to write, within a folder that exists")
    with _naming(path):
        return Path(os.path.realpath(path))


def _check_parent(path: Path, target: Path) -> None:
    parent = target.parent
    if not parent.exists():
        raise InputError(f"{path}: the folder {parent} does not exist")
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the folder {parent} cannot be written (permission denied)")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What the file system refuses here is about the place that was asked for."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from error


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    with _naming(target), _locked(target.parent):
        _clear_abandoned(target)
        work = target.parent / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        work.mkdir()
        held = _lock(work, wait=True)
    try:
        yield work
    finally:
        with _naming(target), _locked(target.parent):
            _settle(work, target)
        if held is not None:
            os.close(held)


def _clear_abandoned(target: Path) -> None:
    ours = re.compile(re.escape(f".{target.name}.tmp-") + r"[0-9]+-[0-9a-f]{8}")
    for entry in list(target.parent.iterdir()):
        if ours.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            held = _lock(entry, wait=False)
            if held is not None:  # nobody's: its owner is dead
                _settle(entry, target)
                os.close(held)


def _settle(work: Path, target: Path) -> None:
    """From whatever state to none: move an earlier result back if it is the only one, then delete."""
    old = work / "old"
    if old.exists():
        os.rename(old, work / "finished" if target.exists() else target)
        _sync(target.parent)
    shutil.rmtree(work, ignore_errors=True)


def _lock(folder: Path, wait: bool) -> int | None:
    """A descriptor that locks the folder until closed; None where another holds it or none can be had."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    held = _lock(folder, wait=True)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, so that neither is ever missing; False where that is not offered."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    here = ctypes.c_int(AT_FDCWD)
    names = os.fsencode(one), os.fsencode(other)
    return bool(renameat2(here, names[0], here, names[1], ctypes.c_uint(RENAME_EXCHANGE)) == 0)


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))
