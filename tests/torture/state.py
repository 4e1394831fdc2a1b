"""What a folder holds, so that two moments of it can be compared."""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OF_LIBRARY: Final = re.compile(
    r"cache/hub/(\.locks(/|$)|CACHEDIR\.TAG|[^/]+/tmp\w{8}(/|$))|\.cache/huggingface(/|$)"
)
"""The hub library's own: locks, a mark for backups, a trial of links that a kill leaves, notes with
the time in them. None of it is a model's, and the library can go on from any of it.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str = ""
    """A file's hash, a link's target."""
    mtime_ns: int = 0
    nbytes: int = 0
    """Of a file."""


State = Mapping[str, Entry]
"""By path below the folder."""


def state_of(folder: Path, *, times: bool = False) -> State:
    """All below a folder; with the `times` of change of what must not be touched."""
    return {
        path.relative_to(folder).as_posix(): _entry(path, times=times)
        for path in sorted(folder.rglob("*"))
        if not _OF_LIBRARY.search(path.relative_to(folder).as_posix())
    }


def _entry(path: Path, *, times: bool) -> Entry:
    found = path.lstat()
    content, nbytes = "", 0
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)  # noqa: PTH115  (the text itself)
    elif stat.S_ISREG(found.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        nbytes = found.st_size
    return Entry(
        kind=stat.filemode(found.st_mode)[0],
        mode=stat.S_IMODE(found.st_mode),
        owner=(found.st_uid, found.st_gid),
        content=content,
        mtime_ns=found.st_mtime_ns if times else 0,
        nbytes=nbytes,
    )


def below(state: State, name: str) -> State:
    """The part of a state that is an entry, with all in it."""
    return {path: each for path, each in state.items() if f"{path}/".startswith(f"{name}/")}


def differences(found: State, wanted: State) -> list[str]:
    """What is not as it should be, as sentences; modes and owners too."""
    return [
        f"{path}: {_told(found.get(path))}, wanted {_told(wanted.get(path))}"
        for path in sorted(found.keys() | wanted.keys())
        if found.get(path) != wanted.get(path)
    ]


def _told(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    return f"{entry.kind} {entry.mode:o} {entry.owner} {entry.content[:12]} {entry.mtime_ns or ''}"
