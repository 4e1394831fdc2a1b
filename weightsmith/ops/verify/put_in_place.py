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


def why_not_replaceable(folder: Path, path: Path) -> str:
    """Why the file of this name must not be replaced, as a clause; empty if it may be."""
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which others may use"
    if os.path.lexists(path) and identity(path) is None:
        return "what has its name is no file"
    try:
        inside(folder, os.path.relpath(path, folder))
    except SidecarEscapes:
        return "its name leads out of the folder"
    return "" if path.parent.is_dir() else f"{path.parent} is missing"


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
