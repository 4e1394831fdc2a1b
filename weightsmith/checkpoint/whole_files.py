"""Open files for rules that work on files: each is one tensor of bytes, under the file's name."""

import contextlib
import gzip
import threading
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint, Tensor, WeightFile
from weightsmith.checkpoint.digest import SPAN_NBYTES, bytes_digest
from weightsmith.checkpoint.store import LocalStore
from weightsmith.errors import GzipInvalid
from weightsmith.formats.tensors import StoredTensor, TensorInfo

GZIP_MAGIC: Final = b"\x1f\x8b"
_EDGE_NBYTES: Final = 64 * 1024
"""How much of either end of a file goes into its digest."""


class WholeFiles(Checkpoint):
    """Files of one directory, each a tensor of bytes; asked to, of what gzip files unpack to."""

    def __init__(
        self, directory: Path, names: Iterable[str], label: str, *, unpack: bool = False
    ) -> None:
        """Open the files of these names, reading their ends; to `unpack` reads gzip files through.

        Raises: SourceNotFound, SourceUnreadable, NotRegularFile.
        """
        store = LocalStore(directory)
        files, tensors = [], {}
        self._unpacked: dict[str, _Unpacked] = {}
        for name in names:
            file = store.open(name)
            stat = file.stat()
            ends = _ends(file, stat.st_size)
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            files.append(WeightFile(name, stat.st_size, *times, bytes_digest(ends)))
            size = stat.st_size
            if unpack and ends.startswith(GZIP_MAGIC):
                self._unpacked[name] = _Unpacked(directory / name)
                size = self._unpacked[name].size
            tensors[name] = Tensor(StoredTensor(TensorInfo(name, "U8", (size,)), 0), name)
        super().__init__(
            label=label,
            directory=directory,
            store=store,
            files=tuple(files),
            tensors=tensors,
            sidecars=(),
            notes=(),
        )

    @property
    def sequential(self) -> bool:
        """Whether one of the files is packed."""
        return bool(self._unpacked)

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes of a file."""
        if name in self._unpacked:
            self._unpacked[name].read_into(start, buffer)
        else:
            super().read_into(name, start, buffer)

    def header(self, file: str) -> bytes:
        """Its ends: nothing else says what it is."""
        opened = self._store.open(file)
        return _ends(opened, opened.size)


def _ends(file: fs.Readable, size: int) -> bytes:
    edge = min(_EDGE_NBYTES, size)
    return file.read(0, edge) + file.read(size - edge, edge)


class _Unpacked:
    """The unpacked bytes of a gzip file; reading backwards starts again from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115  (closes with the last reference)
        self._lock = threading.Lock()

    @cached_property
    def size(self) -> int:
        """Bytes, found by unpacking all of it; what the file itself says of it is modulo 4 GiB."""
        size = 0
        with self._sound():
            while block := self._file.read(SPAN_NBYTES):
                size += len(block)
        return size

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer`; the bytes are known to be there."""
        with self._lock, self._sound():
            self._file.seek(start)
            done = 0
            while done < len(buffer):
                done += self._file.readinto(buffer[done:])

    @contextlib.contextmanager
    def _sound(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError, zlib.error) as error:
            raise GzipInvalid(file=self._path, reason=error) from error
