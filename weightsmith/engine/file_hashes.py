"""Hashes of whole files: md5 and sha256, as releases published them, and our own."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from weightsmith import fs
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.checkpoint.table import read_table
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.spans import Advance, Buffers

Hashes = Mapping[str, str]
"""Algorithm to lower-case hex."""


def file_digest(path: Path) -> str:
    """Hex blake3 of a file's content, as ``b3sum`` gives it.

    Memory: one span.
    """
    file = fs.open_for_reading(path)
    return hash_file(file, {"blake3"}, Buffers(), lambda _: None)["blake3"]


def rest_digest(path: Path) -> str:
    """Hex blake3 of all bytes of a weight file that are in no tensor, and of where they lie.

    Of a torch file: its pickle, what stands before and between the members of the zip, padding
    among it, the directory, and whatever follows that. Tensors whose elements do not lie side by
    side count as rest.
    Memory: one span.
    Raises: SourceFault, DamagedInput, if the file cannot be read.
    """
    file = fs.open_for_reading(path)
    size = file.size
    held = sorted(
        (each.offset, each.offset + each.info.nbytes)
        for each in read_table(file, [])[0]
        if each.strides is None
    )
    found, own, at = blake3(), Buffers(), 0
    for start, end in [*held, (size, size)]:
        if at < start:
            found.update(f"{at} {start}\n".encode())
        for begin in range(at, start, SPAN_NBYTES):
            block = own.block(0, min(SPAN_NBYTES, start - begin))
            file.read_into(begin, block)
            found.update(block)
        at = max(at, end)
    return found.hexdigest()


def hash_files(
    wanted: Mapping[Path, Collection[str]], buffers: Sequence[Buffers], advance: Advance
) -> dict[Path, Hashes]:
    """Hash files by the algorithms that are named for each, reading every file once.

    A hash goes through its file from front to back, so that files are what is shared out among the
    workers, one for each set of buffers. Memory: one span a worker.
    Raises: SourceFault, where one cannot be read.
    """
    found: dict[Path, Hashes] = {}

    def worker(own: Buffers) -> Callable[[Path], None]:
        def hash_one(path: Path) -> None:
            found[path] = hash_file(fs.open_for_reading(path), wanted[path], own, advance)

        return hash_one

    run_tasks(wanted, [worker(own) for own in buffers])
    return found


def hash_file(
    file: fs.Readable, algorithms: Collection[str], own: Buffers, advance: Advance
) -> Hashes:
    """Hash one file by these algorithms, reading it once from front to back."""
    hashers = {name: _hasher(name) for name in algorithms}
    size = file.size
    for start in range(0, size, SPAN_NBYTES):
        block = own.block(0, min(SPAN_NBYTES, size - start))
        file.read_into(start, block)
        for hasher in hashers.values():
            hasher.update(block)
        advance(len(block))
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def _hasher(name: str) -> Any:
    return blake3() if name == "blake3" else hashlib.new(name)
