"""Read what the hub's cache holds, compute what deleting parts of it would free, and delete."""

import dataclasses
import os
import stat
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from weightsmith import fs
from weightsmith.hub.deletion import delete_files
from weightsmith.hub.voice import library_heard, unheard

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, DeleteCacheStrategy, HFCacheInfo

_KINDS: Final = {"models": "model", "datasets": "dataset", "spaces": "space", "kernels": "kernel"}
"""What kind of repository a directory holds, by the beginning of its name."""
JUST_NOW_S: Final = 300.0
"""Blobs younger than this are kept, for a running download may be about to link them."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of a revision; deleting it means unlinking, and the bytes go with the last link."""

    name: str
    """Its path in the repository."""
    link: Path
    """In the snapshot; where links cannot be made, the file itself."""
    blob: Path
    """What the link points at, in the repository's ``blobs``."""
    bytes_at: Path
    """Where the bytes are: the blob, or what it points at in the store that repositories share."""
    nbytes: int
    used: float
    modified: float


@dataclass(frozen=True, slots=True)
class CachedRevision:
    """A commit of a repository, as far as it was downloaded."""

    repo_type: str
    repo_id: str
    commit: str
    refs: tuple[str, ...]
    """Branches and tags that stand at it."""
    files: tuple[CachedFile, ...]
    made: float
    """When its directory was changed last."""
    outside: tuple[str, ...] = ()
    """Files whose links lead out of the repository's directory and out of the cache: to delete them
    would delete what somebody keeps elsewhere.
    """

    @property
    def nbytes(self) -> int:
        """Size of its files, shared ones included."""
        return sum({file.bytes_at: file.nbytes for file in self.files}.values())

    @property
    def used(self) -> float:
        """When one of its files was last read, as far as the file system tells."""
        return max((file.used for file in self.files), default=self.made)

    @property
    def modified(self) -> float:
        """When one of its files was written."""
        return max((file.modified for file in self.files), default=self.made)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that no revision has a use for, or the directory of a repository that the hub library
    cannot read.
    """

    kind: Literal["incomplete", "unreferenced", "broken"]
    path: Path
    bytes_at: Path
    nbytes: int
    modified: float
    repo_type: str = ""
    repo_id: str = ""
    """Empty for the store that repositories share."""
    busy: bool = False
    """Whether a download holds its lock at this moment."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A hub cache at one moment."""

    root: Path
    revisions: tuple[CachedRevision, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Other things that the hub library cannot read, and why; they are left alone."""

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(_sizes(self).values())

    @property
    def last_use_unknown(self) -> str:
        """Why access times are of no use here; empty if they are."""
        if os.name == "posix" and self.root.is_dir():
            flags = os.statvfs(self.root).f_flag
            if flags & getattr(os, "ST_NOATIME", 0):
                return "it is mounted with noatime"
        files = [file for revision in self.revisions for file in revision.files]
        if files and all(file.used <= file.modified for file in files):
            return "no file there looks as if it had been read since it was written"
        return ""


def scan(root: Path) -> Cache:
    """Look at everything in a hub cache, opening no file; one that is not there is empty."""
    from huggingface_hub import scan_cache_dir

    if not root.is_dir():
        return Cache(root)
    info = scan_cache_dir(root)
    revisions = [revision for repo in info.repos for revision in _revisions(repo)]
    broken = [*_broken(root, info)]
    others = (
        str(warning)
        for warning in info.warnings
        if not any(f"{each.path}" in str(warning) for each in broken)
    )
    leftovers = [*_leftovers(root, info), *broken]
    return Cache(
        root=root,
        revisions=tuple(sorted(revisions, key=lambda r: (r.repo_type, r.repo_id, r.commit))),
        leftovers=tuple(sorted(leftovers, key=lambda leftover: leftover.path)),
        unreadable=tuple(sorted(others)),
    )


def freed_nbytes(
    cache: Cache,
    revisions: AbstractSet[CachedRevision],
    links: AbstractSet[Path],
    leftovers: AbstractSet[Leftover],
) -> int:
    """Bytes that go when these revisions, links of others, and leftovers are deleted together.

    A blob goes with the last link to it, bytes in the shared store with the last blob.
    """
    gone = links | {file.link for revision in revisions for file in revision.files}
    kept = {
        file.bytes_at
        for revision in cache.revisions
        for file in revision.files
        if file.link not in gone
    }
    kept |= {leftover.bytes_at for leftover in cache.leftovers if leftover not in leftovers}
    return sum(nbytes for path, nbytes in _sizes(cache).items() if path not in kept)


def delete(
    root: Path,
    revisions: AbstractSet[CachedRevision],
    links: AbstractSet[Path],
    leftovers: AbstractSet[Leftover],
) -> None:
    """Scan again and delete by the hub library's own strategies; what was linked since stays."""
    from huggingface_hub import scan_cache_dir

    with library_heard(unheard):  # the caller looks at what is still there
        info = scan_cache_dir(root)
        for repo in info.repos:
            ours = {
                revision.commit
                for revision in revisions
                if (revision.repo_type, revision.repo_id) == (repo.repo_type, repo.repo_id)
            }
            if present := ours & {revision.commit_hash for revision in repo.revisions}:
                # Alone, because the library takes a hash for unique, and a fork has the same ones.
                alone = dataclasses.replace(info, repos=frozenset({repo}))
                _execute(alone.delete_revisions(*present))
        _delete_files(root, links, leftovers)


def _execute(strategy: "DeleteCacheStrategy") -> None:
    """Names first: for one without its snapshot, the library calls the whole repository damaged."""
    nothing: frozenset[Path] = frozenset()
    dataclasses.replace(strategy, blobs=nothing, repos=nothing, snapshots=nothing).execute()
    dataclasses.replace(strategy, refs=nothing).execute()


def _delete_files(root: Path, links: AbstractSet[Path], leftovers: AbstractSet[Leftover]) -> None:
    cache = scan(root)
    files = [file for revision in cache.revisions for file in revision.files]
    present = {file.link for file in files} & links
    linked = {file.blob for file in files if file.link not in links}
    blobs = {file.blob for file in files if file.link in links} - linked - present
    stale = {leftover.path for leftover in cache.leftovers if not leftover.busy}
    in_repos = {leftover.path for leftover in leftovers if leftover.repo_id} & stale
    repos = {path for path in in_repos if path.is_dir()}
    delete_files(root, links=present, blobs=blobs | (in_repos - repos), repos=repos)
    in_store = {leftover.path for leftover in leftovers if not leftover.repo_id} & stale
    store = _shared_store()
    for path in in_store:
        store.sweep_shared_blob(path, cache_dir=root)


def _sizes(cache: Cache) -> dict[Path, int]:
    """Size of everything on disk by where its bytes are, each once."""
    files = (file for revision in cache.revisions for file in revision.files)
    return {
        **{file.bytes_at: file.nbytes for file in files},
        **{leftover.bytes_at: leftover.nbytes for leftover in cache.leftovers},
    }


def _revisions(repo: "CachedRepoInfo") -> Iterator[CachedRevision]:
    homes = (repo.repo_path.resolve(), repo.repo_path.parent.resolve())
    for revision in repo.revisions:
        files = [
            CachedFile(
                name=file.file_path.relative_to(revision.snapshot_path).as_posix(),
                link=file.file_path,
                blob=file.blob_path,
                bytes_at=file.blob_path.resolve(),
                nbytes=file.size_on_disk,
                used=file.blob_last_accessed,
                modified=file.blob_last_modified,
            )
            for file in revision.files
        ]
        yield CachedRevision(
            repo_type=repo.repo_type,
            repo_id=repo.repo_id,
            commit=revision.commit_hash,
            refs=tuple(sorted(revision.refs)),
            files=tuple(sorted(files, key=lambda file: file.name)),
            made=revision.last_modified,
            outside=tuple(
                sorted(f.name for f in files if not any(map(f.bytes_at.is_relative_to, homes)))
            ),
        )


def _leftovers(root: Path, info: "HFCacheInfo") -> Iterator[Leftover]:
    known = {file.blob_path for repo in info.repos for r in repo.revisions for file in r.files}
    for repo in info.repos:
        blobs = repo.repo_path / "blobs"
        for path in blobs.iterdir() if blobs.is_dir() else ():
            if path in known or (state := fs.file_state(path)) is None:
                continue
            lock = root / ".locks" / repo.repo_path.name / f"{path.name.partition('.')[0]}.lock"
            incomplete = path.suffix == ".incomplete"
            fresh = not incomplete and time.time() - state.st_mtime < JUST_NOW_S
            yield Leftover(
                kind="incomplete" if incomplete else "unreferenced",
                path=path,
                bytes_at=path.resolve(),
                nbytes=state.st_size,
                modified=state.st_mtime,
                repo_type=repo.repo_type,
                repo_id=repo.repo_id,
                busy=fresh or _is_held(lock),
            )
    if store := _shared_store():
        for path, nbytes in store.unreferenced_shared_blobs(root).items():
            if state := fs.file_state(path):
                yield Leftover("unreferenced", path, path, nbytes, state.st_mtime)


def _broken(root: Path, info: "HFCacheInfo") -> Iterator[Leftover]:
    """Repositories that the library's scan gives up on, each as a whole.

    One without any snapshot is what a deletion leaves that was stopped after it had begun: no
    revision points at its blobs, and none can.
    """
    known = {repo.repo_path.name for repo in info.repos}
    for path in sorted(root.iterdir()):
        kind, _, name = path.name.partition("--")
        if kind not in _KINDS or not name or path.name in known:
            continue
        if path.is_symlink() or not path.is_dir():
            continue
        states = {each: each.lstat() for each in path.rglob("*")}
        files = {(s.st_dev, s.st_ino): s for s in states.values() if stat.S_ISREG(s.st_mode)}
        blobs = (s.st_mtime for each, s in states.items() if each.parent == path / "blobs")
        modified = max(blobs, default=0.0)
        snapshots = path / "snapshots"
        named = snapshots.is_dir() and any(each.is_dir() for each in snapshots.iterdir())
        locks = root / ".locks" / path.name
        yield Leftover(
            kind="broken" if named else "unreferenced",
            path=path,
            bytes_at=path,
            nbytes=sum(s.st_size for s in files.values()),
            modified=modified,
            repo_type=_KINDS[kind],
            repo_id=name.replace("--", "/"),
            busy=time.time() - modified < JUST_NOW_S
            or any(_is_held(lock) for lock in locks.glob("*.lock")),
        )


def _is_held(lock: Path) -> bool:
    """Whether a running download holds the lock; the lock of one that was killed is free."""
    from huggingface_hub.utils import WeakFileLock

    if not lock.exists():
        return False
    try:
        with WeakFileLock(lock, timeout=0.1):
            return False
    except TimeoutError:
        return True


def _shared_store() -> Any:
    """The library's module for blobs that repositories share; None in versions without."""
    try:
        from huggingface_hub.utils import _shared_blobs
    except ImportError:
        return None
    return _shared_blobs
