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
AHEAD_NBYTES: Final = 32 * 1024 * 1024
"""How far the writing may be ahead of a hash of the whole file, which is the slowest of all that is
done: so the two end together, and no core is idle while the hash catches up.
"""


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
    """How far a file is written without a gap, and how far that was read; for any thread."""

    def __init__(self, end: int = 0) -> None:
        """Nothing is written yet from `end`, and nothing is read."""
        self._end = end
        self._beyond: dict[int, int] = {}
        """Where each written piece that something is missing before starts and stops."""
        self._closed = False
        self._read = 0
        self._left = False
        self._given_back = 0
        self._changed = Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Say that nothing more will be written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def add(self, piece: Piece) -> None:
        """Take note of a written piece; then wait while the reader is too far behind.

        The reader never waits for who waits here: only what lies before a gap is ahead of it.
        """
        with self._changed:
            self._beyond[piece.offset] = piece.offset + piece.nbytes
            while self._end in self._beyond:
                self._end = self._beyond.pop(self._end)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._end - self._read <= AHEAD_NBYTES or self._left)

    def wait(self, stop: int) -> None:
        """Until all before `stop` is written.

        Raises: InterruptedError, if it never will be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._end >= stop or self._closed)
            if self._end < stop:
                raise InterruptedError

    def note_read(self, stop: int) -> None:
        """All before `stop` was read."""
        with self._changed:
            self._read = stop
            self._changed.notify_all()

    def leave(self) -> None:
        """Nothing more will be read: let nobody wait for it."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def take_trail(self) -> tuple[int, int]:
        """Where the bytes start and stop that were read some way behind, and not taken before:
        a span or more, or nothing.
        """
        with self._changed:
            start, stop = self._given_back, self._read - TRAIL_NBYTES
            if stop - start < SPAN_NBYTES:
                return start, start
            self._given_back = stop
            return start, stop


class Follower(fs.Readable):
    """Reads a file once, from front to back, while others fill it.

    One thread reads, and holds it as a context: those that write wait for it where it falls behind.
    """

    def __init__(self, file: fs.PositionedFile, nbytes: int, front: Front) -> None:
        """Follow the writing of a file that will have `nbytes`."""
        self.path = file.path
        self._file = file
        self._nbytes = nbytes
        self._front = front

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._front.leave()

    @property
    def size(self) -> int:
        """Bytes that it will have."""
        return self._nbytes

    def follow(self, piece: Piece, _: Buffers) -> None:
        """Take note of a written piece, and give back what was read some way behind. The workers
        do that, for it may wait for the medium, and the reader has most to do.

        Raises: as `fs.PositionedFile.give_back`.
        """
        self._front.add(piece)
        start, stop = self._front.take_trail()
        if stop > start:
            self._file.give_back(start, stop - start)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, once all before its end is written.

        Raises: InterruptedError, if it never will be; VerificationFailed.
        """
        stop = offset + len(buffer)
        self._front.wait(stop)
        _read_own(self._file, offset, buffer)
        self._front.note_read(stop)
