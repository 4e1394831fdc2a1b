"""The content and the permissions of a file that will be written beside the weights."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from blake3 import blake3

from weightsmith import fs
from weightsmith.errors import SidecarEscapes

PIECE_NBYTES: Final = 1024 * 1024
"""Read at a time: no file beside the weights is held in memory for being copied."""
HEAD_NBYTES: Final = 512
"""Bytes that are enough to recognise a git-lfs pointer."""


@dataclass(frozen=True)
class Content:
    """Bytes in memory, or those of a file, which are read in pieces when they are needed."""

    made: bytes = b""
    file: Path | None = None
    """Where they are read from; None for those that were made."""
    mode: int = 0o666
    """Permissions of the new file, before the umask; none that the file it comes from lacks."""

    @classmethod
    def of_file(cls, path: Path) -> "Content":
        """A file's content, which is not read yet.

        Raises: SourceNotFound, LinkBroken, SourceUnreadable.
        """
        with fs.translated_read_errors(path):
            mode = path.stat().st_mode
        return cls(file=path, mode=mode & 0o666)

    @cached_property
    def nbytes(self) -> int:
        """How many bytes there are."""
        return len(self.made) if self.file is None else fs.open_for_reading(self.file).size

    @cached_property
    def digest(self) -> str:
        """Hex blake3 of the content; reads all of it."""
        found = blake3()
        for piece in self.pieces():
            found.update(piece)
        return found.hexdigest()

    def pieces(self) -> Iterator[bytes | memoryview]:
        """All of it, in order; a piece holds until the next one is asked for."""
        if self.file is None:
            yield self.made
            return
        file = fs.open_for_reading(self.file)
        size = file.size
        buffer = memoryview(bytearray(min(size, PIECE_NBYTES)))
        for start in range(0, size, PIECE_NBYTES):
            piece = buffer[: min(PIECE_NBYTES, size - start)]
            file.read_into(start, piece)
            yield piece

    def head(self) -> bytes:
        """The first bytes."""
        if self.file is None:
            return self.made[:HEAD_NBYTES]
        file = fs.open_for_reading(self.file)
        return file.read(0, min(file.size, HEAD_NBYTES))

    def read(self, limit_nbytes: int) -> bytes:
        """All of it at once.

        Raises: FileTooLarge.
        """
        return self.made if self.file is None else fs.read_small(self.file, limit_nbytes)

    def replaced(self, made: bytes) -> "Content":
        """Other bytes with the same permissions."""
        return Content(made, mode=self.mode)


def inside(directory: Path, name: str) -> Path:
    """The path of a file of a model's folder, by its name there.

    Its bytes lie in the folder, or, in the hub's cache, among the blobs that a snapshot's links
    point at.
    Raises: SidecarEscapes, if its name or a link leads elsewhere.
    """
    path = directory / name
    home = Path(os.path.realpath(directory))
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SidecarEscapes(file=name, target=path, directory=directory)
    real = Path(os.path.realpath(path))
    if home in real.parents or (path.is_symlink() and _is_blob(home, path)):
        return path
    raise SidecarEscapes(file=path, target=real, directory=directory)


def _is_blob(home: Path, link: Path) -> bool:
    """Whether a link of a snapshot points into its repository's blobs, which may be links
    themselves, into a store that repositories share.
    """
    snapshots = next((parent for parent in home.parents if parent.name == "snapshots"), None)
    if snapshots is None:
        return False
    blobs = os.path.realpath(snapshots.parent / "blobs")
    hop = os.path.join(os.path.realpath(link.parent), os.readlink(link))  # noqa: PTH115, PTH118
    ends = (os.path.realpath(link), os.path.join(os.path.realpath(os.path.dirname(hop)), ""))  # noqa: PTH118, PTH120
    return any(os.path.dirname(end) == blobs for end in ends)  # noqa: PTH120
