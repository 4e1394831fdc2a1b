"""A range of a file, read as if it were a file of its own."""

from weightsmith.errors import ShardTruncated
from weightsmith.fs import Readable


class Window(Readable):
    """Bytes `offset` to ``offset + nbytes`` of a file."""

    def __init__(self, file: Readable, offset: int, nbytes: int) -> None:
        """Raises: ShardTruncated, if the file ends before the range does."""
        if offset + nbytes > file.size:
            reason = f"it has {file.size} bytes where {offset + nbytes} were written"
            raise ShardTruncated(file=file.path, reason=reason)
        self.path = file.path
        self._file, self._offset, self._nbytes = file, offset, nbytes

    @property
    def size(self) -> int:
        """Bytes in the range."""
        return self._nbytes

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, counted from the range's first byte.

        Raises: ShardTruncated, as at the end of a file.
        """
        if offset + len(buffer) > self._nbytes:
            raise ShardTruncated(file=self.path, reason=f"it ends at byte {self._nbytes}")
        self._file.read_into(self._offset + offset, buffer)
