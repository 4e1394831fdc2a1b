"""Where a repository's files are on this machine: in the hub's cache, or in a directory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from weightsmith import fs
from weightsmith.hub.connection import Connection
from weightsmith.hub.deletion import delete_files
from weightsmith.hub.hashes import is_digest
from weightsmith.hub.listing import Listing, RepoFile


class Place(Protocol):
    """A directory that files are fetched into."""

    @property
    def folder(self) -> Path:
        """The directory in which the files stand under their own names."""

    def store(self, file: RepoFile) -> Path:
        """Where the file's bytes end up."""

    def partial(self, file: RepoFile) -> Path:
        """The partial file, which holds the bytes until they are whole."""

    def lock(self, file: RepoFile) -> Path:
        """The file that the hub library, and weightsmith too, locks while it fetches."""

    def discard(self, file: RepoFile) -> None:
        """Delete the file and all that points at its bytes."""


@dataclass(frozen=True, slots=True)
class CachePlace:
    """A repository in the hub's cache: ``blobs`` named by their hash, links to them per commit."""

    cache: Path
    repo_id: str
    commit: str

    @property
    def repo(self) -> Path:
        """The repository's directory in the cache."""
        return self.cache / f"models--{self.repo_id.replace('/', '--')}"

    @property
    def folder(self) -> Path:
        """The commit's snapshot."""
        return self.repo / "snapshots" / self.commit

    def store(self, file: RepoFile) -> Path:
        """The blob."""
        return self.repo / "blobs" / file.digest

    def partial(self, file: RepoFile) -> Path:
        """The name by which the hub library and ``clean-cache`` know an incomplete download."""
        return self.repo / "blobs" / f"{file.digest}.incomplete"

    def lock(self, file: RepoFile) -> Path:
        """Outside the repository's own directory, which may be deleted as a whole."""
        return self.cache / ".locks" / self.repo.name / f"{file.digest}.lock"

    def discard(self, file: RepoFile) -> None:
        """Delete the blob and its links in every snapshot: none is left pointing nowhere."""
        link = self.folder / file.name
        blob = _first_hop(link) or self.store(file)
        links = {
            path
            for path in (self.repo / "snapshots").rglob("*")
            if path.is_symlink() and _first_hop(path) == blob
        }
        links |= {link} if link.exists() else set()
        delete_files(self.cache, links=links, blobs={blob} if blob.exists() else ())

    def remember(self, revision: str) -> None:
        """Note that a branch or tag stands at this commit, for use without a network.

        Only once the snapshot is whole: the cache's scan takes a name without one for damage.
        """
        from huggingface_hub.utils import WeakFileLock

        name = self.repo / "refs" / revision
        noted = self.commit.encode()
        if revision == self.commit or not self.folder.is_dir():
            return
        if name.is_file() and name.read_bytes() == noted:
            return  # the cache may be one that we can only read
        lock = self.cache / ".locks" / self.repo.name / "refs.lock"
        for path in (name, lock):
            path.parent.mkdir(parents=True, exist_ok=True)
        # One name for all who write here, so that what a killed run leaves is used by the next.
        new = self.repo / "ref.new"
        with WeakFileLock(lock):
            file = fs.create(new)
            file.write_from(0, memoryview(noted))
            file.sync()
            fs.rename(new, name)


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A plain directory that files are fetched into under their own names."""

    folder: Path

    def store(self, file: RepoFile) -> Path:
        """The file itself."""
        return self.folder / file.name

    def partial(self, file: RepoFile) -> Path:
        """In ``.cache/huggingface``, which the hub library uses and other programs ignore."""
        return self._corner / f"{file.digest}.incomplete"

    def lock(self, file: RepoFile) -> Path:
        """Beside the partial file."""
        return self._corner / f"{file.digest}.lock"

    def discard(self, file: RepoFile) -> None:
        """Delete the file."""
        self.store(file).unlink(missing_ok=True)

    @property
    def _corner(self) -> Path:
        return self.folder / ".cache" / "huggingface" / "download"


def holds(place: Place, file: RepoFile) -> bool:
    """Whether the file is there in its full length."""
    return any(is_whole(path, file) for path in (place.folder / file.name, place.store(file)))


def is_whole(path: Path, file: RepoFile) -> bool:
    """Whether `path` is a file of the full length."""
    state = fs.file_state(path)
    return state is not None and state.st_size == file.nbytes


def cached_listing(connection: Connection, repo_id: str, revision: str) -> Listing | None:
    """What the cache holds of a revision, found without the network; None if nothing."""
    repo = CachePlace(connection.cache, repo_id, "").repo
    ref = repo / "refs" / revision
    commit = fs.read_small(ref, 1000).decode().strip() if ref.is_file() else revision
    folder = repo / "snapshots" / commit
    if not commit or not folder.is_dir():
        return None
    files = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file():
                blob = _first_hop(path)
                digest = blob.name if blob is not None and is_digest(blob.name) else ""
                relative = path.relative_to(folder).as_posix()
                files.append(RepoFile(relative, path.stat().st_size, digest))
    return Listing(repo_id, revision, commit, tuple(sorted(files, key=lambda file: file.name)))


def _first_hop(link: Path) -> Path | None:
    """What a link points at; a blob may itself be a link, into a store that repositories share."""
    try:
        return Path(os.path.abspath(link.parent / link.readlink()))  # noqa: PTH100  one hop only
    except OSError:
        return None
