"""What others may do to files while a run is at work; called inside the run, in its area."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from weightsmith.fs import Identity, identity_of

STAGED: Final = ".*.weightsmith-partial/output"


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    """Other bytes, with the size and time that they had before."""
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(found.st_size // 2)
        middle = file.read(1)
        file.seek(found.st_size // 2)
        file.write(bytes([middle[0] ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _replace(path: Path) -> None:
    """Another file, with other bytes, of the same size and time."""
    copy = path.with_name("copy of it")
    shutil.copy2(path, copy)
    _flip(copy)
    copy.replace(path)


def _copy(path: Path) -> None:
    """Another file with the same bytes and time."""
    copy = path.with_name("copy of it")
    shutil.copy2(path, copy)
    copy.replace(path)


def _remove(path: Path) -> None:
    path.unlink()


def _touch(path: Path) -> None:
    os.utime(path)


def _add(path: Path) -> None:
    path.with_name("zz").write_bytes(b"theirs")


def _link_directory(path: Path) -> None:
    """The directory that the file is in becomes a link to what it was."""
    away = Path("tmp") / path.parent.name
    path.parent.rename(away)
    path.parent.symlink_to(away.absolute())


HARMS: Final[dict[str, Callable[[Path], None]]] = {
    "append": _append,
    "truncate": _truncate,
    "flip": _flip,
    "replace": _replace,
    "copy": _copy,
    "remove": _remove,
    "touch": _touch,
    "add": _add,
    "link-directory": _link_directory,
}
INPUT_HARMS: Final = ("append", "truncate", "flip", "replace", "copy", "remove", "touch")


def change(path: str, how: str) -> None:
    """Of one file, which has bytes."""
    HARMS[how](Path(path))


_seen: dict[Path, Identity] = {}


def look() -> None:
    """Note what the unfinished output holds, one step before something is done to it."""
    _seen.update(_staged())


def _staged() -> dict[Path, Identity]:
    """Its files that have bytes; of weight files those with a receipt: the others are at work."""
    found = [each for each in sorted(Path().glob(f"{STAGED}/*")) if each.is_file()]
    return {
        each: identity_of(each.stat())
        for each in found
        if each.stat().st_size and not each.name.endswith(".tmp")
        if each.suffix == ".json" or (each.parents[1] / "receipts" / f"{each.name}.json").exists()
    }


def change_staged(number: str, how: str) -> None:
    """Of a finished file in the unfinished output."""
    found = [each for each, identity in _staged().items() if _seen.get(each) == identity]
    if found:
        HARMS[how](found[int(number) % len(found)])


def fill(path: str) -> None:
    """All the room of a file system is taken, by one file."""
    piece = bytes(64 * 1024)
    with Path(path).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(piece) == len(piece):
            pass


ACTS: Final[dict[str, Callable[..., None]]] = {
    "input": change,
    "staged": change_staged,
    "fill": fill,
}
