"""What follows the filling of a file at a distance: it is read back, and its page cache given back.

So the memory that holds what was written serves what is written next. Workers read each span back
in the order in which they made them; a hash of the whole file follows from front to back.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from threading import Condition
from typing import Final, Self

from weightsmith import fs
from weightsmith.checkpoint.digest import SPAN_NBYTES, span_digest
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.spans import Advance, Buffers
from weightsmith.errors import ShardTruncated, SourceUnreadable, VerificationFailed

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

    def __init__(self, file: fs.PositionedFile, advance: Advance, *, reads: bool) -> None:
        """Nothing is written yet; `reads`: what is written is read back, and compared."""
        self._file = file
        self._reads = reads
        self._advance = advance
        self._pieces: deque[Piece] = deque()
        self._nbytes = 0
        self._lock = threading.Lock()

    def follow(self, piece: Piece, own: Buffers) -> None:
        """Take note of a piece, and check those that are far enough behind, some MiB at a time:
        of tiny tensors many are given back at once.

        Raises: VerificationFailed; as `fs.PositionedFile.give_back`.
        """
        due = []
        with self._lock:
            self._pieces.append(piece)
            self._nbytes += piece.nbytes
            if self._nbytes >= TRAIL_NBYTES + SPAN_NBYTES:
                while self._nbytes > TRAIL_NBYTES:
                    due.append(self._pieces.popleft())
                    self._nbytes -= due[-1].nbytes
        for each in due:
            self._check(each, own)
        for start, stop in _runs(due):
            self._file.give_back(start, stop - start)

    def finish(self, buffers: Sequence[Buffers]) -> None:
        """Check what is left, one worker a set of buffers; to give it back is left to the sync.

        Raises: VerificationFailed.
        """
        run_tasks(self._pieces, [partial(self._check, own=own) for own in buffers])

    def _check(self, piece: Piece, own: Buffers) -> None:
        if not self._reads:
            return
        block = own.block(0, piece.nbytes)
        _read_own(self._file, piece.offset, block)
        if span_digest(block) != piece.digest:
            raise VerificationFailed(file=self._file.path, reason=f"tensor {piece.tensor}")
        self._advance(piece.nbytes)


def _runs(pieces: Iterable[Piece]) -> Iterator[tuple[int, int]]:
    """Where these start and stop in the file, those that touch each other as one."""
    start = stop = 0
    for piece in sorted(pieces, key=attrgetter("offset")):
        if piece.offset != stop:
            if stop > start:
                yield start, stop
            start = piece.offset
        stop = piece.offset + piece.nbytes
    if stop > start:
        yield start, stop


def _read_own(file: fs.PositionedFile, offset: int, buffer: memoryview) -> None:
    """Read what we wrote.

    Raises: VerificationFailed, where a source would be unreadable or cut short.
    """
    try:
        file.read_into(offset, buffer)
    except (SourceUnreadable, ShardTruncated) as error:
        raise VerificationFailed(file=file.path, reason=error) from error


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

    def __init__(self, file: fs.PositionedFile, nbytes: int, front: Front) -> None:
        """Follow the writing of a file that will have `nbytes`."""
        self.path = file.path
        self._file = file
        self._nbytes = nbytes
        self._front = front

    @property
    def size(self) -> int:
        """Bytes that it will have."""
        return self._nbytes

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, once all before its end is written.

        Raises: InterruptedError, if it never will be; VerificationFailed; as
        `fs.PositionedFile.give_back`.
        """
        self._front.wait(offset + len(buffer))
        _read_own(self._file, offset, buffer)
        self._file.give_back(max(offset - TRAIL_NBYTES, 0), len(buffer))
