"""Run one command as a process and say what it took: time, CPU, peak memory, bytes moved.

This module, and all that the measuring process imports, must stay small: the kernel counts a
child's peak memory from the fork on, so a measuring process with torch in it would lend every
command its 220 MB (as it is, it lends 16 MB: a figure near that says "less than I can see").
"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """A command line to measure."""

    name: str
    argv: Sequence[str]
    makes: Sequence[Path] = ()
    """Directories that a run leaves behind, to be removed."""
    environment: Mapping[str, str] | None = None
    """Variables set in addition to our own."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run took, with all its children."""

    wall_s: float
    cpu_s: float
    """User and system time."""
    peak_bytes: int
    """Peak resident memory; of the largest single process if there were several."""
    read_bytes: int | None
    """Asked for by read calls, cached or not; mapped files do not count. None: not Linux."""
    written_bytes: int | None
    """Handed to the file system as pages to write. None: not Linux."""
    fetched_bytes: int | None = None
    """Read from the disk, because the page cache did not hold them. None: not Linux."""


class CommandFailed(Exception):
    """A measured command ended with a status other than 0."""


def run(command: Command, log: Path) -> Measurement:
    """Run the command once, timed from start to end; its output goes to the end of `log`.

    Raises: CommandFailed.
    """
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command.argv)}\n".encode())
        output.flush()
        environment = {**os.environ, **(command.environment or {})}
        start = time.perf_counter()
        child = subprocess.Popen(
            command.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        moved = _wait_and_read_io(child.pid)
        wall_s = time.perf_counter() - start
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise CommandFailed(f"{command.name} ended with status {child.returncode}: see {log}")
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return Measurement(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * unit,
        read_bytes=moved.get("rchar"),
        written_bytes=moved.get("write_bytes"),
        fetched_bytes=moved.get("read_bytes"),
    )


def _wait_and_read_io(pid: int) -> dict[str, int]:
    """Wait for the end of a child without reaping it, so that its counters can still be read."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:  # not Linux, or a hardened one
        return {}
    return {key: int(value) for key, value in (line.split(": ") for line in lines)}
