"""A hub source's files without the whole of it on disk: headers in ranges, files one at a time."""

import contextlib
import threading
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.errors import ShardTruncated, WeightsmithError
from weightsmith.hub.connection import Connection, read_range
from weightsmith.hub.fetch import Stopped, Transfer, fetch
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.places import FolderPlace, holds
from weightsmith.hub.resolve import Resolved
from weightsmith.progress import Progress

AHEAD_NBYTES: Final = 64 * 1024
"""Asked for at a time: a header in one request or two, and what the next read wants too."""


class HubStore:
    """The weight files of a hub source; each is fetched when first read, and dropped when released.

    What lies in the hub's cache already is read there, and stays there.
    """

    def __init__(self, resolved: Resolved, folder: Path, progress: Progress) -> None:
        """Fetch into `folder`, which is ours alone; nothing is fetched yet."""
        self.folder = folder
        self._cached = resolved.place
        self._files = {file.name: file for file in resolved.files}
        self._transfer = Transfer(
            connection=resolved.connection,
            listing=resolved.listing,
            place=FolderPlace(folder),
            advance=lambda _: None,
            note=progress.note,
            stop=threading.Event(),
        )
        self._locks = {name: threading.Lock() for name in self._files}
        self._open: dict[str, fs.PositionedFile] = {}
        self._expected: set[str] = set()

    @property
    def weights(self) -> list[str]:
        """Names of the weight files."""
        at_top = (name for name in self._files if "/" not in name)
        return [name for name in at_top if name.endswith((".safetensors", ".bin"))]

    @property
    def cache(self) -> Path:
        """Where the files would be kept if all of them were fetched."""
        return self._cached.folder

    @property
    def missing_nbytes(self) -> int:
        """Bytes of all files that are not there."""
        return sum(map(self.nbytes, self._files))

    def fetch_small(self) -> None:
        """Fetch all files but the weights: config, tokenizer, index."""
        for name in self._files.keys() - {*self.weights}:
            fetch(self._transfer, self._files[name])

    def nbytes(self, name: str) -> int:
        """Bytes of disk that the file takes until it is released; 0 for one of the hub's cache."""
        file = self._files[name]
        return 0 if holds(self._cached, file) else file.nbytes

    def is_far(self, name: str) -> bool:
        """Whether it is not here."""
        return self.nbytes(name) > 0

    def identity(self, name: str) -> tuple[int, int, int]:
        """Size, and no times: the commit pins what the file is."""
        return self._files[name].nbytes, 0, 0

    def peek(self, name: str) -> "fs.PositionedFile | RangedFile":
        """The file for reading its header: where it is here, itself, else in ranges."""
        file = self._files[name]
        if holds(self._cached, file) or holds(self._transfer.place, file):
            return self.open(name)
        return RangedFile(self._transfer.connection, self._transfer.listing, file)

    def expect(self, name: str) -> None:
        """Begin to fetch the file, beside others that are on their way."""
        if name not in self._expected:
            self._expected.add(name)
            threading.Thread(target=self._fetch_early, args=(name,), daemon=True).start()

    def _fetch_early(self, name: str) -> None:
        # Whoever reads the file asks for it again, and meets what was wrong.
        with contextlib.suppress(WeightsmithError, Stopped, OSError), self._locks[name]:
            if name in self._expected:  # else this thread comes too late: it was read and dropped
                self._opened(name)

    def open(self, name: str) -> fs.PositionedFile:
        """The whole file; the first that asks fetches it, while others who want it wait.

        Raises: as `hub.fetch.fetch`.
        """
        with self._locks[name]:
            return self._opened(name)

    def _opened(self, name: str) -> fs.PositionedFile:
        if name not in self._open:
            self._open[name] = fs.open_for_reading(self._path(self._files[name]))
        return self._open[name]

    def release(self, name: str) -> None:
        """Drop the file, unless it is the cache's."""
        with self._locks[name]:
            self._expected.discard(name)
            self._open.pop(name, None)
            self._transfer.place.discard(self._files[name])

    def _path(self, file: RepoFile) -> Path:
        cached = self._cached.folder / file.name
        if holds(self._cached, file) and cached.is_file():
            return cached
        if not holds(self._transfer.place, file):
            fetch(self._transfer, file)
        return self.folder / file.name


class RangedFile(fs.Readable):
    """A file on the hub, read in ranges and never whole; for headers."""

    def __init__(self, connection: Connection, listing: Listing, file: RepoFile) -> None:
        """Nothing is asked for yet."""
        self.path = Path(file.name)
        self._ask = (connection, listing, file)
        self._start, self._ahead = 0, b""

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._ask[2].nbytes

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`.

        Raises: ShardTruncated, if the file ends first; what `read_range` raises.
        """
        stop = offset + len(buffer)
        if stop > self.size:
            raise ShardTruncated(file=self.path, reason=f"it ends at byte {self.size}")
        if not self._start <= offset or stop > self._start + len(self._ahead):
            upto = min(max(stop, offset + AHEAD_NBYTES), self.size)
            self._start, self._ahead = offset, read_range(*self._ask, offset, upto)
        buffer[:] = self._ahead[offset - self._start : stop - self._start]
