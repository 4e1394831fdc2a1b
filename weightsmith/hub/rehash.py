"""Hash the cache's files again, and compare with their names, which are the right hashes."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weightsmith import fs
from weightsmith.errors import DamagedInput, SourceFault
from weightsmith.hub.cache import Cache
from weightsmith.hub.hashes import hash_open_file, is_digest


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in the cache, and the hash that they are named by."""

    digest: str
    """64 hex digits: sha256; 40: git's blob id."""
    bytes_at: Path
    """Where they are; in the store that repositories share, another name leads here."""
    nbytes: int
    files: tuple[str, ...]
    """How to name them to the user: ``org/name@main: model.safetensors``."""
    source: str
    """A SOURCE that has them: ``org/name@main``, or ``dataset/org/name@main`` and the like."""


def blobs_of(cache: Cache) -> tuple[tuple[Blob, ...], tuple[str, ...]]:
    """All files of all revisions, the same bytes once; and the files whose names are no hashes."""
    files: dict[tuple[str, Path], list[tuple[str, str]]] = defaultdict(list)
    sizes: dict[Path, int] = {}
    unnamed = []
    for revision in cache.revisions:
        kind = "" if revision.repo_type == "model" else f"{revision.repo_type}/"
        source = f"{kind}{revision.repo_id}@{next(iter(revision.refs), revision.commit)}"
        for file in revision.files:
            if is_digest(file.blob.name):
                files[file.blob.name, file.bytes_at].append((source, f"{source}: {file.name}"))
                sizes[file.bytes_at] = file.nbytes
            else:
                unnamed.append(f"{source}: {file.name}")
    blobs = [
        Blob(digest, path, sizes[path], tuple(name for _, name in held), held[0][0])
        for (digest, path), held in files.items()
    ]
    return tuple(sorted(blobs, key=lambda blob: (blob.digest, blob.bytes_at))), tuple(unnamed)


def is_sound(blob: Blob, advance: Callable[[int], None]) -> bool:
    """Whether the bytes have their hash still, read without counting as a use of them.

    Memory: 1 MiB.
    """
    try:
        with fs.open_unnoticed(blob.bytes_at) as file:
            return hash_open_file(file, blob.digest, advance) == blob.digest
    except (SourceFault, DamagedInput):  # a disk that cannot read it any more, or it has just gone
        return False
