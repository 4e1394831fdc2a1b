"""The hashes by which the hub names the bytes of a file."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.errors import HashMismatch
from weightsmith.hub.listing import RepoFile

_BLOCK_NBYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_digest(name: str) -> bool:
    """Whether `name` is a hash as the hub library takes it from the etag to name a blob: git's blob
    id (40 digits) or sha256 (64).
    """
    return _DIGEST.fullmatch(name) is not None


def hash_bytes(content: bytes, like: str) -> str:
    """The hash of `content` of the kind that `like` is: sha256, or git's blob id."""
    hasher = _hasher(len(content), like)
    hasher.update(content)
    return str(hasher.hexdigest())


def hash_file(path: Path, like: str) -> str:
    """The hash of a file's bytes of the kind that `like` is.

    Memory: 1 MiB.
    Raises: SourceNotFound, SourceUnreadable, NotRegularFile, ShardTruncated.
    """
    return hash_open_file(fs.open_for_reading(path), like)


def hash_open_file(
    file: fs.PositionedFile, like: str, advance: Callable[[int], None] = lambda _: None
) -> str:
    """As `hash_file`; `advance` is told how many bytes were just read."""
    size = file.size
    hasher = _hasher(size, like)
    buffer = memoryview(bytearray(_BLOCK_NBYTES))
    for offset in range(0, size, _BLOCK_NBYTES):
        block = buffer[: min(_BLOCK_NBYTES, size - offset)]
        file.read_into(offset, block)
        hasher.update(block)
        advance(len(block))
    return str(hasher.hexdigest())


def require_digest(file: RepoFile, found: str) -> None:
    """Refuse bytes whose hash is not the one that the hub gives for `file`.

    Raises: HashMismatch.
    """
    if found != file.digest:
        context = [f"the hub says {file.digest}", f"these bytes {found}"]
        raise HashMismatch(file=file.name, context=context)


def _hasher(nbytes: int, like: str) -> Any:
    """Git hashes a header with the length before the bytes."""
    if len(like) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % nbytes, usedforsecurity=False)
