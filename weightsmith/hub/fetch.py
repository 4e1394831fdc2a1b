"""Fetch one file: in pieces that survive an interruption, checked before it gets its name."""

import contextlib
import dataclasses
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.errors import (
    AnswerNotFromHub,
    DownloadBroken,
    HashMismatch,
    HubUnreachable,
    SourceNotFound,
)
from weightsmith.hub.connection import Connection, file_url, is_web_page, request_headers
from weightsmith.hub.hashes import hash_file, require_digest
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.places import CachePlace, FolderPlace, Place, holds, is_whole
from weightsmith.hub.translate_errors import translated
from weightsmith.units import format_size
from weightsmith.version import __version__

FIRST_WAIT_S = 1.0
"""Before the second try; then twice as long each time, up to eight times as long."""
RETRIES: Final = 5
"""How often in a row a connection may break without bringing a byte."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What all files of one download have in common."""

    connection: Connection
    listing: Listing
    place: Place
    advance: Callable[[int], None]
    note: Callable[[str], None]
    stop: threading.Event
    """Set when another file has failed, or the user has interrupted the run."""
    damaged: frozenset[str] = frozenset()
    """Names of files that have their full length and must be replaced nevertheless."""


class Stopped(Exception):
    """The download as a whole has ended before this file."""


def fetch(transfer: Transfer, file: RepoFile) -> None:
    """Put `file` into its place, whole and checked, or leave what has arrived for the next time.

    Raises: HashMismatch, DownloadBroken, DiskFull, and what `translated` makes of other answers.
    """
    with turn(transfer, file):
        if file.name not in transfer.damaged and is_whole(transfer.place.folder / file.name, file):
            transfer.advance(file.nbytes)  # another process brought it while we waited
        else:
            _bring(transfer, file)


@contextlib.contextmanager
def turn(transfer: Transfer, file: RepoFile) -> Iterator[None]:
    """Hold the lock of a file, so that no other weightsmith fetches it meanwhile.

    The library's own lock, for which `_fetch` and the library wait, is free in between: where links
    cannot be made, a file is copied to its place under no lock of the library's.
    """
    from huggingface_hub.utils import WeakFileLock

    lock = transfer.place.lock(file)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock.with_stem(f"{lock.stem}.turn")):
        yield


def _bring(transfer: Transfer, file: RepoFile) -> None:
    """Do what `fetch` says, with the lock of the file held."""
    cache = CachePlace(transfer.connection.cache, transfer.listing.repo_id, transfer.listing.commit)
    path = transfer.place.folder / file.name
    if transfer.connection.xet:
        _by_library(transfer, file, replace=path.exists())
    elif transfer.place == cache:
        _fetch(transfer, file)
        if cache.store(file).exists() and _is_copy(path):
            path.unlink()  # from before; the library would keep it
        # The blob is there; the library links it into the snapshot.
        unheard = dataclasses.replace(transfer, advance=lambda _: None)
        _by_library(unheard, file, checked=cache.store(file))
        if _is_copy(path):  # links cannot be made here
            cache.store(file).unlink(missing_ok=True)
    elif holds(cache, file):
        path.unlink(missing_ok=True)  # it may be a link, and copying would write through it
        _by_library(transfer, file)
    else:
        _fetch(transfer, file)


def _is_copy(path: Path) -> bool:
    """Whether a file stands in a snapshot itself, and not the link that the library makes where it
    can; for another program it may do so at any moment.
    """
    return path.is_file() and not path.is_symlink()


def _by_library(
    transfer: Transfer, file: RepoFile, *, replace: bool = False, checked: Path | None = None
) -> None:
    """Let the hub library do what it takes: fetch from Xet, copy from the cache, link.

    Its result is hashed, unless it is the file `checked`.
    """
    from huggingface_hub import errors, hf_hub_download

    listing, counted = transfer.listing, 0

    def advance(nbytes: int) -> None:
        nonlocal counted
        counted += nbytes
        transfer.advance(nbytes)

    place = transfer.place
    into: dict[str, Any] = {"local_dir": place.folder} if isinstance(place, FolderPlace) else {}
    with (
        fs.translated_write_errors(place.store(file)),
        translated(transfer.connection.endpoint, listing.repo_id, listing.revision, file.name),
    ):
        try:
            hf_hub_download(
                listing.repo_id,
                file.name,
                revision=listing.commit,
                endpoint=transfer.connection.endpoint,
                cache_dir=transfer.connection.cache,
                library_name="weightsmith",
                library_version=__version__,
                tqdm_class=_counting(advance, transfer.stop),
                force_download=replace,
                **into,
            )
        except (RuntimeError, errors.XetDownloadError) as error:  # what Xet's storage raises
            raise DownloadBroken(file=file.name, reason=str(error).partition("\n")[0]) from error
    transfer.advance(file.nbytes - counted)
    path = place.folder / file.name
    if checked is None or not checked.exists() or not checked.samefile(path):
        try:
            require_digest(file, hash_file(path, file.digest))
        except HashMismatch:
            place.discard(file)
            raise


def _fetch(transfer: Transfer, file: RepoFile) -> None:
    """Fetch over HTTP, while no library does, and put it where its bytes belong."""
    from huggingface_hub.utils import WeakFileLock

    place = transfer.place
    # The snapshot's folder first: the cache's scan takes blobs without snapshots for damage.
    for path in (
        place.folder / file.name,
        place.store(file),
        place.partial(file),
        place.lock(file),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(place.lock(file)):
        if holds(place, file) and file.name not in transfer.damaged:
            transfer.advance(file.nbytes)  # another process brought it while we waited
        else:
            _fetch_to(place.partial(file), transfer, file)
            fs.rename(place.partial(file), place.store(file))


def _fetch_to(partial: Path, transfer: Transfer, file: RepoFile) -> None:
    """Fill `partial` from where it ends, check it, make it durable."""
    endpoint, listing = transfer.connection.endpoint, transfer.listing
    try:
        with (
            fs.translated_write_errors(partial),
            translated(endpoint, listing.repo_id, listing.revision, file.name),
        ):
            _gather(partial, transfer, file)
        require_digest(file, hash_file(partial, file.digest))
        fs.open_for_reading(partial).sync()
    except (HashMismatch, DownloadBroken):
        partial.unlink(missing_ok=True)  # these bytes are good for nothing
        raise
    except SourceNotFound as error:
        # Its lock keeps other downloads away, but for file systems that grant each to everybody.
        reason = "another program removed what had arrived"
        raise DownloadBroken(file=file.name, reason=reason) from error


def _gather(partial: Path, transfer: Transfer, file: RepoFile) -> None:
    """Ask for the rest of the file until all of it is there.

    Raises: HubUnreachable, AnswerNotFromHub, DownloadBroken, Stopped; what the library raises.
    """
    from huggingface_hub.utils import httpx

    have = _begun_nbytes(partial)
    if have > file.nbytes:
        partial.unlink()
        have = 0
    transfer.advance(have)
    furthest, failures = have, 0
    while have < file.nbytes or not partial.exists():
        reason = "the connection was cut"
        try:
            have = _ask_for_rest(partial, have, transfer, file)
        except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
            have = partial.stat().st_size if partial.exists() else 0
            reason = str(error) or type(error).__name__
        if have >= file.nbytes:
            continue
        failures = failures + 1 if have <= furthest else 1
        furthest = max(furthest, have)
        if failures > RETRIES:
            raise HubUnreachable(
                endpoint=transfer.connection.endpoint, reason=f"{file.name}: {reason}"
            )
        transfer.note(f"{file.name}: {reason}; continuing at {format_size(have)}")
        if transfer.stop.wait(FIRST_WAIT_S * min(2 ** (failures - 1), 8)):
            raise Stopped


def _begun_nbytes(partial: Path) -> int:
    """How much of it there is already. What lies there by another name too is left to whoever gave
    it that name, and what is no file is deleted: neither is written to.
    """
    if not os.path.lexists(partial):
        return 0
    found = partial.lstat()
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return found.st_size
    with fs.translated_write_errors(partial):
        partial.unlink()
    return 0


def _ask_for_rest(partial: Path, start: int, transfer: Transfer, file: RepoFile) -> int:
    """Write the answer to one request for the bytes from `start`; return the new length."""
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff

    with http_stream_backoff(
        "GET",
        file_url(transfer.connection, transfer.listing, file.name),
        headers=request_headers() | ({"Range": f"bytes={start}-"} if start else {}),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),  # `_gather` sees to those: it knows how far we got
    ) as response:
        if start and response.status_code == 416:
            # The file is shorter there than what we have of it: all over again.
            partial.unlink()
            transfer.advance(-start)
            return 0
        hf_raise_for_status(response)
        ranges = response.status_code == 206
        _require_length(response, start if ranges else 0, transfer, file)
        if start and not ranges:
            transfer.advance(-start)
            start = 0
        out = fs.create(partial, keep=start > 0)
        for piece in response.iter_bytes():  # as they come, so that none is lost in a cut or kill
            if transfer.stop.is_set():
                raise Stopped
            if start + len(piece) > file.nbytes:
                raise DownloadBroken(file=file.name, reason="it goes on beyond its length")
            out.write_from(start, memoryview(piece))
            start += len(piece)
            transfer.advance(len(piece))
    return start


def _require_length(response: Any, start: int, transfer: Transfer, file: RepoFile) -> None:
    """Refuse an answer that is not the file, before a byte of it is kept.

    Raises: AnswerNotFromHub.
    """
    headers = response.headers
    announced = headers.get("Content-Length")
    whole = int(announced) if announced and "Content-Encoding" not in headers else None
    if start:
        expected = f"bytes {start}-{file.nbytes - 1}/{file.nbytes}"
        fits = headers.get("Content-Range") == expected
    else:
        fits = whole in {None, file.nbytes}
    if not fits:
        what = "a web page" if is_web_page(headers) else f"{whole} bytes"
        reason = f"it sends {what} for {file.name}, which has {file.nbytes} bytes"
        raise AnswerNotFromHub(endpoint=transfer.connection.endpoint, reason=reason)


def _counting(advance: Callable[[int], None], stop: threading.Event) -> Any:
    """What the hub library takes for a progress bar; it counts, and ends what is to stop."""

    class Counting:
        update_transfer = set_postfix_str = set_transfer_postfix_str = close = _ignore

        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            advance(initial)

        def update(self, nbytes: float | None = 1) -> None:
            if stop.is_set():
                raise Stopped
            advance(int(nbytes or 0))

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    return Counting


def _ignore(*_: object, **__: object) -> None:
    """Take any call of the bar and do nothing."""
