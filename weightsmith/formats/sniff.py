"""What lies where a weight file should be, told from its first bytes."""

import re
from pathlib import Path
from typing import Final

from weightsmith.errors import LfsPointer, ShardEmpty, WebPage
from weightsmith.fs import PositionedFile

START_NBYTES: Final = 512
"""How much of a file is looked at; git-lfs pointers have some 130 bytes."""

_LFS_START: Final = b"version https://git-lfs.github.com/spec/v1"
_LFS_SIZE: Final = re.compile(rb"^size (\d{1,20})$", re.MULTILINE)
_WEB_STARTS: Final = (b"<!doctype html", b"<html", b"<?xml")


def read_start(file: PositionedFile) -> bytes:
    """The first bytes of a weight file, at most 512, once they may be those of weights.

    Raises: ShardEmpty; LfsPointer; WebPage, for an answer of a server saved as if it were the file.
    """
    start = file.read(0, min(file.size, START_NBYTES))
    if not start:
        raise ShardEmpty(file=file.path)
    refuse_wrong_start(start, file.path)
    return start


def refuse_wrong_start(start: bytes, file: Path | str) -> None:
    """Refuse what takes the place of a file that was never fetched.

    Raises: LfsPointer; WebPage.
    """
    if start.startswith(_LFS_START):
        size = _LFS_SIZE.search(start)
        raise LfsPointer(file=file, size=int(size[1]) if size else "its")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_STARTS):
        raise WebPage(file=file)
