"""Rename a new file over a damaged one, in one step, and over no other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.content import inside
from weightsmith.engine.in_place import discard_left, take_after, workshop
from weightsmith.errors import InputChanged, SidecarEscapes
from weightsmith.ops.fix.report import CannotFix

_WORKSHOP: Final = "fix"
"""Part of the names of directories of unfinished work, by which they are found again."""


@contextmanager
def fixing(folder: Path, *, dry_run: bool) -> Iterator[Path]:
    """A directory for unfinished work, deleted at the end: in the folder, so that files can be
    renamed from it; for a dry run elsewhere.
    """
    if dry_run:
        with fs.scratch_directory() as work:
            yield work
        return
    with fs.translated_write_errors(folder), workshop(folder, _WORKSHOP) as work:
        yield work
        fs.sync_directory(folder)


def tidy(folder: Path) -> None:
    """Delete what a killed run left, where there is nothing to fix."""
    discard_left(folder, _WORKSHOP)


def identity(path: Path) -> fs.Identity | None:
    """The identity of a file, as the system states it; None if there is no file."""
    state = fs.file_state(path)
    return None if state is None else fs.identity_of(state)


def require_replaceable(folder: Path, path: Path) -> None:
    """Raises: CannotFix, if what has this name must not be replaced by a file."""
    if path.is_symlink():
        reason = f"it is a link to {path.readlink()}, and that file may be used by others"
        raise CannotFix(reason, f"delete the link, then fix it again: rm {path}")
    if os.path.lexists(path) and identity(path) is None:
        what = "a directory" if path.is_dir() else "a pipe, a socket or a device"
        aside = f"{path}.aside"
        hint = f"move it away, then fix it again: mv {path} {aside}"
        raise CannotFix(f"{what} has the file's name", hint)
    try:
        inside(folder, os.path.relpath(path, folder))
    except SidecarEscapes as error:
        raise CannotFix("weightsmith.json names a file outside the folder") from error
    if not path.parent.is_dir():
        hint = f"make it, then fix it again: mkdir -p {path.parent}"
        raise CannotFix(f"its directory {path.parent} is missing", hint)


def put_in_place(staged: Path, path: Path, before: fs.Identity | None) -> None:
    """Rename a file that is whole, synced and proved; it takes mode and owner of the old one.

    Raises: InputChanged, if somebody wrote to the old one since it was read.
    """
    old = fs.file_state(path)
    if (None if old is None else fs.identity_of(old)) != before:
        raise InputChanged(file=path)
    if old is not None:
        take_after(fs.open_for_reading(staged), old)
    fs.rename(staged, path)
