"""What follows the filling of a file at a distance: it is read back, and its page cache given back.

So the memory that holds what was written serves what is written next. Workers read each span back
in the order in which they made them; a hash of the whole file follows from front to back.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import Final, Self

from weightsmith import fs
from weightsmith.checkpoint.digest import span_digest
from weightsmith.engine.bindings import Verify
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.spans import Advance, Buffers
from weightsmith.errors import VerificationFailed

TRAIL_NBYTES: Final = 64 * 1024 * 1024
"""How far behind the writing: enough to keep a disk busy."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A span that was just written."""

    tensor: str
    offset: int
    """In the file."""
    nbytes: int
    digest: bytes


Follow = Callable[[Piece, Buffers], None]
"""Told of every piece by the worker that wrote it, with buffers that it may use."""


class Trail:
    """The pieces of a file that are written and not yet checked, in the order of the writing."""

    def __init__(self, file: fs.PositionedFile, verify: Verify, advance: Advance) -> None:
        """Nothing is written yet."""
        self._file = file
        self._verify = verify
        self._advance = advance
        self._pieces: deque[Piece] = deque()
        self._nbytes = 0
        self._lock = threading.Lock()

    def follow(self, piece: Piece, own: Buffers) -> None:
        """Take note of a piece, and check those that are far enough behind.

        Raises: VerificationFailed, DiskFull.
        """
        due = []
        with self._lock:
            self._pieces.append(piece)
            self._nbytes += piece.nbytes
            while self._nbytes > TRAIL_NBYTES:
                due.append(self._pieces.popleft())
                self._nbytes -= due[-1].nbytes
        for each in due:
            self._check(each, own)

    def finish(self, buffers: Sequence[Buffers]) -> None:
        """Check what is left, one worker a set of buffers.

        Raises: VerificationFailed, DiskFull.
        """
        run_tasks(self._pieces, [partial(self._check, own=own) for own in buffers])

    def _check(self, piece: Piece, own: Buffers) -> None:
        if self._verify == "disk":
            self._file.give_back(piece.offset, piece.nbytes)
        if self._verify != "no":
            block = own.block(0, piece.nbytes)
            self._file.read_into(piece.offset, block)
            if span_digest(block) != piece.digest:
                raise VerificationFailed(file=self._file.path, reason=f"tensor {piece.tensor}")
            self._advance(piece.nbytes)
        self._file.give_back(piece.offset, piece.nbytes)


class Front:
    """The end of what is written of a file without a gap; for any thread."""

    def __init__(self, end: int = 0) -> None:
        """Nothing is written yet from `end`."""
        self._end = end
        self._beyond: dict[int, int] = {}
        """Where each written piece that something is missing before starts and stops."""
        self._closed = False
        self._changed = Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Say that nothing more will be written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def follow(self, piece: Piece, _: Buffers) -> None:
        """Take note of a piece."""
        with self._changed:
            self._beyond[piece.offset] = piece.offset + piece.nbytes
            while self._end in self._beyond:
                self._end = self._beyond.pop(self._end)
            self._changed.notify_all()

    def wait(self, stop: int) -> None:
        """Until all before `stop` is written.

        Raises: InterruptedError, if it never will be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._end >= stop or self._closed)
            if self._end < stop:
                raise InterruptedError


class Follower(fs.Readable):
    """Reads a file once, from front to back, while it is being filled; for one thread."""

    def __init__(
        self, file: fs.PositionedFile, nbytes: int, front: Front, *, from_medium: bool
    ) -> None:
        """Follow the writing of a file that will have `nbytes`.

        `from_medium`: what the page cache holds of it is forgotten before it is read.
        """
        self.path = file.path
        self._file = file
        self._nbytes = nbytes
        self._front = front
        self._from_medium = from_medium

    @property
    def size(self) -> int:
        """Bytes that it will have."""
        return self._nbytes

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, once all before its end is written.

        Raises: InterruptedError, if it never will be; DiskFull; as `fs.PositionedFile.read_into`.
        """
        self._front.wait(offset + len(buffer))
        if self._from_medium:
            self._file.give_back(offset, len(buffer))
        self._file.read_into(offset, buffer)
        self._file.give_back(max(offset - TRAIL_NBYTES, 0), len(buffer))
