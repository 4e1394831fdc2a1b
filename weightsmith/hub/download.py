"""Fetch the files of a resolved source: in parallel, resumable, each checked by its hash."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.errors import (
    DownloadTooLarge,
    HashMismatch,
    NotCached,
    ShardTruncated,
    SourceNotFound,
)
from weightsmith.hub.fetch import Transfer, fetch, turn
from weightsmith.hub.hashes import hash_file, require_digest
from weightsmith.hub.listing import RepoFile
from weightsmith.hub.places import CachePlace, is_whole
from weightsmith.hub.resolve import Resolved
from weightsmith.hub.voice import library_heard
from weightsmith.progress import Progress
from weightsmith.units import format_size

WORKERS: Final = 8
"""Files that are fetched at a time. With more, the hub's limits are met sooner, and an interruption
loses more.
"""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Where the files are, and which of them had to be fetched."""

    resolved: Resolved
    folder: Path
    fetched: tuple[RepoFile, ...]
    kept: tuple[RepoFile, ...]
    """Files that were here already."""

    def to_document(self) -> dict[str, Any]:
        """The resolved source and the result, as JSON values."""
        return {
            **self.resolved.to_document(),
            "fetched": [file.name for file in self.fetched],
            "fetched_nbytes": sum(file.nbytes for file in self.fetched),
            "kept": [file.name for file in self.kept],
        }


def require_disk(resolved: Resolved) -> None:
    """Refuse a download that the disk cannot take.

    Raises: DownloadTooLarge.
    """
    folder = resolved.place.folder
    where = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = fs.free_nbytes(where)
    if free is not None and free < resolved.fetch_nbytes:
        raise DownloadTooLarge(
            where=where, free=format_size(free), needed=format_size(resolved.fetch_nbytes)
        )


def download(resolved: Resolved, progress: Progress, *, check_kept: bool = True) -> Downloaded:
    """Bring every needed file into its place; nothing that is there and sound is fetched again.

    With `check_kept`, files that are there are hashed too; one that is damaged is fetched anew.
    Raises: DiskFull; HashMismatch; NotCached, if the network is off; AccessFault,
    TemporaryFault, RepoChanged. What has arrived is kept for the next time.
    """
    transfer = Transfer(
        connection=resolved.connection,
        listing=resolved.listing,
        place=resolved.place,
        advance=progress.advance,
        note=progress.note,
        stop=threading.Event(),
    )
    kept = [file for file in resolved.files if file.name in resolved.here]
    missing = list(resolved.to_fetch)
    with library_heard(transfer.note):
        if check_kept and kept:
            progress.begin("checking", sum(file.nbytes for file in kept))
            damaged = _find_damaged(transfer, kept)
            kept = [file for file in kept if file not in damaged]
            missing += damaged
            transfer = dataclasses.replace(
                transfer, damaged=frozenset(file.name for file in damaged)
            )
        # Bytes that are in the cache without a name in this snapshot want only the name.
        unnamed = [f for f in kept if not is_whole(transfer.place.folder / f.name, f)]
        if wanted := [*unnamed, *missing]:
            if resolved.connection.offline:
                names = [file.name for file in wanted]
                raise NotCached(what=f"all of {resolved.label}", context=names)
            progress.begin("downloading", sum(file.nbytes for file in wanted))
            # The small ones first: an unfinished download then has its config and its index.
            in_order = sorted(wanted, key=lambda file: (len(file.digest) > 40, file.name))
            _each(transfer, fetch, in_order)
    if isinstance(resolved.place, CachePlace):
        resolved.place.remember(resolved.listing.revision)
    return Downloaded(resolved, resolved.place.folder, tuple(missing), tuple(kept))


def _find_damaged(transfer: Transfer, files: Iterable[RepoFile]) -> list[RepoFile]:
    """Hash the files that are there already; return those that differ from the hub's.

    They stay until a sound one takes their place: other revisions may point at them.
    Raises: HashMismatch, if there is one and the network is off.
    """
    damaged = []

    def found(file: RepoFile) -> str:
        path = transfer.place.folder / file.name
        try:
            return hash_file(path if path.exists() else transfer.place.store(file), file.digest)
        except (SourceNotFound, ShardTruncated):  # it has just gone
            return "nothing"

    def check(transfer: Transfer, file: RepoFile) -> None:
        path = transfer.place.folder / file.name
        digest = found(file)
        if digest != file.digest:
            # Another of us may be copying it to its place right now, where links cannot be made.
            # In a cache that we cannot write to nobody of us is.
            with contextlib.suppress(OSError), turn(transfer, file):
                digest = found(file)
        transfer.advance(file.nbytes)
        try:
            require_digest(file, digest)
        except HashMismatch as error:
            if transfer.connection.offline:
                hint = "run the same command with the network on: it is fetched anew"
                context = [*error.context, str(path)]
                raise HashMismatch(file=file.name, context=context, hint=hint) from error
            transfer.note(f"{file.name} here is not what the hub has; it is fetched anew")
            damaged.append(file)

    _each(transfer, check, [file for file in files if file.digest])
    return damaged


def _each(
    transfer: Transfer, work: Callable[[Transfer, RepoFile], None], files: list[RepoFile]
) -> None:
    """Do `work` for every file, some at a time; the first failure stops the rest and is raised."""
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="weightsmith-hub")
    futures = [pool.submit(work, transfer, file) for file in files]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException as error:
        transfer.stop.set()
        # A person who interrupts does not wait until a silent server has been silent long enough.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
