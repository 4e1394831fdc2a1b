"""Replace small files of a folder that is in use: each whole or not at all.

    .<name>.weightsmith-<16 hex digits>/    unfinished work in a folder, locked by the run at it

Every new content is written there first, so no file of the folder is ever written to: neither
through a link, nor through a hard link that others read by, nor into a file that somebody happens
to keep under the name of a temporary one. What a killed run leaves, the next one deletes.
"""

import contextlib
import functools
import itertools
import operator
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.errors import InputChanged, StagingBusy, TargetUnwritable, WeightsmithError

BACKUP: Final = ".bak"
_MARK: Final = ".weightsmith-"


@contextlib.contextmanager
def workshop(parent: Path, name: str) -> Iterator[Path]:
    """A new directory in `parent` that only its owner may enter, gone when it is left.

    Directories of this name that killed runs left are deleted first: those whose lock is free.
    Raises: TargetUnwritable; StagingBusy, for whatever goes wrong once another run has deleted it,
    as may happen where each lock is granted to everybody.
    """
    try:
        # Turns, so that nobody takes a directory for a dead run's that is not locked yet.
        turn = _locked(parent, wait=True)
        _delete_left(parent, name)
        path = parent / f".{name}{_MARK}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        lock = _locked(path)
        if turn is not None:
            os.close(turn)
    except OSError as error:
        raise TargetUnwritable(where=parent, reason=error.strerror) from error
    try:
        yield path
    except (OSError, WeightsmithError) as error:
        if parent.is_dir() and not path.is_dir():
            raise StagingBusy(target=parent) from error
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def discard_left(parent: Path, name: str) -> None:
    """Delete what killed runs left of a workshop, where this run needs none."""
    with contextlib.suppress(OSError):  # it is in nobody's way
        turn = _locked(parent, wait=True)
        _delete_left(parent, name)
        if turn is not None:
            os.close(turn)


def is_left(name: str) -> bool:
    """Whether a file name is that of a workshop, which only a killed run leaves."""
    return name.startswith(".") and _MARK in name


def replace_files(
    folder: Path,
    before: Mapping[str, bytes | None],
    after: Mapping[str, bytes | None],
    work: Path,
    *,
    backups: bool = True,
) -> None:
    """Put new contents in the places of old ones, in the order of `after`; None: no such file.

    Mode and owner of a file stay; a new one is no more open than the least open file that is
    replaced, and the folder's owner's, if we may give it away. With `backups`, the old content of
    each is kept under the first of `kept_as` that is free, once. A run that is killed leaves the
    old or the new content under each name, and a later one can finish its work.
    Raises: InputChanged, if a file is no longer as in `before`; TargetUnwritable; OSError.
    """
    states = {name: _state(folder / name) for name in after}
    private = _common_bits(state for state in states.values() if state)
    owner = folder.stat()
    staged = {
        name: stage(work / name, content, private, like=states[name], owner=owner)
        for name, content in after.items()
        if content is not None
    }
    for name in after:  # before anything is replaced; again below, when its turn comes
        _require_same(folder / name, before[name])
    for name, old in before.items() if backups else ():
        backup = None if old is None else _free_backup(folder / name, old)
        if old is not None and backup is not None:
            fs.rename(stage(work / backup.name, old, private, like=states[name]), backup)
    fs.sync_directory(folder)
    for name in after:
        path = folder / name
        _require_same(path, before[name])
        if name in staged:
            fs.rename(staged[name], path)
        else:
            path.unlink()
            fs.on_durable_step()
    fs.sync_directory(folder)


def kept_as(path: Path) -> Iterator[Path]:
    """The names under which old contents of a file are kept, in order: ``.bak``, ``.bak.2``..."""
    yield path.with_name(path.name + BACKUP)
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}{BACKUP}.{number}")


def _free_backup(path: Path, old: bytes) -> Path | None:
    """The first name under which nothing lies; None if the content is kept under one before it."""
    for backup in kept_as(path):
        state = _state(backup)
        if state is None:
            return backup
        if stat.S_ISREG(state.st_mode) and state.st_size == len(old):
            with contextlib.suppress(WeightsmithError):
                if fs.read_small(backup, len(old)) == old:
                    return None
    return None


def stage(
    path: Path,
    content: bytes,
    bits: int,
    *,
    like: os.stat_result | None = None,
    owner: os.stat_result | None = None,
) -> Path:
    """Write a new file, with the permissions that umask and `bits` both grant, and sync it.

    It gets exactly the mode and owner of a file that it is to replace (`like`); else, where `owner`
    belongs to another user than we are and we may give files away, that one's.
    Raises: TargetUnwritable, if the system does not let us keep the owner.
    """
    file = fs.create(path, exclusive=True)
    file.write_from(0, memoryview(content))
    if like is not None:
        take_after(file, like)
    elif hasattr(os, "fchmod"):
        if owner is not None and owner.st_uid != file.stat().st_uid:
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(file.stat().st_mode & bits))
    file.sync()
    return path


def take_after(file: fs.PositionedFile, like: os.stat_result) -> None:
    """Give an open file the mode and owner of one that it is to replace.

    Raises: TargetUnwritable, if the system does not let us keep the owner.
    """
    state = file.stat()
    if hasattr(os, "fchown") and (state.st_uid, state.st_gid) != (like.st_uid, like.st_gid):
        try:
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
        except PermissionError as error:
            reason = "it belongs to another user, and would not any more"
            raise TargetUnwritable(where=file.path.name, reason=reason) from error
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))


def _common_bits(states: Iterable[os.stat_result]) -> int:
    """The permissions that all of these files grant."""
    return functools.reduce(operator.and_, (state.st_mode for state in states), 0o7777)


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _require_same(path: Path, content: bytes | None) -> None:
    """Raises: InputChanged, if somebody else wrote to the file since we read it."""
    state = _state(path)
    if (state is None) != (content is None):
        raise InputChanged(file=path)
    if content is not None and (
        not stat.S_ISREG(state.st_mode if state else 0)
        or fs.open_for_reading(path).size != len(content)
        or fs.read_small(path, len(content)) != content
    ):
        raise InputChanged(file=path)


def _locked(path: Path, *, wait: bool = False) -> int | None:
    """A descriptor that holds a directory's lock until it is closed; None where there are none.

    Raises: BlockingIOError, if another process holds it and we do not wait.
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _delete_left(parent: Path, name: str) -> None:
    """Delete the workshops of this name that nobody is at."""
    for left in parent.glob(f".{name}{_MARK}*"):
        _delete_if_free(left)


def _delete_if_free(left: Path) -> None:
    """Delete what a killed run left, unless its lock is held, or there are no locks to tell."""
    if left.is_symlink() or not left.is_dir():
        return
    with contextlib.suppress(OSError):
        lock = _locked(left)
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
