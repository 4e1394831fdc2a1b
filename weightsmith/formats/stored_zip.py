"""A zip archive whose members are stored as they are, so that each one is a range of bytes."""

import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from weightsmith.errors import ShardTruncated, ZipInvalid
from weightsmith.fs import Readable

MAX_DIRECTORY_NBYTES: Final = 64 * 2**20
"""Largest directory, and largest single member, that is read: room for 100 000 tensors."""

_END_MAGIC: Final = b"PK\5\6"
_END_NBYTES: Final = 22
_COMMENT_NBYTES: Final = 2**16 - 1
"""What may follow the end record at most."""

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC: Final = b"PK\3\4"
_ENCRYPTED: Final = 1
_DESCRIBED: Final = 8
"""Flag of a member whose sizes follow its bytes, for the writer did not know them before."""
_DESCRIPTORS: Final = (16, 24)
"""Bytes that follow then, by the width of the sizes."""
_ALIGNMENT: Final = 64
_MOST_PADDING: Final = 128
"""More than torch puts between a member's name and its aligned bytes."""
_DOES_NOT_FIT: Final = "its directory does not fit the file"
"""What is said of faults that some versions of `zipfile` notice by themselves and others do not."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of one member lie in the file."""

    offset: int
    nbytes: int


class StoredZip:
    """The directory of an open archive; a member is checked when it is asked for."""

    def __init__(self, file: Readable) -> None:
        """Read the directory of `file`.

        Raises: ShardTruncated, if the archive has no end; ZipInvalid, if its directory is unsound.
        """
        self._file = file
        self._size = file.size
        tail_nbytes = min(self._size, _END_NBYTES + _COMMENT_NBYTES)
        place = file.read(self._size - tail_nbytes, tail_nbytes).rfind(_END_MAGIC)
        if place < 0 or tail_nbytes - place < _END_NBYTES:
            raise ShardTruncated(file=file.path, reason="its zip archive has no end")
        try:
            with zipfile.ZipFile(_Reader(file)) as archive:
                members = archive.infolist()
                starts = sorted({member.header_offset for member in members})
                self._ends = dict(zip(starts, [*starts[1:], archive.start_dir], strict=False))
        except NotImplementedError as error:  # of a later version of the format
            raise self.invalid(str(error)) from error
        except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
            raise self.invalid(_DOES_NOT_FIT) from error
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            raise self.invalid("two of its members have one name")
        if len(self._ends) < len(members):
            raise self.invalid("two of its members lie at one place")

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the order of the directory."""
        return tuple(self._members)

    @property
    def listing(self) -> bytes:
        """Name, place, size and checksum of every member, one per line."""
        return "".join(
            f"{name!a} {member.header_offset} {member.file_size} {member.CRC}\n"
            for name, member in self._members.items()
        ).encode("ascii")

    def find(self, name: str) -> Member:
        """Where a member's bytes lie, once they are known to be stored there as they are.

        Raises: ZipInvalid, if it is absent, compressed, encrypted or reaches out of its place.
        """
        member = self._stored(name)
        start = member.header_offset + _LOCAL_HEADER.size
        if member.header_offset < 0 or start > self._size:
            raise self.invalid(_DOES_NOT_FIT)
        magic, _, flags, method, *_, name_nbytes, extra_nbytes = _LOCAL_HEADER.unpack(
            self._file.read(member.header_offset, _LOCAL_HEADER.size)
        )
        if magic != _LOCAL_MAGIC or flags & _ENCRYPTED or method != zipfile.ZIP_STORED:
            raise self.invalid(f"{name} does not begin where the directory says")
        offset = start + name_nbytes + extra_nbytes
        if offset + member.file_size > self._size:
            raise self.invalid(f"{name} ends outside the file")
        # A few bytes that many members share would be a model of any size.
        if offset + member.file_size > self._ends[member.header_offset]:
            raise self.invalid(f"{name} reaches into the member after it")
        return Member(offset, member.file_size)

    def expect(self, name: str) -> Member | None:
        """Where a member's bytes lie if torch wrote the archive, without looking at its header;
        None where it did not.

        Torch begins them at a multiple of 64, and lets no gap between one member and the next.
        Raises: ZipInvalid, if it is absent, compressed or encrypted.
        """
        member = self._stored(name)
        named = member.header_offset + _LOCAL_HEADER.size + len(name)
        for nbytes in _DESCRIPTORS if member.flag_bits & _DESCRIBED else (0,):
            offset = self._ends[member.header_offset] - nbytes - member.file_size
            if offset % _ALIGNMENT == 0 and 0 <= offset - named < _MOST_PADDING:
                return Member(offset, member.file_size)
        return None

    def _stored(self, name: str) -> zipfile.ZipInfo:
        """What the directory says of a member.

        Raises: ZipInvalid, if it is absent, compressed or encrypted.
        """
        member = self._members.get(name)
        if member is None:
            raise self.invalid(f"it has no {name}")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise self.invalid(f"{name} is compressed")
        if member.flag_bits & _ENCRYPTED:
            raise self.invalid(f"{name} is encrypted")
        return member

    def read(self, name: str) -> bytes:
        """A small member whole.

        Raises: ZipInvalid, also if its checksum is wrong.
        """
        place = self.find(name)
        if place.nbytes > MAX_DIRECTORY_NBYTES:
            raise self.invalid(f"{name} has {place.nbytes} bytes, too many to be read")
        content = self._file.read(place.offset, place.nbytes)
        # Torch writes 0 when it is told not to compute checksums.
        if self._members[name].CRC not in {0, zlib.crc32(content)}:
            raise self.invalid(f"the checksum of {name} is wrong")
        return content

    def checksums(self) -> Iterator[tuple[str, Member, int]]:
        """Name, place and CRC-32 of every member; torch writes 0 when told not to compute it.

        Raises: ZipInvalid, as `find`.
        """
        return ((name, self.find(name), member.CRC) for name, member in self._members.items())

    def invalid(self, reason: str) -> ZipInvalid:
        """The error that says what is wrong with this archive."""
        return ZipInvalid(file=self._file.path, reason=reason)


class _Reader:
    """A positioned file as `zipfile` wants it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._size = file.size
        self._position = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise OSError(errno.EINVAL, "a place before the start of the file")
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, nbytes: int = -1) -> bytes:
        rest = max(0, self._size - self._position)
        count = rest if nbytes < 0 else min(nbytes, rest)
        if count > MAX_DIRECTORY_NBYTES:
            reason = f"its directory has {count} bytes, too many to be read"
            raise ZipInvalid(file=self._file.path, reason=reason)
        content = self._file.read(self._position, count)
        self._position += count
        return content
