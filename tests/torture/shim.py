"""Build the layer under libc (`shim.c`), and speak with it from inside the process it is in."""

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FUNCTIONS: Final = (
    *("open", "pread", "read", "pwrite", "write", "fsync", "fdatasync", "ftruncate"),
    *("fallocate", "sync_file_range", "rename", "renameat2", "mkdir", "unlink", "other"),
)
"""What is watched; `pread` is `preadv` too, `unlink` is `rmdir` too, `other` changes names and
modes.
"""
ANY: Final = "any"
KINDS: Final = ("nothing", "fail", "kill-before", "kill-after", "short", "zero", "lie", "delayed")
STEPS: Final = len(FUNCTIONS) + 1
"""Where durable steps are counted, behind the functions and the sum of them."""
FOREVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Trouble:
    """Calls `first`, and `times` in all, of a function go wrong."""

    function: str
    kind: str
    first: int
    times: int = 1
    error: str = ""
    """Of the kind ``fail``: its name in `errno`."""


def why_not() -> str:
    """Why there can be no shim here; empty where there can."""
    if sys.platform != "linux":
        return "it stands under the C library of Linux"
    if shutil.which("cc") is None:
        return "there is no C compiler here"
    return ""


def build(folder: Path) -> Path | None:
    """The shim as a shared library in `folder`; None where it cannot be."""
    if why_not():
        return None
    built = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    options = ("-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-ldl", "-lpthread")
    subprocess.run(["cc", source, "-o", built, *options], check=True)
    return built


class Counts:
    """Counters in a file that the watched process and we have in memory."""

    def __init__(self, path: Path) -> None:
        """Open, made zero."""
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._cells = memoryview(self._shared).cast("Q")

    def read(self) -> dict[str, int]:
        """By function, ``any`` for all, ``steps`` for durable steps."""
        names = (*FUNCTIONS, ANY, "steps")
        return dict(zip(names, self._cells, strict=False))

    def step(self) -> int:
        """Count a durable step; its number."""
        self._cells[STEPS] += 1
        return self._cells[STEPS]

    def clear(self) -> None:
        """Count anew."""
        self._cells[: STEPS + 1] = memoryview(bytes(8 * (STEPS + 1))).cast("Q")

    @property
    def address(self) -> int:
        """Where they are in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._shared))


def arm(folder: Path, counts: Counts, log: Path | None, trouble: Trouble | None) -> None:
    """From now on watch what this process does below `folder`; needs the shim to be loaded."""
    code = errno.EIO
    descriptor = -1 if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    function, kind, first, times = -1, 0, 0, 0
    if trouble is not None:
        function = (*FUNCTIONS, ANY).index(trouble.function)
        kind, first, times = KINDS.index(trouble.kind), trouble.first, trouble.times
        code = getattr(errno, trouble.error or "EIO")
    ctypes.CDLL(None).torture_arm(
        os.fsencode(folder),
        ctypes.c_void_p(counts.address),
        descriptor,
        function,
        ctypes.c_uint64(first),
        ctypes.c_uint64(times),
        kind,
        code,
    )


def shift_clock(seconds: int) -> None:
    """Let the clock of the wall be ahead in this process."""
    ctypes.CDLL(None).torture_shift_clock(ctypes.c_int64(seconds))
