"""Find out where a SOURCE is: a directory, a repository on the hub, which is downloaded or
streamed, or a prefix in an object store, which is read from there.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from weightsmith.errors import NotCached
from weightsmith.hub.download import download
from weightsmith.hub.resolve import HubSource, parse_source
from weightsmith.hub.select import Wanted
from weightsmith.hub.store import HubStore
from weightsmith.hub.voice import Note
from weightsmith.objects.address import is_object_address, parse_address
from weightsmith.objects.bucket import Bucket
from weightsmith.objects.store import ObjectStore
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.disk_delta import is_version
from weightsmith.sources.links import reads_as_chain, split
from weightsmith.sources.plan_download import plan_download
from weightsmith.units import format_size

__all__ = ["Located", "LocatedChain", "Wanted", "label_of", "locate", "split_tag"]

_FILE: Final = "file:///"
_YES: Final = frozenset({"1", "ON", "YES", "TRUE"})
"""Values of an environment variable that the hub library takes for true."""


@dataclass(frozen=True, slots=True)
class Located(os.PathLike[str]):
    """A source on the hub or in an object store, and the local directory that stands for it; it can
    be used as the path of that directory.
    """

    folder: Path
    label: str
    """The source as the user wrote it."""
    origin: str
    """``org/name@commit``, or the address in an object store."""
    store: HubStore | ObjectStore | None = None
    """Fetches weight files one at a time, or ranges of them; None if all are in the folder."""

    def __fspath__(self) -> str:
        """The folder."""
        return str(self.folder)


@dataclass(frozen=True, slots=True)
class LocatedChain(os.PathLike[str]):
    """A chain: a model and deltas, each of them located."""

    links: tuple[str | os.PathLike[str], ...]
    label: str
    """The chain as the user wrote it."""

    def __fspath__(self) -> str:
        """The last link's folder, whose files beside the weights are the chain's."""
        return os.fspath(self.links[-1])


def locate(
    source: str | os.PathLike[str],
    *,
    kind: Wanted = "model",
    offline: bool = False,
    spool: Path | None = None,
    note: Note | None = None,
    progress: Progress = SILENCE,
) -> str | os.PathLike[str]:
    """A SOURCE as a path: a directory as it is, a repository on the hub after downloading it; for a
    chain, each of its links.

    With `spool`, weight files that are not in the hub's cache are not downloaded now: each is
    fetched into a directory in `spool` when it is first read, and deleted after its last reading.
    Messages on what is found go to `note`, by default that of `progress`.
    Raises: SourceUnknown, and what `plan_download` and `download` raise, or `_in_store`.
    """
    if not isinstance(source, str) or not source:
        return source
    note = progress.note if note is None else note
    if source.lower().startswith(_FILE):
        return unquote(source[len(_FILE) - 1 :])
    if is_object_address(source) and len(links := split(source)) < 2:
        return _in_store(source, kind, offline=offline, spool=spool, note=note, progress=progress)
    here = os.path.lexists(source) or split_tag(source)[1]
    links = split(source)
    if len(links) > 1 and not here:
        located = [
            locate(link, offline=offline, spool=spool, note=note, progress=progress)
            for link in links
        ]
        return LocatedChain(tuple(located), source)
    if len(links) > 1 or (here and reads_as_chain(source)):
        note(f"{source} is the directory of that name, not a model with deltas")
    named = parse_source(source) if not here else None
    if not isinstance(named, HubSource):
        return source
    note(f"looking for {source}")
    found = plan_download(source, kind=kind, offline=offline, room=spool is None, note=note)
    origin = f"{found.listing.repo_id}@{found.listing.commit}"
    for line in found.why:
        note(line)
    there = f"{format_size(found.fetch_nbytes)} to fetch" if found.to_fetch else "all in the cache"
    note(f"{found.label}: {format_size(found.nbytes)}, {there}")
    # Versions of a training run are read together, and small: they are not streamed.
    if spool is None or not found.to_fetch or found.selection.format == "versions":
        return Located(download(found, progress).folder, source, origin)
    store = HubStore(found, spool / found.label.replace("/", "--"), progress)
    store.fetch_small()
    if is_version(store.folder):
        return Located(download(found, progress).folder, source, origin)
    return Located(store.folder, source, origin, store)


def _in_store(
    source: str,
    kind: Wanted,
    *,
    offline: bool,
    spool: Path | None,
    note: Note,
    progress: Progress,
) -> Located:
    """Open a model in an object store: small files are copied, weights are read from the store.

    Raises: ObjectAddressInvalid; NotCached, without a network; as `ObjectStore`.
    """
    address = parse_address(source)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        hint = "an object store is only read over the network: leave out `offline=True`"
        raise NotCached(what=address, hint=hint)
    note(f"looking for {address}")
    adapter = kind == "adapter"
    store = ObjectStore(Bucket(address), spool=spool, adapter=adapter, progress=progress)
    return Located(store.folder, source, str(address), store)


def split_tag(source: str | os.PathLike[str]) -> tuple[Path, str]:
    """Split ``RUN@global_step100`` into the path and the checkpoint named in it; empty without one.

    If a path exists with an ``@`` in its name, that path is meant.
    """
    text = os.fspath(source)
    path, at, tag = text.rpartition("@")
    if at and tag and not os.path.lexists(text) and os.path.isdir(path):  # noqa: PTH112
        return Path(path), tag
    return Path(text), ""


def label_of(source: str | os.PathLike[str]) -> str:
    """A source as the user wrote it."""
    return source.label if isinstance(source, Located | LocatedChain) else os.fspath(source)
