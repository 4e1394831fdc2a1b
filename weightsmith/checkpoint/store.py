"""Where a checkpoint's weight files are read from: a local directory; the hub offers another
store.
"""

import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

from weightsmith import fs

OPEN_FILES: Final = 64
"""Files kept open at a time, by all stores together; neither a model of a thousand shards nor a
chain of as many deltas must meet the system's limit.
"""
_LOCK: Final = threading.Lock()
_USED: Final[OrderedDict[tuple[int, str], "weakref.ref[LocalStore]"]] = OrderedDict()
"""The open files of all stores, the one that was used least lately first; a store that is gone took
its files with it.
"""


class Store(Protocol):
    """Ranges of bytes from named files, from any number of threads."""

    def open(self, name: str) -> fs.Readable:
        """The file, ready for positional reads from any thread."""
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

    def is_far(self, name: str) -> bool:
        """Whether reading a little of the file is a request to another machine."""
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
        self._open: dict[str, fs.PositionedFile] = {}

    def open(self, name: str) -> fs.PositionedFile:
        """The file, ready for positional reads.

        Raises: SourceNotFound, SourceUnreadable, NotRegularFile.
        """
        with _LOCK:
            file = self._open.get(name)
        if file is None:  # without the lock: it may take its time, and others go on reading
            file = fs.open_for_reading(self._directory / name)
        with _LOCK:
            # Another thread may have been faster; what it opened serves both.
            file = self._open.setdefault(name, file)
            _USED[id(self), name] = weakref.ref(self)
            _USED.move_to_end((id(self), name))
            while len(_USED) > OPEN_FILES:
                (_, oldest), store = _USED.popitem(last=False)
                if (alive := store()) is not None:
                    alive._open.pop(oldest, None)  # noqa: SLF001  (of this class)
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
        """0: the file is on this machine already."""
        return 0

    def is_far(self, name: str) -> bool:  # noqa: ARG002
        """No."""
        return False

    def expect(self, name: str) -> None:
        """Nothing to do: the file is there already."""

    def release(self, name: str) -> None:
        """Close the file."""
        with _LOCK:
            self._open.pop(name, None)
            _USED.pop((id(self), name), None)
