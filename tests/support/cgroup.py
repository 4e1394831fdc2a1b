"""A process that gets so much memory and no more, the page cache of what it reads and writes
included.

Linux counts both for a control group, and ends a process whose group can give nothing back.
Source: Linux, cgroup v1 memory, and cgroup v2 `memory.max`.
"""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Group:
    """A control group below that of this process."""

    path: Path
    peak: Path
    """The file that tells the most that it held."""

    def run(self, line: Sequence[str], **kwargs: object) -> "subprocess.CompletedProcess[str]":
        """Run a program in it."""

        def join() -> None:
            (self.path / "cgroup.procs").write_text(str(os.getpid()))

        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            line, preexec_fn=join, capture_output=True, text=True, check=False, **kwargs
        )

    def peak_nbytes(self) -> int:
        """The most that it held, page cache included."""
        return int(self.peak.read_text())


@contextlib.contextmanager
def limited(nbytes: int) -> Iterator[Group | None]:
    """A group that may hold so many bytes; None where this process may make none."""
    made = _made(nbytes)
    try:
        yield made
    finally:
        if made is not None:
            made.path.rmdir()


def _made(nbytes: int) -> Group | None:
    for where, limit, peak in _places():
        path = where / f"weightsmith-{secrets.token_hex(4)}"
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            (path / limit).write_text(str(nbytes))
        except OSError:
            path.rmdir()
        else:
            return Group(path, path / peak)
    return None


def _places() -> Iterator[tuple[Path, str, str]]:
    """Where a group may be made, and what its files are called."""
    with contextlib.suppress(OSError):
        for each in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = each.split(":", 2)
            if controllers == "memory":
                place = _ROOT / "memory" / path.lstrip("/")
                yield place, "memory.limit_in_bytes", "memory.max_usage_in_bytes"
            elif not controllers:
                yield _ROOT / path.lstrip("/"), "memory.max", "memory.peak"
