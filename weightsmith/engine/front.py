"""How far a file is written, for one who reads it while it is being filled."""

from collections.abc import Callable
from threading import Condition

Wait = Callable[[int], None]
"""``wait(stop)`` returns when all of a file before `stop` is written."""


def no_wait(_: int) -> None:
    """Return at once: the file is whole."""


class Front:
    """The end of what is written of a file without a gap; for any thread."""

    def __init__(self) -> None:
        """Nothing is written yet."""
        self._end = 0
        self._beyond: dict[int, int] = {}
        """Where each written piece that something is missing before starts and stops."""
        self._closed = False
        self._changed = Condition()

    def written(self, start: int, stop: int) -> None:
        """Say that the bytes from `start` to `stop` are written."""
        with self._changed:
            self._beyond[start] = stop
            while self._end in self._beyond:
                self._end = self._beyond.pop(self._end)
            self._changed.notify_all()

    def close(self) -> None:
        """Say that nothing more will be written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, stop: int) -> None:
        """Until all before `stop` is written.

        Raises: InterruptedError, if it never will be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._end >= stop or self._closed)
            if self._end < stop:
                raise InterruptedError
