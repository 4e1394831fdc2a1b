"""Where a checkpoint's weight files are read from: a local directory; the hub offers another
store.
"""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

from weightsmith import fs

OPEN_FILES: Final = 64
"""Files kept open at a time; a model of a thousand shards must not meet the system's limit."""


class Store(Protocol):
    """Ranges of bytes from named files, from any number of threads."""

    def open(self, name: str) -> fs.PositionedFile:
        """The file, ready for positional reads."""
        ...

    def peek(self, name: str) -> fs.Readable:
        """The file, for reading its header only."""
        ...

    def identity(self, name: str) -> tuple[int, int, int]:
        """Size, time of modification and time of change in ns, by which a change is noticed."""
        ...

    def nbytes(self, name: str) -> int:
        """Bytes of disk that reading the file takes for as long as it is not released."""
        ...

    def expect(self, name: str) -> None:
        """Say that this file will be read soon."""
        ...

    def release(self, name: str) -> None:
        """Say that nothing more will be read from this file."""
        ...


class LocalStore:
    """The files of one local directory, opened when first read."""

    def __init__(self, directory: Path) -> None:
        """Nothing is opened yet."""
        self._directory = directory
        self._open: OrderedDict[str, fs.PositionedFile] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, name: str) -> fs.PositionedFile:
        """The file, ready for positional reads.

        Raises: SourceNotFound, SourceUnreadable, NotRegularFile.
        """
        with self._lock:
            file = self._open.pop(name, None)
            if file is None:
                file = fs.open_for_reading(self._directory / name)
            self._open[name] = file
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
            return file

    def peek(self, name: str) -> fs.PositionedFile:
        """The file itself."""
        return self.open(name)

    def identity(self, name: str) -> tuple[int, int, int]:
        """Size, time of modification and time of change in ns, as they are now.

        Raises: OSError.
        """
        stat = (self._directory / name).stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def nbytes(self, name: str) -> int:  # noqa: ARG002
        """None: the file is there already."""
        return 0

    def expect(self, name: str) -> None:
        """Nothing to do: the file is there already."""

    def release(self, name: str) -> None:
        """Close the file."""
        with self._lock:
            self._open.pop(name, None)
