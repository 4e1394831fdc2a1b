"""Check torch files against the CRC-32s of their zip.

A torch file is a zip archive, which has a CRC-32 of each member. No loader looks at it; it shows
damage also where no hash of the file is known.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.spans import Advance, Buffers
from weightsmith.formats.stored_zip import Member, StoredZip


@dataclass(frozen=True, slots=True)
class Checksums:
    """The result of checking torch files against their own checksums."""

    checked: int
    """Members that have one."""
    lacking: int
    """Members without one: torch was told not to write them."""
    wrong: tuple[str, ...]
    """Members that are not what they were, as sentences."""


def check_torch_files(
    paths: Iterable[Path], buffers: Sequence[Buffers], advance: Advance
) -> Checksums:
    """Read torch files whole, and hold each of their members against its CRC-32.

    Members are shared out among the workers, one for each set of buffers.
    Memory: one span a worker.
    Raises: DamagedInput, SourceFault, if a file cannot be read as an archive.
    """
    files = [(path, fs.open_for_reading(path)) for path in paths]
    members = [
        (path, file, name, place, crc)
        for path, file in files
        for name, place, crc in StoredZip(file).checksums()
        if place.nbytes
    ]
    wrong: list[str] = []

    def worker(own: Buffers) -> Callable[[int], None]:
        def check(number: int) -> None:
            path, file, name, place, crc = members[number]
            found = 0
            for start in range(0, place.nbytes, SPAN_NBYTES):
                block = own.block(0, min(SPAN_NBYTES, place.nbytes - start))
                file.read_into(place.offset + start, block)
                found = zlib.crc32(block, found)
                advance(len(block))
            if found != crc:
                wrong.append(f"{path.name}: {_content(path, name, place)} do not have their CRC-32")

        return check

    having = [number for number, (*_, crc) in enumerate(members) if crc]
    run_tasks(having, [worker(own) for own in buffers])
    return Checksums(len(having), len(members) - len(having), tuple(sorted(wrong)))


def _content(path: Path, name: str, place: Member) -> str:
    """What a member holds: the tensors in it, else the member itself."""
    tensors = open_weight_file(path.parent, path.name).tensors.values()
    end = place.offset + place.nbytes
    held = [t.info.name for t in tensors if place.offset <= t.stored.offset < end]
    return f"the bytes of {' and '.join(held or [name])}"
