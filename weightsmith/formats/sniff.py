"""Recognise from its first bytes what is in place of a weight file."""

import re
from pathlib import Path
from typing import Final

from weightsmith.errors import LfsPointer, ServerMessage, ShardEmpty, WebPage
from weightsmith.fs import Readable

START_NBYTES: Final = 512
"""How much of a file is looked at; git-lfs pointers have some 130 bytes."""

_FIRST_NBYTES: Final = 8
"""The length that a safetensors file begins with."""
_LFS_START: Final = b"version https://git-lfs.github.com/spec/v1"
_LFS_SIZE: Final = re.compile(rb"^size (\d{1,20})$", re.MULTILINE)
_WEB_STARTS: Final = (b"<!doctype html", b"<html", b"<?xml")


def read_start(file: Readable) -> bytes:
    """The first bytes of a weight file, at most 512, once they may be those of weights.

    Raises: ShardEmpty; LfsPointer; WebPage and ServerMessage, for an answer of a server saved as if
    it were the file.
    """
    start = file.read(0, min(file.size, START_NBYTES))
    if not start:
        raise ShardEmpty(file=file.path)
    refuse_wrong_start(start, file.path)
    # All formats of weights have bytes that no text has among their first ones.
    if file.size == len(start) > _FIRST_NBYTES and (text := _as_text(start)):
        raise ServerMessage(file=file.path, text=text)
    return start


def refuse_wrong_start(start: bytes, file: Path | str) -> None:
    """Refuse what takes the place of a file that was never fetched.

    Raises: LfsPointer; WebPage.
    """
    refuse_pointer(start, file)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_STARTS):
        raise WebPage(file=file)


def refuse_pointer(start: bytes, file: Path | str) -> None:
    """Refuse the text that git leaves where git-lfs did not fetch the file.

    Raises: LfsPointer.
    """
    if start.startswith(_LFS_START):
        size = _LFS_SIZE.search(start)
        raise LfsPointer(file=file, size=int(size[1]) if size else "its")


def _as_text(raw: bytes) -> str:
    """The first line of a text; nothing where these bytes are none."""
    try:
        lines = raw.decode("utf-8").strip().splitlines()
    except UnicodeDecodeError:
        return ""
    return lines[0] if lines and all(line.isprintable() for line in lines) else ""
