"""What a run needs of the machine, and what the machine has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.plan.exact_record import FORM as EXACT
from weightsmith.plan.model import Plan

SLACK_NBYTES: Final = 2_000_000
"""Room on disk for receipts, index and manifest."""
RUNTIME_NBYTES: Final = 60 * 1024 * 1024
"""The interpreter with NumPy and NumKong loaded; measured at 43 MiB on Linux."""
TORCH_NBYTES: Final = 180 * 1024 * 1024
"""What torch adds to that; measured at 176 MiB with torch 2.13 on Linux."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes needed and bytes available; None where the system does not say."""

    where: Path
    """The directory whose file system will hold the output."""
    disk_nbytes: int
    """Output, and beside it `streamed_nbytes` and `fetched_nbytes` of input files."""
    disk_free_nbytes: int | None
    memory_nbytes: int
    memory_free_nbytes: int | None
    is_at_most: bool = False
    """The output may turn out smaller: what an exact delta takes is known when it is made."""
    streamed_nbytes: int = 0
    """The most that input files take at a time which are fetched, read and dropped."""
    fetched_nbytes: int = 0
    """What the hub's cache takes before, of input files that are fetched and stay."""
    cache: Path | None = None
    """Where it lies, if on another disk than the output; `fetched_nbytes` count there then."""
    cache_free_nbytes: int | None = None


def assess(
    plan: Plan,
    parent: Path,
    *,
    workers: int,
    kept_nbytes: int,
    streamed_nbytes: int = 0,
    fetched_nbytes: int = 0,
    held_nbytes: int = 0,
    cache: Path | None = None,
) -> Needs:
    """Compare the plan with the disk that holds `parent` and with this machine's memory.

    `kept_nbytes` of the output lie in staging already and need no new space; `streamed_nbytes` are
    taken by input files while they are read, `fetched_nbytes` before that and for good, where
    `cache` is. `held_nbytes` of memory the inputs hold while they are read.
    """
    if cache is not None and disk_of(cache) == disk_of(parent):
        cache = None
    beside_nbytes = streamed_nbytes + (fetched_nbytes if cache is None else 0)
    return Needs(
        where=parent,
        disk_nbytes=max(plan.nbytes - kept_nbytes, 0) + beside_nbytes + SLACK_NBYTES,
        is_at_most=plan.delta.form == EXACT or bool(plan.delta.version),
        streamed_nbytes=streamed_nbytes,
        fetched_nbytes=fetched_nbytes,
        cache=cache,
        cache_free_nbytes=fs.free_nbytes(cache) if cache is not None else None,
        disk_free_nbytes=fs.free_nbytes(parent),
        memory_nbytes=_runtime_nbytes(plan) + held_nbytes + workers * _worker_nbytes(plan),
        memory_free_nbytes=available_memory(),
    )


def disk_of(path: Path) -> int:
    """The system's number of the file system that holds a path."""
    return path.stat().st_dev


def _runtime_nbytes(plan: Plan) -> int:
    """What is there before the first tensor is made."""
    return RUNTIME_NBYTES + (TORCH_NBYTES if plan.multiplies else 0)


def _worker_nbytes(plan: Plan) -> int:
    """What the neediest tensor takes."""
    needs = (tensor.rule.memory_nbytes(tensor.work) for tensor in plan.tensors)
    return max(needs, default=SPAN_NBYTES)


def available_memory() -> int | None:
    """Bytes that processes may still take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
