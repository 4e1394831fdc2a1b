"""Open what a user names."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layout import layout_of
from weightsmith.checkpoint.opening import open_adapter, open_checkpoint, open_delta
from weightsmith.errors import EncodedRelease, SourceNotFound
from weightsmith.hub.download import download
from weightsmith.hub.resolve import HubSource, parse_source
from weightsmith.hub.select import Kind
from weightsmith.hub.store import HubStore
from weightsmith.hub.voice import Note, unheard
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.meta import open_meta
from weightsmith.sources.plan_download import plan_download
from weightsmith.units import format_size

__all__ = [
    "Kind",
    "Located",
    "label_of",
    "locate",
    "open_lora",
    "open_payloads",
    "open_source",
]


@dataclass(frozen=True, slots=True)
class Located(os.PathLike[str]):
    """A source of the hub that is reached: the directory that stands for it, a path as any
    other.
    """

    folder: Path
    label: str
    """The source as the user wrote it."""
    origin: str
    """``org/name@commit``."""
    store: HubStore | None = None
    """Brings the weight files one at a time; None where all of them are in the folder."""

    def __fspath__(self) -> str:
        """The folder."""
        return str(self.folder)


def locate(
    source: str | os.PathLike[str],
    *,
    kind: Kind = "model",
    offline: bool = False,
    spool: Path | None = None,
    note: Note = unheard,
    progress: Progress = SILENCE,
) -> str | os.PathLike[str]:
    """A SOURCE as a path: a directory as it is, what is on the hub after fetching it.

    With `spool`, weight files that are not in the hub's cache are not fetched now: each is brought
    into a directory in there when it is first read, and dropped when it is read no more.
    Raises: SourceUnknown, and what `plan_download` and `download` raise.
    """
    if isinstance(source, Located) or not isinstance(source, str) or not source:
        return source
    named = parse_source(source) if not os.path.lexists(source) else None
    if not isinstance(named, HubSource):
        return source
    note(f"looking for {source}")
    found = plan_download(source, kind=kind, offline=offline, room=spool is None, note=note)
    origin = f"{found.listing.repo_id}@{found.listing.commit}"
    for line in found.why:
        note(line)
    here = f"{format_size(found.fetch_nbytes)} of it not here yet" if found.to_fetch else "all here"
    note(f"{found.label}: {format_size(found.nbytes)}, {here}")
    if spool is None or not found.to_fetch:
        return Located(download(found, progress).folder, source, origin)
    store = HubStore(found, spool / found.label.replace("/", "--"), progress)
    store.fetch_small()
    return Located(store.folder, source, origin, store)


def label_of(source: str | os.PathLike[str]) -> str:
    """A source as the user wrote it."""
    return source.label if isinstance(source, Located) else os.fspath(source)


def open_source(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE for reading: a directory, of Hugging Face's or of Meta's layout, or on the hub.

    Raises: SourceNotFound, SourceUnreadable; EncodedRelease, for files that are no weights until
    they are decoded; and what `open_checkpoint` and `open_meta` raise.
    """
    source = locate(source)
    far = isinstance(source, Located) and source.store is not None
    return _opened(source, open_checkpoint if far else _open)


def open_payloads(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE that is an exact delta, a directory or on the hub, as the tensors of bytes that
    it holds.

    Raises: SourceNotFound, SourceUnreadable, and what `open_delta` raises.
    """
    return _opened(locate(source), open_delta)


def open_lora(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE that is a LoRA adapter: a directory, or on the hub.

    Raises: SourceNotFound, SourceUnreadable, and what `open_adapter` raises.
    """
    return _opened(locate(source, kind="adapter"), open_adapter)


def _opened(source: str | os.PathLike[str], opener: Callable[..., Checkpoint]) -> Checkpoint:
    """A located source, its weight files brought by its store where it has one."""
    path, text = _directory(source)
    if not isinstance(source, Located) or source.store is None:
        checkpoint = opener(path, text)
    else:
        checkpoint = opener(path, text, store=source.store, elsewhere=source.store.weights)
    checkpoint.origin = source.origin if isinstance(source, Located) else ""
    return checkpoint


def _open(path: Path, label: str) -> Checkpoint:
    """Open a directory of any layout that holds tensors."""
    layout = layout_of(path)
    if layout is not None and layout.kind == "meta":
        return open_meta(path, layout.files, label=label)
    if layout is not None and layout.kind in {"xor-release", "keystream-release"}:
        needed = "--base BASE" if layout.kind == "xor-release" else "--key FILE"
        hint = f"decode it first: weightsmith apply-delta {needed} --delta {label}"
        raise EncodedRelease(source=label, reason=layout.reason, hint=hint)
    return open_checkpoint(path, label=label)


def _directory(source: str | os.PathLike[str]) -> tuple[Path, str]:
    """The directory that a SOURCE names, and the SOURCE as text.

    Raises: SourceNotFound, LinkBroken, SourceIsFile, SourceUnreadable.
    """
    text = label_of(source)
    if not text:  # an unset variable, say; as a path it would be the working directory
        raise SourceNotFound(source='""')
    path = Path(source)
    fs.require_directory(path)
    return path, text
