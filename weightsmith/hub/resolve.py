"""Resolve a source on the hub: to a repository, a commit, files and their sizes."""

import dataclasses
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.catalogue.load import alias, load_bases, load_releases
from weightsmith.errors import (
    HomesGone,
    HubBusy,
    HubUnreachable,
    NotCached,
    NoWeights,
    RepoNotFound,
    RevisionNotFound,
    ShardMissing,
    SourceIsDirectory,
    SourceNotFound,
    SourceUnknown,
    WeightsmithError,
    masked,
)
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES
from weightsmith.hub.address import is_address, source_of
from weightsmith.hub.connection import Connection, list_repo, read_file
from weightsmith.hub.hashes import hash_bytes
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.places import CachePlace, FolderPlace, Place, cached_listing, holds
from weightsmith.hub.select import Selection, Wanted, WeightFormat, select_files
from weightsmith.hub.translate_errors import page_of
from weightsmith.hub.voice import Note, library_heard, unheard
from weightsmith.units import format_size

DEFAULT_REVISION: Final = "main"

_REPO_ID: Final = re.compile(
    r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII
)
_REVISION: Final = re.compile(r"(?!.*(\.\.|//|@\{))[A-Za-z0-9_][\w./+-]{0,200}", re.ASCII)
_PATH_LIKE: Final = re.compile(
    r"[./~\\].*|.*\\.*|[A-Za-z]:.*|.*/|.*/.*/.*|.*\.(json|safetensors|bin|pt|pth|ckpt)"
)
"""What begins as a path, has a folder in a folder, or ends as the files of a model do."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A source on the hub: one repository, or those that are known to hold an alias's model."""

    text: str
    """As it was given."""
    homes: tuple[str, ...]
    """Hub ids, the best first."""
    revision: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A resolved source: the exact commit, the files needed of it, and where they will be put."""

    source: str
    listing: Listing
    selection: Selection
    place: Place
    connection: Connection
    here: frozenset[str]
    """Names of the files that are in their place already, in their full length."""
    why: tuple[str, ...]
    """Sentences for the user on how the choice was made."""

    @property
    def files(self) -> tuple[RepoFile, ...]:
        """The files that are needed."""
        return self.selection.files

    @property
    def to_fetch(self) -> tuple[RepoFile, ...]:
        """Those of them that are not here."""
        return tuple(file for file in self.files if file.name not in self.here)

    @property
    def nbytes(self) -> int:
        """Size of all files that are needed."""
        return sum(file.nbytes for file in self.files)

    @property
    def fetch_nbytes(self) -> int:
        """Size of those that are not here."""
        return sum(file.nbytes for file in self.to_fetch)

    @property
    def label(self) -> str:
        """``org/name@commit``, short."""
        return f"{self.listing.repo_id}@{self.listing.commit[:12]}"

    def to_document(self) -> dict[str, Any]:
        """All of it but the way to the hub."""
        return {
            "source": self.source,
            "repo": self.listing.repo_id,
            "revision": self.listing.revision,
            "commit": self.listing.commit,
            "format": self.selection.format,
            "endpoint": masked(self.connection.endpoint),
            "folder": str(self.place.folder),
            "nbytes": self.nbytes,
            "fetch_nbytes": self.fetch_nbytes,
            "files": [
                {
                    "name": file.name,
                    "nbytes": file.nbytes,
                    "digest": file.digest,
                    "here": file.name in self.here,
                }
                for file in self.files
            ],
            "left": [file.name for file in self.selection.left],
            "why": list(self.why),
        }


def parse_source(source: str | os.PathLike[str]) -> Path | HubSource:
    """A directory, else what `parse_hub_source` makes of it.

    What would be a file of a folder that holds some is a path, though it could be a hub id too:
    ``A/manifest.json`` or ``A/x`` where A is a model here. Folders of folders are often called as
    an organisation of the hub, so ``org/name`` is not told by ``org/``.
    Raises: SourceNotFound and others, as `fs.require_directory`, if it can only be a path and there
    is no such directory; SourceUnknown.
    """
    text = os.fspath(source)
    if isinstance(source, str) and is_address(source):
        return parse_hub_source(source)
    is_path = not isinstance(source, str) or _is_path_like(text) or _is_beside_files(text)
    if is_path or os.path.isdir(text):  # noqa: PTH112
        try:
            fs.require_directory(Path(text))
        except SourceNotFound as error:
            better = error.hint_text != SourceNotFound.hint  # a name beside it that may be meant
            if better or not is_hub_source(text) or text.endswith(".json"):
                raise
            hint = f"check the path; if it is a repository of the hub, write hf://{text}"
            raise SourceNotFound(source=text, context=error.context, hint=hint) from error
        return Path(text)
    return parse_hub_source(text)


def parse_hub_source(text: str, *, revision: str | None = None) -> HubSource:
    """An alias of the catalogue, else ``org/name``, ``org/name@revision`` or a repository's
    address; never a directory.

    Raises: AddressNotModel; SourceIsDirectory, if it can only be a path; RevisionNotFound, if no
    revision can have such a name; SourceUnknown.
    """
    if is_address(text):
        text = source_of(text, os.environ.get("HF_ENDPOINT", ""))
    if _is_path_like(text):
        raise SourceIsDirectory(source=text)
    repo_id, at, named = text.partition("@")
    revision = revision or (named if at else None)
    base = alias(repo_id) if "/" not in repo_id else None
    if base is None and not _REPO_ID.fullmatch(repo_id):
        raise SourceUnknown(source=text, context=_nearest(text))
    if revision is not None and not _REVISION.fullmatch(revision):
        page = page_of(repo_id)
        raise RevisionNotFound(repo=repo_id, revision=revision or '""', page=page)
    if base is None:
        return HubSource(text, (repo_id,), revision)
    # A name that was given up may have been taken by somebody else since.
    homes = tuple(repo.id for repo in base.hub if repo.status != "removed")
    return HubSource(text, homes, revision, base.alias)


def is_hub_source(text: str) -> bool:
    """Whether `text` can be ``org/name``, with a revision or without."""
    repo_id, at, revision = text.partition("@")
    return bool(_REPO_ID.fullmatch(repo_id)) and (not at or bool(_REVISION.fullmatch(revision)))


def is_repo_id(text: str) -> bool:
    """Whether `text` is ``org/name``, without a revision."""
    return bool(_REPO_ID.fullmatch(text))


def _is_path_like(text: str) -> bool:
    """Whether `text` can be no alias and no hub id; a revision may hold slashes, ``refs/pr/1``."""
    return bool(_PATH_LIKE.fullmatch(text.partition("@")[0]))


def _is_beside_files(text: str) -> bool:
    """Whether what `text` names would lie in a folder of this machine that holds files."""
    folder, slash, _ = text.partition("@")[0].rpartition("/")
    if not slash:
        return False
    try:
        with os.scandir(folder) as entries:
            return any(each.is_file() for each in entries if not each.name.startswith("."))
    except OSError:
        return False


def resolve(
    source: HubSource,
    connection: Connection,
    *,
    weights: WeightFormat = "auto",
    kind: Wanted = "model",
    local_dir: Path | None = None,
    note: Note = unheard,
) -> Resolved:
    """Find a source on the hub; in the cache where the network is off or the hub out of reach.

    An alias's homes are tried in order, the next only where one does not exist; what was chosen,
    and why, is part of the result.
    Raises: RepoNotFound, HomesGone, RevisionNotFound, NotCached; AccessFault; TemporaryFault;
    FileNameUnsafe, HashMismatch; what `select_files` raises.
    """
    why = list(connection.notes)
    with library_heard(note):
        listing, unreachable = _find(source, connection, why)
    if unreachable is not None:
        connection = dataclasses.replace(connection, offline=True)
    cache = CachePlace(connection.cache, listing.repo_id, listing.commit)
    place = cache if local_dir is None else FolderPlace(local_dir.absolute())

    def read(file: RepoFile) -> bytes:
        for path in (place.folder / file.name, cache.folder / file.name, cache.store(file)):
            if path.is_file():
                content = fs.read_small(path, MAX_HEADER_NBYTES)
                if file.digest in {"", hash_bytes(content, file.digest)}:
                    return content
        if connection.offline:
            raise unreachable or NotCached(what=f"a sound {file.name} of {source.text}")
        with library_heard(note):
            return read_file(connection, listing, file)

    try:
        selection = select_files(listing, read, weights=weights, kind=kind)
    except (NoWeights, ShardMissing) as error:
        if connection.offline:
            raise unreachable or NotCached(what=f"all of {source.text}") from error
        raise
    if selection.left:
        nbytes = format_size(sum(file.nbytes for file in selection.left))
        first, *more = [file.name for file in selection.left]
        others = f" and {len(more)} more" if more else ""
        why.append(f"took {selection.format} weights; not fetched, {nbytes}: {first}{others}")
    return Resolved(
        source=source.text,
        listing=listing,
        selection=selection,
        place=place,
        connection=connection,
        here=frozenset(file.name for file in selection.files if holds(place, file)),
        why=tuple(why),
    )


def _find(
    source: HubSource, connection: Connection, why: list[str]
) -> tuple[Listing, WeightsmithError | None]:
    """The listing of the first home there is; and the hub's fault, where the cache stands in."""
    unreachable = None
    if not connection.offline:
        try:
            return _first_on_hub(source, connection, why), None
        except (HubUnreachable, HubBusy) as error:
            unreachable = error
    for repo_id in source.homes:
        revision = source.revision or DEFAULT_REVISION
        if listing := cached_listing(connection, repo_id, revision):
            because = f"{unreachable}: " if unreachable else ""
            why.append(f"{because}using what the cache holds, {repo_id} at {listing.commit[:12]}")
            return listing, unreachable
    raise unreachable or NotCached(what=source.text, context=_not_here(source.text))


def _first_on_hub(source: HubSource, connection: Connection, why: list[str]) -> Listing:
    """Raises: RepoNotFound, HomesGone; what `list_repo` raises for the first home that exists."""
    missing = []
    for repo_id in source.homes:
        try:
            listing = list_repo(connection, repo_id, source.revision or DEFAULT_REVISION)
        except RepoNotFound as error:
            missing.append(str(error))
            continue
        if source.alias:
            why.extend(missing)
            why.append(f"{source.alias} stands for {repo_id}")
        return listing
    if source.alias:
        raise HomesGone(alias=source.alias, count=len(source.homes), context=missing)
    raise RepoNotFound(
        repo=source.text, context=[*_nearest(source.homes[0]), *_not_here(source.text)]
    )


def _not_here(text: str) -> list[str]:
    """That a folder of this machine was perhaps meant, where the one above it is here."""
    folder, slash, name = text.partition("@")[0].rpartition("/")
    if not slash or not os.path.isdir(folder):  # noqa: PTH112
        return []
    return [f"{folder} is a directory here, and there is no {name} in it"]


def _nearest(text: str) -> list[str]:
    """What the catalogue knows that looks like `text`."""
    homes = [*(base.hub for base in load_bases()), *(release.hub for release in load_releases())]
    names = [repo.id for repos in homes for repo in repos]
    names += [base.alias for base in load_bases()]
    spelled = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(text.casefold(), spelled, n=3)
    return [f"did you mean {' or '.join(spelled[name] for name in near)}?"] if near else []
